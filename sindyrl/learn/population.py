r"""Population-based training: learners side by side, of which the worst go on from the best with other numbers.

One generation trains every member for ``ppo.updates`` updates, all of them in one compiled call (`sindyrl.learn.ppo`
under ``vmap``); then they are graded, and

    each of the worst quarter takes over weights, optimizer, moments and episodes of one of the best quarter, drawn at
    random, and its numbers, of which each is drawn anew with probability 0.25 and else multiplied by 0.8 or by 1.2

and cut to where it makes sense. The numbers are arguments of what is compiled: a mutation compiles nothing and holds
from the next update on. A member's stream of random numbers stays its own, so that copies part. A member whose grade
is not a finite number is among the worst, however many there are.

The coefficients of the model are common to all, or each member has a surrogate of its own.

References: Jaderberg et al., Population Based Training of Neural Networks, arXiv 1711.09846; the numbers above, and
those of `PopulationSettings.published`, are of Zolman et al., SINDy-RL, arXiv 2403.09110.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sindyrl.envs.surrogate import Form, Surrogate, SurrogateData
from sindyrl.learn import ppo
from sindyrl.learn.network import NeuralPolicy, Squash
from sindyrl.learn.ppo import Hyper, Learner, Metrics, PPOSettings, Shape
from sindyrl.learn.scoring import objective
from sindyrl.number_check import check_fields, check_number, checked_numbers, whole

NearOne = Literal["distance", "value"]
Score = Callable[["Population"], np.ndarray]
"""Grades (member,), the higher the better."""

_LARGEST_DISCOUNT = 0.9999  # one that never forgets has no value function
_RANGES = {
    "learning_rate": (0.0, math.inf),
    "clip": (0.0, math.inf),
    "entropy": (-math.inf, math.inf),
    "discount": (0.0, _LARGEST_DISCOUNT),
    "trace": (0.0, 1.0),
    "value_weight": (0.0, math.inf),
    "max_gradient": (1e-6, math.inf),
}
_NEAR_ONE = ("discount", "trace")
MUTATIONS: Mapping[str, tuple[float, ...]] = types.MappingProxyType(
    {
        "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3),
        "clip": (0.1, 0.2, 0.3),
        "entropy": (0.0, 1e-3, 3e-3, 1e-2),
        "discount": (0.95, 0.98, 0.99, 0.995),
        "trace": (0.9, 0.95, 0.98),
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class PopulationSettings:
    """Who learns, and what mutates.

    size : learners
    ppo : sizes, the same for all, ``updates`` of a generation among them; and the numbers the first member begins with
    mutations : of each number that mutates, the choices it is drawn from. The other members begin with draws.
    quarter : share of the members that is replaced, and share that they are replaced from; rounded up
    resample : probability with which a number is drawn anew
    factors : one of them multiplies it otherwise
    near_one : what a factor multiplies in ``discount`` and ``trace``: their "distance" from 1, which is one over the
        steps they look ahead, or, as published, the "value" itself
    episodes : of the judgement in the surrogate, where no other grade is given
    """

    size: int = 20
    ppo: PPOSettings = dataclasses.field(default_factory=PPOSettings)
    mutations: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=lambda: MUTATIONS)
    quarter: float = 0.25
    resample: float = 0.25
    factors: tuple[float, ...] = (0.8, 1.2)
    near_one: NearOne = "distance"
    episodes: int = 16

    def __post_init__(self) -> None:
        check_fields(self, "size", "an integer of at least 2", whole(2))
        check_fields(self, "episodes", "an integer of at least 1", whole(1))
        chosen: dict[str, tuple[float, ...]] = {}
        for name, values in self.mutations.items():
            if name not in _RANGES:
                raise ValueError(
                    f"`PopulationSettings(mutations=...)` must name numbers of PPO, {list(_RANGES)}. Got {name!r}."
                )
            chosen[name] = _choices(name, values)
        object.__setattr__(self, "mutations", types.MappingProxyType(chosen))
        wanted = "positive, finite numbers, at least one"
        factors = checked_numbers(
            "PopulationSettings(factors=...)", self.factors, wanted, lambda value: 0 < value < math.inf
        )
        object.__setattr__(self, "factors", tuple(map(float, factors)))
        check_fields(self, "quarter", "a number in (0, 0.5]", lambda value: 0 < value <= 0.5)
        check_fields(self, "resample", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        if self.near_one not in get_args(NearOne):
            raise ValueError(
                f"`PopulationSettings(near_one=...)` must be one of {get_args(NearOne)}. Got {self.near_one!r}."
            )

    @property
    def replaced(self) -> int:
        """How many members a generation replaces, if all grades are finite."""
        return min(math.ceil(self.quarter * self.size), self.size // 2)

    @classmethod
    def published(cls, **changes: Any) -> PopulationSettings:
        """The paper's: 20 members compared every 50 updates; learning rate, discount and trace mutate.

        What differs: a discount of 1 is 0.9999 here; the sizes of an update are not theirs. In the code released with
        the paper the mutated numbers did not reach the learner, so that its populations were cloned and selected only.
        """
        near_one = (0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)
        mutations = {
            "learning_rate": (1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3),
            "discount": tuple(min(value, _LARGEST_DISCOUNT) for value in near_one),
            "trace": near_one,
        }
        learner = PPOSettings(environments=32, length=128, epochs=8, minibatches=16, updates=50)
        settings = cls(ppo=learner, mutations=mutations, near_one="value")
        return dataclasses.replace(settings, **changes)


class Population(NamedTuple):
    """All that changes; a value that is handed in and out.

    learners : a `Learner` whose arrays begin with the axis (member,)    hyper : a `Hyper` of arrays (member,)
    """

    learners: Learner
    hyper: Hyper


@dataclasses.dataclass(frozen=True, eq=False)
class Generation:
    """What happened to a population at its end.

    scores : (member,)    parents : (member,) from whom each member goes on, itself if it was not replaced
    hyper : name -> (member,), the numbers it was trained with, before mutation
    """

    scores: np.ndarray
    parents: np.ndarray
    hyper: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class PopulationResult:
    """learner, hyper, score : of the best member of all generations    population : the last one"""

    learner: Learner
    hyper: Hyper
    score: float
    population: Population
    generations: tuple[Generation, ...]


Surrogates = Surrogate | Sequence[Surrogate]
"""One for all members, or one for each, of equal form and sizes."""


def start(surrogate: Surrogates, settings: PopulationSettings, seed: int = 0) -> Population:
    """New learners: the first with the numbers of ``settings.ppo``, the others with draws where numbers mutate."""
    seed = check_number("start(seed=...)", seed, "a non-negative integer", whole(0))
    rng, size = np.random.default_rng(seed), settings.size
    played = [surrogate] * size if isinstance(surrogate, Surrogate) else _checked(surrogate, settings)
    learners = [ppo.start(one, settings.ppo, int(rng.integers(2**31))) for one in played]
    numbers = {}
    for name, own in zip(Hyper._fields, settings.ppo.hyper, strict=True):
        drawn = rng.choice(settings.mutations.get(name, (float(own),)), size=size)
        drawn[0] = own
        numbers[name] = drawn.astype(np.float32)
    return Population(jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners), Hyper(**numbers))


def train(surrogate: Surrogates, population: Population, settings: PopulationSettings) -> tuple[Population, Metrics]:
    """``settings.ppo.updates`` updates of every member; metrics (member, update).

    Compiled once for each form of surrogate and sizes, apart for common and for own coefficients.
    """
    form, shared, data = _arguments(surrogate, settings)
    learners, metrics = _trainer(form, settings.ppo.shape, shared)(data, population.learners, population.hyper)
    return population._replace(learners=learners), Metrics(*(np.asarray(value) for value in metrics))


def judge(surrogate: Surrogates, population: Population, settings: PopulationSettings) -> np.ndarray:
    """Undiscounted returns (member, episode) in the surrogate, without exploration; see `sindyrl.learn.ppo.judge`."""
    form, shared, data = _arguments(surrogate, settings)
    compiled = _judge(form, settings.episodes, settings.ppo.squash, shared)
    returns = compiled(data, population.learners.agent, population.learners.observations)
    return np.asarray(returns, dtype=np.float64)


def renewed(
    population: Population, scores: np.ndarray, settings: PopulationSettings, rng: np.random.Generator
) -> tuple[Population, Generation]:
    """The population whose worst members go on from the best with mutated numbers.

    scores : (member,), the higher the better; one that is not finite is worse than all. If none is finite, nobody is
        replaced.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (settings.size,):
        raise ValueError(f"`renewed(scores=...)` must be {settings.size} numbers, one a member. Got {scores.shape}.")
    finite = np.isfinite(scores)
    # Stable: of equals, the first is the better.
    order = np.argsort(-np.where(finite, scores, -np.inf), kind="stable")
    best = [index for index in order[: settings.replaced] if finite[index]]
    lost = set(order[settings.size - settings.replaced :]) | set(np.flatnonzero(~finite))
    parents = np.arange(settings.size)
    if best:
        for index in sorted(lost):
            parents[index] = rng.choice(best)
    before = {name: np.array(values) for name, values in population.hyper._asdict().items()}
    after = {name: values[parents] for name, values in before.items()}
    for index in np.flatnonzero(parents != np.arange(settings.size)):
        for name in settings.mutations:
            after[name][index] = mutated(name, float(after[name][index]), settings, rng)
    learners = _cloned(population.learners, parents.astype(np.int32))
    return Population(learners, Hyper(**after)), Generation(scores, parents, before)


