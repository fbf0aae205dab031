"""Dyna: the loop learns, counts every real step, takes bad policies back, and stops when it may."""

import dataclasses

import gymnasium
import numpy as np
import pytest

import sindyrl.envs  # noqa: F401  (registers the swing-up)
from sindyrl.collect import InteractionMeter, evaluate
from sindyrl.envs import cartpole
from sindyrl.learn import dyna as dyna_module
from sindyrl.learn import ppo
from sindyrl.learn.dyna import DynaSettings, Round, _newest, dyna, sparse_model
from sindyrl.learn.learner import PPO
from sindyrl.learn.ppo import PPOSettings
from sindyrl.learn.published import published_model
from sindyrl.library import affine_library
from sindyrl.reward_model import fit_reward
from sindyrl.structure import NextState, OnCircles
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART_TASK, CartEnv, cart_model

learner = PPOSettings(
    environments=16, length=32, epochs=6, minibatches=8, updates=5, hidden=(32,), discount=0.95, learning_rate=2e-3,
    log_std=-0.5,
)  # fmt: skip
quick = DynaSettings(
    first_steps=60, hold=3, reset_every=30, collect_steps=(20, 40), rounds=3, calls=3, patience=None, ppo=learner
)


NAMES = {"states": ("x", "v"), "inputs": ("u",)}


class Drifting(CartEnv):
    """The cart, with episodes as long as the task's and starts far out."""

    def __init__(self):
        super().__init__(length=CART_TASK.horizon)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x = self.np_random.uniform(-0.8, 0.8, 2)
        return self._x.copy(), {}


@pytest.fixture(scope="module")
def result():
    env, told = Drifting(), []
    meter = InteractionMeter(env)
    found = dyna(meter, CART_TASK, quick, seed=0, after=lambda *args: told.append(args))
    return env, meter, found, told


def test_every_real_step_is_counted_once(result):
    env, meter, found, told = result
    assert meter.counts == {"data": 60 + 20 + 40 + 40, "selection": 0, "report": 0}
    assert env.taken == meter.counts["data"] == found.cost == found.data.steps
    assert [r.data_steps for r in found.rounds] == [80, 120, 160]
    assert [args[0] for args in told] == list(found.rounds)
    per_round = quick.calls * learner.updates * learner.batch
    assert [r.model_steps for r in found.rounds] == [per_round, 2 * per_round, 3 * per_round]


def test_the_model_is_the_cart_and_the_policy_brings_it_home(result):
    env, meter, found, _ = result
    np.testing.assert_allclose(found.model.rates.median().coef, cart_model().rates.coef, atol=0.01)
    with meter.counting("report"):
        learned = evaluate(meter, found.policy, seeds=range(10), states=("x", "v"))
        idle = evaluate(meter, lambda x: np.zeros(1), seeds=range(10))
    assert learned.mean() > 0.3 * idle.mean()  # returns are costs: nearer to zero is better
    action, state = found.policy.predict(np.zeros(2))
    assert (action.shape, state) == ((1,), None)
    # Saved and read back as a closed form, it is the same policy.
    again = SymbolicMap.from_json(found.policy.symbolic().to_json())
    same = [evaluate(env, policy, seeds=[3], states=("x", "v"))[0] for policy in (again, found.policy)]
    assert same[0] == pytest.approx(same[1], rel=1e-9)


def test_only_whole_episodes_grade(result):
    _, _, found, _ = result
    assert found.rounds[0].earned is None
    assert found.rounds[1].earned == pytest.approx(float(found.data[-2].r.sum()))
    assert found.rounds[2].earned == pytest.approx(float(found.data[-1].r.sum()))


