r"""Linear knowledge about coefficients: known values, signs, ties, invariances, conserved quantities.

Everything said here is a row of ``A vec(coef) = b`` or ``C vec(coef) <= d``, with ``vec(coef)`` the coefficients
(target, feature) read target by target.  A property that must hold for all states, such as ``dH/dt = 0``, is linear in
the coefficients at every state; its rows at many states span a small space, and a reduced basis of that space is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sindyrl.library import Library
from sindyrl.symbolic_map import SymbolicMap

__all__ = ["Constraints", "InfeasibleConstraints", "reduced_rows"]

_RANK = 1e-9  # singular values and entries of a basis below this share of the largest are rounding
_CONSISTENT = 1e-7  # residual of right-hand sides that counts as agreement

Entry = tuple[str | int, str | int]
"""One coefficient: (target, term), by name or position."""


class InfeasibleConstraints(ValueError):
    """No coefficients satisfy all constraints together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
    """Linear equalities and inequalities on the coefficients of named targets over a library; immutable.

    Every method returns new constraints with rows added:

        Constraints(library, ["dx", "dv"]).fix("dx", "v", 1.0).nonpositive("dv", "v").equal(("dv", "x"), ("dv", "sin"))

    library : the candidate terms, one column each
    targets : names of the targets
    equalities, values : (row, target * feature) and (row,): ``equalities @ coef.ravel() = values``
    inequalities, bounds : (row, target * feature) and (row,): ``inequalities @ coef.ravel() <= bounds``

    Raises ValueError if a name is unknown, a number is not finite, or a shape does not fit.
    """

    library: Library
    targets: tuple[str, ...]
    equalities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    inequalities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    bounds: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if isinstance(self.targets, str) or not self.targets or len(set(self.targets)) < len(tuple(self.targets)):
            raise ValueError(f"`Constraints(targets=...)` must be names, all different. Got {self.targets!r}.")
        object.__setattr__(self, "targets", tuple(self.targets))
        width = len(self.targets) * len(self.library)
        for matrix, right in (("equalities", "values"), ("inequalities", "bounds")):
            rows = np.array(getattr(self, matrix), dtype=np.float64)
            given = np.array(getattr(self, right), dtype=np.float64)
            rows = rows.reshape(0, width) if rows.size == 0 else rows
            if rows.ndim != 2 or rows.shape[1] != width or given.shape != (len(rows),):
                raise ValueError(
                    f"`Constraints({matrix}=..., {right}=...)` must have shapes (rows, {width}) and (rows,): "
                    f"{len(self.targets)} targets times {len(self.library)} terms. Got {rows.shape} and {given.shape}."
                )
            if not np.isfinite(rows).all() or not np.isfinite(given).all():
                raise ValueError(f"`Constraints({matrix}=..., {right}=...)` must be finite numbers.")
            rows.setflags(write=False)
            given.setflags(write=False)
            object.__setattr__(self, matrix, rows)
            object.__setattr__(self, right, given)

    def __deepcopy__(self, memo: object) -> Constraints:
        return self  # immutable; scikit-learn's `clone` copies parameters

    def __len__(self) -> int:
        return len(self.equalities) + len(self.inequalities)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_targets, n_features)"""
        return len(self.targets), len(self.library)

    # ---- single coefficients ----------------------------------------------------------------

    def fix(self, target: str | int, term: str | int, value: float) -> Constraints:
        """``coef[target, term] = value``: a known term.  A term fixed at a non-zero value is never thresholded."""
        return self.linear({(target, term): 1.0}, value)

    def exclude(self, target: str | int, *terms: str | int) -> Constraints:
        """These terms do not enter this target."""
        return self._chain(Constraints.fix, [(target, term, 0.0) for term in terms])

    def nonnegative(self, target: str | int, *terms: str | int) -> Constraints:
        """``coef[target, term] >= 0`` for each term."""
        return self._chain(Constraints.at_most, [({(target, term): -1.0}, 0.0) for term in terms])

    def nonpositive(self, target: str | int, *terms: str | int) -> Constraints:
        """``coef[target, term] <= 0`` for each term."""
        return self._chain(Constraints.at_most, [({(target, term): 1.0}, 0.0) for term in terms])

    def between(
        self, target: str | int, term: str | int, lower: float = -math.inf, upper: float = math.inf
    ) -> Constraints:
        """``lower <= coef[target, term] <= upper``; an infinite limit says nothing."""
        if not lower <= upper:
            raise ValueError(f"`between(lower=..., upper=...)` must satisfy lower <= upper. Got {lower} and {upper}.")
        result = self if upper == math.inf else self.at_most({(target, term): 1.0}, upper)
        return result if lower == -math.inf else result.at_most({(target, term): -1.0}, -lower)

    # ---- several coefficients ---------------------------------------------------------------

    def equal(self, first: Entry, second: Entry, factor: float = 1.0) -> Constraints:
        """``coef[first] = factor * coef[second]``, each given as (target, term)."""
        return self.linear({first: 1.0, second: -factor}, 0.0)

    def linear(self, weights: Mapping[Entry, float], value: float) -> Constraints:
        """``sum(weight * coef[target, term]) = value``."""
        return self.with_equalities(self._row(weights)[None], [value])

    def at_most(self, weights: Mapping[Entry, float], bound: float) -> Constraints:
        """``sum(weight * coef[target, term]) <= bound``."""
        return dataclasses.replace(
            self,
            inequalities=np.vstack([self.inequalities, self._row(weights)]),
            bounds=np.append(self.bounds, bound),
        )

    def with_equalities(self, rows: Any, values: Any) -> Constraints:
        """Further rows (row, target * feature), target by target, and their values (row,)."""
        rows = np.asarray(rows, dtype=np.float64)
        return dataclasses.replace(
            self,
            equalities=np.vstack([self.equalities, rows.reshape(len(rows), -1)]),
            values=np.append(self.values, values),
        )

    # ---- properties that hold for all states ------------------------------------------------

    def translation(
        self, direction: str | Mapping[str, float], targets: Iterable[str] | None = None, *, x: Any = None
    ) -> Constraints:
        """The targets do not change when the state moves along ``direction``: ``sum_i d_i df/dx_i = 0``.

        direction : a variable, or weights of several, as {"x1": 1, "x2": 1} for two bodies moved together
        targets : which targets; all by default
        x : states (sample, variable) at which the property is tested; default random ones, see `_points`
        """
        weights = {direction: 1.0} if isinstance(direction, str) else dict(direction)
        unknown = set(weights) - set(self.library.variables)
        if unknown:
            raise ValueError(
                f"`translation(direction=...)` names {sorted(unknown)}; available: {self.library.variables}."
            )
        points = self._points(x, len(self.library))
        slopes = np.asarray(self.library.symbolic().jacobian(tuple(weights))(points))
        slopes = slopes.reshape(len(points), len(self.library), len(weights)) @ np.array(list(weights.values()))
        return self._for_each(targets, slopes)

    def periodic(
        self, angle: str, period: float = 2 * math.pi, targets: Iterable[str] | None = None, *, x: Any = None
    ) -> Constraints:
        """The targets are the same at ``angle`` and ``angle + period``; the period in the unit of the angle.

        The property is tested at the points ``x`` and one period further.
        """
        if angle not in self.library.variables:
            raise ValueError(f"`periodic(angle=...)` names {angle!r}; available: {self.library.variables}.")
        points = self._points(x, len(self.library))
        moved = points.copy()
        moved[:, self.library.variables.index(angle)] += period
        theta, shifted = self.library.features(points), self.library.features(moved)
        difference = shifted - theta
        # sin(x + 2 pi) - sin(x) is rounding, not zero, and must not be taken for a constraint.
        size = np.abs(theta).max(axis=0) + np.abs(shifted).max(axis=0)
        difference[:, np.abs(difference).max(axis=0) <= _RANK * size] = 0.0
        return self._for_each(targets, difference)

    def conserve(self, quantity: SymbolicMap, rates: Mapping[str, str] | None = None, *, x: Any = None) -> Constraints:
        """``dH/dt = sum_i dH/dx_i dx_i/dt = 0`` for all states, without inputs (u = 0).

        quantity : H, a map with one output and inputs among the library's states
        rates : which target (or, for known kinematics, which state) is the rate of each state; default "d" + name
        x : states (sample, variable) at which the property is tested; default random ones

        Raises InfeasibleConstraints if no combination of the library's terms conserves H (with known kinematics).
        """
        if len(quantity.outputs) != 1 or not set(quantity.input_names) <= set(self.library.states):
            raise ValueError(
                f"`conserve(quantity=...)` must have one output and inputs among the states {self.library.states}. "
                f"Got outputs {quantity.output_names} and inputs {quantity.input_names}."
            )
        points = self._points(x, self.equalities.shape[1])
        points[:, len(self.library.states) :] = 0.0
        states = points[:, [self.library.variables.index(name) for name in quantity.input_names]]
        gradient = quantity.jacobian()(states)
        theta = self.library.features(points)
        rows = np.zeros((len(points), *self.shape))
        known = np.zeros(len(points))
        for column, state in enumerate(quantity.input_names):
            rate = (rates or {}).get(state, f"d{state}")
            if rate in self.targets:
                rows[:, self.targets.index(rate)] += gradient[:, [column]] * theta
            elif rate in self.library.variables:
                known += gradient[:, column] * points[:, self.library.variables.index(rate)]
            else:
                raise ValueError(
                    f"`conserve(rates=...)` must name the rate of {state!r}: one of the targets {self.targets} or of "
                    f"the states {self.library.states}. Got {rate!r}."
                )
        return self.with_equalities(*_row_space(rows.reshape(len(points), -1), -known))

    # ---- checks -----------------------------------------------------------------------------

    def violation(self, coef: Any) -> float:
        """Largest amount by which coefficients (..., target, feature) miss a row, of rows scaled to length 1."""
        flat = np.asarray(coef, dtype=np.float64).reshape(-1, self.equalities.shape[1])
        worst = 0.0
        for rows, right, sign in ((self.equalities, self.values, False), (self.inequalities, self.bounds, True)):
            length = np.linalg.norm(rows, axis=1)
            miss = (flat @ rows.T - right) / np.where(length > 0, length, 1.0)
            worst = max(worst, float((miss if sign else np.abs(miss)).max(initial=0.0)))
        return worst

    def __str__(self) -> str:
        lines = [f"{self._text(row)} = {value:.6g}" for row, value in zip(self.equalities, self.values, strict=True)]
        lines += [f"{self._text(row)} <= {b:.6g}" for row, b in zip(self.inequalities, self.bounds, strict=True)]
        return "\n".join(lines) or "no constraints"

    def _text(self, row: np.ndarray) -> str:
        parts = []
        for index in np.flatnonzero(row):
            target, term = divmod(int(index), len(self.library))
            parts.append(f"{row[index]:+.6g} [{self.targets[target]}: {self.library.names[term]}]")
        return " ".join(parts) or "0"

    # ---- rows -------------------------------------------------------------------------------

    def _target(self, target: str | int) -> int:
        if isinstance(target, str):
            if target not in self.targets:
                raise ValueError(f"There is no target {target!r}. Available: {', '.join(self.targets)}.")
            return self.targets.index(target)
        if not 0 <= target < len(self.targets):
            raise ValueError(f"A target index must be in 0 ... {len(self.targets) - 1}. Got {target}.")
        return int(target)

    def _row(self, weights: Mapping[Entry, float]) -> np.ndarray:
        row = np.zeros(self.shape)
        for (target, term), weight in weights.items():
            row[self._target(target), self.library.index(term)] += weight
        return row.ravel()

    def _chain(self, method: Any, calls: Sequence[tuple[Any, ...]]) -> Constraints:
        result = self
        for arguments in calls:
            result = method(result, *arguments)
        return result

    def _for_each(self, targets: Iterable[str] | None, rows: np.ndarray) -> Constraints:
        """The same homogeneous rows (row, feature) for each of the targets."""
        basis, _ = _row_space(rows, np.zeros(len(rows)))
        result = self
        for target in self.targets if targets is None else targets:
            wide = np.zeros((len(basis), *self.shape))
            wide[:, self._target(target)] = basis
            result = result.with_equalities(wide.reshape(len(basis), -1), np.zeros(len(basis)))
        return result

    def _points(self, x: Any, unknowns: int) -> np.ndarray:
        """States to test an identity at: those given, or standard normal ones from a fixed seed where all is finite."""
        n = len(self.library.variables)
        if x is None:
            points = np.random.default_rng(0).normal(size=(4 * unknowns + 40, n))
            with np.errstate(all="ignore"):
                return points[np.isfinite(self.library.features(points)).all(axis=1)]
        points = np.array(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != n:
            raise ValueError(
                f"`x` must have shape (samples, {n}), columns {self.library.variables}. Got {points.shape}."
            )
        return points


def _row_space(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A few rows with the same solutions as many (exactly, or to rounding): basis (rank, column) and values (rank,)."""
    length = np.sqrt(np.einsum("ij,ij->j", rows, rows))
    length[length == 0] = 1.0
    u, singular, vt = np.linalg.svd(rows / length, full_matrices=False)
    rank = int((singular > _RANK * max(singular.max(initial=0.0), np.finfo(float).tiny)).sum())
    right = u[:, :rank].T @ values
    if np.linalg.norm(values - u[:, :rank] @ right) > _CONSISTENT * max(np.linalg.norm(values), np.finfo(float).tiny):
        raise InfeasibleConstraints("No combination of the library's terms has this property. Add the terms it needs.")
    basis, right = reduced_rows(vt[:rank], right / singular[:rank])
    right[np.abs(right) <= _RANK * np.abs(right).max(initial=0.0)] = 0.0
    basis = basis * length
    largest = np.abs(basis).max(axis=1, initial=0.0)
    return basis / largest[:, None], right / largest


