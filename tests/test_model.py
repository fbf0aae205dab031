"""Models: one step said in three ways, linearization, and files that read back exactly or say what is wrong."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.library import polynomial_library, trigonometric_library
from sindyrl.map_file import MapFileError
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative, Increment, NextState, SecondOrder
from sindyrl.symbolic_map import Signal
from tests.systems import cart_matrices, cart_model, pendulum_model

STATES = (Signal("x", "m", -3.0, 3.0), Signal("c"), Signal("s"), Signal("v", "m/s"), Signal("w", "rad/s"))
INPUTS = (Signal("u", "N", -1.0, 1.0), Signal("z", "V", 0.0, 2.0))
STRUCTURES = [
    NextState(),
    Increment(),
    Derivative(),
    Derivative("rk4"),
    SecondOrder({"x": "v"}, {("c", "s"): "w"}, ignore=("x",)),
]
every = pytest.mark.parametrize(
    "structure", STRUCTURES, ids=lambda s: f"{s.kind} {getattr(s, 'integrator', '')}".strip()
)


def random_model(structure, seed=0, members=None) -> Model:
    rng = np.random.default_rng(seed)
    names = tuple(signal.name for signal in STATES)
    spec = polynomial_library(2, input_degree=1, bias=True) + trigonometric_library(of=["v"])
    library = spec.bind(structure.features_of(names), ("u", "z"))
    targets = structure.targets(names)
    shape = (len(targets), len(library))
    support = rng.random(shape) < 0.3
    coef = rng.normal(size=shape if members is None else (members, *shape)) * support
    seen = np.sort(rng.normal(size=(5, 2)), axis=1)
    return Model(SparseMap(library, coef, targets), structure, STATES, INPUTS, 0.03, seen)


def points(n=25, seed=3):
    rng = np.random.default_rng(seed)
    return STRUCTURES[-1].project([s.name for s in STATES], rng.normal(size=(n, 5))), rng.normal(size=(n, 2))


@every
@pytest.mark.parametrize("members", [None, 4])
def test_the_closed_form_of_the_step_is_the_step_bit_for_bit(structure, members):
    model = random_model(structure, members=members)
    x, u = points()
    form = model.step_map()
    assert form.input_names == (*model.state_names, *model.input_names)
    assert form.output_names == tuple(f"{name}_next" for name in model.state_names)
    assert [signal.unit for signal in form.outputs] == [signal.unit for signal in STATES]
    np.testing.assert_array_equal(form(np.hstack([x, u])), model.step(x, u))


@every
def test_a_batch_of_any_shape_is_stepped_as_one_by_one(structure):
    model = random_model(structure)
    x, u = points(24)
    after = model.step(x, u)
    np.testing.assert_array_equal(model.step(x.reshape(2, 3, 4, 5), u.reshape(2, 3, 4, 2)).reshape(24, 5), after)
    np.testing.assert_allclose([model.step(a, b) for a, b in zip(x, u, strict=True)], after, rtol=1e-15, atol=1e-15)
    np.testing.assert_array_equal(model.step(x, u[0]), model.step(x, np.tile(u[0], (24, 1))))


@every
def test_linearization_agrees_with_central_differences(structure):
    model = random_model(structure)
    (x,), (u,) = points(1)
    a, b = model.linearize(x, u)
    h = 1e-6
    for j in range(5):
        e = h * np.eye(5)[j]
        np.testing.assert_allclose(a[:, j], (model.step(x + e, u) - model.step(x - e, u)) / (2 * h), atol=1e-7)
    for j in range(2):
        e = h * np.eye(2)[j]
        np.testing.assert_allclose(b[:, j], (model.step(x, u + e) - model.step(x, u - e)) / (2 * h), atol=1e-7)


def test_the_cart_is_stepped_exactly_and_is_its_own_linearization():
    a, b = cart_matrices()
    x, u = np.random.default_rng(0).normal(size=(9, 2)), np.random.default_rng(1).normal(size=(9, 1))
    np.testing.assert_allclose(cart_model().step(x, u), x @ a.T + u @ b.T, atol=1e-15)
    here = cart_model().linearize([0.3, -0.4], [0.9])
    np.testing.assert_allclose(here[0], a, atol=1e-15)
    np.testing.assert_allclose(here[1], b, atol=1e-15)


@pytest.mark.parametrize("structure", STRUCTURES[:2], ids=["next_state", "increment"])
def test_a_model_in_discrete_time_has_no_derivative(structure):
    x, u = points(1)
    with pytest.raises(TypeError, match=f"{structure.kind} model has no derivative. Identify with"):
        random_model(structure).derivative(x, u)


@pytest.mark.parametrize("structure", STRUCTURES[2:], ids=["midpoint", "rk4", "second_order"])
def test_the_derivative_is_the_slope_of_the_step(structure):
    model = random_model(structure)
    x, u = points()
    h = 1e-5
    forward = dataclasses.replace(model, dt=h).step(x, u)
    backward = dataclasses.replace(model, dt=2 * h).step(x, u)
    np.testing.assert_allclose(model.derivative(x, u), (4 * forward - backward - 3 * x) / (2 * h), atol=1e-5)


def test_the_derivative_of_the_pendulum():
    x = np.array([np.cos(0.7), np.sin(0.7), 1.3])
    np.testing.assert_allclose(
        pendulum_model().derivative(x, [0.5]), [-x[1] * 1.3, x[0] * 1.3, 9.81 * x[1] + 0.5], rtol=1e-15
    )


def test_an_ensemble_steps_with_the_median_of_its_members():
    coef = np.array([[0.0, -1.0, 1.0], [0.5, 0.0, 1.2], [2.0, -3.0, 9.0]])
    x, u = np.random.default_rng(0).normal(size=(9, 2)), np.random.default_rng(1).normal(size=(9, 1))
    np.testing.assert_array_equal(cart_model(coef).step(x, u), cart_model([0.5, -1.0, 1.2]).step(x, u))
    assert cart_model(coef).n_terms == 3


@every
@pytest.mark.parametrize("members", [None, 4])
def test_the_compact_model_has_fewer_terms_and_the_same_step(structure, members):
    model = random_model(structure, members=members)
    small = model.compact()
    assert len(small.rates.library) < len(model.rates.library)
    assert small.n_terms == model.n_terms
    x, u = points()
    np.testing.assert_array_equal(small.step(x, u), model.step(x, u))


def test_the_compact_model_keeps_a_term_that_only_one_member_has():
    model = cart_model([[0.0, 0.0, 1.0], [0.0, -0.5, 1.0], [0.0, 0.0, 1.0]])
    assert model.compact().rates.library.names == ("v", "u")
    assert len(cart_model([0.0, 0.0, 0.0]).compact().rates.library) == 1


# ---- files


@every
@pytest.mark.parametrize("members", [None, 3])
def test_a_model_reads_back_exactly(structure, members, tmp_path):
    model = random_model(structure, seed=7, members=members)
    model.save(tmp_path / "model.json")
    loaded = Model.load(tmp_path / "model.json")
    assert loaded.rates == model.rates
    assert loaded.structure == model.structure
    assert (loaded.states, loaded.inputs, loaded.dt) == (model.states, model.inputs, model.dt)
    np.testing.assert_array_equal(loaded.seen, model.seen)
    assert loaded.to_json() == model.to_json()
    x, u = points()
    np.testing.assert_array_equal(loaded.step(x, u), model.step(x, u))


def stored(**changes):
    return json.dumps(json.loads(pendulum_model().to_json()) | changes)


def without(key):
    document = json.loads(pendulum_model().to_json())
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        (stored()[:-40], "not valid JSON"),
        ("[]", "JSON object"),
        (stored(format="sindyrl.policy"), '"format" must be "sindyrl.model"'),
        (stored(schema=2), "schema 2, this version of sindyrl reads up to schema 1"),
        (without("dt"), "lacks dt"),
        (stored(extra=1), 'unknown keys: "extra"'),
        (stored(dt="0.02"), '"dt" must be a number. Got "0.02"'),
        (stored(dt=True), '"dt" must be a number'),
        (stored(dt=None), '"dt" must be a number'),
        (stored().replace('"dt": 0.02', '"dt": 1e400'), "The text holds 1e400; numbers must be finite"),
        (stored(dt=10**400), r"The text holds 10{56}\.\.\.; numbers must be finite"),
        (stored(dt=-0.02), "positive number of seconds. Got -0.02"),
        (stored(seen=[["0", "1"]] * 3), '"seen" must be a rectangular table of numbers'),
        (stored(seen=[[None, 1.0]] * 3), '"seen" must be a rectangular table of numbers'),
        (stored(seen=[[0.0], [0.0, 1.0], []]), "malformed|rectangular"),
        (stored(seen=[[0.0, 1.0]]), r"must have shape \(3, 2\). Got \(1, 2\)"),
        (stored(seen=[[1.0, 0.0]] * 3), "smallest value first"),
        (stored(states={"name": "cos"}), '"states" and "inputs" must be lists'),
        (stored(states=["cos", "sin", "w"]), "A state must be a JSON object"),
        (stored(inputs=[{"name": "u", "lower": "low"}]), "An input is not valid"),
        (stored(structure={"kind": "magic"}), "Unknown structure 'magic'"),
        (stored(structure=[1]), "structure is incomplete"),
        (stored(structure={"kind": "increment"}), "must have the targets"),
        (stored(inputs=[{"name": "force"}]), "must be functions of"),
        (stored(rates={}), "format"),
        (stored(rates=None), "JSON object"),
    ],
)
def test_damaged_files_are_named_errors(content, message, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(MapFileError, match=message) as caught:
        Model.load(path)
    assert str(path) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), character=st.sampled_from('0x"}],-e.{n'))
def test_a_file_with_one_character_changed_is_a_model_or_a_named_error(position, character, tmp_path_factory):
    text = pendulum_model().to_json()
    position %= len(text)
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(text[:position] + character + text[position + 1 :])
    try:
        assert isinstance(Model.load(path), Model)
    except MapFileError as error:
        assert str(path) in str(error)  # noqa: PT017 (either is right)


# ---- wrong use


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": 0.0}, r"`Model\(dt=...\)` must be a positive number of seconds. Got 0.0"),
        ({"seen": np.zeros((2, 2))}, r"`Model\(seen=...\)` must have shape \(3, 2\). Got \(2, 2\)"),
        ({"seen": np.full((3, 2), np.nan)}, r"`Model\(seen=...\)` must be finite"),
        (
            {"structure": Increment()},
            r"`Model\(rates=...\)` must have the targets \['delta_cos', 'delta_sin', 'delta_w'\]",
        ),
        ({"inputs": (Signal("torque"),)}, r"`Model\(rates=...\)` must be functions of \['cos', 'sin', 'w', 'torque'\]"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(pendulum_model(), **changes)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"`x` must have 3 columns \['cos', 'sin', 'w'\]. Got shape \(2,\)"):
        pendulum_model().step(np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match=r"`u` must have 1 columns \['u'\]. Got shape \(\)"):
        pendulum_model().step(np.zeros(3), 0.0)


def test_the_data_range_is_kept_and_read_only():
    seen = np.array([[-1.0, 1.0], [-1.0, 1.0], [-9.0, 9.0]])
    model = dataclasses.replace(pendulum_model(), seen=seen)
    seen[:] = 0.0
    assert model.seen[2, 1] == 9.0
    with pytest.raises(ValueError, match="read-only"):
        model.seen[0, 0] = 5.0
