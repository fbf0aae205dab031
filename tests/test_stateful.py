"""Maps with memory: against their definitions written out in NumPy, and in C with the state carried along."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sindyrl.export import (
    ExportError,
    StatefulMap,
    delay,
    extended_kalman_filter,
    filtered_derivative,
    stateful,
    to_c,
    with_memory,
)
from sindyrl.expression import Variable, cos, sin
from sindyrl.symbolic_map import Signal, SymbolicMap

DT = 0.01
X, V, U = map(Variable, ("x", "v", "u"))


def pendulum() -> SymbolicMap:
    inputs = [Signal("x", "rad", -4.0, 4.0), Signal("v", "rad/s", -9.0, 9.0), Signal("u", "N m", -1.0, 1.0)]
    outputs = {"x_next": X + DT * V, "v_next": V + DT * (9.81 * sin(X) - 0.2 * V + 2.0 * U)}
    return SymbolicMap(inputs, outputs, name="step")


def sensors() -> SymbolicMap:
    return SymbolicMap([Signal("x", "rad"), "v"], {"height": cos(X), "swing": X * V, "x": X})


def observer(**options) -> StatefulMap:
    settings = {
        "process_noise": [1e-6, 1e-4],
        "sensor_noise": [1e-2, 4e-2, 1e-3],
        "initial": [0.3, 0.0],
        "covariance": [[0.2, 0.05], [0.05, 0.5]],
        "dt": DT,
    }
    return extended_kalman_filter(pendulum(), sensors(), **{**settings, **options})


def reference_filter(u: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The textbook's matrix formulas, all sensors at once."""
    x, p = np.array([0.3, 0.0]), np.array([[0.2, 0.05], [0.05, 0.5]])
    q, r = np.diag([1e-6, 1e-4]), np.diag([1e-2, 4e-2, 1e-3])
    estimates, covariances = [], []
    for uk, yk in zip(u, y, strict=True):
        a = np.array([[1.0, DT], [DT * 9.81 * math.cos(x[0]), 1.0 - DT * 0.2]])
        x = np.array([x[0] + DT * x[1], x[1] + DT * (9.81 * math.sin(x[0]) - 0.2 * x[1] + 2.0 * uk)])
        p = a @ p @ a.T + q
        h = np.array([[-math.sin(x[0]), 0.0], [x[1], x[0]], [1.0, 0.0]])
        predicted = np.array([math.cos(x[0]), x[0] * x[1], x[0]])
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
        x = x + gain @ (yk - predicted)
        p = (np.eye(2) - gain @ h) @ p
        estimates.append(x)
        covariances.append([p[0, 0], p[0, 1], p[1, 1]])
    return np.array(estimates), np.array(covariances)


