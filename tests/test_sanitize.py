"""Exported C under UBSan and ASan: random and hostile inputs meet no undefined behavior and no access out of bounds.

`sanitized` compiles the package with a `main` that reads vectors from its standard input; the first violation ends it.
So does a conversion from float to int out of range (float-cast-overflow, which gcc leaves out of "undefined").
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from sindyrl.backends.c import CompilerNotFound
from sindyrl.emit import elementary
from sindyrl.export import delay, filtered_derivative, to_c
from sindyrl.export.check import make_vectors
from sindyrl.export.toolchain import host_compiler
from sindyrl.expression import Variable, clip, cos, dense, exp, log, piecewise, sign, sin, sqrt, tanh
from sindyrl.symbolic_map import Signal, SymbolicMap

FLAGS = ["-std=c99", "-O1", "-g", "-ffp-contract=off", "-fsanitize=undefined,address,float-cast-overflow"]
FLAGS += ["-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
X, V = Variable("x"), Variable("v")
STATES = (Signal("x", "m", -2.0, 2.0), Signal("v", "m/s", -5.0, 5.0))

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "law.h"
int main(void) {
    %(setup)s
    %(kind)s row[%(n)d];
    while (fread(row, sizeof row[0], %(n)d, stdin) == %(n)d) {
        /* exactly as large as the prototype says, so that one entry too many is seen */
        %(kind)s *in = malloc(sizeof row), *out = malloc(%(m)d * sizeof(%(kind)s));
        memcpy(in, row, sizeof row);
        %(call)s
        fwrite(out, sizeof out[0], %(m)d, stdout);
        free(in);
        free(out);
    }
    return law_selftest();
}
"""


def sanitizer() -> tuple[str, ...]:
    try:
        return host_compiler().command
    except CompilerNotFound:
        return ()


