"""Can a closed form be zero in a box? Proven absent by interval arithmetic, or shown by a change of sign."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np

from sindyrl.expression import Node, interval, undefined, variables
from sindyrl.symbolic_map import SymbolicMap

__all__ = ["ZeroCheck", "find_zero"]

_MAX_BOXES = 4096
_MAX_SPLITS = 60  # of the whole list of boxes, each in half
_MAX_CORNERS = 10  # variables, up to which all corners are looked at


@dataclasses.dataclass(frozen=True)
class ZeroCheck:
    """What is known about zeros of a closed form in a box.

    verdict : "none", proven; "present", it is continuous there and takes both signs; "possible", neither is shown
    where : name -> (lower, upper), a part of the box in which it may be zero; empty if there is none
    """

    verdict: Literal["none", "possible", "present"]
    where: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        if self.verdict == "none":
            return "no zero, proven"
        place = ", ".join(f"{name} in [{low:.4g}, {high:.4g}]" for name, (low, high) in self.where.items())
        return ("is zero near " if self.verdict == "present" else "a zero is not excluded near ") + place


def find_zero(node: Node, ranges: Mapping[str, tuple[float, float]]) -> ZeroCheck:
    """Look for zeros of ``node`` over the finite box ``ranges`` (name -> (lower, upper)).

    Halves of the box are bounded by interval arithmetic and those whose bounds exclude zero are done with.
    Raises ValueError for a variable without a range or with one that is not finite and lower <= upper.
    """
    names = variables([node])
    for name in names:
        low, high = ranges.get(name, (np.nan, np.nan))
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(
                f"`find_zero(ranges=...)` must have a finite range, lower <= upper, for {name!r}. "
                f"Got {ranges.get(name)}."
            )
    lower, upper = (np.array([[float(ranges[name][side]) for name in names]]) for side in (0, 1))
    width = np.where(upper > lower, upper - lower, 1.0)[0]
    value = SymbolicMap(names, {"value": node}) if names else None
    if value is None:
        low, high = interval([node], {})[0]
        return ZeroCheck("possible" if low <= 0.0 <= high else "none", {})
    continuous = not undefined([node], {name: ranges[name] for name in names})
    signs: set[int] = set()
    if len(names) <= _MAX_CORNERS:
        corners = np.array(list(itertools.product(*zip(lower[0], upper[0], strict=True))))
        signs |= set(np.sign(value(corners)[:, 0]).astype(int).tolist())
    for _ in range(_MAX_SPLITS):
        boxes = {name: (lower[:, i], upper[:, i]) for i, name in enumerate(names)}
        low, high = interval([node], boxes)[0]
        open_ = (low <= 0.0) & (high >= 0.0)
        if not open_.any():
            return ZeroCheck("none", {})
        lower, upper = lower[open_], upper[open_]
        signs |= set(np.sign(value((lower + upper) / 2.0)[:, 0]).astype(int).tolist()) if continuous else set()
        if 2 * len(lower) > _MAX_BOXES:
            break
        lower, upper = _halves(lower, upper, width)
    # The smallest bounds left are those of the part that splitting could say least about.
    where = {name: (float(lower[0, i]), float(upper[0, i])) for i, name in enumerate(names)}
    shown = continuous and (0 in signs or {-1, 1} <= signs)
    return ZeroCheck("present" if shown else "possible", where)


def _halves(lower: np.ndarray, upper: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each box in two, across its longest side relative to the whole box."""
    rows = np.arange(len(lower))
    side = ((upper - lower) / width).argmax(axis=1)
    middle = (lower[rows, side] + upper[rows, side]) / 2.0
    left, right = upper.copy(), lower.copy()
    left[rows, side] = right[rows, side] = middle
    return np.concatenate([lower, right]), np.concatenate([left, upper])
