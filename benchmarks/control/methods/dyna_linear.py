"""Dyna-linear, the paper's first baseline: the published loop with a linear model (arXiv 2403.09110)."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.methods.dyna_published import LIMITS, published_task
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.published import linear_model
from sindyrl.protocols import Policy


@dataclasses.dataclass(frozen=True)
class Method:
    """x_{k+1} = A x_k + B u_k on the circle, by least squares, bagged; graded over whole episodes like all others.

    As in the paper, 40 iterations of PPO for every 1,000 real steps, up to 70,000 real steps.
    """

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(default_factory=lambda: baseline())

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        check_known("dyna-linear", problem)
        return cls(small()) if quick else cls()

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        task = published_task(system.task, LIMITS[system.name])
        return run_dyna(system, task, self.dyna, seed=seed, report=report, fit=linear_model(task))


def baseline() -> DynaSettings:
    """The paper's settings for its SINDy-free baselines; all else is as in `DynaSettings.published`."""
    learner = dataclasses.replace(DynaSettings.published().ppo, updates=40)
    return DynaSettings.published(collect_steps=(1000,), rounds=62, ppo=learner)


def small() -> DynaSettings:
    """Sizes of a quick run."""
    learner = dataclasses.replace(DynaSettings.published().ppo, length=100, epochs=2, minibatches=4, updates=1)
    return dataclasses.replace(baseline(), first_steps=300, collect_steps=(20,), rounds=2, ppo=learner)


def check_known(method: str, problem: Problem) -> None:
    if problem.name not in LIMITS:
        raise ValueError(
            f"`--methods {method}` has the paper's settings for {', '.join(LIMITS)} only. Leave it out of "
            f"{problem.name}."
        )
