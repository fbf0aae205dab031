"""The published SINDy-RL: 8,000 random steps, then Dyna-PPO with its settings and its model (arXiv 2403.09110)."""

from __future__ import annotations

import dataclasses

from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.grading import Report
from benchmarks.control.problem import Problem, RealSystem
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.published import published_model
from sindyrl.library import affine_library
from sindyrl.protocols import Policy
from sindyrl.structure import NextState, OnCircles
from sindyrl.task import Task

LIMITS = {"swingup": {"x": 5.0, "cos": 1.1, "sin": 1.1, "v": 10.0, "w": 10.0}}


@dataclasses.dataclass(frozen=True)
class Method:
    """Our own implementation; `DynaSettings.published` and `published_model` list what differs from the paper.

    As there, the model knows the next state in a quadratic library, the circle and nothing of the rail.
    """

    RESUMES = True

    dyna: DynaSettings = dataclasses.field(default_factory=DynaSettings.published)

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        if problem.name not in LIMITS:
            raise ValueError(
                f"`--methods dyna-published` has the paper's settings for {', '.join(LIMITS)} only. "
                f"Leave it out of {problem.name}."
            )
        if not quick:
            return cls()
        small = DynaSettings.published()
        learner = dataclasses.replace(small.ppo, length=100, epochs=2, minibatches=4, updates=1)
        return cls(dataclasses.replace(small, first_steps=300, collect_steps=(20,), rounds=2, ppo=learner))

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy:
        task = published_task(system.task, LIMITS[system.name])
        return run_dyna(system, task, self.dyna, seed=seed, report=report, fit=published_model(task))


def published_task(task: Task, limits: dict[str, float]) -> Task:
    """The task as the paper's model sees it."""
    states = tuple(dataclasses.replace(s, lower=-limits[s.name], upper=limits[s.name]) for s in task.states)
    structure = OnCircles(NextState(), (("cos", "sin"),))
    return dataclasses.replace(
        task, states=states, structure=structure, library=affine_library(2), exclude=None, mirror=()
    )
