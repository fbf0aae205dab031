r"""Quadratic systems whose nonlinearity conserves energy: the constraint, and whether all motion stays bounded.

``dx/dt = c + L x + Q(x, x)`` with ``x . Q(x, x) = 0`` for all x: the form of fluid models and of the Lorenz system.
Around a center m, with y = x - m, the energy obeys

    d/dt |y|^2 / 2  =  y . f(m)  +  y . S(m) y,      S(m) the symmetric part of the Jacobian of f at m,

since the cubic terms cancel.  If some m makes S(m) negative definite, every trajectory ends up inside the ball of
radius ``|f(m)| / -lambda_max(S(m))`` around m.  S is affine in m, so the best center is a semidefinite program.

References: Lorenz, J. Atmos. Sci. 20, 1963; Schlegel, Noack, J. Fluid Mech. 765, 2015 (the criterion);
Kaptanoglu et al., Phys. Rev. Fluids 6, 2021 (in sparse regression).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize

from sindyrl.number_check import check_number
from sindyrl.regression.constrained import ConstrainedSTLSQ, LeastSquaresSystem
from sindyrl.regression.constraints import Constraints, InfeasibleConstraints, reduced_rows
from sindyrl.regression.gram import Problem, SparseFit
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap

__all__ = ["TrappingReport", "TrappingSTLSQ", "energy_preserving", "trapping_region"]

_ROUNDING = 1e-9  # relative: smaller deviations from a quadratic form are rounding
_FARTHEST = 1e4  # centers are searched within this many times the system's own length scale
_DECAY_STEPS = 6
_ALTERNATIONS = 10


@dataclasses.dataclass(frozen=True)
class TrappingReport:
    """Whether a ball that no motion leaves was found.

    trapped : the quadratic terms preserve energy and ``growth < 0``
    center : (state,) m, in the units of the states
    growth : largest eigenvalue of S(m); for an untrapped system the smallest that any center within reach attains
    radius : of the ball around m that every motion enters and never leaves; infinite if not trapped
    energy_residual : largest coefficient of the cubic form ``x . Q(x, x)`` relative to the largest of Q
    """

    trapped: bool
    center: np.ndarray
    growth: float
    radius: float
    energy_residual: float

    def __str__(self) -> str:
        where = ", ".join(f"{value:.4g}" for value in self.center)
        if self.trapped:
            return f"Bounded: every motion enters the ball of radius {self.radius:.4g} around ({where})."
        if self.energy_residual > _ROUNDING:
            return (
                "Not shown to be bounded: the quadratic terms change the energy "
                f"(relative {self.energy_residual:.2g}). Fit with `energy_preserving` constraints."
            )
        return f"Not shown to be bounded: around every center some direction grows (at best {self.growth:.3g})."


def energy_preserving(constraints: Constraints) -> Constraints:
    """``constraints`` and: the quadratic terms do not change ``|x|^2``, ``sum_k x_k Q_k(x, x) = 0`` for all x.

    The targets must be ``d<state>`` for every state of the library.  Terms that are no quadratic monomials of the
    states stay as free as they are.  Raises ValueError otherwise.
    """
    library = constraints.library
    wanted = tuple(f"d{name}" for name in library.states)
    if set(constraints.targets) != set(wanted):
        raise ValueError(f"`energy_preserving(constraints=...)` must have the targets {wanted}: {constraints.targets}.")
    points = np.random.default_rng(0).normal(size=(8, len(library.variables)))
    with np.errstate(all="ignore"):
        theta, doubled, tripled = (library.features(scale * points) for scale in (1.0, 2.0, 3.0))
    quadratic = np.isclose(doubled, 4 * theta, rtol=1e-12).all(axis=0)
    quadratic &= np.isclose(tripled, 9 * theta, rtol=1e-12).all(axis=0)
    if not quadratic.any():
        return constraints
    energy = SymbolicMap(library.states, {"H": _half_square(library.states)})
    part = Constraints(library.select(np.flatnonzero(quadratic).tolist()), constraints.targets).conserve(energy)
    rows = np.zeros((len(part), *constraints.shape))
    rows[:, :, quadratic] = part.equalities.reshape(len(part), len(wanted), -1)
    return constraints.with_equalities(rows.reshape(len(part), -1), part.values)


def _half_square(names: tuple[str, ...]) -> Any:
    from sindyrl.expression import Constant, Power, Variable

    total: Any = None
    for name in names:
        square = Constant(0.5) * Power(Variable(name), 2)
        total = square if total is None else total + square
    return total


class TrappingSTLSQ(ConstrainedSTLSQ):
    """`ConstrainedSTLSQ` of a quadratic system whose motion is shown to stay bounded.

    The fit preserves energy (`energy_preserving` is added to the constraints).  If its linear terms do not trap it, the
    coefficients on its support are refitted with ``S(m) <= -decay`` for a center m: for given m a semidefinite program,
    alternated with the best m for given coefficients.  The alternation ends in a local optimum.

    Parameters
    ----------
    constraints : Constraints
        Over a library of quadratic polynomials of the states, with targets ``d<state>``.
    decay : float, default 0.01
        Least rate of decay of the energy's square root far out, in 1/time.
    threshold, alpha, max_iter, normalize, unbias : as in `ConstrainedSTLSQ`

    Equalities hold to rounding; inequalities, in a refit, to about 1e-8 of the largest coefficient.
    Members of an `Ensemble` are trapped one by one (their mean need not be). `refit_members` keeps the linear
    constraints only.
    `fit` raises InfeasibleConstraints if no coefficients trap the motion, ValueError for another library or targets.

    Reference: Kaptanoglu et al., Phys. Rev. Fluids 6:094401, 2021 (the idea; there by relaxation).
    """

    def __init__(
        self,
        constraints: Constraints | None = None,
        *,
        decay: float = 0.01,
        threshold: float | Sequence[float] = 0.1,
        alpha: float = 0.0,
        max_iter: int = 20,
        normalize: bool = False,
        unbias: bool = False,
    ) -> None:
        super().__init__(
            constraints, threshold=threshold, alpha=alpha, max_iter=max_iter, normalize=normalize, unbias=unbias
        )
        self.decay = decay

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.constraints, Constraints):
            raise TypeError(f"`TrappingSTLSQ(constraints=...)` must be `Constraints`. Got {self.constraints!r}.")
        check_number("TrappingSTLSQ(decay=...)", self.decay, "a positive number", lambda value: 0 < value < np.inf)

    def _constraints(self) -> Constraints | None:
        return None if self.constraints is None else energy_preserving(self.constraints)

    def fit_problem(self, problem: Problem, columns: np.ndarray | None = None) -> SparseFit:
        """See `STLSQ.fit_problem`."""
        fit = super().fit_problem(problem, columns)
        constraints = self._constraints()
        assert constraints is not None  # `_check_parameters`
        report = _report(constraints, fit.coef)
        if report.growth <= -self.decay:
            return fit
        offered = np.zeros(problem.shape, dtype=bool)
        offered[:, slice(None) if columns is None else columns] = True
        # The support may lack the damping that bounds the motion; then all terms that may enter do.
        for active in (fit.coef != 0, offered):
            coef = self._trapped(problem, constraints, np.flatnonzero(active), report.center)
            if coef is not None:
                return SparseFit(coef, fit.converged, fit.rounds)
        raise InfeasibleConstraints(
            f"No coefficients found that trap the motion with decay={self.decay}. Lower `decay`, or add linear terms."
        )

    def _trapped(
        self, problem: Problem, constraints: Constraints, active: np.ndarray, center: np.ndarray
    ) -> np.ndarray | None:
        """Coefficients on the flat indices ``active``, from alternating coefficients and center; None if infeasible."""
        system = LeastSquaresSystem(problem, np.asarray(self._ridge(problem)), self.normalize)
        matrix, right, scale = system.assembled(active)
        best, lowest = None, np.inf
        for _ in range(_ALTERNATIONS):
            coef = _semidefinite_fit(constraints, active, matrix, right, scale, center, self.decay)
            if coef is None:
                break
            error = float(np.linalg.norm(matrix @ (coef.flat[active] * scale) - right))
            if error >= lowest * (1 - 1e-6):
                break
            best, lowest = coef, error
            center = _report(constraints, coef).center
        return best


def _report(constraints: Constraints, coef: np.ndarray) -> TrappingReport:
    """Targets in the order of the states."""
    order = [constraints.targets.index(f"d{name}") for name in constraints.library.states]
    targets = tuple(constraints.targets[index] for index in order)
    return trapping_region(SparseMap(constraints.library, coef[order], targets))


def _semidefinite_fit(
    constraints: Constraints,
    active: np.ndarray,
    matrix: np.ndarray,
    right: np.ndarray,
    scale: np.ndarray,
    center: np.ndarray,
    decay: float,
) -> np.ndarray | None:
    """Least squares under the constraints and ``S(center) <= -decay``; (target, feature), None if infeasible."""
    import cvxpy

    library, n = constraints.library, len(center)
    slopes = library.symbolic().jacobian()(center).reshape(len(library), n)
    size = max(float(np.linalg.norm(right)), np.finfo(float).tiny)
    w = cvxpy.Variable(len(active))
    tilt = []
    for target, term in zip(*np.divmod(active, len(library)), strict=True):
        row = np.zeros((n, n))
        row[library.states.index(constraints.targets[target][1:])] = slopes[term]
        tilt.append(_symmetric(row).ravel())
    symmetric = cvxpy.reshape((np.array(tilt).T / scale * size) @ w, (n, n), order="C")
    equal, values = reduced_rows(constraints.equalities[:, active] / scale, constraints.values / size)
    limit, bounds = constraints.inequalities[:, active] / scale, constraints.bounds / size
    rules = [(symmetric + symmetric.T) / 2 << -decay * (1 + 1e-4) * np.eye(n)]
    rules += [equal @ w == values] if len(equal) else []
    rules += [limit @ w <= bounds] if len(limit) else []
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(matrix @ w - right / size)), rules)
    problem.solve(solver="CLARABEL")
    if w.value is None:
        return None
    found = w.value - np.linalg.pinv(equal) @ (equal @ w.value - values) if len(equal) else w.value
    coef = np.zeros(constraints.shape)
    coef.flat[active] = found * size / scale
    return coef


def trapping_region(system: SparseMap | SymbolicMap) -> TrappingReport:
    """Search for a ball that every motion of ``dx/dt = f(x)`` enters and none leaves.

    system : f with one output for each state, in the order of its inputs, all quadratic polynomials without inputs u;
        of an ensemble, its aggregate

    A found region is a proof up to rounding; none found is no proof of unboundedness if ``energy_residual`` is not
    zero.
    Raises ValueError if f is not a quadratic polynomial of its states.
    """
    f = system.symbolic() if isinstance(system, SparseMap) else system
    c, linear, quadratic = _taylor(f)
    scale = float(np.abs(quadratic).max(initial=0.0))
    cubic = (quadratic + np.transpose(quadratic, (1, 2, 0)) + np.transpose(quadratic, (2, 0, 1))) / 3
    residual = float(np.abs(cubic).max(initial=0.0) / scale) if scale else 0.0
    center, growth, radius = _best_ball(c, linear, quadratic)
    trapped = residual <= _ROUNDING and growth < -_ROUNDING * max(float(np.abs(linear).max()), scale)
    return TrappingReport(trapped, center, growth, radius if trapped else np.inf, residual)


def _taylor(f: SymbolicMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """c (n,), L (n, n), Q (n, n, n) symmetric in the last two, of ``f_i = c_i + L_ij x_j + Q_ijk x_j x_k``."""
    n = len(f.inputs)
    if len(f.outputs) != n:
        raise ValueError(
            f"`trapping_region(system=...)` must have one output for each of its {n} inputs {f.input_names}. "
            f"Got {len(f.outputs)}."
        )
    origin = np.zeros(n)
    c, jacobian = f(origin), f.jacobian()
    linear = jacobian(origin).reshape(n, n)
    quadratic = np.stack([(jacobian(unit).reshape(n, n) - linear) for unit in np.eye(n)], axis=2) / 2
    points = np.random.default_rng(0).normal(size=(4 * n + 8, n)) * 3
    expected = c + points @ linear.T + np.einsum("ijk,sj,sk->si", quadratic, points, points)
    actual = f(points)
    if not np.allclose(actual, expected, rtol=1e-9, atol=1e-9 * (1e-300 + np.abs(expected).max())):
        raise ValueError("`trapping_region(system=...)` must be a quadratic polynomial of its states. It is not.")
    return c, linear, quadratic


def _best_ball(c: np.ndarray, linear: np.ndarray, quadratic: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Center, largest eigenvalue there, and the radius of the smallest ball found."""
    n = len(c)
    scale = float(np.abs(quadratic).max(initial=0.0))
    size = float(np.abs(linear).max(initial=0.0))
    if scale == 0 or size == 0:
        return _ball(np.zeros(n), c, linear, quadratic)
    import cvxpy

    # In units of the length at which quadratic and linear terms balance, and of the linear rates.
    m, bound = cvxpy.Variable(n), cvxpy.Parameter()
    base, slopes = _symmetric(linear) / size, [_symmetric(2 * quadratic[:, :, k]) / scale for k in range(n)]
    largest = cvxpy.lambda_max(base + sum(m[k] * slopes[k] for k in range(n)))
    steepest = cvxpy.Problem(cvxpy.Minimize(largest), [cvxpy.norm(m) <= _FARTHEST])
    steepest.solve(solver="CLARABEL")
    if m.value is None:
        return _ball(np.zeros(n), c, linear, quadratic)
    best = _ball(m.value * size / scale, c, linear, quadratic)
    if best[1] >= 0:
        return best
    # A gentler decay needs a center less far out; which is best is no convex question, so a local search from each.
    nearest = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(m)), [largest <= bound])
    for rate in np.geomspace(1.0, 1e-2, _DECAY_STEPS) * float(steepest.value):
        bound.value = rate
        nearest.solve(solver="CLARABEL")
        if m.value is not None:
            ball = _smaller_ball(m.value * size / scale, c, linear, quadratic)
            best = ball if ball[2] < best[2] else best
    return best


