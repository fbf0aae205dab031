"""The cart-pole is dm_control's own, with the signs that its table states."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

pytest.importorskip("dm_control")

from dm_control.suite import cartpole as suite

from sindyrl.envs import cartpole

UPRIGHT = (0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.fixture
def env():
    made = gymnasium.make("sindyrl/CartPoleSwingUp-v0")
    yield made
    made.close()


def balance(x):
    """A hand-made stabilizer: push towards where the pole leans."""
    return np.clip(x @ [[0.3], [0.0], [10.0], [0.6], [2.0]], -1.0, 1.0)


def test_the_trajectory_is_that_of_dm_control_to_the_last_bit(env):
    first, _ = env.reset(seed=11)
    generator = np.random.default_rng(0)
    theirs = suite.swingup(random=0)
    # The same initial state through dm_control's own generator.
    theirs.task.random.set_state(_state_before_reset(seed=11))
    step = theirs.reset()
    np.testing.assert_array_equal(first, np.concatenate(list(step.observation.values())))
    for k in range(1000):
        u = generator.uniform(-1.0, 1.0, 1)
        x, reward, terminated, truncated, _ = env.step(u)
        step = theirs.step(u)
        np.testing.assert_array_equal(x, np.concatenate(list(step.observation.values())))
        assert reward == step.reward
        assert not terminated
        assert truncated == step.last() == (k == 999)


def _state_before_reset(seed):
    numbers, _ = gymnasium.utils.seeding.np_random(seed)
    return np.random.RandomState(int(numbers.integers(2**32))).get_state()


def test_the_stated_reward_is_dm_controls_while_balancing(env):
    x, _ = env.reset(options={"state": UPRIGHT})
    total = 0.0
    for _ in range(300):
        u = balance(x)
        x, reward, *_ = env.step(u)
        assert cartpole.task.reward(np.concatenate([x, u]))[0] == pytest.approx(reward, abs=1e-12)
        total += reward
    assert total > 295  # and the hand-made stabilizer does balance


def test_signs_are_those_of_the_table(env):
    env.reset(options={"state": UPRIGHT})
    x, *_ = env.step(np.array([1.0]))
    assert x[0] > 0, "a positive command moves the cart towards +x"
    assert x[3] > 0
    assert x[4] < 0, "and leaves the tip behind: counter-clockwise"
    assert x[2] < 0
    env.reset(options={"state": (0.0, np.cos(0.3), np.sin(0.3), 0.0, 0.0)})
    x, *_ = env.step(np.array([0.0]))
    assert x[4] > 0, "a pole that leans towards +x falls towards +x"
    env.reset(options={"state": (0.0, np.cos(0.3), np.sin(0.3), 0.0, 1.0)})
    x, *_ = env.step(np.array([0.0]))
    assert x[2] > np.sin(0.3), "positive angular velocity increases the angle"


def test_accelerations_are_the_slope_of_the_velocity(env):
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 20)
    states = np.column_stack(
        [rng.uniform(-1, 1, 20), np.cos(angle), np.sin(angle), rng.uniform(-2, 2, 20), rng.uniform(-6, 6, 20)]
    )
    u = rng.uniform(-1, 1, (20, 1))
    after = np.empty_like(states)
    for row in range(20):
        env.reset(options={"state": states[row]})
        after[row] = env.step(u[row])[0]
    # The mean of the slopes at both ends is the mean slope of the step up to order dt^2.
    slopes = (cartpole.accelerations(states, u) + cartpole.accelerations(after, u)) / 2
    np.testing.assert_allclose((after - states)[:, 3:] / cartpole.DT, slopes, rtol=2e-2, atol=2e-2)
    for column, target in enumerate(cartpole.structure.targets(cartpole.task.state_names)):
        assert target == ("dv", "dw")[column]


def test_a_state_that_is_set_is_observed(env):
    state = np.array([0.5, np.cos(2.0), np.sin(2.0), -1.0, 3.0])
    x, _ = env.reset(options={"state": state})
    np.testing.assert_allclose(x, state, atol=1e-15)


def test_transitions_near_a_stop_are_excluded_at_either_end():
    x = np.zeros((4, 5))
    after = np.zeros((4, 5))
    x[1, 0], after[2, 0], after[3, 0] = -1.76, 1.8, 1.74
    np.testing.assert_array_equal(cartpole.task.exclude(x, np.zeros((4, 1)), after), [False, True, True, False])


def test_a_cart_at_the_stop_accelerates_differently():
    free, stopped = cartpole.accelerations(np.array([UPRIGHT, (1.85, 1.0, 0.0, 0.0, 0.0)]), np.zeros((2, 1)))
    assert abs(free[0]) < 1e-9
    assert stopped[0] < -1.0


def test_wrong_use_is_a_named_error(env):
    with pytest.raises(gymnasium.error.ResetNeeded, match="Call `reset` first"):
        env.step(np.zeros(1))
    env.reset(seed=0)
    for action in (np.array([np.nan]), np.zeros(2), 0.5, np.zeros((1, 1))):
        with pytest.raises(ValueError, match=r"`step\(action\)` must be one finite number"):
            env.step(action)
    with pytest.raises(ValueError, match=r"understands 'state'. Got \['angle'\]"):
        env.reset(options={"angle": 1.0})
    with pytest.raises(ValueError, match="must be 5 finite numbers"):
        env.reset(options={"state": (0.0, 1.0)})
    with pytest.raises(ValueError, match=r"must have shapes \(n, 5\) and \(n, 1\)"):
        cartpole.accelerations(np.zeros((3, 5)), np.zeros((2, 1)))


def test_a_missing_extra_names_the_install_command():
    code = (
        "import sys; sys.modules['dm_control'] = None\n"
        "import gymnasium\nfrom sindyrl.envs import cartpole\n"
        "gymnasium.make('sindyrl/CartPoleSwingUp-v0')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "sindyrl[envs]"' in result.stderr


def test_the_module_is_light_and_leaves_a_chosen_renderer_alone():
    code = (
        "import os, sys; os.environ['MUJOCO_GL'] = 'egl'\n"
        "from sindyrl.envs import cartpole\n"
        "print([m for m in ('dm_control', 'mujoco', 'jax', 'sympy', 'sklearn') if m in sys.modules])\n"
        "print(os.environ['MUJOCO_GL'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.split("\n")[:2] == ["[]", "egl"], result.stdout + result.stderr
