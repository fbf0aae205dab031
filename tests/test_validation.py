"""Figures of validation against what they are by definition, and model selection among planted candidates."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from sindyrl.identify import identify
from sindyrl.library import polynomial_library
from sindyrl.model_selection import CriterionSubset, information, select_model
from sindyrl.protocols import Outcome
from sindyrl.regression import STLSQ, SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment, NextState
from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.validation import blocks, dead_times, hold_out, horizon_errors, nrmse_fit, part, rollouts, whiteness

A, B = np.array([[0.95, 0.08], [-0.1, 0.9]]), np.array([[0.0], [0.12]])
names = {"states": ("x", "v"), "inputs": ("u",)}


def linear_data(seed=0, steps=150, noise=0.0, episodes=2, delay=0):
    """``x+ = A x + B u``, the input acting ``delay`` steps late (-1: early)."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(episodes):
        x, u = [rng.normal(size=2)], rng.uniform(-1, 1, (steps + 20, 1))
        for k in range(10, steps + 10):
            x.append(A @ x[-1] + B @ u[k - delay] + noise * rng.normal(size=2))
        parts.append(Trajectory.uniform(np.array(x), u[10 : steps + 10], dt=0.1, **names))
    return Dataset(tuple(parts))


@pytest.fixture(scope="module")
def fit():
    return identify(linear_data(), polynomial_library(2))


# ---- parts


def test_blocks_are_a_partition_of_the_steps():
    data = linear_data(steps=23, episodes=3)
    parts = blocks(data, 5)
    assert [each.steps for each in parts] == [14, 14, 13, 14, 14]
    together = np.concatenate([each.pairs().x_next for each in parts])
    np.testing.assert_array_equal(together, data.pairs().x_next)


def test_few_trajectories_lose_their_ends_and_many_their_last():
    two, five = linear_data(steps=50), linear_data(steps=50, episodes=5)
    fitted, held = hold_out(two, 0.2)
    assert [len(t) for t in fitted] == [40, 40]
    assert [len(t) for t in held] == [10, 10]
    np.testing.assert_array_equal(fitted[0].x[-1], held[0].x[0])  # the state in common, no transition twice
    fitted, held = hold_out(five, 0.2)
    assert (len(fitted), len(held)) == (4, 1)


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_shares_outside_of_zero_and_one_are_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        hold_out(linear_data(), share)


# ---- prediction


def test_the_fit_is_100_for_the_truth_0_for_the_mean_and_nan_for_a_constant():
    y = np.column_stack([np.sin(np.arange(50.0)), np.full(50, 3.0), np.arange(50.0)])
    np.testing.assert_allclose(nrmse_fit(y, y)[[0, 2]], 100.0)
    assert np.isnan(nrmse_fit(y, y)[1])
    mean = np.broadcast_to(y.mean(axis=0), y.shape)
    np.testing.assert_allclose(nrmse_fit(y, mean)[[0, 2]], 0.0, atol=1e-10)
    # In any unit and from any origin.
    np.testing.assert_allclose(nrmse_fit(5 + 1e3 * y, 5 + 1e3 * (y + 0.1)), nrmse_fit(y, y + 0.1), rtol=1e-9)


def test_rollouts_of_the_true_model_are_perfect(fit):
    for path in rollouts(fit.model, linear_data(seed=3)):
        assert path.outcome is Outcome.solved
        assert path.fit.min() > 99.9999


def test_divergence_is_an_outcome(fit):
    unstable = fit.model.rates.library
    coef = np.zeros((2, len(unstable)))
    coef[:, unstable.index("x^2")] = 5.0
    wild = dataclasses.replace(fit.model, rates=SparseMap(unstable, coef, fit.model.rates.targets))
    data = linear_data(seed=3)
    paths = rollouts(wild, data)
    assert all(path.diverged and path.valid < len(data[0]) for path in paths)
    assert all(np.isfinite(path.predicted).all() for path in paths)
    errors = horizon_errors(wild, data, (1, 50))
    assert errors.diverged[1] > 0.5
    assert np.isfinite(errors.relative).all()


def test_horizon_errors_of_persistence_are_one_and_of_the_truth_zero(fit):
    data, rates = linear_data(seed=5), fit.model.rates
    assert horizon_errors(fit.model, data, (1, 7, 30)).relative.max() < 1e-9
    still = dataclasses.replace(fit.model, rates=SparseMap(rates.library, 0.0 * rates.member(0).coef, rates.targets))
    errors = horizon_errors(still, data, (1, 7, 10_000))
    assert errors.horizons == (1, 7)
    np.testing.assert_allclose(errors.relative, 1.0)


