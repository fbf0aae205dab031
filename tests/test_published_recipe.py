"""The published recipe: labels as the teacher wanted them, and the fit of the grid that errs least once clipped."""

import dataclasses

import numpy as np
import pytest

from sindyrl.distill import distill, gaussian, label_errors
from sindyrl.sparse_map import SparseMap
from tests.distill_cases import Unlimited, linear, quick, rng
from tests.systems import CART_TASK, cart_model


@pytest.fixture(scope="module")
def recipe():
    start = gaussian(CART_TASK, 0.0, 0.3)
    return distill(CART_TASK, cart_model(), Unlimited(), rng=rng(), settings=quick, method="published", start=start)


def test_the_published_recipe_takes_the_smallest_error_of_clipped_labels(recipe):
    assert [(fit.alpha, fit.threshold) for fit in recipe.grid] == [
        (a, t) for a in quick.alphas for t in quick.thresholds
    ]
    best = min(recipe.grid, key=lambda fit: fit.mse)
    assert recipe.chosen is best.record
    assert best.mse < max(fit.mse for fit in recipe.grid)
    assert recipe.ensemble.coef.shape == (quick.members, 1, 10)
    np.testing.assert_allclose(recipe.sparse.coef, recipe.ensemble.coef.mean(axis=0))
    x = rng().uniform(-1, 1, (50, 2))
    np.testing.assert_allclose(recipe.policy(x), np.clip(recipe.sparse(x), -1, 1), rtol=1e-9)


def test_its_labels_are_what_the_teacher_wanted_far_beyond_the_limits(recipe):
    assert len(recipe.x) == quick.steps * quick.copies
    np.testing.assert_array_equal(recipe.u, np.clip(Unlimited().unclipped(recipe.x), -5.0, 5.0))
    assert np.abs(recipe.u).max() > 1.5


def test_it_can_choose_by_returns_and_deploy_medians_instead():
    settings = dataclasses.replace(quick, select="returns", aggregate="median")
    found = distill(CART_TASK, cart_model(), linear, rng=rng(), settings=settings)
    assert found.chosen is max((fit.record for fit in found.grid), key=lambda record: record.kept)
    np.testing.assert_allclose(found.sparse.coef, np.median(found.ensemble.coef, axis=0))
    assert np.abs(found.u).max() == 1.0  # this teacher cannot tell what it wanted


def test_label_errors_are_those_of_clipped_outputs_member_by_member():
    library = CART_TASK.policy_library.bind(("x", "v"), ()).select(["x"])
    sparse = SparseMap(library, [[[1.0]], [[10.0]]], ("u",))
    errors = label_errors(CART_TASK, sparse, np.array([[0.5, 9.0], [-0.5, 9.0]]), np.array([[0.5], [3.0]]))
    np.testing.assert_allclose(errors.mse, [[(0.0 + 1.5**2) / 2], [(0.5**2 + 2.0**2) / 2]])
    np.testing.assert_allclose(errors.l1, [[1.5 / 2], [2.5 / 2]])
