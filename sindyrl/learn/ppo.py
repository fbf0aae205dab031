r"""Proximal policy optimization inside a surrogate, compiled as a whole.

One update draws ``length`` steps in each of ``environments`` copies of the surrogate, estimates advantages, descends

    L = -E[min(rho A, clip(rho, 1 - c, 1 + c) A)] + w_V E[(V - G)^2] / 2 - w_H H,    rho = pi(a|x) / pi_old(a|x)

in minibatches. Advantages come from generalized advantage estimation with the value of the state that really followed:
an episode that the time limit cut off goes on in its value, one that left the surrogate's ranges does as the surrogate
says. The critic learns standardized returns, and is rescaled with their moments so that its predictions stay; its loss
is neither clipped nor clamped. Observations are standardized by their running moments, kept as they were during an
update. Learning rate, clip and the other numbers are arguments of what is compiled, and so are the model's
coefficients: neither a new value nor a refit compiles anything. Everything is a pure function of arrays, so that a
population is one ``vmap``.

References: Schulman et al., arXiv 1707.06347 and 1506.02438; Pardo et al., Time Limits in Reinforcement Learning, arXiv
1712.00378; van Hasselt et al., Learning values across many orders of magnitude, arXiv 1602.07714.
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
from sindyrl.learn.network import (
    Agent,
    Moments,
    NeuralPolicy,
    Squash,
    agent,
    moments,
    neural_policy,
    standardized,
    to_inputs,
)
from sindyrl.number_check import check_fields, check_number, checked_numbers, not_negative, whole


class Shape(NamedTuple):
    """What is compiled in."""

    environments: int
    length: int
    epochs: int
    minibatches: int
    updates: int
    hidden: tuple[int, ...]
    squash: Squash


class Hyper(NamedTuple):
    """What is not: numbers that may change at any time."""

    learning_rate: Any
    clip: Any
    entropy: Any
    discount: Any
    trace: Any
    value_weight: Any
    max_gradient: Any


@dataclasses.dataclass(frozen=True)
class PPOSettings:
    """Sizes, which are compiled in, and numbers, which are not.

    By default an update goes through its steps once: in a surrogate a new step costs less than descending on an old one
    again. Where steps are dear, as in an ensemble of large networks, set ``epochs`` to 10 or more.

    environments, length : an update learns from environments x length steps
    epochs, minibatches : how often and in how many parts it goes through them; the parts must come out even
    updates : in one call of `train`
    hidden : units of the tanh layers of actor and of critic
    squash : how the Gaussian is brought within the inputs' limits
    log_std : of the exploration at the beginning, in units of half the inputs' range
    learning_rate, clip, entropy : step length of Adam, range of the ratio, weight of the entropy
    discount, trace : gamma and lambda
    value_weight, max_gradient : of the critic's loss, and the norm at which gradients are cut
    """

    environments: int = 16
    length: int = 512
    epochs: int = 1
    minibatches: int = 32
    updates: int = 10
    hidden: tuple[int, ...] = (64, 64)
    squash: Squash = "clip"
    log_std: float = 0.0
    learning_rate: float = 1e-3
    clip: float = 0.2
    entropy: float = 0.0
    discount: float = 0.99
    trace: float = 0.95
    value_weight: float = 0.5
    max_gradient: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "environments length epochs minibatches updates", "a positive integer", whole(1))
        if self.batch % self.minibatches:
            raise ValueError(
                "`PPOSettings(minibatches=...)` must divide environments x length evenly. "
                f"Got {self.minibatches} for {self.batch}."
            )
        hidden = checked_numbers("PPOSettings(hidden=...)", self.hidden, "at least one positive integer", whole(1))
        object.__setattr__(self, "hidden", hidden)
        if self.squash not in get_args(Squash):
            raise ValueError(f"`PPOSettings(squash=...)` must be one of {get_args(Squash)}. Got {self.squash!r}.")
        check_fields(self, "discount", "a number in [0, 1)", lambda value: 0 <= value < 1)
        check_fields(self, "trace", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        check_fields(self, "learning_rate clip value_weight", "a finite number, not negative", not_negative)
        check_fields(self, "log_std entropy", "a finite number", math.isfinite)
        check_fields(self, "max_gradient", "a positive number", lambda value: value > 0)

    @property
    def batch(self) -> int:
        """Steps of an update."""
        return self.environments * self.length

    @property
    def shape(self) -> Shape:
        return Shape(*(getattr(self, name) for name in Shape._fields))

    @property
    def hyper(self) -> Hyper:
        # Arrays of one type, so that no call differs from another by the kind of number it was given.
        return Hyper(*(np.float32(getattr(self, name)) for name in Hyper._fields))


class Episodes(NamedTuple):
    """Where each copy of the surrogate is: x (state, batch), steps taken (batch,), ensemble member (batch,)."""

    x: Any
    steps: Any
    member: Any


class Learner(eqx.Module):
    """All that training changes; a value that is handed in and out.

    observations : moments of the states met    returns : moments of the critic's targets
    """

    agent: Agent
    optimizer: Any
    observations: Moments
    returns: Moments
    episodes: Episodes
    key: Any


class Metrics(NamedTuple):
    """Of each update, (updates,): mean reward, shares of the steps that left, losses, entropy, share clipped."""

    reward: Any
    left: Any
    policy_loss: Any
    value_loss: Any
    entropy: Any
    clipped: Any


# ---- the parts of the algorithm, each a plain function of arrays


def advantages(reward: Any, value: Any, following: Any, ended: Any, discount: Any, trace: Any) -> Any:
    """Generalized advantage estimates, all arrays (time, ...).

    ``A_t = d_t + gamma lambda (1 - ended_t) A_{t+1}``, ``d_t = r_t + gamma V'_t - V_t``

    following : ``V'_t``, what the state after step t is worth **before** a new episode begins: its value, also where
        a time limit ended the episode; zero where the system itself did
    ended : whether what comes next in the arrays belongs to another episode, for whatever reason
    """
    surprise = reward + discount * following - value

    def back(later: Any, row: Any) -> Any:
        surprise, ended = row
        now = surprise + discount * trace * jnp.where(ended, 0.0, later)
        return now, now

    _, found = jax.lax.scan(back, jnp.zeros_like(surprise[0]), (surprise, ended), reverse=True)
    return found


def policy_loss(ratio: Any, advantage: Any, clip: Any) -> Any:
    """``-E[min(rho A, clip(rho, 1 - c, 1 + c) A)]``."""
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage).mean()


def log_density(pre: Any, mean: Any, log_std: Any) -> Any:
    """Logarithm of the Gaussian's density at what it drew, summed over inputs (before limiting: no Jacobian needed)."""
    z = (pre - mean) * jnp.exp(-log_std)
    return -0.5 * (z * z + math.log(2.0 * math.pi)).sum(axis=-1) - log_std.sum()


