"""Distillation: planted policies come back, bang-bang teachers survive, and the teacher alone says what is right."""

import dataclasses

import numpy as np
import pytest

from sindyrl.distill import (
    DistillSettings,
    PublishedSettings,
    compare_starts,
    convex_hull,
    distill,
    gaussian,
    near,
    uniform,
)
from sindyrl.distill.result import Record, pareto
from sindyrl.expression import Variable, exp
from sindyrl.learn.scoring import Scorer
from sindyrl.simulate import simulate
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset, Trajectory
from tests.distill_cases import NAMES, imitate, linear, quick, rng
from tests.systems import CART, CART_TASK, FORCE, cart_model, cart_task, pendulum_model, pendulum_task


def coefficients(sparse):
    return {name: value for name, value in zip(sparse.library.names, sparse.coef[0], strict=True) if value}


# ---- the whole


@pytest.fixture(scope="module")
def planted():
    return distill(CART_TASK, cart_model(), linear, max_terms=4, rng=rng(3), settings=imitate)


def test_a_planted_sparse_policy_comes_back_from_its_own_roll_outs(planted):
    assert coefficients(planted.sparse) == pytest.approx({"x": -3.0, "v": -4.0}, rel=1e-4)
    assert planted.chosen.kept == pytest.approx(1.0, abs=0.02)
    x = rng(9).uniform(-0.2, 0.2, (100, 2))
    np.testing.assert_allclose(planted.policy(x), linear(x), atol=0.01)


def test_the_policy_carries_the_tasks_signals_and_survives_a_file(planted, tmp_path):
    assert planted.policy.inputs == CART
    assert planted.policy.outputs == FORCE
    planted.policy.save(tmp_path / "policy.json")
    assert SymbolicMap.load(tmp_path / "policy.json") == planted.policy
    assert str(planted).replace(" ", "").startswith("u=clip(")
    assert np.abs(planted.policy(rng().uniform(-2, 2, (200, 2)))).max() == 1.0


def test_every_label_is_the_teachers(planted):
    np.testing.assert_array_equal(planted.u, linear(planted.x))
    assert len(planted.x) == (16 + 4) * CART_TASK.horizon * 2  # roll-outs and as many noisy copies
    assert planted.teacher_calls == len(planted.x)
    assert planted.model_steps > 0


def earned(found, policy):
    """Mean return of whole episodes, step by step outside of JAX, in the scenarios that ``distill`` draws first."""
    drawn = Scorer(CART_TASK, cart_model(), found.library).scenarios(imitate.scenarios, imitate.spread, rng(3))
    total = 0.0
    (gains,) = drawn.coef[:, 0]  # of the force, the only term that the planted model has
    for gain, x0 in zip(gains, drawn.x0.T, strict=True):
        done = simulate(cart_model([0.0, 0.0, gain]), x0, policy, steps=CART_TASK.horizon)
        total += CART_TASK.reward(np.concatenate([done.x[1:], done.u], axis=-1)).sum()
    return total / imitate.scenarios


def test_the_teacher_is_judged_by_whole_episodes(planted):
    assert planted.teacher_return == pytest.approx(earned(planted, linear), rel=1e-4)
    assert planted.teacher_score < planted.teacher_return


def test_the_front_rises_with_the_number_of_terms_and_the_smallest_that_is_enough_is_chosen(planted):
    terms, kept = zip(*((record.terms, record.kept) for record in planted.front), strict=True)
    assert all(np.diff(terms) > 0)
    assert all(np.diff(kept) > 0)
    assert terms[-1] <= 4
    least = imitate.keep * max(kept[-1], 1.0)
    assert planted.chosen is next(record for record in planted.front if record.kept >= least)
    assert all((record.coef != 0).sum() == record.terms for record in planted.front)
    np.testing.assert_array_equal(planted.sparse.coef[0], planted.chosen.coef[planted.chosen.coef != 0])


