r"""Elementary functions that generated C brings along: float32, no libm, the same bits on every machine.

The C library of a small target may be missing, slow (sinf of some takes over a thousand instructions) or differ in its
last bits from that of the desktop on which the code was tested. These functions use float32 additions, products and
divisions in a fixed order, 32-bit integers, and nothing else. Each has a twin in NumPy that returns the same bits; a
test compares them, and measures the stated errors over every float32 there is.

Methods: reduction by Cody and Waite (*Software Manual for the Elementary Functions*, 1980), with pi/2 and log 2 split
into parts whose products with the integer are exact; polynomials of least largest relative error, found by linear
programming on 400 Chebyshev points and rounded to float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.emit.c import called_operations, literal
from sindyrl.node import Node

Floats = NDArray[np.float32]

_SIN = (-0.166666549, 0.00833217337, -0.000195166372)  # (sin r - r)/r^3 in r^2, |r| <= pi/4
_COS = (0.0416666485, -0.00138874447, 2.44464419e-05)  # (cos r - 1 + r^2/2)/r^4 in r^2
_EXP = (0.50000001, 0.166665129, 0.0416661899, 0.00836959537, 0.00139515182)  # (exp r - 1 - r)/r^2, |r| <= log(2)/2
_TANH = (-0.33333284, 0.133314924, -0.0537435791, 0.0206508166, -0.00571726182)  # (tanh x - x)/x^3 in x^2, |x| <= 0.625
_LOG = (0.666667832, 0.399766168, 0.298985751)  # (log((1+s)/(1-s)) - 2 s)/s^3 in s^2, |s| <= 0.172

# Decimal expansions, from which the parts are cut exactly.
_HALF_PI = Fraction("1.57079632679489661923132169163975144209858")
_LOG_2 = Fraction("0.693147180559945309417232121458176568075500")
_ANGLE_LIMIT = 10000.0  # at most 6366 quarter turns, 13 bits; 13 and 11 bits make an exact product of 24


@dataclasses.dataclass(frozen=True)
class Elementary:
    """A function in float32: its C, its NumPy twin with the same bits, and how far it may be from the truth.

    body : the C between the braces of ``static float NAME(float x)``, single exit, result in ``y``
    evaluate : the twin, float32 array -> float32 array
    max_ulp, floor : the error is at most ``max_ulp`` units in the last place of the true value plus ``floor``
    domain : where that holds, and what is returned elsewhere, in words for a header
    """

    op: str
    body: str
    evaluate: Callable[[Floats], Floats]
    max_ulp: float
    floor: float
    domain: str

    def c_text(self, name: str) -> str:
        """The C function, ending in a newline."""
        return f"static float {name}(float x) {{\n{self.body}    return y;\n}}\n"


def called_functions(outputs: Sequence[Node]) -> set[str]:
    """Operations of ``outputs`` that a libm would be called for; sqrt and abs are instructions."""
    return called_operations(outputs) - {"sqrt", "abs"}


def own_functions(outputs: Sequence[Node], *, square_root: bool = False) -> Mapping[str, Elementary]:
    """Those of `ELEMENTARY` that ``outputs`` call, in a fixed order.

    square_root : also sqrt, for processors where it is not an instruction
    """
    called = called_operations(outputs) - {"abs"} if square_root else called_functions(outputs)
    return {op: entry for op, entry in ELEMENTARY.items() if op in called}


def _parts(value: Fraction, *bits: int) -> list[float]:
    """``value`` as a sum of float32, the first ones cut to so many bits, the last one rounded."""
    parts = []
    for count in bits:
        step = Fraction(2) ** (math.frexp(float(value))[1] - count)
        part = (value / step).__floor__() * step
        parts.append(float(part))
        value -= part
    return [*parts, float(np.float32(float(value)))]


_HALF_PI_PARTS = _parts(_HALF_PI, 11, 11)
_LOG_2_PARTS = _parts(_LOG_2, 15)
_TURNS, _LOG_2_E = float(1 / _HALF_PI), float(1 / _LOG_2)


def _horner(coefficients: Sequence[float], variable: str) -> str:
    """``a0 + z*(a1 + z*a2)`` in C."""
    text = _c(coefficients[-1])
    for value in reversed(coefficients[:-1]):
        inner = f"({text})" if " " in text else text
        text = f"{_c(value)} + {variable}*{inner}"
    return text


def _polynomial(coefficients: Sequence[float], z: Floats) -> Floats:
    total = np.full_like(z, np.float32(coefficients[-1]))
    for value in reversed(coefficients[:-1]):
        total = np.float32(value) + z * total
    return total


def _c(value: float) -> str:
    return literal(value, "float32")


# ---- sin and cos


def _wave_body(shift: int) -> str:
    high, middle, low = map(_c, _HALF_PI_PARTS)
    limit = _c(_ANGLE_LIMIT)
    quarter = "(uint32_t)k" if shift == 0 else f"(uint32_t)k + {shift}u"
    return f"""    float y;
    if ((x > -{limit}) && (x < {limit})) {{
        const float turns = x*{_c(_TURNS)};
        const float shifted = turns + ((turns < 0.0f) ? -0.5f : 0.5f);
        const int32_t k = (int32_t)shifted;
        const float n = (float)k;
        const float r = ((x - n*{high}) - n*{middle}) - n*{low};
        const float z = r*r;
        const uint32_t quarter = {quarter};
        if ((quarter & 1u) == 0u) {{
            y = r + (r*z)*({_horner(_SIN, "z")});
        }} else {{
            y = (1.0f - 0.5f*z) + (z*z)*({_horner(_COS, "z")});
        }}
        if ((quarter & 2u) != 0u) {{
            y = -y;
        }}
    }} else {{
        y = 0.0f/(x - x); /* NaN */
    }}
