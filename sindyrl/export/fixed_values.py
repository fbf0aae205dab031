"""Building the instructions of a fixed-point program, with a scale and a proven error bound for every register.

A value's register holds an integer q that stands for q / 2^scale. With it go the range [lower, upper] of the real
quantity and a bound ``error`` on the distance between the two, for the same inputs; both are exact fractions, rounded
outward to float64 only to stay short. So the computed number lies in [lower - error, upper + error], and the scale is
the largest power of two for which that, times 2^scale, fits the register. A, B are the largest real magnitudes:

    sum c_k x_k    |c_k| e_k + |C_k - c_k| max|x_k| over the terms, C_k the rounded factor (one rounding at the end)
    x y            A b + B a + a b                           + half a unit
    x / y          (a + |x/y| b) / (min|y| - b)              + one unit
    sqrt x         min(sqrt a, a / (sqrt x + sqrt(x - a)))   + one unit
    f(x)           max|f'| a over the computed range         + the table's error
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from sindyrl.emit.integer_program import (
    Absolute,
    Clamp,
    Extreme,
    Instruction,
    Narrow,
    Product,
    Program,
    Quotient,
    Read,
    Register,
    Root,
    Select,
    Sign,
    Sum,
    Width,
)
from sindyrl.export.fixed_numbers import (
    HALF,
    Linear,
    NoScale,
    Value,
    above,
    below,
    exponent,
    power_of_two,
    root_above,
    root_below,
    unit,
)

_LARGEST_SCALE = 300


@dataclasses.dataclass(frozen=True)
class Weighed:
    """A linear form with integer factors: what a Sum of some scale would compute."""

    terms: tuple[tuple[int, int], ...]
    offset: int
    error: Fraction
    reach: int

    @property
    def is_even(self) -> bool:
        return not self.offset % 2 and not any(factor % 2 for factor, _ in self.terms)

    def half(self) -> Weighed:
        """The same sum at the next smaller scale."""
        terms = tuple((factor // 2, register) for factor, register in self.terms)
        return Weighed(terms, self.offset // 2, self.error, self.reach // 2)


class Builder:
    """Appends instructions to a program; equal instructions share a register."""

    def __init__(self, bits: int, inputs: Sequence[str]) -> None:
        self.width = Width(bits)
        self.inputs = tuple(inputs)
        self.instructions: list[Instruction] = []
        self.registers: list[Register] = []
        self._known: dict[Instruction, int] = {}
        self.wish = ""

    def label(self, value: Value) -> str:
        """The name that a register asks for in C; empty if it has none."""
        return self.registers[value.register].wish

    def program(self, outputs: Iterable[Value]) -> Program:
        """The instructions that these outputs need."""
        every = Program(
            self.width,
            self.inputs,
            tuple(self.instructions),
            tuple(self.registers),
            tuple(output.register for output in outputs),
        )
        return every.without_unused()

    def emit(
        self,
        instruction: Instruction,
        scale: int,
        lower: Fraction,
        upper: Fraction,
        error: Fraction,
        limits: tuple[int, int] | None = None,
    ) -> Value:
        """Register for an instruction whose computed value lies in [lower - error, upper + error].

        limits : of the integer, where they are known to be narrower than those of that interval
        """
        lower, upper, error = below(lower), above(upper), above(error)
        if instruction not in self._known:
            factor = unit(-scale)
            low, high = limits or (math.floor((lower - error) * factor), math.ceil((upper + error) * factor))
            limit = self.width.wide_limit if instruction.wide else self.width.narrow_limit
            if max(-low, high) > limit:
                low, high = max(low, -limit), min(high, limit)  # proven elsewhere: by the sum of magnitudes
                assert instruction.wide, (instruction, scale, lower, upper, error)
            self._known[instruction] = len(self.instructions)
            self.instructions.append(instruction)
            self.registers.append(Register(scale, low, high, self.wish))
        return Value(self._known[instruction], scale, lower, upper, error)

    def fit(self, size: Fraction, error: Callable[[int], Fraction], most: int = _LARGEST_SCALE) -> int:
        """Largest scale, at most ``most``, at which numbers of this real size fit with their error."""
        limit = self.width.narrow_limit
        scale = most
        if size:
            scale = min(most, limit.bit_length() - exponent(size) + 1)
        while (size + error(scale)) * unit(-scale) + 1 > limit:
            scale -= 1
            if scale < -_LARGEST_SCALE:
                break
        if scale < -_LARGEST_SCALE:
            raise NoScale("its numbers are too large")
        return scale

    # ---- leaves and linear forms

    def constant(self, lower: Fraction, upper: Fraction) -> Value:
        """A number known to lie in [lower, upper], such as the sine of a constant."""
        middle = (lower + upper) / 2
        wide = self.wide(Linear({}, middle))
        exact = dataclasses.replace(wide, lower=lower, upper=upper, error=wide.error + (upper - lower) / 2)
        return self.rounded(exact)

    def read(self, index: int, lower: float, upper: float) -> Value:
        """Input ``index``: the integer nearest to x * 2^scale, limited to the range's ends."""
        low, high = Fraction(lower), Fraction(upper)
        scale = self.fit(max(abs(low), abs(high)), lambda s: HALF * unit(s))
        factor = unit(-scale)
        return self.emit(Read(index, round(low * factor), round(high * factor)), scale, low, high, HALF * unit(scale))

    def wide(self, form: Linear, scale: int | None = None, least: int = -4 * _LARGEST_SCALE) -> Value:
        """A linear form as one exact integer sum; only the factors are rounded.

        scale : default the largest at which the factors fit a narrow register and the sum of magnitudes a wide one,
        then made smaller while that is exact, down to ``least``.
        """
        if scale is None:
            scale = self.wide_scale(form) if form.terms or form.offset else max(least, 0)
            sums = self.weigh(form, scale)
            while (
                sums.reach and scale > least and not sums.offset % 2 and not any(factor % 2 for factor, _ in sums.terms)
            ):
                half = tuple((factor // 2, register) for factor, register in sums.terms)
                sums, scale = Weighed(half, sums.offset // 2, sums.error, sums.reach // 2), scale - 1
        else:
            sums = self.weigh(form, scale)
        return self.emit(Sum(sums.terms, sums.offset), scale, form.lower, form.upper, sums.error)

    def wide_scale(self, form: Linear, most: int = 2 * _LARGEST_SCALE) -> int:
        """Largest scale of :meth:`wide`."""
        scale = most
        for value, factor in form.terms.items():
            allowed = value.scale + self.width.bits - exponent(factor)
            while abs(factor) * unit(value.scale - allowed) > self.width.narrow_limit:
                allowed -= 1
            scale = min(scale, allowed)
        size = abs(form.offset)
        if size:
            scale = min(scale, 2 * self.width.bits - exponent(size))
        while self._reach(form, scale) > self.width.wide_limit:
            scale -= 1
        return scale

    def _reach(self, form: Linear, scale: int) -> int:
        """The largest magnitude on the way through a sum of this scale, in any order of its terms."""
        reach = abs(round(form.offset * unit(-scale)))
        for value, factor in form.terms.items():
            reach += abs(round(factor * unit(value.scale - scale))) * self._largest(value)
        return reach

    def _largest(self, value: Value) -> int:
        register = self.registers[value.register]
        return max(abs(register.lower), abs(register.upper))

    def weigh(self, form: Linear, scale: int) -> Weighed:
        """What a sum of this scale would compute, with its error and the largest magnitude on the way."""
        error = Fraction(0)
        offset = round(form.offset * unit(-scale))
        error += abs(offset * unit(scale) - form.offset)
        terms = []
        reach = abs(offset)
        for value, factor in form.terms.items():
            ratio = unit(value.scale - scale)
            integer = round(factor * ratio)
            largest = self._largest(value)
            error += abs(factor) * value.error + abs(integer / ratio - factor) * largest * unit(value.scale)
            if integer:
                terms.append((integer, value.register))
                reach += abs(integer) * largest
        return Weighed(tuple(terms), offset, error, reach)

    def narrow(self, form: Linear) -> Value:
        """A linear form in one narrow register. A power of two times a value only changes the scale."""
        if len(form.terms) == 1 and not form.offset:
            ((value, factor),) = form.terms.items()
            shift = power_of_two(factor)
            if shift is not None:
                return Value(
                    value.register,
                    value.scale - shift,
                    value.lower * factor,
                    value.upper * factor,
                    value.error * factor,
                )
        return self.rounded(self.wide(form))

    def rounded(self, wide: Value, scale: int | None = None) -> Value:
        """A wide register, rounded into a narrow one of the largest scale that fits, or of this scale."""
        if scale is None:
            scale = self.fit(wide.size, lambda s: self._rounding(wide, s), wide.scale)
        shift = self.shift(wide.scale - scale)
        return self.emit(Narrow(wide.register, shift), scale, wide.lower, wide.upper, self._rounding(wide, scale))

    @staticmethod
    def _rounding(wide: Value, scale: int) -> Fraction:
        return wide.error + (HALF * unit(scale) if scale < wide.scale else 0)

    def shift(self, shift: int) -> int:
        """A shift that C defines; beyond it nothing of the number would be left."""
        if not 0 <= shift <= 2 * self.width.bits - 3:
            raise NoScale("its error is larger than itself: no significant bit is left")
        return shift

    # ---- operations

    def product(self, a: Value, b: Value, lower: Fraction, upper: Fraction) -> Value:
        """a * b, which lies in [lower, upper]."""
        error = a.size * b.error + b.size * a.error + a.error * b.error
        size = max(abs(lower), abs(upper))
        full = a.scale + b.scale
        scale = self.fit(size, lambda s: error + HALF * unit(s), full)
        total = error + (HALF * unit(scale) if scale < full else 0)
        return self.emit(Product(a.register, b.register, self.shift(full - scale)), scale, lower, upper, total)

    def clamp(self, form: Linear, low: Fraction, high: Fraction) -> Value:
        """``min(max(form, low), high)``, limited before it is rounded, so that the scale is that of the result."""
        wide = self.wide(form, self.wide_scale(form))
        factor = unit(-wide.scale)
        ends = round(low * factor), round(high * factor)
        error = max(wide.error, abs(ends[0] / factor - low), abs(ends[1] / factor - high))
        lower, upper = min(max(wide.lower, low), high), min(max(wide.upper, low), high)
        limit = self.width.wide_limit
        if max(map(abs, ends)) > limit:
            ends = max(ends[0], -limit), min(ends[1], limit)
        return self.rounded(self.emit(Clamp(wide.register, *ends), wide.scale, lower, upper, error))

    def extreme(self, op: str, a: Linear, b: Linear) -> Value:
        """min or max, compared and chosen before rounding."""
        scale = min(self.wide_scale(a), self.wide_scale(b))
        left, right = self.wide(a, scale), self.wide(b, scale)
        choose = min if op == "min" else max
        return self.rounded(
            self.emit(
                Extreme(left.register, right.register, op),
                scale,
                choose(left.lower, right.lower),
                choose(left.upper, right.upper),
                max(left.error, right.error),
            )
        )

    def quotient(self, a: Linear, b: Value, lower: Fraction, upper: Fraction) -> Value:
        """a / b, which lies in [lower, upper]; NoScale if b may be zero after rounding."""
        nearest = min(abs(b.lower), abs(b.upper)) - b.error
        if b.lower <= 0 <= b.upper or nearest <= 0:
            raise NoScale("its denominator cannot be told from zero")
        size = max(abs(lower), abs(upper))
        most = self.wide_scale(a)

        def error(scale: int) -> Fraction:
            weighed = self.weigh(a, scale + b.scale)
            return (weighed.error + size * b.error) / nearest + unit(scale)

        scale = self.fit(size, error, most - b.scale)
        wide = self.wide(a, scale + b.scale)
        return self.emit(Quotient(wide.register, b.register), scale, lower, upper, error(scale))

    def absolute(self, a: Value) -> Value:
        """Magnitude: exact."""
        lower = Fraction(0) if a.lower <= 0 <= a.upper else min(abs(a.lower), abs(a.upper))
        # not from the error: it may count a wrong branch, and the integer fits as it did before
        return self.emit(Absolute(a.register), a.scale, lower, a.size, a.error, (0, self._largest(a)))

    def sign(self, a: Value, error: Fraction) -> Value:
        """Sign of a wide value; ``error`` is 0 or, where it may be decided wrongly, 2."""
        scale = self.width.bits - 2 - (2 if error else 0)
        return self.emit(Sign(a.register, 1 << scale), scale, Fraction(-1), Fraction(1), error)

    def select(
        self, tests: Sequence[tuple[str, Value]], values: Sequence[Linear], error: Callable[[list[Value]], Fraction]
    ) -> Value:
        """The value of the first test that holds (wide, against 0); ``error`` of the narrow values says the bound."""
        scale = min(self._select_scale(value) for value in values)
        wides = [self.wide(value, least=scale) for value in values]
        lower, upper = min(wide.lower for wide in wides), max(wide.upper for wide in wides)
        narrows = [self.rounded(wide, scale) for wide in wides]
        found = error(narrows)
        instruction = Select(
            tuple((op, test.register) for op, test in tests), tuple(value.register for value in narrows)
        )
        registers = [self.registers[value.register] for value in narrows]
        limits = min(register.lower for register in registers), max(register.upper for register in registers)
        result = self.emit(instruction, scale, lower, upper, max(value.error for value in narrows), limits)
        return dataclasses.replace(result, error=above(found))

    def _select_scale(self, form: Linear) -> int:
        if not form.terms and not form.offset:
            return _LARGEST_SCALE
        most = self.wide_scale(form)
        error = self.weigh(form, most).error
        return self.fit(max(abs(form.lower), abs(form.upper)), lambda s: error + HALF * unit(s), most)

    def root(self, a: Value) -> Value:
        """Square root of something that is not negative; a computed negative number counts as zero."""
        lower, upper = root_below(a.lower), root_above(a.upper)
        error = root_above(a.error)
        if a.lower > 0:
            error = min(error, a.error / (lower + root_below(max(a.lower - a.error, Fraction(0)))))
        scale = self.fit(upper, lambda s: error + unit(s))
        shift = 2 * scale - a.scale
        if not 0 <= shift <= 2 * self.width.bits - 2:
            raise NoScale("its error is larger than itself: no significant bit is left")
        return self.emit(Root(a.register, shift), scale, lower, upper, error + unit(scale))
