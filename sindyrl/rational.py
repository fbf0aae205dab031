r"""From data to rational equations of motion, ``dx/dt = N(x, u) / D(x, u)``, as a model that steps like every other.

The relation ``N - D dx/dt = 0`` is sparse where ``N / D``, expanded in a library, is not: enzyme kinetics, or the
accelerations of linked bodies. `ImplicitSubset` finds it; here it is solved for the rate, so that the result
predicts, simulates, is saved and is exported. Errors are those of the explicit prediction throughout.

Three things beyond the regression:

* Collocation. Rows are midpoint estimates ``(x_{k+1} - x_k)/dt``, wrong by ``O(dt^2)`` even without noise, and enough
  further terms can imitate that error. So the found model is integrated over each step, what its own collocation is
  wrong by is subtracted from the rows, and the fit repeated (deferred correction), while that matters beside the
  residual.
* Poles. Interval arithmetic proves that the denominator has no zero in the box of the data, or a warning says that this
  is not so. In that case the model divides by ``max(D, 0)`` (``min`` where D is negative on the data): the same
  where D has the sign it has on the data, and infinite beyond, so that a simulation that reaches the pole ends there,
  with an outcome, and does not step over it.
* A model is a `SparseMap` whose terms are the quotients ``term / D``: coefficients of the numerator stay linear.

References: Mangan et al., IEEE Trans. Mol. Biol. Multi-Scale Commun. 2, 2016; Kaheman, Kutz, Brunton, Proc. R. Soc. A
476, 2020 (SINDy-PI); Stetter, Numer. Math. 29, 1978 (deferred correction).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from sindyrl.expression import Constant
from sindyrl.guard import Action, ActuatorReport, check_actuators, enforce
from sindyrl.library import Library, LibrarySpec, identity_library
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.poles import find_zero
from sindyrl.rational_map import RationalEquation, Term, rational_rates, weighted_sum
from sindyrl.regression.implicit import ImplicitSubset
from sindyrl.regression.weak import strong_rows
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["RationalFit", "identify_rational"]

Predicate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_ONE = Constant(1.0)
_LEAST_ROWS = 10
_UNEXPLAINED = 0.5  # of a target's size
_SUBSTEPS = 4  # Runge-Kutta steps per sample for the deferred correction
_MATTERS = 0.1  # of the residual: a smaller change of the correction is not worth another fit
_ROUNDING = 1e-9  # of a target's size


@dataclasses.dataclass(frozen=True, eq=False)
class RationalFit:
    """What `identify_rational` returns; ``str()`` is the report.

    model : steps, simulates, is saved and exported as every other
    equations : one for each target
    dropped : candidate terms above and below that are combinations of earlier ones on these data
    correction : (target,) RMS of what was subtracted from the rows for the collocation's own error
    rows, excluded : transitions used, and left out by ``exclude``
    actuators : as in `Fit`
    """

    model: Model
    equations: tuple[RationalEquation, ...]
    dropped: tuple[tuple[str, ...], tuple[str, ...]]
    correction: np.ndarray
    rows: int
    excluded: int
    actuators: ActuatorReport | None

    def __str__(self) -> str:
        lines = []
        for equation in self.equations:
            lines.append(str(equation))
            lines.append(
                f"    residual {equation.residual_rms:.2g}{f' {equation.unit}' if equation.unit else ''}, "
                f"{100 * equation.relative_error:.2g} % of its size; held out {100 * equation.held_out:.2g} %; "
                f"condition {equation.condition:.3g}; denominator: {equation.zero}"
            )
            for part, terms in (("above", equation.numerator), ("below", equation.denominator)):
                for term in terms:
                    error = f"± {term.standard_error:.1g}" if term.standard_error else ""
                    lines.append(f"    {part} {term.coefficient:+10.4g} {error:<10s} {term.name}")
        lines.append(f"{self.rows} transitions ({self.excluded} excluded)")
        return "\n".join(lines)


def identify_rational(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library,
    *,
    denominator: LibrarySpec | Library | None = None,
    structure: Structure | None = None,
    regressor: ImplicitSubset | None = None,
    exclude: Predicate | None = None,
    states: Sequence[Signal] | None = None,
    inputs: Sequence[Signal] | None = None,
    unit: str | Mapping[str, str] | None = None,
    smooth: bool = False,
    corrections: int = 3,
    actuators: Action = "error",
) -> RationalFit:
    r"""Find sparse rational equations ``target = N / D`` (SINDy-PI) and solve them into a `Model`.

    data : one trajectory or several, with a common step length
    library : candidate terms of N; polynomials usually want ``bias=True``
    denominator : candidate terms of D beside the constant, which is always offered; default those of N. A mass
        matrix depends on positions only: saying so here spares the search, and the data, all other terms.
    structure : default `Derivative()`; any other likewise
    regressor : an `ImplicitSubset` with other settings than the default; its columns are set here
    exclude, states, inputs, actuators : as in `identify`
    unit : the term of D whose coefficient is to be 1, for all targets or by target; default the constant or, without
        one, the largest part of D
    smooth : take states and rates from local polynomials whose width held-out error chooses
        (`sindyrl.regression.strong_rows`), instead of collocation; for noise above about 0.1 %, with `Derivative()` and
        without jumps of the inputs, which it would smooth over
    corrections : most repetitions of the fit with rows freed of the collocation's own error

    Noise. Rates estimated from noisy states have the noise's ``sqrt(2)/dt`` fold, and in the implicit relation they
    multiply the candidate terms: a problem with errors in variables. Selection and final coefficients are therefore by
    the explicit error, where that noise stands alone; the errors of the states within the terms remain and bias the
    coefficients by the order of their relative variance. ``smooth=True`` lowers both.
    Measured for Michaelis-Menten uptake, 600 transitions of 0.05 s, degree 4 above and below, 10 seeds: supports right
    at 0.1 % noise of the states 10 of 10, at 1 % none; with ``smooth=True`` 10 and 9, coefficients to 0.2 % and 2 %.

    Warns (UserWarning) if a denominator may vanish in the box of the data, or if no fraction predicts a target.
    Raises ValueError for a name that does not fit or too few rows, TypeError for another kind of regressor.
    """
    form: Structure = Derivative() if structure is None else structure
    if regressor is not None and not isinstance(regressor, ImplicitSubset):
        raise TypeError(
            "`identify_rational(regressor=...)` must be an `ImplicitSubset`: other estimators do not find fractions. "
            f"Got {type(regressor).__name__}."
        )
    check_number("identify_rational(corrections=...)", corrections, "a non-negative integer", whole(0))
    if actuators not in ("error", "warn", "allow"):
        raise ValueError(f"`identify_rational(actuators=...)` must be 'error', 'warn' or 'allow'. Got {actuators!r}.")
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    signals = _signals("states", states, data.states), _signals("inputs", inputs, data.inputs)
    rows = _smoothed_rows(data, form, exclude) if smooth else _collocated_rows(data, form, exclude)
    z, y, used = rows.z, rows.y, form.features_of(data.states)
    above = _bound("library", library, used, data.inputs)
    below = above if denominator is None else _bound("denominator", denominator, used, data.inputs)
    candidates = _Candidates.of(above, below, z)
    seen, pushed = (np.column_stack([v.min(axis=0), v.max(axis=0)]) for v in (data.pairs().x, rows.u))
    box = dict(zip((*data.states, *data.inputs), map(tuple, [*seen.tolist(), *pushed.tolist()]), strict=True))
    targets = form.targets(data.states)
    units = form.target_units(data.states, [signal.unit for signal in signals[0]])

    theta = candidates.library.features(z)
    correction = np.zeros_like(y)
    found = clone(ImplicitSubset() if regressor is None else regressor).set_params(
        numerators=candidates.numerators, denominators=candidates.denominators, warm_start=True
    )
    for remaining in range(corrections, -1, -1):
        found.fit(theta, y - correction)
        equations = [
            _equation(candidates.library, found, t, (targets[t], units[t]), (theta, y - correction), unit, box)
            for t in range(len(targets))
        ]
        signs = [_sign(equation, candidates.library, theta) for equation in equations]
        model = Model(rational_rates(above, equations, signs, units), form, *signals, data.dt, seen)
        if not remaining or smooth:
            break
        own = _collocation_error(model, rows.x, rows.u)
        change = np.sqrt(np.mean((own - correction) ** 2, axis=0))
        residual = np.array([equation.residual_rms for equation in equations])
        if (change <= np.maximum(_MATTERS * residual, _ROUNDING * np.sqrt(np.mean(y**2, axis=0)))).all():
            break
        correction = own
    report = None
    if actuators != "allow" and data.inputs:
        report = _check_inputs(candidates, model.rates, z, y - correction)
        enforce(report, actuators)
    _warn(equations)
    return RationalFit(
        model,
        tuple(equations),
        candidates.dropped,
        np.sqrt(np.mean(correction**2, axis=0)),
        len(y),
        rows.excluded,
        report,
    )


class _Rows(NamedTuple):
    """z (row, variable) where terms are evaluated, y (row, target), and the transitions x, u that they stand for."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    u: np.ndarray
    excluded: int


