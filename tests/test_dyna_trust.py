"""How far `dyna` trusts its model: members left out, caution, explorers, agreement, and recovery when things break."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from sindyrl.collect import InteractionMeter, NonFiniteError, UnseededEnvironmentWarning
from sindyrl.learn import dyna as dyna_module
from sindyrl.learn.dyna import DynaSettings, dyna, sparse_model
from sindyrl.learn.learner import PPO
from sindyrl.learn.member_validation import pooled_std, validate_members
from sindyrl.learn.ppo import PPOSettings
from sindyrl.learn.reward_correlation import reward_correlation
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.trajectory import Dataset
from sindyrl.uncertainty import step_spread
from tests.systems import CART, CART_TASK, CartEnv, cart_model, cart_task

settings = DynaSettings(first_steps=60, hold=3, reset_every=30, collect_steps=(40,), rounds=2, calls=3)
TRUE, WRONG, WILD = (0.0, 0.0, 1.0), (0.0, 0.0, -3.0), (60.0, 60.0, 1.0)


class Bring:
    """Brings the cart home; ``calls`` tells the policies apart and is what it knows."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, x):
        return np.array([np.clip(-0.5 * x[0] - 0.9 * x[1], -1.0, 1.0)])

    def symbolic(self, name: str = "policy") -> SymbolicMap:
        raise NotImplementedError


class Scripted:
    """A learner in NumPy whose returns in the model are given: ``judged(calls)`` -> one for each episode.

    seen : of each call of `train`, how many calls its state had, and the surrogate
    """

    steps = 10

    def __init__(self, judged=lambda calls: np.full(16, float(calls))) -> None:
        self.judged = judged
        self.seen: list = []

    def start(self, surrogate, seed):
        return np.zeros((), np.int64)

    def train(self, surrogate, state, slowed=1.0):
        self.seen.append((int(state), surrogate))
        return state + 1, {"policy_loss": 0.5, "value_loss": np.nan, "other": 3.0}

    def judge(self, surrogate, state, episodes=16):
        return np.broadcast_to(np.asarray(self.judged(int(state)), dtype=float), (16,))

    def exploring(self, state, log_std):
        return state

    def policy(self, surrogate, state):
        return Bring(int(state))

    def describe(self):
        return {"algorithm": "scripted"}


def run(learner, env=None, fit=None, **changes):
    env = CartEnv(40) if env is None else env
    return dyna(env, CART_TASK, dataclasses.replace(settings, **changes), seed=0, fit=fit, learner=learner)


# ---- any learner


def test_any_learner_with_these_methods_will_do():
    learner = Scripted()
    found = run(learner)
    assert [r.calls for r in found.rounds] == [3, 3]
    assert [r.model_steps for r in found.rounds] == [30, 60]
    assert [r.promised for r in found.rounds] == [3.0, 6.0]
    assert (found.rounds[0].policy_loss, found.rounds[0].value_loss, found.rounds[0].entropy) == (0.5, None, None)
    assert found.policy.calls in (3, 6)  # whichever did better in reality
    assert found.rounds[0].ended == "calls"


def test_ppo_describes_all_that_decides_its_numbers():
    one = PPO(PPOSettings(hidden=(8,)))
    assert one.describe()["hidden"] == (8,)
    assert set(one.describe()) == {"algorithm", *(field.name for field in dataclasses.fields(PPOSettings))}
    assert one.steps == one.settings.batch * one.settings.updates


# ---- members


def test_members_that_do_not_follow_the_real_data_are_left_out():
    learner = Scripted()
    found = run(learner, fit=lambda data: cart_model([TRUE, WRONG, TRUE, WILD]))
    for _, surrogate in learner.seen:
        assert surrogate.believed.tolist() == [0, 2]
    assert [(r.members, r.believed) for r in found.rounds] == [(4, 2), (4, 2)]
    assert found.judged.believed.tolist() == [True, False, True, False]
    assert "blew up" in found.judged.reasons[3]
    everybody = run(learner, fit=lambda data: cart_model([TRUE, WRONG, TRUE, WILD]), believable=None)
    assert [r.believed for r in everybody.rounds] == [4, 4]
    assert everybody.judged is None


