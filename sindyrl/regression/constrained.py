r"""Sequentially thresholded least squares under linear constraints on the coefficients.

Each round solves ``min sum_k |y_k - theta w_k|^2`` over the terms still in, subject to ``A vec(w) = b`` and
``C vec(w) <= d`` exactly, then drops what is below the threshold; targets that no constraint couples are separate
problems.  All work is on the triangle of the library matrix, so its cost does not depend on the number of rows:

* equalities: coordinates of their null space, orthogonal factorization (the KKT system without forming it);
* inequalities: an interior-point solution (Clarabel) names the active rows, which are then solved as equalities, so
  that an active bound holds to the last digits.

Reference: Loiseau, Brunton, J. Fluid Mech. 838, 2018 (equality constraints in sequential thresholding).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

from sindyrl.regression.constraints import Constraints, InfeasibleConstraints, reduced_rows
from sindyrl.regression.gram import Factor, Gram, Problem, SparseFit, weighted_factors
from sindyrl.regression.stlsq import STLSQ

__all__ = ["ConstrainedSTLSQ", "LeastSquaresSystem"]

_FEASIBLE = 1e-9  # violation of a row of length 1, in scaled coefficients, that counts as rounding


class ConstrainedSTLSQ(STLSQ):
    r"""`STLSQ` whose coefficients satisfy linear constraints exactly; also for each member of an `Ensemble`.

    A term is dropped when its coefficient is below the threshold, unless the constraints could not hold without it (a
    known term is never dropped).  What the constraints tie to a dropped term goes with it.

    The *mean* of an ensemble's members satisfies the constraints too, their median only those of single coefficients:
    use ``Ensemble(ConstrainedSTLSQ(...), aggregate="mean")``.  A member that does without some columns keeps those that
    the constraints do not allow to be zero.

    Parameters
    ----------
    constraints : Constraints, default None
        Over all columns of the library matrix and all targets; None constrains nothing and gives `STLSQ`.
    threshold, alpha, max_iter, normalize, unbias : as in `STLSQ`
        With ``normalize``, the residuals of targets that are coupled are also weighted by 1/rms(y).

    `fit` raises ValueError if the constraints are for another number of targets or columns, and
    InfeasibleConstraints (a ValueError) if they contradict each other.

    Attributes: as in `STLSQ`.
    """

    def __init__(
        self,
        constraints: Constraints | None = None,
        *,
        threshold: float | Sequence[float] = 0.1,
        alpha: float = 0.0,
        max_iter: int = 20,
        normalize: bool = False,
        unbias: bool = False,
    ) -> None:
        super().__init__(threshold, alpha=alpha, max_iter=max_iter, normalize=normalize, unbias=unbias)
        self.constraints = constraints

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.constraints is not None and not isinstance(self.constraints, Constraints):
            raise TypeError(
                f"`ConstrainedSTLSQ(constraints=...)` must be `Constraints` or None. Got {self.constraints!r}."
            )

    def fit_problem(self, problem: Problem, columns: np.ndarray | None = None) -> SparseFit:
        """See `STLSQ.fit_problem`."""
        rows = self._rows(problem)
        if rows is None:
            return super().fit_problem(problem, columns)
        n_targets, n_features = problem.shape
        offered = np.zeros(problem.shape, dtype=bool)
        offered[:, np.arange(n_features) if columns is None else columns] = True
        offered |= rows.required(problem.shape)
        system = LeastSquaresSystem(problem, self._ridge(problem), self.normalize)
        unpenalized = LeastSquaresSystem(problem, np.zeros(n_features), self.normalize) if self.unbias else None
        thresholds = self.coefficient_thresholds(problem)
        coef = np.zeros(problem.shape)
        converged, rounds = np.ones(n_targets, dtype=bool), np.zeros(n_targets, dtype=int)
        for group in rows.groups(problem.shape):
            active = np.zeros(problem.shape, dtype=bool)
            active[group] = offered[group]
            part = rows.touching(active)
            for completed in range(1, self.max_iter + 1):
                rounds[group] = completed
                w = system.solve(np.flatnonzero(active), part)
                keep = np.asarray(active & (np.abs(w) >= thresholds) & (w != 0))
                keep = part.restored(keep, active, w)
                if (keep == active).all():
                    break
                active = keep
            else:  # the support is not settled, but what is returned satisfies the constraints all the same
                converged[group] = False
                w = system.solve(np.flatnonzero(active), part)
            if unpenalized is not None:
                w = unpenalized.solve(np.flatnonzero(active), part)
            coef[group] = w[group]
        return SparseFit(coef, converged, rounds)

    def refit_members(
        self, theta: np.ndarray, y: np.ndarray, coef: np.ndarray, n_members: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Row bootstraps on the support of ``coef`` under the same constraints; (member, target, feature).

        Member 0 is ``coef`` itself.
        """
        members = np.repeat(coef[None], n_members, axis=0)
        if n_members > 1:
            weights = rng.multinomial(len(theta), np.full(len(theta), 1.0 / len(theta)), size=n_members - 1)
            for member, problem in enumerate(weighted_factors(theta, y, weights.astype(np.float64)), start=1):
                rows = self._rows(problem)
                system = LeastSquaresSystem(problem, np.zeros(theta.shape[1]), self.normalize)
                for group in (rows or _Rows.none(coef.size)).groups(coef.shape):
                    active = np.zeros(coef.shape, dtype=bool)
                    active[group] = coef[group] != 0
                    part = (rows or _Rows.none(coef.size)).touching(active)
                    members[member, group] = system.solve(np.flatnonzero(active), part)[group]
        return members

    def _ridge(self, problem: Problem) -> np.ndarray:
        scale = problem.column_squares / problem.n if self.normalize else np.ones(problem.shape[1])
        return np.asarray(float(self.alpha) * scale)

    def _constraints(self) -> Constraints | None:
        """What `fit_problem` imposes."""
        return self.constraints

    def _rows(self, problem: Problem) -> _Rows | None:
        c = self._constraints()
        if c is None or not len(c):
            return None
        if c.shape != problem.shape:
            raise ValueError(
                f"`ConstrainedSTLSQ(constraints=...)` are for {c.shape[0]} targets and "
                f"{c.shape[1]} terms. Got data with {problem.shape[0]} targets and {problem.shape[1]} "
                "columns. Build `Constraints` over the library that the columns come from (`library.independent(...)` "
                "if dependent terms were dropped)."
            )
        return _Rows(c.equalities, c.values, c.inequalities, c.bounds)


