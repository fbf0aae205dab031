r"""Policies by back-propagation through the model: the gradient of the return itself, not an estimate from its values.

A surrogate is a differentiable function, so the return of a window of ``length`` steps has a gradient,

    J = E[ sum_t gamma^t r(x_{t+1}, u_t) + gamma^T V(x_T) ],    u_t = pi(x_t),  x_{t+1} = f(x_t, u_t),

which is followed by Adam. Without ``bootstrap`` there is no V, and windows begin at the surrogate's initial states; as
long as the task's horizon, they are whole episodes. With it, windows go on where the last ones ended, a critic V is
learned from them (lambda-returns), and so a short window sees beyond its end. Long windows of an unstable system have
gradients that grow as its motion does; short ones without a critic do not see what comes later.

**Leaving the ranges** is a step down that no gradient sees: from there on the reward is constant. What is followed
therefore has a smooth wall inside the ranges, never in what `judge` reports. For states z in units where the limits are
-1 and 1, each step costs

    w sum_i max(0, (|z_i| - (1 - m)) / m)^2

with w ``wall`` times the difference between the bounds of the reward on the ranges, m ``margin``. A roll-out that has
left stays where it was, in the wall, and pays there for the rest of the window. States without finite limits have no
wall, nor have those that the structure keeps on a manifold, such as the cosine of an angle. An episode's gradient that
is not a number counts for nothing, and an update without a finite gradient is none.

The reward must have a slope where the policy goes: a task that pays only at its goal is for `sindyrl.learn.ppo`.

References: Deisenroth, Rasmussen, PILCO, ICML 2011; Xu et al., Accelerated Policy Learning with Parallel Differentiable
Simulation, arXiv 2204.07137 (windows with a critic).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.flatten_util import ravel_pytree

from sindyrl.envs.surrogate import Form, Surrogate, SurrogateData, transition
from sindyrl.learn import ppo
from sindyrl.learn.network import Agent, Moments, NeuralPolicy, Squash, agent, moments, standardized, to_inputs
from sindyrl.number_check import check_fields, check_number, checked_numbers, not_negative, whole


class Shape(NamedTuple):
    """What is compiled in."""

    environments: int
    length: int
    updates: int
    epochs: int
    hidden: tuple[int, ...]
    squash: Squash
    bootstrap: bool


class Hyper(NamedTuple):
    """What is not: numbers that may change at any time."""

    learning_rate: Any
    critic_rate: Any
    discount: Any
    trace: Any
    max_gradient: Any
    max_slope: Any
    wall: Any
    margin: Any


@dataclasses.dataclass(frozen=True)
class BPTTSettings:
    """Sizes, which are compiled in, and numbers, which are not.

    environments, length : windows of an update, and their steps; never more than the task's horizon
    updates : in one call of `train`
    hidden : units of the tanh layers of actor and of critic
    squash : how the network's output is brought within the inputs' limits; "clip" has no slope beyond them
    bootstrap : end windows in what a critic expects, and go on from there
    epochs : steps of the critic in an update
    learning_rate, critic_rate : step lengths of Adam
    discount, trace : gamma and, for the critic, lambda; with ``bootstrap`` the discount is below 1
    max_gradient : norm at which the policy's gradient is cut
    max_slope : norm at which the gradient of a window's mean reward with respect to its state is cut, at each step on
        its way back; infinity leaves the gradient as it is
    wall, margin : see the text of this module
    """

    environments: int = 64
    length: int = 32
    updates: int = 10
    hidden: tuple[int, ...] = (64, 64)
    squash: Squash = "tanh"
    bootstrap: bool = True
    epochs: int = 8
    learning_rate: float = 1e-3
    critic_rate: float = 1e-3
    discount: float = 0.99
    trace: float = 0.95
    max_gradient: float = 1.0
    max_slope: float = math.inf
    wall: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self, "environments length updates epochs", "a positive integer", whole(1))
        hidden = checked_numbers("BPTTSettings(hidden=...)", self.hidden, "at least one positive integer", whole(1))
        object.__setattr__(self, "hidden", hidden)
        if self.squash not in get_args(Squash):
            raise ValueError(f"`BPTTSettings(squash=...)` must be one of {get_args(Squash)}. Got {self.squash!r}.")
        wanted = "a number in (0, 1], with `bootstrap` below 1"
        check_fields(self, "discount", wanted, lambda value: 0 < value < 1 or (value == 1 and not self.bootstrap))
        check_fields(self, "trace", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        check_fields(self, "margin", "a number in (0, 1]", lambda value: 0 < value <= 1)
        check_fields(self, "learning_rate critic_rate wall", "a finite number, not negative", not_negative)
        check_fields(self, "max_gradient max_slope", "a positive number", lambda value: value > 0)

    def shape(self, horizon: int) -> Shape:
        """What is compiled in for episodes of so many steps."""
        parts = {name: getattr(self, name) for name in Shape._fields}
        return Shape(**parts | {"length": min(self.length, horizon)})

    @property
    def hyper(self) -> Hyper:
        return Hyper(*(np.float32(getattr(self, name)) for name in Hyper._fields))


class Episodes(NamedTuple):
    """Where each roll-out is: x (state, batch); steps taken, member, has left, is over by success (batch,)."""

    x: Any
    steps: Any
    member: Any
    left: Any
    over: Any


class Learner(eqx.Module):
    """All that training changes; a value that is handed in and out.

    actor_state, critic_state : of Adam    observations : moments of the states met    returns : of the critic's targets
    """

    agent: Agent
    actor_state: Any
    critic_state: Any
    observations: Moments
    returns: Moments
    episodes: Episodes
    key: Any


class Metrics(NamedTuple):
    """Of each update, (updates,): mean reward, share of the steps outside, what was followed, losses, norm."""

    reward: Any
    left: Any
    policy_loss: Any
    value_loss: Any
    gradient: Any


class Window(NamedTuple):
    """What windows were like, (time, batch) each; seen and after (time, batch, state); see `window`."""

    seen: Any
    after: Any
    reward: Any
    left: Any
    over: Any
    ended: Any


# ---- what a user calls


@dataclasses.dataclass(frozen=True)
class BPTT:
    """A `sindyrl.learn.learner.PolicyLearner`: pass it to `sindyrl.learn.dyna.dyna`, or call it by hand."""

    settings: BPTTSettings = BPTTSettings()

    @property
    def steps(self) -> int:
        """Steps of a call in the surrogate, if the task's horizon is no shorter than a window."""
        return self.settings.environments * self.settings.length * self.settings.updates

    def start(self, surrogate: Surrogate, seed: int) -> Learner:
        return start(surrogate, self.settings, seed)

    def train(self, surrogate: Surrogate, state: Any, slowed: float = 1.0) -> tuple[Learner, dict[str, float]]:
        settings = self.settings
        if slowed != 1.0:
            settings = dataclasses.replace(settings, learning_rate=settings.learning_rate * slowed)
        state, metrics = train(surrogate, state, settings)
        return state, {name: float(np.mean(values)) for name, values in metrics._asdict().items()}

    def judge(self, surrogate: Surrogate, state: Any, episodes: int = 16) -> np.ndarray:
        return judge(surrogate, state, self.settings, episodes)

    def exploring(self, state: Any, log_std: float) -> Any:
        """As it is: the policy does not explore."""
        return state

    def policy(self, surrogate: Surrogate, state: Any) -> NeuralPolicy:
        return policy(surrogate, state, self.settings)

    def describe(self) -> dict[str, Any]:
        return {"algorithm": "bptt", **dataclasses.asdict(self.settings)}


