"""How far apart two branches are where rounding may decide between them.

A fixed-point comparison of a and b is right wherever |a - b| exceeds the error of the computed difference. Closer to
the switching surface the other branch may be taken, and the result is then wrong by the gap between the branches
*there*: nothing for a law that is continuous, the whole jump for one that is not. The gap is bounded by interval branch
and bound: boxes in which the surface cannot lie are discarded, the others are halved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sindyrl.interval import interval
from sindyrl.node import Binary, Node
from sindyrl.traversal import variables

MAX_BOXES = 2048
_ROUNDS = 40


def surface_gap(
    difference: Node, doubt: float, taken: Node, other: Node, ranges: Mapping[str, tuple[float, float]]
) -> float:
    """Upper bound of ``|taken - other|`` where ``|difference| <= doubt``; -inf if that is proven to be nowhere."""
    gap = Binary("sub", taken, other)
    names = variables([difference, gap])
    if not names:
        near, size = _measure(difference, gap, doubt, {}, 1)
        return float(size[0]) if near[0] else -math.inf
    lower = np.array([[ranges[name][0]] for name in names])
    upper = np.array([[ranges[name][1]] for name in names])
    scale = np.maximum(upper - lower, np.finfo(np.float64).tiny)
    bound = math.inf
    for _ in range(_ROUNDS):
        boxes = {name: (lower[row], upper[row]) for row, name in enumerate(names)}
        near, size = _measure(difference, gap, doubt, boxes, lower.shape[1])
        if not near.any():
            return -math.inf
        lower, upper = lower[:, near], upper[:, near]
        bound = min(bound, float(np.max(size[near])))  # both bounds hold, the boxes of every round cover the surface
        if 2 * lower.shape[1] > MAX_BOXES:
            break
        widest = np.argmax((upper - lower) / scale, axis=0)
        columns = np.arange(lower.shape[1])
        middle = 0.5 * (lower[widest, columns] + upper[widest, columns])
        left, right = upper.copy(), lower.copy()
        left[widest, columns] = right[widest, columns] = middle
        lower, upper = np.concatenate([lower, right], axis=1), np.concatenate([left, upper], axis=1)
    return bound


def _measure(
    difference: Node,
    gap: Node,
    doubt: float,
    boxes: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    count: int,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Per box: whether the surface may be near, and the largest gap."""
    (low, high), (gap_low, gap_high) = interval([difference, gap], boxes)
    near = (np.asarray(low) <= doubt) & (np.asarray(high) >= -doubt)
    size = np.maximum(np.abs(gap_low), np.abs(gap_high))
    return np.broadcast_to(near, (count,)), np.broadcast_to(size, (count,))
