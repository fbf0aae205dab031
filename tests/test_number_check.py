"""Numbers are refused by name where they are given if they are none, and NumPy's are as good as Python's."""

import dataclasses
import json
import math
import re
from typing import Any

import jax
import numpy as np
import pytest

from sindyrl.chain import ChainSettings
from sindyrl.collect import ZeroOrderHold, collect, evaluate, random_policy
from sindyrl.composed_policy import SwitchAfter
from sindyrl.controllers.sampling import CrossEntropyPlanner
from sindyrl.distill import DistillSettings, distill
from sindyrl.distill.published import PublishedSettings
from sindyrl.dmdc import dmdc
from sindyrl.envs.surrogate import Surrogate
from sindyrl.envs.surrogate_env import SurrogateEnv
from sindyrl.envs.surrogate_vector import SurrogateVectorEnv
from sindyrl.excitation import prbs, random_steps, schroeder_harmonics, schroeder_multisine
from sindyrl.export.stateful import delay
from sindyrl.input_design import ActiveExcitation
from sindyrl.learn import bptt, mb_mpo, population, ppo
from sindyrl.learn.bptt import BPTTSettings
from sindyrl.learn.dyna import dyna
from sindyrl.learn.dyna_settings import DynaSettings
from sindyrl.learn.mb_mpo import MBMPOSettings
from sindyrl.learn.member_validation import validate_members
from sindyrl.learn.neural_model import NeuralSettings, neural_model
from sindyrl.learn.policy_search import SearchSettings
from sindyrl.learn.population import PopulationSettings
from sindyrl.learn.ppo import PPOSettings
from sindyrl.library import affine_library, polynomial_library, trigonometric_library
from sindyrl.model_selection import CriterionSubset
from sindyrl.number_check import check_fields, check_number, checked_numbers, not_negative, whole
from sindyrl.rational import identify_rational
from sindyrl.regression import STLSQ, BestSubset, Ensemble, ImplicitSubset, SubsetSelection, weak_form
from sindyrl.regression.constraints import Constraints
from sindyrl.regression.energy import TrappingSTLSQ
from sindyrl.regression.selection import select_threshold
from sindyrl.reward_model import fit_reward
from sindyrl.seeding import check_seeds
from sindyrl.stops_at_wall import StopsAtWall
from sindyrl.structure import Derivative
from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.uncertainty import return_spread
from tests.systems import CART_TASK, FORCE, CartEnv, cart_model, cart_task

KINDS = (
    PPOSettings, MBMPOSettings, BPTTSettings, NeuralSettings, DynaSettings, PopulationSettings, SearchSettings,
    DistillSettings, PublishedSettings,
)  # fmt: skip
NUMBERS = [
    (kind, field.name, "None" in field.type)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if field.type.removesuffix(" | None") in ("int", "float")
]
TUPLES = [
    (kind, field.name)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if field.type in ("tuple[int, ...]", "tuple[float, ...]")
]


def refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"^`{kind.__name__}\({name}=\.\.\.\)` must be .*\. Got "):
        kind(**{name: value})


def test_there_are_settings_to_check():
    assert {kind for kind, _, _ in NUMBERS} == set(KINDS)
    assert len(NUMBERS) > 50
    assert len(TUPLES) >= 6


@pytest.mark.parametrize(("kind", "name", "optional"), NUMBERS, ids=str)
def test_what_is_no_number_is_refused_by_name(kind, name, optional):
    for value in ("low", "1", True, np.nan, float("-inf"), [1.0], 1j, *([] if optional else [None])):
        refused(kind, name, value)
    if optional:
        kind(**{name: None})


@pytest.mark.parametrize(("kind", "name"), TUPLES, ids=str)
def test_what_is_no_sequence_of_numbers_is_refused_by_name(kind, name):
    for value in ((), 64, None, "64", ("low",), (True,), (np.nan,), (None,), (64, "low")):
        refused(kind, name, value)
    assert getattr(kind(**{name: [64, 32]}), name) == (64, 32)


