"""Units of library terms and of the coefficients in front of them, checked when units are given.

A linear model is consistent in any units: each coefficient carries what is missing, ``[target] / [term]``, and the
report states it.  What no coefficient can mend are sums of unlike quantities *inside* a term (``x + v``, ``sin(x)``
of a length), and these are named.

Units are text: products, quotients and powers of symbols, as ``m/s^2``, ``N*m``, ``kg m^2``, ``1/s``, ``rad``.  SI
units and their prefixes are known; a word that is not known (``rabbits``) is a unit of its own; an empty text means
that the unit is not known, ``1`` or ``-`` that there is none.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from sindyrl.emit import text
from sindyrl.expression import (
    Binary,
    Comparison,
    Constant,
    Node,
    Piecewise,
    Power,
    Unary,
    Variable,
    topological,
)
from sindyrl.library import Library
from sindyrl.sparse_map import SparseMap

__all__ = ["Unit", "UnitReport", "check_units", "kinematic_problems", "parse_unit", "unit_of"]

_SCALE = 1e-12  # relative difference of scale factors that is rounding

_PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3, "h": 1e2, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
_DERIVED = {  # in terms of m, kg, s, A, K; angles are numbers
    "g": "1e-3 kg",
    "N": "kg*m/s^2",
    "J": "kg*m^2/s^2",
    "W": "kg*m^2/s^3",
    "Pa": "kg/(m*s^2)",
    "Hz": "1/s",
    "C": "A*s",
    "V": "kg*m^2/(A*s^3)",
    "Ohm": "kg*m^2/(A^2*s^3)",
    "F": "A^2*s^4/(kg*m^2)",
    "H": "kg*m^2/(A^2*s^2)",
    "T": "kg/(A*s^2)",
    "Wb": "kg*m^2/(A*s^2)",
    "L": "1e-3 m^3",
    "min": "60 s",
    "h": "3600 s",
    "d": "86400 s",
    "rad": "1",
    "deg": f"{math.pi / 180!r}",
    "rev": f"{2 * math.pi!r}",
    "rpm": f"{2 * math.pi / 60!r} 1/s",
    "%": "0.01",
}
_BASE = ("m", "s", "A", "K", "mol", "cd")
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?)|([A-Za-zµ_%°]+)|(\*\*|[*/^()·⋅-]))")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A scale factor and powers of base units; ``Unit()`` is the unit of plain numbers and of angles in rad."""

    powers: tuple[tuple[str, Fraction], ...] = ()
    scale: float = 1.0

    def __mul__(self, other: Unit) -> Unit:
        total = dict(self.powers)
        for name, power in other.powers:
            total[name] = total.get(name, Fraction(0)) + power
        kept = tuple(sorted((name, power) for name, power in total.items() if power))
        return Unit(kept, self.scale * other.scale)

    def __truediv__(self, other: Unit) -> Unit:
        return self * other**-1

    def __pow__(self, exponent: int | Fraction) -> Unit:
        powers = tuple((name, power * exponent) for name, power in self.powers) if exponent else ()
        return Unit(powers, self.scale ** float(exponent))

    def like(self, other: Unit) -> bool:
        """Same powers and the same scale: values may be added."""
        return self.powers == other.powers and math.isclose(self.scale, other.scale, rel_tol=_SCALE)

    def __str__(self) -> str:
        over = "*".join(_factor(name, power) for name, power in self.powers if power > 0)
        under = [_factor(name, -power) for name, power in self.powers if power < 0]
        below = "*".join(under) if len(under) < 2 else f"({'*'.join(under)})"
        number = "" if math.isclose(self.scale, 1.0, rel_tol=_SCALE) else f"{self.scale:.6g}"
        shown = over or ("" if number and not under else "1")
        return f"{number} {shown}{'/' if under else ''}{below}".strip()


def _factor(name: str, power: Fraction) -> str:
    if power == 1:
        return name
    return f"{name}^{power}" if power.denominator == 1 else f"{name}^({power})"


def parse_unit(source: str) -> Unit | None:
    """The unit that a text stands for; None for an empty text.  Raises ValueError showing what cannot be read.

    ``*``, ``·`` and a space multiply; ``/`` divides by the one factor that follows; ``^`` and ``**`` raise.
    """
    if not isinstance(source, str):
        raise TypeError(f"A unit must be a text such as 'm/s^2'. Got {source!r}.")
    if not source.strip():
        return None
    if source.strip() in ("-", "1"):
        return Unit()
    plain = re.sub(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda found: "^" + found[1].translate(_RAISED), source).replace("°", "deg")
    tokens, position = [], 0
    while plain[position:].strip():
        found = _TOKEN.match(plain, position)
        if not found:
            raise ValueError(
                f"The unit {source!r} cannot be read at {plain[position:].strip()!r}. Write as 'kg*m/s^2'."
            )
        tokens.append(found[found.lastindex or 0].replace("**", "^"))
        position = found.end()
    unit, rest = _product(tokens, source)
    if rest:
        raise ValueError(f"The unit {source!r} cannot be read at {' '.join(rest)!r}. Write as 'kg*m/s^2'.")
    return unit


