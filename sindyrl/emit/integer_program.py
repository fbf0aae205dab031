"""Straight-line integer programs: what a fixed-point map is, between its plan and its C.

A program is a list of instructions; instruction k fills register k, and refers to earlier registers only. Registers are
*narrow* (int32, or int16) or *wide* (int64, or int32). The meaning of every instruction is its ``evaluate``, exact
integer arithmetic in NumPy; the C of :mod:`sindyrl.emit.c_fixed` does the same, bit for bit.

``scale`` s of a register says that its integer q stands for q / 2^s. ``lower`` and ``upper`` are proven limits of q,
for every input whatsoever; ``evaluate_program(..., check=True)`` asserts them, in unbounded integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_TRUTH = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


@dataclasses.dataclass(frozen=True)
class Width:
    """Bits of narrow and wide registers, and the largest magnitudes used (the most negative integer never is)."""

    bits: int

    @property
    def narrow_limit(self) -> int:
        """2^(bits-1) - 1."""
        return 2 ** (self.bits - 1) - 1

    @property
    def wide_limit(self) -> int:
        """2^(2 bits - 2): half of what fits, so that half a unit can be added before every shift."""
        return 2 ** (2 * self.bits - 2)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One step, which fills a narrow or a ``wide`` register."""

    wide: ClassVar[bool] = False

    @property
    def sources(self) -> tuple[int, ...]:
        """Registers read, in order."""
        return ()

    def moved(self, where: Sequence[int]) -> Instruction:
        """The same with register k renamed to ``where[k]``."""
        return self


def floor_shift(value: Any, shift: int) -> Any:
    """``floor(value / 2**shift + 1/2)``: round to nearest, ties upward."""
    return (value + (1 << (shift - 1))) >> shift if shift else value


@dataclasses.dataclass(frozen=True)
class Read(Instruction):
    """Input ``index`` limited to [low, high]: the caller may pass any integer."""

    index: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True)
class _OfOne(Instruction):
    source: int

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)

    def moved(self, where: Sequence[int]) -> Instruction:
        return dataclasses.replace(self, source=where[self.source])


@dataclasses.dataclass(frozen=True)
class Sum(Instruction):
    """``offset + sum of factor * register``, wide. terms : (factor, narrow register)."""

    wide: ClassVar[bool] = True
    terms: tuple[tuple[int, int], ...]
    offset: int

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(register for _, register in self.terms)

    def moved(self, where: Sequence[int]) -> Instruction:
        return dataclasses.replace(self, terms=tuple((factor, where[register]) for factor, register in self.terms))

    def evaluate(self, *sources: Any) -> Any:
        total = self.offset
        for (factor, _), source in zip(self.terms, sources, strict=True):
            total = total + factor * source
        return total


@dataclasses.dataclass(frozen=True)
class Narrow(_OfOne):
    """A wide register, rounded to 2^-shift of its unit."""

    shift: int

    def evaluate(self, a: Any) -> Any:
        return floor_shift(a, self.shift)


