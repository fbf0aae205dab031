"""Least squares on sums of products, and sequential thresholding on top of it.

Every sub-problem that sparse regression visits, ``min |y - theta_S w|^2`` over columns ``S``, is
determined by ``theta' theta`` and ``theta' y``.  Forming them once costs ``n p^2``; each visit then
costs ``|S|^3 / 3`` whatever the number of rows.  Sums over rows also add and subtract, which makes
bootstrap members and cross-validation folds cheap.

The price is that the condition number is squared.  Above `MAX_CONDITION` a `Factor` of the tall
matrix takes the place of the `Gram`; it has the same interface and the full accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import lapack

__all__ = [
    "MAX_CONDITION",
    "Factor",
    "Gram",
    "PartSums",
    "Problem",
    "SparseFit",
    "block_sums",
    "deal",
    "least_squares_problem",
    "orthogonal_factors",
    "stlsq_gram",
    "threshold_rounds",
    "weighted_factors",
    "weighted_grams",
]

MAX_CONDITION = 1e7  # of the library with unit columns; its square is what a Gram matrix sees
_ROW_BLOCK = 8192  # rows per product: long enough for BLAS, short enough to stay in cache


class Problem(Protocol):
    """Least squares restricted to columns; what the thresholding kernel needs to know."""

    @property
    def energy(self) -> np.ndarray:
        """``y' y`` by target, (target,)."""
        ...

    @property
    def n(self) -> float:
        """Number of rows, or the sum of their weights."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(n_targets, n_features)"""
        ...

    @property
    def column_squares(self) -> np.ndarray:
        """Sum of squares of each library column, (feature,)."""
        ...

    def solve(self, columns: np.ndarray, targets: np.ndarray, ridge: np.ndarray | None = None) -> np.ndarray:
        """Coefficients (len(targets), len(columns)) of the targets on these columns only."""
        ...


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over rows: ``theta' theta``, ``theta' y``, ``y' y`` by target, and the row count.

    matrix : (feature, feature)   moment : (feature, target)   energy : (target,)   n : rows, or sum of weights
    """

    matrix: np.ndarray
    moment: np.ndarray
    energy: np.ndarray
    n: float

    @classmethod
    def from_rows(cls, theta: np.ndarray, y: np.ndarray) -> Gram:
        """Gram sums of theta (sample, feature) and y (sample, target), in blocks of rows."""
        n, p = theta.shape
        matrix, moment = np.zeros((p, p)), np.zeros((p, y.shape[1]))
        for start in range(0, n, _ROW_BLOCK):
            rows = theta[start : start + _ROW_BLOCK]
            matrix += rows.T @ rows
            moment += rows.T @ y[start : start + _ROW_BLOCK]
        return cls(matrix, moment, np.einsum("ij,ij->j", y, y), float(n))

    def __add__(self, other: Gram) -> Gram:
        """Gram sums of the rows of both."""
        return Gram(
            self.matrix + other.matrix, self.moment + other.moment, self.energy + other.energy, self.n + other.n
        )

    def __sub__(self, other: Gram) -> Gram:
        """Gram sums without the rows of ``other``."""
        return Gram(
            self.matrix - other.matrix, self.moment - other.moment, self.energy - other.energy, self.n - other.n
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_targets, n_features)"""
        return self.moment.shape[1], self.moment.shape[0]

    @property
    def column_squares(self) -> np.ndarray:
        """Sum of squares of each library column, (feature,)."""
        return np.diag(self.matrix)

    def condition(self) -> float:
        """Condition number of theta after scaling its columns to unit length.

        The square root of the ratio of the extreme eigenvalues of the scaled Gram matrix, so values
        beyond about 1e8 mean only "too large to tell"; infinite if a column is zero.
        """
        scale = np.sqrt(np.diag(self.matrix))
        if not scale.size or not (scale > 0).all() or not np.isfinite(scale).all():
            return np.inf
        eigenvalues = np.linalg.eigvalsh(self.matrix / np.outer(scale, scale))
        return float(np.sqrt(eigenvalues[-1] / eigenvalues[0])) if eigenvalues[0] > 0 else np.inf

    def solve(self, columns: np.ndarray, targets: np.ndarray, ridge: np.ndarray | None = None) -> np.ndarray:
        """See `Problem`.  ``ridge`` (feature,) is added to the diagonal."""
        matrix = self.matrix[columns[:, None], columns]
        if ridge is not None:
            matrix.flat[:: len(columns) + 1] += ridge[columns]  # the diagonal
        moment = self.moment[columns[:, None], targets]
        _, w, failed = lapack.dposv(matrix.T, moment, overwrite_a=False)
        if failed:  # not positive definite to working precision: the shortest of the solutions
            w = np.linalg.lstsq(matrix, moment, rcond=None)[0]
        return np.asarray(w).T


