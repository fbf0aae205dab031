"""Structures: order of accuracy, the circle, energy, and the agreement of fitting and stepping."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.stops_at_wall import StopsAtWall
from sindyrl.structure import Derivative, Increment, NextState, SecondOrder, per_second
from sindyrl.structure_file import structure_from_dict
from tests.systems import exact_flow


def oscillator(x, u):
    """Van der Pol with an input, column by column."""
    return [x[1], (1.0 - x[0] * x[0]) * x[1] - x[0] + u[0]]


def swinging(x, u):
    """Acceleration of a cart's position p and of an angle (c, s), coupled; states (p, c, s, v, w)."""
    _, c, s, v, w = x
    return [-0.3 * v + s * w * w + u[0], -4.0 * s - c * u[0] - 0.2 * w * v]


CART_POLE = ("p", "c", "s", "v", "w")
coupled = SecondOrder({"p": "v"}, {("c", "s"): "w"}, ignore=("p",))


def roll(structure, states, rates, x0, u, dt):
    path = [np.asarray(x0, dtype=float)]
    for held in u:
        path.append(np.array(structure.advance(states, rates, list(path[-1]), list(held), dt)))
    return np.array(path)


def observed_order(structure, states, rates, x0, *, seconds=1.0, steps=(20, 40, 80)):
    """Slope of the final error when the step is halved; the input changes every 1/20 s only."""

    def flow(x, u):
        return np.array(structure.flow(states, rates, list(x), list(u)))

    u = 0.5 * np.sin(np.arange(20))[:, None]
    truth = exact_flow(flow, x0, u, seconds / 20)[-1]
    errors = []
    for n in steps:
        path = roll(structure, states, rates, x0, np.repeat(u, n // 20, axis=0), seconds / n)
        errors.append(np.abs(path[-1] - truth).max())
    return np.log2(np.array(errors[:-1]) / errors[1:])


@pytest.mark.parametrize(("integrator", "order"), [("midpoint", 2), ("rk4", 4)])
def test_derivative_is_advanced_to_the_order_of_its_integrator(integrator, order):
    observed = observed_order(Derivative(integrator), ("x", "v"), oscillator, [1.0, 0.5])
    np.testing.assert_allclose(observed, order, atol=0.2)


def test_second_order_is_advanced_to_second_order():
    x0 = [0.1, np.cos(0.5), np.sin(0.5), 0.2, 1.5]
    np.testing.assert_allclose(observed_order(coupled, CART_POLE, swinging, x0), 2, atol=0.2)


@given(seed=st.integers(0, 10_000), dt=st.floats(1e-3, 0.5))
def test_the_angle_stays_on_the_circle_whatever_the_acceleration(seed, dt):
    rng = np.random.default_rng(seed)
    coef = rng.normal(scale=5.0, size=(2, 5))
    angle = rng.uniform(-3, 3)
    x = [rng.normal(), np.cos(angle), np.sin(angle), rng.normal(), rng.normal()]
    for _ in range(100):
        x = coupled.advance(CART_POLE, lambda x, u: list(coef @ np.tanh(x)), x, [0.0], dt)
    assert abs(np.hypot(x[1], x[2]) - 1.0) < 1e-13


def test_a_constant_speed_turns_the_angle_by_the_rational_rotation():
    one = SecondOrder(angles={("c", "s"): "w"})
    for dt in (0.1, 0.05):
        c, s, w = one.advance(("c", "s", "w"), lambda x, u: [0.0 * x[2]], [1.0, 0.0, 2.0], [], dt)
        assert np.arctan2(s, c) == pytest.approx(2.0 * np.arctan(dt), abs=1e-15)  # = w dt + O(dt^3)
        assert w == 2.0


def test_constant_acceleration_is_exact():
    free = SecondOrder({"x": "v"})
    x, v = free.advance(("x", "v"), lambda x, u: [u[0]], [1.0, -0.5], [3.0], 0.25)
    assert x == pytest.approx(1.0 - 0.5 * 0.25 + 3.0 * 0.25**2 / 2, abs=1e-15)
    assert v == pytest.approx(-0.5 + 3.0 * 0.25, abs=1e-15)


def test_pendulum_energy_drifts_with_the_square_of_the_step_or_less():
    one = SecondOrder(angles={("c", "s"): "w"})
    drifts = []
    for n in (200, 400, 800):
        path = roll(one, ("c", "s", "w"), lambda x, u: [-9.81 * x[1]], [0.0, 1.0, 0.0], np.zeros((n, 0)), 4.0 / n)
        energy = path[:, 2] ** 2 / 2.0 - 9.81 * path[:, 0]
        drifts.append(np.abs(energy - energy[0]).max())
    assert drifts[0] < 0.1
    assert (np.log2(np.array(drifts[:-1]) / drifts[1:]) > 1.9).all()


def collocated(structure, states, flow, terms, x0, dt, seconds=4.0):
    """Coefficients (target, term) fitted to exactly integrated data at one step length."""
    n = round(seconds / dt)
    held = 0.5 * np.sin(1.7 * (np.arange(n) // round(0.2 / dt)))[:, None]
    path = exact_flow(flow, x0, held, dt)
    z, y = structure.samples(states, path[:-1], path[1:], dt)
    theta = np.column_stack(terms(z.T, held.T))
    return np.linalg.lstsq(theta, y, rcond=None)[0].T


def assert_error_falls_by_four(fits, truth):
    errors = [np.abs(fit - truth).max() for fit in fits]
    assert errors[0] < 0.05
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(4.0, rel=0.2)


def test_midpoint_collocation_of_derivatives_is_off_by_the_square_of_the_step():
    def terms(z, u):
        return [z[0], z[1], z[0] ** 2 * z[1], u[0]]

    truth = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 1.0, -1.0, 1.0]])
    flow = lambda x, u: np.array(oscillator(x, u))  # noqa: E731
    fits = [collocated(Derivative(), ("x", "v"), flow, terms, [1.0, 0.5], dt) for dt in (0.1, 0.05, 0.025)]
    assert_error_falls_by_four(fits, truth)


def test_midpoint_collocation_of_accelerations_is_off_by_the_square_of_the_step():
    one = SecondOrder(angles={("c", "s"): "w"})
    states = ("c", "s", "w")

    def flow(x, u):
        return np.array([-x[1] * x[2], x[0] * x[2], -4.0 * x[1] - 0.2 * x[2] + u[0]])

    def terms(z, u):
        return [z[1], z[2], u[0]]

    fits = [collocated(one, states, flow, terms, [0.0, 1.0, 0.0], dt) for dt in (0.1, 0.05, 0.025)]
    assert_error_falls_by_four(fits, [[-4.0, -0.2, 1.0]])


def test_the_angle_is_collocated_on_the_circle():
    angles = np.random.default_rng(0).uniform(-3, 3, 50)
    x = np.column_stack([np.cos(angles), np.sin(angles), 0.3 + 0 * angles])
    after = np.column_stack([np.cos(angles + 0.4), np.sin(angles + 0.4), 0.5 + 0 * angles])
    middle, rate = SecondOrder(angles={("c", "s"): "w"}).samples(("c", "s", "w"), x, after, 0.1)
    expected = np.column_stack([np.cos(angles + 0.2), np.sin(angles + 0.2), 0.4 + 0 * angles])
    np.testing.assert_allclose(middle, expected, atol=1e-14)
    np.testing.assert_allclose(rate, np.full((50, 1), 2.0), rtol=1e-12)


def test_projection_of_the_origin_is_finite():
    one = SecondOrder(angles={("c", "s"): "w"})
    np.testing.assert_array_equal(one.project(("c", "s", "w"), np.array([0.0, 0.0, 2.0])), [0.0, 0.0, 2.0])


@given(order=st.permutations(range(5)), seed=st.integers(0, 100))
def test_the_order_of_the_states_does_not_matter(order, seed):
    x = np.random.default_rng(seed).normal(size=5)
    names = [CART_POLE[i] for i in order]

    def shuffled(columns, u):
        by_name = dict(zip(names, columns, strict=True))
        rates = dict(zip(("v", "w"), swinging([by_name[name] for name in CART_POLE], u), strict=True))
        return [rates[target[1:]] for target in coupled.targets(names)]

    here = coupled.advance(CART_POLE, swinging, list(x), [0.3], 0.05)
    there = coupled.advance(names, shuffled, list(x[list(order)]), [0.3], 0.05)
    np.testing.assert_array_equal(np.array(here)[list(order)], there)
    flow = coupled.flow(CART_POLE, swinging, list(x), [0.3])
    np.testing.assert_array_equal(
        np.array(flow)[list(order)], coupled.flow(names, shuffled, list(x[list(order)]), [0.3])
    )


def test_targets_units_and_features_of_second_order_follow_the_states():
    states, units = ("c", "w", "p", "s", "v"), ("", "rad/s", "m", "", "m/s")
    assert coupled.targets(states) == ("dw", "dv")
    assert coupled.target_units(states, units) == ("rad/s^2", "m/s^2")
    assert coupled.features_of(states) == ("c", "w", "s", "v")


@pytest.mark.parametrize(
    ("unit", "rate"),
    [
        ("", ""),
        ("1", "1/s"),
        ("m", "m/s"),
        ("m/s", "m/s^2"),
        ("m/s^2", "m/s^3"),
        ("m/s^9", "m/s^10"),
        ("rad/s", "rad/s^2"),
        ("N*m", "N*m/s"),
    ],
)
def test_unit_of_a_rate(unit, rate):
    assert per_second(unit) == rate


def test_equal_second_order_structures_are_one_key_whatever_the_order_of_their_entries():
    here = SecondOrder({"a": "va", "b": "vb"})
    there = SecondOrder({"b": "vb", "a": "va"})
    assert here == there
    assert len({here, there}) == 1
    assert here != SecondOrder({"a": "vb", "b": "va"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Derivative("euler"), r"`Derivative\(integrator=...\)` must be 'midpoint' or 'rk4'. Got 'euler'."),
        (lambda: SecondOrder(), "at least one position or angle. Got none"),
        (lambda: SecondOrder({"x": "v", "y": "v"}), r"each state once. Got \['v'\] more than once"),
        (lambda: SecondOrder({"x": "v"}).targets(("x", "v", "z")), r"Without kinematics: \['z'\]"),
        (lambda: SecondOrder({"x": "v"}).targets(("x",)), r"Not among the states: \['v'\]"),
        (lambda: SecondOrder({"x": "v"}, ignore=("y",)).features_of(("x", "v")), r"Not among the states: \['y'\]"),
        (lambda: structure_from_dict({"kind": "magic"}), "Unknown structure 'magic'. Known: next_state"),
        (lambda: structure_from_dict({"kind": "derivative"}), "incomplete: KeyError"),
        (
            lambda: structure_from_dict({"kind": "second_order", "positions": {}, "angles": 3, "ignore": []}),
            "incomplete",
        ),
        (lambda: structure_from_dict({"kind": "planar_body", "heading": "a"}), "incomplete: KeyError"),
        (lambda: StopsAtWall("x", "v", float("nan")), r"`StopsAtWall\(wall=...\)` must be a finite number. Got nan"),
        (lambda: StopsAtWall("x", "x", 0.0), "must be different states. Got 'x' twice"),
        (lambda: StopsAtWall("x", "v", 0.0).targets(("x", "w")), r"names \['v'\], which are not among"),
        (lambda: structure_from_dict([1, 2]), r"incomplete: TypeError.* in \[1, 2\]"),  # type: ignore[arg-type]
    ],
)
def test_wrong_use_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("structure", [NextState(), Increment()])
def test_discrete_structures_regress_exactly_what_they_add(structure):
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(30, 2)), rng.normal(size=(2, 2))
    after = np.stack(structure.advance(("a", "b"), lambda x, u: list(matrix @ np.array(x)), list(x.T), [], 0.1), axis=1)
    z, y = structure.samples(("a", "b"), x, after, 0.1)
    np.testing.assert_allclose(y, z @ matrix.T, atol=1e-14)
