r"""Meta-policy optimization over an ensemble of models: a policy from which one gradient step suits any of them.

For each of K models, all of them in every iteration: episodes D_k are drawn with the policy theta in model k, and

    theta_k = theta - a grad L(theta; D_k),    L = -E[ pi_theta(u|x) / pi_old(u|x) A ]

is the policy adapted to it; episodes D'_k are drawn with theta_k in model k. Then theta descends, through the step of
adaptation (second derivatives included),

    M(theta) = mean_k ( -E[ min(rho A', clip(rho, 1 - c, 1 + c) A') ] + b KL(pi_old,k | pi_theta_k) ),
    rho = pi_theta_k(theta)(u|x) / pi_old,k(u|x)

by several steps of Adam, where pi_old,k is theta_k as it drew D'_k. Advantages are lambda-returns on a linear baseline
of the state, its squares and time, fitted to each model's episodes. Episodes run for ``length`` steps from the
surrogate's initial states; after leaving they earn the failure reward and nothing is learned from them.

Source: Clavera et al., Model-Based Reinforcement Learning via Meta-Policy Optimization, arXiv 1809.05214; the baseline
of Zolman et al., arXiv 2403.09110, whose numbers are `MBMPOSettings()`. There one roll-out worker saw one model only;
here all K are seen. What differs: `sindyrl.learn.dyna` collects real data with theta, not with the adapted theta_k; the
exploration is one log-deviation per input; the networks of `MODEL` have no weight normalization.
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

from sindyrl.envs.surrogate import Form, Surrogate, SurrogateData, Transition, by_member, transition
from sindyrl.learn import ppo
from sindyrl.learn.network import Agent, Moments, NeuralPolicy, Squash, agent, moments, standardized, to_inputs
from sindyrl.learn.neural_model import NeuralSettings
from sindyrl.number_check import check_fields, check_number, checked_numbers, not_negative, whole

MODEL = NeuralSettings(
    members=5, hidden=(512, 512), activation="relu", share=1.0, epochs=500, patience=5, standardize=True
)
"""The published dynamics: five wide networks of the normalized increment; with ``OnCircles(Increment(), ...)``."""


class Shape(NamedTuple):
    """What is compiled in."""

    models: int
    environments: int
    length: int
    outer_steps: int
    updates: int
    hidden: tuple[int, ...]
    squash: Squash


class Hyper(NamedTuple):
    """What is not: numbers that may change at any time."""

    learning_rate: Any
    inner_rate: Any
    clip: Any
    divergence: Any
    discount: Any
    trace: Any
    max_gradient: Any


@dataclasses.dataclass(frozen=True)
class MBMPOSettings:
    """Sizes, which are compiled in, and numbers, which are not.

    models : members of the ensemble; the surrogate must have as many and be in the mode "member"
    environments, length : episodes in each model, before adaptation and after it, and their steps
    outer_steps : steps of Adam on the same episodes
    updates : in one call of `train`, each with new episodes
    hidden : units of the tanh layers of the policy
    squash, log_std : as of `sindyrl.learn.ppo.PPOSettings`
    learning_rate, inner_rate : of Adam, and a, the step of adaptation
    clip, divergence : c and b
    discount, trace : gamma and lambda
    max_gradient : norm at which the outer gradient is cut
    """

    models: int = 5
    environments: int = 20
    length: int = 200
    outer_steps: int = 8
    updates: int = 10
    hidden: tuple[int, ...] = (32, 32)
    squash: Squash = "clip"
    log_std: float = 0.0
    learning_rate: float = 3e-4
    inner_rate: float = 1e-3
    clip: float = 0.5
    divergence: float = 5e-4
    discount: float = 0.99
    trace: float = 1.0
    max_gradient: float = math.inf

    def __post_init__(self) -> None:
        check_fields(self, "models environments length outer_steps updates", "a positive integer", whole(1))
        hidden = checked_numbers("MBMPOSettings(hidden=...)", self.hidden, "at least one positive integer", whole(1))
        object.__setattr__(self, "hidden", hidden)
        if self.squash not in get_args(Squash):
            raise ValueError(f"`MBMPOSettings(squash=...)` must be one of {get_args(Squash)}. Got {self.squash!r}.")
        check_fields(self, "discount trace", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        wanted = "a finite number, not negative"
        check_fields(self, "learning_rate inner_rate clip divergence", wanted, not_negative)
        check_fields(self, "log_std", "a finite number", math.isfinite)
        check_fields(self, "max_gradient", "a positive number", lambda value: value > 0)

    def shape(self, horizon: int) -> Shape:
        """What is compiled in for episodes of so many steps at most."""
        parts = {name: getattr(self, name) for name in Shape._fields}
        return Shape(**parts | {"length": min(self.length, horizon)})

    @property
    def hyper(self) -> Hyper:
        return Hyper(*(np.float32(getattr(self, name)) for name in Hyper._fields))


class Learner(eqx.Module):
    """All that training changes; the agent's critic is not used."""

    agent: Agent
    optimizer: Any
    observations: Moments
    key: Any


