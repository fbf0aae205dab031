"""Interaction: exact counts, nothing lost, nothing unrepeatable, and named errors for what cannot work."""

import gymnasium
import numpy as np
import pytest

from sindyrl.collect import (
    InteractionMeter,
    NonFiniteError,
    UniformPolicy,
    UnseededEnvironmentWarning,
    UnsupportedEnvironmentError,
    ZeroOrderHold,
    collect,
    evaluate,
    random_policy,
)


class Integrator(gymnasium.Env):
    """x_{k+1} = x_k + dt * (u, 2u); reward -|x_{k+1}|^2; episodes of ``length`` steps."""

    dt = 0.5

    def __init__(self, length=7, dtype=np.float64):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), dtype)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), dtype)
        self.length, self.dtype = length, dtype
        self.x, self.k, self.steps = np.zeros(2), 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.k = self.np_random.standard_normal(2), 0
        return self.x.astype(self.dtype), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.x += self.dt * np.array([1.0, 2.0]) * float(action[0])
        self.k += 1
        self.steps += 1
        return self.x.astype(self.dtype), -float(self.x @ self.x), False, self.k == self.length, {}


class IgnoresSeeds(Integrator):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None)


class Diverges(Integrator):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.k == 3:
            observation[1] = np.nan
        return observation, reward, terminated, truncated, info


