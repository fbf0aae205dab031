"""Policies made of policies: one after another, and all or nothing.

excite_then_rest = SwitchAfter(random_policy(env), at_rest(env), steps=500)
"""

from __future__ import annotations

import gymnasium
import numpy as np

from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Policy, Resettable


class SwitchAfter:
    """``first`` for so many steps of an episode, then ``second``; both begin anew with each episode.

    Raises ValueError unless ``steps`` is a non-negative integer.
    """

    def __init__(self, first: Policy, second: Policy, *, steps: int) -> None:
        steps = check_number("SwitchAfter(steps=...)", steps, "a non-negative integer", whole(0))
        self.first, self.second, self.steps = first, second, steps
        self._count = 0

    def reset(self, rng: np.random.Generator) -> None:
        self._count = 0
        # Streams of their own: what the first draws does not depend on what the second is.
        for policy, source in zip((self.first, self.second), rng.spawn(2), strict=True):
            if isinstance(policy, Resettable):
                policy.reset(source)

    def __call__(self, x: np.ndarray, /) -> np.ndarray:
        policy = self.first if self._count < self.steps else self.second
        self._count += 1
        return policy(x)


class BangBang:
    """Full input in the direction in which ``policy`` leaves ``rest``, and ``rest`` within the dead band.

    ``u = high`` where ``policy(x) > rest + dead_band``, ``low`` where ``policy(x) < rest - dead_band``, else ``rest``.

    low, high : (n_inputs,) limits    dead_band : width on either side, a number or (n_inputs,), in units of the input
    rest : (n_inputs,), by default the middle of the limits

    Raises ValueError for limits, a rest or a dead band that do not fit each other.
    """

    def __init__(
        self,
        policy: Policy,
        low: np.ndarray,
        high: np.ndarray,
        *,
        dead_band: float | np.ndarray = 0.0,
        rest: np.ndarray | None = None,
    ) -> None:
        self.policy = policy
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not (self.low < self.high).all():
            raise ValueError(
                f"`BangBang(low=..., high=...)` must be rising limits of each input. Got {low} and {high}."
            )
        self.rest = (self.low + self.high) / 2.0 if rest is None else np.asarray(rest, dtype=np.float64)
        if self.rest.shape != self.low.shape or not ((self.rest >= self.low) & (self.rest <= self.high)).all():
            raise ValueError(f"`BangBang(rest=...)` must be within the limits of each input. Got {rest}.")
        self.dead_band = np.broadcast_to(np.asarray(dead_band, dtype=np.float64), self.low.shape)
        if not (self.dead_band >= 0).all():
            raise ValueError(f"`BangBang(dead_band=...)` must not be negative. Got {dead_band}.")

    def reset(self, rng: np.random.Generator) -> None:
        if isinstance(self.policy, Resettable):
            self.policy.reset(rng)

    def __call__(self, x: np.ndarray, /) -> np.ndarray:
        away = np.asarray(self.policy(x)) - self.rest
        full = np.where(away > 0, self.high, self.low)
        return np.where(np.abs(away) > self.dead_band, full, self.rest)


def at_rest(env: gymnasium.Env) -> Policy:
    """The zero input, or the nearest that the environment's limits allow."""
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"`at_rest(env)` needs an environment with continuous actions. Got {space}.")
    held = np.clip(np.zeros(space.shape), space.low, space.high)
    return lambda x: held.copy()
