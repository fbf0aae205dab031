"""Informative data: a little random motion, then a controller that is refitted while it drives the real system.

Random inputs keep most systems near where they rest. A controller that pursues the task visits the states that the task
needs the model to know, and where it fails is where the model is wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gymnasium
import numpy as np

from sindyrl.collect import collect, random_policy
from sindyrl.model import Model
from sindyrl.protocols import Policy, Resettable
from sindyrl.task import Task
from sindyrl.trajectory import Dataset, Trajectory


def collect_actively(
    env: gymnasium.Env,
    task: Task,
    fit: Callable[[Dataset], Model],
    controller: Callable[[Model], Policy],
    *,
    steps: int,
    warmup: int,
    refit_every: int,
    rng: np.random.Generator,
    hold: int = 5,
    progress: Callable[[int, Model | None], None] | None = None,
) -> Dataset:
    """Collect exactly ``steps`` real transitions, the first ``warmup`` with random inputs held for ``hold`` steps.

    fit : the model of the data so far, called after the warm-up and then every ``refit_every`` steps
    controller : the policy for a model; it may keep a memory from one call to the next
    progress : called after every step with the number of steps taken and the model in use

    Episodes that end are reset and collection goes on. While ``fit`` raises ValueError (too few usable transitions
    yet), random inputs stay in charge; if none ever succeeds, that is a warning with the last reason.
    """
    if not 0 < warmup <= steps:
        raise ValueError(f"`collect_actively(warmup=...)` must be between 1 and steps={steps}. Got {warmup}.")
    if refit_every < 1:
        raise ValueError(f"`collect_actively(refit_every=...)` must be at least 1. Got {refit_every}.")
    learner = _Learner(task, fit, controller, random_policy(env, hold), warmup, refit_every, progress)
    data = collect(
        env,
        learner,
        steps=steps,
        rng=rng,
        states=task.state_names,
        inputs=task.input_names,
        dt=task.dt,
        callback=learner.record,
    )
    if learner.reason is not None:
        warnings.warn(f"All {steps} inputs were random: no model could be fitted. {learner.reason}", stacklevel=2)
    return data


class _Learner:
    """The policy during collection: it sees every transition and replaces its own controller."""

    def __init__(
        self,
        task: Task,
        fit: Callable[[Dataset], Model],
        controller: Callable[[Model], Policy],
        explore: Policy,
        warmup: int,
        refit_every: int,
        progress: Callable[[int, Model | None], None] | None,
    ) -> None:
        self._task, self._fit, self._controller, self._explore = task, fit, controller, explore
        self._warmup, self._refit_every, self._progress = warmup, refit_every, progress
        self._episodes: list[list[tuple[np.ndarray, np.ndarray, float, np.ndarray]]] = []
        self._steps = 0
        self._model: Model | None = None
        self.reason: ValueError | None = None  # why there is no model at all
        self._policy: Policy = explore
        self._rng = np.random.default_rng(0)  # replaced by the first reset

    def reset(self, rng: np.random.Generator) -> None:
        self._episodes.append([])
        self._rng = rng
        for policy in {id(p): p for p in (self._explore, self._policy)}.values():
            if isinstance(policy, Resettable):
                policy.reset(rng)

    def record(self, x: np.ndarray, u: np.ndarray, r: float, x_next: np.ndarray) -> None:
        self._episodes[-1].append((x, u, r, x_next))
        self._steps += 1
        if self._progress is not None:
            self._progress(self._steps, self._model)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        since = self._steps - self._warmup
        if since >= 0 and since % self._refit_every == 0:
            try:
                self._model = self._fit(self._dataset())
            except ValueError as error:
                if self._model is None:
                    self.reason = error
                return self._policy(x)
            self.reason = None
            policy = self._controller(self._model)
            if policy is not self._policy and isinstance(policy, Resettable):
                policy.reset(self._rng)  # it comes in the middle of an episode
            self._policy = policy
        return self._policy(x)

    def _dataset(self) -> Dataset:
        trajectories = []
        for episode in self._episodes:
            if episode:
                x = np.array([episode[0][0], *(after for _, _, _, after in episode)])
                u, r = np.array([held for _, held, _, _ in episode]), np.array([gain for _, _, gain, _ in episode])
                names = self._task.state_names, self._task.input_names
                trajectories.append(Trajectory.uniform(x, u, r, dt=self._task.dt, states=names[0], inputs=names[1]))
        return Dataset(tuple(trajectories))
