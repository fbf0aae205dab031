"""From data to a model and a report, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from sindyrl.guard import Action, ActuatorReport, check_actuators, enforce
from sindyrl.library import Library, LibrarySpec
from sindyrl.model import Model
from sindyrl.regression.gram import Gram
from sindyrl.regression.subset import SubsetSelection, bootstrap_refits, inclusion_by_bootstrap
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

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
        )
        return "\n".join(lines)


def identify(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library,
    *,
    structure: Structure | None = None,
    regressor: Regressor | None = None,
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
    structure : default `Increment`, the one that assumes nothing
    regressor : default `SubsetSelection()`; any estimator with ``fit(theta, y)`` and ``coef_``
    exclude : ``exclude(x, u, x_next) -> (n,)`` marks transitions to leave out
    states, inputs : signals with units and ranges, by default bare names
    members : size of the ensemble, row bootstraps on the selected support; 1 for none
    inclusion : also resample the selection itself (costs about 20 further selections)
    actuators : what to do if an input loses all its terms of a target on which a dense fit shows an effect (see
        `sindyrl.guard`): "error" raises ActuatorError, a ValueError; "warn" warns; "allow" does not look
    rng : for the bootstraps; default a fixed seed, so that the same data give the same model

    Raises ValueError if fewer rows remain than terms could be told apart with, or a name does not fit.
    """
    form: Structure = Increment() if structure is None else structure
    rng = np.random.default_rng(0) if rng is None else rng
    if members < 1:
        raise ValueError(f"`identify(members=...)` must be at least 1. Got {members}.")
    if actuators not in ("error", "warn", "allow"):
        raise ValueError(f"`identify(actuators=...)` must be 'error', 'warn' or 'allow'. Got {actuators!r}.")
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

    estimator = SubsetSelection() if regressor is None else regressor
    estimator.fit(theta, y)
    # The model keeps the whole library, zeros in it, so that refits of growing data stay over the same one.
    kept = [bound.index(name) for name in reduced.names]
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    if coef.shape != (y.shape[1], len(reduced)):
        raise ValueError(
            f"`identify(regressor=...)` must find `coef_` of shape {(y.shape[1], len(reduced))}, (target, feature). "
            f"Got {coef.shape}."
        )
    found = None
    if actuators != "allow" and data.inputs:
        found = check_actuators(reduced, z, y, coef, targets=form.targets(data.states), scale=_change(form, x, y))
        enforce(found, actuators)
    # Standard errors need several refits, however few of them the model keeps.
    refit = getattr(estimator, "refit_members", bootstrap_refits)  # a constrained regressor keeps its constraints
    members_coef = refit(theta, y, coef, max(members, _MEMBERS), rng)
    sizes = [int(np.count_nonzero(row)) for row in coef]
    share = inclusion_by_bootstrap(theta, y, sizes, _INCLUSION_MEMBERS, rng) if inclusion else (coef != 0).astype(float)
    residual = np.sqrt(np.mean((y - theta @ coef.T) ** 2, axis=0))
    size = np.sqrt(np.mean(y**2, axis=0))

    targets = form.targets(data.states)
    rates = SparseMap(
        bound,
        _spread(members_coef[0] if members == 1 else members_coef[:members], kept, len(bound)),
        targets,
        form.target_units(data.states, [signal.unit for signal in state_signals]),
    )
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
    )


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
