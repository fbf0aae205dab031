"""Library matrices in NumPy at one multiplication a term."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sindyrl.expression import Binary, Node, Variable, expand_powers, topological
from sindyrl.symbolic_map import SymbolicMap

__all__ = ["ProductPlan"]


class ProductPlan:
    """Evaluation of terms that are mostly products of a few factors, each product one multiplication into place.

    The same arithmetic in the same order as every back end: products are those of `expand_powers`; whatever is not a
    product (a sine, a sum) is a factor and left to the NumPy back end.
    """

    def __init__(self, variables: tuple[str, ...], terms: tuple[Node, ...]) -> None:
        expanded = expand_powers(terms)
        factors: list[Node] = [Variable(name) for name in variables]
        products: list[Node] = []
        _collect(expanded, factors, products)
        place: dict[Node, tuple[str, int]] = {node: ("factor", index) for index, node in enumerate(factors)}
        self.copies = [(index, place[node][1]) for index, node in enumerate(expanded) if node in place]
        place |= {node: ("term", index) for index, node in enumerate(expanded) if node not in place}
        rest = [node for node in products if node not in place]
        place |= {node: ("rest", index) for index, node in enumerate(rest)}
        self.n_rest = len(rest)
        self.steps = [(place[node.children[0]], place[node.children[1]], place[node]) for node in products]
        others = factors[len(variables) :]
        outputs = [(f"factor_{index}", node) for index, node in enumerate(others)]
        self.other_factors = SymbolicMap(variables, outputs).columns("numpy") if others else None

    def evaluate(self, variables: np.ndarray, theta: np.ndarray) -> None:
        """variables : (variable, row)   theta : (term, row), written"""
        factors = list(variables)
        if self.other_factors is not None:
            factors += self.other_factors(factors)
        rest = np.empty((self.n_rest, variables.shape[1]))
        where: dict[str, Sequence[np.ndarray]] = {"factor": factors, "term": list(theta), "rest": list(rest)}
        with np.errstate(all="ignore"):  # as the back ends: IEEE values, no warnings
            for (left, i), (right, j), (out, k) in self.steps:
                np.multiply(where[left][i], where[right][j], out=where[out][k])
        for term, factor in self.copies:
            theta[term] = factors[factor]


def _collect(expanded: Sequence[Node], factors: list[Node], products: list[Node]) -> None:
    """Append the products above the factors in evaluation order, and the factors that are not variables."""
    inside: set[Node] = set()
    stack = list(expanded)
    while stack:  # down from the terms through products only
        node = stack.pop()
        if node not in inside:
            inside.add(node)
            if _is_product(node):
                stack.extend(node.children)
    for node in topological(expanded):
        if node in inside and _is_product(node):
            products.append(node)
        elif node in inside and node not in factors:
            factors.append(node)


def _is_product(node: Node) -> bool:
    return isinstance(node, Binary) and node.op == "mul"
