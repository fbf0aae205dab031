"""An input that a dense fit needs is never lost without a word, and one that does nothing may go in silence."""

import warnings

import numpy as np
import pytest

from sindyrl.guard import ActuatorError, actuator_gains, check_actuators, excitation
from sindyrl.identify import identify
from sindyrl.library import custom_library, polynomial_library
from sindyrl.regression import STLSQ
from sindyrl.structure import Derivative, NextState
from sindyrl.trajectory import Dataset, Trajectory

names = {"states": ("x", "v"), "inputs": ("u", "w")}


def recorded(gain, *, steps=300, noise=0.0, seed=0, structure="rate"):
    """A damped oscillator with ``dv/dt = -4 x - 0.3 v + gain u``; the second input does nothing. Midpoint-exact."""
    rng = np.random.default_rng(seed)
    u, dt = rng.uniform(-1, 1, (steps, 2)), 0.05
    a, b = np.array([[0.0, 1.0], [-4.0, -0.3]]), np.array([[0.0, 0.0], [gain, 0.0]])
    x = [np.array([1.0, 0.0])]
    left, right = np.eye(2) - dt / 2 * a, np.eye(2) + dt / 2 * a
    for held in u:
        x.append(np.linalg.solve(left, right @ x[-1] + dt * b @ held))
    return Trajectory.uniform(np.array(x) + noise * rng.normal(size=(steps + 1, 2)), u, dt=dt, **names)


# A threshold between the oscillator's coefficients and the input's: the input's term goes, open-loop errors stay small.
PRUNING = STLSQ(threshold=0.25)


def test_a_pruned_actuator_is_an_error_that_names_it_and_its_gain():
    with pytest.raises(ActuatorError, match=r"effect of an input: 'u' from dv \(dense gain \+0.2"):
        identify(recorded(0.2), polynomial_library(1), structure=Derivative(), regressor=PRUNING)