"""


def _wave(shift: int) -> Callable[[Floats], Floats]:
    def evaluate(x: Floats) -> Floats:
        one, half = np.float32(1.0), np.float32(0.5)
        inside = (x > -_ANGLE_LIMIT) & (x < _ANGLE_LIMIT)
        angle = np.where(inside, x, np.float32(0.0))
        turns = angle * np.float32(_TURNS)
        k = (turns + np.where(turns < 0, -half, half)).astype(np.int32)
        n = k.astype(np.float32)
        r = angle
        for part in _HALF_PI_PARTS:
            r = r - n * np.float32(part)
        z = r * r
        quarter = k + shift
        y = np.where(
            quarter & 1 == 0,
            r + (r * z) * _polynomial(_SIN, z),
            (one - half * z) + (z * z) * _polynomial(_COS, z),
        )
        return np.where(inside, np.where(quarter & 2 != 0, -y, y), np.float32(np.nan))

    return evaluate


# ---- exp


_EXP_LIMITS = (-104.0, 89.0)  # below, the result rounds to zero; above, it overflows


def _exp_core(indent: str) -> str:
    """Statements that set ``y`` to exp(w) for a float ``w`` within the limits."""
    high, low = map(_c, _LOG_2_PARTS)
    lines = f"""const float turns = w*{_c(_LOG_2_E)};
const float shifted = turns + ((turns < 0.0f) ? -0.5f : 0.5f);
const int32_t k = (int32_t)shifted;
const float n = (float)k;
const float r = (w - n*{high}) - n*{low};
const uint32_t both = (uint32_t)k + 256u; /* modulo 2^32, so a negative k does no harm */
const uint32_t first = both/2u; /* k halves, so that each power of two is a normal number */
const uint32_t second = both - first;
union {{ uint32_t bits; float value; }} a;
union {{ uint32_t bits; float value; }} b;
a.bits = (first - 1u) << 23u;
b.bits = (second - 1u) << 23u;
y = (1.0f + (r + (r*r)*({_horner(_EXP, "r")})))*a.value*b.value;
"""
    return "".join(f"{indent}{line}\n" for line in lines.splitlines())


def _exp_body() -> str:
    low, high = map(_c, _EXP_LIMITS)
    return f"""    float y;
    if ((x > {low}) && (x < {high})) {{
        const float w = x;
{_exp_core("        ")}    }} else {{
        /* infinite, zero, or NaN as x */
        y = (x > 0.0f) ? (x*3e38f) : ((x < 0.0f) ? 0.0f : x);
    }}
