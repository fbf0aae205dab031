r"""Sparse fractions ``y = A a / B b`` by best subsets of the implicit relation ``A a - (B b) y = 0``.

The relation is linear in all coefficients together, so that one Gram matrix of the columns ``[A, -B y]`` holds every
sparse regression of one of them on few others. A relation that can be solved for ``y`` has a denominator, so only
columns of ``B y`` are moved to the left, each in turn (its coefficient is then 1).

Two flaws of the implicit regression are mended. It has the noise of ``y`` in its regressors (errors in variables:
coefficients shrink towards a vanishing denominator), and it minimizes ``(A a - B b y)``, not the error of ``y``. So
each support found is refitted to the *explicit* error ``y - A a / B b`` by damped Gauss-Newton steps, which start at
the implicit solution; and further supports are looked for by best subsets of the problem linearized about a fraction,
whose regressors ``[A / D, -B (N / D) / D]`` hold the prediction in place of the noisy ``y``.

References: Kaheman, Kutz, Brunton, Proc. R. Soc. A 476, 2020 (SINDy-PI: each column to the left in turn);
Young, Jakeman, Int. J. Control 29, 1979 (predictions in place of noisy regressors).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from sindyrl.regression.branch_and_bound import best_subset, searches_by_size
from sindyrl.regression.gram import Gram
from sindyrl.regression.subset import subset_path

__all__ = ["Fraction", "Rows", "is_locally_best", "refine", "search", "simplest", "slopes"]

_SEARCH_STEPS = 12  # Gauss-Newton steps while supports are compared
_FINAL_STEPS = 60
_SETTLED = 1e-10  # relative drop of the squares below which the steps have arrived
_COMPARED = 1e-3  # the same while supports are compared
_SAME = 1e-14  # mean square of a difference between predictions that are the same but for rounding
_TIE = 1e-6  # relative difference of squares that says nothing about which support is right

Support = tuple[tuple[int, ...], tuple[int, ...]]
"""Columns of A and of B."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What is regressed: ``y`` (row,) on numerator columns A (row, p) and denominator columns B (row, q)."""

    a: np.ndarray
    b: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        return Rows(self.a[rows], self.b[rows], self.y[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Fraction:
    """``y = A a / B b``.

    a, b : (p,), (q,) coefficients, zero outside of the support   unit : the column of B whose coefficient is 1
    squares : sum over rows of ``(y - A a / B b)^2``
    """

    a: np.ndarray
    b: np.ndarray
    unit: int
    squares: float

    @cached_property
    def support(self) -> Support:
        return tuple(np.flatnonzero(self.a).tolist()), tuple(np.flatnonzero(self.b).tolist())

    @property
    def size(self) -> int:
        """Terms above and below, the one whose coefficient is 1 included."""
        return len(self.support[0]) + len(self.support[1])

    @property
    def rank(self) -> int:
        """Sum of the columns' positions: of two fractions of one size the one with the earlier terms is the simpler."""
        return sum(self.support[0]) + sum(self.support[1])

    def predict(self, rows: Rows) -> np.ndarray:
        """``A a / B b`` (row,); infinite or NaN where the denominator is zero."""
        with np.errstate(all="ignore"):
            return np.asarray((rows.a @ self.a) / (rows.b @ self.b))


def zero(rows: Rows) -> Fraction:
    """``y = 0 / 1``."""
    b = np.zeros(rows.b.shape[1])
    b[0] = 1.0
    return Fraction(np.zeros(rows.a.shape[1]), b, 0, float(rows.y @ rows.y))


def search(
    rows: Rows,
    max_terms: int,
    left: Sequence[int],
    *,
    rounds: int,
    floor: float,
    nodes: int = 0,
    also: Iterable[Support] = (),
) -> list[Fraction]:
    """The best fraction found of each size from 1 (which is ``0 / 1``) to ``max_terms``, ascending; sizes may lack.

    left : columns of B moved to the left in turn
    rounds : of linearized search after the implicit one
    floor : mean square of an error that counts as none
    nodes : sub-problems of branch and bound for each left side and size; 0 leaves greedy addition with exchanges
    also : supports to consider besides
    """
    p, q = rows.a.shape[1], rows.b.shape[1]
    found: dict[Support, Fraction | None] = {((), (0,)): zero(rows)}

    def offer(support: Sequence[int], unit: int, base: Fraction | None) -> None:
        above = tuple(sorted(j for j in support if j < p))
        below = tuple(sorted({j - p for j in support if j >= p} | {unit}))
        if above and (above, below) not in found:
            found[above, below] = refine(rows, above, below, unit, steps=_SEARCH_STEPS, settled=_COMPARED, base=base)

    for above, below in also:
        offer([*above, *(p + j for j in below)], below[0], None)
    implicit = np.hstack([rows.a, -rows.b * rows.y[:, None]])
    whole = implicit.T @ implicit
    for unit in left:
        others = np.delete(np.arange(p + q), p + unit)
        energy = whole[p + unit, p + unit]
        gram = Gram(whole[np.ix_(others, others)], -whole[others, p + unit][:, None], np.array([energy]), len(rows.y))
        supports = subset_path(gram, 0, max_terms - 1)
        if nodes:
            supports = tuple(one(nodes, None).support for one in searches_by_size(gram, 0, max_terms - 1))
        for support in supports:
            offer(others[list(support)].tolist(), unit, None)
    for few in ([], *([p + j] for j in range(1, q) if nodes)):
        # Where the columns of B y nearly depend on each other, the relations above have no numerator.
        offered = np.array([*range(p), *few])
        gram = Gram(whole[np.ix_(offered, offered)], -whole[offered, p][:, None], np.array([whole[p, p]]), len(rows.y))
        for support in subset_path(gram, 0, max_terms - 1):
            offer(offered[list(support)].tolist(), 0, None)
    linearized: set[int] = set()
    for _ in range(rounds):
        known = len(found)
        for base in _best_by_size(found.values(), floor * len(rows.y)):
            if id(base) in linearized or not base.support[0]:
                continue
            linearized.add(id(base))
            gram, others = _linear_problem(rows, base)
            for support in subset_path(gram, 0, max_terms - 1):
                offer(others[list(support)].tolist(), base.unit, base)
        if len(found) == known:
            break
    return _best_by_size(found.values(), floor * len(rows.y))


def simplest(rows: Rows, found: Fraction, left: Sequence[int], nodes: int) -> Fraction:
    """The fraction with fewest terms, and of those the earliest, that gives the same predictions as ``found``.

    Multiples ``N p / (D p)`` satisfy the relation as well as ``N / D`` and may have as few terms (``x / (x + x^2)`` for
    ``1 / (1 + x)``). Noise hides which of them the data would prefer; the predictions have none, so the implicit search
    on them finds every form exactly. The coefficients are refitted to ``y``.
    """
    same = Rows(rows.a, rows.b, found.predict(rows))
    if not found.support[0] or not np.isfinite(same.y).all():
        return found
    for one in search(same, found.size, left, rounds=0, floor=_SAME, nodes=nodes):
        if one.squares <= _SAME * len(rows.y) and (one.size, one.rank) < (found.size, found.rank):
            return refine(rows, *one.support, one.unit, base=one) or found
    return found


def refine(
    rows: Rows,
    above: Sequence[int],
    below: Sequence[int],
    unit: int,
    *,
    steps: int = _FINAL_STEPS,
    settled: float = _SETTLED,
    base: Fraction | None = None,
) -> Fraction | None:
    """Least squares of ``y - A a / B b`` on a support from the best of the starts; None if there is no finite one.

    base : a fraction to start from, for the columns that both have
    No step may take the denominator through zero between rows on which it had one sign: the least squares of a fraction
    have local minima with a pole between any two rows.
    """
    free = [j for j in below if j != unit]
    a, d, u = rows.a[:, list(above)], rows.b[:, free], rows.b[:, unit]
    best: tuple[float, np.ndarray] | None = None
    for w in _starts(rows, a, d, u, above, free, base):
        bottom = u + d @ w[len(above) :]
        if best is not None and bottom.min() <= 0.0 <= bottom.max():
            continue  # with a pole among the rows only if nothing else is left
        squares = _squares(rows.y, a, d, u, w)
        if np.isfinite(squares) and (best is None or squares < best[0]):
            best = squares, w
    if best is None:
        return None
    squares, w = _descend(rows.y, a, d, u, *best, steps, settled)
    full_a, full_b = np.zeros(rows.a.shape[1]), np.zeros(rows.b.shape[1])
    full_a[list(above)], full_b[free], full_b[unit] = w[: len(above)], w[len(above) :], 1.0
    return Fraction(full_a, full_b, unit, squares)


def _starts(
    rows: Rows,
    a: np.ndarray,
    d: np.ndarray,
    u: np.ndarray,
    above: Sequence[int],
    free: Sequence[int],
    base: Fraction | None,
) -> list[np.ndarray]:
    """Coefficients to start from: without denominator, of the linearized problem, of the implicit one."""
    y = rows.y
    starts = []
    if np.abs(u).min() > 0:
        starts.append(np.concatenate([_lstsq(a / u[:, None], y), np.zeros(d.shape[1])]))
    if base is not None:
        at, bottom = base.predict(rows), rows.b @ base.b
        columns = np.hstack([a, -d * at[:, None]]) / bottom[:, None]
        if np.isfinite(columns).all():
            starts.append(_lstsq(columns, y - at + at * u / bottom))
    starts.append(_lstsq(np.hstack([a, -d * y[:, None]]), u * y))
    return starts


def _squares(y: np.ndarray, a: np.ndarray, d: np.ndarray, u: np.ndarray, w: np.ndarray) -> float:
    k = a.shape[1]
    with np.errstate(all="ignore"):
        r = y - (a @ w[:k]) / (u + d @ w[k:])
        return float(r @ r)


def _descend(
    y: np.ndarray,
    a: np.ndarray,
    d: np.ndarray,
    u: np.ndarray,
    squares: float,
    w: np.ndarray,
    steps: int,
    settled: float,
) -> tuple[float, np.ndarray]:
    """Damped Gauss-Newton steps (Levenberg-Marquardt) on ``y - (a w) / (u + d w)``."""
    k, damping = a.shape[1], 1e-6
    bottom = u + d @ w[k:]
    one_sided = bottom.min() > 0 or bottom.max() < 0
    for _ in range(steps):
        at = (a @ w[:k]) / bottom
        slope = np.hstack([a, -d * at[:, None]]) / bottom[:, None]
        length = np.linalg.norm(slope, axis=0)
        if not np.isfinite(length).all():
            break
        slope /= np.where(length > 0, length, 1.0)
        matrix, moment = slope.T @ slope, slope.T @ (y - at)
        before, moved = squares, False
        while damping < 1e8:
            _, step, failed = lapack.dposv(matrix + damping * np.eye(len(w)), moment)
            if failed:
                damping *= 10.0
                continue
            trial = w + step / np.where(length > 0, length, 1.0)
            below = u + d @ trial[k:]
            value = _squares(y, a, d, u, trial)
            crossed = one_sided and min(below.min() * bottom[0], below.max() * bottom[0]) <= 0
            if value < squares and not crossed:
                w, bottom, squares, moved = trial, below, value, True
                damping = max(damping / 10.0, 1e-14)
                break
            damping *= 10.0
        if not moved or squares >= before * (1.0 - settled):
            break
    return squares, w


def _linear_problem(rows: Rows, base: Fraction) -> tuple[Gram, np.ndarray]:
    """The explicit error to first order about ``base``, over all columns but its unit; and these columns' indices."""
    p, q = rows.a.shape[1], rows.b.shape[1]
    others = np.delete(np.arange(p + q), p + base.unit)
    at, bottom = base.predict(rows), rows.b @ base.b
    with np.errstate(all="ignore"):
        columns = np.hstack([rows.a, -rows.b * at[:, None]]) / bottom[:, None]
    finite = np.isfinite(columns).all(axis=1)
    target = (rows.y - at + at * rows.b[:, base.unit] / bottom)[finite]
    return Gram.from_rows(columns[finite][:, others], target[:, None]), others


def is_locally_best(rows: Rows, found: Fraction, node_limit: int) -> bool:
    """Whether no other support of this size is better to first order about ``found``, proven by branch and bound."""
    if not found.support[0]:
        return True
    gram, others = _linear_problem(rows, found)
    p = rows.a.shape[1]
    own = {*found.support[0], *(p + j for j in found.support[1])}
    place = np.flatnonzero([j in own for j in others])
    other = best_subset(gram, 0, len(place), node_limit=node_limit)
    w = gram.solve(place, np.array([0]))[0]
    mine = 1.0 - float(gram.moment[place, 0] @ w) / float(gram.energy[0])
    return other.proven and mine <= other.residual * (1.0 + _TIE) + 1e-10


def slopes(rows: Rows, found: Fraction) -> np.ndarray:
    """Derivatives of the prediction in the coefficients (row, size - 1): numerator, then denominator without unit."""
    at, bottom = found.predict(rows), rows.b @ found.b
    free = [j for j in found.support[1] if j != found.unit]
    return np.hstack([rows.a[:, list(found.support[0])], -rows.b[:, free] * at[:, None]]) / bottom[:, None]


def _best_by_size(found: Iterable[Fraction | None], floor: float) -> list[Fraction]:
    by_size: dict[int, list[Fraction]] = {}
    for one in found:
        if one is not None and np.isfinite(one.squares):
            by_size.setdefault(one.size, []).append(one)
    best = []
    for size in sorted(by_size):
        least = min(one.squares for one in by_size[size])
        # Multiples N p / (D p) of a fraction may have as many terms as itself; they differ by rounding only.
        equal = [one for one in by_size[size] if one.squares <= least * (1.0 + _TIE) + floor]
        best.append(min(equal, key=lambda one: (one.rank, one.squares)))
    return best


def _lstsq(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(columns, axis=0)
    length[length == 0] = 1.0
    return np.asarray(np.linalg.lstsq(columns / length, target, rcond=None)[0]) / length