class Metrics(NamedTuple):
    """Of each update, (updates,): mean reward before and after adaptation, share outside, loss, divergence."""

    reward: Any
    adapted_reward: Any
    left: Any
    policy_loss: Any
    divergence: Any


class Batch(NamedTuple):
    """Steps to learn from, (model, row, ...).

    seen, pre, old : standardized states, what the Gaussian drew there, and the logarithm of its density
    advantage, weight : weight 0 for steps that are none, after an episode has left or is over
    mean, log_std : of the Gaussian that drew; log_std is (model, input)
    """

    seen: Any
    pre: Any
    old: Any
    advantage: Any
    weight: Any
    mean: Any
    log_std: Any


# ---- what a user calls


@dataclasses.dataclass(frozen=True)
class MBMPO:
    """A `sindyrl.learn.learner.PolicyLearner`, to be used with an ensemble in the mode "member"."""

    settings: MBMPOSettings = MBMPOSettings()

    @property
    def steps(self) -> int:
        """Steps of a call in the surrogate, if the task's horizon is no shorter than an episode here."""
        s = self.settings
        return 2 * s.models * s.environments * s.length * s.updates

    def start(self, surrogate: Surrogate, seed: int) -> Learner:
        return start(surrogate, self.settings, seed)

    def train(self, surrogate: Surrogate, state: Any, slowed: float = 1.0) -> tuple[Learner, dict[str, float]]:
        settings = self.settings
        if slowed != 1.0:
            settings = dataclasses.replace(settings, learning_rate=settings.learning_rate * slowed)
        state, metrics = train(surrogate, state, settings)
        return state, {name: float(np.mean(values)) for name, values in metrics._asdict().items()}

    def judge(self, surrogate: Surrogate, state: Any, episodes: int = 16) -> np.ndarray:
        return ppo.judge(surrogate, state, self.settings, episodes)  # type: ignore[arg-type]  # reads what both have

    def exploring(self, state: Any, log_std: float) -> Learner:
        return ppo.exploring(state, log_std)  # type: ignore[return-value]  # replaces what both have

    def policy(self, surrogate: Surrogate, state: Any) -> NeuralPolicy:
        return ppo.policy(surrogate, state, self.settings)  # type: ignore[arg-type]  # reads what both have

    def describe(self) -> dict[str, Any]:
        return {"algorithm": "mb_mpo", **dataclasses.asdict(self.settings)}


def start(surrogate: Surrogate, settings: MBMPOSettings, seed: int = 0) -> Learner:
    """A new learner."""
    seed = check_number("start(seed=...)", seed, "a non-negative integer", whole(0))
    rng, task = np.random.default_rng(seed), surrogate.task
    made = agent(rng, len(task.states), len(task.inputs), settings.hidden, settings.log_std)
    flat = _parameters(made)[0]
    form = jax.eval_shape(_adam(settings.hyper).init, flat)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), form)
    key = jax.random.key(int(rng.integers(2**31)))
    return jax.device_put(Learner(made, empty, moments((len(task.states),)), key))


def train(surrogate: Surrogate, learner: Learner, settings: MBMPOSettings) -> tuple[Learner, Metrics]:
    """``settings.updates`` updates in all models. Compiled once for each form of surrogate and sizes.

    Raises ValueError if the surrogate does not play one member in each episode, or has another number of them.
    """
    count = len(surrogate.data.coef)
    if surrogate.mode != "member" or count != settings.models:
        raise ValueError(
            f"`Surrogate(mode=...)` must be 'member', with {settings.models} members as `MBMPOSettings(models=...)`. "
            f"Got {surrogate.mode!r} and {count}."
        )
    shape = settings.shape(surrogate.task.horizon)
    learner, metrics = trainer(surrogate.form, shape)(surrogate.data, learner, settings.hyper)
    return learner, Metrics(*(np.asarray(value) for value in metrics))


# ---- the parts of the algorithm, each a plain function of arrays


Gaussian = Callable[[Any, Any], tuple[Any, Any]]
"""``gaussian(theta, seen)``: mean (row, input) and log-deviation (input,) of the policy with these parameters."""


def inner_loss(gaussian: Gaussian, theta: Any, part: Batch) -> Any:
    """L of the text of this module, for one model's rows."""
    ratio = jnp.exp(ppo.log_density(part.pre, *gaussian(theta, part.seen)) - part.old)
    return -_mean(part.weight, ratio * part.advantage)