def mutated(name: str, value: float, settings: PopulationSettings, rng: np.random.Generator) -> float:
    """A number after mutation: a draw from its choices, or the number times a factor, cut to its range."""
    if rng.random() < settings.resample:
        return float(rng.choice(settings.mutations[name]))
    factor, (low, high) = float(rng.choice(settings.factors)), _RANGES[name]
    apart = settings.near_one == "distance" and name in _NEAR_ONE
    changed = 1.0 - (1.0 - value) * factor if apart else value * factor
    return min(max(changed, low), high)


def member(population: Population, index: int) -> tuple[Learner, Hyper]:
    """One of the population, to go on alone with `sindyrl.learn.ppo`."""
    learner = jax.tree.map(lambda leaf: leaf[index], population.learners)
    return learner, Hyper(*(values[index] for values in population.hyper))


def policy(surrogate: Surrogates, learner: Learner, settings: PopulationSettings) -> NeuralPolicy:
    """The policy of one learner."""
    one = surrogate if isinstance(surrogate, Surrogate) else surrogate[0]
    return ppo.policy(one, learner, settings.ppo)


def train_population(
    surrogate: Surrogates,
    settings: PopulationSettings | None = None,
    *,
    generations: int,
    seed: int,
    score: Score | None = None,
    after: Callable[[Generation, Population], None] | None = None,
) -> PopulationResult:
    """A whole run in surrogates that do not change.

    score : grades of the members, for instance by real episodes; by default their objective in the surrogate
        (`sindyrl.learn.scoring.objective` of `judge`)
    after : called after each generation with the population that was graded
    """
    settings = PopulationSettings() if settings is None else settings
    check_number("train_population(generations=...)", generations, "a positive integer", whole(1))
    population = start(surrogate, settings, seed)
    rng = np.random.default_rng([seed, 1])
    found: list[Generation] = []
    best, score_of_best = member(population, 0), -math.inf
    for _ in range(generations):
        population, _ = train(surrogate, population, settings)
        grades = score(population) if score is not None else objective(judge(surrogate, population, settings))
        following, told = renewed(population, grades, settings, rng)
        found.append(told)
        if after is not None:
            after(told, population)
        ranked = np.where(np.isfinite(told.scores), told.scores, -np.inf)
        if ranked.max() > score_of_best:
            best, score_of_best = member(population, int(ranked.argmax())), float(ranked.max())
        population = following
    return PopulationResult(*best, score_of_best, population, tuple(found))


