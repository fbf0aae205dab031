"""Sparse maps: one prediction by every route, ensembles as they are defined, files that read back exactly."""

import json

import numpy as np
import pytest

from sindyrl.library import polynomial_library
from sindyrl.map_file import MapFileError
from sindyrl.sparse_map import SparseMap, combine
from sindyrl.symbolic_map import Signal

LIBRARY = polynomial_library(2, bias=True).bind(["x", "v"], ["u"])
TARGETS = ("dx", "dv")


def random_map(seed=0, members=None, density=0.4):
    rng = np.random.default_rng(seed)
    shape = (2, len(LIBRARY)) if members is None else (members, 2, len(LIBRARY))
    return SparseMap(LIBRARY, rng.normal(size=shape) * (rng.uniform(size=shape) < density), TARGETS)


def data(n=50):
    return np.random.default_rng(1).normal(size=(n, 3))


def test_prediction_is_the_library_times_the_coefficients_by_every_route():
    model, x = random_map(), data()
    expected = LIBRARY.features(x) @ model.coef.T
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_allclose(model(x[3]), expected[3], rtol=1e-13)
    np.testing.assert_allclose(model(x.reshape(5, 10, 3)), expected.reshape(5, 10, 2), rtol=1e-13)
    np.testing.assert_allclose(model.symbolic()(x), expected, rtol=1e-12, atol=1e-14)
    by_columns = model.columns("numpy")(model.coef, list(x.T))
    np.testing.assert_allclose(np.column_stack(by_columns), expected, rtol=1e-12, atol=1e-14)


def test_jax_columns_take_coefficients_as_an_argument_and_compile_once():
    import jax

    first, second, x = random_map(0), random_map(1), data(16)
    traced = []

    @jax.jit
    def predict(coef, columns):
        traced.append(True)
        return first.columns("jax")(coef, columns)

    columns = list(x.T.astype(np.float32))
    for model in (first, second):
        result = np.column_stack(predict(model.coef.astype(np.float32), columns))
        np.testing.assert_allclose(result, model(x), rtol=1e-4, atol=1e-5)
    assert len(traced) == 1


def test_each_roll_out_may_use_the_coefficients_of_its_own_member():
    model, x = random_map(members=4), data(12)
    who = np.arange(12) % 4
    coef = np.moveaxis(model.coef[who], 0, -1)  # (target, feature, batch)
    result = np.column_stack(combine(coef, list(LIBRARY.features(x).T)))
    expected = [model.member(int(member))(row) for member, row in zip(who, x, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-14)


def test_ensemble_median_mean_member_and_inclusion():
    model = random_map(members=5)
    np.testing.assert_array_equal(model.median().coef, np.median(model.coef, axis=0))
    np.testing.assert_array_equal(model.mean().coef, model.coef.mean(axis=0))
    np.testing.assert_array_equal(model.member(3).coef, model.coef[3])
    np.testing.assert_array_equal(model.inclusion, (model.coef != 0).mean(axis=0))
    np.testing.assert_array_equal(model.support, np.median(model.coef, axis=0) != 0)
    assert (model.members, model.n_terms) == (5, int(model.support.sum()))
    np.testing.assert_array_equal(model(data()), model.median()(data()))
    assert model.median().members == 1
    with pytest.raises(ValueError, match=r"must be below 5. Got 5"):
        model.member(5)


def test_variance_is_the_sample_variance_over_member_predictions():
    model, x = random_map(members=6), data()
    predictions = np.array([model.member(k)(x) for k in range(6)])
    np.testing.assert_allclose(model.predict_members(x), predictions, rtol=1e-13)
    np.testing.assert_allclose(model.variance(x), predictions.var(axis=0, ddof=1), rtol=1e-10)
    copies = SparseMap(LIBRARY, np.repeat(model.coef[:1], 3, axis=0), TARGETS)
    np.testing.assert_allclose(copies.variance(x), 0, atol=1e-25)
    with pytest.raises(ValueError, match=r"at least 2 members. This map has 1"):
        random_map().variance(x)


def test_equations_read_as_written_by_hand():
    coef = np.zeros((2, len(LIBRARY)))
    coef[0, LIBRARY.index("v")] = 1.0
    coef[1, [LIBRARY.index(name) for name in ("1", "x", "v^2", "x*u")]] = 0.5, -9.8123, 1e-7, 1.0
    model = SparseMap(LIBRARY, coef, TARGETS)
    assert model.equations() == ["dx = 1*v", "dv = 0.5 - 9.81*x + 1*x*u + 1e-07*v^2"]
    assert str(SparseMap(LIBRARY, np.zeros((1, len(LIBRARY))), ["y"])) == "y = 0"


def test_symbolic_leaves_out_zero_terms_and_carries_names_units_and_limits():
    model = SparseMap(LIBRARY, random_map().coef, TARGETS, ("m/s", "m/s^2"))
    form = model.symbolic(clip=(-1.0, [0.5, 2.0]))
    assert [(signal.name, signal.unit, signal.upper) for signal in form.outputs] == [
        ("dx", "m/s", 0.5),
        ("dv", "m/s^2", 2.0),
    ]
    np.testing.assert_allclose(form(data()), np.clip(model(data()), -1, [0.5, 2.0]), rtol=1e-12, atol=1e-14)
    renamed = model.symbolic(["a", Signal("b", "V", -3, 3)], inputs=[Signal("x", "m", -2, 2), "v", "u"])
    assert renamed.output_names == ("a", "b")
    assert renamed.inputs[0].upper == 2
    empty = SparseMap(LIBRARY, np.zeros((2, len(LIBRARY))), TARGETS).symbolic()
    np.testing.assert_array_equal(empty(data()), 0)
    with pytest.raises(ValueError, match=r"`symbolic\(clip=...\)` must be \(lower, upper\).* Got \(1, -1\)"):
        model.symbolic(clip=(1, -1))
    with pytest.raises(ValueError, match=r"`symbolic\(outputs=...\)` must have 2 entries. Got 1"):
        model.symbolic(["a"])


@pytest.mark.parametrize("members", [None, 3])
def test_files_read_back_exactly(tmp_path, members):
    model = random_map(members=members)
    path = tmp_path / "model.json"
    model.save(path)
    again = SparseMap.load(path)
    assert again == model
    assert again.coef.tobytes() == model.coef.tobytes()
    assert hash(again) == hash(model)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]
    assert model != random_map(5, members)


