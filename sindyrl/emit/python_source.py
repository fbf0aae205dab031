"""Expressions as a NumPy function in plain source: the bits of the NumPy back end, without this library.

def policy(state):
    state = np.asarray(state, dtype=np.float64)
    x = state[..., 0]
    u = clip(-2.0*x, -1.0, 1.0)
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence

from sindyrl.emit.notation import ATOM, TERNARY, Piece
from sindyrl.emit.statements import LayerNames, body, check_function_name
from sindyrl.emit.wrapping import WIDTH, wrapped
from sindyrl.node import Dense, Node

_OURS = "np state results dense relu zip len int bool ValueError STATES EXPECTED TOLERANCE selftest"
_HELPERS = {
    "min": ("minimum(a, b)", "return np.where(a < b, a, b)"),
    "max": ("maximum(a, b)", "return np.where(a > b, a, b)"),
    "clip": ("clip(x, low, high)", "return np.where(x > low, np.where(x < high, x, high), low)"),
    "sign": ("sign(x)", "return np.where(x > 0, 1.0, np.where(x < 0, -1.0, x))"),
    "relu": ("relu(x)", "return np.where(x > 0, x, 0.0)"),
}
_DENSE = """def dense(weight, bias, inputs):
    shape = np.broadcast_shapes(*(np.shape(value) for value in inputs))
    column = (-1,) + (1,) * len(shape)
    total = np.broadcast_to(bias.reshape(column), (len(bias), *shape))
    for weights, value in zip(weight.T, inputs):
        total = total + weights.reshape(column) * value
    return total"""


class NumPy:
    """See :class:`sindyrl.emit.statements.Dialect`."""

    keywords = frozenset([*keyword.kwlist, *keyword.softkwlist, *_OURS.split()])
    functions: Mapping[str, str] = {op: f"np.{op}" for op in ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt")} | {
        "abs": "np.absolute",
        "min": "minimum",
        "max": "maximum",
        "clip": "clip",
        "sign": "sign",
    }

    def literal(self, value: float) -> str:
        return repr(value)

    def local(self, name: str, text: str) -> list[str]:
        return [f"{name} = {text}" if len(name) + len(text) < WIDTH - 12 else f"{name} = ({text})"]

    def divide_constants(self, left: Node, right: Node) -> tuple[int, Sequence[Piece]]:
        return ATOM, ["np.divide(", (left, TERNARY), ", ", (right, TERNARY), ")"]  # 1.0/0.0 raises in Python

    def choose(self, branches: Sequence[tuple[Node, Node]], default: Node) -> tuple[int, Sequence[Piece]]:
        pieces: list[Piece] = []
        for condition, value in branches:
            pieces += ["np.where(", (condition, TERNARY), ", ", (value, TERNARY), ", "]
        return ATOM, [*pieces, (default, TERNARY), ")" * len(branches)]

    def layer(self, names: LayerNames, node: Dense, arguments: str | None) -> tuple[list[str], list[str]]:
        tables = [
            f"{names.weight} = np.array({node.matrix.tolist()!r})",
            f"{names.bias} = np.array({node.bias.tolist()!r})",
        ]
        lines = [] if arguments is None else [f"{names.source} = ({arguments}{',' * (node.matrix.shape[1] == 1)})"]
        total = f"dense({names.weight}, {names.bias}, {names.source})"
        wrapping = {"identity": "{}", "tanh": "np.tanh({})", "relu": "relu({})"}[node.activation]
        return tables, [*lines, f"{names.values} = {wrapping.format(total)}"]


def numpy_function(inputs: Sequence[str], outputs: Mapping[str, Node], name: str) -> str:
    """Text of a module without its docstring: ``import numpy``, helpers in use, ``def name(state)``.

    The function takes arrays (..., n) and returns (..., m) in float64. Raises ValueError for a name Python reserves.
    """
    dialect = NumPy()
    check_function_name(dialect, "Python", name)
    inside = body(dialect, inputs, outputs, [name])
    helpers = [f"def {head}:\n    {line}\n\n" for op, (head, line) in _HELPERS.items() if op in inside.called]
    if inside.tables:
        helpers.append(f"{_DENSE}\n\n")
    reads = [f"    {local} = state[..., {index}]" for index, local in inside.inputs]
    # no warnings: undefined values follow IEEE 754, as in the library
    computes = ['    with np.errstate(all="ignore"):', *(f"        {line}" for line in inside.lines)]
    results = ", ".join(inside.results) + "," * (len(inside.results) == 1)
    lines = [
        f"def {name}(state):",
        f'    """state (..., {len(inputs)}) -> (..., {len(outputs)}), float64: {", ".join(outputs)}."""',
        "    state = np.asarray(state, dtype=np.float64)",
        f"    if state.ndim == 0 or state.shape[-1] != {len(inputs)}:",
        f'        raise ValueError(f"`{name}` takes arrays of shape (..., {len(inputs)}). Got {{state.shape}}.")',
        *reads,
        *(computes if inside.lines else []),
        f"    results = ({results})",
        "    return np.stack([np.broadcast_to(value, state.shape[:-1]) for value in results], axis=-1)",
    ]
    tables = [part for table in inside.tables for part in wrapped(table)]
    return "\n".join(
        [
            "import numpy as np",
            "",
            *([*tables, ""] if tables else []),
            "",
            *helpers,
            *(part for line in lines for part in wrapped(line)),
            "",
        ]
    )
