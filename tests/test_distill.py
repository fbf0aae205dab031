"""Distillation: planted policies come back, bang-bang teachers survive, and the teacher alone says what is right."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial import Delaunay

from sindyrl.distill import (
    DistillSettings,
    PublishedSettings,
    compare_starts,
    convex_hull,
    distill,
    gaussian,
    label_errors,
    near,
    uniform,
)
from sindyrl.distill.clipped_fit import Labels, backward_path, clipped_least_squares, inverse_hessian, merged
from sindyrl.distill.polish import polished
from sindyrl.distill.result import Record, pareto
from sindyrl.distill.roll_out import RollOuts
from sindyrl.distill.teacher import Teacher
from sindyrl.expression import Variable, exp
from sindyrl.learn.scoring import Scorer, objective, policy_terms
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART, CART_TASK, FORCE, cart_model, cart_task, pendulum_model, pendulum_task

imitate = DistillSettings(scenarios=16, rounds=1, episodes=4, polish=0, repair=0, members=4, ridge=(1e-9,))
quick = PublishedSettings(
    steps=400, length=40, alphas=(1e-6, 1e-2), thresholds=(1e-3, 0.1, 3.0), members=6, scenarios=8
)


def rng(seed=0):
    return np.random.default_rng(seed)


def linear(x):
    """A planted policy that is often at its limits."""
    return np.clip(-3.0 * x[..., :1] - 4.0 * x[..., 1:2], -1.0, 1.0)


class Unlimited:
    """The same, which also tells what it wanted."""

    def __call__(self, x):
        return np.clip(self.unclipped(x), -1.0, 1.0)

    def unclipped(self, x):
        return -3.0 * x[..., :1] - 4.0 * x[..., 1:2]


class Remembering:
    """A teacher whose answer depends on how many states it has seen since its last reset."""

    def __init__(self):
        self.resets, self.seen = 0, 0

    def reset(self, rng):
        self.resets, self.seen = self.resets + 1, 0

    def __call__(self, x):
        assert x.shape == (2,)
        self.seen += 1
        return np.array([0.001 * self.seen])


def coefficients(sparse):
    return {name: value for name, value in zip(sparse.library.names, sparse.coef[0], strict=True) if value}


# ---- the fit through the clip


def clipped_labels(low=-1.0, high=1.0, n=600, seed=0):
    theta = rng(seed).normal(size=(n, 6)) * np.array([1.0, 0.1, 10.0, 1.0, 1.0, 5.0])
    planted = np.array([3.0, -20.0, 0.0, 0.0, 1.5, 0.0])
    return Labels(theta, np.clip(theta @ planted, low, high), low, high), planted


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.5), (-7.0, -2.0)])
def test_what_was_clipped_is_recovered_exactly_and_plain_least_squares_does_not(low, high):
    labels, planted = clipped_labels(low, high)
    fit = clipped_least_squares(labels, ridge=1e-12)
    assert fit.converged
    np.testing.assert_allclose(fit.w, planted, rtol=1e-5, atol=1e-5)
    plain = clipped_least_squares(dataclasses.replace(labels, one_sided=False), ridge=0.0)
    np.testing.assert_allclose(plain.w, np.linalg.lstsq(labels.theta, labels.y, rcond=None)[0], rtol=1e-8, atol=1e-10)
    assert np.abs(plain.w).sum() < 0.7 * np.abs(planted).sum()


def test_newton_ends_where_a_general_minimizer_does():
    """Labels that no coefficients explain, so that the optimum is a compromise."""
    labels, _ = clipped_labels()
    labels = dataclasses.replace(labels, y=np.clip(labels.y + 0.5 * rng(1).normal(size=len(labels.y)), -1.0, 1.0))
    square = (labels.theta**2).mean(axis=0)

    def loss(w):
        off = labels.theta @ w - labels.y
        off = np.where(labels.y == 1.0, np.minimum(off, 0), np.where(labels.y == -1.0, np.maximum(off, 0), off))
        return (off**2).mean() + 1e-3 * square @ w**2

    ours = clipped_least_squares(labels, ridge=1e-3)
    theirs = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    assert ours.loss == pytest.approx(loss(ours.w), rel=1e-12)
    assert ours.loss == pytest.approx(theirs.fun, rel=1e-5)
    np.testing.assert_allclose(ours.w, theirs.x, rtol=1e-2, atol=1e-3)


def test_the_backward_path_keeps_the_planted_terms_to_the_end():
    labels, planted = clipped_labels()
    path = backward_path(labels, np.ones(6, dtype=bool), 6, ridge=1e-12)
    assert [int((w != 0).sum()) for w, _ in path] == [6, 5, 4, 3, 2, 1]
    np.testing.assert_array_equal(path[3][0] != 0, planted != 0)
    np.testing.assert_allclose(path[3][0], planted, rtol=1e-5)
    losses = [loss for _, loss in path]
    assert losses[3] < 1e-9 < losses[4] < losses[5]
    many = backward_path(Labels(rng().normal(size=(200, 40)), rng(1).uniform(-1, 1, 200), -1, 1), np.ones(40, bool), 5)
    sizes = [int((w != 0).sum()) for w, _ in many]
    assert sizes[:2] == [40, 36]
    assert sizes[-5:] == [5, 4, 3, 2, 1]


def test_terms_that_are_not_allowed_stay_out():
    labels, _ = clipped_labels()
    allowed = np.array([True, False, True, True, True, True])
    assert all(w[1] == 0 for w, _ in backward_path(labels, allowed, 6))


def test_the_rest_takes_over_what_a_removed_term_did():
    """The compensated outputs are the nearest to the full ones that the other terms can make."""
    theta = rng().normal(size=(300, 5)) @ rng(1).normal(size=(5, 5))
    labels = Labels(theta, rng(2).uniform(-0.5, 0.5, 300), -1.0, 1.0)
    w = rng(3).normal(size=5)
    inverse = inverse_hessian(labels, w, np.arange(5), 0.0)
    np.testing.assert_allclose(inverse @ (theta.T @ theta / 300), np.eye(5), atol=1e-4)
    rest = [0, 1, 3, 4]
    smaller = w - inverse[:, 2] * w[2] / inverse[2, 2]
    nearest = np.linalg.lstsq(theta[:, rest], theta @ w, rcond=None)[0]
    np.testing.assert_allclose(smaller[rest], nearest, rtol=1e-4, atol=1e-4)


def test_inputs_give_up_terms_where_it_costs_least_of_their_range():
    def path(*losses):
        return [(np.array([1.0] * (len(losses) - k) + [0.0] * k), loss) for k, loss in enumerate(losses)]

    found = merged([path(0.0, 1.0, 9.0), path(0.0, 2.0, 3.0)], np.array([1.0, 10.0]))
    sizes = [tuple((coef != 0).sum(axis=1)) for coef in found]
    assert sizes == [(3, 3), (3, 2), (3, 1), (2, 1), (1, 1)]


# ---- where to begin


def test_samples_of_the_convex_hull_lie_in_it_uniformly():
    """Most recorded points crowd in a corner; the samples do not."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    points = np.concatenate([corners, rng().uniform(0.8, 1.0, (100, 2))])
    x = convex_hull(CART_TASK, points)(rng(1), 4000)
    assert (Delaunay(points).find_simplex(x, tol=1e-9) >= 0).all()
    counts = np.histogram2d(*x.T, bins=4, range=[[-1, 1], [-1, 1]])[0]
    np.testing.assert_allclose(counts, 250, atol=5 * np.sqrt(250))
    triangle = convex_hull(CART_TASK, corners[:3])(rng(2), 2000)
    assert (triangle[:, 1] <= triangle[:, 0] + 1e-12).all()


