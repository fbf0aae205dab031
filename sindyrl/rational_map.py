"""Equations ``target = N / D`` with few terms, and a `SparseMap` that evaluates several of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sindyrl.emit import text
from sindyrl.expression import Constant, Node, maximum, minimum
from sindyrl.library import Library
from sindyrl.poles import ZeroCheck
from sindyrl.sparse_map import SparseMap

__all__ = ["RationalEquation", "Term", "rational_rates", "weighted_sum"]

_ONE = Constant(1.0)


class Term(NamedTuple):
    """``coefficient * term``; standard error to first order given the support, 0 for the coefficient set to 1."""

    term: Node
    coefficient: float
    standard_error: float

    @property
    def name(self) -> str:
        return text.expression(self.term)


@dataclasses.dataclass(frozen=True)
class RationalEquation:
    """``target = sum(numerator) / sum(denominator)``.

    unit_term : name of the term of the denominator whose coefficient is set to 1
    held_out : median over the folds of the explicit prediction's error relative to the target's size, both RMS
    residual_rms : in the target's unit   relative_error : the same over the target's RMS
    condition : of the prediction's derivatives in the coefficients; above about 1e3 they trade off against each other
    proven : no other support of this size is better to first order about this one (branch and bound)
    zero : whether the denominator can vanish in the box of the data
    """

    target: str
    unit: str
    numerator: tuple[Term, ...]
    denominator: tuple[Term, ...]
    unit_term: str
    held_out: float
    residual_rms: float
    relative_error: float
    condition: float
    proven: bool
    zero: ZeroCheck

    @property
    def n_terms(self) -> int:
        return len(self.numerator) + len(self.denominator)

    @property
    def top(self) -> Node:
        """``N`` as a closed form."""
        return weighted_sum(self.numerator)

    @property
    def bottom(self) -> Node:
        """``D`` as a closed form."""
        return weighted_sum(self.denominator)

    def fraction(self) -> Node:
        """``N / D`` as a closed form."""
        return self.top if self.bottom is _ONE else self.top / self.bottom

    def __str__(self) -> str:
        return f"{self.target} = {text.expression(self.fraction(), precision=4)}"


def weighted_sum(terms: Sequence[Term]) -> Node:
    """``coefficient * term + ...`` in the order given, without factors of 1; 0 for no terms."""
    total: Node | None = None
    for node, coefficient, _ in terms:
        if node is _ONE:
            product: Node = Constant(coefficient)
        else:
            product = node if coefficient == 1.0 else Constant(coefficient) * node
        total = product if total is None else total + product
    return Constant(0.0) if total is None else total


def rational_rates(
    library: Library, equations: Sequence[RationalEquation], signs: Sequence[int], units: Sequence[str]
) -> SparseMap:
    """The equations over a library of quotients ``term / D``, whose coefficients are those of the numerators.

    library : for the names of its variables
    signs : by equation, 1 to divide by ``max(D, 0)``, -1 by ``min(D, 0)`` and 0 by D itself
    """
    rows: list[dict[Node, float]] = []
    for equation, sign in zip(equations, signs, strict=True):
        bottom = equation.bottom
        if sign:
            bottom = maximum(bottom, 0.0) if sign > 0 else minimum(bottom, 0.0)
        rows.append({t.term if bottom is _ONE else t.term / bottom: t.coefficient for t in equation.numerator})
    terms = tuple(dict.fromkeys(node for row in rows for node in row)) or library.terms[:1]
    coef = np.array([[row.get(node, 0.0) for node in terms] for row in rows])
    names = tuple(equation.target for equation in equations)
    return SparseMap(Library(library.states, library.inputs, terms), coef, names, tuple(units))