class _Rows(NamedTuple):
    """``equal @ vec(coef) = values`` and ``limit @ vec(coef) <= bounds``."""

    equal: np.ndarray
    values: np.ndarray
    limit: np.ndarray
    bounds: np.ndarray

    @classmethod
    def none(cls, width: int) -> _Rows:
        return cls(np.zeros((0, width)), np.zeros(0), np.zeros((0, width)), np.zeros(0))

    def required(self, shape: tuple[int, int]) -> np.ndarray:
        """Coefficients in a row that zeros do not satisfy, bool (target, feature)."""
        needed = (self.equal[self.values != 0] != 0).any(axis=0) | (self.limit[self.bounds < 0] != 0).any(axis=0)
        return np.asarray(needed).reshape(shape)

    def groups(self, shape: tuple[int, int]) -> list[np.ndarray]:
        """Targets that constraints couple, directly or through others."""
        rows = np.vstack([self.equal, self.limit]).reshape(-1, *shape)
        touched = np.asarray(rows.any(axis=2), dtype=np.float64)
        count, label = connected_components(sparse.csr_array(touched.T @ touched), directed=False)
        return [np.flatnonzero(label == index) for index in range(count)]

    def touching(self, active: np.ndarray) -> _Rows:
        """The rows of one group of targets, those that hold an active coefficient."""
        targets = np.repeat(np.asarray(active.any(axis=1)), active.shape[1])
        equal = (self.equal[:, targets] != 0).any(axis=1)
        limit = (self.limit[:, targets] != 0).any(axis=1)
        return _Rows(self.equal[equal], self.values[equal], self.limit[limit], self.bounds[limit])

    def restored(self, keep: np.ndarray, active: np.ndarray, w: np.ndarray) -> np.ndarray:
        """``keep``, and as few of the largest dropped coefficients as the constraints need to hold."""
        if (keep == active).all():
            return keep
        needed = (self.required(keep.shape) & active & ~keep).ravel()
        keep = keep.copy()
        for index in sorted(np.flatnonzero(needed), key=lambda i: -abs(w.flat[i])):
            if self.feasible(keep):
                return keep
            keep.flat[index] = True
        return keep if self.feasible(keep) else active

    def feasible(self, active: np.ndarray) -> bool:
        """Whether some coefficients, zero where not active, satisfy all rows."""
        if not (self.values != 0).any() and not (self.bounds < 0).any():
            return True  # zeros do
        columns = np.flatnonzero(active)
        try:
            equal, values = reduced_rows(self.equal[:, columns], self.values)
        except InfeasibleConstraints:
            return False
        if not len(self.limit):
            return True
        width = len(columns)
        if not width:
            return bool((self.bounds >= 0).all())
        nothing = np.zeros((0, width)), np.zeros(0)
        return _interior_point(*nothing, equal, values, self.limit[:, columns], self.bounds) is not None


