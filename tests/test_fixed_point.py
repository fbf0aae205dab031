"""Fixed point: the replica is the C in every bit, and no output is ever further off than its proven bound."""

from __future__ import annotations

import ctypes
import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sindyrl.emit.integer_program import Width
from sindyrl.export import emulate, toolchain
from sindyrl.export.fixed_point import FixedPlan, dequantize, evaluate, fixed_function, plan, quantize
from sindyrl.export.fixed_segments import TableTooLarge, approximate, derivative_bound
from sindyrl.expression import (
    Binary,
    Comparison,
    Constant,
    Element,
    Node,
    Piecewise,
    Unary,
    Variable,
    absolute,
    clip,
    cos,
    dense,
    exp,
    expand_powers,
    log,
    maximum,
    minimum,
    piecewise,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
    topological,
)
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.strategies import NAMES, expressions

RANGES = ((-1.0, 1.0), (-2.4, 2.4), (0.1, 5.0), (0.0, 1.0), (-100.0, 30.0), (1e-3, 2e-3), (-math.pi, math.pi))
X, V, COSINE, SINE = (Variable(name) for name in ("x", "v", "c", "s"))
CUBIC_TERMS = (X, V, SINE, X**3, V**3, X * V, COSINE * SINE, SINE * V * V, COSINE**2 * V, X * X * SINE, SINE**3)
FACTORS = (-1.2, 4.76, 12.4, -0.68, 3.1, 0.5, -2.2, 0.9, 1.7, -0.35, 0.21)


def cubic() -> SymbolicMap:
    """The 12-term cubic policy of 4 inputs with a clipped output."""
    total: Node = X * V * COSINE * -4.4
    for factor, term in zip(FACTORS, CUBIC_TERMS, strict=True):
        total = total + factor * term
    inputs = [
        Signal("x", "m", -2.4, 2.4),
        Signal("v", "m/s", -3.0, 3.0),
        Signal("c", "", -1, 1),
        Signal("s", "", -1, 1),
    ]
    return SymbolicMap(inputs, {"u": clip(total, -1.0, 1.0)}, name="cubic")


def one(node: Node, lower: float, upper: float, **others: tuple[float, float]) -> SymbolicMap:
    """A map of x (and others, name -> range) to y."""
    ranges = {"x": (lower, upper), **others}
    return SymbolicMap([Signal(name, "", *pair) for name, pair in ranges.items()], {"y": node})


# ---- an independent evaluation, 160 bits


_MP: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a, "abs": abs, "sign": mpmath.sign, "sqrt": mpmath.sqrt, "sin": mpmath.sin, "cos": mpmath.cos,
    "tan": mpmath.tan, "tanh": mpmath.tanh, "exp": mpmath.exp, "log": mpmath.log, "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b, "min": min, "max": max,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "identity": lambda a: a, "relu": lambda a: max(a, mpmath.mpf(0)),
}  # fmt: skip


def truth(form: SymbolicMap, point: Sequence[float]) -> list[Any]:
    """The map in exact arithmetic, as far as 160 bits go."""
    given_values = dict(zip(form.input_names, map(mpmath.mpf, point), strict=True))
    values: dict[Node, Any] = {}
    roots = expand_powers(form.nodes)
    with mpmath.workprec(160):
        for node in topological(roots):
            parts = [values[child] for child in node.children]
            if isinstance(node, Constant):
                values[node] = mpmath.mpf(node.value)
            elif isinstance(node, Variable):
                values[node] = given_values[node.name]
            elif isinstance(node, (Unary, Binary, Comparison)):
                values[node] = _MP[node.op](*parts)
            elif isinstance(node, Piecewise):
                taken = [value for condition, value in zip(parts[:-1:2], parts[1:-1:2], strict=True) if condition]
                values[node] = [*taken, parts[-1]][0]
            elif isinstance(node, Element):
                values[node] = parts[0][node.index]
            else:
                layer: Any = node
                rows = zip(layer.matrix.tolist(), layer.bias.tolist(), strict=True)
                sums = [mpmath.fdot(map(mpmath.mpf, row), parts) + bias for row, bias in rows]
                values[node] = [_MP[layer.activation](total) for total in sums]
        return [values[node] for node in roots]


