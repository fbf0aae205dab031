"""Ensembles of sparse regressions: the spread of a fit over resampled rows and left-out columns."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.number_check import check_number, whole
from sindyrl.regression.gram import (
    MAX_CONDITION,
    Gram,
    PartSums,
    Problem,
    block_sums,
    deal,
    least_squares_problem,
    orthogonal_factors,
    weighted_factors,
    weighted_grams,
)
from sindyrl.regression.intervals import PredictionIntervals, noise_variance
from sindyrl.regression.stlsq import STLSQ
from sindyrl.regression.streaming import check_targets, residual_squares

__all__ = ["Ensemble", "bootstrap_counts", "fit_members"]

# Parts kept for a block bootstrap. The spread over this many is known to 1 / sqrt(2 * 255) = 4 %.
_MOST_PARTS = 256
_SUMS = ("matrix", "moment", "energy", "n")


def _works_on_sums(base: Any) -> bool:
    return hasattr(base, "fit_problem") and not getattr(base, "needs_rows", False)


def _is_streaming(ensemble: Ensemble) -> bool:
    return ensemble.bootstrap == "blocks" and (ensemble.base is None or _works_on_sums(ensemble.base))


class Ensemble(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Many fits of one sparse regressor, on resampled rows and on libraries short of some columns.

    Each member sees rows drawn with replacement and all but ``drop_columns`` randomly chosen columns (the same for all
    its targets; their coefficients are zero).  Drawing rows with replacement is exactly a fit with integer weights,
    so the members share one pass over the products of columns.

    ``bootstrap="blocks"`` draws runs of consecutive rows instead, which keeps the correlation of neighboring samples.
    Its members are sums of partial Gram sums, formed once: much faster, and rows may come in parts (`partial_fit`).
    Blocks beyond 256 are dealt in turn to 256 parts, which are what is drawn; memory then no longer grows.

    Parameters
    ----------
    base : estimator, default None
        What is fitted; None means ``STLSQ()``.  `STLSQ` and `BestSubset` run on weighted Gram sums; any other
        regressor with ``coef_`` and without intercept is fitted row by row.
    n_members : int, default 20
    bootstrap : "rows", "blocks" or None, default "rows"
        What is drawn with replacement; with None every member sees all rows once.
    max_samples : float in (0, 1], default 1.0
        Rows, or blocks, drawn for a member, as a share of those there are.  Members of fewer rows spread more, by
        ``1 / sqrt(max_samples)``: their spread is then no standard error of the coefficients.
    block_length : int, default None
        Rows in a block; None takes the cube root of the number of rows, of the first call with `partial_fit`.
    drop_columns : int, default 0
        Number of columns each member does without.
    aggregate : "median" or "mean", default "median"
        What `predict` uses.
    random_state : int, numpy Generator, RandomState or None, default None
        The source of all draws.  None draws fresh entropy; no global generator is touched.

    Attributes
    ----------
    coef_ : ndarray (n_members, n_targets, n_features), or (n_members, n_features) if y has one axis
    inclusion_ : ndarray (n_targets, n_features) or (n_features,)
        Share of the members in which the coefficient is not zero.
    aggregate_coef_ : ndarray of the same shape; the median or mean over members
    converged_ : bool ndarray (n_members,), whether all supports of the member settled
    condition_ : float, condition number of all rows, the columns scaled to unit length
    noise_ : ndarray (n_targets,), standard deviation of the residuals of ``aggregate_coef_``
    columns_ : bool ndarray (n_members, n_features), the columns offered to each member
    n_features_in_, feature_names_in_ : as in scikit-learn

    `fit` raises ValueError or TypeError if a parameter is out of range, ValueError if X or y hold NaN or infinity.

    References
    ----------
    Fasel, Kutz, Brunton, Brunton, Proc. R. Soc. A 478:20210904, 2022.  Block length: Hall, Horowitz, Jing,
    Biometrika 82, 1995.
    """

    def __init__(
        self,
        base: Any = None,
        *,
        n_members: int = 20,
        bootstrap: str | None = "rows",
        max_samples: float = 1.0,
        block_length: int | None = None,
        drop_columns: int = 0,
        aggregate: str = "median",
        random_state: Any = None,
    ) -> None:
        self.base = base
        self.n_members = n_members
        self.bootstrap = bootstrap
        self.max_samples = max_samples
        self.block_length = block_length
        self.drop_columns = drop_columns
        self.aggregate = aggregate
        self.random_state = random_state

    def _check_parameters(self) -> None:
        # By `fit`: scikit-learn's contract wants constructors and `set_params` to assign and never to raise.
        for name, least in (("n_members", 1), ("drop_columns", 0)):
            wanted = f"an integer of at least {least}"
            check_number(f"Ensemble({name}=...)", getattr(self, name), wanted, whole(least))
        if self.bootstrap not in ("rows", "blocks", None):
            raise ValueError(f"`Ensemble(bootstrap=...)` must be 'rows', 'blocks' or None. Got {self.bootstrap!r}.")
        check_number("Ensemble(max_samples=...)", self.max_samples, "a number in (0, 1]", lambda value: 0 < value <= 1)
        if self.block_length is not None:
            check_number("Ensemble(block_length=...)", self.block_length, "a positive integer or None", whole(1))
        if self.aggregate not in ("median", "mean"):
            raise ValueError(f"`Ensemble(aggregate=...)` must be 'median' or 'mean'. Got {self.aggregate!r}.")
        if self.base is not None and not hasattr(self.base, "fit"):
            raise TypeError(f"`Ensemble(base=...)` must be an estimator with `fit`. Got {self.base!r}.")

    def fit(self, X: Any, y: Any, groups: Any = None) -> Ensemble:
        """Fit all members to X (n_samples, n_features) and y, (n_samples,) or (n_samples, n_targets).

        groups : (n_samples,) labels of uninterrupted recordings, such as `Dataset.episode_of_pairs`; no block of a
            block bootstrap reaches over a change of label
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        base = STLSQ() if self.base is None else self.base
        rng = _generator(self.random_state)
        runs = _runs(groups, len(X))
        if self.bootstrap == "blocks":
            self.block_length_ = round(len(X) ** (1 / 3)) if self.block_length is None else int(self.block_length)
        if self.bootstrap == "blocks" and _works_on_sums(base):
            blocks = _run_sums(X, targets, self.block_length_, runs)
            self._parts, self._dealt = deal(None, blocks, _MOST_PARTS), len(blocks.n)
            self.condition_ = self._parts.total().condition()
            counts = bootstrap_counts(rng, self.n_members, len(self._parts.n), self.max_samples)
            self.columns_ = self._draw_columns(rng, X.shape[1])
            coef, self.converged_ = _fit_problems(base, self._block_problems(X, targets, counts, runs), self.columns_)
        else:
            weights = self._row_weights(rng, len(X), runs)
            self.condition_ = Gram.from_rows(X, targets).condition()
            self.columns_ = self._draw_columns(rng, X.shape[1])
            coef, self.converged_ = fit_members(base, X, targets, weights, self.columns_)
        aggregated = self._aggregate(coef, y.ndim == 1)
        self._set_noise(coef, aggregated, ((targets - X @ aggregated.T) ** 2).sum(axis=0), float(len(X)))
        return self

    @available_if(_is_streaming)
    def partial_fit(self, X: Any, y: Any, groups: Any = None) -> Ensemble:
        """Take up further rows, after those of all calls so far and of `fit`, and refit every member.

        For ``bootstrap="blocks"`` and a base that runs on Gram sums.  Blocks end with a call.  If every call brings
        whole blocks the result is that of `fit` to all rows, to rounding.  Time and memory do not depend on the rows
        before; all members are refitted at each call, so a call should bring many rows.  groups as in `fit`.
        """
        self._check_parameters()
        before = getattr(self, "_parts", None)
        X, y = validate_data(self, X, y, reset=before is None, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        check_targets(None if before is None else before.total(), targets)
        if before is None:
            self.block_length_ = round(len(X) ** (1 / 3)) if self.block_length is None else int(self.block_length)
            self._dealt = 0
        blocks = _run_sums(X, targets, self.block_length_, _runs(groups, len(X)))
        self._parts = deal(before, blocks, _MOST_PARTS, self._dealt)
        self._dealt += len(blocks.n)
        total = self._parts.total()
        self.condition_ = total.condition()
        if self.condition_ > MAX_CONDITION:
            warnings.warn(
                f"The columns are nearly dependent (condition number {self.condition_:.2g}) and Gram sums cannot tell "
                "them apart. Offer fewer columns, or `fit` all rows at once.",
                ConvergenceWarning,
                stacklevel=2,
            )
        rng = _generator(self.random_state)
        counts = bootstrap_counts(rng, self.n_members, len(self._parts.n), self.max_samples)
        self.columns_ = self._draw_columns(rng, X.shape[1])
        base = STLSQ() if self.base is None else self.base
        coef, self.converged_ = _fit_problems(base, self._parts.combine(counts), self.columns_)
        aggregated = self._aggregate(coef, y.ndim == 1)
        self._set_noise(coef, aggregated, residual_squares(total, aggregated), total.n)
        return self

    def _draw_columns(self, rng: np.random.Generator, n_features: int) -> np.ndarray:
        if self.drop_columns and self.drop_columns >= n_features:
            raise ValueError(
                f"`Ensemble(drop_columns=...)` must leave a column: at most {n_features - 1} of {n_features}. "
                f"Got {self.drop_columns}."
            )
        columns = np.ones((self.n_members, n_features), dtype=bool)
        for offered in columns:
            offered[rng.choice(n_features, self.drop_columns, replace=False)] = False
        return columns

    def _row_weights(self, rng: np.random.Generator, n: int, runs: Sequence[slice]) -> np.ndarray:
        if self.bootstrap is None:
            return np.ones((self.n_members, n))
        if self.bootstrap == "rows":
            return bootstrap_counts(rng, self.n_members, n, self.max_samples)
        part, begun = np.empty(n, dtype=int), 0
        for run in runs:
            part[run] = begun + np.arange(run.stop - run.start) // self.block_length_
            begun = part[run.stop - 1] + 1
        part %= _MOST_PARTS
        return bootstrap_counts(rng, self.n_members, int(part.max()) + 1, self.max_samples)[:, part]

    def _block_problems(
        self, theta: np.ndarray, y: np.ndarray, counts: np.ndarray, runs: Sequence[slice]
    ) -> Sequence[Problem]:
        if self.condition_ <= MAX_CONDITION / 10:
            return self._parts.combine(counts)
        # As in `weighted_factors`: sums over orthonormal columns lose no digits.
        q, r = np.linalg.qr(theta)
        parts = deal(None, _run_sums(q, y, self.block_length_, runs), _MOST_PARTS)
        return orthogonal_factors(parts.combine(counts), r)

    def _aggregate(self, coef: np.ndarray, flat: bool) -> np.ndarray:
        """Set the coefficients, coef (member, target, feature); returns the aggregate (target, feature)."""
        aggregated = np.asarray((np.median if self.aggregate == "median" else np.mean)(coef, axis=0))
        self.coef_ = coef[:, 0] if flat else coef
        self.inclusion_ = (self.coef_ != 0).mean(axis=0)
        self.aggregate_coef_ = aggregated[0] if flat else aggregated
        return aggregated

    def _set_noise(self, coef: np.ndarray, aggregated: np.ndarray, squares: np.ndarray, n: float) -> None:
        variance, freedom = noise_variance(squares, n, (aggregated != 0).sum(axis=1))
        self.noise_ = np.sqrt(variance)
        self.intervals_ = PredictionIntervals(aggregated, coef, variance, freedom)

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Ends between which a new measurement at X lies with probability ``level``, each in the shape of y.

        Model uncertainty (the spread over members) and residual noise together; see `intervals`, also for intervals
        calibrated on rows left out: ``ensemble.intervals_.calibrated(theta, y)``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        lower, upper = self.intervals_(X, level)
        flat = self.aggregate_coef_.ndim == 1
        return (lower[:, 0], upper[:, 0]) if flat else (lower, upper)

    def predict(self, X: Any) -> np.ndarray:
        """Prediction of the aggregated coefficients, in the shape of y."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.aggregate_coef_.T)


