"""Whether C returns what the map returns: the vectors it is tried on, and the comparison."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.export.guarded import Guard
from sindyrl.export.rounding import Array, OwnFunction, Rounded, evaluate_rounded, uses_libm
from sindyrl.export.stateful import Memory
from sindyrl.export.toolchain import ExportError
from sindyrl.symbolic_map import Signal, SymbolicMap

UNBOUNDED_EDGE = 10.0
"""Stands for the end of a range that has none."""
_UNBOUNDED_SPREAD = 4.0  # random vectors reach sinh(4) = 27 there, half of them inside 4
_MAX_CORNERS = 64


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Inputs to try and the answers. All arrays (vector, input or output), in the number type of the C.

    inputs : inside the signals' ranges, edges first      hostile : NaN, infinities and denormals
    reference : the map itself in float64      expected, expected_hostile : evaluated in the number type, with bounds
    """

    inputs: NDArray[Any]
    hostile: NDArray[Any]
    reference: Array
    expected: Rounded
    expected_hostile: Rounded
    bitwise: bool


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How C compared with the map.

    max_error : largest |C - map|      max_ulp : the same in units of the map's last place, which are tiny near zero
    error_bound : largest rounding-error bound on it
    bitwise : equal bits to NumPy in the same number type (None: a libm function is involved, so bits are not defined)
    overflows : vectors on which the map is finite and its value in this number type is not (kept out of the maxima)
    """

    vectors: int
    max_error: float
    error_bound: float
    max_ulp: float
    bitwise: bool | None
    overflows: int


def make_vectors(
    form: SymbolicMap,
    number: str,
    n_random: int,
    rng: np.random.Generator,
    shipped: SymbolicMap | None = None,
    own: Mapping[str, OwnFunction] | None = None,
) -> Vectors:
    """Corners and ends of the input ranges, then ``n_random`` random vectors, and the answers to them.

    shipped : the same function of the reals in the order of the C, by default ``form`` itself
    own : operation -> the function that the C brings along for it

    Every other random vector is drawn towards zero, by up to a thousand: far out, a clipped output is only its limit.
    """
    shipped = form if shipped is None else shipped
    dtype = np.dtype(number)
    edges = _edges(form.inputs, dtype, rng)
    draws = rng.random((n_random, len(form.inputs)))
    scale = np.where(np.arange(n_random) % 2 == 0, 1.0, 10.0 ** (-3.0 * rng.random(n_random)))
    columns = [_spread(draws[:, index], scale, signal, dtype) for index, signal in enumerate(form.inputs)]
    inputs = np.concatenate([edges, np.stack(columns, axis=1)]) if columns else edges
    hostile = _hostile(form.inputs, dtype)
    expected = evaluate_rounded(shipped, inputs, own)
    if shipped is not form:
        expected = dataclasses.replace(expected, bound=expected.bound + _regrouping_error(form, shipped, inputs))
    return Vectors(
        inputs=inputs,
        hostile=hostile,
        reference=form(inputs.astype(np.float64)),
        expected=expected,
        expected_hostile=evaluate_rounded(shipped, hostile, own),
        bitwise=not uses_libm(shipped.nodes, own),
    )


def _regrouping_error(form: SymbolicMap, shipped: SymbolicMap, inputs: NDArray[Any]) -> Array:
    """How far apart two orders of the same function may be in float64, in which the reference is computed."""
    wide = inputs.astype(np.float64)
    return evaluate_rounded(form, wide).bound + evaluate_rounded(shipped, wide).bound


def call(library: ctypes.CDLL, function: str, inputs: NDArray[Any], n_outputs: int) -> NDArray[Any]:
    """Outputs (vector, output) of ``void function(const T *in, T *out)`` for each row of inputs (vector, input)."""
    address = getattr(library, function)
    address.restype, address.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]
    source = np.ascontiguousarray(inputs)
    untouched = np.nan if source.dtype.kind == "f" else -77
    outputs = np.full((len(source), n_outputs), untouched, source.dtype)
    for row in range(len(source)):
        address(source.ctypes.data + row * source.strides[0], outputs.ctypes.data + row * outputs.strides[0])
    return outputs


def compare(form: SymbolicMap, vectors: Vectors, outputs: NDArray[Any], hostile: NDArray[Any], where: str) -> Agreement:
    """ExportError naming the worst vector unless every output is within its bound, and equal in bits where defined."""
    _same_kind(form, vectors.hostile, hostile, vectors.expected_hostile, where, always=True)
    _same_kind(form, vectors.inputs, outputs, vectors.expected, where, always=False)
    if vectors.bitwise:
        _same_bits(form, vectors.inputs, outputs, vectors.expected.value, where)
        _same_bits(form, vectors.hostile, hostile, vectors.expected_hostile.value, where)
    finite = np.isfinite(vectors.reference) & np.isfinite(vectors.expected.value)
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(outputs.astype(np.float64) - vectors.reference), 0.0)
    bound = np.where(finite, vectors.expected.bound, 0.0)
    excess = np.where(error > bound, error - bound, 0.0)
    if np.any(excess > 0.0):
        row, column = np.unravel_index(np.argmax(excess), excess.shape)
        raise ExportError(
            f"{where} differs from `{form.name}` by {error[row, column]:.3g} in output {form.output_names[column]}, "
            f"more than rounding explains ({bound[row, column]:.3g}), at {_shown(form, vectors.inputs[row])}."
        )
    with np.errstate(invalid="ignore", over="ignore"):
        spacing = np.spacing(np.abs(vectors.reference).astype(outputs.dtype)).astype(np.float64)
    overflows = np.isfinite(vectors.reference) & ~np.isfinite(vectors.expected.value)
    return Agreement(
        vectors=len(vectors.inputs) + len(vectors.hostile),
        max_error=float(error.max()),
        error_bound=float(bound.max()),
        max_ulp=float(np.max(error / np.where(finite, spacing, 1.0))),
        bitwise=True if vectors.bitwise else None,
        overflows=int(np.count_nonzero(overflows.any(axis=1))),
    )


def subset(vectors: Vectors, size: int) -> Vectors:
    """At most ``size`` of the vectors, evenly spaced, and all hostile ones: for execution where a call is slow."""
    rows = np.unique(np.linspace(0, len(vectors.inputs) - 1, min(size, len(vectors.inputs))).astype(np.intp))
    expected = vectors.expected
    return dataclasses.replace(
        vectors,
        inputs=vectors.inputs[rows],
        reference=vectors.reference[rows],
        expected=Rounded(expected.value[rows], expected.exact[rows], expected.bound[rows]),
    )


def _same_kind(
    form: SymbolicMap, inputs: NDArray[Any], found: NDArray[Any], expected: Rounded, where: str, *, always: bool
) -> None:
    """NaN and infinities where they have to be; if not ``always``, only where rounding cannot decide about it."""
    same = np.where(np.isfinite(expected.value), np.isfinite(found), _equal(found, expected.value))
    undecided = np.isinf(expected.bound) & np.isfinite(expected.exact) & (not always)
    _refuse_first(form, inputs, same | undecided, found, expected.value, where)


def same_bits(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    """Equal, signs of zeros included; a NaN is as good as another."""
    return _equal(found, expected) & (np.isnan(expected) | (np.signbit(found) == np.signbit(expected)))


def compare_guarded(
    library: ctypes.CDLL, name: str, guard: Guard, vectors: Vectors, unguarded: NDArray[Any], where: str
) -> None:
    """ExportError unless ``NAME_checked`` returns the right status and outputs for regular, hostile and far inputs."""
    regular = np.concatenate([vectors.inputs, vectors.hostile])
    far = np.concatenate([np.nextafter(vectors.inputs, side) for side in (-np.inf, np.inf)]).astype(regular.dtype)
    address, plain = getattr(library, f"{name}_checked"), getattr(library, name)
    address.restype, address.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]
    rows = np.ascontiguousarray(np.concatenate([regular, far]))
    expected = np.concatenate([unguarded, call(library, plain.__name__, far, unguarded.shape[1])])
    outputs = np.full((len(rows), unguarded.shape[1]), np.nan, rows.dtype)
    found = np.array(
        [
            address(rows.ctypes.data + row * rows.strides[0], outputs.ctypes.data + row * outputs.strides[0])
            for row in range(len(rows))
        ],
        np.int64,
    )
    status = guard.status(rows)
    expected[~guard.computes(status)] = np.array(guard.fallback, rows.dtype)
    wrong = (found != status) | ~same_bits(outputs, expected).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ExportError(
            f"{where}: `{name}_checked` returns status {found[row]} and {outputs[row]} at {rows[row]}, where status "
            f"{status[row]} and {expected[row]} are right."
        )


def compare_batch(library: ctypes.CDLL, name: str, inputs: NDArray[Any], expected: NDArray[Any], where: str) -> None:
    """ExportError unless ``NAME_batch`` returns for all rows at once what ``NAME`` returned for each."""
    rows = np.ascontiguousarray(inputs)
    found = np.full_like(expected, np.nan)
    batch = getattr(library, f"{name}_batch")
    batch.restype = None
    batch(ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(found.ctypes.data), ctypes.c_int(len(rows)))
    if not same_bits(found, expected).all():
        row = int(np.argmin(same_bits(found, expected).all(axis=1)))
        raise ExportError(f"{where}: `{name}_batch` gives {found[row]} in row {row}, `{name}` gives {expected[row]}.")


def compare_steps(library: ctypes.CDLL, name: str, memory: Memory, inputs: NDArray[Any], where: str) -> None:
    """ExportError unless ``NAME_reset`` and ``NAME_step`` carry the state as calls of ``NAME`` do.

    inputs : (step, state and input), of which the inputs are used
    """
    n = len(memory.initial)
    state = np.full(n, np.nan, inputs.dtype)
    expected = np.array(memory.initial, inputs.dtype)
    reset, step = getattr(library, f"{name}_reset"), getattr(library, f"{name}_step")
    reset.restype = step.restype = None
    reset(ctypes.c_void_p(state.ctypes.data))
    for k, row in enumerate(np.ascontiguousarray(inputs[:, n:])):
        whole = np.concatenate([expected, row])[None]
        result = call(library, name, whole, n + memory.n_outputs)[0]
        out = np.full(max(memory.n_outputs, 1), np.nan, inputs.dtype)
        step(*(ctypes.c_void_p(array.ctypes.data) for array in (state, np.append(row, row.dtype.type(0.0)), out)))
        expected = result[:n]
        found = np.concatenate([state, out[: memory.n_outputs]])
        if not same_bits(found, result).all():
            raise ExportError(f"{where}: `{name}_step` gives {found} in step {k}, where its map gives {result}.")


def _same_bits(
    form: SymbolicMap, inputs: NDArray[Any], found: NDArray[Any], expected: NDArray[Any], where: str
) -> None:
    _refuse_first(form, inputs, same_bits(found, expected), found, expected, where)


def _equal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _refuse_first(
    form: SymbolicMap,
    inputs: NDArray[Any],
    same: NDArray[np.bool_],
    found: NDArray[Any],
    expected: NDArray[Any],
    where: str,
) -> None:
    if same.all():
        return
    row, column = np.argwhere(~same)[0]
    raise ExportError(
        f"{where} returns {found[row, column]} for output {form.output_names[column]} of `{form.name}`, where the "
        f"same arithmetic in NumPy gives {expected[row, column]}, at {_shown(form, inputs[row])}. Compiler options "
        "that reorder or fuse arithmetic (-ffast-math) do this."
    )


def _shown(form: SymbolicMap, row: NDArray[Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(form.input_names, row, strict=True)) or "no input"


def _ends(signal: Signal, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The outermost values of the number type inside the range; a finite stand-in where the range has no end."""
    low, high = signal.lower, signal.upper
    if math.isinf(low):
        low = min(-UNBOUNDED_EDGE, high - UNBOUNDED_EDGE)
    if math.isinf(high):
        high = max(UNBOUNDED_EDGE, low + UNBOUNDED_EDGE)
    limits = np.finfo(dtype)
    bottom, top = (dtype.type(np.clip(end, limits.min, limits.max)) for end in (low, high))
    # as Python floats: NumPy would round `low` to float32 before comparing
    if float(bottom) < low:
        bottom = np.nextafter(bottom, dtype.type(np.inf))
    if float(top) > high:
        top = np.nextafter(top, dtype.type(-np.inf))
    return min(bottom, top), max(bottom, top)


