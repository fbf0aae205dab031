"""The learned system as an environment of Gymnasium: one episode of a `Surrogate` at a time."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from sindyrl.envs.surrogate import Surrogate
from sindyrl.number_check import check_number
from sindyrl.simulate import limits


class SurrogateEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A surrogate as a Gymnasium environment.

    Observations are the states in float32, always within the task's ranges and their small slack. An episode is
    truncated after ``task.horizon`` steps and terminates where ``task.ends`` says so. Leaving the ranges, told by
    ``info["left"]``, truncates the episode as well with ``leaving="bootstrap"``; with "penalty" it terminates it, and
    the last reward is the smallest reward of all remaining steps, each discounted by ``discount``, which should be the
    learner's.

    ``reset(seed=...)`` decides everything that follows. ``reset(options={"state": x})`` starts at a state. A new
    surrogate can be given at any time by setting ``surrogate``; it holds from the next step on.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's interface)

    def __init__(self, surrogate: Surrogate, *, discount: float = 0.99, render_mode: None = None) -> None:
        discount = check_number("SurrogateEnv(discount=...)", discount, "in (0, 1]", lambda value: 0 < value <= 1)
        if render_mode is not None:
            raise ValueError(f"`SurrogateEnv(render_mode=...)` must be None. Got {render_mode!r}.")
        self.render_mode = None
        self.surrogate, self.discount = surrogate, discount
        self.task, self.dt = surrogate.task, surrogate.task.dt
        low, high = limits(self.task.states)
        # Rounded outwards, so that a state on a limit is still inside.
        inner = np.float32(low), np.float32(high)
        self.observation_space = gymnasium.spaces.Box(np.nextafter(inner[0], -np.inf), np.nextafter(inner[1], np.inf))
        limit = self.task.action_low.astype(np.float32), self.task.action_high.astype(np.float32)
        self.action_space = gymnasium.spaces.Box(*limit)
        self._x = np.zeros(len(self.task.states), np.float32)
        self._left_over, self._member = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"state"})
        if unknown:
            raise ValueError(f"`reset(options=...)` understands 'state'. Got {unknown}.")
        chosen = self.surrogate.starts[self.np_random.integers(len(self.surrogate.starts))]
        self._member = int(self.np_random.integers(2**31))
        state = np.asarray((options or {}).get("state", chosen), dtype=np.float32)
        if state.shape != self._x.shape or not np.isfinite(state).all():
            raise ValueError(f"A state must be {len(self._x)} finite numbers {self.task.state_names}. Got {state}.")
        self._x, self._left_over = state, self.task.horizon
        return self._x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._left_over == 0:
            raise gymnasium.error.ResetNeeded("`step` needs a running episode. Call `reset` first.")
        command = np.asarray(action, dtype=np.float32)
        if command.shape != (len(self.task.inputs),) or not np.isfinite(command).all():
            raise ValueError(f"`step(action)` must be {len(self.task.inputs)} finite numbers. Got {action!r}.")
        made = self.surrogate.step(self._x, command, self._member)
        reward, left, over = float(made.reward[0]), bool(made.left[0]), bool(made.over[0])
        penalized = left and self.surrogate.leaving == "penalty"
        if penalized:
            # Written as a sum: exact for every discount, 1 included.
            reward = self.surrogate.failure_reward * float(np.sum(self.discount ** np.arange(self._left_over)))
        self._x = made.x[0]
        self._left_over = 0 if left or over else self._left_over - 1
        terminated = penalized or over
        return self._x.copy(), reward, terminated, not terminated and self._left_over == 0, {"left": left}
