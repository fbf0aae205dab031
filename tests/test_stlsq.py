"""STLSQ: planted answers in any unit and order, the same answers as pysindy, and honest failure."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from sindyrl.regression import STLSQ

UNITS = st.sampled_from([1e-3, 1.0, 1e3])


def planted(seed, n=120, p=10, k=2, terms=3):
    """Library, targets and the coefficients (target, feature), magnitudes between 1 and 3."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    coef = np.zeros((k, p))
    for row in coef:
        chosen = rng.choice(p, terms, replace=False)
        row[chosen] = rng.uniform(1, 3, size=terms) * rng.choice([-1, 1], size=terms)
    return theta, theta @ coef.T, coef


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_recovers_the_generating_terms(seed):
    theta, y, coef = planted(seed)
    model = STLSQ(threshold=0.5).fit(theta, y)
    np.testing.assert_array_equal(model.support_, coef != 0)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-10)
    assert model.converged_


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_permuted_columns_give_permuted_coefficients(seed):
    theta, y, _ = planted(seed)
    order = np.random.default_rng(seed).permutation(theta.shape[1])
    noisy = y + 0.3 * np.random.default_rng(seed + 1).normal(size=y.shape)
    straight = STLSQ(threshold=0.05, alpha=0.1).fit(theta, noisy).coef_
    permuted = STLSQ(threshold=0.05, alpha=0.1).fit(theta[:, order], noisy).coef_
    np.testing.assert_allclose(permuted, straight[:, order], atol=1e-10)


@given(seed=st.integers(0, 10_000), column_unit=UNITS, target_unit=UNITS, alpha=st.sampled_from([0.0, 0.01]))
@settings(max_examples=40, deadline=None)
def test_normalized_thresholds_do_not_depend_on_units(seed, column_unit, target_unit, alpha):
    theta, y, coef = planted(seed)
    units = np.where(np.arange(theta.shape[1]) % 2, column_unit, 1.0)
    settings_ = {"threshold": 0.1, "normalize": True, "alpha": alpha}
    reference = STLSQ(**settings_).fit(theta, y)
    scaled = STLSQ(**settings_).fit(theta * units, y * target_unit)
    np.testing.assert_array_equal(reference.support_, coef != 0)
    np.testing.assert_allclose(scaled.coef_ * units / target_unit, reference.coef_, rtol=1e-8, atol=1e-12)


@given(seed=st.integers(0, 10_000), repeats=st.integers(2, 4))
@settings(max_examples=10, deadline=None)
def test_repeating_every_row_changes_nothing_without_ridge(seed, repeats):
    theta, y, _ = planted(seed)
    noisy = y + np.random.default_rng(seed).normal(size=y.shape)
    for normalize in (False, True):
        once = STLSQ(threshold=0.1, normalize=normalize).fit(theta, noisy).coef_
        often = STLSQ(threshold=0.1, normalize=normalize).fit(
            np.tile(theta, (repeats, 1)), np.tile(noisy, (repeats, 1))
        )
        np.testing.assert_allclose(often.coef_, once, atol=1e-9)


@pytest.mark.parametrize("normalize", [False, True])
def test_zero_target_gets_an_empty_equation_beside_a_full_one(normalize):
    theta, y, coef = planted(0)
    y = np.column_stack([np.zeros(len(y)), y[:, 0]])
    model = STLSQ(threshold=0.1, normalize=normalize).fit(theta, y)
    assert not model.support_[0].any()
    np.testing.assert_array_equal(model.support_[1], coef[0] != 0)


def test_threshold_above_everything_leaves_an_empty_support_and_a_zero_prediction():
    theta, y, _ = planted(1)
    model = STLSQ(threshold=1e6).fit(theta, y)
    assert not model.support_.any()
    assert model.converged_
    np.testing.assert_array_equal(model.predict(theta), np.zeros_like(y))


def test_keeps_exactly_the_coefficients_that_reach_the_threshold():
    theta = np.eye(4)
    y = np.array([0.25, np.nextafter(0.25, 0), -0.25, 1.0])
    np.testing.assert_array_equal(STLSQ(threshold=0.25).fit(theta, y).coef_, [0.25, 0, -0.25, 1.0])


def test_a_zero_column_gets_no_coefficient():
    theta, y, coef = planted(2)
    theta = np.column_stack([theta, np.zeros(len(theta))])
    for normalize in (False, True):
        model = STLSQ(threshold=0.1, normalize=normalize).fit(theta, y)
        np.testing.assert_array_equal(model.support_, np.column_stack([coef != 0, [False, False]]))