def start(surrogate: Surrogate, settings: BPTTSettings, seed: int = 0) -> Learner:
    """A new learner."""
    seed = check_number("start(seed=...)", seed, "a non-negative integer", whole(0))
    rng, task, count = np.random.default_rng(seed), surrogate.task, settings.environments
    made = agent(rng, len(task.states), len(task.inputs), settings.hidden, _SILENT)
    empty = []
    for part in (made.actor, made.critic):
        form = jax.eval_shape(lambda part: _adam(1.0, 1.0).init(ravel_pytree(part)[0]), part)
        empty.append(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), form))
    episodes = Episodes(
        surrogate.data.starts[rng.integers(len(surrogate.starts), size=count)].T,
        rng.integers(task.horizon, size=count).astype(np.int32),
        rng.integers(len(surrogate.data.coef), size=count).astype(np.int32),
        np.zeros(count, bool),
        np.zeros(count, bool),
    )
    key = jax.random.key(int(rng.integers(2**31)))
    seen = moments((len(task.states),))
    return jax.device_put(Learner(made, empty[0], empty[1], seen, moments(()), episodes, key))


def train(surrogate: Surrogate, learner: Learner, settings: BPTTSettings) -> tuple[Learner, Metrics]:
    """``settings.updates`` updates in the surrogate. Compiled once for each form of surrogate and sizes."""
    shape = settings.shape(surrogate.task.horizon)
    learner, metrics = trainer(surrogate.form, shape)(surrogate.data, learner, settings.hyper)
    return learner, Metrics(*(np.asarray(value) for value in metrics))


