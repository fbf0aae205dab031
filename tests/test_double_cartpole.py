"""The double cart-pole is dm_control's own, its mechanics are those of two poles on a cart, and can nearly be found."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

pytest.importorskip("dm_control")

from dm_control.suite import cartpole as suite

from sindyrl.collect import collect
from sindyrl.envs.double_cartpole import DoubleCartPoleSwingUp, accelerations, denominators, numerators, task
from sindyrl.excitation import play, random_steps
from sindyrl.identify import identify
from sindyrl.library import custom_library
from sindyrl.rational import identify_rational
from sindyrl.regression.implicit import ImplicitSubset
from sindyrl.regression.subset import SubsetSelection
from sindyrl.symbolic_map import SymbolicMap

CART, POLE, LENGTH, GRAVITY, FORCE = 1.0, 0.1, 1.0, 9.81, 10.0  # kg, kg, m, m/s^2, N
RADIUS = 0.045  # m
FLIP = np.array([-1.0 if name in task.mirror else 1.0 for name in task.state_names])


@pytest.fixture
def env():
    made = gymnasium.make("sindyrl/DoubleCartPoleSwingUp-v0")
    yield made
    made.close()


def state(x=0.0, first=0.0, second=0.0, v=0.0, w1=0.0, w2=0.0):
    """Of the angles from the vertical, in rad."""
    return np.array([x, np.cos(first), np.sin(first), np.cos(second), np.sin(second), v, w1, w2])


def states(rng, n):
    """Anywhere between the stops, poles at any angle."""
    size = [1.5, np.pi, np.pi, 2.0, 6.0, 8.0]
    return np.array([state(*row) for row in rng.uniform(-1.0, 1.0, (n, 6)) * size]), rng.uniform(-1.0, 1.0, (n, 1))


def after_one_step(env, x, u):
    env.reset(options={"state": x})
    return env.step(u)[0]


def ours(theirs):
    """Our state, of dm_control's observation: cosines and sines by pole, the second rate relative to the first."""
    x, cos1, sin1, cos2, sin2 = theirs["position"]
    v, w1, turn = theirs["velocity"]
    return np.array([x, cos1, sin1, cos2, sin2, v, w1, w1 + turn])


def test_the_trajectory_is_that_of_dm_control_to_the_last_bit(env):
    first, _ = env.reset(seed=11)
    rng = np.random.default_rng(0)
    theirs = suite.two_poles(random=0)
    # The same initial state through dm_control's own generator.
    numbers, _ = gymnasium.utils.seeding.np_random(11)
    theirs.task.random.set_state(np.random.RandomState(int(numbers.integers(2**32))).get_state())
    step = theirs.reset()
    np.testing.assert_array_equal(first, ours(step.observation))
    for k in range(1000):
        u = rng.uniform(-1.0, 1.0, 1)
        x, reward, terminated, truncated, _ = env.step(u)
        step = theirs.step(u)
        np.testing.assert_array_equal(x, ours(step.observation))
        assert reward == step.reward
        assert not terminated
        assert truncated == step.last() == (k == 999)


def test_the_stated_reward_is_dm_controls_wherever_the_system_is(env):
    rng = np.random.default_rng(1)
    faster = set()
    for x, u in zip(*states(rng, 200), strict=True):
        env.reset(options={"state": x})
        x, reward, *_ = env.step(1.5 * u)
        assert task.reward(np.concatenate([x, 1.5 * u]))[0] == pytest.approx(reward, abs=1e-12)
        faster.add(abs(x[7] - x[6]) > abs(x[6]))
    assert faster == {True, False}, "either hinge was the faster one"


def test_standing_still_on_end_earns_everything_and_hanging_next_to_nothing(env):
    for angle, earned in ((0.0, 1.0), (np.pi, 0.0)):
        env.reset(options={"state": state(first=angle, second=angle)})
        assert env.step(np.zeros(1))[1] == pytest.approx(earned, abs=1e-9)


def test_signs_are_those_of_the_table(env):
    pushed = after_one_step(env, state(), np.array([1.0]))
    assert pushed[0] > 0, "a positive command moves the cart towards +x"
    assert pushed[5] > 0
    assert pushed[6] < 0, "leaves the first tip behind: counter-clockwise"
    assert pushed[2] < 0
    assert pushed[7] > 0, "and throws the second pole's tip ahead"
    for first, second, column in ((0.3, 0.0, 6), (0.0, 0.3, 7)):
        leaning = after_one_step(env, state(first=first, second=second), np.zeros(1))
        assert leaning[column] > 0, "a pole that leans towards +x falls towards +x"
    for which, column in (("w1", 2), ("w2", 4)):
        turning = after_one_step(env, state(**{which: 1.0}), np.zeros(1))
        assert turning[column] > 0, "positive angular velocity increases the angle, of this pole"
        assert abs(turning[6 - column]) < 0.01, "and not of the other one"


