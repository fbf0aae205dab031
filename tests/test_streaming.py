"""Rows in parts: the same sums, the same fits, and nothing that grows with the rows seen before."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from sindyrl.regression import STLSQ, BestSubset, Ensemble
from sindyrl.regression.gram import Factor, Gram, block_sums, deal, orthogonal_factors
from sindyrl.regression.streaming import extend, residual_squares

SCALES = np.array([1.0, 1e3, 1e-3, 1.0, 10.0])


def rows(seed, n=400, nearness=None):
    """Five columns in mixed units, of which the last may be near the first; two targets with noise."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 5))
    if nearness is not None:
        theta[:, 4] = theta[:, 0] + nearness * rng.normal(size=n)
    theta *= SCALES
    return theta, theta @ (np.array([[1.0, 0, 2, 0, -1], [0, 3, 0, 0, 1]]) / SCALES).T + 0.1 * rng.normal(size=(n, 2))


def in_parts(cuts, *arrays):
    bounds = [0, *sorted(cuts), len(arrays[0])]
    return [[array[a:b] for array in arrays] for a, b in itertools.pairwise(bounds) if b > a]


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 399), max_size=6),
    nearness=st.sampled_from([None, 1e-3, 1e-5, 1e-8]),
)
@settings(max_examples=50, deadline=None)
def test_the_parts_give_the_least_squares_solution_of_all_rows(seed, cuts, nearness):
    theta, y = rows(seed, nearness=nearness)
    sums = None
    for part in in_parts(cuts, theta, y):
        sums, condition = extend(sums, *part)
    assert sums.n == 400
    np.testing.assert_allclose(sums.energy, (y**2).sum(axis=0), rtol=1e-12)
    length = np.linalg.norm(theta, axis=0)
    assert condition == pytest.approx(np.linalg.cond(theta / length), rel=1e-3 if nearness != 1e-8 else 0.5)
    expected = np.linalg.lstsq(theta / length, y, rcond=None)[0].T / length
    found = sums.solve(np.arange(5), np.arange(2))
    np.testing.assert_allclose(theta @ found.T, theta @ expected.T, atol=1e-6)
    np.testing.assert_allclose(residual_squares(sums, found), ((y - theta @ expected.T) ** 2).sum(axis=0), rtol=1e-6)
    if nearness is None:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 / SCALES.min())


def test_sums_become_a_triangle_where_columns_are_nearly_dependent_and_sums_again_where_they_no_longer_are():
    theta, y = rows(0, nearness=1e-8)
    apart, other = rows(1)
    sums, condition = extend(None, apart, other)
    assert isinstance(sums, Gram)
    sums, condition = extend(None, theta, y)
    assert isinstance(sums, Factor)
    assert condition > 1e7
    more, condition = extend(sums, apart, other)
    assert isinstance(more, Gram)
    assert condition < 10
    np.testing.assert_allclose(more.matrix, theta.T @ theta + apart.T @ apart, rtol=1e-10, atol=1e-12)
    one_row, condition = extend(None, theta[:1], y[:1])
    assert (isinstance(one_row, Factor), condition) == (True, np.inf)


def test_well_conditioned_sums_keep_their_digits_when_later_columns_come_close():
    rng = np.random.default_rng(2)
    early, late = rng.normal(size=(50, 3)) * [1, 1e-6, 1e-6], rng.normal(size=(500, 3))
    late[:, 2] = late[:, 1]
    y = np.vstack([early, late]) @ [[1.0], [2.0], [3.0]]
    sums, condition = extend(None, early, y[:50])
    assert isinstance(sums, Gram)
    assert condition < 10
    sums, condition = extend(sums, late, y[50:])
    assert isinstance(sums, Factor)
    assert condition > 1e6
    np.testing.assert_allclose(sums.solve(np.arange(3), np.array([0])), [[1.0, 2.0, 3.0]], rtol=1e-6)


