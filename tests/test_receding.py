"""The receding-horizon loop: when it plans, with which memory, and what it plays."""

import numpy as np
import pytest

from sindyrl.controllers.receding import RecedingHorizon
from sindyrl.controllers.sampling import CrossEntropyPlanner
from sindyrl.distill import DistillSettings, distill
from sindyrl.protocols import Outcome, Plan, Resettable
from sindyrl.simulate import simulate
from tests.systems import CART_TASK, cart_model


class Recorder:
    """A planner whose inputs say when they were planned: call number, then position in the plan."""

    def __init__(self, steps=6):
        self.steps, self.calls, self.starts = steps, [], 0

    def init(self, x):
        self.starts += 1
        return 100

    def plan(self, x, state):
        self.calls.append((x.copy(), state))
        u = len(self.calls) + np.arange(self.steps)[:, None] / 10.0
        return Plan(u, np.zeros((self.steps + 1, 1)), 0.0, Outcome.solved, state + 1)


@pytest.mark.parametrize("every", [1, 2, 3, 6])
def test_it_plans_exactly_every_n_steps_and_plays_the_plan_in_between(every):
    planner = Recorder()
    policy = RecedingHorizon(planner, every=every)
    played = [policy(np.array([float(k)]))[0] for k in range(12)]
    assert played == [1 + k // every + (k % every) / 10.0 for k in range(12)]
    assert [x[0] for x, _ in planner.calls] == list(range(0, 12, every))


def test_the_memory_is_handed_on_and_made_once():
    planner = Recorder()
    policy = RecedingHorizon(planner, every=2)
    for _ in range(8):
        policy(np.zeros(1))
    assert [state for _, state in planner.calls] == [100, 101, 102, 103]
    assert planner.starts == 1


def test_reset_starts_afresh_in_the_middle_of_a_plan():
    planner = Recorder()
    policy = RecedingHorizon(planner, every=4)
    assert isinstance(policy, Resettable)
    assert policy.last_plan is None
    for _ in range(6):
        policy(np.zeros(1))
    assert policy.last_plan.state == 102
    policy.reset(np.random.default_rng(0))
    assert policy.last_plan is None
    assert policy(np.zeros(1))[0] == 3.0
    assert [state for _, state in planner.calls] == [100, 101, 100]


def test_a_replaced_planner_goes_on_from_the_warm_start_at_its_next_turn():
    first, second = Recorder(), Recorder()
    policy = RecedingHorizon(first, every=3)
    for _ in range(4):
        policy(np.zeros(1))
    policy.replace_planner(second)
    for _ in range(2):
        assert int(policy(np.zeros(1))[0]) == 2  # the plan of the first is played to its turn
    policy(np.zeros(1))
    assert [state for _, state in first.calls] == [100, 101]
    assert [state for _, state in second.calls] == [102]
    assert second.starts == 0


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"`RecedingHorizon\(every=...\)` must be at least 1 step. Got 0"):
        RecedingHorizon(Recorder(), every=0)
    with pytest.raises(ValueError, match=r"`RecedingHorizon\(every=...\)` must not exceed the plan's 6 steps. Got 7"):
        RecedingHorizon(Recorder(), every=7)(np.zeros(1))


def test_with_a_real_planner_the_loop_brings_the_cart_to_rest_and_repeats():
    planner = CrossEntropyPlanner(
        cart_model(), CART_TASK, horizon=12, hold=3, samples=64, elites=8, rounds=3, members=2
    )
    policy = RecedingHorizon(planner, every=3)
    runs = []
    for _ in range(2):
        policy.reset()
        runs.append(simulate(cart_model(), [0.6, 0.0], policy, steps=60))
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    assert runs[0].outcome is Outcome.solved
    assert np.abs(runs[0].x[-1]).max() < 0.25


def test_a_planner_teaches_a_policy_of_few_terms_that_keeps_its_return():
    planner = CrossEntropyPlanner(
        cart_model(), CART_TASK, horizon=12, hold=3, samples=64, elites=8, rounds=3, members=2
    )
    settings = DistillSettings(scenarios=4, rounds=0, tube=0, starts=1, polish=20, repair=10, members=2)
    rng = np.random.default_rng(0)
    teacher = RecedingHorizon(planner, every=3)
    found = distill(CART_TASK, cart_model(), teacher, max_terms=3, rng=rng, settings=settings)
    assert found.chosen.terms <= 3
    assert found.chosen.kept >= 0.95
    assert found.teacher_calls == 4 * 40  # once for each state of the four roll-outs, in their order
