"""The function that firmware calls when inputs may be bad: it says what is wrong and returns outputs that are safe.

int policy_checked(const float state[4], float out[1]);

status   meaning                                          out
0        every input is inside its range                  as policy()
1        an input is NaN or infinite                      the fallback
2        an input is outside its range                    the fallback, or as policy() if that was asked for
3        one input is NaN or infinite, another outside    the fallback
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sindyrl.emit.c import TYPES, Number, literal
from sindyrl.symbolic_map import Signal

NOT_FINITE, OUTSIDE = 1, 2
Outside = Literal["fallback", "compute"]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a checked call returns when it must not compute.

    lower, upper : (input,), the ranges in the number type of the C, rounded inwards; infinite where there is no range
    fallback : (output,)
    outside : "fallback" also beyond the ranges, or "compute" there and only say so
    """

    number: Number
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    fallback: tuple[float, ...]
    outside: Outside

    def status(self, inputs: NDArray[Any]) -> NDArray[np.int64]:
        """(call,), what the function returns for inputs (call, input)."""
        finite = np.isfinite(inputs)
        within = (inputs >= np.array(self.lower, inputs.dtype)) & (inputs <= np.array(self.upper, inputs.dtype))
        bad = (~finite).any(axis=1) * NOT_FINITE + (finite & ~within).any(axis=1) * OUTSIDE
        return np.asarray(bad, np.int64)

    def computes(self, status: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(call,), where the outputs are the map's."""
        return (status == 0) | ((status == OUTSIDE) & (self.outside == "compute"))

    def prototype(self, name: str) -> str:
        """Without a semicolon."""
        kind = TYPES[self.number]
        inputs, outputs = max(len(self.lower), 1), len(self.fallback)
        return f"int {name}_checked(const {kind} state[{inputs}], {kind} out[{outputs}])"

    def comment(self, name: str) -> list[str]:
        """What the status means, for the header."""
        ranged = any(np.isfinite((*self.lower, *self.upper)))
        beyond = "out is the fallback" if self.outside == "fallback" else f"out is computed as by {name}"
        lines = [
            "The same with the inputs checked. Returns 0 if all is well, else a sum of",
            f"{NOT_FINITE}: an input is NaN or infinite; out is the fallback",
        ]
        lines += [f"{OUTSIDE}: an input is outside its range; {beyond}"] if ranged else []
        return [*lines, f"fallback: {', '.join(literal(value, self.number) for value in self.fallback)}"]

    def text(self, name: str) -> str:
        """The C function, ending in a newline."""
        kind, inputs, outputs = TYPES[self.number], len(self.lower), len(self.fallback)
        limits = np.finfo(self.number)
        zero = literal(0.0, self.number)
        table = {"lower": self.lower, "upper": self.upper}
        ends = {"lower": float(limits.min), "upper": float(limits.max)}
        ranged = any(np.isfinite((*self.lower, *self.upper)))
        lines = [f"{self.prototype(name)} {{"]
        if not inputs:
            return "\n".join([*lines, f"    {name}(state, out);", "    return 0;", "}", ""])
        if ranged:
            for side, values in table.items():
                written = [literal(v if np.isfinite(v) else ends[side], self.number) for v in values]
                lines.append(f"    static const {kind} {side}[{inputs}] = {{{', '.join(written)}}};")
        safe = ", ".join(literal(value, self.number) for value in self.fallback)
        lines.append(f"    static const {kind} fallback[{outputs}] = {{{safe}}};")
        # two sums instead of bits of one: MISRA C wants unsigned operands for | and &
        lines.append("    int not_finite = 0;")
        lines += ["    int outside = 0;"] if ranged else []
        lines += [
            f"    for (int i = 0; i < {inputs}; i++) {{",
            "        /* the difference of a number from itself is zero, of NaN or an infinity it is NaN */",
            f"        if (!((state[i] - state[i]) == {zero})) {{",
            f"            not_finite = {NOT_FINITE};",
        ]
        if ranged:
            lines += [
                "        } else if ((state[i] < lower[i]) || (state[i] > upper[i])) {",
                f"            outside = {OUTSIDE};",
                "        } else {",
                "            /* as it should be */",
            ]
        lines += ["        }", "    }"]
        status = "not_finite + outside" if ranged else "not_finite"
        computes = f"({status}) == 0" if ranged and self.outside == "fallback" else "not_finite == 0"
        lines += [
            f"    if ({computes}) {{",
            f"        {name}(state, out);",
            "    } else {",
            f"        for (int i = 0; i < {outputs}; i++) {{",
            "            out[i] = fallback[i];",
            "        }",
            "    }",
            f"    return {status};",
            "}",
            "",
        ]
        return "\n".join(lines)


def make_guard(
    inputs: Sequence[Signal], outputs: Sequence[Signal], fallback: Mapping[str, float], outside: Outside, number: Number
) -> Guard:
    """Raises ValueError for an output without a fallback, a name that is no output, or a fallback out of range."""
    names = [signal.name for signal in outputs]
    if sorted(fallback) != sorted(names):
        raise ValueError(f"`to_c(fallback=...)` must have a value for each output of {names}. Got {sorted(fallback)}.")
    if outside not in ("fallback", "compute"):
        raise ValueError(f"`to_c(outside=...)` must be 'fallback' or 'compute'. Got {outside!r}.")
    for signal in outputs:
        value = fallback[signal.name]
        if not signal.lower <= value <= signal.upper or not np.isfinite(value):
            raise ValueError(
                f"`to_c(fallback=...)` must lie in the range of {signal.name}, {signal.lower} to {signal.upper}. "
                f"Got {value}."
            )
    dtype = np.dtype(number)
    lower = tuple(_inwards(signal.lower, dtype, np.inf) for signal in inputs)
    upper = tuple(_inwards(signal.upper, dtype, -np.inf) for signal in inputs)
    return Guard(number, lower, upper, tuple(float(dtype.type(fallback[name])) for name in names), outside)


def _inwards(end: float, dtype: np.dtype[Any], inside: float) -> float:
    """The outermost number of the type that is within the range."""
    with np.errstate(over="ignore"):
        value = dtype.type(end)
    if np.isfinite(end) and (float(value) - end) * np.sign(inside) < 0.0:
        value = np.nextafter(value, dtype.type(inside))
    return float(value)
