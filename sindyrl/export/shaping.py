r"""The same real function in fewer instructions: sums of products regrouped by the laws of a commutative ring.

    2 x^3 - x^2 v + 0.5 v   ->   x*x*(2*x - v) + 0.5*v

Only commutativity, associativity and distributivity are used: no coefficient is added to or multiplied with another
one, so a regrouped map is *the same function of the reals*, and differs from the one it came from by rounding alone.
The regrouped map is a :class:`SymbolicMap` like any other, with error bounds and self-test vectors of its own.

What is tried: the map as written, and for every sum of products many factorings, each found by dividing out factors
again and again. Which factor is divided out is drawn at random, weighted by how many terms have it (the greedy choice
of Ceberio and Kreinovich, "Greedy algorithms for optimizing multivariate Horner schemes", ACM SIGSAM Bulletin 38, 2004,
is one of the draws). The generator is fixed: equal maps give equal shapes.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from sindyrl.node import Binary, Constant, Dense, Node, Power, Unary
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.traversal import expand_powers, topological

_DRAWS = 60
_REBUILT_NODES = 20_000
_MEASURED = 6
_MAX_TERMS = 400
_DIVISION = 14.0  # cycles of vdiv.f32 on a Cortex-M4F


@dataclasses.dataclass(frozen=True)
class Term:
    """``coefficient * product of factors``; a factor that occurs n times is listed n times, in a fixed order."""

    coefficient: float
    factors: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A map and its price.

    form : the regrouped map      regrouped : False if it is the map as written
    cost : in the unit of the function that was given, by default operations and constants
    """

    form: SymbolicMap
    regrouped: bool
    cost: float


def cheapest(form: SymbolicMap, cost: Callable[[SymbolicMap], float] | None = None) -> Shape:
    """The cheapest shape found; ``form`` itself unless another one is strictly cheaper.

    cost : measures a map, such as by its instructions on a processor. It is called on a few shapes only, those with the
        fewest operations. None counts operations.
    """
    ranked = _ranked(form)
    if cost is None:
        count, best = ranked[0]
        return Shape(best, best is not form, count)
    price = cost(form)
    chosen = Shape(form, False, price)
    for _, candidate in ranked[:_MEASURED]:
        if candidate is not form and (found := cost(candidate)) < chosen.cost:
            chosen = Shape(candidate, True, found)
    return chosen


def operations(form: SymbolicMap) -> float:
    """Arithmetic operations and loads of a map, shared parts once, divisions and square roots as 14."""
    total = 0.0
    for node in topological(expand_powers(form.nodes)):
        if isinstance(node, Constant):
            total += 1.0
        elif isinstance(node, Dense):
            total += 2.0 * node.matrix.size
        elif isinstance(node, Unary) and node.op not in ("neg", "abs"):
            total += _DIVISION
        elif isinstance(node, Binary):
            total += _DIVISION if node.op == "div" else 1.0
    return total


