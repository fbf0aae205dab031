"""What must hold for every structure: one formula for NumPy, JAX, CasADi and closed forms, and honest kinematics."""

import copy
import json
import pickle

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sindyrl.expression import Variable, sin
from sindyrl.stops_at_wall import StopsAtWall
from sindyrl.structure import Derivative, Increment, NextState, OnCircles, SecondOrder
from sindyrl.structure_file import structure_from_dict
from sindyrl.symbolic_map import SymbolicMap

STATES = ("x", "c", "s", "v", "w")
UNITS = ("m", "", "", "m/s", "rad/s")
STRUCTURES = [
    NextState(),
    Increment(),
    Derivative(),
    Derivative("rk4"),
    OnCircles(Increment(), (("c", "s"),)),
    StopsAtWall("x", "v", -0.5),
    SecondOrder({"x": "v"}, {("c", "s"): "w"}, ignore=("x",)),
]
every = pytest.mark.parametrize(
    "structure", STRUCTURES, ids=lambda s: f"{s.kind} {getattr(s, 'integrator', '')}".strip()
)
COEF = np.random.default_rng(5).normal(size=(5, 4))


def rates_with(sine, structure):
    """A smooth nonlinear rate for each target, for any array library."""
    n = len(structure.targets(STATES))

    def rates(x, u):
        return [a * x[1] * x[4] - b * sine(x[2] + x[3]) + c * u[0] + d for a, b, c, d in COEF[:n].tolist()]

    return rates


def advance(structure, sine, x, u, dt=0.05):
    return structure.advance(STATES, rates_with(sine, structure), x, u, dt)


def points(n=20):
    rng = np.random.default_rng(1)
    return STRUCTURES[-1].project(STATES, rng.normal(size=(n, 5))), rng.normal(size=(n, 1))


@every
def test_names_and_units_fit_the_states(structure):
    targets = structure.targets(STATES)
    assert len(set(targets)) == len(targets) == len(structure.target_units(STATES, UNITS))
    assert all(name.isidentifier() for name in targets)
    used = structure.features_of(STATES)
    assert used == tuple(name for name in STATES if name in used)


@every
def test_stored_copied_and_pickled_structures_are_equal(structure):
    stored = structure_from_dict(json.loads(json.dumps(structure.to_dict())))
    for other in (stored, copy.deepcopy(structure), pickle.loads(pickle.dumps(structure))):
        assert other == structure
        assert hash(other) == hash(structure)
    assert sum(other == structure for other in STRUCTURES) == 1


@every
def test_a_batch_is_advanced_as_one_by_one(structure):
    x, u = points()
    batch = np.stack(advance(structure, np.sin, list(x.T), list(u.T)), axis=1)
    for row, state, held in zip(batch, x, u, strict=True):
        np.testing.assert_allclose(row, advance(structure, np.sin, list(state), list(held)), rtol=0, atol=4e-16)


@every
def test_numpy_jax_casadi_and_closed_forms_advance_alike(structure):
    x, u = points()
    expected = np.stack(advance(structure, np.sin, list(x.T), list(u.T)), axis=1)
    form = advance(structure, sin, [Variable(name) for name in STATES], [Variable("u")])
    form = SymbolicMap([*STATES, "u"], {f"y{i}": node for i, node in enumerate(form)})
    np.testing.assert_allclose(form(np.hstack([x, u])), expected, rtol=0, atol=2e-15)
    with jax.enable_x64(True):
        traced = jax.jit(lambda x, u: jnp.stack(advance(structure, jnp.sin, list(x.T), list(u.T)), axis=1))(x, u)
        assert traced.dtype == np.float64
        np.testing.assert_allclose(traced, expected, rtol=0, atol=5e-15)
    sx, su = casadi.SX.sym("x", 5), casadi.SX.sym("u", 1)
    after = advance(structure, casadi.sin, casadi.vertsplit(sx), casadi.vertsplit(su))
    compiled = casadi.Function("step", [sx, su], [casadi.vertcat(*after)])
    for state, held, row in zip(x, u, expected, strict=True):
        np.testing.assert_allclose(np.array(compiled(state, held)).ravel(), row, rtol=0, atol=5e-15)


@every
def test_the_flow_is_the_slope_of_the_step(structure):
    x, u = points()
    rates = rates_with(np.sin, structure)
    flow = structure.flow(STATES, rates, list(x.T), list(u.T))
    if structure.kind in ("next_state", "increment", "on_circles", "stops_at_wall"):
        assert flow is None
        return
    h = 1e-5
    forward = np.stack(structure.advance(STATES, rates, list(x.T), list(u.T), h), axis=1)
    backward = np.stack(structure.advance(STATES, rates, list(x.T), list(u.T), -h), axis=1)
    np.testing.assert_allclose((forward - backward) / (2 * h), np.stack(np.broadcast_arrays(*flow), axis=1), atol=1e-7)


@every
def test_arguments_are_left_as_they_were(structure):
    x, u = points()
    columns, held = list(x.T.copy()), list(u.T.copy())
    advance(structure, np.sin, columns, held)
    structure.flow(STATES, rates_with(np.sin, structure), columns, held)
    structure.project(STATES, x)
    np.testing.assert_array_equal(np.stack(columns, axis=1), points()[0])
    np.testing.assert_array_equal(x, points()[0])


@every
def test_projection_is_idempotent_and_steps_stay_on_the_manifold(structure):
    raw = np.random.default_rng(2).normal(size=(3, 7, 5))
    once = structure.project(STATES, raw)
    assert once.shape == raw.shape
    np.testing.assert_allclose(structure.project(STATES, once), once, atol=1e-15)
    x = structure.project(STATES, points()[0])
    after = np.stack(advance(structure, np.sin, list(x.T), list(points()[1].T)), axis=1)
    np.testing.assert_allclose(structure.project(STATES, after), after, atol=1e-14)


@every
def test_samples_have_a_row_for_each_transition(structure):
    x, u = points()
    after = np.stack(advance(structure, np.sin, list(x.T), list(u.T)), axis=1)
    z, y = structure.samples(STATES, x, after, 0.05)
    assert z.shape == x.shape
    assert y.shape == (len(x), len(structure.targets(STATES)))


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if not isinstance(s, OnCircles)], ids=str)
def test_data_of_the_structures_own_steps_are_explained_to_second_order(structure):
    """Fitting and stepping use the same collocation: the residual of true rates falls at least with dt^2.

    What is put back on circles after the step was not on them by the rates, so there it does not. What ends on a wall
    is left out, as a fit has to.
    """
    x, u = points()
    rates = rates_with(np.sin, structure)
    residuals = []
    for dt in (0.02, 0.01):
        after = np.stack(structure.advance(STATES, rates, list(x.T), list(u.T), dt), axis=1)
        z, y = structure.samples(STATES, x, after, dt)
        free = after[:, 0] > structure.wall if isinstance(structure, StopsAtWall) else slice(None)
        residuals.append(np.abs(y - np.stack(rates(list(z.T), list(u.T)), axis=1))[free].max())
    assert residuals[1] < 1e-13 or residuals[0] / residuals[1] == pytest.approx(4.0, rel=0.15)