def excess(form: SymbolicMap, planned: FixedPlan, points: np.ndarray) -> float:
    """Largest error as a fraction of the proven bound."""
    results = evaluate(planned, quantize(planned, points))
    worst = 0.0
    with mpmath.workprec(160):
        for point, result in zip(points, results, strict=True):
            for index, exact in enumerate(truth(form, point)):
                got = mpmath.ldexp(mpmath.mpf(int(result[index])), -planned.output_scales[index])
                error, bound = abs(got - exact), mpmath.mpf(float(planned.bound[index]))
                worst = max(worst, float(error / bound) if bound else (math.inf if error else 0.0))
    return worst


def inside(planned: FixedPlan, rng: np.random.Generator, n: int) -> np.ndarray:
    """Random points, and corners, of the input ranges."""
    low = np.array([signal.lower for signal in planned.inputs])
    high = np.array([signal.upper for signal in planned.inputs])
    shape = (n, len(low))
    grid = low + (high - low) * rng.integers(0, 9, shape) / 8.0
    points = np.concatenate([rng.uniform(low, high, shape), grid, np.where(rng.random(shape) < 0.5, low, high)])
    return np.clip(points, low, high)


# ---- compiled


def build(plans: Sequence[FixedPlan], folder: Path, command: Sequence[str], *flags: str) -> list[Callable[..., Any]]:
    """Functions int array (call, input) -> (call, output), compiled with warnings as errors."""
    folder.mkdir()
    text = ""
    for index, planned in enumerate(plans):
        kind, n, m = f"int{planned.bits}_t", len(planned.inputs), len(planned.outputs)
        text += fixed_function(planned, f"f{index}")
        loop = f"for (long k = 0; k < count; k++) {{ f{index}(in + k*{n}, out + k*{m}); }}"
        text += f"void rows{index}(long count, const {kind} *in, {kind} *out) {{ {loop} }}\n"
    (folder / "all.c").write_text(text)
    warnings = [*toolchain.WARNINGS, "-Wsign-conversion", "-pedantic"]
    shared = ["-shared", "-fPIC", *flags, "all.c", "-o", "all.so"]
    toolchain.Compiler(tuple(command), "").run(["-std=c99", "-O2", *warnings, *shared], folder)
    library = ctypes.CDLL(str(folder / "all.so"))

    def caller(index: int, planned: FixedPlan) -> Callable[..., Any]:
        def call(q: np.ndarray) -> np.ndarray:
            q = np.ascontiguousarray(q, dtype=planned.dtype)
            out = np.empty((len(q), len(planned.outputs)), planned.dtype)
            addresses = [array.ctypes.data_as(ctypes.c_void_p) for array in (q, out)]
            getattr(library, f"rows{index}")(ctypes.c_long(len(q)), *addresses)
            return out

        return call

    return [caller(index, planned) for index, planned in enumerate(plans)]


def compilers() -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """Commands and flags: the machine's compiler, the same under UBSan, and zig."""
    host = list(toolchain.host_compiler().command)
    # a trap kills the test run: there is no way past it
    undefined = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    return {"host": (host, ()), "ubsan": (host, undefined), "zig": ([sys.executable, "-m", "ziglang", "cc"], ())}


def collect(count: int) -> list[tuple[SymbolicMap, FixedPlan]]:
    """Plans of ``count`` random maps, without those that are refused: the message must say where."""
    found, refusals = [], []

    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(expressions(size=8), st.tuples(*[st.sampled_from(RANGES)] * 4), st.sampled_from([16, 32]))
    def draw(node: Node, ranges: Sequence[tuple[float, float]], bits: int) -> None:
        signals = [Signal(name, "", *pair) for name, pair in zip(NAMES, ranges, strict=True)]
        form = SymbolicMap(signals, {"y": node}, name="random")
        try:
            found.append((form, plan(form, bits)))
        except ValueError as error:
            refusals.append(str(error))

    draw()
    message = r"`plan`: the expression .* (has no fixed-point form|is not bounded|divides by zero)"
    assert all(re.match(message, refusal) for refusal in refusals)
    assert len(found) > count // 2
    return found


@pytest.fixture(scope="module")
def random_plans() -> list[tuple[SymbolicMap, FixedPlan]]:
    return collect(40)


@functools.lru_cache(maxsize=2)
def planned_everything(bits: int) -> FixedPlan:
    return plan(everything(), bits)