@dataclass(frozen=True, eq=False)
class Factor:
    """Triangle of the tall matrix: ``|y - theta w|^2 = |z - r w|^2 + constant`` for every ``w``.

    r : (rank, feature)   z : (rank, target)   energy, n : as in `Gram`; rank = min(features, rows)
    """

    r: np.ndarray
    z: np.ndarray
    energy: np.ndarray
    n: float

    @classmethod
    def from_rows(cls, theta: np.ndarray, y: np.ndarray) -> Factor:
        """QR factorization of theta (sample, feature), applied to y (sample, target)."""
        q, r = np.linalg.qr(theta)
        return cls(r, q.T @ y, np.einsum("ij,ij->j", y, y), float(len(theta)))

    @property
    def shape(self) -> tuple[int, int]:
        """(n_targets, n_features)"""
        return self.z.shape[1], self.r.shape[1]

    @property
    def column_squares(self) -> np.ndarray:
        """Sum of squares of each library column, (feature,)."""
        return np.einsum("ij,ij->j", self.r, self.r)

    def condition(self) -> float:
        """Condition number of theta after scaling its columns to unit length; infinite if a column is zero."""
        length = np.sqrt(self.column_squares)
        if not length.size or not (length > 0).all() or not np.isfinite(length).all() or len(self.r) < len(length):
            return np.inf
        singular = np.linalg.svd(self.r / length, compute_uv=False)
        return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf

    def solve(self, columns: np.ndarray, targets: np.ndarray, ridge: np.ndarray | None = None) -> np.ndarray:
        """See `Problem`.  Columns are scaled to unit length; if they depend on each other the shortest
        of the solutions, in that scale, is returned."""
        r, z = self.r[:, columns], self.z[:, targets]
        if ridge is not None and ridge[columns].any():
            r = np.vstack([r, np.diag(np.sqrt(ridge[columns]))])
            z = np.vstack([z, np.zeros((len(columns), z.shape[1]))])
        length = np.sqrt(np.einsum("ij,ij->j", r, r))
        length[length == 0] = 1.0
        w = np.linalg.lstsq(r / length, z, rcond=None)[0]
        return np.asarray(w.T / length)


def least_squares_problem(theta: np.ndarray, y: np.ndarray) -> tuple[Problem, float]:
    """The cheapest accurate form of ``min |y - theta w|^2``, and the condition number of `Gram.condition`."""
    gram = Gram.from_rows(theta, y)
    condition = gram.condition()
    return (gram if condition <= MAX_CONDITION else Factor.from_rows(theta, y)), condition


class SparseFit(NamedTuple):
    """coef : (target, feature)   converged : (target,)   rounds : (target,)"""

    coef: np.ndarray
    converged: np.ndarray
    rounds: np.ndarray


