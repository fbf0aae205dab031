"""Energy-preserving quadratic systems: the constraint removes exactly the cubic form; trapped motion stays trapped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from sindyrl.library import custom_library, polynomial_library
from sindyrl.regression.constrained import ConstrainedSTLSQ
from sindyrl.regression.constraints import Constraints, InfeasibleConstraints
from sindyrl.regression.energy import TrappingSTLSQ, energy_preserving, trapping_region
from sindyrl.sparse_map import SparseMap

NAMES = ("x", "y", "z")
TARGETS = ("dx", "dy", "dz")
LIBRARY = polynomial_library(2, bias=True).bind(NAMES)


def lorenz(sigma=10.0, rho=28.0, beta=8 / 3):
    coef = np.zeros((3, len(LIBRARY)))
    index = LIBRARY.index
    coef[0, [index("x"), index("y")]] = -sigma, sigma
    coef[1, [index("x"), index("y"), index("x*z")]] = rho, -1.0, -1.0
    coef[2, [index("z"), index("x*y")]] = -beta, 1.0
    return SparseMap(LIBRARY, coef, TARGETS)


def quadratic_part(model, x):
    """Q(x, x) of a quadratic map: its even part less the constant."""
    return (model(x) + model(-x)) / 2 - model(np.zeros_like(x))


def noisy_fit(seed, noise=1.0, threshold=0.3, constrain=energy_preserving):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 3)) * 3
    y = lorenz()(x) + noise * rng.normal(size=(400, 3))
    constraints = constrain(Constraints(LIBRARY, TARGETS))
    fit = ConstrainedSTLSQ(constraints, threshold=threshold).fit(LIBRARY.features(x), y)
    return SparseMap(LIBRARY, fit.coef_, TARGETS), constraints


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_constraint_has_the_dimension_of_cubic_forms(n):
    names = [f"x{i}" for i in range(n)]
    library = polynomial_library(2, bias=True).bind(names)
    constraints = energy_preserving(Constraints(library, [f"d{name}" for name in names]))
    assert len(constraints) == n * (n + 1) * (n + 2) // 6  # one row for each cubic monomial
    assert np.linalg.matrix_rank(constraints.equalities) == len(constraints)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_quadratic_terms_of_a_fit_do_no_work(seed):
    model, constraints = noisy_fit(seed, noise=20.0, threshold=0.01)
    x = np.random.default_rng(seed).normal(size=(30, 3)) * 10
    q = quadratic_part(model, x)
    assert np.abs(q).max() > 1
    np.testing.assert_allclose((x * q).sum(axis=1), 0, atol=1e-9 * np.abs(q).max() * 30)
    assert constraints.violation(model.coef) < 1e-10
    free, _ = noisy_fit(seed, noise=20.0, threshold=0.01, constrain=lambda constraints: constraints)
    assert constraints.violation(free.coef) > 1e-3


def test_linear_cubic_and_input_terms_stay_free():
    library = (polynomial_library(3) + custom_library([lambda x, u: x * u])).bind(["x", "y"], ["u"])
    constraints = energy_preserving(Constraints(library, ["dx", "dy"]))
    touched = constraints.equalities.reshape(-1, 2, len(library)).any(axis=(0, 1))
    assert {library.names[i] for i in np.flatnonzero(touched)} == {"x^2", "x*y", "y^2"}
    rotation = np.zeros((2, len(library)))
    rotation[0, library.index("x*y")], rotation[1, library.index("x^2")] = 1.0, -1.0
    rotation[:, library.index("x^3")] = 5.0
    assert constraints.violation(rotation) < 1e-14


def test_pysindy_builds_the_same_constraint_space():
    pysindy = pytest.importorskip("pysindy")
    from pysindy.optimizers.trapping_sr3 import _make_constraints

    library = polynomial_library(2).bind(NAMES)
    # Its own column order: no constant, then x, y, z, x^2, x*y, ...; grouped by feature.
    built = _make_constraints(3, include_bias=False)
    _, matrix = built
    theirs = np.asarray(matrix).reshape(len(matrix), len(library), 3).transpose(0, 2, 1).reshape(len(matrix), -1)
    ours = energy_preserving(Constraints(library, TARGETS)).equalities
    rank = np.linalg.matrix_rank
    assert pysindy
    assert rank(theirs) == rank(ours) == rank(np.vstack([theirs, ours]))


def test_lorenz_is_trapped_at_least_as_tightly_as_by_the_textbook_ball():
    report = trapping_region(lorenz())
    assert report.trapped
    assert report.energy_residual < 1e-12
    # Around (0, 0, sigma + rho): S = diag(-10, -1, -8/3), f = (0, 0, -8/3 * 38).
    assert report.radius <= 8 / 3 * 38 * (1 + 1e-6)
    assert "Bounded" in str(report)
    motion = solve_ivp(lambda t, x: lorenz()(x), (0, 20), [30.0, -60.0, 90.0], rtol=1e-8, atol=1e-8)
    distance = np.linalg.norm(motion.y.T - report.center, axis=1)
    assert distance[motion.t > 5].max() < report.radius


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_on_the_sphere_of_the_ball_the_motion_points_inward(seed):
    rng = np.random.default_rng(seed)
    model = lorenz(rng.uniform(1, 20), rng.uniform(5, 50), rng.uniform(0.5, 5))
    report = trapping_region(model)
    assert report.trapped
    direction = rng.normal(size=(200, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    x = report.center + report.radius * (1 + 1e-9) * direction
    assert ((model(x) * direction).sum(axis=1) <= 1e-9 * report.radius).all()


def test_the_region_moves_with_the_origin():
    from sindyrl.expression import Variable, substitute
    from sindyrl.symbolic_map import SymbolicMap

    shift = np.array([30.0, -20.0, 50.0])
    moved = substitute(lorenz().symbolic().nodes, {n: Variable(n) - s for n, s in zip(NAMES, shift, strict=True)})
    report = trapping_region(SymbolicMap(NAMES, dict(zip(TARGETS, moved, strict=True))))
    reference = trapping_region(lorenz())
    assert report.trapped
    assert report.radius == pytest.approx(reference.radius, rel=0.05)  # both end in a local search
    # Turned by half about z the equations are the same, so that either of two centers may be found.
    turned = np.sign((report.center - shift)[0] * reference.center[0])
    np.testing.assert_allclose(report.center - shift, reference.center * [turned, turned, 1.0], atol=1.0)


def test_growth_is_not_trapped():
    coef = np.zeros((3, len(LIBRARY)))
    coef[[0, 1, 2], [1, 2, 3]] = 0.5, -1.0, -1.0
    report = trapping_region(SparseMap(LIBRARY, coef, TARGETS))
    assert not report.trapped
    assert report.radius == np.inf
    assert "some direction grows" in str(report)
    # A preserved direction with growth stays untrapped even with energy-preserving terms elsewhere.
    coef[1, LIBRARY.index("z^2")], coef[2, LIBRARY.index("y*z")] = 1.0, -1.0
    assert not trapping_region(SparseMap(LIBRARY, coef, TARGETS)).trapped


def test_a_quadratic_force_that_does_work_is_named():
    coef = np.array(lorenz().coef)
    coef[0, LIBRARY.index("x^2")] = 0.1
    report = trapping_region(SparseMap(LIBRARY, coef, TARGETS))
    assert not report.trapped
    assert "change the energy" in str(report)


def test_a_constrained_fit_of_noisy_lorenz_data_is_trapped():
    model, _ = noisy_fit(0)
    np.testing.assert_array_equal(model.support, lorenz().support)
    assert trapping_region(model).trapped


def test_other_forms_are_refused():
    library = polynomial_library(3).bind(["x"])
    with pytest.raises(ValueError, match="quadratic polynomial"):
        trapping_region(SparseMap(library, [[1.0, 0, 1.0]], ["dx"]))
    with pytest.raises(ValueError, match=r"one output for each of its 3 inputs"):
        trapping_region(lorenz().symbolic().select(["dx"]))
    with pytest.raises(ValueError, match=r"must have the targets"):
        energy_preserving(Constraints(LIBRARY, ["dx", "dy"]))


def weakly_damped(seed, n=60):
    """Noisy rates of a slow energy-preserving system; short data often give it growth."""
    rng = np.random.default_rng(seed)
    coef = np.zeros((3, len(LIBRARY)))
    index = LIBRARY.index
    coef[[0, 1, 2], [index("x"), index("y"), index("z")]] = -0.05, -0.1, -0.05
    coef[0, index("y*z")], coef[1, index("x*z")], coef[2, index("x*y")] = 1.0, -2.0, 1.0
    x = rng.normal(size=(n, 3))
    return LIBRARY.features(x), SparseMap(LIBRARY, coef, TARGETS)(x) + 0.5 * rng.normal(size=(n, 3))


def test_a_trapping_fit_is_trapped_where_the_energy_preserving_fit_is_not():
    free = Constraints(LIBRARY, TARGETS).fix("dx", "y*z", 1.0)
    grown = 0
    for seed in range(3):
        theta, y = weakly_damped(seed)
        loose = ConstrainedSTLSQ(energy_preserving(free), threshold=0.01).fit(theta, y)
        fit = TrappingSTLSQ(free, threshold=0.01, decay=0.02).fit(theta, y)
        report = trapping_region(SparseMap(LIBRARY, fit.coef_, TARGETS))
        assert report.trapped
        assert energy_preserving(free).violation(fit.coef_) < 1e-12
        errors = [np.linalg.norm(y - theta @ coef.T) for coef in (loose.coef_, fit.coef_, 0 * fit.coef_)]
        assert errors[0] <= errors[1] * (1 + 1e-9) < errors[2]
        assert errors[1] < 1.2 * errors[0]
        grown += not trapping_region(SparseMap(LIBRARY, loose.coef_, TARGETS)).trapped
    assert grown > 0  # or the test would show nothing


def test_a_trapping_fit_of_a_trapped_system_is_the_energy_preserving_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) * 3
    y = lorenz()(x) + rng.normal(size=(400, 3))
    free = Constraints(LIBRARY, TARGETS)
    fit = TrappingSTLSQ(free, threshold=0.3).fit(LIBRARY.features(x), y)
    expected = ConstrainedSTLSQ(energy_preserving(free), threshold=0.3).fit(LIBRARY.features(x), y)
    np.testing.assert_array_equal(fit.coef_, expected.coef_)


def test_an_impossible_or_wrong_trapping_fit_is_refused():
    theta, y = weakly_damped(0)
    growing = Constraints(LIBRARY, TARGETS)
    for target, name in zip(TARGETS, NAMES, strict=True):
        growing = growing.fix(target, name, 1.0)
        growing = growing.exclude(target, "x^2", "x*y", "x*z", "y^2", "y*z", "z^2")
    with pytest.raises(InfeasibleConstraints, match="trap the motion"):
        TrappingSTLSQ(growing).fit(theta, y)
    with pytest.raises(ValueError, match=r"must be a positive number. Got 0"):
        TrappingSTLSQ(growing, decay=0).fit(theta, y)
    with pytest.raises(TypeError, match="must be `Constraints`"):
        TrappingSTLSQ().fit(theta, y)
