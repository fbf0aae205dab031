"""Elementary functions and dense layers as fixed-point instructions, with their errors."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

from sindyrl.emit.integer_program import Entry, Layer, Logarithm, Lookup, Phase, Segments
from sindyrl.export.fixed_numbers import HALF, Linear, NoScale, Value, unit
from sindyrl.export.fixed_segments import approximate, derivative_bound
from sindyrl.export.fixed_values import Builder
from sindyrl.node import Dense

FUNCTIONS = ("sin", "cos", "tan", "tanh", "exp", "log")
_WIDE_ANGLE = 4.0  # radians; a wider argument is reduced to a phase, whose one table serves sin and cos
_OCTAVES = (
    4  # a wider argument of log is normalized to one octave first: equal segments would follow its smallest values
)
_SLACK = Fraction(1_000_001, 1_000_000)

_approximate = functools.lru_cache(maxsize=64)(approximate)


def function(builder: Builder, op: str, a: Value, lower: Fraction, upper: Fraction) -> Value:
    """``op(a)``, which lies in [lower, upper]. Raises NoScale, or TableTooLarge of fixed_segments."""
    first, last = _integers(builder, a)
    if op in ("sin", "cos") and math.ldexp(last - first, -a.scale) > _WIDE_ANGLE:
        return _wave(builder, op, a, lower, upper)
    if op == "log" and first <= 0:
        raise NoScale("its argument cannot be told from zero")
    if op == "log" and last > _OCTAVES * first:
        return _logarithm(builder, a, lower, upper)
    size = max(abs(lower), abs(upper))
    scale, table, own, slope = _table(builder, op, a.scale, first, last, a.error, size)
    return builder.emit(Lookup(a.register, table), scale, lower, upper, slope * a.error + own)


def _integers(builder: Builder, a: Value) -> tuple[int, int]:
    register = builder.registers[a.register]
    return register.lower, register.upper


def _table(
    builder: Builder, op: str, scale: int, first: int, last: int, given: Fraction, size: Fraction
) -> tuple[int, Segments, Fraction, Fraction]:
    """(scale of the result, table, its error, how much of the argument's error ``given`` is carried over)."""
    beyond, clamped = Fraction(0), False
    if op == "tanh":
        # from here on tanh is +-1 to within a quarter of the finest unit it can have
        flat = (builder.width.bits + 2) * math.log(2.0) / 2.0
        limit = math.ceil(math.ldexp(flat, scale))
        if last > limit or first < -limit:
            beyond, clamped = Fraction(2.0 * math.exp(-2.0 * flat)) * _SLACK, True
            first, last = min(max(first, -limit), limit), max(min(last, limit), -limit)
    slope = derivative_bound(op, 1, math.ldexp(first, -scale), math.ldexp(last, -scale))
    if not math.isfinite(slope):
        raise NoScale("its argument cannot be told from a pole")
    carried = Fraction(slope) * given
    result = builder.fit(size, lambda s: carried + beyond + 3 * unit(s))
    while True:
        wanted = max(float(unit(result)), float(carried)) / 4.0
        found = _approximate(op, scale, first, last, result, builder.width, wanted, clamped=clamped)
        own = found.error + beyond
        if (size + carried + own) * unit(-result) + 1 <= builder.width.narrow_limit:
            return result, found.table, own, Fraction(slope)
        result -= 1


def _wave(builder: Builder, op: str, a: Value, lower: Fraction, upper: Fraction) -> Value:
    """sin or cos of a wide range of angles: the phase in turns, whose overflow is the period, then one table."""
    bits = builder.width.bits - 1
    ideal = unit(a.scale - bits) / (2 * Fraction(math.pi))
    shift = 0
    while ideal * 2 ** (shift + 1) <= builder.width.narrow_limit:
        shift += 1
    if shift == 0:
        raise NoScale("its argument is so wide that one step of it is more than its period can bear")
    factor = round(ideal * 2**shift)
    largest = max(map(abs, _integers(builder, a)))
    slip = abs(factor - ideal * 2**shift) + ideal * 2**shift * Fraction(1, 2**53)  # math.pi is rounded
    radians = (largest * slip / 2**shift + HALF) * 2 * Fraction(math.pi) * unit(bits) * _SLACK
    quarter = (1 << (bits - 2)) if op == "cos" else 0
    phase = builder.emit(
        Phase(a.register, factor, shift, quarter, bits), bits, Fraction(0), 1 - unit(bits), Fraction(0)
    )
    carried = a.error + radians
    size = max(abs(lower), abs(upper))
    scale = builder.fit(max(size, Fraction(1)), lambda s: carried + 3 * unit(s))
    found = _approximate("turns", bits, 0, 2**bits - 1, scale, builder.width, float(unit(scale)) / 4.0)
    return builder.emit(Lookup(phase.register, found.table), scale, lower, upper, carried + found.error)


def _logarithm(builder: Builder, a: Value, lower: Fraction, upper: Fraction) -> Value:
    """log over many octaves: log(m) + (power - n) log 2, with q = m / 2^n and m on one octave."""
    bits = builder.width.bits
    first, _ = _integers(builder, a)
    slope = derivative_bound("log", 1, math.ldexp(first, -a.scale), math.inf)
    carried = Fraction(slope) * a.error
    size = max(abs(lower), abs(upper)) + 1  # the two parts are added in a narrow register
    power = bits - 2 - a.scale
    scale = builder.fit(size, lambda s: carried + 5 * unit(s))
    found = _approximate(
        "log", bits - 2, 2 ** (bits - 2), 2 ** (bits - 1) - 1, scale, builder.width, float(unit(scale)) / 4.0
    )
    two = Fraction(math.log(2.0))
    shift = 0
    while two * unit(-scale - shift - 1) <= builder.width.narrow_limit:
        shift += 1
    octaves = max(abs(power), abs(power - bits))
    error = octaves * (HALF * unit(scale + shift) + Fraction(1, 2**53)) + HALF * unit(scale)
    steps = tuple(2**k for k in range((bits // 2).bit_length() - 1, -1, -1))
    instruction = Logarithm(a.register, found.table, steps, power, round(two * unit(-scale - shift)), shift)
    return builder.emit(instruction, scale, lower, upper, carried + found.error + error)


def layer(builder: Builder, node: Dense, arguments: Sequence[Value]) -> list[Value]:
    """All entries of a dense layer."""
    rows = [
        _row(weights, bias, arguments) for weights, bias in zip(node.matrix.tolist(), node.bias.tolist(), strict=True)
    ]
    scale = min(builder.wide_scale(row) for row in rows)
    sums = [builder.weigh(row, scale) for row in rows]
    while any(abs(w) > builder.width.narrow_limit for weighed in sums for w in _columns(weighed.terms, arguments)):
        scale -= 1  # an argument that appears twice
        sums = [builder.weigh(row, scale) for row in rows]
    sized = [(row, weighed.error) for row, weighed in zip(rows, sums, strict=True)]
    narrow_scale = min(
        builder.fit(max(abs(row.lower), abs(row.upper)), lambda s, e=error: e + HALF * unit(s), scale)  # type: ignore[misc]
        for row, error in sized
    )
    rounding = HALF * unit(narrow_scale) if narrow_scale < scale else Fraction(0)
    ranges = [(row.lower, row.upper, error + rounding) for row, error in sized]
    result_scale, table = narrow_scale, None
    if node.activation == "relu":
        ranges = [(max(low, Fraction(0)), max(high, Fraction(0)), error) for low, high, error in ranges]
    if node.activation == "tanh":
        result_scale, table, ranges = _tanh_layer(builder, narrow_scale, ranges)
    instruction = Layer(
        tuple(_columns(weighed.terms, arguments) for weighed in sums),
        tuple(weighed.offset for weighed in sums),
        builder.shift(scale - narrow_scale),
        node.activation == "relu",
        table,
        tuple(argument.register for argument in arguments),
        _previous(builder, arguments),
    )
    factor = unit(-result_scale)
    limits = [(math.floor((low - error) * factor), math.ceil((high + error) * factor)) for low, high, error in ranges]
    array = builder.emit(
        instruction,
        result_scale,
        min(low for low, _, _ in ranges),
        max(high for _, high, _ in ranges),
        max(error for _, _, error in ranges),
        (min(low for low, _ in limits), max(high for _, high in limits)),
    )
    return [builder.emit(Entry(array.register, index), result_scale, *found) for index, found in enumerate(ranges)]


def _row(weights: Sequence[float], bias: float, arguments: Sequence[Value]) -> Linear:
    terms: dict[Value, Fraction] = {}
    for weight, argument in zip(weights, arguments, strict=True):
        if weight:
            terms[argument] = terms.get(argument, Fraction(0)) + Fraction(weight)
    return Linear(terms, Fraction(bias))


def _tanh_layer(
    builder: Builder, scale: int, ranges: list[tuple[Fraction, Fraction, Fraction]]
) -> tuple[int, Segments, list[tuple[Fraction, Fraction, Fraction]]]:
    factor = unit(-scale)
    first = min(math.floor((low - error) * factor) for low, _, error in ranges)
    last = max(math.ceil((high + error) * factor) for _, high, error in ranges)
    worst = max(error for _, _, error in ranges)
    result, table, own, slope = _table(builder, "tanh", scale, first, last, worst, Fraction(1))
    after = []
    for low, high, given in ranges:
        small, large = math.tanh(low) - 1e-15, math.tanh(high) + 1e-15
        after.append((Fraction(max(small, -1.0)), Fraction(min(large, 1.0)), slope * given + own))
    return result, table, after


def _columns(terms: Sequence[tuple[int, int]], arguments: Sequence[Value]) -> tuple[int, ...]:
    """Factors in the order of the arguments; one that appears twice gets its whole factor the first time."""
    factors: dict[int, int] = {}
    for factor, register in terms:
        factors[register] = factors.get(register, 0) + factor
    return tuple(factors.pop(argument.register, 0) for argument in arguments)


def _previous(builder: Builder, arguments: Sequence[Value]) -> int | None:
    """The layer whose entries are exactly the arguments, in order."""
    entries = [builder.instructions[argument.register] for argument in arguments]
    first = entries[0]
    if not isinstance(first, Entry):
        return None
    source = builder.instructions[first.source]
    assert isinstance(source, Layer)
    wanted = [Entry(first.source, index) for index in range(len(source.offset))]
    return first.source if entries == wanted else None
