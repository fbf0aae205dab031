"""Measurement noise: what was asked for, following the seed, and only on what is measured."""

import gymnasium
import numpy as np
import pytest

from sindyrl.envs.noise import ObservationNoise
from tests.systems import CartEnv

STEPS = 4000


class Ramp(gymnasium.Env):
    """Observes (k, 100 k) after step k whatever the action."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.k = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.k = 0
        return np.zeros(2), {"options": options}

    def step(self, action):
        self.k += 1
        return np.array([self.k, 100.0 * self.k]), float(self.k), False, self.k >= STEPS, {}


def errors(sigma, *, seed, steps=STEPS):
    env = ObservationNoise(Ramp(), sigma)
    seen = [env.reset(seed=seed)[0], *(env.step(np.zeros(1))[0] for _ in range(steps))]
    true = np.arange(steps + 1.0)
    return np.array(seen) - np.column_stack([true, 100.0 * true])


def test_without_noise_nothing_changes():
    plain, wrapped = CartEnv(), ObservationNoise(CartEnv(), 0.0)
    np.testing.assert_array_equal(plain.reset(seed=3)[0], wrapped.reset(seed=3)[0])
    for k in range(30):
        ours, theirs = wrapped.step(np.array([np.sin(k)])), plain.step(np.array([np.sin(k)]))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]


def test_the_noise_follows_the_seed():
    once, twice, other = errors(0.1, seed=5, steps=20), errors(0.1, seed=5, steps=20), errors(0.1, seed=6, steps=20)
    np.testing.assert_array_equal(once, twice)
    assert not np.isclose(once, other).any()


def test_without_a_seed_the_stream_goes_on():
    env = ObservationNoise(Ramp(), 1.0)
    first, second = env.reset(seed=5)[0], env.reset()[0]
    assert not np.isclose(first, second).any()
    env.reset(seed=5)
    np.testing.assert_array_equal(env.reset()[0], second)


def test_the_noise_is_not_the_stream_of_the_environment():
    env = ObservationNoise(CartEnv(), 1.0)
    noise = env.reset(seed=5)[0] - env.unwrapped._x
    assert not np.isclose(noise, np.random.default_rng(5).standard_normal(2)).any()
    plain = CartEnv()
    plain.reset(seed=5)
    assert env.unwrapped.np_random.normal() == plain.np_random.normal()  # the noise has drawn nothing from it


@pytest.mark.parametrize("sigma", [0.5, np.array([0.5, 20.0])])
def test_mean_spread_and_independence_are_those_of_the_standard_deviation(sigma):
    """Bounds of five standard errors."""
    found = errors(sigma, seed=1)
    expected = np.broadcast_to(sigma, 2)
    assert (np.abs(found.mean(axis=0)) < 5.0 * expected / np.sqrt(STEPS)).all()
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=5.0 / np.sqrt(2.0 * STEPS))
    scaled = found / expected
    assert abs(np.mean(scaled[:, 0] * scaled[:, 1])) < 5.0 / np.sqrt(STEPS)
    assert abs(np.mean(scaled[1:, 0] * scaled[:-1, 0])) < 5.0 / np.sqrt(STEPS)
    assert np.mean(np.abs(scaled) < 1.0) == pytest.approx(0.6827, abs=5.0 * np.sqrt(0.22 / scaled.size))


def test_reward_dynamics_and_ends_are_untouched():
    plain, noisy = CartEnv(), ObservationNoise(CartEnv(), 10.0)
    plain.reset(seed=3)
    noisy.reset(seed=3)
    for k in range(30):
        ours, theirs = noisy.step(np.array([np.sin(k)])), plain.step(np.array([np.sin(k)]))
        assert ours[1:] == theirs[1:]
        np.testing.assert_array_equal(noisy.unwrapped._x, theirs[0])


def test_the_observation_of_the_environment_is_not_written_to():
    env = Ramp()
    kept = np.array([1.0, 2.0])
    env.reset = lambda **options: (kept, {})
    ObservationNoise(env, 1.0).reset(seed=0)
    np.testing.assert_array_equal(kept, [1.0, 2.0])


def test_a_later_change_of_the_callers_array_changes_nothing():
    sigma = np.array([0.0, 0.0])
    env = ObservationNoise(Ramp(), sigma)
    sigma[:] = 1e6
    np.testing.assert_array_equal(env.reset(seed=0)[0], np.zeros(2))


@pytest.mark.parametrize("sigma", [-1.0, np.nan, np.inf, [0.1, -0.1], [0.1], [0.1, 0.1, 0.1], [[0.1], [0.1]]])
def test_a_wrong_standard_deviation_is_refused_at_construction(sigma):
    with pytest.raises(ValueError, match=r"`ObservationNoise\(sigma=...\)`.*Got"):
        ObservationNoise(CartEnv(), sigma)


def test_the_wrapper_can_be_made_again_from_its_specification():
    env = ObservationNoise(gymnasium.make("Pendulum-v1"), 0.25)
    again = gymnasium.make(env.spec)
    assert isinstance(again, ObservationNoise)
    assert again.sigma == 0.25