"""


def _exp(x: Floats) -> Floats:
    inside = (x > _EXP_LIMITS[0]) & (x < _EXP_LIMITS[1])
    beyond = np.where(x > 0, x * np.float32(3e38), np.where(x < 0, np.float32(0.0), x))
    return np.where(inside, _exp_inside(np.where(inside, x, np.float32(0.0))), beyond)


def _exp_inside(w: Floats) -> Floats:
    half = np.float32(0.5)
    turns = w * np.float32(_LOG_2_E)
    k = (turns + np.where(turns < 0, -half, half)).astype(np.int32)
    n = k.astype(np.float32)
    r = w
    for part in _LOG_2_PARTS:
        r = r - n * np.float32(part)
    first = (k + 256) // 2
    a, b = ((np.asarray(e - 1, np.uint32) << np.uint32(23)).view(np.float32) for e in (first, (k + 256) - first))
    return (np.float32(1.0) + (r + (r * r) * _polynomial(_EXP, r))) * a * b


# ---- tanh


_TANH_SMALL, _TANH_LARGE = 0.625, 9.5  # from 9.011 on, tanh rounds to one


def _tanh_body() -> str:
    small, large = _c(_TANH_SMALL), _c(_TANH_LARGE)
    return f"""    const float size = (x < 0.0f) ? -x : x;
    float y;
    if (size < {small}) {{
        const float z = x*x;
        y = x + (x*z)*({_horner(_TANH, "z")});
    }} else if (size < {large}) {{
        const float w = 2.0f*size;
{_exp_core("        ")}        y = 1.0f - 2.0f/(y + 1.0f);
        y = (x < 0.0f) ? -y : y;
    }} else {{
        /* one of the sign of x, or NaN as x */
        y = (x > 0.0f) ? 1.0f : ((x < 0.0f) ? -1.0f : x);
    }}
"""


def _tanh(x: Floats) -> Floats:
    one = np.float32(1.0)
    size = np.where(x < 0, -x, x)
    z = x * x
    near = x + (x * z) * _polynomial(_TANH, z)
    middle = (size >= _TANH_SMALL) & (size < _TANH_LARGE)
    grown = _exp_inside(np.float32(2.0) * np.where(middle, size, np.float32(0.0)))
    far = one - np.float32(2.0) / (grown + one)
    limit = np.where(x > 0, one, np.where(x < 0, -one, x))
    return np.where(size < _TANH_SMALL, near, np.where(middle, np.where(x < 0, -far, far), limit))


# ---- log


_SQRT_HALF_BITS = 0x3F3504F3  # of sqrt(1/2) in float32: mantissas run from there to sqrt(2)
_MANTISSA_ONE = 0x3F800000


def _log_body() -> str:
    high, low = map(_c, _LOG_2_PARTS)
    return f"""    float y;
    if ((x > 0.0f) && (x <= 3.4028235e38f)) {{
        const int32_t small = (x < 1.1754944e-38f) ? 1 : 0;
        union {{ uint32_t bits; float value; }} m;
        m.value = (small == 1) ? (x*8388608.0f) : x; /* 2^23 makes a denormal number normal */
        const uint32_t shifted = m.bits + {_MANTISSA_ONE - _SQRT_HALF_BITS}u;
        const uint32_t exponent = shifted >> 23u;
        const int32_t k = ((int32_t)exponent - 127) - 23*small;
        m.bits = (shifted & 8388607u) + {_SQRT_HALF_BITS}u;
        const float n = (float)k;
        const float f = m.value - 1.0f;
        const float s = f/(2.0f + f);
        const float z = s*s;
        y = n*{high} + (n*{low} + (f - s*(f - z*({_horner(_LOG, "z")}))));
    }} else if (x == 0.0f) {{
        y = -1.0f/(x*x); /* minus infinity */
    }} else {{
        /* NaN below zero, else infinite or NaN as x */
        y = (x < 0.0f) ? (0.0f/(x - x)) : x;
    }}
