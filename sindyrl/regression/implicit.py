r"""Regression of sparse fractions, ``y = N(x) / D(x)``, as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.number_check import check_number, whole
from sindyrl.regression.fraction_search import (
    Fraction,
    Rows,
    Support,
    is_locally_best,
    refine,
    search,
    simplest,
    slopes,
)

__all__ = ["FractionPath", "ImplicitSubset"]

_SEARCH_ROWS = 4000  # supports are looked for on so many evenly spaced rows, coefficients fitted on all
_CONFIDENCE = 0.95  # that a larger size is better than a smaller one, for it to be taken
_WORST = 100.0  # relative squared error of a fold with a pole in it: worse than any, and no outlier on a log scale
_SHARE = 1e-3  # of the largest part of the denominator, from which on its constant is worth dividing by


@dataclasses.dataclass(frozen=True, eq=False)
class FractionPath:
    """The best fractions of one target by size, and the one taken.

    found : ascending by size, in the estimator's scaled columns
    errors : (len(found), fold) mean squared error of the *explicit* prediction on the block left out, over ``y'y / n``
    chosen : index into ``found``
    """

    found: tuple[Fraction, ...]
    errors: np.ndarray
    chosen: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Terms above and below of each."""
        return tuple(one.size for one in self.found)

    @property
    def error(self) -> float:
        """Median over the folds of the relative root-mean-square error of what was taken."""
        return float(np.sqrt(np.median(self.errors[self.chosen])))


