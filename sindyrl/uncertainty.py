r"""How far the members of an ensemble disagree at a point: about dynamics, rewards, inputs and values.

For target j of a sparse ensemble with coefficients xi_j^(k), k = 1 ... n, at a point z with library row Theta(z)

    var_j(z) = 1/(n - 1) sum_k (Theta(z) (xi_j^(k) - mean_k xi_j^(k)))^2 = Theta(z) Sigma_j Theta(z)',

Sigma_j the sample covariance of the coefficients; the total is the sum over targets, the trace of the predictive
covariance. The left side costs as much as n predictions and never forms Sigma_j. What is not linear in the
coefficients (a next state through a structure, a limited input, a return) is the sample variance of the members' own
results.

Disagreement is about the mean. What a new measurement scatters by besides is the noise of the residuals: a `Fit` knows
it, and `Spread.predictive` has both. Neither sees an error that all members share because they share the library.

Source: Zolman et al., SINDy-RL, arXiv 2403.09110; Fasel, Kutz, Brunton, Brunton, Proc. R. Soc. A 478:20210904, 2022.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sindyrl.identify import Fit
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Policy
from sindyrl.simulate import limits
from sindyrl.sparse_map import SparseMap, combine
from sindyrl.structure import Columns
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task

__all__ = [
    "Spread",
    "coefficient_covariance",
    "critic",
    "map_spread",
    "policy_spread",
    "rate_spread",
    "return_spread",
    "reward_spread",
    "step_reward_spread",
    "step_spread",
    "value_spread",
]

Value = Callable[[np.ndarray], np.ndarray]
"""What a state is worth: (n, n_states) -> (n,) or (n, 1)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """What an ensemble says at points of any leading shape.

    outputs : names of the outputs
    mean : (..., output) mean over the members
    between : (..., output) sample variance between the members, divisor members - 1
    noise : (..., output) variance of a new measurement about the mean; zero where it is not known
    """

    outputs: tuple[str, ...]
    mean: np.ndarray
    between: np.ndarray
    noise: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Trace of the covariance between the members, (...)."""
        return np.asarray(self.between.sum(axis=-1))

    @property
    def predictive(self) -> np.ndarray:
        """Variance of a new measurement, (..., output): of the mean and of the noise together."""
        return self.between + self.noise


# ---- sparse ensembles


def coefficient_covariance(ensemble: SparseMap) -> np.ndarray:
    """``Sigma_j``, the sample covariance of each target's coefficients over the members: (target, feature, feature)."""
    apart = _apart(_members("coefficient_covariance", ensemble))
    return np.asarray(np.einsum("mtf,mtg->tfg", apart, apart) / (len(apart) - 1))


def map_spread(ensemble: SparseMap, z: Any, noise: Any = 0.0) -> Spread:
    """Of any sparse ensemble at ``z`` (..., n_variables), in the order of its library's variables.

    noise : variance of each target's residuals, (target,) or one number

    Raises ValueError for a map without members.
    """
    coef = _members("map_spread", ensemble)
    return _linear(ensemble.targets, coef, ensemble.library.features(np.asarray(z, dtype=np.float64)), noise)


def rate_spread(source: Model | Fit, x: Any, u: Any = ()) -> Spread:
    """Of what was identified (accelerations, derivatives, increments or next states) at x (..., n_states), u.

    source : a model, whose members are asked; or the `Fit` it is from, whose row bootstraps are asked and whose
        residual noise is known: ``predictive`` is then the square of `PredictionIntervals.std`
    u : (..., n_inputs), or nothing for a system without inputs
    """
    model, coef, noise = _source("rate_spread", source)
    columns = model.feature_columns(*_columns(model, x, u))
    theta = model.rates.library.features(np.stack(np.broadcast_arrays(*columns), axis=-1))
    return _linear(model.rates.targets, coef, theta, noise)


