"""`sindyrl export`: a saved map, model or sparse map in, files and a short table out."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from sindyrl import cli
from sindyrl.export import emulate
from sindyrl.expression import Variable, clip, sin
from sindyrl.identify import identify
from sindyrl.library import polynomial_library
from sindyrl.structure import Derivative
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.trajectory import Trajectory

X, V = Variable("x"), Variable("v")
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler"
)


@pytest.fixture
def law(tmp_path):
    inputs = [Signal("x", "m", -2.0, 2.0), Signal("v", "m/s", -3.0, 3.0)]
    form = SymbolicMap(inputs, {Signal("u", "N", -1.0, 1.0): clip(-2.0 * X - 0.5 * X * V * V, -1.0, 1.0)}, name="law")
    form.save(tmp_path / "law.json")
    return tmp_path / "law.json"


def run(*arguments: object) -> int:
    return cli.main(["export", *map(str, arguments)])


@needs_compiler
def test_a_map_becomes_c_and_the_table_says_what_was_found(law, tmp_path, capsys):
    assert run(law, "--out", tmp_path / "firmware", "--fallback", "u=0.5", "--period", "0.02", "--report") == 0
    printed = capsys.readouterr().out
    assert "worst error" in printed
    assert "every bit as computed by NumPy" in printed
    if emulate.has_emulator():
        assert "cortex-m4f" in printed
    header = (tmp_path / "firmware" / "law.h").read_text()
    assert "int law_checked(const float state[2], float out[1]);" in header
    assert "fallback: 0.5f" in header
    assert "every 0.02 s" in header
    record = json.loads((tmp_path / "firmware" / "law_export.json").read_text())
    assert record["matches"] is True
    assert record["math"] == "none"


@needs_compiler
@pytest.mark.parametrize(("number", "kind"), [("q31", "int32_t"), ("q15", "int16_t")])
def test_fixed_point_with_its_scaling_table_as_json(law, tmp_path, capsys, number, kind):
    assert run(law, "--out", tmp_path / "f", "--number", number, "--prefix", "fixed_law", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["bitwise"] is True
    assert 0.0 < record["max_error"] <= record["error_bound"]
    header = (tmp_path / "f" / "fixed_law.h").read_text()
    assert "x * 2^" in header
    assert f"void fixed_law(const {kind} state[2], {kind} out[1]);" in header


@needs_compiler
def test_the_c_of_fixed_point_has_the_promised_error(law, tmp_path):
    """Through the compiler by hand: integers of a point, divided by the scale of the header, are the map's value."""
    assert run(law, "--out", tmp_path / "f", "--number", "q31", "--json") == 0
    header = (tmp_path / "f" / "law.h").read_text()
    scale = {row.split()[1]: int(row.split("2^")[1].split()[0]) for row in header.splitlines() if " * 2^" in row}
    point = np.array([0.3, -0.7])
    q = [round(value * 2.0 ** scale[name]) for name, value in zip("xv", point, strict=True)]
    main = (
        '#include "law.h"\n#include <stdio.h>\nint main(void) {\n'
        f"    const int32_t s[2] = {{{q[0]}, {q[1]}}};\n    int32_t u[1];\n    law(s, u);\n"
        '    printf("%d\\n", (int)u[0]);\n    return 0;\n}\n'
    )
    (tmp_path / "f" / "main.c").write_text(main)
    subprocess.run(["cc", "-std=c99", "main.c", "law.c", "-o", "main"], cwd=tmp_path / "f", check=True)
    found = int(subprocess.run([str(tmp_path / "f" / "main")], capture_output=True, text=True, check=True).stdout)
    assert found / 2.0 ** scale["u"] == pytest.approx(-2.0 * 0.3 - 0.5 * 0.3 * 0.49, abs=1e-7)


@needs_compiler
def test_a_package_for_a_tool(law, tmp_path):
    assert run(law, "--out", tmp_path / "library", "--target", "arduino", "--json") == 0
    assert (tmp_path / "library" / "library.properties").exists()


@needs_compiler
def test_of_a_model_the_step_is_exported(tmp_path, capsys):
    t = np.arange(60) * 0.05
    data = Trajectory(t, np.exp(-0.5 * t)[:, None], states=["x"])
    fit = identify(data, polynomial_library(degree=1), structure=Derivative())
    fit.model.save(tmp_path / "model.json")
    assert run(tmp_path / "model.json", "--out", tmp_path / "f", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "step"
    assert "x_next" in (tmp_path / "f" / "step.h").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fallback", "u"], "output=value"),
        (["--fallback", "w=1"], "each output"),
        (["--target", "toaster"], "arduino"),
        (["--processors", "z80"], "cortex-m0"),
        (["--max-error", "1e-12"], "max_error"),
    ],
)
def test_what_a_user_can_mend_is_one_line(law, tmp_path, capsys, options, said):
    assert run(law, "--out", tmp_path / "f", *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "f").exists()


def test_other_files_are_refused(tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"format": "cake", "schema": 1}')
    assert run(tmp_path / "other.json") == 2
    assert "cake" in capsys.readouterr().err


def test_an_input_without_a_range_is_named_for_fixed_point(tmp_path, capsys):
    SymbolicMap([Signal("x", "m", -1.0, 1.0), "v"], {"u": X + sin(V)}, name="open").save(tmp_path / "open.json")
    assert run(tmp_path / "open.json", "--number", "q31", "--out", tmp_path / "f") == 2
    assert "v" in capsys.readouterr().err
