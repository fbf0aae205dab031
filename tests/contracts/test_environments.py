"""What must hold for every environment that sindyrl registers."""

import itertools
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sindyrl.envs  # noqa: F401 (registers them)
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap

pytest.importorskip("dm_control")

IDS = sorted(name for name in gymnasium.registry if name.startswith("sindyrl/"))
STEPS = 60
# Gymnasium grades the state that a step of its pendulum begins at; a task grades the one at its end.
GRADED_BEFORE = ("sindyrl/Pendulum-v0",)


@pytest.fixture(params=IDS)
def env(request):
    made = gymnasium.make(request.param)
    yield made
    made.close()


def roll(env, seed):
    """Observations, rewards under actions that depend on nothing but the step."""
    x, r = [env.reset(seed=seed)[0]], []
    low, high = env.action_space.low, env.action_space.high
    for k in range(STEPS):
        action = low + (high - low) * (0.5 + 0.5 * np.sin(0.7 * k + np.arange(len(low))))
        observation, reward, terminated, truncated, _ = env.step(action)
        x.append(observation)
        r.append(reward)
        if terminated or truncated:
            break
    return x, r


def test_there_are_environments_to_check():
    assert IDS


def test_an_environment_is_found_without_importing_it_first():
    code = f"import gymnasium; print(gymnasium.make('sindyrl.envs:{IDS[0]}').spec.id)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.stdout.strip() == IDS[0], made.stderr


def test_gymnasium_checker_passes(env):
    with warnings.catch_warnings():
        # Unbounded observations are what they are; everything else the checker says is an error.
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*infinity. This is probably too.*")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")
        # Torques in N m have the limits that they have.
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(env.unwrapped, skip_render_check=True)


def test_observations_match_the_announced_space_and_are_finite(env):
    x, r = roll(env, seed=1)
    for observation in x:
        assert env.observation_space.contains(observation)
        assert np.isfinite(observation).all()
    assert all(type(reward) is float and np.isfinite(reward) for reward in r)


def test_one_seed_gives_one_trajectory_whatever_happened_before(env):
    first = roll(env, seed=3)
    roll(env, seed=4)
    again = roll(env, seed=3)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    fresh = gymnasium.make(env.spec.id)
    np.testing.assert_array_equal(first[0], roll(fresh, seed=3)[0])


def test_two_seeds_give_two_initial_states(env):
    assert not np.array_equal(env.reset(seed=3)[0], env.reset(seed=4)[0])


def test_a_reset_without_seed_continues_the_stream(env):
    first = [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]
    again = [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


def test_observations_share_no_memory(env):
    x, _ = roll(env, seed=5)
    for before, after in itertools.pairwise(x):
        assert not np.shares_memory(before, after)


def test_no_entry_of_the_observation_is_constant(env):
    x = np.array(roll(env, seed=6)[0])
    # Whether a leg touches the ground is a state that stays what it is in the air.
    contacts = getattr(env.unwrapped, "contacts", ())
    moving = [name not in contacts for name in env.unwrapped.task.state_names]
    assert (np.ptp(x[:, moving], axis=0) > 0).all()


def test_the_environment_ignores_global_random_state(env):
    states = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        states.append(env.reset(seed=3)[0])
    np.testing.assert_array_equal(*states)


def test_the_task_agrees_with_the_spaces(env):
    task = env.unwrapped.task
    assert len(task.states) == env.observation_space.shape[0]
    assert len(task.inputs) == env.action_space.shape[0]
    np.testing.assert_array_equal(task.action_low, env.action_space.low)
    np.testing.assert_array_equal(task.action_high, env.action_space.high)
    low, high = np.array([[signal.lower, signal.upper] for signal in task.states]).T
    starts = task.reset(np.random.default_rng(0), 100)
    assert starts.shape == (100, len(task.states))
    assert ((low <= starts) & (starts <= high)).all()


def test_a_model_of_the_task_survives_its_file(env, tmp_path):
    task = env.unwrapped.task
    names, structure = task.state_names, task.structure
    library = task.library.bind(structure.features_of(names), task.input_names)
    units = structure.target_units(names, [signal.unit for signal in task.states])
    coef = np.random.default_rng(0).normal(scale=1e-3, size=(len(structure.targets(names)), len(library)))
    rates = SparseMap(library, coef, structure.targets(names), units)
    seen = np.array([[-1.0, 1.0]] * len(names))
    model = Model(rates, structure, task.states, task.inputs, task.dt, seen)
    model.save(tmp_path / "model.json")
    stored = Model.load(tmp_path / "model.json")
    assert stored.structure == structure
    x, u = task.reset(np.random.default_rng(1), 1)[0], task.action_high
    np.testing.assert_array_equal(stored.step(x, u), model.step(x, u))


def test_the_task_draws_initial_states_like_the_environment(env):
    drawn = env.unwrapped.task.reset(np.random.default_rng(0), 400)
    real = np.array([env.reset(seed=i)[0] for i in range(400)])
    spread = np.maximum(real.std(axis=0), 1e-12)
    np.testing.assert_allclose(drawn.mean(axis=0), real.mean(axis=0), atol=0.3 * spread.max())
    np.testing.assert_allclose(drawn.std(axis=0), real.std(axis=0), rtol=0.2)


def test_the_task_reward_is_the_reward_of_the_environment(env):
    if not getattr(env.unwrapped, "exact_reward", True):
        pytest.skip("its task has a reward to plan with, which its file explains")
    task = env.unwrapped.task
    rng = np.random.default_rng(0)
    for episode in range(3):
        x, _ = env.reset(seed=episode)
        for _ in range(STEPS):
            # The first episode's inputs go beyond the limits too: the simulator saturates the force, not the penalty.
            u = rng.uniform(task.action_low, task.action_high) * (1.5 if episode == 0 else 1.0)
            before = x
            x, reward, terminated, truncated, _ = env.step(u)
            graded = before if env.spec.id in GRADED_BEFORE else x
            values = dict(zip((*task.state_names, *task.input_names), (*graded, *u), strict=True))
            stated = task.reward(np.array([values[name] for name in task.reward.input_names]))
            assert stated[0] == pytest.approx(reward, abs=1e-12)
            if terminated or truncated:
                break
