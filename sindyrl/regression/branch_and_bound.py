r"""The best ``k`` of ``p`` columns, with a proof: ``min |y - theta_S w|^2 + alpha |w|^2`` over all S of ``k`` columns.

Branch and bound on the Gram matrix. A node has columns that are in (I), columns that may come in (F) and ``m`` places
left. With everything but F projected onto I, the residual of a support is ``rss_I - max_w [2 c'w - w'M w]``, with at
most ``m`` nonzeros in ``w``. Split ``M = N + D`` into a diagonal ``D`` and ``N``, both positive semidefinite.
As ``w'N w >= 2 u'N w - u'N u`` for every ``u``,

    rss >= rss_I - u'N u - (sum of the m largest of s_j),      s_j = (c - N u)_j^2 / D_j

is a bound for every ``u``. At ``u = M^{-1} c`` it is the residual of *all* columns ("leaps and bounds") plus the least
``|F| - m`` of ``D_j u_j^2``; a few steps of ascent in ``u`` raise it further. The same ``s_j`` tell which columns must
be in and which cannot. ``D = diag(1 / P_jj) / l`` with ``P = M^{-1}`` and ``l`` the largest eigenvalue of ``P`` scaled
to unit diagonal, so that nearly dependent columns weaken the bound for themselves and not for all.

References: Furnival, Wilson, Technometrics 16(4), 1974 (leaps and bounds); Liu, Rosen, Zhong, Rudin, OKRidge, NeurIPS
2023 (bounds of this form for k-sparse ridge regression in system identification); Bertsimas, Gurnee, Nonlinear Dyn.
111, 2023 (exact sparse identification).
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.linalg import lapack

from sindyrl.regression.gram import Gram
from sindyrl.regression.subset import subset_path

__all__ = ["NODE_LIMIT", "BestSupport", "Search", "best_subset", "searches_by_size"]

NODE_LIMIT = 500
_RIDGE = 1e-12  # on unit columns, as in `subset`: keeps exactly dependent columns apart
_RELATIVE = 1e-9  # of the residual: supports this close count as equally good
_ABSOLUTE = 1e-13  # of the target's energy: rounding
_ASCENT_STEPS = 30


class Search(enum.Enum):
    """How a search for the best support ended. The value says what to do."""

    proven = "No other support of this size has a smaller residual."
    node_limit = "Stopped at `node_limit` before the proof was complete; `gap` bounds what is left. Raise `node_limit`."
    time_limit = "Stopped at `time_limit` before the proof was complete; `gap` bounds what is left. Raise `time_limit`."

    def __str__(self) -> str:
        return self.value


@dataclasses.dataclass(frozen=True)
class BestSupport:
    """The best support found of one size.

    support : column indices, ascending
    residual : ``|y - theta_S w|^2 + alpha |w|^2`` as a share of ``y'y``
    bound : no support of this size has a smaller residual, in the same unit
    nodes : sub-problems that were bounded
    outcome : whether ``residual`` is proven to be the least (to 1e-9 of itself and 1e-13 of ``y'y``)
    """

    support: tuple[int, ...]
    residual: float
    bound: float
    nodes: int
    outcome: Search

    @property
    def proven(self) -> bool:
        return self.outcome is Search.proven

    @property
    def gap(self) -> float:
        """By how much, at most, another support could lower the residual, as a share of it."""
        return 0.0 if self.proven or self.residual <= 0 else 1.0 - self.bound / self.residual


def best_subset(
    gram: Gram,
    target: int,
    size: int,
    *,
    alpha: float = 0.0,
    node_limit: int = NODE_LIMIT,
    time_limit: float | None = None,
) -> BestSupport:
    """The best support of ``size`` columns for one target; smaller if fewer columns are not zero.

    alpha : weight of the ridge penalty, not scaled by the number of rows
    node_limit, time_limit : 0 nodes leave greedy addition with exchanges, and no proof. Seconds make the outcome
        depend on the machine, nodes do not.
    """
    searches = searches_by_size(gram, target, size, alpha=alpha)
    if not searches:
        return BestSupport((), 1.0, 1.0, 0, Search.proven)
    return searches[-1](node_limit, time_limit)


def searches_by_size(
    gram: Gram, target: int, max_terms: int, *, alpha: float = 0.0
) -> list[Callable[[int, float | None], BestSupport]]:
    """For size 1 ... ``max_terms`` a search, to be called with ``node_limit`` and ``time_limit``; see `best_subset`.

    Columns of zeros never enter; there are fewer sizes if there are fewer other columns.
    """
    problem = _Scaled.of(gram, target, alpha)
    if problem is None:
        return []
    largest = min(max_terms, len(problem.columns))
    starts = _starts(problem, largest)
    return [_Tree(problem, size, starts[size]).run for size in range(1, largest + 1)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """Unit columns and a unit target: residual(S) = 1 - c_S' A_SS^{-1} c_S.  Columns of zeros are left out."""

    matrix: np.ndarray
    moment: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, gram: Gram, target: int, alpha: float) -> _Scaled | None:
        square = np.diag(gram.matrix)
        columns = np.flatnonzero(square > 0)
        energy = float(gram.energy[target])
        if not len(columns) or energy <= 0:
            return None
        scale = np.sqrt(square[columns])
        matrix = gram.matrix[np.ix_(columns, columns)] / np.outer(scale, scale)
        matrix[np.diag_indices_from(matrix)] += alpha / scale**2 + _RIDGE
        return cls(matrix, gram.moment[columns, target] / (scale * np.sqrt(energy)), columns)

    def residual(self, support: Sequence[int]) -> float:
        index = np.asarray(support, dtype=int)
        moment = self.moment[index]
        _, w, failed = lapack.dposv(self.matrix[np.ix_(index, index)], moment)
        return 1.0 if failed else float(max(1.0 - moment @ w, 0.0))