"""


def _log(x: Floats) -> Floats:
    one = np.float32(1.0)
    largest, smallest = np.float32(3.4028235e38), np.float32(1.1754944e-38)
    inside = (x > 0) & (x <= largest)
    value = np.where(inside, x, one)
    small = value < smallest
    bits = np.where(small, value * np.float32(8388608.0), value).view(np.uint32)
    shifted = bits + np.uint32(_MANTISSA_ONE - _SQRT_HALF_BITS)
    n = ((shifted >> np.uint32(23)).astype(np.int32) - 127 - 23 * small).astype(np.float32)
    f = ((shifted & np.uint32(8388607)) + np.uint32(_SQRT_HALF_BITS)).view(np.float32) - one
    s = f / (np.float32(2.0) + f)
    z = s * s
    high, low = map(np.float32, _LOG_2_PARTS)
    y = n * high + (n * low + (f - s * (f - z * _polynomial(_LOG, z))))
    elsewhere = np.where(x == 0, np.float32(-np.inf), np.where(x < 0, np.float32(np.nan), x))
    return np.where(inside, y, elsewhere)


# ---- sqrt


_SQRT_BODY = """    float y;
    if ((x > 0.0f) && (x <= 3.4028235e38f)) {
        const int32_t small = (x < 1.1754944e-38f) ? 1 : 0;
        union { uint32_t bits; float value; } number;
        number.value = (small == 1) ? (x*16777216.0f) : x; /* 2^24 makes a denormal number normal */
        const int32_t exponent = ((int32_t)(number.bits >> 23u) - 127) - (24*small);
        const uint32_t odd = (uint32_t)exponent & 1u;
        uint32_t rest = ((number.bits & 8388607u) | 8388608u) << (1u + odd);
        uint32_t root = 0u;
        uint32_t twice = 0u;
        uint32_t digit = 16777216u;
        for (int i = 0; i < 25; i++) { /* one binary digit after another, the last one for rounding */
            const uint32_t next = twice + digit;
            if (next <= rest) {
                twice = next + digit;
                rest -= next;
                root += digit;
            }
            rest += rest;
            digit >>= 1u;
        }
        root += root & 1u; /* up if the digit behind the last is one: it is never exactly half */
        number.bits = (root >> 1u) + ((uint32_t)((exponent - (int32_t)odd)/2 + 126) << 23u);
        y = number.value;
    } else {
        /* NaN below zero, else zero, infinite or NaN as x */
        y = (x < 0.0f) ? (0.0f/(x - x)) : x;
    }
"""


def _quietly(function: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Shapes kept, float32 in and out, no warnings: the C raises none either."""

    def evaluate(x: NDArray[Any]) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray(function(np.asarray(x, np.float32)), np.float32)

    return evaluate


_TURNING = f"for |x| < {_ANGLE_LIMIT:g} rad, NaN beyond"

ELEMENTARY: dict[str, Elementary] = {
    entry.op: entry
    for entry in (
        Elementary("sin", _wave_body(0), _quietly(_wave(0)), 1.6, 1e-10, _TURNING),
        Elementary("cos", _wave_body(1), _quietly(_wave(1)), 1.6, 1e-10, _TURNING),
        Elementary("tanh", _tanh_body(), _quietly(_tanh), 1.4, 0.0, "for every x"),
        Elementary("exp", _exp_body(), _quietly(_exp), 1.1, 3e-45, "for every x"),
        Elementary("sqrt", _SQRT_BODY, _quietly(np.sqrt), 0.5, 0.0, "for every x >= 0, NaN below 0"),
        Elementary("log", _log_body(), _quietly(_log), 1.0, 0.0, "for every x > 0, NaN below 0"),
    )
}
"""What there is. ``tan`` is not: near its poles no short float32 formula has a small error; write sin/cos."""