def test_the_error_is_a_value_error_and_can_be_a_warning_or_silence():
    data, spec = recorded(0.2), polynomial_library(1)
    settings = {"structure": Derivative(), "regressor": PRUNING}
    with pytest.raises(ValueError, match='or `"allow"`'):
        identify(data, spec, **settings)
    with pytest.warns(UserWarning, match="removed the whole effect of an input"):
        warned = identify(data, spec, actuators="warn", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allowed = identify(data, spec, actuators="allow", **settings)
    assert warned.actuators.removed.tolist() == [[False, False], [True, False]]
    assert allowed.actuators is None
    np.testing.assert_array_equal(warned.model.rates.coef, allowed.model.rates.coef)


def test_gains_are_those_planted_in_both_fits():
    fit = identify(recorded(2.0), polynomial_library(1), structure=Derivative(), regressor=PRUNING)
    np.testing.assert_allclose(fit.actuators.gain, [[0, 0], [2.0, 0]], atol=1e-9)
    np.testing.assert_allclose(fit.actuators.dense_gain, [[0, 0], [2.0, 0]], atol=1e-6)
    assert fit.actuators.kept.tolist() == [[False, False], [True, False]]
    assert not fit.actuators.removed.any()
    assert "d(dv)/du = +2, dense +2" in str(fit.actuators)


@pytest.mark.parametrize("seed", range(5))
def test_an_input_without_effect_may_go_however_noisy_the_data_are(seed):
    data = recorded(0.0, noise=0.05, seed=seed)
    fit = identify(data, polynomial_library(2), structure=Derivative(), regressor=STLSQ(threshold=1.0))
    assert not fit.actuators.removed.any()


def test_an_effect_that_only_noise_could_explain_does_not_count():
    quiet, loud = recorded(0.05, noise=0.0), recorded(0.05, noise=0.3, steps=60)
    # Above what noise makes of the coefficients, too: an input that is kept cannot count as removed.
    settings = {"structure": Derivative(), "regressor": STLSQ(threshold=10.0), "actuators": "warn"}
    with pytest.warns(UserWarning, match="'u' from dv"):
        identify(quiet, polynomial_library(1), **settings)
    report = identify(loud, polynomial_library(1), **settings).actuators
    assert not report.kept.any()
    assert not report.removed.any()


def test_units_of_the_input_decide_nothing():
    data = recorded(0.2)
    scaled = Trajectory.uniform(data.x, data.u * [1e4, 1.0], dt=data.dt, **names)
    for each in (data, scaled):
        with pytest.raises(ActuatorError, match="'u' from dv"):
            # 0.2 and 0.2e-4 are both below the threshold.
            identify(each, polynomial_library(1), structure=Derivative(), regressor=PRUNING)


def test_any_term_with_the_input_keeps_it():
    data = recorded(0.2)
    library = polynomial_library(2).bind(*names.values())
    z = np.column_stack([(data.x[1:] + data.x[:-1]) / 2, data.u])
    y = np.diff(data.x, axis=0) / data.dt
    coef = np.zeros((2, len(library)))
    assert check_actuators(library, z, y, coef, targets=("dx", "dv")).removed[1, 0]
    coef[1, library.index("x*u")] = 0.1
    report = check_actuators(library, z, y, coef, targets=("dx", "dv"))
    assert report.kept[1, 0]
    assert not report.removed.any()
    assert report.gain[1, 0] == pytest.approx(0.1 * np.sqrt(np.mean(z[:, 0] ** 2)) * np.sign(z[:, 0].mean()), rel=1e-9)


def test_gains_agree_with_derivatives_worked_out_by_hand():
    library = custom_library([lambda u: u * u, lambda x, u: x * u]).bind(("x",), ("u",))
    z = np.random.default_rng(0).uniform(0.5, 1.5, (50, 2))
    slope = 3.0 * 2.0 * z[:, 1] - 0.5 * z[:, 0]
    expected = np.sqrt(np.mean(slope**2))
    assert actuator_gains(library, z, np.array([[3.0, -0.5]]))[0, 0] == pytest.approx(expected, rel=1e-9)


def test_with_fewer_rows_than_terms_the_input_is_held_against_the_chosen_terms():
    data = recorded(0.2, steps=40)
    library = polynomial_library(3).bind(*names.values())
    z = np.column_stack([(data.x[1:] + data.x[:-1]) / 2, data.u])
    y = np.diff(data.x, axis=0) / data.dt
    coef = np.zeros((2, len(library)))
    coef[0, library.index("v")] = 1.0
    coef[1, [library.index("x"), library.index("v")]] = -4.0, -0.3
    assert len(library) > len(z) - 10
    report = check_actuators(library, z, y, coef, targets=("dx", "dv"))
    assert report.removed.tolist() == [[False, False], [True, False]]
    assert "chosen terms" in report.reference


def test_a_next_state_is_compared_by_what_changes():
    """Of a next state nearly all is the state itself; an input that moves it a little in each step must count."""
    u, x = np.random.default_rng(0).uniform(-1, 1, (300, 1)), [100.0]
    for held in u[:, 0]:
        x.append(0.99 * x[-1] + 0.02 * held)
    data = Trajectory.uniform(np.array(x)[:, None], u, dt=0.1, states=("x",), inputs=("u",))
    with pytest.raises(ActuatorError, match="'u' from x_next"):
        identify(data, polynomial_library(1), structure=NextState(), regressor=STLSQ(threshold=0.1))


def test_systems_without_inputs_have_no_report():
    x = np.exp(-0.1 * np.arange(40))[:, None]
    fit = identify(Dataset((Trajectory.uniform(x, dt=0.1, states=("x",)),)), polynomial_library(1))
    assert fit.actuators is None


def test_an_unknown_wish_is_refused():
    with pytest.raises(ValueError, match=r"`identify\(actuators=...\)` must be 'error', 'warn' or 'allow'. Got 'no'."):
        identify(recorded(1.0), polynomial_library(1), actuators="no")


def test_excitation_tells_feedback_constants_and_motion_apart():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    u = np.column_stack([np.full(200, 0.1), x @ [1.0, -2.0] + 0.3, rng.normal(size=200)])
    still, feedback, free = excitation(x, u, ("a", "b", "c"))
    assert (still.spread, still.levels) == (0.0, 1)
    assert "never changes" in still.problem
    assert feedback.own < 1e-9
    assert "feedback" in feedback.problem
    assert free.own == pytest.approx(1.0, abs=0.05)
    assert free.problem == ""
