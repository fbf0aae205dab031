"""Does an environment's seed decide everything that follows? If not, no result from it can be repeated.

What is noticed at no real step, by every `sindyrl.collect.collect` and `evaluate`: a reset that gives two states for
one seed, and a step that draws from a generator which the whole process shares (Python's `random`, NumPy's legacy
functions). A step that draws from an unseeded generator of its own shows only where one seed and the same inputs are
played twice, and that costs real steps: `check_seeds`.
"""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import gymnasium
import numpy as np

from sindyrl.number_check import check_number, whole

_WATCHED = 10  # steps; reading the shared generators takes some 80 microseconds, twice a step


class UnseededEnvironmentWarning(UserWarning):
    """The seed of `reset` does not decide everything that follows, so results cannot be repeated."""


class SeedWatch:
    """An environment's steps, and a warning at the first sign that its seed does not decide everything.

    Making one resets the environment twice. Its first ten steps are watched. Where `reset` seeds a shared generator,
    what a step draws from it can be repeated, and nothing is said. Another thread that draws from one meanwhile is
    taken for the environment.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        before = _shared_generators()
        first, once = _vector(env.reset(seed=12345)[0]), _shared_generators()
        second, twice = _vector(env.reset(seed=12345)[0]), _shared_generators()
        self._seeded = [b == c != a for a, b, c in zip(before, once, twice, strict=True)]
        self._watched = 0 if all(self._seeded) else _WATCHED
        if not np.array_equal(first, second, equal_nan=True):
            warnings.warn(_ignores(env), UnseededEnvironmentWarning, stacklevel=4)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if not self._watched:
            return self.env.step(action)
        before = _shared_generators()
        result = self.env.step(action)
        self._watched -= 1
        after = _shared_generators()
        if any(a != b and not seeded for a, b, seeded in zip(before, after, self._seeded, strict=True)):
            self._watched = 0
            warnings.warn(
                f"{self.env.unwrapped} draws from `random` or `np.random` in `step`, generators that the seed of "
                "`reset` does not reach. Results from it cannot be repeated unless these are seeded, too. Draw from "
                "`self.np_random`.",
                UnseededEnvironmentWarning,
                stacklevel=4,
            )
        return result


def check_seeds(env: gymnasium.Env[Any, Any], *, steps: int, rng: np.random.Generator) -> None:
    """Play one seed twice with the same random inputs, and warn `UnseededEnvironmentWarning` at the first difference.

    Takes up to ``2 * steps`` real steps, fewer if the episode ends; an `InteractionMeter` counts them under the head
    that was named for it. Observations (vectors), rewards and ends are compared to the bit. What happens rarely needs
    many steps to be seen: silence proves nothing. Raises ValueError unless ``steps`` is a whole number of at least 1.

        with meter.counting("selection"):
            check_seeds(meter, steps=25, rng=rng)
    """
    steps = check_number("check_seeds(steps=...)", steps, "a whole number of at least 1", whole(1))
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"`check_seeds(rng=...)` must be a numpy.random.Generator, for instance default_rng(0). Got {rng!r}."
        )
    space = copy.deepcopy(env.action_space)  # the environment's own stream of samples stays where it is
    space.seed(int(rng.integers(2**31)))
    inputs, seed = [space.sample() for _ in range(steps)], int(rng.integers(2**31))
    first = _played(env, seed, inputs)
    again = _played(env, seed, inputs[: len(first) - 1])
    # Of an end that comes earlier the second time, the row before it differs already.
    pairs = enumerate(zip(first, again, strict=False))
    differs = next((k for k, (one, other) in pairs if not np.array_equal(one, other, equal_nan=True)), None)
    if differs == 0:
        warnings.warn(_ignores(env), UnseededEnvironmentWarning, stacklevel=2)
    elif differs is not None:
        warnings.warn(
            f"{env.unwrapped} does not repeat itself: with one seed and the same inputs, step {differs} of an episode "
            "came out differently. Results from it cannot be repeated. Draw from `self.np_random`, and set everything "
            "that a step depends on in `reset`.",
            UnseededEnvironmentWarning,
            stacklevel=2,
        )


def _played(env: gymnasium.Env[Any, Any], seed: int, inputs: list[Any]) -> list[np.ndarray]:
    """What was seen after the reset and after each step: the observation, then reward, terminated and truncated."""
    seen = [_vector(env.reset(seed=seed)[0])]
    for action in inputs:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(np.append(_vector(observation), [float(reward), terminated, truncated]))
        if terminated or truncated:
            break
    return seen


def _vector(observation: Any) -> np.ndarray:
    # Always a copy: environments may reuse the memory of their observation.
    return np.array(observation, dtype=np.float64)


def _shared_generators() -> tuple[Any, Any]:
    """Where Python's and where NumPy's generator for the whole process is; read, never touched."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 (it is the legacy one that is watched)
    inside = [value.tobytes() if isinstance(value, np.ndarray) else value for value in legacy["state"].values()]
    return random.getstate(), (*inside, legacy.get("has_gauss"), legacy.get("gauss"))


def _ignores(env: gymnasium.Env[Any, Any]) -> str:
    # Not of the wrappers: a meter prints its counts, and a text that changes is a warning that is repeated.
    return (
        f"{env.unwrapped} ignores the seed of `reset`: two resets with one seed gave different states. "
        "Results from it cannot be repeated. Draw initial states from `self.np_random` after "
        "`super().reset(seed=seed)`."
    )