def test_a_model_that_nobody_should_believe_is_told():
    with pytest.warns(UserWarning, match="Hardly any member of the model follows the newest real data"):
        found = run(Scripted(), fit=lambda data: cart_model([WILD, WILD, WILD]), rounds=1)
    assert found.rounds[0].believed == 2  # so that there still is a disagreement
    assert found.rounds[0].member_error is None


def test_the_error_of_the_model_is_on_data_that_came_after_the_fit():
    weak = cart_model([(0.0, 0.0, 0.9), (0.0, 0.0, 0.8)])
    found = run(Scripted(), fit=lambda data: weak)
    for index, told in enumerate(found.rounds):
        before = Dataset(found.data.trajectories[: len(found.data) - 1 + index])
        new = Dataset((found.data[len(found.data) - 2 + index],))
        assert len(new[0]) == 40
        report = validate_members(weak, new, scale=pooled_std(before))
        assert told.model_error == pytest.approx(np.median(report.errors), rel=1e-12)
        assert told.model_error > 0.01
        expected = reward_correlation(CART_TASK, weak, new, horizon=settings.validate_steps)
        assert told.reward_correlation == pytest.approx(expected, rel=1e-12)


# ---- how long a round goes on


def shares(*rows):
    """Returns after so many calls: each row has one value for each of 4 members."""
    return lambda calls: np.tile(rows[min(calls, len(rows) - 1)], 4)


FOUR = cart_model([TRUE, TRUE, TRUE, TRUE])


def test_a_round_ends_when_too_few_members_still_improve():
    # 4, then 3, then 1 of 4 members do better than the best so far, then 2; and the mean still rises.
    learner = Scripted(shares([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 0.5], [9, 1.9, 1.9, 0.4], [9.5, 2, 1.9, 0.4]))
    found = run(learner, fit=lambda data: FOUR, rounds=1, calls=9, patience=2, agreement=0.6)
    assert (found.rounds[0].calls, found.rounds[0].ended) == (4, "agreement")
    # Without it the same learner goes on: the objective gains more than 2 % nearly every time.
    other = run(Scripted(learner.judged), fit=lambda data: FOUR, rounds=1, calls=9, patience=2)
    assert other.rounds[0].calls > 4
    # Even short of a target, where a lack of progress alone does not end a round.
    short = run(
        Scripted(learner.judged), fit=lambda data: FOUR, rounds=1, calls=9, patience=2, agreement=0.6, target=99.0
    )
    assert (short.rounds[0].calls, short.rounds[0].ended) == (4, "agreement")
    patient = run(Scripted(learner.judged), fit=lambda data: FOUR, rounds=1, calls=9, patience=2, target=99.0)
    assert (patient.rounds[0].calls, patient.rounds[0].ended) == (9, "calls")


def test_the_share_of_members_that_gained_by_a_round():
    learner = Scripted(shares([0, 0, 0, 0], [5, 5, 5, -1]))
    assert run(learner, fit=lambda data: FOUR, rounds=1, calls=1).rounds[0].agreed == 0.75
    assert run(learner, fit=lambda data: FOUR, rounds=1, calls=1, mode="median").rounds[0].agreed is None


def test_episodes_are_told_apart_by_the_member_they_were_played_in():
    """Of 4 members three are believed; the first of them has the fourth place as well."""
    model = cart_model([TRUE, WILD, TRUE, TRUE])
    learner = Scripted(lambda calls: np.zeros(16) if calls == 0 else np.tile([-10.0, 1.0, 1.0, 4.0], 4))
    assert run(learner, fit=lambda data: model, rounds=1, calls=1).rounds[0].agreed == pytest.approx(2 / 3)


def test_a_round_ends_for_a_reason():
    flat = Scripted(lambda calls: np.zeros(16))
    assert [(r.calls, r.ended) for r in run(flat, calls=9, patience=3).rounds] == [(4, "patience")] * 2
    first = run(Scripted(), calls=9, target=4.0, margin=1.5).rounds[0]
    assert (first.calls, first.ended) == (6, "target")


def test_a_return_that_is_not_a_number_ends_the_round_and_what_was_best_stays():
    learner = Scripted(lambda calls: np.full(16, float(calls) if calls != 3 else np.nan))
    found = run(learner, rounds=1, calls=9)
    assert (found.rounds[0].calls, found.rounds[0].ended, found.rounds[0].promised) == (3, "not finite", 2.0)
    assert found.policy.calls == 2
    at_once = run(Scripted(lambda calls: np.full(16, np.inf)), rounds=1)
    assert (at_once.rounds[0].promised, at_once.rounds[0].ended, at_once.policy.calls) == (None, "not finite", 0)


