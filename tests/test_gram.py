"""Gram sums: additive, weighted exactly, and no less accurate than the tall matrix where they are used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.regression.gram import (
    MAX_CONDITION,
    Factor,
    Gram,
    least_squares_problem,
    stlsq_gram,
    threshold_rounds,
    weighted_factors,
    weighted_grams,
)


def random_problem(seed, n=200, p=8, k=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)), rng.normal(size=(n, k)), rng


def ill_conditioned(rng, n=400, p=6, condition=1e9):
    """Columns of unit size whose matrix has about the given condition number."""
    theta = rng.normal(size=(n, p))
    theta[:, -1] = theta[:, 0] + rng.normal(size=n) / condition
    return theta


def assert_same_sums(a, b, rtol=1e-12):
    np.testing.assert_allclose(a.matrix, b.matrix, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(a.moment, b.moment, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(a.energy, b.energy, rtol=rtol)
    assert a.n == b.n


def test_gram_of_all_rows_is_the_sum_over_parts_whatever_the_cut():
    theta, y, _ = random_problem(0, n=20_001)
    whole = Gram.from_rows(theta, y)
    np.testing.assert_allclose(whole.matrix, theta.T @ theta, rtol=1e-12, atol=1e-9)
    parts = [Gram.from_rows(theta[a:b], y[a:b]) for a, b in [(0, 1), (1, 9000), (9000, 20_001)]]
    assert_same_sums(parts[0] + parts[1] + parts[2], whole, rtol=1e-10)
    assert_same_sums(whole - parts[0] - parts[1], parts[2], rtol=1e-9)


@given(seed=st.integers(0, 10_000), n=st.sampled_from([1, 7, 300]), p=st.integers(1, 9), k=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_weighted_grams_equal_the_gram_of_repeated_rows(seed, n, p, k):
    theta, y, rng = random_problem(seed, n, p, k)
    weights = rng.integers(0, 4, size=(5, n)).astype(float)
    for counts, gram in zip(weights, weighted_grams(theta, y, weights), strict=True):
        rows = np.repeat(np.arange(n), counts.astype(int))
        assert_same_sums(gram, Gram.from_rows(theta[rows], y[rows]))


def test_solution_is_least_squares_on_the_chosen_columns():
    theta, y, _ = random_problem(1)
    columns, targets = np.array([5, 0, 3]), np.array([2, 0])
    expected = np.linalg.lstsq(theta[:, columns], y[:, targets], rcond=None)[0].T
    for problem in (Gram.from_rows(theta, y), Factor.from_rows(theta, y)):
        np.testing.assert_allclose(problem.solve(columns, targets), expected, rtol=1e-10)


def test_ridge_solution_satisfies_its_normal_equations():
    theta, y, rng = random_problem(2)
    ridge = rng.uniform(0, 5, size=8)
    columns = np.array([1, 2, 6])
    for problem in (Gram.from_rows(theta, y), Factor.from_rows(theta, y)):
        w = problem.solve(columns, np.array([0]), ridge)[0]
        gradient = theta[:, columns].T @ (theta[:, columns] @ w - y[:, 0]) + ridge[columns] * w
        np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_condition_is_that_of_the_columns_scaled_to_unit_length():
    theta, y, _ = random_problem(3)
    theta *= 10.0 ** np.arange(-4, 4)
    unit = theta / np.linalg.norm(theta, axis=0)
    assert Gram.from_rows(theta, y).condition() == pytest.approx(np.linalg.cond(unit), rel=1e-6)


def test_condition_of_a_zero_or_repeated_column_is_beyond_the_limit():
    theta, y, _ = random_problem(4)
    theta[:, 2] = 0
    assert Gram.from_rows(theta, y).condition() == np.inf
    theta[:, 2] = theta[:, 3]
    assert Gram.from_rows(theta, y).condition() > MAX_CONDITION


def test_above_the_limit_the_tall_matrix_is_factorized_and_the_answer_is_accurate():
    rng = np.random.default_rng(5)
    theta = ill_conditioned(rng)
    truth = np.array([[1.0, -2.0, 0, 0, 0.5, 3.0]])
    problem, condition = least_squares_problem(theta, theta @ truth.T)
    assert condition > MAX_CONDITION
    assert isinstance(problem, Factor)
    w = problem.solve(np.arange(6), np.array([0]))
    np.testing.assert_allclose(w, truth, atol=1e-5)  # cond * eps; the Gram matrix would be off by more than 1
    assert np.abs(Gram.from_rows(theta, theta @ truth.T).solve(np.arange(6), np.array([0])) - truth).max() > 1e-3


def test_weighted_factors_do_not_square_the_condition():
    rng = np.random.default_rng(6)
    theta = ill_conditioned(rng)
    truth = np.array([[1.0, -2.0, 0, 0, 0.5, 3.0]])
    weights = rng.integers(0, 3, size=(4, len(theta))).astype(float)
    for factor in weighted_factors(theta, theta @ truth.T, weights):
        np.testing.assert_allclose(factor.solve(np.arange(6), np.array([0])), truth, atol=1e-4)


def test_weighted_factors_agree_with_weighted_grams_where_both_are_accurate():
    theta, y, rng = random_problem(7)
    weights = rng.integers(0, 3, size=(4, len(theta))).astype(float)
    pairs = zip(weighted_grams(theta, y, weights), weighted_factors(theta, y, weights), strict=True)
    for gram, factor in pairs:
        np.testing.assert_allclose(factor.r.T @ factor.r, gram.matrix, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            factor.solve(np.arange(8), np.arange(3)), gram.solve(np.arange(8), np.arange(3)), rtol=1e-9
        )
        np.testing.assert_allclose(factor.column_squares, gram.column_squares, rtol=1e-9)
        np.testing.assert_allclose(factor.energy, gram.energy, rtol=1e-9)


def test_singular_problems_get_the_shortest_solution_not_an_error():
    theta, y, _ = random_problem(8, n=3, p=5, k=1)  # fewer rows than columns
    w = Factor.from_rows(theta, y).solve(np.arange(5), np.array([0]))[0]
    length = np.linalg.norm(theta, axis=0)  # the shortest on columns of unit length
    np.testing.assert_allclose(w * length, np.linalg.pinv(theta / length) @ y[:, 0], atol=1e-10)
    np.testing.assert_allclose(theta @ w, y[:, 0], atol=1e-10)


def test_threshold_keeps_exactly_the_coefficients_that_reach_it():
    w = np.array([0.5, np.nextafter(0.5, 0), -0.5, 0.49, 2.0])
    fit = stlsq_gram(np.eye(5), w[:, None], 0.5)
    np.testing.assert_array_equal(fit.coef[0], [0.5, 0, -0.5, 0, 2.0])


def test_thresholds_may_differ_by_target_and_feature():
    fit = stlsq_gram(np.eye(2), np.ones((2, 2)), np.array([[0.5, 2.0], [0.5, 0.5]]))
    np.testing.assert_array_equal(fit.coef, [[1.0, 0.0], [1.0, 1.0]])


def test_columns_not_offered_stay_zero():
    theta, y, _ = random_problem(9)
    fit = threshold_rounds(Gram.from_rows(theta, y), 0.0, columns=[1, 4])
    assert set(np.flatnonzero(fit.coef.any(axis=0))) == {1, 4}
    assert threshold_rounds(Gram.from_rows(theta, y), 0.0, columns=[]).converged.all()


def test_stopping_at_the_round_limit_is_reported():
    theta, y, _ = random_problem(10, n=60, p=30, k=1)
    gram = Gram.from_rows(theta, y)
    rounds = int(threshold_rounds(gram, 0.15).rounds[0])
    assert rounds > 2
    assert threshold_rounds(gram, 0.15, max_iter=rounds).converged.all()
    assert not threshold_rounds(gram, 0.15, max_iter=rounds - 1).converged.any()