def measurements(steps: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    u = rng.uniform(-1.0, 1.0, steps)
    truth = np.array([0.5, -0.2])
    rows = []
    for uk in u:
        truth = pendulum()([*truth, uk])
        rows.append([math.cos(truth[0]), truth[0] * truth[1], truth[0]])
    return u, np.array(rows) + rng.normal(size=(steps, 3)) * [0.1, 0.2, 0.03]


def test_the_observer_is_the_matrix_formula_of_the_extended_kalman_filter():
    u, y = measurements()
    memory, estimate = observer().run(np.column_stack([u, y]))
    x, p = reference_filter(u, y)
    np.testing.assert_allclose(estimate, x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(memory, np.column_stack([x, p]), rtol=1e-8, atol=1e-12)


def test_the_observer_names_what_it_reads_and_remembers():
    each = observer()
    assert [s.name for s in each.inputs] == ["u", "height", "swing", "x_measured"]
    assert [s.name for s in each.states] == ["x", "v", "p_x_x", "p_x_v", "p_v_v"]
    assert [(s.name, s.unit) for s in each.outputs] == [("x_estimate", "rad"), ("v_estimate", "rad/s")]
    assert each.map.undefined({"x": (-4, 4), "v": (-9, 9)}) == []


def test_a_filtered_derivative_of_a_ramp_is_its_slope_and_starts_without_a_kick():
    cutoff = 5.0
    part = filtered_derivative(Signal("x", "m"), DT, cutoff)
    ramp = 7.0 + 3.0 * DT * np.arange(400)
    _, found = part.run(ramp[:, None])
    assert found[0, 0] == 0.0
    rate = 2 * math.pi * cutoff
    gain = rate * DT / -math.expm1(-rate * DT)  # of a held ramp: z lags by slope dt / (1 - exp(-w dt))
    assert found[-1, 0] == pytest.approx(3.0 * gain, rel=1e-9)
    assert part.outputs[0].unit == "m/s"
    z, expected = ramp[0], []  # the definition, written out
    for value in ramp:
        expected.append(rate * (value - z))
        z += -math.expm1(-rate * DT) * (value - z)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)


def test_a_delay_returns_what_went_in_so_many_steps_ago():
    values = np.arange(1.0, 9.0)
    _, found = delay(Signal("u"), 3, initial=-1.0).run(values[:, None])
    assert found[:, 0].tolist() == [-1.0, -1.0, -1.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def law() -> SymbolicMap:
    inputs = [Signal("x", "m", -2.0, 2.0), Signal("d_x", "m/s"), Signal("reference", "m", -1.0, 1.0)]
    return SymbolicMap(inputs, {"u": 4.0 * (Variable("reference") - X) - 0.5 * Variable("d_x")}, name="pd")


def test_a_law_with_its_filter_is_one_map():
    whole = with_memory(law(), filtered_derivative(Signal("x", "m", -2.0, 2.0), DT, 10.0))
    assert [s.name for s in whole.inputs] == ["x", "reference"]
    assert [s.name for s in whole.outputs] == ["u"]
    assert whole.dt == DT
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1.0, 1.0, (30, 2))
    _, slopes = filtered_derivative(Signal("x", "m"), DT, 10.0).run(rows[:, :1])
    expected = law()(np.column_stack([rows[:, 0], slopes[:, 0], rows[:, 1]]))
    np.testing.assert_allclose(whole.run(rows)[1], expected, rtol=1e-12)


@pytest.mark.parametrize("number", ["float32", "float64"])
def test_c_carries_the_state(tmp_path, number):
    report = to_c(
        with_memory(law(), filtered_derivative(Signal("x", "m", -2.0, 2.0), DT, 10.0)),
        tmp_path,
        number=number,
        verify="compile",
    )
    assert report.bitwise is True
    header = (tmp_path / "pd.h").read_text()
    for said in (
        "pd_state_t;",
        "void pd_reset(pd_state_t *self);",
        "void pd_step(pd_state_t *self, const ",
        "every 0.01 s",
    ):
        assert said in header


def test_an_observer_is_exported(tmp_path):
    report = to_c(observer(), tmp_path, verify="compile", n_vectors=100, undefined="allow")
    assert report.bitwise is True


def test_c_that_forgets_its_state_never_arrives(tmp_path, monkeypatch):
    right = stateful.Memory.text
    monkeypatch.setattr(
        stateful.Memory, "text", lambda self, name: right(self, name).replace("self->x[i] = after", "before[i] = after")
    )
    with pytest.raises(ExportError, match="u_delayed_step"):
        to_c(delay(Signal("u", "", -1.0, 1.0), 2), tmp_path, verify="compile")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StatefulMap(pendulum(), (0.0, 0.0, 0.0)), "begin with 3 states"),
        (lambda: StatefulMap(pendulum(), ()), "begin with 0 states"),
        (lambda: StatefulMap(pendulum(), (0.0, math.nan)), "finite"),
        (lambda: StatefulMap(pendulum(), (0.0, 0.0), -1.0), "dt"),
        (lambda: filtered_derivative(Signal("x"), DT, 60.0), "50"),
        (lambda: delay(Signal("x"), 0), "steps"),
        (lambda: with_memory(law()), "at least one"),
        (lambda: with_memory(law(), delay(Signal("x"), 1)), "another input"),
        (lambda: observer(sensor_noise=[1.0, 0.0, 1.0]), "sensor_noise"),
        (lambda: observer(process_noise=[1.0]), "process_noise"),
        (lambda: observer(covariance=[[1.0, 2.0], [2.0, 1.0]]), "covariance"),
        (lambda: observer(initial=[1.0]), "initial"),
        (lambda: to_c(delay(Signal("u"), 2), "firmware", fallback={"u_delayed": 0.0}), "fallback"),
    ],
)
def test_wrong_use_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