def _spread(draws: Array, scale: Array, signal: Signal, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Draws in [0, 1) -> values in the range: uniform if it has two ends, else dense near its middle or end.

    ``scale`` in (0, 1] pulls them to zero, or to the end nearest to zero.
    """
    low, high = signal.lower, signal.upper
    if math.isfinite(low) and math.isfinite(high):
        values = low * (1.0 - draws) + high * draws
    elif math.isfinite(low):
        values = low + np.sinh(_UNBOUNDED_SPREAD * draws)
    elif math.isfinite(high):
        values = high - np.sinh(_UNBOUNDED_SPREAD * draws)
    else:
        values = np.sinh(_UNBOUNDED_SPREAD * (2.0 * draws - 1.0))
    center = min(max(0.0, low), high)
    values = center * (1.0 - scale) + values * scale
    first, last = _ends(signal, dtype)
    rounded = np.clip(values, np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype)
    if math.isfinite(low):
        rounded = np.maximum(rounded, first)
    return np.minimum(rounded, last) if math.isfinite(high) else rounded


def _edges(signals: Sequence[Signal], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Zero (or nearest to it), each end with the others at zero, then corners of the box."""
    ends = [_ends(signal, dtype) for signal in signals]
    zero = np.array([np.clip(dtype.type(0.0), *pair) for pair in ends], dtype)
    rows = [zero, np.where(zero == 0.0, dtype.type(-0.0), zero)]
    for index, pair in enumerate(ends):
        for end in pair:
            row = zero.copy()
            row[index] = end
            rows.append(row)
    if 2 ** len(signals) <= _MAX_CORNERS:
        rows += [np.array(corner, dtype) for corner in itertools.product(*ends)]
    else:
        sides = rng.random((_MAX_CORNERS, len(signals))) < 0.5
        table = np.array(ends, dtype)
        rows += [np.where(side, table[:, 1], table[:, 0]) for side in sides]
    return np.array(rows, dtype).reshape(len(rows), len(signals))


def _hostile(signals: Sequence[Signal], dtype: np.dtype[Any]) -> NDArray[Any]:
    limits = np.finfo(dtype)
    bad = [np.nan, np.inf, -np.inf, limits.max, -limits.max, limits.smallest_subnormal]
    rows = [np.full(len(signals), value, dtype) for value in bad]
    for index in range(len(signals)):
        for value in bad[:3]:
            row = np.ones(len(signals), dtype)
            row[index] = value
            rows.append(row)
    return np.array(rows, dtype).reshape(len(rows), len(signals))