def reduced_rows(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduced echelon form, by complete pivoting: each row has a pivot of 1 in a column that no other row touches.

    Redundant rows vanish.  Raises InfeasibleConstraints if the rows contradict each other.
    """
    table = np.column_stack([rows, values]).astype(np.float64)
    length = np.linalg.norm(table[:, :-1], axis=1)
    empty = length == 0
    if (table[empty, -1] != 0).any():
        raise InfeasibleConstraints("A constraint has no coefficient left in it that could satisfy it.")
    table = table[~empty] / length[~empty, None]
    rank, scale = 0, 1.0 + np.abs(table[:, -1]).max(initial=0.0)
    while rank < len(table):
        block = np.abs(table[rank:, :-1])
        row, column = np.unravel_index(int(block.argmax()), block.shape)
        if block[row, column] <= _RANK:
            break
        table[[rank, rank + row]] = table[[rank + row, rank]]
        table[rank] /= table[rank, column]
        others = np.arange(len(table)) != rank
        table[others] -= np.outer(table[others, column], table[rank])
        table[others, column] = 0.0
        table[:, :-1][np.abs(table[:, :-1]) <= _RANK] = 0.0
        rank += 1
    if (np.abs(table[rank:, -1]) > _CONSISTENT * scale).any():
        raise InfeasibleConstraints("The constraints contradict each other.")
    return table[:rank, :-1], table[:rank, -1]
