"""How sparse?  The threshold of STLSQ chosen by cross-validation.

The path from the full library to nothing, as the threshold rises, is followed once on all rows and once without each
fold; the error on the left-out rows says how far to go.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from sindyrl.number_check import check_number, whole
from sindyrl.regression.gram import MAX_CONDITION, Factor, Gram, Problem
from sindyrl.regression.stlsq import STLSQ

__all__ = ["Path", "Selection", "select_threshold"]

RULES = ("one_standard_error", "paired", "minimum")
_MAX_CANDIDATES = 100
_FLOOR = 1e-24  # mean square errors this far below the largest are rounding


@dataclass(frozen=True, eq=False)
class Path:
    """One target from its largest to its smallest support.

    supports : index tuples of the terms at each step, fitted on all rows
    coef : (step, feature), least squares on all rows
    error_mean, error_std : (step,), mean and standard deviation over folds of the mean square error on left-out rows
    thresholds : (step,)
    chosen : the step taken
    """

    supports: tuple[tuple[int, ...], ...]
    coef: np.ndarray
    error_mean: np.ndarray
    error_std: np.ndarray
    thresholds: np.ndarray
    chosen: int

    @property
    def n_terms(self) -> np.ndarray:
        """Number of terms at each step, (step,)."""
        return np.array([len(support) for support in self.supports])


@dataclass(frozen=True, eq=False)
class Selection:
    """The paths of all targets and what was chosen on them."""

    paths: tuple[Path, ...]
    folds: int
    rule: str

    @property
    def coef(self) -> np.ndarray:
        """Chosen coefficients, (target, feature)."""
        return np.array([path.coef[path.chosen] for path in self.paths])

    @property
    def support(self) -> np.ndarray:
        """Chosen terms, bool (target, feature)."""
        return self.coef != 0

    @property
    def supports(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the chosen terms of each target."""
        return tuple(path.supports[path.chosen] for path in self.paths)

    @property
    def threshold(self) -> np.ndarray:
        """Chosen threshold of each target, to be given to ``STLSQ(threshold=...)``."""
        return np.array([path.thresholds[path.chosen] for path in self.paths])

    @property
    def error(self) -> np.ndarray:
        """Cross-validated mean square error of the choice, (target,)."""
        return np.array([path.error_mean[path.chosen] for path in self.paths])


def select_threshold(
    theta: Any,
    y: Any,
    thresholds: Any = None,
    *,
    base: STLSQ | None = None,
    folds: int = 5,
    rule: str = "one_standard_error",
    rng: np.random.Generator | None = None,
    groups: Any = None,
) -> Selection:
    """Threshold of STLSQ for each target by K-fold cross-validation.

    theta : (sample, feature)   y : (sample,) or (sample, target)
    thresholds : candidates for all targets; None takes those at which the support changes, for each target its own
    base : the STLSQ whose other settings are used, and whose unit the thresholds are in; None means ``STLSQ()``
    folds : number of parts left out in turn; contiguous runs of rows, because neighboring samples are alike
    rng : draws rows (or groups) into folds at random instead
    rule : "one_standard_error" takes the smallest support whose error is within one standard error of the
        least; "paired" compares the logarithms of the errors fold by fold with those of the best, and takes the
        smallest support whose mean excess is within its standard error: for folds that are unequally
        hard, as those of one short recording are; "minimum" takes the least
    groups : (sample,) labels such as the episode; a group is never split between folds

    Raises ValueError for shapes that do not fit, NaN, fewer rows or groups than folds, an unknown rule.
    """
    theta, y = _checked(theta, y)
    base = STLSQ() if base is None else base
    fold_rows = _fold_rows(len(theta), folds, rng, groups)
    _check_rule(rule)
    every, training = _problems(theta, y, fold_rows)
    candidates = _candidate_thresholds(base, every) if thresholds is None else _given_thresholds(thresholds, y)
    coef = np.stack([_fit(base, every, row) for row in candidates])
    errors = np.empty((len(fold_rows), *coef.shape[:2]))
    for fold, (rows, problem) in enumerate(zip(fold_rows, training, strict=True)):
        for step, row in enumerate(candidates):
            errors[fold, step] = ((theta[rows] @ _fit(base, problem, row).T - y[rows]) ** 2).mean(axis=0)
    paths = []
    for target in range(y.shape[1]):
        supports = tuple(tuple(np.flatnonzero(w).tolist()) for w in coef[:, target])
        sizes = np.array([len(support) for support in supports])
        paths.append(_path(supports, coef[:, target], errors[:, :, target], candidates[:, target], sizes, rule))
    return Selection(tuple(paths), len(fold_rows), rule)


def _problems(theta: np.ndarray, y: np.ndarray, fold_rows: Sequence[np.ndarray]) -> tuple[Problem, list[Problem]]:
    """The problem of all rows, and of all rows but those of each fold."""
    parts = [Gram.from_rows(theta[rows], y[rows]) for rows in fold_rows]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    none = np.array([], dtype=int)
    problems: list[Problem] = []
    for gram, rows in zip([total, *(total - part for part in parts)], [none, *fold_rows], strict=True):
        # Differences of sums lose digits, and one factorization a fold costs little.
        if gram.condition() <= MAX_CONDITION / 100:
            problems.append(gram)
        else:
            problems.append(Factor.from_rows(np.delete(theta, rows, axis=0), np.delete(y, rows, axis=0)))
    return problems[0], problems[1:]