@pytest.mark.parametrize("nearness", [None, 1e-8])
@pytest.mark.parametrize("model", [STLSQ(0.2, normalize=True), BestSubset(3), BestSubset("ebic")], ids=str)
def test_partial_fits_are_the_fit_to_all_rows(model, nearness):
    theta, y = rows(3, nearness=nearness)
    whole = model.fit(theta, y)
    expected, support = whole.coef_.copy(), whole.support_.copy()
    parts = type(model)(**model.get_params())
    for part in in_parts([3, 10, 50, 51, 300], theta, y):
        parts.partial_fit(*part)
    np.testing.assert_array_equal(parts.support_, support)
    np.testing.assert_allclose(parts.coef_ * SCALES, expected * SCALES, rtol=1e-6, atol=1e-7)
    assert parts.sums_.n == 400


@given(seed=st.integers(0, 1000), n=st.integers(1, 60), length=st.integers(1, 20), most=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_parts_are_the_sums_over_their_blocks(seed, n, length, most):
    rng = np.random.default_rng(seed)
    theta, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    parts = deal(None, block_sums(theta, y, length), most)
    part_of_row = np.arange(n) // length % most
    assert len(parts.n) == part_of_row.max() + 1
    weights = rng.integers(0, 3, size=(4, len(parts.n))).astype(float)
    for drawn, gram in zip(weights, parts.combine(weights), strict=True):
        chosen = np.repeat(np.arange(n), drawn[part_of_row].astype(int))
        expected = Gram.from_rows(theta[chosen], y[chosen])
        np.testing.assert_allclose(gram.matrix, expected.matrix, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(gram.moment, expected.moment, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(gram.energy, expected.energy, rtol=1e-10)
        assert gram.n == expected.n
    np.testing.assert_allclose(parts.total().matrix, theta.T @ theta, rtol=1e-10, atol=1e-12)


def test_orthogonal_factors_of_parts_do_not_square_the_condition():
    theta = rows(4, nearness=1e-7)[0]
    coef = np.array([[1.0, 0, 0, 0, 2.0]]) / SCALES
    q, r = np.linalg.qr(theta)
    parts = deal(None, block_sums(q, theta @ coef.T, 10), 256)
    for factor in orthogonal_factors(parts.combine(np.ones((2, len(parts.n)))), r):
        np.testing.assert_allclose(factor.solve(np.arange(5), np.array([0])) * SCALES, coef * SCALES, atol=1e-6)


def test_an_ensemble_of_blocks_learns_in_parts_what_it_learns_at_once_beyond_the_number_of_parts_too():
    theta, y = rows(5, n=3000)
    model = Ensemble(STLSQ(0.1, normalize=True), bootstrap="blocks", block_length=5, n_members=6, random_state=3)
    expected = model.fit(theta, y).coef_.copy()
    noise = model.noise_.copy()
    parts = Ensemble(**model.get_params(deep=False))
    for part in in_parts([5, 1000, 2500], theta, y):
        parts.partial_fit(*part)
    np.testing.assert_allclose(parts.coef_ * SCALES, expected * SCALES, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(parts.noise_, noise, rtol=1e-8)
    np.testing.assert_allclose(parts.predict_interval(theta[:5]), model.predict_interval(theta[:5]), rtol=1e-8)


def test_an_ensemble_warns_where_sums_cannot_tell_columns_apart():
    theta, y = rows(6, nearness=1e-9)
    with pytest.warns(ConvergenceWarning, match="nearly dependent.*Offer fewer columns, or `fit` all rows at once"):
        Ensemble(bootstrap="blocks", n_members=2, random_state=0).partial_fit(theta, y)


def test_only_ensembles_of_blocks_over_sums_learn_in_parts():
    from sklearn.linear_model import Ridge

    assert hasattr(Ensemble(bootstrap="blocks"), "partial_fit")
    for model in (Ensemble(), Ensemble(bootstrap=None), Ensemble(Ridge(), bootstrap="blocks")):
        assert not hasattr(model, "partial_fit")


def test_memory_does_not_grow_with_the_rows():
    rng = np.random.default_rng(7)
    chunk = rng.normal(size=(2000, 20))
    target = chunk[:, :2]
    for model in (STLSQ(), BestSubset(2), Ensemble(bootstrap="blocks", n_members=3, random_state=0)):
        peaks = []
        for repeats in (3, 30):
            tracemalloc.start()
            for _ in range(repeats):
                model.partial_fit(chunk, target)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] - peaks[0] < chunk.nbytes  # of 27 further chunks
