"""Two predictions of the same few steps, carried on as the measurements come in: which model would have been right?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sindyrl.library import Library

__all__ = ["PredictionWindow", "SparseRates"]

_FLOOR = 1e-18  # of the squared width of the data: prediction errors below are rounding, and equal
_WORST = 1e4  # in the same unit: a prediction that diverged is this bad, and not infinitely so


@dataclasses.dataclass(frozen=True, eq=False)
class SparseRates:
    """Sparse rates in a form that is quick to evaluate once, without compiling anything.

    coef : (target, feature)   used : indices of the features in use   terms : the library of these only
    """

    coef: np.ndarray
    used: np.ndarray
    terms: Library

    def rates(self, variables: Sequence[Any]) -> list[Any]:
        return list(self.coef[:, self.used] @ self.terms.features(np.array(variables)))


Step = Callable[[SparseRates, np.ndarray, np.ndarray], np.ndarray]


class PredictionWindow:
    """Predictions from one measured state, by two models with the coefficients that they have then.

    x : (state,) measured   sparse : one model   linear : (state, 1 + state + input), the other: ``x_next - x`` from
        ``1, x, u``
    """

    def __init__(self, x: np.ndarray, sparse: SparseRates, linear: np.ndarray) -> None:
        self.sparse, self.linear, self.steps = x, x, 0
        self._sparse_model, self._linear_model = sparse, linear

    def advance(self, step: Step, u: np.ndarray) -> None:
        """Carry both predictions on by a step under the input u (input,); ``step`` is how sparse rates advance."""
        self.steps += 1
        with np.errstate(all="ignore"):  # a prediction may diverge
            self.sparse = step(self._sparse_model, self.sparse, u)
            self.linear = self.linear + self._linear_model @ np.concatenate([[1.0], self.linear, u])

    def errors(self, x: np.ndarray, width: np.ndarray) -> tuple[float, float]:
        """Mean squares over the states of (sparse, linear) minus the measured x, in units of width (state,)."""
        return _error((self.sparse - x) / width), _error((self.linear - x) / width)


def _error(relative: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        squared = float(np.mean(relative**2))
    return min(max(squared, _FLOOR), _WORST) if math.isfinite(squared) else _WORST