def test_what_the_front_promises_is_what_its_policies_earn(planted):
    for record in planted.front[-2:]:

        def policy(x, coef=record.coef):
            return np.clip(planted.library.features(x) @ coef.T, -1.0, 1.0)

        assert record.mean == pytest.approx(earned(planted, policy), rel=1e-4)


def test_the_spread_of_the_members_is_their_sample_variance(planted):
    x = rng().uniform(-0.3, 0.3, (7, 2))
    outputs = planted.ensemble.predict_members(x)
    assert outputs.shape == (4, 7, 1)
    np.testing.assert_allclose(planted.variance(x), outputs.var(axis=0, ddof=1), rtol=1e-12)
    assert (planted.ensemble.support == planted.sparse.support).all()
    assert planted.variance(x).max() < 1e-3  # a teacher without noise leaves nothing to disagree about


def recordings(policy, starts, steps=30):
    done = simulate(cart_model(), starts, policy, steps=steps)
    return Dataset(tuple(Trajectory.uniform(x, u, dt=0.1, **NAMES) for x, u in zip(done.x, done.u, strict=True)))


def test_recordings_of_someone_are_a_teacher_too():
    data = recordings(linear, rng(1).uniform(-0.6, 0.6, (6, 2)))
    found = distill(CART_TASK, cart_model(), data, max_terms=3, rng=rng(), settings=imitate)
    assert coefficients(found.sparse) == pytest.approx({"x": -3.0, "v": -4.0}, rel=1e-4)
    assert found.teacher_return is None
    assert found.teacher_calls == 0
    assert len(found.x) == 6 * 30
    assert found.front[-1].kept > 0.98


def quick_task():
    """Be near the origin: the return is the share of the time spent there."""
    x, v = Variable("x"), Variable("v")
    reward = SymbolicMap([*CART, *FORCE], {"reward": exp(-400.0 * (x * x) - 4.0 * (v * v))})
    return cart_task(reward=reward, reset=lambda rng, n: rng.uniform(-1.0, 1.0, (n, 2)) * [1.5, 0.8], horizon=60)


def test_a_bang_bang_teacher_survives_where_plain_least_squares_flattens_it():
    def teacher(x):
        return np.sign(-x[..., :1] - 0.4 * x[..., 1:2])

    task, kept = quick_task(), {}
    for one_sided in (True, False):
        # Imitation alone: no help from returns but to choose among what was fitted.
        settings = dataclasses.replace(imitate, rounds=0, one_sided=one_sided)
        found = distill(task, cart_model(), teacher, max_terms=2, rng=rng(1), settings=settings)
        assert found.chosen.terms <= 2
        kept[one_sided] = found.chosen.mean / found.teacher_return
    assert kept[True] >= 0.95
    assert kept[False] < 0.8


class Reality:
    def __init__(self, *returns):
        self.returns, self.seen = returns, []

    def __call__(self, policy):
        self.seen.append(policy)
        return self.returns[len(self.seen) - 1]


def odd(x):
    """Not in the library: a front of several sizes."""
    return np.clip(np.tanh(9.0 * x[..., :1]) * -0.6 - np.sin(3.0 * x[..., 1:2]), -1.0, 1.0)


def timid(x):
    return np.clip(-0.1 * x[..., :1] - 0.2 * x[..., 1:2], -1.0, 1.0)


wide = cart_task(reset=lambda rng, n: rng.uniform(-0.9, 0.9, (n, 2)))


@pytest.mark.parametrize(
    ("returns", "calls", "chosen"), [((1.0,), 1, 0), ((-150.0, 1.0), 2, 1), ((-150.0, -190.0), 2, 0)]
)
def test_reality_has_the_last_word_within_its_budget(returns, calls, chosen):
    reality = Reality(*returns)
    settings = dataclasses.replace(imitate, attempts=2, keep=0.5)
    found = distill(wide, cart_model(), odd, max_terms=4, rng=rng(), settings=settings, validate=reality)
    assert len(found.front) > 1
    assert len(reality.seen) == calls == len(found.validations)
    assert found.policy == reality.seen[chosen]
    assert [value for _, value in found.validations] == list(returns)
    assert found.validations[chosen][0] == found.chosen.terms


