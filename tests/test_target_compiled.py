"""Generated Rust and Simulink S-functions, compiled, return what the map returns."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sindyrl.emit.rust import rust_function
from sindyrl.export.rounding import evaluate_rounded
from sindyrl.export.targets import target_files, write_target
from sindyrl.symbolic_map import SymbolicMap
from tests.strategies import points
from tests.target_cases import (
    X,
    artifact_from,
    compile_and_run,
    continuous_oscillator,
    discrete_oscillator,
    exact,
    run,
    varied,
    with_answers,
)

needs_rust = pytest.mark.skipif(shutil.which("rustc") is None, reason="Rust is not installed")


def outputs_of(form: SymbolicMap) -> dict[str, Any]:
    return dict(zip(form.output_names, form.nodes, strict=True))


# ---- Rust


def rust_test(folder: Path) -> int:
    """Build without the standard library, then run the crate's own tests; the exit code of the tests."""
    rustc = ["rustc", "--edition", "2021", "-O", "src/lib.rs"]
    run(*rustc, "--crate-type", "rlib", "--crate-name", "generated", "-o", "generated.rlib", cwd=folder)
    run(*rustc, "--test", "--crate-name", "generated", "-o", "tests", cwd=folder)
    return subprocess.run([folder / "tests"], cwd=folder, capture_output=True, check=False).returncode


@needs_rust
def test_rust_gives_the_bits_of_the_same_arithmetic_in_numpy(tmp_path):
    artifact = artifact_from(exact())
    same = with_answers(artifact, evaluate_rounded(exact(), artifact.inputs).value, 0.0)
    write_target(same, "rust", tmp_path)
    assert rust_test(tmp_path) == 0
    other = with_answers(artifact, np.nextafter(same.expected, np.float32(9.0)), 0.0)
    write_target(other, "rust", tmp_path)
    assert rust_test(tmp_path) != 0


@needs_rust
@pytest.mark.skipif(shutil.which("cargo") is None, reason="Cargo is not installed")
def test_cargo_runs_the_known_answers_of_every_kind_of_node(tmp_path):
    write_target(artifact_from(varied(), "float64"), "rust", tmp_path)
    assert "1 passed" in run("cargo", "test", "--offline", "--quiet", cwd=tmp_path, CARGO_TARGET_DIR="target")


def test_rust_takes_what_core_lacks_from_outside():
    code, needed = rust_function(["x", "v", "sin"], outputs_of(varied()), "varied")
    assert needed == ("sin", "cos", "tanh", "sqrt")
    assert "pub fn varied<F: Functions>(state: &[f32; 3]) -> [f32; 6]" in code
    plain, none = rust_function(["x", "v"], outputs_of(exact()), "exact_map")
    assert none == ()
    assert "Functions" not in plain
    lib = target_files(artifact_from(varied()), "rust")["src/lib.rs"]
    assert "#![cfg_attr(not(test), no_std)]" in lib


def test_rust_refuses_a_number_beyond_float32():
    with pytest.raises(ValueError, match="beyond the range of float32"):
        rust_function(["x"], {"y": 1e300 * X}, "large")
    assert "1e+300" in rust_function(["x"], {"y": 1e300 * X}, "large", number="float64")[0]


# ---- Simulink

SIMSTRUC = """#include <stdio.h>
typedef double real_T;
typedef int int_T;
typedef const real_T *const *InputRealPtrsType;
typedef struct { int_T params, cont, disc, inputs, outputs, in, out, feed, times; real_T period, offset;
  real_T x[9], dx[9], u[9], y[9]; const real_T *pointers[9]; unsigned options; } SimStruct;
#define SS_OPTION_EXCEPTION_FREE_CODE 1u
#define INHERITED_SAMPLE_TIME (-1.0)
#define CONTINUOUS_SAMPLE_TIME (0.0)
#define UNUSED_ARG(x) (void)(x)
#define ssSetNumSFcnParams(S, n) ((S)->params = (n))
#define ssGetNumSFcnParams(S) ((S)->params)
#define ssGetSFcnParamsCount(S) (0)
#define ssSetNumContStates(S, n) ((S)->cont = (n))
#define ssSetNumDiscStates(S, n) ((S)->disc = (n))
#define ssSetNumInputPorts(S, n) ((S)->inputs = (n), 1)
#define ssSetNumOutputPorts(S, n) ((S)->outputs = (n), 1)
#define ssSetInputPortWidth(S, p, n) ((S)->in = (n))
#define ssSetOutputPortWidth(S, p, n) ((S)->out = (n))
#define ssSetInputPortDirectFeedThrough(S, p, n) ((S)->feed = (n))
#define ssSetNumSampleTimes(S, n) ((S)->times = (n))
#define ssSetOptions(S, n) ((S)->options = (n))
#define ssSetSampleTime(S, i, t) ((S)->period = (t))
#define ssSetOffsetTime(S, i, t) ((S)->offset = (t))
#define ssGetInputPortRealSignalPtrs(S, p) ((S)->pointers)
#define ssGetOutputPortRealSignal(S, p) ((S)->y)
#define ssGetRealDiscStates(S) ((S)->x)
#define ssGetContStates(S) ((S)->x)
#define ssGetdX(S) ((S)->dx)
"""
# Included last, where Simulink Coder includes its own: a simulation of as many steps as there are lines of inputs.
CG_SFUN = """
int main(void) {
    static SimStruct s;
    for (int i = 0; i < 9; i++) s.pointers[i] = &s.u[i];
    mdlInitializeSizes(&s);
    mdlInitializeSampleTimes(&s);
#ifdef MDL_INITIALIZE_CONDITIONS
    mdlInitializeConditions(&s);
#endif
    printf("%d %d %d %d %.17g\\n", s.cont, s.disc, s.in, s.out, s.period);
    for (;;) {
        for (int i = 0; i < s.in; i++) if (scanf("%lf", &s.u[i]) != 1) return mdlTerminate(&s), 0;
        mdlOutputs(&s, 0);
        for (int i = 0; i < s.out; i++) printf("%.17g ", s.y[i]);
#ifdef MDL_UPDATE
        mdlUpdate(&s, 0);
#endif
#ifdef MDL_DERIVATIVES
        mdlDerivatives(&s);
        for (int i = 0; i < s.cont; i++) printf("%.17g ", s.dx[i]), s.x[i] += 0.5 * s.dx[i];
#endif
        printf("\\n");
    }
}
"""


