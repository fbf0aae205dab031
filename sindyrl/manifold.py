"""Discrete-time models whose angles stay angles: cosine and sine are put back on the circle after every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sindyrl.expression import Node, sqrt
from sindyrl.structure import Columns, Increment, NextState, Rates


@dataclasses.dataclass(frozen=True)
class OnCircles:
    """`NextState` or `Increment`, followed by ``(cos, sin) / |(cos, sin)|`` for each pair of states in ``circles``.

    The projection of the published SINDy-RL. Mechanical systems are better served by `SecondOrder`, whose kinematics
    are known and which never leaves the circle.
    """

    base: NextState | Increment
    circles: tuple[tuple[str, str], ...]
    kind: str = dataclasses.field(default="on_circles", init=False)

    def __post_init__(self) -> None:
        circles = tuple((cosine, sine) for cosine, sine in self.circles)
        object.__setattr__(self, "circles", circles)
        names = [name for pair in circles for name in pair]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`OnCircles(circles=...)` must be pairs of different states. Got {self.circles}.")

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        missing = [name for pair in self.circles for name in pair if name not in states]
        if missing:
            raise ValueError(f"`OnCircles(circles=...)` names {missing}, which are not among {list(states)}.")
        return self.base.targets(states)

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        return self.base.target_units(states, units)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return self.base.features_of(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.base.samples(states, x, x_next, dt)

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Any]:
        after = self.base.advance(states, rates, x, u, dt)
        for cosine, sine in self.circles:
            c, s = states.index(cosine), states.index(sine)
            length = _root(after[c] * after[c] + after[s] * after[s])
            after[c], after[s] = after[c] / length, after[s] / length
        return after

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Any] | None:
        return None

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        out = np.array(x, dtype=np.float64)
        for pair in self.circles:
            columns = [list(states).index(name) for name in pair]
            length = np.hypot(out[..., columns[0]], out[..., columns[1]])
            out[..., columns] /= np.where(length > 0, length, 1.0)[..., None]
        return out

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.to_dict(), "circles": [list(pair) for pair in self.circles]}


def _root(value: Any) -> Any:
    """Square root for closed forms and for the columns of any array library."""
    return sqrt(value) if isinstance(value, Node) else value**0.5