def everything() -> SymbolicMap:
    """Every operation at once."""
    x, v = Variable("x"), Variable("v")
    first = dense([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.1]], [0.1, -0.2, 0.0], "tanh", [x, v])
    second = dense([[0.7, -1.0, 0.2], [1.5, 0.5, -0.5]], [0.3, 0.1], "relu", first)
    outputs = {
        "waves": sin(x) - 2.0 * cos(8.0 * v) + tan(0.3 * x),
        "growth": exp(-0.5 * v * v) + tanh(3.0 * x),
        "logs": log(2.5 + x) + log(0.01 + v * v),
        "roots": sqrt(v * v) + sqrt(3.0 + x),
        "ratio": (x + v) / (2.0 + v * v) + (x + 3.0) ** -2,
        "choices": minimum(x, v) + maximum(x * v, 0.5) + absolute(x) + sign(v),
        "law": piecewise([(x < v, x * x), (x >= 1.5, 1.0 + v)], x + v),
        "net": second[0] - second[1] + dense([[2.0, 1.0]], [0.0], "identity", [x, x])[0],
        "bounded": clip(5.0 * x * v - v, -1.0, 2.0),
        "constant": Constant(0.1) + sin(Constant(1.0)),
    }
    return SymbolicMap([Signal("x", "", -2.0, 2.0), Signal("v", "", -3.0, 3.0)], outputs, name="everything")


def check_bits(plans: Sequence[FixedPlan], folder: Path, name: str) -> None:
    """Hostile integers and honest ones: the same result from the C and from the replica."""
    if name == "zig":
        pytest.importorskip("ziglang")
    command, flags = compilers()[name]
    rng = np.random.default_rng(0)
    for planned, call in zip(plans, build(plans, folder / name, command, *flags), strict=True):
        top, shape = 2 ** (planned.bits - 1), (200, len(planned.inputs))
        extreme = rng.choice([-top, top - 1, 0], shape)
        hostile = np.where(rng.random(shape) < 0.3, extreme, rng.integers(-top, top, shape))
        q = np.concatenate([hostile, quantize(planned, inside(planned, rng, 50))])
        assert np.array_equal(call(q), evaluate(planned, q))


def check_bounds(pairs: Sequence[tuple[SymbolicMap, FixedPlan]]) -> None:
    """Registers within their proven limits for any integers, outputs within their bound for the ranges."""
    rng = np.random.default_rng(1)
    worst = []
    for form, planned in pairs:
        top = 2 ** (planned.bits - 1)
        hostile = rng.integers(-top, top, (20, len(planned.inputs)))
        points = inside(planned, rng, 4)
        for q in (hostile, quantize(planned, points)):
            assert np.array_equal(evaluate(planned, q, check=True), evaluate(planned, q))
        worst.append(excess(form, planned, points))
    assert max(worst) <= 1.0
    assert np.median(worst) > 0.1  # the bounds are not idle


COMPILERS = ("host", "ubsan", "zig")


@pytest.mark.parametrize("name", COMPILERS)
def test_the_replica_is_the_c_in_every_bit(random_plans, tmp_path, name):
    # every operation at once: none goes untested, however the random maps fall
    both = [planned_everything(16), planned_everything(32)]
    plans = [planned for _, planned in random_plans]
    check_bits([*plans, *both] if name == "host" else [*plans[:15], *both], tmp_path, name)


def test_no_register_leaves_its_proven_limits_and_no_output_its_bound(random_plans):
    check_bounds(random_plans)


@pytest.mark.slow
def test_hundreds_of_random_maps(tmp_path):
    pairs = collect(400)
    check_bounds(pairs)
    for name in COMPILERS:
        check_bits([planned for _, planned in pairs], tmp_path, name)


@pytest.mark.parametrize("bits", [16, 32])
def test_every_operation_stays_within_its_bound(bits):
    form = everything()
    planned = planned_everything(bits)
    points = inside(planned, np.random.default_rng(2), 40)
    assert excess(form, planned, points) <= 1.0
    evaluate(planned, quantize(planned, points), check=True)
    assert np.all(planned.bound[[0, 1, 4]] < (1e-6 if bits == 32 else 5e-2))


