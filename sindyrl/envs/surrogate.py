"""The learned system as an environment: a model, a reward map, the ranges to stay in, and where episodes begin.

For learners it is a pure function of columns, compiled by JAX with the coefficients as arguments, so that a refit over
the same library compiles nothing. For everybody else it is a Gymnasium environment,
`sindyrl.envs.surrogate_env.SurrogateEnv`.

**Leaving the ranges** never pays. The step that leaves earns the task's ``failure_reward``, the smallest that is
possible, and the state stays where it was. What the rest of the episode is worth depends on ``leaving``:

* "penalty": ``failure_reward`` at every step from then on, for ever. No policy is worth less from any state.
* "bootstrap": what the learner thinks the last state inside is worth. That is a wall, which costs a step of the
  smallest reward whenever it is hit; to run into it again and again is worth as little as the penalty.

**Where the members of an ensemble disagree**, nobody knows the way. With ``caution`` c the reward is

    r - c d,    d = sqrt(mean_i (sigma_i / h_i)^2), at most 1

where sigma_i is the sample standard deviation over the members of their next state i, each from the state and input at
hand, and h_i half the width of ``model.seen``, 1 where that is nothing. So d is relative to the motion in the data, and
1 says that one step may end anywhere. A cautious reward is never pushed below ``failure_reward``: to leave still does
not pay. A negative caution is optimism, which explores.

Sources: Yu et al., MOPO, arXiv 2005.13239 (a penalty on the uncertainty); Pathak et al., arXiv 1906.04161 (exploration
by disagreement). The SINDy-RL paper leaves both to future work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.number_check import check_fields, whole
from sindyrl.simulate import limits, scored_step, start
from sindyrl.sparse_map import SparseMap, combine
from sindyrl.structure import NextState, Rates, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.task import Sampler, Task

Mode = Literal["median", "mean", "member"]
Leaving = Literal["penalty", "bootstrap"]


class LearnedModel(Protocol):
    """What a surrogate can be played in besides a `Model`: an ensemble whose rates are anything that JAX can trace."""

    @property
    def states(self) -> tuple[Signal, ...]: ...

    @property
    def inputs(self) -> tuple[Signal, ...]: ...

    @property
    def state_names(self) -> tuple[str, ...]: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def dt(self) -> float: ...

    @property
    def seen(self) -> np.ndarray: ...

    @property
    def structure(self) -> Structure: ...

    @property
    def n_terms(self) -> int: ...

    @property
    def form(self) -> Hashable:
        """What is compiled in besides the structure: models with equal ones share what was compiled."""
        ...

    def coefficients(self) -> np.ndarray:
        """(member, ...): all the numbers that a refit changes, in one array."""
        ...

    def rates(self) -> Callable[[Any, Sequence[Any], Sequence[Any]], list[Any]]:
        """``rates(coef, x, u)``: the structure's targets by one member's coefficients; columns, as traced by JAX."""
        ...


class SurrogateData(NamedTuple):
    """What a refit changes: the arguments of everything compiled. Arrays of one float type.

    coef : (member, target, feature) of the dynamics, one member unless every episode has its own; of a `LearnedModel`
        always all members, (member, ...)
    reward : (member, 1, feature) of the learned reward, or None
    reward_range : (2,) smallest and largest learned reward that is believed
    starts : (start, state) initial states to draw from
    caution, scale : () weight of the disagreement and (state,) its units; None without caution
    ensemble : (member, ...) coefficients of all members; None without caution
    believed : (member,) 1 for members that count in the ensemble, else 0; None where nobody asks
    """

    coef: Any
    reward: Any
    reward_range: Any
    starts: Any
    caution: Any = None
    scale: Any = None
    ensemble: Any = None
    believed: Any = None


class Transition(NamedTuple):
    """One step of a batch: x (state, batch), reward (batch,); left the ranges, ended by ``task.ends`` (batch,)."""

    x: Any
    reward: Any
    left: Any
    over: Any


Step = Callable[[SurrogateData, Any, Any, Any], Transition]
"""``step(data, member, x, u)``; member (batch,), x (state, batch), u (input, batch)."""


def by_member(data: SurrogateData) -> SurrogateData:
    """The data of each member's own surrogate, member first in every array, to be mapped over (mode "member").

    A network costs as much as all of them where a step has to ask each member about each episode; in these it does not.
    """
    import jax
    import jax.numpy as jnp

    coef, reward = jax.tree.map(jnp.asarray, (data.coef, data.reward))  # NumPy takes no index that is traced

    def alone(index: Any) -> SurrogateData:
        own = None if reward is None else reward[index % len(reward)][None]
        return data._replace(coef=coef[index][None], reward=own)

    return jax.vmap(alone)(jnp.arange(len(coef)))


@dataclasses.dataclass(frozen=True, eq=False)
class Surrogate:
    """A task played in a model of it.

    model : dynamics, possibly an ensemble; its structure keeps the states on their manifold. The members of a
        `LearnedModel` are put together by the median or mean of their rates, not of their coefficients
    reward : learned rewards of ``(x_{k+1}, u_k)`` (`sindyrl.reward_model.fit_reward`); None takes the task's own
    mode : "median" or "mean" of the members' coefficients, or one "member" drawn for each episode
    leaving : "penalty" or "bootstrap", see the text of this module
    reset : initial states, by default the task's
    n_starts : how many initial states are drawn, once, from ``seed``; episodes choose among them
    spread : share of them that is drawn instead from the box in which the model was fitted, onto its manifold: where
        random inputs seldom lead, a learner sees what it is worth to be there. They are the last rows of ``starts``.
    reward_range : a learned reward outside of it is clipped to it: a polynomial far from its data promises anything.
        Its lower end is never below ``failure_reward``. By default only that.
    caution : weight of the members' disagreement, see the text of this module. Changing it compiles nothing, except
        that 0 does without the disagreement and so is compiled apart
    members : the members of ``model`` that are believed, by index or as a mask; None believes all. The others enter
        neither the median nor the mean nor the disagreement, and no episode is played in them. Which ones they are
        and how many compiles nothing: in the mode "member" believed ones take their places, again from the first

    Raises ValueError if the parts disagree on names or on the time step.
    """

    task: Task
    model: Model | LearnedModel
    reward: SparseMap | None = None
    mode: Mode = "median"
    leaving: Leaving = "penalty"
    reset: Sampler | None = None
    n_starts: int = 256
    spread: float = 0.0
    seed: int = 0
    reward_range: tuple[float, float] | None = None
    caution: float = 0.0
    members: Sequence[int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        task, model = self.task, self.model
        if model.state_names != task.state_names or model.input_names != task.input_names:
            raise ValueError(
                f"`Surrogate(task=..., model=...)` must agree on names. Got {task.state_names} with "
                f"{task.input_names}, and {model.state_names} with {model.input_names}."
            )
        if abs(model.dt - task.dt) > 1e-6 * task.dt:
            raise ValueError(
                f"`Surrogate(task=..., model=...)` must have one time step. Got {task.dt} s and {model.dt} s."
            )
        for name, allowed in (("mode", get_args(Mode)), ("leaving", get_args(Leaving))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`Surrogate({name}=...)` must be one of {allowed}. Got {getattr(self, name)!r}.")
        check_fields(self, "n_starts", "a positive integer", whole(1))
        check_fields(self, "spread", "in [0, 1)", lambda value: 0 <= value < 1)
        check_fields(self, "caution", "a finite number", math.isfinite)
        if self.reward_range is not None and not self.reward_range[0] < self.reward_range[1]:
            raise ValueError(
                f"`Surrogate(reward_range=...)` must be (smallest, largest), different. Got {self.reward_range}."
            )
        if self.reward is not None:
            names = (*task.state_names, *task.input_names)
            foreign = [name for name in self.reward.library.variables if name not in names]
            if foreign or len(self.reward.targets) != 1:
                raise ValueError(
                    f"`Surrogate(reward=...)` must have one target, a function of {list(names)}. "
                    f"Got targets {list(self.reward.targets)} and also the variables {foreign}."
                )
        count = len(self.believed)
        if self.caution and count < 2:
            raise ValueError(f"`Surrogate(caution=...)` needs at least 2 members that are believed. Got {count}.")

    @cached_property
    def believed(self) -> np.ndarray:
        """Indices of the members that are believed, in ascending order."""
        count = len(_all_members(self.model))
        if self.members is None:
            return np.arange(count)
        given = np.asarray(self.members)
        rule = (
            f"`Surrogate(members=...)` must be a mask of {count} members, or indices below {count}, with one at least"
        )
        if given.ndim != 1 or given.dtype.kind not in "bi" or (given.dtype.kind == "b" and len(given) != count):
            raise ValueError(f"{rule}. Got {self.members!r}.")
        chosen = np.flatnonzero(given) if given.dtype.kind == "b" else np.unique(given)
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= count:
            raise ValueError(f"{rule}. Got {self.members!r}.")
        return chosen

    @cached_property
    def starts(self) -> np.ndarray:
        """(n_starts, n_states) initial states."""
        drawn = (self.reset or self.task.reset)(np.random.default_rng(self.seed), self.n_starts)
        x = np.asarray(drawn, dtype=np.float64)
        if x.shape != (self.n_starts, len(self.task.states)) or not np.isfinite(x).all():
            raise ValueError(
                f"`Surrogate(reset=...)` must draw finite states of shape {(self.n_starts, len(self.task.states))}. "
                f"Got shape {x.shape}."
            )
        apart = round(self.spread * self.n_starts)
        if apart:
            # Never outside of the ranges, where an episode would be over before it began.
            low, high = np.clip(self.model.seen.T, *limits(self.task.states))
            rng = np.random.default_rng([self.seed, 1])
            drawn = rng.uniform(low, high, (apart, len(low)))
            x[len(x) - apart :] = self.model.structure.project(self.task.state_names, drawn)
        return x

    @cached_property
    def data(self) -> SurrogateData:
        """The arguments of what is compiled, in float32."""
        return self.arguments(np.float32)

    def arguments(self, dtype: Any) -> SurrogateData:
        """The arguments of what is compiled, in a float type."""
        learned = None if self.reward is None else self._chosen(self.reward).astype(dtype)
        low, high = (-np.inf, np.inf) if self.reward_range is None else self.reward_range
        limited = np.array([max(low, self.failure_reward), high], dtype=dtype)
        everybody, count = _all_members(self.model).astype(dtype), len(self.believed)
        # Believed members in the places of the others, so that no shape depends on how many there are.
        ensemble = everybody[np.resize(self.believed, len(everybody))]
        coef = ensemble
        if isinstance(self.model, Model) and self.mode != "member":
            rates = self.model.rates
            coef = self._chosen(SparseMap(rates.library, _all_members(self.model)[self.believed], rates.targets))
        data = SurrogateData(coef.astype(dtype), learned, limited, self.starts.astype(dtype))
        if self.form.asks_members:
            data = data._replace(believed=(np.arange(len(everybody)) < count).astype(dtype))
        if not self.caution:
            return data
        half = np.ptp(self.model.seen, axis=1) / 2.0
        scale = np.where(half > 0, half, 1.0).astype(dtype)
        return data._replace(caution=np.asarray(self.caution, dtype), scale=scale, ensemble=ensemble)

    @property
    def failure_reward(self) -> float:
        return float(self.task.failure_reward or 0.0)  # None is resolved when the task is made

    def _chosen(self, rates: SparseMap) -> np.ndarray:
        if self.mode == "member":
            return rates.coef if rates.coef.ndim == 3 else rates.coef[None]
        return (rates.median() if self.mode == "median" else rates.mean()).coef[None]

    @property
    def form(self) -> Form:
        return Form(self.task, self.model, self.reward, self.leaving, self.mode, bool(self.caution))

    def transition(self) -> Step:
        """The step as a pure function, to be traced by JAX; see `Step`."""
        return transition(self.form)

    def step(self, x: np.ndarray, u: np.ndarray, member: int = 0) -> Transition:
        """One compiled step in float32: x (batch, state), u (batch, input); the next x is (batch, state) too.

        ``u`` is clipped to the limits. ``member`` matters in the mode "member" only.
        """
        x, u = np.atleast_2d(np.asarray(x, np.float32)), np.atleast_2d(np.asarray(u, np.float32))
        u = np.clip(u, self.task.action_low.astype(np.float32), self.task.action_high.astype(np.float32))
        made = _jitted(self.form)(self.data, np.full(len(x), member, np.int32), x.T, u.T)
        return Transition(np.asarray(made.x).T, *(np.asarray(part) for part in made[1:]))


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """What of a surrogate is compiled: everything but the numbers. Equal forms share what was compiled."""

    task: Task
    model: Model | LearnedModel
    reward: SparseMap | None
    leaving: Leaving
    mode: Mode = "median"
    cautious: bool = False

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        model = self.model
        # The modes of a sparse model differ in numbers only.
        rates = model.rates.library if isinstance(model, Model) else (model.form, self.mode)
        # Roll-outs are in float32; the step length of recorded data varies in its last float64 bits.
        parts = (rates, model.structure, model.states, model.inputs, float(np.float32(model.dt)))
        return (self.task, *parts, None if self.reward is None else self.reward.library, self.leaving, self.cautious)

    @property
    def asks_members(self) -> bool:
        """Whether a step evaluates all members."""
        return self.cautious or not isinstance(self.model, Model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def transition(form: Form) -> Step:
    """The step of all surrogates of one form; see `Step`."""
    import jax.numpy as jnp

    task = form.task
    advance = _scored(form)
    disagreement = _disagreement(form) if form.cautious else None
    names = (*task.state_names, *task.input_names)
    failure = float(task.failure_reward or 0.0)
    learned = None if form.reward is None else form.reward.library.columns("jax")
    rewarded = [] if form.reward is None else [names.index(name) for name in form.reward.library.variables]

    def step(data: SurrogateData, member: Any, x: Any, u: Any) -> Transition:
        kept, inside, reward, over = advance(data, member, list(x), list(u))
        if learned is not None:
            columns = [[*kept, *u][index] for index in rewarded]
            (predicted,) = combine(_of_members(data.reward, member), learned(columns))
            low, high = data.reward_range
            reward = jnp.where(inside, jnp.clip(predicted, low, high), failure)
        if disagreement is not None:
            apart = data.caution * disagreement(data, list(x), list(u))
            reward = jnp.where(inside, jnp.maximum(reward - apart, jnp.minimum(reward, failure)), reward)
        # A reward that is not a number is no better than failing.
        ended = jnp.zeros_like(inside) if over is None else over
        return Transition(jnp.stack(kept), jnp.where(jnp.isnan(reward), failure, reward), ~inside, ended)

    return step


def _scored(form: Form) -> Callable[[SurrogateData, Any, list[Any], list[Any]], Any]:
    """``advance(data, member, x, u)``: one step of `scored_step` by the model's members as ``form.mode`` has them."""
    import jax.numpy as jnp

    task, model = form.task, form.model
    if isinstance(model, Model):
        sparse = scored_step(task, model)
        return lambda data, member, x, u: sparse(_of_members(data.coef, member), start(task, x), u)
    # The next state is known before it is scored: as the coefficients of the constant 1.
    library = polynomial_library(0, bias=True).bind(model.state_names, model.input_names)
    targets = NextState().targets(model.state_names)
    nothing = SparseMap(library, np.zeros((len(targets), 1)), targets)
    given = scored_step(task, Model(nothing, NextState(), model.states, model.inputs, model.dt, model.seen))
    rates = _all_rates(model)

    def advance(data: SurrogateData, member: Any, x: list[Any], u: list[Any]) -> Any:
        def together(states: Any, held: Any) -> list[Any]:
            found = jnp.stack(rates(data.coef, states, held), axis=1)
            counts = data.believed[:, None, None]
            if form.mode == "mean":
                return list((found * counts).sum(axis=0) / counts.sum())
            if form.mode == "median":
                return list(jnp.nanmedian(jnp.where(counts > 0, found, jnp.nan), axis=0))
            return list(jnp.take_along_axis(found, (member % len(found))[None, None], axis=0)[0])

        after = model.structure.advance(model.state_names, together, x, u, model.dt)
        return given(jnp.stack(after)[:, None], start(task, x), u)

    return advance


