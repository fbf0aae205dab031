"""Prediction intervals hold what they promise, on planted data, with noise of any shape and with few rows."""

import numpy as np
import pytest

from sindyrl.regression import STLSQ, BestSubset, Ensemble
from sindyrl.regression.intervals import PredictionIntervals, noise_variance

COEF = np.array([[1.0, 0.0, -2.0, 0.0, 0.5, 0.0], [0.0, 3.0, 0.0, 0.0, 0.0, 0.0]])
NOISE = np.array([0.3, 2.0])


def sample(rng, n, draw=None):
    theta = rng.normal(size=(n, 6))
    noise = rng.standard_normal((n, 2)) if draw is None else draw(rng, (n, 2))
    return theta, theta @ COEF.T + NOISE * noise


def coverage(n, level, model, draw=None, repeats=40, calibrate=0):
    """Share of new measurements inside, (target,)."""
    inside = np.zeros(2)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        fitted = model.set_params(random_state=seed).fit(*sample(rng, n, draw))
        intervals = fitted.intervals_.calibrated(*sample(rng, calibrate, draw)) if calibrate else fitted.intervals_
        theta, y = sample(rng, 500, draw)
        lower, upper = intervals(theta, level)
        inside += ((lower <= y) & (y <= upper)).mean(axis=0)
    return inside / repeats


@pytest.mark.parametrize("bootstrap", ["rows", "blocks"])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [60, 1000])
def test_new_measurements_are_covered_as_often_as_promised(n, level, bootstrap):
    model = Ensemble(STLSQ(0.0), n_members=30, bootstrap=bootstrap)
    np.testing.assert_allclose(coverage(n, level, model, repeats=25), level, atol=0.035 if level < 0.99 else 0.012)


def test_coverage_holds_after_terms_were_selected():
    model = Ensemble(BestSubset("bic", max_terms=4, node_limit=50), n_members=10)
    np.testing.assert_allclose(coverage(80, 0.9, model, repeats=12), 0.9, atol=0.035)


def test_the_spread_of_the_members_alone_covers_far_too_little():
    rng = np.random.default_rng(0)
    model = Ensemble(STLSQ(0.0), n_members=30, random_state=0).fit(*sample(rng, 500))
    theta, y = sample(rng, 500)
    without = PredictionIntervals(COEF, model.coef_, np.zeros(2), np.full(2, 500.0))
    lower, upper = without(theta, 0.9)
    assert ((lower <= y) & (y <= upper)).mean() < 0.4


def skewed(rng, shape):
    return rng.exponential(size=shape) ** 2 - 2.0


@pytest.mark.parametrize("draw", [skewed, lambda rng, shape: rng.standard_t(3, shape)], ids=["skewed", "heavy tails"])
def test_calibrated_intervals_cover_noise_of_any_shape(draw):
    model = Ensemble(STLSQ(0.0), n_members=20)
    calibrated = coverage(200, 0.8, model, draw, calibrate=200)
    np.testing.assert_allclose(calibrated, 0.8, atol=0.025)
    assert (np.abs(coverage(200, 0.8, model, draw) - 0.8) > 0.05).all()  # where the Gaussian ones do not


def test_calibration_makes_up_for_a_wrong_model():
    rng = np.random.default_rng(0)
    theta, y = sample(rng, 300)
    model = Ensemble(STLSQ(0.0), n_members=10, random_state=0).fit(theta, y)
    cheating = PredictionIntervals(model.aggregate_coef_ + 1.0, model.coef_, NOISE**2 / 100, np.full(2, 300.0))
    lower, upper = cheating.calibrated(*sample(rng, 400))(theta, 0.9)
    np.testing.assert_allclose(((lower <= y) & (y <= upper)).mean(axis=0), 0.9, atol=0.05)


def test_variances_of_noise_and_model_add():
    rng = np.random.default_rng(1)
    theta, y = sample(rng, 400)
    model = Ensemble(STLSQ(0.0), n_members=200, random_state=0).fit(theta, y)
    np.testing.assert_allclose(model.noise_, NOISE, rtol=0.1)
    std = model.intervals_.std(theta)
    members = np.stack([theta @ coef.T for coef in model.coef_]).var(axis=0, ddof=1)
    np.testing.assert_allclose(std**2, members + model.noise_**2, rtol=1e-9)
    # The spread is that of least squares: s^2 x' (theta' theta)^{-1} x.
    leverage = np.einsum("ij,jk,ik->i", theta, np.linalg.inv(theta.T @ theta), theta)
    np.testing.assert_allclose(members.mean(axis=0), NOISE**2 * leverage.mean(), rtol=0.25)


def test_intervals_widen_away_from_the_data_and_with_the_level():
    rng = np.random.default_rng(2)
    model = Ensemble(STLSQ(0.0), n_members=30, random_state=0).fit(*sample(rng, 100))
    near, far = np.full((1, 6), 0.1), np.full((1, 6), 100.0)
    widths = [
        np.subtract(*model.predict_interval(at, level)[::-1]) for at, level in ((near, 0.5), (near, 0.9), (far, 0.9))
    ]
    assert (widths[0] < widths[1]).all()
    assert (10 * widths[1] < widths[2]).all()


def test_ends_have_the_shape_of_y_and_enclose_the_prediction():
    rng = np.random.default_rng(3)
    theta, y = sample(rng, 50)
    for target in (y, y[:, 0]):
        model = Ensemble(n_members=5, random_state=0).fit(theta, target)
        lower, upper = model.predict_interval(theta)
        assert lower.shape == upper.shape == target.shape
        np.testing.assert_allclose((lower + upper) / 2, model.predict(theta), atol=1e-12)


def test_exact_data_and_one_member_give_intervals_of_rounding_width():
    rng = np.random.default_rng(4)
    theta = rng.normal(size=(30, 6))
    model = Ensemble(n_members=1, random_state=0).fit(theta, theta @ COEF.T)
    lower, upper = model.intervals_.calibrated(theta, theta @ COEF.T)(theta)
    np.testing.assert_allclose(upper, lower, atol=1e-9)


def test_noise_variance_is_unbiased_by_the_terms():
    variance, freedom = noise_variance(np.array([90.0, 5.0]), 100.0, np.array([10, 100]))
    np.testing.assert_array_equal(freedom, [90.0, 1.0])
    np.testing.assert_array_equal(variance, [1.0, 5.0])


def test_wrong_use_is_refused():
    rng = np.random.default_rng(5)
    theta, y = sample(rng, 20)
    intervals = Ensemble(n_members=3, random_state=0).fit(theta, y).intervals_
    with pytest.raises(ValueError, match=r"`level=` must lie between 0 and 1. Got 1.0"):
        intervals(theta, 1.0)
    with pytest.raises(ValueError, match=r"`theta` must have shape \(n, 6\). Got \(20, 5\)"):
        intervals(theta[:, :5])
    with pytest.raises(ValueError, match=r"must have shape \(20, 2\).* Got \(20, 1\)"):
        intervals.calibrated(theta, y[:, 0])
    with pytest.raises(ValueError, match=r"`level=0.99` needs at least 99 rows to calibrate with. Got 20"):
        intervals.calibrated(theta, y)(theta, 0.99)
