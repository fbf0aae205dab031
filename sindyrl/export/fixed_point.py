"""Closed forms in fixed point, Q31 or Q15: a scale for every number, and a proven bound on the error of every output.

    plan = fixed_point.plan(policy)                     # inputs need finite ranges: Signal("x", "m", -2.0, 2.0)
    plan.bound                                          # |output - exact value| is at most this, in output units
    q = evaluate(plan, quantize(plan, x))               # the integers that the C computes
    u = dequantize(plan, q)
    text = fixed_function(plan, "policy_q31")           # C99: void policy_q31(const int32_t state[4], int32_t out[1])

Q31 keeps numbers in int32_t and computes in int64_t, Q15 keeps them in int16_t and computes in int32_t. Every number
has its own power-of-two scale, the largest at which it cannot overflow on the ranges of the inputs (interval
arithmetic). The bound follows the errors of quantized inputs, rounded constants, products, quotients and tables through
every operation; :mod:`sindyrl.export.fixed_values` has the rules. It is against the map in exact real arithmetic, for
inputs within their ranges; an input outside is taken as the nearest end of its range. Where a comparison, or a sign,
may be decided either way the bound includes the largest gap between the branches near the switching surface.

An output whose signal has a finite range that the map may leave saturates there: its bound is against the limited map.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sindyrl.emit import c_fixed
from sindyrl.emit.integer_program import Program, evaluate_program
from sindyrl.export.fixed_numbers import above
from sindyrl.export.fixed_planner import Planner
from sindyrl.symbolic_map import Signal, SymbolicMap

Array = NDArray[np.float64]
BITS = (16, 32)


@dataclasses.dataclass(frozen=True)
class FixedPlan:
    """A map as an integer program.

    bits : 32 (Q31) or 16 (Q15)      inputs, outputs : the map's signals
    input_scales, output_scales : s per signal, the integer q stands for q / 2**s
    bound : (output,), proven absolute error in output units      saturated : outputs limited to their signal's range
    program : the integer arithmetic itself
    """

    name: str
    bits: int
    inputs: tuple[Signal, ...]
    outputs: tuple[Signal, ...]
    input_scales: tuple[int, ...]
    output_scales: tuple[int, ...]
    bound: Array
    saturated: tuple[str, ...]
    program: Program

    @property
    def dtype(self) -> type[np.signedinteger]:
        """NumPy's type of a stored number."""
        return np.int32 if self.bits == 32 else np.int16

    def scaling_table(self) -> list[str]:
        """One row of text per input and output: name, scale, range, one step in its unit, error bound."""
        rows = [f"{'signal':<20} {'integer':<14} {'range':<28} {'one step':<12} error bound"]
        for signal, scale in zip(self.inputs, self.input_scales, strict=True):
            half = math.ldexp(0.5, -scale)
            rows.append(self._row(signal, scale, f"{signal.lower:.6g} .. {signal.upper:.6g}", half))
        for index, (signal, scale) in enumerate(zip(self.outputs, self.output_scales, strict=True)):
            register = self.program.registers[self.program.outputs[index]]
            low, high = math.ldexp(register.lower, -scale), math.ldexp(register.upper, -scale)
            limited = " saturated" if signal.name in self.saturated else ""
            rows.append(self._row(signal, scale, f"{low:.6g} .. {high:.6g}{limited}", self.bound[index]))
        return rows

    @staticmethod
    def _row(signal: Signal, scale: int, span: str, error: float) -> str:
        unit = f" {signal.unit}" if signal.unit else ""
        return f"{signal.name:<20} {f'x * 2^{scale}':<14} {span:<28} {math.ldexp(1.0, -scale):<12.4g} {error:.4g}{unit}"


def plan(form: SymbolicMap, bits: int = 32, ranges: Mapping[str, tuple[float, float]] | None = None) -> FixedPlan:
    """Choose scales and prove the bound.

    bits : 32 or 16      ranges : input name -> (lower, upper), finite; those not named take their signal's range

    Raises ValueError naming the expression, its range and the remedy: an input without a finite range, a division whose
    denominator may be zero, a log or sqrt outside its domain, a table beyond 8 kB, numbers too large to represent.
    """
    if bits not in BITS:
        raise ValueError(f"`plan(bits=...)` must be 16 or 32. Got {bits!r}.")
    planner = Planner(form, bits, ranges)
    outputs, saturated = planner.outputs()
    return FixedPlan(
        form.name,
        bits,
        planner.inputs,
        form.outputs,
        tuple(read.scale for read in planner.reads),
        tuple(value.scale for value in outputs),
        np.array([float(above(value.error)) for value in outputs]),
        tuple(saturated),
        planner.builder.program(outputs),
    )


def quantize(plan: FixedPlan, x: ArrayLike) -> NDArray[np.signedinteger]:
    """Inputs (..., n) in their units -> integers, the nearest ones; outside its range an input is its nearest end.

    Raises ValueError for NaN.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != len(plan.inputs):
        raise ValueError(f"`quantize(x=...)` must have shape (..., {len(plan.inputs)}). Got {values.shape}.")
    if np.isnan(values).any():
        raise ValueError("`quantize(x=...)` must not hold NaN: no integer stands for it. Handle it before the call.")
    lower = np.array([signal.lower for signal in plan.inputs])
    upper = np.array([signal.upper for signal in plan.inputs])
    limited = np.minimum(np.maximum(values, lower), upper)
    return np.rint(np.ldexp(limited, np.array(plan.input_scales, int))).astype(plan.dtype)


def dequantize(plan: FixedPlan, q: ArrayLike) -> Array:
    """Outputs (..., m) as integers -> their units; exact."""
    return np.ldexp(np.asarray(q, dtype=np.float64), -np.array(plan.output_scales, int))


def evaluate(plan: FixedPlan, q_inputs: ArrayLike, *, check: bool = False) -> NDArray[np.signedinteger]:
    """Integers (..., n) -> integers (..., m): what the C computes, in every bit, for any integers.

    check : compute with unbounded integers and assert the proven limits of every intermediate number (slow).
    """
    given = np.asarray(q_inputs)
    if given.dtype.kind not in "iu" or given.ndim == 0 or given.shape[-1] != len(plan.inputs):
        raise ValueError(
            f"`evaluate(q_inputs=...)` must be integers of shape (..., {len(plan.inputs)}). "
            f"Got {given.dtype} of shape {given.shape}."
        )
    result = evaluate_program(plan.program, given.reshape(-1, given.shape[-1]), check=check)
    return result.astype(plan.dtype).reshape(*given.shape[:-1], len(plan.outputs))


def fixed_function(plan: FixedPlan, name: str) -> str:
    """C99 text of ``void name(const intB_t state[n], intB_t out[m])``, B = ``plan.bits``, with what it needs.

    Integer arithmetic only, defined for any input integers: no overflow, no shift of a negative number.
    """
    return c_fixed.c_fixed_function(plan.program, name)
