"""Tables of polynomials for elementary functions in fixed point, each with a proven error.

On a segment of half width w the polynomial of degree d that agrees with f at the d + 1 Chebyshev nodes is off by
at most

    w^(d+1) / (2^d (d+1)!) * max |f^(d+1)|

(Trefethen, Approximation Theory and Approximation Practice, SIAM 2013, chapter 4; the Cauchy remainder). The maximum is
analytic: 1 for sin and cos, exp at the upper end, d!/x^(d+1) for log at the lower end; for tanh and tan, whose
derivatives are polynomials in the function itself, the maximum on a grid plus half a step times a bound on the slope.
Coefficients are computed with 200 bits, which is allowed for with 2^-150 of the largest; rounding them to integers, and
rounding after every multiplication, costs at most half a unit each. Nothing is estimated from samples.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from sindyrl.emit.integer_program import Segments, Width

MAX_TABLE_BYTES = 8192
_PRECISION = 200
_MAX_DEGREE = 7
_STEP_BYTES = 64  # what one more step of Horner's rule may cost in table bytes saved
_SLACK = 1.0 + 1e-9  # bounds below are computed in float64


class TableTooLarge(ValueError):
    """No table within the size limit reaches the wanted error."""


@dataclasses.dataclass(frozen=True)
class Approximation:
    """A table, and the bound on the distance of its result from the function at the same argument, in real units."""

    table: Segments
    error: Fraction


def derivative_bound(op: str, order: int, lower: float, upper: float) -> float:
    """An upper bound of ``|f^(order)|`` on [lower, upper], order >= 1; infinite where there is none.

    op : sin, cos, exp, log, tanh, tan, or turns, which is ``sin(2 pi x)``.
    """
    if op in ("sin", "cos"):
        return 1.0
    if op == "turns":
        return (2.0 * math.pi * _SLACK) ** order
    if op == "exp":
        return math.exp(upper) * _SLACK if upper < 700.0 else math.inf
    if op == "log":
        return math.factorial(order - 1) / lower**order * _SLACK if lower > 0.0 else math.inf
    return _tangent_bound(op, order, lower, upper)


def _tangent_bound(op: str, order: int, lower: float, upper: float) -> float:
    """T = tanh or tan: T' = 1 - T^2 or 1 + T^2, so every derivative is a polynomial in T, with integer coefficients."""
    if op == "tan" and math.floor(lower / math.pi + 0.5) != math.floor(upper / math.pi + 0.5):
        return math.inf
    slope = np.polynomial.Polynomial([1.0, 0.0, -1.0 if op == "tanh" else 1.0])
    derivative = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(order):
        derivative = derivative.deriv() * slope
    function = np.tanh if op == "tanh" else np.tan
    ends = function(np.array([lower, upper]))
    reach = float(np.max(np.abs(ends))) * _SLACK
    if reach > 1e6:
        return math.inf
    grid = np.linspace(ends[0], ends[1], 513)
    steepest = np.polynomial.Polynomial(np.abs(derivative.deriv().coef))(reach)
    size = np.polynomial.Polynomial(np.abs(derivative.coef))(reach)
    half_step = (ends[1] - ends[0]) / 1024.0 + 1e-12 * (1.0 + reach)
    return float((np.max(np.abs(derivative(grid))) + half_step * steepest + 1e-12 * size) * _SLACK)


