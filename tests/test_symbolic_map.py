"""A map is an immutable value: evaluation, calculus, composition, exact files, and a SymPy view."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import stat
from typing import Any, cast

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.expression import Constant, Node, Variable, clip, cos, dense, exp, piecewise, sin, sqrt
from sindyrl.map_file import MapFileError
from sindyrl.symbolic_map import SCHEMA, Signal, SymbolicMap
from tests.strategies import bits, maps, points, seeds

x, v, u = Variable("x"), Variable("v"), Variable("u")
fast = settings(max_examples=20, deadline=None)


def spring() -> SymbolicMap:
    signals = [Signal("x", "m", -1.0, 1.0), Signal("v", "m/s"), Signal("u", "N", -2, 2)]
    return SymbolicMap(
        signals, {Signal("dx", "m/s"): v, Signal("dv", "m/s^2"): -4.0 * x - 0.1 * v**3 + u}, name="spring"
    )


# ---- construction


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SymbolicMap(["x"], {"y": v}), ValueError, r"inputs \['x'\] only. Got also \['v'\]"),
        (lambda: SymbolicMap(["x", "x"], {"y": x}), ValueError, "distinct"),
        (lambda: SymbolicMap(["x"], [("y", x), ("y", x)]), ValueError, "distinct"),
        (lambda: SymbolicMap(["x"], {}), ValueError, "at least one output"),
        (lambda: SymbolicMap("x", {"y": x}), TypeError, "sequence of names"),
        (lambda: SymbolicMap(["x"], {"y": x < 1}), TypeError, "comparison"),
        (lambda: SymbolicMap(["x"], {"y": cast(Any, "x")}), TypeError, "real number"),
        (lambda: SymbolicMap(["x"], {"y z": x}), ValueError, "identifier"),
        (lambda: SymbolicMap(["x"], {"y": x}, name="../map"), ValueError, "identifier"),
        (lambda: Signal("x", lower=1, upper=1), ValueError, "lower < upper"),
        (lambda: Signal("x", lower=np.nan), ValueError, "lower < upper"),
        (lambda: Signal("x", lower=True), TypeError, "number"),
        (lambda: Signal("x", unit="m\n*/"), ValueError, "printable"),
        (lambda: spring().select("dx"), TypeError, "sequence"),
        (lambda: spring().select(["dz"]), ValueError, r"Got \['dz'\]"),
        (lambda: spring().rename(inputs={"dx": "y"}), ValueError, r"inputs=.*Got \['dx'\]"),
        (lambda: spring().rename(inputs={"x": "v"}), ValueError, "distinct"),
        (lambda: spring().jacobian(["w"]), ValueError, r"Got \['w'\]"),
        (lambda: spring().interval({"w": (0, 1)}), ValueError, r"Got \['w'\]"),
        (lambda: spring().linearize([0, 0], [0, 0]), ValueError, r"3 values.*\(2,\) and \(2,\)"),
        (lambda: spring()([1.0]), ValueError, r"`spring` takes arrays of shape \(\.\.\., 3\). Got \(1,\)"),
    ],
)
def test_wrong_use_is_refused_in_the_users_words(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_map_is_an_immutable_value():
    form = spring()
    with pytest.raises(AttributeError, match="immutable"):
        form.name = "other"
    with pytest.raises(AttributeError, match="immutable"):
        del form.nodes
    assert copy.deepcopy(form) is form
    assert form == spring()
    assert hash(form) == hash(spring())
    assert form.digest() == spring().digest()
    assert pickle.loads(pickle.dumps(form)) == form


@pytest.mark.parametrize(
    "other",
    [
        spring().rename(name="other"),
        spring().rename(outputs={"dx": "rate"}),
        spring().select(["dv", "dx"]),
        SymbolicMap(["x", "v", "u"], zip(spring().outputs, spring().nodes, strict=True), name="spring"),
        SymbolicMap(spring().inputs, {"dx": v, "dv": -4.0 * x - 0.1 * v**3 + u}, name="spring"),
    ],
)
def test_maps_that_differ_in_anything_are_different(other):
    assert other != spring()
    assert other.digest() != spring().digest()


def test_evaluation_keeps_leading_axes_and_lets_nan_through():
    form = spring()
    result = form(np.full((2, 5, 3), np.nan))
    assert result.shape == (2, 5, 2)
    assert np.isnan(result).all()
    np.testing.assert_array_equal(form([0.5, 1.0, 0.25]), [1.0, -4.0 * 0.5 - 0.1 * 1.0 + 0.25])


# ---- calculus


def test_linearization_is_the_slope_of_the_map():
    form = spring()
    a, b = form.linearize([0.3, -0.7], [0.2])
    np.testing.assert_allclose(a, [[0, 1], [-4, -0.3 * 0.7**2]], rtol=1e-15)
    np.testing.assert_array_equal(b, [[0], [1]])
    start, h = np.array([0.3, -0.7, 0.2]), 1e-6
    slopes = np.stack([(form(start + h * e) - form(start - h * e)) / (2 * h) for e in np.eye(3)], axis=1)
    np.testing.assert_allclose(np.hstack([a, b]), slopes, atol=1e-9)


def test_jacobian_outputs_are_named_after_both():
    names = ("ddx_dx", "ddx_dv", "ddx_du", "ddv_dx", "ddv_dv", "ddv_du")
    assert spring().jacobian().output_names == names
    assert spring().jacobian(["u"]).output_names == ("ddx_du", "ddv_du")


def test_intervals_use_the_ranges_of_the_signals():
    bounds = spring().interval({"v": (0.0, 1.0)})
    np.testing.assert_allclose(bounds["dv"], (-4 - 0.1 - 2, 4 + 2))
    assert spring().interval()["dx"] == (-np.inf, np.inf)
    assert SymbolicMap([Signal("x", lower=0.0)], {"y": sqrt(x)}).undefined() == []
    assert SymbolicMap(["x"], {"y": sqrt(x)}).undefined() == [sqrt(x)]


# ---- composition


@fast
@given(inner=maps(exact=True, outputs=3), outer=maps(exact=True, outputs=3), seed=seeds)
def test_a_composed_map_is_one_map_after_the_other(inner, outer, seed):
    outer = outer.rename(inputs={"x": "y0", "v": "w"})
    composed = outer @ inner
    assert composed.input_names == (*inner.input_names, "w")
    point = points(seed, 5, n_inputs=5)
    values = inner(point[:, :4])
    arguments = np.column_stack([values[:, 0], point[:, 4], point[:, 2], point[:, 3]])
    np.testing.assert_array_equal(bits(composed(point)), bits(outer(arguments)))


def test_a_closed_loop_is_a_composition():
    policy = SymbolicMap([Signal("x", "m"), Signal("v", "m/s")], {Signal("u", "N"): clip(-3 * x - v, -2, 2)})
    loop = spring() @ policy.rename(inputs={})
    assert loop.input_names == ("x", "v")
    state = np.array([0.1, 0.2])
    np.testing.assert_array_equal(loop(state), spring()([*state, policy(state)[0]]))


def test_composition_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"Got outputs \['w'\]"):
        spring() @ SymbolicMap(["x"], {"w": x})
    with pytest.raises(ValueError, match="'N' in g"):
        spring() @ SymbolicMap(["x"], {Signal("u", "kN"): x})
    with pytest.raises(TypeError):
        spring() @ 3


def test_renaming_inputs_renames_the_variables():
    renamed = spring().rename(inputs={"x": "v", "v": "x"}, outputs={"dv": "a"}, name="swapped")
    assert renamed.input_names == ("v", "x", "u")
    assert renamed.inputs[0].unit == "m"
    assert renamed.output_names == ("dx", "a")
    np.testing.assert_array_equal(renamed([0.3, 0.4, 0.5]), spring()([0.3, 0.4, 0.5]))


# ---- files


@fast
@given(form=maps(), seed=seeds)
def test_json_gives_back_the_same_map_and_the_same_bytes(form, seed):
    text = form.to_json()
    again = SymbolicMap.from_json(text)
    assert again == form
    assert again.to_json() == text
    assert again.digest() == form.digest()


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@fast
def test_every_float_survives_a_file(value):
    again = SymbolicMap.from_json(SymbolicMap(["x"], {"y": Constant(value)}).to_json())
    assert again.nodes[0] is Constant(value)


def test_signals_survive_a_file(tmp_path):
    form = SymbolicMap([Signal("x", "rad·s⁻¹", -0.1, np.inf)], {Signal("y", "%", -1e300, 5e-324): x}, name="m")
    form.save(tmp_path / "m.json")
    assert SymbolicMap.load(tmp_path / "m.json") == form


def test_a_chain_of_a_hundred_thousand_additions_evaluates_and_survives_a_file(tmp_path):
    node: Node = x
    for _ in range(100_000):
        node = node + v
    form = SymbolicMap(["x", "v"], {"y": node})
    form.save(tmp_path / "deep.json")
    again = SymbolicMap.load(tmp_path / "deep.json")
    assert again == form
    assert again([1.0, 1.0]) == [100_001.0]


def test_saving_replaces_the_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "map.json"
    spring().save(path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        spring().rename(name="other").save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.json"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_saved_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    spring().save(tmp_path / "map.json")
    mode = stat.S_IMODE((tmp_path / "map.json").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "map.json").chmod(0o640)
    spring().save(tmp_path / "map.json")
    assert stat.S_IMODE((tmp_path / "map.json").stat().st_mode) == 0o640


def edited(**changes: object) -> str:
    document = json.loads(spring().to_json())
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        ("null", "holds a JSON object. Got NoneType"),
        ("[]", "holds a JSON object"),
        ("{}", '"format" must be'),
        (edited(format="sindyrl.other"), 'must be "sindyrl.symbolic_map". Got "sindyrl.other"'),
        (edited(schema=SCHEMA + 1), f"has schema {SCHEMA + 1}, .* up to schema {SCHEMA}"),
        (edited(schema=True), '"schema" must be a positive integer'),
        (edited(schema=0), '"schema" must be a positive integer'),
        (edited(schema="1"), '"schema" must be a positive integer'),
        (edited(schema=...), '"schema" must be a positive integer. Got null'),
        (edited(nodes=...), "lacks nodes"),
        (edited(extra=1), 'unknown keys: "extra"'),
        (edited(name="a b"), "identifier"),
        (edited(name=None), "string"),
        (edited(inputs={}), "must be lists"),
        (edited(inputs=["x", "v", "u"]), "An input must be a JSON object"),
        (edited(inputs=[{"name": "x"}]), "may use the inputs"),
        (edited(inputs=[{"name": "x"}] * 2), "distinct"),
        (edited(inputs=[{"name": "x", "lower": "0"}]), "number"),
        (edited(inputs=[{"name": "x", "lower": True}]), "number"),
        (edited(inputs=[{"name": "x", "lower": 1, "upper": 0}]), "lower < upper"),
        (edited(inputs=[{"name": "x", "lower": 10**400}]), r"holds 10{56}\.\.\.; numbers must be finite"),
        (edited(inputs=[{"name": "x", "unit": 3}]), "printable"),
        (edited(inputs=[{"name": "x", "node": 3}]), "unknown keys"),
        (edited(outputs=[]), "at least one output"),
        (edited(outputs=[{"name": "y"}]), "lacks node"),
        (edited(outputs=[{"name": "y", "node": True}]), "does not refer"),
        (edited(outputs=[{"name": "y", "node": [0]}]), "does not refer"),
        (edited(nodes={}), "must be lists"),
        (edited(nodes=[["eval", "1"]]), "Row 0 .*not known"),
        ('{"format": "sindyrl.symbolic_map", "format": "sindyrl.symbolic_map"}', '"format" appears twice'),
        (spring().to_json().replace("-4.0", "NaN"), "holds NaN"),
        (spring().to_json().replace("-4.0", "-Infinity"), "holds -Infinity"),
        (spring().to_json().replace("-4.0", "1e999"), "holds 1e999; numbers must be finite"),
        (spring().to_json().replace("-4.0", "1" * 5000), "numbers must be finite"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        (edited(nodes=[["dense", [[[[[1]]]]], [0], "tanh", []]]), "number is expected"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_malformed_text_is_refused_with_the_reason(text, message):
    with pytest.raises(MapFileError, match=message):
        SymbolicMap.from_json(text)


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    text = spring().to_json()
    for length in range(len(text)):
        with pytest.raises(MapFileError):
            SymbolicMap.from_json(text[:length])
    (tmp_path / "half.json").write_text(text[: len(text) // 2])
    with pytest.raises(MapFileError, match=r"half\.json: The text is not valid JSON"):
        SymbolicMap.load(tmp_path / "half.json")


@settings(fast, max_examples=150)
@given(position=st.integers(0, 10_000), character=st.characters(codec="utf-8"))
def test_a_corrupted_character_never_raises_anything_else(position, character):
    text = spring().to_json()
    position %= len(text)
    with contextlib.suppress(MapFileError):
        SymbolicMap.from_json(text[:position] + character + text[position + 1 :])


def test_a_huge_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("sindyrl.map_file.MAX_BYTES", 100)
    path = tmp_path / "huge.json"
    path.write_text(" " * 101)
    with pytest.raises(MapFileError, match="larger than 100 bytes"):
        SymbolicMap.load(path)
    with pytest.raises(MapFileError, match="at most 100"):
        SymbolicMap.from_json(" " * 101)


def test_a_table_with_too_many_rows_is_refused(monkeypatch):
    monkeypatch.setattr("sindyrl.node_table.MAX_NODES", 3)
    with pytest.raises(MapFileError, match="limit is 3"):
        SymbolicMap.from_json(spring().to_json())


def test_reading_text_that_is_no_text_is_a_type_error():
    with pytest.raises(TypeError, match=r"JSON text\. Got int"):
        SymbolicMap.from_json(3)


# ---- views


def test_printing_gives_one_line_per_output():
    assert str(spring()) == "dx = v\ndv = -4*x - 0.1*v^3 + u"
    assert spring().equations(1).splitlines()[1] == "dv = -4*x - 0.1*v^3 + u"
    assert "(x, v, u) -> (dx, dv)" in repr(spring())
    assert spring().latex() == "dx &= v \\\\\ndv &= -4\\,x - 0.1\\,v^{3} + u".replace("dx", r"\mathrm{dx}").replace(
        "dv", r"\mathrm{dv}"
    )


def test_a_map_whose_text_would_explode_is_still_printable():
    node: Node = x
    for _ in range(60):
        node = node * node
    assert "61 nodes, too long to print" in str(SymbolicMap(["x"], {"y": node}))


def test_sympy_is_a_view_of_the_same_function():
    form = SymbolicMap(
        ["x", "v"],
        {
            "a": clip(2.0 * x / v - sqrt(v) * exp(-x), -1, 1),
            "b": piecewise([(x < v, sin(x) ** 2), (x >= 2, -cos(v))], abs(x) ** -3),
            "c": dense([[1.0, -2.0], [0.5, 0.25]], [0.1, 0.2], "relu", [x, v])[0],
            "d": dense([[1.0, -2.0], [0.5, 0.25]], [0.1, 0.2], "tanh", [x, v])[1],
        },
    )
    again = SymbolicMap.from_sympy(form.sympy(), ["x", "v"])
    inputs = np.abs(points(0, 50, n_inputs=2, extreme=False)) + 0.1
    np.testing.assert_allclose(again(inputs), form(inputs), rtol=1e-12)


def test_derivatives_agree_with_sympy():
    form = SymbolicMap(["x", "v"], {"a": sin(x * v) / (1 + x**2) - exp(-v) * sqrt(1 + x * x) + x**-2})
    symbol = {name: sympy.Symbol(name, real=True) for name in ("x", "v")}
    slopes = {f"da_d{name}": sympy.diff(form.sympy()["a"], symbol[name]) for name in symbol}
    inputs = points(1, 50, n_inputs=2, extreme=False) % 3 + 0.1
    np.testing.assert_allclose(form.jacobian()(inputs), SymbolicMap.from_sympy(slopes, ["x", "v"])(inputs), rtol=1e-10)


def test_a_users_formula_comes_in_through_sympy():
    a, b = sympy.symbols("x v")
    formula = -a / (2 * b) + sympy.Rational(1, 3) * a**2 + sympy.sqrt(a) ** 3 + sympy.pi / sympy.sqrt(b)
    form = SymbolicMap.from_sympy({Signal("y", "m"): formula, "two": 2}, ["x", "v"])
    p, q = 1.7, 0.3
    np.testing.assert_allclose(form([p, q]), [-p / (2 * q) + p**2 / 3 + p**1.5 + np.pi / q**0.5, 2], rtol=1e-14)
    assert form.outputs[0].unit == "m"


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("x + 1", TypeError, "SymPy expressions"),
        (None, TypeError, "SymPy expressions"),
        (sympy.gamma(sympy.Symbol("x")), ValueError, "does not know gamma"),
        (sympy.Symbol("x") ** sympy.Symbol("v"), ValueError, "integer and half-integer powers"),
        (sympy.Symbol("x") * sympy.I, ValueError, "finite real"),
        (sympy.oo, ValueError, "finite real"),
        (sympy.nan, ValueError, "finite real"),
        (sympy.Symbol("y"), ValueError, "Got also"),
        (sympy.Symbol("x y"), ValueError, "identifier"),
        (sympy.Piecewise((1, sympy.Symbol("x") > 0)), ValueError, r"end with \(value, True\)"),
        (sympy.Piecewise((1, sympy.Eq(sympy.Symbol("x"), 0)), (2, True)), ValueError, "conditions"),
        (sympy.Derivative(sympy.Function("f")(sympy.Symbol("x"))), ValueError, "does not know"),
    ],
)
def test_formulas_outside_the_language_are_refused(formula, error, message):
    with pytest.raises(error, match=message):
        SymbolicMap.from_sympy({"y": formula}, ["x", "v"])