# ---- compilation


@functools.lru_cache(maxsize=16)
def _trainer(form: Form, shape: Shape, shared: bool) -> Callable[..., Any]:
    return jax.jit(jax.vmap(ppo.trainer(form, shape), in_axes=(None if shared else 0, 0, 0)))


@functools.lru_cache(maxsize=16)
def _judge(form: Form, episodes: int, squash: Squash, shared: bool) -> Callable[..., Any]:
    return jax.jit(jax.vmap(ppo.judging(form, episodes, squash), in_axes=(None if shared else 0, 0, 0)))


@jax.jit
def _cloned(learners: Learner, parents: Any) -> Learner:
    """Everything of the parents but the stream of random numbers, by which copies part."""
    taken: Learner = jax.tree.map(lambda leaf: leaf[parents], learners)
    return dataclasses.replace(taken, key=learners.key)


def _arguments(surrogate: Surrogates, settings: PopulationSettings) -> tuple[Form, bool, SurrogateData]:
    if isinstance(surrogate, Surrogate):
        return surrogate.form, True, surrogate.data
    each = _checked(surrogate, settings)
    return each[0].form, False, jax.tree.map(lambda *leaves: np.stack(leaves), *(one.data for one in each))


def _choices(name: str, values: Sequence[float]) -> tuple[float, ...]:
    low, high = _RANGES[name]
    wanted = f"at least one finite choice of {name!r} within [{low}, {high}]"
    choices = checked_numbers(
        "PopulationSettings(mutations=...)", values, wanted, lambda value: math.isfinite(value) and low <= value <= high
    )
    return tuple(map(float, choices))


def _checked(surrogates: Sequence[Surrogate], settings: PopulationSettings) -> Sequence[Surrogate]:
    if len(surrogates) != settings.size:
        raise ValueError(
            f"`surrogate` must be one surrogate, or one for each of {settings.size} members. Got {len(surrogates)}."
        )
    first = surrogates[0]
    shapes = [jax.tree.map(np.shape, one.data) for one in surrogates]
    if any(one.form != first.form for one in surrogates) or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "`surrogate` must be surrogates of one form: the same task, libraries, numbers of ensemble members and of "
            "initial states. They differ."
        )
    return surrogates