def rescaled(critic: Any, before: Moments, after: Moments) -> Any:
    """The critic whose prediction, in the new moments, is the old prediction in the old ones."""
    weight = critic.weights[-1] * (before.std / after.std)
    bias = (before.std * critic.biases[-1] + before.mean - after.mean) / after.std
    return dataclasses.replace(critic, weights=(*critic.weights[:-1], weight), biases=(*critic.biases[:-1], bias))


def shuffled(bits: Any) -> Any:
    """The order (n,) that sorts these random numbers, uint32 (n,): ``argsort``, ties included, in a third of the time.

    XLA sorts numbers much faster than pairs of numbers. So number and place are one word, and it sorts twice: by the
    lower bits of the numbers, then by as many upper ones as there is room for beside the place (radix sort).
    """
    count = bits.size
    of_place = (count - 1).bit_length()
    if of_place > 16:  # two words are not enough
        return jnp.argsort(bits)
    place = jnp.arange(count, dtype=jnp.uint32)

    def by(key: Any) -> Any:
        """Order of keys by what the shift leaves of them."""
        return jnp.sort((key << of_place) | place) & jnp.uint32((1 << of_place) - 1)

    first = by(bits)
    return first[by(bits[first] >> (32 - of_place))]


def optimizer(hyper: Hyper) -> optax.GradientTransformation:
    """Adam with the gradient's norm limited; its state has the same structure whatever the numbers."""
    return optax.chain(optax.clip_by_global_norm(hyper.max_gradient), optax.adam(hyper.learning_rate, eps=1e-5))


# ---- what a user calls