def judge(surrogate: Surrogate, learner: Learner, settings: BPTTSettings, episodes: int = 16) -> np.ndarray:
    """Undiscounted returns (episodes,) of whole episodes in the surrogate, as of `sindyrl.learn.ppo.judge`."""
    return ppo.judge(surrogate, learner, settings, episodes)  # type: ignore[arg-type]  # reads what both have


def policy(surrogate: Surrogate, learner: Learner, settings: BPTTSettings) -> NeuralPolicy:
    """The policy as it is now."""
    return ppo.policy(surrogate, learner, settings)  # type: ignore[arg-type]  # reads what both have


# ---- the parts of the algorithm


def window(form: Form, shape: Shape) -> Callable[..., tuple[Any, tuple[Window, Episodes]]]:
    """``play(actor, data, hyper, value, observations, episodes, fresh) -> J, (what happened, where it ended)``.

    J : mean over the windows of the objective in the text of this module, divided by the number of steps
    value : x (..., state) -> (...), what the critic expects; not asked without ``bootstrap``
    fresh : with ``bootstrap``, initial states (time, state, batch) and members (time, batch) of the episodes that begin
        within a window; else None
    """
    step, task = transition(form), form.task
    low, high = jnp.asarray(task.action_low, jnp.float32), jnp.asarray(task.action_high, jnp.float32)
    failure = float(task.failure_reward or 0.0)
    cost = _wall(form)

    def play(
        actor: Any, data: SurrogateData, hyper: Hyper, value: Any, observations: Moments, episodes: Episodes, fresh: Any
    ) -> tuple[Any, tuple[Window, Episodes]]:
        batch = episodes.x.shape[1]

        def one(carry: Any, drawn: Any) -> Any:
            before, weight, total = carry
            x = _backward(before.x, hyper.max_slope / batch)
            pre = actor(standardized(observations, x.T))
            u = _backward(to_inputs(pre, low, high, shape.squash).T, jnp.inf)
            after, reward, left, over = step(data, before.member, x, u)
            # What has left or is over stays where it is.
            after = jnp.where(before.left | before.over, before.x, after)
            left, over = before.left | left, before.over | (over & ~before.left)
            gain = jnp.where(left, failure, reward) - cost(after, hyper)
            total = total + weight * jnp.where(before.over, 0.0, gain)
            weight = weight * hyper.discount
            now = Episodes(after, before.steps + 1, before.member, left, over)
            ended = jnp.zeros_like(left)
            if shape.bootstrap:
                ended = left | over | (now.steps >= task.horizon)
                last = jnp.where(over, 0.0, value(after.T))
                if form.leaving == "penalty":
                    last = jnp.where(left, failure / (1.0 - hyper.discount), last)
                total = total + jnp.where(ended, weight * last, 0.0)
                weight = jnp.where(ended, 1.0, weight)
                first, member = drawn
                begun = Episodes(first, jnp.zeros_like(now.steps), member, jnp.zeros_like(left), jnp.zeros_like(over))
                now = jax.tree.map(lambda new, old: jnp.where(ended, new, old), begun, now)
            return (now, weight, total), Window(x.T, after.T, reward, left, over, ended)

        first = (episodes, jnp.ones(batch, episodes.x.dtype), jnp.zeros(batch, episodes.x.dtype))
        (final, weight, total), rows = jax.lax.scan(one, first, fresh, length=shape.length)
        if shape.bootstrap:
            # An episode that just ended has been paid; the one in its place has earned nothing yet.
            total = total + jnp.where(rows.ended[-1], 0.0, weight * value(final.x.T))
        return total.mean() / shape.length, (rows, final)

    return play


