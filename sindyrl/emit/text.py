"""Expressions as plain text: ``clip(4.76*sin + 12.4*v^3, -1, 1)``."""

from __future__ import annotations

from collections.abc import Sequence

from sindyrl.emit.notation import (
    ATOM,
    COMPARE,
    NEGATIVE,
    POWER,
    PRODUCT,
    SUM,
    TERNARY,
    Piece,
    Rule,
    clip_parts,
    signed_sum,
    write,
)
from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Power, Unary, Variable

COMPARISON_SIGN = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def expression(node: Node, *, precision: int | None = None, limit: int = 2_000_000) -> str:
    """Write ``node`` in the order its arithmetic is done, with as few parentheses as that needs.

    precision : significant digits of the numbers; None writes the shortest text that reads back as the same float64.
    limit : raises :class:`~sindyrl.emit.notation.TooLong` (a ValueError) beyond this many characters.
    """
    return write(node, _rule(precision), limit=limit)


def number(value: float, precision: int | None = None) -> str:
    """``2``, ``0.1``, ``1e-12``: shortest text of a float, or rounded to significant digits."""
    text = repr(value) if precision is None else f"{value:.{precision}g}"
    return text.removesuffix(".0")


def _rule(precision: int | None) -> Rule:
    def rule(node: Node) -> tuple[int, Sequence[Piece]]:
        if isinstance(node, Constant):
            text = number(node.value, precision)
            return (NEGATIVE if text.startswith("-") else ATOM), [text]
        if isinstance(node, Variable):
            return ATOM, [node.name]
        if isinstance(node, Binary):
            return _binary(node)
        if isinstance(node, Power):
            return POWER, [(node.base, ATOM), f"^{node.exponent}"]
        if isinstance(node, Unary):
            return (NEGATIVE, ["-", (node.arg, POWER)]) if node.op == "neg" else _call(node.op, node.children)
        if isinstance(node, Comparison):
            return COMPARE, [(node.left, SUM), f" {COMPARISON_SIGN[node.op]} ", (node.right, SUM)]
        if isinstance(node, Piecewise):
            return _piecewise(node)
        if isinstance(node, Element):
            return ATOM, [(node.dense, ATOM), f"[{node.index}]"]
        assert isinstance(node, Dense)
        rows, columns = node.matrix.shape
        return _call(f"{node.activation}_layer_{rows}x{columns}", node.children)

    return rule


def _binary(node: Binary) -> tuple[int, Sequence[Piece]]:
    clipped = clip_parts(node)
    if clipped:
        return _call("clip", clipped)
    if node.op in ("min", "max"):
        return _call(node.op, node.children)
    if node.op == "mul":
        return PRODUCT, [(node.left, PRODUCT), "*", (node.right, POWER)]
    if node.op == "div":
        return PRODUCT, [(node.left, PRODUCT), "/", (node.right, POWER)]
    sign, right = signed_sum(node)
    return SUM, [(node.left, SUM), f" {sign} ", (right, PRODUCT)]


def _call(name: str, arguments: Sequence[Node]) -> tuple[int, Sequence[Piece]]:
    pieces: list[Piece] = [f"{name}("]
    for position, argument in enumerate(arguments):
        pieces += [", "] * bool(position) + [(argument, TERNARY)]
    return ATOM, [*pieces, ")"]


def _piecewise(node: Piecewise) -> tuple[int, Sequence[Piece]]:
    pieces: list[Piece] = ["piecewise("]
    for condition, value in node.branches:
        pieces += [(condition, TERNARY), ": ", (value, TERNARY), ", "]
    return ATOM, [*pieces, "else: ", (node.default, TERNARY), ")"]
