"""The swimmer is Gymnasium's own, its symmetries are those that the task claims, and its equations can be found."""

import dataclasses
import json
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mujoco")

from benchmarks import swimmer_search
from sindyrl.collect import collect
from sindyrl.envs import swimmer
from sindyrl.envs.swimmer import Swimmer, accelerations, kinematics, task
from sindyrl.excitation import play, random_steps
from sindyrl.identify import identify
from sindyrl.planar_body import PlanarBody
from sindyrl.regression.subset import SubsetSelection
from sindyrl.symbolic_map import SymbolicMap

FLIP = np.array([-1.0 if name in task.mirror else 1.0 for name in task.state_names])


@pytest.fixture
def env():
    return Swimmer()


def states(rng, n):
    """Anywhere within the joints' stops."""
    size = [3.0, 1.6, 1.6, 2.0, 2.0, 3.0, 5.0, 5.0]
    return rng.uniform(-1.0, 1.0, (n, 8)) * size, rng.uniform(-1.0, 1.0, (n, 2))


def after_one_step(env, x, u):
    env.reset(options={"state": x})
    return env.step(u)[0]


def test_the_trajectory_is_that_of_gymnasium_to_the_last_bit(env, monkeypatch):
    # Gymnasium imports imageio together with the environment; it makes films with it.
    monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))
    theirs = gymnasium.make("Swimmer-v5")
    rng = np.random.default_rng(0)
    assert env.action_space == theirs.action_space
    for seed in (11, None):  # without a seed, both streams go on
        np.testing.assert_array_equal(env.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        for k in range(1000):
            u = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
            ours, reward, terminated, truncated, _ = env.step(u)
            x, their_reward, _, their_truncation, _ = theirs.step(u)
            np.testing.assert_array_equal(ours, x)
            assert reward == pytest.approx(their_reward, abs=1e-12)
            assert not terminated
            assert truncated == their_truncation == (k == 999)


def test_the_planning_reward_is_the_real_one_but_for_half_a_step_at_both_ends(env):
    x, _ = env.reset(seed=1)
    path, inputs, rewards = [x], [], []
    rng = np.random.default_rng(1)
    for _ in range(400):
        inputs.append(rng.uniform(-0.3, 0.3, 2).astype(np.float32))
        x, reward, *_ = env.step(inputs[-1])
        path.append(x)
        rewards.append(reward)
    planned = task.reward(np.column_stack([np.array(path)[1:], inputs])).ravel()
    telescoped = (path[-1][3] - path[0][3]) / 2.0
    # What is left is the error of the trapezoidal rule, which vanishes when averaged over the steps.
    assert abs(np.sum(planned) - np.sum(rewards) - telescoped) < 0.01 * np.sum(np.abs(rewards))
    assert np.abs(planned - rewards).max() > 10 * abs(np.sum(planned) - np.sum(rewards)) / len(rewards)


def test_signs_are_those_of_the_table(env):
    x = after_one_step(env, np.zeros(8), np.array([1.0, 0.0]))
    assert x[6] > 0, "a positive command increases the joint's angle"
    assert x[5] < 0, "and turns the first link the other way"
    assert after_one_step(env, np.zeros(8), np.array([0.0, 1.0]))[7] > 0
    coasting = after_one_step(env, np.array([0, 0, 0, 1.0, 0, 0, 0, 0]), np.zeros(2))
    assert 0 < coasting[3] < 1, "the fluid brakes"
    turning = after_one_step(env, np.array([0, 0, 0, 0, 0, 1.0, 0, 0]), np.zeros(2))
    assert turning[0] > 0, "positive angular velocity increases the heading"


def test_a_mirrored_motion_is_a_motion(env):
    x, u = states(np.random.default_rng(2), 20)
    for state, command in zip(x, u, strict=True):
        here, there = after_one_step(env, state, command), after_one_step(env, state * FLIP, -command)
        np.testing.assert_allclose(there, here * FLIP, rtol=1e-7, atol=1e-9)


def test_the_world_has_no_preferred_direction_in_the_body_frame():
    x, u = states(np.random.default_rng(3), 30)
    turned, angle = x.copy(), 0.7
    turned[:, 0] += angle
    turned[:, 3] = np.cos(angle) * x[:, 3] - np.sin(angle) * x[:, 4]
    turned[:, 4] = np.sin(angle) * x[:, 3] + np.cos(angle) * x[:, 4]
    np.testing.assert_allclose(accelerations(turned, u), accelerations(x, u), rtol=1e-8, atol=1e-8)
    features = task.library.bind(task.state_names, task.input_names).features
    np.testing.assert_allclose(features(np.hstack([turned, u])), features(np.hstack([x, u])), rtol=1e-9, atol=1e-9)


def test_accelerations_are_the_slope_of_the_velocity(env):
    x, u = states(np.random.default_rng(4), 20)
    x[:, 3:] *= 0.2
    after = np.array([after_one_step(env, *pair) for pair in zip(x, u, strict=True)])
    middle, slopes = task.structure.samples(task.state_names, x, after, task.dt)
    np.testing.assert_allclose(slopes, accelerations(middle, u), rtol=0.05, atol=0.15)


def test_the_links_velocities_are_those_of_the_simulator():
    mujoco, model, data = swimmer._simulator()
    x, _ = states(np.random.default_rng(5), 10)
    claimed = SymbolicMap(task.state_names, kinematics())
    for state in x:
        swimmer._place(data, state)
        mujoco.mj_forward(model, data)
        value = dict(zip(claimed.output_names, claimed(state), strict=True))
        for link, (along, across) in enumerate(
            (("forward", "across1"), ("along2", "across2"), ("along3", "across3")), start=1
        ):
            velocity = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, link, velocity, 0)
            in_link = velocity[3:] @ data.xmat[link].reshape(3, 3)  # of the center of mass
            np.testing.assert_allclose([value[along], value[across]], in_link[:2], atol=1e-12)


