"""Ensembles: exact bootstrap, left-out columns, and draws that depend on the seed and on nothing else."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sindyrl.regression import STLSQ, Ensemble
from sindyrl.regression.ensemble import bootstrap_counts, fit_members


def noisy_problem(seed=0, n=300, p=8, k=2, noise=0.5):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    coef = np.zeros((k, p))
    coef[0, [1, 4]] = 2.0, -1.0
    coef[1, [0, 7]] = 0.5, 3.0
    return theta, theta @ coef.T + noise * rng.normal(size=(n, k)), coef


@pytest.mark.parametrize("settings", [{}, {"alpha": 3.0}, {"normalize": True}, {"alpha": 3.0, "unbias": True}])
def test_a_member_is_exactly_the_fit_to_its_drawn_rows(settings):
    theta, y, _ = noisy_problem()
    base = STLSQ(threshold=0.1, **settings)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(theta), size=(4, len(theta)))
    weights = np.array([np.bincount(drawn, minlength=len(theta)) for drawn in rows], dtype=float)
    coef, converged = fit_members(base, theta, y, weights, np.ones((4, 8), dtype=bool))
    for drawn, member in zip(rows, coef, strict=True):
        expected = base.fit(theta[drawn], y[drawn]).coef_
        np.testing.assert_array_equal(member != 0, expected != 0)
        np.testing.assert_allclose(member, expected, rtol=1e-9, atol=1e-12)
    assert converged.all()


def test_members_of_an_ill_conditioned_library_are_as_accurate_as_the_tall_fit():
    theta, _, _ = noisy_problem()
    rng = np.random.default_rng(1)
    theta[:, 7] = theta[:, 0] + 1e-8 * rng.normal(size=len(theta))
    coef = np.array([[0.0, 2.0, 0, 0, 0, 0, 0, 1.0]])
    weights = bootstrap_counts(rng, 5, len(theta))
    members, _ = fit_members(STLSQ(threshold=0.1), theta, theta @ coef.T, weights, np.ones((5, 8), dtype=bool))
    np.testing.assert_allclose(members, np.broadcast_to(coef, members.shape), atol=1e-5)


def test_a_share_of_the_rows_is_what_each_member_is_fitted_to():
    rng = np.random.default_rng(3)
    theta, coef = rng.normal(size=(200, 4)), rng.normal(size=(2, 4))
    y = theta @ coef.T + 0.1 * rng.normal(size=(200, 2))
    counts = bootstrap_counts(np.random.default_rng(0), 30, 200, 0.6)
    assert (counts.sum(axis=1) == 120).all()
    few = Ensemble(STLSQ(0.0), n_members=30, max_samples=0.6, random_state=0).fit(theta, y)
    rows = np.repeat(np.arange(200), counts[0].astype(int))
    alone = np.linalg.lstsq(theta[rows], y[rows], rcond=None)[0].T
    np.testing.assert_allclose(few.coef_[0], alone, rtol=1e-3)
    # The variance of a mean goes as one over the number of rows: sqrt(1 / 0.25) = 2.
    spreads = [
        Ensemble(STLSQ(0.0), n_members=400, max_samples=share, random_state=0).fit(theta, y).coef_.std(axis=0).mean()
        for share in (1.0, 0.25)
    ]
    assert spreads[1] / spreads[0] == pytest.approx(2.0, rel=0.15)


def test_bootstrap_draws_as_many_rows_as_there_are_and_leaves_out_about_a_third():
    counts = bootstrap_counts(np.random.default_rng(0), 50, 1000)
    np.testing.assert_array_equal(counts.sum(axis=1), 1000)
    assert abs((counts == 0).mean() - np.exp(-1)) < 0.01
    assert len(np.unique(counts, axis=0)) == 50


def test_same_seed_same_ensemble_two_seeds_differ_and_the_global_generator_is_untouched():
    theta, y, _ = noisy_problem()
    np.random.seed(0)  # noqa: NPY002  (to see that it is not used)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    ensemble = Ensemble(STLSQ(threshold=0.1), n_members=5, drop_columns=1, random_state=7)
    first, again = ensemble.fit(theta, y).coef_, ensemble.fit(theta, y).coef_
    other = Ensemble(STLSQ(threshold=0.1), n_members=5, drop_columns=1, random_state=8).fit(theta, y).coef_
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_random_state_may_be_a_generator_or_a_random_state_and_is_then_consumed():
    theta, y, _ = noisy_problem()
    for make in (np.random.default_rng, np.random.RandomState):
        source = make(3)
        runs = [Ensemble(n_members=3, random_state=source).fit(theta, y).coef_ for _ in range(2)]
        assert not np.array_equal(*runs)
        np.testing.assert_array_equal(Ensemble(n_members=3, random_state=make(3)).fit(theta, y).coef_, runs[0])
    unseeded = [Ensemble(n_members=3).fit(theta, y).coef_ for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_without_resampling_every_member_is_the_plain_fit():
    theta, y, _ = noisy_problem()
    base = STLSQ(threshold=0.1)
    ensemble = Ensemble(base, n_members=3, bootstrap=None, random_state=0).fit(theta, y)
    np.testing.assert_array_equal(ensemble.coef_, np.broadcast_to(base.fit(theta, y).coef_, (3, 2, 8)))
    assert set(np.unique(ensemble.inclusion_)) <= {0.0, 1.0}


def test_dropped_columns_are_zero_for_all_targets_and_the_rest_is_fitted_without_them():
    theta, y, _ = noisy_problem()
    ensemble = Ensemble(STLSQ(threshold=0.05), n_members=20, bootstrap=None, drop_columns=2, random_state=0)
    ensemble.fit(theta, y)
    np.testing.assert_array_equal((~ensemble.columns_).sum(axis=1), 2)
    assert (~ensemble.columns_).any(axis=0).sum() > 4  # not always the same two
    for coef, offered in zip(ensemble.coef_, ensemble.columns_, strict=True):
        assert not coef[:, ~offered].any()
        np.testing.assert_allclose(coef[:, offered], STLSQ(threshold=0.05).fit(theta[:, offered], y).coef_, atol=1e-12)


def test_planted_terms_are_in_every_member_and_the_median_has_no_others():
    theta, y, coef = noisy_problem(noise=0.2)
    ensemble = Ensemble(STLSQ(threshold=0.2), n_members=50, random_state=0).fit(theta, y)
    np.testing.assert_array_equal(ensemble.inclusion_[coef != 0], 1.0)
    np.testing.assert_array_equal(ensemble.aggregate_coef_ != 0, coef != 0)
    np.testing.assert_allclose(ensemble.aggregate_coef_, coef, atol=0.1)


def test_spread_over_members_is_the_standard_error_of_least_squares():
    theta, y, _ = noisy_problem(n=2000, noise=0.5)
    ensemble = Ensemble(STLSQ(threshold=0.0), n_members=200, random_state=0).fit(theta, y[:, 0])
    expected = 0.5 * np.sqrt(np.diag(np.linalg.inv(theta.T @ theta)))
    np.testing.assert_allclose(ensemble.coef_.std(axis=0, ddof=1), expected, rtol=0.25)


def correlated_noise(rng, n, length, repeats):
    """Noise that keeps its value over ``length`` rows, (n, repeats)."""
    return np.repeat(rng.normal(size=(-(-n // length), repeats)), length, axis=0)[:n]


def test_blocks_know_the_error_that_correlated_noise_makes_and_rows_do_not():
    rng = np.random.default_rng(0)
    n, length = 2000, 10
    theta = np.repeat(rng.normal(size=(n // length, 3)), length, axis=0)  # neighboring rows say the same
    noise = correlated_noise(rng, n, length, 200)
    error = np.linalg.lstsq(theta, noise, rcond=None)[0].std(axis=1)  # over 200 repetitions of the experiment
    y = theta @ [1.0, 2.0, 3.0] + noise[:, 0]
    spread = {
        name: Ensemble(STLSQ(0.0), n_members=200, bootstrap=name, block_length=length, random_state=0)
        .fit(theta, y)
        .coef_.std(axis=0)
        for name in ("rows", "blocks")
    }
    np.testing.assert_allclose(spread["blocks"], error, rtol=0.25)
    assert (spread["rows"] < 0.5 * error).all()


@pytest.mark.parametrize("length", [1, 7, 100])
def test_a_member_of_blocks_is_exactly_the_fit_to_its_drawn_blocks(length):
    theta, y, _ = noisy_problem(n=303)
    for base in (STLSQ(threshold=0.1, alpha=1.0), Ridge(alpha=1.0, fit_intercept=False)):
        ensemble = Ensemble(base, n_members=3, bootstrap="blocks", block_length=length, random_state=5).fit(theta, y)
        part = np.arange(303) // length % 256
        counts = bootstrap_counts(np.random.default_rng(5), 3, part.max() + 1).astype(int)
        for drawn, coef in zip(counts, ensemble.coef_, strict=True):
            rows = np.repeat(np.arange(303), drawn[part])
            np.testing.assert_allclose(coef, base.fit(theta[rows], y[rows]).coef_, rtol=1e-8, atol=1e-11)


def test_blocks_of_an_ill_conditioned_library_are_as_accurate_as_the_tall_fit():
    theta, _, _ = noisy_problem()
    rng = np.random.default_rng(1)
    theta[:, 7] = theta[:, 0] + 1e-8 * rng.normal(size=len(theta))
    coef = np.array([[0.0, 2.0, 0, 0, 0, 0, 0, 1.0]])
    model = Ensemble(STLSQ(threshold=0.1), n_members=5, bootstrap="blocks", random_state=0).fit(theta, theta @ coef.T)
    assert model.condition_ > 1e7
    np.testing.assert_allclose(model.coef_, np.broadcast_to(coef, model.coef_.shape), atol=1e-5)


def test_blocks_are_about_the_cube_root_of_the_rows_long():
    theta, y, _ = noisy_problem(n=1000)
    assert Ensemble(n_members=2, bootstrap="blocks", random_state=0).fit(theta, y).block_length_ == 10


@pytest.mark.parametrize(("aggregate", "function"), [("median", np.median), ("mean", np.mean)])
def test_prediction_uses_the_aggregate(aggregate, function):
    theta, y, _ = noisy_problem()
    ensemble = Ensemble(n_members=6, aggregate=aggregate, random_state=0).fit(theta, y)
    np.testing.assert_allclose(ensemble.predict(theta), theta @ function(ensemble.coef_, axis=0).T)


def test_shapes_follow_the_axes_of_y():
    theta, y, _ = noisy_problem()
    two = Ensemble(n_members=4, random_state=0).fit(theta, y)
    assert (two.coef_.shape, two.inclusion_.shape, two.predict(theta).shape) == ((4, 2, 8), (2, 8), (300, 2))
    one = Ensemble(n_members=4, random_state=0).fit(theta, y[:, 0])
    assert (one.coef_.shape, one.inclusion_.shape, one.predict(theta).shape) == ((4, 8), (8,), (300,))
    np.testing.assert_allclose(one.coef_, two.coef_[:, 0], rtol=1e-9)


def test_any_linear_regressor_can_be_the_base():
    theta, y, _ = noisy_problem()
    ridge = Ensemble(Ridge(alpha=2.0, fit_intercept=False), n_members=4, random_state=0).fit(theta, y)
    same = Ensemble(STLSQ(threshold=0.0, alpha=2.0), n_members=4, random_state=0).fit(theta, y)
    np.testing.assert_allclose(ridge.coef_, same.coef_, rtol=1e-6, atol=1e-9)


def test_supports_equal_those_of_pysindy_on_the_same_rows():
    pysindy = pytest.importorskip("pysindy")
    theta, y, _ = noisy_problem(noise=1.0)
    weights = bootstrap_counts(np.random.default_rng(0), 10, len(theta))
    members, _ = fit_members(STLSQ(threshold=0.1, alpha=0.05), theta, y, weights, np.ones((10, 8), dtype=bool))
    for counts, member in zip(weights.astype(int), members, strict=True):
        rows = np.repeat(np.arange(len(theta)), counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = pysindy.STLSQ(threshold=0.1, alpha=0.05, unbias=False).fit(theta[rows], y[rows]).coef_
        np.testing.assert_array_equal(member != 0, oracle != 0)
        np.testing.assert_allclose(member, oracle, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_members": 0}, r"`Ensemble\(n_members=...\)` must be an integer of at least 1. Got 0"),
        ({"n_members": 2.5}, "Got 2.5"),
        ({"drop_columns": -1}, r"`Ensemble\(drop_columns=...\)` must be an integer of at least 0. Got -1"),
        ({"aggregate": "mode"}, "must be 'median' or 'mean'. Got 'mode'"),
        ({"max_samples": 0.0}, r"`Ensemble\(max_samples=...\)` must be a number in \(0, 1\]. Got 0.0"),
        ({"max_samples": True}, "must be a number in .* Got True"),
        ({"bootstrap": "days"}, "must be 'rows', 'blocks' or None. Got 'days'"),
        ({"block_length": 0}, r"`Ensemble\(block_length=...\)` must be a positive integer or None. Got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(**settings).fit(np.eye(3), np.ones(3))
    with pytest.raises(ValueError, match=message):
        Ensemble().set_params(**settings).fit(np.eye(3), np.ones(3))


def test_dropping_every_column_is_refused():
    with pytest.raises(ValueError, match=r"at most 2 of 3. Got 3"):
        Ensemble(drop_columns=3).fit(np.eye(3), np.ones(3))
    with pytest.raises(TypeError, match="must be an estimator with `fit`"):
        Ensemble(base="STLSQ").fit(np.eye(3), np.ones(3))


@pytest.mark.parametrize("base", [STLSQ(threshold=0.1, alpha=1.0), Ridge(alpha=1.0, fit_intercept=False)])
def test_no_block_reaches_over_the_border_of_a_recording(base):
    theta, y, _ = noisy_problem(n=303)
    groups = np.repeat([4, 2, 4, 7], [50, 3, 149, 101])
    ensemble = Ensemble(base, n_members=3, bootstrap="blocks", block_length=7, random_state=5)
    ensemble.fit(theta, y, groups)
    # 8, 1, 22 and 15 blocks, numbered through.
    sizes = [min(7, length - start) for length in (50, 3, 149, 101) for start in range(0, length, 7)]
    part = np.repeat(np.arange(len(sizes)), sizes)
    assert all(len(set(groups[part == block])) == 1 for block in range(len(sizes)))
    counts = bootstrap_counts(np.random.default_rng(5), 3, len(sizes)).astype(int)
    for drawn, coef in zip(counts, ensemble.coef_, strict=True):
        rows = np.repeat(np.arange(303), drawn[part])
        np.testing.assert_allclose(coef, base.fit(theta[rows], y[rows]).coef_, rtol=1e-8, atol=1e-11)
    one = Ensemble(base, n_members=3, bootstrap="blocks", block_length=7, random_state=5)
    np.testing.assert_array_equal(one.fit(theta, y).coef_, one.fit(theta, y, np.zeros(303)).coef_)


def test_a_recording_a_call_or_all_at_once_with_borders_are_the_same_blocks():
    theta, y, _ = noisy_problem(n=300)
    cuts = [slice(0, 95), slice(95, 210), slice(210, 300)]
    parts = Ensemble(n_members=4, bootstrap="blocks", block_length=10, random_state=1)
    for cut in cuts:
        parts.partial_fit(theta[cut], y[cut])
    whole = Ensemble(n_members=4, bootstrap="blocks", block_length=10, random_state=1)
    whole.fit(theta, y, np.repeat([0, 1, 2], [95, 115, 90]))
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9)


def test_labels_must_be_one_a_row():
    with pytest.raises(ValueError, match=r"`Ensemble.fit\(groups=...\)` must have shape \(3,\)"):
        Ensemble(bootstrap="blocks").fit(np.eye(3), np.ones(3), [0, 1])