# ---- caution and curiosity


TWO = cart_model([(0.0, 0.2, 1.0), (0.0, -0.2, 1.0)])  # of one cart, which disagree the more the faster it is


def test_learning_is_cautious_and_the_explorer_is_not():
    learner = Scripted()
    found = run(learner, fit=lambda data: TWO, caution=0.3, explore_steps=15, explore_calls=2, curiosity=2.0)
    signs = [np.sign(surrogate.caution) for _, surrogate in learner.seen]
    assert signs == [1, 1, 1, -1, -1] * 2
    assert learner.seen[3][1].caution == pytest.approx(-2.0 / 0.3 * learner.seen[0][1].caution)
    # What the explorer learned is forgotten: the second round goes on from the third call, not from the fifth.
    assert [calls for calls, _ in learner.seen] == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7]
    assert [r.data_steps for r in found.rounds] == [60 + 55, 60 + 110]
    assert [r.model_steps for r in found.rounds] == [50, 100]
    assert [len(part) for part in found.data] == [30, 30, 15, 40, 15, 40]


def test_the_unit_of_caution_is_the_spread_of_rewards_over_the_mean_disagreement():
    """By the spread of `sindyrl.uncertainty`, which shares nothing with it."""
    learner = Scripted()
    found = run(learner, fit=lambda data: TWO, caution=0.3, rounds=1)
    pairs = Dataset(found.data.trajectories[:2]).pairs()
    half = np.ptp(TWO.seen, axis=1) / 2.0
    apart = np.sqrt(np.mean(step_spread(TWO, pairs.x, pairs.u).between / half**2, axis=-1))
    assert learner.seen[0][1].caution == pytest.approx(0.3 * pairs.r.std() / apart.mean(), rel=1e-9)


def test_members_that_agree_to_the_last_bits_do_not_make_caution_immense():
    learner = Scripted()
    found = run(learner, fit=lambda data: FOUR, caution=0.5, rounds=1)
    assert learner.seen[0][1].caution == pytest.approx(0.5e6 * Dataset(found.data.trajectories[:2]).pairs().r.std())


def test_caution_needs_members():
    with pytest.raises(ValueError, match=r"DynaSettings\(caution=.*at least 2 members.*Got 1"):
        run(Scripted(), fit=lambda data: cart_model(TRUE), caution=0.5)


def test_the_explorers_episodes_grade_nothing():
    """They are whole, and cost the cart much; the policy's own are not."""
    found = run(Scripted(), explore_steps=40, collect_steps=(10,), rounds=1)
    assert found.rounds[0].earned is None
    graded = run(Scripted(), explore_steps=10, collect_steps=(40,), rounds=1)
    assert graded.rounds[0].earned == pytest.approx(float(graded.data[-1].r.sum()))


def test_a_cautious_learner_is_paid_less_where_the_members_disagree():
    learner = Scripted()
    run(learner, fit=lambda data: TWO, caution=1.0, rounds=1)
    surrogate = learner.seen[0][1]
    careless = dataclasses.replace(surrogate, caution=0.0)

    def lost(v):
        at = np.array([0.0, v]), np.zeros(1)
        return float(careless.step(*at).reward[0] - surrogate.step(*at).reward[0])

    assert lost(0.5) == pytest.approx(10.0 * lost(0.05), rel=1e-3)
    assert lost(0.05) > 0.0


# ---- when things break


class Broken(CartEnv):
    """Rewards that are no numbers from the ``after``-th step on, ``for_`` steps long."""

    def __init__(self, after: int, for_: int = 10**9) -> None:
        super().__init__(40)
        self.after, self.for_ = after, for_

    def step(self, action):
        x, reward, *rest = super().step(action)
        bad = self.after < self.taken <= self.after + self.for_
        return x, np.nan if bad else reward, *rest


