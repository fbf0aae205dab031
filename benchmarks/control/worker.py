"""A trial in a process of its own: `python -m benchmarks.control.worker PROBLEM METHOD SEED QUICK FILE [FOLDER]`.

PROBLEM and METHOD are ``module:name``; the figures are written to FILE as one JSON object. What a method leaves behind
in its process, compiled or broken, is none of the next one's business. In FOLDER it keeps what it needs to go on there
if it is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import orphan
from benchmarks.control.problem import Problem
from benchmarks.control.trial import run_trial
from sindyrl.run_folder import versions

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


_PATIENCE = 10  # seconds: a trial that nobody waits for any more ends within one or two


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
    # Without a lock two processes might write into one folder.
    folder = Path(rest[0]) if rest and getattr(kind, "RESUMES", False) and fcntl is not None else None
    with contextlib.nullcontext() if folder is None else _alone(folder):
        figures = run_trial(problem, method, int(seed), folder)
    figures["versions"] = versions() | _versions(getattr(kind, "PACKAGES", ()))
    Path(file).write_text(json.dumps(figures, allow_nan=False), encoding="utf-8")
    return 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else is in the folder meanwhile. Only a kill leaves anything there: what raised begins again.

    Raises BlockingIOError if somebody else stays there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        for last in (*[False] * _PATIENCE, True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    raise BlockingIOError(f"Another process runs this trial, in {folder}.") from None
                time.sleep(1.0)
        try:
            yield
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _versions(modules: Sequence[str]) -> dict[str, str]:
    found = {}
    for module in modules:
        try:
            found[module] = version(module)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    orphan.if_asked()
    sys.exit(main(sys.argv[1:]))
