"""One method on one problem with one seed: what was learned, at what cost, graded by the problem."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from benchmarks.control.grading import Judge, Report, steps_to
from benchmarks.control.policy_size import closed_form, n_parameters
from benchmarks.control.problem import Odometer, Problem, RealSystem, UncountedSteps
from benchmarks.control.progress import Progress
from sindyrl.protocols import Policy


class Method(Protocol):
    """A file of benchmarks/control/methods/ has a frozen dataclass ``Method`` like this; its fields are the settings.

    learn : learns from nothing but the real system and its task, within its own budget. ``report(policy)`` whenever
        there is another policy to stand for: it is graded at once, so it may be changed afterwards, but not one with a
        memory that is driving the system at that moment. All randomness comes from the seed.

    It may also have ``PACKAGES``, modules that it needs, and ``EXTRA``, the extra of ours that brings them. One with
    ``RESUMES = True`` is given a folder, ``system.folder``, goes on with what it has kept there if it was killed, and
    tells the system what all its attempts have spent. One without begins its seed again.
    """

    @classmethod
    def of(cls, problem: Problem, *, quick: bool) -> Method:
        """The settings for a problem; ``quick`` is small. Raises ValueError if there are none."""
        ...

    def learn(self, system: RealSystem, seed: int, report: Report) -> Policy: ...


def run_trial(problem: Problem, method: Method, seed: int, folder: Path | None = None) -> dict[str, Any]:
    """Figures of one run. Raises what the method raises, and UncountedSteps.

    folder : where a method that resumes keeps what it needs; what it has kept there it goes on with

    data_steps, selection_steps : real steps spent; cost : both      report_steps : of grading, free
    curve, steps_to_threshold, final_return, returns : of `grading`; the last point of the curve is the final policy
    wall_s, processor_s : of learning, without grading      n_parameters : see `policy_size`
    form : the final policy as JSON, None if it has no closed form
    kills : how often it went on after one since its first report. Times lack what came after the last report before a
        kill; steps that were lost are among those of data; networks that a fit begins with are drawn anew
    """
    kept = folder if getattr(method, "RESUMES", False) else None
    before = Progress.read(kept)
    system = RealSystem(problem, None if kept is None else kept / "method")
    judge, odometer = Judge(problem, seed, before.curve), Odometer()
    wall, processor = time.perf_counter(), time.process_time()

    def progress() -> Progress:
        return Progress(
            before.kills,
            before.wall_s + time.perf_counter() - wall - judge.wall_s,
            before.processor_s + time.process_time() - processor - judge.processor_s,
            before.grading_wall_s + judge.wall_s,
            before.report_steps + judge.meter.counts["report"],
            tuple(judge.curve),
        )

    def report(policy: Policy) -> None:
        judge.report(policy, system.cost)
        if kept is not None:
            _check(system, judge, odometer)
            progress().write(kept)

    try:
        with odometer.mounted(type(judge.meter.unwrapped)):
            policy = method.learn(system, seed, report)
            learned, counts, cost = progress(), system.counts, system.cost
            final = judge.final(policy, cost)
        _check(system, judge, odometer)
    finally:
        system.close()
        judge.close()
    form, graded = closed_form(policy), progress()
    return {
        "seed": seed,
        "kills": graded.kills,
        "data_steps": counts["data"],
        "selection_steps": counts["selection"],
        "cost": cost,
        "report_steps": graded.report_steps,
        "steps_to_threshold": steps_to(judge.curve, problem.threshold),
        "final_return": final["return"],
        "returns": final["returns"],
        "wall_s": round(learned.wall_s, 2),
        "processor_s": round(learned.processor_s, 2),
        "grading_wall_s": round(graded.grading_wall_s, 2),
        "n_parameters": n_parameters(policy),
        "curve": judge.curve,
        "form": None if form is None else form.to_json(),
    }


def _check(system: RealSystem, judge: Judge, odometer: Odometer) -> None:
    if system.taken["report"]:
        raise UncountedSteps(
            f"The method took {system.taken['report']} steps under the head 'report', which is free. What it learns "
            "from is 'data', what chooses is 'selection'."
        )
    counted = sum(system.taken.values()) + judge.meter.counts["report"]
    if odometer.steps != counted:
        raise UncountedSteps(
            f"The real system took {odometer.steps} steps, but {counted} were counted. Use the environments of "
            "`system.make_env()`, as they are."
        )
