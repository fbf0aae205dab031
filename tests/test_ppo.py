"""PPO: its parts against formulas written another way, its bootstraps in the whole loop, and what it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are
from scipy.stats import norm

from sindyrl.envs.surrogate import Surrogate
from sindyrl.learn import ppo
from sindyrl.learn.network import Moments, agent, moments, neural_policy, standardized, to_inputs
from sindyrl.learn.ppo import PPOSettings
from sindyrl.library import polynomial_library
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.systems import CART_TASK, cart_matrices, cart_model, cart_task

MEMBERS = ((0.0, -0.1, 1.0), (0.0, -0.2, 1.1), (0.0, 0.1, 0.9))
# One shape and few tasks: each pair of them is compiled once for the whole file.
small = PPOSettings(
    environments=16, length=32, epochs=6, minibatches=8, updates=5, hidden=(32,), discount=0.95, learning_rate=2e-3,
    log_std=-0.5,
)  # fmt: skip


def arrays(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- advantages


def plain_advantages(reward, value, following, ended, discount, trace):
    """By the definition: a sum over the rest of the episode."""
    found = np.zeros_like(reward)
    steps, batch = reward.shape
    for b in range(batch):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                found[t, b] += weight * (reward[k, b] + discount * following[k, b] - value[k, b])
                if ended[k, b]:
                    break
                weight *= discount * trace
    return found


@pytest.mark.parametrize(("discount", "trace"), [(0.99, 0.95), (0.9, 0.0), (0.5, 1.0)])
def test_advantages_are_the_sums_of_their_definition(discount, trace):
    reward, value, following = arrays(3, 30, 4)
    ended = np.random.default_rng(1).random((30, 4)) < 0.15
    assert ended.any()
    found = ppo.advantages(reward, value, following, ended, discount, trace)
    expected = plain_advantages(reward, value, following, ended, discount, trace)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_with_full_trace_an_advantage_is_the_discounted_return_less_the_value():
    reward, value = arrays(2, 12, 1)
    following = np.concatenate([value[1:], [[7.0]]])
    found = ppo.advantages(reward, value, following, np.zeros((12, 1), bool), 0.9, 1.0)
    returns = [np.sum(reward[t:, 0] * 0.9 ** np.arange(12 - t)) + 0.9 ** (12 - t) * 7.0 for t in range(12)]
    np.testing.assert_allclose(found[:, 0], returns - value[:, 0], rtol=1e-5)


def test_an_episode_cut_off_by_the_clock_goes_on_in_its_value_and_one_that_is_over_does_not():
    reward, value, over = np.array([[1.0]]), np.array([[2.0]]), np.array([[True]])
    truncated = ppo.advantages(reward, value, np.array([[10.0]]), over, 0.9, 0.95)
    terminated = ppo.advantages(reward, value, np.array([[0.0]]), over, 0.9, 0.95)
    assert float(truncated[0, 0]) == pytest.approx(1.0 + 0.9 * 10.0 - 2.0)
    assert float(terminated[0, 0]) == pytest.approx(1.0 - 2.0)


# ---- the order of the steps


@pytest.mark.parametrize("count", [1, 2, 3, 100, 128, 4000, 1 << 16, (1 << 16) + 1])
def test_the_order_is_a_stable_argsort(count):
    rng = np.random.default_rng(count)
    for bits in (
        rng.integers(1 << 32, size=count, dtype=np.uint32),
        # Equal numbers, numbers that differ in upper or in lower bits only, and the largest of all.
        rng.integers(5, size=count, dtype=np.uint32) << 29,
        rng.integers(5, size=count, dtype=np.uint32),
        np.full(count, 0xFFFFFFFF, np.uint32),
    ):
        np.testing.assert_array_equal(ppo.shuffled(jnp.asarray(bits)), np.argsort(bits, kind="stable"))


# ---- the losses


def test_the_clipped_loss_by_hand():
    # One row for each case: ratio inside, above, below; advantage positive, negative. c = 0.2.
    ratio = jnp.array([1.1, 1.1, 1.5, 1.5, 0.5, 0.5])
    advantage = jnp.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    gains = [1.1 * 2, -1.1 * 2, 1.2 * 2, -1.5 * 2, 0.5 * 2, -0.8 * 2]
    assert float(ppo.policy_loss(ratio, advantage, 0.2)) == pytest.approx(-np.mean(gains))
    slope = jax.grad(lambda r: ppo.policy_loss(r, advantage, 0.2))(ratio)
    # No gradient where the ratio has gone far enough in the direction that pays.
    np.testing.assert_allclose(slope * 6, [-2.0, 2.0, 0.0, 2.0, -2.0, 0.0], atol=1e-6)


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    made = agent(np.random.default_rng(0), 3, 2, (8,), -0.3)
    x, pre, advantage = arrays(64, 3), arrays(64, 2, seed=1), arrays(64, seed=2)

    def density(made):
        return ppo.log_density(pre, made.actor(x), made.log_std)

    old = jax.jit(density)(made)
    clipped = jax.jit(jax.grad(lambda a: ppo.policy_loss(jnp.exp(density(a) - old), advantage, 0.2)))(made)
    plain = jax.jit(jax.grad(lambda a: -(density(a) * advantage).mean()))(made)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain)) > 1e-2
    for one, other in zip(jax.tree.leaves(clipped), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_density_is_the_gaussians():
    pre, mean, log_std = arrays(20, 2), arrays(20, 2, seed=1), np.array([0.3, -1.2], np.float32)
    expected = norm(mean, np.exp(log_std)).logpdf(pre).sum(axis=1)
    np.testing.assert_allclose(ppo.log_density(pre, mean, jnp.asarray(log_std)), expected, rtol=1e-4)


def test_inputs_stay_within_their_limits():
    low, high = np.array([-2.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
    for squash in ("clip", "tanh"):
        u = np.asarray(to_inputs(jnp.array([[-50.0, 50.0], [0.0, 0.0]]), low, high, squash))
        np.testing.assert_allclose(u, [[-2.0, 10.0], [-0.5, 5.0]], rtol=1e-6)


# ---- moments


@pytest.mark.parametrize("cuts", [(50,), (10, 30), (1, 2, 99)])
def test_moments_of_parts_are_those_of_the_whole(cuts):
    samples = 3.0 + 2.0 * arrays(100, 4)
    seen = moments((4,))
    for part in np.split(samples, cuts):
        seen = seen.add(part)
    np.testing.assert_allclose(seen.mean, samples.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(seen.var, samples.var(axis=0), rtol=1e-3)


def test_a_short_memory_follows_what_changes():
    seen = moments(())
    for _ in range(20):
        seen = seen.add(np.zeros(10), memory=20.0)
    for _ in range(20):
        seen = seen.add(np.full(10, 5.0), memory=20.0)
    assert float(seen.mean) == pytest.approx(5.0, abs=0.01)


def test_rescaling_the_critic_leaves_its_predictions():
    critic = agent(np.random.default_rng(1), 3, 1, (8,), 0.0).critic
    before = Moments(jnp.float32(-3.0), jnp.float32(4.0), jnp.float32(10.0))
    after = Moments(jnp.float32(40.0), jnp.float32(900.0), jnp.float32(20.0))
    x = arrays(30, 3)
    moved = ppo.rescaled(critic, before, after)
    expected = critic(x) * before.std + before.mean
    np.testing.assert_allclose(moved(x) * after.std + after.mean, expected, rtol=1e-4, atol=1e-4)


# ---- the whole loop


# One task and one shape for all: what differs are arguments, the coefficients of the reward included.
TASK = cart_task(horizon=20, failure_reward=-5.0)
LIBRARY = polynomial_library(2, bias=True).bind(("x", "v"), ("u",))


def reward_of(**terms):
    coef = np.zeros((1, len(LIBRARY)))
    for name, value in terms.items():
        coef[0, LIBRARY.index(NAMES[name])] = value
    return SparseMap(LIBRARY, coef, ("reward",))


NAMES = {"one": "1", "x2": "x^2", "v2": "v^2", "u2": "u^2"}
COST = reward_of(x2=-1.0, v2=-0.2, u2=-0.1)


def cart_surrogate(members=MEMBERS, reward=COST, **changes):
    return Surrogate(TASK, cart_model(members), reward, **{"mode": "member"} | changes)


def learned_values(x, v, leaving):
    """The critic's values of states around (x, v) for a reward of 1 in each step; and the share of steps that left."""

    def begin(rng, n):
        return np.column_stack([rng.uniform(-0.01, 0.01, n) + x, np.full(n, v)])

    surrogate = cart_surrogate(reward=reward_of(one=1.0), leaving=leaving, reset=begin)
    learner = ppo.start(surrogate, small)
    # The wall's value is approached by the factor 0.95 in each update: to half a percent in 24 calls of 5.
    for _ in range(24 if leaving == "bootstrap" else 10):
        learner, metrics = ppo.train(surrogate, learner, small)
    raw = learner.agent.critic(standardized(learner.observations, jnp.asarray(surrogate.data.starts)))[:, 0]
    return np.asarray(raw * learner.returns.std + learner.returns.mean), metrics.left


