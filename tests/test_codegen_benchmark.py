"""The comparison of generated code: that it counts what it says, and that ours is not the longer one."""

import dataclasses
import json
import math

import numpy as np
import pytest

from benchmarks.speed import codegen, exact, maps, on_target
from benchmarks.speed.peer_code import Code
from sindyrl.export import emulate
from sindyrl.export.check import make_vectors
from sindyrl.expression import Variable, clip, sin
from sindyrl.symbolic_map import SymbolicMap

needs_emulator = pytest.mark.skipif(not emulate.has_emulator(), reason="no emulator")
NAMES = {
    "cubic_policy", "cartpole_policy", "cartpole_step", "tanh_network", "gain_schedule", "lorenz_rk4", "saturated_lqr",
    "energy_swingup", "f8_crusader", "battery",
}  # fmt: skip
X, Y = Variable("x"), Variable("y")
TINY = dataclasses.replace(codegen.QUICK, vectors=10, host_rows=64, host_milliseconds=0.2)
GENERATORS = (codegen.OURS, "casadi float32", "sympy float32", "sympy float64")


def test_there_are_ten_maps_with_ranges_and_units_and_no_undefined_value():
    forms = maps.load_maps()
    assert set(forms) == NAMES
    for name, form in forms.items():
        assert form.name == name
        assert not form.undefined()
        assert all(math.isfinite(signal.lower) and math.isfinite(signal.upper) for signal in form.inputs)
        assert all(signal.unit for signal in (*form.inputs, *form.outputs))


@pytest.mark.parametrize("make", maps.MAKERS, ids=lambda make: make.__name__)
def test_the_committed_maps_are_what_the_script_makes(make):
    assert make() == maps.load_maps([make.__name__])[make.__name__]


def test_a_map_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`maps` must be some of battery, .* Got quartic\."):
        maps.load_maps(["quartic"])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_fifty_digits_agree_with_float64(name):
    form = maps.load_maps([name])[name]
    rows = make_vectors(form, "float64", 20, np.random.default_rng(0)).inputs
    if name == "tanh_network":
        rows = rows[-5:]
    assert exact.distances(form(rows), exact.exact_values(form, rows)).max() < 1e-12


def test_the_bound_counts_the_roundings_on_a_path():
    u = 2.0**-24
    rows = np.array([[3.0, -2.0]])
    form = SymbolicMap(["x", "y"], {"z": clip(0.5 * X * Y - Y, -1.0, 1.0)})
    # 0.5 x y: a coefficient, two products, one difference
    assert exact.polynomial_bound(form, rows, u) == pytest.approx(4 * u / (1 - 4 * u) * (0.5 * 3 * 2 + 2))
    assert exact.polynomial_bound(SymbolicMap(["x"], {"z": sin(X)}), rows[:, :1], u) is None
    assert exact.polynomial_bound(SymbolicMap(["x", "y"], {"z": X / Y}), rows, u) is None


def test_the_bound_holds_for_float32_arithmetic_in_any_order():
    u = 2.0**-24
    rows = np.random.default_rng(0).uniform(-2.0, 2.0, (200, 2)).astype(np.float32)
    sums = (0.1 * X**3 - 0.7 * X * X * Y + 0.3 * Y, X * (X * (0.1 * X - 0.7 * Y)) + 0.3 * Y)
    a, b, c = np.float32(0.1), np.float32(0.7), np.float32(0.3)
    x, y = rows.T
    values = (a * ((x * x) * x) - ((b * x) * x) * y + c * y, x * (x * (a * x - b * y)) + c * y)
    for total, value in zip(sums, values, strict=True):
        form = SymbolicMap(["x", "y"], {"z": total})
        error = exact.distances(value[:, None], exact.exact_values(form, rows))
        bound = exact.polynomial_bound(form, rows, u)
        assert (error <= bound).all()
        assert error.max() > 0.05 * bound.max()


def copying(shim: str = "") -> Code:
    """out = in: a load, a store and a return; or the same with the value in a register, called by a shim."""
    body = "void peer(const float *in, float *out) { out[0] = in[0]; }"
    if shim:
        body = "float peer(float x) { return x; }"
    return Code({"peer.c": body}, "peer.c", "peer", "entry" if shim else "peer", "float32", shim)