@pytest.mark.parametrize(
    ("lengths", "graded"), [((10, 40, 7), 2), ((40,), 1), ((7,), 0), ((12, 40), 2), ((5, 6, 9), 0), ((5, 40, 6, 9), 2)]
)
def test_an_episode_is_whole_unless_the_steps_ran_out(lengths, graded):
    """And counts if it could have been whole however it went, or short ones would stand for all."""
    parts = [
        Trajectory.uniform(np.zeros((n + 1, 2)), np.zeros((n, 1)), np.full(n, -1.0), dt=0.1, **NAMES) for n in lengths
    ]
    meter, fit = InteractionMeter(Drifting()), sparse_model(CART_TASK)
    loop = dyna_module._Dyna(meter, CART_TASK, quick, 0, fit, None, PPO(quick.ppo))
    earned = loop._grade(None, Dataset(tuple(parts)))
    assert earned == (pytest.approx(-np.mean(lengths[:graded])) if graded else None)


def test_a_learner_that_loses_its_numbers_is_noticed_and_goes_on_from_before():
    """Steps of 1e30 make every weight NaN at the first update; the policy is then that of before, in every round."""
    wild = dataclasses.replace(quick, rounds=2, calls=2, ppo=dataclasses.replace(quick.ppo, learning_rate=1e30))
    found = dyna(Drifting(), CART_TASK, wild, seed=10_001)
    assert [(r.ended, r.promised, r.failed) for r in found.rounds] == [("not finite", None, False)] * 2
    assert np.isfinite(found.policy(np.zeros((1, 2)))).all()


@pytest.mark.parametrize(("name", "value"), [("mode", "members"), ("leaving", "wall"), ("spread", 1.0)])
def test_what_the_surrogate_would_refuse_is_refused_before_the_first_real_step(name, value):
    with pytest.raises(ValueError, match=rf"DynaSettings\({name}="):
        DynaSettings(**{name: value})


@pytest.mark.parametrize("limit", [0.1, 2.0])
def test_an_actuator_that_is_not_the_tasks_is_refused_before_it_is_driven(limit):
    """A weaker one would not do what the model is asked for, a stronger one would be driven beyond its limits."""
    env = Drifting()
    env.action_space = gymnasium.spaces.Box(-limit, limit, (1,))
    with pytest.raises(ValueError, match="They must agree"):
        dyna(env, CART_TASK, quick, seed=0)
    assert env.taken == 0


def test_refits_compile_nothing(result):
    _, _, found, _ = result
    form = dyna_module.Surrogate(CART_TASK, found.model).form
    assert ppo.trainer(form, learner.shape)._cache_size() == 1


def test_one_seed_one_run_two_seeds_two():
    short = dataclasses.replace(quick, rounds=1, calls=1)

    def weights(seed):
        return dyna(Drifting(), CART_TASK, short, seed=seed).policy.weights[0]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


def scripted(monkeypatch, earned, **changes):
    """A run whose real returns are given; the result, and the round that each call of training began from."""
    begun, seen = [], {}

    def train(surrogate, learner, settings):
        begun.append(seen.get(id(learner), "new"))
        made = dataclasses.replace(learner, key=learner.key)
        seen[id(made)] = len(begun) - 1
        kept.append(made)
        return made, ppo.Metrics(*np.zeros((6, 1)))

    kept = []
    grades = iter(earned)
    monkeypatch.setattr(ppo, "train", train)
    monkeypatch.setattr(ppo, "exploring", lambda made, _: made)
    monkeypatch.setattr(ppo, "judge", lambda *_: np.zeros(16))
    monkeypatch.setattr(dyna_module._Dyna, "_grade", lambda *_: next(grades))
    chosen = []
    policy = ppo.policy
    monkeypatch.setattr(ppo, "policy", lambda s, made, p: (chosen.append(seen[id(made)]), policy(s, made, p))[1])
    settings = dataclasses.replace(quick, rounds=len(earned), calls=1, collect_steps=(5,), **changes)
    return dyna(Drifting(), CART_TASK, settings, seed=0), begun, chosen[-1]


def test_a_policy_that_does_worse_is_taken_back(monkeypatch):
    found, begun, chosen = scripted(monkeypatch, [-3.0, -9.0, -2.0, -5.0])
    assert [r.taken_back for r in found.rounds] == [False, True, False, True]
    assert begun == ["new", 0, 0, 2]  # round 2 goes on from round 0, not from the worse round 1
    assert chosen == 2


