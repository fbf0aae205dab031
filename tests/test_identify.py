"""From data to a model: planted equations come back, and the report tells the truth about them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.identify import identify
from sindyrl.library import custom_library, identity_library, polynomial_library
from sindyrl.regression import STLSQ, Ensemble
from sindyrl.structure import Derivative, Increment, NextState, SecondOrder
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART_TASK, cart_matrices, exact_flow

A = np.array([[0.95, 0.08], [-0.1, 0.9]])
B = np.array([[0.0], [0.12]])
names = {"states": ("x", "v"), "inputs": ("u",)}


def linear_data(seed=0, steps=120, noise=0.0, episodes=2):
    """``x+ = A x + B u`` from random states under random inputs; noise is added to each next state."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(episodes):
        x, u = [rng.normal(size=2)], rng.uniform(-1, 1, (steps, 1))
        for held in u:
            x.append(A @ x[-1] + B @ held + noise * rng.normal(size=2))
        parts.append(Trajectory.uniform(np.array(x), u, dt=0.1, **names))
    return Dataset(tuple(parts))


def pendulum_data(dt, seconds=8.0):
    """Damped pendulum with torque, integrated exactly; the torque changes every 0.4 s."""

    def rate(x, u):
        return np.array([-x[1] * x[2], x[0] * x[2], 4.0 * x[1] - 0.3 * x[2] + u[0]])

    n = round(seconds / dt)
    held = np.random.default_rng(0).uniform(-3, 3, 40)[np.arange(n) // round(0.4 / dt)][:, None]
    x = exact_flow(rate, [-1.0, 0.0, 0.0], held, dt)
    return Trajectory.uniform(x, held, dt=dt, states=("cos", "sin", "w"), inputs=("torque",))


pendulum = SecondOrder(angles={("cos", "sin"): "w"})


def coefficients(fit, target=0):
    row = fit.model.rates.member(0).coef[target]
    return {fit.model.rates.library.names[j]: row[j] for j in np.flatnonzero(row)}


# ---- planted answers


@pytest.mark.parametrize("structure", [None, NextState(), Increment()])
def test_planted_discrete_equations_come_back_exactly(structure):
    fit = identify(linear_data(), polynomial_library(2), structure=structure)
    shift = 0.0 if isinstance(structure, NextState) else 1.0
    assert fit.model.structure == (structure or Increment())
    np.testing.assert_allclose([*coefficients(fit).values()], [A[0, 0] - shift, A[0, 1]], rtol=1e-8)
    np.testing.assert_allclose([*coefficients(fit, 1).values()], [A[1, 0], A[1, 1] - shift, B[1, 0]], rtol=1e-8)
    assert list(coefficients(fit, 1)) == ["x", "v", "u"]
    x, u = np.random.default_rng(1).normal(size=(9, 2)), np.random.default_rng(2).normal(size=(9, 1))
    np.testing.assert_allclose(fit.model.step(x, u), x @ A.T + u @ B.T, atol=1e-9)
    assert (fit.relative_error < 1e-8).all()


def test_planted_accelerations_come_back_with_an_error_of_the_square_of_the_step():
    errors = []
    for dt in (0.08, 0.04, 0.02):
        fit = identify(pendulum_data(dt), polynomial_library(3, input_degree=1), structure=pendulum)
        found = coefficients(fit)
        assert set(found) == {"sin", "w", "torque"}
        errors.append(np.abs(np.array([found["sin"] - 4.0, found["w"] + 0.3, found["torque"] - 1.0])).max())
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 4.0, rtol=0.25)


@pytest.mark.parametrize("integrator", ["midpoint", "rk4"])
def test_planted_derivatives_come_back(integrator):
    flow = lambda x, u: np.array([x[1], -x[0] - 0.5 * x[1] + 0.8 * x[0] * u[0]])  # noqa: E731
    u = np.repeat(np.random.default_rng(0).uniform(-1, 1, (40, 1)), 10, axis=0)
    data = Trajectory.uniform(exact_flow(flow, [1.0, 0.0], u, 0.02), u, dt=0.02, **names)
    fit = identify(data, polynomial_library(2), structure=Derivative(integrator))
    # In data without noise the selection also sees the collocation's own error, as small further terms.
    for target, planted in enumerate(({"v": 1.0}, {"x": -1.0, "v": -0.5, "x*u": 0.8})):
        found = dict.fromkeys(planted, 0.0) | coefficients(fit, target)
        assert found == pytest.approx(dict.fromkeys(found, 0.0) | planted, abs=2e-3)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_support_is_found_in_noise_and_whatever_the_order_of_the_trajectories(seed):
    data = linear_data(seed, noise=0.01, episodes=3)
    here = identify(data, polynomial_library(2), inclusion=False)
    planted = {"x": A[1, 0], "v": A[1, 1] - 1.0, "u": B[1, 0]}
    found = coefficients(here, 1)
    assert set(found) >= set(planted)
    assert len(found) <= 5
    assert found == pytest.approx(dict.fromkeys(found, 0.0) | planted, abs=0.05)
    turned = Dataset(data.trajectories[::-1])
    there = identify(turned, polynomial_library(2), inclusion=False)
    again = dict.fromkeys(planted, 0.0) | coefficients(there, 1)
    assert again == pytest.approx(dict.fromkeys(again, 0.0) | planted, abs=0.05)  # other folds, maybe another size