def test_what_students_can_do_is_the_standard_where_it_is_more_than_the_teacher_does():
    """One term does better than this teacher, and two do as well as can be done."""
    settings = dataclasses.replace(imitate, starts=2, polish=30, repair=10, population=8, keep=0.9)
    found = distill(wide, cart_model(), timid, max_terms=3, rng=rng(), settings=settings)
    best = found.front[-1].kept
    assert best > 1.2
    assert found.chosen is next(record for record in found.front if record.kept >= 0.9 * best)
    assert found.chosen is not next(record for record in found.front if record.kept >= 0.9)


def test_reality_is_measured_by_what_the_teacher_earns_in_the_model_as_fitted():
    """Perturbed, the model is harder: half of what the teacher loses there would be forgiven in reality."""
    settings = dataclasses.replace(imitate, attempts=2, spread=1.5, trust=1.0)

    def tried(value):
        reality = Reality(value, value)
        found = distill(wide, cart_model(), linear, max_terms=4, rng=rng(), settings=settings, validate=reality)
        return found, len(reality.seen)

    found, _ = tried(0.0)
    x0 = wide.reset(rng(5), 400)
    done = simulate(cart_model(), x0, linear, steps=wide.horizon)
    fitted = wide.reward(np.concatenate([done.x[:, 1:], done.u], axis=-1)).sum(axis=1).mean()
    assert found.teacher_return < 2.0 * fitted
    assert tried((found.teacher_return + fitted) / 2.0)[1] == 2
    assert tried(fitted / 2.0)[1] == 1


def test_a_rejected_student_is_followed_by_what_keeps_most_of_the_others():
    reality = Reality(-190.0, -191.0, -192.0, -193.0)
    settings = dataclasses.replace(imitate, attempts=4, keep=0.5)
    found = distill(wide, cart_model(), odd, max_terms=4, rng=rng(), settings=settings, validate=reality)
    assert sorted(terms for terms, _ in found.validations) == [1, 2, 3, 4]  # whether or not they are on the front
    assert found.policy == reality.seen[0]


def test_a_repair_after_a_removal_earns_nearly_what_the_term_that_is_left_can():
    """Imitation leaves this teacher's damping as timid as it was; the best gain is known from trying all of them."""
    x0 = wide.reset(rng(5), 200)

    def cost(policy):
        done = simulate(cart_model(), x0, policy, steps=wide.horizon)
        return -wide.reward(np.concatenate([done.x[:, 1:], done.u], axis=-1)).sum(axis=1).mean()

    def left(generations):
        effort = {"repair": generations, "population": 8, "mirror": False, "keep": 3.0}
        settings = dataclasses.replace(imitate, **effort)
        found = distill(wide, cart_model(), timid, max_terms=2, rng=rng(1), settings=settings)
        assert found.front[0].terms == 1
        return cost(lambda x: np.clip(found.library.features(x) @ found.front[0].coef.T, -1.0, 1.0))

    best = min(cost(lambda x, gain=gain: np.clip(-gain * x[..., 1:2], -1.0, 1.0)) for gain in np.arange(0.0, 12.0, 0.5))
    assert left(10) < 1.5 * best
    assert left(0) > 2.5 * best