def test_a_policy_without_a_grade_does_not_replace_one_with(monkeypatch):
    found, _, chosen = scripted(monkeypatch, [-3.0, None])
    assert [r.earned for r in found.rounds] == [-3.0, None]
    assert chosen == 0


def test_without_rollback_the_last_policy_stays(monkeypatch):
    found, begun, chosen = scripted(monkeypatch, [-3.0, -9.0, -4.0], rollback=False)
    assert not any(r.taken_back for r in found.rounds)
    assert begun == ["new", 0, 1]
    assert chosen == 2


def test_without_grades_nothing_is_taken_back(monkeypatch):
    found, begun, chosen = scripted(monkeypatch, [None, None, None])
    assert (begun, chosen) == (["new", 0, 1], 2)
    assert not any(r.taken_back for r in found.rounds)


def test_it_ends_when_the_target_is_reached(monkeypatch):
    found, _, chosen = scripted(monkeypatch, [-3.0, -1.0, 0.0], target=-2.0, margin=1.0)
    assert [r.earned for r in found.rounds] == [-3.0, -1.0]
    assert chosen == 1


def test_episodes_that_only_grade_are_counted_as_selection():
    settings = dataclasses.replace(quick, rounds=2, calls=1, collect_steps=(10,), selection_episodes=2)
    meter = InteractionMeter(Drifting())
    found = dyna(meter, CART_TASK, settings, seed=0)
    assert meter.counts["data"] == 80
    assert 0 < meter.counts["selection"] <= 2 * 2 * CART_TASK.horizon
    assert found.cost == sum(meter.counts.values())
    assert all(r.earned is not None for r in found.rounds)


def test_a_refit_that_fails_keeps_the_model_and_says_so():
    calls = []
    fit = sparse_model(CART_TASK)

    def fails_later(data):
        calls.append(data.steps)
        if len(calls) > 1:
            raise ValueError("No such luck.")
        return fit(data)

    short = dataclasses.replace(quick, rounds=2, calls=1)
    with pytest.warns(UserWarning, match="No such luck"):
        found = dyna(Drifting(), CART_TASK, short, seed=0, fit=fails_later)
    assert calls == [60, 80]
    assert len(found.rounds) == 2
    with pytest.raises(ValueError, match="At once"):
        dyna(Drifting(), CART_TASK, short, seed=0, fit=lambda data: (_ for _ in ()).throw(ValueError("At once.")))


@pytest.mark.slow  # compiles once more
def test_a_learned_reward_takes_the_place_of_the_tasks():
    short = dataclasses.replace(quick, rounds=1, calls=1)
    found = dyna(Drifting(), CART_TASK, short, seed=0, fit_reward=fit_reward)
    assert found.reward is not None
    assert sorted(np.array(found.reward.library.names)[found.reward.support[0]]) == ["u^2", "v^2", "x^2"]
    assert dyna(Drifting(), CART_TASK, short, seed=0).reward is None


def test_the_newest_episodes_are_kept_whole():
    parts = [range(3), range(4), range(5)]
    assert _newest(tuple(parts), None) == tuple(parts)
    assert _newest(tuple(parts), 12) == tuple(parts)
    assert _newest(tuple(parts), 11) == tuple(parts[1:])
    assert _newest(tuple(parts), 9) == tuple(parts[1:])
    assert _newest(tuple(parts), 1) == (parts[2],)