def test_other_units_change_coefficients_by_their_factors():
    data = linear_data(noise=0.01)
    scaled = Dataset(tuple(Trajectory.uniform(p.x * [1e3, 1.0], p.u * 1e-3, dt=0.1, **names) for p in data))
    here, there = identify(data, polynomial_library(2)), identify(scaled, polynomial_library(2))
    expected = {"x": 1e-3, "v": 1.0, "u": 1e3}
    assert coefficients(there, 1) == pytest.approx(
        {k: v * expected[k] for k, v in coefficients(here, 1).items()}, rel=1e-7
    )


# ---- what is left out


def test_exact_dependencies_are_dropped_by_name_and_stay_zero():
    fit = identify(pendulum_data(0.04), polynomial_library(2, bias=True), structure=pendulum)
    assert fit.dropped == ("sin^2",)
    assert "dependent and dropped: sin^2" in str(fit)
    library = fit.model.rates.library
    assert "sin^2" in library.names
    assert (fit.model.rates.coef[..., library.index("sin^2")] == 0).all()
    assert fit.condition < 1e4


def test_coefficients_keep_their_places_behind_a_dropped_term():
    spec = polynomial_library(2, bias=True, states=["cos", "sin"]) + identity_library()  # w comes after sin^2
    fit = identify(pendulum_data(0.02), spec, structure=pendulum)
    assert fit.dropped == ("sin^2",)
    assert coefficients(fit) == pytest.approx({"sin": 4.0, "torque": 1.0, "w": -0.3}, abs=0.01)
    support = fit.model.rates.member(0).coef != 0
    assert (fit.standard_error[support] > 0).all()
    assert (fit.standard_error[~support] == 0).all()
    assert (fit.inclusion[support] > 0.5).all()


def test_the_library_stays_whole_so_that_refits_compile_nothing():
    spec = polynomial_library(2, bias=True)
    still = Trajectory.uniform(np.zeros((30, 2)), np.random.default_rng(0).normal(size=(29, 1)), dt=0.1, **names)
    libraries = [identify(data, spec, inclusion=False).model.rates.library for data in (still, linear_data())]
    assert libraries[0] == libraries[1] == spec.bind(("x", "v"), ("u",))


def test_excluded_transitions_have_no_say():
    clean = linear_data(3)
    spoiled = Dataset(
        tuple(
            dataclasses.replace(p, x=np.where(np.arange(len(p.x))[:, None] == 60, 50.0, p.x))
            for p in clean.trajectories
        )
    )
    fit = identify(spoiled, polynomial_library(2), exclude=lambda x, u, after: (x[:, 0] > 40) | (after[:, 0] > 40))
    assert (fit.rows, fit.excluded) == (236, 4)
    assert coefficients(fit, 1) == pytest.approx({"x": A[1, 0], "v": A[1, 1] - 1.0, "u": B[1, 0]}, rel=1e-8)
    assert fit.model.seen[0, 1] == 50.0  # what was seen, not what was used
    assert "236 transitions (4 excluded)" in str(fit)


def test_a_target_that_never_changes_gets_no_term():
    x = np.column_stack([np.ones(60), np.cumsum(np.random.default_rng(0).normal(size=60))])
    fit = identify(Trajectory.uniform(x, np.diff(x[:, 1])[:, None], dt=0.1, **names), identity_library())
    assert coefficients(fit, 0) == {}
    assert coefficients(fit, 1) == pytest.approx({"u": 1.0})
    assert fit.relative_error[0] == 0.0


# ---- uncertainty


