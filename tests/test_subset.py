"""Best subsets: exhaustive search is the second route, planted supports the answer, units and order no matter."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sindyrl.regression.gram import Gram
from sindyrl.regression.subset import (
    SubsetSelection,
    _best_addition,
    _sweep,
    bootstrap_refits,
    inclusion_by_bootstrap,
    paired_choice,
    subset_path,
)


def residual(theta, y, support):
    columns = theta[:, list(support)]
    return float(((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum())


def correlated(seed, n=40, p=8):
    """Columns that share a strong common part, so that greedy search is easily misled."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p)) + 2.0 * rng.normal(size=(n, 2)) @ rng.normal(size=(2, p))
    return theta, theta @ rng.normal(size=p) + rng.normal(size=n)


def greedy(theta, y, size):
    support = []
    for _ in range(size):
        rest = [j for j in range(theta.shape[1]) if j not in support]
        support.append(min(rest, key=lambda j: residual(theta, y, [*support, j])))
    return support


# ---- the path


def test_the_path_is_the_best_subset_of_each_size_nearly_always_and_beats_greedy_search():
    found = total = better = 0
    for seed in range(25):
        theta, y = correlated(seed)
        path = subset_path(Gram.from_rows(theta, y[:, None]), 0, 5)
        for size, support in enumerate(path, start=1):
            best = min(residual(theta, y, chosen) for chosen in itertools.combinations(range(8), size))
            here, forward = residual(theta, y, support), residual(theta, y, greedy(theta, y, size))
            assert len(support) == size
            assert here >= best * (1 - 1e-9)
            found, total = found + (here <= best * (1 + 1e-9)), total + 1
            better += forward > here * (1 + 1e-6)
            assert forward >= here * (1 - 1e-9) or here <= best * 1.1
    assert total == 125
    assert found / total > 0.95
    assert better > 5


def test_no_single_exchange_improves_a_support():
    for seed in range(10):
        theta, y = correlated(seed, p=10)
        for support in subset_path(Gram.from_rows(theta, y[:, None]), 0, 5):
            here = residual(theta, y, support)
            for leaving, entering in itertools.product(support, set(range(10)) - set(support)):
                assert residual(theta, y, {*support, entering} - {leaving}) >= here * (1 - 1e-7)


@given(seed=st.integers(0, 10_000))
def test_sweeping_in_and_out_is_the_identity_and_in_is_least_squares(seed):
    rng = np.random.default_rng(seed)
    theta, y = rng.normal(size=(30, 6)), rng.normal(size=30)
    joint = np.column_stack([theta, y])
    table = joint.T @ joint
    start = table.copy()
    chosen = rng.choice(6, 3, replace=False)
    for column in chosen:
        _sweep(table, column)
    w = np.linalg.lstsq(theta[:, chosen], y, rcond=None)[0]
    np.testing.assert_allclose(table[chosen, 6], w, rtol=1e-9)
    assert table[6, 6] == pytest.approx(residual(theta, y, chosen), rel=1e-9)
    np.testing.assert_allclose(table[np.ix_(chosen, chosen)], np.linalg.inv(start[np.ix_(chosen, chosen)]), rtol=1e-8)
    for column in rng.permutation(chosen):
        _sweep(table, column)
    np.testing.assert_allclose(table, start, rtol=0, atol=1e-9 * np.abs(start).max())


@given(seed=st.integers(0, 10_000))
def test_the_gain_on_display_is_the_drop_of_the_residual(seed):
    rng = np.random.default_rng(seed)
    theta, y = rng.normal(size=(30, 6)), rng.normal(size=30)
    joint = np.column_stack([theta, y])
    table = joint.T @ joint
    _sweep(table, 2)
    best, gain = _best_addition(table, [2], np.ones(6, dtype=bool))
    drops = {j: residual(theta, y, [2]) - residual(theta, y, [2, j]) for j in range(6) if j != 2}
    assert best == max(drops, key=drops.get)
    assert gain == pytest.approx(drops[best], rel=1e-8)


def test_columns_that_are_zero_or_spanned_already_never_enter():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(50, 6))
    theta[:, 2] = 0.0
    theta[:, 4] = theta[:, 0] - 2.0 * theta[:, 1]
    theta[:, 5] = 1e3 * theta[:, 0]
    path = subset_path(Gram.from_rows(theta, (theta @ [1.0, 2.0, 0.0, 0.5, 0.0, 0.0])[:, None]), 0, 6)
    assert len(path) == 3  # two dimensions of columns 0, 1, 4, 5, and column 3
    for support in path:
        assert np.linalg.matrix_rank(theta[:, support]) == len(support)
    assert residual(theta, theta @ [1.0, 2.0, 0.0, 0.5, 0.0, 0.0], path[-1]) < 1e-18
    assert subset_path(Gram.from_rows(theta, np.zeros((50, 1))), 0, 6) == ()
    assert subset_path(Gram.from_rows(np.zeros((50, 3)), np.ones((50, 1))), 0, 3) == ()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_exact_fits_leave_nothing_but_rounding_to_exchange_and_the_search_still_ends(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(40, 2))
    theta = np.column_stack([z[:, 0] ** i * z[:, 1] ** j for i in range(5) for j in range(4)])
    y = 2.0 * theta[:, 3] - theta[:, 9]
    path = subset_path(Gram.from_rows(theta, y[:, None]), 0, 20)
    assert residual(theta, y, path[min(5, len(path) - 1)]) < 1e-9 * (y @ y)