def approximate(
    op: str, scale: int, first: int, last: int, out_scale: int, width: Width, wanted: float, *, clamped: bool = False
) -> Approximation:
    """Table of f(q / 2^scale) * 2^out_scale for integers q in [first, last].

    wanted : error of the polynomials before rounding. Degree and segments are those of the smallest table, a step of
    Horner's rule counting as 64 bytes. Raises TableTooLarge.
    """
    candidates = []
    for degree in range(1, _MAX_DEGREE + 1):
        found = _segment_width(op, degree, scale, first, last, width, wanted)
        if found is not None:
            width_bits, count = found
            candidates.append(
                (count * (degree + 1) * width.bits // 8 + _STEP_BYTES * degree, degree, width_bits, count)
            )
    for _, degree, width_bits, count in sorted(candidates):
        result = _fit(op, degree, width_bits, count, scale, first, out_scale, width)
        if result is not None:
            shifts, coefficients, rounding = result
            table = Segments(op, first, last, clamped, width_bits, shifts, coefficients)
            remainder = _remainder(op, degree, width_bits, count, scale, first)
            return Approximation(table, Fraction(remainder) + rounding)
    raise TableTooLarge(f"a table of at most {MAX_TABLE_BYTES} bytes does not reach an error of {wanted:.3g}")


def _remainder(op: str, degree: int, width_bits: int, count: int, scale: int, first: int) -> float:
    """The bound at the top of this file over all segments, as far as the last one reaches."""
    half = math.ldexp(1.0, width_bits - 1 - scale)
    lower, upper = math.ldexp(first, -scale), math.ldexp(first + (count << width_bits), -scale)
    n = degree + 1
    return half**n / (2.0**degree * math.factorial(n)) * derivative_bound(op, n, lower, upper) * _SLACK


def _segment_width(
    op: str, degree: int, scale: int, first: int, last: int, width: Width, wanted: float
) -> tuple[int, int] | None:
    """Largest segments that are good enough: (bits of the width, number of segments)."""
    span = last - first
    for bits in range(min(span.bit_length() + 1, width.bits - 1), 0, -1):
        count = (span >> bits) + 1
        if count * (degree + 1) * width.bits // 8 > MAX_TABLE_BYTES:
            return None
        if _remainder(op, degree, bits, count, scale, first) <= wanted:
            return bits, count
    return None


def _fit(
    op: str, degree: int, width_bits: int, count: int, scale: int, first: int, out_scale: int, width: Width
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], Fraction] | None:
    """(shifts, coefficients, rounding error); None if a coefficient does not fit beside the wanted scale."""
    rows = _chebyshev_rows(op, degree, width_bits, count, scale, first)
    # size[k] bounds the value of Horner's rule at step k over |t| <= 1
    size = [max(sum((abs(c) for c in row[k:]), Fraction(0)) for row in rows) for k in range(degree + 1)]
    scales = [out_scale]
    for k in range(1, degree + 1):
        fitting = _largest_scale(size[k], width.narrow_limit - 4)
        # the product with t, of scale width_bits - 1, is shifted to the scale below
        fitting = min(fitting, scales[-1] + 2 * width.bits - 4 - (width_bits - 1))
        if fitting + width_bits - 1 - scales[-1] < 1:
            return None
        scales.append(fitting)
    shifts = tuple(scales[k + 1] + width_bits - 1 - scales[k] for k in range(degree))
    table = tuple(
        tuple(round(c * Fraction(2) ** scales[k]) for k, c in enumerate(row)) for row in rows
    )  # fmt: skip
    if max(abs(row[0]) for row in table) > width.narrow_limit:
        return None
    halves = [Fraction(1, 2) / Fraction(2) ** s for s in scales]
    rounding = sum(halves, Fraction(0)) + sum(halves[:-1], Fraction(0)) + size[0] / 2**150
    return shifts, table, rounding


def _largest_scale(size: Fraction, limit: int) -> int:
    """Largest s with ``size * 2^s <= limit``, at most 400."""
    if size == 0:
        return 400
    s = min(400, limit.bit_length() - (size.numerator.bit_length() - size.denominator.bit_length()) + 1)
    while size * Fraction(2) ** s > limit:
        s -= 1
    return s


def _chebyshev_rows(op: str, degree: int, width_bits: int, count: int, scale: int, first: int) -> list[list[Fraction]]:
    """Monomial coefficients of t in [-1, 1) of the interpolant on every segment."""
    from mpmath import MPContext

    context: Any = MPContext()
    context.prec = _PRECISION
    n = degree + 1
    nodes = [context.cos((2 * k + 1) * context.pi / (2 * n)) for k in range(n)]
    inverse = context.matrix([[node**k for k in range(n)] for node in nodes]) ** -1
    function = (lambda x: context.sin(2 * context.pi * x)) if op == "turns" else getattr(context, op)
    rows = []
    for index in range(count):
        middle = first + (index << width_bits) + (1 << (width_bits - 1))
        values = [
            function(context.ldexp(context.mpf(middle) + node * (1 << (width_bits - 1)), -scale)) for node in nodes
        ]
        rows.append([_exact(sum((inverse[k, j] * values[j] for j in range(n)), context.mpf(0))) for k in range(n)])
    return rows


def _exact(value: Any) -> Fraction:
    sign, mantissa, exponent, _ = value._mpf_
    return Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)
