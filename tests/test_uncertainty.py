"""Pointwise variance: two routes to one number, planted ensembles, and landscapes with planted fixed points."""

import dataclasses
import types

import numpy as np
import pytest

from sindyrl.expression import Variable
from sindyrl.identify import identify
from sindyrl.landscape import Plane, along, around, drawn, fixed_points, landscape
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.plot import to_svg
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative, Increment, NextState, OnCircles
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.trajectory import Trajectory
from sindyrl.uncertainty import (
    coefficient_covariance,
    critic,
    map_spread,
    policy_spread,
    rate_spread,
    return_spread,
    reward_spread,
    step_reward_spread,
    step_spread,
    value_spread,
)
from tests.systems import CART_TASK, FORCE, PENDULUM, cart_model, cart_task, pendulum_model, pendulum_task


def ensemble(members=6, targets=("a", "b"), degree=2, variables=("x", "v"), inputs=("u",), seed=0):
    library = polynomial_library(degree, bias=True).bind(variables, inputs)
    coef = np.random.default_rng(seed).normal(size=(members, len(targets), len(library)))
    return SparseMap(library, coef, targets)


def carts(members=5, seed=1):
    """Carts that differ in every coefficient of ``dv/dt``."""
    rng = np.random.default_rng(seed)
    return cart_model(np.array([-0.3, -0.2, 1.0]) + 0.1 * rng.normal(size=(members, 3)))