@jax.custom_vjp
def _backward(x: Any, most: Any) -> Any:
    """x (rows, batch) itself; on the way back each column's gradient is cut at the norm ``most``, and 0 for NaN."""
    return x


def _forward(x: Any, most: Any) -> Any:
    return x, most


def _cut(most: Any, slope: Any) -> Any:
    norm = jnp.sqrt((slope**2).sum(axis=0))
    finite = jnp.isfinite(norm)
    factor = jnp.where(norm > most, most / jnp.where(norm > 0, norm, 1.0), 1.0)
    return jnp.where(finite, slope * factor, 0.0), jnp.zeros_like(most)


_backward.defvjp(_forward, _cut)


def _wall(form: Form) -> Callable[[Any, Hyper], Any]:
    """What each step costs near the limits, x (state, batch) -> (batch,)."""
    task = form.task
    low = np.array([signal.lower for signal in task.states])
    high = np.array([signal.upper for signal in task.states])
    limited = np.isfinite(high - low)
    middle = np.where(limited, (np.where(limited, low, 0.0) + np.where(limited, high, 0.0)) / 2.0, 0.0)
    half = np.where(limited, (np.where(limited, high, 2.0) - np.where(limited, low, 0.0)) / 2.0, 1.0)
    # What the projection moves is kept in place by the structure.
    sample = middle + half * np.random.default_rng(0).uniform(-1.0, 1.0, (64, len(low)))
    free = np.isclose(form.model.structure.project(task.state_names, sample), sample).all(axis=0)
    walled = np.flatnonzero(free & limited)
    middle, half = middle[walled, None], half[walled, None]
    scale = _reward_width(form)

    def cost(x: Any, hyper: Hyper) -> Any:
        if not len(walled):
            return jnp.zeros(x.shape[1], x.dtype)
        z = jnp.abs(x[walled] - middle.astype(x.dtype)) / half.astype(x.dtype)
        return hyper.wall * scale * (jnp.maximum((z - 1.0 + hyper.margin) / hyper.margin, 0.0) ** 2).sum(axis=0)

    return cost


def _reward_width(form: Form) -> float:
    """Between the bounds of the task's reward on its ranges, by interval arithmetic; 1 if not finite or nothing."""
    task = form.task
    ranges = {signal.name: (signal.lower, signal.upper) for signal in (*task.states, *task.inputs)}
    ((low, high),) = task.reward.interval({name: ranges[name] for name in task.reward.input_names}).values()
    return float(high - low) if math.isfinite(high - low) and high > low else 1.0


def _adam(learning_rate: Any, max_gradient: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(max_gradient), optax.adam(learning_rate, eps=1e-5))


# ---- compilation


