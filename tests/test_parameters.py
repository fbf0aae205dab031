"""A parameter that is measured but not commanded is one more input: it is found, simulated, and not lost unnoticed."""

import functools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sindyrl.collect import random_policy
from sindyrl.excitation import random_steps
from sindyrl.guard import ActuatorError
from sindyrl.identify import identify
from sindyrl.library import polynomial_library
from sindyrl.parameters import beside, measured_inputs
from sindyrl.regression import STLSQ
from sindyrl.simulate import simulate
from sindyrl.structure import SecondOrder
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CartEnv

# A suspension whose load p moves while it runs: stiffness and gain of the actuator depend on it.
TRUTH = {"x": -4.0, "v": -0.5, "u": 2.0, "x*p": 1.5, "u*p": -0.8}
SPRING = SecondOrder({"x": "v"})
LIBRARY = polynomial_library(2)


def load(t):
    return 0.6 * np.sin(0.9 * t) + 0.3 * np.cos(2.3 * t)


def recorded(dt, *, seconds=20.0, course=load, truth=TRUTH, seed=0) -> Trajectory:
    """States x, v and the load, at the samples; the load itself moves within each step. Accurate to 1e-10."""
    steps = round(seconds / dt)
    u = random_steps(steps, lower=-1, upper=1, hold=round(0.5 / dt), rng=np.random.default_rng(seed))

    def rate(t, state, held):
        x, v = state
        p = course(t)
        values = {"x": x, "v": v, "u": held, "x*p": x * p, "u*p": held * p}
        return [v, sum(truth[name] * value for name, value in values.items())]

    path, t = [np.array([0.5, 0.0])], dt * np.arange(steps + 1)
    for k in range(steps):
        solution = solve_ivp(rate, (t[k], t[k + 1]), path[-1], args=(u[k, 0],), rtol=1e-9, atol=1e-10)
        path.append(solution.y[:, -1])
    measured = np.column_stack([np.array(path), np.broadcast_to(course(t), t.shape)])
    return Trajectory(t, measured, u, states=("x", "v", "p"), inputs=("u",))


@functools.cache
def standard() -> Dataset:
    """The recording with the load as an input, at 50 Hz."""
    return measured_inputs(recorded(0.02), ["p"])


def fit_to(data, **settings):
    return identify(data, LIBRARY, structure=SPRING, inclusion=False, **settings)


def coefficient_error(fit) -> float:
    rates = fit.model.rates.median()
    truth = np.zeros(len(rates.library))
    for term, value in TRUTH.items():
        truth[rates.library.index(term)] = value
    return float(np.linalg.norm(rates.coef[0] - truth) / np.linalg.norm(truth))


def test_states_become_inputs_with_their_mean_over_each_step():
    x = np.arange(12.0).reshape(4, 3) ** 2
    data = Dataset(
        tuple(
            Trajectory.uniform(x + k, np.ones((3, 1)), [1, 2, 3], dt=0.1, states=("x", "p", "q"), inputs=("u",))
            for k in range(2)
        )
    )
    moved = measured_inputs(data, ["q", "x"])
    assert (moved.states, moved.inputs, len(moved)) == (("p",), ("u", "q", "x"), 2)
    np.testing.assert_array_equal(moved[1].x, x[:, 1:2] + 1)
    np.testing.assert_array_equal(moved[1].u, np.column_stack([np.ones(3), (x[:-1] + x[1:])[:, [2, 0]] / 2 + 1]))
    np.testing.assert_array_equal(moved[1].r, [1, 2, 3])
    np.testing.assert_array_equal(moved[0].t, data[0].t)


def test_the_equation_with_the_parameter_is_found_and_predicts_another_course_of_it():
    fit = fit_to(standard())
    rates = fit.model.rates.median()
    assert {rates.library.names[j] for j in np.flatnonzero(rates.coef[0])} == set(TRUTH)
    assert coefficient_error(fit) < 2e-3
    assert fit.model.input_names == ("u", "p")
    # Signs and sizes of both inputs' effects, as the guard lists them.
    assert fit.actuators.kept.tolist() == [[True, True]]
    assert fit.actuators.gain[0, 0] == pytest.approx(fit.actuators.dense_gain[0, 0], rel=1e-2)

    (other,) = measured_inputs(recorded(0.02, course=lambda t: -0.8 + 0.04 * t, seed=1), ["p"])
    predicted = simulate(fit.model, other.x[0], other.u)
    assert np.abs(predicted.x - other.x).max() < 5e-3 * np.abs(other.x).max()
    # The parameter matters: without its course, the prediction is another.
    still = simulate(fit.model, other.x[0], other.u * [1.0, 0.0])
    assert np.abs(still.x - other.x).max() > 0.2 * np.abs(other.x).max()


