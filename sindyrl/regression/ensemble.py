"""Ensembles of sparse regressions: the spread of a fit over resampled rows and left-out columns."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.regression.gram import (
    MAX_CONDITION,
    Gram,
    Problem,
    least_squares_problem,
    weighted_factors,
    weighted_grams,
)
from sindyrl.regression.stlsq import STLSQ

__all__ = ["Ensemble", "bootstrap_counts", "fit_members"]


class Ensemble(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Many fits of one sparse regressor, on resampled rows and on libraries short of some columns.

    Each member sees ``n_samples`` rows drawn with replacement and all but ``drop_columns`` randomly chosen
    columns (the same for all its targets; their coefficients are zero).  Drawing rows with replacement is exactly
    a fit with integer weights, so the members share one pass over the products of columns.

    Parameters
    ----------
    base : estimator, default None
        What is fitted; None means ``STLSQ()``.  An STLSQ runs on weighted Gram sums; any other regressor
        with ``coef_`` and without intercept is fitted row by row.
    n_members : int, default 20
    row_bootstrap : bool, default True
        Draw rows with replacement; otherwise every member sees all rows once.
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
    columns_ : bool ndarray (n_members, n_features), the columns offered to each member
    n_features_in_, feature_names_in_ : as in scikit-learn

    `fit` raises ValueError or TypeError if a parameter is out of range, ValueError if X or y hold NaN or infinity.

    References
    ----------
    Fasel, Kutz, Brunton, Brunton, Proc. R. Soc. A 478:20210904, 2022.
    """

    def __init__(
        self,
        base: Any = None,
        *,
        n_members: int = 20,
        row_bootstrap: bool = True,
        drop_columns: int = 0,
        aggregate: str = "median",
        random_state: Any = None,
    ) -> None:
        self.base = base
        self.n_members = n_members
        self.row_bootstrap = row_bootstrap
        self.drop_columns = drop_columns
        self.aggregate = aggregate
        self.random_state = random_state

    def _check_parameters(self) -> None:
        # By `fit`: scikit-learn's contract wants constructors and `set_params` to assign and never to raise.
        for name, least in (("n_members", 1), ("drop_columns", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"`Ensemble({name}=...)` must be an integer of at least {least}. Got {value!r}.")
        if not isinstance(self.row_bootstrap, (bool, np.bool_)):
            raise ValueError(f"`Ensemble(row_bootstrap=...)` must be True or False. Got {self.row_bootstrap!r}.")
        if self.aggregate not in ("median", "mean"):
            raise ValueError(f"`Ensemble(aggregate=...)` must be 'median' or 'mean'. Got {self.aggregate!r}.")
        if self.base is not None and not hasattr(self.base, "fit"):
            raise TypeError(f"`Ensemble(base=...)` must be an estimator with `fit`. Got {self.base!r}.")

    def fit(self, X: Any, y: Any) -> Ensemble:
        """Fit all members to X (n_samples, n_features) and y, (n_samples,) or (n_samples, n_targets)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        n_samples, n_features = X.shape
        if self.drop_columns and self.drop_columns >= n_features:
            raise ValueError(
                f"`Ensemble(drop_columns=...)` must leave a column: at most {n_features - 1} of {n_features}. "
                f"Got {self.drop_columns}."
            )
        rng = _generator(self.random_state)
        weights = np.ones((self.n_members, n_samples))
        if self.row_bootstrap:
            weights = bootstrap_counts(rng, self.n_members, n_samples)
        self.columns_ = np.ones((self.n_members, n_features), dtype=bool)
        for offered in self.columns_:
            offered[rng.choice(n_features, self.drop_columns, replace=False)] = False
        base = STLSQ() if self.base is None else self.base
        targets = np.asarray(y, dtype=np.float64).reshape(n_samples, -1)
        coef, self.converged_ = fit_members(base, X, targets, weights, self.columns_)
        self.coef_ = coef if y.ndim == 2 else coef[:, 0]
        self.inclusion_ = (self.coef_ != 0).mean(axis=0)
        aggregate = np.median if self.aggregate == "median" else np.mean
        self.aggregate_coef_ = np.asarray(aggregate(self.coef_, axis=0))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Prediction of the aggregated coefficients, in the shape of y."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.aggregate_coef_.T)


def bootstrap_counts(rng: np.random.Generator, n_members: int, n_rows: int) -> np.ndarray:
    """How often each row is drawn when ``n_rows`` are drawn with replacement, (n_members, n_rows)."""
    counts = np.empty((n_members, n_rows))
    for member in counts:
        member[:] = np.bincount(rng.integers(n_rows, size=n_rows), minlength=n_rows)
    return counts


def fit_members(
    base: Any, theta: np.ndarray, y: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (member, target, feature) and convergence (member,) for given integer row weights.

    theta : (sample, feature)   y : (sample, target)   weights : (member, sample)   columns : bool (member, feature)
    """
    coef = np.zeros((len(weights), y.shape[1], theta.shape[1]))
    converged = np.ones(len(weights), dtype=bool)
    if not isinstance(base, STLSQ):
        for member, (counts, offered) in enumerate(zip(weights, columns, strict=True)):
            rows = np.repeat(np.arange(len(theta)), counts.astype(int))
            fitted = clone(base).fit(theta[rows][:, offered], y[rows])
            coef[member][:, offered] = fitted.coef_
        return coef, converged
    for member, problem in enumerate(_member_problems(theta, y, weights)):
        fit = base.fit_problem(problem, np.flatnonzero(columns[member]))
        coef[member], converged[member] = fit.coef, fit.converged.all()
    return coef, converged


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