def test_a_time_limit_costs_nothing():
    # 1/(1 - 0.95) = 20, however short the episodes; without the bootstrap it would be at most 12.8.
    values, left = learned_values(0.0, 0.0, "penalty")
    np.testing.assert_array_equal(left, 0.0)
    np.testing.assert_allclose(values, 20.0, atol=0.5)


@pytest.mark.parametrize("leaving", ["penalty", pytest.param("bootstrap", marks=pytest.mark.slow)])
def test_leaving_is_worth_failing_for_ever(leaving):
    # Whatever is done, the first step leaves. -5/(1 - 0.95) = -100 either way: as a penalty at once, as a wall because
    # it is hit again and again.
    values, left = learned_values(1.98, 2.0, leaving)
    np.testing.assert_array_equal(left, 1.0)
    np.testing.assert_allclose(values, -100.0, atol=1.5)


def compilations():
    """A list that grows by one with everything XLA compiles from now on."""
    found = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return found


def test_no_number_and_no_refit_compiles_anything():
    surrogate = cart_surrogate()
    learner = ppo.start(surrogate, small)
    learner, _ = ppo.train(surrogate, learner, small)
    ppo.judge(surrogate, learner, small)
    compiled, judge = ppo.trainer(surrogate.form, small.shape), ppo.judging(surrogate.form, 16, small.squash)
    before = (compiled._cache_size(), judge._cache_size(), ppo.trainer.cache_info().misses)
    events = compilations()
    refit = dataclasses.replace(surrogate, model=cart_model(np.array(MEMBERS) * 1.5), seed=3)
    numbers = {"learning_rate": 1e-4, "clip": 0.1, "entropy": 0.01, "discount": 0.9, "trace": 0.5}
    for name, value in (numbers | {"value_weight": 1, "max_gradient": 2}).items():
        learner, metrics = ppo.train(refit, learner, dataclasses.replace(small, **{name: value}))
        assert np.isfinite(metrics.reward).all()
    ppo.judge(refit, learner, small)
    assert events == []
    jax.jit(lambda x: x + len(events))(np.zeros(7))
    assert len(events) == 1  # the counter counts
    assert (compiled._cache_size(), judge._cache_size(), ppo.trainer.cache_info().misses) == before


