"""Maps for the tests of fixed point, and their truth: an independent evaluation with 160 bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np

from sindyrl.export.fixed_point import FixedPlan, evaluate, plan, quantize
from sindyrl.expression import (
    Binary,
    Comparison,
    Constant,
    Element,
    Node,
    Piecewise,
    Unary,
    Variable,
    absolute,
    clip,
    cos,
    dense,
    exp,
    expand_powers,
    log,
    maximum,
    minimum,
    piecewise,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
    topological,
)
from sindyrl.symbolic_map import Signal, SymbolicMap

X, V, COSINE, SINE = (Variable(name) for name in ("x", "v", "c", "s"))
CUBIC_TERMS = (X, V, SINE, X**3, V**3, X * V, COSINE * SINE, SINE * V * V, COSINE**2 * V, X * X * SINE, SINE**3)
FACTORS = (-1.2, 4.76, 12.4, -0.68, 3.1, 0.5, -2.2, 0.9, 1.7, -0.35, 0.21)


def cubic() -> SymbolicMap:
    """The 12-term cubic policy of 4 inputs with a clipped output."""
    total: Node = X * V * COSINE * -4.4
    for factor, term in zip(FACTORS, CUBIC_TERMS, strict=True):
        total = total + factor * term
    inputs = [
        Signal("x", "m", -2.4, 2.4),
        Signal("v", "m/s", -3.0, 3.0),
        Signal("c", "", -1, 1),
        Signal("s", "", -1, 1),
    ]
    return SymbolicMap(inputs, {"u": clip(total, -1.0, 1.0)}, name="cubic")


def one(node: Node, lower: float, upper: float, **others: tuple[float, float]) -> SymbolicMap:
    """A map of x (and others, name -> range) to y."""
    ranges = {"x": (lower, upper), **others}
    return SymbolicMap([Signal(name, "", *pair) for name, pair in ranges.items()], {"y": node})


def everything() -> SymbolicMap:
    """Every operation at once."""
    x, v = Variable("x"), Variable("v")
    first = dense([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.1]], [0.1, -0.2, 0.0], "tanh", [x, v])
    second = dense([[0.7, -1.0, 0.2], [1.5, 0.5, -0.5]], [0.3, 0.1], "relu", first)
    outputs = {
        "waves": sin(x) - 2.0 * cos(8.0 * v) + tan(0.3 * x),
        "growth": exp(-0.5 * v * v) + tanh(3.0 * x),
        "logs": log(2.5 + x) + log(0.01 + v * v),
        "roots": sqrt(v * v) + sqrt(3.0 + x),
        "ratio": (x + v) / (2.0 + v * v) + (x + 3.0) ** -2,
        "choices": minimum(x, v) + maximum(x * v, 0.5) + absolute(x) + sign(v),
        "law": piecewise([(x < v, x * x), (x >= 1.5, 1.0 + v)], x + v),
        "net": second[0] - second[1] + dense([[2.0, 1.0]], [0.0], "identity", [x, x])[0],
        "bounded": clip(5.0 * x * v - v, -1.0, 2.0),
        "constant": Constant(0.1) + sin(Constant(1.0)),
    }
    return SymbolicMap([Signal("x", "", -2.0, 2.0), Signal("v", "", -3.0, 3.0)], outputs, name="everything")


@functools.lru_cache(maxsize=2)
def planned_everything(bits: int) -> FixedPlan:
    return plan(everything(), bits)


_MP: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a, "abs": abs, "sign": mpmath.sign, "sqrt": mpmath.sqrt, "sin": mpmath.sin, "cos": mpmath.cos,
    "tan": mpmath.tan, "tanh": mpmath.tanh, "exp": mpmath.exp, "log": mpmath.log, "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b, "min": min, "max": max,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "identity": lambda a: a, "relu": lambda a: max(a, mpmath.mpf(0)),
}  # fmt: skip


def truth(form: SymbolicMap, point: Sequence[float]) -> list[Any]:
    """The map in exact arithmetic, as far as 160 bits go."""
    given_values = dict(zip(form.input_names, map(mpmath.mpf, point), strict=True))
    values: dict[Node, Any] = {}
    roots = expand_powers(form.nodes)
    with mpmath.workprec(160):
        for node in topological(roots):
            parts = [values[child] for child in node.children]
            if isinstance(node, Constant):
                values[node] = mpmath.mpf(node.value)
            elif isinstance(node, Variable):
                values[node] = given_values[node.name]
            elif isinstance(node, (Unary, Binary, Comparison)):
                values[node] = _MP[node.op](*parts)
            elif isinstance(node, Piecewise):
                taken = [value for condition, value in zip(parts[:-1:2], parts[1:-1:2], strict=True) if condition]
                values[node] = [*taken, parts[-1]][0]
            elif isinstance(node, Element):
                values[node] = parts[0][node.index]
            else:
                layer: Any = node
                rows = zip(layer.matrix.tolist(), layer.bias.tolist(), strict=True)
                sums = [mpmath.fdot(map(mpmath.mpf, row), parts) + bias for row, bias in rows]
                values[node] = [_MP[layer.activation](total) for total in sums]
        return [values[node] for node in roots]


def excess(form: SymbolicMap, planned: FixedPlan, points: np.ndarray) -> float:
    """Largest error as a fraction of the proven bound."""
    results = evaluate(planned, quantize(planned, points))
    worst = 0.0
    with mpmath.workprec(160):
        for point, result in zip(points, results, strict=True):
            for index, exact in enumerate(truth(form, point)):
                got = mpmath.ldexp(mpmath.mpf(int(result[index])), -planned.output_scales[index])
                error, bound = abs(got - exact), mpmath.mpf(float(planned.bound[index]))
                worst = max(worst, float(error / bound) if bound else (math.inf if error else 0.0))
    return worst


def inside(planned: FixedPlan, rng: np.random.Generator, n: int) -> np.ndarray:
    """Random points, and corners, of the input ranges."""
    low = np.array([signal.lower for signal in planned.inputs])
    high = np.array([signal.upper for signal in planned.inputs])
    shape = (n, len(low))
    grid = low + (high - low) * rng.integers(0, 9, shape) / 8.0
    points = np.concatenate([rng.uniform(low, high, shape), grid, np.where(rng.random(shape) < 0.5, low, high)])
    return np.clip(points, low, high)