def test_the_learning_rate_falls_to_nothing_over_the_steps_in_the_model(monkeypatch):
    rates = []
    train = ppo.train
    monkeypatch.setattr(ppo, "train", lambda s, made, p: (rates.append(p.learning_rate), train(s, made, p))[1])
    total = 2 * quick.calls * learner.updates * learner.batch
    dyna(Drifting(), CART_TASK, dataclasses.replace(quick, rounds=3, anneal=total), seed=0)
    expected = [2e-3 * max(1 - k / 6, 1e-5) for k in range(9)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_new_model_is_explored_anew(monkeypatch):
    begun, train = [], ppo.train

    def watched(surrogate, made, settings):
        begun.append(float(made.agent.log_std[0]))
        return train(surrogate, made, settings)

    monkeypatch.setattr(ppo, "train", watched)
    timid = dataclasses.replace(quick, calls=1, ppo=dataclasses.replace(learner, log_std=-3.0))
    for log_std in (-1.0, None):
        begun.clear()
        dyna(Drifting(), CART_TASK, dataclasses.replace(timid, log_std=log_std), seed=0)
        assert begun[0] == -3.0  # the first round begins as it was told
        assert all(value >= -1.0 for value in begun[1:]) == (log_std is not None)


def test_the_published_settings():
    published = DynaSettings.published()
    assert published.first_steps == 8000
    assert published.collect_steps == (500,)
    assert published.ppo.batch == 4000
    assert published.ppo.updates * published.calls == 10
    assert not published.rollback
    assert DynaSettings.published(rounds=3).rounds == 3


def published_task():
    """As in the paper: the next state from a quadratic library, no rail, and the circle kept by projection."""
    limits = {"x": 5.0, "cos": 1.1, "sin": 1.1, "v": 10.0, "w": 10.0}
    states = tuple(dataclasses.replace(s, lower=-limits[s.name], upper=limits[s.name]) for s in cartpole.STATES)
    structure = OnCircles(NextState(), (("cos", "sin"),))
    return dataclasses.replace(cartpole.task, states=states, structure=structure, library=affine_library(2),
                               exclude=None)  # fmt: skip


def test_the_published_model_finds_euler_steps():
    task, rng = published_task(), np.random.default_rng(0)
    x = task.structure.project(task.state_names, rng.uniform(-1.0, 1.0, (2000, 5)))
    u = rng.uniform(-1.0, 1.0, (2000, 1))
    after = x.copy()
    after[:, 0] += 0.01 * x[:, 3]
    after[:, 3] += 0.1 * u[:, 0]
    after[:, 4] += 0.15 * x[:, 2] - 0.14 * x[:, 1] * u[:, 0]
    model = published_model(task)(single_steps(x, after, u, task))
    assert model.rates.members == 20
    names, coef = model.rates.library.names, model.rates.median().coef
    position = dict(zip(np.array(names)[coef[0] != 0], coef[0][coef[0] != 0], strict=True))
    assert position == pytest.approx({"x": 1.0, "v": 0.01}, abs=1e-3)
    turning = dict(zip(np.array(names)[coef[4] != 0], coef[4][coef[4] != 0], strict=True))
    assert turning == pytest.approx({"w": 1.0, "sin": 0.15, "cos*u": -0.14}, abs=1e-3)


def single_steps(x, after, u, task):
    names = {"states": task.state_names, "inputs": task.input_names}
    pairs = zip(x, after, u, strict=True)
    return Dataset(tuple(Trajectory.uniform(np.stack([a, b]), c[None], dt=0.01, **names) for a, b, c in pairs))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first_steps", 0), ("collect_steps", ()), ("collect_steps", (0,)), ("rounds", True), ("calls", 1.5),
        ("patience", 0), ("keep_steps", 0), ("selection_episodes", None), ("target", np.inf), ("margin", 0.0),
        ("anneal", -1.0),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(quick, **{name: value})
    with pytest.raises(ValueError, match="seed"):
        dyna(Drifting(), CART_TASK, quick, seed=-1)


def test_the_rounds_are_plain_numbers(result):
    for each in result[2].rounds:
        assert isinstance(each, Round)
        assert all(isinstance(value, (int, float, str, type(None))) for value in dataclasses.asdict(each).values())


@pytest.mark.slow
def test_the_swing_up_is_learned_from_2500_real_steps():
    pytest.importorskip("dm_control")
    meter = InteractionMeter(gymnasium.make("sindyrl/CartPoleSwingUp-v0"))
    found = dyna(meter, cartpole.task, DynaSettings(target=800.0), seed=1001)
    assert meter.cost == found.cost <= 2500
    with meter.counting("report"):
        assert evaluate(meter, found.policy, episodes=3, rng=np.random.default_rng(5)).min() > 800.0
