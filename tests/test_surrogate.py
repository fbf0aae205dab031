"""The learned system as an environment: the model's own steps, leaving never pays, caution costs, no refit compiles."""

import dataclasses
import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sindyrl.collect import UniformPolicy, collect
from sindyrl.envs.surrogate import Surrogate, _jitted, by_member, transition
from sindyrl.envs.surrogate_env import SurrogateEnv
from sindyrl.expression import Variable, sqrt
from sindyrl.library import affine_library, polynomial_library
from sindyrl.model import Model
from sindyrl.regression import STLSQ, Ensemble
from sindyrl.reward_model import fit_reward
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment, NextState, OnCircles
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART_TASK, cart_model, cart_task, pendulum_model
from tests.systems import pendulum_task as pendulum_without_starts

MEMBERS = ((0.0, -0.1, 1.0), (0.0, -0.2, 1.1), (0.3, -0.6, 0.5))


def pendulum_task(**changes):
    def hanging(rng, n):
        tilt = 0.1 * rng.standard_normal(n)
        return np.column_stack([-np.cos(tilt), np.sin(tilt), np.zeros(n)])

    return pendulum_without_starts(**{"reset": hanging} | changes)


def batch(task, model, n=64, seed=0):
    rng = np.random.default_rng(seed)
    x = model.structure.project(task.state_names, rng.uniform(*model.seen.T, (n, len(task.states))))
    return x, rng.uniform(task.action_low, task.action_high, (n, len(task.inputs)))


@pytest.mark.parametrize("system", ["cart", "pendulum"])
def test_in_double_precision_a_step_is_the_models_and_the_reward_the_tasks(system):
    task, model = (CART_TASK, cart_model(MEMBERS)) if system == "cart" else (pendulum_task(), pendulum_model())
    x, u = batch(task, model)
    surrogate = Surrogate(task, model)
    with jax.enable_x64(True):
        after, reward, left, _ = map(
            np.asarray,
            transition(surrogate.form)(surrogate.arguments(np.float64), np.zeros(len(x), int), x.T, u.T),
        )
    expected = model.step(x, u)
    inside = ~left
    assert inside.sum() > 20
    np.testing.assert_allclose(after.T[inside], expected[inside], rtol=1e-14, atol=1e-15)
    both = dict(zip((*task.state_names, *task.input_names), [*after, *u.T], strict=True))
    columns = np.column_stack([both[name] for name in task.reward.input_names])
    np.testing.assert_allclose(reward[inside], task.reward(columns)[inside, 0], rtol=1e-14, atol=1e-15)


def test_median_mean_and_member_are_three_models():
    x, u = batch(CART_TASK, cart_model(MEMBERS))
    model = cart_model(MEMBERS)
    expected = {
        "median": np.median(MEMBERS, axis=0),
        "mean": np.mean(MEMBERS, axis=0),
    }
    for mode, coef in expected.items():
        after = Surrogate(CART_TASK, model, mode=mode).step(x, u, member=2).x
        np.testing.assert_allclose(after, cart_model(coef).step(x, u), rtol=1e-5, atol=1e-6)
    for index, coef in enumerate(MEMBERS):
        after = Surrogate(CART_TASK, model, mode="member").step(x, u, member=index).x
        np.testing.assert_allclose(after, cart_model(coef).step(x, u), rtol=1e-5, atol=1e-6)


