"""Libraries of candidate terms.

A :class:`LibrarySpec` says what to build, without names: ``polynomial_library(3) + trigonometric_library()``.
`LibrarySpec.bind` gives it the names of a system and returns a :class:`Library`: an ordered tuple of closed-form
terms that can be evaluated on data, named, chosen from, examined for dependencies, and compiled.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sindyrl.conditioning import ConditioningReport, conditioning_report, independent_columns, resolution
from sindyrl.emit import text
from sindyrl.expression import Constant, Node, Power, Variable, check_name, cos, sin
from sindyrl.number_check import check_number, whole
from sindyrl.product_plan import ProductPlan
from sindyrl.symbolic_map import Backend, SymbolicMap

__all__ = [
    "Library",
    "LibrarySpec",
    "affine_library",
    "custom_library",
    "identity_library",
    "polynomial_library",
    "trigonometric_library",
]

_MAX_TERMS = 20_000
_DEFAULTS = {"bias": False, "interaction": True}  # others: None
_ROW_BLOCK = 4096  # rows evaluated together: the columns of one block stay in cache

Product = tuple[tuple[Node, int], ...]
"""Factors of a term with their exponents; empty for the constant 1."""


@dataclass(frozen=True)
class LibrarySpec:
    """What a library holds, before it knows the names of a system.

    ``a + b`` has the terms of both, ``a * b`` every product of a term of one with a term of the other;
    a term that comes twice is kept once.
    """

    build: Callable[[tuple[str, ...], tuple[str, ...]], list[Product]]
    text: str

    def __add__(self, other: LibrarySpec) -> LibrarySpec:
        """All terms of both."""
        if not isinstance(other, LibrarySpec):
            return NotImplemented
        return LibrarySpec(lambda x, u: self.build(x, u) + other.build(x, u), f"{self.text} + {other.text}")

    def __mul__(self, other: LibrarySpec) -> LibrarySpec:
        """All products of two terms."""
        if not isinstance(other, LibrarySpec):
            return NotImplemented
        return LibrarySpec(
            lambda x, u: [a + b for a, b in itertools.product(self.build(x, u), other.build(x, u))],
            f"({self.text}) * ({other.text})",
        )

    def bind(self, states: Sequence[str], inputs: Sequence[str] = ()) -> Library:
        """The library for a system with these states and inputs."""
        names = (_names("bind(states=...)", states), _names("bind(inputs=...)", inputs))
        variables = _distinct(*names)
        terms = dict.fromkeys(_node(product, variables) for product in self.build(*names))
        return Library(*names, tuple(terms))

    def __repr__(self) -> str:
        return self.text


def polynomial_library(
    degree: int,
    *,
    input_degree: int | None = None,
    bias: bool = False,
    interaction: bool = True,
    states: Sequence[str] | None = None,
) -> LibrarySpec:
    """All monomials of states and inputs of total degree 1 to ``degree``, ordered by degree.

    input_degree : largest degree in the inputs together; None sets no limit beside ``degree``
    bias : also the constant 1
    interaction : False keeps only powers of single variables
    states : which states may enter; None means all
    """
    degree = check_number("polynomial_library(degree=...)", degree, "an integer of at least 0", whole(0))
    if input_degree is not None:
        wanted = "an integer of at least 0"
        input_degree = check_number("polynomial_library(input_degree=...)", input_degree, wanted, whole(0))

    def build(all_states: tuple[str, ...], inputs: tuple[str, ...]) -> list[Product]:
        names = _chosen("polynomial_library(states=...)", states, all_states) + inputs
        limit = degree if input_degree is None else input_degree
        products = _monomials(names, degree, bias, interaction)
        entering = {Variable(name) for name in inputs}
        return [term for term in products if sum(power for atom, power in term if atom in entering) <= limit]

    settings = {"input_degree": input_degree, "bias": bias, "interaction": interaction, "states": states}
    return LibrarySpec(build, _call("polynomial_library", str(degree), settings, _DEFAULTS))


def affine_library(
    degree: int, *, bias: bool = False, interaction: bool = True, states: Sequence[str] | None = None
) -> LibrarySpec:
    """Affine in the inputs: ``p1(x) + B u + p2(x) u`` with monomials of the states of degree 1 to ``degree`` in both.

    The library of SINDy-RL (Zolman et al., 2024).  The total degree of the products is up to ``degree + 1``.
    """
    degree = check_number("affine_library(degree=...)", degree, "an integer of at least 0", whole(0))

    def build(all_states: tuple[str, ...], inputs: tuple[str, ...]) -> list[Product]:
        chosen = _chosen("affine_library(states=...)", states, all_states)
        drift = _monomials(chosen, degree, False, interaction)
        gains: list[Product] = [(), *drift]
        return [*([()] if bias else []), *drift, *((*gain, (Variable(u), 1)) for gain in gains for u in inputs)]

    settings = {"bias": bias, "interaction": interaction, "states": states}
    return LibrarySpec(build, _call("affine_library", str(degree), settings, _DEFAULTS))


def trigonometric_library(frequencies: int = 1, *, of: Sequence[str] | None = None) -> LibrarySpec:
    """``sin(k x)`` and ``cos(k x)``, k = 1 to ``frequencies``, of the named variables (default: all states), in rad."""
    wanted = "an integer of at least 1"
    frequencies = check_number("trigonometric_library(frequencies=...)", frequencies, wanted, whole(1))

    def build(states: tuple[str, ...], inputs: tuple[str, ...]) -> list[Product]:
        of_names = states if of is None else _chosen("trigonometric_library(of=...)", of, states + inputs)
        angles = [
            Variable(name) if k == 1 else Constant(float(k)) * Variable(name)
            for name in of_names
            for k in range(1, frequencies + 1)
        ]
        return [((function(angle), 1),) for angle in angles for function in (sin, cos)]

    return LibrarySpec(build, _call("trigonometric_library", str(frequencies), {"of": of}, _DEFAULTS))


def custom_library(functions: Iterable[Callable[..., Node] | Node]) -> LibrarySpec:
    """Terms of one's own: expressions, or functions whose parameters are named after states and inputs.

    ``custom_library([lambda v: v * abs(v), lambda cos, u: cos * u])``; a function is called with the `Variable` nodes.
    """
    given = tuple(functions)
    for index, function in enumerate(given):
        if not isinstance(function, Node) and not callable(function):
            raise TypeError(
                f"`custom_library(functions=...)` must hold functions or expressions. Entry {index} is {function!r}."
            )

    def build(states: tuple[str, ...], inputs: tuple[str, ...]) -> list[Product]:
        return [((_custom_term(index, function, states + inputs), 1),) for index, function in enumerate(given)]

    return LibrarySpec(build, f"custom_library(<{len(given)} terms>)")


def identity_library() -> LibrarySpec:
    """Every state and every input itself."""
    return LibrarySpec(lambda x, u: _monomials(x + u, 1, False, True), "identity_library()")


@dataclass(frozen=True)
class Library:
    """An ordered tuple of terms over named states and inputs; immutable.

    states, inputs : names; a data matrix has one column for each, in this order
    terms : closed-form nodes in these variables, all different

    Raises ValueError if a term uses an unknown variable or comes twice.
    """

    states: tuple[str, ...]
    inputs: tuple[str, ...]
    terms: tuple[Node, ...]

    def __post_init__(self) -> None:
        _distinct(_names("Library(states=...)", self.states), _names("Library(inputs=...)", self.inputs))
        object.__setattr__(self, "states", tuple(self.states))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ValueError("`Library(terms=...)` must hold at least one term. Got none.")
        if len(self.terms) > _MAX_TERMS:
            raise ValueError(f"`Library(terms=...)` may hold at most {_MAX_TERMS} terms. Got {len(self.terms)}.")
        if len(set(self.terms)) < len(self.terms):
            doubled = next(term for term in self.terms if self.terms.count(term) > 1)
            raise ValueError(f"`Library(terms=...)` must be all different. {text.expression(doubled)} comes twice.")
        self.symbolic()  # every variable must be a state or an input

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def variables(self) -> tuple[str, ...]:
        """States, then inputs: the columns of a data matrix."""
        return self.states + self.inputs

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The terms as readable text, such as ``sin^2*u``; the constant is ``1``."""
        return tuple(text.expression(term) for term in self.terms)

    def select(self, chosen: Iterable[int | str]) -> Library:
        """The library of these terms only, given by index or name, in the order given."""
        return Library(self.states, self.inputs, tuple(self.terms[self.index(item)] for item in chosen))

    def without(self, dropped: Iterable[int | str]) -> Library:
        """The library without these terms, given by index or name."""
        gone = {self.index(item) for item in ([dropped] if isinstance(dropped, str) else dropped)}
        return Library(
            self.states, self.inputs, tuple(term for index, term in enumerate(self.terms) if index not in gone)
        )

    def index(self, term: int | str) -> int:
        """Position of a term given by its name (or its position, which is checked)."""
        if isinstance(term, str):
            if term not in self.names:
                shown = ", ".join(self.names[:40]) + (", ..." if len(self) > 40 else "")
                raise ValueError(f"There is no term {term!r} in the library. Available: {shown}.")
            return self.names.index(term)
        if not -len(self) <= term < len(self):
            raise ValueError(f"A term index must be below {len(self)}. Got {term}.")
        return int(term) % len(self)

    def symbolic(self) -> SymbolicMap:
        """The terms as a map from the variables to outputs ``term_0``, ``term_1``, ... in library order."""
        return self._map

    @cached_property
    def _map(self) -> SymbolicMap:
        return SymbolicMap(self.variables, [(f"term_{index}", term) for index, term in enumerate(self.terms)])

    def columns(self, kind: Backend = "numpy") -> Callable[[Sequence[Any]], list[Any]]:
        """Compiled evaluation by columns: one array for each variable in, one for each term out.

        kind : "numpy", "jax", "casadi" or "c"; constant terms may come back as scalars.
        """
        return self.symbolic().columns(kind)

    def features(self, x: Any) -> np.ndarray:
        """Library matrix theta (..., n_terms) on data x (..., n_variables), columns in the order of `variables`."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != len(self.variables):
            raise ValueError(
                f"`Library.features(x=...)` must have {len(self.variables)} columns {self.variables}. "
                f"Got shape {x.shape}."
            )
        by_variable = np.ascontiguousarray(x.reshape(-1, len(self.variables)).T)
        # Column by column in memory: each product writes one contiguous run, and BLAS takes either order.
        theta = np.empty((len(self), by_variable.shape[1]))
        for start in range(0, theta.shape[1], _ROW_BLOCK):
            rows = slice(start, start + _ROW_BLOCK)
            self._products.evaluate(by_variable[:, rows], theta[:, rows])
        return theta.T.reshape(*x.shape[:-1], len(self)) if x.ndim != 2 else theta.T

    @cached_property
    def _products(self) -> ProductPlan:
        return ProductPlan(self.variables, self.terms)

    def conditioning(self, x: Any, *, rtol: float | None = None) -> ConditioningReport:
        """What the data x (sample, variable) can tell apart: condition number, dependencies by name.

        rtol : what counts as exact; None takes 1e-6 for float32 numbers and 1e-10 otherwise.
        """
        x = np.asarray(x, dtype=np.float64)
        return conditioning_report(self.features(x), self.names, resolution(x) if rtol is None else rtol)

    def independent(self, x: Any, *, rtol: float | None = None) -> Library:
        """The library without the terms that on the data x (sample, variable) are combinations of earlier ones.

        Of a dependent set the term named last goes, which in a polynomial library is the one of highest
        degree, and among those the one highest in the later variables: of 1, cos^2, sin^2 it is sin^2.
        """
        x = np.asarray(x, dtype=np.float64)
        return self.select(independent_columns(self.features(x), resolution(x) if rtol is None else rtol))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content; the inverse of `from_dict`."""
        return {
            "states": list(self.states),
            "inputs": list(self.inputs),
            "terms": json.loads(self.symbolic().to_json()),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Library:
        """Library from `to_dict`.  Raises ValueError naming what is missing or malformed."""
        if not isinstance(data, Mapping) or not {"states", "inputs", "terms"} <= set(data):
            raise ValueError("A library must have the entries 'states', 'inputs' and 'terms'.")
        for key in ("states", "inputs"):
            if not isinstance(data[key], list):
                raise ValueError(f"Entry {key!r} of a library must be a list of names. Got {data[key]!r:.100}.")
        terms = SymbolicMap.from_json(json.dumps(data["terms"]))
        return cls(tuple(data["states"]), tuple(data["inputs"]), terms.nodes)

    def __str__(self) -> str:
        return f"Library of {len(self)} terms in {', '.join(self.variables)}: {', '.join(self.names)}"


def _monomials(names: Sequence[str], degree: int, bias: bool, interaction: bool) -> list[Product]:
    """Monomials by degree, then in the order of the variables: x, y, x^2, x*y, y^2, ..."""
    if interaction and math.comb(len(names) + degree, degree) > _MAX_TERMS:
        raise ValueError(
            f"All monomials of degree {degree} in {len(names)} variables are {math.comb(len(names) + degree, degree)} "
            f"terms; at most {_MAX_TERMS} are allowed. Lower the degree, or name fewer `states=`."
        )
    atoms = [Variable(name) for name in names]
    products: list[Product] = [()] if bias else []
    for total in range(1, degree + 1):
        if not interaction:
            products += [((atom, total),) for atom in atoms]
            continue
        for chosen in itertools.combinations_with_replacement(atoms, total):
            products.append(tuple((atom, chosen.count(atom)) for atom in dict.fromkeys(chosen)))
    return products


def _node(product: Product, variables: tuple[str, ...]) -> Node:
    """One node for a product: equal factors become powers, variables come first and in library order.

    The order makes equal products the same node, and lets x^2*y*z be evaluated as (x^2*y)*z with x^2*y shared.
    """
    exponents: dict[Node, int] = {}
    for atom, power in product:
        exponents[atom] = exponents.get(atom, 0) + power
    position: dict[Node, int] = {Variable(name): index for index, name in enumerate(variables)}
    ordered = sorted(exponents, key=lambda atom: position.get(atom, len(position)))
    factors = [atom if exponents[atom] == 1 else Power(atom, exponents[atom]) for atom in ordered]
    if not factors:
        return Constant(1.0)
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def _custom_term(index: int, function: Callable[..., Node] | Node, variables: tuple[str, ...]) -> Node:
    if isinstance(function, Node):
        return function
    parameters = tuple(inspect.signature(function).parameters)
    result = function(*(Variable(name) for name in _chosen("custom_library(functions=...)", parameters, variables)))
    if not isinstance(result, Node):
        raise TypeError(f"`custom_library(functions=...)`: function {index} must return an expression. Got {result!r}.")
    return result


def _names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` must be a sequence of names. Got the single text {names!r}.")
    return tuple(check_name(argument, name) for name in names)


def _distinct(states: tuple[str, ...], inputs: tuple[str, ...]) -> tuple[str, ...]:
    names = states + inputs
    if not names or len(set(names)) < len(names):
        raise ValueError(f"States and inputs must be at least one name, all different. Got {states} and {inputs}.")
    return names


def _chosen(argument: str, names: Sequence[str] | None, available: tuple[str, ...]) -> tuple[str, ...]:
    if names is None:
        return available
    for name in _names(argument, names):
        if name not in available:
            raise ValueError(f"`{argument}` names {name!r}, which is not available: {', '.join(available)}.")
    return tuple(names)


def _call(function: str, first: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """How the call was written, default settings left out."""
    shown = [f"{key}={value!r}" for key, value in settings.items() if value != defaults.get(key)]
    return f"{function}({', '.join([first, *shown])})"