def test_numbers_that_are_arguments_take_effect():
    surrogate = cart_surrogate()
    begun = ppo.start(surrogate, small)

    def weights(**changes):
        learner, _ = ppo.train(surrogate, begun, dataclasses.replace(small, **changes))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(learner.agent)])

    plain = weights()
    changes = {"learning_rate": 1e-4, "clip": 0.001, "entropy": 0.5, "discount": 0.5, "trace": 0.1, "value_weight": 3.0}
    for name, value in (changes | {"max_gradient": 0.01}).items():
        assert np.abs(weights(**{name: value}) - plain).max() > 1e-6, name
    still = weights(learning_rate=0.0)[: len(np.ravel(begun.agent.actor.weights[0]))]
    np.testing.assert_array_equal(still, np.ravel(begun.agent.actor.weights[0]))


def test_one_seed_one_result_two_seeds_two():
    surrogate = cart_surrogate()

    def trained(seed):
        learner, _ = ppo.train(surrogate, ppo.start(surrogate, small, seed), small)
        return np.asarray(learner.agent.actor.weights[0])

    np.testing.assert_array_equal(trained(4), trained(4))
    assert (trained(4) != trained(5)).any()


def best_linear_return(x0):
    """Of the linear-quadratic regulator for the cart's reward over its horizon; and of doing nothing."""
    a, b = cart_matrices()
    # The reward counts the state after the step: q on it is q on the next state of the regulator's sum.
    q, r = np.diag([1.0, 0.2]), np.array([[0.1]])
    p = solve_discrete_are(a, b, q, r)
    gain = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)[0]

    def value(act):
        path = simulate(cart_model(), x0, act, steps=TASK.horizon)
        x, u = path.x[..., 1:, :], path.u
        return -(x[..., 0] ** 2 + 0.2 * x[..., 1] ** 2 + 0.1 * u[..., 0] ** 2).sum(axis=-1)

    return value(lambda x: np.clip(-(x @ gain)[..., None], -1.0, 1.0)), value(lambda x: np.zeros((*x.shape[:-1], 1)))