def test_each_episode_of_a_batch_has_its_own_member():
    surrogate = Surrogate(CART_TASK, cart_model(MEMBERS), mode="member")
    x, u = batch(CART_TASK, surrogate.model, 9)
    member = np.arange(9) % 3
    after = _jitted(surrogate.form)(surrogate.data, member, x.T.astype(np.float32), u.T.astype(np.float32)).x
    for i in range(9):
        alone = cart_model(MEMBERS[member[i]]).step(x[i], u[i])
        np.testing.assert_allclose(np.asarray(after)[:, i], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rewards", [1, 3])
def test_alone_each_member_steps_and_earns_as_among_the_others(rewards):
    reward = square_reward()
    coef = np.stack([reward.coef * factor for factor in (1.0, 2.0, 3.0)[:rewards]])
    reward = dataclasses.replace(reward, coef=coef)
    surrogate = Surrogate(CART_TASK, cart_model(MEMBERS), mode="member", reward=reward)
    x, u = (part.T.astype(np.float32) for part in batch(CART_TASK, surrogate.model, 9))
    step = transition(surrogate.form)
    apart = jax.vmap(lambda data: step(data, np.zeros(9, int), x, u))(by_member(surrogate.data))
    for index in range(3):
        together = step(surrogate.data, np.full(9, index), x, u)
        for one, other in zip(apart, together, strict=True):
            np.testing.assert_allclose(one[index], other, rtol=1e-6, atol=1e-6)
    assert np.ptp(apart.x, axis=0).max() > 0.01


def test_new_coefficients_compile_nothing():
    surrogate = Surrogate(CART_TASK, cart_model(MEMBERS), mode="member", reward=square_reward())
    x, u = batch(CART_TASK, surrogate.model)
    first = surrogate.step(x, u).x
    compiled = _jitted(surrogate.form)
    size, misses = compiled._cache_size(), _jitted.cache_info().misses
    # The step length of recorded data varies in its last bits; that must not compile either.
    refit = cart_model(np.array(MEMBERS) + 0.5, dt=0.1 * (1 + 1e-12))
    other = dataclasses.replace(surrogate, model=refit, reward=square_reward(-2.0), seed=5, reward_range=(-3.0, 0.0))
    second = other.step(x, u).x
    assert not np.allclose(first, second)
    assert (compiled._cache_size(), _jitted.cache_info().misses) == (size, misses)
    # The count is no fiction: another batch compiles.
    other.step(x[:3], u[:3])
    assert compiled._cache_size() == size + 1


# ---- caution


def disagreement(model, x, u, members=None):
    """By NumPy, from the steps of the members one by one."""
    chosen = range(model.rates.members) if members is None else members
    after = np.stack([dataclasses.replace(model, rates=model.rates.member(i)).step(x, u) for i in chosen])
    half = np.ptp(model.seen, axis=1) / 2.0
    return np.minimum(np.sqrt(((after.std(axis=0, ddof=1) / np.where(half > 0, half, 1.0)) ** 2).mean(axis=1)), 1.0)


def in_double(surrogate, x, u, member=0):
    """One step with 16 digits: x (n, state), reward, left."""
    with jax.enable_x64(True):
        data, members = surrogate.arguments(np.float64), np.full(len(x), member)
        after, reward, left, _ = map(np.asarray, jax.jit(transition(surrogate.form))(data, members, x.T, u.T))
    return after.T, reward, left


@pytest.mark.parametrize("mode", ["median", "mean", "member"])
def test_caution_costs_the_disagreement_of_the_members(mode):
    # Learned and far above the failing of the ranges, so that nothing is cut off.
    model = cart_model(MEMBERS, seen=((-0.4, 0.4), (-0.6, 0.6)))
    x, u = batch(CART_TASK, model)
    plain = Surrogate(CART_TASK, model, square_reward(), mode=mode)
    after, without, left = in_double(plain, x, u, 2)
    assert not left.any()
    apart = disagreement(model, x, u)
    assert 0 < apart.min() < 0.1 * apart.max() < 0.1
    for caution in (0.5, 3.0, -2.0):
        same, reward, _ = in_double(dataclasses.replace(plain, caution=caution), x, u, 2)
        np.testing.assert_array_equal(same, after)
        np.testing.assert_allclose(reward, without - caution * apart, rtol=1e-12, atol=1e-12)


def test_without_caution_nothing_is_computed_and_with_an_argument_of_zero_nothing_changes():
    x, u = batch(CART_TASK, cart_model(MEMBERS))
    plain = Surrogate(CART_TASK, cart_model(MEMBERS), mode="median")
    assert plain.form == dataclasses.replace(plain, mode="mean", members=(0, 2)).form
    assert plain.data[4:] == (None,) * 4
    careful = dataclasses.replace(plain, caution=2.0)
    assert careful.form != plain.form
    x, u = x.T.astype(np.float32), u.T.astype(np.float32)
    nobody = np.zeros(x.shape[1], np.int32)
    today = _jitted(plain.form)(plain.data, nobody, x, u)
    weightless = _jitted(careful.form)(careful.data._replace(caution=np.float32(0.0)), nobody, x, u)
    for one, other in zip(today, weightless, strict=True):
        np.testing.assert_array_equal(one, other)


def test_changing_caution_or_who_is_believed_compiles_nothing():
    members = np.array(MEMBERS)
    surrogate = Surrogate(CART_TASK, cart_model(members), mode="member", caution=1.0)
    x, u = batch(CART_TASK, surrogate.model)
    first = surrogate.step(x, u, 1).reward
    compiled = _jitted(surrogate.form)
    size, misses = compiled._cache_size(), _jitted.cache_info().misses
    seen = [first]
    for changes in ({"caution": 30.0}, {"caution": -30.0}, {"members": (0, 2)}, {"members": [True, True, False]}):
        seen.append(dataclasses.replace(surrogate, **changes).step(x, u, 1).reward)
    assert len({reward.tobytes() for reward in seen}) == len(seen)
    assert (compiled._cache_size(), _jitted.cache_info().misses) == (size, misses)


@pytest.mark.parametrize("members", [(0, 2), [False, True, True], np.array([1])])
def test_only_members_that_are_believed_count(members):
    model = cart_model(MEMBERS)
    x, u = batch(CART_TASK, model)
    chosen = np.flatnonzero(members) if isinstance(members, list) else np.array(members)
    for mode, summary in (("median", np.median), ("mean", np.mean)):
        after = in_double(Surrogate(CART_TASK, model, mode=mode, members=members), x, u)[0]
        expected = cart_model(summary(np.array(MEMBERS)[chosen], axis=0)).step(x, u)
        np.testing.assert_allclose(after, expected, rtol=1e-13, atol=1e-14)
    for index in range(3):
        after = in_double(Surrogate(CART_TASK, model, mode="member", members=members), x, u, index)[0]
        expected = cart_model(MEMBERS[chosen[index % len(chosen)]]).step(x, u)
        np.testing.assert_allclose(after, expected, rtol=1e-13, atol=1e-14)
    if len(chosen) > 1:
        plain = Surrogate(CART_TASK, model, square_reward(), members=members)
        careful = dataclasses.replace(plain, caution=1.0)
        apart = in_double(plain, x, u)[1] - in_double(careful, x, u)[1]
        np.testing.assert_allclose(apart, disagreement(model, x, u, chosen), rtol=1e-11, atol=1e-13)


def test_no_caution_makes_leaving_pay_and_no_optimism_rewards_it():
    model = cart_model(((0.0, 0.0, 1.0), (0.0, 0.0, 40.0), (0.0, np.float32(1e38), 1.0)))
    x, u = np.array([[0.0, 0.5], [1.95, 2.0]]), np.array([[0.5], [1.0]])
    for members, apart in (((0, 1), disagreement(model, x, u, (0, 1))), ((0, 2), [1.0, 1.0])):
        plain = Surrogate(CART_TASK, model, mode="member", members=members)
        reward, left = in_double(plain, x, u)[1:]
        np.testing.assert_array_equal(left, [False, True])
        for caution in (1e6, 5.0, -5.0):
            found = in_double(dataclasses.replace(plain, caution=caution), x, u)[1]
            expected = max(reward[0] - caution * apart[0], CART_TASK.failure_reward)
            np.testing.assert_allclose(found, [expected, CART_TASK.failure_reward], rtol=1e-9)


def test_a_state_that_never_moved_is_measured_in_its_own_unit():
    model = cart_model(MEMBERS, seen=((0.3, 0.3), (-0.6, 0.6)))
    x, u = np.array([[0.3, 0.2]]), np.array([[0.7]])
    careful = Surrogate(CART_TASK, model, square_reward(), caution=1.0)
    plain = dataclasses.replace(careful, caution=0.0)
    lost = in_double(plain, x, u)[1] - in_double(careful, x, u)[1]
    np.testing.assert_allclose(lost, disagreement(model, x, u), rtol=1e-11)


# ---- leaving


def square_reward(scale=-1.0):
    """``scale (x^2 + 0.2 v^2 + 0.1 u^2)``: with -1 the cart's own."""
    library = polynomial_library(2, bias=True).bind(("x", "v"), ("u",))
    coef = np.zeros((1, len(library)))
    for name, value in {"x^2": 1.0, "v^2": 0.2, "u^2": 0.1}.items():
        coef[0, library.index(name)] = scale * value
    return SparseMap(library, coef, ("reward",))


def discounted(rewards, discount):
    return float(np.sum(np.asarray(rewards) * discount ** np.arange(len(rewards))))


@pytest.mark.parametrize("reward", [None, square_reward()], ids=["analytic", "learned"])
@pytest.mark.parametrize("leaving", ["penalty", "bootstrap"])
def test_leaving_costs_the_smallest_reward_and_the_state_stays(reward, leaving):
    surrogate = Surrogate(CART_TASK, cart_model(), reward, leaving=leaving)
    x, u = np.array([[1.95, 2.0], [-1.9, -2.0], [0.0, 0.5]]), np.array([[1.0], [-1.0], [0.0]])
    after, rewards, left, _ = surrogate.step(x, u)
    np.testing.assert_array_equal(left, [True, True, False])
    np.testing.assert_array_equal(after[:2], x[:2].astype(np.float32))
    assert rewards[:2] == pytest.approx(CART_TASK.failure_reward)
    inside = batch(CART_TASK, surrogate.model, 512)
    assert (surrogate.step(*inside)[1] >= CART_TASK.failure_reward).all()


@pytest.mark.parametrize("discount", [0.9, 0.99, 1.0])
def test_running_out_of_the_box_is_worth_no_more_than_any_way_to_stay(discount):
    # All rewards are negative: an early end without a penalty would be the best there is.
    env = SurrogateEnv(Surrogate(CART_TASK, cart_model()), discount=discount)
    rng = np.random.default_rng(0)

    def play(act):
        x, _ = env.reset(options={"state": np.array([1.0, 0.5])})
        rewards, over = [], False
        while not over:
            x, reward, terminated, truncated, info = env.step(act(x))
            rewards.append(reward)
            over = terminated or truncated
        return discounted(rewards, discount), info["left"], len(rewards)

    out, left, steps = play(lambda x: np.array([1.0], np.float32))
    assert left
    assert steps < 20
    stays = 0
    for gain in rng.uniform(0.5, 3.0, 12):
        value, left, _ = play(lambda x, k=gain: np.clip(-k * (x[:1] + x[1:]), -1.0, 1.0))
        if not left:
            stays += 1
            assert out < value
    assert stays >= 6
    # As the scorer of the policy search has it: stay put and earn the smallest reward to the end.
    path = simulate(cart_model(), np.array([1.0, 0.5]), np.ones((40, 1)))
    alive = path.x[1 : path.valid + 1]
    inside = -(alive[:, 0] ** 2 + 0.2 * alive[:, 1] ** 2 + 0.1)
    scored = [*inside, *[CART_TASK.failure_reward] * (40 - len(inside))]
    assert out == pytest.approx(discounted(scored, discount), rel=1e-5)


def test_a_learned_reward_is_believed_within_its_range_only():
    promising = square_reward(+100.0)
    x, u = np.array([[1.0, 0.0]]), np.array([[0.0]])
    assert Surrogate(CART_TASK, cart_model(), promising).step(x, u)[1] == pytest.approx(100.0, rel=1e-5)
    assert Surrogate(CART_TASK, cart_model(), promising, reward_range=(-2.0, 1.5)).step(x, u)[1] == pytest.approx(1.5)
    gloomy = Surrogate(CART_TASK, cart_model(), square_reward(-1e6), reward_range=(-1e9, 0.0))
    assert gloomy.step(x, u)[1] == pytest.approx(CART_TASK.failure_reward)


def test_a_reward_that_is_not_a_number_is_no_better_than_failing():
    x = Variable("x")
    task = cart_task(reward=SymbolicMap(["x"], {"r": sqrt(x)}), mirror=(), failure_reward=-1.0)
    rewards = Surrogate(task, cart_model()).step(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.zeros((2, 1)))[1]
    np.testing.assert_allclose(rewards, [-1.0, 1.0], rtol=1e-6)


def test_a_model_that_blows_up_has_left():
    after, reward, left, _ = Surrogate(CART_TASK, cart_model((0.0, 1e30, 1.0))).step(np.ones((1, 2)), np.ones((1, 1)))
    assert left.all()
    assert np.isfinite(after).all()
    assert reward == pytest.approx(CART_TASK.failure_reward)


# ---- where episodes begin


def test_starts_follow_their_seed_and_their_sampler():
    one = Surrogate(CART_TASK, cart_model(), seed=1)
    np.testing.assert_array_equal(one.starts, Surrogate(CART_TASK, cart_model(), seed=1).starts)
    assert (one.starts != Surrogate(CART_TASK, cart_model(), seed=2).starts).any()
    fixed = Surrogate(CART_TASK, cart_model(), reset=lambda rng, n: np.tile([0.5, -0.5], (n, 1)))
    assert (fixed.starts == [0.5, -0.5]).all()


def test_a_share_of_the_starts_is_spread_over_the_box_on_the_manifold():
    task, model = pendulum_task(), pendulum_model()
    plain, spread = (Surrogate(task, model, n_starts=200, spread=share).starts for share in (0.0, 0.5))
    np.testing.assert_array_equal(plain[:100], spread[:100])
    box = spread[100:]
    np.testing.assert_allclose(np.hypot(box[:, 0], box[:, 1]), 1.0, rtol=1e-12)
    low, high = model.seen[2]
    assert ((box[:, 2] >= low) & (box[:, 2] <= high)).all()
    assert np.ptp(box[:, 2]) > 0.9 * (high - low)


# ---- as a Gymnasium environment


@pytest.mark.parametrize("leaving", ["penalty", "bootstrap"])
def test_gymnasiums_checker_finds_nothing(leaving):
    with warnings.catch_warnings(action="error", category=UserWarning):
        check_env(SurrogateEnv(Surrogate(CART_TASK, cart_model(), leaving=leaving)), skip_render_check=True)


def test_one_seed_one_episode_and_members_change_between_episodes():
    env = SurrogateEnv(Surrogate(CART_TASK, cart_model(MEMBERS), mode="member"))

    def last(seed):
        env.reset(seed=seed, options={"state": (0.1, 0.2)})
        return [env.step(np.array([0.3], np.float32))[0] for _ in range(10)][-1]

    np.testing.assert_array_equal(last(3), last(3))
    assert len({tuple(last(seed)) for seed in range(12)}) == len(MEMBERS)


def test_leaving_truncates_with_bootstrap_and_terminates_with_penalty():
    for leaving, flags in (("bootstrap", (False, True)), ("penalty", (True, False))):
        env = SurrogateEnv(Surrogate(CART_TASK, cart_model(), leaving=leaving))
        env.reset(options={"state": (1.95, 2.0)})
        _, _, terminated, truncated, info = env.step(np.array([1.0], np.float32))
        assert (terminated, truncated, info) == (*flags, {"left": True})
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.array([1.0], np.float32))


