r"""Small models by best-subset search: which few columns explain a target, and how many are worth having.

For every size ``k`` the search looks for the ``k`` columns with the smallest residual ``|y - theta_S w|^2``: greedily
one more column, then exchanges of one column for another until none helps. All of it works on one Gram matrix by the
sweep operator, which brings a column into the regression, or takes it out again, in ``p^2`` operations and leaves the
gain of every further column on display.

The size is chosen by cross-validation over contiguous blocks of rows, comparing sizes **fold by fold** on a logarithmic
scale: the smallest size whose error is, within one standard error of the paired differences, as low as the best. Folds
of one short recording differ by orders of magnitude (swinging is harder to predict than hanging), and neither the mean
over folds nor its plain standard error can tell anything then; the paired logarithm can.

References: Miller, Subset Selection in Regression, 2002 (sweeps, sequential replacement); Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3 (one-standard-error rule).
"""

from __future__ import annotations

import dataclasses
import functools
import operator

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.number_check import check_number, whole
from sindyrl.regression.gram import Gram, weighted_grams

__all__ = ["SubsetPath", "SubsetSelection", "subset_path"]

_RIDGE = 1e-12  # on unit columns: keeps exactly dependent ones apart without moving any digit that matters
_FLOOR = 1e-20  # of the target's energy: below this, errors are rounding and do not count
_RELATIVE_GAIN = 1e-9  # an exchange must lower the residual by more than rounding, or it could cycle


@dataclasses.dataclass(frozen=True)
class SubsetPath:
    """The best supports found for one target, by size.

    supports : for each size, from ``min_terms`` on: column indices, ascending
    errors : (size, fold) squared cross-validation error relative to the fold's target energy
    chosen : index into ``supports``
    """

    supports: tuple[tuple[int, ...], ...]
    errors: np.ndarray
    chosen: int

    @property
    def support(self) -> tuple[int, ...]:
        return self.supports[self.chosen] if self.supports else ()

    @property
    def error(self) -> float:
        """Median over the folds of the relative root-mean-square error at the chosen size."""
        return float(np.sqrt(np.median(self.errors[self.chosen]))) if self.supports else 1.0


def subset_path(gram: Gram, target: int, max_terms: int) -> tuple[tuple[int, ...], ...]:
    """The best supports of size 1 ... ``max_terms`` found by greedy addition and exchange for one target.

    Columns that are zero, or that the chosen ones already span, never enter.
    """
    scale = np.sqrt(np.diag(gram.matrix))
    usable = scale > 0
    scale = np.where(usable, scale, 1.0)
    p, energy = len(scale), float(gram.energy[target])
    if energy <= 0:
        return ()
    table = np.zeros((p + 1, p + 1))
    table[:p, :p] = gram.matrix / np.outer(scale, scale)
    table[np.arange(p), np.arange(p)] += _RIDGE
    table[:p, p] = table[p, :p] = gram.moment[:, target] / (scale * np.sqrt(energy))
    table[p, p] = 1.0

    chosen: list[int] = []
    supports = []
    for _ in range(min(max_terms, int(usable.sum()))):
        best, gain = _best_addition(table, chosen, usable)
        if gain <= 0:
            break
        _sweep(table, best)
        chosen.append(best)
        if len(chosen) > 1:
            table = _exchange(table, chosen, usable)
        supports.append(tuple(sorted(chosen)))
    return tuple(supports)


def _sweep(table: np.ndarray, k: int) -> None:
    """Bring column ``k`` into the regression, or take it out again: the operation is its own inverse."""
    pivot = table[k, k]
    row, column = table[k] / pivot, table[:, k] / pivot
    table -= np.outer(table[:, k], row)
    table[k] = row
    table[:, k] = -column
    table[k, k] = 1.0 / pivot


def _best_addition(table: np.ndarray, chosen: list[int], usable: np.ndarray) -> tuple[int, float]:
    """The column with the largest drop of the residual, and that drop relative to the target's energy."""
    p = len(usable)
    pivots = np.diag(table)[:p]
    allowed = usable & (pivots > 1e3 * _RIDGE)
    allowed[chosen] = False
    if not allowed.any():
        return -1, 0.0
    gains = np.where(allowed, table[:p, p] ** 2 / np.where(allowed, pivots, 1.0), 0.0)
    best = int(gains.argmax())
    return best, float(gains[best])


def _exchange(table: np.ndarray, chosen: list[int], usable: np.ndarray) -> np.ndarray:
    """Replace one chosen column by another as long as that lowers the residual; ``chosen`` is updated in place."""
    improved = True
    while improved:
        improved = False
        for position, leaving in enumerate(list(chosen)):
            trial = table.copy()
            _sweep(trial, leaving)
            rest = chosen[:position] + chosen[position + 1 :]
            entering, gain = _best_addition(trial, rest, usable)
            if entering < 0 or entering == leaving:
                continue
            if trial[-1, -1] - gain < table[-1, -1] * (1.0 - _RELATIVE_GAIN):
                _sweep(trial, entering)
                table, chosen[position], improved = trial, entering, True
                break
    return table


def paired_choice(errors: np.ndarray) -> int:
    """The smallest size as good as the best one, fold by fold; ``errors`` (size, fold)."""
    logs = np.log(np.maximum(errors, _FLOOR))
    best = int(logs.mean(axis=1).argmin())
    difference = logs - logs[best]
    spread = difference.std(axis=1, ddof=1) / np.sqrt(errors.shape[1])
    return int(np.flatnonzero(difference.mean(axis=1) <= spread)[0])


