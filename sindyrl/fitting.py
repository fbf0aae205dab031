"""From a recording to checked equations: the work of `sindyrl fit`.

Fit on the first part of the data, judge on the rest, and say what a careful user would ask: how sure each term is, what
persistence would have achieved, whether the residuals are white, whether every input still acts, and what in the data
limits the answer.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sindyrl.coefficient_path import CoefficientPath, coefficient_path
from sindyrl.conserved import Drift, drift
from sindyrl.expression import Node
from sindyrl.fit_settings import FitSettings
from sindyrl.guard import ActuatorError, Excitation, excitation
from sindyrl.identify import Fit, identify
from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.noisy import Method, choose_method
from sindyrl.structure import Structure
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset
from sindyrl.validation import (
    Coverage,
    DeadTime,
    HorizonErrors,
    RollOut,
    Whiteness,
    coverage,
    dead_times,
    hold_out,
    horizon_errors,
    rollouts,
    whiteness,
)

__all__ = ["FitSettings", "RecordingFit", "fit_recording"]

Progress = Callable[[float, str], None]
"""``progress(share, what)`` with the share that is done, in [0, 1]."""

_MEMBERS = 20  # row bootstraps: a standard error is then known to about 16 %
_T_95 = 2.093  # Student's t for 95 % and 19 degrees of freedom, those of the standard errors
_OUTLIER = 6.0  # robust standard deviations
_ROUNDS = 10  # of leaving outliers out
_LAGS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingFit:
    """Everything that is known about one fit.

    fit : of the data `fitted`; judged on `held`
    residual : (row, target) of the held-out transitions, or of the fitted ones if those are too few (`judged_on`)
    held_error : (target,) residual RMS on the held-out data over the size of what persistence leaves
    coverage : of prediction intervals for the held-out transitions; None if they are too few. The intervals of ``fit``
        are then calibrated on all of them.
    outliers : transitions whose residual is over 6 robust standard deviations; left out if the fit was robust
    warnings : what limits the answer, each with its remedy
    drift : of a conserved quantity along the held-out data and the roll-outs; None if none was given
    """

    settings: FitSettings
    fit: Fit
    fitted: Dataset
    held: Dataset
    rollouts: list[RollOut]
    horizons: HorizonErrors
    residual: np.ndarray
    judged_on: str
    whiteness: Whiteness | None
    held_error: np.ndarray
    excitation: list[Excitation]
    dead_times: list[DeadTime]
    path: CoefficientPath
    coverage: Coverage | None
    outliers: int
    warnings: tuple[str, ...]
    drift: Drift | None = None

    @property
    def model(self) -> Model:
        return self.fit.model

    def equations(self) -> list[str]:
        """``dv = 9.73 u - 0.68 cos*sin``, one line for each target."""
        rates = self.model.rates
        lines = []
        for target, row in zip(rates.targets, rates.median().coef, strict=True):
            parts = [
                (value < 0, f"{abs(value):.4g}" + ("" if name == "1" else f" {name}"))
                for value, name in zip(row, rates.library.names, strict=True)
                if value
            ]
            text = "".join(f" {'-' if minus else '+'} {part}" for minus, part in parts)
            text = text[3:] if text.startswith(" + ") else "-" + text[3:] if text else "0"
            lines.append(f"{target} = {text}")
        return lines

    def terms(self) -> list[dict[str, Any]]:
        """One entry for each term: target, term, coef, unit, standard_error, low and high of 95 %, inclusion.

        The unit is that of the coefficient, empty if it is not known.
        """
        rates, units = self.model.rates.median(), self.fit.units
        entries = []
        for t, f in np.argwhere(rates.support):
            coef, error = float(rates.coef[t, f]), float(self.fit.standard_error[t, f])
            unit = None if units is None else units.coefficient_units[t][f]
            entries.append(
                {
                    "target": rates.targets[t],
                    "term": rates.library.names[f],
                    "coef": coef,
                    "unit": "" if unit is None else str(unit),
                    "standard_error": error,
                    "low": coef - _T_95 * error,
                    "high": coef + _T_95 * error,
                    "inclusion": float(self.fit.inclusion[t, f]),
                }
            )
        return entries

    def fit_percent(self) -> dict[str, float | None]:
        """Mean NRMSE fit of the held-out roll-outs by state; None where a roll-out diverged or nothing varies."""
        if any(path.diverged for path in self.rollouts):
            return dict.fromkeys(self.model.state_names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, which is what is meant
            mean = np.nanmean([path.fit for path in self.rollouts], axis=0)
        return {
            name: float(value) if np.isfinite(value) else None
            for name, value in zip(self.model.state_names, mean, strict=True)
        }


def fit_recording(
    data: Dataset,
    settings: FitSettings,
    *,
    notes: Sequence[str] = (),
    conserved: SymbolicMap | Node | None = None,
    progress: Progress | None = None,
) -> RecordingFit:
    """Fit, judge and examine.

    notes : sentences about the data to begin the warnings with
    conserved : a quantity of the states that the system keeps; its drift is reported (`sindyrl.conserved`)

    Raises ValueError if the library is larger than the data, an input never changes, or (as ActuatorError) the fit lost
    an input's whole effect and that is not allowed.
    """
    tell = progress if progress is not None else lambda share, what: None
    found = list(notes)
    structure, spec = settings.structure(), settings.library()
    settings.check_units(data.states, data.inputs)
    fitted, held = hold_out(data, settings.holdout)
    used = structure.features_of(data.states)
    library = spec.bind(used, data.inputs)
    excited = _check_data(data, fitted, library, settings, found)

    tell(0.05, "candidate terms")
    keep = np.ones(fitted.steps, dtype=bool)
    if settings.robust:
        keep = _without_outliers(fitted, library, settings, tell)
    tell(0.3, "equations")
    method = choose_method(structure, fitted, keep) if settings.method == "auto" else settings.method
    fit = _identified(fitted, library, settings, keep, method)
    if fit.actuators is not None and fit.actuators.removed.any():
        message = fit.actuators.message(remedy="give `--allow-lost-inputs`")
        if not settings.allow_lost_inputs:
            raise ActuatorError(message)
        found.append(message)

    found += _doubtful(fit)
    tell(0.55, "residuals")
    outliers = int((~keep).sum()) if settings.robust else int((~_inliers(_residual(fit.model, fitted))).sum())
    _outlier_note(outliers, fitted.steps, settings.robust, found)
    residual, held_error = _residual(fit.model, held), _held_error(fit.model, held)
    judged_on, episodes = "held-out data", held.episode_of_pairs()
    if len(residual) <= 3 * _LAGS:
        residual, episodes, judged_on = _residual(fit.model, fitted), fitted.episode_of_pairs(), "fitted data"
    white = whiteness(residual, episodes, _LAGS) if len(residual) > _LAGS + 1 else None
    if white is not None and (white.correlation[1] > 0.3).any():
        found.append(
            "Residuals of neighboring samples resemble each other, so the standard errors are too small: they count "
            "every row as new evidence."
        )
    z, y = _rows(fit.model, held)
    intervals, theta = fit.intervals, library.features(z)
    covered = None if intervals is None else coverage(intervals, theta, y)
    if intervals is not None and covered is not None:
        fit = dataclasses.replace(fit, intervals=intervals.calibrated(theta, y))
    tell(0.65, "dead time")
    z, _ = _rows(fit.model, fitted)
    reduced = library.independent(z[keep])
    late = dead_times(fitted, reduced, structure)
    found += [text for each in late if (text := each.problem(data.dt))]
    tell(0.8, "held-out predictions")
    paths = rollouts(fit.model, held)
    if any(path.diverged for path in paths):
        found.append(
            f"{sum(path.diverged for path in paths)} of {len(paths)} held-out roll-outs diverged. Fewer terms or a "
            "lower degree extrapolate better; more data where it left would settle them."
        )
    horizons = horizon_errors(fit.model, held, _horizons(max(map(len, held))))
    tell(0.95, "coefficient paths")
    z, y = _library_rows(fitted, reduced, structure)
    path = coefficient_path(reduced.features(z[keep]), y[keep], reduced.names)
    tell(1.0, f"{fit.model.n_terms} terms")
    return RecordingFit(
        settings, fit, fitted, held, paths, horizons, residual, judged_on, white, held_error, excited, late, path,
        covered, outliers, tuple(found), None if conserved is None else drift(fit.model, conserved, held),
    )  # fmt: skip


def _check_data(
    data: Dataset, fitted: Dataset, library: Library, settings: FitSettings, found: list[str]
) -> list[Excitation]:
    """Refuse what cannot be fitted; add sentences on what limits the fit."""
    if fitted.steps <= len(library):
        raise ValueError(
            f"The library has {len(library)} terms and there are {fitted.steps} transitions to fit. Lower `--degree`, "
            "leave out states, or record more."
        )
    if fitted.steps < 5 * len(library):
        found.append(
            f"{len(library)} candidate terms for {fitted.steps} transitions: selected terms may be accidents. Lower "
            "`--degree` or record more."
        )
    pairs = fitted.pairs()
    for name, column in zip(data.states, pairs.x.T, strict=True):
        if np.ptp(column) == 0:
            raise ValueError(
                f"State {name!r} never changes, so nothing can be fitted to it. Leave it out of the states."
            )
    excited = excitation(pairs.x, pairs.u, data.inputs)
    for each in excited:
        if each.spread == 0.0:
            raise ValueError(each.problem)
    found += [each.problem for each in excited if each.problem]
    z = _library_rows(fitted, library, settings.structure())[0]
    report = library.conditioning(z)
    if report.dependencies:
        shown = "; ".join(map(str, report.dependencies[:4]))
        found.append(
            f"Candidate terms depend on each other exactly: {shown}. Dropped: {', '.join(report.redundant)}. Their "
            "coefficients cannot be told apart; vary the states more, or leave terms out."
        )
    if report.near:
        close = ", ".join(each.redundant for each in report.near[:6]) + (", ..." if len(report.near) > 6 else "")
        found.append(
            f"{len(report.near)} of {len(library)} candidate terms are nearly combinations of earlier ones ({close}), "
            "so their coefficients are uncertain together. Vary the states more, or lower `--degree`."
        )
    return excited


def _library_rows(data: Dataset, library: Library, structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Where the library is evaluated (row, variable), and what is regressed (row, target)."""
    pairs = data.pairs()
    middle, y = structure.samples(data.states, pairs.x, pairs.x_next, data.dt)
    return np.column_stack([middle[:, [data.states.index(name) for name in library.states]], pairs.u]), y