def _product(tokens: list[str], source: str) -> tuple[Unit, list[str]]:
    unit, rest = _raised(tokens, source)
    while rest and rest[0] != ")":
        divide = rest[0] == "/"
        factor, rest = _raised(rest[1:] if rest[0] in "*/·⋅" else rest, source)
        unit = unit / factor if divide else unit * factor
    return unit, rest


def _raised(tokens: list[str], source: str) -> tuple[Unit, list[str]]:
    broken = ValueError(f"The unit {source!r} is not complete or not a product of powers. Write as 'kg*m/s^2'.")
    if not tokens or (tokens[0] in "*/^)·⋅-"):
        raise broken
    if tokens[0] == "(":
        unit, rest = _product(tokens[1:], source)
        if not rest or rest[0] != ")":
            raise broken
        rest = rest[1:]
    else:
        unit, rest = _symbol(tokens[0]), tokens[1:]
    if not rest or rest[0] != "^":
        return unit, rest
    end = next((i for i, token in enumerate(rest) if i and token == ")"), 0) + 1 if rest[1:2] == ["("] else 2
    end += end == 2 and rest[1:2] == ["-"]
    try:
        return unit ** Fraction("".join(rest[1:end]).strip("()")), rest[end:]
    except (ValueError, ZeroDivisionError):
        raise broken from None


def _symbol(symbol: str) -> Unit:
    if symbol[0].isdigit():
        return Unit((), float(symbol))
    if symbol in _BASE or symbol == "kg":
        return Unit(((symbol, Fraction(1)),))
    if symbol in _DERIVED:
        return parse_unit(_DERIVED[symbol]) or Unit()
    base = symbol[1:]
    if symbol[0] in _PREFIXES and (
        base in _BASE or base in ("g", "N", "J", "W", "Pa", "Hz", "V", "Ohm", "F", "H", "C", "T", "L", "rad")
    ):
        return _symbol(base) * Unit((), _PREFIXES[symbol[0]])
    return Unit(((symbol, Fraction(1)),))


# ---- expressions ------------------------------------------------------------------------------


class _Unlike(Exception):
    """What is wrong inside a term."""


def unit_of(node: Node, units: Mapping[str, Unit | None]) -> Unit | None:
    """The unit of an expression; None if it depends on a variable whose unit is not known.

    A number is dimensionless in a product and has the unit of the other operand in a sum.
    Raises ValueError naming the operation if unlike quantities are added or compared, or a function that needs a plain
    number or an angle gets something else.
    """
    try:
        return _unit_of(node, units)
    except _Unlike as error:
        raise ValueError(f"{text.expression(node)}: {error}") from None


def _unit_of(node: Node, units: Mapping[str, Unit | None]) -> Unit | None:
    known: dict[Node, Unit | None] = {}
    for current in topological([node]):
        known[current] = _combined(current, [known[child] for child in current.children], units)
    return known[node]


def _combined(node: Node, parts: list[Unit | None], units: Mapping[str, Unit | None]) -> Unit | None:
    if isinstance(node, Constant):
        return Unit()
    if isinstance(node, Variable):
        return units.get(node.name)
    if isinstance(node, Power):
        return None if parts[0] is None else parts[0] ** node.exponent
    if isinstance(node, Unary):
        return _function(node, parts[0])
    if isinstance(node, Binary) and node.op in ("mul", "div"):
        a, b = parts
        if a is None or b is None:
            return None
        return a * b if node.op == "mul" else a / b
    if isinstance(node, (Binary, Comparison)):
        return _sum(node, list(node.children), parts)
    if isinstance(node, Piecewise):
        values = [node.default, *(value for _, value in node.branches)]
        return _sum(node, values, [parts[node.children.index(value)] for value in values])
    return None  # the weights of a dense layer may carry any unit


def _function(node: Unary, argument: Unit | None) -> Unit | None:
    if node.op in ("neg", "abs"):
        return argument
    if node.op == "sqrt":
        return None if argument is None else argument ** Fraction(1, 2)
    if node.op != "sign" and argument is not None and not argument.like(Unit()):
        needs = "an angle in rad" if node.op in ("sin", "cos", "tan") else "a plain number"
        raise _Unlike(f"{node.op} needs {needs}; {text.expression(node.children[0])} is in {argument}")
    return Unit()


