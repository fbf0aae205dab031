"""Functions that generated code brings along: the bits of their NumPy twins, and the stated errors."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from sindyrl.emit.elementary import ELEMENTARY
from sindyrl.export import emulate, to_c, toolchain
from sindyrl.expression import Variable, cos, dense, exp, log, sin, sqrt, tanh
from sindyrl.symbolic_map import Signal, SymbolicMap

ANGLE = 10000.0
DOMAIN = {"sin": (-ANGLE, ANGLE), "cos": (-ANGLE, ANGLE), "log": (0.0, np.inf), "sqrt": (0.0, np.inf)}
TRUE = {"sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "exp": np.exp, "log": np.log}
SPECIAL = np.array(
    [
        *(0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 1.0, -1.0),
        *(0.625, 9.5, -9.5, 88.7, 88.73, 89.0, -87.3, -103.9, -104.0, 0.70710677, 1.4142135),
        *(9999.999, -9999.999, 10000.0, 10001.0),
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Every function over an array, compiled with warnings as errors."""
    source = tmp_path_factory.mktemp("elementary") / "functions.c"
    text = ["#include <stdint.h>", *(entry.c_text(f"own_{op}") for op, entry in ELEMENTARY.items())]
    for op in ELEMENTARY:
        text += [
            f"void all_{op}(const float *x, float *y, int n);",
            f"void all_{op}(const float *x, float *y, int n) {{",
        ]
        text += ["    for (int i = 0; i < n; i++) {", f"        y[i] = own_{op}(x[i]);", "    }", "}"]
    source.write_text("\n".join([*text, ""]))
    return toolchain.build_library(toolchain.host_compiler(), source)


