"""`sindyrl bench`: the benchmarks of a checkout, each a file with ``Settings`` and ``run``.

A benchmark runs in a process of its own, `python -m benchmarks.<name>`: timings ask for one thread before NumPy is
loaded, which the command line has long done.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sindyrl import console
from sindyrl.checkout import find_checkout, first_line

__all__ = ["benchmarks", "list_benchmarks", "run_benchmark"]

_FOLDERS = ("benchmarks", "benchmarks/speed")


def benchmarks(root: Path) -> dict[str, tuple[str, str]]:
    """Name -> module and what it is, for every file that defines ``Settings`` and ``run``. Nothing is imported."""
    found = {}
    for folder in _FOLDERS:
        for file in sorted((root / folder).glob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
            if {"Settings", "run"} <= names:
                found[file.stem] = (f"{folder.replace('/', '.')}.{file.stem}", first_line(file))
    return found


def list_benchmarks(*, json: bool = False) -> None:
    """Print what there is."""
    found = {name: what for name, (_, what) in benchmarks(find_checkout()).items()}
    if json:
        console.json_line({"benchmarks": found})
    else:
        console.print_names(found, "sindyrl bench")


def run_benchmark(name: str, options: Sequence[str] = ()) -> int:
    """Run one with its own options; returns its exit code."""
    root = find_checkout()
    known = benchmarks(root)
    if name not in known:
        raise ValueError(f"`bench` must name one of {', '.join(known)}. Got {name!r}.")
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    # A benchmark may take hours: it must not go on when this command is killed and nobody waits for it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "SINDYRL_ENDS_WITH_PARENT": str(os.getpid())}
    # -P: a folder called benchmarks where the user stands is not ours.
    command = [sys.executable, "-P", "-m", known[name][0], *options]
    code = subprocess.run(command, env=environment, check=False).returncode
    return code if code >= 0 else 128 - code  # ended by a signal, as a shell tells it