def _sum(node: Node, terms: list[Node], parts: list[Unit | None]) -> Unit | None:
    given = [(term, part) for term, part in zip(terms, parts, strict=True) if not isinstance(term, Constant)]
    for term, part in given[1:]:
        first, reference = given[0]
        if part is not None and reference is not None and not part.like(reference):
            raise _Unlike(
                f"{text.expression(first)} is in {reference} and {text.expression(term)} in {part}; "
                "they cannot be added or compared"
            )
    if not given:
        return Unit()
    return None if any(part is None for _, part in given) else given[0][1]


# ---- libraries --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class UnitReport:
    """Units of terms and coefficients.

    terms, targets : names
    term_units : (term,) None where unknown or inconsistent
    coefficient_units : (target, term) what each coefficient is measured in, None where unknown
    problems : one line for each term that adds unlike quantities; empty if the units are consistent
    """

    terms: tuple[str, ...]
    targets: tuple[str, ...]
    term_units: tuple[Unit | None, ...]
    coefficient_units: tuple[tuple[Unit | None, ...], ...]
    problems: tuple[str, ...]
    used: np.ndarray

    @property
    def consistent(self) -> bool:
        """Whether no term adds unlike quantities."""
        return not self.problems

    def __str__(self) -> str:
        lines = []
        for target, row, used in zip(self.targets, self.coefficient_units, self.used, strict=True):
            lines.append(f"{target}:")
            lines += [
                f"    {name}: coefficient in {'unknown unit' if unit is None else unit}"
                for name, unit, present in zip(self.terms, row, used, strict=True)
                if present
            ]
        return "\n".join([*lines, *(f"Inconsistent: {problem}" for problem in self.problems)])


def check_units(
    source: Library | SparseMap,
    units: Mapping[str, str],
    target_units: Mapping[str, str] | None = None,
    *,
    lenient: bool = False,
) -> UnitReport:
    """Check every term of a library, or the terms in use of a sparse map.

    units : unit text of each state and input; a variable left out has no known unit
    target_units : unit text of each target; by default those of the map
    lenient : a unit that cannot be read is a problem in the report and otherwise not known

    Raises ValueError if a unit names nothing in the library or, unless lenient, cannot be read.
    """
    library = source.library if isinstance(source, SparseMap) else source
    given = dict(target_units or {})
    if isinstance(source, SparseMap):
        given = dict(zip(source.targets, source.target_units, strict=True)) | given
    targets = source.targets if isinstance(source, SparseMap) else tuple(given)
    for argument, names, available in (("units", units, library.variables), ("target_units", given, targets)):
        unknown = set(names) - set(available)
        if unknown:
            raise ValueError(f"`check_units({argument}=...)` names {sorted(unknown)}; available: {available}.")
    problems: list[str] = []
    parsed = {name: _read(unit, name, problems if lenient else None) for name, unit in units.items()}
    # The rate of a state whose unit cannot be read is no second problem.
    wanted = [_read(given.get(name, ""), name, [] if lenient else None) for name in targets]
    every = np.ones((len(targets), len(library)), dtype=bool)
    used: Any = source.support if isinstance(source, SparseMap) else every
    looked_at = used.any(axis=0) if isinstance(source, SparseMap) else np.ones(len(library), dtype=bool)
    found: list[Unit | None] = []
    for term, present in zip(library.terms, looked_at, strict=True):
        try:
            found.append(unit_of(term, parsed))
        except ValueError as error:
            found.append(None)
            problems += [str(error)] if present else []
    coefficients = tuple(
        tuple(None if whole is None or part is None else whole / part for part in found) for whole in wanted
    )
    return UnitReport(library.names, targets, tuple(found), coefficients, tuple(problems), used)


def _read(source: str, name: str, problems: list[str] | None) -> Unit | None:
    try:
        return parse_unit(source)
    except ValueError as error:
        if problems is None:
            raise
        problems.append(f"{name}: {error}")
        return None


def kinematic_problems(
    positions: Mapping[str, str], angles: Mapping[tuple[str, str], str], units: Mapping[str, str]
) -> list[str]:
    """A line for each velocity whose unit is not that of its position per second, whose kinematics would be wrong.

    positions : position -> velocity   angles : (cosine, sine) -> angular velocity   units : unit text by name

    Units that are not given, or cannot be read, are not looked at.
    """
    second = Unit((("s", Fraction(1)),))
    found: list[str] = []
    angle_rates = [(name, rate) for pair, rate in angles.items() for name in pair]
    for name, velocity in [*positions.items(), *angle_rates]:
        of, rate = (_read(units.get(each, ""), each, []) for each in (name, velocity))
        if of is not None and rate is not None and not (of / second).like(rate):
            found.append(
                f"d({name})/dt is in {of / second}, but {velocity} is in {rate}; the known kinematics take them as "
                "equal. Convert a column, correct its unit, or fit both equations without known kinematics."
            )
    return found
