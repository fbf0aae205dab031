r"""Sums over rows that fade: recursive least squares with exponential forgetting, which rests when nothing is learned.

With a factor ``lambda`` per row, the sums of `gram` after row ``k`` are those of all rows with weights:

    G_k = sum_i w_i theta_i theta_i',   w_i = lambda^(k - i)    (memory 1 / (1 - lambda) rows, half-life ln 2 of that)

so that every fit to them is *exactly* weighted least squares on all rows so far, at a cost that does not grow.

Where the system rests, plain forgetting "winds up": ``G`` decays to nothing in every direction that is not excited, and
the next disturbance writes noise into the coefficients. Here forgetting has to be paid for. By the determinant lemma
one row changes the logarithm of the volume of the information by ``log(1 + h / lambda) + r log(lambda)`` with leverage
``h = theta' G^-1 theta`` and ``r = rank(G)``. While this keeps the volume within ``floor^r`` of its largest, the row is
taken up and the rest forgets; otherwise nothing is forgotten, and the row is taken up only if it still teaches more
than one of the memory's rows of its own kind would, ``h >= 1 - lambda``. The weights are then the products of the
factors applied since, and zero for rows not taken up: the result is still weighted least squares, with known weights.

References: Ljung, System Identification, 1999, section 11.2 (forgetting); Astrom and Wittenmark, Adaptive Control,
1995, section 11.5 (wind-up and conditional updating).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.linalg import lapack

from sindyrl.regression.gram import Factor, Gram, Problem
from sindyrl.regression.streaming import extend

__all__ = ["Fading", "Forgetting", "discount", "information_matrix", "leverage", "residual_problem", "solve_all"]

_RESOLUTION = 1e-10  # of unit columns: a direction with less information than this share counts as unknown


def discount(sums: Problem, factor: float) -> Problem:
    """The same rows, each with its weight multiplied by ``factor``."""
    if isinstance(sums, Factor):
        root = math.sqrt(factor)
        return Factor(root * sums.r, root * sums.z, factor * sums.energy, factor * sums.n)
    assert isinstance(sums, Gram)
    return Gram(factor * sums.matrix, factor * sums.moment, factor * sums.energy, factor * sums.n)


def information_matrix(sums: Problem) -> np.ndarray:
    """``sum_i w_i theta_i theta_i'``, (feature, feature)."""
    if isinstance(sums, Factor):
        return np.asarray(sums.r.T @ sums.r)
    assert isinstance(sums, Gram)
    return sums.matrix


def solve_all(sums: Problem) -> np.ndarray:
    """Coefficients (target, feature) of all targets on all columns; the shortest ones if columns depend on others."""
    targets, columns = sums.shape
    return sums.solve(np.arange(columns), np.arange(targets))


def residual_problem(sums: Problem, coef: np.ndarray, target: int) -> Problem:
    """The problem of one target less ``theta coef``, coef (feature,); its energy is left as that of the target."""
    energy = sums.energy[[target]]
    if isinstance(sums, Factor):
        return Factor(sums.r, sums.z[:, [target]] - (sums.r @ coef)[:, None], energy, sums.n)
    assert isinstance(sums, Gram)
    return Gram(sums.matrix, sums.moment[:, [target]] - (sums.matrix @ coef)[:, None], energy, sums.n)


def leverage(information: np.ndarray, row: np.ndarray) -> float:
    """``theta' G^-1 theta`` of a row (feature,); a direction not seen before counts for much.

    The variance of a prediction at that row is this many times the variance of one residual.
    """
    triangle, scale = _triangle(information)
    scaled = row / scale
    return float(scaled @ lapack.dpotrs(triangle, scaled, lower=1)[0])


def _leverage_and_rank(information: np.ndarray, row: np.ndarray) -> tuple[float, float]:
    """`leverage`, and the number of directions about which something is known."""
    triangle, scale = _triangle(information)
    scaled = row / scale
    h = float(scaled @ lapack.dpotrs(triangle, scaled, lower=1)[0])
    inverse = lapack.dpotri(triangle, lower=1)[0]
    return h, len(row) - _RESOLUTION * float(inverse.trace())


