"""Dyna with gradients through the model: a sparse model from real steps, back-propagation through it, and again."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.bptt import BPTT, BPTTSettings
from sindyrl.learn.dyna import DynaSettings
from sindyrl.protocols import Policy


@dataclasses.dataclass(frozen=True)
class Method:
    """`sindyrl.learn.dyna` with its defaults and `BPTT` for a learner; it ends at the problem's threshold."""

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(default_factory=DynaSettings)
    learner: BPTTSettings = dataclasses.field(default_factory=BPTTSettings)

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        if not quick:
            return cls(DynaSettings(target=problem.threshold))
        small = BPTTSettings(environments=4, length=8, updates=2, hidden=(8,))
        return cls(DynaSettings(first_steps=60, collect_steps=(20,), rounds=2, calls=1), small)

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        return run_dyna(system, system.task, self.dyna, seed=seed, report=report, learner=BPTT(self.learner))