def test_transitions_near_a_stop_are_excluded_at_either_end_and_rightly():
    x, after = np.zeros((4, 8)), np.zeros((4, 8))
    x[1, 1], after[2, 2], after[3, 2] = -1.74, 1.8, 1.6
    np.testing.assert_array_equal(task.exclude(x, np.zeros((4, 2)), after), [False, True, True, False])
    bent = np.zeros((2, 8))
    bent[:, 1] = 1.70, 1.80
    free, stopped = accelerations(bent, np.zeros((2, 2)))[:, 3]
    assert abs(free) < 1e-9
    assert stopped < -1.0


# ---- the structure, on planted motions


def test_a_planar_body_without_forces_keeps_its_velocity_while_it_turns():
    x = np.array([0.3, 0.1, -0.2, 1.0, -0.5, 0.7, 0.2, -0.4])
    after = np.array(PlanarBody().advance(task.state_names, lambda y, u: [0.0] * 5, list(x), [0.0, 0.0], 0.5))
    np.testing.assert_allclose(after, x + 0.5 * np.array([0.7, 0.2, -0.4, 0, 0, 0, 0, 0]), atol=1e-15)


def test_a_planar_body_steps_to_fourth_order():
    """A constant push along a heading that turns at a constant rate: the velocity runs around a circle."""
    push, turn, time = 2.0, 1.5, 1.0

    def error(steps):
        x = [0.0] * 5 + [turn, 0.0, 0.0]
        for _ in range(steps):
            x = PlanarBody().advance(task.state_names, lambda y, u: [push, 0, 0, 0, 0], x, [0.0, 0.0], time / steps)
        exact = [push / turn * np.sin(turn * time), push / turn * (1 - np.cos(turn * time))]
        return np.hypot(x[3] - exact[0], x[4] - exact[1])

    assert np.log2(error(4) / error(8)) == pytest.approx(4.0, abs=0.1)


def test_a_planar_body_regresses_what_it_advances():
    """Accelerations that depend on the inputs alone come back from a transition, up to the turn within the step."""
    x, u = states(np.random.default_rng(6), 10)
    planted = [u[:, 0], u[:, 1], 0.3 * u[:, 0], u[:, 0] - u[:, 1], u[:, 1]]
    after = np.stack(PlanarBody().advance(task.state_names, lambda y, v: planted, list(x.T), list(u.T), 0.001), axis=-1)
    _, found = PlanarBody().samples(task.state_names, x, after, 0.001)
    np.testing.assert_allclose(found, np.stack(planted, axis=-1), atol=1e-5)