def threshold_rounds(
    problem: Problem,
    threshold: float | np.ndarray,
    ridge: float | np.ndarray = 0.0,
    max_iter: int = 20,
    columns: Sequence[int] | np.ndarray | None = None,
) -> SparseFit:
    r"""Sequentially thresholded least squares for all targets.

    Each round solves ``min |y - theta_S w|^2 + sum_j ridge_j w_j^2`` on the support S, then drops
    every ``|w_j| < threshold``, until the support stays as it is.  A coefficient equal to the threshold is kept.

    threshold : number, or broadcastable to (target, feature)
    ridge : number, or (feature,); not scaled by the number of rows
    columns : indices of the columns that may enter; all by default
    References: Brunton, Proctor, Kutz, PNAS 113(15), 2016, supporting information.
    """
    n_targets, n_features = problem.shape
    thresholds = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (n_targets, n_features))
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (n_features,))
    penalty_or_none = penalty if penalty.any() else None
    coef = np.zeros((n_targets, n_features))
    converged = np.zeros(n_targets, dtype=bool)
    rounds = np.zeros(n_targets, dtype=int)
    start = np.arange(n_features) if columns is None else np.asarray(columns, dtype=int)
    if not len(start):
        return SparseFit(coef, ~converged, rounds)
    # All targets share the first support, and with it the one expensive factorization.
    first = problem.solve(start, np.arange(n_targets), penalty_or_none)
    for target in range(n_targets):
        support, w = start, first[target]
        only_target = np.array([target])
        for completed in range(1, max_iter + 1):
            rounds[target] = completed
            keep = np.abs(w) >= thresholds[target, support]
            support, w = support[keep], w[keep]
            if keep.all() or not len(support):
                converged[target] = True
                break
            if completed < max_iter:
                w = problem.solve(support, only_target, penalty_or_none)[0]
        coef[target, support] = w
    return SparseFit(coef, converged, rounds)


def stlsq_gram(
    matrix: np.ndarray,
    moment: np.ndarray,
    threshold: float | np.ndarray,
    ridge: float | np.ndarray = 0.0,
    max_iter: int = 20,
) -> SparseFit:
    """`threshold_rounds` on bare Gram sums ``theta' theta`` (feature, feature) and ``theta' y`` (feature, target)."""
    gram = Gram(np.asarray(matrix), np.asarray(moment), np.zeros(np.shape(moment)[1]), 1.0)
    return threshold_rounds(gram, threshold, ridge, max_iter)


