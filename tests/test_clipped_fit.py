"""The fit through the clip: planted coefficients come back although the labels were cut off at the limits."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from sindyrl.distill.clipped_fit import Labels, backward_path, clipped_least_squares, inverse_hessian, merged
from tests.distill_cases import rng


def clipped_labels(low=-1.0, high=1.0, n=600, seed=0):
    theta = rng(seed).normal(size=(n, 6)) * np.array([1.0, 0.1, 10.0, 1.0, 1.0, 5.0])
    planted = np.array([3.0, -20.0, 0.0, 0.0, 1.5, 0.0])
    return Labels(theta, np.clip(theta @ planted, low, high), low, high), planted


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.5), (-7.0, -2.0)])
def test_what_was_clipped_is_recovered_exactly_and_plain_least_squares_does_not(low, high):
    labels, planted = clipped_labels(low, high)
    fit = clipped_least_squares(labels, ridge=1e-12)
    assert fit.converged
    np.testing.assert_allclose(fit.w, planted, rtol=1e-5, atol=1e-5)
    plain = clipped_least_squares(dataclasses.replace(labels, one_sided=False), ridge=0.0)
    np.testing.assert_allclose(plain.w, np.linalg.lstsq(labels.theta, labels.y, rcond=None)[0], rtol=1e-8, atol=1e-10)
    assert np.abs(plain.w).sum() < 0.7 * np.abs(planted).sum()


def test_newton_ends_where_a_general_minimizer_does():
    """Labels that no coefficients explain, so that the optimum is a compromise."""
    labels, _ = clipped_labels()
    labels = dataclasses.replace(labels, y=np.clip(labels.y + 0.5 * rng(1).normal(size=len(labels.y)), -1.0, 1.0))
    square = (labels.theta**2).mean(axis=0)

    def loss(w):
        off = labels.theta @ w - labels.y
        off = np.where(labels.y == 1.0, np.minimum(off, 0), np.where(labels.y == -1.0, np.maximum(off, 0), off))
        return (off**2).mean() + 1e-3 * square @ w**2

    ours = clipped_least_squares(labels, ridge=1e-3)
    theirs = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    assert ours.loss == pytest.approx(loss(ours.w), rel=1e-12)
    assert ours.loss == pytest.approx(theirs.fun, rel=1e-5)
    np.testing.assert_allclose(ours.w, theirs.x, rtol=1e-2, atol=1e-3)


def test_the_backward_path_keeps_the_planted_terms_to_the_end():
    labels, planted = clipped_labels()
    path = backward_path(labels, np.ones(6, dtype=bool), 6, ridge=1e-12)
    assert [int((w != 0).sum()) for w, _ in path] == [6, 5, 4, 3, 2, 1]
    np.testing.assert_array_equal(path[3][0] != 0, planted != 0)
    np.testing.assert_allclose(path[3][0], planted, rtol=1e-5)
    losses = [loss for _, loss in path]
    assert losses[3] < 1e-9 < losses[4] < losses[5]
    many = backward_path(Labels(rng().normal(size=(200, 40)), rng(1).uniform(-1, 1, 200), -1, 1), np.ones(40, bool), 5)
    sizes = [int((w != 0).sum()) for w, _ in many]
    assert sizes[:2] == [40, 36]
    assert sizes[-5:] == [5, 4, 3, 2, 1]


def test_terms_that_are_not_allowed_stay_out():
    labels, _ = clipped_labels()
    allowed = np.array([True, False, True, True, True, True])
    path = backward_path(labels, allowed, 6)
    assert [int((w != 0).sum()) for w, _ in path] == [5, 4, 3, 2, 1]
    assert all(w[1] == 0 for w, _ in path)


def test_the_rest_takes_over_what_a_removed_term_did():
    """The compensated outputs are the nearest to the full ones that the other terms can make."""
    theta = rng().normal(size=(300, 5)) @ rng(1).normal(size=(5, 5))
    labels = Labels(theta, rng(2).uniform(-0.5, 0.5, 300), -1.0, 1.0)
    w = rng(3).normal(size=5)
    inverse = inverse_hessian(labels, w, np.arange(5), 0.0)
    np.testing.assert_allclose(inverse @ (theta.T @ theta / 300), np.eye(5), atol=1e-4)
    rest = [0, 1, 3, 4]
    smaller = w - inverse[:, 2] * w[2] / inverse[2, 2]
    nearest = np.linalg.lstsq(theta[:, rest], theta @ w, rcond=None)[0]
    np.testing.assert_allclose(smaller[rest], nearest, rtol=1e-4, atol=1e-4)


def test_inputs_give_up_terms_where_it_costs_least_of_their_range():
    def path(*losses):
        return [(np.array([1.0] * (len(losses) - k) + [0.0] * k), loss) for k, loss in enumerate(losses)]

    found = merged([path(0.0, 1.0, 9.0), path(0.0, 2.0, 3.0)], np.array([1.0, 10.0]))
    sizes = [tuple((coef != 0).sum(axis=1)) for coef in found]
    assert sizes == [(3, 3), (3, 2), (3, 1), (2, 1), (1, 1)]