def start(surrogate: Surrogate, settings: PPOSettings, seed: int = 0) -> Learner:
    """A new learner."""
    seed = check_number("start(seed=...)", seed, "a non-negative integer", whole(0))
    # By NumPy: a dozen small arrays would each be compiled.
    rng, task, count = np.random.default_rng(seed), surrogate.task, settings.environments
    made = agent(rng, len(task.states), len(task.inputs), settings.hidden, settings.log_std)
    # Adam's first state is zeros, of a structure that does not depend on the numbers.
    form = jax.eval_shape(lambda made: optimizer(settings.hyper).init(ravel_pytree(made)[0]), made)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), form)
    episodes = Episodes(
        surrogate.data.starts[rng.integers(len(surrogate.starts), size=count)].T,
        # Otherwise all copies would reach the time limit together.
        rng.integers(task.horizon, size=count).astype(np.int32),
        rng.integers(len(surrogate.data.coef), size=count).astype(np.int32),
    )
    key = jax.random.key(int(rng.integers(2**31)))
    # On the device, as what training hands back: otherwise the second call would look different from the first.
    return jax.device_put(Learner(made, empty, moments((len(task.states),)), moments(()), episodes, key))


def train(surrogate: Surrogate, learner: Learner, settings: PPOSettings) -> tuple[Learner, Metrics]:
    """``settings.updates`` updates in the surrogate. Compiled once for each form of surrogate and sizes."""
    learner, metrics = trainer(surrogate.form, settings.shape)(surrogate.data, learner, settings.hyper)
    return learner, Metrics(*(np.asarray(value) for value in metrics))


def judge(surrogate: Surrogate, learner: Learner, settings: PPOSettings, episodes: int = 16) -> np.ndarray:
    """Undiscounted returns (episodes,) of whole episodes in the surrogate, without exploration.

    Episode i begins at the i-th initial state, in the i-th member. Steps after leaving earn the failure reward. NaN for
    a policy that has lost its numbers.
    """
    returns = judging(surrogate.form, episodes, settings.squash)(surrogate.data, learner.agent, learner.observations)
    return np.asarray(returns, dtype=np.float64)


def exploring(learner: Learner, log_std: float) -> Learner:
    """The learner with exploration of at least this logarithm of the standard deviation."""
    raised = jnp.maximum(learner.agent.log_std, jnp.float32(log_std))
    return dataclasses.replace(learner, agent=dataclasses.replace(learner.agent, log_std=raised))


def policy(surrogate: Surrogate, learner: Learner, settings: PPOSettings) -> NeuralPolicy:
    """The policy as it is now."""
    return neural_policy(surrogate.task, learner.agent, learner.observations, settings.squash)


# ---- compilation


class Steps(NamedTuple):
    """What was played, arrays (time, batch, ...), which need not come from a surrogate.

    seen : states before the steps    pre, mean : what the Gaussian drew and its mean    reward : of the steps
    after : states that followed, before a new episode began    left, over : as in `Transition`
    ended : whether a new episode begins with the next row
    """

    seen: Any
    pre: Any
    mean: Any
    reward: Any
    after: Any
    left: Any
    over: Any
    ended: Any


class _Outcome(NamedTuple):
    """Of a step of all copies, before any episode begins anew: as in `Episodes` and `Transition`."""

    x: Any
    steps: Any
    member: Any
    reward: Any
    left: Any
    over: Any


@functools.lru_cache(maxsize=16)
def trainer(form: Form, shape: Shape) -> Callable[[SurrogateData, Learner, Hyper], tuple[Learner, Metrics]]:
    """The compiled training loop: pure, so ``jax.vmap`` makes a population of it."""
    collect, improve = collector(form, shape), improver(form, shape)

    def update(data: SurrogateData, hyper: Hyper, learner: Learner) -> tuple[Learner, Metrics]:
        key, draw, shuffle = jax.random.split(learner.key, 3)
        episodes, steps = collect(data, learner, draw)
        better, metrics = improve(hyper, learner, steps, shuffle)
        return dataclasses.replace(better, episodes=episodes, key=key), metrics

    def run(data: SurrogateData, learner: Learner, hyper: Hyper) -> tuple[Learner, Metrics]:
        return jax.lax.scan(lambda learner, _: update(data, hyper, learner), learner, length=shape.updates)

    return jax.jit(run)


