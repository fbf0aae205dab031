"""The strategy finds a planted optimum, in one dimension too, and draws from nothing but the generator it was given."""

import numpy as np
import pytest

from sindyrl.learn.evolution import evolution


def descended(first, rng, generations=80):
    strategy = evolution(np.asarray(first), 0.5, 16, rng)
    for _ in range(generations):
        asked = np.array(strategy.ask())
        strategy.tell(list(asked), list(((asked[:, : len(first)] - 3.0) ** 2).sum(axis=1)))
    return asked, strategy.mean[: len(first)]


@pytest.mark.parametrize("first", [[0.0], [0.0, 1.0], [5.0, -2.0, 0.0]])
def test_the_planted_optimum_is_found(first):
    asked, found = descended(first, np.random.default_rng(0))
    assert len(asked) == 16
    np.testing.assert_allclose(found, 3.0, atol=1e-3)


def test_only_the_given_generator_is_drawn_from():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    (one, _), (again, _), (other, _) = (descended([0.0, 1.0], np.random.default_rng(seed), 5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