def in_c(library, op: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    getattr(library, f"all_{op}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_int(len(x)))
    return y


def floats(seed: int, count: int) -> np.ndarray:
    """Every pattern of bits is as likely as another, and as many again of ordinary size."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    return np.concatenate(
        [SPECIAL, bits, (rng.normal(size=count) * 10.0 ** rng.uniform(-3, 3, count)).astype(np.float32)]
    )


@pytest.mark.parametrize("op", ELEMENTARY)
def test_the_twin_in_numpy_returns_the_bits_of_the_c(library, op):
    x = floats(1, 400_000)
    found, expected = in_c(library, op, x), ELEMENTARY[op].evaluate(x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    number = ~np.isnan(found)
    np.testing.assert_array_equal(found[number].view(np.uint32), expected[number].view(np.uint32))


@pytest.mark.parametrize("op", ELEMENTARY)
def test_the_stated_error_holds_and_is_no_more_than_twice_what_is_found(op):
    entry = ELEMENTARY[op]
    low, high = DOMAIN.get(op, (-np.inf, np.inf))
    x = floats(2, 400_000)
    x = x[(x > low) & (x < high)]
    with np.errstate(over="ignore"):
        truth = TRUE[op](x.astype(np.float64))
        nearest = truth.astype(np.float32)
    value = entry.evaluate(x)
    finite = np.isfinite(nearest)
    np.testing.assert_array_equal(value[~finite], nearest[~finite])
    error = np.abs(value[finite].astype(np.float64) - truth[finite])
    worst = np.max((error - entry.floor) / np.spacing(np.abs(nearest[finite])))
    assert entry.max_ulp / 2 < worst <= entry.max_ulp * (1 + 1e-9)


@pytest.mark.parametrize(
    ("op", "x", "y"),
    [
        ("exp", np.inf, np.inf),
        ("exp", -np.inf, 0.0),
        ("exp", 0.0, 1.0),
        ("log", 0.0, -np.inf),
        ("log", 1.0, 0.0),
        ("log", np.inf, np.inf),
        ("log", -1.0, np.nan),
        ("tanh", np.inf, 1.0),
        ("tanh", -np.inf, -1.0),
        ("sqrt", 0.0, 0.0),
        ("sqrt", 2.25, 1.5),
        ("sqrt", np.inf, np.inf),
        ("sqrt", -1.0, np.nan),
        ("sin", np.inf, np.nan),
        ("sin", 0.0, 0.0),
        ("cos", 0.0, 1.0),
        ("cos", 2e4, np.nan),
        *((op, np.nan, np.nan) for op in ELEMENTARY),
    ],
)
def test_values_at_the_ends(op, x, y):
    np.testing.assert_array_equal(ELEMENTARY[op].evaluate(np.array([x], np.float32)), np.array([y], np.float32))


def test_an_exported_map_brings_its_functions_along(tmp_path):
    x, v = Variable("x"), Variable("v")
    outputs = {
        "a": sin(x) * exp(-v) + cos(x),
        "b": log(v) + tanh(x),
        "c": dense([[1.0, 2.0]], [0.5], "tanh", [x, v])[0],
    }
    form = SymbolicMap([Signal("x", "rad", -6.0, 6.0), Signal("v", "", 0.5, 3.0)], outputs, name="functions")
    report = to_c(form, tmp_path, verify="compile")
    assert report.math == "own"
    assert report.bitwise is True
    assert report.max_error <= report.error_bound < 1e-5
    text = (tmp_path / "functions.c").read_text()
    assert "math.h" not in text
    assert "static float functions_sin(float x)" in text
    assert "sin is accurate to" in (tmp_path / "functions.h").read_text()


@pytest.mark.skipif(not emulate.has_emulator(), reason="no emulator")
def test_a_sine_of_our_own_takes_few_instructions(tmp_path):
    form = SymbolicMap([Signal("x", "rad", -3.0, 3.0)], {"y": sin(Variable("x"))}, name="wave")
    own, libm = (to_c(form, tmp_path / math, math=math, n_vectors=100) for math in ("own", "libm"))
    assert own.m4_instructions <= 60
    assert own.m4_library_instructions == own.library_bytes == 0
    assert libm.m4_instructions > own.m4_instructions


@pytest.mark.skipif(not emulate.has_emulator(), reason="no emulator")
def test_a_square_root_comes_along_where_it_is_no_instruction(tmp_path):
    form = SymbolicMap([Signal("x", "", 0.0, 9.0)], {"y": sqrt(Variable("x")) + 1.0}, name="root")
    soft = to_c(form, tmp_path / "soft", processors=("cortex-m0", "cortex-m3"), n_vectors=100)
    hard = to_c(form, tmp_path / "hard", n_vectors=100)
    assert soft.bitwise is hard.bitwise is True
    assert "root_sqrt" in (tmp_path / "soft" / "root.c").read_text()
    assert "sqrtf(x)" in (tmp_path / "hard" / "root.c").read_text()
    assert hard.m4_instructions < 20


@pytest.mark.slow
def test_the_stated_errors_hold_over_every_float32_there_is(tmp_path):
    """Against the double functions of this machine's libm. sin and tanh are odd and cos is even, in the code as well,
    so one sign will do; beyond the ends of each domain the functions are constant."""
    last = {"sin": ANGLE, "cos": ANGLE, "tanh": 9.5, "exp": 105.0, "log": 3.4028235e38, "sqrt": 3.4028235e38}
    lines = ["#include <math.h>", "#include <stdint.h>", "#include <stdio.h>", "#include <string.h>"]
    lines += [entry.c_text(f"own_{op}") for op, entry in ELEMENTARY.items()]
    lines += ["int main(void) {"]
    for op, entry in ELEMENTARY.items():
        end = int(np.float32(last[op]).view(np.uint32)) + (op in ("log", "sqrt"))
        signs = "x = -x" if op == "exp" else "break"
        lines.append(
            f"""    {{
        double worst = 0.0;
        for (uint32_t bits = 1; bits < {end}u; bits++) {{
            float x;
            memcpy(&x, &bits, 4);
            for (int sign = 0; sign < 2; sign++) {{
                const double truth = {op}((double)x);
                const float nearest = (float)truth, y = own_{op}(x);
                if (nearest != y) {{
                    if (!(fabsf(nearest) < HUGE_VALF) || !(y - y == 0.0f)) {{ worst = HUGE_VAL; }}
                    const float next = nextafterf(fabsf(nearest), HUGE_VALF);
                    const double ulp = (double)next - fabs((double)nearest);
                    const double error = fabs((double)y - truth) - {entry.floor!r};
                    if (error > worst*ulp) {{ worst = error/ulp; }}
                }}
                {signs};
            }}
        }}
        printf("{op} %.6f\\n", worst);
    }}"""
        )
    lines += ["    return 0;", "}", ""]
    (tmp_path / "all.c").write_text("\n".join(lines))
    toolchain.host_compiler().run([*toolchain.ARITHMETIC, "all.c", "-o", "all", "-lm"], tmp_path)
    printed = subprocess.run([str(tmp_path / "all")], capture_output=True, text=True, check=True).stdout
    found = {op: float(worst) for op, worst in (line.split() for line in printed.splitlines())}
    assert set(found) == set(ELEMENTARY)
    for op, worst in found.items():
        assert worst <= ELEMENTARY[op].max_ulp * (1 + 1e-9), (op, worst)