# ---- the choice of the size


def test_the_smallest_size_is_chosen_that_is_as_good_fold_by_fold():
    easy_and_hard = np.array([1e-6, 1e-1, 1e-3])
    errors = np.array([[4.0, 4.1, 3.9], [1.0, 1.02, 0.98], [0.99, 1.03, 0.97]]) * easy_and_hard
    assert paired_choice(errors) == 1  # a plain standard error over the folds could not even reject the first
    errors[2] *= 0.5
    assert paired_choice(errors) == 2


def test_errors_of_rounding_do_not_count():
    assert paired_choice(np.array([[1e-2, 1e-2], [1e-27, 1e-28], [1e-30, 1e-33]])) == 1


# ---- the estimator


def planted(seed, n=200, p=12, noise=0.01):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    coef = np.zeros((2, p))
    coef[0, [1, 4, 7]] = 1.0, -2.0, 0.5
    coef[1, 10] = -3.0
    return theta, theta @ coef.T + noise * rng.normal(size=(n, 2)), coef


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.0, 0.01, 0.1]))
def test_planted_supports_are_recovered_among_permuted_columns_in_any_unit(seed, noise):
    theta, y, coef = planted(seed, noise=noise)
    rng = np.random.default_rng(seed)
    order, units, scale = rng.permutation(12), 10.0 ** rng.uniform(-3, 3, 12), 10.0 ** rng.uniform(-3, 3)
    plain = SubsetSelection().fit(theta, y)
    changed = SubsetSelection().fit((theta * units)[:, order], y * scale)
    np.testing.assert_allclose(changed.coef_ * units[order] / scale, plain.coef_[:, order], rtol=1e-7, atol=1e-12)
    assert ((plain.coef_ != 0) >= (coef != 0)).all()
    if noise == 0:
        np.testing.assert_allclose(plain.coef_, coef, rtol=1e-12)
        np.testing.assert_array_equal(plain.coef_ != 0, coef != 0)


def test_supports_are_exact_for_most_draws_of_noise():
    exact = extra = 0
    for seed in range(40):
        theta, y, coef = planted(seed, noise=0.1)
        found = SubsetSelection().fit(theta, y).coef_ != 0
        exact += (found == (coef != 0)).all()
        extra += (found & (coef == 0)).sum()
    assert exact >= 30
    assert extra <= 20


def test_the_coefficients_are_least_squares_on_the_support():
    theta, y, _ = planted(3, noise=0.2)
    fit = SubsetSelection().fit(theta, y)
    for target, path in enumerate(fit.paths_):
        expected = np.linalg.lstsq(theta[:, path.support], y[:, target], rcond=None)[0]
        np.testing.assert_allclose(fit.coef_[target, list(path.support)], expected, rtol=1e-10)
        assert np.count_nonzero(fit.coef_[target]) == len(path.support)
    np.testing.assert_allclose(fit.predict(theta), theta @ fit.coef_.T, rtol=1e-12)
    assert fit.paths_[0].error == pytest.approx(0.2 / np.sqrt(np.mean(y[:, 0] ** 2)), rel=0.3)


def test_a_zero_target_has_an_empty_support_and_the_others_are_not_disturbed():
    theta, y, _ = planted(0)
    fit = SubsetSelection().fit(theta, np.column_stack([y[:, 0], np.zeros(len(y)), y[:, 1]]))
    assert fit.paths_[1].support == ()
    assert fit.paths_[1].error == 1.0
    np.testing.assert_array_equal(fit.coef_[1], 0.0)
    np.testing.assert_array_equal(fit.coef_[[0, 2]], SubsetSelection().fit(theta, y).coef_)


def test_never_more_than_max_terms():
    theta, y, _ = planted(0)
    for most in (1, 2, 3):
        support = SubsetSelection(max_terms=most).fit(theta, y[:, 0]).paths_[0].support
        assert support == ((4,), (1, 4), (1, 4, 7))[most - 1]