def start_far(rng, n):
    return rng.uniform(-0.8, 0.8, (n, 2))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_to_bring_the_cart_home(seed):
    # Three members, all the same: the shapes of the tests above.
    surrogate = cart_surrogate([(0.0, 0.0, 1.0)] * 3, reset=start_far)
    learner = ppo.start(surrogate, small, seed)
    for _ in range(8):
        learner, _ = ppo.train(surrogate, learner, small)
    returns = ppo.judge(surrogate, learner, small)
    best, idle = best_linear_return(surrogate.starts[:16])
    # 90 % of the way from doing nothing to the optimum (which knows no limits of the input, hence clipped).
    assert returns.mean() > idle.mean() + 0.9 * (best.mean() - idle.mean())
    # What the model promised is what the policy earns outside of JAX.
    act = ppo.policy(surrogate, learner, small)
    path = simulate(cart_model(), surrogate.starts[:16], act, steps=TASK.horizon)
    x = path.x[:, 1:]
    outside = -(x[..., 0] ** 2 + 0.2 * x[..., 1] ** 2 + 0.1 * path.u[..., 0] ** 2).sum(axis=1)
    np.testing.assert_allclose(returns, outside, rtol=1e-3, atol=1e-3)


# ---- the policy


@pytest.mark.parametrize("squash", ["clip", "tanh"])
def test_the_policy_is_the_network_in_numpy_and_as_a_closed_form(squash):
    task = cart_task(inputs=(Signal("u", "N", -1.0, 3.0),), mirror=())
    made = agent(np.random.default_rng(2), 2, 1, (16, 16), 0.0)
    made = dataclasses.replace(
        made, actor=agent(np.random.default_rng(3), 2, 1, (16, 16), 0.0).critic
    )  # larger weights
    seen = Moments(jnp.array([0.2, -0.1]), jnp.array([4.0, 0.25]), jnp.float32(9.0))
    act = neural_policy(task, made, seen, squash)
    x = 3.0 * arrays(200, 2)
    low, high = task.action_low.astype(np.float32), task.action_high.astype(np.float32)
    expected = to_inputs(made.actor(standardized(seen, x)), low, high, squash)
    np.testing.assert_allclose(act(x), expected, rtol=1e-4, atol=1e-5)
    closed = act.symbolic()
    np.testing.assert_allclose(closed(x), act(x), rtol=1e-12, atol=1e-12)
    assert SymbolicMap.from_json(closed.to_json()) == closed
    assert closed.interval()["u"][0] >= -1.0 - 1e-12
    assert act(x).min() >= -1.0
    assert act(x).max() <= 3.0
    assert act.n_parameters == 2 * 16 + 16 + 16 * 16 + 16 + 16 + 1


