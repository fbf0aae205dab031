"""Evaluation by CasADi: expressions for optimal control, and numbers through ``casadi.Function``.

CasADi simplifies as it builds (``x - x`` is 0, ``0*x`` is 0 even for NaN), so values can differ where another back end
gives NaN, in the sign of zero, and in the last bits where CasADi rewrites a product.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.backends import ClosedForm, check_count
from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Unary, Variable
from sindyrl.traversal import expand_powers, topological


def columns(form: ClosedForm) -> Callable[[Sequence[Any]], list[Any]]:
    """Return ``evaluate(input columns) -> output columns``.

    If any column is a CasADi symbol (SX, MX, DM), so are the results, one expression per output. Otherwise columns are
    arrays of any broadcastable shapes, evaluated in float64 by :func:`function`. ImportError without CasADi.
    """
    import casadi

    compiled = function(form)

    def evaluate(inputs: Sequence[Any]) -> list[Any]:
        check_count(form, len(inputs))
        if any(isinstance(column, (casadi.SX, casadi.MX, casadi.DM)) for column in inputs):
            return expressions(form, inputs)
        return _numbers(compiled, inputs, len(form.output_names))

    return evaluate


def function(form: ClosedForm) -> Any:
    """``casadi.Function`` from one column vector of all inputs to one column vector of all outputs."""
    import casadi

    inputs = casadi.SX.sym("inputs", len(form.input_names))
    results = expressions(form, casadi.vertsplit(inputs) if form.input_names else [])
    name = re.sub(r"_+", "_", form.name).strip("_") or "map"  # CasADi refuses some underscores
    if not name[0].isalpha() or name in ("null", "jac", "hess"):
        name = f"map_{name}"
    return casadi.Function(name, [inputs], [casadi.vertcat(*results)], ["inputs"], ["outputs"])


def expressions(form: ClosedForm, inputs: Sequence[Any]) -> list[Any]:
    """The outputs as CasADi expressions of the given symbols, expressions or numbers, one per input."""
    check_count(form, len(inputs))
    outputs = expand_powers(form.nodes)
    values: dict[Node, Any] = {}
    symbols = dict(zip(form.input_names, inputs, strict=True))
    for node in topological(outputs):
        values[node] = _evaluate(node, [values[child] for child in node.children], symbols)
    return [values[node] for node in outputs]


def _numbers(compiled: Any, inputs: Sequence[Any], n_outputs: int) -> list[NDArray[np.float64]]:
    arrays = np.broadcast_arrays(*(np.asarray(column, dtype=np.float64) for column in inputs))
    shape = arrays[0].shape if arrays else ()
    batch = np.stack([array.ravel() for array in arrays]) if arrays else np.empty((0, 1))
    if batch.shape[1] == 0:
        return [np.empty(shape) for _ in range(n_outputs)]
    results = np.asarray(compiled(batch))
    return [np.array(row).reshape(shape) for row in results]


def _evaluate(node: Node, children: list[Any], symbols: dict[str, Any]) -> Any:
    import casadi

    if isinstance(node, Constant):
        return casadi.DM(node.value)
    if isinstance(node, Variable):
        value = symbols[node.name]
        return casadi.DM(value) if isinstance(value, (int, float)) else value
    if isinstance(node, Unary):
        (x,) = children
        if node.op == "neg":
            return -x
        if node.op == "sign":
            return casadi.if_else(x > 0, 1.0, casadi.if_else(x < 0, -1.0, x))
        return getattr(casadi, "fabs" if node.op == "abs" else node.op)(x)
    if isinstance(node, (Binary, Comparison)):
        return _apply(node.op, *children)
    if isinstance(node, Piecewise):
        value = children[-1]
        for condition, branch in zip(children[-3::-2], children[-2:0:-2], strict=True):
            value = casadi.if_else(condition, branch, value)
        return value
    if isinstance(node, Dense):
        return _dense(node, children)
    if isinstance(node, Element):
        return children[0][node.index]
    raise TypeError(f"CasADi cannot evaluate {type(node).__name__}.")


def _apply(op: str, a: Any, b: Any) -> Any:
    import casadi

    if op == "min":
        return casadi.if_else(a < b, a, b)
    if op == "max":
        return casadi.if_else(a > b, a, b)
    operations: dict[str, Callable[[], Any]] = {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "div": lambda: a / b,
        "lt": lambda: a < b,
        "le": lambda: a <= b,
        "gt": lambda: a > b,
        "ge": lambda: a >= b,
    }
    return operations[op]()


def _dense(node: Dense, args: list[Any]) -> list[Any]:
    import casadi

    results = []
    for weights, bias in zip(node.matrix.tolist(), node.bias.tolist(), strict=True):
        total: Any = casadi.DM(bias)
        for weight, arg in zip(weights, args, strict=True):
            total = total + weight * arg
        if node.activation == "tanh":
            total = casadi.tanh(total)
        elif node.activation == "relu":
            total = casadi.if_else(total > 0, total, 0.0)
        results.append(total)
    return results
