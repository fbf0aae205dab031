"""Real interaction: collecting data, evaluating policies, and counting every step that either costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Policy, Resettable
from sindyrl.seeding import SeedWatch
from sindyrl.seeding import UnseededEnvironmentWarning as UnseededEnvironmentWarning
from sindyrl.trajectory import Dataset, Trajectory

HEADS = ("data", "selection", "report")

StepCallback = Callable[[np.ndarray, np.ndarray, float, np.ndarray], None]
"""``callback(x, u, r, x_next)``, called after each step."""


class UnsupportedEnvironmentError(TypeError):
    """The environment's observations or actions are not vectors of real numbers with finite action limits."""


class NonFiniteError(ValueError):
    """An environment or a policy produced NaN or infinity."""


class InteractionMeter(gymnasium.Wrapper):
    """Counts every step of the environment it wraps, under the head that was named for it.

    *data*: a model or a policy is fitted to these steps. *selection*: they choose between candidates. *report*: they
    are measured after everything has been chosen and never choose. A result costs data + selection.

        meter = InteractionMeter(env)
        with meter.counting("data"):
            collect(meter, policy, steps=250, rng=rng)
        print(meter.counts, meter.cost)

    A step outside of any head raises `RuntimeError`; an inner head replaces the outer one while it lasts.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._counts = dict.fromkeys(HEADS, 0)
        self._head: str | None = None

    @contextlib.contextmanager
    def counting(self, head: str) -> Iterator[InteractionMeter]:
        if head not in HEADS:
            raise ValueError(f"`counting(head)` must be one of {list(HEADS)}. Got {head!r}.")
        outer, self._head = self._head, head
        try:
            yield self
        finally:
            self._head = outer

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    @property
    def cost(self) -> int:
        return self._counts["data"] + self._counts["selection"]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._head is None:
            raise RuntimeError(
                f"A metered environment was stepped outside of a head. Wrap the call: `with meter.counting(head):`, "
                f"head one of {list(HEADS)}."
            )
        # Counted first: a step that fails in the simulator was still taken.
        self._counts[self._head] += 1
        return self.env.step(action)

    def __str__(self) -> str:
        data, selection, report = (self._counts[head] for head in HEADS)
        return f"{self.cost} real steps ({data} data + {selection} selection); {report} more to report"


def collect(
    env: gymnasium.Env,
    policy: Policy,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    rng: np.random.Generator,
    states: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    dt: float | None = None,
    reset_every: int | None = None,
    callback: StepCallback | None = None,
) -> Dataset:
    """Takes exactly ``steps`` steps of an environment, or plays ``episodes`` of it, and returns a trajectory for each.

    Episodes end when the environment says so or after ``reset_every`` steps; with ``steps``, the last one ends with the
    last step. The state after the last step of an episode is kept, so no transition is lost. Inputs are clipped to the
    action limits, and what was applied is what is recorded.

    states, inputs : names; by default those of ``env.unwrapped.task``, else ``o0, o1, ...`` and ``u0, u1, ...``.
    dt : seconds per step; by default ``env.unwrapped.task.dt``, else ``env.unwrapped.dt``, else ``env.metadata["dt"]``.

    Raises `UnsupportedEnvironmentError` for discrete actions, infinite action limits and observations that are not
    vectors, `NonFiniteError` for NaN or infinity, `ValueError` for wrong arguments. Warns
    `UnseededEnvironmentWarning` if the environment ignores the seed of `reset`, or if one of the first ten steps draws
    from a generator that the process shares. A generator of the environment's own that nobody seeds goes unnoticed
    here: that takes real steps, see `sindyrl.seeding.check_seeds`.
    """
    if (steps is None) == (episodes is None):
        raise ValueError("`collect(...)` must be given either `steps` or `episodes`.")
    wanted = "a whole number of at least 1"
    steps, episodes, reset_every = (
        None if count is None else check_number(f"collect({argument}=...)", count, wanted, whole(1))
        for argument, count in (("steps", steps), ("episodes", episodes), ("reset_every", reset_every))
    )
    session = _Session(env, states, inputs)
    dt = _seconds_per_step(env, dt)
    act = session.feed(policy)
    seeds, draws = _split(rng)
    trajectories: list[Trajectory] = []
    left = math.inf if steps is None else steps
    while left and len(trajectories) != episodes:
        limit = min(left, reset_every or math.inf)
        x, u, r = session.episode(policy, act, seed=_seed(seeds), rng=draws, limit=limit, callback=callback)
        t = dt * np.arange(len(x))
        trajectories.append(Trajectory(t, x, u, r, states=session.states, inputs=session.inputs))
        left -= len(u)
    return Dataset(tuple(trajectories))


def evaluate(
    env: gymnasium.Env,
    policy: Policy,
    *,
    episodes: int | None = None,
    rng: np.random.Generator | None = None,
    seeds: Sequence[int] | None = None,
    max_steps: int | None = None,
    states: Sequence[str] | None = None,
    callback: StepCallback | None = None,
) -> np.ndarray:
    """Undiscounted returns of whole episodes, shape ``(episodes,)``.

    The initial states come either from ``episodes`` and ``rng`` or from explicit ``seeds``. An episode lasts until the
    environment ends it, or ``max_steps``. ``states``, ``callback``, errors and warnings as in `collect`.
    """
    if (seeds is None) == (rng is None) or (seeds is None) == (episodes is None):
        raise ValueError("`evaluate(...)` must be given either `seeds`, or `episodes` and `rng`.")
    if max_steps is not None:
        max_steps = check_number("evaluate(max_steps=...)", max_steps, "a whole number of at least 1", whole(1))
    session = _Session(env, states)
    act = session.feed(policy)
    if seeds is None:
        assert rng is not None
        assert episodes is not None
        episodes = check_number("evaluate(episodes=...)", episodes, "a whole number of at least 1", whole(1))
        source, draws = _split(rng)
        seeds = [_seed(source) for _ in range(episodes)]
    else:
        draws = np.random.default_rng(list(seeds))
    returns = np.empty(len(seeds))
    for i, seed in enumerate(seeds):
        _, _, r = session.episode(
            policy, act, seed=int(seed), rng=draws, limit=max_steps or math.inf, callback=callback
        )
        returns[i] = r.sum()
    return returns


class UniformPolicy:
    """Draws every input uniformly within its limits, whatever the state."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        self._rng: np.random.Generator | None = None

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._rng is None:
            raise RuntimeError("A random policy must be given its generator first. Call `policy.reset(rng)`.")
        return self._rng.uniform(self.low, self.high)