def _triangle(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factor with unit columns, positive definite to the resolution, and the columns' scale."""
    scale = np.sqrt(information.diagonal())
    scale[scale == 0] = 1.0
    unit = information / (scale[:, None] * scale)
    unit.flat[:: len(unit) + 1] += _RESOLUTION
    return lapack.dpotrf(unit, lower=1)[0], scale


@dataclasses.dataclass(frozen=True, eq=False)
class Fading:
    """What is kept of the rows so far; a value, as returned by `Forgetting.take`.

    sums : `Gram` or `Factor` of the weighted rows; its ``n`` is the sum of the weights, the effective number of rows
    lost : how far the logarithm of the volume of the information is below its largest, at least 0
    forgot, taken : whether the last row made the others fade, and whether it was taken up itself
    """

    sums: Problem
    lost: float = 0.0
    forgot: bool = True
    taken: bool = True


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Exponential forgetting with a floor under the information; see the module text.

    factor : ``lambda`` in (0, 1]; 1 never forgets
    floor : by which factor the information may fall, on average over its directions, before forgetting rests;
        infinity forgets always (and winds up)

    Raises ValueError for values out of range.
    """

    factor: float = 1.0
    floor: float = 100.0

    def __post_init__(self) -> None:
        if not 0.0 < self.factor <= 1.0:
            raise ValueError(f"`Forgetting(factor=...)` must be above 0 and at most 1. Got {self.factor}.")
        if not self.floor > 1.0:
            raise ValueError(f"`Forgetting(floor=...)` must be above 1. Got {self.floor}.")

    @classmethod
    def from_half_life(cls, half_life: float | None, dt: float, floor: float = 100.0) -> Forgetting:
        """``factor = 2^(-dt / half_life)``, both in seconds; None never forgets."""
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"`Forgetting.from_half_life(dt=...)` must be a positive number of seconds. Got {dt}.")
        if half_life is None:
            return cls(1.0, floor)
        if not (math.isfinite(half_life) and half_life >= dt):
            raise ValueError(
                f"`half_life=` must be None or a number of seconds, at least one step of {dt:g} s. Got {half_life}."
            )
        return cls(2.0 ** (-dt / half_life), floor)

    @property
    def memory(self) -> float:
        """Sum of the weights of infinitely many rows, ``1 / (1 - factor)``."""
        return math.inf if self.factor == 1.0 else 1.0 / (1.0 - self.factor)

    def take(self, before: Fading | None, theta: np.ndarray, y: np.ndarray) -> Fading:
        """Take up theta (sample, feature) and y (sample, target), the oldest first; None starts with no rows.

        The result does not depend on how rows are divided into calls. Time does not depend on the rows before.
        """
        if self.factor == 1.0 or math.isinf(self.floor):
            return self._take_all(before, theta, y)
        for row, target in zip(theta, y, strict=True):
            before = self._take_one(before, row, target)
        if before is None:
            raise ValueError("`Forgetting.take(theta=...)` must hold at least one row at the start. Got none.")
        return before

    def _take_all(self, before: Fading | None, theta: np.ndarray, y: np.ndarray) -> Fading:
        """No floor: the weights are known beforehand."""
        weights = self.factor ** np.arange(len(theta) - 1, -1, -1.0)
        root = np.sqrt(weights)[:, None]
        old = None if before is None else discount(before.sums, self.factor ** len(theta))
        return Fading(_extended(old, root * theta, root * y, float(weights.sum())))

    def _take_one(self, before: Fading | None, row: np.ndarray, target: np.ndarray) -> Fading:
        theta, y = row[None], target[None]
        if before is None:
            return Fading(_extended(None, theta, y, 1.0))
        h, rank = _leverage_and_rank(information_matrix(before.sums), row)
        gain, cost = math.log1p(h / self.factor), -rank * math.log(self.factor)
        lost = max(0.0, before.lost + cost - gain)
        if lost <= rank * math.log(self.floor):
            return Fading(_extended(discount(before.sums, self.factor), theta, y, 1.0), lost)
        if h >= 1.0 - self.factor:
            return Fading(_extended(before.sums, theta, y, 1.0), max(0.0, before.lost - math.log1p(h)), forgot=False)
        return dataclasses.replace(before, forgot=False, taken=False)


def _extended(old: Problem | None, theta: np.ndarray, y: np.ndarray, weight: float) -> Problem:
    """`extend`, with the number of rows as the sum of their weights."""
    new, _ = extend(old, theta, y)
    n = weight if old is None else old.n + weight
    return dataclasses.replace(new, n=n)  # type: ignore[type-var]