def off_grid(planned: FixedPlan, rng: np.random.Generator, n: int) -> np.ndarray:
    """Points near the upper ends of the ranges, almost half a step off the integers: where errors are largest."""
    steps = np.ldexp(1.0, -np.array(planned.input_scales))
    top = np.floor(np.array([signal.upper for signal in planned.inputs]) / steps)
    away = rng.integers(1, 60, (n, len(top))) + rng.choice([-0.499, 0.499], (n, len(top)))
    return (top - away) * steps


REACHED = (
    (X * V, 0.97), (X * X, 0.97), (X * X * X, 0.9), (0.3 * X + 0.7 * V, 0.5), (X / V, 0.25), (exp(X), 0.7),
    (sqrt(X), 0.7), (sin(X), 0.4), (tanh(X * 0.5), 0.4), (maximum(X, V) * 0.4, 0.65),
)  # fmt: skip


@pytest.mark.parametrize(("node", "share"), REACHED)
@pytest.mark.parametrize("bits", [16, 32])
def test_bounds_are_kept_and_nearly_reached_where_errors_are_largest(node, share, bits):
    form = one(node, 0.25, 1.9, v=(0.3, 1.9))
    planned = plan(form, bits)
    assert share < excess(form, planned, off_grid(planned, np.random.default_rng(7), 1500)) <= 1.0


@pytest.mark.parametrize(("widest", "bits"), [(50.0, 16), (1000.0, 16), (50.0, 32)])
def test_angles_of_many_turns_keep_their_bound_and_nearly_reach_it(widest, bits):
    form = one(sin(X), 0.0, widest)
    planned = plan(form, bits)
    assert 0.9 < excess(form, planned, off_grid(planned, np.random.default_rng(7), 400)) <= 1.0


def test_q31_cubic_policy_is_within_its_bound_on_a_million_inputs(tmp_path):
    form = cubic()
    planned = plan(form)
    rng = np.random.default_rng(20)
    points = rng.uniform([s.lower for s in form.inputs], [s.upper for s in form.inputs], (10**6, 4))
    q = quantize(planned, points)
    (call,) = build([planned], tmp_path / "c", compilers()["host"][0])
    result = call(q)
    assert np.array_equal(result[:50_000], evaluate(planned, q[:50_000]))
    error = np.abs(dequantize(planned, result) - form(points))
    # float64 itself is within 1e-13 of the exact value: 40 roundings of terms whose sum is below 300
    assert error.max() + 1e-13 <= planned.bound[0] < 1e-6
    assert error.max() > 0.05 * planned.bound[0]


# ---- tables


FUNCTIONS = (
    ("sin", -3.0, 3.0), ("cos", 0.2, 0.9), ("tan", -1.2, 1.3), ("tanh", -20.0, 20.0), ("exp", -9.0, 1.0),
    ("log", 0.7, 2.5), ("turns", 0.0, 0.99996),
)  # fmt: skip


@pytest.mark.parametrize(("op", "lower", "upper"), FUNCTIONS)
@pytest.mark.parametrize("bits", [16, 32])
def test_tables_keep_their_bound(op, lower, upper, bits):
    scale = bits - 1 - max(0, math.ceil(math.log2(max(abs(lower), abs(upper)))))
    first, last = math.ceil(math.ldexp(lower, scale)), math.floor(math.ldexp(upper, scale))
    out = bits - 4
    found = approximate(op, scale, first, last, out, Width(bits), 2.0 ** -(out + 2))
    every = np.arange(first, last + 1) if bits == 16 else np.random.default_rng(3).integers(first, last, 100_000)
    x = np.ldexp(every.astype(float), -scale)
    exact = np.sin(2.0 * np.pi * x) if op == "turns" else getattr(np, op)(x)
    error = np.abs(np.ldexp(found.table.evaluate(every).astype(float), -out) - exact).max()
    bound = float(found.error)
    assert error <= bound + 1e-15
    assert bound < 4.0 * 2.0**-out
    assert error > 0.2 * bound


@pytest.mark.parametrize("op", ["sin", "exp", "log", "tanh", "tan", "turns"])
def test_derivatives_are_bounded_and_closely(op):
    lower, upper = 0.3, 1.2
    function = (lambda x: mpmath.sin(2 * mpmath.pi * x)) if op == "turns" else getattr(mpmath, op)
    for order in range(1, 8):
        with mpmath.workprec(120):
            points = [mpmath.mpf(lower) + (upper - lower) * k / mpmath.mpf(40) for k in range(41)]
            largest = max(abs(mpmath.diff(function, point, order)) for point in points)
        bound = derivative_bound(op, order, lower, upper)
        assert largest <= bound
        assert bound < 3.0 * largest