def _starts(problem: _Scaled, largest: int) -> dict[int, tuple[int, ...]]:
    """A good support of every size: greedy addition and exchanges, filled up where that stopped early."""
    gram = Gram(problem.matrix, problem.moment[:, None], np.ones(1), 1.0)
    path = subset_path(gram, 0, largest)
    starts = {len(support): support for support in path}
    for size in range(1, largest + 1):
        if size not in starts:
            before = starts.get(size - 1, ())
            starts[size] = (*before, next(j for j in range(len(problem.columns)) if j not in before))
    return starts


@dataclasses.dataclass(order=True, frozen=True)
class _Node:
    bound: float
    order: int
    included: tuple[int, ...] = dataclasses.field(compare=False)
    free: tuple[int, ...] = dataclasses.field(compare=False)


class _Tree:
    """Best-first branch and bound for one size."""

    def __init__(self, problem: _Scaled, size: int, start: Iterable[int]) -> None:
        self.problem, self.size = problem, size
        self.best: tuple[int, ...] = ()
        self.residual = np.inf
        self._offer(start)
        self._open: list[_Node] = []
        self._order = itertools.count()

    def run(self, node_limit: int, time_limit: float | None) -> BestSupport:
        deadline = np.inf if time_limit is None else time.monotonic() + time_limit
        self._push(0.0, (), tuple(range(len(self.problem.columns))))
        nodes, outcome = 0, Search.proven
        while self._open and self._open[0].bound < self._cut:
            if nodes >= node_limit or time.monotonic() > deadline:
                outcome = Search.node_limit if nodes >= node_limit else Search.time_limit
                break
            node = heapq.heappop(self._open)
            nodes += 1
            self._branch(node)
        bound = self.residual if outcome is Search.proven else min(self._open[0].bound, self.residual)
        support = tuple(sorted(self.problem.columns[list(self.best)].tolist()))
        return BestSupport(support, self.residual, bound, nodes, outcome)

    @property
    def _cut(self) -> float:
        """A node whose bound reaches this cannot hold a better support than the one at hand."""
        return self.residual * (1.0 - _RELATIVE) - _ABSOLUTE

    def _push(self, bound: float, included: tuple[int, ...], free: tuple[int, ...]) -> None:
        if bound < self._cut:
            # Of equal bounds the later one first: it is deeper, and closer to a complete support.
            heapq.heappush(self._open, _Node(bound, -next(self._order), included, free))

    def _offer(self, support: Iterable[int]) -> None:
        support = tuple(support)
        residual = self.problem.residual(support)
        if residual < self.residual:
            self.best, self.residual = support, residual

    def _branch(self, node: _Node) -> None:
        places = self.size - len(node.included)
        if places == 0 or len(node.free) <= places:
            self._offer((*node.included, *node.free)[: self.size])
            return
        free = np.array(node.free)
        bounds = _bounds(self.problem, node.included, node.free, places, self._cut)
        ranked = np.argsort(-bounds.share)
        self._offer((*node.included, *free[ranked[:places]].tolist()))
        bound = max(node.bound, bounds.value, bounds.full)
        if bound >= self._cut:
            return
        last_in, first_out = bounds.share[ranked[places - 1]], bounds.share[ranked[places]]
        # What the bound becomes if a column is kept out, and if it is brought in.
        without = np.maximum(bounds.value + np.maximum(bounds.share - first_out, 0.0), bounds.full + bounds.increase)
        within = bounds.value + np.maximum(last_in - bounds.share, 0.0)
        needed, hopeless = without >= self._cut, within >= self._cut
        if (needed & hopeless).any() or needed.sum() > places:
            return
        if needed.any() or hopeless.any():
            undecided = free[~(needed | hopeless)]
            self._push(bound, (*node.included, *free[needed].tolist()), tuple(undecided.tolist()))
            return
        pivot = int(ranked[0])
        rest = tuple(np.delete(free, pivot).tolist())
        self._push(max(bound, float(without[pivot])), node.included, rest)
        self._push(max(bound, float(within[pivot])), (*node.included, int(free[pivot])), rest)


