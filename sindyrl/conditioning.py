"""Which columns of a library matrix depend on each other, and how: the condition number put into words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ConditioningReport", "Dependency", "conditioning_report", "independent_columns", "resolution"]

_NEAR = 1e-4  # distance below which a dependency that is not exact is worth a line in the report
_SHOWN_TERMS = 4


@dataclass(frozen=True)
class Dependency:
    """``sum_j coefficients[j] * terms[j] = 0`` on the data, up to ``residual``.

    residual : root mean square of the sum as a share of that of the last-named column of the library in it
    redundant : that column, the one to leave out
    """

    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    residual: float
    redundant: str

    def __str__(self) -> str:
        pairs = list(zip(self.coefficients, self.terms, strict=True))
        ordered = [pair for pair in pairs if pair[0] > 0] + [pair for pair in pairs if pair[0] < 0]
        return _signed_sum(ordered) + " = 0"


@dataclass(frozen=True)
class ConditioningReport:
    """What the data can and cannot tell apart; ``str()`` gives it in words.

    condition : condition number of the columns scaled to unit length
    dependencies : exact ones (to the resolution of the data), each naming a column that may be left out
    near : those that hold to better than 1e-4 but not exactly; coefficients along them are uncertain
    constant : columns other than the bias that do not vary, with their value
    """

    condition: float
    dependencies: tuple[Dependency, ...]
    near: tuple[Dependency, ...]
    constant: tuple[tuple[str, float], ...]
    rows: int
    terms: int

    @property
    def redundant(self) -> tuple[str, ...]:
        """Names to pass to `Library.without` so that what remains has full rank."""
        return tuple(dependency.redundant for dependency in self.dependencies)

    def __str__(self) -> str:
        lines = [
            f"{self.rows} rows, {self.terms} terms, condition number {self.condition:.3g} (columns of unit length)"
        ]
        if self.rows < self.terms:
            lines.append(f"Fewer rows than terms: {self.terms - self.rows} dependencies are due to that alone.")
        if self.dependencies:
            lines.append("Exactly dependent:")
            lines += [f"  {dependency}" for dependency in self.dependencies]
            lines.append("Leave out: " + ", ".join(self.redundant))
        if self.near:
            lines.append("Nearly dependent:")
            lines += [f"  {near}   (to {near.residual:.1g})" for near in self.near]
        lines += [f"Constant on these data: {name} = {value:.6g}" for name, value in self.constant]
        return "\n".join(lines)


def resolution(x: np.ndarray) -> float:
    """Relative accuracy to which a dependency can hold on these data.

    1e-6 if every number is exactly a float32, as simulators often deliver (then even cos^2 + sin^2 = 1 holds
    only to about 1e-7), else 1e-10.
    """
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(over="ignore"):
        return 1e-6 if np.array_equal(x, x.astype(np.float32)) else 1e-10


def independent_columns(theta: np.ndarray, rtol: float = 1e-10) -> list[int]:
    """Indices of the columns that are not combinations of *earlier kept* columns; they have full rank.

    A column is dropped if its distance from the span of the kept columns before it is at most ``rtol`` times
    its length.  So of a dependent set the last-named member goes; a column of zeros always goes.
    """
    return _independent(_unit_triangle(theta)[0], rtol)[0]


def conditioning_report(theta: np.ndarray, names: Sequence[str], rtol: float) -> ConditioningReport:
    """Report on the columns of theta (sample, feature); ``rtol`` is what counts as exact, see `resolution`."""
    r, lengths = _unit_triangle(theta)
    singular = np.linalg.svd(r, compute_uv=False)
    full_rank = len(singular) == theta.shape[1] and singular[-1] > 0 and (lengths > 0).all()
    kept, distances = _independent(r, rtol)
    exact: list[Dependency] = []
    near: list[Dependency] = []
    for column, distance in enumerate(distances):
        if distance > _NEAR:
            continue
        earlier = [index for index in kept if index < column]
        relation = _relation(r, lengths, earlier, column, distance, names)
        (exact if distance <= rtol else near).append(relation)
    spread, mean = theta.std(axis=0), theta.mean(axis=0)
    still = [j for j in range(len(names)) if spread[j] <= rtol * abs(mean[j]) and names[j] != "1"]
    return ConditioningReport(
        condition=float(singular[0] / singular[-1]) if full_rank else math.inf,
        dependencies=tuple(exact),
        near=tuple(near),
        constant=tuple((names[j], float(mean[j])) for j in still),
        rows=len(theta),
        terms=len(names),
    )


def _unit_triangle(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle of theta with unit columns (all geometry of the columns in a small matrix), and their lengths."""
    lengths = np.sqrt(np.einsum("ij,ij->j", theta, theta))
    return np.asarray(np.linalg.qr(theta / np.where(lengths > 0, lengths, 1.0), mode="r")), lengths


def _independent(r: np.ndarray, rtol: float) -> tuple[list[int], np.ndarray]:
    """Kept columns, and the distance of every column from the span of the kept ones before it."""
    basis = np.zeros((len(r), min(r.shape)), order="F")
    kept: list[int] = []
    distances = np.zeros(r.shape[1])
    for column, vector in enumerate(r.T):
        known = basis[:, : len(kept)]
        rest = vector - known @ (known.T @ vector)
        rest -= known @ (known.T @ rest)  # twice is enough (Giraud et al., Numer. Math. 101, 2005)
        distances[column] = np.linalg.norm(rest)
        if distances[column] > rtol and len(kept) < basis.shape[1]:
            basis[:, len(kept)] = rest / distances[column]
            kept.append(column)
    return kept, distances


def _relation(
    r: np.ndarray, lengths: np.ndarray, earlier: list[int], column: int, distance: float, names: Sequence[str]
) -> Dependency:
    """The shortest combination of earlier columns that gives this one about as well as all of them do."""
    used, w = earlier, np.zeros(0)
    if lengths[column] > 0 and earlier:
        full = np.linalg.lstsq(r[:, earlier], r[:, column], rcond=None)[0]
        for smallest in 10.0 ** np.arange(-1, -12, -1):
            used = [index for index, value in zip(earlier, full, strict=True) if abs(value) >= smallest]
            w = np.linalg.lstsq(r[:, used], r[:, column], rcond=None)[0]
            if np.linalg.norm(r[:, used] @ w - r[:, column]) <= max(3 * distance, 1e-12):
                break
    else:
        used = []
    coefficients = {column: 1.0}
    coefficients |= {
        index: -_snapped(value * lengths[column] / lengths[index]) for index, value in zip(used, w, strict=True)
    }
    ordered = sorted(coefficients)
    return Dependency(
        tuple(names[index] for index in ordered),
        tuple(float(coefficients[index]) for index in ordered),
        float(distance),
        names[column],
    )


def _snapped(value: float) -> float:
    """The nearest integer if the value is one up to rounding errors."""
    nearest = round(value)
    return float(nearest) if nearest and abs(value - nearest) <= 1e-6 * abs(nearest) else value


def _signed_sum(pairs: Sequence[tuple[float, str]]) -> str:
    text = ""
    for number, (coefficient, name) in enumerate(pairs):
        if number == 2 * _SHOWN_TERMS:
            return f"{text} + ... ({len(pairs) - number} more)"
        magnitude = f"{abs(coefficient):.6g}"
        factor = magnitude if name == "1" else name if magnitude == "1" else f"{magnitude}*{name}"
        sign = "-" if coefficient < 0 else "+"
        text += f" {sign} {factor}" if text else (factor if sign == "+" else f"-{factor}")
    return text
