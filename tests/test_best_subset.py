"""Best subsets: what enumeration finds, proven; planted terms among collinear columns; a stated gap when cut short."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from sindyrl.regression import STLSQ, BestSubset, Ensemble
from sindyrl.regression.best_subset import information
from sindyrl.regression.branch_and_bound import Search, best_subset
from sindyrl.regression.gram import Gram
from sindyrl.regression.streaming import residual_squares

FLOOR = 1e-12  # the ridge on unit columns that stands for "these two are one column"


def enumerate_supports(theta, y, size, alpha=0.0):
    """The least residual over all supports, and the support, by trying every one on the tall matrix."""
    length = np.linalg.norm(theta, axis=0)
    best = (np.inf, ())
    for support in itertools.combinations(np.flatnonzero(length).tolist(), size):
        columns = list(support)
        ridge = np.diag(np.sqrt(alpha + FLOOR * length[columns] ** 2))
        a, z = np.vstack([theta[:, columns], ridge]), np.concatenate([y, np.zeros(size)])
        w = np.linalg.lstsq(a / length[columns], z, rcond=None)[0]
        best = min(best, (float(((z - a / length[columns] @ w) ** 2).sum()), support))
    return best


def correlated(seed, n=40, p=9, noise=1.0):
    """Strongly mixed columns; odd seeds hide the planted terms behind a nearly equal column."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p)) @ (np.eye(p) + (seed % 3) * rng.normal(size=(p, p)))
    if seed % 2:
        theta[:, 4] = theta[:, 2] + 10.0 ** -(1 + seed % 7) * rng.normal(size=n)
    y = theta[:, [1, 4, 7]] @ [1.0, -1.0, 0.5] + noise * rng.normal(size=n)
    return theta * 10.0 ** rng.integers(-3, 4, size=p), y


@given(
    seed=st.integers(0, 100_000), size=st.integers(1, 4), noise=st.sampled_from([0.0, 0.1, 5.0]), ridge=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_a_proven_support_is_the_best_of_all_by_enumeration(seed, size, noise, ridge):
    theta, y = correlated(seed, noise=noise)
    alpha = 0.5 if ridge else 0.0
    found = best_subset(Gram.from_rows(theta, y[:, None]), 0, size, alpha=alpha, node_limit=5000)
    least, support = enumerate_supports(theta, y, size, alpha)
    assert found.proven
    assert found.residual * (y @ y) == pytest.approx(least, rel=1e-6, abs=1e-11 * (y @ y))
    if noise and seed % 2 == 0:
        assert found.support == support


@given(seed=st.integers(0, 100_000), size=st.integers(2, 4), nodes=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_a_search_cut_short_states_a_bound_below_the_true_optimum(seed, size, nodes):
    theta, y = correlated(seed, noise=3.0)
    found = best_subset(Gram.from_rows(theta, y[:, None]), 0, size, node_limit=nodes)
    least = enumerate_supports(theta, y, size)[0] / (y @ y)
    assert found.bound <= least * (1 + 1e-6) + 1e-11
    assert found.residual >= least * (1 - 1e-6) - 1e-11
    assert found.nodes <= nodes
    assert 0.0 <= found.gap <= 1.0
    assert found.proven == (found.outcome is Search.proven)
    if not found.proven:
        assert found.outcome is Search.node_limit
        assert "`node_limit`" in str(found.outcome)


def planted(seed):
    """Library (200, 15) and coefficients of three targets with 3, 1 and no terms."""
    coef = np.zeros((3, 15))
    coef[0, [2, 5, 11]], coef[1, 7] = (1.0, -2.0, 0.5), 3.0
    return np.random.default_rng(seed).normal(size=(200, 15)), coef


def test_greedy_search_alone_would_miss_what_the_tree_finds():
    """Supports on which forward selection with exchanges ends in a local optimum, and the tree does not."""
    missed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=(30, 14)) @ rng.normal(size=(14, 14))
        y = rng.normal(size=30)
        gram = Gram.from_rows(theta, y[:, None])
        start, best = (best_subset(gram, 0, 4, node_limit=limit) for limit in (0, 5000))
        assert best.proven
        assert best.residual <= start.residual
        missed += best.residual < start.residual * (1 - 1e-6)
    assert missed > 0


def test_planted_terms_of_a_large_collinear_library_are_found_and_proven():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(800, 4)) @ (np.eye(4) + 0.3)
    powers = [e for e in itertools.product(range(6), repeat=4) if sum(e) <= 4]
    theta = np.stack([np.prod(x**e, axis=1) for e in powers], axis=1)
    coef = np.zeros(len(powers))
    coef[[3, 20, 44, 61]] = 2.0, -1.0, 1.5, 0.7
    assert theta.shape[1] == 70
    y = theta @ coef
    y = y + 0.02 * y.std() * rng.normal(size=len(y))
    model = BestSubset().fit(theta, y)
    np.testing.assert_array_equal(model.support_, coef != 0)
    assert model.proven_.all()
    np.testing.assert_allclose(model.coef_, coef, atol=0.1)