@dataclasses.dataclass(frozen=True, eq=False)
class _Bounds:
    """value, full : lower bounds by the split ``N + D``, and by all columns at once
    share : (free,) s_j of the value   increase : (free,) what leaving a column out adds to ``full``
    """

    value: float
    full: float
    share: np.ndarray
    increase: np.ndarray


def _bounds(problem: _Scaled, included: Sequence[int], free: Sequence[int], places: int, cut: float) -> _Bounds:
    """Lower bounds of the residual over all supports with ``included`` and at most ``places`` of ``free``."""
    active = np.array([*included, *free])
    k = len(included)
    moment = problem.moment[active]
    inverse = _inverse(problem.matrix[np.ix_(active, active)])
    w = inverse @ moment
    full = max(float(1.0 - moment @ w), 0.0)
    inverse, w = inverse[k:, k:], w[k:]  # the inverse of M, and M^{-1} c
    diagonal = np.diag(inverse)
    root = np.sqrt(diagonal)
    largest = float(np.linalg.eigvalsh(inverse / np.outer(root, root))[-1])
    d = 1.0 / (diagonal * largest * (1.0 + 1e-9))
    m = _inverse(inverse)
    n = m - np.diag(d)
    c = m @ w
    rss = full + float(w @ c)
    value, share = _ascend(n, c, d, w, rss, places, cut)
    return _Bounds(value, full, share, w**2 / diagonal)


def _ascend(
    n: np.ndarray, c: np.ndarray, d: np.ndarray, u: np.ndarray, rss: float, places: int, cut: float
) -> tuple[float, np.ndarray]:
    """The largest value of ``rss - u'N u - (sum of the largest s_j)`` met on the way up, and its ``s``."""
    best, best_share = -np.inf, np.zeros_like(c)
    rest, nu = c - n @ u, n @ u
    for _ in range(_ASCENT_STEPS):
        share = rest * rest / d
        top = np.argpartition(share, -places)[-places:]
        value = rss - float(u @ nu) - float(share[top].sum())
        if value > best:
            best, best_share = value, share
        if best >= cut:
            break
        # The gradient is 2 N (z - u): in the metric of N, straight towards the solution z on the columns on top.
        direction = -u
        direction[top] += rest[top] / d[top]
        along = n @ direction
        curvature = float(direction @ along)
        if curvature <= 1e-18:
            break
        step = min((cut - value) / (2.0 * curvature), 1.0)
        u, nu, rest = u + step * direction, nu + step * along, rest - step * along
    return best, best_share


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a symmetric positive definite matrix; with the ridge added until it is one to working precision."""
    ridge = _RIDGE * np.trace(matrix) / len(matrix)
    lower, failed = lapack.dpotrf(matrix, lower=1)
    while failed:
        matrix = matrix + ridge * np.eye(len(matrix))
        ridge *= 10.0
        lower, failed = lapack.dpotrf(matrix, lower=1)
    inverse = lapack.dpotri(lower, lower=1)[0]
    return np.tril(inverse) + np.tril(inverse, -1).T