def test_a_planar_body_covers_the_states():
    with pytest.raises(ValueError, match="must cover the states exactly"):
        PlanarBody().targets((*task.state_names, "z"))
    assert PlanarBody().target_units(task.state_names, [s.unit for s in task.states])[1:3] == ("m/s^2", "rad/s^2")


# ---- the equations


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(10_000)
    inputs = random_steps(1500, lower=[-1, -1], upper=[1, 1], hold=(4, 16), rng=rng)
    policy = play(inputs, around=lambda x: -0.5 * x[1:3] - 0.1 * x[6:8], restart=False)
    data = collect(Swimmer(), policy, steps=1500, rng=rng, reset_every=100)
    return identify(data, task=task, regressor=SubsetSelection(max_terms=16), members=1, inclusion=False)


def test_1500_random_steps_tell_sparse_equations_that_predict_other_steps(fit, env):
    assert fit.model.n_terms <= 80
    assert fit.relative_error.max() < 0.1
    rng = np.random.default_rng(10_001)
    x, _ = env.reset(seed=10_001)
    rows = []
    for k in range(300):
        if k % 5 == 0:
            u = np.clip(rng.uniform(-1.0, 1.0, 2) - 0.5 * x[1:3], -1.0, 1.0).astype(np.float32)
        rows.append((x, u.astype(float), env.step(u)[0]))
        x = rows[-1][2]
    before, inputs, after = (np.array(column) for column in zip(*rows, strict=True))
    free = ~task.exclude(before, inputs, after)
    before, inputs, after = before[free], inputs[free], after[free]
    error = np.std(fit.model.step(before, inputs) - after, axis=0) / np.std(after - before, axis=0)
    assert error[[0, 1, 2]].max() < 0.03, "angles"
    assert error[[4, 5, 6, 7]].max() < 0.15, "what the motors move"
    assert error[3] < 0.25, "thrust, the small difference of large forces"


def test_the_equations_found_have_the_mirror_symmetry_that_nobody_told_them(fit):
    rates = fit.model.rates
    x, u = states(np.random.default_rng(7), 50)
    here, there = rates(np.hstack([x, u])), rates(np.hstack([x * FLIP, -u]))
    np.testing.assert_allclose(there, here * [1, -1, -1, -1, -1], rtol=1e-9, atol=1e-9)


def test_the_step_in_closed_form_is_the_step(fit):
    x, u = states(np.random.default_rng(8), 20)
    np.testing.assert_allclose(fit.model.step_map()(np.hstack([x, u])), fit.model.step(x, u), rtol=1e-12, atol=1e-12)


def test_jax_steps_as_numpy_does(fit):
    import jax.numpy as jnp

    x, u = states(np.random.default_rng(9), 20)
    rates = fit.model.rates.symbolic().columns("jax")
    columns = PlanarBody().advance(
        task.state_names,
        lambda y, v: rates([*y, *v]),
        [jnp.asarray(c) for c in x.T],
        [jnp.asarray(c) for c in u.T],
        0.04,
    )
    np.testing.assert_allclose(np.stack(columns, axis=-1), fit.model.step(x, u), rtol=2e-3, atol=2e-4)


def test_casadi_steps_as_numpy_does(fit):
    import casadi

    x, u = states(np.random.default_rng(13), 1)
    rates = fit.model.rates.symbolic().columns("casadi")
    symbols = [casadi.SX.sym(name) for name in (*task.state_names, *task.input_names)]
    after = PlanarBody().advance(task.state_names, lambda y, v: rates([*y, *v]), symbols[:8], symbols[8:], 0.04)
    step = casadi.Function("step", symbols, after)
    found = [float(value) for value in step(*x[0], *u[0])]
    np.testing.assert_allclose(found, fit.model.step(x, u)[0], rtol=1e-11)


# ---- use


def test_a_state_that_is_set_is_observed(env):
    state = np.array([0.5, -0.3, 1.0, 0.2, -0.1, 1.0, 2.0, -3.0])
    x, _ = env.reset(options={"state": state})
    np.testing.assert_array_equal(x, state)


