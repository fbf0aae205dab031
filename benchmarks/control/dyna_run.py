"""`sindyrl.learn.dyna` as a trial runs it: every round is reported, and a run that was killed goes on."""

from __future__ import annotations

from typing import Any

from benchmarks.control.grading import Report
from benchmarks.control.problem import RealSystem
from sindyrl.learn.dyna import DynaSettings, Round, dyna
from sindyrl.protocols import Policy
from sindyrl.task import Task


def run_dyna(
    system: RealSystem, task: Task, settings: DynaSettings, *, seed: int, report: Report, **parts: Any
) -> Policy:
    """The policy that is learned, with checkpoints in the system's folder.

    parts : ``fit``, ``fit_reward`` and ``learner`` of `dyna`

    A round is kept before it is reported, so a trial killed while it grades lacks that point of its curve.
    """

    def spent(turn: Round) -> None:
        # Steps lost with a kill were taken to learn from, but for those of a grade that nobody can tell apart.
        system.account(data=turn.data_steps + turn.lost_steps, selection=turn.selection_steps)

    def after(turn: Round, policy: Any, _: Any) -> None:
        # A round's policy is known when its own steps are spent: they graded it, and may have taken it back.
        spent(turn)
        report(policy)

    found = dyna(
        system.make_env(), task, settings, seed=seed, after=after, folder=system.folder, tensorboard=False, **parts
    )
    spent(found.rounds[-1])  # a run that had ended before has no more rounds
    return found.policy
