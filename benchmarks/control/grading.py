"""What a policy earns, on episodes that cost nothing and are told to nobody."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.control.problem import Problem, UncountedSteps
from sindyrl.collect import InteractionMeter, evaluate
from sindyrl.protocols import Policy

Report = Callable[[Policy], None]
"""``report(policy)``: what a method would stand for now. Nothing comes back."""

_SPACING = 0.02  # of the steps so far: nearer points would say nothing on a logarithmic axis


def episode_seeds(problem: str, seed: int, purpose: str, count: int) -> list[int]:
    """Seeds of graded episodes: the same for every method, others for every seed, never those of learning."""
    texts = [f"{problem} {purpose} {seed} {index}" for index in range(count)]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1 for text in texts]


class Judge:
    """Grades policies on an environment of its own.

    curve : ``{"steps", "return", "returns"}`` for each policy reported, at what it had cost by then; goes on with
        that of earlier attempts
    wall_s, processor_s : time that grading took, which is not the method's
    """

    def __init__(self, problem: Problem, seed: int, curve: Iterable[dict[str, Any]] = ()) -> None:
        self.problem, self.seed = problem, seed
        self.meter = InteractionMeter(problem.make())
        self.curve = list(curve)
        self.wall_s = self.processor_s = 0.0

    def report(self, policy: Policy, steps: int) -> None:
        """Add a point to the curve, unless the last one is hardly older."""
        last = self._last(steps)
        if last is not None and last < steps < (1.0 + _SPACING) * last:
            return
        point = self._point(policy, steps, "curve", self.problem.curve_episodes)
        if last == steps:  # two policies for the same steps: what the method stands for is the second
            self.curve.pop()
        self.curve.append(point)

    def final(self, policy: Policy, steps: int) -> dict[str, Any]:
        """The point of the policy that was learned; the last one of the curve."""
        last = self._last(steps)
        point = self._point(policy, steps, "report", self.problem.report_episodes)
        if last == steps:
            self.curve.pop()
        self.curve.append(point)
        return point

    def _last(self, steps: int) -> int | None:
        """Steps of the curve's last point. Raises UncountedSteps if they were more."""
        last = self.curve[-1]["steps"] if self.curve else None
        if last is not None and steps < last:
            raise UncountedSteps(
                f"A policy was reported at {steps} real steps after one at {last}. A method that goes on after a kill "
                "accounts for the steps before it with `system.account`."
            )
        return last

    def _point(self, policy: Policy, steps: int, purpose: str, episodes: int) -> dict[str, Any]:
        wall, processor = time.perf_counter(), time.process_time()
        seeds = episode_seeds(self.problem.name, self.seed, purpose, episodes)
        task = self.problem.task
        with self.meter.counting("report"):
            returns = evaluate(self.meter, policy, seeds=seeds, max_steps=task.horizon, states=task.state_names)
        self.wall_s += time.perf_counter() - wall
        self.processor_s += time.process_time() - processor
        return {"steps": steps, "return": float(np.mean(returns)), "returns": [round(float(r), 3) for r in returns]}

    def close(self) -> None:
        self.meter.close()


def steps_to(curve: Sequence[dict[str, Any]], threshold: float) -> int | None:
    """Real steps spent at the first graded policy whose mean return reaches the threshold; None if none does."""
    return next((point["steps"] for point in curve if point["return"] >= threshold), None)