def test_hulls_that_are_flat_are_sampled_in_what_they_span():
    on_line = convex_hull(CART_TASK, np.column_stack([np.linspace(-1, 1, 9), np.full(9, 0.3)]))(rng(), 500)
    np.testing.assert_allclose(on_line[:, 1], 0.3, atol=1e-12)
    assert on_line[:, 0].min() < -0.95
    assert on_line[:, 0].max() > 0.95
    np.testing.assert_allclose(convex_hull(CART_TASK, [[0.5, -0.5]] * 3)(rng(), 4), [[0.5, -0.5]] * 4)


def test_gaussian_uniform_and_near_have_their_moments():
    x = gaussian(CART_TASK, [0.5, -0.2], 0.1)(rng(), 20_000)
    np.testing.assert_allclose(x.mean(axis=0), [0.5, -0.2], atol=0.005)
    np.testing.assert_allclose(x.std(axis=0), 0.1, rtol=0.02)
    x = uniform(CART_TASK, [-1.0, 0.0], [1.0, 0.5])(rng(), 20_000)
    np.testing.assert_allclose([x.min(axis=0), x.max(axis=0)], [[-1.0, 0.0], [1.0, 0.5]], atol=0.01)
    np.testing.assert_allclose(x.mean(axis=0), [0.0, 0.25], atol=0.02)
    points = rng(1).uniform(-1, 1, (5, 2))
    exact = near(CART_TASK, points)(rng(), 200)
    assert {tuple(row) for row in exact} == {tuple(row) for row in points}
    x = near(CART_TASK, points[:1], [0.0, 0.2])(rng(), 20_000)
    np.testing.assert_allclose(x.std(axis=0), [0.0, 0.2], atol=0.005)
    recorded = Dataset((Trajectory.uniform(np.zeros((3, 2)), np.zeros((2, 1)), dt=0.1, **NAMES),))
    np.testing.assert_array_equal(near(CART_TASK, recorded)(rng(), 3), np.zeros((3, 2)))


