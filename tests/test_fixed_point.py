"""Fixed point: the replica is the C in every bit, and no output is ever further off than its proven bound."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sindyrl.export import emulate, toolchain
from sindyrl.export.fixed_point import FixedPlan, dequantize, evaluate, fixed_function, plan, quantize
from sindyrl.expression import Node, clip, dense, exp, maximum, sin, sqrt, tanh
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.fixed_cases import V, X, cubic, everything, excess, inside, one, planned_everything
from tests.strategies import NAMES, expressions

RANGES = ((-1.0, 1.0), (-2.4, 2.4), (0.1, 5.0), (0.0, 1.0), (-100.0, 30.0), (1e-3, 2e-3), (-math.pi, math.pi))


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


# ---- text


@pytest.mark.parametrize("bits", [16, 32])
def test_the_text_is_integer_arithmetic_and_shifts_unsigned_numbers_only(bits):
    text = fixed_function(planned_everything(bits), "everything")
    assert text == fixed_function(plan(everything(), bits), "everything")
    code = re.sub(r"/\*.*?\*/", "", text)
    assert not re.search(r"\b(float|double|long|malloc|goto)\b", code)
    assert max(map(len, text.splitlines())) <= 120
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