def test_a_reward_that_is_no_number_costs_a_policy_its_turn_and_not_the_run():
    meter = InteractionMeter(Broken(60 + 40 + 25, 1))
    with pytest.warns(UserWarning, match="broken off and are lost. The environment's reward is nan"):
        found = run(Scripted(), meter, rounds=3)
    assert [r.failed for r in found.rounds] == [False, True, False]
    assert [r.taken_back for r in found.rounds][:2] == [False, True]
    assert (found.rounds[1].earned, found.rounds[1].model_error, found.rounds[1].reward_correlation) == (None,) * 3
    assert [r.data_steps for r in found.rounds] == [100, 126, 166]  # steps are paid for, whatever they brought
    assert meter.cost == found.cost == 166
    assert found.data.steps == 140
    assert found.rounds[2].model_steps == 90


def test_in_the_random_steps_it_is_an_error():
    with pytest.raises(NonFiniteError, match="reward is nan at step 11"):
        run(Scripted(), Broken(10))


def test_grading_that_breaks_off_leaves_the_policy_without_a_grade():
    with pytest.warns(UserWarning, match="grade a policy were broken off"):
        found = run(Scripted(), Broken(60 + 20), collect_steps=(20,), selection_episodes=1, rounds=1)
    assert (found.rounds[0].earned, found.rounds[0].selection_steps, found.rounds[0].failed) == (None, 1, False)


class Extended(CartEnv):
    """The cart with a third state that never changes."""

    def __init__(self) -> None:
        super().__init__(40)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def reset(self, *, seed=None, options=None):
        x, told = super().reset(seed=seed)
        return np.append(x, 0.7), told

    def step(self, action):
        x, *rest = super().step(action)
        return np.append(x, 0.7), *rest


def test_a_state_that_never_changes_is_told_and_harms_nothing():
    states = (*CART, Signal("z", "", -1.0, 1.0))
    task = cart_task(
        states=states,
        reset=lambda rng, n: np.column_stack([rng.uniform(-0.2, 0.2, (n, 2)), np.full(n, 0.7)]),
        structure=Increment(),
    )
    with pytest.warns(UserWarning, match=r"\['z'\] never changed in 60 real steps"):
        found = dyna(Extended(), task, dataclasses.replace(settings, rounds=1), seed=0, learner=Scripted())
    assert found.model.rates.median().coef[2].tolist() == [0.0] * len(found.model.rates.library)
    assert found.rounds[0].model_error < 1e-6


def test_an_environment_that_ignores_seeds_is_told():
    class Unseeded(CartEnv):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=None)

    with pytest.warns(UnseededEnvironmentWarning, match="ignores the seed"):
        run(Scripted(), Unseeded(40), rounds=1)


def test_coefficients_that_are_no_numbers_keep_the_model_before_them():
    fits, good = [], sparse_model(CART_TASK)

    def diverging(data):
        fits.append(data.steps)
        model = good(data)
        if len(fits) == 1:
            return model
        rates = model.rates
        return dataclasses.replace(
            model, rates=SparseMap(rates.library, np.full_like(rates.coef, np.nan), rates.targets)
        )

    with pytest.warns(UserWarning, match="model before it stays.*must be finite"):
        found = run(Scripted(), fit=diverging)
    assert len(found.rounds) == 2
    assert np.isfinite(found.model.rates.coef).all()


def test_promise_and_earnings_are_correlated_from_three_rounds_on(monkeypatch):
    grades = [-3.0, -2.0, -1.5, -9.0]
    monkeypatch.setattr(dyna_module._Dyna, "_grade", lambda self, *_: grades[len(self.known.rounds)])
    found = run(Scripted(), rounds=4, rollback=False)
    assert [r.promise_correlation for r in found.rounds[:2]] == [None, None]
    for k in (2, 3):
        expected = np.corrcoef([3.0, 6.0, 9.0, 12.0][: k + 1], grades[: k + 1])[0, 1]
        assert found.rounds[k].promise_correlation == pytest.approx(expected)
    assert found.rounds[2].promise_correlation > 0.9 > 0.0 > found.rounds[3].promise_correlation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("caution", np.nan), ("believable", 0.0), ("validate_steps", 0), ("agreement", 0.0), ("agreement", 1.5),
        ("explore_steps", -1), ("explore_steps", None), ("curiosity", 0.0), ("explore_calls", 0),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"DynaSettings\({name}="):
        dataclasses.replace(settings, **{name: value})


@pytest.mark.parametrize("changes", [{"mode": "median"}, {"patience": None}])
def test_agreement_needs_members_and_patience(changes):
    with pytest.raises(ValueError, match="needs mode='member'"):
        dataclasses.replace(settings, agreement=0.7, **changes)
