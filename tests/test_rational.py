"""Rational equations of motion from data: planted fractions come back, and the model steps, saves and compiles."""

import dataclasses
import shutil

import numpy as np
import pytest

from sindyrl.export import to_c
from sindyrl.expression import Constant, Variable, interval
from sindyrl.guard import ActuatorError
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.poles import find_zero
from sindyrl.protocols import Outcome
from sindyrl.rational import identify_rational
from sindyrl.regression import SubsetSelection
from sindyrl.regression.implicit import ImplicitSubset
from sindyrl.simulate import simulate
from sindyrl.structure import Increment, SecondOrder
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

QUARTIC = polynomial_library(4, bias=True)
GRAVITY, HALF, CART, POLE = 9.81, 0.5, 1.0, 0.4  # m/s^2, m, kg, kg
TOTAL = CART + POLE
CARTPOLE = SecondOrder({"p": "v"}, {("cos", "sin"): "w"}, ignore=("p", "v"))


def path_of(rate, x0, u, dt, substeps=10):
    """States (step + 1, batch, n) of ``dx/dt = rate(x, u)`` by classical Runge-Kutta; x0 (batch, n), u (step, 1)."""
    x, h = [np.asarray(x0, dtype=float)], dt / substeps
    for held in u:
        y = x[-1]
        for _ in range(substeps):
            k1 = rate(y, held)
            k2 = rate(y + h / 2 * k1, held)
            k3 = rate(y + h / 2 * k2, held)
            k4 = rate(y + h * k3, held)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        x.append(y)
    return np.array(x)


def uptake(x, u):
    return 0.6 - 1.5 * x / (0.3 + x)


def uptake_data(noise=0.0, seed=0, steps=60, starts=10):
    """Michaelis-Menten from ``starts`` concentrations; noise as a share of the states' standard deviation."""
    x = path_of(uptake, np.linspace(0.02, 3.0, starts)[:, None], np.zeros((steps, 0)), 0.05)
    x = x + noise * x.std() * np.random.default_rng(seed).normal(size=x.shape)
    return Dataset(
        tuple(
            Trajectory.uniform(one, np.zeros((steps, 0)), dt=0.05, states=("x",), inputs=()) for one in x.swapaxes(0, 1)
        )
    )


def cartpole(q, u):
    """Barto's cart-pole; state cos, sin, angular velocity, cart velocity, position."""
    c, s, w, v = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    push = (u[0] + POLE * HALF * w * w * s) / TOTAL
    dw = (GRAVITY * s - c * push) / (HALF * (4 / 3 - POLE * c * c / TOTAL))
    return np.stack([-s * w, c * w, dw, push - POLE * HALF * dw * c / TOTAL, v], axis=-1)


