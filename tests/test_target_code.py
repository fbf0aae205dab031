"""Generated JavaScript and NumPy source return what the map returns, bit for bit where IEEE 754 decides."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sindyrl.emit.javascript import javascript_function
from sindyrl.emit.python_source import numpy_function
from sindyrl.emit.rust import rust_function
from sindyrl.export.targets import write_target
from sindyrl.expression import (
    Constant,
    Power,
    Unary,
    Variable,
    absolute,
    clip,
    dense,
    maximum,
    minimum,
    piecewise,
    sign,
)
from sindyrl.symbolic_map import SymbolicMap
from tests.strategies import ALL_UNARY, bits, maps, points, seeds, ulps
from tests.target_cases import (
    X,
    artifact_from,
    exact,
    run,
    varied,
)

fast = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
inf, nan = np.inf, np.nan
NUMBERS_ALONE = {
    "a": Constant(1.0) / Constant(0.0),
    "b": -Constant(0.0),
    "c": piecewise([(Constant(0.1) + Constant(0.2) <= Constant(0.3), X)], Constant(1e308) * Constant(10.0)),
    "d": piecewise([(Constant(0.1) < Constant(0.1), X)], 0.0 * X),
    "e": Constant(2.0),
}


def outputs_of(form: SymbolicMap) -> dict[str, Any]:
    return dict(zip(form.output_names, form.nodes, strict=True))


# ---- NumPy source


def imported(source: str, folder: Path, name: str) -> Any:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(f"generated_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=maps(), seed=seeds)
def test_numpy_source_gives_the_bits_of_the_map(tmp_path, form, seed):
    function = imported(numpy_function(form.input_names, outputs_of(form), form.name), tmp_path, form.name)
    inputs = points(seed, 30)
    np.testing.assert_array_equal(bits(function(inputs)), bits(form(inputs)))
    np.testing.assert_array_equal(bits(function(inputs[0])), bits(form(inputs[0])))


def test_numpy_source_needs_no_library_of_ours(tmp_path):
    form = varied()
    write_target(artifact_from(form), "numpy", tmp_path)
    inputs = points(5, 40, n_inputs=3).reshape(2, 20, 3)
    np.save(tmp_path / "inputs.npy", inputs)
    code = (
        "import sys, numpy as np; sys.path.insert(0, '.'); from varied import varied, selftest; "
        "np.save('outputs.npy', varied(np.load('inputs.npy'))); print(selftest(), 'sindyrl' in sys.modules)"
    )
    assert run(sys.executable, "-I", "-W", "error", "-c", code, cwd=tmp_path).split() == ["0", "False"]
    found = np.load(tmp_path / "outputs.npy")
    assert found.shape == (2, 20, 6)
    np.testing.assert_array_equal(bits(found), bits(form(inputs)))


def test_the_self_test_of_numpy_source_notices_a_changed_digit(tmp_path):
    write_target(artifact_from(varied()), "numpy", tmp_path)
    assert subprocess.run([sys.executable, "varied.py"], cwd=tmp_path, check=False).returncode == 0
    code = (tmp_path / "varied.py").read_text()
    (tmp_path / "varied.py").write_text(code.replace("12.4*(v*v*v)", "12.4*(v*v)").replace("neg_x = -x", "neg_x = x"))
    assert subprocess.run([sys.executable, "varied.py"], cwd=tmp_path, check=False).returncode == 1


def test_numpy_source_refuses_arrays_of_another_shape(tmp_path):
    form = exact()
    function = imported(numpy_function(form.input_names, outputs_of(form), form.name), tmp_path, form.name)
    for wrong in (np.zeros(3), np.float64(1.0), np.zeros((2, 1))):
        with pytest.raises(ValueError, match=r"takes arrays of shape \(\.\.\., 2\)"):
            function(wrong)


def test_a_map_without_inputs_is_a_constant_everywhere(tmp_path):
    form = SymbolicMap([], {"y": Constant(2.0) / Constant(3.0)}, name="constant")
    function = imported(numpy_function([], outputs_of(form), "constant"), tmp_path, "constant")
    np.testing.assert_array_equal(function(np.zeros((4, 0))), form(np.zeros((4, 0))))
    assert "[2/3]" not in javascript_function([], outputs_of(form), "constant")
    assert "_state: &[f32; 0]" in rust_function([], outputs_of(form), "constant")[0]


# ---- JavaScript

HARNESS = """import { readFileSync, writeFileSync } from "node:fs";
const [name, width, inputs, outputs] = process.argv.slice(2);
const { [name]: call } = await import(`./${name}.mjs`);
const bytes = readFileSync(inputs);
const numbers = new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const results = [];
for (let start = 0; start < numbers.length; start += Number(width)) {
  results.push(...call(numbers.subarray(start, start + Number(width))));
}
writeFileSync(outputs, Buffer.from(new Float64Array(results).buffer));
"""


def in_node(form: SymbolicMap, inputs: np.ndarray, folder: Path) -> np.ndarray:
    (folder / f"{form.name}.mjs").write_text(javascript_function(form.input_names, outputs_of(form), form.name))
    (folder / "harness.mjs").write_text(HARNESS)
    (folder / "inputs").write_bytes(inputs.astype("<f8").tobytes())
    run("node", "harness.mjs", form.name, inputs.shape[1], "inputs", "outputs", cwd=folder)
    return np.frombuffer((folder / "outputs").read_bytes(), "<f8").reshape(len(inputs), len(form.outputs))


@needs_node
@fast
@given(form=maps(exact=True, outputs=20), seed=seeds)
def test_javascript_gives_the_bits_of_the_map_on_correctly_rounded_operations(tmp_path, form, seed):
    inputs = points(seed, 40)
    np.testing.assert_array_equal(bits(in_node(form, inputs, tmp_path)), bits(form(inputs)))


@needs_node
def test_the_elementary_functions_of_node_stay_within_two_ulp(tmp_path):
    form = SymbolicMap(["x"], {op: Unary(op, X) for op in ALL_UNARY}, name="functions")
    rng = np.random.default_rng(3)
    inputs = np.concatenate(
        [rng.normal(size=20_000) * 10.0 ** rng.integers(-6, 3, 20_000), [0.0, -0.0, 1.0, inf, -inf, nan]]
    )[:, None]
    assert ulps(in_node(form, inputs, tmp_path), form(inputs)).max() <= 2


@needs_node
def test_javascript_knows_every_kind_of_node(tmp_path):
    inputs = points(7, 200, n_inputs=3, extreme=False)
    found, expected = in_node(varied(), inputs, tmp_path), varied()(inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)


@needs_node
def test_numbers_alone_follow_ieee_in_javascript_and_numpy(tmp_path):
    form = SymbolicMap(["x"], NUMBERS_ALONE, name="alone")
    inputs = np.array([[1.5], [-2.0]])
    np.testing.assert_array_equal(bits(in_node(form, inputs, tmp_path)), bits(form(inputs)))
    function = imported(numpy_function(["x"], outputs_of(form), "alone"), tmp_path, "alone")
    np.testing.assert_array_equal(bits(function(inputs)), bits(form(inputs)))


@needs_node
def test_choices_take_the_same_side_as_the_map_for_zeros_infinities_and_nan(tmp_path):
    y = Variable("y")
    outputs = {
        "low": minimum(X, y),
        "high": maximum(X, y),
        "cut": clip(X, -0.0, 1.0),
        "sign": sign(X),
        "size": absolute(X),
        "piece": piecewise([(y > X, X), (X >= 0.0, y)], -X),
        "sum": dense([[-0.0, 1.0]], [-0.0], "identity", [X, y])[0],
        "relu": dense([[1.0, -1.0]], [0.0], "relu", [X, y])[0],
    }
    form = SymbolicMap(["x", "y"], outputs, name="choices")
    special = [0.0, -0.0, 1.0, -1.0, 0.5, inf, -inf, nan]
    inputs = np.array([(a, b) for a in special for b in special])
    np.testing.assert_array_equal(bits(in_node(form, inputs, tmp_path)), bits(form(inputs)))
    function = imported(numpy_function(["x", "y"], outputs_of(form), "choices"), tmp_path, "choices")
    np.testing.assert_array_equal(bits(function(inputs)), bits(form(inputs)))


@needs_node
def test_the_self_test_of_javascript_passes_and_notices_a_changed_digit(tmp_path):
    write_target(artifact_from(varied()), "javascript", tmp_path)
    assert subprocess.run(["node", "varied_selftest.mjs"], cwd=tmp_path, check=False).returncode == 0
    code = (tmp_path / "varied.mjs").read_text()
    (tmp_path / "varied.mjs").write_text(code.replace("neg_x = -x", "neg_x = x"))
    assert subprocess.run(["node", "varied_selftest.mjs"], cwd=tmp_path, check=False).returncode == 1


def test_names_of_a_language_and_of_its_helpers_are_left_alone():
    names = ["const", "clip", "np", "fn", "state", "Math", "policy"]
    total = Variable(names[0])
    for name in names[1:]:
        total = total + Variable(name)
    outputs = {"let": total * total, "return": Unary("sign", total)}
    javascript = javascript_function(names, outputs, "policy")
    python = numpy_function(names, outputs, "policy")
    rust, _ = rust_function(names, outputs, "policy")
    for code, taken in ((javascript, "const const ="), (python, "    np ="), (rust, "let fn =")):
        assert taken not in code
    compile(python, "policy.py", "exec")
    for code, keyword in ((javascript, "const let "), (rust, "let let:"), (rust, "let return:")):
        assert keyword not in code


def test_long_expressions_are_broken_and_deep_ones_are_split():
    deep, wide = X, X
    for _ in range(3000):
        deep = Unary("sin", deep)
    for index in range(600):
        wide = wide + float(index) * Power(X, 2 + index % 3)
    outputs = {"deep": deep, "wide": wide}
    codes = (
        javascript_function(["x"], outputs, "long"),
        numpy_function(["x"], outputs, "long"),
        rust_function(["x"], outputs, "long")[0],
    )
    for code in codes:
        assert max(map(len, code.splitlines())) <= 120
        assert max(line.count("(") for line in code.splitlines()) < 40
    compile(codes[1], "long.py", "exec")
