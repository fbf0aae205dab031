"""C99 of an integer program: fixed-point functions for processors without a floating-point unit.

    void policy_q31(const int32_t state[2], int32_t out[1]) {
        const int32_t x = policy_q31_limit(state[0], -1073741824, 1073741824); /* unit 2^-29 */
        ...
        out[0] = u;
    }

The text needs ``<stdint.h>`` alone: no library, no heap, no global, constant tables only. It is defined for every
input:

* No overflow: the plan has proven limits for every register, whatever the inputs, and leaves room for rounding.
* No shift of a signed number: C99 leaves the right shift of a negative one to the implementation. Q31 takes the 32 bits
  it needs out of the unsigned halves of the sum; Q15 flips the sign bit, shifts, and subtracts it again:
  ``floor(w / 2^s) = ((u ^ 2^31) >> s) - (2^31 >> s)``. Compilers make one or two shifts of it.
* Conversions to a narrower signed type keep the value; those to unsigned are modulo 2^N, as C99 defines.
* Division is C99's, towards zero; its divisor is never 0, and the quotient fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sindyrl.emit.c_names import LocalNames, is_reserved
from sindyrl.emit.integer_program import (
    Absolute,
    Clamp,
    Entry,
    Extreme,
    Instruction,
    Layer,
    Logarithm,
    Lookup,
    Narrow,
    Phase,
    Product,
    Program,
    Quotient,
    Read,
    Root,
    Segments,
    Select,
    Sign,
    Sum,
)
from sindyrl.node import check_name

_SIGN = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_WIDTH = 110


def c_fixed_function(program: Program, name: str, *, arguments: tuple[str, str] = ("state", "out")) -> str:
    """Text of ``void name(const intB_t state[n], intB_t out[m])`` and its static helpers, ending in a newline.

    Every input is read before any output is written. Raises ValueError for a name that C reserves.
    """
    check_name("fixed_function(name=...)", name)
    if is_reserved(name) or name.startswith("_"):
        raise ValueError(f"`fixed_function(name=...)` must not be reserved in C. Got {name!r}.")
    return _Writer(program, name, arguments).text()


class _Writer:
    """One statement per instruction; helpers are written only if a statement calls them."""

    def __init__(self, program: Program, name: str, arguments: tuple[str, str]) -> None:
        self.program, self.name = program, name
        self.source, self.target = arguments
        bits = program.width.bits
        self.narrow, self.wide, self.unsigned = f"int{bits}_t", f"int{2 * bits}_t", f"uint{2 * bits}_t"
        self.bits = bits
        self.names = LocalNames([name, *arguments, *(f"{name}_{helper}" for helper in _HELPERS)])
        self.helpers: set[str] = set()
        self.functions: dict[Segments, str] = {}
        self.tables: list[str] = []
        self.lines: list[str] = []
        self.local: list[str] = []

    def text(self) -> str:
        program = self.program
        if not any(isinstance(instruction, Read) for instruction in program.instructions):
            self.lines.append(f"    (void){self.source};")
        for index, instruction in enumerate(program.instructions):
            self._write(index, instruction)
        for position, register in enumerate(program.outputs):
            self.lines.append(f"    {self.target}[{position}] = {self.local[register]};")
        n, m = max(len(program.inputs), 1), len(program.outputs)
        head = f"void {self.name}(const {self.narrow} {self.source}[{n}], {self.narrow} {self.target}[{m}]) {{"
        written = _HELPERS | {"round": _ROUND[self.bits]}
        helpers = [written[key] for key in written if key in self._needed()]
        filled = ["\n".join(self._fill(line) for line in helper) for helper in helpers]
        parts = ["#include <stdint.h>", *filled, *self.tables, "\n".join([head, *self.lines, "}"])]
        return "\n\n".join(parts) + "\n"

    def _needed(self) -> set[str]:
        needed = set(self.helpers)
        if "phase" in needed:
            needed.add("round")
        return needed | ({"signed"} if self.bits == 32 and "round" in needed else set())

    def _fill(self, line: str) -> str:
        words = {"@N": self.narrow, "@W": self.wide, "@U": self.unsigned, "@F": self.name}
        words["@MASK"] = str(2 ** (self.bits - 1) - 1)
        words |= {"@TOP": str(2 * self.bits - 1), "@HALF": str(self.bits - 1), "@PAIR": str(2 * self.bits - 2)}
        for word in sorted(words, key=len, reverse=True):
            line = line.replace(word, words[word])
        return line

    def _call(self, helper: str) -> str:
        self.helpers.add(helper)
        return f"{self.name}_{helper}"

    # ---- statements

    def _write(self, index: int, instruction: Instruction) -> None:
        register = self.program.registers[index]
        if isinstance(instruction, Entry):
            self.local.append(f"{self.local[instruction.source]}[{instruction.index}]")
            return
        wish = f"{register.wish}_sum".lstrip("_") if instruction.wide else register.wish or "q"
        local = self.names.new(wish)
        self.local.append(local)
        if isinstance(instruction, Layer):
            self._layer(instruction, local)
            return
        expression = _EXPRESSIONS[type(instruction)](self, instruction)
        kind = self.wide if instruction.wide else self.narrow
        self._statement(f"const {kind} {local} = ", expression, f"; /* unit 2^{-register.scale} */")

    def _statement(self, start: str, expression: str, end: str, indent: int = 4) -> None:
        line = " " * indent + start + expression + end
        while len(line) > _WIDTH:
            cut = max(line.rfind(mark, indent + 8, _WIDTH) for mark in (" + ", " ? ", " : ", ", "))
            if cut < 0:
                break
            cut += line[cut] == ","
            self.lines.append(line[:cut].rstrip())
            line = " " * (indent + 4) + line[cut:].lstrip()
        self.lines.append(line)

    def _wide_literal(self, value: int) -> str:
        return f"INT{2 * self.bits}_C({value})"

    def _as_wide(self, register: int) -> str:
        return f"({self.wide}){self.local[register]}"

    def _shifted(self, expression: str, shift: int) -> str:
        """A wide expression rounded to 2^-shift, as a narrow number."""
        if shift == 0:
            return f"({self.narrow})({expression})"
        rounded = f"{self._call('round')}({expression}, {shift}u)"
        return f"{self.name}_signed({rounded})" if self.bits == 32 else f"({self.narrow}){rounded}"

    def _added(self, term: str, expression: str, shift: int) -> str:
        """A narrow term plus a wide expression rounded to 2^-shift; the sum fits a narrow number."""
        rounded = f"{self._call('round')}({expression}, {shift}u)" if shift else f"({expression})"
        if self.bits == 32 and shift:
            return f"{self.name}_signed((uint32_t){term} + {rounded})"
        return f"({self.narrow})({term} + {rounded})"

    def _read(self, read: Read) -> str:
        value = f"{self.source}[{read.index}]"
        top = 2 ** (self.bits - 1)
        if read.low <= -top and read.high >= top - 1:
            return value
        return f"{self._call('limit')}({value}, {read.low}, {read.high})"

    def _sum(self, total: Sum) -> str:
        parts = []
        for factor, register in total.terms:
            parts.append(self._as_wide(register) if factor == 1 else f"({self._as_wide(register)} * {factor})")
        if total.offset or not parts:
            parts.append(self._wide_literal(total.offset))
        return " + ".join(parts)

    def _narrow(self, step: Narrow) -> str:
        return self._shifted(self.local[step.source], step.shift)

    def _clamp(self, step: Clamp) -> str:
        low, high = self._wide_literal(step.low), self._wide_literal(step.high)
        x = self.local[step.source]
        return f"({x} > {high}) ? {high} : (({x} < {low}) ? {low} : {x})"

    def _product(self, step: Product) -> str:
        return self._shifted(f"{self._as_wide(step.left)} * {self.local[step.right]}", step.shift)

    def _extreme(self, step: Extreme) -> str:
        a, b = self.local[step.left], self.local[step.right]
        return f"({a} {'<' if step.op == 'min' else '>'} {b}) ? {a} : {b}"

    def _quotient(self, step: Quotient) -> str:
        return f"({self.narrow})({self.local[step.left]} / {self.local[step.right]})"

    def _absolute(self, step: Absolute) -> str:
        x = self.local[step.source]
        return f"({self.narrow})(({x} < 0) ? -{x} : {x})"

    def _sign(self, step: Sign) -> str:
        x = self.local[step.source]
        return f"({self.narrow})(({x} > 0) ? {step.one} : (({x} < 0) ? -{step.one} : 0))"

    def _select(self, step: Select) -> str:
        text = self.local[step.values[-1]]
        for (op, test), value in reversed(list(zip(step.tests, step.values[:-1], strict=True))):
            text = f"({self.local[test]} {_SIGN[op]} 0) ? {self.local[value]} : ({text})"
        return text

    def _root(self, step: Root) -> str:
        return f"{self._call('sqrt')}({self.local[step.source]}, {step.shift}u)"

    def _phase(self, step: Phase) -> str:
        return f"{self._call('phase')}({self._as_wide(step.source)} * {step.factor}, {step.shift}u, {step.offset}u)"

    def _lookup(self, step: Lookup) -> str:
        return f"{self._function(step.table)}({self.local[step.source]})"

    def _logarithm(self, step: Logarithm) -> str:
        table = self._function(step.table)
        key = f"{self.name}_log_{len(self.tables)}"
        name = self.names.new(key)
        lines = [
            f"static {self.narrow} {name}({self.narrow} x) {{",
            f"    {self.narrow} m = x;",
            "    int32_t n = 0;",
        ]
        for bit in step.steps:
            scaled = f"({self.narrow})(({self.wide})m * {1 << bit})"
            lines.append(f"    if (m < {1 << (self.bits - 1 - bit)}) {{ m = {scaled}; n += {bit}; }}")
        lines.append(f"    const int32_t octave = {step.power} - n;")
        octaves = f"({self.wide})octave * {step.factor}"
        lines += [f"    return {self._added(f'{table}(m)', octaves, step.shift)};", "}"]
        self.tables.append("\n".join(lines))
        return f"{name}({self.local[step.source]})"

    # ---- tables

    def _function(self, table: Segments) -> str:
        """Name of the static function that evaluates a table."""
        if table in self.functions:
            return self.functions[table]
        name = self.names.new(f"{self.name}_{table.label}")
        self.functions[table] = name
        rows, degree = len(table.coefficients), len(table.shifts)
        half = 1 << (table.width_bits - 1)
        middle = f"(int32_t)inside - {half}"
        middle = middle if self.bits == 32 else f"({self.narrow})({middle})"
        entries = ["        {" + ", ".join(map(str, row)) + "}," for row in table.coefficients]
        x = f"{self._call('limit')}(x, {table.first}, {table.last})" if table.clamped else "x"
        lines = [
            f"static {self.narrow} {name}({self.narrow} x) {{",
            f"    static const {self.narrow} table[{rows}][{degree + 1}] = {{",
            *entries,
            "    };",
            f"    const uint32_t distance = (uint32_t){x} - (uint32_t){_signed(table.first)};",
            f"    const {self.narrow} *const c = table[distance >> {table.width_bits}u];",
            f"    const uint32_t inside = distance & {2 * half - 1}u;",
            f"    const {self.narrow} t = {middle};",
            f"    {self.narrow} y = c[{degree}];",
        ]
        for k in range(degree - 1, -1, -1):
            lines.append(f"    y = {self._added(f'c[{k}]', f'({self.wide})y * t', table.shifts[k])};")
        self.tables.append("\n".join([*lines, "    return y;", "}"]))
        return name

    def _layer(self, step: Layer, local: str) -> None:
        rows, columns = len(step.matrix), len(step.matrix[0])
        weight, bias = self.names.new(f"{local}_weight"), self.names.new(f"{local}_bias")
        source = self.local[step.previous] if step.previous is not None else self.names.new(f"{local}_in")
        row, column, total, y = (self.names.new(wish) for wish in ("row", "col", "total", "y"))
        if step.previous is None:
            values = ", ".join(self.local[argument] for argument in step.arguments)
            self._statement(f"const {self.narrow} {source}[{columns}] = {{", values, "};")
        self._statement(f"static const {self.narrow} {weight}[{rows}][{columns}] = {{", ", ".join(
            "{" + ", ".join(map(str, entries)) + "}" for entries in step.matrix), "};")  # fmt: skip
        self._statement(f"static const {self.wide} {bias}[{rows}] = {{", ", ".join(
            self._wide_literal(value) for value in step.offset), "};")  # fmt: skip
        result = y
        if step.rectified:
            result = f"({self.narrow})(({y} > 0) ? {y} : 0)"
        elif step.table is not None:
            result = f"{self._function(step.table)}({y})"
        self.lines += [
            f"    {self.narrow} {local}[{rows}];",
            f"    for (uint32_t {row} = 0u; {row} < {rows}u; {row}++) {{",
            f"        {self.wide} {total} = {bias}[{row}];",
            f"        for (uint32_t {column} = 0u; {column} < {columns}u; {column}++) {{",
            f"            {total} += ({self.wide}){weight}[{row}][{column}] * {source}[{column}];",
            "        }",
            f"        const {self.narrow} {y} = {self._shifted(total, step.shift)};",
            f"        {local}[{row}] = {result};",
            "    }",
        ]


def _signed(value: int) -> str:
    """Digits that a cast may stand before."""
    return f"({value})" if value < 0 else str(value)


_EXPRESSIONS: dict[type, Callable[[_Writer, Any], str]] = {
    Read: _Writer._read,
    Sum: _Writer._sum,
    Narrow: _Writer._narrow,
    Clamp: _Writer._clamp,
    Product: _Writer._product,
    Extreme: _Writer._extreme,
    Quotient: _Writer._quotient,
    Absolute: _Writer._absolute,
    Sign: _Writer._sign,
    Select: _Writer._select,
    Root: _Writer._root,
    Phase: _Writer._phase,
    Lookup: _Writer._lookup,
    Logarithm: _Writer._logarithm,
}

# @N narrow, @W wide, @U unsigned wide, @F the function, @TOP the highest bit of a wide number; in the order of calls
_HELPERS: dict[str, Sequence[str]] = {
    "signed": (
        "/* the int32_t with these bits */",
        "static int32_t @F_signed(uint32_t bits) {",
        "    const uint32_t others = ~bits;",
        "    return (bits <= 2147483647u) ? (int32_t)bits : (-1 - (int32_t)others);",
        "}",
    ),
    "round": (),
    "phase": (
        "/* w / 2^s + offset, modulo one turn of 2^@HALF */",
        "static @N @F_phase(@W w, uint32_t s, uint32_t offset) {",
        "    const uint32_t turns = (uint32_t)@F_round(w, s) + offset;",
        "    const uint32_t part = turns & @MASKu;",
        "    return (@N)part;",
        "}",
    ),
    "limit": (
        "static @N @F_limit(@N x, @N low, @N high) {",
        "    return (x > high) ? high : ((x < low) ? low : x);",
        "}",
    ),
    "sqrt": (
        "/* floor(sqrt(x * 2^s)), bit by bit; 0 for a negative x */",
        "static @N @F_sqrt(@N x, uint32_t s) {",
        "    @U rest = (x > 0) ? ((@U)x << s) : 0u;",
        "    @U root = 0u;",
        "    for (@U bit = (@U)1u << @PAIRu; bit != 0u; bit >>= 2) {",
        "        if (rest >= root + bit) {",
        "            rest -= root + bit;",
        "            root = (root >> 1) + bit;",
        "        } else {",
        "            root >>= 1;",
        "        }",
        "    }",
        "    return (@N)root;",
        "}",
    ),
}

# Of 32 bits only the low half of the quotient is computed: asked for a 64-bit shift, clang multiplies in 64 x 64 bits.
_ROUND: dict[int, Sequence[str]] = {
    16: (
        "/* w / 2^s to the nearest integer, ties upward: floor((w + half) / 2^s) */",
        "static int32_t @F_round(int32_t w, uint32_t s) {",
        "    const uint32_t below = s - 1u;",
        "    const uint32_t half = (uint32_t)1u << below;",
        "    const uint32_t sign = 2147483648u;",
        "    const uint32_t flipped = ((uint32_t)w + half) ^ sign;",
        "    const uint32_t high = flipped >> s;",
        "    const uint32_t low = sign >> s;",
        "    return (int32_t)high - (int32_t)low;",
        "}",
    ),
    32: (
        "/* the low 32 bits of w / 2^s to the nearest integer, ties upward */",
        "static uint32_t @F_round(int64_t w, uint32_t s) {",
        "    const uint32_t below = s - 1u;",
        "    const uint64_t half = (uint64_t)1u << below;",
        "    const uint64_t sum = (uint64_t)w + half;",
        "    const uint64_t top = sum >> 32u;",
        "    const uint32_t high = (uint32_t)top;",
        "    const uint32_t low = (uint32_t)sum;",
        "    uint32_t bits;",
        "    if (s < 32u) {",
        "        bits = (high << (32u - s)) | (low >> s);",
        "    } else {",
        "        const uint32_t sign = 2147483648u;",
        "        const uint32_t flipped = high ^ sign;",
        "        bits = (flipped >> (s - 32u)) - (sign >> (s - 32u));",
        "    }",
        "    return bits;",
        "}",
    ),
}
