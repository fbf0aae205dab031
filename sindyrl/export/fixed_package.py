"""A fixed-point map as C files: the header with its scaling table, the integer code, and known answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.export.fixed_point import FixedPlan, dequantize, evaluate, fixed_function, quantize
from sindyrl.export.source import MARK, comment_block, formula_lines, library_version
from sindyrl.symbolic_map import SCHEMA, SymbolicMap

FIXED = {"q31": 32, "q15": 16}
"""Number type -> bits of a stored number."""


@dataclasses.dataclass(frozen=True)
class FixedPackage:
    """What is written: the map, its plan, and self-test vectors as integers (vector, input), (vector, output)."""

    form: SymbolicMap
    plan: FixedPlan
    name: str
    number: str
    inputs: NDArray[Any]
    expected: NDArray[Any]
    period: float | None

    @property
    def file_names(self) -> tuple[str, str, str]:
        """Header, source, self-test."""
        return f"{self.name}.h", f"{self.name}.c", f"{self.name}_selftest.c"

    @property
    def self_test_macro(self) -> str:
        """Defines a ``main`` in the self-test."""
        return f"{self.name.upper()}_SELFTEST_MAIN"

    def texts(self, verification: Sequence[str]) -> dict[str, str]:
        """File name -> text; ``verification`` is said in the header, a line each."""
        header, source, self_test = self.file_names
        code = fixed_function(self.plan, self.name).replace("#include <stdint.h>\n", "", 1).lstrip("\n")
        body = [f"/* {MARK}. See {header}. */", f'#include "{header}"', "", code]
        return {header: self._header(verification), source: "\n".join(body), self_test: self._self_test()}

    def _header(self, verification: Sequence[str]) -> str:
        kind, guard = f"int{self.plan.bits}_t", f"SINDYRL_{self.name.upper()}_H"
        n, m = max(len(self.form.inputs), 1), len(self.form.outputs)
        saturated = self.plan.saturated
        about = [
            f"{MARK} {library_version()}. Change the map and export again instead of changing this file.",
            "This generated code belongs to you, without conditions.",
            "",
            *formula_lines(self.form),
            "",
            "An integer stands for itself times a power of two:",
            *self.plan.scaling_table(),
            "",
            f"C99, {kind}, integers only, no heap, no globals, no library. Inputs beyond a range count as its end.",
            *([f"Limited to the range of its signal: {', '.join(saturated)}."] if saturated else []),
            *([] if self.period is None else [f"To be called every {self.period!r} s."]),
            "The error bounds are proven for every input within its range, quantization of the inputs included.",
            "",
            *verification,
            "",
            f"map sha256 {self.form.digest()}, schema {SCHEMA}",
        ]
        declarations = [
            f"void {self.name}(const {kind} state[{n}], {kind} out[{m}]);",
            "",
            f"/* Number of outputs that miss their known value, 0 if all is well. Only in {self.file_names[2]}. */",
            f"int {self.name}_selftest(void);",
        ]
        extern = ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
        end = ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
        top = [*comment_block(about), f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]
        return "\n".join([*top, *extern, *declarations, *end])

    def _self_test(self) -> str:
        kind, name, count = f"int{self.plan.bits}_t", self.name, len(self.inputs)
        n, m = max(len(self.form.inputs), 1), len(self.form.outputs)
        states = self.inputs if self.inputs.shape[1] else np.zeros((count, 1), int)
        lines = [
            f"/* {MARK}. Known answers for {self.file_names[1]}. */",
            f'#include "{self.file_names[0]}"',
            "",
            *_table(f"static const {kind} states[{count}][{n}]", states, self.plan.bits),
            *_table(f"static const {kind} expected[{count}][{m}]", self.expected, self.plan.bits),
            "",
            f"int {name}_selftest(void) {{",
            "    int failures = 0;",
            f"    for (int row = 0; row < {count}; row++) {{",
            f"        {kind} out[{m}];",
            f"        {name}(states[row], out);",
            f"        for (int column = 0; column < {m}; column++) {{",
            "            if (out[column] != expected[row][column]) {",
            "                failures++;",
            "            }",
            "        }",
            "    }",
            "    return failures;",
            "}",
            "",
            f"#ifdef {self.self_test_macro}",
            "int main(void);",
            "int main(void) {",
            f"    return {name}_selftest() == 0 ? 0 : 1;",
            "}",
            "#endif",
            "",
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class FixedVectors:
    """Integers to try, the answers, and how far the answers are from the map in float64.

    inputs (vector, input), expected (vector, output) : integers      error : (output,), in output units
    """

    inputs: NDArray[Any]
    expected: NDArray[Any]
    error: NDArray[np.float64]


def fixed_vectors(form: SymbolicMap, plan: FixedPlan, points: NDArray[np.float64], hostile: int = 64) -> FixedVectors:
    """Quantize ``points`` (vector, input), inside the ranges, and add integers of any size.

    The error compares with the map at the points themselves, so that quantization counts.
    """
    q = quantize(plan, points)
    expected = evaluate(plan, q)
    reference = form(points)
    for index, signal in enumerate(form.outputs):
        if signal.name in plan.saturated:
            reference[:, index] = np.clip(reference[:, index], signal.lower, signal.upper)
    error = np.abs(dequantize(plan, expected) - reference).max(axis=0)
    limits = np.iinfo(plan.dtype)
    rng = np.random.default_rng(0)
    wild = rng.integers(limits.min, limits.max, (hostile, len(form.inputs)), plan.dtype, endpoint=True)
    wild[0], wild[1] = limits.min, limits.max
    return FixedVectors(np.concatenate([q, wild]), np.concatenate([expected, evaluate(plan, wild)]), error)


def make_fixed_package(
    form: SymbolicMap, plan: FixedPlan, name: str, number: str, vectors: FixedVectors, size: int, period: float | None
) -> FixedPackage:
    """With ``size`` of the vectors as the self-test, spread over the different answers of the first output."""
    order = np.argsort(vectors.expected[:, 0], kind="stable")
    rows = np.unique(order[np.linspace(0, len(order) - 1, min(size, len(order))).astype(int)])
    return FixedPackage(form, plan, name, number, vectors.inputs[rows], vectors.expected[rows], period)


def _table(declaration: str, rows: NDArray[Any], bits: int) -> list[str]:
    lines = ["    {" + ", ".join(_integer(int(value), bits) for value in row) + "}," for row in rows]
    return [f"{declaration} = {{", *lines, "};"]


def _integer(value: int, bits: int) -> str:
    """A literal; the most negative number has none in C."""
    lowest = -(2 ** (bits - 1))
    return str(value) if value > lowest else f"({lowest + 1} - 1)"
