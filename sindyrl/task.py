"""What is wanted of a system: everything the generic machinery may know about one particular problem."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from sindyrl.library import LibrarySpec
from sindyrl.number_check import check_fields, whole
from sindyrl.structure import Structure
from sindyrl.symbolic_map import Signal, SymbolicMap

Sampler = Callable[[np.random.Generator, int], np.ndarray]
Exclusion = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """One control problem.

    states, inputs : names, units and ranges, in the order of the observation and of the action. The inputs' ranges are
        the actuator's limits and must be finite; the states' ranges say where a model may be trusted: a roll-out that
        leaves them counts as failed from there on.
    dt : seconds between decisions; the input is held in between.
    horizon : steps of an episode.
    reward : ``r_k = R(x_{k+1}, u_k)`` as a closed form of the states and inputs, by name.
    reset : ``reset(rng, n)`` draws ``n`` initial states, shape ``(n, n_states)``.
    structure : what is known of the equations of motion.
    library : candidate terms of the dynamics.
    policy_library : candidate terms of the policy, functions of the states alone.
    exclude : ``exclude(x, u, x_next)`` marks the transitions that the model must not be fitted to (contact with an end
        stop), shapes ``(n, n_states), (n, n_inputs), (n, n_states) -> (n,)``.
    mirror : names of the states and inputs that change sign under the system's reflection, if it has one: flipping all
        of them gives another motion of the same system with the same reward. Policies are then sought among those that
        respect it, which halves the search.
    ends : closed form of the states and inputs, by name: an episode is over, by success, after the first step whose
        ``(x_{k+1}, u_k)`` makes it positive. That step's reward counts, and nothing is earned afterwards.
    failure_reward : reward per step after leaving the states' ranges. By default the smallest reward that is possible
        on the ranges, so that failing never pays.
    """

    name: str
    states: tuple[Signal, ...]
    inputs: tuple[Signal, ...]
    dt: float
    horizon: int
    reward: SymbolicMap
    reset: Sampler
    structure: Structure
    library: LibrarySpec
    policy_library: LibrarySpec
    exclude: Exclusion | None = None
    mirror: tuple[str, ...] = ()
    failure_reward: float | None = None
    ends: SymbolicMap | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"`Task(dt=...)` must be a positive number of seconds. Got {self.dt}.")
        check_fields(self, "horizon", "an integer of at least 1 step", whole(1))
        for signal in self.inputs:
            if not (math.isfinite(signal.lower) and math.isfinite(signal.upper)):
                raise ValueError(
                    "`Task(inputs=...)` must have finite limits. "
                    f"Got {signal.name!r} in [{signal.lower}, {signal.upper}]."
                )
        names = (*self.state_names, *self.input_names)
        if not self.states or not self.inputs or len(set(names)) < len(names):
            raise ValueError(
                "`Task(states=..., inputs=...)` must name at least one of each, all different. "
                f"Got {list(self.state_names)} and {list(self.input_names)}."
            )
        for argument, form in (("reward", self.reward), ("ends", self.ends)):
            if form is None:
                continue
            unknown = [name for name in form.input_names if name not in names]
            if unknown:
                raise ValueError(
                    f"`Task({argument}=...)` uses {unknown}, which are not states or inputs {list(names)}."
                )
            if len(form.outputs) != 1:
                raise ValueError(f"`Task({argument}=...)` must have one output. Got {len(form.outputs)}.")
        foreign = [name for name in self.mirror if name not in names]
        if foreign:
            raise ValueError(f"`Task(mirror=...)` names {foreign}, which are not states or inputs {list(names)}.")
        object.__setattr__(self, "mirror", tuple(self.mirror))
        self._check_mirror()
        self.structure.targets(self.state_names)
        if self.failure_reward is None:
            object.__setattr__(self, "failure_reward", self._smallest_reward())
        elif not math.isfinite(self.failure_reward):
            raise ValueError(f"`Task(failure_reward=...)` must be a finite number. Got {self.failure_reward}.")

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.states)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.inputs)

    @property
    def action_low(self) -> np.ndarray:
        return np.array([signal.lower for signal in self.inputs])

    @property
    def action_high(self) -> np.ndarray:
        return np.array([signal.upper for signal in self.inputs])

    def _check_mirror(self) -> None:
        """A wrong claim of symmetry would silently cost half of all policies."""
        if not self.mirror:
            return
        signals = {signal.name: signal for signal in (*self.states, *self.inputs)}
        for name in self.mirror:
            if signals[name].lower != -signals[name].upper:
                raise ValueError(
                    f"`Task(mirror=...)` names {name!r}, whose range [{signals[name].lower}, {signals[name].upper}] "
                    "is not symmetric about 0."
                )
        for what, form in (("reward", self.reward), ("end", self.ends)):
            if form is None:
                continue
            rng = np.random.default_rng(0)
            used = [signals[name] for name in form.input_names]
            low = np.array([max(signal.lower, -1e3) for signal in used])
            high = np.array([min(signal.upper, 1e3) for signal in used])
            points = rng.uniform(low, high, (64, len(used)))
            flip = np.array([-1.0 if signal.name in self.mirror else 1.0 for signal in used])
            here, there = form(points), form(points * flip)
            if not np.allclose(here, there, rtol=1e-9, atol=1e-12, equal_nan=True):
                raise ValueError(
                    f"`Task(mirror=...)` must leave the {what} as it is. "
                    f"Flipping the signs of {list(self.mirror)} changes it."
                )

    def _smallest_reward(self) -> float:
        ranges = {signal.name: (signal.lower, signal.upper) for signal in (*self.states, *self.inputs)}
        ((low, _),) = self.reward.interval({name: ranges[name] for name in self.reward.input_names}).values()
        if not math.isfinite(low):
            raise ValueError(
                "`Task(failure_reward=...)` must be given: the reward has no finite lower bound on the ranges of "
                f"{[signal.name for signal in self.states]}. Give them finite ranges, or state the reward of failing."
            )
        return low
