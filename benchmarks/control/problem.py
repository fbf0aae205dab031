"""What is to be learned, and the real system as a method gets it: every step counted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium

from sindyrl.collect import HEADS, InteractionMeter
from sindyrl.task import Task


class UncountedSteps(RuntimeError):
    """The real system was driven further than was counted, or under a head that costs nothing."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A real system and what a good return is.

    make : makes the real environment; an episode lasts until it ends it, or for the task's horizon
    threshold : mean return of a policy that has learned it
    curve_episodes, report_episodes : that grade a policy along the way, and the final one
    """

    name: str
    task: Task
    make: Callable[[], gymnasium.Env[Any, Any]]
    threshold: float
    curve_episodes: int = 3
    report_episodes: int = 10


class RealSystem:
    """What a method is given of a problem.

    ``make_env()`` makes as many environments as it likes, each an `InteractionMeter`; all count for it together. Steps
    that it learns from are *data*, steps that choose between policies *selection*; *report* is not for methods.

    folder : where the method may keep what it needs to go on if it is killed; None if nowhere
    """

    def __init__(self, problem: Problem, folder: Path | None = None) -> None:
        self.name, self.task, self.threshold = problem.name, problem.task, problem.threshold
        self.folder = folder
        self._make = problem.make
        self._earlier = dict.fromkeys(HEADS, 0)
        self._meters: list[InteractionMeter] = []
        self._counting = contextlib.ExitStack()

    def make_env(self, head: str | None = None) -> InteractionMeter:
        """A new environment; with ``head`` all its steps are counted there, else the method says where."""
        meter = InteractionMeter(self._make())
        if head is not None:
            self._counting.enter_context(meter.counting(head))
        self._meters.append(meter)
        return meter

    def account(self, *, data: int, selection: int) -> None:
        """What the method has spent in all, with the attempts that were killed. Raises UncountedSteps if it is less
        than what was taken here.
        """
        earlier = {head: told - self.taken[head] for head, told in (("data", data), ("selection", selection))}
        if min(earlier.values()) < 0:
            raise UncountedSteps(
                f"The method accounts for {data} data and {selection} selection steps, but took {self.taken} here."
            )
        self._earlier |= earlier

    @property
    def taken(self) -> dict[str, int]:
        """Steps of this process by head, of all environments."""
        return {head: sum(meter.counts[head] for meter in self._meters) for head in HEADS}

    @property
    def counts(self) -> dict[str, int]:
        """Steps so far by head, with those of attempts that were killed."""
        return {head: steps + self._earlier[head] for head, steps in self.taken.items()}

    @property
    def cost(self) -> int:
        """Real steps so far, data and selection."""
        counts = self.counts
        return counts["data"] + counts["selection"]

    def close(self) -> None:
        self._counting.close()
        for meter in self._meters:
            meter.close()


class Odometer:
    """Counts the steps of all environments of one class, also of those that nobody metered."""

    def __init__(self) -> None:
        self.steps = 0

    @contextlib.contextmanager
    def mounted(self, kind: type[gymnasium.Env[Any, Any]]) -> Iterator[Odometer]:
        own, step = "step" in vars(kind), kind.step

        def counted(env: Any, action: Any) -> Any:
            self.steps += 1
            return step(env, action)

        kind.step = counted  # type: ignore[method-assign, assignment]
        try:
            yield self
        finally:
            if own:
                kind.step = step  # type: ignore[method-assign]
            else:
                del kind.step