def adapted(gaussian: Gaussian, theta: Any, part: Batch, rate: Any) -> Any:
    """``theta - a grad L(theta)``."""
    return theta - rate * jax.grad(lambda theta: inner_loss(gaussian, theta, part))(theta)


def outer_loss(gaussian: Gaussian, theta: Any, before: Batch, after: Batch, hyper: Hyper) -> tuple[Any, Any]:
    """M of the text of this module, and the mean divergence; batches with the models' axis first."""

    def one(before: Batch, after: Batch) -> tuple[Any, Any]:
        mean, log_std = gaussian(adapted(gaussian, theta, before, hyper.inner_rate), after.seen)
        ratio = jnp.exp(ppo.log_density(after.pre, mean, log_std) - after.old)
        cut = jnp.clip(ratio, 1.0 - hyper.clip, 1.0 + hyper.clip)
        gain = _mean(after.weight, jnp.minimum(ratio * after.advantage, cut * after.advantage))
        apart = _mean(after.weight, divergence(after.mean, after.log_std, mean, log_std))
        return -gain + hyper.divergence * apart, apart

    losses, apart = jax.vmap(one)(before, after)
    return losses.mean(), apart.mean()


def divergence(mean: Any, log_std: Any, other_mean: Any, other_log_std: Any) -> Any:
    """``KL(p | q)`` of two Gaussians with independent inputs, p the first: (row,)."""
    spread = jnp.exp(2.0 * (log_std - other_log_std))
    apart = ((mean - other_mean) * jnp.exp(-other_log_std)) ** 2
    return (other_log_std - log_std + 0.5 * (spread + apart - 1.0)).sum(axis=-1)


def baseline(x: Any, target: Any, weight: Any) -> Any:
    """Weighted least squares of targets (time, batch) on 1, x, x^2, t, t^2, t^3; x (time, batch, state).

    Source: Duan et al., Benchmarking Deep Reinforcement Learning for Continuous Control, arXiv 1604.06778.
    """
    steps = len(x)
    t = jnp.broadcast_to((jnp.arange(steps) / steps)[:, None, None], (*x.shape[:2], 1)).astype(x.dtype)
    theta = jnp.concatenate([jnp.ones_like(t), x, x**2, t, t**2, t**3], axis=-1).reshape(target.size, -1)
    rows = theta * weight.reshape(-1, 1)
    gram = rows.T @ theta + 1e-4 * jnp.eye(theta.shape[1], dtype=x.dtype) * jnp.maximum(weight.sum(), 1.0)
    return (theta @ jnp.linalg.solve(gram, rows.T @ target.reshape(-1))).reshape(target.shape)


def _mean(weight: Any, values: Any) -> Any:
    return (weight * values).sum() / jnp.maximum(weight.sum(), 1.0)


def _parameters(made: Agent) -> tuple[Any, Callable[[Any], Any]]:
    """What is learned, as one vector: the actor and the exploration."""
    return ravel_pytree((made.actor, made.log_std))


def _adam(hyper: Hyper) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(hyper.max_gradient), optax.adam(hyper.learning_rate))


# ---- compilation


