"""Sparse regression: from a library matrix and targets to coefficients."""

from sindyrl.regression.ensemble import Ensemble as Ensemble
from sindyrl.regression.gram import Gram as Gram
from sindyrl.regression.stlsq import STLSQ as STLSQ
from sindyrl.regression.subset import SubsetSelection as SubsetSelection
