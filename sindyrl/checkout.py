"""Benchmarks and reproductions belong to a checkout of the repository; they are not installed with the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

__all__ = ["Listed", "find_checkout", "first_line", "importable"]

_FOLDERS = ("benchmarks", "paper_reproductions")
_HERE = Path(__file__).resolve().parent.parent

Listed = dict[str, str]  # name -> what it is, in a line


def find_checkout(root: Path = _HERE) -> Path:
    """The checkout that this package is part of.

    Raises RuntimeError where there is none: figures of another checkout would not be figures of this code.
    """
    if _is_checkout(root):
        return root
    here = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if _is_checkout(folder)), None)
    remedy = (
        f"{here} is a checkout: run `python -m sindyrl` there, or install it with `pip install -e {here}`."
        if here is not None
        else "Clone the repository, install it with `pip install -e .` and use that command."
    )
    raise RuntimeError(
        "`bench` and `reproduce` run from a checkout: benchmarks/ and paper_reproductions/ are not installed, and this "
        f"sindyrl is the one installed in {root}. {remedy}"
    )


def importable(root: Path) -> None:
    """Let `benchmarks` and `paper_reproductions` be imported from the checkout, before anything of that name."""
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))


def first_line(file: Path) -> str:
    """The first line of a Python file's docstring, without what follows a colon and a command; empty if it has none."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line.split(": ``")[0].rstrip(".:")


def _is_checkout(root: Path) -> bool:
    return (root / "setup.cfg").is_file() and all((root / folder).is_dir() for folder in _FOLDERS)