NAMES = {"states": ("x", "v"), "inputs": ("u",)}


def test_samples_are_on_the_manifold_and_in_the_ranges():
    task = pendulum_task()
    for sampler in (gaussian(task, 0.5, 5.0), uniform(task, -3.0, 3.0), near(task, [[1.0, 0.0, 20.0]], 0.5)):
        x = sampler(rng(), 200)
        np.testing.assert_allclose(np.hypot(x[:, 0], x[:, 1]), 1.0, rtol=1e-12)
        assert (np.abs(x[:, 2]) <= 12.0).all()
        assert np.array_equal(sampler(rng(), 7), sampler(rng(), 7))
        assert not np.array_equal(sampler(rng(), 7), sampler(rng(1), 7))


# ---- asking the teacher


def test_a_teacher_is_asked_in_batches_only_if_it_answers_them_like_single_states():
    batched = Teacher(CART_TASK, linear, rng())
    assert batched.pointwise
    x = rng(1).uniform(-1, 1, (5, 2))
    np.testing.assert_array_equal(batched(x), linear(x))
    assert batched.calls == 5
    assert not Teacher(CART_TASK, lambda x: np.array([x[0] + x[1]]), rng()).pointwise
    held = []
    assert not Teacher(CART_TASK, lambda x: held.append(x) or np.clip(held[0][..., :1], -1, 1), rng()).pointwise
    remembering = Teacher(CART_TASK, Remembering(), rng())
    assert not remembering.pointwise
    np.testing.assert_allclose(remembering(x)[:, 0], 0.001 * np.arange(1, 6))
    np.testing.assert_allclose(remembering.afresh(x, rng())[:, 0], 0.001)


def test_a_teacher_with_named_inputs_gets_these_and_is_kept_within_the_limits():
    policy = SymbolicMap(["v"], {"u": -9.0 * Variable("v")})
    x = np.array([[5.0, 0.1], [5.0, 0.2], [5.0, -0.05]])
    np.testing.assert_allclose(Teacher(CART_TASK, policy, rng())(x), [[-0.9], [-1.0], [0.45]])
    wanted = Teacher(CART_TASK, Unlimited(), rng())
    np.testing.assert_allclose(wanted.wanted(x, rng()), -3 * x[:, :1] - 4 * x[:, 1:])
    np.testing.assert_allclose(Teacher(CART_TASK, linear, rng()).wanted(x, rng()), linear(x))


@pytest.fixture(scope="module")
def scorer():
    library, _ = policy_terms(cart_task(mirror=()), cart_model(), rng())
    members = np.array([[0.0, 0.0, 1.0], [-0.5, 0.2, 0.8]])
    return Scorer(CART_TASK, cart_model(members), library)


def test_roll_outs_step_by_step_return_what_the_compiled_ones_do(scorer):
    drawn = scorer.scenarios(12, 0.1, rng(1))
    drawn = dataclasses.replace(drawn, x0=rng(2).uniform(-1.8, 1.8, drawn.x0.shape))  # some leave the ranges
    coef = rng(3).normal(size=(1, len(scorer.library)))
    compiled = scorer.returns((coef / scorer.term_scale)[None], drawn)[0]
    roll_outs = RollOuts(scorer)

    def policy(x):
        return np.clip(scorer.library.features(x) @ coef.T, -1.0, 1.0)

    before = scorer.model_steps
    seen = roll_outs.visited(Teacher(CART_TASK, policy, rng()), drawn, rng())
    np.testing.assert_allclose(seen.returns, compiled, rtol=1e-4)
    assert scorer.model_steps - before == 12 * CART_TASK.horizon
    single = roll_outs.visited(Teacher(CART_TASK, lambda x: policy(x[None])[0][:1] + 0 * x[0], rng()), drawn, rng())
    np.testing.assert_allclose(single.returns, compiled, rtol=1e-4)
    assert 12 < len(single.x) == len(seen.x) < 12 * CART_TASK.horizon
    np.testing.assert_allclose(np.sort(single.x[:, 0]), np.sort(seen.x[:, 0]), atol=1e-5)


