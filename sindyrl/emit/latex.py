r"""Expressions as LaTeX: ``4.76\,\theta + 12.4\,v^{3}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sindyrl.emit.notation import ATOM, COMPARE, NEGATIVE, POWER, PRODUCT, SUM, TERNARY, Piece, Rule, signed_sum, write
from sindyrl.emit.text import number
from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Power, Unary, Variable

_GREEK = frozenset(
    (
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
        *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta"),
        *("Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
    )
)
_ACCENTS = {"dot": r"\dot", "ddot": r"\ddot", "hat": r"\hat", "bar": r"\bar"}
_SIGN = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge"}
_NAMED = {"sign": r"\operatorname{sign}"}


def latex(node: Node, *, precision: int | None = None, limit: int = 2_000_000) -> str:
    """Write ``node`` as LaTeX mathematics; ``precision`` and ``limit`` as in :func:`sindyrl.emit.text.expression`."""
    return write(node, _rule(precision), limit=limit, parentheses=(r"\left(", r"\right)"))


def symbol(name: str) -> str:
    r"""``theta_1`` -> ``\theta_{1}``, ``x2`` -> ``x_{2}``, ``theta_dot`` -> ``\dot{\theta}``."""
    parts = [part for part in name.split("_") if part]
    if not parts:
        return r"\_" * len(name)
    stem, *rest = parts
    numbered = re.fullmatch(r"([A-Za-z]+?)([0-9]+)", stem)
    if numbered and (len(numbered[1]) == 1 or numbered[1] in _GREEK):
        stem, rest = numbered[1], [numbered[2], *rest]
    head = _word(stem)
    if rest and rest[0] in _ACCENTS:
        head, rest = f"{_ACCENTS[rest[0]]}{{{head}}}", rest[1:]
    return f"{head}_{{{','.join(_word(part) for part in rest)}}}" if rest else head


def _word(part: str) -> str:
    if part in _GREEK:
        return f"\\{part}"
    return part if len(part) == 1 or part.isdigit() else f"\\mathrm{{{part}}}"


def _number(value: float, precision: int | None) -> str:
    mantissa, mark, exponent = number(value, precision).partition("e")
    return f"{mantissa} \\cdot 10^{{{int(exponent)}}}" if mark else mantissa


def _rule(precision: int | None) -> Rule:
    def rule(node: Node) -> tuple[int, Sequence[Piece]]:
        if isinstance(node, Constant):
            text = _number(node.value, precision)
            return (NEGATIVE if text.startswith("-") else PRODUCT if "cdot" in text else ATOM), [text]
        if isinstance(node, Variable):
            return ATOM, [symbol(node.name)]
        if isinstance(node, Binary):
            return _binary(node)
        if isinstance(node, Power):
            return POWER, [(node.base, ATOM), f"^{{{node.exponent}}}"]
        if isinstance(node, Unary):
            return _unary(node)
        if isinstance(node, Comparison):
            return COMPARE, [(node.left, SUM), f" {_SIGN[node.op]} ", (node.right, SUM)]
        if isinstance(node, Piecewise):
            return _cases(node)
        if isinstance(node, Element):
            return ATOM, [(node.dense, ATOM), f"_{{{node.index + 1}}}"]
        assert isinstance(node, Dense)
        rows, columns = node.matrix.shape
        return _call(f"\\mathrm{{{node.activation}}}_{{{rows} \\times {columns}}}", node.children)

    return rule


def _unary(node: Unary) -> tuple[int, Sequence[Piece]]:
    if node.op == "neg":
        return NEGATIVE, ["-", (node.arg, POWER)]
    if node.op == "sqrt":
        return ATOM, [r"\sqrt{", (node.arg, TERNARY), "}"]
    if node.op == "abs":
        return ATOM, [r"\left|", (node.arg, TERNARY), r"\right|"]
    return _call(_NAMED.get(node.op, f"\\{node.op}"), node.children)


def _binary(node: Binary) -> tuple[int, Sequence[Piece]]:
    if node.op in ("min", "max"):
        return _call(f"\\{node.op}", node.children)
    if node.op == "div":
        return POWER, [r"\frac{", (node.left, TERNARY), "}{", (node.right, TERNARY), "}"]
    if node.op == "mul":
        dot = r" \cdot " if isinstance(node.right, Constant) or _starts_with_number(node.right) else r"\,"
        return PRODUCT, [(node.left, PRODUCT), dot, (node.right, POWER)]
    sign, right = signed_sum(node)
    return SUM, [(node.left, SUM), f" {sign} ", (right, PRODUCT)]


def _starts_with_number(node: Node) -> bool:
    return isinstance(node, Power) and isinstance(node.base, Constant)


def _call(name: str, arguments: Sequence[Node]) -> tuple[int, Sequence[Piece]]:
    pieces: list[Piece] = [name, r"\left("]
    for position, argument in enumerate(arguments):
        pieces += [", "] * bool(position) + [(argument, TERNARY)]
    return ATOM, [*pieces, r"\right)"]


def _cases(node: Piecewise) -> tuple[int, Sequence[Piece]]:
    pieces: list[Piece] = [r"\begin{cases} "]
    for condition, value in node.branches:
        pieces += [(value, TERNARY), r" & \text{if } ", (condition, TERNARY), r" \\ "]
    return ATOM, [*pieces, (node.default, TERNARY), r" & \text{otherwise} \end{cases}"]
