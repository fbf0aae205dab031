"""The one emitter of C (C99) for the whole project: host evaluation, microcontrollers, FMUs.

    void policy(const float state[2], float out[1]) {
        const float x = state[0];
        const float v = state[1];
        const float u = -2.0f*x - 0.5f*(v*v*v);
        out[0] = u > -1.0f ? (u < 1.0f ? u : 1.0f) : -1.0f;
    }

The text is a function of the expressions alone: no date, no heap, no global, no ``pow``. Every input is read before any
output is written, so ``state`` and ``out`` may be the same array. Arithmetic is in the order of the expression; the
compiler must not reassociate or contract it (``-ffp-contract=off``; never ``-ffast-math``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sindyrl.emit.c_names import LocalNames, is_reserved
from sindyrl.emit.notation import (
    ATOM,
    COMPARE,
    NEGATIVE,
    PRODUCT,
    SUM,
    TERNARY,
    Piece,
    clip_parts,
    signed_sum,
    write,
)
from sindyrl.emit.wrapping import wrapped
from sindyrl.node import (
    Binary,
    Comparison,
    Constant,
    Dense,
    Element,
    Node,
    Piecewise,
    Unary,
    Variable,
    check_name,
)
from sindyrl.traversal import expand_powers, topological

Number = Literal["float32", "float64"]
TYPES: dict[str, str] = {"float32": "float", "float64": "double"}

_FUNCTION_OF = {op: op for op in ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt")} | {"abs": "fabs"}
_SIGN = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MAX_SIZE = 400  # operations in one statement
_MAX_DEPTH = 12  # nesting in one statement; C99 promises 63 levels of parentheses
_LIMIT = 1_000_000


def c_function(
    inputs: Sequence[str],
    outputs: Mapping[str, Node],
    name: str,
    *,
    number: Number = "float32",
    arguments: tuple[str, str] = ("state", "out"),
    functions: Mapping[str, str] | None = None,
) -> str:
    """Text of ``void name(const T state[n], T out[m])``, m expressions of n named inputs, ending in a newline.

    functions : operation -> name of the C function to call for it, such as ``{"sin": "policy_sin"}``; by default, and
        for operations not named, that of ``<math.h>``

    Raises ValueError for a name C reserves, a variable that is not an input, a constant beyond the range of float32.
    """
    lines = c_body(inputs, outputs, number=number, arguments=arguments, reserved=(name,), functions=functions)
    return "\n".join(
        [c_prototype(len(inputs), len(outputs), name, number=number, arguments=arguments) + " {", *lines, "}", ""]
    )


def c_prototype(
    n_inputs: int,
    n_outputs: int,
    name: str,
    *,
    number: Number = "float32",
    arguments: tuple[str, str] = ("state", "out"),
) -> str:
    """``void name(const float state[4], float out[1])``, without a semicolon."""
    check_name("c_function(name=...)", name)
    if is_reserved(name) or name.startswith("_"):
        raise ValueError(f"`c_function(name=...)` must not be reserved in C. Got {name!r}.")
    kind = _type(number)
    source, target = arguments
    return f"void {name}(const {kind} {source}[{max(n_inputs, 1)}], {kind} {target}[{max(n_outputs, 1)}])"


def c_body(
    inputs: Sequence[str],
    outputs: Mapping[str, Node],
    *,
    number: Number = "float32",
    arguments: tuple[str, str] = ("state", "out"),
    reserved: Sequence[str] = (),
    functions: Mapping[str, str] | None = None,
) -> list[str]:
    """Statements of the function, indented by four spaces; ``reserved`` are further names that locals must avoid."""
    return _Body(inputs, outputs, number, arguments, reserved, functions or {}).lines


def math_functions(
    outputs: Sequence[Node], *, number: Number = "float32", functions: Mapping[str, str] | None = None
) -> list[str]:
    """Functions of ``<math.h>`` that the code of ``outputs`` calls, sorted; empty if the header is not needed."""
    suffix = "f" if _type(number) == "float" else ""
    own = functions or {}
    return sorted(_FUNCTION_OF[op] + suffix for op in called_operations(outputs) if op not in own)


def called_operations(outputs: Sequence[Node]) -> set[str]:
    """Operations that the code of ``outputs`` calls a function for: sin, cos, tan, tanh, exp, log, sqrt, abs."""
    called = set()
    for node in topological(outputs):
        if isinstance(node, Unary) and node.op in _FUNCTION_OF:
            called.add(node.op)
        elif isinstance(node, Dense) and node.activation == "tanh":
            called.add("tanh")
    return called


def literal(value: float, number: Number) -> str:
    """Shortest decimal that the compiler reads back as ``value`` (rounded to float32 first, if that is the type)."""
    if _type(number) == "double":
        return repr(float(value))
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(value))
    if math.isinf(rounded):
        raise ValueError(f"The constant {value!r} is beyond the range of float32. Rescale the map or use float64.")
    return _shortest_float32(rounded) + "f"


def _shortest_float32(value: float) -> str:
    half_gap = abs(value - float(np.nextafter(np.float32(value), np.float32(0.0)))) / 2
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        # well inside the rounding interval, so that it does not matter how the reader rounds; 9 digits always are
        if float(text) == value or abs(float(text) - value) < 0.999 * half_gap:
            break
    return repr(float(text))


def _type(number: str) -> str:
    if number not in TYPES:
        raise ValueError(f"`number` must be one of {', '.join(TYPES)}. Got {number!r}.")
    return TYPES[number]


class _Body:
    """One pass over the nodes in evaluation order, declaring a local for what is used twice or gets too long."""

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Mapping[str, Node],
        number: Number,
        arguments: tuple[str, str],
        reserved: Sequence[str],
        functions: Mapping[str, str],
    ) -> None:
        self.number = number
        self.type = _type(number)
        suffix = "f" if self.type == "float" else ""
        self.callee = {op: name + suffix for op, name in _FUNCTION_OF.items()} | dict(functions)
        self.source, self.target = arguments
        self.lines: list[str] = []
        self.text_of: dict[Node, str] = {}  # nodes that are already available under a name
        roots = dict(zip(outputs, expand_powers(list(outputs.values())), strict=True))
        order = topological(list(roots.values()))
        self.declared = _declared(order, list(roots.values()), number)
        library = (*arguments, *reserved, *(self.callee[op] for op in called_operations(order)))
        self.names = LocalNames(library)
        self._read_inputs(inputs, order)
        self.wishes = _wishes(roots, number)
        for node in order:
            self._declare(node)
        for index, node in enumerate(roots.values()):
            self._statement(f"{self.target}[{index}] = ", node)

    def _line(self, text: str, indent: int = 4) -> None:
        self.lines += wrapped(" " * indent + text)

    def _read_inputs(self, inputs: Sequence[str], order: Sequence[Node]) -> None:
        used = [node for node in order if isinstance(node, Variable)]
        for node in used:
            if node.name not in inputs:
                raise ValueError(f"The expressions use {node.name!r}, which is not an input {list(inputs)}.")
        if not used:
            self._line(f"(void){self.source};")
        for index, name in enumerate(inputs):
            local = self.names.new(name)  # also for unused inputs, so that the others keep their names
            if Variable(name) in used:
                self.text_of[Variable(name)] = local
                self._line(f"const {self.type} {local} = {self.source}[{index}];")

    def _declare(self, node: Node) -> None:
        if isinstance(node, Dense):
            self._layer(node)
        elif isinstance(node, Element):
            self.text_of[node] = f"{self.text_of[node.dense]}[{node.index}]"
        elif node in self.declared:
            local = self.names.new(self._wish(node))
            self._statement(f"const {self.type} {local} = ", node)
            self.text_of[node] = local

    def _statement(self, start: str, node: Node) -> None:
        self._line(f"{start}{write(node, self._rule, limit=_LIMIT)};")

    def _wish(self, node: Node) -> str:
        """A telling name for a local: ``u``, ``sin_theta``, ``v_sq``, ``v_cubed``; else ``t``, numbered."""
        if node in self.wishes:
            return self.wishes[node]
        if isinstance(node, Unary) and isinstance(node.arg, Variable):
            return f"{node.op}_{node.arg.name}"
        if isinstance(node, Binary) and node.op == "mul" and isinstance(node.right, Variable):
            name = node.right.name
            if node.left is node.right:
                return f"{name}_sq"
            if node.left is Binary("mul", node.right, node.right):
                return f"{name}_cubed"
        return "t"

    def _rule(self, node: Node) -> tuple[int, Sequence[Piece]]:
        if node in self.text_of:
            return ATOM, [self.text_of[node]]
        if isinstance(node, Constant):
            text = literal(node.value, self.number)
            return (NEGATIVE if text.startswith("-") else ATOM), [text]
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Comparison):
            return COMPARE, [(node.left, SUM), f" {_SIGN[node.op]} ", (node.right, SUM)]
        assert isinstance(node, Piecewise)
        pieces: list[Piece] = []
        for position, (condition, value) in enumerate(node.branches):
            pieces += ["("] * bool(position) + [(condition, COMPARE), " ? ", (value, COMPARE), " : "]
        return TERNARY, [*pieces, (node.default, COMPARE), ")" * (len(node.branches) - 1)]

    def _unary(self, node: Unary) -> tuple[int, Sequence[Piece]]:
        if node.op == "neg":
            return NEGATIVE, ["-", (node.arg, ATOM)]
        if node.op == "sign":
            one, zero = literal(1.0, self.number), literal(0.0, self.number)
            x = (node.arg, NEGATIVE)
            return TERNARY, [x, f" > {zero} ? {one} : (", x, f" < {zero} ? -{one} : ", x, ")"]
        return ATOM, [f"{self.callee[node.op]}(", (node.arg, TERNARY), ")"]

    def _binary(self, node: Binary) -> tuple[int, Sequence[Piece]]:
        if node.op in ("mul", "div"):
            return PRODUCT, [(node.left, PRODUCT), "*" if node.op == "mul" else "/", (node.right, ATOM)]
        if node.op in ("add", "sub"):
            sign, right = signed_sum(node, lambda inner: inner not in self.text_of)
            return SUM, [(node.left, SUM), f" {sign} ", (right, PRODUCT)]
        clipped = _clip(node, self.number)
        if clipped and node.left not in self.text_of:
            x, lo, hi = ((part, NEGATIVE) for part in clipped)
            return TERNARY, [x, " > ", lo, " ? (", x, " < ", hi, " ? ", x, " : ", hi, ") : ", lo]
        a, b = ((part, NEGATIVE) for part in node.children)
        return TERNARY, [a, " < " if node.op == "min" else " > ", b, " ? ", a, " : ", b]

    def _layer(self, node: Dense) -> None:
        """``activation(matrix @ args + bias)`` as constant tables and two loops."""
        rows, columns = node.matrix.shape
        values = self.names.new("layer")
        weight, bias = self.names.new(f"{values}_weight"), self.names.new(f"{values}_bias")
        source = self._whole_layer(node)
        if source is None:
            source = self.names.new(f"{values}_in")
            arguments = ", ".join(write(arg, self._rule, limit=_LIMIT) for arg in node.children)
            self._line(f"const {self.type} {source}[{columns}] = {{{arguments}}};")
        table = ", ".join("{" + ", ".join(literal(w, self.number) for w in row) + "}" for row in node.matrix.tolist())
        offsets = ", ".join(literal(b, self.number) for b in node.bias.tolist())
        row, column, total = self.names.new("row"), self.names.new("col"), self.names.new("total")
        results = {"identity": total, "tanh": f"{self.callee['tanh']}({total})"}
        zero = literal(0.0, self.number)
        results["relu"] = f"{total} > {zero} ? {total} : {zero}"
        self._line(f"static const {self.type} {weight}[{rows}][{columns}] = {{{table}}};")
        self._line(f"static const {self.type} {bias}[{rows}] = {{{offsets}}};")
        self._line(f"{self.type} {values}[{rows}];")
        self._line(f"for (int {row} = 0; {row} < {rows}; {row}++) {{")
        self._line(f"{self.type} {total} = {bias}[{row}];", 8)
        self._line(f"for (int {column} = 0; {column} < {columns}; {column}++) {{", 8)
        self._line(f"{total} += {weight}[{row}][{column}]*{source}[{column}];", 12)
        self._line("}", 8)
        self._line(f"{values}[{row}] = {results[node.activation]};", 8)
        self._line("}")
        self.text_of[node] = values

    def _whole_layer(self, node: Dense) -> str | None:
        """The array of the previous layer, if the arguments are exactly its entries."""
        first = node.children[0]
        if not isinstance(first, Element):
            return None
        entries = [Element(first.dense, index) for index in range(len(first.dense.bias))]
        return self.text_of[first.dense] if list(node.children) == entries else None


def _clip(node: Node, number: Number) -> tuple[Node, Constant, Constant] | None:
    """`clip_parts`, unless the limits are one number in this type: then which of two zeros is returned would differ."""
    parts = clip_parts(node)
    if parts is None:
        return None
    with np.errstate(over="ignore", under="ignore"):
        lo, hi = (np.dtype(number).type(limit.value) for limit in parts[1:])
    return parts if lo < hi else None


def _declared(order: Sequence[Node], roots: Sequence[Node], number: Number) -> set[Node]:
    """Nodes that get a local: written more than once, or the end of a statement that would grow too long."""
    times_written = _times_written(order, roots, number)
    declared: set[Node] = set()
    size: dict[Node, int] = {}
    depth: dict[Node, int] = {}
    for node in order:
        parts = [child for child in node.children if child not in declared and not isinstance(child, (Dense, Element))]
        size[node] = 1 + sum(size[child] for child in parts)
        # a sum or product continues its left operand without parentheses
        flat = isinstance(node, Binary) and node.op in ("add", "sub", "mul", "div")
        depth[node] = max((depth[child] + (not (flat and child is node.children[0])) for child in parts), default=0)
        leaf = isinstance(node, (Constant, Variable, Element, Dense, Comparison))
        if not leaf and (times_written[node] > 1 or size[node] > _MAX_SIZE or depth[node] > _MAX_DEPTH):
            declared.add(node)
    return declared


def _times_written(order: Sequence[Node], roots: Sequence[Node], number: Number) -> dict[Node, int]:
    """How often each node's text would appear; a ternary writes its operands twice, a comparison is never named."""
    count = dict.fromkeys(order, 0)
    for node in roots:
        count[node] += 1
    for node in reversed(order):
        ternary = (isinstance(node, Binary) and node.op in ("min", "max")) or (
            isinstance(node, Unary) and node.op == "sign"
        )
        clipped = _clip(node, number)
        repeats = count[node] if isinstance(node, Comparison) else 2 if ternary else 1
        for child in node.children:
            # the inner half of a clip is written in place
            count[child] += 1 if clipped and child is node.children[0] else repeats
    return count


def _wishes(outputs: Mapping[str, Node], number: Number) -> dict[Node, str]:
    """An output, or what an output clips, is named after the output."""
    wishes: dict[Node, str] = {}
    for name, node in outputs.items():
        clipped = _clip(node, number)
        wishes.setdefault(clipped[0] if clipped else node, name)
    return wishes
