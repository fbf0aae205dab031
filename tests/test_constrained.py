"""Constrained thresholding: constraints hold to rounding, for every member; optimal among what they allow."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sindyrl.expression import Variable, cos
from sindyrl.identify import identify
from sindyrl.library import polynomial_library, trigonometric_library
from sindyrl.regression import STLSQ, Ensemble
from sindyrl.regression.constrained import ConstrainedSTLSQ
from sindyrl.regression.constraints import Constraints, InfeasibleConstraints, reduced_rows
from sindyrl.structure import Derivative
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Trajectory

LIBRARY = polynomial_library(2, bias=True).bind(["x", "y"])  # 1, x, y, x^2, x*y, y^2
TARGETS = ("dx", "dy")
FREE = Constraints(LIBRARY, TARGETS)


def planted(seed=0, n=200, noise=0.1):
    """dx = -x + 2y, dy = -2x - 0.5y + 0.7xy"""
    rng = np.random.default_rng(seed)
    theta = LIBRARY.features(rng.normal(size=(n, 2)))
    coef = np.zeros((2, 6))
    coef[0, [1, 2]] = -1.0, 2.0
    coef[1, [1, 2, 4]] = -2.0, -0.5, 0.7
    return theta, theta @ coef.T + noise * rng.normal(size=(n, 2)), coef


def random_constraints(rng, coef, equalities=3, inequalities=3):
    """Random rows that the given coefficients satisfy, some of the limits with nothing to spare."""
    a, c = rng.normal(size=(equalities, coef.size)), rng.normal(size=(inequalities, coef.size))
    slack = rng.choice([0.0, 0.5], size=inequalities)
    return Constraints(LIBRARY, TARGETS, a, a @ coef.ravel(), c, c @ coef.ravel() + slack)


def test_equality_constrained_least_squares_satisfies_its_optimality_conditions():
    rng = np.random.default_rng(1)
    theta, y, coef = planted()
    constraints = random_constraints(rng, coef, inequalities=0)
    model = ConstrainedSTLSQ(constraints, threshold=0.0).fit(theta, y)
    gradient = ((theta @ model.coef_.T - y).T @ theta).ravel()
    multipliers = np.linalg.lstsq(constraints.equalities.T, gradient, rcond=None)[0]
    np.testing.assert_allclose(gradient, constraints.equalities.T @ multipliers, atol=1e-9)
    assert constraints.violation(model.coef_) < 1e-13


@given(seed=st.integers(0, 10_000))
@example(seed=184)  # a limit that barely matters
@settings(max_examples=20, deadline=None)
def test_a_quadratic_program_satisfies_its_optimality_conditions(seed):
    rng = np.random.default_rng(seed)
    theta, y, coef = planted(seed)
    constraints = random_constraints(rng, coef)
    w = ConstrainedSTLSQ(constraints, threshold=0.0).fit(theta, y).coef_
    assert constraints.violation(w) < 1e-10
    gradient = ((y - theta @ w.T).T @ theta).ravel()
    slack = constraints.bounds - constraints.inequalities @ w.ravel()
    active = constraints.inequalities[slack < 1e-8]
    multipliers = np.linalg.lstsq(np.vstack([constraints.equalities, active]).T, gradient, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([constraints.equalities, active]).T @ multipliers, gradient, atol=1e-6)
    assert (multipliers[len(constraints.equalities) :] > -1e-7).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_cvxpy_finds_the_same_coefficients(seed):
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(seed)
    theta, y, coef = planted(seed)
    c = random_constraints(rng, coef)
    w = cvxpy.Variable(coef.size)
    residual = cvxpy.hstack([theta @ w[:6] - y[:, 0], theta @ w[6:] - y[:, 1]])
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(residual)), [c.equalities @ w == c.values, c.inequalities @ w <= c.bounds]
    )
    problem.solve(solver="CLARABEL")
    ours = ConstrainedSTLSQ(c, threshold=0.0).fit(theta, y).coef_
    np.testing.assert_allclose(ours.ravel(), w.value, atol=1e-5)


def test_without_constraints_it_is_stlsq():
    theta, y, _ = planted()
    expected = STLSQ(threshold=0.1).fit(theta, y).coef_
    np.testing.assert_array_equal(ConstrainedSTLSQ(threshold=0.1).fit(theta, y).coef_, expected)
    elsewhere = FREE.fix("dx", "x*y", 0.0)  # true of the fit anyway, and dy is not touched
    np.testing.assert_allclose(ConstrainedSTLSQ(elsewhere, threshold=0.1).fit(theta, y).coef_, expected, rtol=1e-10)


def test_every_member_of_an_ensemble_satisfies_the_constraints():
    # pysindy's ensembles ignore them (its issue 267).
    theta, y, _ = planted(noise=0.5)
    constraints = (
        FREE.equal(("dx", "y"), ("dy", "x"), -1.0).fix("dy", "x*y", 0.7).nonpositive("dx", "x").nonnegative("dy", "y")
    )
    for drop in (0, 2):
        base = ConstrainedSTLSQ(constraints, threshold=0.1)
        model = Ensemble(base, n_members=30, drop_columns=drop, aggregate="mean", random_state=0).fit(theta, y)
        assert np.ptp(model.coef_[:, 0, 2]) > 0.01
        for member in model.coef_:
            assert constraints.violation(member) < 1e-12
        assert (model.coef_[:, 1, 4] == 0.7).all()
        assert constraints.violation(model.aggregate_coef_) < 1e-12


def test_known_terms_survive_any_threshold_and_ties_are_dropped_together():
    theta, y, _ = planted()
    constraints = FREE.fix("dy", "x*y", 0.7).equal(("dx", "x"), ("dy", "x"), 0.5)
    model = ConstrainedSTLSQ(constraints, threshold=1.5).fit(theta, y)
    assert model.coef_[1, 4] == 0.7
    # dx/x = -1 falls to the threshold and takes dy/x = -2 with it.
    np.testing.assert_array_equal(model.support_, [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]])


def test_terms_whose_sum_is_known_are_not_all_dropped():
    theta, y, _ = planted()
    constraints = FREE.linear({("dx", "x"): 1.0, ("dx", "x^2"): 1.0, ("dx", "y^2"): 1.0}, -1.0)
    model = ConstrainedSTLSQ(constraints, threshold=50.0).fit(theta, y)
    np.testing.assert_allclose(model.coef_[0], [0, -1, 0, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_a_round_limit_still_returns_coefficients_that_satisfy_the_constraints(alpha):
    theta, y, _ = planted(noise=1.0)
    constraints = FREE.linear({("dx", "x"): 1.0, ("dy", "y"): 2.0, ("dx", "1"): 1.0}, -2.0)
    with pytest.warns(match="still changed after max_iter=1"):
        model = ConstrainedSTLSQ(constraints, threshold=0.1, max_iter=1, alpha=alpha, unbias=True).fit(theta, y)
    assert not model.converged_
    assert constraints.violation(model.coef_) < 1e-13


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_normalized_thresholds_do_not_depend_on_units(unit):
    theta, y, _ = planted()
    units = np.array([1.0, unit, 1.0, unit**2, unit, 1.0])  # x measured in another unit
    factor = np.outer([unit, 1.0], 1 / units)  # and with it dx
    tie = FREE.equal(("dx", "y"), ("dy", "x"), -1.0).nonpositive("dx", "x^2")
    scaled = FREE.equal(("dx", "y"), ("dy", "x"), -factor[0, 2] / factor[1, 1]).nonpositive("dx", "x^2")
    reference = ConstrainedSTLSQ(tie, threshold=0.1, normalize=True).fit(theta, y).coef_
    other = ConstrainedSTLSQ(scaled, threshold=0.1, normalize=True).fit(theta * units, y * [unit, 1.0]).coef_
    np.testing.assert_allclose(other / factor, reference, rtol=1e-8, atol=1e-12)


def test_nearly_dependent_columns_are_solved_accurately():
    rng = np.random.default_rng(0)
    theta, _, coef = planted()
    theta[:, 5] = theta[:, 1] + 1e-8 * rng.normal(size=len(theta))
    constraints = FREE.equal(("dx", "y"), ("dy", "x"), -1.0)
    model = ConstrainedSTLSQ(constraints, threshold=0.01).fit(theta, theta @ coef.T)
    assert model.method_ == "qr"
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)


def test_agrees_with_pysindy_where_both_solve_the_same_problem():
    pysindy = pytest.importorskip("pysindy")
    theta, y, _ = planted()
    constraints = FREE.equal(("dx", "y"), ("dy", "x"), -1.0).fix("dy", "x*y", 0.7)
    # Without sparsity and with a loose relaxation, ConstrainedSR3 minimizes the same sum of squares.
    oracle = pysindy.ConstrainedSR3(
        reg_weight_lam=0.0,
        relax_coeff_nu=1e8,
        constraint_lhs=constraints.equalities,
        constraint_rhs=constraints.values,
        equality_constraints=True,
        tol=1e-12,
        max_iter=1000,
    ).fit(theta, y)
    ours = ConstrainedSTLSQ(constraints, threshold=0.0).fit(theta, y)
    np.testing.assert_allclose(ours.coef_, oracle.coef_, atol=2e-5)


def test_refitted_members_satisfy_the_constraints_on_the_support():
    theta, y, _ = planted(noise=0.5)
    constraints = FREE.equal(("dx", "y"), ("dy", "x"), -1.0).nonpositive("dx", "x")
    model = ConstrainedSTLSQ(constraints, threshold=0.2).fit(theta, y)
    members = model.refit_members(theta, y, model.coef_, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(members[0], model.coef_)
    assert ((members != 0) <= model.support_).all()
    assert members.std(axis=0).max() > 0.01
    assert constraints.violation(members) < 1e-12


def test_a_sign_that_the_data_contradict_leaves_the_term_out_exactly():
    theta, y, _ = planted()
    model = ConstrainedSTLSQ(FREE.nonnegative("dx", "x"), threshold=0.0).fit(theta, y)
    assert model.coef_[0, 1] == 0.0
    bounded = ConstrainedSTLSQ(FREE.between("dx", "x", -0.75, 3.0), threshold=0.0).fit(theta, y)
    assert bounded.coef_[0, 1] == pytest.approx(-0.75, abs=1e-12)


def test_a_conserved_quantity_is_conserved_by_what_is_found():
    energy = SymbolicMap(["x", "y"], {"H": Variable("x") ** 2 + 2.0 * Variable("y") ** 2})
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 2))
    theta = LIBRARY.features(x)
    truth = np.zeros((2, 6))
    truth[0, [2, 4]], truth[1, [1, 3]] = [2.0, 1.0], [-1.0, -0.5]
    y = theta @ truth.T + 0.3 * rng.normal(size=(300, 2))
    constraints = FREE.conserve(energy)
    assert constraints.violation(truth) < 1e-12
    model = ConstrainedSTLSQ(constraints, threshold=0.15).fit(theta, y)
    at = rng.normal(size=(50, 2)) * 10
    change = (LIBRARY.features(at) @ model.coef_.T * (at * [2, 4])).sum(axis=1)
    np.testing.assert_allclose(change, 0, atol=1e-9)
    np.testing.assert_array_equal(model.support_, truth != 0)


def test_a_conserved_quantity_with_known_kinematics_fixes_the_forces():
    library = (polynomial_library(1, bias=True) + trigonometric_library(of=["angle"])).bind(["angle", "rate"], ["u"])
    angle, rate = Variable("angle"), Variable("rate")
    energy = SymbolicMap(["angle", "rate"], {"H": 0.5 * rate**2 - 9.81 * cos(angle)})
    constraints = Constraints(library, ["drate"]).conserve(energy, {"angle": "rate", "rate": "drate"})
    model = ConstrainedSTLSQ(constraints, threshold=1e-6).fit(np.eye(len(library)), np.zeros(len(library)))
    np.testing.assert_allclose(model.coef_[library.index("sin(angle)")], -9.81, rtol=1e-9)
    assert np.count_nonzero(model.coef_) == 1
    with pytest.raises(InfeasibleConstraints, match="No combination of the library's terms"):
        Constraints(library.without("sin(angle)"), ["drate"]).conserve(energy, {"angle": "rate", "rate": "drate"})
    with pytest.raises(ValueError, match="must name the rate of 'angle'"):
        Constraints(library, ["drate"]).conserve(energy)


def test_translation_leaves_differences_only():
    library = polynomial_library(2).bind(["a", "b"])
    together = Constraints(library, ["da"]).translation({"a": 1.0, "b": 1.0})
    difference = np.array([1.0, -1.0, 0.5, -1.0, 0.5])  # (a - b) + (a - b)^2/2
    assert together.violation(difference) < 1e-12
    assert np.linalg.matrix_rank(together.equalities) == 3
    alone = Constraints(library, ["da"]).translation("a")
    assert alone.violation([0, 3.0, 0, 0, 2.0]) < 1e-15
    assert alone.violation([1e-3, 0, 0, 0, 0]) > 1e-4


def test_a_periodic_angle_keeps_sines_and_drops_powers():
    library = (polynomial_library(2) + trigonometric_library(2, of=["q"])).bind(["q", "w"])
    constraints = Constraints(library, ["dw"]).periodic("q")
    allowed = {
        name for index, name in enumerate(library.names) if constraints.violation(np.eye(len(library))[[index]]) < 1e-12
    }
    assert allowed == {"w", "w^2", "sin(q)", "cos(q)", "sin(2*q)", "cos(2*q)"}


def test_reduced_rows_keep_the_solutions_and_drop_what_is_redundant():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 6))
    w = rng.normal(size=6)
    many = rng.normal(size=(8, 3)) @ rows
    reduced, values = reduced_rows(many, many @ w)
    assert reduced.shape == (3, 6)
    np.testing.assert_allclose(reduced @ w, values, atol=1e-10)
    np.testing.assert_allclose(np.linalg.matrix_rank(np.vstack([reduced, rows])), 3)


def test_contradictions_and_wrong_use_are_refused():
    theta, y, _ = planted()
    for clash in (FREE.fix("dx", "x", 1.0).fix("dx", "x", 2.0), FREE.fix("dx", "x", 1.0).nonpositive("dx", "x")):
        with pytest.raises(InfeasibleConstraints):
            ConstrainedSTLSQ(clash).fit(theta, y)
    with pytest.raises(ValueError, match="no term 'z'"):
        FREE.fix("dx", "z", 1.0)
    with pytest.raises(ValueError, match="no target 'dz'"):
        FREE.fix("dz", "x", 1.0)
    with pytest.raises(ValueError, match="finite"):
        FREE.fix("dx", "x", np.nan)
    with pytest.raises(ValueError, match=r"for 2 targets and 6 terms. Got data with 1 targets and 6 columns"):
        ConstrainedSTLSQ(FREE.fix("dx", "x", 1.0)).fit(theta, y[:, 0])
    with pytest.raises(TypeError, match="must be `Constraints` or None"):
        ConstrainedSTLSQ("x > 0").fit(theta, y)
    with pytest.raises(ValueError, match=r"rows, 12"):
        Constraints(LIBRARY, TARGETS, np.ones((1, 5)), [0.0])


def test_constraints_are_shared_by_clones_and_readable():
    constraints = FREE.equal(("dx", "y"), ("dy", "x"), -1.0).nonpositive("dx", "x")
    assert clone(ConstrainedSTLSQ(constraints)).constraints is constraints
    assert str(constraints) == "+1 [dx: y] +1 [dy: x] = 0\n+1 [dx: x] <= 0"
    assert len(FREE) == 0


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_rows_that_come_in_parts_satisfy_the_constraints_too(seed):
    theta, y, _ = planted(seed)
    constraints = FREE.equal(("dx", "y"), ("dy", "x"), -1.0).nonpositive("dx", "x")
    whole, parts = (ConstrainedSTLSQ(constraints, threshold=0.2) for _ in range(2))
    whole.fit(theta, y)
    for start in range(0, len(theta), 50):
        parts.partial_fit(theta[start : start + 50], y[start : start + 50])
    np.testing.assert_allclose(parts.coef_, whole.coef_, atol=1e-10)
    assert constraints.violation(parts.coef_) < 1e-12


def test_identify_keeps_the_constraints_in_every_member_of_the_model():
    rng = np.random.default_rng(0)
    t = 0.02 * np.arange(401)
    # A lightly damped oscillator: dx = v, dv = -4x - 0.1v.
    x = np.exp(-0.05 * t) * np.cos(1.999 * t)
    data = Trajectory(t, np.column_stack([x, np.gradient(x, t)]) + 1e-3 * rng.normal(size=(401, 2)), states=["x", "v"])
    library = polynomial_library(2).bind(["x", "v"])
    constraints = Constraints(library, ("dx", "dv")).fix("dx", "v", 1.0).equal(("dv", "x"), ("dv", "v"), 40.0)
    fit = identify(
        data, library, structure=Derivative(), regressor=ConstrainedSTLSQ(constraints, threshold=0.05), inclusion=False
    )
    coef = fit.model.rates.coef
    assert coef.shape[0] > 1
    assert np.ptp(coef[:, 1, 0]) > 0
    assert constraints.violation(coef) < 1e-12
    np.testing.assert_allclose(coef[0, 1, :2], [-4.0, -0.1], rtol=0.05)