@needs_emulator
def test_instructions_are_counted_from_entry_to_return_without_the_shim():
    rows = np.array([[1.5], [-2.0]], np.float32)
    counted = on_target.count(on_target.build(copying()), rows, 1)
    assert counted.outputs.tolist() == rows.tolist()
    assert counted.instructions.tolist() == [3, 3]
    assert (counted.shim, counted.library.tolist(), counted.library_bytes) == (0, [0, 0], 0)
    shim = "float peer(float x); void entry(const float *in, float *out) { *out = peer(*in); }"
    shimmed = on_target.count(on_target.build(copying(shim)), rows, 1)
    assert shimmed.outputs.tolist() == rows.tolist()
    assert shimmed.instructions.tolist() == [1, 1]  # the return alone
    assert shimmed.shim > 3
    assert shimmed.library.tolist() == [0, 0]


@needs_emulator
def test_library_functions_are_counted_apart_and_square_roots_are_instructions():
    body = "#include <math.h>\nvoid peer(const float *in, float *out) { out[0] = %s(in[0]); }"
    rows = np.array([[0.25]], np.float32)
    root, wave = (
        on_target.count(on_target.build(Code({"peer.c": body % name}, "peer.c", "peer", "peer", "float32")), rows, 1)
        for name in ("sqrtf", "sinf")
    )
    assert (root.outputs[0, 0], root.instructions[0], root.library[0]) == (0.5, 4, 0)
    assert wave.outputs[0, 0] == np.sin(np.float32(0.25))
    assert 0 < wave.library[0] < wave.instructions[0]
    assert wave.library_bytes > 0


def row(name: str, generator: str, instructions: int) -> dict:
    return {"map": name, "generator": generator, "instructions": instructions}


def test_a_peer_with_fewer_instructions_is_named():
    records = [row("a", codegen.OURS, 50), row("a", "casadi float32", 60), row("a", codegen.EXPERT, 49)]
    records += [row("b", codegen.OURS, 50), row("b", "casadi float32", 49), row("b", "sindyrl float64", 3)]
    records += [row("c", codegen.OURS, 50), row("c", "sympy float32", 50)]
    verdict = codegen.judge(records)
    assert verdict["misses"] == ["b"]
    assert verdict["more_than_the_expert"] == ["a"]
    assert not verdict["never_more_than_the_best_peer"]
    assert codegen.judge(records[:3])["never_more_than_the_best_peer"]


@needs_emulator
@pytest.mark.parametrize("name", ["cubic_policy", pytest.param("saturated_lqr", marks=pytest.mark.slow)])
def test_no_peer_needs_fewer_instructions_and_errors_stay_within_the_bound(name):
    pytest.importorskip("casadi")
    pytest.importorskip("sympy")
    records = codegen.measure(maps.load_maps([name])[name], TINY, GENERATORS)
    assert {record["generator"] for record in records if "instructions" in record} == set(GENERATORS)
    assert not codegen.judge(records)["misses"]
    ours = records[0]
    assert ours["generator"] == codegen.OURS
    assert ours["largest_share_of_bound"] <= 1.0
    assert ours["max_error"] <= ours["gamma_bound"]
    assert all(record["host_ns"] > 0.0 for record in records)
    assert all(record["max_error"] < 1e-4 for record in records)
    json.dumps(records, allow_nan=False)
    if name == "cubic_policy":
        assert ours["instructions"] <= 60
        assert ours["text_bytes"] <= 300


def test_a_table_of_some_maps_is_not_saved():
    with pytest.raises(ValueError, match="`--save` needs the full sizes and all maps"):
        codegen.run(codegen.Settings(save=True, maps=("battery",)))


def test_what_a_linker_objects_to_is_told_without_the_folders_of_the_run():
    refused = RuntimeError("zig cc /a/b/map.c\nld.lld: error: failed to open object /a/l-x1/powf.o: FileNotFound")
    assert codegen._reason(refused) == "not executed: failed to open object powf.o: FileNotFound"
    assert codegen._reason(RuntimeError("no room left in /a/b/c")) == "no room left in c"