def reward_spread(task: Task, reward: SparseMap, x_next: Any, u: Any) -> Spread:
    """Of a learned reward ``R(x_{k+1}, u_k)`` at x_next (..., n_states), u (..., n_inputs)."""
    by_name = dict(zip((*task.state_names, *task.input_names), _split(task, x_next, u), strict=True))
    unknown = [name for name in reward.library.variables if name not in by_name]
    if unknown:
        raise ValueError(f"`reward_spread(reward=...)` must be a function of {list(by_name)}. Got {unknown}.")
    columns = np.broadcast_arrays(*(by_name[name] for name in reward.library.variables))
    return map_spread(reward, np.stack(columns, axis=-1))


# ---- through the structure


def step_spread(source: Model | Fit, x: Any, u: Any = ()) -> Spread:
    """Of the next state: every member's own step, through the structure and onto its manifold.

    The noise of a `Fit` is carried to the states by the slope of the step in its rates,
    ``sum_j (d x_i / d rate_j)^2 s_j^2``, at the median of the coefficients.
    """
    model, coef, noise = _source("step_spread", source)
    columns, inputs = _begin(model, x, u)
    after = _steps(model, coef, columns, inputs)
    variance = np.zeros(after.shape[1:])
    middle = np.median(coef, axis=0)[None]
    for j in np.flatnonzero(noise):
        # A change of the size of the noise itself: neither lost in rounding nor far into the curvature.
        h = math.sqrt(noise[j])
        offset = np.zeros(len(noise))
        offset[j] = h
        forth, back = (_steps(model, middle, columns, inputs, sign * offset)[0] for sign in (1.0, -1.0))
        variance += ((forth - back) / 2.0) ** 2
    return Spread(model.state_names, after.mean(axis=0), after.var(axis=0, ddof=1), variance)


def step_reward_spread(task: Task, source: Model | Fit, x: Any, u: Any) -> Spread:
    """Of the task's own reward of one step, ``R(x_{k+1}, u_k)``: the members disagree about ``x_{k+1}``."""
    model, coef, _ = _source("step_reward_spread", source)
    columns, inputs = _begin(model, x, u)
    after = _steps(model, coef, columns, inputs)
    earned = _of_transition(task, task.reward)(list(np.moveaxis(after, -1, 0)), inputs)
    earned = np.broadcast_to(earned, after.shape[:-1])[..., None]
    return _sampled(("reward",), earned)


# ---- policies and values


def policy_spread(
    policy: SparseMap | Sequence[Policy], x: Any, *, low: Any = -np.inf, high: Any = np.inf, outputs: Sequence[str] = ()
) -> Spread:
    """Of the input that is applied, limited to ``[low, high]``, at x (..., n_variables).

    policy : a sparse ensemble, functions of its library's variables, or several policies
    outputs : names of the inputs of several policies; default u0, u1, ...

    Where all members saturate they agree, however far apart they are before the limits.
    """
    x = np.asarray(x, dtype=np.float64)
    if isinstance(policy, SparseMap):
        _members("policy_spread", policy)
        given, names = policy.predict_members(x), policy.targets
    else:
        given = _called("policy_spread(policy=...)", policy, x)
        names = tuple(outputs) or tuple(f"u{i}" for i in range(given.shape[-1]))
        if len(names) != given.shape[-1]:
            raise ValueError(f"`policy_spread(outputs=...)` must be {given.shape[-1]} names. Got {list(outputs)}.")
    return _sampled(names, np.clip(given, low, high))


def value_spread(values: Sequence[Value], x: Any) -> Spread:
    """Of what states (..., n_states) are worth: over the critics of several learners (see `critic`)."""
    x = np.asarray(x, dtype=np.float64)
    rows = x.reshape(-1, x.shape[-1])
    found = _called("value_spread(values=...)", [lambda z, f=f: np.reshape(f(z), (len(z), 1)) for f in values], rows)
    return _sampled(("value",), found.reshape(len(found), *x.shape[:-1], 1))