class ReusesItsMemory(Integrator):
    def step(self, action):
        _, *rest = super().step(action)
        return self.x, *rest


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_collect_takes_exactly_the_steps_asked_for(steps):
    env = Integrator(length=7)
    data = collect(env, random_policy(env), steps=steps, rng=rng())
    assert env.steps == steps == data.steps
    assert [len(part) for part in data] == [7] * (steps // 7) + ([steps % 7] if steps % 7 else [])


def test_every_recorded_transition_obeys_the_system_up_to_the_last_state():
    env = ReusesItsMemory(length=7)
    for part in collect(env, random_policy(env, hold=2), steps=20, rng=rng()):
        np.testing.assert_allclose(np.diff(part.x, axis=0), 0.5 * part.u * [1.0, 2.0], atol=1e-12)
        np.testing.assert_allclose(part.r, -(part.x[1:] ** 2).sum(axis=1), atol=1e-12)
        np.testing.assert_allclose(part.t, 0.5 * np.arange(len(part) + 1))


def test_whole_episodes_are_those_that_evaluate_grades():
    """One trajectory each, however long they last; the same initial states from the same generator."""
    env = Integrator()
    data = collect(env, random_policy(env), episodes=4, rng=np.random.default_rng(3))
    assert [len(part.u) for part in data] == [7] * 4
    graded = evaluate(Integrator(), random_policy(env), episodes=4, rng=np.random.default_rng(3))
    np.testing.assert_array_equal([part.r.sum() for part in data], graded)
    cut = collect(env, random_policy(env), episodes=4, reset_every=3, rng=np.random.default_rng(3))
    assert [len(part.u) for part in cut] == [3] * 4
    np.testing.assert_array_equal(cut[2].x[0], data[2].x[0])


def test_reset_every_cuts_episodes():
    env = Integrator(length=7)
    data = collect(env, random_policy(env), steps=10, rng=rng(), reset_every=4)
    assert [len(part) for part in data] == [4, 4, 2]


def test_one_generator_gives_one_dataset_and_two_give_two():
    env = Integrator()
    first, again, other = (collect(env, random_policy(env), steps=20, rng=rng(seed)) for seed in (0, 0, 1))
    assert all(a == b for a, b in zip(first, again, strict=True))
    assert not any(a == b for a, b in zip(first, other, strict=True))
    generator = rng()
    parts = [collect(env, random_policy(env), steps=5, rng=generator) for _ in range(2)]
    assert next(iter(parts[0])) != next(iter(parts[1]))


def test_the_initial_states_do_not_depend_on_how_much_the_policy_draws():
    env = Integrator()
    starts = [[part.x[0] for part in collect(env, random_policy(env, hold), steps=20, rng=rng())] for hold in (1, 5)]
    np.testing.assert_array_equal(*starts)


def test_names_come_from_the_task_else_are_numbered_else_are_given():
    env = Integrator()
    data = collect(env, random_policy(env), steps=2, rng=rng())
    assert (next(iter(data)).states, next(iter(data)).inputs) == (("o0", "o1"), ("u0",))
    data = collect(env, random_policy(env), steps=2, rng=rng(), states=("p", "q"), inputs=("f",))
    assert (next(iter(data)).states, next(iter(data)).inputs) == (("p", "q"), ("f",))
    with pytest.raises(ValueError, match=r"`collect\(states=\.\.\.\)` must name 2 columns. Got 1"):
        collect(env, random_policy(env), steps=2, rng=rng(), states=("p",))


def test_inputs_are_clipped_and_what_was_applied_is_recorded():
    env = Integrator(dtype=np.float32)
    (part,) = collect(env, lambda x: np.array([0.1 if x[0] > 100 else 9.0]), steps=3, rng=rng())
    np.testing.assert_array_equal(part.u, 2.0)
    (part,) = collect(env, lambda x: np.array([0.1]), steps=3, rng=rng())
    np.testing.assert_array_equal(part.u, np.float64(np.float32(0.1)))


def test_hold_repeats_each_draw_and_starts_anew_with_each_episode():
    env = Integrator(length=7)
    for part in collect(env, random_policy(env, hold=3), steps=14, rng=rng()):
        u = part.u[:, 0]
        np.testing.assert_array_equal(u, u[[0, 0, 0, 3, 3, 3, 6]])
        assert len(set(u)) == 3


def test_random_inputs_fill_the_limits_evenly():
    policy = UniformPolicy(np.array([-2.0, 0.0]), np.array([2.0, 1.0]))
    policy.reset(rng())
    u = np.array([policy(np.zeros(1)) for _ in range(4000)])
    np.testing.assert_allclose(u.mean(axis=0), [0.0, 0.5], atol=0.06)
    np.testing.assert_allclose(u.std(axis=0), np.array([4.0, 1.0]) / np.sqrt(12), rtol=0.05)


def test_a_policy_with_named_inputs_is_fed_by_name():
    class Named:
        input_names = ("q",)

        def __call__(self, x):
            assert x.shape == (1,)
            return -x

    env = Integrator()
    (part,) = collect(env, Named(), steps=3, rng=rng(), states=("p", "q"))
    np.testing.assert_allclose(part.u[:, 0], np.clip(-part.x[:-1, 1], -2, 2))
    with pytest.raises(ValueError, match=r"reads \['q'\], which are not among the states \['o0', 'o1'\]"):
        collect(env, Named(), steps=3, rng=rng())


def test_the_callback_sees_every_step():
    env = Integrator(length=4)
    seen = []
    data = collect(env, random_policy(env), steps=6, rng=rng(), callback=lambda *step: seen.append(step))
    x, u, r, x_next = (np.array(column) for column in zip(*seen, strict=True))
    np.testing.assert_array_equal(x, np.concatenate([part.x[:-1] for part in data]))
    np.testing.assert_array_equal(x_next, np.concatenate([part.x[1:] for part in data]))
    np.testing.assert_array_equal(u, np.concatenate([part.u for part in data]))
    np.testing.assert_array_equal(r, np.concatenate([part.r for part in data]))


# --- the meter -------------------------------------------------------------------------------------------------------


def test_the_meter_counts_what_the_environment_counts_under_the_head_named():
    env = Integrator(length=7)
    meter = InteractionMeter(env)
    with meter.counting("data"):
        collect(meter, random_policy(meter), steps=20, rng=rng())
        with meter.counting("report"):
            evaluate(meter, random_policy(meter), episodes=2, rng=rng())
        collect(meter, random_policy(meter), steps=1, rng=rng())
    with meter.counting("selection"):
        evaluate(meter, random_policy(meter), seeds=[1], max_steps=5)
    assert meter.counts == {"data": 21, "selection": 5, "report": 14}
    assert meter.cost == 26
    assert sum(meter.counts.values()) == env.steps
    assert str(meter) == "26 real steps (21 data + 5 selection); 14 more to report"


def test_the_meter_refuses_steps_that_nobody_claims():
    meter = InteractionMeter(Integrator())
    meter.reset(seed=0)
    with pytest.raises(RuntimeError, match="outside of a head"):
        meter.step(np.zeros(1))
    with (
        pytest.raises(ValueError, match=r"`counting\(head\)` must be one of .* Got 'training'"),
        meter.counting("training"),
    ):
        pass
    with pytest.raises(ZeroDivisionError), meter.counting("data"):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="outside of a head"):
        meter.step(np.zeros(1))
    assert meter.cost == 0


def test_the_counts_cannot_be_changed_from_outside():
    meter = InteractionMeter(Integrator())
    meter.counts["data"] = 5
    assert meter.counts["data"] == 0


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_the_return_is_the_sum_of_the_rewards():
    env = Integrator(length=7)
    (value,) = evaluate(env, lambda x: np.zeros(1), seeds=[4])
    x, _ = env.reset(seed=4)
    assert value == pytest.approx(-7 * float(x @ x))


