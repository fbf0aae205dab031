"""Weak form, whitening and smoothing: planted equations, exact integrals, two routes, honest errors."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.signal import savgol_filter

from sindyrl.differentiate import choose_smoothing, local_polynomial
from sindyrl.library import polynomial_library
from sindyrl.regression import STLSQ
from sindyrl.regression.weak import fit_noisy, strong_rows, weak_form, weak_rows, whitened
from sindyrl.trajectory import Dataset, Trajectory

LORENZ = polynomial_library(2, bias=True).bind(("x", "y", "z"))


def lorenz_coef():
    coef = np.zeros((3, len(LORENZ)))
    for row, terms in enumerate(
        ({"x": -10.0, "y": 10.0}, {"x": 28.0, "y": -1.0, "x*z": -1.0}, {"z": -8 / 3, "x*y": 1.0})
    ):
        for name, value in terms.items():
            coef[row, LORENZ.index(name)] = value
    return coef


def lorenz(t, start=(-8.0, 8.0, 27.0), noise=0.0, seed=0):
    coef = lorenz_coef()
    solution = solve_ivp(
        lambda _, x: coef @ LORENZ.features(x[None])[0], (t[0], t[-1]), start, t_eval=t, rtol=1e-10, atol=1e-10
    )
    x = solution.y.T + noise * np.random.default_rng(seed).standard_normal((len(t), 3))
    return Trajectory(t, x, states=("x", "y", "z"))


@pytest.fixture(scope="module")
def noisy_lorenz():
    t = np.arange(1000) * 0.015
    return Dataset(tuple(lorenz(t, start, 0.15, k) for k, start in enumerate(((-8.0, 8.0, 27.0), (5.0, 3.0, 20.0)))))


def test_exact_data_fit_to_at_least_fourth_order_on_even_steps():
    def error(n):
        theta, y = weak_form(lorenz(np.linspace(0.0, 4.0, n)), LORENZ, width=0.2)
        return np.abs(theta @ lorenz_coef().T - y).max() / np.abs(y).max()

    assert error(401) < 1e-6
    assert error(401) < error(201) / 14


def test_uneven_steps_are_integrated_to_second_order():
    def error(n):
        rng = np.random.default_rng(3)
        phase = np.linspace(0.0, 1.0, n)
        t = 4.0 * (phase + 0.03 * np.sin(2 * np.pi * 3 * phase + rng.uniform(0, 6)))
        theta, y = weak_form(lorenz(t), LORENZ, width=0.4)
        return np.abs(theta @ lorenz_coef().T - y).max()

    assert error(1601) < error(801) / 3.5


def test_inputs_are_held_over_their_step():
    # dx/dt = -x + 2 u with u jumping at the samples has a closed form, x_{k+1} = a x_k + (1 - a) 2 u_k.
    dt, n = 0.01, 1500
    u = np.repeat(np.random.default_rng(1).uniform(-1, 1, n // 5), 5)
    decay, x = np.exp(-dt), np.zeros(n + 1)
    for k in range(n):
        x[k + 1] = decay * x[k] + (1 - decay) * 2 * u[k]
    data = Trajectory.uniform(x[:, None], u[:, None], dt=dt, states=("x",), inputs=("u",))
    library = polynomial_library(2).bind(("x",), ("u",))
    theta, y = weak_form(data, library)
    coef = STLSQ(threshold=0.05).fit(theta, y).coef_[0]
    planted = {"x": -1.0, "u": 2.0}
    np.testing.assert_allclose(coef, [planted.get(name, 0.0) for name in library.names], atol=3e-4)


def test_windows_of_a_dataset_are_those_of_its_trajectories(noisy_lorenz):
    whole = weak_form(noisy_lorenz, LORENZ, n_windows=50)
    parts = [weak_form(part, LORENZ, n_windows=50) for part in noisy_lorenz]
    for k in (0, 1):
        np.testing.assert_array_equal(whole[k], np.concatenate([part[k] for part in parts]))


def test_random_windows_repeat_with_the_seed_and_differ_without(noisy_lorenz):
    first, again, other = (
        weak_form(noisy_lorenz, LORENZ, n_windows=20, rng=np.random.default_rng(seed))[1] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_windows": 0}, r"n_windows=\.\.\..*at least 1"),
        ({"order": 1}, r"order=\.\.\..*at least 2"),
        ({"width": -1.0}, r"width=\.\.\..*above 0"),
        ({"width": 100.0}, r"width=\.\.\..*at most 14\.985 s"),
        ({"width": 0.02}, r"must hold at least 5 samples"),
    ],
)
def test_wrong_settings_are_named(noisy_lorenz, settings, said):
    with pytest.raises(ValueError, match=said):
        weak_form(noisy_lorenz, LORENZ, **settings)


def test_a_library_over_other_names_is_refused(noisy_lorenz):
    with pytest.raises(ValueError, match=r"library=\.\.\..*columns of the data"):
        weak_form(noisy_lorenz, polynomial_library(1).bind(("a", "b", "c")))


@pytest.mark.parametrize("rows_of", [strong_rows, weak_rows])
def test_the_generating_terms_come_out_of_one_percent_noise(noisy_lorenz, rows_of):
    fit = fit_noisy(rows_of(noisy_lorenz, LORENZ), LORENZ)
    truth = lorenz_coef()
    np.testing.assert_array_equal(fit.coef != 0, truth != 0)
    assert np.linalg.norm(fit.coef - truth) < 0.02 * np.linalg.norm(truth)


@pytest.mark.parametrize("rows_of", [strong_rows, weak_rows])
def test_whitened_residuals_of_the_truth_are_white(noisy_lorenz, rows_of):
    rows = rows_of(noisy_lorenz, LORENZ)
    for target, coef in enumerate(lorenz_coef()):
        theta, y = whitened(rows, LORENZ, lorenz_coef(), target)
        residual = y - theta @ coef
        assert 0.5 < np.mean(residual**2) < 1.3  # the noise is estimated from above
        assert abs(np.corrcoef(residual[1:], residual[:-1])[0, 1]) < 0.15


def test_a_pair_of_terms_that_only_help_together_is_found():
    # y is the small difference of two nearly equal columns, so each of them alone is worse than the decoy.
    from sindyrl.regression.weak import _select

    rng = np.random.default_rng(0)
    shared, small, decoy = rng.normal(size=(3, 400))
    theta = np.column_stack([shared, shared + 0.05 * small, 0.7 * small + decoy, rng.normal(size=(400, 5))])
    y = theta[:, 1] - theta[:, 0] + 1e-3 * rng.normal(size=400)
    coef, _ = _select(theta, y, 4, 1.0)
    np.testing.assert_allclose(coef, [-1, 1, 0, 0, 0, 0, 0, 0], atol=0.01)
    assert np.count_nonzero(coef) == 2


def test_held_out_errors_are_those_of_refits_without_the_sample():
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 1, 40))
    x = np.sin(5 * t) + 0.1 * rng.standard_normal(40)
    choice = choose_smoothing(t, x, order=3, windows=(9,))
    errors = []
    for i in range(40):
        start = min(max(i - 4, 0), 31)
        rest = [k for k in range(start, start + 9) if k != i]
        errors.append(x[i] - np.polyval(np.polyfit(t[rest] - t[i], x[rest], 3), 0.0))
    np.testing.assert_allclose(choice.squared_error[0, 0], np.mean(np.square(errors)), rtol=1e-6)


def test_more_noise_or_a_slower_signal_asks_for_a_wider_window():
    t, rng = np.arange(1000) * 0.01, np.random.default_rng(0)
    noise = rng.standard_normal(1000)
    x = np.column_stack([np.sin(12 * t) + 0.001 * noise, np.sin(12 * t) + 0.1 * noise, np.sin(3 * t) + 0.1 * noise])
    quiet, loud, slow = choose_smoothing(t, x).window
    assert quiet < loud < slow
    np.testing.assert_allclose(choose_smoothing(t, x).noise, [0.001, 0.1, 0.1], rtol=0.15)


@pytest.mark.parametrize("derivative", [0, 1])
def test_local_polynomials_are_savitzky_golay_on_an_even_grid(derivative):
    t, x = np.arange(60) * 0.1, np.random.default_rng(0).standard_normal(60)
    expected = savgol_filter(x, 11, 4, deriv=derivative, delta=0.1, mode="interp")
    np.testing.assert_allclose(local_polynomial(t, 11, 4, derivative) @ x, expected, atol=1e-10)


@pytest.mark.parametrize("derivative", [0, 1])
def test_local_polynomials_are_exact_for_polynomials_at_any_spacing(derivative):
    t = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 30))
    polynomial = np.polynomial.Polynomial([1.0, -2.0, 0.3, 0.01]).deriv(derivative) if derivative else None
    polynomial = polynomial or np.polynomial.Polynomial([1.0, -2.0, 0.3, 0.01])
    x = np.polynomial.Polynomial([1.0, -2.0, 0.3, 0.01])(t)
    np.testing.assert_allclose(local_polynomial(t, 9, 3, derivative) @ x, polynomial(t), rtol=1e-7, atol=1e-7)


def test_no_window_that_fits_is_an_error():
    with pytest.raises(ValueError, match=r"choose_smoothing\(windows=\.\.\.\).*must be odd"):
        choose_smoothing(np.arange(20.0), np.zeros(20), windows=(8,))
    with pytest.raises(ValueError, match=r"at most the number of samples \(5\)"):
        choose_smoothing(np.arange(5.0), np.zeros(5))
