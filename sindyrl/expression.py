"""The closed-form language: nodes, functions that build them, and what can be asked of an expression.

    x, v = Variable("x"), Variable("v")
    force = clip(-2.0 * x - 0.5 * v**3, -1.0, 1.0)

This file is the front door; the meaning of every operation is in :mod:`sindyrl.node`.
"""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import ArrayLike

from sindyrl.calculus import differentiate
from sindyrl.interval import interval, undefined
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
    as_node,
    check_name,
)
from sindyrl.node_table import from_list, to_list
from sindyrl.traversal import expand_powers, multiply_chain, substitute, topological, transform, variables

__all__ = [
    "Binary",
    "Comparison",
    "Constant",
    "Dense",
    "Element",
    "Node",
    "Piecewise",
    "Power",
    "Unary",
    "Variable",
    "absolute",
    "as_node",
    "check_name",
    "clip",
    "cos",
    "dense",
    "differentiate",
    "exp",
    "expand_powers",
    "from_list",
    "interval",
    "log",
    "maximum",
    "minimum",
    "multiply_chain",
    "piecewise",
    "sign",
    "sin",
    "sqrt",
    "substitute",
    "tan",
    "tanh",
    "to_list",
    "topological",
    "transform",
    "undefined",
    "variables",
]


def sin(x: Node | float) -> Node:
    """Sine of an angle in radians."""
    return Unary("sin", as_node(x))


def cos(x: Node | float) -> Node:
    """Cosine of an angle in radians."""
    return Unary("cos", as_node(x))


def tan(x: Node | float) -> Node:
    """Tangent of an angle in radians."""
    return Unary("tan", as_node(x))


def tanh(x: Node | float) -> Node:
    """Hyperbolic tangent."""
    return Unary("tanh", as_node(x))


def exp(x: Node | float) -> Node:
    """Exponential function."""
    return Unary("exp", as_node(x))


def log(x: Node | float) -> Node:
    """Natural logarithm; NaN below zero, -inf at zero."""
    return Unary("log", as_node(x))


def sqrt(x: Node | float) -> Node:
    """Square root; NaN below zero."""
    return Unary("sqrt", as_node(x))


def absolute(x: Node | float) -> Node:
    """Absolute value."""
    return Unary("abs", as_node(x))


def sign(x: Node | float) -> Node:
    """``x > 0 ? 1 : (x < 0 ? -1 : x)``."""
    return Unary("sign", as_node(x))


def minimum(a: Node | float, b: Node | float) -> Node:
    """``a < b ? a : b``; with a NaN in either argument, ``b``."""
    return Binary("min", as_node(a), as_node(b))


def maximum(a: Node | float, b: Node | float) -> Node:
    """``a > b ? a : b``; with a NaN in either argument, ``b``."""
    return Binary("max", as_node(a), as_node(b))


def clip(x: Node | float, lo: Node | float, hi: Node | float) -> Node:
    """``minimum(maximum(x, lo), hi)``. A NaN ``x`` gives ``lo``, so an actuator always gets a value in its range."""
    low, high = as_node(lo), as_node(hi)
    if isinstance(low, Constant) and isinstance(high, Constant) and low.value > high.value:
        raise ValueError(f"`clip(lo=..., hi=...)` must satisfy lo <= hi. Got {low.value} and {high.value}.")
    return minimum(maximum(x, low), high)


def piecewise(branches: Iterable[tuple[Comparison, Node | float]], default: Node | float) -> Node:
    """Value of the first branch whose condition is true, else ``default``."""
    return Piecewise([(condition, as_node(value)) for condition, value in branches], as_node(default))


def dense(matrix: ArrayLike, bias: ArrayLike, activation: str, args: Iterable[Node | float]) -> tuple[Node, ...]:
    """All entries of ``activation(matrix @ args + bias)``; matrix (m, n), bias (m,), n arguments, m results."""
    layer = Dense(matrix, bias, activation, [as_node(arg) for arg in args])
    return tuple(Element(layer, index) for index in range(len(layer.bias)))
