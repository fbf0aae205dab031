"""Expressions as a flat table of plain lists, for JSON: rows refer to earlier rows by number, so depth costs nothing.

    [["variable", "x"], ["constant", 2.0], ["mul", 1, 0]]

===================  ==========================================================
row                  node
===================  ==========================================================
constant, value      a finite number
variable, name
op, i                sin cos tan tanh exp log sqrt abs sign neg
op, i, j             add sub mul div min max, and lt le gt ge for conditions
power, i, n          row i to the integer n
piecewise, [[c, v], ...], d   conditions c, values v, default d
dense, matrix, bias, activation, [i, ...]
element, i, k        entry k of the dense row i
===================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sindyrl.map_file import MapFileError, shown
from sindyrl.node import (
    BINARY_OPS,
    COMPARISON_OPS,
    UNARY_OPS,
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

MAX_NODES = 1_000_000


def to_list(outputs: Sequence[Node]) -> tuple[list[list[Any]], list[int]]:
    """The node table of ``outputs`` and the row of each output. Deterministic; numbers are exact in JSON."""
    nodes = topological(outputs)
    row_of = {node: row for row, node in enumerate(nodes)}
    return [_row(node, [row_of[child] for child in node.children]) for node in nodes], [row_of[n] for n in outputs]


def from_list(table: Any, outputs: Any) -> list[Node]:
    """The scalar expressions in rows ``outputs`` of a node table.

    Raises MapFileError, naming the row, for anything that :func:`to_list` would not write.
    """
    if not isinstance(table, list) or not isinstance(outputs, list):
        raise MapFileError("A node table and its outputs must be lists.")
    if len(table) > MAX_NODES:
        raise MapFileError(f"The node table has {len(table)} rows; the limit is {MAX_NODES}.")
    nodes: list[Node] = []
    for number, row in enumerate(table):
        try:
            nodes.append(_node(row, nodes))
        except MapFileError as error:
            raise MapFileError(f"Row {number} of the node table: {error}") from None
        except (TypeError, ValueError, OverflowError) as error:  # a constructor's own refusal
            raise MapFileError(f"Row {number} of the node table is not valid: {error}") from None
    return [_scalar_reference(row, nodes) for row in outputs]


def _row(node: Node, refs: list[int]) -> list[Any]:
    if isinstance(node, Constant):
        return ["constant", node.value]
    if isinstance(node, Variable):
        return ["variable", node.name]
    if isinstance(node, (Unary, Binary, Comparison)):
        return [node.op, *refs]
    if isinstance(node, Power):
        return ["power", refs[0], node.exponent]
    if isinstance(node, Piecewise):
        return ["piecewise", [list(pair) for pair in zip(refs[0:-1:2], refs[1:-1:2], strict=True)], refs[-1]]
    if isinstance(node, Dense):
        return ["dense", node.matrix.tolist(), node.bias.tolist(), node.activation, refs]
    if isinstance(node, Element):
        return ["element", refs[0], node.index]
    raise TypeError(f"No row format for {type(node).__name__}.")


def _node(row: Any, earlier: Sequence[Node]) -> Node:
    if not isinstance(row, list) or not row or not isinstance(row[0], str):
        raise MapFileError(f"must be a list that starts with the name of an operation. Got {shown(row)}.")
    reader = _READERS.get(row[0])
    if reader is None:
        raise MapFileError(f"the operation {shown(row[0])} is not known.")
    arity, build = reader
    if len(row) != arity + 1:
        raise MapFileError(f"{row[0]} takes {arity} values. Got {len(row) - 1}.")
    return build(row, earlier)


def _constant(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Constant(_number(row[1]))


def _variable(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Variable(row[1])


def _unary(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Unary(row[0], _reference(row[1], earlier))


def _binary(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Binary(row[0], _reference(row[1], earlier), _reference(row[2], earlier))


def _comparison(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Comparison(row[0], _reference(row[1], earlier), _reference(row[2], earlier))


def _power(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Power(_reference(row[1], earlier), row[2])


def _piecewise(row: list[Any], earlier: Sequence[Node]) -> Node:
    branches = []
    for pair in _items("branches", row[1]):
        if not isinstance(pair, list) or len(pair) != 2:
            raise MapFileError(f"a branch must be a list of a condition and a value. Got {shown(pair)}.")
        branches.append((_reference(pair[0], earlier), _reference(pair[1], earlier)))
    return Piecewise(branches, _reference(row[2], earlier))  # type: ignore[arg-type]


def _dense(row: list[Any], earlier: Sequence[Node]) -> Node:
    matrix = [[_number(value) for value in _items("a matrix row", values)] for values in _items("matrix", row[1])]
    bias = [_number(value) for value in _items("bias", row[2])]
    if not isinstance(row[3], str):
        raise MapFileError(f"the activation must be a string. Got {shown(row[3])}.")
    if any(len(values) != len(matrix[0]) for values in matrix):
        raise MapFileError("the rows of the matrix differ in length.")
    return Dense(matrix, bias, row[3], [_reference(ref, earlier) for ref in _items("arguments", row[4])])


def _element(row: list[Any], earlier: Sequence[Node]) -> Node:
    return Element(_reference(row[1], earlier), row[2])  # type: ignore[arg-type]


def _items(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MapFileError(f"{what} must be a list. Got {shown(value)}.")
    return value


def _number(value: Any) -> float:
    """A JSON number, not a boolean; an integer only if float64 holds it exactly."""
    if type(value) is int:
        if float(value) != value:
            raise MapFileError(f"the integer {shown(value)} is not exact in float64.")
        return float(value)
    if type(value) is not float:
        raise MapFileError(f"a number is expected. Got {shown(value)}.")
    return value


def _reference(value: Any, earlier: Sequence[Node]) -> Node:
    if type(value) is not int or not 0 <= value < len(earlier):
        raise MapFileError(f"{shown(value)} does not refer to an earlier row.")
    return earlier[value]


def _scalar_reference(value: Any, nodes: Sequence[Node]) -> Node:
    node = _reference(value, nodes)
    if isinstance(node, (Dense, Comparison)):
        raise MapFileError(f"An output must be a scalar. Row {value} is a {type(node).__name__.lower()}.")
    return node


_READERS: dict[str, tuple[int, Callable[[list[Any], Sequence[Node]], Node]]] = {
    "constant": (1, _constant),
    "variable": (1, _variable),
    **dict.fromkeys(UNARY_OPS, (1, _unary)),
    **dict.fromkeys(BINARY_OPS, (2, _binary)),
    **dict.fromkeys(COMPARISON_OPS, (2, _comparison)),
    "power": (2, _power),
    "piecewise": (2, _piecewise),
    "dense": (4, _dense),
    "element": (2, _element),
}