class ZeroOrderHold:
    """Asks a policy every ``steps`` steps and repeats its answer in between.

    Held inputs excite slow motion as well; white noise at the rate of the controller mostly cancels itself.
    """

    def __init__(self, policy: Policy, steps: int) -> None:
        steps = check_number("ZeroOrderHold(steps=...)", steps, "a whole number of at least 1", whole(1))
        self.policy, self.steps = policy, steps
        self._count, self._held = 0, np.empty(0)

    def reset(self, rng: np.random.Generator) -> None:
        self._count = 0
        if isinstance(self.policy, Resettable):
            self.policy.reset(rng)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._count % self.steps == 0:
            self._held = self.policy(x)
        self._count += 1
        return self._held


def random_policy(env: gymnasium.Env, hold: int = 1) -> ZeroOrderHold:
    """Uniformly random inputs within the environment's limits, each held for ``hold`` steps."""
    hold = check_number("random_policy(hold=...)", hold, "a whole number of at least 1", whole(1))
    space = _action_space(env)
    return ZeroOrderHold(UniformPolicy(space.low, space.high), hold)


class _Session:
    """A checked environment, and the names of what goes in and comes out of it."""

    def __init__(
        self, env: gymnasium.Env, states: Sequence[str] | None = None, inputs: Sequence[str] | None = None
    ) -> None:
        self.env = env
        self.space = _action_space(env)
        self._low = self.space.low.astype(np.float64)
        self._high = self.space.high.astype(np.float64)
        task = getattr(env.unwrapped, "task", None)
        if states is None:
            states = getattr(task, "state_names", None)
        if inputs is None:
            inputs = getattr(task, "input_names", None)
        self.states = _names("states", states, "o", _observation_size(env))
        self.inputs = _names("inputs", inputs, "u", self.space.shape[0])
        self._watch = SeedWatch(env)

    def feed(self, policy: Policy) -> Policy:
        """The policy as a function of the whole observation: a map with named inputs gets the states of these names."""
        wanted = getattr(policy, "input_names", None)
        if wanted is None or tuple(wanted) == self.states:
            return policy
        missing = [name for name in wanted if name not in self.states]
        if missing:
            raise ValueError(f"The policy reads {missing}, which are not among the states {list(self.states)}.")
        columns = [self.states.index(name) for name in wanted]
        return lambda x: policy(x[columns])

    def episode(
        self,
        policy: Policy,
        act: Policy,
        *,
        seed: int,
        rng: np.random.Generator,
        limit: float,
        callback: StepCallback | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One episode of at most ``limit`` steps: x (T+1, n), u (T, m), r (T,)."""
        if isinstance(policy, Resettable):
            policy.reset(rng)
        first, _ = self.env.reset(seed=seed)
        x = [self._observation(first, 0)]
        u: list[np.ndarray] = []
        r: list[float] = []
        over = False
        while not over and len(u) < limit:
            command = self._command(act(x[-1].copy()), len(u))
            observation, reward, terminated, truncated, _ = self._watch.step(command.astype(self.space.dtype))
            u.append(command)
            r.append(self._reward(reward, len(u)))
            x.append(self._observation(observation, len(u)))
            over = bool(terminated or truncated)
            if callback is not None:
                callback(x[-2].copy(), command.copy(), r[-1], x[-1].copy())
        return np.array(x), np.array(u), np.array(r)

    def _command(self, value: Any, step: int) -> np.ndarray:
        command = np.asarray(value, dtype=np.float64)
        if command.shape != self._low.shape:
            raise ValueError(f"The policy must return an array of shape {self._low.shape}. Got {command.shape}.")
        if not np.isfinite(command).all():
            raise NonFiniteError(f"The policy returned {dict(zip(self.inputs, command, strict=True))} at step {step}.")
        # What the actuator gets after rounding to the environment's own number type is what is recorded.
        return np.clip(command, self._low, self._high).astype(self.space.dtype).astype(np.float64)

    def _observation(self, value: Any, step: int) -> np.ndarray:
        # Always a copy: environments may reuse the memory of their observation.
        x = np.array(value, dtype=np.float64)
        if x.shape != (len(self.states),):
            raise UnsupportedEnvironmentError(
                f"The environment returned an observation of shape {x.shape} after announcing {(len(self.states),)}."
            )
        if not np.isfinite(x).all():
            bad = [name for name, entry in zip(self.states, x, strict=True) if not math.isfinite(entry)]
            raise NonFiniteError(
                f"The environment's observation has NaN or infinity in {bad} after step {step} of an episode. "
                "Check the simulation, limit the inputs, or end the episode before it diverges."
            )
        return x

    def _reward(self, value: Any, step: int) -> float:
        reward = float(value)
        if not math.isfinite(reward):
            raise NonFiniteError(f"The environment's reward is {reward} at step {step} of an episode.")
        return reward


def check_spaces(env: gymnasium.Env) -> None:
    """Raise `UnsupportedEnvironmentError` unless observations and actions are vectors of real numbers, as needed."""
    _action_space(env)
    _observation_size(env)


def _action_space(env: gymnasium.Env) -> gymnasium.spaces.Box:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not np.issubdtype(space.dtype or np.float64, np.floating):
        raise UnsupportedEnvironmentError(
            f"Actions must be continuous, a Box of real numbers. This environment has {space}. "
            "Choose its continuous version, or map the discrete choices to a real number in a wrapper."
        )
    if len(space.shape) != 1:
        raise UnsupportedEnvironmentError(f"Actions must be vectors. This environment's have shape {space.shape}.")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UnsupportedEnvironmentError(
            f"Action limits must be finite. Got low {space.low}, high {space.high}. "
            "State the actuator's limits, for instance with gymnasium.wrappers.RescaleAction."
        )
    return space


def _observation_size(env: gymnasium.Env) -> int:
    space = env.observation_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UnsupportedEnvironmentError(
            f"Observations must be vectors of real numbers. This environment has {space}. "
            "Flatten dictionaries with gymnasium.wrappers.FlattenObservation; images are not supported."
        )
    return space.shape[0]


def _names(argument: str, given: Sequence[str] | None, letter: str, count: int) -> tuple[str, ...]:
    names = tuple(f"{letter}{i}" for i in range(count)) if given is None else tuple(given)
    if len(names) != count:
        raise ValueError(f"`collect({argument}=...)` must name {count} columns. Got {len(names)}: {list(names)}.")
    return names


def _seconds_per_step(env: gymnasium.Env, dt: float | None) -> float:
    if dt is None:
        base = env.unwrapped
        task_dt = getattr(getattr(base, "task", None), "dt", None)
        # Not 1 / metadata["render_fps"]: that is the speed of the film (Pendulum-v1: 30 frames/s, steps of 0.05 s).
        found = (task_dt, getattr(base, "dt", None), base.metadata.get("dt"))
        dt = next((value for value in found if value is not None), None)
        if dt is None:
            raise ValueError("`collect(dt=...)` must be given: this environment does not say how long a step lasts.")
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"`collect(dt=...)` must be a positive number of seconds. Got {dt}.")
    return float(dt)


def _split(rng: np.random.Generator) -> tuple[np.random.Generator, np.random.Generator]:
    """Two streams: one for the environment's seeds, one for the policy, so that neither shifts the other."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"`rng` must be a numpy.random.Generator, for instance default_rng(0). Got {rng!r}.")
    first, second = rng.integers(2**63, size=2)
    return np.random.default_rng(first), np.random.default_rng(second)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
