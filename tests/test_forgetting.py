"""Sums that fade: weighted least squares exactly, in any division into calls, and no wind-up at rest."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.regression.forgetting import Fading, Forgetting, discount, information_matrix, leverage, residual_problem
from sindyrl.regression.gram import Factor, Gram

SCALES = np.array([1.0, 1e3, 1e-3, 1.0, 10.0])
COEF = np.array([[1.0, 0, 2, 0, -1], [0, 3, 0, 0, 1]]) / SCALES


def rows(seed, n, nearness=None):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 5))
    if nearness is not None:
        theta[:, 4] = theta[:, 0] + nearness * rng.normal(size=n)
    theta *= SCALES
    return theta, theta @ COEF.T + 0.1 * rng.normal(size=(n, 2))


def weighted_lstsq(theta, y, weights):
    root, length = np.sqrt(weights)[:, None], np.linalg.norm(theta, axis=0)
    return np.linalg.lstsq(root * theta / length, root * y, rcond=None)[0].T / length


def one_by_one(forgetting, theta, y):
    """The sums, and the weights that the decisions at each row amount to."""
    fading, weights = None, np.zeros(len(theta))
    for k in range(len(theta)):
        fading = forgetting.take(fading, theta[k : k + 1], y[k : k + 1])
        if fading.forgot:
            weights *= forgetting.factor
        weights[k] = float(fading.taken)
    return fading, weights


def solved(sums):
    return sums.solve(np.arange(5), np.arange(2))


@given(
    seed=st.integers(0, 1000),
    n=st.integers(12, 150),
    factor=st.sampled_from([0.9, 0.97, 1.0]),
    nearness=st.sampled_from([None, 1e-3, 1e-6]),
)
def test_fading_sums_give_weighted_least_squares_over_all_rows(seed, n, factor, nearness):
    theta, y = rows(seed, n, nearness)
    fading, weights = one_by_one(Forgetting(factor, floor=math.inf), theta, y)
    expected_weights = factor ** np.arange(n - 1, -1, -1.0)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-12)
    assert fading.sums.n == pytest.approx(expected_weights.sum(), rel=1e-12)
    np.testing.assert_allclose(fading.sums.energy, expected_weights @ y**2, rtol=1e-11)
    expected = weighted_lstsq(theta, y, expected_weights)
    found = solved(fading.sums)
    np.testing.assert_allclose(theta @ found.T, theta @ expected.T, atol=1e-6)
    if nearness is None:
        np.testing.assert_allclose(found * SCALES, expected * SCALES, atol=1e-8)


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 79), max_size=4), floor=st.sampled_from([3.0, math.inf]))
def test_batches_give_the_same_as_row_by_row(seed, cuts, floor):
    theta, y = rows(seed, 80)
    theta[30:60] = theta[30]  # at rest, where the floor takes part in the decisions
    forgetting = Forgetting(0.9, floor)
    expected, _ = one_by_one(forgetting, theta, y)
    fading = None
    bounds = [0, *sorted(set(cuts)), 80]
    for a, b in itertools.pairwise(bounds):
        fading = forgetting.take(fading, theta[a:b], y[a:b])
    np.testing.assert_allclose(solved(fading.sums) * SCALES, solved(expected.sums) * SCALES, atol=1e-9)
    assert fading.sums.n == pytest.approx(expected.sums.n, rel=1e-12)


def test_the_order_of_the_rows_counts():
    theta, y = rows(0, 60)
    y[:30] += 1.0
    forward, backward = (Forgetting(0.9).take(None, theta[::s], y[::s]).sums for s in (1, -1))
    assert np.abs(solved(forward) - solved(backward)).max() > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_with_the_floor_it_is_least_squares_with_the_weights_that_it_tells(seed):
    theta, y = rows(seed, 300)
    theta[100:220] = theta[100] + 1e-6 * theta[100:220]
    y[100:220] = theta[100:220] @ COEF.T + 0.1 * np.random.default_rng(seed).normal(size=(120, 2))
    fading, weights = one_by_one(Forgetting(0.9, floor=10.0), theta, y)
    assert (weights[100:220] == 0).any()
    expected = weighted_lstsq(theta[weights > 0], y[weights > 0], weights[weights > 0])
    np.testing.assert_allclose(solved(fading.sums) * SCALES, expected * SCALES, atol=1e-7)


@pytest.mark.parametrize("nothing", ["a constant row", "zero"])
def test_at_rest_the_information_does_not_decay_and_without_the_floor_it_does(nothing):
    theta, y = rows(0, 5300)
    theta[300:] = theta[300] if nothing == "a constant row" else 0.0
    y[300:] = theta[300:] @ COEF.T + 0.1 * np.random.default_rng(1).normal(size=(5000, 2))
    forgetting = Forgetting(0.95)
    before = forgetting.take(None, theta[:300], y[:300])
    after, _ = forgetting.take(before, theta[300:], y[300:]), None
    assert not after.forgot
    assert not after.taken

    def least(fading):
        return float(np.linalg.eigvalsh(information_matrix(fading.sums) / np.outer(SCALES, SCALES))[0])

    # 100 on average over the directions; one of five that does not fall leaves 100^(5/4) for each of the others.
    assert least(after) > least(before) / (3 * 100**1.25)
    largest = np.diag(information_matrix(after.sums) / np.outer(SCALES, SCALES)).max()
    assert largest < 3 * forgetting.memory * max(1.0, ((theta[300] / SCALES) ** 2).max())
    assert np.abs((solved(after.sums) - COEF) * SCALES).max() < 1.0
    wound_up = Forgetting(0.95, math.inf).take(before, theta[300:], y[300:])
    assert least(wound_up) < 1e-20 * least(before)


def test_while_rows_are_informative_the_floor_has_no_part():
    theta, y = rows(3, 2000)
    guarded, weights = one_by_one(Forgetting(0.95), theta, y)
    np.testing.assert_allclose(weights, 0.95 ** np.arange(1999, -1, -1.0), rtol=1e-9)
    assert guarded.sums.n == pytest.approx(Forgetting(0.95).memory, rel=1e-6)


def test_forgetting_resumes_when_the_system_moves_again():
    theta, y = rows(4, 900)
    theta[300:600] = theta[300]
    y[300:] = theta[300:] @ (2 * COEF).T  # other coefficients after the rest
    fading = Forgetting(0.95).take(None, theta, y)
    assert fading.forgot
    np.testing.assert_allclose(solved(fading.sums) * SCALES, 2 * COEF * SCALES, atol=1e-3)


def test_leverage_is_the_variance_of_a_prediction_and_sums_to_the_rank():
    theta, _ = rows(5, 50)
    theta = np.column_stack([theta, theta[:, 0] + theta[:, 3], np.zeros(50)])  # dependent, and empty
    matrix = theta.T @ theta
    found = [leverage(matrix, row) for row in theta]
    assert sum(found) == pytest.approx(5.0, rel=1e-6)
    assert leverage(matrix, np.eye(7)[6]) > 1e6  # a direction not seen before


def test_discounting_weighs_every_row_less():
    theta, y = rows(6, 40)
    for sums in (Gram.from_rows(theta, y), Factor.from_rows(theta, y)):
        less = discount(sums, 0.25)
        np.testing.assert_allclose(information_matrix(less), 0.25 * theta.T @ theta, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(solved(less), solved(sums), rtol=1e-9)
        assert less.n == 10.0


def test_half_life_and_memory():
    forgetting = Forgetting.from_half_life(2.0, dt=0.1)
    assert forgetting.factor**20 == pytest.approx(0.5)
    assert forgetting.memory == pytest.approx(1 / (1 - 0.5**0.05))
    assert Forgetting.from_half_life(None, 0.1).memory == math.inf


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Forgetting(0.0), "factor"),
        (lambda: Forgetting(1.1), "factor"),
        (lambda: Forgetting(0.9, floor=1.0), "floor"),
        (lambda: Forgetting.from_half_life(0.05, 0.1), "half_life"),
        (lambda: Forgetting.from_half_life(math.inf, 0.1), "half_life"),
        (lambda: Forgetting.from_half_life(1.0, 0.0), "dt"),
        (lambda: Forgetting(0.9).take(None, np.zeros((0, 2)), np.zeros((0, 1))), "at least one row"),
    ],
)
def test_wrong_use_says_what_is_wrong(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_memory_does_not_grow():
    theta, y = rows(7, 400)
    fading = Forgetting(0.99).take(None, theta, y)
    assert isinstance(fading, Fading)
    later = Forgetting(0.99).take(fading, theta, y)

    def kept(fading):
        values = [*vars(fading.sums).values(), *(value for name, value in vars(fading).items() if name != "sums")]
        return sum(np.asarray(value).nbytes for value in values)

    assert kept(later) == kept(fading) < theta.nbytes


def test_the_problem_less_a_known_part_moves_coefficients_from_there():
    theta, y = rows(8, 60)
    center = COEF[0] + 0.3 / SCALES
    penalty = np.array([1.0, 1e3, 1e9, 5.0, 1e3]) * np.array([1.0, 1e3, 1e-6, 1.0, 1.0])
    expected = np.linalg.lstsq(
        np.vstack([theta, np.diag(np.sqrt(penalty))]), np.concatenate([y[:, 0], np.sqrt(penalty) * center]), rcond=None
    )[0]
    for sums in (Gram.from_rows(theta, y), Factor.from_rows(theta, y)):
        moved = residual_problem(sums, center, 0).solve(np.arange(5), np.array([0]), penalty)[0]
        np.testing.assert_allclose((center + moved) * SCALES, expected * SCALES, atol=1e-6)