def test_variance_is_the_quadratic_form_of_the_covariance_and_that_of_the_members_predictions():
    made, rng = ensemble(), np.random.default_rng(2)
    z = rng.normal(size=(4, 3, 3))
    found = map_spread(made, z)
    theta, covariance = made.library.features(z), coefficient_covariance(made)
    assert covariance.shape == (2, len(made.library), len(made.library))
    np.testing.assert_allclose(found.between, np.einsum("abf,tfg,abg->abt", theta, covariance, theta), rtol=1e-10)
    np.testing.assert_allclose(found.between, made.predict_members(z).var(axis=0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(found.between, made.variance(z), rtol=1e-10)
    np.testing.assert_allclose(found.total, [[np.trace(np.cov(made.predict_members(p).T)) for p in row] for row in z])
    np.testing.assert_allclose(found.mean, made.mean()(z), atol=1e-12)
    np.testing.assert_array_equal(found.predictive, found.between)


def test_variance_does_not_change_with_what_all_members_share():
    made, z = ensemble(), np.random.default_rng(3).normal(size=(7, 3))
    shifted = SparseMap(made.library, made.coef + 5.0, made.targets)
    np.testing.assert_allclose(map_spread(shifted, z).between, map_spread(made, z).between, rtol=1e-9)
    alike = SparseMap(made.library, np.repeat(made.coef[:1], 4, axis=0), made.targets)
    np.testing.assert_array_equal(map_spread(alike, z).between, 0.0)
    # Another unit of the targets: the variance goes with its square.
    scaled = SparseMap(made.library, 100.0 * made.coef, made.targets)
    np.testing.assert_allclose(map_spread(scaled, z).total, 1e4 * map_spread(made, z).total, rtol=1e-10)


def fitted(noise=0.05, n=400, seed=0):
    """A fit of ``dv/dt = u - 0.5 v`` to noisy velocities."""
    rng = np.random.default_rng(seed)
    u = rng.uniform(-1.0, 1.0, (n, 1))
    x = np.zeros((n + 1, 2))
    for k in range(n):
        x[k + 1, 0] = x[k, 0] + 0.1 * x[k, 1]
        x[k + 1, 1] = x[k, 1] + 0.1 * (u[k, 0] - 0.5 * x[k, 1]) + 0.1 * noise * rng.normal()
    path = Trajectory.uniform(x, u, dt=0.1, states=("x", "v"), inputs=("u",))
    return identify(path, polynomial_library(1), structure=Derivative(), inclusion=False)


def test_with_a_fit_the_spread_is_that_of_its_intervals():
    fit, rng = fitted(), np.random.default_rng(4)
    x, u = rng.normal(size=(9, 2)), rng.uniform(-1.0, 1.0, (9, 1))
    found = rate_spread(fit, x, u)
    theta = fit.model.rates.library.features(np.column_stack([x, u]))
    np.testing.assert_allclose(np.sqrt(found.predictive), fit.intervals.std(theta), rtol=1e-9)
    np.testing.assert_allclose(found.noise, np.broadcast_to(fit.intervals.variance, (9, 2)))
    assert found.noise[0, 1] == pytest.approx(0.05**2, rel=0.2)  # what was planted
    assert rate_spread(fit.model, x, u).noise.max() == 0.0


def test_noise_of_the_rates_reaches_the_states_by_the_slope_of_the_step():
    fit, rng = fitted(), np.random.default_rng(5)
    found = step_spread(fit, rng.normal(size=(3, 2)), np.zeros((3, 1)))
    # Explicit midpoint of dx = v, dv = a + e: the velocity moves by about dt e, the position by dt^2 e / 2.
    scale = 0.1**2 * fit.intervals.variance[1]
    np.testing.assert_allclose(found.noise[:, 1], scale, rtol=0.06)
    assert (found.noise[:, 0] < 0.1**2 * fit.intervals.variance[0] + 0.01 * scale).all()


@pytest.mark.parametrize(
    "structure", [NextState(), Increment(), Derivative(), Derivative("rk4"), OnCircles(Increment(), (("cos", "sin"),))]
)
def test_the_next_state_varies_as_the_members_own_steps_do(structure):
    names = ("cos", "sin", "w")
    library = polynomial_library(2).bind(names, ("u",))
    rng = np.random.default_rng(6)
    coef = 0.1 * rng.normal(size=(4, 3, len(library)))
    states = tuple(Signal(name) for name in names)
    many = Model(SparseMap(library, coef, structure.targets(names)), structure, states, FORCE, 0.1, [[-1, 1]] * 3)
    x, u = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 1))
    found = step_spread(many, x, u)
    each = np.stack([dataclasses.replace(many, rates=many.rates.member(k)).step(x, u) for k in range(4)])
    np.testing.assert_allclose(found.between, each.var(axis=0, ddof=1), rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(found.mean, each.mean(axis=0), rtol=1e-12)
    one = step_spread(many, x[1, 2], u[1, 2])
    np.testing.assert_allclose(one.total, found.total[1, 2], rtol=1e-9)


def test_a_cart_of_uncertain_gain_is_uncertain_where_the_input_is_not_zero():
    gains = np.array([0.8, 1.0, 1.3])
    many = cart_model(np.column_stack([np.zeros((3, 2)), gains]))
    u = np.array([[0.0], [0.5], [-1.0]])
    found = step_spread(many, np.zeros((3, 2)), u)
    np.testing.assert_allclose(found.between[:, 1], (0.1 * u[:, 0]) ** 2 * gains.var(ddof=1), rtol=1e-12)
    np.testing.assert_allclose(rate_spread(many, np.zeros((3, 2)), u).total, u[:, 0] ** 2 * gains.var(ddof=1))


def test_learned_rewards_are_read_by_name():
    reward = ensemble(targets=("reward",), variables=("v",), inputs=("u",))
    rng = np.random.default_rng(7)
    x, u = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    found = reward_spread(CART_TASK, reward, x, u)
    expected = reward.predict_members(np.column_stack([x[:, 1], u[:, 0]])).var(axis=0, ddof=1)
    np.testing.assert_allclose(found.between, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="function of"):
        reward_spread(CART_TASK, ensemble(targets=("reward",), variables=("y",)), x, u)


def test_the_tasks_reward_varies_through_the_dynamics():
    many, rng = carts(), np.random.default_rng(8)
    x, u = rng.uniform(-0.5, 0.5, (6, 2)), rng.uniform(-1.0, 1.0, (6, 1))
    found = step_reward_spread(CART_TASK, many, x, u)
    each = [dataclasses.replace(many, rates=many.rates.member(k)).step(x, u) for k in range(5)]
    earned = [-(a[:, 0] ** 2 + 0.2 * a[:, 1] ** 2 + 0.1 * u[:, 0] ** 2) for a in each]
    np.testing.assert_allclose(found.between[:, 0], np.var(earned, axis=0, ddof=1), rtol=1e-9)


def test_policies_agree_where_they_saturate():
    library = polynomial_library(1).bind(("x", "v"), ())
    policy = SparseMap(library, np.array([[[4.0, 1.0]], [[5.0, 2.0]], [[6.0, 0.0]]]), ("u",))
    x = np.array([[0.1, 0.0], [1.0, 1.0], [0.1, 5.0]])
    np.testing.assert_allclose(policy_spread(policy, x).between[:2, 0], [0.01, 5.5**2 - 30.25 + 1.0], rtol=1e-9)
    limited = policy_spread(policy, x, low=-1.0, high=1.0)
    assert limited.total[1] == 0.0
    np.testing.assert_allclose(limited.between[2, 0], np.var([1.0, 1.0, 0.6], ddof=1))
    singles = [lambda z, k=k: policy.member(k)(z) for k in range(3)]
    np.testing.assert_allclose(policy_spread(singles, x, low=-1.0, high=1.0).between, limited.between, rtol=1e-12)
    assert policy_spread(singles, x).outputs == ("u0",)


def test_returns_vary_as_the_members_own_episodes_do():
    many = carts()
    policy = lambda x: -np.clip(x @ np.array([[0.8], [1.0]]), -1.0, 1.0)  # noqa: E731
    x = np.random.default_rng(9).uniform(-1.0, 1.0, (2, 4, 2))
    found = return_spread(CART_TASK, many, policy, x, steps=25, discount=0.9)
    each = []
    for k in range(5):
        path = simulate(dataclasses.replace(many, rates=many.rates.member(k)), x, policy, steps=25)
        assert path.valid.min() == 25
        after, u = path.x[..., 1:, :], path.u
        earned = -(after[..., 0] ** 2 + 0.2 * after[..., 1] ** 2 + 0.1 * u[..., 0] ** 2)
        each.append(earned @ 0.9 ** np.arange(25))
    np.testing.assert_allclose(found.between[..., 0], np.var(each, axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.mean[..., 0], np.mean(each, axis=0), rtol=1e-12)


def test_whoever_leaves_earns_the_reward_of_failing_and_whoever_succeeds_nothing_more():
    # From 1.9 at 2 m/s every cart is outside after one step; the reward of failing is the same for all of them.
    found = return_spread(CART_TASK, carts(), lambda x: np.zeros((len(x), 1)), np.array([1.9, 2.0]), steps=7)
    assert found.total == 0.0
    assert found.mean[0] == pytest.approx(7 * CART_TASK.failure_reward)
    x = Variable("x")
    done = cart_task(ends=SymbolicMap(["x"], {"done": x - 0.5}), mirror=())
    still = cart_model(np.zeros((2, 3)))
    found = return_spread(done, still, lambda x: np.zeros((len(x), 1)), np.array([[0.4, 0.0], [0.6, 0.0]]), steps=10)
    np.testing.assert_allclose(found.mean[:, 0], [-10 * 0.16, -0.36], rtol=1e-12)


def test_learned_rewards_of_the_members_enter_the_return():
    library = polynomial_library(1).bind(("v",), ())
    reward = SparseMap(library, np.array([[[1.0]], [[3.0]]]), ("reward",))
    still = cart_model(np.zeros((2, 3)))
    zero = lambda x: np.zeros((len(x), 1))  # noqa: E731
    found = return_spread(CART_TASK, still, zero, np.array([[0.0, 0.1]]), steps=4, reward=reward)
    np.testing.assert_allclose(found.between[0, 0], np.var([0.4, 1.2], ddof=1), rtol=1e-9)


def test_critics_disagree_as_numbers_do():
    critics = [lambda x: x[:, 0], lambda x: 2.0 * x[:, :1], lambda x: 4.0 * x[:, 0]]
    x = np.random.default_rng(10).normal(size=(3, 4, 2))
    found = value_spread(critics, x)
    np.testing.assert_allclose(found.total, x[..., 0] ** 2 * np.var([1, 2, 4], ddof=1), rtol=1e-10)


def test_a_learners_critic_is_the_network_in_units_of_the_reward():
    from sindyrl.learn.network import Moments, network, standardized

    made = network(np.random.default_rng(0), (2, 8, 1), 1.0)
    seen = Moments(np.array([1.0, -1.0], np.float32), np.array([4.0, 1e-12], np.float32), np.float32(9))
    returns = Moments(np.float32(30.0), np.float32(25.0), np.float32(9))
    learner = types.SimpleNamespace(agent=types.SimpleNamespace(critic=made), observations=seen, returns=returns)
    x = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    expected = np.asarray(made(standardized(seen, x)))[:, 0] * 5.0 + 30.0
    np.testing.assert_allclose(critic(learner)(x), expected, rtol=1e-5)


def test_one_member_and_wrong_shapes_are_refused():
    single = cart_model()
    x, u = np.zeros((2, 2)), np.zeros((2, 1))
    for call in (rate_spread, step_spread):
        with pytest.raises(ValueError, match=f"`{call.__name__}` needs an ensemble of at least 2 members"):
            call(single, x, u)
    with pytest.raises(ValueError, match="at least 2 members"):
        value_spread([lambda x: x[:, 0]], x)
    with pytest.raises(ValueError, match="`u` must have 1 columns"):
        step_spread(carts(), x, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="discount"):
        return_spread(CART_TASK, carts(), lambda x: u, x, discount=1.5)
    with pytest.raises(ValueError, match="steps"):
        return_spread(CART_TASK, carts(), lambda x: u, x, steps=0)


# ---- landscapes


def plane(n=41, m=31):
    return Plane(("cos", "sin", "w"), around("cos", "sin", n), along("w", -6.0, 6.0, m))


def test_points_of_a_plane_lie_on_the_circle_and_the_rest_is_fixed():
    made = Plane(("x", "cos", "sin", "v", "w"), around("cos", "sin", 9), along("w", -2, 2, 5), fixed={"x": 0.3})
    x = made.points
    assert x.shape == (5, 9, 5)
    np.testing.assert_allclose(x[..., 1] ** 2 + x[..., 2] ** 2, 1.0, rtol=1e-14)
    np.testing.assert_array_equal(x[..., 0], 0.3)
    np.testing.assert_array_equal(x[..., 3], 0.0)
    np.testing.assert_array_equal(x[:, 4, 4], [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(made.place(made.coordinates(x)), x, atol=1e-12)
    np.testing.assert_allclose(made.coordinates(x)[:, 1:-1], made.coordinates_grid[:, 1:-1], atol=1e-12)
    for wrong in ({"x": 0.3, "y": 1.0}, {"cos": 1.0}):
        with pytest.raises(ValueError, match="fixed"):
            dataclasses.replace(made, fixed=wrong)
    with pytest.raises(ValueError, match="names"):
        Plane(("x", "v"), along("x", 0, 1), along("w", 0, 1))


def test_a_landscape_is_the_function_on_the_grid_and_draws_to_the_same_bytes():
    many = dataclasses.replace(pendulum_model(), rates=pendulum_ensemble())
    made = landscape(plane(), lambda x: step_spread(many, x, np.zeros((*x.shape[:-1], 1))).total, "variance")
    assert made.values.shape == (31, 41)
    # The members differ in gravity alone: disagreement is widest on the sides and none upright or hanging.
    assert made.values[15, 10] > 100 * max(made.values[15, 0], made.values[15, 20])
    picture = lambda: to_svg(drawn([[made, made]], titles=["a", "b"], logarithmic=True), "v")  # noqa: E731
    assert picture() == picture()
    assert "<svg" in picture()
    record = made.record()
    assert np.shape(record["values"]) == (31, 41)
    assert record["across"]["name"] == "angle of (cos, sin)"


def pendulum_ensemble():
    rates = pendulum_model().rates
    coef = np.stack([rates.coef * factor for factor in (0.9, 1.0, 1.1)])
    coef[:, 0, rates.library.index("u")] = 1.0
    return SparseMap(rates.library, coef, rates.targets, rates.target_units)


def test_planted_fixed_points_are_found_with_their_kind():
    # dw/dt = 9.81 sin: a saddle upright and a center hanging.
    found = fixed_points(pendulum_model().step, plane(), 0.02)
    assert [point.kind for point in found] == ["saddle", "center"]
    np.testing.assert_allclose(found[0].at, [0.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(np.abs(found[1].at), [np.pi, 0.0], atol=1e-7)
    np.testing.assert_allclose(np.sort(found[0].eigenvalues.real), [-np.sqrt(9.81), np.sqrt(9.81)], rtol=2e-3)
    np.testing.assert_allclose(np.abs(found[1].eigenvalues.imag), np.sqrt(9.81), rtol=2e-3)


def test_fixed_points_move_with_a_constant_torque_and_gain_friction():
    library = polynomial_library(1, bias=True).bind(("cos", "sin", "w"), ("u",))
    coef = np.zeros((1, len(library)))
    for name, value in (("1", 2.0), ("sin", 9.81), ("w", -0.7)):
        coef[0, library.index(name)] = value
    rates = SparseMap(library, coef, ("dw",))
    model = dataclasses.replace(pendulum_model(), rates=rates)
    saddle, sink = fixed_points(model.step, plane(), 0.02)
    angle = -np.arcsin(2.0 / 9.81)
    np.testing.assert_allclose(saddle.at, [angle, 0.0], atol=1e-7)
    np.testing.assert_allclose(sink.at, [np.pi - angle - 2 * np.pi, 0.0], atol=1e-7)
    assert (saddle.kind, sink.kind) == ("saddle", "stable")


def test_the_vector_field_of_two_wells_has_three_fixed_points():
    # dx = v, dv = x - x^3 - 0.2 v, in a plane of two plain states.
    def step(x, u):
        return x + 0.01 * np.stack([x[..., 1], x[..., 0] - x[..., 0] ** 3 - 0.2 * x[..., 1]], axis=-1)

    made = Plane(("x", "v"), along("x", -2, 2, 40), along("v", -1.5, 1.5, 40))
    found = fixed_points(step, made, 0.01, n_inputs=0)
    np.testing.assert_allclose([point.at for point in found], [[-1, 0], [0, 0], [1, 0]], atol=1e-7)
    assert [point.kind for point in found] == ["stable", "saddle", "stable"]
    drifting = lambda x, u: x + 0.01  # noqa: E731
    assert fixed_points(drifting, made, 0.01, n_inputs=0) == []


def test_the_fixture_systems_are_what_they_claim():
    model, task = pendulum_model(), pendulum_task()
    assert task.state_names == model.state_names == tuple(signal.name for signal in PENDULUM)
    np.testing.assert_allclose(model.derivative(np.array([0.6, 0.8, 3.0]), np.array([0.5])), [-2.4, 1.8, 8.348])