def lever_and_inertia():
    """Mass times lever of a pole's center (kg m) and its inertia about its foot (kg m^2): a capsule of even density."""
    ball, rod = 4.0 / 3.0 * np.pi * RADIUS**3, np.pi * RADIUS**2 * LENGTH
    ball, rod = POLE * ball / (ball + rod), POLE * rod / (ball + rod)
    # About the center: a cylinder, and half a ball on either end, whose center of mass is 3/8 of a radius further out.
    inertia = rod * (LENGTH**2 / 12 + RADIUS**2 / 4)
    inertia += ball * (2 / 5 * RADIUS**2 + LENGTH**2 / 4 + 3 / 8 * LENGTH * RADIUS)
    return POLE * LENGTH / 2, inertia + POLE * LENGTH**2 / 4


def test_accelerations_are_those_of_lagranges_equations():
    """Two capsules on a cart, in the angles from the vertical; only friction, below 1e-2 N, is left out."""
    lever, inertia = lever_and_inertia()
    first = lever + POLE * LENGTH  # the first pole carries the second on its tip
    x, u = states(np.random.default_rng(2), 50)
    for row, found in zip(np.hstack([x, u]), accelerations(x, u), strict=True):
        _, c1, s1, c2, s2, _, w1, w2, command = row
        c, s = c1 * c2 + s1 * s2, s1 * c2 - c1 * s2
        mass = [
            [CART + 2 * POLE, first * c1, lever * c2],
            [first * c1, inertia + POLE * LENGTH**2, lever * LENGTH * c],
            [lever * c2, lever * LENGTH * c, inertia],
        ]
        force = [
            FORCE * command + first * s1 * w1**2 + lever * s2 * w2**2,
            first * GRAVITY * s1 - lever * LENGTH * s * w2**2,
            lever * GRAVITY * s2 + lever * LENGTH * s * w1**2,
        ]
        np.testing.assert_allclose(found, np.linalg.solve(mass, force), rtol=1e-3, atol=5e-3)


def test_accelerations_are_the_slope_of_the_velocity(env):
    x, u = states(np.random.default_rng(3), 20)
    after = np.array([after_one_step(env, *pair) for pair in zip(x, u, strict=True)])
    middle, slopes = task.structure.samples(task.state_names, x, after, task.dt)
    np.testing.assert_allclose(slopes, accelerations(middle, u), rtol=0.05, atol=0.5)
    assert task.structure.targets(task.state_names) == ("dv", "dw1", "dw2")


def test_a_mirrored_motion_is_a_motion(env):
    for x, u in zip(*states(np.random.default_rng(4), 20), strict=True):
        here, there = after_one_step(env, x, u), after_one_step(env, x * FLIP, -u)
        np.testing.assert_allclose(there, here * FLIP, rtol=1e-9, atol=1e-9)


def test_the_candidate_terms_have_the_mirror_symmetry_and_no_pole():
    library = task.library.bind(task.structure.features_of(task.state_names), task.input_names)
    x, u = states(np.random.default_rng(5), 50)
    here = library.features(np.hstack([x[:, 1:], u]))
    there = library.features(np.hstack([(x * FLIP)[:, 1:], -u]))
    np.testing.assert_allclose(there, -here, rtol=1e-12, atol=1e-12)
    ranges = {signal.name: (signal.lower, signal.upper) for signal in (*task.states, *task.inputs)}
    terms = SymbolicMap(library.variables, [(f"term{k}", term) for k, term in enumerate(library.terms)])
    bounds = terms.interval({name: ranges[name] for name in library.variables})
    assert np.isfinite(list(bounds.values())).all()


# ---- the equations


def recorded(seed, steps):
    """Random pushes, held for 50 to 400 ms, that keep the cart off its stops."""
    rng = np.random.default_rng(seed)
    pushes = random_steps(steps, lower=[-1], upper=[1], hold=(5, 40), rng=rng)
    policy = play(pushes, around=lambda x: np.array([-0.3 * x[0] - 0.2 * x[5]]), restart=False)
    return collect(DoubleCartPoleSwingUp(), policy, steps=steps, rng=rng, reset_every=500)


def identified(library):
    data = recorded(10_000, 3000)
    return identify(data, library, task=task, regressor=SubsetSelection(max_terms=12), members=1, inclusion=False)


@pytest.fixture(scope="module")
def fit():
    return identified(task.library)