def test_the_student_drives_and_the_teacher_labels(scorer):
    roll_outs, drawn = RollOuts(scorer), scorer.scenarios(6, 0.0, rng(1))
    teacher = Teacher(CART_TASK, linear, rng())

    def pushing(x):
        return np.ones((len(x), 1))

    away = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=0.0)
    assert away.x[:, 1].max() > 1.5  # nowhere near where the teacher goes
    np.testing.assert_array_equal(away.u, linear(away.x))
    home = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=1.0)
    assert home.x[:, 1].max() < 0.5
    half = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=0.5, length=10)
    assert len(half.x) == 60
    assert home.x[:, 1].max() < half.x[:, 1].max() < away.x[:, 1].max()


def test_a_teacher_with_memory_is_asked_in_the_order_of_each_roll_out_after_a_reset(scorer):
    policy = Remembering()
    teacher = Teacher(CART_TASK, policy, rng())
    resets = policy.resets
    seen = RollOuts(scorer).visited(teacher, scorer.scenarios(3, 0.0, rng(1)), rng(), length=4)
    assert policy.resets - resets == 3
    np.testing.assert_allclose(seen.u[:, 0], 0.001 * np.tile([1, 2, 3, 4], 3))


def test_polishing_climbs_and_is_never_worse_than_where_it_began(scorer):
    exam = scorer.scenarios(8, 0.05, rng(1))
    weights = np.zeros((1, len(scorer.library)))
    weights[0, scorer.library.index("x")], weights[0, scorer.library.index("v")] = -0.1, 0.02

    def worth(w):
        return float(objective(scorer.returns(w[None], exam)[0]))

    better = polished(scorer, weights, objective, rng(), generations=30, population=12, scenarios=8, exam=exam)
    assert worth(better) > 0.8 * worth(weights)  # costs: nearer to zero is better
    np.testing.assert_array_equal(better != 0, weights != 0)
    best = polished(scorer, better, lambda r: -objective(r), rng(), generations=1, population=4, exam=exam)
    assert -worth(best) >= -worth(better)
    stopped = scorer.model_steps
    polished(scorer, better, objective, rng(), generations=30, population=4, exam=exam, enough=-1e9)
    assert scorer.model_steps - stopped <= (6 + 1) * 32 * 8 * CART_TASK.horizon


class TwoHills:
    """In place of a scorer: returns of a single weight, with a hill at 1 and one twice as high at 4."""

    def scenarios(self, count, spread, rng):
        return None

    def returns(self, weights, scenarios):
        w = weights[:, 0, 0]
        return (np.exp(-4.0 * (w - 1.0) ** 2) + 2.0 * np.exp(-4.0 * (w - 4.0) ** 2))[:, None]


def test_longer_steps_leave_a_lesser_optimum_that_short_ones_stay_in():
    def ended(step):
        settings = {"generations": 60, "population": 16, "exam": None, "step": step}
        return polished(TwoHills(), np.array([[1.1]]), lambda r: r[:, 0], rng(), **settings)[0, 0]

    assert ended(0.05) == pytest.approx(1.0, abs=0.01)
    assert ended(2.0) == pytest.approx(4.0, abs=0.01)


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


def test_the_teacher_is_judged_by_whole_episodes(planted):
    x0 = CART_TASK.reset(rng(5), 400)
    done = simulate(cart_model(), x0, linear, steps=CART_TASK.horizon)
    expected = CART_TASK.reward(np.concatenate([done.x[:, 1:], done.u], axis=-1)).sum(axis=1).mean()
    assert planted.teacher_return == pytest.approx(expected, rel=0.35)  # 16 starts here, 400 there
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