class LeastSquaresSystem:
    """Triangles of the library and right-hand sides of all targets, to be solved on any set of coefficients."""

    def __init__(self, problem: Problem, ridge: np.ndarray, weighted: bool) -> None:
        self.r, self.z = _triangle(problem)
        if ridge.any():
            self.r = np.vstack([self.r, np.diag(np.sqrt(ridge))])
            self.z = np.vstack([self.z, np.zeros((len(ridge), self.z.shape[1]))])
        self.lengths = np.sqrt(np.einsum("ij,ij->j", self.r, self.r))
        self.lengths[self.lengths == 0] = 1.0
        self.weights = np.ones(problem.shape[0])
        if weighted:
            self.weights = 1.0 / np.sqrt(np.where(problem.energy > 0, problem.energy, 1.0))
        self.shape = problem.shape

    def solve(self, active: np.ndarray, rows: _Rows) -> np.ndarray:
        """Coefficients (target, feature), zero but for the flat indices ``active``, that satisfy the rows."""
        matrix, right, scale = self.assembled(active)
        w = _constrained_least_squares(
            matrix,
            right,
            _Rows(rows.equal[:, active] / scale, rows.values, rows.limit[:, active] / scale, rows.bounds),
        )
        w = w / scale
        for row, value in zip(rows.equal[:, active], rows.values, strict=True):
            if np.count_nonzero(row) == 1:  # known coefficients as they were written
                index = np.flatnonzero(row)[0]
                w[index] = value / row[index]
        coef = np.zeros(self.shape)
        coef.flat[active] = w
        return coef

    def assembled(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrix and right-hand side in unit columns, and the scale: coefficients are solutions over it."""
        targets, columns = np.divmod(active, self.shape[1])
        scale = self.lengths[columns] * self.weights[targets]
        # Block by block: each target has its own coefficients of the same columns.
        blocks = [(targets == target) for target in np.unique(targets)]
        height = len(self.r)
        matrix, right = np.zeros((height * len(blocks), len(active))), np.zeros(height * len(blocks))
        for index, block in enumerate(blocks):
            target, part = targets[block][0], slice(index * height, (index + 1) * height)
            matrix[part, block] = self.r[:, columns[block]] / self.lengths[columns[block]]
            right[part] = self.z[:, target] * self.weights[target]
        return matrix, right, scale


def _triangle(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """``|y - theta w|^2 = |z - r w|^2 + constant``: r (rank, feature), z (rank, target)."""
    if isinstance(problem, Factor):
        return problem.r, problem.z
    if not isinstance(problem, Gram):
        raise TypeError(f"Constrained fits work on a `Gram` or a `Factor`. Got {type(problem).__name__}.")
    lengths = np.sqrt(np.diag(problem.matrix))
    lengths = np.where(lengths > 0, lengths, 1.0)
    scaled, moment = problem.matrix / np.outer(lengths, lengths), problem.moment / lengths[:, None]
    try:
        lower = np.linalg.cholesky(scaled)
    except np.linalg.LinAlgError:
        eigenvalues, vectors = np.linalg.eigh(scaled)
        present = eigenvalues > len(eigenvalues) * np.finfo(float).eps * eigenvalues[-1]
        root, vectors = np.sqrt(eigenvalues[present]), vectors[:, present]
        return root[:, None] * vectors.T * lengths, vectors.T @ moment / root[:, None]
    return lower.T * lengths, linalg.solve_triangular(lower, moment, lower=True)


def _constrained_least_squares(matrix: np.ndarray, right: np.ndarray, rows: _Rows) -> np.ndarray:
    """``argmin |right - matrix w|`` under the rows."""
    equal, values = reduced_rows(rows.equal, rows.values)
    w = _on_null_space(matrix, right, equal, values)
    if not len(rows.limit):
        return w
    length = np.linalg.norm(rows.limit, axis=1)
    if (rows.bounds[length == 0] < 0).any():
        raise InfeasibleConstraints("An inequality has no coefficient left in it that could satisfy it.")
    limit, bounds = rows.limit[length > 0] / length[length > 0, None], rows.bounds[length > 0] / length[length > 0]
    size = max(float(np.linalg.norm(right)), np.finfo(float).tiny)
    rounding = _FEASIBLE * (np.abs(w).max(initial=0.0) + np.abs(bounds).max(initial=0.0))
    if (limit @ w - bounds <= rounding).all() and not (limit @ w > bounds).any():
        return w
    solution = _interior_point(matrix, right / size, equal, values / size, limit, bounds / size)
    if solution is None:
        raise InfeasibleConstraints("The constraints contradict each other.")
    w, active = solution[0] * size, solution[1]
    # A limit with almost no force on it may be taken for the wrong kind; the signs of the multipliers tell.
    for _ in range(len(limit) + 1):
        try:
            tight = reduced_rows(np.vstack([rows.equal, limit[active]]), np.append(rows.values, bounds[active]))
        except InfeasibleConstraints:
            return w
        polished = _on_null_space(matrix, right, *tight)
        violated = limit @ polished - bounds > rounding
        if violated.any():
            active = active | violated
            continue
        w = polished
        force = np.linalg.lstsq(np.vstack([equal, limit[active]]).T, matrix.T @ (right - matrix @ w), rcond=None)[0]
        released = np.flatnonzero(active)[force[len(equal) :] < -1e-10 * size]
        if not len(released):
            return w
        active[released] = False
    return w


def _on_null_space(matrix: np.ndarray, right: np.ndarray, equal: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares under equalities in reduced echelon form, which the result satisfies to rounding."""
    n = matrix.shape[1]
    if not len(equal):
        return np.asarray(linalg.lstsq(matrix, right, lapack_driver="gelsy")[0]) if matrix.size else np.zeros(n)
    pivots = _pivots(equal)
    free = np.setdiff1d(np.arange(n), pivots)
    w = np.zeros(n)
    w[pivots] = values
    if len(free):
        # An orthonormal basis: with unit columns, directions of the null space are as well scaled as the columns.
        basis = linalg.null_space(equal)
        w = np.linalg.lstsq(equal, values, rcond=None)[0]
        w = w + basis @ linalg.lstsq(matrix @ basis, right - matrix @ w, lapack_driver="gelsy")[0]
        w[np.abs(w) <= 1e-15 * np.abs(w).max(initial=0.0)] = 0.0
        w[pivots] = values - equal[:, free] @ w[free]
    return np.asarray(w)


def _pivots(equal: np.ndarray) -> np.ndarray:
    """One column for each row in which that row alone has an entry, 1."""
    alone = (equal != 0).sum(axis=0) == 1
    return np.array([np.flatnonzero(alone & (row == 1.0))[0] for row in equal], dtype=int)


def _interior_point(
    matrix: np.ndarray, right: np.ndarray, equal: np.ndarray, values: np.ndarray, limit: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """``argmin |right - matrix w|`` with ``equal w = values``, ``limit w <= bounds``, and which limits are active.

    None if there is no such w.  The residual is a variable of its own, so that the matrix is not squared.
    """
    import clarabel

    n, m = matrix.shape[1], len(matrix)
    rows = [
        np.hstack([matrix, -np.eye(m)]),
        np.hstack([equal, np.zeros((len(equal), m))]),
        np.hstack([limit, np.zeros((len(limit), m))]),
    ]
    a = sparse.csc_matrix(np.vstack(rows))
    p = sparse.csc_matrix(np.diag(np.repeat([0.0, 1.0], [n, m])))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones: list[Any] = [clarabel.ZeroConeT(m + len(equal)), clarabel.NonnegativeConeT(len(limit))]
    solver = clarabel.DefaultSolver(p, np.zeros(n + m), a, np.concatenate([right, values, bounds]), cones, settings)
    result = solver.solve()
    if "Infeasible" in str(result.status):
        return None
    dual, slack = np.array(result.z)[m + len(equal) :], np.array(result.s)[m + len(equal) :]
    return np.array(result.x)[:n], dual > slack
