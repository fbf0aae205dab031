"""Expressions as statements of a language with functions: what JavaScript, Python and Rust have in common.

A language is a :class:`Dialect`: how it writes a number, a local, a choice and a layer, and what its functions are
called. The walk is the same for all: arithmetic in the order of the expression, powers multiplied out, a local for
what is used twice, for an output, and for what would get too long. (C has an emitter of its own, which also decides
what is cheap on a microcontroller.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sindyrl.emit.c_names import LocalNames
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
from sindyrl.emit.text import COMPARISON_SIGN
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

_MAX_SIZE = 200  # operations in one statement
_MAX_DEPTH = 6  # nesting in one statement
_LIMIT = 1_000_000


class Dialect(Protocol):
    """One language.

    keywords : names that locals and the function must avoid      functions : operation -> callee (sin, min, clip, ...)
    """

    keywords: frozenset[str]
    functions: Mapping[str, str]

    def literal(self, value: float) -> str:
        """A number that the language reads back exactly."""
        ...

    def local(self, name: str, text: str) -> list[str]:
        """Lines that declare a scalar."""
        ...

    def divide_constants(self, left: Node, right: Node) -> tuple[int, Sequence[Piece]] | None:
        """How to divide two numbers if the language would not let it become an infinity; None for ``/``."""
        ...

    def choose(self, branches: Sequence[tuple[Node, Node]], default: Node) -> tuple[int, Sequence[Piece]]:
        """The value of the first true condition, else the default."""
        ...

    def layer(self, names: LayerNames, node: Dense, arguments: str | None) -> tuple[list[str], list[str]]:
        """Lines of constant tables outside, and lines inside that compute ``names.values`` from ``names.source``.

        arguments : entries of ``names.source`` if it has to be made first, else None (an earlier layer).
        """
        ...


@dataclasses.dataclass(frozen=True)
class LayerNames:
    """Free names for a dense layer: its result, its argument, its tables."""

    values: str
    source: str
    weight: str
    bias: str


@dataclasses.dataclass(frozen=True)
class Body:
    """The inside of a function.

    lines : statements without indentation      results : text of each output      tables : constants to put outside
    inputs : (index, name) of the inputs in use      called : operations whose functions are called
    """

    lines: tuple[str, ...]
    results: tuple[str, ...]
    tables: tuple[str, ...]
    inputs: tuple[tuple[int, str], ...]
    called: frozenset[str]


def body(dialect: Dialect, inputs: Sequence[str], outputs: Mapping[str, Node], reserved: Iterable[str]) -> Body:
    """Statements that compute ``outputs`` from locals named after ``inputs``; ``reserved`` names are avoided."""
    return _Walk(dialect, inputs, outputs, reserved).result()


def check_function_name(dialect: Dialect, language: str, name: str) -> str:
    """Return ``name`` if a function of the language can have it, else ValueError."""
    check_name("name", name)
    if name in dialect.keywords:
        raise ValueError(f"`name` must not be a keyword of {language}. Got {name!r}.")
    return name


class _Walk:
    """One pass over the nodes in evaluation order."""

    def __init__(
        self, dialect: Dialect, inputs: Sequence[str], outputs: Mapping[str, Node], reserved: Iterable[str]
    ) -> None:
        self.dialect = dialect
        self.lines: list[str] = []
        self.tables: list[str] = []
        self.called: set[str] = set()
        self.text_of: dict[Node, str] = {}
        self.roots = expand_powers(list(outputs.values()))
        self.order = topological(self.roots)
        functions = [function.rpartition(".")[2].rpartition(":")[2] for function in dialect.functions.values()]
        self.names = LocalNames([*dialect.keywords, *functions, *reserved])
        self.inputs = self._read_inputs(inputs)
        self.wishes: dict[Node, str] = {}
        for name, node in zip(outputs, self.roots, strict=True):
            self.wishes.setdefault(node, name)
        self.constant = _constant(self.order)
        self.declared = self._declared()
        for node in self.order:
            self._declare(node)

    def result(self) -> Body:
        results = [self._text(node) for node in self.roots]
        return Body(tuple(self.lines), tuple(results), tuple(self.tables), self.inputs, frozenset(self.called))

    def _read_inputs(self, inputs: Sequence[str]) -> tuple[tuple[int, str], ...]:
        used = {node.name for node in self.order if isinstance(node, Variable)}
        found = []
        for index, name in enumerate(inputs):
            local = self.names.new(name)  # also for unused inputs, so that the others keep their names
            if name in used:
                self.text_of[Variable(name)] = local
                found.append((index, local))
        return tuple(found)

    def _declared(self) -> set[Node]:
        written = dict.fromkeys(self.order, 0)
        for node in self.order:
            for child in node.children:
                written[child] += 1
        declared: set[Node] = set()
        size: dict[Node, int] = {}
        depth: dict[Node, int] = {}
        for node in self.order:
            parts = [child for child in node.children if child not in declared and not isinstance(child, Dense)]
            size[node] = 1 + sum(size[child] for child in parts)
            flat = isinstance(node, Binary) and node.op in ("add", "sub", "mul", "div")
            depth[node] = max((depth[child] + (not (flat and child is node.children[0])) for child in parts), default=0)
            leaf = isinstance(node, (Constant, Variable, Element, Dense, Comparison))
            long = size[node] > _MAX_SIZE or depth[node] > _MAX_DEPTH
            # what is made of numbers alone gets a local, where its type is certain
            if not leaf and (written[node] > 1 or long or node in self.wishes or node in self.constant):
                declared.add(node)
        return declared

    def _declare(self, node: Node) -> None:
        if isinstance(node, Dense):
            self._layer(node)
        elif isinstance(node, Element):
            self.text_of[node] = f"{self.text_of[node.dense]}[{node.index}]"
        elif node in self.declared:
            text = self._text(node)
            name = self.names.new(self.wishes.get(node) or _telling_name(node))
            self.lines += self.dialect.local(name, text)
            self.text_of[node] = name

    def _text(self, node: Node) -> str:
        return write(node, self._rule, limit=_LIMIT)

    def _rule(self, node: Node) -> tuple[int, Sequence[Piece]]:
        if node in self.text_of:
            return ATOM, [self.text_of[node]]
        if isinstance(node, Constant):
            text = self.dialect.literal(node.value)
            return (NEGATIVE if text.startswith("-") else ATOM), [text]
        if isinstance(node, Unary):
            return (NEGATIVE, ["-", (node.arg, ATOM)]) if node.op == "neg" else self._call(node.op, node.children)
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Comparison):
            return COMPARE, [(node.left, SUM), f" {COMPARISON_SIGN[node.op]} ", (node.right, SUM)]
        assert isinstance(node, Piecewise)
        return self.dialect.choose(node.branches, node.default)

    def _binary(self, node: Binary) -> tuple[int, Sequence[Piece]]:
        if node.op == "div" and node in self.constant and (special := self.dialect.divide_constants(*node.children)):
            return special
        if node.op in ("mul", "div"):
            return PRODUCT, [(node.left, PRODUCT), "*" if node.op == "mul" else "/", (node.right, ATOM)]
        if node.op in ("add", "sub"):
            sign, right = signed_sum(node, lambda inner: inner not in self.text_of)
            return SUM, [(node.left, SUM), f" {sign} ", (right, PRODUCT)]
        clipped = clip_parts(node)
        if clipped and node.left not in self.text_of:
            return self._call("clip", clipped)
        return self._call(node.op, node.children)

    def _call(self, op: str, arguments: Sequence[Node]) -> tuple[int, Sequence[Piece]]:
        self.called.add(op)
        pieces: list[Piece] = [f"{self.dialect.functions[op]}("]
        for position, argument in enumerate(arguments):
            pieces += [", "] * bool(position) + [(argument, TERNARY)]
        return ATOM, [*pieces, ")"]

    def _layer(self, node: Dense) -> None:
        values = self.names.new("layer")
        weight, bias = (self.names.new(f"{values}_{table}").upper() for table in ("weight", "bias"))
        source, arguments = self._whole_layer(node), None
        if source is None:
            source = self.names.new(f"{values}_in")
            arguments = ", ".join(self._text(argument) for argument in node.children)
        if node.activation != "identity":
            self.called.add(node.activation)
        tables, lines = self.dialect.layer(LayerNames(values, source, weight, bias), node, arguments)
        self.tables += tables
        self.lines += lines
        self.text_of[node] = values

    def _whole_layer(self, node: Dense) -> str | None:
        """The array of the previous layer, if the arguments are exactly its entries."""
        first = node.children[0]
        if not isinstance(first, Element):
            return None
        entries = [Element(first.dense, index) for index in range(len(first.dense.bias))]
        return self.text_of[first.dense] if list(node.children) == entries else None


def _constant(order: Sequence[Node]) -> set[Node]:
    """Nodes that depend on no input."""
    found: set[Node] = set()
    for node in order:
        if not isinstance(node, Variable) and all(child in found for child in node.children):
            found.add(node)
    return found


def _telling_name(node: Node) -> str:
    """``sin_theta``, ``v_sq``, ``v_cubed``; else ``t``, numbered."""
    if isinstance(node, Unary) and isinstance(node.arg, Variable):
        return f"{node.op}_{node.arg.name}"
    if isinstance(node, Binary) and node.op == "mul" and isinstance(node.right, Variable):
        name = node.right.name
        if node.left is node.right:
            return f"{name}_sq"
        if node.left is Binary("mul", node.right, node.right):
            return f"{name}_cubed"
    return "t"