def cartpole_data(seed=0, steps=60, episodes=4):
    rng, found = np.random.default_rng(seed), []
    for _ in range(episodes):
        angle, held = rng.uniform(-np.pi, np.pi), np.repeat(rng.uniform(-10, 10, steps // 10), 10)[:, None]
        start = np.array([[np.cos(angle), np.sin(angle), rng.uniform(-4, 4), 0.0, 0.0]])
        x = path_of(cartpole, start, held, 0.02)[:, 0]
        found.append(Trajectory.uniform(x, held, dt=0.02, states=("cos", "sin", "w", "v", "p"), inputs=("F",)))
    return Dataset(tuple(found))


@pytest.fixture(scope="module")
def kinetics():
    return identify_rational(uptake_data(), QUARTIC)


@pytest.fixture(scope="module")
def cart():
    below = polynomial_library(2, input_degree=0, states=["cos"])
    data, above = cartpole_data(), polynomial_library(4, input_degree=1)
    return identify_rational(data, above, denominator=below, structure=CARTPOLE)


def terms(part):
    return {term.name: term.coefficient for term in part}


# ---- planted answers


def test_michaelis_menten_comes_back_to_nine_digits_although_the_rows_are_wrong_in_the_fourth(kinetics):
    (equation,) = kinetics.equations
    assert terms(equation.numerator) == pytest.approx({"1": 0.6, "x": -3.0}, rel=1e-7)
    assert terms(equation.denominator) == pytest.approx({"1": 1.0, "x": 1 / 0.3}, rel=1e-7)
    assert (equation.unit_term, equation.zero.verdict, equation.proven) == ("1", "none", True)
    assert kinetics.correction[0] > 1e-5  # what midpoint collocation had wrong
    assert str(kinetics).startswith("dx = (0.6 - 3*x)/(1 + 3.333*x)\n")


def test_without_correction_the_error_of_the_collocation_remains():
    known = ImplicitSubset(size=4, numerators=[0, 1])
    (equation,) = identify_rational(uptake_data(), QUARTIC, regressor=known, corrections=0).equations
    (corrected,) = identify_rational(uptake_data(), QUARTIC, regressor=known).equations
    errors = [abs(terms(one.denominator)["x"] - 1 / 0.3) for one in (equation, corrected)]
    assert errors[0] > 1e-5 > 1e-8 > errors[1]


def test_a_named_term_of_the_denominator_gets_the_coefficient_one():
    (equation,) = identify_rational(uptake_data(), polynomial_library(2, bias=True), unit="x").equations
    assert terms(equation.numerator) == pytest.approx({"1": 0.18, "x": -0.9}, rel=1e-7)
    assert terms(equation.denominator) == pytest.approx({"1": 0.3, "x": 1.0}, rel=1e-7)
    assert equation.unit_term == "x"
    with pytest.raises(ValueError, match=r"`identify_rational\(unit=\.\.\.\)` .* dx has 1, x\. Got 'x\^2'"):
        identify_rational(uptake_data(), polynomial_library(1, bias=True), unit={"dx": "x^2"})


def test_the_accelerations_of_a_cart_pole_come_back_with_their_mass_matrix(cart):
    scale = HALF * 4 / 3
    dw, dv = cart.equations
    below = {"1": 1.0, "cos^2": -POLE / TOTAL * 3 / 4}
    assert terms(dw.denominator) == pytest.approx(below, rel=1e-4)
    assert terms(dv.denominator) == pytest.approx(below, rel=1e-4)
    assert terms(dw.numerator) == pytest.approx(
        {"sin": GRAVITY / scale, "cos*F": -1 / TOTAL / scale, "cos*sin*w^2": -POLE * HALF / TOTAL / scale}, rel=1e-4
    )
    assert terms(dv.numerator) == pytest.approx(
        {"F": 1 / TOTAL, "cos*sin": -POLE * GRAVITY * 3 / 4 / TOTAL, "sin*w^2": POLE * HALF / TOTAL}, rel=1e-4
    )
    assert cart.actuators is not None
    assert cart.actuators.kept.all()
    assert "cos*sin^2" in cart.dropped[0]  # = cos - cos^3
    assert cart.dropped[1] == ()


def test_a_polynomial_stays_one():
    x = path_of(lambda q, u: q - q**3, np.linspace(-1.5, 1.5, 8)[:, None], np.zeros((40, 0)), 0.05)
    data = Dataset(
        tuple(Trajectory.uniform(x[:, k], np.zeros((40, 0)), dt=0.05, states=("x",), inputs=()) for k in range(8))
    )
    fit = identify_rational(data, polynomial_library(3, bias=True))
    assert terms(fit.equations[0].denominator) == {"1": 1.0}
    assert terms(fit.equations[0].numerator) == pytest.approx({"x": 1.0, "x^3": -1.0}, rel=1e-6)
    assert fit.model.rates.library.names == ("x", "x^3")  # no division is left


def test_discrete_time_has_nothing_to_correct():
    x = [np.linspace(0.1, 3.0, 12)]
    for _ in range(8):
        x.append(2.0 * x[-1] / (1.0 + x[-1] ** 2))
    paths = np.array(x).T[..., None]
    data = Dataset(tuple(Trajectory.uniform(one, np.zeros((8, 0)), dt=1.0, states=("x",), inputs=()) for one in paths))
    fit = identify_rational(data, polynomial_library(3, bias=True), structure=Increment())
    assert fit.correction == 0.0
    assert terms(fit.equations[0].numerator) == pytest.approx({"x": 1.0, "x^3": -1.0}, rel=1e-9)
    assert terms(fit.equations[0].denominator) == pytest.approx({"1": 1.0, "x^2": 1.0}, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "smooth", "error"), [(1e-4, False, 0.005), (1e-3, True, 0.01), (1e-2, True, 0.06)])
def test_noise_up_to_one_percent_of_the_states(noise, smooth, error):
    # 3 seeds each; the median relative error of the coefficients over all of them.
    worst = []
    for seed in range(3):
        (equation,) = identify_rational(uptake_data(noise, seed), QUARTIC, smooth=smooth).equations
        above, below = terms(equation.numerator), terms(equation.denominator)
        assert (set(above), set(below)) == ({"1", "x"}, {"1", "x"})
        worst.append(max(abs(above["1"] / 0.6 - 1), abs(above["x"] / -3 - 1), abs(below["x"] * 0.3 - 1)))
    assert np.median(worst) < error


@pytest.mark.slow
def test_two_states_with_a_fourth_power_below_and_twenty_candidates_there():
    def rate(q, u):  # glycolysis with substrate s and product a, inhibited by a^4
        flux = q[..., 0] * q[..., 1] / (1.0 + q[..., 1] ** 4)
        return np.stack([2.5 - 3.0 * flux, 2.0 * flux - 1.3 * q[..., 1]], axis=-1)

    start = np.random.default_rng(0).uniform([0.5, 0.3], [5.0, 3.0], (8, 2))
    x = path_of(rate, start, np.zeros((80, 0)), 0.02).swapaxes(0, 1)
    data = Dataset(
        tuple(Trajectory.uniform(one, np.zeros((80, 0)), dt=0.02, states=("s", "a"), inputs=()) for one in x)
    )
    substrate, product = identify_rational(data, polynomial_library(5, bias=True)).equations
    assert terms(substrate.numerator) == pytest.approx({"1": 2.5, "s*a": -3.0, "a^4": 2.5}, rel=1e-6)
    assert terms(product.numerator) == pytest.approx({"a": -1.3, "s*a": 2.0, "a^5": -1.3}, rel=1e-6)
    for equation in (substrate, product):
        assert terms(equation.denominator) == pytest.approx({"1": 1.0, "a^4": 1.0}, rel=1e-6)


# ---- the model is one like every other


def test_the_model_simulates_as_the_truth_does(kinetics, cart):
    start = np.array([2.2])
    true = path_of(uptake, start[None], np.zeros((100, 0)), 0.05)[:, 0]
    np.testing.assert_allclose(simulate(kinetics.model, start, steps=100, rtol=1e-10).x, true, rtol=1e-7)
    assert np.abs(simulate(kinetics.model, start, steps=100).x - true).max() < 1e-3  # fixed midpoint steps
    x = cartpole_data(seed=9, episodes=1).trajectories[0]
    again = simulate(cart.model, x.x[0], x.u, rtol=1e-9)
    assert again.outcome is Outcome.solved
    np.testing.assert_allclose(again.x, x.x, atol=1e-2)


def test_saving_keeps_every_bit(kinetics, cart, tmp_path):
    for fit in (kinetics, cart):
        fit.model.save(tmp_path / "model.json")
        loaded = Model.load(tmp_path / "model.json")
        assert loaded.to_json() == fit.model.to_json()
        x = np.random.default_rng(0).uniform(0.1, 1.0, (50, len(loaded.states)))
        u = np.zeros((50, len(loaded.inputs)))
        assert np.array_equal(loaded.step(x, u), fit.model.step(x, u))


def test_the_step_map_and_the_compiled_batch_are_the_same_function(cart):
    x, u = cartpole_data(seed=3, episodes=1).trajectories[0].x[:-1], np.full((60, 1), 2.0)
    np.testing.assert_allclose(cart.model.step_map()(np.hstack([x, u])), cart.model.step(x, u), rtol=1e-12)
    columns = cart.model.rates.columns("numpy")
    variables = cart.model.feature_columns(list(x.T), list(u.T))
    compiled = np.stack(columns(cart.model.rates.coef, variables), axis=-1)
    np.testing.assert_allclose(compiled, cart.model.rates(np.stack(variables, axis=-1)), rtol=1e-12)


@pytest.mark.skipif(not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler")
def test_the_step_compiles_to_c(kinetics, cart, tmp_path):
    ranged = dataclasses.replace(kinetics.model, states=(Signal("x", "", 0.05, 4.0),))
    for name, model, undefined in (("kinetics", ranged, "refuse"), ("cart", cart.model, "allow")):
        form = model.step_map()
        report = to_c(form, tmp_path / name, number="float64", verify="compile", n_vectors=200, undefined=undefined)
        assert report.verified == "compiled"


# ---- poles


def pole_data():
    """``dx/dt = -1 / x`` on both sides of nothing: positive states only, and a box that stops short of zero."""
    x = path_of(lambda q, u: -1.0 / q, np.linspace(1.0, 3.0, 8)[:, None], np.zeros((20, 0)), 0.02)
    return Dataset(
        tuple(Trajectory.uniform(x[:, k], np.zeros((20, 0)), dt=0.02, states=("x",), inputs=()) for k in range(8))
    )


def test_a_denominator_without_constant_is_found_and_proven_free_of_zeros_where_the_data_are():
    (equation,) = identify_rational(pole_data(), polynomial_library(3, bias=True)).equations
    assert str(equation) == "dx = -1/x"
    assert (equation.unit_term, equation.zero.verdict) == ("x", "none")


def crossing_data():
    """``dx/dt = -1 / (x - y), dy/dt = 0``: the data have ``x > y``, their box has not."""
    rng = np.random.default_rng(0)
    y = rng.uniform(-1.0, 1.0, 12)
    start = np.column_stack([y + rng.uniform(0.7, 1.5, 12), y])

    def rate(q, u):
        return np.stack([-1.0 / (q[..., 0] - q[..., 1]), np.zeros(len(q))], axis=-1)

    x = path_of(rate, start, np.zeros((20, 0)), 0.01)
    return Dataset(
        tuple(Trajectory.uniform(x[:, k], np.zeros((20, 0)), dt=0.01, states=("x", "y"), inputs=()) for k in range(12))
    )


def test_a_pole_in_the_box_is_flagged_and_ends_a_simulation():
    with pytest.warns(UserWarning, match=r"denominator of dx is zero near .*denominator="):
        fit = identify_rational(crossing_data(), polynomial_library(2, bias=True))
    assert fit.equations[0].zero.verdict == "present"
    assert terms(fit.equations[0].numerator) == pytest.approx({"1": -1.0 * np.sign(_x(fit))}, rel=1e-5)
    # x reaches y after 0.5 s; beyond it the true system does not exist.
    for rtol in (None, 1e-8):
        end = simulate(fit.model, np.array([1.0, 0.0]), steps=80, rtol=rtol)
        assert end.outcome is Outcome.not_finite
        assert 45 <= end.valid <= 55
    before = simulate(fit.model, np.array([1.0, 0.0]), steps=40, rtol=1e-10)
    np.testing.assert_allclose(before.x[-1, 0], np.sqrt(1.0 - 2 * 0.4), rtol=1e-4)


def _x(fit):
    return terms(fit.equations[0].denominator)["x"]


def test_zeros_are_excluded_shown_or_left_open():
    x, y = Variable("x"), Variable("y")
    box = {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}
    inside = x * x - 2.0 * x * y + y * y + 0.5  # (x - y)^2 + 0.5: one interval evaluation reaches -1.5
    assert interval([inside], box)[0][0] < 0
    assert find_zero(inside, box).verdict == "none"
    assert find_zero(x - y, box).verdict == "present"
    nearly = find_zero(x * x - 2.0 * x * y + y * y + 1e-6, box)  # takes finer boxes than are looked at
    assert nearly.verdict == "possible"
    assert set(nearly.where) == {"x", "y"}
    assert find_zero(Constant(2.0), {}).verdict == "none"
    assert find_zero(1.0 / x, box).verdict != "present"  # changes sign, through infinity
    with pytest.raises(ValueError, match=r"`find_zero\(ranges=\.\.\.\)` .* for 'y'\. Got None"):
        find_zero(x - y, {"x": (0.0, 1.0)})


# ---- wrong use and what cannot be found


def test_nothing_to_find_is_said():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(61, 1))
    data = Trajectory.uniform(x, np.zeros((60, 0)), dt=0.1, states=("x",), inputs=())
    # Of white noise only the return to the mean is predictable, which midpoints do not show.
    with pytest.warns(UserWarning, match=r"No fraction of few terms predicts dx.*max_terms"):
        identify_rational(data, polynomial_library(2, bias=True))


def test_an_input_is_not_lost_without_a_word():
    u = np.repeat([[1.0], [-1.0], [0.5]], 20, axis=0)
    x = path_of(lambda q, u: 0.2 * u[0] - q, np.full((1, 1), 3.0), u, 0.05)[:, 0]
    data = Trajectory.uniform(x, u, dt=0.05, states=("x",), inputs=("u",))
    only_x = ImplicitSubset(size=2)
    with pytest.raises(ActuatorError, match="u"):
        identify_rational(data, polynomial_library(1, bias=True), regressor=only_x)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"regressor": SubsetSelection()}, TypeError, "regressor"),
        ({"corrections": -1}, ValueError, "corrections"),
        ({"actuators": "ignore"}, ValueError, "actuators"),
        ({"states": [Signal("z")]}, ValueError, "states"),
        ({"denominator": polynomial_library(1).bind(("y",))}, ValueError, "denominator"),
        ({"smooth": True, "structure": Increment()}, ValueError, "smooth"),
        ({"exclude": lambda x, u, x_next: np.ones(len(x), dtype=bool)}, ValueError, "data"),
        ({"unit": "y"}, ValueError, "unit"),
        ({"structure": SecondOrder({"x": "v"})}, ValueError, "SecondOrder"),
    ],
)
def test_wrong_use_is_refused_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        identify_rational(uptake_data(steps=20, starts=4), QUARTIC, **settings)
