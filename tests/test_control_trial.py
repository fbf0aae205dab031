"""One trial: every real step is counted once, the problem grades on its own episodes, and cheating is found out."""

import dataclasses

import numpy as np
import pytest

from benchmarks.control.grading import Judge, episode_seeds, steps_to
from benchmarks.control.problem import RealSystem, UncountedSteps
from benchmarks.control.trial import run_trial
from tests.control_cases import LENGTH, PROBLEM, Gain, Planted, true_return
from tests.systems import CartEnv


@pytest.fixture(scope="module")
def trial():
    return run_trial(PROBLEM, Planted(), seed=3)


def test_every_real_step_is_counted_once_and_grading_is_free(trial):
    assert (trial["data_steps"], trial["selection_steps"], trial["cost"]) == (12, 7, 19)
    assert trial["report_steps"] == LENGTH * (3 + 3 + 10)
    assert (trial["n_parameters"], trial["form"]) == (2, None)


def test_the_curve_is_what_the_policies_earn_on_the_problems_own_episodes(trial):
    assert [point["steps"] for point in trial["curve"]] == [0, 12, 19]
    purposes = [("curve", 3), ("curve", 3), ("report", 10)]
    for point, gain, (purpose, count) in zip(trial["curve"], Planted().gains, purposes, strict=True):
        seeds = episode_seeds("cart", 3, purpose, count)
        expected = [true_return(Gain(gain), seed) for seed in seeds]
        assert point["returns"] == pytest.approx(expected, abs=1e-3)
        assert point["return"] == pytest.approx(np.mean(expected))
    assert trial["final_return"] == trial["curve"][-1]["return"]
    assert trial["returns"] == trial["curve"][-1]["returns"]


def test_the_steps_to_the_threshold_are_those_of_the_first_policy_that_reaches_it(trial):
    returns = [point["return"] for point in trial["curve"]]
    assert sorted(returns) == returns
    assert [steps_to(trial["curve"], value) for value in returns] == [0, 12, 19]
    assert steps_to(trial["curve"], np.nextafter(returns[0], 0.0)) == 12
    assert steps_to(trial["curve"], 0.0) is None
    reached = run_trial(dataclasses.replace(PROBLEM, threshold=returns[1]), Planted(), seed=3)
    assert reached["steps_to_threshold"] == 12


def test_one_seed_one_trial_two_seeds_two(trial):
    def timeless(figures):
        return {name: value for name, value in figures.items() if not name.endswith("_s")}

    assert timeless(run_trial(PROBLEM, Planted(), seed=3)) == timeless(trial)
    assert run_trial(PROBLEM, Planted(), seed=4)["returns"] != trial["returns"]


def test_graded_episodes_are_the_same_for_every_method_and_others_for_every_seed_and_purpose():
    every = [episode_seeds("cart", seed, purpose, 5) for seed in (0, 1) for purpose in ("curve", "report")]
    assert len({seed for seeds in every for seed in seeds}) == 20
    assert episode_seeds("cart", 0, "curve", 3) == every[0][:3]
    assert all(0 <= seed < 2**31 for seeds in every for seed in seeds)


def test_time_spent_on_grading_is_not_the_methods():
    slow = dataclasses.replace(PROBLEM, curve_episodes=200)
    figures = run_trial(slow, Planted(), seed=0)
    assert figures["grading_wall_s"] > 5 * figures["wall_s"]


def test_points_hardly_apart_are_left_out_and_the_last_of_equal_steps_stays():
    judge = Judge(dataclasses.replace(PROBLEM, curve_episodes=1), seed=0)
    for steps, gain in ((1000, 0.0), (1000, 0.5), (1019, 1.0), (1020, 2.0), (1020, 3.0)):
        judge.report(Gain(gain), steps)
    assert [point["steps"] for point in judge.curve] == [1000, 1020]
    (seed,) = episode_seeds("cart", 0, "curve", 1)
    expected = [true_return(Gain(gain), seed) for gain in (0.5, 3.0)]
    assert [point["return"] for point in judge.curve] == pytest.approx(expected)


class Cheat(Planted):
    """Takes one more step than is counted, or one that is free."""

    def __init__(self, how):
        object.__setattr__(self, "how", how)

    def learn(self, system, seed, report):
        env = system.make_env("report" if self.how == "free" else "data")
        inside = {"behind": env.env, "underneath": env.unwrapped, "own": CartEnv(), "free": env, "honest": env}[
            self.how
        ]
        inside.reset(seed=0)
        inside.step(np.zeros(1))
        return Gain(1.0)


@pytest.mark.parametrize("how", ["behind", "underneath", "own", "free"])
def test_steps_that_are_not_counted_are_found_out(how):
    step = CartEnv.step
    with pytest.raises(UncountedSteps, match="free" if how == "free" else r"took 301 steps, but 300 were counted"):
        run_trial(PROBLEM, Cheat(how), seed=0)
    assert CartEnv.step is step
    assert run_trial(PROBLEM, Cheat("honest"), seed=0)["cost"] == 1


def test_a_step_without_a_head_is_refused():
    system = RealSystem(PROBLEM)
    env = system.make_env()
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="outside of a head"):
        env.step(np.zeros(1))
    assert system.cost == 0
