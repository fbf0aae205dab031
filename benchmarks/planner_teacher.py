"""A planner as the teacher of a sparse policy, on the cart-pole swing-up: ``python -m benchmarks.planner_teacher``.

A model from 250 real steps, a cross-entropy planner in it, and its students with at most 20 terms. ``--imitate`` takes
the CMA-ES out of the distillation, which shows what the planner's labels are worth alone. The planner is a reduced one,
64 samples in one member instead of 128 in four, so that a seed takes about half a minute of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import gymnasium
import numpy as np

import sindyrl
from sindyrl.controllers import CrossEntropyPlanner, RecedingHorizon
from sindyrl.distill import DistillSettings, distill
from sindyrl.envs.cartpole import task
from sindyrl.learn.active import collect_actively
from sindyrl.model import Model


def planned(model: Model, samples: int = 128, members: int = 4) -> RecedingHorizon:
    planner = CrossEntropyPlanner(model, task, horizon=100, hold=5, samples=samples, members=members)
    return RecedingHorizon(planner, every=5)


def run(seed: int, settings: DistillSettings) -> None:
    rng = np.random.default_rng(seed)
    env = sindyrl.InteractionMeter(gymnasium.make("sindyrl/CartPoleSwingUp-v0"))
    with env.counting("data"):
        data = collect_actively(
            env, task, lambda data: sindyrl.identify(data, task=task).model, planned,
            steps=250, warmup=40, refit_every=10, rng=rng,
        )  # fmt: skip
    model = sindyrl.identify(data, task=task).model
    teacher = planned(model, samples=64, members=1)
    begun = time.process_time()
    found = distill(task, model, teacher, max_terms=20, rng=rng, settings=settings)
    spent = time.process_time() - begun
    print(f"seed {seed}: the planner earns {found.teacher_return:.0f} in the model; {spent:.0f} s of one core")
    for record in found.front:
        mark = " <- chosen" if record is found.chosen else ""
        print(f"  {record.terms:2d} terms earn {record.mean:.0f}, kept {record.kept:.1%} ({record.origin}){mark}")
    with env.counting("report"):
        by_planner = sindyrl.evaluate(env, teacher, episodes=2, rng=rng)
        by_student = sindyrl.evaluate(env, found.policy, episodes=5, rng=rng)
    print(f"  real returns: planner {by_planner.round()}, student {by_student.round()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10000, 10001], help="development seeds")
    parser.add_argument("--tube", type=int, default=0, help="noisy copies of each visited state")
    parser.add_argument("--imitate", action="store_true", help="no CMA-ES: the labels alone")
    given = parser.parse_args()
    settings = DistillSettings(scenarios=4, rounds=1, episodes=4, tube=given.tube)
    if given.imitate:
        settings = dataclasses.replace(settings, polish=0, repair=0)
    for seed in given.seeds:
        run(seed, settings)


if __name__ == "__main__":
    main()