def test_each_target_may_have_its_threshold():
    theta, y, coef = planted(3)
    model = STLSQ(threshold=[0.1, 10.0]).fit(theta, y)
    np.testing.assert_array_equal(model.support_, [coef[0] != 0, np.zeros(10)])
    with pytest.raises(ValueError, match=r"one entry for each of the 2 targets. Got 3"):
        STLSQ(threshold=[0.1, 0.2, 0.3]).fit(theta, y)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_each_target_and_column_may_have_its_threshold(seed):
    theta, y, _ = planted(seed)
    noisy = y + 0.2 * np.random.default_rng(seed).normal(size=y.shape)
    table = np.random.default_rng(seed + 1).uniform(0, 0.3, size=(2, 10))
    model = STLSQ(threshold=table).fit(theta, noisy)
    for target in range(2):
        # A threshold for each column is the same threshold for all in other units of the columns.
        units = 0.1 / table[target]
        scaled = STLSQ(threshold=0.1).fit(theta / units, noisy[:, target]).coef_ / units
        np.testing.assert_allclose(model.coef_[target], scaled, rtol=1e-7, atol=1e-10)
        kept = np.abs(model.coef_[target, model.support_[target]])
        assert (kept >= table[target, model.support_[target]]).all()


def test_a_row_or_a_column_of_thresholds_stands_for_the_table():
    theta, y, _ = planted(3)
    by_column, by_target = np.linspace(0.0, 0.9, 10), np.array([0.5, 2.0])
    for normalize in (False, True):
        short = STLSQ(threshold=by_column[None], normalize=normalize).fit(theta, y).coef_
        whole = STLSQ(threshold=np.tile(by_column, (2, 1)), normalize=normalize).fit(theta, y).coef_
        np.testing.assert_array_equal(short, whole)
        np.testing.assert_array_equal(
            STLSQ(threshold=by_target[:, None], normalize=normalize).fit(theta, y).coef_,
            STLSQ(threshold=list(by_target), normalize=normalize).fit(theta, y).coef_,
        )
    with pytest.raises(ValueError, match=r"must have shape \(targets, features\) = \(2, 10\).* Got \(2, 9\)"):
        STLSQ(threshold=np.ones((2, 9))).fit(theta, y)
    with pytest.raises(ValueError, match="non-negative number"):
        STLSQ(threshold=np.ones((1, 2, 10))).fit(theta, y)


def test_threshold_zero_protects_a_column_and_infinity_forbids_it():
    theta, y, coef = planted(4, k=1)
    theta = np.column_stack([theta, 0.001 * theta[:, 0] + np.random.default_rng(0).normal(size=len(theta))])
    inside = int(np.flatnonzero(coef[0])[0])
    table = np.full((1, 11), 0.5)
    table[0, 10], table[0, inside] = 0.0, np.inf
    model = STLSQ(threshold=table).fit(theta, y)
    assert model.support_[0, 10]
    assert not model.support_[0, inside]


def test_targets_do_not_influence_each_other():
    theta, y, _ = planted(4)
    both = STLSQ(threshold=0.2).fit(theta, y).coef_
    for target in range(2):
        np.testing.assert_allclose(STLSQ(threshold=0.2).fit(theta, y[:, target]).coef_, both[target], atol=1e-12)


def test_unbias_is_least_squares_on_the_support_that_ridge_chose():
    theta, y, _ = planted(5)
    y = y + np.random.default_rng(0).normal(size=y.shape)
    biased = STLSQ(threshold=0.3, alpha=50.0).fit(theta, y)
    free = STLSQ(threshold=0.3, alpha=50.0, unbias=True).fit(theta, y)
    np.testing.assert_array_equal(free.support_, biased.support_)
    for target, support in enumerate(free.support_):
        expected = np.linalg.lstsq(theta[:, support], y[:, target], rcond=None)[0]
        np.testing.assert_allclose(free.coef_[target, support], expected, rtol=1e-9)
    assert np.abs(free.coef_).sum() > np.abs(biased.coef_).sum()


def test_nearly_dependent_columns_are_solved_by_qr_and_recovered():
    rng = np.random.default_rng(6)
    theta = rng.normal(size=(300, 5))
    theta[:, 4] = theta[:, 0] + 1e-8 * rng.normal(size=300)
    coef = np.array([0.0, 2.0, 0, -1.0, 0.5])
    model = STLSQ(threshold=0.1).fit(theta, theta @ coef)
    assert model.method_ == "qr"
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
    assert STLSQ().fit(theta[:, :4], theta[:, 0]).method_ == "gram"