def _disagreement(form: Form) -> Callable[[SurrogateData, list[Any], list[Any]], Any]:
    """``d(data, x, u)`` of the text of this module, (batch,)."""
    import jax
    import jax.numpy as jnp

    model = form.model
    rates = _one_members_rates(model)

    def disagreement(data: SurrogateData, x: list[Any], u: list[Any]) -> Any:
        def after(coef: Any) -> Any:
            by_member: Rates = functools.partial(rates, coef)
            return jnp.stack(model.structure.advance(model.state_names, by_member, x, u, model.dt))

        found, counts = jax.vmap(after)(data.ensemble), data.believed[:, None, None]
        mean = (found * counts).sum(axis=0) / counts.sum()
        variance = (counts * (found - mean) ** 2).sum(axis=0) / (counts.sum() - 1.0)
        square = (variance / data.scale[:, None] ** 2).mean(axis=0)
        # Members that blew up disagree altogether; and the root has no slope where they agree.
        known = (square > 0) & (square < 1)
        return jnp.where(known, jnp.sqrt(jnp.where(known, square, 1.0)), jnp.where(square == 0, 0.0, 1.0))

    return disagreement


def _all_members(model: Model | LearnedModel) -> np.ndarray:
    """(member, ...) coefficients."""
    if not isinstance(model, Model):
        return model.coefficients()
    return model.rates.coef if model.rates.coef.ndim == 3 else model.rates.coef[None]


def _one_members_rates(model: Model | LearnedModel) -> Callable[[Any, Sequence[Any], Sequence[Any]], list[Any]]:
    """``rates(coef, x, u)`` by one member's coefficients; columns."""
    if not isinstance(model, Model):
        return model.rates()
    features = model.rates.library.columns("jax")
    return lambda coef, x, u: combine(coef, features(model.feature_columns(x, u)))


def _all_rates(model: Model | LearnedModel) -> Callable[[Any, Sequence[Any], Sequence[Any]], list[Any]]:
    """``rates(coef, x, u)`` by all members: columns (member, batch)."""
    import jax

    return jax.vmap(_one_members_rates(model), in_axes=(0, None, None))


def _of_members(coef: Any, member: Any) -> Any:
    """(target, feature) if there is one member, else (target, feature, batch)."""
    import jax.numpy as jnp

    return coef[0] if len(coef) == 1 else jnp.moveaxis(coef[member % len(coef)], 0, -1)


@functools.lru_cache(maxsize=16)
def _jitted(form: Form) -> Callable[..., Any]:
    import jax

    return jax.jit(transition(form))