class ImplicitSubset(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Fractions ``y = N / D`` with few terms, from the sparse implicit relation ``N - D y = 0``.

    ``N = X a`` and ``D = d + X b``. Each candidate term of ``D y`` is moved to the left in turn and best subsets of all
    other terms are searched on one Gram matrix; supports are refitted to the explicit error ``y - N / D`` and improved
    by best subsets of the problem linearized about the fractions found (`sindyrl.regression.fraction_search`).

    The size is the smallest whose error on contiguous blocks left out, of the *explicit* prediction and with the search
    repeated without the block, is fold by fold on a logarithmic scale not significantly (t test, 5 %) above that of the
    best. Multiples ``N p / (D p)`` of the true fraction fit as well as itself: of all forms with the same predictions
    the one with fewest terms is taken, and of those with equally many the one whose columns come first.

    Noise. ``y`` is a factor of the regressors of the implicit relation, so its noise is one of errors in variables and
    the implicit coefficients are biased, however many rows. They only start the refit, which for noise in ``y`` is
    consistent. Noise in ``X`` is not accounted for.

    Parameters
    ----------
    max_terms : int, default 6
        Most terms above and below together.
    size : "cv" or int, default "cv"
        Terms above and below together, if known (a smaller fraction if it fits as well).
    numerators, denominators : sequence of int or None, default None
        Columns of X that may be above and below; None takes all. A constant below is always offered, and constant
        columns are offered only above.
    folds : int, default 5
        Contiguous blocks of rows; fewer if there are fewer than two rows for each.
    rounds : int, default 2
        Of linearized search.
    max_left : int, default 3
        So many terms of ``D y`` are moved to the left: the constant, then those of the first columns. One must be in D.
    tolerance : float, default 1e-6
        Relative root-mean-square error below which errors count as equal.
    node_limit : int, default 50
        Sub-problems of branch and bound for each term on the left and each size, and for the proof in ``proven_``.
        Exact relations need few; 0 leaves greedy searches.
    warm_start : bool, default False
        Start from the supports of the previous fit to the same columns, and search greedily beside them.

    Attributes
    ----------
    numerator_, denominator_ : ndarray (n_targets, n_features), or (n_features,) if y has one axis
        ``a`` and ``b``, scaled so that the constant ``d``, or without one the largest part of D, has coefficient 1.
    denominator_constant_ : ndarray (n_targets,), or float if y has one axis
        ``d``
    numerator_error_, denominator_error_, denominator_constant_error_ : of the same shapes
        Standard errors to first order, given the support and errors in y alone, of which the lag-one correlation from
        row to row is allowed for; 0 for the coefficient set to 1.
    unit_ : tuple of int
        By target, the column of X whose coefficient in D is 1, or -1 for the constant.
    paths_ : tuple of one `FractionPath` for each target
    proven_ : bool ndarray (n_targets,)
        Whether branch and bound proves that to first order about the fraction no other support of its size is better.
    condition_ : ndarray (n_targets,)
        Condition number of the derivatives of the prediction in the coefficients, columns of unit length.
    n_features_in_, feature_names_in_ : as in `STLSQ`

    `fit` raises ValueError if a parameter is out of range or X or y hold NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0.0, 3.0, 40)
    >>> model = ImplicitSubset().fit(np.stack([np.ones(40), x, x**2], axis=1), x / (1.0 + 2.0 * x))
    >>> model.numerator_.round(6), model.denominator_constant_, model.denominator_.round(6)
    (array([0., 1., 0.]), 1.0, array([0., 2., 0.]))
    """

    def __init__(
        self,
        max_terms: int = 6,
        *,
        size: int | str = "cv",
        numerators: Sequence[int] | None = None,
        denominators: Sequence[int] | None = None,
        folds: int = 5,
        rounds: int = 2,
        max_left: int = 3,
        tolerance: float = 1e-6,
        node_limit: int = 50,
        warm_start: bool = False,
    ) -> None:
        self.max_terms = max_terms
        self.size = size
        self.numerators = numerators
        self.denominators = denominators
        self.folds = folds
        self.rounds = rounds
        self.max_left = max_left
        self.tolerance = tolerance
        self.node_limit = node_limit
        self.warm_start = warm_start

    def fit(self, X: Any, y: Any) -> ImplicitSubset:
        """Fit X, the library matrix (n_samples, n_features), to y, (n_samples,) or (n_samples, n_targets)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        above = self._columns("numerators", X.shape[1])
        below = [j for j in self._columns("denominators", X.shape[1]) if np.ptp(X[:, j]) > 0]
        before: tuple[FractionPath, ...] = getattr(self, "paths_", ()) if self.warm_start else ()
        known: list[list[Support]] = [[one.support for one in path.found] for path in before]
        if len(known) != targets.shape[1]:
            known = [[] for _ in targets.T]
        results = [self._fit_target(X, target, above, below, k) for target, k in zip(targets.T, known, strict=True)]
        self.paths_ = tuple(path for path, _ in results)
        parts = [part for _, part in results]
        self.unit_ = tuple(part.unit for part in parts)
        self.proven_ = np.array([part.proven for part in parts])
        self.condition_ = np.array([part.condition for part in parts])
        for name in ("numerator", "denominator", "denominator_constant"):
            for suffix in ("", "_error"):
                values = np.array([getattr(part, name + suffix) for part in parts])
                setattr(self, name + suffix + "_", values[0] if np.ndim(y) == 1 else values)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """``N / D``: (n_samples,) or (n_samples, n_targets), as y was; infinite or NaN where D is zero."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with np.errstate(all="ignore"):
            return np.asarray(
                (X @ self.numerator_.T) / (self.denominator_constant_ + X @ self.denominator_.T), dtype=np.float64
            )

    def _check_parameters(self) -> None:
        # By `fit`: scikit-learn's contract wants constructors and `set_params` to assign and never to raise.
        for name, least in (("max_terms", 2), ("folds", 2), ("rounds", 0), ("max_left", 1), ("node_limit", 0)):
            wanted = f"an integer of at least {least}"
            check_number(f"ImplicitSubset({name}=...)", getattr(self, name), wanted, whole(least))
        if not isinstance(self.size, str) or self.size != "cv":
            check_number("ImplicitSubset(size=...)", self.size, "'cv' or an integer of at least 2", whole(2))
        check_number("ImplicitSubset(tolerance=...)", self.tolerance, "in [0, 1)", lambda value: 0 <= value < 1)

    def _columns(self, name: str, p: int) -> list[int]:
        chosen = getattr(self, name)
        columns = list(range(p)) if chosen is None else [int(j) for j in chosen]
        if len(set(columns)) < len(columns) or any(not 0 <= j < p for j in columns):
            raise ValueError(
                f"`ImplicitSubset({name}=...)` must be different columns of X, 0 to {p - 1}. Got {list(chosen)}."
            )
        return columns

    def _fit_target(
        self, X: np.ndarray, y: np.ndarray, above: list[int], below: list[int], known: Sequence[Support]
    ) -> tuple[FractionPath, _Coefficients]:
        n = len(y)
        a, b = X[:, above], np.column_stack([np.ones(n), X[:, below]])
        scale_a, scale_b, scale_y = _rms(a), _rms(b), float(_rms(y[:, None])[0])
        rows = Rows(a / scale_a, b / scale_b, y / scale_y)
        path = self._path(rows, known)
        taken = path.found[path.chosen]
        if taken.support[0]:
            taken = refine(rows, *taken.support, taken.unit, base=taken) or taken
            taken = simplest(rows, taken, self._left(rows), int(self.node_limit))
        found = _Coefficients.of(rows, taken, X.shape[1], (above, below), (scale_a, scale_b, scale_y))
        return path, dataclasses.replace(found, proven=is_locally_best(_thinned(rows), taken, int(self.node_limit)))

    def _left(self, rows: Rows) -> range:
        return range(min(int(self.max_left), rows.b.shape[1]))

    def _path(self, rows: Rows, known: Sequence[Support]) -> FractionPath:
        n, floor = len(rows.y), float(self.tolerance) ** 2
        largest = self.max_terms if self.size == "cv" else int(self.size)

        def found_in(part: Rows, also: Iterable[Support], nodes: int = 0) -> list[Fraction]:
            left, rounds = self._left(part), int(self.rounds)
            return search(_thinned(part), int(largest), left, rounds=rounds, floor=floor, nodes=nodes, also=also)

        # What is exact is searched once; a fold, whose coefficients and choice are its own, knows of the supports.
        found = found_in(rows, known, 0 if known else int(self.node_limit))
        supports = [one.support for one in found]
        folds = min(int(self.folds), n // 2)
        if self.size != "cv" or folds < 2:
            errors = np.array([[max(one.squares / min(n, _SEARCH_ROWS), floor)] for one in found])
            best = int(np.flatnonzero(errors[:, 0] <= errors.min() * (1.0 + 1e-6))[0])
            return FractionPath(tuple(found), errors, best)
        errors = np.empty((len(found), folds))
        for fold, block in enumerate(np.array_split(np.arange(n), folds)):
            trained = found_in(rows.take(np.setdiff1d(np.arange(n), block, assume_unique=True)), supports)
            held_out = rows.take(block)
            for k, one in enumerate(found):
                other = [t for t in trained if t.size <= one.size][-1]
                with np.errstate(all="ignore"):
                    error = float(np.mean((held_out.y - other.predict(held_out)) ** 2))
                errors[k, fold] = min(max(error, floor), _WORST) if np.isfinite(error) else _WORST
        return FractionPath(tuple(found), errors, _smallest_as_good(errors))


@dataclasses.dataclass(frozen=True, eq=False)
class _Coefficients:
    """One target's fraction in the columns of X."""

    numerator: np.ndarray
    denominator: np.ndarray
    denominator_constant: float
    numerator_error: np.ndarray
    denominator_error: np.ndarray
    denominator_constant_error: float
    unit: int
    condition: float
    proven: bool = False

    @classmethod
    def of(
        cls,
        rows: Rows,
        found: Fraction,
        n_features: int,
        columns: tuple[list[int], list[int]],
        scales: tuple[np.ndarray, np.ndarray, float],
    ) -> _Coefficients:
        """columns : of X above and below (the constant apart)   scales : of A, B and y, by which they were divided"""
        # Columns of B have unit size, so that coefficients tell the share of each in the denominator.
        unit = 0 if abs(found.b[0]) >= _SHARE * np.abs(found.b).max() else int(np.abs(found.b).argmax())
        found = Fraction(found.a / found.b[unit], found.b / found.b[unit], unit, found.squares)
        error_a, error_b, condition = _errors(rows, found)
        scale_a, scale_b, scale_y = scales
        per_a, per_b = scale_y * scale_b[unit] / scale_a, scale_b[unit] / scale_b
        table = np.zeros((4, n_features))
        table[:2, columns[0]] = found.a * per_a, error_a * per_a
        below, below_error = found.b * per_b, error_b * per_b
        table[2:, columns[1]] = below[1:], below_error[1:]
        return cls(
            table[0],
            table[2],
            float(below[0]),
            table[1],
            table[3],
            float(below_error[0]),
            columns[1][unit - 1] if unit else -1,
            condition,
        )