def _ranked(form: SymbolicMap) -> list[tuple[float, SymbolicMap]]:
    """Distinct shapes with their operations, fewest first; of equals the one found first, the map as written before."""
    sums = _sums(form.nodes)
    found = {form: operations(form)}
    if sums:
        # a large map is rebuilt less often: an observer has thousands of nodes, and its measured price decides anyway
        for draw in range(max(4, min(_DRAWS, _REBUILT_NODES // len(topological(form.nodes))))):
            rng = None if draw == 0 else np.random.default_rng(draw)
            shaped = _rebuilt(form, sums, rng)
            found.setdefault(shaped, operations(shaped))
    return sorted(((count, shaped) for shaped, count in found.items()), key=lambda pair: pair[0])


def _rebuilt(form: SymbolicMap, sums: dict[Node, list[Term]], rng: np.random.Generator | None) -> SymbolicMap:
    """Every sum of products written anew, from the innermost outwards."""
    new: dict[Node, Node] = {}
    for node in topological(form.nodes):
        if node in sums:
            terms = [Term(term.coefficient, tuple(new[factor] for factor in term.factors)) for term in sums[node]]
            new[node] = _factored(terms, rng)
        else:
            children = tuple(new.get(child, child) for child in node.children)
            new[node] = node if children == node.children else node.with_children(children)
    return SymbolicMap(
        form.inputs, list(zip(form.outputs, (new[node] for node in form.nodes), strict=True)), name=form.name
    )


# ---- from nodes to terms


def _sums(outputs: Sequence[Node]) -> dict[Node, list[Term]]:
    """The outermost sum of each tree of sums and products that nothing else shares -> its terms.

    A sum that is used twice, or inside a product, is a factor of its own: multiplying it out would cost more.
    """
    order = topological(outputs)
    uses = Counter(child for node in order for child in node.children) + Counter(outputs)
    inner = {
        child
        for node in order
        for child in node.children
        if _is_sum(child) and uses[child] == 1 and (_is_sum(node) or _is_sign(node))
    }
    sums = {}
    for node in order:
        if _is_sum(node) and node not in inner:
            terms = _terms(node, inner)
            if terms is not None and 2 <= len(terms) <= _MAX_TERMS:
                sums[node] = terms
    return sums


def _is_sum(node: Node) -> bool:
    return isinstance(node, Binary) and node.op in ("add", "sub")


def _is_sign(node: Node) -> bool:
    return isinstance(node, Unary) and node.op == "neg"


def _terms(root: Node, inner: set[Node]) -> list[Term] | None:
    """Terms of a sum in order; None if a coefficient would have to be rounded."""
    terms: list[Term] = []
    stack = [(root, 1.0)]
    while stack:
        node, sign = stack.pop()
        if isinstance(node, Binary) and _is_sum(node) and (node is root or node in inner):
            stack.append((node.right, sign if node.op == "add" else -sign))
            stack.append((node.left, sign))
        elif isinstance(node, Unary) and _is_sign(node) and (node.arg in inner):
            stack.append((node.arg, -sign))
        else:
            coefficient, factors = _product(node)
            if coefficient is None:
                return None
            terms.append(Term(sign * coefficient, tuple(factors)))
    return terms


def _product(root: Node) -> tuple[float | None, list[Node]]:
    """Coefficient and factors of a product; a coefficient of None is no float64."""
    coefficient = Fraction(1)
    factors: list[Node] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Constant):
            coefficient *= Fraction(node.value)
        elif isinstance(node, Binary) and node.op == "mul":
            stack.extend((node.right, node.left))
        elif isinstance(node, Power) and node.exponent > 0:
            stack.extend([node.base] * node.exponent)
        elif isinstance(node, Unary) and _is_sign(node):
            coefficient = -coefficient
            stack.append(node.arg)
        else:
            factors.append(node)
        if len(factors) + len(stack) > 64:
            return None, factors
    value = float(coefficient) if abs(coefficient) < Fraction(2) ** 1000 else math.inf
    return (value if math.isfinite(value) and Fraction(value) == coefficient and value != 0.0 else None), factors


# ---- from terms to nodes


def _factored(terms: Sequence[Term], rng: np.random.Generator | None) -> Node:
    """Divide out a factor that several terms share, and go on with the quotient and with the rest."""
    counts: Counter[Node] = Counter()
    for term in terms:
        counts.update(dict.fromkeys(term.factors, 1))
    shared = [(factor, count) for factor, count in counts.items() if count > 1]
    if not shared:
        return _plain(terms)
    factor = _drawn(shared, rng)
    inside = [Term(t.coefficient, _without(t.factors, factor)) for t in terms if factor in t.factors]
    rest = [term for term in terms if factor not in term.factors]
    product = Binary("mul", factor, _factored(inside, rng))
    return Binary("add", product, _factored(rest, rng)) if rest else product


def _drawn(shared: list[tuple[Node, int]], rng: np.random.Generator | None) -> Node:
    if rng is None:
        return max(shared, key=lambda pair: pair[1])[0]
    weights = np.array([float(count) ** 2 for _, count in shared])
    return shared[int(rng.choice(len(shared), p=weights / weights.sum()))][0]


def _without(factors: tuple[Node, ...], factor: Node) -> tuple[Node, ...]:
    at = factors.index(factor)
    return factors[:at] + factors[at + 1 :]


def _plain(terms: Sequence[Term]) -> Node:
    """Term after term; one without a minus goes first, if there is one."""
    first = next((index for index, term in enumerate(terms) if term.coefficient > 0.0), 0)
    total = _monomial(terms[first])
    for index, term in enumerate(terms):
        if index == first:
            continue
        op = "add" if term.coefficient > 0.0 else "sub"
        total = Binary(op, total, _monomial(Term(abs(term.coefficient), term.factors)))
    return total


def _monomial(term: Term) -> Node:
    """``c * a**2 * b``, equal factors as one power."""
    product: Node | None = None
    for factor, exponent in Counter(term.factors).items():
        part = factor if exponent == 1 else Power(factor, exponent)
        product = part if product is None else Binary("mul", product, part)
    if product is None:
        return Constant(term.coefficient)
    if term.coefficient == 1.0:
        return product
    if term.coefficient == -1.0:
        return Unary("neg", product)
    return Binary("mul", Constant(term.coefficient), product)