def _fit(base: STLSQ, problem: Problem, thresholds: np.ndarray) -> np.ndarray:
    return clone(base).set_params(threshold=thresholds).fit_problem(problem).coef


def _candidate_thresholds(base: STLSQ, problem: Problem) -> np.ndarray:
    """Thresholds (step, target) between those at which the support on all rows changes, ascending from zero."""
    n_targets = problem.shape[0]
    unit = clone(base).set_params(threshold=1.0).coefficient_thresholds(problem)
    threshold = np.zeros(n_targets)
    jumps: list[list[float]] = [[] for _ in range(n_targets)]
    for _ in range(problem.shape[1]):
        with np.errstate(invalid="ignore"):  # a zero target has unit zero and no term above it
            magnitude = np.abs(_fit(base, problem, threshold)) / unit
        smallest = np.where(magnitude > 0, magnitude, np.inf).min(axis=1)
        if not np.isfinite(smallest).any():
            break
        for target in np.flatnonzero(np.isfinite(smallest)):
            jumps[target].append(float(smallest[target]))
            threshold[target] = smallest[target] * (1 + 1e-9)  # beyond the rounding of the change of unit
    columns = [_between(sorted(values)) for values in jumps]
    longest = max(map(len, columns))
    return np.array([column + [column[-1]] * (longest - len(column)) for column in columns]).T


def _between(jumps: list[float]) -> list[float]:
    """Zero, the geometric means of neighboring jumps, and a value beyond the last (which empties the support)."""
    if not jumps:
        return [0.0]
    middle = [math.sqrt(low) * math.sqrt(high) for low, high in itertools.pairwise(jumps)]
    candidates = [0.0, *middle, jumps[-1] * 2]
    if len(candidates) <= _MAX_CANDIDATES:
        return candidates
    chosen = np.linspace(0, len(candidates) - 1, _MAX_CANDIDATES).round().astype(int)
    return [candidates[index] for index in chosen]


def _given_thresholds(thresholds: Any, y: np.ndarray) -> np.ndarray:
    values = np.unique(np.asarray(thresholds, dtype=np.float64))
    if not values.size or not (values >= 0).all():
        raise ValueError(f"`select_threshold(thresholds=...)` must be non-negative numbers. Got {thresholds!r}.")
    return np.repeat(values[:, None], y.shape[1], axis=1)


def _path(
    supports: tuple[tuple[int, ...], ...],
    coef: np.ndarray,
    errors: np.ndarray,
    thresholds: np.ndarray,
    sizes: np.ndarray,
    rule: str,
) -> Path:
    """errors : (fold, step), steps from the largest support to the smallest"""
    mean, deviation = errors.mean(axis=0), errors.std(axis=0, ddof=1)
    if rule == "paired":
        # Errors below rounding of the largest are equal, not infinitely different.
        logarithms = np.log(np.maximum(errors, max(errors.max(), np.finfo(float).tiny) * _FLOOR))
        excess = logarithms - logarithms[:, [_last_least(logarithms.mean(axis=0))]]
        within = np.flatnonzero(excess.mean(axis=0) <= excess.std(axis=0, ddof=1) / math.sqrt(len(errors)))
    else:
        best = _last_least(mean)
        allowance = deviation[best] / math.sqrt(len(errors)) if rule == "one_standard_error" else 0.0
        within = np.flatnonzero(mean <= mean[best] + allowance)
    chosen = int(within[np.lexsort((-within, sizes[within]))[0]])
    return Path(supports, coef, mean, deviation, thresholds, chosen)


def _last_least(values: np.ndarray) -> int:
    """Index of the least value; of equals the last, which on a path is the sparsest."""
    return len(values) - 1 - int(np.argmin(values[::-1]))


def _fold_rows(n: int, folds: int, rng: np.random.Generator | None, groups: Any) -> list[np.ndarray]:
    """Row indices of each fold; see `select_threshold` for the rules."""
    folds = check_number("folds=", folds, "an integer of at least 2", whole(2))
    labels = np.arange(n) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"`groups=` must have {n} entries, one for each row. Got shape {labels.shape}.")
    _, first, group_of_row = np.unique(labels, return_index=True, return_inverse=True)
    if len(first) < folds:
        raise ValueError(
            f"`folds=` must be at most the number of {'rows' if groups is None else 'groups'}, {len(first)}. "
            f"Got {folds}."
        )
    order = np.argsort(first) if rng is None else rng.permutation(len(first))
    return [np.flatnonzero(np.isin(group_of_row, part)) for part in np.array_split(order, folds)]


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"`rule=` must be one of {', '.join(RULES)}. Got {rule!r}.")


def _checked(theta: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    theta, y = np.asarray(theta, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if theta.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(theta):
        raise ValueError(
            "`theta` must be (sample, feature) and `y` (sample,) or (sample, target) with as many rows. "
            f"Got {theta.shape} and {y.shape}."
        )
    for name, array in (("theta", theta), ("y", y)):
        if not np.isfinite(array).all():
            where = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"`{name}` must be finite. Entry {where} is {array[where]}.")
    return theta, y.reshape(len(y), -1)