@pytest.mark.parametrize("size", ["aicc", "bic", "ebic", "cv"])
def test_exact_data_give_exactly_the_planted_terms(size):
    theta, coef = planted(1)
    model = BestSubset(size).fit(theta, theta @ coef.T)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-12)


@pytest.mark.parametrize(("size", "exact"), [("ebic", 17), ("cv", 8), ("bic", 8)])
def test_planted_terms_are_always_found_in_noise_and_seldom_joined_by_others(size, exact):
    right = 0
    for seed in range(20):
        theta, coef = planted(seed)
        noise = 0.05 * np.random.default_rng(seed + 100).normal(size=(200, 3)) * [1, 1, 0]
        model = BestSubset(size, max_terms=5).fit(theta, theta @ coef.T + noise)
        assert model.support_[coef != 0].all()
        assert not model.support_[2].any()
        right += np.array_equal(model.support_, coef != 0)
    assert right >= exact


def test_extended_bic_refuses_noise_that_aicc_takes():
    rng = np.random.default_rng(2)
    theta, y = rng.normal(size=(300, 40)), rng.normal(size=(300, 10))
    sizes = {name: BestSubset(name, max_terms=4).fit(theta, y).support_.sum() for name in ("aicc", "bic", "ebic")}
    assert sizes["aicc"] > sizes["bic"] >= sizes["ebic"]
    assert sizes["ebic"] <= 1


def test_scores_are_the_criterion_of_the_refit():
    rng = np.random.default_rng(3)
    theta, y = rng.normal(size=(60, 6)), rng.normal(size=60)
    path = BestSubset("aicc", max_terms=6).fit(theta, y).paths_[0]
    for size, score in enumerate(path.scores):
        support = list(path.found[size - 1].support) if size else []
        w = np.linalg.lstsq(theta[:, support], y, rcond=None)[0]
        squares = ((y - theta[:, support] @ w) ** 2).sum()
        q = size + 1
        assert score == pytest.approx(60 * math.log(squares / 60) + 2 * q + 2 * q * (q + 1) / (60 - q - 1), rel=1e-9)
    assert path.chosen == path.scores.argmin()
    assert information("bic", 60.0, 60, 2, 6) == pytest.approx(3 * math.log(60))
    assert information("ebic", 60.0, 60, 2, 6) == pytest.approx(3 * math.log(60) + 2 * math.log(15))
    assert information("aicc", 1.0, 4, 2, 6) == math.inf


def test_units_and_order_of_columns_do_not_matter():
    rng = np.random.default_rng(4)
    theta, y = correlated(0, n=80, p=12)
    units, order = 10.0 ** rng.integers(-4, 5, 12), rng.permutation(12)
    plain = BestSubset(4).fit(theta, y)
    changed = BestSubset(4).fit((theta * units)[:, order], 1e3 * y)
    np.testing.assert_allclose(changed.coef_ * units[order], 1e3 * plain.coef_[order], rtol=1e-7)


def test_hostile_columns_zero_equal_and_nearly_equal():
    rng = np.random.default_rng(5)
    theta = rng.normal(size=(100, 8))
    theta[:, 3] = 0.0
    theta[:, 5] = theta[:, 1]
    theta[:, 6] = theta[:, 2] + 1e-9 * rng.normal(size=100)
    theta[:, 7] = theta[:, 0] - theta[:, 4]
    y = theta[:, :3] @ [1.0, 2.0, -1.0] + 0.1 * rng.normal(size=100)
    model = BestSubset(3).fit(theta, y)
    assert model.proven_.all()
    assert not model.support_[3]
    np.testing.assert_allclose(model.predict(theta), theta[:, :3] @ [1.0, 2.0, -1.0], atol=0.1)
    assert np.abs(model.coef_).max() < 3.0  # and not a difference of two huge ones
    found = best_subset(Gram.from_rows(theta, y[:, None]), 0, 7)
    assert found.proven
    assert len(found.support) == 7