def simulated(artifact: Any, inputs: np.ndarray, folder: Path) -> tuple[list[float], np.ndarray]:
    """Sizes and sample time, and a row of outputs (and derivatives) for each row of inputs."""
    write_target(artifact, "simulink", folder)
    (folder / "simstruc.h").write_text(SIMSTRUC)
    (folder / "cg_sfun.h").write_text(CG_SFUN)
    sources = [f"sfun_{artifact.name}.c", f"{artifact.name}.c"]
    np.savetxt(folder / "inputs", inputs, fmt="%.17g")
    flags = ("-std=c99", "-ffp-contract=off", "-I.")
    lines = compile_and_run(folder, sources, *flags, stdin=folder / "inputs").splitlines()
    sizes = [float(word) for word in lines[0].split()]
    return sizes, np.array([[float(word) for word in line.split()] for line in lines[1:]])


def test_the_s_function_returns_the_map(tmp_path):
    artifact = artifact_from(exact(), "float64")
    inputs = points(2, 50, n_inputs=2, extreme=False)
    sizes, found = simulated(artifact, inputs, tmp_path)
    assert sizes == [0, 0, 2, 2, -1.0]
    np.testing.assert_array_equal(found, exact()(inputs))


def test_the_s_function_of_a_stateful_map_keeps_discrete_states(tmp_path):
    artifact = discrete_oscillator()
    force = np.sin(np.arange(100.0))[:, None]
    sizes, found = simulated(artifact, force, tmp_path)
    assert sizes == [0, 2, 1, 1, 0.01]
    state, expected = np.array([1.0, 0.0]), []
    for u in force:
        result = artifact.form(np.concatenate([state, u]))
        expected.append(result[2])
        state = result[:2]
    np.testing.assert_array_equal(found[:, 0], expected)


def test_a_stateful_block_without_a_period_takes_that_of_its_input(tmp_path):
    artifact = dataclasses.replace(discrete_oscillator(), dt=None)
    sizes, found = simulated(artifact, np.zeros((2, 1)), tmp_path)
    assert sizes == [0, 2, 1, 1, -1.0]
    second = artifact.form([*artifact.form([1.0, 0.0, 0.0])[:2], 0.0])
    np.testing.assert_array_equal(found[:, 0], [artifact.form([1.0, 0.0, 0.0])[2], second[2]])


def test_the_s_function_of_derivatives_has_continuous_states(tmp_path):
    artifact = continuous_oscillator()
    sizes, found = simulated(artifact, np.array([[0.5], [0.25]]), tmp_path)
    assert sizes == [2, 0, 1, 1, 0.0]
    first = artifact.form([1.0, 0.0, 0.5])
    second = artifact.form([*(np.array([1.0, 0.0]) + 0.5 * first[:2]), 0.25])
    np.testing.assert_array_equal(found, [[first[2], *first[:2]], [second[2], *second[:2]]])


def test_without_outputs_of_its_own_a_stateful_block_shows_its_states(tmp_path):
    artifact = discrete_oscillator()
    form = artifact.form.select(["x_next", "v_next"])
    bare = artifact_from(form, "float64", dt=0.01, states=("x", "v"), initial=(1.0, 0.0))
    sizes, found = simulated(bare, np.zeros((2, 1)), tmp_path)
    assert sizes == [0, 2, 1, 2, 0.01]
    np.testing.assert_array_equal(found, [[1.0, 0.0], artifact.form([1.0, 0.0, 0.0])[:2]])
