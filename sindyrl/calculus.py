"""Symbolic differentiation: closed forms in, closed forms out, sub-expressions shared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sindyrl.node import (
    Binary,
    Comparison,
    Constant,
    Dense,
    Element,
    Node,
    Piecewise,
    Power,
    Unary,
    Variable,
)
from sindyrl.traversal import topological

_ZERO: Node = Constant(0.0)
_ONE: Node = Constant(1.0)
_Slopes = Mapping[Node, Node]


def differentiate(outputs: Sequence[Node], names: Sequence[str]) -> list[list[Node]]:
    """Partial derivatives ``d outputs[i] / d names[j]`` as ``result[i][j]``.

    Forward mode over the shared graph, one sweep per name. Where a function has no derivative, one side is taken: that
    of the value chosen by ``min``, ``max``, ``relu`` and ``Piecewise``, and 0 for ``abs`` at 0; jumps (``sign``,
    branches that do not meet) differentiate to what holds beside them.
    """
    order = topological(outputs)
    sweeps = [_sweep(order, name) for name in names]
    return [[slopes.get(node, _ZERO) for slopes in sweeps] for node in outputs]


def _sweep(order: Sequence[Node], name: str) -> dict[Node, Node]:
    """Derivatives of all nodes for one name; nodes that do not depend on it are absent."""
    slopes: dict[Node, Node] = {}
    layers: dict[Node, tuple[Node, ...]] = {}  # derivative of ``matrix @ args + bias`` of each layer met
    for node in order:
        if isinstance(node, Variable):
            slope = _ONE if node.name == name else _ZERO
        elif isinstance(node, Element):
            slope = _element(node, slopes, layers)
        elif isinstance(node, (Constant, Comparison, Dense)) or not any(child in slopes for child in node.children):
            continue
        elif isinstance(node, Unary):
            slope = times(_UNARY_SLOPE[node.op](node), slopes[node.arg])
        elif isinstance(node, Power):
            slope = times(_power_slope(node), slopes[node.base])
        elif isinstance(node, Piecewise):
            slope = _piecewise(node, slopes)
        else:
            assert isinstance(node, Binary)
            slope = _binary(node, slopes)
        if slope is not _ZERO:
            slopes[node] = slope
    return slopes


def plus(a: Node, b: Node) -> Node:
    """``a + b`` without adding zeros."""
    if _is_zero(a):
        return b
    if _is_zero(b):
        return a
    return _folded(Binary("add", a, b))


def minus(a: Node, b: Node) -> Node:
    """``a - b`` without subtracting zeros."""
    if _is_zero(b):
        return a
    if _is_zero(a):
        return negative(b)
    return _folded(Binary("sub", a, b))


def times(a: Node, b: Node) -> Node:
    """``a * b`` without multiplying by 0, 1 or -1."""
    if _is_zero(a) or _is_zero(b):
        return _ZERO
    if a is _ONE:
        return b
    if b is _ONE:
        return a
    if a is Constant(-1.0):
        return negative(b)
    if b is Constant(-1.0):
        return negative(a)
    return _folded(Binary("mul", a, b))


def over(a: Node, b: Node) -> Node:
    """``a / b`` without dividing zero or dividing by one."""
    if _is_zero(a):
        return _ZERO
    return a if b is _ONE else _folded(Binary("div", a, b))


def negative(a: Node) -> Node:
    """``-a``; minus minus is plus."""
    if isinstance(a, Constant):
        return Constant(-a.value)
    return a.arg if isinstance(a, Unary) and a.op == "neg" else Unary("neg", a)


def _is_zero(node: Node) -> bool:
    return isinstance(node, Constant) and node.value == 0.0


def _folded(node: Binary) -> Node:
    """The value of an operation on two constants, rounded as it would be at run time; other nodes as they are."""
    if not (isinstance(node.left, Constant) and isinstance(node.right, Constant)):
        return node
    a, b = node.left.value, node.right.value
    if node.op == "div":
        value = a / b if b else math.inf
    else:
        value = a + b if node.op == "add" else a - b if node.op == "sub" else a * b
    return Constant(value) if math.isfinite(value) else node


def _power(base: Node, exponent: int) -> Node:
    return _ONE if exponent == 0 else base if exponent == 1 else Power(base, exponent)


def _power_slope(node: Power) -> Node:
    """``n x^(n-1)``. Beyond the smallest exponent the language has, ``n x^n / x``."""
    if node.exponent == 0:
        return _ZERO
    if node.exponent - 1 < -1024:
        return over(times(Constant(node.exponent), node), node.base)
    return times(Constant(node.exponent), _power(node.base, node.exponent - 1))


_UNARY_SLOPE: dict[str, Callable[[Unary], Node]] = {
    "neg": lambda node: Constant(-1.0),
    "sin": lambda node: Unary("cos", node.arg),
    "cos": lambda node: negative(Unary("sin", node.arg)),
    "tan": lambda node: plus(_ONE, Power(node, 2)),
    "tanh": lambda node: minus(_ONE, Power(node, 2)),
    "exp": lambda node: node,
    "log": lambda node: over(_ONE, node.arg),
    "sqrt": lambda node: over(Constant(0.5), node),
    "abs": lambda node: Unary("sign", node.arg),
    "sign": lambda node: _ZERO,
}


def _binary(node: Binary, slopes: _Slopes) -> Node:
    a, b = node.left, node.right
    da, db = slopes.get(a, _ZERO), slopes.get(b, _ZERO)
    if node.op == "add":
        return plus(da, db)
    if node.op == "sub":
        return minus(da, db)
    if node.op == "mul":
        return plus(times(da, b), times(a, db))
    if node.op == "div":
        return over(minus(da, times(node, db)), b)
    condition = Comparison("lt" if node.op == "min" else "gt", a, b)
    return da if da is db else Piecewise([(condition, da)], db)


def _piecewise(node: Piecewise, slopes: _Slopes) -> Node:
    branches = [(condition, slopes.get(value, _ZERO)) for condition, value in node.branches]
    default = slopes.get(node.default, _ZERO)
    if all(slope is default for _, slope in branches):
        return default
    return Piecewise(branches, default)


def _element(node: Element, slopes: _Slopes, layers: dict[Node, tuple[Node, ...]]) -> Node:
    layer = node.dense
    if layer not in layers:
        layers[layer] = _linear_part(layer, slopes)
    slope = layers[layer][node.index] if layers[layer] else _ZERO
    if slope is _ZERO or layer.activation == "identity":
        return slope
    if layer.activation == "tanh":
        return times(minus(_ONE, Power(node, 2)), slope)
    return Piecewise([(Comparison("gt", node, _ZERO), slope)], _ZERO)


def _linear_part(layer: Dense, slopes: _Slopes) -> tuple[Node, ...]:
    """``matrix @ (derivatives of the arguments)``, again a layer; empty if nothing depends on the name."""
    columns = [j for j, arg in enumerate(layer.children) if arg in slopes]
    if not columns:
        return ()
    args = [slopes[layer.children[j]] for j in columns]
    if len(columns) == 1:
        return tuple(times(Constant(float(w)), args[0]) for w in layer.matrix[:, columns[0]])
    product = Dense(layer.matrix[:, columns], np.zeros(len(layer.bias)), "identity", args)
    return tuple(Element(product, index) for index in range(len(layer.bias)))
