r"""What a map is to fifty digits, and how far a rounded evaluation of a polynomial may be from it.

Bound: every term of the sum that a polynomial is passes through at most n roundings (products, sums and its own
coefficient, along its path), so its computed value is the term times at most n factors ``1 + delta``, |delta| <= u, and

    |computed - exact|  <=  gamma_n sum |term_i|,      gamma_n = n u/(1 - n u)

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, lemma 3.1), underflow apart. n and the sum
are those of the arithmetic that is shipped. Limits on an output are no farther apart than what they limit.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Unary, Variable
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.traversal import expand_powers, topological

DIGITS = 50
_COMPARE = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
_BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}


def exact_values(form: SymbolicMap, inputs: NDArray[Any]) -> list[list[Any]]:
    """(vector, output) as mpmath numbers of fifty digits; inputs and constants count as exact."""
    import mpmath

    with mpmath.workdps(DIGITS):
        order = topological(expanded := expand_powers(form.nodes))
        constants: dict[Node, Any] = {node: mpmath.mpf(node.value) for node in order if isinstance(node, Constant)}
        tables = {
            node: (
                [[mpmath.mpf(w) for w in row] for row in node.matrix.tolist()],
                [*map(mpmath.mpf, node.bias.tolist())],
            )
            for node in order
            if isinstance(node, Dense)
        }
        rows = []
        for row in inputs:
            values: dict[Node, Any] = dict(constants)
            symbols = dict(zip(form.input_names, (mpmath.mpf(float(value)) for value in row), strict=True))
            for node in order:
                if node not in values:
                    values[node] = _value(node, [values[child] for child in node.children], symbols, tables)
            rows.append([values[node] for node in expanded])
        return rows


def _value(node: Node, parts: list[Any], symbols: dict[str, Any], tables: dict[Any, Any]) -> Any:
    import mpmath

    if isinstance(node, Variable):
        return symbols[node.name]
    if isinstance(node, Unary):
        (x,) = parts
        if node.op == "sign":
            return mpmath.sign(x)
        return -x if node.op == "neg" else getattr(mpmath, "fabs" if node.op == "abs" else node.op)(x)
    if isinstance(node, Binary):
        if node.op in ("min", "max"):
            return (min if node.op == "min" else max)(parts)
        return _BINARY[node.op](*parts)
    if isinstance(node, Comparison):
        return _COMPARE[node.op](*parts)
    if isinstance(node, Piecewise):
        return next((value for truth, value in zip(parts[0:-1:2], parts[1:-1:2], strict=True) if truth), parts[-1])
    if isinstance(node, Element):
        return parts[0][node.index]
    assert isinstance(node, Dense)
    matrix, bias = tables[node]
    totals = [mpmath.fdot(row, parts) + offset for row, offset in zip(matrix, bias, strict=True)]
    if node.activation == "tanh":
        return [mpmath.tanh(total) for total in totals]
    return [max(total, mpmath.mpf(0)) for total in totals] if node.activation == "relu" else totals


def distances(outputs: NDArray[Any], exact: list[list[Any]]) -> NDArray[np.float64]:
    """|output - exact|, (vector, output); infinite where an output is not finite."""
    import mpmath

    with mpmath.workdps(DIGITS):
        return np.array(
            [
                [float(abs(mpmath.mpf(float(a)) - b)) if np.isfinite(a) else np.inf for a, b in zip(x, y, strict=True)]
                for x, y in zip(outputs, exact, strict=True)
            ]
        )


def polynomial_bound(shipped: SymbolicMap, inputs: NDArray[Any], unit: float) -> NDArray[np.float64] | None:
    """The bound above, (vector, output), or None where an output is not a polynomial within constant limits.

    shipped : the map in the order of the arithmetic      unit : u, 2^-24 for float32
    """
    outputs = expand_powers(shipped.nodes)
    roundings: dict[Node, int] = {}
    sums: dict[Node, Any] = {}
    columns = dict(zip(shipped.input_names, np.abs(inputs.astype(np.float64)).T, strict=True))
    limits = set(outputs)
    for node in reversed(topological(outputs)):
        if node in limits and isinstance(node, Binary) and node.op in ("min", "max"):
            limits.update(node.children)
    for node in topological(outputs):
        counts = [roundings[child] for child in node.children]
        parts = [sums[child] for child in node.children]
        if isinstance(node, Constant):
            roundings[node], sums[node] = 1, np.full(len(inputs), abs(node.value))
        elif isinstance(node, Variable):
            roundings[node], sums[node] = 0, columns[node.name]
        elif isinstance(node, Unary) and node.op == "neg":
            roundings[node], sums[node] = counts[0], parts[0]
        elif isinstance(node, Binary) and node.op in ("add", "sub"):
            roundings[node], sums[node] = max(counts) + 1, parts[0] + parts[1]
        elif isinstance(node, Binary) and node.op == "mul":
            roundings[node], sums[node] = sum(counts) + 1, parts[0] * parts[1]
        elif isinstance(node, Binary) and node.op in ("min", "max") and node in limits:
            roundings[node], sums[node] = max(counts), np.maximum(*parts)
        else:
            return None
    table = []
    for node in outputs:
        n = roundings[node]
        table.append(n * unit / (1.0 - n * unit) * sums[node])
    return np.stack(table, axis=1)