def test_seeds_repeat_and_differ(env):
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn = task.reset(np.random.default_rng(0), 500)
    assert drawn.shape == (500, 8)
    assert 0.09 < np.abs(drawn).max() <= 0.1
    assert np.abs(first).max() <= 0.1


def test_wrong_use_is_a_named_error(env):
    with pytest.raises(gymnasium.error.ResetNeeded, match="Call `reset` first"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    for action in (np.array([np.nan, 0.0]), np.zeros(1), 0.5):
        with pytest.raises(ValueError, match=r"`step\(action\)` must be two finite numbers"):
            env.step(action)
    with pytest.raises(ValueError, match=r"understands 'state'. Got \['angle'\]"):
        env.reset(options={"angle": 1.0})
    with pytest.raises(ValueError, match="must be 8 finite numbers"):
        env.reset(options={"state": (0.0, 1.0)})
    with pytest.raises(ValueError, match=r"must have shapes \(n, 8\) and \(n, 2\)"):
        accelerations(np.zeros((3, 8)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="must be None"):
        Swimmer(render_mode="human")


def test_a_missing_extra_names_the_install_command():
    code = "import sys; sys.modules['mujoco'] = None\nfrom sindyrl.envs.swimmer import Swimmer\nSwimmer()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "sindyrl[envs]"' in result.stderr


def test_the_module_is_light():
    code = (
        "import sys\nfrom sindyrl.envs import swimmer\n"
        "print([m for m in ('mujoco', 'jax', 'sympy', 'sklearn', 'gymnasium.envs.mujoco') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


# ---- the search over real steps


QUICK = dataclasses.replace(swimmer_search.Config(), **swimmer_search.QUICK)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    finished = tmp_path_factory.mktemp("runs") / "swimmer_search.jsonl"
    return swimmer_search.learned(QUICK, 3, finished, quiet=True), finished


def test_a_search_counts_every_real_step(searched):
    run, _ = searched
    probed = sum(each["steps"] for turn in run["rounds"] for each in turn["earned"])
    assert run["real_steps"] == QUICK.random_steps + probed == 350
    assert run["report_steps"] == 1000
    assert run["steps_to_target"] is None
    assert run["model_steps"] >= QUICK.population * QUICK.generations * QUICK.plan_steps


def test_a_finished_search_is_read_and_not_repeated(searched, monkeypatch):
    run, finished = searched
    monkeypatch.setattr(swimmer_search.SwimmerSearch, "run", lambda self: pytest.fail("searched again"))
    again = swimmer_search.learned(QUICK, 3, finished, quiet=True)
    assert again == json.loads(json.dumps(run))
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        swimmer_search.learned(QUICK, 4, finished, quiet=True)
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        swimmer_search.learned(dataclasses.replace(QUICK, target=1.0), 3, finished, quiet=True)


@pytest.mark.slow
def test_a_search_repeats_itself(searched):
    run, _ = searched
    again = swimmer_search.SwimmerSearch(QUICK, 3).run()
    other = swimmer_search.SwimmerSearch(QUICK, 4).run()
    times = ("wall_s", "processor_s")
    assert {key: value for key, value in again.items() if key not in times} == {
        key: value for key, value in run.items() if key not in times
    }
    assert other["policy"] != run["policy"]


def test_equations_are_readable_and_mean_the_same(fit):
    lines = swimmer_search.readable(fit.model)
    assert [line.split(" = ")[0] for line in lines[:5]] == list(task.structure.targets(task.state_names))
    names = {line.split(" = ")[0]: line.split(" = ")[1] for line in lines[5:]}
    assert not any("absturn" in line or "absforward" in line or "absacross" in line for line in lines)
    text = [line.split(" = ")[1] for line in lines[:5]]
    while any(name in line for name in names for line in text):  # put the definitions back
        for name, meaning in names.items():
            text = [line.replace(name, meaning) for line in text]
    plain = [line.split(" = ")[1] for line in str(fit.model).splitlines()]
    flat = str.maketrans("", "", "()")
    assert [line.translate(flat) for line in text] == [line.translate(flat) for line in plain]