def test_unsettled_support_warns_with_the_number_of_rounds():
    rng = np.random.default_rng(10)
    theta, y = rng.normal(size=(60, 30)), rng.normal(size=60)
    with pytest.warns(ConvergenceWarning, match=r"target 0 still changed after max_iter=1 rounds. Raise `max_iter`"):
        model = STLSQ(threshold=0.15, max_iter=1).fit(theta, y)
    assert not model.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert STLSQ(threshold=0.15).fit(theta, y).converged_


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"threshold": -1.0}, r"`STLSQ\(threshold=...\)` must be a non-negative number.* Got -1.0"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": "small"}, "Got 'small'"),
        ({"alpha": -0.1}, r"`STLSQ\(alpha=...\)` must be a non-negative number. Got -0.1"),
        ({"max_iter": -3}, r"`STLSQ\(max_iter=...\)` must be a positive integer. Got -3"),
        ({"normalize": 1}, r"`STLSQ\(normalize=...\)` must be True or False. Got 1"),
    ],
)
def test_wrong_settings_are_refused_by_fit(settings_, message):
    with pytest.raises(ValueError, match=message):
        STLSQ(**settings_).fit(np.eye(3), np.ones(3))
    model = STLSQ().set_params(**settings_)
    assert isinstance(model, STLSQ)
    with pytest.raises(ValueError, match=message):
        model.fit(np.eye(3), np.ones(3))


def lorenz_like(noise, degree=3, n=2000):
    """Monomials of a smooth path and targets of the Lorenz form: strongly correlated columns, as in practice."""
    import itertools

    t = np.linspace(0, 20, n)
    rng = np.random.default_rng(0)
    x = np.column_stack([8 * np.sin(1.3 * t) + np.cos(3.1 * t), 9 * np.cos(0.9 * t + 1), 25 + 8 * np.sin(2.3 * t)])
    dx = np.column_stack(
        [10 * (x[:, 1] - x[:, 0]), x[:, 0] * (28 - x[:, 2]) - x[:, 1], x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2]]
    )
    columns = [np.ones(n)]
    for total in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(3), total):
            columns.append(np.prod(x[:, chosen], axis=1))
    return np.column_stack(columns), dx + noise * dx.std(axis=0) * rng.normal(size=dx.shape)


@pytest.mark.parametrize("unbias", [False, True])
@pytest.mark.parametrize(("noise", "threshold"), [(0.0, 0.1), (0.01, 0.1), (0.05, 0.02), (0.05, 0.5)])
@pytest.mark.parametrize("alpha", [0.05, 1e-9, 10.0])
def test_agrees_with_pysindy(noise, threshold, alpha, unbias):
    pysindy = pytest.importorskip("pysindy")
    theta, y = lorenz_like(noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pysindy.STLSQ(threshold=threshold, alpha=alpha, unbias=unbias).fit(theta, y)
        model = STLSQ(threshold=threshold, alpha=alpha, unbias=unbias).fit(theta, y)
    np.testing.assert_array_equal(model.coef_ != 0, oracle.coef_ != 0)
    np.testing.assert_allclose(model.coef_, oracle.coef_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_stops_at_the_round_limit_where_pysindy_stops(max_iter):
    pysindy = pytest.importorskip("pysindy")
    rng = np.random.default_rng(10)
    theta, y = rng.normal(size=(60, 30)), rng.normal(size=(60, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pysindy.STLSQ(threshold=0.15, alpha=0.05, unbias=False, max_iter=max_iter).fit(theta, y)
        model = STLSQ(threshold=0.15, alpha=0.05, max_iter=max_iter).fit(theta, y)
    np.testing.assert_allclose(model.coef_, oracle.coef_, rtol=1e-9)


def test_normalize_agrees_with_pysindy_after_conversion_of_the_threshold():
    pysindy = pytest.importorskip("pysindy")
    theta, y = lorenz_like(0.02)
    y = y[:, 1]
    length = np.sqrt((y**2).sum())
    oracle = pysindy.STLSQ(threshold=0.05 * length, alpha=1e-12, normalize_columns=True).fit(theta, y)
    model = STLSQ(threshold=0.05, normalize=True).fit(theta, y)
    np.testing.assert_array_equal(model.support_, oracle.coef_[0] != 0)
    np.testing.assert_allclose(model.coef_, oracle.coef_[0], rtol=1e-6)
