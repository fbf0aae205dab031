"""Exported C: equal to its map, the same bytes every time, and what its header and its report say is so."""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sindyrl.export import ExportReport, check, emulate, source, to_c, toolchain
from sindyrl.expression import Constant, Variable, clip, cos, dense, sin, sqrt, tanh
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.export_cases import STATES, C, S, V, W, X, needs_emulator, policy, squares, texts
from tests.strategies import maps


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, dict[str, str]]:
    folder = tmp_path_factory.mktemp("firmware")
    report = to_c(policy(), folder)
    return report, texts(folder)


@needs_emulator
def test_a_ten_term_cubic_policy_costs_what_hand_written_c_costs(exported):
    report, _ = exported
    assert report.verified == "emulated"
    assert report.matches
    assert report.bitwise is True
    assert report.m4_instructions <= 60
    assert report.c_bytes <= 300
    assert report.library_bytes == 0
    assert report.stack_bytes <= 8
    assert report.max_error <= report.error_bound < 1e-4


def test_the_package_is_a_header_a_source_and_a_self_test(exported):
    report, files = exported
    assert sorted(files) == ["policy.c", "policy.h", "policy_selftest.c"]
    assert [path.name for path in report.files] == ["policy.h", "policy.c", "policy_selftest.c"]
    header = files["policy.h"]
    for said in (
        "void policy(const float state[5], float out[1]);",
        'extern "C"',
        "This generated code belongs to you, without conditions.",
        "4.76*sin + 12.4*v",
        "rad/s  -10 to 10",
        policy().digest(),
        "schema 1",
        "Verified: compiled by",
    ):
        assert said in header
    assert "#include <math.h>" not in files["policy.c"]
    assert "malloc" not in "".join(files.values())


def test_the_report_is_json(exported):
    report, _ = exported
    record = json.loads(json.dumps(report.to_dict()))
    assert record["matches"] is True
    assert record["files"][0].endswith("policy.h")


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps(outputs=30), st.sampled_from(["float32", "float64"]))
def test_random_maps_agree_after_compilation(tmp_path, form, number):
    report = to_c(form, tmp_path, number=number, verify="compile", undefined="allow", n_vectors=200)
    assert report.verified == "compiled"
    assert report.matches


def test_limits_that_are_one_number_in_float32_return_the_zero_of_the_right_sign(tmp_path):
    form = SymbolicMap(["x"], {"y": clip(X, -0.0, 2e-313)})  # min(max(x, -0), 0) is 0 below the limits, not -0
    assert to_c(form, tmp_path, verify="compile").bitwise is True


@needs_emulator
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps(exact=True, outputs=30))
def test_random_maps_return_the_same_bits_on_the_emulated_processor(tmp_path, form):
    assert to_c(form, tmp_path, verify="emulate", undefined="allow", n_vectors=100).bitwise is True


def test_float64_returns_the_bits_of_the_map(tmp_path):
    report = to_c(policy(), tmp_path, number="float64", verify="compile", regroup=False)
    assert report.max_error == 0.0
    assert report.bitwise is True
    assert "void policy(const double state[5], double out[1]);" in (tmp_path / "policy.h").read_text()


@needs_emulator
def test_maps_that_need_libm_are_executed_too(tmp_path):
    form = SymbolicMap(
        [Signal("a", "", -3.0, 3.0), Signal("b", "", 0.5, 2.0)],
        {"y": sin(Variable("a")) * tanh(Variable("b")) + sqrt(Variable("b")), "z": cos(Variable("a"))},
        name="waves",
    )
    report = to_c(form, tmp_path, math="libm")
    assert report.verified == "emulated"
    assert report.bitwise is None
    assert 0 < report.m4_library_instructions < report.m4_instructions
    assert report.max_error <= report.error_bound < 3e-6
    assert "#include <math.h>" in (tmp_path / "waves.c").read_text()


