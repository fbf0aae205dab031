"""Where episodes begin: samples have the moments and the hull that were asked for, on the manifold, in the ranges."""

import numpy as np
from scipy.spatial import Delaunay

from sindyrl.distill import convex_hull, gaussian, near, uniform
from sindyrl.trajectory import Dataset, Trajectory
from tests.distill_cases import NAMES, rng
from tests.systems import CART_TASK, pendulum_task


def test_samples_of_the_convex_hull_lie_in_it_uniformly():
    """Most recorded points crowd in a corner; the samples do not."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    points = np.concatenate([corners, rng().uniform(0.8, 1.0, (100, 2))])
    x = convex_hull(CART_TASK, points)(rng(1), 4000)
    assert (Delaunay(points).find_simplex(x, tol=1e-9) >= 0).all()
    counts = np.histogram2d(*x.T, bins=4, range=[[-1, 1], [-1, 1]])[0]
    np.testing.assert_allclose(counts, 250, atol=5 * np.sqrt(250))
    triangle = convex_hull(CART_TASK, corners[:3])(rng(2), 2000)
    assert (triangle[:, 1] <= triangle[:, 0] + 1e-12).all()


def test_hulls_that_are_flat_are_sampled_in_what_they_span():
    on_line = convex_hull(CART_TASK, np.column_stack([np.linspace(-1, 1, 9), np.full(9, 0.3)]))(rng(), 500)
    np.testing.assert_allclose(on_line[:, 1], 0.3, atol=1e-12)
    assert on_line[:, 0].min() < -0.95
    assert on_line[:, 0].max() > 0.95
    np.testing.assert_allclose(convex_hull(CART_TASK, [[0.5, -0.5]] * 3)(rng(), 4), [[0.5, -0.5]] * 4)


def test_gaussian_uniform_and_near_have_their_moments():
    x = gaussian(CART_TASK, [0.5, -0.2], 0.1)(rng(), 20_000)
    np.testing.assert_allclose(x.mean(axis=0), [0.5, -0.2], atol=0.005)
    np.testing.assert_allclose(x.std(axis=0), 0.1, rtol=0.02)
    x = uniform(CART_TASK, [-1.0, 0.0], [1.0, 0.5])(rng(), 20_000)
    np.testing.assert_allclose([x.min(axis=0), x.max(axis=0)], [[-1.0, 0.0], [1.0, 0.5]], atol=0.01)
    np.testing.assert_allclose(x.mean(axis=0), [0.0, 0.25], atol=0.02)
    points = rng(1).uniform(-1, 1, (5, 2))
    exact = near(CART_TASK, points)(rng(), 200)
    assert {tuple(row) for row in exact} == {tuple(row) for row in points}
    x = near(CART_TASK, points[:1], [0.0, 0.2])(rng(), 20_000)
    np.testing.assert_allclose(x.std(axis=0), [0.0, 0.2], atol=0.005)
    recorded = Dataset((Trajectory.uniform(np.zeros((3, 2)), np.zeros((2, 1)), dt=0.1, **NAMES),))
    np.testing.assert_array_equal(near(CART_TASK, recorded)(rng(), 3), np.zeros((3, 2)))


def test_samples_are_on_the_manifold_and_in_the_ranges():
    task = pendulum_task()
    for sampler in (gaussian(task, 0.5, 5.0), uniform(task, -3.0, 3.0), near(task, [[1.0, 0.0, 20.0]], 0.5)):
        x = sampler(rng(), 200)
        np.testing.assert_allclose(np.hypot(x[:, 0], x[:, 1]), 1.0, rtol=1e-12)
        assert (np.abs(x[:, 2]) <= 12.0).all()
        assert np.array_equal(sampler(rng(), 7), sampler(rng(), 7))
        assert not np.array_equal(sampler(rng(), 7), sampler(rng(1), 7))