def test_one_step_errors_are_the_residuals(fit):
    model = identify(linear_data(noise=0.1), polynomial_library(1)).model
    data = linear_data(seed=9, noise=0.1, episodes=1)
    pairs = data.pairs()
    expected = np.sqrt(np.mean((model.step(pairs.x, pairs.u) - pairs.x_next) ** 2, axis=0))
    np.testing.assert_allclose(horizon_errors(model, data, (1,)).model[0], expected)


# ---- residuals


def test_white_residuals_pass_and_others_fail_with_the_right_words():
    rng = np.random.default_rng(0)
    white = rng.normal(size=(2000, 1))
    smooth = np.convolve(white[:, 0], np.ones(5), "same")[:, None]
    noise = np.diff(rng.normal(size=(2001, 1)), axis=0)
    test = whiteness(np.column_stack([white, smooth, noise]))
    assert test.white.tolist() == [True, False, False]
    assert test.words(0) == "white"
    assert "missing" in test.words(1)
    assert "measurement noise" in test.words(2)
    assert test.correlation[1, 2] == pytest.approx(-0.5, abs=0.05)


def test_the_ljung_box_test_rejects_white_noise_as_often_as_it_says():
    rng = np.random.default_rng(1)
    p = whiteness(rng.normal(size=(400, 500))).p_value
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.03)