def test_networks_become_tables_and_loops(tmp_path):
    rng = np.random.default_rng(0)
    hidden = dense(rng.normal(size=(8, 5)), rng.normal(size=8), "relu", (X, V, C, S, W))
    (u,) = dense(rng.normal(size=(1, 8)), [0.1], "identity", hidden)
    report = to_c(SymbolicMap(STATES, {"u": u}, name="network"), tmp_path, verify="compile")
    assert report.bitwise is True
    assert "static const float" in (tmp_path / "network.c").read_text()


def test_equal_maps_give_equal_bytes_in_any_process(tmp_path):
    program = (
        "import sys; from tests.export_cases import policy; from sindyrl.export import to_c\n"
        "for verify in ('compile', 'none'): to_c(policy(), sys.argv[1] + verify, verify=verify)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", program, seed], check=True, env=environment, cwd=tmp_path)
    one, two, unverified, other = (texts(tmp_path / name) for name in ("1compile", "2compile", "1none", "2none"))
    assert one == two
    assert unverified == other
    assert one["policy.c"] == unverified["policy.c"]


def test_two_generators_choose_two_self_tests_and_the_same_code(tmp_path):
    for seed in (1, 2):
        to_c(policy(), tmp_path / str(seed), verify="none", rng=np.random.default_rng(seed))
    one, two = texts(tmp_path / "1"), texts(tmp_path / "2")
    assert one["policy.c"] == two["policy.c"]
    assert one["policy_selftest.c"] != two["policy_selftest.c"]


def self_test_exit_code(folder: Path, flags: tuple[str, ...] = ()) -> int:
    command = [*toolchain.host_compiler().command, "-std=c99", "-O2", *flags, "-DPOLICY_SELFTEST_MAIN"]
    subprocess.run([*command, "policy.c", "policy_selftest.c", "-o", "check", "-lm"], cwd=folder, check=True)
    return subprocess.run([str(folder / "check")], check=False).returncode


def test_self_test_passes_with_fused_arithmetic_and_notices_a_changed_digit(tmp_path):
    to_c(policy(), tmp_path, verify="compile")
    assert self_test_exit_code(tmp_path, ("-ffp-contract=fast",)) == 0
    code = (tmp_path / "policy.c").read_text()
    (tmp_path / "policy.c").write_text(code.replace("12.4f", "12.401f"))
    assert self_test_exit_code(tmp_path) == 1


def test_self_test_shows_more_than_saturation():
    form = policy()
    vectors = check.make_vectors(form, "float32", 1000, np.random.default_rng(0))
    chosen = source.make_package(form, "policy", "float32", vectors, 16)
    assert len(np.unique(chosen.expected)) >= 12


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_header_serves_cpp(tmp_path):
    to_c(policy(), tmp_path, verify="none")
    user = '#include "policy.h"\nint main() { float s[5] = {}, u[1]; policy(s, u); return 0; }\n'
    (tmp_path / "user.cpp").write_text(user)
    subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", "-c", "user.cpp", "-o", "user.o"], cwd=tmp_path, check=True)
    subprocess.run([*toolchain.host_compiler().command, "-c", "policy.c", "-o", "policy.o"], cwd=tmp_path, check=True)
    subprocess.run(["c++", "user.o", "policy.o", "-o", "user"], cwd=tmp_path, check=True)


def test_a_map_without_name_of_its_own_becomes_closed_form(tmp_path):
    report = to_c(SymbolicMap(["x"], {"y": 2.0 * X}), tmp_path, verify="none")
    assert report.name == "closed_form"


def test_units_cannot_leave_their_comment(tmp_path):
    form = SymbolicMap([Signal("x", "*/ int evil; /* ??/")], {Signal("y", "°/s \\"): 2.0 * X}, name="policy")
    report = to_c(form, tmp_path, verify="compile")
    assert report.matches
    header = (tmp_path / "policy.h").read_text(encoding="utf-8")
    assert header.count("*/") == 2