def test_the_mean_over_a_step_is_a_second_order_column_and_the_value_at_its_start_a_first_order_one():
    def errors(dt):
        data = recorded(dt)
        start = Trajectory(
            data.t, data.x[:, :2], np.column_stack([data.u, data.x[:-1, 2]]), states=("x", "v"), inputs=("u", "p")
        )
        return coefficient_error(fit_to(measured_inputs(data, ["p"]))), coefficient_error(fit_to(start))

    coarse, fine = errors(0.05), errors(0.025)
    order = np.log2(np.array(coarse) / np.array(fine))
    np.testing.assert_allclose(order, [2.0, 1.0], atol=0.35)


def test_a_parameter_that_never_moved_is_dropped_by_name_and_the_rest_is_the_system_at_its_value():
    value = 0.4
    fit = fit_to(measured_inputs(recorded(0.02, course=lambda t: value + 0 * t), ["p"]), actuators="allow")
    assert {"x*p", "v*p", "u*p", "p^2"} <= set(fit.dropped)
    rates = fit.model.rates.median()
    found = {rates.library.names[j]: rates.coef[0, j] for j in np.flatnonzero(rates.coef[0])}
    expected = {"x": -4.0 + 1.5 * value, "v": -0.5, "u": 2.0 - 0.8 * value}
    assert set(found) == set(expected)
    for term, coefficient in expected.items():
        assert found[term] == pytest.approx(coefficient, rel=1e-2)


def test_the_guard_notices_that_a_parameter_was_lost():
    weak = {"x": -4.0, "v": -1.0, "u": 2.0, "x*p": 0.4, "u*p": 0.0}
    data = measured_inputs(recorded(0.02, truth=weak), ["p"])
    with pytest.raises(ActuatorError, match=r"effect of an input: 'p' from dv \(dense gain"):
        fit_to(data, regressor=STLSQ(threshold=0.7))
    with pytest.warns(UserWarning, match="'p' from dv"):
        fit = fit_to(data, regressor=STLSQ(threshold=0.7), actuators="warn")
    assert fit.actuators.removed.tolist() == [[False, True]]


def test_a_policy_beside_a_course_simulates_as_the_inputs_written_out():
    fit = fit_to(standard())
    course = load(0.02 * np.arange(200))
    closed = simulate(fit.model, [0.5, 0.0], beside(lambda x: -0.5 * x[..., 1:], course), steps=200)
    np.testing.assert_array_equal(closed.u[:, 1], course)
    np.testing.assert_array_equal(closed.u[:, 0], -0.5 * closed.x[:-1, 1])
    np.testing.assert_array_equal(simulate(fit.model, [0.5, 0.0], closed.u).x, closed.x)
    many = simulate(fit.model, np.zeros((3, 2)) + 0.5, beside(lambda x: -0.5 * x[..., 1:], course), steps=20)
    assert many.u.shape == (3, 20, 2)
    np.testing.assert_array_equal(many.u[..., 1], np.broadcast_to(course[:20], (3, 20)))


def test_a_course_starts_anew_with_reset_and_is_not_guessed_beyond_its_end():
    policy = beside(random_policy(CartEnv()), [[1.0], [2.0]])
    for _ in range(2):
        policy.reset(np.random.default_rng(0))
        assert [policy(np.zeros(2))[1] for _ in range(2)] == [1.0, 2.0]
    with pytest.raises(ValueError, match="covers 2 steps, and one more was asked for"):
        policy(np.zeros(2))


def test_wrong_arguments_are_named_as_typed():
    data = Trajectory.uniform(np.zeros((3, 2)), dt=0.1, states=("x", "p"))
    for names in (["q"], ["p", "p"], ["x", "p"]):
        with pytest.raises(ValueError, match=r"some, but not all, of the states \['x', 'p'\]"):
            measured_inputs(data, names)
    with pytest.raises(TypeError, match="single text 'p'"):
        measured_inputs(data, "p")
    with pytest.raises(ValueError, match=r"of shape \(steps, n_parameters\). Got \(0, 1\)"):
        beside(lambda x: x, [])