def return_spread(
    task: Task,
    source: Model | Fit,
    policy: Policy,
    x: Any,
    *,
    steps: int | None = None,
    discount: float = 1.0,
    reward: SparseMap | None = None,
) -> Spread:
    """Of the discounted return of a policy from x (..., n_states): each member plays the whole episode by itself.

    steps : of the episode, default the task's horizon
    reward : learned rewards, member k with member k of the dynamics; None takes the task's own

    Leaving the ranges, failing and ending are as in `sindyrl.simulate.scored_step`.
    """
    model, coef, _ = _source("return_spread", source)
    discount = check_number("return_spread(discount=...)", discount, "in (0, 1]", lambda value: 0 < value <= 1)
    steps = task.horizon if steps is None else steps
    steps = check_number("return_spread(steps=...)", steps, "a positive integer", whole(1))
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 1 or x.shape[-1] != len(task.states):
        raise ValueError(f"`return_spread(x=...)` must have {len(task.states)} columns. Got shape {x.shape}.")
    rows = x.reshape(-1, x.shape[-1])
    state = np.broadcast_to(rows, (len(coef), *rows.shape))
    seen = [task.state_names.index(name) for name in getattr(policy, "input_names", task.state_names)]
    score = _of_transition(task, task.reward) if reward is None else _learned(task, reward)
    ends = None if task.ends is None else _of_transition(task, task.ends)
    low, high = limits(task.states)
    failure = float(task.failure_reward or 0.0)
    alive, over = np.ones(state.shape[:-1], bool), np.zeros(state.shape[:-1], bool)
    total, weight = np.zeros(state.shape[:-1]), 1.0
    for _ in range(steps):
        flat = state.reshape(-1, state.shape[-1])
        u = np.clip(np.asarray(policy(flat[:, seen])).reshape(len(flat), -1), task.action_low, task.action_high)
        inputs = list(np.moveaxis(u.reshape(*state.shape[:-1], -1), -1, 0))
        with np.errstate(all="ignore"):  # leaving the finite numbers is leaving the ranges
            after = _steps(model, coef, list(np.moveaxis(state, -1, 0)), inputs)
            alive &= over | (np.isfinite(after) & (after >= low) & (after <= high)).all(axis=-1)
        state = np.where((alive & ~over)[..., None], after, state)
        columns = list(np.moveaxis(state, -1, 0))
        total += weight * np.where(over, 0.0, np.where(alive, score(columns, inputs), failure))
        if ends is not None:
            over |= alive & (ends(columns, inputs) > 0)
        weight *= discount
    return _sampled(("return",), total.reshape(len(coef), *x.shape[:-1], 1))


def critic(learner: Any) -> Value:
    """What a learner of `sindyrl.learn.ppo` thinks states are worth, in NumPy and in units of the reward."""
    mean, std = (np.asarray(part, dtype=np.float64) for part in (learner.observations.mean, learner.observations.std))
    weights, biases = ([np.asarray(part, dtype=np.float64) for part in parts] for parts in _layers(learner))
    center, scale = float(learner.returns.mean), float(learner.returns.std)

    def value(x: np.ndarray) -> np.ndarray:
        hidden = np.clip((np.asarray(x, dtype=np.float64) - mean) / std, -10.0, 10.0)  # as `standardized` clips
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight + bias)
        return np.asarray((hidden @ weights[-1] + biases[-1])[..., 0] * scale + center)

    return value


def _layers(learner: Any) -> tuple[Any, Any]:
    made = learner.agent.critic
    return made.weights, made.biases


# ---- parts


def _members(asked: str, ensemble: SparseMap) -> np.ndarray:
    """The coefficients (member, target, feature) of at least two members."""
    return _several(asked, ensemble.coef if ensemble.coef.ndim == 3 else ensemble.coef[None])


def _several(asked: str, coef: np.ndarray) -> np.ndarray:
    if len(coef) < 2:
        raise ValueError(f"`{asked}` needs an ensemble of at least 2 members. Got {len(coef)}.")
    return coef


def _source(asked: str, source: Model | Fit) -> tuple[Model, np.ndarray, np.ndarray]:
    """Model, members' coefficients and variances of the residuals of its rates (zero where not known)."""
    if isinstance(source, Fit):
        if source.intervals is not None:
            intervals = source.intervals
            return source.model, _several(asked, intervals.members), np.asarray(intervals.variance)
        source = source.model
    return source, _members(asked, source.rates), np.zeros(len(source.rates.targets))


def _apart(coef: np.ndarray) -> np.ndarray:
    return np.asarray(coef - coef.mean(axis=0))