def test_targets_and_columns_that_say_nothing_get_no_terms():
    theta = np.zeros((20, 3))
    model = BestSubset(2).fit(theta, np.ones(20))
    assert not model.support_.any()
    assert best_subset(Gram.from_rows(np.eye(4), np.zeros((4, 1))), 0, 2).support == ()
    assert not BestSubset(0).fit(np.eye(4), np.ones(4)).support_.any()
    one_column = BestSubset(5).fit(np.ones((9, 1)), np.full(9, 2.0))
    np.testing.assert_allclose(one_column.coef_, [2.0])


def test_ridge_coefficients_satisfy_their_normal_equations():
    theta, y = correlated(2)
    model = BestSubset(3, alpha=4.0).fit(theta, y)
    columns, w = theta[:, model.support_], model.coef_[model.support_]
    np.testing.assert_allclose(columns.T @ (columns @ w - y) + 4.0 * w, 0.0, atol=1e-9 * np.abs(columns.T @ y).max())


def test_an_unfinished_proof_warns_with_the_gap_and_a_time_limit_ends_the_search():
    rng = np.random.default_rng(6)
    theta = rng.normal(size=(60, 25)) + 2.0 * rng.normal(size=(60, 1))
    y = rng.normal(size=60)
    with pytest.warns(ConvergenceWarning, match=r"not proven \(target 0: gap 0\.\d+\). Raise `node_limit`"):
        model = BestSubset(6, node_limit=3).fit(theta, y)
    assert not model.proven_[0]
    late = best_subset(Gram.from_rows(theta, y[:, None]), 0, 6, time_limit=1e-9)
    assert late.outcome is Search.time_limit
    assert late.gap > 0


def test_as_the_base_of_an_ensemble_it_runs_on_sums_and_equals_fits_to_the_drawn_rows(monkeypatch):
    rng = np.random.default_rng(7)
    theta = rng.normal(size=(120, 8))
    y = theta[:, [1, 4]] @ [1.0, -1.0] + 0.5 * rng.normal(size=120)
    with monkeypatch.context() as changed:
        changed.setattr(BestSubset, "fit", None)  # which needs rows
        ensemble = Ensemble(BestSubset(2), n_members=4, random_state=0).fit(theta, y)
    again = np.random.default_rng(0)
    for coef in ensemble.coef_:
        rows = again.integers(120, size=120)
        np.testing.assert_allclose(coef, BestSubset(2).fit(theta[rows], y[rows]).coef_, rtol=1e-9, atol=1e-12)
    by_rows = Ensemble(BestSubset("cv", max_terms=2), n_members=2, random_state=0).fit(theta, y)
    assert by_rows.coef_[:, [1, 4]].all()
    without = Ensemble(BestSubset(2), n_members=6, drop_columns=3, random_state=0).fit(theta, y)
    assert not without.coef_[~without.columns_].any()


def test_best_subsets_fit_at_least_as_well_as_thresholding_with_as_many_terms():
    for seed in range(10):
        theta, y = correlated(seed, n=80, p=12)
        other = STLSQ(threshold=0.1, normalize=True).fit(theta, y)
        size = int(other.support_.sum())
        best = BestSubset(size, node_limit=5000).fit(theta, y)
        squares = [residual_squares(other.sums_, model.coef_[None])[0] for model in (best, other)]
        assert squares[0] <= squares[1] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"size": -1},
            r"`BestSubset\(size=...\)` must be a non-negative integer or one of aicc, bic, ebic, cv. Got -1",
        ),
        ({"size": "best"}, "Got 'best'"),
        ({"size": True}, "Got True"),
        ({"max_terms": 0}, r"`BestSubset\(max_terms=...\)` must be an integer of at least 1. Got 0"),
        ({"folds": 1}, "folds"),
        ({"node_limit": -1}, "node_limit"),
        ({"alpha": -1.0}, r"`BestSubset\(alpha=...\)` must be a non-negative number. Got -1.0"),
        ({"time_limit": 0}, r"must be positive seconds or None. Got 0"),
    ],
)
def test_wrong_settings_are_refused_by_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        BestSubset(**wrong).fit(np.eye(4), np.ones(4))


def test_cross_validation_cannot_learn_in_parts():
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'") as caught:
        BestSubset("cv").partial_fit(np.eye(4), np.ones(4))
    assert "needs all rows at once" in str(caught.value.__cause__)
