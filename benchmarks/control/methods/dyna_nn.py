"""Dyna-NN, the paper's second baseline: the published loop with an ensemble of networks for a model."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.methods.dyna_linear import baseline, check_known, small
from benchmarks.control.methods.dyna_published import LIMITS, published_task
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.neural_model import NeuralSettings, neural_model
from sindyrl.protocols import Policy


@dataclasses.dataclass(frozen=True)
class Method:
    """Five perceptrons that predict the next state, their mean put on the circle; all data are kept."""

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(
        default_factory=lambda: dataclasses.replace(baseline(), mode="mean", keep_steps=None)
    )
    model: NeuralSettings = dataclasses.field(default_factory=NeuralSettings)

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        check_known("dyna-nn", problem)
        if not quick:
            return cls()
        return cls(dataclasses.replace(small(), mode="mean"), dataclasses.replace(NeuralSettings(), epochs=2))

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        task = published_task(system.task, LIMITS[system.name])
        fit = neural_model(task, self.model, seed=seed)
        return run_dyna(system, task, self.dyna, seed=seed, report=report, fit=fit)