def test_standard_errors_agree_with_the_formula_of_least_squares():
    data = linear_data(noise=0.02, steps=300)
    fit = identify(data, polynomial_library(1), members=60)
    pairs = data.pairs()
    z = np.column_stack([pairs.x, pairs.u])
    expected = 0.02 * np.sqrt(np.diag(np.linalg.inv(z.T @ z)))
    np.testing.assert_allclose(fit.standard_error[1], expected, rtol=0.35)
    assert fit.residual_rms[1] == pytest.approx(0.02, rel=0.1)
    assert fit.relative_error[1] == pytest.approx(
        fit.residual_rms[1] / np.sqrt(np.mean((pairs.x_next - pairs.x)[:, 1] ** 2))
    )


@pytest.mark.parametrize("members", [1, 2])
def test_few_members_still_have_standard_errors(members):
    fit = identify(linear_data(noise=0.02), polynomial_library(1), members=members)
    assert fit.model.rates.members == members
    assert (fit.standard_error[1] > 0).all()


def test_member_zero_is_the_fit_to_all_rows_and_the_others_differ():
    data = linear_data(noise=0.02)
    fit = identify(data, polynomial_library(1), members=5)
    single = identify(data, polynomial_library(1), members=1)
    np.testing.assert_array_equal(fit.model.rates.member(0).coef, single.model.rates.coef)
    assert len(np.unique(fit.model.rates.coef[:, 1, 0])) == 5


def test_inclusion_is_high_for_planted_terms_and_low_for_others():
    fit = identify(linear_data(noise=0.05), polynomial_library(3))
    planted = np.isin(fit.model.rates.library.names, ["x", "v", "u"])
    assert (fit.inclusion[1][planted] > 0.8).all()
    assert (fit.inclusion[1][~planted] < 0.5).all()
    skipped = identify(linear_data(noise=0.05), polynomial_library(3), inclusion=False)
    np.testing.assert_array_equal(skipped.inclusion, (skipped.model.rates.member(0).coef != 0).astype(float))


def test_the_same_data_give_the_same_model_and_generators_decide():
    data = linear_data(noise=0.05)
    fits = [identify(data, polynomial_library(2), rng=r) for r in (None, None, *map(np.random.default_rng, (1, 1, 2)))]
    jsons = [fit.model.to_json() for fit in fits]
    assert jsons[0] == jsons[1]
    assert jsons[2] == jsons[3]
    assert len(set(jsons)) == 3


# ---- settings and wrong use


def test_other_regressors_and_a_bound_library_may_be_given():
    library = polynomial_library(2).bind(("x", "v"), ("u",))
    fit = identify(linear_data(), library, regressor=STLSQ(threshold=0.01))
    assert coefficients(fit, 1) == pytest.approx({"x": A[1, 0], "v": A[1, 1] - 1.0, "u": B[1, 0]}, rel=1e-8)
    assert fit.model.rates.library == library


def test_signals_carry_units_and_ranges_into_the_model():
    states = (Signal("x", "m", -3.0, 3.0), Signal("v", "m/s"))
    fit = identify(linear_data(), identity_library(), structure=Derivative(), states=states)
    assert fit.model.states == states
    assert fit.model.rates.target_units == ("m/s", "m/s^2")
    assert "dv [m/s^2]: residual" in str(fit)
    np.testing.assert_array_equal(fit.model.seen[:, 1], np.concatenate([p.x for p in linear_data()]).max(axis=0))


def test_the_report_has_a_line_for_each_term():
    fit = identify(linear_data(noise=0.02), polynomial_library(1))
    lines = str(fit).splitlines()
    assert len(lines) == 2 + fit.model.n_terms + 1
    assert all("±" in line and "% of resamples" in line for line in lines if line.startswith("    "))
    assert lines[-1].startswith("240 transitions (0 excluded), 3 candidate terms, condition number ")


