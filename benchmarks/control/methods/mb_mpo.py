"""MB-MPO, the paper's third baseline: a policy that one gradient step adapts to any of five networks (1809.05214)."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.methods.dyna_linear import baseline, check_known, small
from benchmarks.control.methods.dyna_published import LIMITS, published_task
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.mb_mpo import MBMPO, MODEL, MBMPOSettings
from sindyrl.learn.neural_model import NeuralSettings, neural_model
from sindyrl.protocols import Policy
from sindyrl.structure import Increment, OnCircles

_QUICK = MBMPOSettings(environments=2, length=10, outer_steps=1, updates=1, hidden=(8,))


@dataclasses.dataclass(frozen=True)
class Method:
    """All five models are drawn from, where the paper's runs saw one of them; up to 60,000 real steps."""

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(
        default_factory=lambda: dataclasses.replace(baseline(), mode="member", keep_steps=10_000, rounds=52)
    )
    learner: MBMPOSettings = dataclasses.field(default_factory=MBMPOSettings)
    model: NeuralSettings = MODEL

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        check_known("mb-mpo", problem)
        if not quick:
            return cls()
        networks = dataclasses.replace(MODEL, hidden=(8, 8), epochs=2)
        return cls(dataclasses.replace(small(), mode="member"), _QUICK, networks)

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        task = published_task(system.task, LIMITS[system.name])
        task = dataclasses.replace(task, structure=OnCircles(Increment(), (("cos", "sin"),)))
        fit = neural_model(task, self.model, seed=seed)
        return run_dyna(system, task, self.dyna, seed=seed, report=report, fit=fit, learner=MBMPO(self.learner))
