"""What the parts of the library expect of each other, and the axis words used in signatures.

Axis words: ``time``, ``horizon``, ``state``, ``input``, ``member`` (of an ensemble), ``target`` and ``feature`` (of a
regression), ``sample``; ``...`` stands for any leading batch axes. The tests check shapes written with these words in
every call; at other times they cost nothing.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

StateVector = Float[np.ndarray, " state"]
InputVector = Float[np.ndarray, " input"]
StateBatch = Float[np.ndarray, "... state"]
InputBatch = Float[np.ndarray, "... input"]
StatePath = Float[np.ndarray, "horizon+1 state"]
InputPath = Float[np.ndarray, "horizon input"]

S = TypeVar("S")


class Policy(Protocol):
    """Feedback: the input to hold over the next step, from the state now.

    A policy may also have ``reset(rng)``, see `Resettable`. A policy with ``input_names`` (a `SymbolicMap`) is fed the
    states of these names; any other gets the whole state in the order of the environment's observation.
    """

    def __call__(self, x: np.ndarray, /) -> np.ndarray: ...


@runtime_checkable
class Resettable(Protocol):
    """A policy with memory or randomness; ``reset`` is called before each episode with a generator to draw from."""

    def reset(self, rng: np.random.Generator) -> None: ...


class Dynamics(Protocol):
    """A discrete-time system ``x_{k+1} = step(x_k, u_k)``, over any leading batch axes."""

    @property
    def state_names(self) -> tuple[str, ...]: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def dt(self) -> float: ...

    def step(self, x: StateBatch, u: InputBatch) -> StateBatch: ...


class Outcome(enum.Enum):
    """How a computation ended. The value is the help text: what happened and what to do."""

    solved = "Solved."
    step_limit = "Stopped at the step limit before the tolerance was met. Raise `max_steps` or loosen the tolerance."
    diverged = "The roll-out left the model's bounds. Shorten `horizon`, or fit the model on data nearer to this state."
    not_finite = (
        "The roll-out produced NaN or infinity. Look for a division or a logarithm at the edge of its domain, "
        "lower the library's degree, or shorten `dt`."
    )
    infeasible = "No input within the limits meets the constraints. Loosen the constraints or lengthen `horizon`."

    @property
    def ok(self) -> bool:
        return self is Outcome.solved

    def __str__(self) -> str:
        return self.value


@dataclasses.dataclass(frozen=True)
class Plan(Generic[S]):
    """Planned inputs and the states they are expected to lead to.

    u : (horizon, n_inputs), each held over one step.
    x : (horizon + 1, n_states), x[0] is the state planned from.
    cost : predicted total cost, the negative of the predicted return.
    state : what the planner wants to be given at the next call (its warm start).
    """

    u: InputPath
    x: StatePath
    cost: float
    outcome: Outcome
    state: S


class Planner(Protocol[S]):
    """Settings are a frozen record; the planner's memory is a value that is passed in and handed back."""

    def init(self, x: StateVector, /) -> S: ...

    def plan(self, x: StateVector, state: S, /) -> Plan[S]: ...