def drawn(form: Form, shape: Shape, data: SurrogateData, key: Any) -> tuple[Any, Any, Any]:
    """All that is random in a collection, (time, batch, ...): noise of the inputs, new states, new members.

    Drawn in one go, which is much quicker than a few numbers in each step.
    """
    count = (shape.length, shape.environments)
    first, second = jax.random.split(key)
    noise = jax.random.normal(first, (*count, len(form.task.inputs)), jnp.float32)
    bits = jax.random.bits(second, count)
    return noise, data.starts[bits % len(data.starts)], (bits >> 16).astype(jnp.int32) % len(data.coef)


def collector(form: Form, shape: Shape) -> Callable[[SurrogateData, Learner, Any], tuple[Episodes, Steps]]:
    """``collect(data, learner, key)``, to be traced: ``shape.length`` steps of all copies in the surrogate."""
    step = transition(form)
    low, high = _limits(form)
    horizon = form.task.horizon

    def begun(last: _Outcome, fresh: Any, member: Any) -> tuple[Any, Episodes]:
        """Which episodes are over after this step, and what goes on: the others, and new ones in their place."""
        ended = last.left | last.over | (last.steps >= horizon)
        x, steps = jnp.where(ended, fresh.T, last.x), jnp.where(ended, 0, last.steps)
        return ended, Episodes(x, steps, jnp.where(ended, member, last.member))

    def collect(data: SurrogateData, learner: Learner, key: Any) -> tuple[Episodes, Steps]:
        def one(last: _Outcome, row: Any) -> tuple[_Outcome, Any]:
            noise, fresh, member = row
            ended, episodes = begun(last, fresh, member)
            seen = episodes.x.T
            mean = learner.agent.actor(standardized(learner.observations, seen))
            pre = mean + jnp.exp(learner.agent.log_std) * noise
            x, reward, left, over = step(data, episodes.member, episodes.x, to_inputs(pre, low, high, shape.squash).T)
            now = _Outcome(x, episodes.steps + 1, episodes.member, reward, left, over)
            return now, ((seen, pre, mean), told(last, ended))

        def told(last: _Outcome, ended: Any) -> Any:
            return last.reward, last.x.T, last.left, last.over, ended

        # A step is told of, and its episode replaced, one turn later, when its outcome stands in memory: within its own
        # turn, XLA computes the model anew for each thing that hangs on it, and takes a quarter to half as long again.
        noise, fresh, member = drawn(form, shape, data, key)
        nobody = jnp.zeros_like(learner.episodes.steps, dtype=bool)
        before = _Outcome(*learner.episodes, jnp.zeros_like(noise[0, :, 0]), nobody, nobody)
        turns = noise, jnp.roll(fresh, 1, axis=0), jnp.roll(member, 1, axis=0)
        last, (acted, later) = jax.lax.scan(one, before, turns)
        ended, episodes = begun(last, fresh[-1], member[-1])
        followed = (jnp.concatenate([rows[1:], row[None]]) for rows, row in zip(later, told(last, ended), strict=True))
        return episodes, Steps(*acted, *followed)

    return collect


