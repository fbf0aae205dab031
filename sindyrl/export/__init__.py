"""A closed-form map as C that a firmware engineer would have written, compared and executed before it is in place."""

from __future__ import annotations

from sindyrl.export.angles import raw_angles as raw_angles
from sindyrl.export.artifact import Artifact as Artifact
from sindyrl.export.emulate import PROCESSORS as PROCESSORS
from sindyrl.export.emulate import EmulationUnavailable as EmulationUnavailable
from sindyrl.export.emulate import Execution as Execution
from sindyrl.export.emulate import Image as Image
from sindyrl.export.emulate import Processor as Processor
from sindyrl.export.emulate import ProcessorFault as ProcessorFault
from sindyrl.export.emulate import build_image as build_image
from sindyrl.export.emulate import execute as execute
from sindyrl.export.fixed_point import FixedPlan as FixedPlan
from sindyrl.export.package import to_c as to_c
from sindyrl.export.reporting import ExportReport as ExportReport
from sindyrl.export.stateful import StatefulMap as StatefulMap
from sindyrl.export.stateful import delay as delay
from sindyrl.export.stateful import extended_kalman_filter as extended_kalman_filter
from sindyrl.export.stateful import filtered_derivative as filtered_derivative
from sindyrl.export.stateful import with_memory as with_memory
from sindyrl.export.targets import TARGETS as TARGETS
from sindyrl.export.targets import write_target as write_target
from sindyrl.export.toolchain import ExportError as ExportError
