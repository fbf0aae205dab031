"""What the cart-pole tasks of the dm_control suite have in common behind the Gymnasium interface.

A system is a subclass in a file of its own, beside what is known of it: double_cartpole.py.
"""

from __future__ import annotations

import math
import os
import sys
from abc import abstractmethod
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np

from sindyrl.task import Task


class ControlSuite(gymnasium.Env[np.ndarray, np.ndarray]):
    """One input; the simulator, its initial states and its reward are those of dm_control; episodes are only truncated.

    ``reset(seed=...)`` decides everything that follows; without a seed the random stream goes on.
    ``reset(options={"state": ...})`` starts at a state instead of drawing one.
    Raises `ImportError` if the ``envs`` extra is not installed.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's interface)
    task: Task
    dt: float

    def __init__(self, render_mode: None = None) -> None:
        if render_mode is not None:
            raise ValueError(f"`{type(self).__name__}(render_mode=...)` must be None. Got {render_mode!r}.")
        self.render_mode = None
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (len(self.task.states),), np.float64)
        self.action_space = gymnasium.spaces.Box(self.task.action_low, self.task.action_high, dtype=np.float64)
        simulation = self._simulation()
        self._physics, self._rules = simulation.physics, simulation.task
        # Views into the simulator's memory; reading them is 15 times faster than dm_control's access by name.
        self._qpos, self._qvel = self._physics.data.qpos, self._physics.data.qvel
        self._steps_left = 0

    @staticmethod
    @abstractmethod
    def _simulation() -> Any:
        """dm_control's own environment."""

    @abstractmethod
    def _observation(self) -> np.ndarray:
        """The state that the simulator is in."""

    @staticmethod
    @abstractmethod
    def _inner(state: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The simulator's positions and velocities, of a state in the order of the observation."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"state"})
        if unknown:
            raise ValueError(f"`reset(options=...)` understands 'state'. Got {unknown}.")
        # Each episode's seed is drawn from Gymnasium's stream, which `seed` restarts and which otherwise goes on.
        self._rules.random.seed(int(self.np_random.integers(2**32)))
        with self._physics.reset_context():
            if options and "state" in options:
                self._place(self._physics, options["state"])
            else:
                self._rules.initialize_episode(self._physics)
        self._steps_left = self.task.horizon
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._steps_left == 0:
            raise gymnasium.error.ResetNeeded("`step` needs a running episode. Call `reset` first.")
        if not (np.shape(action) == (1,) and math.isfinite(action[0])):
            raise ValueError(f"`step(action)` must be one finite number in an array of shape (1,). Got {action!r}.")
        self._rules.before_step(action, self._physics)
        self._physics.step()
        reward = float(self._rules.get_reward(self._physics))
        self._steps_left -= 1
        return self._observation(), reward, False, self._steps_left == 0, {}

    def close(self) -> None:
        self._physics.free()

    @classmethod
    def accelerations(cls, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Accelerations of the simulator's own velocities, from the simulator.

        x : (n, n_states)    u : (n, 1)    Returns (n, n_velocities).
        """
        x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
        states = len(cls.task.states)
        if x.ndim != 2 or x.shape[1] != states or u.shape != (len(x), 1):
            raise ValueError(
                f"`accelerations(x, u)` must have shapes (n, {states}) and (n, 1). Got {x.shape} and {u.shape}."
            )
        physics = cls._simulation().physics
        out = np.empty((len(x), len(physics.data.qvel)))
        for row, (state, command) in enumerate(zip(x, u, strict=True)):
            cls._place(physics, state)
            physics.set_control(command)
            physics.forward()
            out[row] = physics.data.qacc
        physics.free()
        return out

    @classmethod
    def _place(cls, physics: Any, state: Any) -> None:
        """Writes a state in the order of the observation into the simulator. Raises ValueError."""
        values = np.asarray(state, dtype=np.float64)
        names = cls.task.state_names
        if values.shape != (len(names),) or not np.isfinite(values).all():
            raise ValueError(f"A state of `{cls.__name__}` must be {len(names)} finite numbers {names}. Got {state!r}.")
        physics.data.qpos[:], physics.data.qvel[:] = cls._inner(values)


def cartpole_suite() -> ModuleType:
    """dm_control's cart-pole domain. Raises `ImportError` that says what to install."""
    # Without this dm_control looks for a display while it is imported. A choice already made is respected.
    os.environ.setdefault("MUJOCO_GL", "disable")
    try:
        from dm_control.suite import cartpole
    except ImportError as error:
        remedy = 'The cart-pole needs dm_control and mujoco. Run: pip install "sindyrl[envs]"'
        if sys.version_info >= (3, 13):
            # One of dm_control's requirements, not used here, has no wheel for Python 3.13.
            remedy += " && pip install --no-deps dm_control==1.0.50"
        raise ImportError(remedy) from error
    return cartpole