def test_a_table_that_would_be_too_large_is_refused():
    with pytest.raises(TableTooLarge):
        approximate("exp", 20, -1000 << 20, 0, 30, Width(32), 2.0**-32)


# ---- meaning


def test_quantize_rounds_to_nearest_and_saturates_at_the_range():
    planned = plan(one(2.0 * X, -1.0, 1.0))
    (scale,) = planned.input_scales
    q = quantize(planned, [[0.3], [1.0], [7.0], [-math.inf]])
    assert q.dtype == np.int32
    assert q[:, 0].tolist() == [round(0.3 * 2**scale), 2**scale, 2**scale, -(2**scale)]
    top = evaluate(planned, np.array([[2**31 - 1]]))
    assert dequantize(planned, top)[0, 0] == 2.0  # an integer outside stands for the range's end
    with pytest.raises(ValueError, match="NaN"):
        quantize(planned, [math.nan])
    with pytest.raises(ValueError, match="integers of shape"):
        evaluate(planned, np.array([0.5]))


def test_a_jump_counts_in_the_bound_and_a_continuous_switch_does_not():
    jump = plan(one(piecewise([(X < 0.1, -3.0 * X)], Constant(2.0)), -1.0, 1.0))
    assert 2.3 <= jump.bound[0] < 2.31
    # 0.1 lies between two integers: just beside it the other branch is taken, and the error is the jump
    near = np.nextafter(0.1, 0.0)
    wrong = max(
        abs(dequantize(jump, evaluate(jump, quantize(jump, [x])))[0] - (-3.0 * x if x < 0.1 else 2.0))
        for x in (near, 0.1)
    )
    assert 2.29 < wrong <= jump.bound[0]
    bent = plan(one(piecewise([(X < 0.1, 0.3 - 3.0 * X)], X - 0.1), -1.0, 1.0))
    assert bent.bound[0] < 1e-8
    # the jump is part of the error, not of the integers' range: a magnitude keeps the scale
    magnitude = plan(one(absolute(piecewise([(X < 0.1, -3.0 * X)], Constant(2.0))), -1.0, 1.0))
    assert magnitude.bound == jump.bound
    assert magnitude.output_scales == jump.output_scales
    far = plan(one(piecewise([(X < 5.0, X)], 100.0 * X), -1.0, 1.0))
    assert far.bound[0] < 1e-7


def test_a_sign_that_may_be_wrong_says_so():
    assert plan(one(sign(X), -1.0, 1.0)).bound[0] == 2.0
    assert plan(one(sign(X), 0.5, 1.0)).bound[0] == 0.0


def test_an_output_saturates_at_the_range_its_signal_states():
    form = SymbolicMap([Signal("x", "", -2.0, 2.0)], [(Signal("u", "N", -1.0, 1.0), 3.0 * X)])
    planned = plan(form, 16)
    assert planned.saturated == ("u",)
    x = np.linspace(-2.0, 2.0, 101)[:, None]
    assert np.all(
        np.abs(dequantize(planned, evaluate(planned, quantize(planned, x))) - np.clip(3 * x, -1, 1)) <= planned.bound
    )
    assert "saturated" in planned.scaling_table()[-1]
    assert plan(SymbolicMap([Signal("x", "", -0.3, 0.3)], [(Signal("u", "N", -1.0, 1.0), 3.0 * X)])).saturated == ()


def test_terms_that_cancel_cost_nothing():
    planned = plan(one((X + 1.0) * 3.0 - 3.0 * X, -1.0, 1.0))
    assert planned.bound[0] == 0.0
    assert len(planned.program.instructions) == 2


def test_logarithms_over_many_octaves_and_roots_down_to_zero():
    for bits, limit in ((16, 0.01), (32, 4e-6)):
        form = one(log(X), 0.01, 100.0) if bits == 32 else one(log(X), 0.1, 4.0)
        planned = plan(form, bits)
        assert excess(form, planned, inside(planned, np.random.default_rng(4), 60)) <= 1.0
        assert planned.bound[0] < limit
        root = one(sqrt(X), 0.0, 4.0)
        assert excess(root, plan(root, bits), np.geomspace(1e-12, 4.0, 60)[:, None]) <= 1.0