class SubsetSelection(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Least squares on the few columns that cross-validation can tell are needed.

    Parameters
    ----------
    max_terms : int, default 5
        Most columns per target.
    folds : int, default 5
        Contiguous blocks of rows, each predicted from the others.
    min_terms : int, default 1
        Fewest columns per target, 0 or 1. With 0 the empty equation takes part in the choice of the size, and a target
        that no column predicts gets none.

    Attributes
    ----------
    coef_ : (target, feature), or (feature,) for one-dimensional ``y``
    paths_ : one `SubsetPath` per target
    n_features_in_ : int

    With fewer than two rows per fold there are fewer folds; with fewer than four rows there is no choice of the size.
    Raises ValueError for wrong parameters, NaN or infinity.
    """

    def __init__(self, max_terms: int = 5, folds: int = 5, min_terms: int = 1) -> None:
        self.max_terms = max_terms
        self.folds = folds
        self.min_terms = min_terms

    def fit(self, X: np.ndarray, y: np.ndarray) -> SubsetSelection:
        self._check_parameters()
        theta, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        targets = np.asarray(y, dtype=np.float64).reshape(len(theta), -1)
        folds = min(self.folds, len(theta) // 2) if len(theta) < 2 * self.folds else self.folds
        total = Gram.from_rows(theta, targets)
        blocks = [] if folds < 2 else np.array_split(np.arange(len(theta)), folds)
        grams = [Gram.from_rows(theta[block], targets[block]) for block in blocks]
        # Summed rather than subtracted from the whole: a column that lives in one block only must come out as zero.
        parts = [functools.reduce(operator.add, grams[:k] + grams[k + 1 :]) for k in range(len(grams))]
        self.paths_ = tuple(
            self._path(total, parts, theta, targets, blocks, target) for target in range(targets.shape[1])
        )
        coef = np.zeros((targets.shape[1], theta.shape[1]))
        for target, path in enumerate(self.paths_):
            coef[target] = _refit(theta, targets[:, target], path.support)
        self.coef_ = coef if np.ndim(y) > 1 else coef[0]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        theta = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(theta @ self.coef_.T)

    def _check_parameters(self) -> None:
        for name, least in (("max_terms", 1), ("folds", 2)):
            wanted = f"an integer of at least {least}"
            check_number(f"SubsetSelection({name}=...)", getattr(self, name), wanted, whole(least))
        check_number("SubsetSelection(min_terms=...)", self.min_terms, "0 or 1", whole(0, 1))

    def _path(
        self,
        total: Gram,
        parts: list[Gram],
        theta: np.ndarray,
        targets: np.ndarray,
        blocks: list[np.ndarray],
        target: int,
    ) -> SubsetPath:
        supports = subset_path(total, target, self.max_terms)
        if not supports or not parts:
            return SubsetPath(supports, np.zeros((len(supports), 1)), len(supports) - 1)
        errors = np.ones((len(supports), len(parts)))
        # One yardstick for all folds: a fold in which little happens must not look hard to predict.
        scale = max(float(total.energy[target]) / len(theta), np.finfo(float).tiny)
        for fold, (part, block) in enumerate(zip(parts, blocks, strict=True)):
            rest = np.setdiff1d(np.arange(len(theta)), block, assume_unique=True)
            trained = subset_path(part, target, len(supports))
            for size in range(len(supports)):
                support = trained[min(size, len(trained) - 1)] if trained else ()
                w = _refit(theta[rest], targets[rest, target], support)
                errors[size, fold] = np.mean((targets[block, target] - theta[block] @ w) ** 2) / scale
        if self.min_terms == 0:
            empty = [np.mean(targets[block, target] ** 2) / scale for block in blocks]
            supports, errors = ((), *supports), np.vstack([empty, errors])
        return SubsetPath(supports, errors, paired_choice(errors))


def _refit(theta: np.ndarray, y: np.ndarray, support: tuple[int, ...]) -> np.ndarray:
    """Least squares on the support by orthogonal factorization, with unit columns; (feature,)."""
    w = np.zeros(theta.shape[1])
    if support:
        columns = theta[:, list(support)]
        length = np.linalg.norm(columns, axis=0)
        length[length == 0] = 1.0
        w[list(support)] = np.linalg.lstsq(columns / length, y, rcond=None)[0] / length
    return w


def bootstrap_refits(
    theta: np.ndarray, y: np.ndarray, coef: np.ndarray, n_members: int, rng: np.random.Generator
) -> np.ndarray:
    """Coefficients of ``n_members`` row bootstraps on the support of ``coef``; (member, target, feature).

    Member 0 is ``coef`` itself. The spread of the others is the sampling error of the coefficients, given the support.
    """
    members = np.repeat(coef[None], n_members, axis=0)
    if n_members > 1:
        weights = rng.multinomial(len(theta), np.full(len(theta), 1.0 / len(theta)), size=n_members - 1)
        for member, gram in enumerate(weighted_grams(theta, y, weights.astype(np.float64)), start=1):
            for target in range(len(coef)):
                support = np.flatnonzero(coef[target])
                if len(support):
                    members[member, target, support] = gram.solve(support, np.array([target]))[0]
    return members


def inclusion_by_bootstrap(
    theta: np.ndarray, y: np.ndarray, sizes: list[int], n_members: int, rng: np.random.Generator
) -> np.ndarray:
    """How often each column is among the best ``sizes[target]`` of a row bootstrap; (target, feature) in [0, 1]."""
    counts = np.zeros((y.shape[1], theta.shape[1]))
    weights = rng.multinomial(len(theta), np.full(len(theta), 1.0 / len(theta)), size=n_members)
    for gram in weighted_grams(theta, y, weights.astype(np.float64)):
        for target, size in enumerate(sizes):
            supports = subset_path(gram, target, size) if size else ()
            if supports:
                counts[target, list(supports[-1])] += 1.0
    return counts / n_members
