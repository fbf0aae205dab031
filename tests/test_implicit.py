"""Regression of sparse fractions: planted ones come back as the smallest of their multiples, and pysindy agrees."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sindyrl.regression.fraction_search import Fraction, Rows, refine, search, simplest
from sindyrl.regression.implicit import ImplicitSubset

N_ROWS = 200
X = np.linspace(0.05, 3.0, N_ROWS)[:, None] ** np.arange(5)  # 1, x, ..., x^4


def uptake(x=X[:, 1]):
    """Michaelis-Menten: (0.6 - 3 x) / (1 + x / 0.3)."""
    return 0.6 - 1.5 * x / (0.3 + x)


def supports(model):
    above, below = np.flatnonzero(model.numerator_).tolist(), np.flatnonzero(model.denominator_).tolist()
    return above, [0, *below] if model.denominator_constant_ else below


def test_a_planted_fraction_comes_back_with_its_proof():
    model = ImplicitSubset().fit(X, uptake())
    assert supports(model) == ([0, 1], [0, 1])
    np.testing.assert_allclose(model.numerator_, [0.6, -3.0, 0, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(model.denominator_, [0, 1 / 0.3, 0, 0, 0], rtol=1e-9)
    assert model.denominator_constant_ == 1.0
    assert model.unit_ == (-1,)
    assert model.proven_.all()
    np.testing.assert_allclose(model.predict(X), uptake(), rtol=1e-9)


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ({1: 1.0}, {0: 1.0, 3: 0.5}),
        ({0: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0}),  # also (x - 1) / (x^3 - 1), of as many terms
        ({0: 2.0}, {1: 1.0}),  # also x / x^2, x^2 / x^3
        ({0: 1.0, 2: -1.0}, {0: 1.0}),
        ({2: 1.0}, {0: 0.2, 4: 1.0}),
    ],
)
def test_of_all_multiples_the_smallest_and_earliest_is_taken(above, below):
    y = sum(c * X[:, j] for j, c in above.items()) / sum(c * X[:, j] for j, c in below.items())
    model = ImplicitSubset().fit(X, y)
    assert supports(model) == (list(above), list(below))
    one = next(iter(below.values()))  # the constant, or the only term
    for j, c in above.items():
        assert model.numerator_[j] == pytest.approx(c / one, rel=1e-7)


def test_a_multiple_found_in_noise_is_reduced_to_the_smallest_form():
    rows = Rows(X / X.std(), X, uptake() + 0.05 * np.random.default_rng(1).normal(size=N_ROWS))
    multiple = refine(rows, (3, 4), (3, 4), 4)
    reduced = simplest(rows, multiple, range(3), nodes=50)
    assert reduced.support == ((0, 1), (0, 1))
    np.testing.assert_allclose(reduced.predict(rows), multiple.predict(rows), rtol=1e-4, atol=1e-6)


def test_other_units_give_the_same_fraction_and_another_order_the_same_predictions():
    units, order = np.array([3.0, 1e-3, 50.0, 1e4, 0.2]), np.array([3, 0, 4, 1, 2])
    y = uptake() + 0.01 * np.random.default_rng(5).normal(size=N_ROWS)
    plain, scaled = ImplicitSubset().fit(X, y), ImplicitSubset().fit(X * units, 7.0 * y)
    np.testing.assert_allclose(scaled.numerator_ * units / 7.0, plain.numerator_, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(scaled.denominator_ * units, plain.denominator_, rtol=1e-5, atol=1e-9)
    ordered = ImplicitSubset(max_left=5).fit(X[:, order], y)  # which multiple is earliest depends on the order
    np.testing.assert_allclose(ordered.predict(X[:, order]), plain.predict(X), rtol=1e-4)


def test_noise_in_the_target_does_not_shrink_the_coefficients_as_it_does_the_implicit_ones():
    # 30 seeds, 20 % noise: least squares of the implicit relation loses most of the denominator, the refit does not.
    implicit, explicit, errors = [], [], []
    for seed in range(30):
        y = uptake() + 0.2 * uptake().std() * np.random.default_rng(seed).normal(size=N_ROWS)
        w = np.linalg.lstsq(np.column_stack([X[:, :2], -X[:, 1] * y]), y, rcond=None)[0]
        implicit.append(w[2])
        model = ImplicitSubset(size=4, numerators=[0, 1], denominators=[1]).fit(X, y)
        explicit.append(model.denominator_[1])
        errors.append(model.denominator_error_[1])
    truth = 1 / 0.3
    assert np.mean(implicit) < 0.8 * truth
    assert abs(np.mean(explicit) - truth) < 3 * np.std(explicit) / np.sqrt(30) + 0.02 * truth
    assert 0.6 < np.mean(errors) / np.std(explicit) < 1.6


def test_the_support_survives_noise_in_the_target():
    found = 0  # of 4 seeds
    for seed in range(4):
        y = uptake() + 0.05 * uptake().std() * np.random.default_rng(seed).normal(size=N_ROWS)
        found += supports(ImplicitSubset().fit(X, y)) == ([0, 1], [0, 1])
    assert found == 4


def test_of_the_planted_size_no_support_has_a_smaller_explicit_error():
    # Of smaller sizes, where nothing fits, the search may miss the best by what is beyond first order.
    rows = Rows(X[:, :3], X[:, :3], uptake() + 0.05 * np.random.default_rng(0).normal(size=N_ROWS))
    best = {one.size: one for one in search(rows, 4, range(3), rounds=2, floor=0.0, nodes=100)}
    subsets = [tuple(j for j in range(3) if mask >> j & 1) for mask in range(1, 8)]
    everything = [refine(rows, a, b, b[0]) for a in subsets for b in subsets]
    least = min(one.squares for one in everything if one and one.size == 4)
    assert best[4].squares <= least * (1 + 1e-3)


def test_no_step_crosses_a_pole_between_the_rows():
    y = np.where(np.arange(N_ROWS) % 2, 1.0, -1.0)  # nothing to find, but a pole between rows would help
    fitted = refine(Rows(X[:, :2], X[:, :3], y), (0, 1), (0, 1, 2), 0)
    assert isinstance(fitted, Fraction)
    below = X[:, :3] @ fitted.b
    assert below.min() > 0 or below.max() < 0


def test_a_target_of_zeros_and_several_targets():
    y = np.column_stack([uptake(), np.zeros(N_ROWS), 2.0 * X[:, 2]])
    model = ImplicitSubset().fit(X, y)
    assert model.numerator_.shape == model.denominator_.shape == (3, 5)
    assert model.denominator_constant_.tolist() == [1.0, 1.0, 1.0]
    assert not model.numerator_[1].any()
    assert model.numerator_[2].tolist() == pytest.approx([0, 0, 2.0, 0, 0])
    np.testing.assert_allclose(model.predict(X), y, atol=1e-9)


def test_columns_can_be_kept_out_above_and_below():
    model = ImplicitSubset(numerators=[0, 1], denominators=[2]).fit(X, uptake())
    assert set(np.flatnonzero(model.numerator_)) <= {0, 1}
    assert set(np.flatnonzero(model.denominator_)) <= {2}
    assert model.paths_[0].error > 1e-3  # the true fraction is not among these


def test_a_warm_start_begins_with_the_last_supports():
    y = 2.0 / X[:, 1]  # no multiple has a constant below, and nothing else is moved to the left later on
    model = ImplicitSubset(warm_start=True).fit(X, y)
    new = y + 1e-3 * np.sin(40.0 * X[:, 1])
    again = model.set_params(max_left=1).fit(X, new)
    assert again is model
    assert supports(model) == ([0], [1])
    assert supports(ImplicitSubset(max_left=1).fit(X, new)) != ([0], [1])


def test_pysindy_finds_the_same_relation():
    pysindy = pytest.importorskip("pysindy")
    y, x = uptake(), X[:, 1]
    columns = np.column_stack([np.ones_like(x), x, y, x * y])
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pysindy.SINDyPI(reg_weight_lam=1e-4, tol=1e-9, max_iter=20_000, model_subset=[2]).fit(columns, columns)
    above_1, above_x, _, minus_below = theirs.coef_[2]  # y = above_1 + above_x x + minus_below x y
    ours = ImplicitSubset().fit(X, y)
    assert supports(ours) == ([0, 1], [0, 1])
    np.testing.assert_allclose(ours.numerator_[:2], [above_1, above_x], rtol=1e-3)
    np.testing.assert_allclose(ours.denominator_[1], -minus_below, rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_terms": 1}, "max_terms"),
        ({"size": "aic"}, "size"),
        ({"size": 1}, "size"),
        ({"folds": 1}, "folds"),
        ({"rounds": -1}, "rounds"),
        ({"max_left": 0}, "max_left"),
        ({"node_limit": 1.5}, "node_limit"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"numerators": [0, 5]}, "numerators"),
        ({"denominators": [1, 1]}, "denominators"),
    ],
)
def test_wrong_use_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=rf"`ImplicitSubset\({message}=\.\.\.\)` must .* Got "):
        ImplicitSubset(**wrong).fit(X, uptake())


@parametrize_with_checks([ImplicitSubset(max_terms=3, folds=2, rounds=1, node_limit=0)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)