def _smaller_ball(
    m: np.ndarray, c: np.ndarray, linear: np.ndarray, quadratic: np.ndarray
) -> tuple[np.ndarray, float, float]:
    reach = max(float(np.linalg.norm(m)), np.finfo(float).tiny)
    simplex = m + 0.3 * reach * np.vstack([np.zeros(len(m)), np.eye(len(m))])
    found = optimize.minimize(
        lambda center: min(_ball(center, c, linear, quadratic)[2], 1e300),
        m,
        method="Nelder-Mead",
        options={"maxfev": 100 * len(m), "initial_simplex": simplex, "xatol": 1e-6 * reach, "fatol": 1e-6 * reach},
    )
    return _ball(found.x, c, linear, quadratic)


def _ball(m: np.ndarray, c: np.ndarray, linear: np.ndarray, quadratic: np.ndarray) -> tuple[np.ndarray, float, float]:
    growth = float(np.linalg.eigvalsh(_symmetric(linear + 2 * np.einsum("ijk,k->ij", quadratic, m)))[-1])
    drift = c + linear @ m + np.einsum("ijk,j,k->i", quadratic, m, m)
    return m, growth, float(np.linalg.norm(drift)) / -growth if growth < 0 else np.inf


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return np.asarray((matrix + matrix.T) / 2)