@pytest.mark.parametrize("squash", ["clip", "tanh"])
def test_a_policy_of_relu_layers_and_of_observations_that_are_not_cut(squash):
    task = cart_task(inputs=(Signal("u", "N", -1.0, 3.0),), mirror=())
    made = neural_policy(task, agent(np.random.default_rng(0), 2, 1, (8, 8), 0.0), moments((2,)), squash)
    weights = tuple(3.0 * part for part in (*made.weights[:-1], 100.0 * made.weights[-1]))
    act = dataclasses.replace(made, weights=weights, activation="relu", clip=np.inf)
    x = 20.0 * arrays(300, 2).astype(float)  # beyond 10 standard deviations
    hidden = np.maximum(np.maximum(x @ weights[0], 0.0) @ weights[1], 0.0) @ weights[2]
    inside = np.tanh(hidden) if squash == "tanh" else np.clip(hidden, -1.0, 1.0)
    np.testing.assert_allclose(act(x), 1.0 + 2.0 * inside, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(act.symbolic()(x), act(x), rtol=1e-12, atol=1e-12)
    assert np.abs(dataclasses.replace(act, clip=10.0)(x) - act(x)).max() > 1e-6
    wanted = act.unclipped(x)
    np.testing.assert_array_equal(np.clip(wanted, -1.0, 3.0), act(x))
    assert (np.abs(wanted).max() > 3.0) == (squash == "clip")
    for name, value in {"activation": "elu", "squash": "none", "clip": 0.0}.items():
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(act, **{name: value})


def test_collecting_is_stepping_every_copy_and_beginning_anew_where_an_episode_ended():
    surrogate = cart_surrogate(reset=start_far)
    learner, key = ppo.start(surrogate, small, 1), jax.random.key(0)
    # One copy's clock runs out at the very last step.
    clock = learner.episodes.steps.at[0].set((-small.length) % TASK.horizon)
    learner = dataclasses.replace(learner, episodes=learner.episodes._replace(steps=clock))
    _, fresh, new = map(np.asarray, ppo.drawn(surrogate.form, small.shape, surrogate.data, key))
    after, steps = jax.jit(ppo.collector(surrogate.form, small.shape))(surrogate.data, learner, key)
    x, clock, member = np.asarray(learner.episodes.x).T, np.asarray(clock), np.asarray(learner.episodes.member)
    for t in range(small.length):
        made = [surrogate.step(x, np.asarray(steps.pre[t]), index) for index in range(len(MEMBERS))]
        reached, reward, left, _ = (
            np.choose(member.reshape(-1, *[1] * (part[0].ndim - 1)), part) for part in zip(*made, strict=True)
        )
        clock = clock + 1
        ended = left | (clock >= TASK.horizon)
        np.testing.assert_allclose(steps.seen[t], x, atol=1e-4)
        np.testing.assert_allclose(steps.after[t], reached, atol=1e-4)
        np.testing.assert_allclose(steps.reward[t], reward, atol=1e-4)
        np.testing.assert_array_equal(steps.ended[t], ended)
        x, clock = np.where(ended[:, None], fresh[t], reached), np.where(ended, 0, clock)
        member = np.where(ended, new[t], member)
    assert ended[0]
    np.testing.assert_allclose(after.x.T, x, atol=1e-4)
    np.testing.assert_array_equal(after.steps, clock)
    np.testing.assert_array_equal(after.member, member)


def test_predict_is_stable_baselines3s():
    act = neural_policy(CART_TASK, agent(np.random.default_rng(0), 2, 1, (8,), 0.0), moments((2,)), "clip")
    x = arrays(5, 2)
    action, state = act.predict(x)
    np.testing.assert_array_equal(action, act(x))
    assert state is None
    assert act.predict(x[0], state="memory", episode_start=np.array([True]), deterministic=True)[1] == "memory"
    with pytest.raises(RuntimeError, match="reset"):
        act.predict(x, deterministic=False)
    act.reset(np.random.default_rng(0))
    one = act.predict(x, deterministic=False)[0]
    act.reset(np.random.default_rng(0))
    np.testing.assert_array_equal(one, act.predict(x, deterministic=False)[0])
    assert (np.abs(one) <= 1.0).all()
    assert (one != action).any()
    with pytest.raises(ValueError, match="reads 2 states"):
        act(np.zeros(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environments", 0), ("length", 1.5), ("epochs", True), ("minibatches", 3), ("hidden", ()), ("hidden", (0,)),
        ("squash", "relu"), ("discount", 1.0), ("trace", -0.1), ("learning_rate", -1.0), ("clip", np.nan),
        ("entropy", np.inf), ("max_gradient", 0.0),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(small, **{name: value})
