"""The most instructions that a call can take, over all paths."""

from __future__ import annotations

from sindyrl.export.emulate import Image


def instruction_bound(image: Image) -> int | None:
    """None: not known."""
    return None
