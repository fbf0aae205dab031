"""Receding horizon: plan, apply the first inputs, plan again from where the system really is."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

from sindyrl.protocols import Plan, Planner

S = TypeVar("S")


class RecedingHorizon(Generic[S]):
    """A planner as a policy with memory: replans every ``every`` steps and plays the plan's inputs in between.

    planner : its plans must be at least ``every`` steps long, and its state must move on by ``every`` steps per plan
        (for `CrossEntropyPlanner` that is ``hold``).
    last_plan : the plan being played, None before the first call.
    """

    def __init__(self, planner: Planner[S], *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"`RecedingHorizon(every=...)` must be at least 1 step. Got {every}.")
        self.planner = planner
        self.every = every
        self.last_plan: Plan[S] | None = None
        self._step = 0

    def reset(self, rng: np.random.Generator | None = None) -> None:
        """Forget the plan; the next call starts afresh."""
        self.last_plan = None
        self._step = 0

    def replace_planner(self, planner: Planner[S]) -> None:
        """Go on with another planner of the same kind (a refitted model), keeping the warm start."""
        self.planner = planner

    def __call__(self, x: np.ndarray, /) -> np.ndarray:
        if self._step % self.every == 0 or self.last_plan is None:
            memory: Any = self.planner.init(x) if self.last_plan is None else self.last_plan.state
            self.last_plan = self.planner.plan(x, memory)
            self._step = 0
            if len(self.last_plan.u) < self.every:
                raise ValueError(
                    f"`RecedingHorizon(every=...)` must not exceed the plan's {len(self.last_plan.u)} steps. "
                    f"Got {self.every}."
                )
        held = self.last_plan.u[self._step]
        self._step += 1
        return held