def _errors(rows: Rows, found: Fraction) -> tuple[np.ndarray, np.ndarray, float]:
    """Standard errors of a and b, to first order, and the condition number of the derivatives in them."""
    error_a, error_b = np.zeros(len(found.a)), np.zeros(len(found.b))
    if not found.support[0]:
        return error_a, error_b, 1.0
    slope = slopes(rows, found)
    slope, r = (values[np.isfinite(slope).all(axis=1)] for values in (slope, rows.y - found.predict(rows)))
    length = np.linalg.norm(slope, axis=0)
    if not len(slope) or not (length > 0).all():
        return error_a, error_b, np.inf
    _, singular, v = np.linalg.svd(slope / length, full_matrices=False)
    if len(singular) < len(length) or singular[-1] <= 0:
        return error_a, error_b, np.inf
    squares = float(r @ r)
    # Neighboring rows that were smoothed together are wrong together: such rows count for fewer.
    rho = float(np.clip(r[1:] @ r[:-1] / squares, 0.0, 0.99)) if squares > 0 else 0.0
    variance = squares / max(len(r) - len(length), 1) * (1.0 + rho) / (1.0 - rho)
    error = np.sqrt(variance * np.sum((v / singular[:, None]) ** 2, axis=0)) / length
    above = list(found.support[0])
    error_a[above] = error[: len(above)]
    error_b[[j for j in found.support[1] if j != found.unit]] = error[len(above) :]
    return error_a, error_b, float(singular[0] / singular[-1])


def _smallest_as_good(errors: np.ndarray) -> int:
    """The first size that is not worse than the best one, fold by fold; errors (size, fold)."""
    from scipy.stats import t

    logs, folds = np.log(np.maximum(errors, np.finfo(float).tiny)), errors.shape[1]
    difference = logs - logs[logs.mean(axis=1).argmin()]
    spread = difference.std(axis=1, ddof=1) / np.sqrt(folds)
    # One standard error lets one useless term in for every three of such choices among five folds; see the tests.
    return int(np.flatnonzero(difference.mean(axis=1) <= t.ppf(_CONFIDENCE, folds - 1) * spread)[0])


def _thinned(rows: Rows) -> Rows:
    n = len(rows.y)
    return rows if n <= _SEARCH_ROWS else rows.take(np.linspace(0, n - 1, _SEARCH_ROWS).astype(int))


def _rms(columns: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.mean(columns**2, axis=0))
    return np.where(size > 0, size, 1.0)
