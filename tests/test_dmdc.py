"""DMDc against NumPy's least squares, planted linear systems, and the singular values of noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.dmdc import affine_model, dmdc, hard_threshold
from sindyrl.model import Model
from sindyrl.simulate import simulate
from sindyrl.structure import NextState
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

A = np.array([[0.95, 0.2], [-0.2, 0.95]])
B = np.array([[0.0], [0.3]])
C = np.array([0.1, -0.2])


def record(a, b, c, n, rng, noise=0.0, dt=0.1):
    """A trajectory of the affine map under random inputs."""
    u = rng.normal(size=(n, b.shape[1]))
    x = [rng.normal(size=len(a))]
    for held in u:
        x.append(a @ x[-1] + b @ held + c)
    x = np.array(x) + noise * rng.normal(size=(n + 1, len(a)))
    states, inputs = [f"x{i}" for i in range(len(a))], [f"u{i}" for i in range(b.shape[1])]
    return Trajectory(dt * np.arange(n + 1), x, u, states=states, inputs=inputs)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), m=st.integers(1, 2))
def test_a_linear_system_is_reproduced_exactly_at_any_origin(seed, n, m):
    rng = np.random.default_rng(seed)
    a = np.linalg.qr(rng.normal(size=(n, n)))[0] * 0.95
    b, c = rng.normal(size=(n, m)), rng.normal(size=n)
    found = dmdc(record(a, b, c, 60, rng))
    for part, planted in ((found.a, a), (found.b, b), (found.c, c)):
        np.testing.assert_allclose(part, planted, atol=1e-8)
    assert found.rank == n + m + 1
    assert (found.residual_rms < 1e-8).all()


def test_it_is_least_squares_over_all_trajectories():
    rng = np.random.default_rng(0)
    data = Dataset(tuple(record(A, B, C, n, rng, noise=0.1) for n in (20, 35)))
    pairs = data.pairs()
    columns = np.column_stack([pairs.x, pairs.u, np.ones(len(pairs.x))])
    expected = np.linalg.lstsq(columns, pairs.x_next, rcond=None)[0].T
    found = dmdc(data)
    np.testing.assert_allclose(np.column_stack([found.a, found.b, found.c]), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.residual_rms, np.sqrt(np.mean((pairs.x_next - columns @ expected.T) ** 2, axis=0)))
    unbiased = dmdc(data, bias=False)
    expected = np.linalg.lstsq(columns[:, :-1], pairs.x_next, rcond=None)[0].T
    np.testing.assert_allclose(np.column_stack([unbiased.a, unbiased.b]), expected, rtol=1e-9, atol=1e-12)
    assert (unbiased.c == 0).all()


def test_with_fewer_rows_than_coefficients_it_is_the_shortest_solution():
    data = record(A, B, C, 3, np.random.default_rng(1))
    columns = np.column_stack([data.x[:-1], data.u, np.ones(3)])
    found = dmdc(data)
    assert found.rank == 3
    np.testing.assert_allclose(
        np.column_stack([found.a, found.b, found.c]), (np.linalg.pinv(columns) @ data.x[1:]).T, atol=1e-10
    )


def test_the_eigenvalues_and_modes_are_those_of_the_system():
    found = dmdc(record(A, B, C, 50, np.random.default_rng(2)))
    np.testing.assert_allclose(sorted(found.eigenvalues.imag), [-0.2, 0.2], atol=1e-10)
    np.testing.assert_allclose(found.eigenvalues.real, 0.95, atol=1e-10)
    np.testing.assert_allclose(found.a @ found.modes, found.modes * found.eigenvalues, atol=1e-10)
    np.testing.assert_allclose(np.exp(found.rates * 0.1), found.eigenvalues, atol=1e-10)
    slow = dmdc(record(np.diag([0.1, 0.9]), B, C, 50, np.random.default_rng(2)))
    np.testing.assert_allclose(slow.eigenvalues, [0.9, 0.1], atol=1e-9)


def test_the_model_steps_simulates_saves_and_linearizes_as_the_matrices_say():
    data = record(A, B, C, 50, np.random.default_rng(3))
    model = dmdc(data, states=[Signal("x0", "m"), Signal("x1", "m/s")]).model
    assert isinstance(model.structure, NextState)
    assert model.rates.target_units == ("m", "m/s")
    np.testing.assert_allclose(simulate(model, data.x[0], data.u).x, data.x, atol=1e-9)
    a, b = model.linearize(np.array([3.0, -2.0]), np.array([1.0]))
    np.testing.assert_allclose(a, A, atol=1e-9)
    np.testing.assert_allclose(b, B, atol=1e-9)
    assert Model.from_json(model.to_json()).rates == model.rates
    np.testing.assert_array_equal(model.seen, np.column_stack([data.x[:-1].min(axis=0), data.x[:-1].max(axis=0)]))


def test_an_affine_model_without_inputs():
    model = affine_model(A, np.zeros((2, 0)), C, [Signal("x"), Signal("v")], [], 0.1, np.array([[0, 1], [0, 1]]))
    np.testing.assert_allclose(model.step(np.array([1.0, 2.0]), np.zeros(0)), A @ [1.0, 2.0] + C)


# ---- rank


def test_a_cut_off_rank_is_the_truncated_pseudoinverse():
    data = record(A, B, C, 40, np.random.default_rng(4), noise=0.05)
    columns = np.column_stack([data.x[:-1], data.u, np.ones(40)])
    u, s, vt = np.linalg.svd(columns, full_matrices=False)
    expected = data.x[1:].T @ u[:, :2] @ np.diag(1 / s[:2]) @ vt[:2]
    found = dmdc(data, rank=2)
    np.testing.assert_allclose(np.column_stack([found.a, found.b, found.c]), expected, atol=1e-12)
    np.testing.assert_allclose(found.singular_values, s)


def test_the_threshold_agrees_with_the_published_numbers():
    """Gavish and Donoho, 2014: 4 / sqrt(3) = 2.309 with known noise is 2.858 times the median of a square matrix;
    and to 0.02 their cubic, 0.56 b^3 - 0.95 b^2 + 1.82 b + 1.43."""
    for rows, columns in ((100, 100), (200, 100), (1000, 100), (100, 20)):
        beta = min(rows, columns) / max(rows, columns)
        cubic = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
        assert hard_threshold(np.array([1.0]), (rows, columns)) == pytest.approx(cubic, abs=0.02)
    assert hard_threshold(np.array([1.0]), (50, 50)) == pytest.approx(2.858, abs=0.002)


@pytest.mark.parametrize("seed", range(5))
def test_the_automatic_rank_is_that_of_the_motion_behind_many_noisy_sensors(seed):
    rng = np.random.default_rng(seed)
    motion = record(A, B, np.zeros(2), 400, rng)
    sensors = motion.x @ rng.normal(size=(2, 30))
    noisy = sensors + 0.01 * sensors.std() * rng.normal(size=sensors.shape)
    data = Trajectory(motion.t, noisy, motion.u, states=[f"s{i}" for i in range(30)], inputs=["u0"])
    found = dmdc(data, rank="auto")
    assert found.rank == 4  # two of the motion, the input, and the constant
    assert np.abs(found.eigenvalues[:2]).min() == pytest.approx(np.abs(np.linalg.eigvals(A)).min(), abs=0.01)
    held_out = record(A, B, np.zeros(2), 100, rng)
    clean = np.linalg.lstsq(motion.x, sensors, rcond=None)[0]
    path = simulate(found.model, held_out.x[0] @ clean, held_out.u)
    assert np.linalg.norm(path.x - held_out.x @ clean) < 0.1 * np.linalg.norm(held_out.x @ clean)


@pytest.mark.parametrize("rank", [0, 5, 2.5, True, "most"])
def test_a_wrong_rank_is_refused(rank):
    with pytest.raises(ValueError, match=r"rank=\.\.\."):
        dmdc(record(A, B, C, 20, np.random.default_rng(0)), rank=rank)


def test_signals_must_be_named_as_the_data():
    with pytest.raises(ValueError, match=r"inputs=\.\.\."):
        dmdc(record(A, B, C, 20, np.random.default_rng(0)), inputs=[Signal("force")])