def test_malformed_files_are_refused_with_the_reason(tmp_path):
    good = json.loads(random_map().to_json())
    cases = [
        ({"schema": 2}, "schema 2.*schema 1"),
        ({"format": "other"}, "sindyrl.sparse_map"),
        ({"coef": [[1.0], [1.0, 2.0]]}, "malformed"),
        ({"coef": [["1"] * len(LIBRARY)] * 2}, "rectangular table of numbers"),
        ({"coef": [[1.0] * 3] * 2}, r"must have shape \(2, 10\)"),
        ({"library": []}, "entries 'states', 'inputs' and 'terms'"),
        ({"targets": "dx"}, "must be a list of texts"),
        ({"targets": ["a b", "c"]}, "identifier"),
    ]
    for change, message in cases:
        with pytest.raises(MapFileError, match=message):
            SparseMap.from_json(json.dumps(good | change))
    with pytest.raises(MapFileError, match="coef"):
        SparseMap.from_json(json.dumps({key: value for key, value in good.items() if key != "coef"}))
    path = tmp_path / "half.json"
    path.write_text(random_map().to_json()[:100])
    with pytest.raises(MapFileError, match=r"half.json"):
        SparseMap.load(path)


def test_coefficients_cannot_be_changed_and_are_not_shared():
    coef = np.ones((2, len(LIBRARY)))
    model = SparseMap(LIBRARY, coef, TARGETS)
    coef[:] = 5
    assert (model.coef == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        model.coef[0, 0] = 2.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        model.coef.setflags(write=True)


def test_wrong_use_is_refused_in_words():
    coef = np.ones((2, len(LIBRARY)))
    with pytest.raises(ValueError, match=r"must have shape \(2, 10\) or \(members, \*\(2, 10\)\). Got \(10, 2\)"):
        SparseMap(LIBRARY, coef.T, TARGETS)
    coef[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"Entry \(1, 4\), term 'x\^2' of 'dv', is nan"):
        SparseMap(LIBRARY, coef, TARGETS)
    with pytest.raises(ValueError, match="all different"):
        SparseMap(LIBRARY, coef, ("dx", "dx"))
    with pytest.raises(TypeError, match="Got the text 'dx'"):
        SparseMap(LIBRARY, coef, "dx")
    with pytest.raises(ValueError, match=r"target_units=...\)` must have 2 entries. Got 1"):
        SparseMap(LIBRARY, coef, TARGETS, ("m",))
