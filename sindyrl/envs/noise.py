"""Measurement noise in front of an environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class ObservationNoise(gymnasium.ObservationWrapper[Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Adds independent normal noise of standard deviation ``sigma`` to every entry of the observation.

    sigma : number, or one per entry, in the entries' units

    The noise follows the environment's seed. Reward and dynamics are untouched: only what is measured changes.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], sigma: float | np.ndarray) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, sigma=sigma)
        super().__init__(env)
        values = np.array(sigma, dtype=np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"`ObservationNoise(sigma=...)` must be finite and not negative. Got {sigma!r}.")
        if values.shape not in ((), env.observation_space.shape):
            raise ValueError(
                f"`ObservationNoise(sigma=...)` must be one number or have the observation's shape "
                f"{env.observation_space.shape}. Got shape {values.shape}."
            )
        self.sigma = values
        self._noise = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._noise = np.random.default_rng([seed, 1])
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        return observation + self.sigma * self._noise.standard_normal(np.shape(observation))