def test_what_the_front_promises_is_what_the_scorer_finds_again(planted):
    library = planted.library
    again = Scorer(CART_TASK, cart_model(), library)
    drawn = again.scenarios(64, imitate.spread, rng(11))
    for record in planted.front[-2:]:
        returns = again.returns((record.coef / again.term_scale)[None], drawn)[0]
        assert returns.mean() == pytest.approx(record.mean, rel=0.35)


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

    def timid(x):
        return np.clip(-0.1 * x[..., :1] - 0.2 * x[..., 1:2], -1.0, 1.0)

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


def test_repairs_help_and_seeds_decide():
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


# ---- the published recipe


@pytest.fixture(scope="module")
def recipe():
    start = gaussian(CART_TASK, 0.0, 0.3)
    return distill(CART_TASK, cart_model(), Unlimited(), rng=rng(), settings=quick, method="published", start=start)


def test_the_published_recipe_takes_the_smallest_error_of_clipped_labels(recipe):
    assert [(fit.alpha, fit.threshold) for fit in recipe.grid] == [
        (a, t) for a in quick.alphas for t in quick.thresholds
    ]
    best = min(recipe.grid, key=lambda fit: fit.mse)
    assert recipe.chosen is best.record
    assert best.mse < max(fit.mse for fit in recipe.grid)
    assert recipe.ensemble.coef.shape == (quick.members, 1, 10)
    np.testing.assert_allclose(recipe.sparse.coef, recipe.ensemble.coef.mean(axis=0))
    x = rng().uniform(-1, 1, (50, 2))
    np.testing.assert_allclose(recipe.policy(x), np.clip(recipe.sparse(x), -1, 1), rtol=1e-9)


def test_its_labels_are_what_the_teacher_wanted_far_beyond_the_limits(recipe):
    assert len(recipe.x) == quick.steps * quick.copies
    np.testing.assert_array_equal(recipe.u, np.clip(Unlimited().unclipped(recipe.x), -5.0, 5.0))
    assert np.abs(recipe.u).max() > 1.5


def test_it_can_choose_by_returns_and_deploy_medians_instead(recipe):
    settings = dataclasses.replace(quick, select="returns", aggregate="median")
    found = distill(CART_TASK, cart_model(), linear, rng=rng(), settings=settings)
    assert found.chosen is max((fit.record for fit in found.grid), key=lambda record: record.kept)
    np.testing.assert_allclose(found.sparse.coef, np.median(found.ensemble.coef, axis=0))
    assert np.abs(found.u).max() == 1.0  # this teacher cannot tell what it wanted


def test_label_errors_are_those_of_clipped_outputs_member_by_member():
    library = CART_TASK.policy_library.bind(("x", "v"), ()).select(["x"])
    sparse = SparseMap(library, [[[1.0]], [[10.0]]], ("u",))
    errors = label_errors(CART_TASK, sparse, np.array([[0.5, 9.0], [-0.5, 9.0]]), np.array([[0.5], [3.0]]))
    np.testing.assert_allclose(errors.mse, [[(0.0 + 1.5**2) / 2], [(0.5**2 + 2.0**2) / 2]])
    np.testing.assert_allclose(errors.l1, [[1.5 / 2], [2.5 / 2]])


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


def test_a_teacher_of_single_states_fails_as_expensively_as_one_of_batches():
    """With a task that can end, too: leaving the ranges costs every step that was left, the end costs nothing."""
    position = Variable("x")
    ends = SymbolicMap([*CART, *FORCE], {"there": position - 0.9}, name="ends")
    task = dataclasses.replace(CART_TASK, ends=ends, mirror=())
    model = cart_model()
    scorer = Scorer(task, model, policy_terms(task, model, rng())[0])
    x0 = np.array([[-0.9, 0.8, -0.5, 0.0], [-0.9, 0.9, -0.9, 0.0]])
    scenarios = dataclasses.replace(scorer.scenarios(4, 0.0, rng()), x0=x0)

    def push(x):
        return np.full((*np.shape(x)[:-1], 1), -1.0) + 2.0 * (x[..., :1] > 0.5)

    def of_one(x):
        assert np.ndim(x) == 1
        return push(x)

    returns = [
        RollOuts(scorer).visited(Teacher(task, each, rng()), scenarios, rng()).returns for each in (push, of_one)
    ]
    np.testing.assert_allclose(*returns, rtol=1e-5)
    assert returns[0][1] > -10.0 > -100.0 > returns[0][0]  # at the end soon, and failing from soon on