def weighted_grams(theta: np.ndarray, y: np.ndarray, weights: np.ndarray) -> list[Gram]:
    r"""Gram sums ``theta' diag(w_k) theta`` for many weightings of the same rows.

    theta : (sample, feature)   y : (sample, target)   weights : (member, sample), non-negative

    All members share the products of columns: a block of rows of ``theta_i theta_j`` (i <= j) is formed
    once and one matrix product with the weights serves every member.
    """
    n, p = theta.shape
    joint = np.hstack([theta, y])
    k = joint.shape[1] - p
    # Row i of the upper triangle holds columns i ... p+k of [theta, y]; y'y is kept on its diagonal only.
    offsets = np.concatenate([[0], np.cumsum(p + k - np.arange(p))])
    total = np.zeros((len(weights), offsets[-1] + k))
    block = max(64, 2**19 // total.shape[1])  # about 4 MB of products: measured best, they never leave the cache
    products = np.empty((block, total.shape[1]))
    for start in range(0, n, block):
        rows = joint[start : start + block]
        out = products[: len(rows)]
        for i in range(p):
            np.multiply(rows[:, i:], rows[:, i, None], out=out[:, offsets[i] : offsets[i + 1]])
        np.square(rows[:, p:], out=out[:, offsets[p] :])
        total += weights[:, start : start + block] @ out
    upper, column = np.triu_indices(p, 0, p + k)
    grams = []
    for sums, n_rows in zip(total, weights.sum(axis=1), strict=True):
        full = np.zeros((p, p + k))
        full[upper, column] = sums[: offsets[-1]]
        matrix = full[:, :p] + np.triu(full[:, :p], 1).T
        grams.append(Gram(matrix, full[:, p:].copy(), sums[offsets[-1] :].copy(), float(n_rows)))
    return grams


@dataclass(frozen=True, eq=False)
class PartSums:
    """Gram sums of disjoint parts of the rows, from which those of any resampling of parts follow.

    matrix : (part, feature, feature)   moment : (part, feature, target)   energy : (part, target)   n : (part,)
    """

    matrix: np.ndarray
    moment: np.ndarray
    energy: np.ndarray
    n: np.ndarray

    def combine(self, weights: np.ndarray) -> list[Gram]:
        """``sum_i weights[k, i] part_i`` for every member k; weights (member, part)."""
        matrix, moment = (np.tensordot(weights, sums, 1) for sums in (self.matrix, self.moment))
        energy, n = weights @ self.energy, weights @ self.n
        return [Gram(*member[:3], float(member[3])) for member in zip(matrix, moment, energy, n, strict=True)]

    def total(self) -> Gram:
        """Gram sums of all rows."""
        return Gram(self.matrix.sum(axis=0), self.moment.sum(axis=0), self.energy.sum(axis=0), float(self.n.sum()))


def block_sums(theta: np.ndarray, y: np.ndarray, length: int) -> PartSums:
    """Gram sums of each run of ``length`` consecutive rows; the last run may be shorter."""
    n, p = theta.shape
    k = y.shape[1]
    count = -(-n // length)
    matrix, moment, energy = np.empty((count, p, p)), np.empty((count, p, k)), np.empty((count, k))
    stride = max(1, _ROW_BLOCK // length)  # blocks at a time, to stay in cache
    whole = n // length
    for start in range(0, whole, stride):
        blocks = slice(start, min(start + stride, whole))
        rows = slice(blocks.start * length, blocks.stop * length)
        part = np.ascontiguousarray(theta[rows]).reshape(-1, length, p)
        part_y = np.ascontiguousarray(y[rows]).reshape(-1, length, k)
        np.matmul(part.transpose(0, 2, 1), part, out=matrix[blocks])
        np.matmul(part.transpose(0, 2, 1), part_y, out=moment[blocks])
        np.einsum("bij,bij->bj", part_y, part_y, out=energy[blocks])
    if whole < count:
        last = Gram.from_rows(theta[whole * length :], y[whole * length :])
        matrix[-1], moment[-1], energy[-1] = last.matrix, last.moment, last.energy
    sizes = np.full(count, float(length))
    sizes[-1] = n - (count - 1) * length
    return PartSums(matrix, moment, energy, sizes)


def deal(parts: PartSums | None, blocks: PartSums, most: int, start: int = 0) -> PartSums:
    """Add block ``i`` to part ``(start + i) % most``; further parts come into being up to ``most``."""
    known = 0 if parts is None else len(parts.n)
    count = len(blocks.n)
    size = min(most, max(known, start + count))
    sums = []
    for name in ("matrix", "moment", "energy", "n"):
        new = getattr(blocks, name)
        total = np.zeros((size, *new.shape[1:]))
        if parts is not None:
            total[:known] = getattr(parts, name)
        for first in range(0, count, most):
            chunk = new[first : first + most]
            total[(start + first + np.arange(len(chunk))) % most] += chunk
        sums.append(total)
    return PartSums(*sums)


def weighted_factors(theta: np.ndarray, y: np.ndarray, weights: np.ndarray) -> list[Factor]:
    r"""Accurate counterpart of `weighted_grams` for ill-conditioned ``theta = q r``.

    ``q`` has orthonormal columns, so ``q' diag(w) q = v s v'`` is well conditioned and may be formed; then
    ``diag(sqrt(w)) theta`` has the factor ``diag(sqrt(s)) v' r``, with the condition number not squared.
    """
    q, r = np.linalg.qr(theta)
    return orthogonal_factors(weighted_grams(q, y, weights), r)


def orthogonal_factors(grams: Sequence[Gram], r: np.ndarray) -> list[Factor]:
    """Factors of weighted rows of ``theta = q r`` from the Gram sums of the same rows of ``q``."""
    factors = []
    for gram in grams:
        eigenvalues, v = np.linalg.eigh(gram.matrix)
        root = np.sqrt(np.maximum(eigenvalues, 0.0))
        # Directions that the drawn rows do not excite at all carry no equation.
        present = eigenvalues > len(root) * np.finfo(float).eps * max(eigenvalues[-1], 0.0)
        v, root = v[:, present], root[present]
        factors.append(Factor(root[:, None] * (v.T @ r), (v.T @ gram.moment) / root[:, None], gram.energy, gram.n))
    return factors
