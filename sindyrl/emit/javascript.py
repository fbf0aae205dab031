"""Expressions as a JavaScript function, in float64 and in the order of the expression.

    export function policy(state) {
      const x = state[0];
      const u = clip(-2*x, -1, 1);
      return [u];
    }

``+ - * /``, square roots and comparisons give NumPy's bits; ``Math.sin`` and its like are each engine's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sindyrl.emit.notation import COMPARE, TERNARY, Piece
from sindyrl.emit.statements import LayerNames, body, check_function_name
from sindyrl.emit.text import number
from sindyrl.emit.wrapping import wrapped
from sindyrl.node import Dense, Node

_MATH = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "abs")
_KEYWORDS = """arguments await break case catch class const continue debugger default delete do else enum eval export
extends false finally for function if implements import in instanceof interface let new null package private protected
public return static super switch this throw true try typeof undefined var void while with yield Infinity NaN Math
Array Float64Array dense relu async of get set state"""
_HELPERS = {
    "min": "const minimum = (a, b) => (a < b ? a : b);",
    "max": "const maximum = (a, b) => (a > b ? a : b);",
    "clip": "const clip = (x, low, high) => (x > low ? (x < high ? x : high) : low);",
    "sign": "const sign = (x) => (x > 0 ? 1 : x < 0 ? -1 : x);",
    "relu": "const relu = (x) => (x > 0 ? x : 0);",
}
_DENSE = """const dense = (weight, bias, inputs, activation) =>
  bias.map((start, row) => {
    let total = start;
    for (let column = 0; column < inputs.length; column++) {
      total += weight[row][column] * inputs[column];
    }
    return activation(total);
  });"""


class JavaScript:
    """See :class:`sindyrl.emit.statements.Dialect`."""

    keywords = frozenset(_KEYWORDS.split())
    functions: Mapping[str, str] = {op: f"Math.{op}" for op in _MATH} | {
        "min": "minimum",
        "max": "maximum",
        "clip": "clip",
        "sign": "sign",
    }

    def literal(self, value: float) -> str:
        return number(value)

    def local(self, name: str, text: str) -> list[str]:
        return [f"const {name} = {text};"]

    def divide_constants(self, left: Node, right: Node) -> None:
        return None

    def choose(self, branches: Sequence[tuple[Node, Node]], default: Node) -> tuple[int, Sequence[Piece]]:
        pieces: list[Piece] = []
        for position, (condition, value) in enumerate(branches):
            pieces += ["("] * bool(position) + [(condition, COMPARE), " ? ", (value, COMPARE), " : "]
        return TERNARY, [*pieces, (default, COMPARE), ")" * (len(branches) - 1)]

    def layer(self, names: LayerNames, node: Dense, arguments: str | None) -> tuple[list[str], list[str]]:
        rows = ", ".join(f"[{', '.join(map(number, row))}]" for row in node.matrix.tolist())
        tables = [
            f"const {names.weight} = [{rows}];",
            f"const {names.bias} = [{', '.join(map(number, node.bias.tolist()))}];",
        ]
        activation = {"identity": "(x) => x", "tanh": "Math.tanh", "relu": "relu"}[node.activation]
        lines = [] if arguments is None else [f"const {names.source} = [{arguments}];"]
        lines.append(f"const {names.values} = dense({names.weight}, {names.bias}, {names.source}, {activation});")
        return tables, lines


def javascript_function(inputs: Sequence[str], outputs: Mapping[str, Node], name: str) -> str:
    """Text of an ES module: helpers in use, and ``export function name(state)`` from n numbers to an array of m.

    Raises ValueError for a name that JavaScript reserves.
    """
    dialect = JavaScript()
    check_function_name(dialect, "JavaScript", name)
    inside = body(dialect, inputs, outputs, [name])
    helpers = [text for op, text in _HELPERS.items() if op in inside.called]
    if inside.tables:
        helpers.append(_DENSE)
    lines = [f"const {local} = state[{index}];" for index, local in inside.inputs]
    lines += [*inside.lines, f"return [{', '.join(inside.results)}];"]
    return "\n".join(
        [
            *helpers,
            *(part for table in inside.tables for part in wrapped(table)),
            *[""] * bool(helpers or inside.tables),
            f"export function {name}(state) {{",
            *(part for line in lines for part in wrapped(f"  {line}")),
            "}",
            "",
        ]
    )
