"""What an export found: figures of each processor, agreement with the map, and how the header says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from sindyrl.emit.c import TYPES
from sindyrl.export.emulate import Execution, Image
from sindyrl.export.worst_case import instruction_bound

Verified = Literal["emulated", "compiled", "none"]


@dataclasses.dataclass(frozen=True)
class ProcessorFigures:
    """One emulated processor. Instructions are counted from function entry to return, library functions included.

    instructions, instructions_min : most and fewest over the vectors      bound : most over all paths, None if unknown
    library_instructions : the largest part of them outside the function's own source (libm, software floating point)
    code_bytes : .text and .rodata of the source      library_bytes : what the C library's functions add
    data_bytes : .data and .bss, static RAM      stack_bytes : deepest stack written
    """

    processor: str
    instructions: int
    instructions_min: int
    bound: int | None
    library_instructions: int
    code_bytes: int
    library_bytes: int
    data_bytes: int
    stack_bytes: int


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written and what was found. Figures that were not measured are None.

    verified : "compiled" (and compared on this machine), "emulated" (and executed on emulated processors), or "none"
    matches : compared and within the bound on every vector; False only if nothing was verified (a mismatch raises)
    regrouped : whether sums of products were factored for fewer instructions; the function of the reals is the same
    math : "own" functions brought along, "libm", or "none" if no function is called
    max_error, error_bound, max_ulp, overflows, bitwise : see :class:`sindyrl.export.check.Agreement`
    compilers_agree : the second compiler gave equal bits on every vector; None if there is none, or libm is involved
    processors : figures of each emulated processor; c_bytes, library_bytes, m4_instructions and the like are those of
        the first one, by default a Cortex-M4F
    note : why less was verified than could be, else empty
    """

    name: str
    number: str
    files: tuple[Path, ...]
    verified: Verified
    matches: bool
    regrouped: bool = False
    math: str = "none"
    vectors: int = 0
    max_error: float | None = None
    error_bound: float | None = None
    max_ulp: float | None = None
    bitwise: bool | None = None
    compilers_agree: bool | None = None
    overflows: int | None = None
    processors: tuple[ProcessorFigures, ...] = ()
    host_compiler: str | None = None
    cross_compiler: str | None = None
    note: str = ""

    @property
    def c_bytes(self) -> int | None:
        """.text and .rodata on the first processor."""
        return self.processors[0].code_bytes if self.processors else None

    @property
    def library_bytes(self) -> int | None:
        """What a libm adds (zig's), 0 if none is needed."""
        return self.processors[0].library_bytes if self.processors else None

    @property
    def m4_instructions(self) -> int | None:
        """Most per call over the vectors on the first processor."""
        return self.processors[0].instructions if self.processors else None

    @property
    def m4_instructions_min(self) -> int | None:
        """Fewest per call."""
        return self.processors[0].instructions_min if self.processors else None

    @property
    def m4_library_instructions(self) -> int | None:
        """The largest part of them spent in libm."""
        return self.processors[0].library_instructions if self.processors else None

    @property
    def stack_bytes(self) -> int | None:
        """Deepest stack written on the first processor."""
        return self.processors[0].stack_bytes if self.processors else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: files become strings, the first processor's figures stand beside the table."""
        first = ("c_bytes", "library_bytes", "m4_instructions", "m4_instructions_min", "m4_library_instructions")
        return (
            dataclasses.asdict(self)
            | {"files": [str(file) for file in self.files]}
            | {name: getattr(self, name) for name in (*first, "stack_bytes")}
        )


def figures(image: Image, execution: Execution) -> ProcessorFigures:
    """Of the executions of one image."""
    return ProcessorFigures(
        processor=image.processor.name,
        instructions=int(execution.instructions.max()),
        instructions_min=int(execution.instructions.min()),
        bound=instruction_bound(image),
        library_instructions=int(execution.library_instructions.max()),
        code_bytes=image.code_bytes,
        library_bytes=image.library_bytes,
        data_bytes=image.data_bytes,
        stack_bytes=execution.stack_bytes,
    )


def verification_lines(report: ExportReport) -> list[str]:
    """What the header says about checking."""
    if report.verified == "none":
        return [f"Not verified: {report.note}."]
    kind = TYPES.get(report.number)
    ulps = "" if report.max_ulp is None else f" ({report.max_ulp:.3g} ulp)"
    bound = "proven bound" if kind is None else "rounding-error bound"
    lines = [
        f"Verified: compiled by {report.host_compiler} with warnings as errors; compared with the map in float64 on "
        f"{report.vectors} vectors: largest error {report.max_error:.2g}{ulps}, {bound} {report.error_bound:.2g}."
    ]
    if report.bitwise and kind is None:
        lines.append("Every bit equals that of the same integer arithmetic outside C, for any integers.")
    elif report.bitwise:
        lines.append(
            f"Every bit equals NumPy's in {kind} and in the same order, NaN, infinite and denormal inputs included."
        )
    if report.overflows:
        lines.append(f"On {report.overflows} of these vectors the value is beyond {kind} although the map's is finite.")
    if report.compilers_agree:
        lines.append(f"{report.cross_compiler} gives the same bits on this machine.")
    for figures in report.processors:
        lines.append(_emulation(figures, report.cross_compiler))
    if report.verified == "compiled" and report.note:
        lines.append(f"Not executed on an emulated processor: {report.note.rstrip('.')}.")
    return lines


def _emulation(figures: ProcessorFigures, compiler: str | None) -> str:
    fewest, most = figures.instructions_min, figures.instructions
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    bound = "" if figures.bound is None else f", never more than {figures.bound}"
    library = figures.library_instructions
    outside = f" (up to {library} of them in library functions)" if library else ""
    return (
        f"Executed on an emulated {figures.processor}, compiled by {compiler} -O2: {count} instructions per "
        f"call{outside}{bound}, {figures.code_bytes} bytes of code and constants, {figures.data_bytes} of static RAM, "
        f"{figures.stack_bytes} of stack."
    )
