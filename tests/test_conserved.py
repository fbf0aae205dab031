"""Drift of a conserved quantity: zero where it is kept, the planted loss where it is not."""

import numpy as np
import pytest

from sindyrl.conserved import drift
from sindyrl.expression import Variable
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.trajectory import Trajectory

X, V = Variable("x"), Variable("v")
ENERGY = 2.0 * X * X + 0.5 * V * V


def spring(damping, dt=0.02):
    """``dx = v, dv = -4 x - damping v``"""
    library = polynomial_library(1).bind(("x", "v"))
    rates = SparseMap(library, np.array([[0.0, 1.0], [-4.0, -damping]]), ("dx", "dv"))
    seen = np.array([[-1.0, 1.0], [-2.0, 2.0]])
    return Model(rates, Derivative("rk4"), (Signal("x"), Signal("v")), (), dt, seen)


def free(seconds=4.0, dt=0.02, noise=0.0, loss=0.0):
    """The path without damping; its energy falls as ``exp(-loss t)``."""
    t = dt * np.arange(round(seconds / dt) + 1)
    x = np.column_stack([np.cos(2 * t), -2 * np.sin(2 * t)]) * np.exp(-0.5 * loss * t)[:, None]
    return Trajectory(t, x + noise * np.random.default_rng(0).normal(size=x.shape), states=("x", "v"))


def test_the_right_model_keeps_what_the_system_keeps():
    found = drift(spring(0.0), ENERGY, free())
    assert found.size == pytest.approx(2.0)
    assert max(found.model_rate, found.data_rate, found.model_spread, found.data_spread) < 1e-6
    assert (found.seconds, found.diverged) == (pytest.approx(4.0), 0)


def test_friction_that_is_not_there_shows_as_a_loss_of_energy():
    # dE/dt = -damping v^2, and v^2 is 2 on average.
    found = drift(spring(0.01), ENERGY, free())
    assert found.model_rate == pytest.approx(0.01 * 2.0 / 2.0, rel=0.1)
    assert found.data_rate < 1e-9
    missed = drift(spring(0.0), ENERGY, free(loss=0.01))
    assert missed.data_rate == pytest.approx(0.01, rel=0.01)
    assert missed.model_rate < 1e-6


def test_noise_varies_the_data_and_does_not_make_them_drift():
    found = drift(spring(0.0), ENERGY, free(noise=0.01))
    assert found.data_spread > 100 * found.model_spread
    assert found.data_rate < found.data_spread / 4.0


def test_a_diverged_roll_out_counts_up_to_where_it_left():
    found = drift(spring(-2.0), ENERGY, free(seconds=20.0))
    assert found.diverged == 1
    assert found.seconds < 10.0
    assert np.isfinite(found.model_rate)
    assert "1 diverged" in str(found)


@pytest.mark.parametrize(
    "quantity", [SymbolicMap(["w"], {"e": Variable("w")}), SymbolicMap(["x"], {"a": X, "b": X * X})]
)
def test_what_is_no_quantity_of_the_states_is_refused(quantity):
    with pytest.raises(ValueError, match=r"`drift\(quantity=...\)` must be one value of the states \['x', 'v'\]"):
        drift(spring(0.0), quantity, free())