@pytest.fixture(scope="module")
def fresh():
    """Transitions of another recording, away from the stops."""
    pairs = recorded(10_001, 3000).pairs()
    free = ~task.exclude(pairs.x, pairs.u, pairs.x_next)
    return pairs.x[free], pairs.u[free], pairs.x_next[free]


def relative(predicted, x, after):
    """Errors by state, over the size of the step's change, both RMS."""
    return np.sqrt(np.mean((predicted - after) ** 2, axis=0) / np.mean((after - x) ** 2, axis=0))


def test_thirty_seconds_tell_sparse_equations_that_predict_other_steps(fit, fresh):
    x, u, after = fresh
    assert fit.model.n_terms <= 40
    error = relative(fit.model.step(x, u), x, after)
    assert (error[:5] < 0.002).all(), "position and angles: as the true accelerations"
    assert (error[5:] < [0.01, 0.03, 0.03]).all(), "velocities"


def test_dividing_by_the_determinant_is_what_makes_few_terms_enough(fit, fresh):
    x, u, after = fresh
    plain = identified(custom_library(numerators()))
    assert plain.model.n_terms >= fit.model.n_terms - 5
    errors = [relative(model.step(x, u), x, after)[5:] for model in (plain.model, fit.model)]
    assert (errors[0] > 3 * errors[1]).all()


@pytest.mark.slow
def test_fifteen_seconds_tell_the_rational_equations_of_both_poles(fresh):
    """The determinant of the mass matrix, found twice, is that of the masses. The cart's is not found reliably."""
    found = identify_rational(
        recorded(10_000, 1500),
        custom_library(numerators()),
        denominator=custom_library(denominators()),
        structure=task.structure,
        exclude=task.exclude,
        regressor=ImplicitSubset(max_terms=16, node_limit=0),
        corrections=1,
    )
    lever, inertia = lever_and_inertia()
    a, b, c = lever + POLE * LENGTH, lever, lever * LENGTH
    # Of [[m, a c1, b c2], [., i, c cos(a1 - a2)], [., ., inertia]]; 2 c1 c2 cos(a1 - a2) is the sum of squares less 1.
    m, i, abc = CART + 2 * POLE, inertia + POLE * LENGTH**2, a * b * c
    of_sines = np.array([inertia * a**2 - abc, i * b**2 - abc, m * c**2 - abc])
    upright = m * i * inertia - abc - of_sines.sum()
    for equation in found.equations[1:]:
        assert equation.n_terms == 12
        assert str(equation.zero).startswith("no zero")
        coefficients = [term.coefficient for term in equation.denominator]
        np.testing.assert_allclose(coefficients, [1.0, *(of_sines / upright)], rtol=0.01)
    x, u, after = fresh
    assert (relative(found.model.step(x, u), x, after)[6:] < 0.008).all(), "what the midpoint rule alone is wrong by"


# ---- use


def test_a_state_that_is_set_is_observed(env):
    for placed in states(np.random.default_rng(6), 10)[0]:
        np.testing.assert_allclose(env.reset(options={"state": placed})[0], placed, atol=1e-14)


def test_transitions_near_a_stop_are_excluded_at_either_end_and_rightly():
    x, after = np.zeros((4, 8)), np.zeros((4, 8))
    x[1, 0], after[2, 0], after[3, 0] = -1.76, 1.8, 1.74
    np.testing.assert_array_equal(task.exclude(x, np.zeros((4, 1)), after), [False, True, True, False])
    free, stopped = accelerations(np.array([state(), state(x=1.85)]), np.zeros((2, 1)))
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
    with pytest.raises(ValueError, match="`DoubleCartPoleSwingUp` must be 8 finite numbers"):
        env.reset(options={"state": (0.0, 1.0)})
    with pytest.raises(ValueError, match=r"must have shapes \(n, 8\) and \(n, 1\)"):
        accelerations(np.zeros((3, 8)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"`DoubleCartPoleSwingUp\(render_mode=...\)` must be None"):
        DoubleCartPoleSwingUp(render_mode="human")


def test_a_missing_extra_names_the_install_command():
    code = (
        "import sys; sys.modules['dm_control'] = None\n"
        "from sindyrl.envs.double_cartpole import DoubleCartPoleSwingUp\nDoubleCartPoleSwingUp()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "sindyrl[envs]"' in result.stderr


def test_the_module_is_light_and_leaves_a_chosen_renderer_alone():
    code = (
        "import os, sys; os.environ['MUJOCO_GL'] = 'egl'\n"
        "from sindyrl.envs import double_cartpole\n"
        "print([m for m in ('dm_control', 'mujoco', 'jax', 'sympy', 'sklearn') if m in sys.modules])\n"
        "print(os.environ['MUJOCO_GL'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.split("\n")[:2] == ["[]", "egl"], result.stdout + result.stderr
