"""Guaranteed bounds of expressions over boxes of inputs, by interval arithmetic with outward rounding.

Reference: Moore, Kearfott, Cloud, *Introduction to Interval Analysis*, SIAM 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Power, Unary, Variable
from sindyrl.traversal import multiply_chain, topological

Array = NDArray[Any]
Bounds = tuple[Array, Array]
Checked = tuple[Any, Any, Any]
"""Lower bound, upper bound, and where the operation may be undefined."""

LIBRARY_ERROR = 4
"""Units in the last place by which a mathematical library may be wrong; glibc and NumPy promise less."""


def interval(outputs: Sequence[Node], ranges: Mapping[str, tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Bounds ``(lo, hi)`` of each output for all inputs in ``ranges`` (name -> (lower, upper), infinite allowed).

    Sound twice: the exact real value lies within, and so does the float64 value that the NumPy and C back ends compute,
    unless an intermediate overflows. Where an argument may be bad (``log`` at or below 0, ``sqrt`` below 0, division or
    a negative power at 0, ``tan`` at a pole) the bounds are (-inf, inf); :func:`undefined` lists such places.

    Ranges may be arrays of any broadcastable shapes, one entry per box: then so are the bounds.
    Raises ValueError for a variable without a range or a range that is not lower <= upper.
    """
    bounds, _ = _evaluate(outputs, ranges)
    results = (bounds[node] for node in outputs)
    if all(np.ndim(side) == 0 for pair in ranges.values() for side in pair):
        return [(float(lo), float(hi)) for lo, hi in results]
    shape = np.broadcast_shapes(*(np.shape(side) for pair in ranges.values() for side in pair))
    return [(np.array(np.broadcast_to(lo, shape)), np.array(np.broadcast_to(hi, shape))) for lo, hi in results]


def undefined(outputs: Sequence[Node], ranges: Mapping[str, tuple[Any, Any]]) -> list[Node]:
    """Nodes whose argument may be bad somewhere in ``ranges``, in evaluation order; empty proves that none is.

    Also nodes of a branch that may not be taken count. Overflow to infinity does not.
    """
    _, suspects = _evaluate(outputs, ranges)
    return suspects


def _evaluate(
    outputs: Sequence[Node], ranges: Mapping[str, tuple[Any, Any]]
) -> tuple[dict[Node, tuple[Any, Any]], list[Node]]:
    boxes = {name: _checked_range(name, pair) for name, pair in ranges.items()}
    bounds: dict[Node, tuple[Any, Any]] = {}
    suspects = []
    with np.errstate(all="ignore"):
        for node in topological(outputs):
            children = [bounds[child] for child in node.children]
            if isinstance(node, Variable):
                if node.name not in boxes:
                    raise ValueError(
                        f"`interval(ranges=...)` must have a range for {node.name!r}. Got {sorted(boxes)}."
                    )
                bounds[node] = boxes[node.name]
                continue
            lo, hi, bad = _bounds(node, children)
            if np.any(bad):
                suspects.append(node)
                lo, hi = np.where(bad, -np.inf, lo), np.where(bad, np.inf, hi)
            bounds[node] = (lo, hi)
    return bounds, suspects


def _checked_range(name: str, pair: tuple[Any, Any]) -> Bounds:
    lo, hi = (np.asarray(side, dtype=np.float64) for side in pair)
    if not np.all(lo <= hi):
        raise ValueError(f"`interval(ranges=...)` must have lower <= upper. Got {pair} for {name!r}.")
    return lo, hi


_SOUND = np.False_


def _bounds(node: Node, children: list[Bounds]) -> Checked:
    if isinstance(node, Constant):
        value = np.float64(node.value)
        return value, value, _SOUND
    if isinstance(node, Unary):
        return _UNARY[node.op](*children[0])
    if isinstance(node, Binary):
        if node.op == "mul" and node.left is node.right:
            return _power(children[0], 2)
        return _BINARY[node.op](*children)
    if isinstance(node, Power):
        return _power(children[0], node.exponent)
    if isinstance(node, Comparison):
        return _compare(node.op, *children)
    if isinstance(node, Piecewise):
        return _piecewise(children)
    if isinstance(node, Dense):
        return _dense(node, children)
    assert isinstance(node, Element)
    lo, hi = children[0]
    return lo[node.index], hi[node.index], _SOUND


# ---- rounding outward


def _down(x: Array, steps: int = 1) -> Array:
    for _ in range(steps):
        x = np.nextafter(x, -np.inf)
    return x