def test_a_column_that_is_huge_in_one_fold_only_is_no_trouble(recwarn):
    for seed in range(20):
        theta, _, coef = planted(seed)
        theta[80:120, 5] *= 1e9  # sums over the other folds must not be differences of sums with this one
        fit = SubsetSelection().fit(theta, theta @ coef.T)
        np.testing.assert_array_equal(fit.coef_ != 0, coef != 0)
    assert not recwarn.list


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_few_rows_are_enough_for_an_answer(n):
    theta, y, _ = planted(0, n=n)
    fit = SubsetSelection().fit(theta, y)
    assert np.isfinite(fit.coef_).all()
    np.testing.assert_array_equal(fit.predict(theta), theta @ fit.coef_.T)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_terms": 0}, r"`SubsetSelection\(max_terms=...\)` must be an integer of at least 1. Got 0"),
        ({"max_terms": 2.5}, r"`SubsetSelection\(max_terms=...\)`.*2.5"),
        ({"folds": 1}, r"`SubsetSelection\(folds=...\)` must be an integer of at least 2. Got 1"),
        ({"folds": True}, r"`SubsetSelection\(folds=...\)`.*True"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SubsetSelection(**settings).fit(*planted(0)[:2])


@parametrize_with_checks([SubsetSelection(), SubsetSelection(max_terms=2, folds=3)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_fitting_changes_no_parameter_and_one_dimensional_targets_drop_their_axis():
    theta, y, _ = planted(0)
    estimator = clone(SubsetSelection(max_terms=4))
    flat = estimator.fit(theta, y[:, 0])
    assert estimator.get_params() == {"folds": 5, "max_terms": 4, "min_terms": 1}
    assert flat.coef_.shape == (12,)
    assert flat.predict(theta).shape == (200,)


# ---- bootstraps


def test_bootstraps_repeat_with_their_seed_and_differ_with_another():
    theta, y, coef = planted(0, noise=0.5)
    members = [bootstrap_refits(theta, y, coef, 6, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(members[0], members[1])
    assert (members[0][1:, coef != 0] != members[2][1:, coef != 0]).all()
    shares = [inclusion_by_bootstrap(theta, 0.1 * y, [4, 2], 9, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(shares[0], shares[1])
    assert (shares[0] != shares[2]).any()


def test_bootstraps_keep_the_support_and_member_zero():
    theta, y, coef = planted(0, noise=0.5)
    members = bootstrap_refits(theta, y, coef, 6, np.random.default_rng(0))
    np.testing.assert_array_equal(members[0], coef)
    assert members.shape == (6, 2, 12)
    assert (members[:, coef == 0] == 0).all()
    np.testing.assert_array_equal(bootstrap_refits(theta, y, coef, 1, np.random.default_rng(0)), coef[None])


def test_a_bootstrap_is_least_squares_on_the_rows_it_drew():
    theta, y, coef = planted(0, noise=0.5)
    weights = np.random.default_rng(8).multinomial(200, np.full(200, 1 / 200), size=2)
    members = bootstrap_refits(theta, y, coef, 3, np.random.default_rng(8))
    for member, weight in zip(members[1:], weights, strict=True):
        rows = np.repeat(np.arange(200), weight)
        support = np.flatnonzero(coef[0])
        expected = np.linalg.lstsq(theta[rows][:, support], y[rows, 0], rcond=None)[0]
        np.testing.assert_allclose(member[0, support], expected, rtol=1e-9)


def test_the_spread_of_the_bootstraps_is_the_standard_error():
    theta, y, coef = planted(0, n=500, noise=0.5)
    members = bootstrap_refits(theta, y, coef, 200, np.random.default_rng(0))
    spread = members[1:].std(axis=0)[coef != 0]
    np.testing.assert_allclose(spread, 0.5 / np.sqrt(500), rtol=0.2)


def test_inclusion_is_one_for_strong_terms_a_share_for_weak_ones_and_zero_for_an_empty_target():
    theta, y, coef = planted(0, noise=0.1)
    share = inclusion_by_bootstrap(theta, np.column_stack([y, np.zeros(200)]), [4, 1, 0], 15, np.random.default_rng(0))
    np.testing.assert_array_equal(share[:2][coef != 0], 1.0)
    assert share[0].sum() == pytest.approx(4.0)
    np.testing.assert_array_equal(share[2], 0.0)


def test_targets_that_no_column_predicts_get_none_if_that_is_allowed():
    empty = kept = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta, noise = rng.normal(size=(200, 15)), rng.normal(size=200)
        empty += not SubsetSelection(min_terms=0).fit(theta, noise).coef_.any()
        target = noise + theta[:, 3]
        one, zero = (SubsetSelection(min_terms=least).fit(theta, target) for least in (1, 0))
        kept += np.array_equal(one.coef_, zero.coef_)
        assert zero.coef_[3] != 0
    assert empty >= 34
    assert kept == 40
    assert SubsetSelection().fit(theta, noise).coef_.any()


@pytest.mark.parametrize("least", [2, -1, True, "0"])
def test_the_fewest_terms_are_none_or_one(least):
    with pytest.raises(ValueError, match=r"`SubsetSelection\(min_terms=...\)` must be 0 or 1"):
        SubsetSelection(min_terms=least).fit(np.eye(20), np.arange(20.0))