@dataclasses.dataclass(frozen=True)
class Clamp(_OfOne):
    """A wide register limited to [low, high], wide."""

    wide: ClassVar[bool] = True
    low: int
    high: int

    def evaluate(self, a: Any) -> Any:
        return np.minimum(np.maximum(a, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class _OfTwo(Instruction):
    left: int
    right: int

    @property
    def sources(self) -> tuple[int, ...]:
        return self.left, self.right

    def moved(self, where: Sequence[int]) -> Instruction:
        return dataclasses.replace(self, left=where[self.left], right=where[self.right])


@dataclasses.dataclass(frozen=True)
class Product(_OfTwo):
    """Product of two narrow registers, rounded to 2^-shift, narrow."""

    shift: int

    def evaluate(self, a: Any, b: Any) -> Any:
        return floor_shift(a * b, self.shift)


@dataclasses.dataclass(frozen=True)
class Extreme(_OfTwo):
    """``left < right ? left : right`` (op "min") or with > (op "max"), of wide registers, wide."""

    wide: ClassVar[bool] = True
    op: str

    def evaluate(self, a: Any, b: Any) -> Any:
        return np.minimum(a, b) if self.op == "min" else np.maximum(a, b)


@dataclasses.dataclass(frozen=True)
class Quotient(_OfTwo):
    """Wide divided by narrow, rounded towards zero, narrow. The divisor is never zero."""

    def evaluate(self, a: Any, b: Any) -> Any:
        size = np.abs(a) // np.abs(b)
        return np.where((a < 0) != (b < 0), -size, size)


@dataclasses.dataclass(frozen=True)
class Absolute(_OfOne):
    """Magnitude of a narrow register."""

    def evaluate(self, a: Any) -> Any:
        return np.abs(a)


@dataclasses.dataclass(frozen=True)
class Sign(_OfOne):
    """``one``, 0 or ``-one`` for a wide register above, at or below 0; narrow."""

    one: int

    def evaluate(self, a: Any) -> Any:
        return np.where(a > 0, self.one, np.where(a < 0, -self.one, 0))


@dataclasses.dataclass(frozen=True)
class Select(Instruction):
    """The value of the first condition that holds, else the last value; all values narrow, of one scale.

    tests : (op, wide register), op one of lt le gt ge, compared with 0.
    """

    tests: tuple[tuple[str, int], ...]
    values: tuple[int, ...]

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(register for _, register in self.tests) + self.values

    def moved(self, where: Sequence[int]) -> Instruction:
        tests = tuple((op, where[register]) for op, register in self.tests)
        return dataclasses.replace(self, tests=tests, values=tuple(where[value] for value in self.values))

    def evaluate(self, *sources: Any) -> Any:
        tested, values = sources[: len(self.tests)], sources[len(self.tests) :]
        result = values[-1]
        for (op, _), test, value in reversed(list(zip(self.tests, tested, values[:-1], strict=True))):
            result = np.where(_TRUTH[op](test, 0), value, result)
        return result


@dataclasses.dataclass(frozen=True)
class Root(_OfOne):
    """``floor(sqrt(max(q, 0) * 2**shift))`` of a narrow register, narrow."""

    shift: int

    def evaluate(self, a: Any) -> Any:
        radicand = np.maximum(a, 0) << self.shift
        if radicand.dtype == object:
            return np.frompyfunc(math.isqrt, 1, 1)(radicand)
        root = np.floor(np.sqrt(radicand.astype(np.float64))).astype(np.int64)
        root -= root * root > radicand  # the float is off by less than one
        return root + ((root + 1) * (root + 1) <= radicand)


@dataclasses.dataclass(frozen=True)
class Phase(_OfOne):
    """Angle to phase: ``round(q * factor / 2**shift) + offset`` modulo 2**modulus_bits, narrow and not negative."""

    factor: int
    shift: int
    offset: int
    modulus_bits: int

    def evaluate(self, a: Any) -> Any:
        return (floor_shift(a * self.factor, self.shift) + self.offset) & ((1 << self.modulus_bits) - 1)


@dataclasses.dataclass(frozen=True)
class Segments:
    """A function as polynomials on segments of equal width: coefficients (segment, degree + 1), constant first.

    The segment of q is ``(q - first) >> width_bits``; t is the distance to its middle. Horner from the highest
    coefficient: ``value = coefficient[k] + round(value * t / 2**shifts[k])``. Where ``clamped``, q is limited to
    [first, last] before; elsewhere q is known to lie there.
    """

    label: str
    first: int
    last: int
    clamped: bool
    width_bits: int
    shifts: tuple[int, ...]
    coefficients: tuple[tuple[int, ...], ...]

    def evaluate(self, a: Any) -> Any:
        table = np.array(self.coefficients, dtype=a.dtype).T
        distance = np.minimum(np.maximum(a, self.first), self.last) - self.first
        index = (distance >> self.width_bits).astype(np.int64)
        t = (distance & ((1 << self.width_bits) - 1)) - (1 << (self.width_bits - 1))
        value = table[-1][index]
        for row, shift in zip(table[-2::-1], self.shifts[::-1], strict=True):
            value = row[index] + floor_shift(value * t, shift)
        return value


@dataclasses.dataclass(frozen=True)
class Lookup(_OfOne):
    """A function of a narrow register by :class:`Segments`, narrow."""

    table: Segments

    def evaluate(self, a: Any) -> Any:
        return self.table.evaluate(a)


@dataclasses.dataclass(frozen=True)
class Logarithm(_OfOne):
    """Logarithm of a positive narrow register q = m / 2^n, m in [2^(bits-2), 2^(bits-1)); narrow.

    ``table(m) + round((power - n) * factor / 2**shift)``: factor is ln 2, table the logarithm on one octave.
    """

    table: Segments
    steps: tuple[int, ...]
    power: int
    factor: int
    shift: int

    def evaluate(self, a: Any) -> Any:
        mantissa, count = a, np.zeros_like(a)
        for step in self.steps:
            small = mantissa < (1 << (2 * self.steps[0] - 1 - step))
            mantissa, count = np.where(small, mantissa << step, mantissa), np.where(small, count + step, count)
        return self.table.evaluate(mantissa) + floor_shift((self.power - count) * self.factor, self.shift)


@dataclasses.dataclass(frozen=True)
class Layer(Instruction):
    """``activation(round((offset + matrix @ registers) / 2**shift))``: an array of narrow numbers, read by Entry.

    rectified : relu on the rounded sums      table : function applied to the rounded sums, or None
    previous : register of the layer whose entries are exactly the arguments, or None
    """

    matrix: tuple[tuple[int, ...], ...]
    offset: tuple[int, ...]
    shift: int
    rectified: bool
    table: Segments | None
    arguments: tuple[int, ...]
    previous: int | None

    @property
    def sources(self) -> tuple[int, ...]:
        return self.arguments if self.previous is None else (self.previous,)

    def moved(self, where: Sequence[int]) -> Instruction:
        if self.previous is not None:
            return dataclasses.replace(self, previous=where[self.previous])
        return dataclasses.replace(self, arguments=tuple(where[argument] for argument in self.arguments))

    def evaluate(self, *sources: Any) -> Any:
        given = sources[0] if self.previous is not None else np.stack(np.broadcast_arrays(*sources))
        # columns are samples; every register is at least one-dimensional
        matrix, offset = np.array(self.matrix, given.dtype), np.array(self.offset, given.dtype)
        total = floor_shift(matrix @ given + offset[:, None], self.shift)
        total = np.maximum(total, 0) if self.rectified else total
        return total if self.table is None else self.table.evaluate(total)


@dataclasses.dataclass(frozen=True)
class Entry(_OfOne):
    """Entry ``index`` of a layer."""

    index: int

    def evaluate(self, a: Any) -> Any:
        return a[self.index]


@dataclasses.dataclass(frozen=True)
class Register:
    """What is known of a register: scale, proven limits of its integer, and a telling name for it or nothing."""

    scale: int
    lower: int
    upper: int
    wish: str = ""


@dataclasses.dataclass(frozen=True)
class Program:
    """instructions and registers correspond; ``outputs`` are narrow registers."""

    width: Width
    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    registers: tuple[Register, ...]
    outputs: tuple[int, ...]

    def without_unused(self) -> Program:
        """Only what the outputs need."""
        needed = set(self.outputs)
        for index in reversed(range(len(self.instructions))):
            if index in needed:
                needed.update(self.instructions[index].sources)
        kept = sorted(needed)
        where = [-1] * len(self.instructions)
        for new, old in enumerate(kept):
            where[old] = new
        instructions = tuple(self.instructions[old].moved(where) for old in kept)
        registers = tuple(self.registers[old] for old in kept)
        return Program(self.width, self.inputs, instructions, registers, tuple(where[old] for old in self.outputs))


def evaluate_program(program: Program, inputs: Array, *, check: bool = False) -> Array:
    """inputs (sample, input) of any integers -> outputs (sample, output), int64.

    check : compute with unbounded integers and raise AssertionError where a register leaves its proven limits.
    """
    dtype: Any = object if check else np.int64
    columns = np.asarray(inputs, dtype=dtype).T
    values: list[Any] = []
    for instruction, register in zip(program.instructions, program.registers, strict=True):
        if isinstance(instruction, Read):
            value: Any = np.minimum(np.maximum(columns[instruction.index], instruction.low), instruction.high)
        else:
            value = instruction.evaluate(*(values[source] for source in instruction.sources))  # type: ignore[attr-defined]
        if check:
            low, high = np.min(value), np.max(value)
            if low < register.lower or high > register.upper:
                raise AssertionError(f"{instruction} gave {low} .. {high}, outside the limits of {register}.")
        values.append(np.atleast_1d(np.asarray(value, dtype=dtype)))
    result = np.empty((len(inputs), len(program.outputs)), np.int64)
    for position, index in enumerate(program.outputs):
        result[:, position] = values[index]
    return result