@pytest.mark.parametrize("choices", [(), 0.1, None, "0.1", ("low",), (True,), (np.nan,), (np.inf,)])
def test_what_a_number_mutates_to_is_a_number(choices):
    refused(PopulationSettings, "mutations", {"clip": choices})


def test_numbers_of_any_library_are_numbers():
    for value in (1, 1.0, np.float32(1.0), np.float64(1.0), np.int64(1)):
        assert PPOSettings(log_std=value).log_std == value
        check_number("f(x=...)", value, "one", lambda number: number == 1)
    assert MBMPOSettings(max_gradient=math.inf).max_gradient == math.inf, "no limit"


def test_the_rule_and_what_came_are_told():
    with pytest.raises(ValueError, match=r"^`f\(x=...\)` must be an integer of at least 2. Got 1.$"):
        check_number("f(x=...)", 1, "an integer of at least 2", whole(2))
    with pytest.raises(ValueError, match=r"Got 2.0.$"):
        check_number("f(x=...)", 2.0, "an integer of at least 2", whole(2))
    with pytest.raises(ValueError, match=r"^`f\(x=...\)` must be some. Got 'low'.$"):
        checked_numbers("f(x=...)", "low", "some", math.isfinite)
    assert checked_numbers("f(x=...)", iter([1, 2.5]), "some", math.isfinite) == (1, 2.5)


def test_no_rule_lets_through_what_is_no_number():
    for value in (np.nan, True, "low", None):
        with pytest.raises(ValueError, match=r"^`f\(x=...\)`"):
            check_number("f(x=...)", value, "anything", lambda _: True)
        with pytest.raises(ValueError, match=r"^`f\(x=...\)`"):
            checked_numbers("f(x=...)", [1.0, value], "anything", lambda _: True)


# ---- who asks


def rng():
    return np.random.default_rng(0)


def recording(steps=40):
    u = rng().uniform(-0.4, 0.4, (steps, 1))
    x = [np.zeros(2)]
    for held in u:
        x.append(np.array([[1.0, 0.1], [0.0, 1.0]]) @ x[-1] + np.array([0.005, 0.1]) * held)
    return Trajectory.uniform(np.array(x), u, -np.abs(u[:, 0]), dt=0.1, states=("x", "v"), inputs=("u",))


DATA = Dataset((recording(),))
SURROGATE, ENSEMBLE = Surrogate(CART_TASK, cart_model()), cart_model(((0.0, 0.0, 1.0),) * 3)
X = rng().standard_normal((40, 3))
Y = X @ np.array([1.0, 0.0, 2.0])
DAMPED = Constraints(polynomial_library(1).bind(("x", "v")), ("dx", "dv"))
LIMITS: dict[str, Any] = {"lower": -1.0, "upper": 1.0}


def still(x):
    return np.zeros((*np.shape(x)[:-1], 1))


def fitted(estimator, **settings):
    return estimator(**settings).fit(X, Y)


