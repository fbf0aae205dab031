"""A trial in a process of its own: `python -m benchmarks.control.worker PROBLEM METHOD SEED QUICK FILE`.

PROBLEM and METHOD are ``module:name``; the figures are written to FILE as one JSON object. What a method leaves behind
in its process, compiled or broken, is none of the next one's business.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.control.problem import Problem
from benchmarks.control.trial import run_trial
from sindyrl.run_folder import versions


def load(reference: str) -> Any:
    """The object that ``module:name`` means."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def sized(problem: Problem, quick: bool) -> Problem:
    """The problem as it is graded."""
    import dataclasses

    return dataclasses.replace(problem, curve_episodes=1, report_episodes=2) if quick else problem


def main(arguments: Sequence[str]) -> int:
    problem_reference, method_reference, seed, quick, file = arguments
    kind = load(method_reference)
    problem = sized(load(problem_reference), quick == "quick")
    figures = run_trial(problem, kind.of(problem, quick=quick == "quick"), int(seed))
    figures["versions"] = versions() | _versions(getattr(kind, "PACKAGES", ()))
    Path(file).write_text(json.dumps(figures, allow_nan=False), encoding="utf-8")
    return 0


def _versions(modules: Sequence[str]) -> dict[str, str]:
    found = {}
    for module in modules:
        try:
            found[module] = version(module)
        except PackageNotFoundError:
            continue
    return found


def end_with_parent() -> None:
    """End this process as soon as the one that waits for it has: the trial is begun again elsewhere, or nowhere."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
