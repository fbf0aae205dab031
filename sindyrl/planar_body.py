"""The structure of a body that moves freely in a plane, with joints, such as Gymnasium's Swimmer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sindyrl.expression import Node, cos, sin
from sindyrl.structure import Columns, Derivative, Rates, per_second


@dataclasses.dataclass(frozen=True)
class PlanarBody:
    """A body that moves freely in a plane, with joints: the kinematics are known, only accelerations are identified.

    heading : angle of the body in the world, whose rate is ``turn``
    velocity : the two world components of the velocity of a point of the body
    joints : joint angle -> its rate, as pairs

    The acceleration of the point is identified in the body's frame, ``dforward`` along the heading and ``dsideways`` to
    its left: with terms that use the velocity in that frame as well (`kinematics`), the equations are the same in
    whatever direction the body heads. Fitted by midpoint collocation, as `sindyrl.structure.Derivative`; advanced by
    classical Runge-Kutta.
    """

    heading: str = "theta"
    turn: str = "w"
    velocity: tuple[str, str] = ("vx", "vy")
    joints: tuple[tuple[str, str], ...] = (("a1", "w1"), ("a2", "w2"))
    kind: str = dataclasses.field(default="planar_body", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "velocity", tuple(self.velocity))
        object.__setattr__(self, "joints", tuple((angle, rate) for angle, rate in self.joints))

    @property
    def positions(self) -> dict[str, str]:
        """Angle -> its rate, the heading first."""
        return {self.heading: self.turn, **dict(self.joints)}

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        named = [*self.velocity, *self.positions, *self.positions.values()]
        if sorted(named) != sorted(states):
            raise ValueError(f"`PlanarBody(...)` must cover the states exactly. Got {named} for {list(states)}.")
        return ("dforward", "dsideways", *(f"d{rate}" for rate in self.positions.values()))

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        by_name = dict(zip(states, units, strict=True))
        return tuple(per_second(by_name[name]) for name in (*self.velocity, *self.positions.values()))

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        index = {name: i for i, name in enumerate(states)}
        middle, slope = (x + x_next) / 2.0, (x_next - x) / dt
        angle = middle[:, index[self.heading]]
        along_x, along_y = (slope[:, index[name]] for name in self.velocity)
        forward = np.cos(angle) * along_x + np.sin(angle) * along_y
        sideways = np.cos(angle) * along_y - np.sin(angle) * along_x
        return middle, np.column_stack([forward, sideways, *(slope[:, index[r]] for r in self.positions.values())])

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Any]:
        here = dict(zip(states, x, strict=True))
        forward, sideways, *turning = rates(x, u)
        cosine, sine = _cosine(here[self.heading]), _sine(here[self.heading])
        slope = {angle: here[rate] for angle, rate in self.positions.items()}
        slope |= dict(zip(self.positions.values(), turning, strict=True))
        slope[self.velocity[0]] = cosine * forward - sine * sideways
        slope[self.velocity[1]] = sine * forward + cosine * sideways
        return [slope[name] for name in states]

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Any]:
        # Not the midpoint rule: at 0.04 s the drag on the links is stiff enough for it to err by 5 % of a step.
        return Derivative("rk4").advance(states, lambda y, held: self.flow(states, rates, y, held), x, u, dt)

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        return x

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "heading": self.heading,
            "turn": self.turn,
            "velocity": list(self.velocity),
            "joints": [list(pair) for pair in self.joints],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlanarBody:
        return cls(data["heading"], data["turn"], tuple(data["velocity"]), tuple(map(tuple, data["joints"])))


def _cosine(angle: Any) -> Any:
    return _elementary("cos", angle)


def _sine(angle: Any) -> Any:
    return _elementary("sin", angle)


def _elementary(name: str, angle: Any) -> Any:
    """The function for closed forms and for the columns of NumPy, JAX and CasADi."""
    if isinstance(angle, Node):
        return cos(angle) if name == "cos" else sin(angle)
    if isinstance(angle, (np.ndarray, float)):
        return getattr(np, name)(angle)
    if hasattr(angle, name):  # CasADi's symbols
        return getattr(angle, name)()
    import jax.numpy as jnp

    return getattr(jnp, name)(angle)
