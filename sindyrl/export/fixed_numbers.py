"""Numbers of a fixed-point plan: values with ranges and error bounds, linear forms of them, and outward rounding."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

HALF = Fraction(1, 2)


class NoScale(ValueError):
    """The message says why an expression has no fixed-point form; the caller adds which expression."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A register (narrow or wide) with its scale, the range of what it stands for, and the error bound."""

    register: int
    scale: int
    lower: Fraction
    upper: Fraction
    error: Fraction

    @property
    def size(self) -> Fraction:
        """Largest real magnitude."""
        return max(abs(self.lower), abs(self.upper))


@dataclasses.dataclass(frozen=True)
class Linear:
    """``offset + sum of factor * value`` in real numbers, not computed yet."""

    terms: Mapping[Value, Fraction]
    offset: Fraction = Fraction(0)

    @property
    def lower(self) -> Fraction:
        return self.offset + sum((min(c * v.lower, c * v.upper) for v, c in self.terms.items()), Fraction(0))

    @property
    def upper(self) -> Fraction:
        return self.offset + sum((max(c * v.lower, c * v.upper) for v, c in self.terms.items()), Fraction(0))

    def times(self, factor: Fraction) -> Linear:
        """Every term and the offset, multiplied."""
        if factor == 0:
            return Linear({})
        return Linear({v: c * factor for v, c in self.terms.items()}, self.offset * factor)

    def plus(self, other: Linear) -> Linear:
        """Sum; terms that cancel vanish."""
        terms = dict(self.terms)
        for value, factor in other.terms.items():
            terms[value] = terms.get(value, Fraction(0)) + factor
        return Linear({v: c for v, c in terms.items() if c}, self.offset + other.offset)


def above(x: Fraction) -> Fraction:
    """The smallest float64 that is not below, or x itself where none is."""
    return -below(-x)


def below(x: Fraction) -> Fraction:
    """The largest float64 that is not above, or x itself where none is."""
    try:
        near = float(x)
    except OverflowError:
        return x
    if math.isinf(near):
        return x
    return Fraction(near if Fraction(near) <= x else math.nextafter(near, -math.inf))


def root_above(x: Fraction) -> Fraction:
    """An upper bound of the square root."""
    return above(Fraction(math.sqrt(float(above(x)))) * (1 + Fraction(1, 2**50)))


def root_below(x: Fraction) -> Fraction:
    """A lower bound of the square root."""
    return below(Fraction(math.sqrt(float(below(x)))) * (1 - Fraction(1, 2**50)))


def unit(scale: int) -> Fraction:
    """2^-scale."""
    return Fraction(1, 1 << scale) if scale >= 0 else Fraction(1 << -scale)


def exponent(x: Fraction) -> int:
    """n with 2^(n - 1) < abs(x) < 2^(n + 1), for x other than 0."""
    return x.numerator.bit_length() - x.denominator.bit_length()


def power_of_two(factor: Fraction) -> int | None:
    """k if the factor is 2^k, else None."""
    n, d = factor.numerator, factor.denominator
    if n <= 0 or n & (n - 1) or d & (d - 1):
        return None
    return n.bit_length() - d.bit_length()