def _up(x: Array, steps: int = 1) -> Array:
    for _ in range(steps):
        x = np.nextafter(x, np.inf)
    return x


def _sum_error(a: Array, b: Array, total: Array) -> Array:
    """The exact ``a + b - total`` (Knuth's two-sum); NaN when anything is infinite."""
    part = total - a
    return (a - (total - part)) + (b - part)


def _sum_down(a: Array, b: Array) -> Array:
    total = a + b
    low = np.where(_sum_error(a, b, total) >= 0, total, _down(total))
    return np.where(np.isnan(total), -np.inf, low)


def _sum_up(a: Array, b: Array) -> Array:
    return -_sum_down(-a, -b)


def _exact_product(a: Array, b: Array) -> Array:
    return (a == 0) | (b == 0) | (np.abs(a) == 1) | (np.abs(b) == 1)


def _product_down(a: Array, b: Array) -> Array:
    product = a * b
    low = np.where(_exact_product(a, b), product, _down(product))
    return np.where((a == 0) | (b == 0), 0.0, low)  # 0 * inf: an infinite bound stands for arbitrarily large reals


def _product_up(a: Array, b: Array) -> Array:
    return -_product_down(-a, b)


# ---- the operations


def _add(a: Bounds, b: Bounds) -> Checked:
    return _sum_down(a[0], b[0]), _sum_up(a[1], b[1]), _SOUND


def _sub(a: Bounds, b: Bounds) -> Checked:
    return _add(a, (-b[1], -b[0]))


def _mul(a: Bounds, b: Bounds) -> Checked:
    corners = [(x, y) for x in a for y in b]
    lo = np.minimum.reduce(np.broadcast_arrays(*(_product_down(x, y) for x, y in corners)))
    hi = np.maximum.reduce(np.broadcast_arrays(*(_product_up(x, y) for x, y in corners)))
    return lo, hi, _SOUND


def _div(a: Bounds, b: Bounds) -> Checked:
    bad = (b[0] <= 0) & (b[1] >= 0)
    # inf/inf: the neighboring corners already reach the extremes, 0 among them
    corners = [np.nan_to_num(x / y, nan=0.0, posinf=np.inf, neginf=-np.inf) for x in a for y in b]
    lo = np.minimum.reduce(np.broadcast_arrays(*corners))
    hi = np.maximum.reduce(np.broadcast_arrays(*corners))
    return _down(lo), _up(hi), bad


def _min(a: Bounds, b: Bounds) -> Checked:
    return np.minimum(a[0], b[0]), np.minimum(a[1], b[1]), _SOUND


def _max(a: Bounds, b: Bounds) -> Checked:
    return np.maximum(a[0], b[0]), np.maximum(a[1], b[1]), _SOUND


def _power(x: Bounds, exponent: int) -> Checked:
    """Directed rounding along the multiplication chain of the magnitudes, which is monotone."""
    lo, hi = x
    if exponent == 0:
        return np.ones_like(lo), np.ones_like(hi), _SOUND
    n = abs(exponent)
    below = multiply_chain(np.abs(lo), n, _product_down), multiply_chain(np.abs(hi), n, _product_down)
    above = multiply_chain(np.abs(lo), n, _product_up), multiply_chain(np.abs(hi), n, _product_up)
    if n % 2:
        result = np.where(lo < 0, -above[0], below[0]), np.where(hi < 0, -below[1], above[1])
    else:
        crosses = (lo <= 0) & (hi >= 0)
        result = np.where(crosses, 0.0, np.minimum(*below)), np.maximum(*above)
    if exponent > 0:
        return *result, _SOUND
    one = np.asarray(1.0)
    inverse_lo, inverse_hi, bad = _div((one, one), result)
    return inverse_lo, inverse_hi, bad | ((lo <= 0) & (hi >= 0))


def _negate(lo: Array, hi: Array) -> Checked:
    return -hi, -lo, _SOUND


def _absolute(lo: Array, hi: Array) -> Checked:
    crosses = (lo <= 0) & (hi >= 0)
    return np.where(crosses, 0.0, np.minimum(np.abs(lo), np.abs(hi))), np.maximum(np.abs(lo), np.abs(hi)), _SOUND


def _sign(lo: Array, hi: Array) -> Checked:
    return np.sign(lo), np.sign(hi), _SOUND


def _sqrt(lo: Array, hi: Array) -> Checked:
    return np.where(lo == 0, 0.0, _down(np.sqrt(lo))), np.where(hi == 0, 0.0, _up(np.sqrt(hi))), lo < 0


