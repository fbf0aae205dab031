"""The noise estimate tells measurement noise from model error."""

import dataclasses

import numpy as np
import pytest

from sindyrl.measurement_noise import measurement_noise
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import pendulum_model


def recorded(model, sigma, seed, steps=2000, episodes=3):
    rng = np.random.default_rng(seed)
    trajectories = []
    for _ in range(episodes):
        angle = rng.uniform(-2.0, 2.0)
        x0 = np.array([np.cos(angle), np.sin(angle), rng.normal()])
        u = np.repeat(rng.uniform(-1.0, 1.0, (steps // 20, 1)), 20, axis=0)
        path = simulate(model, x0, u)
        length = int(path.valid)
        x = path.x[: length + 1] + np.asarray(sigma) * rng.standard_normal((length + 1, 3))
        trajectories.append(
            Trajectory.uniform(x, u[:length], dt=model.dt, states=model.state_names, inputs=model.input_names)
        )
    return Dataset(tuple(trajectories))


@pytest.mark.parametrize("sigma", [(0.01, 0.003, 0.05), (1e-3, 0.0, 1e-4)])
def test_each_state_s_noise_is_recovered_in_its_own_unit(sigma):
    model = pendulum_model()
    found = measurement_noise(model, recorded(model, sigma, seed=1))
    np.testing.assert_allclose(found, sigma, rtol=0.15, atol=2e-5)


def test_a_wrong_model_is_not_taken_for_noise():
    model = pendulum_model()
    wrong = dataclasses.replace(
        model,
        rates=SparseMap(model.rates.library, 1.05 * model.rates.coef, model.rates.targets, model.rates.target_units),
    )
    data = recorded(model, (0.0, 0.0, 0.0), seed=2)
    residual = data.trajectories[0].x[1:] - wrong.step(data.trajectories[0].x[:-1], data.trajectories[0].u)
    assert np.abs(residual).max() > 1e-4  # it is wrong, and seen to be
    assert measurement_noise(wrong, data).max() < 0.1 * np.abs(residual).max()


def test_without_noise_there_is_none():
    model = pendulum_model()
    assert measurement_noise(model, recorded(model, (0.0, 0.0, 0.0), seed=3)).max() < 1e-7
