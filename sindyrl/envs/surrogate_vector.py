"""Many copies of a surrogate at once, as a vector environment of Gymnasium: a step of all is one compiled call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sindyrl.envs.surrogate import Form, Surrogate, transition
from sindyrl.envs.surrogate_env import SurrogateEnv
from sindyrl.number_check import check_number, whole

_MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)


class SurrogateVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """``num_envs`` copies of `SurrogateEnv`: the same spaces, rewards, ends and information, in arrays.

    Observations (num_envs, state) in float32, rewards (num_envs,) in float64. An episode that is over begins anew by
    itself, from a start and in a member of its own, as ``autoreset_mode`` says and ``metadata`` tells: with "NextStep"
    the next step ignores that copy's action and returns its first observation with reward 0, with "SameStep" the last
    step returns it, and the last observation is in ``info["final_obs"]``.

    ``reset(seed=...)`` decides everything that follows; all copies draw from one generator.
    ``reset(options={"state": x})`` starts them at x (state,) or (num_envs, state), once.
    A new surrogate can be given at any time by setting ``surrogate``; it holds from the next step on.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        num_envs: int,
        *,
        discount: float = 0.99,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: None = None,
    ) -> None:
        num_envs = check_number("SurrogateVectorEnv(num_envs=...)", num_envs, "a positive integer", whole(1))
        known = {mode.value: mode for mode in _MODES} | {mode: mode for mode in _MODES}
        if autoreset_mode not in known:
            raise ValueError(
                f"`SurrogateVectorEnv(autoreset_mode=...)` must be one of {[mode.value for mode in _MODES]}. "
                f"Got {autoreset_mode!r}."
            )
        one = SurrogateEnv(surrogate, discount=discount, render_mode=render_mode)
        self.autoreset_mode = known[autoreset_mode]
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.render_mode = None
        self.num_envs, self.discount, self.task, self.dt = num_envs, discount, one.task, one.dt
        self.single_observation_space, self.single_action_space = one.observation_space, one.action_space
        self.observation_space = batch_space(one.observation_space, num_envs)
        self.action_space = batch_space(one.action_space, num_envs)
        self.surrogate = surrogate
        # What failing at every step from now on is worth, by the number of steps left.
        self._lost = np.concatenate([[0.0], np.cumsum(discount ** np.arange(self.task.horizon))])
        self._x = np.zeros((num_envs, len(self.task.states)), np.float32)
        self._left_over, self._member = np.zeros((2, num_envs), np.int32)
        self._running = False

    @property
    def surrogate(self) -> Surrogate:
        return self._surrogate

    @surrogate.setter
    def surrogate(self, surrogate: Surrogate) -> None:
        import jax

        self._surrogate = surrogate
        # Found and sent once, not at every step.
        self._compiled, self._data = _jitted(surrogate.form), jax.device_put(surrogate.data)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"state"})
        if unknown:
            raise ValueError(f"`reset(options=...)` understands 'state'. Got {unknown}.")
        self._begin(np.ones(self.num_envs, bool))
        if options and "state" in options:
            state = np.asarray(options["state"], dtype=np.float32)
            one, each = self._x.shape[1:], self._x.shape
            if state.shape not in (one, each) or not np.isfinite(state).all():
                raise ValueError(
                    f"A state must be finite numbers {self.task.state_names}, {one} or {each}. Got {state}."
                )
            self._x[:] = state
        self._running = True
        return self._x.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self._running:
            raise gymnasium.error.ResetNeeded("`step` needs running episodes. Call `reset` first.")
        command = np.asarray(actions, dtype=np.float32)
        if command.shape != self.action_space.shape or not np.isfinite(command).all():
            raise ValueError(f"`step(actions)` must be finite numbers, {self.action_space.shape}. Got {actions!r}.")
        resting = self._left_over == 0  # over since the last step
        made = self._compiled(self._data, self._member, self._x, command)
        x, told, left, over = (np.asarray(part) for part in made)
        left, over = left & ~resting, over & ~resting
        reward = np.where(resting, 0.0, told.astype(np.float64))
        terminated = over
        if self.surrogate.leaving == "penalty":
            reward = np.where(left, self.surrogate.failure_reward * self._lost[self._left_over], reward)
            terminated = left | over
        self._x = x.copy()
        self._left_over = np.where(left | over | resting, 0, self._left_over - 1)
        ended = (self._left_over == 0) & ~resting
        truncated = ended & ~terminated
        info: dict[str, Any] = {}
        begins = resting
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            begins = ended
            if ended.any():
                info |= self._last(ended, left)
        if begins.any():
            self._begin(begins)
        told_left = ~begins
        if told_left.any():
            info |= {"left": left & told_left, "_left": told_left}
        return self._x.copy(), reward, terminated, truncated, info

    def _begin(self, which: np.ndarray) -> None:
        """New episodes for some copies."""
        count, starts = int(which.sum()), self.surrogate.starts
        self._x[which] = starts[self.np_random.integers(len(starts), size=count)]
        self._member[which] = self.np_random.integers(2**31, size=count)
        self._left_over[which] = self.task.horizon

    def _last(self, ended: np.ndarray, left: np.ndarray) -> dict[str, Any]:
        """What Gymnasium tells of episodes that are over, in its form."""
        seen = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(ended):
            seen[index] = self._x[index].copy()
        told = {"left": left & ended, "_left": ended.copy()}
        return {"final_obs": seen, "_final_obs": ended.copy(), "final_info": told, "_final_info": ended.copy()}


@functools.lru_cache(maxsize=16)
def _jitted(form: Form) -> Callable[..., Any]:
    """``f(data, member, x, u)`` with x (batch, state) and u (batch, input) within its limits or not."""
    import jax
    import jax.numpy as jnp

    step = transition(form)
    low, high = (np.float32(limit) for limit in (form.task.action_low, form.task.action_high))

    @jax.jit
    def stepped(data: Any, member: Any, x: Any, u: Any) -> Any:
        made = step(data, member, x.T, jnp.clip(u, low, high).T)
        return made._replace(x=made.x.T)

    return stepped
