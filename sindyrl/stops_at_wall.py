"""The structure of something that a wall stops: `Increment`, and a position that cannot pass a known limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sindyrl.expression import Node, piecewise
from sindyrl.number_check import check_fields
from sindyrl.structure import Columns, Increment, Rates


@dataclasses.dataclass(frozen=True)
class StopsAtWall:
    """``x_{k+1} = x_k + f(x_k, u_k)``, but a step that would pass a wall ends on it, at rest.

    position, velocity : names of the state that the wall limits from below, and of its rate
    wall : where it stands, in the unit of the position

    The wall is known, not identified; leave transitions that end on it out of the fit (`Task.exclude`).
    """

    position: str
    velocity: str
    wall: float
    kind: str = dataclasses.field(default="stops_at_wall", init=False)

    def __post_init__(self) -> None:
        check_fields(self, "wall", "a finite number", math.isfinite)
        if self.position == self.velocity:
            raise ValueError(
                f"`StopsAtWall(position, velocity)` must be different states. Got {self.position!r} twice."
            )

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        missing = [name for name in (self.position, self.velocity) if name not in states]
        if missing:
            raise ValueError(f"`StopsAtWall(...)` names {missing}, which are not among {list(states)}.")
        return Increment().targets(states)

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        return Increment().target_units(states, units)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return Increment().features_of(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return Increment().samples(states, x, x_next, dt)

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Any]:
        after: list[Any] = Increment().advance(states, rates, x, u, dt)
        at, rate = states.index(self.position), states.index(self.velocity)
        position, velocity = after[at], after[rate]
        if isinstance(position, Node):
            free = position > self.wall
            after[at], after[rate] = piecewise([(free, position)], self.wall), piecewise([(free, velocity)], 0.0)
        else:
            beyond = self.wall - position  # in arithmetic that every array library has; free positions stay as they are
            after[at], after[rate] = position + (beyond + abs(beyond)) / 2.0, velocity * (beyond < 0.0)
        return after

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Any] | None:
        return None

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        return x

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "position": self.position, "velocity": self.velocity, "wall": self.wall}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopsAtWall:
        return cls(data["position"], data["velocity"], data["wall"])
