"""Walking over expressions: evaluation order, rebuilding, substitution, powers as multiplications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sindyrl.node import Binary, Constant, Node, Power, Variable, as_node

_T = TypeVar("_T")


def topological(outputs: Sequence[Node]) -> list[Node]:
    """Every node reachable from ``outputs`` once, children before parents.

    The order is that of a depth-first walk, left to right: it depends on the expressions alone.
    """
    order: list[Node] = []
    done: set[Node] = set()
    stack = list(reversed(outputs))
    while stack:
        node = stack.pop()
        if node in done:
            continue
        waiting = [child for child in node.children if child not in done]
        if waiting:
            stack.append(node)
            stack.extend(reversed(waiting))
        else:
            done.add(node)
            order.append(node)
    return order


def variables(outputs: Sequence[Node]) -> list[str]:
    """Names of the variables used, in order of first use."""
    return [node.name for node in topological(outputs) if isinstance(node, Variable)]


def transform(outputs: Sequence[Node], replace: Callable[[Node, tuple[Node, ...]], Node]) -> list[Node]:
    """Rebuild bottom-up: each node becomes ``replace(node, its rebuilt children)``. Sharing is kept."""
    rebuilt: dict[Node, Node] = {}
    for node in topological(outputs):
        rebuilt[node] = replace(node, tuple(rebuilt[child] for child in node.children))
    return [rebuilt[node] for node in outputs]


def _rebuild(node: Node, children: tuple[Node, ...]) -> Node:
    return node if children == node.children else node.with_children(children)


def substitute(outputs: Sequence[Node], replacements: Mapping[str, Node | float]) -> list[Node]:
    """Replace variables by expressions, all at once (a replacement may mention a replaced name)."""
    nodes = {name: as_node(value) for name, value in replacements.items()}

    def replace(node: Node, children: tuple[Node, ...]) -> Node:
        if isinstance(node, Variable):
            return nodes.get(node.name, node)
        return _rebuild(node, children)

    return transform(outputs, replace)


def multiply_chain(base: _T, exponent: int, multiply: Callable[[_T, _T], _T]) -> _T:
    """``base**exponent`` for exponent >= 1, by left-to-right binary powering (Knuth, TAOCP 2, 4.6.3).

    ``x**2 = x*x``, ``x**3 = (x*x)*x``, ``x**4 = (x*x)*(x*x)``, ``x**5 = x**4 * x``, ``x**6 = x**3 * x**3``, ...
    """
    value = base
    for bit in bin(exponent)[3:]:
        value = multiply(value, value)
        if bit == "1":
            value = multiply(value, base)
    return value


def expand_powers(outputs: Sequence[Node]) -> list[Node]:
    """Write every :class:`Power` as multiplications, sharing squares: what all back ends and the C emitter evaluate.

    ``x**n`` is :func:`multiply_chain`, ``x**-n`` is ``1/(x**n)``, ``x**0`` is 1.
    """

    def replace(node: Node, children: tuple[Node, ...]) -> Node:
        if not isinstance(node, Power):
            return _rebuild(node, children)
        if node.exponent == 0:
            return Constant(1.0)
        value = multiply_chain(children[0], abs(node.exponent), lambda a, b: Binary("mul", a, b))
        return value if node.exponent > 0 else Binary("div", Constant(1.0), value)

    return transform(outputs, replace)