def short(steps):
    return Trajectory.uniform(
        np.random.default_rng(0).normal(size=(steps + 1, 2)), np.zeros((steps, 1)), dt=0.1, **names
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: identify(short(9), identity_library()), r"`identify\(data=...\)` leaves 9 transitions \(0 excluded\)"),
        (
            lambda: identify(short(30), identity_library(), exclude=lambda x, u, after: np.arange(30) > 5),
            r"leaves 6 transitions \(24 excluded\)",
        ),
        (
            lambda: identify(short(30), identity_library(), exclude=lambda x, u, after: np.zeros(30, dtype=int)),
            "must return 30 booleans",
        ),
        (
            lambda: identify(short(30), identity_library(), states=[Signal("v"), Signal("x")]),
            r"`identify\(states=...\)` must be named \['x', 'v'\] as in the data. Got \['v', 'x'\]",
        ),
        (lambda: identify(short(30), identity_library(), inputs=[]), r"`identify\(inputs=...\)` must be named \['u'\]"),
        (
            lambda: identify(short(30), identity_library(), members=0),
            r"`identify\(members=...\)` must be at least 1. Got 0",
        ),
        (lambda: identify(short(30), identity_library(), structure=pendulum), "must cover the states exactly"),
        (
            lambda: identify(linear_data(), identity_library(), regressor=Ensemble(n_members=3, random_state=0)),
            r"`identify\(regressor=...\)` must find `coef_` of shape \(2, 3\)",
        ),
        (
            lambda: identify(linear_data(), polynomial_library(1).bind(("v", "x"), ("u",))),
            r"must be functions of \['x', 'v', 'u'\]",
        ),
    ],
)
def test_wrong_use_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_term_of_ones_own_is_found():
    rng = np.random.default_rng(0)
    v, u = [0.0], rng.uniform(-1, 1, (200, 1))
    for held in u[:, 0]:
        v.append(v[-1] + 0.5 * held - 0.3 * v[-1] * abs(v[-1]))
    data = Trajectory.uniform(np.array(v)[:, None], u, dt=0.1, states=("v",), inputs=("u",))
    drag = custom_library([lambda v: v * abs(v)])
    assert coefficients(identify(data, polynomial_library(3) + drag)) == pytest.approx(
        {"u": 0.5, "v*abs(v)": -0.3}, rel=1e-8
    )


# ---- a task, intervals, units, methods


def cart_data(noise=0.0, steps=200):
    a, b = cart_matrices()
    rng = np.random.default_rng(0)
    x, u = [np.zeros(2)], rng.uniform(-1, 1, (steps, 1))
    for held in u:
        x.append(a @ x[-1] + b @ held)
    return Trajectory.uniform(np.array(x) + noise * rng.normal(size=(steps + 1, 2)), u, dt=0.1, **names)


def test_a_task_supplies_what_is_not_given():
    data, task = cart_data(), CART_TASK
    whole = identify(data, task=task)
    spelled = identify(
        data, task.library, structure=task.structure, exclude=task.exclude, states=task.states, inputs=task.inputs
    )
    assert whole.model.to_json() == spelled.model.to_json()
    own = identify(data, polynomial_library(2), task=task, structure=Increment())
    assert own.model.structure == Increment()
    assert len(own.model.rates.library) == 9
    assert own.model.states == task.states
    with pytest.raises(ValueError, match=r"`identify\(library=...\)` is needed unless a task supplies it"):
        identify(data)


def test_intervals_hold_new_measurements_as_often_as_they_say():
    fit = identify(linear_data(noise=0.02, steps=300), polynomial_library(1))
    new = linear_data(seed=1, noise=0.02, steps=1000).pairs()
    low, high = fit.predict_interval(new.x, new.u, level=0.9)
    inside = np.mean((new.x_next - new.x >= low) & (new.x_next - new.x <= high), axis=0)
    np.testing.assert_allclose(inside, 0.9, atol=0.03)


def test_units_that_do_not_match_are_a_note_with_the_remedy():
    states = (Signal("x", "m"), Signal("v", "km/h"))
    odd = custom_library([lambda x, v: x + v]) + polynomial_library(1)
    fit = identify(linear_data(noise=0.01), odd, states=states, regressor=STLSQ(0.0))
    assert any("x + v: x is in m" in text and "Correct the unit" in text for text in fit.warnings)
    assert "Note: x + v" in str(fit)
    known = identify(cart_data(), identity_library(), structure=SecondOrder({"x": "v"}), states=states)
    assert any(text.startswith("d(x)/dt is in m/s, but v is in") for text in known.warnings)
    right = identify(cart_data(), task=CART_TASK)
    assert right.warnings == ()
    assert str(right.units.coefficient_units[0][right.model.rates.library.index("u")]) == "1/kg"
    assert identify(linear_data(), identity_library()).units is None
    vague = identify(linear_data(), identity_library(), states=(Signal("x", "m^^"), Signal("v", "m/s")))
    assert any(text.startswith("x: The unit 'm^^'") for text in vague.warnings)