def test_recordings_do_not_correlate_across_their_borders():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 1))
    doubled = np.repeat(values, 2, axis=0)  # within a pair the same, between pairs unrelated
    assert whiteness(doubled, np.arange(2000) // 2).correlation[1, 0] == pytest.approx(0.5, abs=0.05)
    assert whiteness(doubled, np.arange(2000)).correlation[1, 0] == 0.0


# ---- dead time


@pytest.mark.parametrize("delay", [-1, 0, 1, 4])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_planted_dead_time_is_found(delay, noise):
    data = linear_data(delay=delay, noise=noise)
    library = polynomial_library(2).bind(*names.values())
    (found,) = dead_times(data, library, Increment())
    assert found.best == delay
    assert bool(found.problem(0.1)) == (delay != 0)
    if delay > 0:
        assert f"({0.1 * delay:.4g} s) late" in found.problem(0.1)


@pytest.mark.parametrize("seed", range(5))
def test_an_input_without_effect_has_no_dead_time(seed):
    data = linear_data(seed=seed, noise=0.05)
    rng = np.random.default_rng(100 + seed)
    other = Dataset(tuple(Trajectory.uniform(t.x, rng.normal(size=t.u.shape), dt=0.1, **names) for t in data))
    (found,) = dead_times(other, polynomial_library(1).bind(*names.values()), Increment())
    assert found.best == 0


def test_short_recordings_are_not_judged():
    assert dead_times(linear_data(steps=12), polynomial_library(2).bind(*names.values()), Increment()) == []


# ---- selection


def test_information_criteria_are_their_formulas():
    found = information(2.0, 10, 3)
    level = 10 * math.log(0.2)
    assert found["aic"] == pytest.approx(level + 8)
    assert found["aicc"] == pytest.approx(level + 8 + 40 / 5)
    assert found["bic"] == pytest.approx(level + 4 * math.log(10))
    assert information(1.0, 5, 4)["aicc"] == math.inf


@pytest.mark.parametrize("criterion", ["aicc", "bic"])
def test_criteria_choose_the_planted_terms_without_noise(criterion):
    fit = identify(linear_data(), polynomial_library(2), regressor=CriterionSubset(criterion, 5))
    rates = fit.model.rates
    chosen = [{rates.library.names[j] for j in np.flatnonzero(row)} for row in rates.support]
    assert chosen == [{"x", "v"}, {"x", "v", "u"}]


def test_bic_asks_for_fewer_terms_than_aicc():
    data, spec = linear_data(noise=0.1), polynomial_library(3)
    sizes = [identify(data, spec, regressor=CriterionSubset(c, 8)).model.n_terms for c in ("bic", "aicc")]
    assert sizes[0] < sizes[1]


def test_the_estimator_keeps_the_contract_of_scikit_learn():
    check_estimator(CriterionSubset())


CANDIDATES = {f"{k} terms": CriterionSubset(None, k) for k in (1, 2, 3, 6)}


@pytest.mark.parametrize("by", ["aicc", "bic", "one_step", "multi_step", "rollout"])
def test_every_criterion_finds_a_candidate_with_all_planted_terms(by):
    data = linear_data(noise=0.02, steps=200)
    fitted, held = hold_out(data, 0.25)
    # Without the input's delay a third term in both equations is one too many in the first: harmless.
    selection = select_model(fitted, polynomial_library(2), CANDIDATES, by=by, held_out=held, structure=NextState())
    assert selection.chosen.name in ("3 terms", "6 terms")
    assert f"chosen by {by}" in str(selection)
    table = {each.name: each for each in selection.candidates}
    assert table["1 terms"].rollout < table["3 terms"].rollout
    best = max if by == "rollout" else min
    assert selection.chosen is best(selection.candidates, key=lambda each: getattr(each, by))


def test_control_may_reject_what_prediction_prefers():
    """The input moves little in the data: a model without it predicts as well, and is useless in control."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(2):
        x, u = [rng.normal(size=2)], 0.02 * rng.uniform(-1, 1, (200, 1))
        for held in u:
            x.append(A @ x[-1] + B @ held + 0.05 * rng.normal(size=2))
        parts.append(Trajectory.uniform(np.array(x), u, dt=0.1, **names))
    data = Dataset(tuple(parts))
    candidates = {"without": STLSQ(threshold=0.5), "dense": STLSQ(threshold=0.0)}

    def gain(model):
        return abs(float(model.step(np.zeros(2), np.ones(1))[1] - model.step(np.zeros(2), np.zeros(1))[1]))

    settings = {"structure": NextState(), "closed_loop": gain, "held_out": data}
    by_control = select_model(data, polynomial_library(1), candidates, by="closed_loop", **settings)
    assert by_control.chosen.name == "dense"
    scores = [each.closed_loop for each in by_control.candidates]
    assert scores[0] == 0.0 < scores[1]


def test_a_diverging_candidate_is_never_chosen_by_rollouts():
    """All cubic terms of noisy data run away from five times as far out; the planted linear ones do not."""
    x = [np.array([8.0, -6.0])]
    for _ in range(60):
        x.append(A @ x[-1])
    far = Dataset((Trajectory.uniform(np.array(x), np.zeros((60, 1)), dt=0.1, **names),))
    candidates = {"wild": STLSQ(threshold=0.0), "tame": SubsetSelection()}
    data = linear_data(noise=0.1, steps=40)
    selection = select_model(data, polynomial_library(3), candidates, by="rollout", held_out=far)
    wild, tame = selection.candidates
    assert selection.chosen is tame
    assert (wild.diverged, tame.diverged) == (1, 0)
    assert wild.rollout == -math.inf


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "rollout"}, r"`select_model\(held_out=...\)` is needed"),
        ({"by": "closed_loop"}, r"`select_model\(closed_loop=...\)` is needed"),
        ({"by": "taste"}, "unknown: 'taste'"),
    ],
)
def test_wrong_use_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        select_model(linear_data(), polynomial_library(1), CANDIDATES, **settings)


def test_a_part_keeps_times_inputs_and_rewards_together():
    t = linear_data(steps=10, episodes=1)[0]
    middle = part(t, 3, 7)
    np.testing.assert_array_equal(middle.x, t.x[3:8])
    np.testing.assert_array_equal(middle.u, t.u[3:7])
    assert middle.t[0] == t.t[3]


def test_calibrated_intervals_cover_as_often_as_they_say_where_gaussian_ones_do_not():
    from sindyrl.regression.intervals import PredictionIntervals
    from sindyrl.validation import coverage

    rng = np.random.default_rng(0)
    theta = rng.normal(size=(4000, 2))
    y = theta @ [[1.0], [2.0]] + rng.standard_t(2, size=(4000, 1))
    given = PredictionIntervals(np.array([[1.0, 2.0]]), np.zeros((1, 1, 2)), np.array([25.0]), np.array([1e6]))
    found = coverage(given, theta, y, level=0.9)
    assert found.rows == 2000
    assert found.share[0] == pytest.approx(0.9, abs=0.02)
    assert found.gaussian[0] > 0.95
    low, high = given.calibrated(theta[:2000], y[:2000])(theta[2000:], 0.9)
    assert found.half_width[0] == pytest.approx(float(np.median(high - low)) / 2)
    assert coverage(given, theta[:39], y[:39]) is None


def test_the_extended_criterion_takes_no_accidental_terms_and_no_term_of_noise():
    right = empty = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta, noise = rng.normal(size=(150, 30)), rng.normal(size=150)
        fit = CriterionSubset("ebic").fit(theta, np.column_stack([theta[:, 4] - 2.0 * theta[:, 9] + noise, noise]))
        right += np.array_equal(np.flatnonzero(fit.coef_[0]), [4, 9])
        empty += not fit.coef_[1].any()
    assert right >= 36
    assert empty >= 36
