"""Exact best-subset regression as a scikit-learn estimator: the best support of each size, and which size to take."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.number_check import check_number, not_negative, whole
from sindyrl.regression.branch_and_bound import NODE_LIMIT, BestSupport, searches_by_size
from sindyrl.regression.gram import Factor, Gram, Problem, SparseFit, least_squares_problem
from sindyrl.regression.streaming import PartialFit, residual_squares
from sindyrl.regression.subset import paired_choice

__all__ = ["CRITERIA", "BestSubset", "SizePath", "information"]

CRITERIA = ("aicc", "bic", "ebic")
_ROUNDING = 1e-13  # of a target's energy: smaller residuals are rounding of the sums, and none is better than another


@dataclasses.dataclass(frozen=True)
class SizePath:
    """The best supports of one target by size, and the size taken.

    found : one `BestSupport` for each size that was searched, ascending; the empty support is not among them
    scores : (len(found) + 1,) what was minimized, the empty support first; with a given size, the relative residuals
    chosen : index into ``scores``
    """

    found: tuple[BestSupport, ...]
    scores: np.ndarray
    chosen: int

    @property
    def support(self) -> tuple[int, ...]:
        return self.found[self.chosen - 1].support if self.chosen else ()

    @property
    def proven(self) -> bool:
        """Whether no other support of the chosen size has a smaller residual."""
        return not self.chosen or self.found[self.chosen - 1].proven


def information(criterion: str, squares: float, n: float, size: int, n_features: int) -> float:
    r"""AICc, BIC or extended BIC of a least squares fit with ``size`` of ``n_features`` columns, up to a constant.

    ``n log(squares / n) + penalty``; the variance is a parameter too, ``q = size + 1``:

        aicc   2 q + 2 q (q + 1) / (n - q - 1)
        bic    q log n
        ebic   q log n + 2 log C(n_features, size)

    The last counts in how many ways ``size`` columns can be chosen, without which a large library always offers
    one column too many. Infinite if there are too few rows.
    References: Hurvich, Tsai, Biometrika 76, 1989; Schwarz, Ann. Statist. 6, 1978; Chen, Chen, Biometrika 95, 2008.
    """
    q = size + 1
    if n - q - 1 <= 0:
        return math.inf
    fit = n * math.log(squares / n)
    if criterion == "aicc":
        return fit + 2 * q + 2 * q * (q + 1) / (n - q - 1)
    ways = math.lgamma(n_features + 1) - math.lgamma(size + 1) - math.lgamma(n_features - size + 1)
    return fit + q * math.log(n) + (2 * ways if criterion == "ebic" else 0.0)


def _needs_no_rows(model: BestSubset) -> bool:
    if model.needs_rows:
        raise AttributeError("`BestSubset(size='cv')` needs all rows at once. Use `fit`, or size='ebic'.")
    return True


class BestSubset(PartialFit, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Least squares on the best ``k`` columns of each target, found exactly and with a proof.

    Minimizes ``|y - theta_S w|^2 + alpha |w|^2`` over all supports S of k columns by branch and bound on the Gram
    matrix, for libraries of up to about a hundred columns and k up to about ten.  Where the search ends early, the
    best support found is kept, `ConvergenceWarning` tells, and the gap is in ``paths_``.

    Parameters
    ----------
    size : int, "aicc", "bic", "ebic" or "cv", default "ebic"
        How many columns: a number, or the least of an information criterion (see `information`), or by
        cross-validation over contiguous blocks of rows: the smallest size whose error on the block left out is, fold
        by fold on a logarithmic scale, within a standard error of the best.
    max_terms : int, default 10
        Largest number of columns considered if it is not given by ``size``.
    alpha : float, default 0.0
        Weight of the ridge penalty, not scaled by the number of rows.
    folds : int, default 5
        For ``size="cv"``.
    node_limit : int, default 500
        Sub-problems per target and size; 0 leaves greedy addition with exchanges, and no proof.
    time_limit : float or None, default None
        Seconds per target and size.  Makes the outcome depend on the machine.

    Attributes
    ----------
    coef_ : ndarray (n_targets, n_features), or (n_features,) if y has one axis
    support_ : bool ndarray of the same shape
    paths_ : tuple of one `SizePath` for each target
    proven_ : bool ndarray (n_targets,), whether the support is proven to be the best of its size
    condition_, sums_, n_features_in_, feature_names_in_ : as in `STLSQ`

    Two columns whose difference is less than 1e-6 of their length count as one (a ridge of 1e-12 on unit columns).
    `fit` raises ValueError if a parameter is out of range or X or y hold NaN or infinity.  There is no `partial_fit`
    for ``size="cv"``, which needs the rows.

    Examples
    --------
    >>> import numpy as np
    >>> theta = np.random.default_rng(0).normal(size=(50, 20))
    >>> model = BestSubset(size=2).fit(theta, 3.0 * theta[:, 1] - theta[:, 7])
    >>> model.paths_[0].support, bool(model.proven_[0])
    ((1, 7), True)
    """

    def __init__(
        self,
        size: int | str = "ebic",
        *,
        max_terms: int = 10,
        alpha: float = 0.0,
        folds: int = 5,
        node_limit: int = NODE_LIMIT,
        time_limit: float | None = None,
    ) -> None:
        self.size = size
        self.max_terms = max_terms
        self.alpha = alpha
        self.folds = folds
        self.node_limit = node_limit
        self.time_limit = time_limit

    def _check_parameters(self) -> None:
        # By `fit`: scikit-learn's contract wants constructors and `set_params` to assign and never to raise.
        if not isinstance(self.size, str) or self.size not in (*CRITERIA, "cv"):
            wanted = f"a non-negative integer or one of {', '.join(CRITERIA)}, cv"
            check_number("BestSubset(size=...)", self.size, wanted, whole(0))
        for name, least in (("max_terms", 1), ("folds", 2), ("node_limit", 0)):
            wanted = f"an integer of at least {least}"
            check_number(f"BestSubset({name}=...)", getattr(self, name), wanted, whole(least))
        check_number("BestSubset(alpha=...)", self.alpha, "a non-negative number", not_negative)
        if self.time_limit is not None:
            wanted = "positive seconds or None"
            check_number("BestSubset(time_limit=...)", self.time_limit, wanted, lambda value: value > 0)

    @property
    def needs_rows(self) -> bool:
        """Whether sums over rows are not enough: cross-validation needs to know where the rows came from."""
        return bool(self.size == "cv")

    def fit(self, X: Any, y: Any) -> BestSubset:
        """Fit X, the library matrix (n_samples, n_features), to y, (n_samples,) or (n_samples, n_targets)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        sums, condition = least_squares_problem(X, targets)
        paths = _cross_validated(self, X, targets, sums) if self.needs_rows else None
        self._conclude(sums, condition, y.ndim == 1, paths)
        return self

    @available_if(_needs_no_rows)
    def partial_fit(self, X: Any, y: Any) -> BestSubset:
        """See `PartialFit.partial_fit`; there is none for ``size="cv"``."""
        return super().partial_fit(X, y)

    def fit_problem(self, problem: Problem, columns: np.ndarray | None = None) -> SparseFit:
        """Coefficients from one `gram.Problem`; ``converged`` is the proof, ``rounds`` the nodes."""
        return self._fit(problem, [self.path(problem, target, columns) for target in range(problem.shape[0])])

    def path(self, problem: Problem, target: int, columns: np.ndarray | None = None) -> SizePath:
        """The best supports of one target; ``columns`` limits which may enter."""
        offered = np.arange(problem.shape[1]) if columns is None else np.asarray(columns, dtype=int)
        size = None if isinstance(self.size, str) else int(self.size)
        largest = self.max_terms if size is None else size
        gram = _gram(problem, offered)
        searches = searches_by_size(gram, target, min(largest, len(offered)), alpha=self.alpha)
        if size is not None:
            found = [searches[-1](self.node_limit, self.time_limit)] if searches else []
            best = tuple(_renamed(one, offered) for one in found)
            return SizePath(best, np.array([1.0, *(one.residual for one in best)]), len(best))
        if self.needs_rows:
            best = tuple(_renamed(search(self.node_limit, self.time_limit), offered) for search in searches)
            return SizePath(best, np.array([1.0, *(one.residual for one in best)]), len(best))
        return self._least_information(problem, target, offered, searches)

    def _least_information(self, problem: Problem, target: int, offered: np.ndarray, searches: list[Any]) -> SizePath:
        n, floor = float(problem.n), max(float(problem.energy[target]) * _ROUNDING, np.finfo(float).tiny)

        def score(squares: float, size: int) -> float:
            return information(str(self.size), max(squares, floor), n, size, len(offered))

        def squares(support: tuple[int, ...]) -> float:
            return float(residual_squares(problem, _coefficients(problem, {target: support}, self.alpha))[target])

        least = squares(tuple(offered.tolist()))
        scores, best = [score(squares(()), 0)], []
        for size, search in enumerate(searches, start=1):
            # Not even with the residual of all columns would this size, or a larger one, come out best.
            if min(score(least, k) for k in range(size, len(searches) + 1)) > min(scores):
                break
            best.append(_renamed(search(self.node_limit, self.time_limit), offered))
            scores.append(score(squares(best[-1].support), size))
        return SizePath(tuple(best), np.array(scores), int(np.argmin(scores)) if np.isfinite(scores).any() else 0)

    def _fit(self, problem: Problem, paths: Sequence[SizePath]) -> SparseFit:
        coef = _coefficients(problem, {target: path.support for target, path in enumerate(paths)}, self.alpha)
        nodes = np.array([sum(one.nodes for one in path.found) for path in paths])
        return SparseFit(coef, np.array([path.proven for path in paths]), nodes)

    def _conclude(self, sums: Problem, condition: float, flat: bool, paths: list[SizePath] | None = None) -> None:
        self.paths_ = tuple(paths or (self.path(sums, target) for target in range(sums.shape[0])))
        fit = self._fit(sums, self.paths_)
        self.sums_, self.condition_, self.proven_ = sums, condition, fit.converged
        self.coef_ = fit.coef[0] if flat else fit.coef
        self.support_ = self.coef_ != 0
        if not fit.converged.all():
            gaps = [
                f"target {t}: gap {p.found[p.chosen - 1].gap:.2g}" for t, p in enumerate(self.paths_) if not p.proven
            ]
            warnings.warn(
                f"Best subsets found but not proven ({'; '.join(gaps)}). Raise `node_limit` or `time_limit`, or offer "
                "fewer columns.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def predict(self, X: Any) -> np.ndarray:
        """``theta w``: (n_samples,) or (n_samples, n_targets), as y was."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_.T)