@functools.lru_cache(maxsize=16)
def trainer(form: Form, shape: Shape) -> Callable[[SurrogateData, Learner, Hyper], tuple[Learner, Metrics]]:
    """The compiled training loop: pure, as that of `sindyrl.learn.ppo`."""
    step, task = transition(form), form.task
    low, high = jnp.asarray(task.action_low, jnp.float32), jnp.asarray(task.action_high, jnp.float32)
    failure = float(task.failure_reward or 0.0)
    batch = shape.models * shape.environments
    first_member = jnp.zeros(shape.environments, jnp.int32)
    # Each model's episodes apart from the others', so that no model is asked about episodes that are not its own.
    step_in_each = jax.vmap(
        lambda data, x, u: step(data, first_member, x, u), in_axes=(0, 1, 1), out_axes=Transition(1, 0, 0, 0)
    )

    def stepped(each: SurrogateData, x: Any, u: Any) -> Transition:
        """x, u and what comes out (..., model x environment)."""
        apart = (part.reshape(len(part), shape.models, shape.environments) for part in (x, u))
        made = step_in_each(each, *apart)
        return Transition(made.x.reshape(x.shape), *(part.reshape(batch) for part in made[1:]))

    def by_model(rows: Any) -> Any:
        """(time, model x environment, ...) -> (model, time, environment, ...)."""
        apart = rows.reshape(len(rows), shape.models, shape.environments, *rows.shape[2:])
        return jnp.moveaxis(apart, 1, 0)

    def episodes(data: SurrogateData, seen: Moments, act: Any, key: Any) -> Any:
        """One batch in all models, ``act(x) -> mean, log_std`` for x (model, environment, state)."""
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, (shape.length, batch, len(task.inputs)), jnp.float32)
        start = data.starts[jax.random.bits(second, (batch,)) % len(data.starts)].T
        each = by_member(data)

        def one(carry: Any, noise: Any) -> Any:
            x, left, over = carry
            rows = standardized(seen, x.T)
            mean, log_std = act(rows.reshape(shape.models, shape.environments, -1))
            mean = mean.reshape(batch, -1)
            pre = mean + jnp.exp(jnp.repeat(log_std, shape.environments, axis=0)) * noise
            after, reward, gone, done = stepped(each, x, to_inputs(pre, low, high, shape.squash).T)
            reward = jnp.where(over, 0.0, jnp.where(left, failure, reward))
            counts = ~(left | over)
            now = (jnp.where(counts, after, x), left | (gone & counts), over | (done & counts))
            return now, (x.T, rows, pre, mean, reward, counts, now[1])

        nobody = jnp.zeros(batch, bool)
        _, told = jax.lax.scan(one, (start, nobody, nobody), noise)
        return told

    def prepared(told: Any, log_std: Any, hyper: Hyper) -> Batch:
        _, rows, pre, mean, reward, counts, _ = (by_model(part) for part in told)
        weight = counts.astype(reward.dtype)

        def one(rows: Any, pre: Any, mean: Any, reward: Any, weight: Any, log_std: Any) -> Batch:
            nothing = jnp.zeros_like(reward)
            never = jnp.zeros(reward.shape, bool)
            togo = ppo.advantages(reward, nothing, nothing, never, hyper.discount, 1.0)
            expected = baseline(rows, togo, jnp.ones_like(weight))
            following = jnp.concatenate([expected[1:], jnp.zeros_like(expected[:1])])
            advantage = ppo.advantages(reward, expected, following, never, hyper.discount, hyper.trace)
            middle = _mean(weight, advantage)
            spread = jnp.sqrt(_mean(weight, (advantage - middle) ** 2))
            flat = [part.reshape(-1, part.shape[-1]) for part in (rows, pre, mean)]
            old = ppo.log_density(flat[1], flat[2], log_std)
            standard = ((advantage - middle) / (spread + 1e-8)).reshape(-1)
            return Batch(flat[0], flat[1], old, standard, weight.reshape(-1), flat[2], log_std)

        return jax.vmap(one)(rows, pre, mean, reward, weight, log_std)

    def update(data: SurrogateData, hyper: Hyper, learner: Learner) -> tuple[Learner, Metrics]:
        theta, unflatten = _parameters(learner.agent)

        def gaussian(theta: Any, seen: Any) -> tuple[Any, Any]:
            actor, log_std = unflatten(theta)
            return actor(seen), log_std

        everyone = jax.vmap(gaussian)
        key, first, second = jax.random.split(learner.key, 3)
        same = jnp.broadcast_to(theta, (shape.models, len(theta)))
        before = episodes(data, learner.observations, lambda seen: everyone(same, seen), first)
        batch_before = prepared(before, jax.vmap(lambda theta: unflatten(theta)[1])(same), hyper)
        each = jax.vmap(lambda part: adapted(gaussian, theta, part, hyper.inner_rate))(batch_before)
        after = episodes(data, learner.observations, lambda seen: everyone(each, seen), second)
        batch_after = prepared(after, jax.vmap(lambda theta: unflatten(theta)[1])(each), hyper)
        step_of = _adam(hyper)

        def descend(carry: Any, _: Any) -> Any:
            theta, state = carry
            (loss, apart), gradient = jax.value_and_grad(
                lambda theta: outer_loss(gaussian, theta, batch_before, batch_after, hyper), has_aux=True
            )(theta)
            change, state = step_of.update(gradient, state, theta)
            return (theta + change, state), (loss, apart)

        (theta, state), (loss, apart) = jax.lax.scan(descend, (theta, learner.optimizer), length=shape.outer_steps)
        actor, log_std = unflatten(theta)
        made = dataclasses.replace(learner.agent, actor=actor, log_std=log_std)
        observations = learner.observations.add(before[0].reshape(-1, before[0].shape[-1]))
        metrics = Metrics(before[4].mean(), after[4].mean(), after[6].mean(), loss.mean(), apart.mean())
        return Learner(made, state, observations, key), metrics

    def run(data: SurrogateData, learner: Learner, hyper: Hyper) -> tuple[Learner, Metrics]:
        return jax.lax.scan(lambda learner, _: update(data, hyper, learner), learner, length=shape.updates)

    return jax.jit(run)
