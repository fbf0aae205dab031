"""Dyna-PPO: a sparse model from real steps, PPO inside it, and again."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.ppo import PPOSettings
from sindyrl.protocols import Policy

_QUICK = DynaSettings(
    first_steps=60, collect_steps=(20,), rounds=2, calls=1,
    ppo=PPOSettings(environments=16, length=32, epochs=2, minibatches=4, updates=2, hidden=(16,)),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Method:
    """`sindyrl.learn.dyna` with its defaults; it ends at the problem's threshold."""

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(default_factory=DynaSettings)

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        return cls(_QUICK if quick else DynaSettings(target=problem.threshold))

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        return run_dyna(system, system.task, self.dyna, seed=seed, report=report)
