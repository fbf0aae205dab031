"""Expressions as SymPy expressions and back: a view for simplifying, differentiating and a user's own formulas.

SymPy reorders sums and folds constants as it builds, so what comes back computes the same function with other rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import sympy


def to_sympy(outputs: Sequence[Node]) -> list[sympy.Expr]:
    """SymPy expressions of ``outputs``; variables become real symbols of the same name."""
    values: dict[Node, Any] = {}
    for node in topological(outputs):
        values[node] = _to_sympy(node, [values[child] for child in node.children])
    return [values[node] for node in outputs]


def from_sympy(exprs: Sequence[Any]) -> list[Node]:
    """Expressions of SymPy expressions or numbers; nothing is parsed.

    Raises TypeError for text and ValueError for what the language does not have.
    """
    import sympy

    nodes: dict[Any, Node] = {}
    for expr in exprs:
        if isinstance(expr, (str, bytes)) or not isinstance(expr, (sympy.Basic, int, float)):
            raise TypeError(f"`from_sympy(exprs=...)` takes SymPy expressions and numbers. Got {expr!r}.")
    roots = [sympy.sympify(expr, strict=True) for expr in exprs]
    stack = list(reversed(roots))
    while stack:
        expr = stack[-1]
        waiting = [part for part in _parts(expr) if part not in nodes]
        if waiting:
            stack.extend(reversed(waiting))
        else:
            stack.pop()
            nodes[expr] = _from_sympy(expr, nodes)
    return [nodes[root] for root in roots]


def _to_sympy(node: Node, children: list[Any]) -> Any:
    import sympy

    if isinstance(node, Constant):
        small_integer = node.value.is_integer() and abs(node.value) < 2**53
        return sympy.Integer(int(node.value)) if small_integer else sympy.Float(node.value)
    if isinstance(node, Variable):
        return sympy.Symbol(node.name, real=True)
    if isinstance(node, Unary):
        (x,) = children
        return -x if node.op == "neg" else getattr(sympy, "Abs" if node.op == "abs" else node.op)(x)
    if isinstance(node, (Binary, Comparison)):
        return _operations()[node.op](*children)
    if isinstance(node, Power):
        return children[0] ** node.exponent
    if isinstance(node, Piecewise):
        pairs = zip(children[1:-1:2], children[0:-1:2], strict=True)
        return sympy.Piecewise(*pairs, (children[-1], True))
    if isinstance(node, Dense):
        return _layer(node, children)
    assert isinstance(node, Element)
    return children[0][node.index]


def _operations() -> dict[str, Callable[[Any, Any], Any]]:
    import sympy

    return {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "min": sympy.Min,
        "max": sympy.Max,
        "lt": sympy.Lt,
        "le": sympy.Le,
        "gt": sympy.Gt,
        "ge": sympy.Ge,
    }


def _layer(node: Dense, args: list[Any]) -> list[Any]:
    import sympy

    activations: dict[str, Callable[[Any], Any]] = {
        "identity": lambda z: z,
        "tanh": sympy.tanh,
        "relu": lambda z: sympy.Max(z, 0),
    }
    sums = [
        sympy.Add(sympy.Float(bias), *(sympy.Float(weight) * arg for weight, arg in zip(weights, args, strict=True)))
        for weights, bias in zip(node.matrix.tolist(), node.bias.tolist(), strict=True)
    ]
    return [activations[node.activation](total) for total in sums]


def _parts(expr: Any) -> Sequence[Any]:
    """Sub-expressions that must be converted first, in reading order."""
    import sympy

    if expr.is_Add:
        return expr.as_ordered_terms()
    if expr.is_Mul:
        numerator, denominator = _fraction(expr)
        return [*numerator, *denominator]
    if expr.is_Pow:
        return [expr.base]
    if isinstance(expr, sympy.Piecewise):
        values = [branch.expr for branch in expr.args]
        return [*values, *(side for branch in expr.args if branch.cond != sympy.true for side in branch.cond.args)]
    return expr.args


def _fraction(expr: Any) -> tuple[list[Any], list[Any]]:
    """Factors of a product, those with a negative power moved below the line."""
    numerator, denominator = [], []
    for factor in expr.as_ordered_factors():
        if factor.is_Pow and factor.exp.is_Rational and factor.exp.is_negative:
            denominator.append(factor.base**-factor.exp)
        else:
            numerator.append(factor)
    return numerator, denominator


def _from_sympy(expr: Any, nodes: dict[Any, Node]) -> Node:
    import sympy

    if expr.is_Symbol:
        return Variable(expr.name)
    if (expr.is_number and not expr.args) or expr.is_Rational:
        return _constant(expr)
    if expr.is_Add:
        return _chain("add", [nodes[term] for term in expr.as_ordered_terms()])
    if expr.is_Mul:
        return _product(expr, nodes)
    if expr.is_Pow:
        return _power(nodes[expr.base], expr)
    name = type(expr).__name__
    if name in _FUNCTIONS:
        return Unary(_FUNCTIONS[name], nodes[expr.args[0]])
    if name in ("Min", "Max"):
        return _chain(name.lower(), [nodes[arg] for arg in expr.args])
    if isinstance(expr, sympy.Piecewise):
        return _piecewise(expr, nodes)
    supported = "+ - * /, integer and half-integer powers, Min, Max, Piecewise, " + ", ".join(sorted(_FUNCTIONS))
    raise ValueError(f"`from_sympy` does not know {name} in {str(expr)[:80]!r}. It knows {supported}.")


_FUNCTIONS = {name: name for name in ("sin", "cos", "tan", "tanh", "exp", "log", "sign")} | {"Abs": "abs"}
_RELATIONS = {"StrictLessThan": "lt", "LessThan": "le", "StrictGreaterThan": "gt", "GreaterThan": "ge"}


def _constant(expr: Any) -> Node:
    try:
        value = float(expr)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"`from_sympy` takes finite real numbers. Got {str(expr)[:80]}.")
    return Constant(value)


def _chain(op: str, parts: Sequence[Node]) -> Node:
    total = parts[0]
    for part in parts[1:]:
        total = Binary(op, total, part)
    return total


def _product(expr: Any, nodes: dict[Any, Node]) -> Node:
    numerator, denominator = ([nodes[factor] for factor in side] for side in _fraction(expr))
    negative = len(numerator) > 1 and numerator[0] is Constant(-1.0)
    top = _chain("mul", numerator[negative:]) if numerator else Constant(1.0)
    if negative:
        top = Unary("neg", top)
    return Binary("div", top, _chain("mul", denominator)) if denominator else top


def _power(base: Node, expr: Any) -> Node:
    exponent = expr.exp
    if exponent.is_Integer:
        return Power(base, int(exponent))
    if exponent.is_Rational and exponent.q == 2:
        root = Unary("sqrt", base)
        if abs(exponent.p) == 1:
            return root if exponent.p > 0 else Binary("div", Constant(1.0), root)
        return Power(root, int(exponent.p))
    if exponent.is_Float and float(exponent).is_integer():
        return Power(base, int(exponent))
    raise ValueError(
        f"`from_sympy` takes integer and half-integer powers. Got {str(expr)[:80]!r}; write exp(a*log(x))."
    )


def _piecewise(expr: Any, nodes: dict[Any, Node]) -> Node:
    import sympy

    branches: list[tuple[Comparison, Node]] = []
    for branch in expr.args:
        if branch.cond == sympy.true:
            default = nodes[branch.expr]
            return Piecewise(branches, default) if branches else default
        relation = _RELATIONS.get(type(branch.cond).__name__)
        if relation is None:
            raise ValueError(f"`from_sympy` takes conditions < <= > >=. Got {str(branch.cond)[:80]!r}.")
        left, right = (nodes[side] for side in branch.cond.args)
        branches.append((Comparison(relation, left, right), nodes[branch.expr]))
    raise ValueError("`from_sympy` needs a Piecewise to end with (value, True).")
