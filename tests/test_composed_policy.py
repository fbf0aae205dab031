"""Policies made of policies keep the parts' promises: order, randomness, limits, and a dead band that rests."""

import gymnasium
import numpy as np
import pytest

from sindyrl.collect import UniformPolicy, collect
from sindyrl.composed_policy import BangBang, SwitchAfter, at_rest
from tests.systems import CartEnv

LOW, HIGH = np.array([-1.0]), np.array([1.0])


def test_the_second_policy_acts_from_its_step_on_in_every_episode():
    env = CartEnv()
    policy = SwitchAfter(lambda x: np.array([0.5]), at_rest(env), steps=3)
    data = collect(env, policy, steps=12, reset_every=6, rng=np.random.default_rng(0), dt=0.1)
    assert len(data) == 2
    for trajectory in data:
        np.testing.assert_array_equal(trajectory.u[:, 0], [0.5, 0.5, 0.5, 0.0, 0.0, 0.0])


class DrawsAtReset:
    """One input for the whole episode, drawn as the episode begins."""

    def reset(self, rng):
        self.u = rng.uniform(LOW, HIGH)

    def __call__(self, x):
        return self.u


def test_what_the_first_draws_does_not_depend_on_the_second():
    def drawn(second):
        policy = SwitchAfter(UniformPolicy(LOW, HIGH), second, steps=4)
        policy.reset(np.random.default_rng(7))
        return [float(policy(np.zeros(1))[0]) for _ in range(4)]

    assert drawn(lambda x: np.zeros(1)) == drawn(DrawsAtReset())
    assert len(set(drawn(lambda x: np.zeros(1)))) == 4


def test_bang_bang_is_full_input_outside_of_the_dead_band_and_rest_inside():
    commanded = np.array([-0.9, -0.2, -0.1, 0.0, 0.1, 0.2, 0.9])
    policy = BangBang(lambda x: x, LOW, HIGH, dead_band=0.15)
    assert [float(policy(np.array([u]))[0]) for u in commanded] == [-1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    lopsided = BangBang(lambda x: x, np.array([0.0, -2.0]), np.array([4.0, 1.0]), rest=np.array([1.0, 0.0]))
    np.testing.assert_array_equal(lopsided(np.array([1.0, 0.0])), [1.0, 0.0])
    np.testing.assert_array_equal(lopsided(np.array([0.9, 0.1])), [0.0, 1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SwitchAfter(np.sin, np.cos, steps=-1), r"`SwitchAfter\(steps=...\)` must be a non-negative integer"),
        (lambda: BangBang(np.sin, HIGH, LOW), r"`BangBang\(low=..., high=...\)` must be rising"),
        (lambda: BangBang(np.sin, LOW, HIGH, rest=np.array([2.0])), r"`BangBang\(rest=...\)` must be within"),
        (lambda: BangBang(np.sin, LOW, HIGH, dead_band=-0.1), r"`BangBang\(dead_band=...\)` must not be negative"),
        (lambda: at_rest(gymnasium.make("CartPole-v1")), r"`at_rest\(env\)` needs an environment with continuous"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
