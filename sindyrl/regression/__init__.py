"""Sparse regression: from a library matrix and targets to coefficients."""

from sindyrl.regression.best_subset import BestSubset as BestSubset
from sindyrl.regression.constrained import ConstrainedSTLSQ as ConstrainedSTLSQ
from sindyrl.regression.constraints import Constraints as Constraints
from sindyrl.regression.energy import TrappingSTLSQ as TrappingSTLSQ
from sindyrl.regression.energy import energy_preserving as energy_preserving
from sindyrl.regression.energy import trapping_region as trapping_region
from sindyrl.regression.ensemble import Ensemble as Ensemble
from sindyrl.regression.gram import Gram as Gram
from sindyrl.regression.implicit import FractionPath as FractionPath
from sindyrl.regression.implicit import ImplicitSubset as ImplicitSubset
from sindyrl.regression.stlsq import STLSQ as STLSQ
from sindyrl.regression.subset import SubsetSelection as SubsetSelection
from sindyrl.regression.weak import fit_noisy as fit_noisy
from sindyrl.regression.weak import strong_rows as strong_rows
from sindyrl.regression.weak import weak_form as weak_form
from sindyrl.regression.weak import weak_rows as weak_rows