def test_seeds_decide():
    settings = dataclasses.replace(imitate, repair=4, polish=4, population=8, repair_scenarios=4, keep=1.5)
    told = []
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = (
        distill(
            wide, cart_model(), odd, max_terms=3, rng=rng(seed), settings=settings,
            progress=lambda stage, mean: told.append((stage, mean)),
        )
        for seed in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert a.policy == b.policy
    assert a.policy != c.policy
    assert any("polished" in record.origin for record in a.front)
    stages = [stage for stage, _ in told]
    assert stages[:3] == ["teacher", "round 1", "imitation"]
    assert "free, 3 terms" in stages
    assert all(np.isfinite(mean) for _, mean in told)


def test_data_starts_and_lengths_say_where_the_teacher_is_asked():
    data = recordings(linear, np.array([[1.7, 0.0], [-1.7, 0.0]]), steps=3)
    settings = dataclasses.replace(imitate, rounds=0, tube=0, length=5)
    start = near(CART_TASK, [[0.9, 0.9]])
    found = distill(CART_TASK, cart_model(), linear, rng=rng(), settings=settings, data=data, start=start)
    assert len(found.x) == 4 * 5 + 2 * 3
    assert (found.x[:4] == np.float32(0.9)).all()
    np.testing.assert_array_equal(found.x[20:], data.pairs().x)
    np.testing.assert_array_equal(found.u, linear(found.x))


def test_the_tube_lies_on_the_manifold():
    task, model = pendulum_task(horizon=10), pendulum_model()
    settings = dataclasses.replace(imitate, rounds=0, tube=2, noise=0.2, scenarios=4)
    start = uniform(task, [-1, -1, -5], [1, 1, 5])
    task = dataclasses.replace(task, reset=start)
    found = distill(task, model, lambda x: np.clip(-x[..., 1:2], -1, 1), max_terms=2, rng=rng(), settings=settings)
    assert len(found.x) == 4 * 10 * 3
    np.testing.assert_allclose(np.hypot(found.x[:, 0], found.x[:, 1]), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found.u, np.clip(-found.x[:, 1:2], -1, 1))


# ---- which states to learn from


def test_starts_are_compared_in_the_same_scenarios_and_at_the_same_states():
    starts = {"reset": None, "far": uniform(CART_TASK, -0.9, 0.9), "point": near(CART_TASK, [[0.01, 0.0]])}
    settings = dataclasses.replace(imitate, rounds=0, length=10)
    results = compare_starts(CART_TASK, cart_model(), odd, starts, seed=4, max_terms=3, settings=settings)
    assert [result.name for result in results] == list(starts)
    assert len({result.distilled.teacher_return for result in results}) == 1
    by_name = {result.name: result for result in results}
    assert by_name["far"].mse < by_name["point"].mse
    assert by_name["far"].l1 > 0
    assert all(result.kept == result.distilled.chosen.kept for result in results)
    with pytest.raises(ValueError, match=r"`compare_starts\(starts=...\)` must name at least one"):
        compare_starts(CART_TASK, cart_model(), odd, {}, seed=0)


def test_a_front_has_no_record_that_a_smaller_one_equals():
    def record(terms, kept):
        return Record(terms, kept, 0.0, 0.0, np.zeros((1, 1)), "")

    front = pareto([record(3, 0.5), record(1, 0.1), record(2, 0.5), record(4, 0.4), record(5, 0.9)])
    assert [(each.terms, each.kept) for each in front] == [(1, 0.1), (2, 0.5), (5, 0.9)]


# ---- wrong use


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DistillSettings, {"scenarios": 0}, r"`DistillSettings\(scenarios=...\)` must be .* of at least 1. Got 0"),
        (DistillSettings, {"rounds": 1.5}, r"`DistillSettings\(rounds=...\)` must be .* at least 0. Got 1.5"),
        (DistillSettings, {"members": 1}, r"`DistillSettings\(members=...\)` must be an integer of at least 2"),
        (DistillSettings, {"length": 0}, r"`DistillSettings\(length=...\)` must be an integer of at least 1"),
        (DistillSettings, {"share": 1.2}, r"`DistillSettings\(share=...\)` must be a probability. Got 1.2"),
        (DistillSettings, {"keep": np.nan}, r"`DistillSettings\(keep=...\)` must be a finite number of at least 0"),
        (DistillSettings, {"ridge": ()}, r"`DistillSettings\(ridge=...\)` must be finite numbers"),
        (DistillSettings, {"even": (-1.0,)}, r"`DistillSettings\(even=...\)` must be finite numbers"),
        (PublishedSettings, {"steps": 0}, r"`PublishedSettings\(steps=...\)` must be an integer of at least 1"),
        (PublishedSettings, {"aggregate": "best"}, r"`PublishedSettings\(aggregate=...\)` must be .* Got 'best'"),
        (PublishedSettings, {"limit": 0.5}, r"`PublishedSettings\(limit=...\)` must be at least 1"),
        (PublishedSettings, {"alphas": (-1.0,)}, r"`PublishedSettings\(alphas=...\)` must be finite numbers"),
        (PublishedSettings, {"noise": -1.0}, r"`PublishedSettings\(noise=...\)` must be a finite number of at least 0"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": pendulum_model()}, r"`distill\(task=..., model=...\)` must agree on names"),
        ({"model": cart_model(dt=0.2)}, r"`distill\(task=..., model=...\)` must .* Got 0.1 s and 0.2 s"),
        ({"max_terms": 0}, r"`distill\(max_terms=...\)` must be an integer of at least 1. Got 0"),
        ({"method": "best"}, r"`distill\(method=...\)` must be one of \['closed_loop', 'published'\]. Got 'best'"),
        ({"method": "published", "settings": imitate}, r"`distill\(method='published', settings=...\)` must be"),
        ({"settings": quick, "noise": np.zeros(2)}, r"takes a policy for a teacher, and no .* Got noise"),
        ({"teacher": SymbolicMap(["height"], {"u": 0.0})}, r"`distill\(teacher=...\)` reads \['height'\]"),
        ({"teacher": lambda x: np.zeros(2)}, r"`distill\(teacher=...\)` must return 1 inputs for each state. Got .*2"),
        ({"teacher": lambda x: np.nan * x[..., :1]}, r"`distill\(teacher=...\)` returned \[nan\] at state \["),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(changes, message):
    arguments = {"task": CART_TASK, "model": cart_model(), "teacher": linear, "rng": rng()} | changes
    with pytest.raises(ValueError, match=message):
        distill(**arguments)


def test_wrong_teachers_and_samplers_are_named():
    with pytest.raises(TypeError, match=r"`distill\(teacher=...\)` must be a policy or a Dataset. Got int"):
        distill(CART_TASK, cart_model(), 3, rng=rng())
    foreign = Dataset((Trajectory.uniform(np.zeros((3, 1)), np.zeros((2, 1)), dt=0.1, states=("y",), inputs=("u",)),))
    with pytest.raises(ValueError, match=r"`distill\(teacher=...\)` must record \['x', 'v'\] and \['u'\]. Got \['y'\]"):
        distill(CART_TASK, cart_model(), foreign, rng=rng())
    for call, message in (
        (lambda: gaussian(CART_TASK, [0.0], 1.0), r"`gaussian\(mean=...\)` must be a finite number, or 2"),
        (lambda: gaussian(CART_TASK, 0.0, -1.0), r"`gaussian\(std=...\)` must not be negative"),
        (lambda: uniform(CART_TASK, 1.0, 0.0), r"`uniform\(low=..., high=...\)` must have low <= high"),
        (lambda: near(CART_TASK, np.zeros((0, 2))), r"`near\(states=...\)` must have shape \(n, 2\)"),
        (lambda: near(CART_TASK, [[0.0, np.nan]]), r"`near\(states=...\)` must be finite. Row 0"),
        (lambda: convex_hull(CART_TASK, foreign), r"`convex_hull\(states=...\)` must record \['x', 'v'\]. Got \['y'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
