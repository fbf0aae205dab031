"""Writing infix notation with as few parentheses as keep the order of the arithmetic; shared by text, LaTeX and C."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sindyrl.node import Binary, Constant, Node, Unary

TERNARY, COMPARE, SUM, PRODUCT, NEGATIVE, POWER, ATOM = range(7)
"""Binding strengths, loosest first."""

Piece = str | tuple[Node, int]
"""Literal text, or a node and the least binding strength it needs to stand there without parentheses."""

Rule = Callable[[Node], tuple[int, Sequence[Piece]]]
"""How to write one node: its own binding strength, and its pieces."""


class TooLong(ValueError):
    """The expression, with shared parts written out each time, exceeds the limit."""


def write(node: Node, rule: Rule, *, limit: int, parentheses: tuple[str, str] = ("(", ")")) -> str:
    """Write ``node``. Raises :class:`TooLong` beyond ``limit`` characters, which sharing can reach from few nodes."""
    written: list[str] = []
    length = 0
    stack: list[Piece] = [(node, TERNARY)]
    while stack:
        piece = stack.pop()
        if isinstance(piece, str):
            written.append(piece)
            length += len(piece)
            if length > limit:
                raise TooLong(f"The expression is longer than {limit} characters when shared parts are written out.")
            continue
        child, needed = piece
        strength, pieces = rule(child)
        stack.extend(reversed([parentheses[0], *pieces, parentheses[1]] if strength < needed else pieces))
    return "".join(written)


def signed_sum(node: Binary, inline: Callable[[Node], bool] = lambda node: True) -> tuple[str, Node]:
    """Sign and right operand of ``add`` or ``sub``, with a leading minus of the operand moved into the sign.

    ``a + -2*x`` is written ``a - 2*x``: negation is exact, so every bit of the result is the same. ``inline`` says
    which nodes are written in place; the sign of the others cannot be moved.
    """
    sign = "+" if node.op == "add" else "-"
    flipped = _without_leading_minus(node.right, inline)
    if flipped is None:
        return sign, node.right
    return "-" if sign == "+" else "+", flipped


def _without_leading_minus(node: Node, inline: Callable[[Node], bool]) -> Node | None:
    """``-node`` if the first factor of ``node`` is a negation or a negative constant, else None."""
    spine: list[Binary] = []
    while isinstance(node, Binary) and node.op in ("mul", "div") and inline(node):
        spine.append(node)
        node = node.left
    if isinstance(node, Unary) and node.op == "neg" and inline(node):
        flipped = node.arg
    elif isinstance(node, Constant) and node.value < 0.0:
        flipped = Constant(-node.value)
    else:
        return None
    for factor in reversed(spine):
        flipped = Binary(factor.op, flipped, factor.right)
    return flipped


def clip_parts(node: Node) -> tuple[Node, Constant, Constant] | None:
    """``(x, lo, hi)`` if ``node`` is ``min(max(x, lo), hi)`` with constants lo < hi, else None."""
    if not (isinstance(node, Binary) and node.op == "min" and isinstance(node.right, Constant)):
        return None
    inner, hi = node.left, node.right
    if not (isinstance(inner, Binary) and inner.op == "max" and isinstance(inner.right, Constant)):
        return None
    return (inner.left, inner.right, hi) if inner.right.value < hi.value else None