# How it is named in messages, a call of it with one number, an integer that it takes.
COUNTS = [
    ("polynomial_library(degree=...)", polynomial_library, 2),
    ("polynomial_library(input_degree=...)", lambda n: polynomial_library(2, input_degree=n), 1),
    ("affine_library(degree=...)", affine_library, 2),
    ("trigonometric_library(frequencies=...)", trigonometric_library, 2),
    ("collect(steps=...)", lambda n: collect(CartEnv(), still, steps=n, rng=rng(), dt=0.1), 3),
    ("collect(episodes=...)", lambda n: collect(CartEnv(3), still, episodes=n, rng=rng(), dt=0.1), 2),
    ("collect(reset_every=...)", lambda n: collect(CartEnv(), still, steps=3, reset_every=n, rng=rng(), dt=0.1), 2),
    ("evaluate(max_steps=...)", lambda n: evaluate(CartEnv(), still, seeds=[0], max_steps=n), 2),
    ("evaluate(episodes=...)", lambda n: evaluate(CartEnv(3), still, episodes=n, rng=rng()), 2),
    ("ZeroOrderHold(steps=...)", lambda n: ZeroOrderHold(still, n), 2),
    ("random_policy(hold=...)", lambda n: random_policy(CartEnv(), n), 2),
    ("check_seeds(steps=...)", lambda n: check_seeds(CartEnv(), steps=n, rng=rng()), 2),
    ("schroeder_multisine(n=...)", lambda n: schroeder_multisine(n, dt=0.1, band=(0.2, 2.0), **LIMITS), 100),
    ("schroeder_harmonics(harmonics=...)", lambda n: schroeder_harmonics(X[:, 0], period=1.0, harmonics=n), 3),
    ("prbs(n=...)", lambda n: prbs(n, **LIMITS), 50),
    ("prbs(hold=...)", lambda n: prbs(50, hold=n, **LIMITS), 3),
    ("random_steps(n=...)", lambda n: random_steps(n, hold=2, rng=rng(), **LIMITS), 50),
    ("random_steps(hold=...)", lambda n: random_steps(50, hold=n, rng=rng(), **LIMITS), 3),
    ("random_steps(levels=...)", lambda n: random_steps(50, hold=2, levels=n, rng=rng(), **LIMITS), 3),
    ("ActiveExcitation(hold=...)",
     lambda n: ActiveExcitation(lambda _: cart_model(), states=("x", "v"), inputs=FORCE, dt=0.1, hold=n), 2),
    ("SwitchAfter(steps=...)", lambda n: SwitchAfter(still, still, steps=n), 2),
    ("delay(steps=...)", lambda n: delay(FORCE[0], n), 2),
    ("dmdc(rank=...)", lambda n: dmdc(DATA, rank=n), 2),
    ("fit_reward(members=...)", lambda n: fit_reward(DATA, members=n), 2),
    ("Task(horizon=...)", lambda n: cart_task(horizon=n), 30),
    ("return_spread(steps=...)", lambda n: return_spread(CART_TASK, ENSEMBLE, still, np.zeros(2), steps=n), 2),
    ("validate_members(horizon=...)", lambda n: validate_members(ENSEMBLE, DATA, horizon=n), 5),
    ("Surrogate(n_starts=...)", lambda n: Surrogate(CART_TASK, cart_model(), n_starts=n).starts, 3),
    ("SurrogateVectorEnv(num_envs=...)", lambda n: SurrogateVectorEnv(SURROGATE, n).reset(seed=0), 3),
    ("CrossEntropyPlanner(horizon=...)", lambda n: CrossEntropyPlanner(cart_model(), CART_TASK, horizon=n), 20),
    ("start(seed=...)", lambda n: ppo.start(SURROGATE, PPOSettings(), n), 1),
    ("start(seed=...)", lambda n: bptt.start(SURROGATE, BPTTSettings(), n), 1),
    ("start(seed=...)", lambda n: mb_mpo.start(SURROGATE, MBMPOSettings(), n), 1),
    ("start(seed=...)", lambda n: population.start(SURROGATE, PopulationSettings(size=2), n), 1),
    ("neural_model(seed=...)", lambda n: neural_model(CART_TASK, seed=n), 1),
    ("weak_form(n_windows=...)", lambda n: weak_form(DATA, polynomial_library(1), n_windows=n), 5),
    ("folds=", lambda n: select_threshold(X, Y, folds=n), 4),
    ("CriterionSubset(max_terms=...)", lambda n: fitted(CriterionSubset, max_terms=n), 2),
    ("STLSQ(max_iter=...)", lambda n: fitted(STLSQ, max_iter=n), 5),
    ("Ensemble(n_members=...)", lambda n: fitted(Ensemble, n_members=n), 5),
    ("Ensemble(block_length=...)", lambda n: fitted(Ensemble, bootstrap="blocks", block_length=n), 5),
    ("SubsetSelection(max_terms=...)", lambda n: fitted(SubsetSelection, max_terms=n), 2),
    ("SubsetSelection(min_terms=...)", lambda n: fitted(SubsetSelection, min_terms=n), 1),
    ("BestSubset(size=...)", lambda n: fitted(BestSubset, size=n), 2),
    ("BestSubset(max_terms=...)", lambda n: fitted(BestSubset, max_terms=n), 2),
    ("data_steps", lambda n: ChainSettings(data_steps=n), 100),
    ("seed", lambda n: ChainSettings(seed=n), 1),
]  # fmt: skip
# What would take longer than a test may, once the number is right.
LONG = [
    ("dyna(seed=...)", lambda n: dyna(CartEnv(), CART_TASK, seed=n)),
    ("train_population(generations=...)",
     lambda n: population.train_population(SURROGATE, generations=n, seed=0)),
    ("distill(max_terms=...)", lambda n: distill(CART_TASK, cart_model(), still, max_terms=n, rng=rng())),
    ("identify_rational(corrections=...)",
     lambda n: identify_rational(DATA, polynomial_library(1), structure=Derivative(), corrections=n)),
    ("ImplicitSubset(max_terms=...)", lambda n: fitted(ImplicitSubset, max_terms=n)),
    ("ImplicitSubset(size=...)", lambda n: fitted(ImplicitSubset, size=n)),
]  # fmt: skip
NUMBERS_OF_FUNCTIONS = [
    ("StopsAtWall(wall=...)", lambda c: StopsAtWall("x", "v", c)),
    ("Surrogate(spread=...)", lambda c: Surrogate(CART_TASK, cart_model(), spread=c)),
    ("Surrogate(caution=...)", lambda c: Surrogate(CART_TASK, ENSEMBLE, caution=c)),
    ("SurrogateEnv(discount=...)", lambda c: SurrogateEnv(SURROGATE, discount=c)),
    ("CrossEntropyPlanner(spread=...)", lambda c: CrossEntropyPlanner(cart_model(), CART_TASK, spread=c)),
    ("CrossEntropyPlanner(tail=...)", lambda c: CrossEntropyPlanner(ENSEMBLE, CART_TASK, tail=c)),
    ("validate_members(worst=...)", lambda c: validate_members(ENSEMBLE, DATA, worst=c)),
    ("return_spread(discount=...)", lambda c: return_spread(CART_TASK, ENSEMBLE, still, np.zeros(2), discount=c)),
    ("STLSQ(alpha=...)", lambda c: fitted(STLSQ, alpha=c)),
    ("Ensemble(max_samples=...)", lambda c: fitted(Ensemble, max_samples=c)),
    ("BestSubset(alpha=...)", lambda c: fitted(BestSubset, alpha=c)),
    ("TrappingSTLSQ(decay=...)", lambda c: TrappingSTLSQ(DAMPED, decay=c).fit(X[:, :2], -X[:, :2])),
]  # fmt: skip
OPTIONAL = {
    "polynomial_library(input_degree=...)", "collect(steps=...)", "collect(episodes=...)", "collect(reset_every=...)",
    "evaluate(max_steps=...)", "evaluate(episodes=...)", "random_steps(levels=...)", "dmdc(rank=...)",
    "return_spread(steps=...)", "Ensemble(block_length=...)",
}  # fmt: skip


