"""From data to a model and a report, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from sindyrl.guard import Action, ActuatorReport, check_actuators, enforce, excitation
from sindyrl.library import Library, LibrarySpec
from sindyrl.model import Model
from sindyrl.noisy import METHODS, Method, choose_method, noisy_equations
from sindyrl.regression.gram import Gram
from sindyrl.regression.intervals import PredictionIntervals, noise_variance
from sindyrl.regression.subset import SubsetSelection, bootstrap_refits, inclusion_by_bootstrap
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.task import Task
from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.units import UnitReport, check_units, kinematic_problems

_MEMBERS = 8
_INCLUSION_MEMBERS = 20


class Regressor(Protocol):
    """Anything with scikit-learn's ``fit`` and ``coef_`` (target, feature)."""

    coef_: np.ndarray

    def fit(self, X: np.ndarray, y: np.ndarray, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What `identify` returns.

    model : the ensemble model; member 0 is the fit to all rows.
    standard_error : (target, feature) of each coefficient given its support, from row bootstraps
    inclusion : (target, feature) share of row bootstraps in which the term is selected, in [0, 1]
    residual_rms : (target,) root-mean-square residual, in the target's unit
    relative_error : (target,) residual RMS over the target's RMS; 1 is no better than predicting no change
    condition : condition number of the library matrix with unit columns, after dependent columns were dropped
    dropped : names of the library's terms that are combinations of earlier ones on these data
    rows, excluded : transitions used, and left out by ``exclude``
    actuators : gains of the inputs against the dense fit; None if the system has none, or with ``actuators="allow"``
    method : "collocation", "weak" or "derivatives", how the equations were found
    intervals : for new measurements of the targets, from the bootstraps and the residual noise; see `predict_interval`
    units : of the terms and of the coefficients; None if no signal has a unit
    warnings : what in the data or the units limits the answer, each with its remedy

    Residuals are those of the transitions, whatever the method.
    """

    model: Model
    standard_error: np.ndarray
    inclusion: np.ndarray
    residual_rms: np.ndarray
    relative_error: np.ndarray
    condition: float
    dropped: tuple[str, ...]
    rows: int
    excluded: int
    actuators: ActuatorReport | None = None
    method: str = "collocation"
    intervals: PredictionIntervals | None = None
    units: UnitReport | None = None
    warnings: tuple[str, ...] = ()

    def predict_interval(self, x: Any, u: Any = (), level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Ends (n, target) between which new measurements of the targets lie with probability ``level``.

        x : (n, n_states), where the structure evaluates the library   u : (n, n_inputs)

        The noise of the measurements counts; it is taken as Gaussian unless ``intervals`` are `calibrated`.
        """
        if self.intervals is None:
            raise ValueError("This fit has no intervals: it was not made by `identify`.")
        x = np.atleast_2d(np.asarray(x, dtype=np.float64))
        u = np.asarray(u, dtype=np.float64).reshape(len(x), -1)
        variables = self.model.feature_columns(list(x.T), list(u.T))
        return self.intervals(self.model.rates.library.features(np.stack(variables, axis=-1)), level)

    def __str__(self) -> str:
        rates = self.model.rates
        coef = rates.median().coef
        lines = []
        for t, (target, unit) in enumerate(zip(rates.targets, rates.target_units, strict=True)):
            lines.append(
                f"{target}{f' [{unit}]' if unit else ''}: residual {self.residual_rms[t]:.2g}, "
                f"{100 * self.relative_error[t]:.2g} % of its size"
            )
            for f in np.flatnonzero(coef[t]):
                lines.append(
                    f"    {coef[t, f]:+10.4g} ± {self.standard_error[t, f]:<8.1g} {rates.library.names[f]:<12s}"
                    f" in {100 * self.inclusion[t, f]:.0f} % of resamples"
                )
        lines.append(
            f"{self.rows} transitions ({self.excluded} excluded), {len(rates.library) - len(self.dropped)} candidate "
            f"terms, condition number {self.condition:.3g}"
            + (f"; dependent and dropped: {', '.join(self.dropped)}" if self.dropped else "")
            + (f"; method: {self.method}" if self.method != "collocation" else "")
        )
        lines += [f"Note: {text}" for text in self.warnings]
        return "\n".join(lines)


def identify(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library | None = None,
    *,
    task: Task | None = None,
    structure: Structure | None = None,
    regressor: Regressor | None = None,
    method: Method = "collocation",
    exclude: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    states: Sequence[Signal] | None = None,
    inputs: Sequence[Signal] | None = None,
    members: int = _MEMBERS,
    inclusion: bool = True,
    actuators: Action = "error",
    rng: np.random.Generator | None = None,
) -> Fit:
    r"""Find sparse equations of motion.

    The structure turns transitions into regression rows ``(z, y)``; the library's columns ``theta(z)`` that depend
    exactly on earlier ones are dropped; the regressor picks few of the rest per target; row bootstraps give each
    coefficient a standard error and the model its members.

    data : one trajectory or several, with a common step length
    library : candidate terms; a specification is bound to the states that the structure lets in, and to the inputs
    task : supplies library, structure, exclude, states and inputs; what is given besides it wins
    structure : default `Increment`, the one that assumes nothing
    regressor : default `SubsetSelection()`; any estimator with ``fit(theta, y)`` and ``coef_``
    method : how rates are taken from samples in continuous time.
        "collocation": differences of neighboring samples at their midpoint, from which a noise of ``s`` makes
        ``sqrt(2) s / dt``; needs no more than pairs of samples.
        "weak": integrals over windows of samples, whitened, with subsets chosen by the extended BIC and at most the
        regressor's ``max_terms``: for noisy data in uninterrupted pieces of 20 steps or more.
        "derivatives": the same with derivatives of local polynomials; for systems without inputs that jump.
        "auto": "weak" where noise makes more than 5 % of the one-step changes, else "collocation".
        A regressor other than the subset selections is fitted to the rows of the method as they are.
    exclude : ``exclude(x, u, x_next) -> (n,)`` marks transitions to leave out
    states, inputs : signals with units and ranges, by default bare names
    members : size of the ensemble, row bootstraps on the selected support; 1 for none
    inclusion : also resample the selection itself (costs about 20 further selections)
    actuators : what to do if an input loses all its terms of a target on which a dense fit shows an effect (see
        `sindyrl.guard`): "error" raises ActuatorError, a ValueError; "warn" warns; "allow" does not look
    rng : for the bootstraps; default a fixed seed, so that the same data give the same model

    Raises ValueError if fewer than 10 transitions remain, a name does not fit, or the method does not suit the data.
    """
    if task is not None:
        library = task.library if library is None else library
        structure = task.structure if structure is None else structure
        exclude = task.exclude if exclude is None else exclude
        states = task.states if states is None else states
        inputs = task.inputs if inputs is None else inputs
    if library is None:
        raise ValueError("`identify(library=...)` is needed unless a task supplies it. Got none.")
    form: Structure = Increment() if structure is None else structure
    rng = np.random.default_rng(0) if rng is None else rng
    if members < 1:
        raise ValueError(f"`identify(members=...)` must be at least 1. Got {members}.")
    if actuators not in ("error", "warn", "allow"):
        raise ValueError(f"`identify(actuators=...)` must be 'error', 'warn' or 'allow'. Got {actuators!r}.")
    if method not in METHODS:
        raise ValueError(f"`identify(method=...)` must be one of {', '.join(METHODS)}. Got {method!r}.")
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    state_signals = tuple(Signal(name) for name in data.states) if states is None else tuple(states)
    input_signals = tuple(Signal(name) for name in data.inputs) if inputs is None else tuple(inputs)
    _check_names("states", state_signals, data.states)
    _check_names("inputs", input_signals, data.inputs)

    pairs = data.pairs()
    keep = np.ones(len(pairs.x), dtype=bool) if exclude is None else data.exclude(exclude)
    x, u, x_next = pairs.x[keep], pairs.u[keep], pairs.x_next[keep]
    used = form.features_of(data.states)
    bound = library.bind(used, data.inputs) if isinstance(library, LibrarySpec) else library
    if len(x) < 10:
        raise ValueError(
            f"`identify(data=...)` leaves {len(x)} transitions ({len(pairs.x) - len(x)} excluded). "
            "At least 10 are needed; collect more, or exclude fewer."
        )
    middle, y = form.samples(data.states, x, x_next, data.dt)
    z = np.column_stack([middle[:, [data.states.index(name) for name in used]], u])
    reduced = bound.independent(z)
    theta = reduced.features(z)

    # The model keeps the whole library, zeros in it, so that refits of growing data stay over the same one.
    kept = [bound.index(name) for name in reduced.names]
    targets = form.targets(data.states)
    if method == "auto":
        method = choose_method(form, data, keep)
    # Standard errors need several refits, however few of them the model keeps.
    bootstraps = max(members, _MEMBERS)
    estimator = SubsetSelection() if regressor is None else regressor
    if method != "collocation":
        equations = noisy_equations(
            data, keep, reduced, form, method, regressor=regressor, members=bootstraps,
            resamples=_INCLUSION_MEMBERS if inclusion else 0, rng=rng,
        )  # fmt: skip
        coef = equations.coef
    else:
        coef = _fitted(estimator, theta, y)
    found = None
    if actuators != "allow" and data.inputs:
        found = check_actuators(reduced, z, y, coef, targets=targets, scale=_change(form, x, y))
        enforce(found, actuators)
    if method != "collocation":
        members_coef, share = equations.members, equations.inclusion
    else:
        refit = getattr(estimator, "refit_members", bootstrap_refits)  # a constrained regressor keeps its constraints
        members_coef = refit(theta, y, coef, bootstraps, rng)
        sizes = [int(np.count_nonzero(row)) for row in coef]
        share = (
            inclusion_by_bootstrap(theta, y, sizes, _INCLUSION_MEMBERS, rng) if inclusion else (coef != 0).astype(float)
        )
    residual = np.sqrt(np.mean((y - theta @ coef.T) ** 2, axis=0))
    size = np.sqrt(np.mean(y**2, axis=0))

    rates = SparseMap(
        bound,
        _spread(members_coef[0] if members == 1 else members_coef[:members], kept, len(bound)),
        targets,
        form.target_units(data.states, [signal.unit for signal in state_signals]),
    )
    variance, freedom = noise_variance(len(x) * residual**2, len(x), np.count_nonzero(coef, axis=1))
    intervals = PredictionIntervals(
        _spread(coef, kept, len(bound)), _spread(members_coef[1:], kept, len(bound)), variance, freedom
    )
    units = _units(rates, form, state_signals, input_signals)
    seen = np.column_stack([pairs.x.min(axis=0), pairs.x.max(axis=0)])
    return Fit(
        Model(rates, form, state_signals, input_signals, data.dt, seen),
        _spread(members_coef[1:].std(axis=0, ddof=1), kept, len(bound)),
        _spread(share, kept, len(bound)),
        residual,
        residual / np.where(size > 0, size, 1.0),
        Gram.from_rows(theta, y).condition(),
        tuple(name for name in bound.names if name not in reduced.names),
        len(x),
        len(pairs.x) - len(x),
        found,
        method,
        intervals,
        units,
        (*_limits(x, u, data.inputs, len(reduced), method), *(() if units is None else units.problems)),
    )


def _fitted(estimator: Regressor, theta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients (target, feature) that a regressor finds."""
    estimator.fit(theta, y)
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    if coef.shape != (y.shape[1], theta.shape[1]):
        raise ValueError(
            f"`identify(regressor=...)` must find `coef_` of shape {(y.shape[1], theta.shape[1])}, (target, feature). "
            f"Got {coef.shape}."
        )
    return coef


def _limits(x: np.ndarray, u: np.ndarray, names: Sequence[str], terms: int, method: str) -> list[str]:
    """What in the data keeps the answer from being sure, with the remedy."""
    found = [each.problem for each in excitation(x, u, names) if each.problem]
    if terms >= len(x):
        found.append(
            f"{terms} independent candidate terms for {len(x)} transitions: selected terms may be accidents. Offer "
            "fewer terms or record more."
        )
    if method == "derivatives" and names:
        found.append(
            "Local polynomials smooth over the kinks that a jumping input leaves in a state, which biases its "
            "coefficients. Unless the inputs are smooth, use method='weak'."
        )
    return found


def _units(rates: SparseMap, form: Structure, states: Sequence[Signal], inputs: Sequence[Signal]) -> UnitReport | None:
    """Units of the terms in use, and of the kinematics; None if no signal has a unit."""
    units = {signal.name: signal.unit for signal in (*states, *inputs)}
    if not any(units.values()):
        return None
    report = check_units(rates, {name: units[name] for name in rates.library.variables}, lenient=True)
    remedy = "Correct the unit, convert the column, or leave the term out."
    found = [f"{problem}. {remedy}" for problem in report.problems]
    known = kinematic_problems(getattr(form, "positions", {}), getattr(form, "angles", {}), units)
    return dataclasses.replace(report, problems=(*found, *known))


def _change(form: Structure, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Size of what there is to explain, (target,): of a next state only its difference from the state counts."""
    return np.asarray(np.std(y - x if form.kind == "next_state" else y, axis=0))


def _spread(values: np.ndarray, kept: list[int], size: int) -> np.ndarray:
    """Columns of the reduced library put back in their places of the whole one, zero elsewhere."""
    whole = np.zeros((*values.shape[:-1], size))
    whole[..., kept] = values
    return whole


def _check_names(argument: str, signals: Sequence[Signal], names: Sequence[str]) -> None:
    given = [signal.name for signal in signals]
    if given != list(names):
        raise ValueError(f"`identify({argument}=...)` must be named {list(names)} as in the data. Got {given}.")