def test_vectors_stay_inside_the_ranges_and_reach_their_ends():
    signals = [Signal("a", "", 0.1, 0.3), Signal("b", "", -math.inf, -7.0), Signal("c", "", 1e6, math.inf), Signal("d")]
    form = SymbolicMap(signals, {"y": Variable("a")})
    inputs = check.make_vectors(form, "float32", 500, np.random.default_rng(0)).inputs.astype(float)
    for column, signal in zip(inputs.T, signals, strict=True):
        assert signal.lower <= column.min() < column.max() <= signal.upper
    assert inputs[:, 0].min() - 0.1 < 1e-8
    assert 0.3 - inputs[:, 0].max() < 1e-7
    assert inputs[:, 3].min() < -5 < 5 < inputs[:, 3].max()


def test_a_range_between_two_neighboring_floats_still_exports(tmp_path):
    form = SymbolicMap([Signal("x", "", 1.0, 1.0 + 1e-12)], {"y": 2.0 * X}, name="narrow")
    assert to_c(form, tmp_path, verify="compile").matches


@pytest.mark.parametrize("outside", ["fallback", "compute"])
@pytest.mark.parametrize("number", ["float32", "float64"])
def test_the_checked_function_reports_bad_inputs_and_returns_the_fallback(tmp_path, number, outside):
    """`to_c` compares it with its twin in NumPy; here the C is asked directly about the three cases."""
    fallback = {"a": -3.0, "b": 0.25}
    to_c(squares(), tmp_path, number=number, verify="compile", fallback=fallback, outside=outside)
    library = toolchain.build_library(toolchain.host_compiler(), tmp_path / "squares.c")
    kind = np.dtype(number)
    out = np.empty(2, kind)

    def ask(x: float, v: float) -> tuple[int, list[float]]:
        state = np.array([x, v], kind)
        status = library.squares_checked(ctypes.c_void_p(state.ctypes.data), ctypes.c_void_p(out.ctypes.data))
        return status, out.tolist()

    assert ask(2.0, 1e9)[0] == 0
    assert ask(1.0, 0.5) == (0, [0.0, 1.5])
    assert ask(2.5, 0.0) == (2, [-3.0, 0.25] if outside == "fallback" else [6.25, 1.0])
    for bad in (np.nan, np.inf, -np.inf):
        assert ask(0.0, bad) == (1, [-3.0, 0.25])
        assert ask(bad, 0.0) == (1, [-3.0, 0.25])
        assert ask(-1.5, bad) == (3, [-3.0, 0.25])


def test_a_batch_is_row_after_row(tmp_path):
    to_c(squares(), tmp_path, verify="compile", batch=True)
    library = toolchain.build_library(toolchain.host_compiler(), tmp_path / "squares.c")
    rows = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    out = np.empty_like(rows)
    library.squares_batch(ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int(500))
    np.testing.assert_allclose(out, squares()(rows.astype(float)), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="batch"):
        to_c(policy(), tmp_path, number="q31", batch=True)


def test_the_period_is_in_the_header(tmp_path):
    to_c(policy(), tmp_path, verify="none", period=0.01)
    assert "To be called every 0.01 s." in (tmp_path / "policy.h").read_text()


@needs_emulator
def test_every_processor_returns_the_same_bits_and_both_compilers_do(tmp_path):
    report = to_c(policy(), tmp_path, processors=tuple(emulate.PROCESSORS))
    assert report.bitwise is True
    assert report.compilers_agree is True
    assert [figures.processor for figures in report.processors] == list(emulate.PROCESSORS)
    soft, hard = report.processors[0], report.processors[-1]
    assert soft.instructions > 5 * hard.instructions
    assert soft.library_instructions > 0 == hard.library_instructions
    assert report.regrouped


def test_a_map_without_inputs_is_a_constant(tmp_path):
    report = to_c(SymbolicMap([], {"y": Constant(2.5)}, name="constant"), tmp_path, verify="compile")
    assert report.matches