def test_an_episode_is_truncated_at_the_horizon():
    env = SurrogateEnv(Surrogate(CART_TASK, cart_model()))
    env.reset(options={"state": (0.0, 0.0)})
    flags = [env.step(np.zeros(1, np.float32))[2:] for _ in range(CART_TASK.horizon)]
    assert [truncated for _, truncated, _ in flags] == [False] * (CART_TASK.horizon - 1) + [True]
    assert not any(terminated for terminated, _, _ in flags)


def test_the_librarys_own_collection_steps_it():
    env = SurrogateEnv(Surrogate(CART_TASK, cart_model()))
    data = collect(env, UniformPolicy([-1.0], [1.0]), steps=60, rng=np.random.default_rng(0))
    assert (data.steps, data.states, data.dt) == (60, ("x", "v"), pytest.approx(0.1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "best"}, "mode"),
        ({"leaving": "reward"}, "leaving"),
        ({"n_starts": 0}, "n_starts"),
        ({"spread": 1.0}, "spread"),
        ({"reward_range": (1.0, 1.0)}, "reward_range"),
        ({"caution": np.nan}, "caution"),
        ({"caution": 1.0}, "at least 2 members"),
        ({"caution": 1.0, "model": cart_model(MEMBERS), "members": (1,)}, "at least 2 members"),
        ({"members": ()}, "members"),
        ({"members": (1,)}, "members"),
        ({"members": (True, True)}, "members"),
        ({"members": (0.5,)}, "members"),
        ({"model": cart_model(dt=0.2)}, "time step"),
        ({"task": pendulum_task()}, "names"),
        ({"reward": SparseMap(polynomial_library(1).bind(("y",), ()), np.ones((1, 1)), ("r",))}, "reward"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Surrogate(**({"task": CART_TASK, "model": cart_model()} | changes))


# ---- learned rewards


def recorded(n=120, noise=0.0, seed=0):
    """The cart driven at random, with rewards ``-(x^2 + 0.2 v^2 + 0.1 u^2)`` of the state after the step."""
    rng = np.random.default_rng(seed)
    u = rng.uniform(-1.0, 1.0, (n, 1))
    x = simulate(cart_model(), np.array([0.3, 0.0]), u).x
    r = square_reward()(np.column_stack([x[1:], u]))[:, 0] + noise * rng.standard_normal(n)
    return Dataset((Trajectory.uniform(x, u, r, dt=0.1, states=("x", "v"), inputs=("u",)),))


def test_a_planted_reward_is_found_at_the_state_after_the_step():
    found = fit_reward(recorded(), rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.median().coef, square_reward().coef, atol=1e-9)
    assert str(found).count("^2") == 3
    before = fit_reward(shifted(recorded()))
    assert np.abs(before.median().coef - square_reward().coef).max() > 1e-3  # the published pairing is another reward


def shifted(data):
    (one,) = data.trajectories
    return Trajectory.uniform(one.x[:-1], one.u[1:], one.r[1:], dt=0.1, states=one_names(one), inputs=("u",))


def one_names(trajectory):
    return tuple(trajectory.states)


def test_the_spread_of_the_ensemble_grows_away_from_the_data():
    found = fit_reward(recorded(noise=0.02), members=20, rng=np.random.default_rng(0))
    near, far = np.array([[0.1, 0.1, 0.0]]), np.array([[20.0, 20.0, 1.0]])
    assert 0 < found.variance(near)[0, 0] < found.variance(far)[0, 0]


def test_an_estimator_with_members_of_its_own_keeps_them():
    own = Ensemble(STLSQ(0.05), n_members=5, random_state=0)
    found = fit_reward(recorded(), regressor=own)
    assert found.members == 5
    assert found.median().coef == pytest.approx(square_reward().coef, abs=1e-8)


def test_a_reward_that_depends_on_part_of_the_states_reads_only_those():
    library = polynomial_library(2, bias=True).bind(("v",), ())
    assert fit_reward(recorded(), library).library.variables == ("v",)


def test_bad_reward_data_is_refused():
    (one,) = recorded().trajectories
    silent = Trajectory.uniform(one.x, one.u, dt=0.1, states=("x", "v"), inputs=("u",))
    with pytest.raises(ValueError, match="rewards"):
        fit_reward(silent)
    with pytest.raises(ValueError, match="10 steps"):
        fit_reward(Trajectory.uniform(one.x[:6], one.u[:5], one.r[:5], dt=0.1, states=("x", "v"), inputs=("u",)))
    with pytest.raises(ValueError, match="members"):
        fit_reward(one, members=0)


# ---- circles


def test_a_next_state_model_stays_on_its_circle():
    states, library = ("cos", "sin", "w"), affine_library(1)
    task = pendulum_task(structure=OnCircles(NextState(), (("cos", "sin"),)), library=library)
    bound = library.bind(states, task.input_names)
    coef = np.zeros((3, len(bound)))
    for row, (name, value) in enumerate((("cos", 1.3), ("sin", 0.9), ("w", 1.0))):
        coef[row, bound.index(name)] = value
    model = Model(SparseMap(bound, coef, task.structure.targets(states)), task.structure, task.states, task.inputs,
                  task.dt, np.array([[-1, 1], [-1, 1], [-5, 5]]))  # fmt: skip
    x, u = batch(task, model)
    free = np.column_stack([1.3 * x[:, 0], 0.9 * x[:, 1]])
    expected = free / np.linalg.norm(free, axis=1, keepdims=True)
    np.testing.assert_allclose(model.step(x, u)[:, :2], expected, rtol=1e-12)
    np.testing.assert_allclose(Surrogate(task, model).step(x, u)[0][:, :2], expected, rtol=1e-5)
    np.testing.assert_allclose(model.step_map()(np.column_stack([x, u]))[:, :2], expected, rtol=1e-12)
    np.testing.assert_allclose(task.structure.project(states, 3.0 * x)[:, :2], x[:, :2], rtol=1e-12)


def test_circles_name_pairs_of_states():
    with pytest.raises(ValueError, match="pairs"):
        OnCircles(Increment(), (("cos", "cos"),))
    with pytest.raises(ValueError, match="not among"):
        cart_task(structure=OnCircles(Increment(), (("cos", "sin"),)))


def test_an_end_pays_its_last_reward_and_terminates_the_episode():
    goal = SymbolicMap(["x"], {"reached": Variable("x") - 1.0})
    task = cart_task(ends=goal, mirror=())
    env = SurrogateEnv(Surrogate(task, cart_model()))
    env.reset(seed=0, options={"state": np.array([0.97, 2.0])})
    x, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert x[0] > 1.0
    assert reward == pytest.approx(float(task.reward(np.array([*x, 0.0]))[0]), rel=1e-5)
    assert (terminated, truncated, info["left"]) == (True, False, False)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