def _log(lo: Array, hi: Array) -> Checked:
    return _down(np.log(lo), LIBRARY_ERROR), _up(np.log(hi), LIBRARY_ERROR), lo <= 0


def _exp(lo: Array, hi: Array) -> Checked:
    return np.maximum(_down(np.exp(lo), LIBRARY_ERROR), 0.0), _up(np.exp(hi), LIBRARY_ERROR), _SOUND


def _tanh(lo: Array, hi: Array) -> Checked:
    low, high = _down(np.tanh(lo), LIBRARY_ERROR), _up(np.tanh(hi), LIBRARY_ERROR)
    return np.maximum(low, -1.0), np.minimum(high, 1.0), _SOUND


def _tan(lo: Array, hi: Array) -> Checked:
    bad = _reaches(lo, hi, math.pi / 2, math.pi)
    return _down(np.tan(lo), LIBRARY_ERROR), _up(np.tan(hi), LIBRARY_ERROR), bad


def _sin(lo: Array, hi: Array) -> Checked:
    return _wave(np.sin, lo, hi, crest=math.pi / 2)


def _cos(lo: Array, hi: Array) -> Checked:
    return _wave(np.cos, lo, hi, crest=0.0)


def _wave(function: Callable[[Array], Array], lo: Array, hi: Array, *, crest: float) -> Checked:
    """Extremes of a sinusoid: those of the end points, and +1 or -1 where a crest or trough is reached."""
    ends = function(lo), function(hi)
    low = np.maximum(_down(np.minimum(*ends), LIBRARY_ERROR), -1.0)
    high = np.minimum(_up(np.maximum(*ends), LIBRARY_ERROR), 1.0)
    low = np.where(_reaches(lo, hi, crest + math.pi, 2 * math.pi), -1.0, low)
    return low, np.where(_reaches(lo, hi, crest, 2 * math.pi), 1.0, high), _SOUND


def _reaches(lo: Array, hi: Array, point: float, period: float) -> Array:
    """Whether ``point + k period`` lies in [lo, hi] for some integer k; when rounding leaves it open, yes."""
    first, last = (lo - point) / period, (hi - point) / period
    slack = 8 * np.finfo(np.float64).eps
    first, last = first - slack * (np.abs(first) + 1), last + slack * (np.abs(last) + 1)
    return np.isinf(lo) | np.isinf(hi) | (np.floor(last) >= np.ceil(first))


def _compare(op: str, a: Bounds, b: Bounds) -> Checked:
    """Truth as bounds: the lower one says *always*, the upper one says *possibly*."""
    if op in ("gt", "ge"):
        a, b = b, a
    if op in ("lt", "gt"):
        return a[1] < b[0], a[0] < b[1], _SOUND
    return a[1] <= b[0], a[0] <= b[1], _SOUND


def _piecewise(children: list[Bounds]) -> Checked:
    """Hull of the branches that can be taken."""
    lo: Array = np.asarray(np.inf)
    hi: Array = np.asarray(-np.inf)
    reached: Array = np.asarray(True)
    always_true = np.asarray(True)
    conditions = [*children[0:-1:2], (always_true, always_true)]
    values = [*children[1:-1:2], children[-1]]
    for (always, possibly), (low, high) in zip(conditions, values, strict=True):
        taken = reached & possibly
        lo, hi = np.where(taken, np.minimum(lo, low), lo), np.where(taken, np.maximum(hi, high), hi)
        reached = reached & ~always
    return lo, hi, _SOUND


def _dense(node: Dense, args: list[Bounds]) -> Checked:
    shape = np.broadcast_shapes(*(np.shape(side) for pair in args for side in pair))
    column = (-1,) + (1,) * len(shape)
    lo = hi = np.broadcast_to(node.bias.reshape(column), (len(node.bias), *shape))
    for weights, arg in zip(node.matrix.T, args, strict=True):
        weight = weights.reshape(column)
        low, high, _ = _mul((weight, weight), arg)
        lo, hi = _sum_down(lo, low), _sum_up(hi, high)
    if node.activation == "tanh":
        return _tanh(lo, hi)
    return (np.maximum(lo, 0.0), np.maximum(hi, 0.0), _SOUND) if node.activation == "relu" else (lo, hi, _SOUND)


_UNARY: dict[str, Callable[[Array, Array], Checked]] = {
    "neg": _negate,
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "tanh": _tanh,
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "abs": _absolute,
    "sign": _sign,
}
_BINARY: dict[str, Callable[[Bounds, Bounds], Checked]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "min": _min,
    "max": _max,
}
