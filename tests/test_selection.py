"""Selection: planted supports are found, in any unit, and nothing is chosen from pure noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.regression import STLSQ
from sindyrl.regression.selection import select_threshold


def planted(seed, n=250, p=15, noise=0.1):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    coef = np.zeros((2, p))
    coef[0, [2 % p, 7 % p, 11 % p]] = 1.0, -2.0, 0.7
    coef[1, [0]] = 1.5
    return theta, theta @ coef.T + noise * rng.normal(size=(n, 2)), coef


def test_well_separated_terms_are_always_found_and_seldom_joined_by_others():
    exact = 0
    for seed in range(40):
        theta, y, coef = planted(seed)
        chosen = select_threshold(theta, y).support
        assert chosen[coef != 0].all()
        exact += np.array_equal(chosen, coef != 0)
    assert exact >= 34


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_coefficients_are_those_of_a_fit_to_all_rows_with_the_choice(seed):
    theta, y, _ = planted(seed)
    chosen = select_threshold(theta, y)
    for target, support in enumerate(chosen.supports):
        expected = np.linalg.lstsq(theta[:, support], y[:, target], rcond=None)[0]
        np.testing.assert_allclose(chosen.coef[target, list(support)], expected, rtol=1e-9)
    np.testing.assert_allclose(STLSQ(threshold=chosen.threshold).fit(theta, y).coef_, chosen.coef, atol=1e-12)


def test_pure_noise_and_zero_targets_get_no_terms():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(250, 10))
    y = np.column_stack([rng.normal(size=250), np.zeros(250)])
    assert not select_threshold(theta, y).support.any()


def test_exact_data_give_exact_supports():
    theta, y, coef = planted(6, noise=0.0)
    np.testing.assert_allclose(select_threshold(theta, y).coef, coef, atol=1e-10)


def test_rules_are_ordered_by_size():
    theta, y, _ = planted(9, noise=2.0)
    sizes = {
        rule: select_threshold(theta, y, rule=rule).support.sum(axis=1) for rule in ("minimum", "one_standard_error")
    }
    assert (sizes["one_standard_error"] <= sizes["minimum"]).all()
    minimum = select_threshold(theta, y, rule="minimum").paths[0]
    assert minimum.error_mean[minimum.chosen] == minimum.error_mean.min()


@pytest.mark.parametrize("seed", range(10))
def test_one_standard_error_rule_takes_the_smallest_model_within_it(seed):
    theta, y, _ = planted(seed, noise=3.0)
    path = select_threshold(theta, y).paths[0]
    best = path.error_mean.argmin()
    limit = path.error_mean[best] + path.error_std[best] / np.sqrt(5)
    assert path.error_mean[path.chosen] <= limit
    assert (path.error_mean[path.chosen + 1 :] > limit).all()


def test_paired_rule_is_not_misled_by_one_hard_stretch_of_data():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(250, 8))
    noise = np.where(np.arange(250) < 50, 10.0, 0.01)  # the first fold is a thousand times harder
    y = theta @ np.array([1.0, 0, 0.3, 0, 0, 0, 0, 0]) + noise * rng.normal(size=250)
    weight = 1 / noise
    weighted = select_threshold(theta * weight[:, None], y * weight, rule="paired").supports[0]
    assert weighted == (0, 2)
    scale = np.where(np.arange(250) < 50, 1000.0, 1.0)  # the same data with the first fold in large numbers
    y = (theta @ np.array([1.0, 0, 0.3, 0, 0, 0, 0, 0]) + 0.05 * rng.normal(size=250)) * scale
    assert set(select_threshold(theta * scale[:, None], y, rule="paired").supports[0]) >= {0, 2}


def test_paired_rule_finds_exact_supports_in_exact_data_and_never_misses_a_well_separated_term_in_noisy():
    additions = []
    for seed in range(40):
        theta, y, coef = planted(seed, noise=0.0)
        np.testing.assert_array_equal(select_threshold(theta, y, rule="paired").support, coef != 0)
        theta, y, coef = planted(seed)
        found = select_threshold(theta, y, rule="paired").support
        assert found[coef != 0].all()
        additions.append(found.sum() - (coef != 0).sum())
    assert np.count_nonzero(additions) <= 6


def test_reported_error_is_that_of_refitting_without_each_fold():
    theta, y, _ = planted(11, n=100, p=4)
    path = select_threshold(theta, y[:, 1], folds=4).paths[0]
    errors = []
    for rows in np.array_split(np.arange(100), 4):
        rest = np.setdiff1d(np.arange(100), rows)
        w = np.linalg.lstsq(theta[rest], y[rest, 1], rcond=None)[0]
        errors.append(((theta[rows] @ w - y[rows, 1]) ** 2).mean())
    assert path.error_mean[0] == pytest.approx(np.mean(errors), rel=1e-9)
    assert path.error_std[0] == pytest.approx(np.std(errors, ddof=1), rel=1e-9)


def test_groups_are_never_split():
    theta, y, _ = planted(12, n=120, p=3)
    groups = np.repeat(["c", "a", "b"], [10, 60, 50])
    path = select_threshold(theta, y[:, 0], folds=3, groups=groups).paths[0]
    errors = []
    for label in "abc":
        rows = groups == label
        w = np.linalg.lstsq(theta[~rows], y[~rows, 0], rcond=None)[0]
        errors.append(((theta[rows] @ w - y[rows, 0]) ** 2).mean())
    assert path.error_mean[0] == pytest.approx(np.mean(errors), rel=1e-9)
    with pytest.raises(ValueError, match=r"at most the number of groups, 3. Got 5"):
        select_threshold(theta, y, groups=groups)


def test_groups_enter_the_folds_in_the_order_in_which_they_come():
    theta, y, _ = planted(13, n=120, p=3)
    named = np.repeat(["d", "a", "c", "b"], 30)
    halves = np.repeat([0, 1], 60)
    np.testing.assert_array_equal(
        select_threshold(theta, y, folds=2, groups=named).paths[0].error_mean,
        select_threshold(theta, y, folds=2, groups=halves).paths[0].error_mean,
    )


def test_a_generator_shuffles_the_folds_reproducibly():
    theta, y, _ = planted(13, noise=1.0)
    means = [
        select_threshold(theta, y, rng=rng).paths[0].error_mean
        for rng in (None, np.random.default_rng(0), np.random.default_rng(0), np.random.default_rng(1))
    ]
    np.testing.assert_array_equal(means[1], means[2])
    assert not np.array_equal(means[0], means[1])
    assert not np.array_equal(means[1], means[3])


def test_given_thresholds_and_normalized_units():
    theta, y, coef = planted(14)
    chosen = select_threshold(theta, y, [0.01, 0.3, 100.0], base=STLSQ(normalize=True))
    assert set(chosen.threshold) <= {0.01, 0.3}
    automatic = select_threshold(theta * 1e3, y, base=STLSQ(normalize=True))
    np.testing.assert_array_equal(automatic.support, coef != 0)
    assert (automatic.threshold < 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "`folds=` must be an integer of at least 2. Got 1"),
        ({"folds": 300}, "at most the number of rows, 250. Got 300"),
        ({"rule": "best"}, "`rule=` must be one of one_standard_error, paired, minimum. Got 'best'"),
        ({"groups": [1, 2]}, "`groups=` must have 250 entries"),
    ],
)
def test_wrong_use_is_refused(change, message):
    theta, y, _ = planted(0)
    with pytest.raises(ValueError, match=message):
        select_threshold(theta, y, **change)


def test_wrong_data_are_refused():
    theta, y, _ = planted(0)
    with pytest.raises(ValueError, match=r"Got \(250, 15\) and \(100, 2\)"):
        select_threshold(theta, y[:100])
    theta[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"`theta` must be finite. Entry \(3, 1\) is nan"):
        select_threshold(theta, y)
