"""Seeds of reported studies: derived from the code that is studied, not picked."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tree_hash() -> str:
    """Git's hash of the committed tree. RuntimeError where there is no checkout or the work tree differs from it."""
    try:
        dirty = _git("status", "--porcelain", "--untracked-files=no")
        tree = _git("rev-parse", "HEAD^{tree}")
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"Seeds are derived from the commit studied, so a git checkout is needed. {error}"
        ) from error
    if dirty:
        raise RuntimeError(f"Commit first: seeds are derived from the tree studied, and it has changes.\n{dirty}")
    return tree


def derived_seeds(tree: str, count: int) -> list[int]:
    """``sha256(tree hash + index) mod 2^32`` for index 0 ... count - 1."""
    return [int(hashlib.sha256(f"{tree}{index}".encode()).hexdigest(), 16) % 2**32 for index in range(count)]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
