"""What is known about a system before any data: which quantity is identified, and how it advances the state.

A structure answers two questions, for any array library and any coefficients:

* `samples(x, u, x_next, dt)`: where is the library evaluated and what is regressed there?
* `advance(rates, x, u, dt)`: given the identified rates, what is the next state?

Both sides use the same collocation, so that a model fitted at a step length is stepped consistently at that length.
Columns everywhere: a state is a sequence of arrays of any common shape, one per name, so the same code serves NumPy
batches, traced JAX arrays and CasADi symbols.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from sindyrl.expression import Node, sqrt

Column = Any
Columns = Sequence[Column]
Rates = Callable[[Columns, Columns], Columns]
"""``rates(x, u)``: the identified targets at a state and an input, column by column."""


class Structure(Protocol):
    """How identified targets relate to the state; see the module text."""

    @property
    def kind(self) -> str:
        """The name under which `to_dict` stores it."""
        ...

    def targets(self, states: Sequence[str]) -> tuple[str, ...]: ...

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]: ...

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]: ...

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Column]: ...

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Column] | None:
        """``dx/dt`` column by column, or None for a system in discrete time."""
        ...

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        """The nearest state on the manifold that the states live on, shape ``(..., n_states)``."""
        ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class NextState:
    """Discrete time: ``x_{k+1} = f(x_k, u_k)``, as in the published SINDy-RL."""

    kind: str = dataclasses.field(default="next_state", init=False)

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name}_next" for name in states)

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        return tuple(units)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return x, x_next

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Column]:
        return list(rates(x, u))

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Column] | None:
        return None

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        return x

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


@dataclasses.dataclass(frozen=True)
class Increment:
    """Discrete time: ``x_{k+1} - x_k = f(x_k, u_k)``; a zero model keeps the state, which conditions the fit better."""

    kind: str = dataclasses.field(default="increment", init=False)

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"delta_{name}" for name in states)

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        return tuple(units)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return x, x_next - x

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Column]:
        return [value + change for value, change in zip(x, rates(x, u), strict=True)]

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Column] | None:
        return None

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        return x

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


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


@dataclasses.dataclass(frozen=True)
class Derivative:
    """Continuous time: ``dx/dt = f(x, u)``, input held over the step.

    Fitted by midpoint collocation, ``(x_{k+1} - x_k)/dt = f((x_k + x_{k+1})/2, u_k) + O(dt^2)``, which needs no
    derivative estimate; advanced by the explicit midpoint rule or by classical Runge-Kutta (``integrator="rk4"``).
    """

    integrator: str = "midpoint"
    kind: str = dataclasses.field(default="derivative", init=False)

    def __post_init__(self) -> None:
        _check_integrator("Derivative", self.integrator)

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"d{name}" for name in states)

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        return tuple(per_second(unit) for unit in units)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(states)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return (x + x_next) / 2.0, (x_next - x) / dt

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Column]:
        return _integrate(self.integrator, lambda y: rates(y, u), x, dt)

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Column] | None:
        return list(rates(x, u))

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        return x

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "integrator": self.integrator}


@dataclasses.dataclass(frozen=True)
class SecondOrder:
    """Mechanics: the kinematics are known, only the accelerations are identified.

    positions : position name -> velocity name, ``d position/dt = velocity``.
    angles : (cosine name, sine name) -> angular-velocity name, ``d cos/dt = -sin * w``, ``d sin/dt = cos * w``;
        the pair is kept on the unit circle by rotating it.
    ignore : states that the accelerations do not depend on (a position on a level rail: translation invariance).

    Fitted by midpoint collocation, ``(v_{k+1} - v_k)/dt = a(x_mid, u_k) + O(dt^2)``, with the angle's midpoint taken on
    the circle. Advanced with the same midpoint: half a step forward, the accelerations there, then velocities by a full
    step and positions by the mean velocity.

    The targets are named ``d<velocity>`` in the order in which the velocities appear among the states.
    """

    positions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    angles: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    kind: str = dataclasses.field(default="second_order", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", MappingProxyType(dict(self.positions)))
        object.__setattr__(self, "angles", MappingProxyType(dict(self.angles)))
        object.__setattr__(self, "ignore", tuple(self.ignore))
        if not self.positions and not self.angles:
            raise ValueError(
                "`SecondOrder(positions=..., angles=...)` must name at least one position or angle. Got none."
            )
        names = [
            *self.positions,
            *self.positions.values(),
            *(n for pair in self.angles for n in pair),
            *self.angles.values(),
        ]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`SecondOrder(...)` must use each state once. Got {repeated} more than once.")

    def __hash__(self) -> int:
        # Equal mappings may list their entries in different orders.
        return hash((frozenset(self.positions.items()), frozenset(self.angles.items()), self.ignore))

    def __reduce__(self) -> tuple[Any, ...]:
        # MappingProxyType cannot be copied between processes; the plain mappings can.
        return (SecondOrder, (dict(self.positions), dict(self.angles), self.ignore))

    def _velocities(self, states: Sequence[str]) -> tuple[str, ...]:
        known = {*self.positions.values(), *self.angles.values()}
        named = known | set(self.positions) | {name for pair in self.angles for name in pair}
        missing, extra = sorted((named | set(self.ignore)) - set(states)), sorted(set(states) - named)
        if missing or extra:
            raise ValueError(
                "`SecondOrder(...)` must cover the states exactly. "
                f"Not among the states: {missing}. Without kinematics: {extra}. States: {list(states)}."
            )
        return tuple(name for name in states if name in known)

    def targets(self, states: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"d{name}" for name in self._velocities(states))

    def target_units(self, states: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
        velocities = self._velocities(states)
        return tuple(per_second(unit) for name, unit in zip(states, units, strict=True) if name in velocities)

    def features_of(self, states: Sequence[str]) -> tuple[str, ...]:
        self._velocities(states)
        return tuple(name for name in states if name not in self.ignore)

    def samples(
        self, states: Sequence[str], x: np.ndarray, x_next: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        velocities = self._velocities(states)
        index = {name: i for i, name in enumerate(states)}
        middle = self.project(states, (x + x_next) / 2.0)
        columns = [index[name] for name in velocities]
        return middle, (x_next[:, columns] - x[:, columns]) / dt

    def advance(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns, dt: float) -> list[Column]:
        velocities = self._velocities(states)
        index = {name: i for i, name in enumerate(states)}
        here = list(x)
        # Half a step with the velocities held gives the midpoint's configuration. Velocities at the midpoint need the
        # acceleration; one explicit half step supplies it.
        half = self._move(index, here, [here[index[v]] for v in velocities], velocities, dt / 2.0)
        first = rates(here, u)
        for name, rate in zip(velocities, first, strict=True):
            half[index[name]] = here[index[name]] + (dt / 2.0) * rate
        second = rates(half, u)
        after = {name: here[index[name]] + dt * rate for name, rate in zip(velocities, second, strict=True)}
        mean = [(here[index[name]] + after[name]) / 2.0 for name in velocities]
        moved = self._move(index, here, mean, velocities, dt)
        for name in velocities:
            moved[index[name]] = after[name]
        return moved

    def _move(
        self, index: Mapping[str, int], x: Sequence[Column], speed: Sequence[Column], names: Sequence[str], dt: float
    ) -> list[Column]:
        by_name = dict(zip(names, speed, strict=True))
        out = list(x)
        for position, velocity in self.positions.items():
            out[index[position]] = x[index[position]] + dt * by_name[velocity]
        for (cosine, sine), velocity in self.angles.items():
            c, s = x[index[cosine]], x[index[sine]]
            # Cayley's rational rotation: exactly on the circle, correct to third order, and free of sin and cos.
            half = (dt / 2.0) * by_name[velocity]
            scale = 1.0 / (1.0 + half * half)
            turn_cos, turn_sin = (1.0 - half * half) * scale, 2.0 * half * scale
            out[index[cosine]] = c * turn_cos - s * turn_sin
            out[index[sine]] = s * turn_cos + c * turn_sin
        return out

    def flow(self, states: Sequence[str], rates: Rates, x: Columns, u: Columns) -> list[Column] | None:
        index = {name: i for i, name in enumerate(states)}
        out = list(x)
        for position, velocity in self.positions.items():
            out[index[position]] = x[index[velocity]]
        for (cosine, sine), velocity in self.angles.items():
            speed = x[index[velocity]]
            out[index[cosine]] = -(x[index[sine]] * speed)
            out[index[sine]] = x[index[cosine]] * speed
        for name, rate in zip(self._velocities(states), rates(x, u), strict=True):
            out[index[name]] = rate
        return out

    def project(self, states: Sequence[str], x: np.ndarray) -> np.ndarray:
        index = {name: i for i, name in enumerate(states)}
        out = np.array(x, dtype=np.float64)
        for cosine, sine in self.angles:
            pair = [index[cosine], index[sine]]
            length = np.hypot(out[..., pair[0]], out[..., pair[1]])
            out[..., pair] /= np.where(length > 0, length, 1.0)[..., None]
        return out

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "positions": dict(self.positions),
            "angles": [[*pair, velocity] for pair, velocity in self.angles.items()],
            "ignore": list(self.ignore),
        }


def per_second(unit: str) -> str:
    """The unit of a rate: m -> m/s, m/s -> m/s^2, rad/s -> rad/s^2."""
    if not unit or unit == "1":
        return "1/s" if unit else ""
    if unit.endswith("/s"):
        return unit + "^2"
    head, _, power = unit.rpartition("/s^")
    return f"{head}/s^{int(power) + 1}" if head and power.isdigit() else f"{unit}/s"


def _check_integrator(owner: str, integrator: str) -> None:
    if integrator not in ("midpoint", "rk4"):
        raise ValueError(f"`{owner}(integrator=...)` must be 'midpoint' or 'rk4'. Got {integrator!r}.")


def _integrate(integrator: str, f: Callable[[Columns], Columns], x: Columns, dt: float) -> list[Column]:
    def along(direction: Columns, step: float) -> list[Column]:
        return [value + step * slope for value, slope in zip(x, direction, strict=True)]

    k1 = f(x)
    k2 = f(along(k1, dt / 2.0))
    if integrator == "midpoint":
        return along(k2, dt)
    k3 = f(along(k2, dt / 2.0))
    k4 = f(along(k3, dt))
    slope = [(a + 2.0 * b + 2.0 * c + d) / 6.0 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
    return along(slope, dt)


def _root(value: Any) -> Any:
    """Square root for closed forms and for the columns of any array library."""
    return sqrt(value) if isinstance(value, Node) else value**0.5