def test_evaluation_repeats_with_its_generator_and_changes_with_it():
    env = Integrator()
    first, again, other = (evaluate(env, random_policy(env), episodes=3, rng=rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()
    assert len(set(first)) == 3


def test_evaluation_needs_either_seeds_or_a_generator():
    env = Integrator()
    for wrong in ({}, {"seeds": [1], "rng": rng()}, {"episodes": 2}, {"seeds": [1], "episodes": 1}, {"rng": rng()}):
        with pytest.raises(ValueError, match="either `seeds`, or `episodes` and `rng`"):
            evaluate(env, random_policy(env), **wrong)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_space": gymnasium.spaces.Discrete(2)}, "must be continuous"),
        ({"action_space": gymnasium.spaces.Box(0, 5, (1,), np.int64)}, "must be continuous"),
        ({"action_space": gymnasium.spaces.Box(-np.inf, np.inf, (1,))}, "limits must be finite"),
        ({"action_space": gymnasium.spaces.Box(-1, 1, (2, 2))}, r"have shape \(2, 2\)"),
        ({"observation_space": gymnasium.spaces.Dict(a=gymnasium.spaces.Box(-1, 1, (2,)))}, "FlattenObservation"),
        ({"observation_space": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "images are not supported"),
    ],
)
def test_environments_that_cannot_work_are_refused(change, message):
    env = Integrator()
    for name, value in change.items():
        setattr(env, name, value)
    with pytest.raises(UnsupportedEnvironmentError, match=message):
        collect(env, lambda x: np.zeros(1), steps=3, rng=rng())
    assert env.steps == 0


def test_an_environment_that_ignores_seeds_is_warned_about():
    env = IgnoresSeeds()
    with pytest.warns(UnseededEnvironmentWarning, match="ignores the seed"):
        collect(env, random_policy(env), steps=3, rng=rng())


def test_the_warning_names_the_environment_and_not_what_a_meter_has_counted():
    meter = InteractionMeter(IgnoresSeeds())
    named = pytest.warns(UnseededEnvironmentWarning, match=r"^<IgnoresSeeds instance> ignores the seed")
    with named, meter.counting("data"):
        collect(meter, random_policy(meter), steps=3, rng=rng())


def test_not_a_number_is_named_with_entry_and_step():
    env = Diverges()
    with pytest.raises(NonFiniteError, match=r"NaN or infinity in \['o1'\] after step 3 of an episode"):
        collect(env, random_policy(env), steps=7, rng=rng())
    with pytest.raises(NonFiniteError, match=r"policy returned \{'u0': .*nan.*\} at step 0"):
        collect(Integrator(), lambda x: np.array([np.nan]), steps=7, rng=rng())


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_reward_that_is_no_number_is_an_error(reward):
    class NoReward(Integrator):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, reward, *rest

    with pytest.raises(NonFiniteError, match=f"reward is {reward} at step 1"):
        collect(NoReward(), lambda x: np.zeros(1), steps=7, rng=rng())


def test_wrong_arguments_are_named_as_typed():
    env = Integrator()
    policy = random_policy(env)
    with pytest.raises(ValueError, match=r"`collect\(steps=\.\.\.\)` must be a whole number of at least 1. Got 0"):
        collect(env, policy, steps=0, rng=rng())
    with pytest.raises(ValueError, match=r"`collect\(episodes=\.\.\.\)`.* Got 0"):
        collect(env, policy, episodes=0, rng=rng())
    for both in ({}, {"steps": 4, "episodes": 1}):
        with pytest.raises(ValueError, match="either `steps` or `episodes`"):
            collect(env, policy, rng=rng(), **both)
    with pytest.raises(ValueError, match=r"`collect\(reset_every=\.\.\.\)`.* Got 2.5"):
        collect(env, policy, steps=4, rng=rng(), reset_every=2.5)
    with pytest.raises(ValueError, match=r"`random_policy\(hold=\.\.\.\)`.* Got -1"):
        random_policy(env, hold=-1)
    with pytest.raises(TypeError, match=r"`rng` must be a numpy.random.Generator.* Got 0"):
        collect(env, policy, steps=4, rng=0)
    with pytest.raises(ValueError, match=r"`collect\(dt=\.\.\.\)` must be a positive number of seconds. Got -0.1"):
        collect(env, policy, steps=4, rng=rng(), dt=-0.1)
    with pytest.raises(ValueError, match=r"must return an array of shape \(1,\). Got \(2,\)"):
        collect(env, lambda x: np.zeros(2), steps=4, rng=rng())
    with pytest.raises(RuntimeError, match=r"policy.reset\(rng\)"):
        ZeroOrderHold(UniformPolicy(env.action_space.low, env.action_space.high), 2)(np.zeros(2))


def test_a_step_length_is_never_guessed():
    class Untimed(Integrator):
        dt = None

    env = Untimed()
    with pytest.raises(ValueError, match=r"`collect\(dt=\.\.\.\)` must be given"):
        collect(env, random_policy(env), steps=2, rng=rng())
    assert env.steps == 0
    assert next(iter(collect(Integrator(), random_policy(env), steps=2, rng=rng()))).dt == pytest.approx(0.5)