def _linear(outputs: tuple[str, ...], coef: np.ndarray, theta: np.ndarray, noise: Any) -> Spread:
    """theta (..., feature), coef (member, target, feature)."""
    # One member after the other: memory of one prediction, however many members there are.
    squares = sum((theta @ row.T) ** 2 for row in _apart(coef))
    between = np.asarray(squares) / (len(coef) - 1)
    noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), between.shape)
    return Spread(outputs, theta @ coef.mean(axis=0).T, between, noise)


def _sampled(outputs: tuple[str, ...], given: np.ndarray) -> Spread:
    """given (member, ..., output)."""
    return Spread(tuple(outputs), given.mean(axis=0), given.var(axis=0, ddof=1), np.zeros(given.shape[1:]))


def _called(argument: str, functions: Sequence[Callable[..., Any]], x: np.ndarray) -> np.ndarray:
    if len(functions) < 2:
        raise ValueError(f"`{argument}` must be at least 2 members. Got {len(functions)}.")
    return np.stack([np.asarray(function(x), dtype=np.float64) for function in functions])


def _split(names: Task | Model, x: Any, u: Any) -> list[np.ndarray]:
    """Columns of the states and of the inputs."""
    x = np.asarray(x, dtype=np.float64)
    u = np.zeros((*x.shape[:-1], 0)) if len(u) == 0 else np.asarray(u, dtype=np.float64)
    for argument, value, size in (("x", x, len(names.states)), ("u", u, len(names.inputs))):
        if value.ndim < 1 or value.shape[-1] != size:
            raise ValueError(f"`{argument}` must have {size} columns. Got shape {value.shape}.")
    return [*np.moveaxis(x, -1, 0), *np.moveaxis(u, -1, 0)]


def _columns(model: Model, x: Any, u: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    both = np.broadcast_arrays(*_split(model, x, u))
    return [*both[: len(model.states)]], [*both[len(model.states) :]]


def _begin(model: Model, x: Any, u: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The same with an axis of length 1 for the members."""
    columns, inputs = _columns(model, x, u)
    return [column[None] for column in columns], [column[None] for column in inputs]


def _steps(model: Model, coef: np.ndarray, x: Columns, u: Columns, offset: np.ndarray | None = None) -> np.ndarray:
    """Next states (member, *batch, state).

    coef : (member, target, feature)   x, u : columns (member, *batch), or (1, *batch) if all members begin there
    offset : (target,) added to the rates
    """
    features = model.rates.library.columns("numpy")
    # (target, feature, member, 1, ...): against the columns' own axes.
    of_member = np.moveaxis(coef, 0, -1).reshape(*coef.shape[1:], len(coef), *[1] * (np.ndim(x[0]) - 1))

    def rates(states: Columns, held: Columns) -> list[Any]:
        found = combine(of_member, features(model.feature_columns(states, held)))
        return found if offset is None else [rate + add for rate, add in zip(found, offset, strict=True)]

    after = np.broadcast_arrays(*model.structure.advance(model.state_names, rates, x, u, model.dt))
    return np.stack([np.broadcast_to(column, (len(coef), *column.shape[1:])) for column in after], axis=-1)


def _of_transition(task: Task, form: SymbolicMap) -> Callable[[Columns, Columns], np.ndarray]:
    """The one output of a closed form of the next state and the input, as columns."""
    evaluate = form.columns("numpy")
    names = (*task.state_names, *task.input_names)
    chosen = [names.index(name) for name in form.input_names]
    return lambda x, u: np.asarray(evaluate([[*x, *u][index] for index in chosen])[0])


def _learned(task: Task, reward: SparseMap) -> Callable[[Columns, Columns], np.ndarray]:
    coef = reward.coef if reward.coef.ndim == 3 else reward.coef[None]
    names = (*task.state_names, *task.input_names)
    chosen = [names.index(name) for name in reward.library.variables]
    features = reward.library.columns("numpy")

    def score(x: Columns, u: Columns) -> np.ndarray:
        members = np.arange(len(x[0])) % len(coef)
        of_member = np.moveaxis(coef[members], 0, -1)[..., None]
        return np.asarray(combine(of_member, features([[*x, *u][index] for index in chosen]))[0])

    return score