def _gram(problem: Problem, columns: np.ndarray) -> Gram:
    """The search compares residuals, for which Gram sums do; coefficients come from the problem itself."""
    if isinstance(problem, Factor):
        r = problem.r[:, columns]
        return Gram(r.T @ r, r.T @ problem.z, problem.energy, problem.n)
    assert isinstance(problem, Gram)
    return Gram(problem.matrix[np.ix_(columns, columns)], problem.moment[columns], problem.energy, problem.n)


def _renamed(found: BestSupport, offered: np.ndarray) -> BestSupport:
    return dataclasses.replace(found, support=tuple(offered[list(found.support)].tolist()))


def _coefficients(problem: Problem, supports: Mapping[int, tuple[int, ...]], alpha: float) -> np.ndarray:
    """Ridge regression of each target on its support, (target, feature); zero for targets not named."""
    coef = np.zeros(problem.shape)
    ridge = np.full(problem.shape[1], float(alpha)) if alpha else None
    for target, support in supports.items():
        if support:
            coef[target, list(support)] = problem.solve(np.array(support), np.array([target]), ridge)[0]
    return coef


def _cross_validated(model: BestSubset, theta: np.ndarray, y: np.ndarray, sums: Problem) -> list[SizePath]:
    """Paths on all rows, the size of each target chosen by the errors on contiguous blocks left out."""
    folds = min(model.folds, len(theta) // 2)
    paths = [model.path(sums, target) for target in range(y.shape[1])]
    if folds < 2:
        return paths
    blocks = np.array_split(np.arange(len(theta)), folds)
    grams = [Gram.from_rows(theta[block], y[block]) for block in blocks]
    chosen = []
    for target, path in enumerate(paths):
        scale = max(float(sums.energy[target]) / len(theta), np.finfo(float).tiny)
        errors = np.empty((len(path.found) + 1, folds))
        for fold, block in enumerate(blocks):
            # Summed rather than subtracted from the whole: a column that lives in one block only must come out zero.
            rest = functools.reduce(operator.add, grams[:fold] + grams[fold + 1 :])
            trained = model.path(rest, target)
            supports = [(), *(found.support for found in trained.found)]
            for size in range(len(errors)):
                support = supports[min(size, len(supports) - 1)]
                w = _coefficients(rest, {target: support}, model.alpha)[target]
                errors[size, fold] = np.mean((y[block, target] - theta[block] @ w) ** 2) / scale
        chosen.append(SizePath(path.found, errors.mean(axis=1), paired_choice(errors)))
    return chosen