def refuses(argument, call, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^`{re.escape(argument)}` must be .* Got {re.escape(repr(value))}\.$"):
            call(value)


def each(*owners):
    """Cases named by their arguments."""
    return [pytest.param(*owner, id=owner[0]) for owner in owners]


@pytest.mark.parametrize(("argument", "call"), each(*(owner[:2] for owner in COUNTS), *LONG))
def test_every_owner_of_a_count_refuses_what_is_no_integer(argument, call):
    nothing = [] if argument in OPTIONAL else [None]
    refuses(argument, call, [True, np.True_, 1.5, 3.0, np.float64(3.0), "3", np.nan, np.array(3), -1, *nothing])


@pytest.mark.parametrize(("argument", "call", "count"), each(*COUNTS))
def test_every_owner_of_a_count_takes_numpys_integers(argument, call, count):
    call(count)
    for kind in (np.int64, np.uint8):
        call(kind(count))


@pytest.mark.parametrize(("argument", "call"), each(*NUMBERS_OF_FUNCTIONS))
def test_every_owner_of_a_number_refuses_what_is_none(argument, call):
    refuses(argument, call, [True, "0.5", np.nan, None, np.array(0.5), 1j])


@pytest.mark.parametrize(("argument", "call"), each(*NUMBERS_OF_FUNCTIONS))
def test_every_owner_of_a_number_takes_numpys(argument, call):
    call(np.float32(0.5))


# ---- what goes on from there is Python's own


@pytest.mark.parametrize(("kind", "name", "optional"), NUMBERS, ids=str)
def test_settings_are_stored_alike_whose_numbers_ever_they_were(kind, name, optional):
    value = getattr(kind(), name)
    if value is None or (isinstance(value, float) and math.isinf(value)):
        return
    theirs = getattr(kind(**{name: np.int64(value) if isinstance(value, int) else np.float64(value)}), name)
    assert type(theirs) is type(value)
    assert json.dumps(theirs) == json.dumps(value)


def test_a_folders_configuration_is_json():
    asked = ChainSettings(seed=np.int64(3), data_steps=np.uint16(100))
    assert json.dumps(dataclasses.asdict(asked)) == json.dumps(dataclasses.asdict(ChainSettings(3, 100)))


def test_a_structures_file_is_json():
    assert json.dumps(StopsAtWall("x", "v", np.float32(-1.5)).to_dict()).endswith('"wall": -1.5}')
    assert json.dumps(StopsAtWall("x", "v", np.int64(2)).to_dict()).endswith('"wall": 2}')


def test_a_librarys_text_reads_back():
    found = polynomial_library(np.int64(3), input_degree=np.int64(1))
    assert repr(found) == repr(polynomial_library(3, input_degree=1)) == "polynomial_library(3, input_degree=1)"


def test_small_integers_do_not_wrap_around():
    np.testing.assert_array_equal(prbs(np.uint8(200), hold=np.uint8(3), **LIMITS), prbs(200, hold=3, **LIMITS))
    settings = PPOSettings(environments=np.int8(100), length=np.int8(100), minibatches=np.int8(100))
    assert settings.batch == 10_000


def test_sizes_are_keys_of_what_is_compiled_whosever_integers_they_are():
    sizes = {"environments": 4, "length": 3, "epochs": 1, "minibatches": 2, "updates": 1}
    numpys = {name: np.int64(value) for name, value in sizes.items()}
    ours, theirs = PPOSettings(**sizes, hidden=(4,)), PPOSettings(**numpys, hidden=np.array([4]))
    assert repr(theirs) == repr(ours)
    trainer = ppo.trainer(SURROGATE.form, theirs.shape)
    assert trainer is ppo.trainer(SURROGATE.form, ours.shape)
    learner = ppo.start(SURROGATE, theirs, np.int64(5))
    after, _ = jax.eval_shape(trainer, SURROGATE.data, learner, theirs.hyper)
    assert jax.tree.structure(after) == jax.tree.structure(learner)


def test_an_array_without_axes_is_told_as_what_it_is():
    for value in (np.array(3), jax.numpy.array(3)):
        with pytest.raises(ValueError, match=r"must be one. Got [aA]rray\(3"):
            check_number("f(x=...)", value, "one", whole(1))
        check_number("f(x=...)", value.item(), "one", whole(1))


def test_the_rules():
    assert [n for n in range(-1, 6) if whole(1, 4)(n)] == [1, 2, 3, 4]
    assert not whole(0)(True)
    assert not whole(0)(np.True_)
    assert not whole(0)(1.0)
    assert [not_negative(value) for value in (-1e-300, 0.0, 1e300, math.inf)] == [False, True, True, False]


def test_fields_hold_pythons_own_numbers_and_none_where_it_may_be():
    @dataclasses.dataclass(frozen=True)
    class Pair:
        a: int
        b: float | None

        def __post_init__(self):
            check_fields(self, "a b", "a finite number or None", math.isfinite, optional=True)

    pair = Pair(np.int8(3), None)
    assert (pair, type(pair.a)) == (Pair(3, None), int)
    with pytest.raises(ValueError, match=r"^`Pair\(b=...\)` must be a finite number or None. Got inf.$"):
        Pair(1, math.inf)