def _runs(groups: Any, n: int) -> list[slice]:
    """Runs of consecutive rows with one label."""
    if groups is None:
        return [slice(0, n)]
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"`Ensemble.fit(groups=...)` must have shape ({n},), one label a row. Got {labels.shape}.")
    edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), n]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _run_sums(theta: np.ndarray, y: np.ndarray, length: int, runs: Sequence[slice]) -> PartSums:
    """Gram sums of blocks of ``length`` rows; the last block of a run may be shorter."""
    sums = [block_sums(theta[run], y[run], length) for run in runs]
    if len(sums) == 1:
        return sums[0]
    return PartSums(*(np.concatenate([getattr(each, name) for each in sums]) for name in _SUMS))


def bootstrap_counts(rng: np.random.Generator, n_members: int, n_rows: int, share: float = 1.0) -> np.ndarray:
    """How often each row is drawn, (n_members, n_rows), when ``share`` of ``n_rows`` are drawn with replacement."""
    counts, drawn = np.empty((n_members, n_rows)), max(round(share * n_rows), 1)
    for member in counts:
        member[:] = np.bincount(rng.integers(n_rows, size=drawn), minlength=n_rows)
    return counts


def fit_members(
    base: Any, theta: np.ndarray, y: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (member, target, feature) and convergence (member,) for given integer row weights.

    theta : (sample, feature)   y : (sample, target)   weights : (member, sample)   columns : bool (member, feature)
    """
    if not _works_on_sums(base):
        coef = np.zeros((len(weights), y.shape[1], theta.shape[1]))
        for member, (counts, offered) in enumerate(zip(weights, columns, strict=True)):
            rows = np.repeat(np.arange(len(theta)), counts.astype(int))
            fitted = clone(base).fit(theta[rows][:, offered], y[rows])
            coef[member][:, offered] = fitted.coef_
        return coef, np.ones(len(weights), dtype=bool)
    return _fit_problems(base, _member_problems(theta, y, weights), columns)


def _fit_problems(base: Any, problems: Sequence[Problem], columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fits = [
        base.fit_problem(problem, np.flatnonzero(offered)) for problem, offered in zip(problems, columns, strict=True)
    ]
    return np.array([fit.coef for fit in fits]), np.array([fit.converged.all() for fit in fits])


def _member_problems(theta: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Sequence[Problem]:
    if (weights == 1).all():
        return [least_squares_problem(theta, y)[0]] * len(weights)
    # A member misses a third of the rows and may be worse conditioned than the whole.
    if Gram.from_rows(theta, y).condition() <= MAX_CONDITION / 10:
        return weighted_grams(theta, y, weights)
    return weighted_factors(theta, y, weights)


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)