def improver(form: Form, shape: Shape) -> Callable[[Hyper, Learner, Steps, Any], tuple[Learner, Metrics]]:
    """``improve(hyper, learner, steps, key)``, to be traced: the learner after ``shape.epochs`` over the steps."""
    failure = float(form.task.failure_reward or 0.0)

    def improve(hyper: Hyper, learner: Learner, steps: Steps, key: Any) -> tuple[Learner, Metrics]:
        seen, pre, returns = steps.seen, steps.pre, learner.returns

        def value(x: Any) -> Any:
            raw = learner.agent.critic(standardized(learner.observations, x.reshape(-1, x.shape[-1])))
            return raw.reshape(x.shape[:-1]) * returns.std + returns.mean

        now, following = value(seen), value(steps.after)
        if form.leaving == "penalty":
            following = jnp.where(steps.left, failure / (1.0 - hyper.discount), following)
        following = jnp.where(steps.over, 0.0, following)
        advantage = advantages(steps.reward, now, following, steps.ended, hyper.discount, hyper.trace)
        target = (advantage + now).reshape(-1)
        scale = returns.add(target, memory=_MEMORY * target.size)
        # Never finer than the critic's error: returns that hardly differ would magnify its weights beyond repair.
        error = ((target - now.reshape(-1)) ** 2).mean()
        scale = dataclasses.replace(scale, var=jnp.maximum(scale.var, error))
        critic = rescaled(learner.agent.critic, returns, scale)
        made = dataclasses.replace(learner.agent, critic=critic)

        rows = {
            "seen": standardized(learner.observations, seen).reshape(-1, seen.shape[-1]),
            "pre": pre.reshape(-1, pre.shape[-1]),
            "old": log_density(pre, steps.mean, learner.agent.log_std).reshape(-1),
            "advantage": ((advantage - advantage.mean()) / (advantage.std() + 1e-8)).reshape(-1),
            "target": (target - scale.mean) / scale.std,
        }
        step_of = optimizer(hyper)
        # As one vector, which Adam updates in one go.
        flat, unflatten = ravel_pytree(made)

        def loss(made: Agent, part: Any) -> Any:
            mean = made.actor(part["seen"])
            ratio = jnp.exp(log_density(part["pre"], mean, made.log_std) - part["old"])
            of_policy = policy_loss(ratio, part["advantage"], hyper.clip)
            of_value = 0.5 * ((made.critic(part["seen"])[:, 0] - part["target"]) ** 2).mean()
            entropy = (made.log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum()
            clipped = (jnp.abs(ratio - 1.0) > hyper.clip).mean()
            total = of_policy + hyper.value_weight * of_value - hyper.entropy * entropy
            return total, (of_policy, of_value, entropy, clipped)

        def descend(carry: Any, chosen: Any) -> Any:
            flat, state = carry
            part = {name: values[chosen] for name, values in rows.items()}
            gradient, told = jax.grad(lambda flat: loss(unflatten(flat), part), has_aux=True)(flat)
            change, state = step_of.update(gradient, state, flat)
            return (flat + change, state), told

        size = shape.environments * shape.length
        order = jax.vmap(shuffled)(jax.random.bits(key, (shape.epochs, size)))
        parts = order.reshape(shape.epochs * shape.minibatches, size // shape.minibatches)
        (flat, state), told = jax.lax.scan(descend, (flat, learner.optimizer), parts)
        observations = learner.observations.add(seen.reshape(-1, seen.shape[-1]))
        metrics = Metrics(steps.reward.mean(), steps.left.mean(), *(values.mean() for values in told))
        return Learner(unflatten(flat), state, observations, scale, learner.episodes, learner.key), metrics

    return improve


_MEMORY = 10.0  # updates whose targets set the scale of the critic: returns grow while learning


@functools.lru_cache(maxsize=16)
def judging(form: Form, episodes: int, squash: Squash) -> Callable[[SurrogateData, Agent, Moments], Any]:
    """The compiled judgement, (episodes,) returns; pure as well."""
    step = transition(form)
    low, high = _limits(form)
    failure = float(form.task.failure_reward or 0.0)

    @jax.jit
    def returns(data: SurrogateData, made: Agent, seen: Moments) -> Any:
        index = jnp.arange(episodes)
        x = data.starts[index % len(data.starts)].T

        def one(carry: Any, _: Any) -> Any:
            x, alive, done, total = carry
            pre = made.actor(standardized(seen, x.T))
            after, reward, left, over = step(data, index, x, to_inputs(pre, low, high, squash).T)
            alive = alive & (~left | done)
            gain = jnp.where(done, 0.0, jnp.where(alive, reward, failure))
            # The surrogate takes what is no number for leaving, which would pass for a policy that merely fails.
            gain = jnp.where(jnp.isnan(pre).any(axis=-1), jnp.nan, gain)
            return (jnp.where(alive & ~done, after, x), alive, done | (alive & over), total + gain), None

        first = (x, jnp.ones(episodes, bool), jnp.zeros(episodes, bool), jnp.zeros(episodes, x.dtype))
        (_, _, _, total), _ = jax.lax.scan(one, first, length=form.task.horizon)
        return total

    return returns


def _limits(form: Form) -> tuple[Any, Any]:
    return jnp.asarray(form.task.action_low, jnp.float32), jnp.asarray(form.task.action_high, jnp.float32)