def _collocated_rows(data: Dataset, form: Structure, exclude: Predicate | None) -> _Rows:
    pairs = data.pairs()
    keep = np.ones(len(pairs.x), dtype=bool) if exclude is None else data.exclude(exclude)
    x, u, x_next = pairs.x[keep], pairs.u[keep], pairs.x_next[keep]
    if len(x) < _LEAST_ROWS:
        raise ValueError(
            f"`identify_rational(data=...)` leaves {len(x)} transitions ({len(pairs.x) - len(x)} excluded). "
            f"At least {_LEAST_ROWS} are needed; collect more, or exclude fewer."
        )
    middle, y = form.samples(data.states, x, x_next, data.dt)
    used = [data.states.index(name) for name in form.features_of(data.states)]
    return _Rows(np.column_stack([middle[:, used], u]), y, x, u, len(pairs.x) - len(x))


def _smoothed_rows(data: Dataset, form: Structure, exclude: Predicate | None) -> _Rows:
    if form.kind != "derivative" or exclude is not None:
        raise ValueError(
            "`identify_rational(smooth=True)` needs `structure=Derivative()` and no `exclude`: smoothing looks across "
            f"samples. Got {form.kind!r}{' and a predicate' if exclude else ''}."
        )
    parts = strong_rows(data, identity_library(), every=1)
    z, y = np.concatenate([part.points for part in parts]), np.concatenate([part.y for part in parts])
    return _Rows(z, y, z[:, : len(data.states)], z[:, len(data.states) :], 0)


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """All terms in one library; which of them may be above and below; what was dropped there as dependent."""

    library: Library
    numerators: list[int]
    denominators: list[int]
    dropped: tuple[tuple[str, ...], tuple[str, ...]]

    @classmethod
    def of(cls, above: Library, below: Library, z: np.ndarray) -> _Candidates:
        top = above.independent(z)
        offered = Library(below.states, below.inputs, (_ONE, *(term for term in below.terms if term is not _ONE)))
        bottom = offered.independent(z)
        terms = tuple(dict.fromkeys((*top.terms, *bottom.terms)))
        dropped = tuple(
            tuple(name for name in all_.names if name not in kept.names)
            for all_, kept in ((above, top), (offered, bottom))
        )
        return cls(
            Library(above.states, above.inputs, terms),
            [terms.index(term) for term in top.terms],
            [terms.index(term) for term in bottom.terms if term is not _ONE],
            (dropped[0], dropped[1]),
        )