@functools.lru_cache(maxsize=16)
def trainer(form: Form, shape: Shape) -> Callable[[SurrogateData, Learner, Hyper], tuple[Learner, Metrics]]:
    """The compiled training loop: pure, as that of `sindyrl.learn.ppo`."""
    play = window(form, shape)
    failure = float(form.task.failure_reward or 0.0)

    def followed(learner: Learner, hyper: Hyper, data: SurrogateData, fresh: Any, episodes: Episodes) -> Any:
        """A step of the policy."""
        flat, unflatten = ravel_pytree(learner.agent.actor)

        def loss(flat: Any) -> Any:
            value, told = play(
                unflatten(flat), data, hyper, functools.partial(_value, learner), learner.observations, episodes, fresh
            )
            return -value, told

        (lost, told), gradient = jax.value_and_grad(loss, has_aux=True)(flat)
        norm = jnp.sqrt((gradient**2).sum())
        usable = jnp.isfinite(norm)
        step = _adam(hyper.learning_rate, hyper.max_gradient)
        change, state = step.update(jnp.where(usable, gradient, 0.0), learner.actor_state, flat)
        kept = jax.tree.map(lambda new, old: jnp.where(usable, new, old), state, learner.actor_state)
        return unflatten(flat + jnp.where(usable, change, 0.0)), kept, lost, norm, told

    def appraised(learner: Learner, hyper: Hyper, rows: Window) -> Any:
        """A critic that has seen the window: network, Adam's state, moments of the targets, loss."""
        now, following = _value(learner, rows.seen), _value(learner, rows.after)
        if form.leaving == "penalty":
            following = jnp.where(rows.left, failure / (1.0 - hyper.discount), following)
        following = jnp.where(rows.over, 0.0, following)
        advantage = ppo.advantages(rows.reward, now, following, rows.ended, hyper.discount, hyper.trace)
        target = (advantage + now).reshape(-1)
        scale = learner.returns.add(target, memory=_MEMORY * target.size)
        error = ((target - now.reshape(-1)) ** 2).mean()
        scale = dataclasses.replace(scale, var=jnp.maximum(scale.var, error))
        flat, unflatten = ravel_pytree(ppo.rescaled(learner.agent.critic, learner.returns, scale))
        seen = standardized(learner.observations, rows.seen).reshape(-1, rows.seen.shape[-1])
        goal, step = (target - scale.mean) / scale.std, _adam(hyper.critic_rate, hyper.max_gradient)

        def descend(carry: Any, _: Any) -> Any:
            flat, state = carry
            loss, gradient = jax.value_and_grad(lambda flat: 0.5 * ((unflatten(flat)(seen)[:, 0] - goal) ** 2).mean())(
                flat
            )
            change, state = step.update(gradient, state, flat)
            return (flat + change, state), loss

        (flat, state), losses = jax.lax.scan(descend, (flat, learner.critic_state), length=shape.epochs)
        return unflatten(flat), state, scale, losses.mean()

    def update(data: SurrogateData, hyper: Hyper, learner: Learner) -> tuple[Learner, Metrics]:
        key, draw = jax.random.split(learner.key)
        bits = jax.random.bits(draw, (shape.length if shape.bootstrap else 1, shape.environments))
        starts = jnp.moveaxis(data.starts[bits % len(data.starts)], -1, 1)
        members = (bits >> 16).astype(jnp.int32) % len(data.coef)
        episodes = learner.episodes
        fresh: Any = (starts, members)
        if not shape.bootstrap:
            nothing = jnp.zeros(shape.environments, bool)
            episodes, fresh = Episodes(starts[0], nothing.astype(jnp.int32), members[0], nothing, nothing), None
        actor, actor_state, lost, norm, (rows, final) = followed(learner, hyper, data, fresh, episodes)
        made = dataclasses.replace(learner.agent, actor=actor)
        critic_state, returns, value_loss = learner.critic_state, learner.returns, jnp.zeros_like(lost)
        if shape.bootstrap:
            critic, critic_state, returns, value_loss = appraised(learner, hyper, rows)
            made = dataclasses.replace(made, critic=critic)
        observations = learner.observations.add(rows.seen.reshape(-1, rows.seen.shape[-1]))
        metrics = Metrics(rows.reward.mean(), rows.left.mean(), lost, value_loss, norm)
        return Learner(made, actor_state, critic_state, observations, returns, final, key), metrics

    def run(data: SurrogateData, learner: Learner, hyper: Hyper) -> tuple[Learner, Metrics]:
        return jax.lax.scan(lambda learner, _: update(data, hyper, learner), learner, length=shape.updates)

    return jax.jit(run)


def _value(learner: Learner, x: Any) -> Any:
    """What the critic expects of states (..., state)."""
    raw = learner.agent.critic(standardized(learner.observations, x.reshape(-1, x.shape[-1])))
    return raw.reshape(x.shape[:-1]) * learner.returns.std + learner.returns.mean


_SILENT = -20.0  # logarithm of the exploration's deviation: none
_MEMORY = 10.0  # updates whose targets set the scale of the critic
