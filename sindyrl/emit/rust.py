"""Expressions as a Rust function without the standard library, in the order of the expression.

    pub fn policy(state: &[f32; 2]) -> [f32; 1] {
        let x = state[0];
        let u: f32 = clip(-2.0*x, -1.0, 1.0);
        [u]
    }

``core`` has no sine. A map that needs one takes it from a trait that the caller fills in:
``policy::<MyFunctions>(&state)``, where ``impl Functions for MyFunctions`` forwards to ``libm`` or to the board's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sindyrl.emit.c import literal
from sindyrl.emit.notation import COMPARE, TERNARY, Piece
from sindyrl.emit.statements import LayerNames, body, check_function_name
from sindyrl.emit.wrapping import wrapped
from sindyrl.node import Comparison, Constant, Dense, Node

TYPES = {"float32": "f32", "float64": "f64"}
_KEYWORDS = """abstract as async await become box break const continue crate do dyn else enum extern false final fn for
gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super trait true try
type typeof union unsafe unsized use virtual where while yield raw f32 f64 bool state row col total core std alloc test
proc_macro build deps examples incremental functions"""
_FROM_OUTSIDE = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt")
_HELPERS = {
    "min": "fn minimum(a: T, b: T) -> T {\n    if a < b { a } else { b }\n}",
    "max": "fn maximum(a: T, b: T) -> T {\n    if a > b { a } else { b }\n}",
    "clip": "fn clip(x: T, low: T, high: T) -> T {\n    if x > low { if x < high { x } else { high } } else { low }\n}",
    "sign": "fn sign(x: T) -> T {\n    if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }\n}",
    "abs": "fn absolute(x: T) -> T {\n    T::from_bits(x.to_bits() & !(-0.0 as T).to_bits())\n}",
}


class Rust:
    """See :class:`sindyrl.emit.statements.Dialect`."""

    keywords = frozenset(_KEYWORDS.split())
    functions: Mapping[str, str] = {op: f"F::{op}" for op in _FROM_OUTSIDE} | {
        "abs": "absolute",
        "min": "minimum",
        "max": "maximum",
        "clip": "clip",
        "sign": "sign",
    }

    def __init__(self, number: str) -> None:
        if number not in TYPES:
            raise ValueError(f"`number` must be one of {', '.join(TYPES)} for Rust. Got {number!r}.")
        self.number, self.type = number, TYPES[number]

    def literal(self, value: float) -> str:
        return literal(value, "float32").removesuffix("f") if self.number == "float32" else literal(value, "float64")

    def local(self, name: str, text: str) -> list[str]:
        return [f"let {name}: {self.type} = {text};"]

    def divide_constants(self, left: Node, right: Node) -> None:
        return None

    def choose(self, branches: Sequence[tuple[Node, Node]], default: Node) -> tuple[int, Sequence[Piece]]:
        pieces: list[Piece] = []
        for condition, value in branches:
            pieces += ["if ", *self._condition(condition), " { ", (value, TERNARY), " } else "]
        return TERNARY, [*pieces, "{ ", (default, TERNARY), " }"]

    def _condition(self, condition: Node) -> list[Piece]:
        """Two bare numbers would be compared as f64."""
        assert isinstance(condition, Comparison)
        left, right = condition.children
        if isinstance(left, Constant) and isinstance(right, Constant):
            return [f"{'true' if _holds(condition.op, self._rounded(left), self._rounded(right)) else 'false'}"]
        return [(condition, COMPARE)]

    def _rounded(self, node: Constant) -> float:
        return float(self.literal(node.value))

    def layer(self, names: LayerNames, node: Dense, arguments: str | None) -> tuple[list[str], list[str]]:
        rows, columns = node.matrix.shape
        table = ", ".join(f"[{', '.join(map(self.literal, row))}]" for row in node.matrix.tolist())
        offsets = ", ".join(map(self.literal, node.bias.tolist()))
        tables = [
            f"const {names.weight}: [[{self.type}; {columns}]; {rows}] = [{table}];",
            f"const {names.bias}: [{self.type}; {rows}] = [{offsets}];",
        ]
        results = {"identity": "*total", "tanh": "F::tanh(*total)", "relu": "if *total > 0.0 { *total } else { 0.0 }"}
        lines = [] if arguments is None else [f"let {names.source}: [{self.type}; {columns}] = [{arguments}];"]
        return tables, [
            *lines,
            f"let mut {names.values} = {names.bias};",
            f"for (row, total) in {names.values}.iter_mut().enumerate() {{",
            f"    for (col, value) in {names.source}.iter().enumerate() {{",
            f"        *total += {names.weight}[row][col] * value;",
            "    }",
            f"    *total = {results[node.activation]};",
            "}",
        ]


def _holds(op: str, left: float, right: float) -> bool:
    return {"lt": left < right, "le": left <= right, "gt": left > right, "ge": left >= right}[op]


def rust_function(
    inputs: Sequence[str], outputs: Mapping[str, Node], name: str, *, number: str = "float32"
) -> tuple[str, tuple[str, ...]]:
    """Text of ``pub fn name(state: &[T; n]) -> [T; m]`` with its helpers, and the functions its trait asks for.

    Raises ValueError for a name that Rust or Cargo reserves and for a constant beyond the range of float32.
    """
    dialect = Rust(number)
    check_function_name(dialect, "Rust or Cargo", name)
    inside = body(dialect, inputs, outputs, [name, "value"])
    needed = tuple(op for op in _FROM_OUTSIDE if op in inside.called)
    kind = dialect.type
    trait = []
    if needed:
        trait = [
            "/// Functions that `core` does not have; forward them to `libm`, or to `std` where there is one.",
            "pub trait Functions {",
            *(f"    fn {op}(x: {kind}) -> {kind};" for op in needed),
            "}",
            "",
        ]
    helpers = [text.replace("T", kind) + "\n" for op, text in _HELPERS.items() if op in inside.called]
    lines = [f"let {local} = state[{index}];" for index, local in inside.inputs]
    lines += [*inside.lines, f"[{', '.join(inside.results)}]"]
    generic, unused = "<F: Functions>" * bool(needed), "" if inside.inputs else "_"
    return "\n".join(
        [
            *trait,
            *helpers,
            *(part for table in inside.tables for part in wrapped(table)),
            *[""] * bool(inside.tables),
            f"pub fn {name}{generic}({unused}state: &[{kind}; {len(inputs)}]) -> [{kind}; {len(outputs)}] {{",
            *(part for line in lines for part in wrapped(f"    {line}")),
            "}",
            "",
        ]
    ), needed