def test_the_weak_form_finds_planted_rates_in_noise_with_honest_errors():
    flow = lambda x, u: np.array([x[1], -x[0] - 0.5 * x[1] + 0.8 * x[0] * u[0]])  # noqa: E731
    u = np.repeat(np.random.default_rng(0).uniform(-1, 1, (60, 1)), 10, axis=0)
    x = exact_flow(flow, [1.0, 0.0], u, 0.02)
    x = x + 0.01 * x.std(axis=0) * np.random.default_rng(1).normal(size=x.shape)
    data = Trajectory.uniform(x, u, dt=0.02, **names)
    fit = identify(data, polynomial_library(2), structure=Derivative("rk4"), method="weak", members=20)
    assert fit.method == "weak"
    for target, planted in enumerate(({"v": 1.0}, {"x": -1.0, "v": -0.5, "x*u": 0.8})):
        found = coefficients(fit, target)
        assert set(found) == set(planted)
        for name, value in planted.items():
            error = fit.standard_error[target, fit.model.rates.library.index(name)]
            assert abs(found[name] - value) < 4 * error
            assert error < 0.05
    assert identify(data, polynomial_library(2), structure=Derivative(), method="auto").method == "weak"
    known = identify(data, polynomial_library(2), structure=SecondOrder({"x": "v"}), method="weak")
    assert set(coefficients(known)) == {"x", "v", "x*u"}
    thresholded = identify(
        data, polynomial_library(2), structure=Derivative(), method="weak", regressor=STLSQ(0.2), inclusion=False
    )
    assert set(coefficients(thresholded, 1)) == {"x", "v", "x*u"}


def test_excluded_transitions_are_in_no_window():
    flow = lambda x, u: np.array([x[1], -x[0] - 0.5 * x[1] + u[0]])  # noqa: E731
    u = np.repeat(np.random.default_rng(0).uniform(-1, 1, (40, 1)), 10, axis=0)
    x = exact_flow(flow, [1.0, 0.0], u, 0.02)
    x[200:204] += 30.0
    data = Trajectory.uniform(x, u, dt=0.02, **names)
    settings = {
        "structure": Derivative(),
        "method": "weak",
        "exclude": lambda x, u, after: (x[:, 0] > 9) | (after[:, 0] > 9),
    }
    fit = identify(data, polynomial_library(1), **settings)
    assert coefficients(fit, 1) == pytest.approx({"x": -1.0, "v": -0.5, "u": 1.0}, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: identify(linear_data(), identity_library(), method="magic"),  # type: ignore[arg-type]
            r"`identify\(method=...\)` must be one of",
        ),
        (
            lambda: identify(linear_data(), identity_library(), method="weak"),
            "must be 'collocation' for a structure of kind",
        ),
        (
            lambda: identify(short(12), identity_library(), structure=Derivative(), method="weak"),
            "needs 20 uninterrupted steps",
        ),
    ],
)
def test_methods_that_do_not_suit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- bad input


def test_collinear_columns_and_inputs_that_tell_nothing_are_named():
    data = linear_data(noise=0.01)
    still = Dataset(tuple(dataclasses.replace(each, u=np.full_like(each.u, 0.1)) for each in data))
    assert any("Input 'u' never changes" in text for text in identify(still, identity_library()).warnings)
    doubled = Dataset(
        tuple(
            Trajectory(
                each.t, np.column_stack([each.x, 2 * each.x[:, 0]]), each.u, states=("x", "v", "y"), inputs=("u",)
            )
            for each in data
        )
    )
    assert identify(doubled, identity_library()).dropped == ("y",)


def test_more_candidates_than_transitions_are_a_note():
    data = Dataset((linear_data(steps=12, episodes=1, noise=0.01)[0],))
    fit = identify(data, polynomial_library(4))
    assert any("selected terms may be accidents" in text for text in fit.warnings)


def test_whole_numbers_are_numbers():
    data = linear_data()
    coarse = [Trajectory(p.t, np.round(100 * p.x).astype(int), p.u, **names) for p in data]
    assert coefficients(identify(Dataset(tuple(coarse)), polynomial_library(1)), 1) == pytest.approx(
        {"x": A[1, 0], "v": A[1, 1] - 1.0, "u": 100 * B[1, 0]}, rel=0.05
    )


def test_uneven_steps_are_refused_with_both_numbers():
    x, u = np.random.default_rng(0).normal(size=(31, 2)), np.zeros((30, 1))
    t = np.arange(31) * 0.1
    t[20:] += 0.05
    with pytest.raises(ValueError, match=r"0\.1.*0\.15"):
        identify(Trajectory(t, x, u, **names), identity_library())