def works(folder: Path) -> bool:
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    command = [*sanitizer(), *FLAGS, str(source), "-o", str(folder / "empty")]
    built = bool(sanitizer()) and subprocess.run(command, capture_output=True, check=False).returncode == 0
    return built and subprocess.run([folder / "empty"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def _available(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not works(tmp_path_factory.mktemp("probe")):
        pytest.skip("the C compiler of this machine has no sanitizers")


def sanitized(
    folder: Path, rows: np.ndarray, n_outputs: int, call: str = "law(in, out);", setup: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Feed the rows (call, input) to the package in ``folder``; outputs come back on standard output."""
    kind = {"float32": "float", "float64": "double"}[str(rows.dtype)]
    text = MAIN % {"kind": kind, "n": rows.shape[1], "m": n_outputs, "call": call, "setup": setup}
    (folder / "main.c").write_text(text)
    sources = [folder / name for name in ("main.c", "law.c", "law_selftest.c")]
    subprocess.run([*sanitizer(), *FLAGS, *map(str, sources), "-o", str(folder / "main"), "-lm"], check=True)
    return subprocess.run([folder / "main"], input=rows.tobytes(), capture_output=True, check=False, timeout=60)


def hostile(n_inputs: int, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Every mixture of extremes and ordinary numbers, and numbers of all magnitudes."""
    limits = np.finfo(dtype)
    special = [np.nan, np.inf, -np.inf, limits.max, limits.min, limits.tiny, limits.smallest_subnormal, -0.0, 1.0]
    special += [1e4, -1e4, 9999.9995, 2.0**31, -(2.0**31), 2.0**32, 88.9, 89.0, -104.0, -103.99, 9.5, 0.625]
    signs, exponents = rng.choice([-1.0, 1.0], (2000, n_inputs)), rng.uniform(-46, 39, (2000, n_inputs))
    with np.errstate(over="ignore"):
        magnitudes = (signs * 10.0**exponents).astype(dtype)
    return np.concatenate([rng.choice(np.array(special, dtype), (2000, n_inputs)), magnitudes])


def passed(result: subprocess.CompletedProcess[bytes], calls: int, n_outputs: int, dtype: str) -> np.ndarray:
    said = result.stderr.decode()
    assert result.returncode == 0, said
    assert "runtime error" not in said
    return np.frombuffer(result.stdout, dtype).reshape(calls, n_outputs)


def functions() -> SymbolicMap:
    """Own functions of whatever comes in."""
    return SymbolicMap(
        ["x", "v"], {"s": sin(X), "c": cos(V), "t": tanh(X * V), "e": exp(X), "l": log(V), "m": sin(exp(V))}, name="law"
    )


def constructions() -> SymbolicMap:
    rng = np.random.default_rng(0)
    hidden = dense(rng.normal(size=(5, 2)), rng.normal(size=5), "tanh", [X + 1.0, V * X])
    hidden = dense(rng.normal(size=(3, 5)), rng.normal(size=3), "relu", hidden)
    outputs = {
        "net": hidden[1],
        "p": piecewise([(X < -1.0, -V), (X > 1.0, V * V)], X * V) * sign(X),
        "q": sqrt(abs(X)) / (1.0 + V**4),
        "u": clip(4.0 * X - 0.3 * V**3, -1.0, 1.0),
    }
    return SymbolicMap(STATES, outputs, name="law")


@pytest.mark.parametrize("form", [functions(), constructions()], ids=["functions", "constructions"])
@pytest.mark.parametrize("number", ["float32", "float64"])
def test_no_input_meets_undefined_behavior(tmp_path, form, number):
    to_c(form, tmp_path, number=number, name="law", verify="none", undefined="allow")
    rng = np.random.default_rng(1)
    regular = make_vectors(form, number, 200, rng).inputs
    rows = np.concatenate([regular, hostile(len(form.inputs), number, rng)])
    m = len(form.outputs)
    found = passed(sanitized(tmp_path, rows, m), len(rows), m, number)
    if form.output_names[0] == "s" and number == "float32":
        own = elementary.ELEMENTARY["sin"].evaluate(rows[:, 0])
        assert np.array_equal(found[:, 0], own, equal_nan=True)  # the vectors got there


@pytest.mark.parametrize("outside", ["fallback", "compute"])
def test_the_checked_function_keeps_its_promise(tmp_path, outside):
    form = constructions()
    to_c(form, tmp_path, name="law", verify="none", fallback=dict.fromkeys(form.output_names, 7.0), outside=outside)
    rows = hostile(2, "float32", np.random.default_rng(2))
    computed = "status == 0" if outside == "fallback" else "status == 0 || status == 2"
    call = (
        "float plain[4]; law(in, plain); int status = law_checked(in, out); "
        f"if (({computed}) ? memcmp(out, plain, sizeof plain) != 0 : out[0] != 7.0f) {{ return 9; }}"
    )
    found = passed(sanitized(tmp_path, rows, 4, call), len(rows), 4, "float32")
    assert np.isfinite(found[:, 3]).all()


MEMORIES = {"filter": filtered_derivative(STATES[0], 0.01, 10.0), "delay": delay(STATES[0], 3)}


@pytest.mark.parametrize("kind", MEMORIES)
def test_memory_stays_in_its_struct(tmp_path, kind):
    to_c(MEMORIES[kind], tmp_path, name="law", verify="none")
    rows = hostile(1, "float32", np.random.default_rng(3))
    setup = "static law_state_t memory; law_reset(&memory);"
    found = passed(sanitized(tmp_path, rows, 1, "law_step(&memory, in, out);", setup), len(rows), 1, "float32")
    if kind == "delay":
        assert np.array_equal(found[3:], rows[:-3], equal_nan=True)


def test_the_harness_sees_a_conversion_out_of_range(tmp_path):
    """What the limits in the own functions are for: without them, sin(1e20) converts 6e19 to an int32_t."""
    to_c(SymbolicMap(["x"], {"s": sin(X)}, name="law"), tmp_path, name="law", verify="none")
    text = (tmp_path / "law.c").read_text()
    (tmp_path / "law.c").write_text(text.replace("(x > -10000.0f) && (x < 10000.0f)", "(x > -1e30f) && (x < 1e30f)"))
    assert (tmp_path / "law.c").read_text() != text
    result = sanitized(tmp_path, np.array([[1e20]], np.float32), 1)
    assert result.returncode != 0
    assert b"outside the range" in result.stderr


def test_the_harness_sees_an_array_overrun(tmp_path):
    to_c(SymbolicMap(["x"], {"s": 2.0 * X}, name="law"), tmp_path, name="law", verify="none")
    text = (tmp_path / "law.c").read_text()
    (tmp_path / "law.c").write_text(text.replace("out[0] =", "out[1] ="))
    assert (tmp_path / "law.c").read_text() != text
    result = sanitized(tmp_path, np.ones((1, 1), np.float32), 1)
    assert result.returncode != 0
    assert b"buffer-overflow" in result.stderr or b"insufficient space" in result.stderr