def _equation(
    library: Library,
    found: ImplicitSubset,
    t: int,
    names: tuple[str, str],
    data: tuple[np.ndarray, np.ndarray],
    unit: str | Mapping[str, str] | None,
    box: Mapping[str, tuple[float, float]],
) -> RationalEquation:
    (target, target_unit), (theta, rows) = names, data
    above, above_error = found.numerator_[t], found.numerator_error_[t]
    below, below_error = found.denominator_[t], found.denominator_error_[t]
    top = [Term(library.terms[j], float(above[j]), float(above_error[j])) for j in np.flatnonzero(above)]
    bottom = [Term(library.terms[j], float(below[j]), float(below_error[j])) for j in np.flatnonzero(below)]
    if found.denominator_constant_[t]:
        constant, error = float(found.denominator_constant_[t]), float(found.denominator_constant_error_[t])
        bottom.insert(0, Term(_ONE, constant, error))
    one = next(term for term in bottom if term.coefficient == 1.0 and not term.standard_error)
    wanted = unit.get(target) if isinstance(unit, Mapping) else unit
    if wanted is not None:
        by_name = {term.name: term for term in bottom}
        if wanted not in by_name:
            raise ValueError(
                f"`identify_rational(unit=...)` must name a term of the denominator; that of {target} has "
                f"{', '.join(by_name)}. Got {wanted!r}."
            )
        one = by_name[wanted]
        top = [_rescaled(term, one) for term in top]
        bottom = [Term(one.term, 1.0, 0.0) if term is one else _rescaled(term, one) for term in bottom]
    y = rows[:, t]
    residual = float(np.sqrt(np.mean((y - _values(library, top, theta) / _values(library, bottom, theta)) ** 2)))
    size = float(np.sqrt(np.mean(y**2)))
    path = found.paths_[t]
    return RationalEquation(
        target,
        target_unit,
        tuple(top),
        tuple(bottom),
        one.name,
        path.error,
        residual,
        residual / (size or 1.0),
        float(found.condition_[t]),
        bool(found.proven_[t]),
        find_zero(weighted_sum(bottom), box),
    )