REFUSED = (
    (one(1.0 / X, -1.0, 1.0), r"1/x with x in \[-1, 1\] is not bounded.*stay away from 0"),
    (one(log(X), 0.0, 1.0), r"log\(x\) with x in \[0, 1\] is not bounded.*above 0"),
    (one(sqrt(X), -0.5, 1.0), r"sqrt\(x\).*not be negative"),
    (one(tan(X), 0.0, 2.0), r"tan\(x\).*poles"),
    (one(exp(X), 0.0, 2000.0), r"exp\(x\) with x in \[0, 2000\] is not bounded.*Narrow"),
    (one(X / 0.0, 0.0, 1.0), r"x/0 with x in \[0, 1\] divides by zero"),
    (one(1e200 * X * X, 0.0, 1.0), r"too large.*Narrow"),
    (SymbolicMap(["x"], {"y": X}), r"'x' needs a finite range.*Signal\('x', lower=-1.0"),
)


@pytest.mark.parametrize(("form", "message"), REFUSED)
def test_what_has_no_fixed_point_form_is_refused_with_the_remedy(form, message):
    with pytest.raises(ValueError, match=message):
        plan(form)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="16 or 32"):
        plan(cubic(), 24)
    with pytest.raises(ValueError, match="must be among"):
        plan(cubic(), ranges={"y": (0.0, 1.0)})
    with pytest.raises(ValueError, match="reserved in C"):
        fixed_function(plan(cubic()), "int")


def test_ranges_may_be_given_apart_from_the_map():
    form = SymbolicMap(["x"], {"y": X * X})
    assert plan(form, ranges={"x": (-1.0, 1.0)}).bound == plan(one(X * X, -1.0, 1.0)).bound


# ---- text


@pytest.mark.parametrize("bits", [16, 32])
def test_the_text_is_integer_arithmetic_and_shifts_unsigned_numbers_only(bits):
    text = fixed_function(planned_everything(bits), "everything")
    assert text == fixed_function(plan(everything(), bits), "everything")
    code = re.sub(r"/\*.*?\*/", "", text)
    assert not re.search(r"\b(float|double|long|malloc|goto)\b", code)
    assert max(map(len, text.splitlines())) <= 120 or "table" in text
    operands = re.findall(r"(\w+) >>=? ", code)
    unsigned = set(re.findall(r"uint\d+_t (\w+)", code))
    assert operands
    assert set(operands) <= unsigned


def test_a_network_keeps_its_weights_in_tables_and_runs_in_loops():
    rng = np.random.default_rng(5)
    hidden = dense(rng.normal(size=(16, 2)), rng.normal(size=16), "tanh", [X, V])
    hidden = dense(rng.normal(size=(16, 16)) / 4.0, np.zeros(16), "tanh", hidden)
    form = one(clip(dense([[0.2] * 16], [0.0], "identity", hidden)[0], -1.0, 1.0), -1.0, 1.0, v=(-1.0, 1.0))
    planned = plan(form)
    assert excess(form, planned, inside(planned, rng, 10)) <= 1.0
    assert planned.bound[0] < 1e-6
    text = fixed_function(planned, "net")
    assert text.count("for (") == 6
    assert "static const int32_t" in text


# ---- emulated


def test_a_cortex_m0_without_floating_point_returns_the_same_integers(tmp_path):
    pytest.importorskip("ziglang")
    pytest.importorskip("unicorn")
    pytest.importorskip("elftools")
    planned = plan(cubic())
    (tmp_path / "policy.c").write_text(fixed_function(planned, "policy"))
    q = quantize(planned, inside(planned, np.random.default_rng(6), 10))
    most = {"cortex-m0": 1100, "cortex-m3": 180, "cortex-m4f": 180}
    for name, limit in most.items():
        image = emulate.build_image(tmp_path / "policy.c", "policy", emulate.PROCESSORS[name])
        execution = emulate.execute(image, q, 1)
        assert np.array_equal(execution.outputs, evaluate(planned, q))
        assert execution.instructions.max() <= limit
