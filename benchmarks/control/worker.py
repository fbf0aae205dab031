"""A trial in a process of its own: `python -m benchmarks.control.worker PROBLEM METHOD SEED QUICK FILE [FOLDER]`.

PROBLEM and METHOD are ``module:name``; the figures are written to FILE as one JSON object. What a method leaves behind
in its process, compiled or broken, is none of the next one's business. In FOLDER it keeps what it needs to go on there
if it is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.control.problem import Problem
from benchmarks.control.trial import run_trial
from benchmarks.orphan import end_with_parent
from sindyrl.run_folder import versions

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


def load(reference: str) -> Any:
    """The object that ``module:name`` means."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def sized(problem: Problem, quick: bool) -> Problem:
    """The problem as it is graded."""
    import dataclasses

    return dataclasses.replace(problem, curve_episodes=1, report_episodes=2) if quick else problem


def main(arguments: Sequence[str]) -> int:
    problem_reference, method_reference, seed, quick, file, *rest = arguments
    kind = load(method_reference)
    problem = sized(load(problem_reference), quick == "quick")
    method = kind.of(problem, quick=quick == "quick")
    folder = Path(rest[0]) if rest and getattr(kind, "RESUMES", False) else None
    with _alone(folder):
        figures = run_trial(problem, method, int(seed), folder)
    figures["versions"] = versions() | _versions(getattr(kind, "PACKAGES", ()))
    Path(file).write_text(json.dumps(figures, allow_nan=False), encoding="utf-8")
    return 0


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Wait until nobody else is in the folder: a trial that was given up may need a second to notice."""
    if folder is None or fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _versions(modules: Sequence[str]) -> dict[str, str]:
    found = {}
    for module in modules:
        try:
            found[module] = version(module)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