def _rescaled(term: Term, one: Term) -> Term:
    """The coefficient divided by that of ``one``; errors as if independent, which overstates them if anything."""
    ratio = term.coefficient / one.coefficient
    spread = np.hypot(term.standard_error / one.coefficient, ratio * one.standard_error / one.coefficient)
    return Term(term.term, ratio, float(spread))


def _values(library: Library, terms: Sequence[Term], theta: np.ndarray) -> np.ndarray:
    """Weighted sum on the rows; the constant need not be in the library."""
    total = np.zeros(len(theta))
    for node, coefficient, _ in terms:
        total += coefficient * (1.0 if node is _ONE else theta[:, library.terms.index(node)])
    return total


def _sign(equation: RationalEquation, library: Library, theta: np.ndarray) -> int:
    """The sign of the denominator on the data if it needs guarding: it may vanish, and does not change sign there."""
    if equation.zero.verdict == "none":
        return 0
    values = _values(library, equation.denominator, theta)
    return 1 if values.min() > 0 else -1 if values.max() < 0 else 0


def _collocation_error(model: Model, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """What the structure's rows are wrong by if the model is right, (row, target); 0 where that cannot be told."""
    step = model.dt / _SUBSTEPS
    after = x
    try:
        with np.errstate(all="ignore"):
            for _ in range(_SUBSTEPS):
                k1 = model.derivative(after, u)
                k2 = model.derivative(after + step / 2 * k1, u)
                k3 = model.derivative(after + step / 2 * k2, u)
                k4 = model.derivative(after + step * k3, u)
                after = after + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            shown, rates = model.against(x, u, after)
            error = shown - rates
    except TypeError:  # discrete time: the rows are exact
        return np.zeros((len(x), len(model.rates.targets)))
    return np.where(np.isfinite(error).all(axis=1, keepdims=True), error, 0.0)


def _check_inputs(candidates: _Candidates, rates: SparseMap, z: np.ndarray, y: np.ndarray) -> ActuatorReport:
    """The actuator check with the fractions' quotients as further terms of the dense reference."""
    library = candidates.library.select(candidates.numerators)
    terms = tuple(dict.fromkeys((*library.terms, *rates.library.terms)))
    coef = np.zeros((len(rates.targets), len(terms)))
    coef[:, [terms.index(term) for term in rates.library.terms]] = rates.coef
    return check_actuators(Library(library.states, library.inputs, terms), z, y, coef, targets=rates.targets)


def _warn(equations: Sequence[RationalEquation]) -> None:
    for equation in equations:
        if equation.held_out > _UNEXPLAINED:
            warnings.warn(
                f"No fraction of few terms predicts {equation.target}: held out, the error of the best is "
                f"{100 * equation.held_out:.0f} % of its size. Raise `max_terms` of the regressor, offer other terms "
                "or fewer below (`denominator=`), or record more data or cleaner ones (`smooth=True`).",
                UserWarning,
                stacklevel=3,
            )
        if equation.zero.verdict != "none":
            warnings.warn(
                f"The denominator of {equation.target} {equation.zero}, inside the box of the data. A simulation that "
                "gets there ends as not finite. If the system has no pole there, offer fewer terms below "
                "(`denominator=`), lower `max_terms`, or record data nearer to that place.",
                UserWarning,
                stacklevel=3,
            )


def _bound(argument: str, given: LibrarySpec | Library, states: Sequence[str], inputs: Sequence[str]) -> Library:
    bound = given.bind(states, inputs) if isinstance(given, LibrarySpec) else given
    if bound.variables != (*states, *inputs):
        raise ValueError(
            f"`identify_rational({argument}=...)` must be over {[*states, *inputs]}. Got {list(bound.variables)}."
        )
    return bound


def _signals(argument: str, given: Sequence[Signal] | None, names: Sequence[str]) -> tuple[Signal, ...]:
    signals = tuple(Signal(name) for name in names) if given is None else tuple(given)
    if [signal.name for signal in signals] != list(names):
        raise ValueError(
            f"`identify_rational({argument}=...)` must be named {list(names)} as in the data. "
            f"Got {[signal.name for signal in signals]}."
        )
    return signals