def _rows(model: Model, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return _library_rows(data, model.rates.library, model.structure)


def _residual(model: Model, data: Dataset) -> np.ndarray:
    z, y = _rows(model, data)
    return y - model.rates(z)


def _held_error(model: Model, data: Dataset) -> np.ndarray:
    """Both structures that the command knows regress a change, so that persistence leaves the target itself."""
    z, y = _rows(model, data)
    size = np.sqrt(np.mean(y**2, axis=0))
    return np.sqrt(np.mean((y - model.rates(z)) ** 2, axis=0)) / np.where(size > 0, size, 1.0)


def _identified(
    data: Dataset,
    library: Library,
    settings: FitSettings,
    keep: np.ndarray,
    method: Method,
    *,
    quick: bool = False,
) -> Fit:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparsification removed", UserWarning)  # the caller says it
        return identify(
            data,
            library,
            structure=settings.structure(method),
            regressor=settings.regressor(),
            method=method,
            states=settings.signals(data.states),
            inputs=settings.signals(data.inputs),
            exclude=None if keep.all() else lambda x, u, x_next: ~keep,
            members=_MEMBERS,
            inclusion=not quick,
            actuators="allow" if quick else "warn",
        )


def _inliers(residual: np.ndarray) -> np.ndarray:
    """(row,) whether every target's residual is within 6 robust standard deviations of its median."""
    centered = np.abs(residual - np.median(residual, axis=0))
    sigma = 1.4826 * np.median(centered, axis=0)
    # Without noise the median is a rounding error, and every residual would be an outlier.
    floor = 1e-6 * np.sqrt(np.mean(residual**2, axis=0)) + 1e-12
    return np.asarray((centered <= _OUTLIER * np.maximum(sigma, floor)).all(axis=1))


def _without_outliers(data: Dataset, library: Library, settings: FitSettings, tell: Progress) -> np.ndarray:
    """Which transitions stay, (row,): fit, leave out what is far off, and again until nothing changes."""
    keep = _inliers(_rate_jumps(data, library, settings))
    for turn in range(_ROUNDS):
        tell(0.05 + 0.25 * turn / _ROUNDS, f"outliers: {int((~keep).sum())}")
        if keep.sum() < max(len(library) + 1, 10):
            raise ValueError(
                f"Without outliers {int(keep.sum())} transitions are left of {data.steps}. The library misses what "
                "drives the data: add terms or states, or fit without `--robust`."
            )
        again = _inliers(_residual(_identified(data, library, settings, keep, "collocation", quick=True).model, data))
        if (again == keep).all():
            break
        keep = again
    return keep


def _rate_jumps(data: Dataset, library: Library, settings: FitSettings) -> np.ndarray:
    """Second differences of the targets: a spike shows in them whatever the model is."""
    _, y = _library_rows(data, library, settings.structure())
    jump = np.zeros_like(y)
    jump[1:-1] = y[1:-1] - (y[:-2] + y[2:]) / 2.0
    return jump


def _doubtful(fit: Fit) -> list[str]:
    """A sentence on the terms that most resamples would not have selected."""
    rates = fit.model.rates
    names = [
        f"{rates.library.names[f]} in {rates.targets[t]}" for t, f in np.argwhere(rates.support & (fit.inclusion < 0.5))
    ]
    if not names:
        return []
    return [
        f"Selected in less than half of the resamples, hence doubtful: {', '.join(names)}. Lower `--max-terms`, give a "
        "`--threshold`, or record more."
    ]


def _outlier_note(count: int, rows: int, robust: bool, found: list[str]) -> None:
    if not count:
        return
    what = f"{count} of {rows} transitions are over {_OUTLIER:.0f} robust standard deviations off the model"
    if robust:
        found.append(f"{what}; they were left out.")
    else:
        found.append(f"{what}. If they are bad readings, give `--robust`; otherwise a term is missing.")
    if count > 0.1 * rows:
        found.append("So many are no outliers: the library misses what drives them. Add terms, states or inputs.")


def _horizons(longest: int) -> list[int]:
    return [h for h in (1, 2, 5, 10, 20, 50, 100, 200, 500) if h <= longest]
