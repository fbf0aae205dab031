"""The page of one fit: equations with their uncertainty, how they predict, and what in the data limits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sindyrl import fit_plot, plot
from sindyrl.fitting import RecordingFit
from sindyrl.map_file import write_text
from sindyrl.page import kinematics, left_side, render, term_row
from sindyrl.plot import percent, pretty_unit

__all__ = ["write_fit_report"]


def write_fit_report(
    result: RecordingFit, path: str | Path, *, title: str, source: str = "", settings: Sequence[tuple[str, str]] = ()
) -> Path:
    """Write the page of a fit as one HTML file that loads nothing from elsewhere; it appears whole or not at all.

    source : the file that the data are from   settings : (name, value) of what was asked for, for the last table
    """
    target = Path(path)
    write_text(target, _page(result, title, source, settings))
    return target


def _page(result: RecordingFit, title: str, source: str, settings: Sequence[tuple[str, str]]) -> str:
    from markupsafe import Markup

    model = result.model
    return render(
        "fit.html",
        title=title,
        source=source,
        tiles=_tiles(result),
        dt=f"{model.dt:.6g}",
        fitted=result.fitted.steps,
        held=result.held.steps,
        used=result.fit.rows,
        inputs=model.inputs,
        equations=_equations(result),
        kinematics=kinematics(model),
        warnings=result.warnings,
        states=_states(result),
        horizons=_horizons(result),
        rollouts=len(result.rollouts),
        diverged=sum(path.diverged for path in result.rollouts),
        actuators=_actuators(result),
        reference="" if result.fit.actuators is None else result.fit.actuators.reference,
        delays=[(each.name, each.best, f"{each.best * model.dt:.4g}") for each in result.dead_times],
        method=result.fit.method,
        coverage=result.coverage,
        drift="" if result.drift is None else str(result.drift),
        condition=f"{result.fit.condition:.2g}",
        dropped=result.fit.dropped,
        judged_on=result.judged_on,
        settings=settings,
        figures={name: Markup(plot.to_svg(figure, name)) for name, figure in _figures(result)},
    )


def _tiles(result: RecordingFit) -> list[tuple[str, str, str]]:
    """(figure, what it is, small print)"""
    fits = result.fit_percent()
    known = [value for value in fits.values() if value is not None]
    worst = (
        f"{min(known):.1f} %" if known else "diverged" if any(p.diverged for p in result.rollouts) else "not measured"
    )
    horizon = result.horizons
    relative = float(np.nanmax(horizon.relative[0]))
    return [
        (worst, "fit of held-out roll-outs", "NRMSE fit of the worst state; 100 % is perfect, 0 % is the mean"),
        (percent(relative), "one-step error of persistence", "worst state; persistence predicts no change"),
        (str(result.model.n_terms), "terms", f"of {len(result.model.rates.library)} candidates per equation"),
        (f"{result.fitted.steps:,}", "transitions fitted", f"{result.held.steps:,} held out to judge"),
    ]


def _equations(result: RecordingFit) -> list[dict[str, Any]]:
    rates, test = result.model.rates, result.whiteness
    lines, terms = rates.equations(precision=4), result.terms()
    entries = []
    for index, (line, unit) in enumerate(zip(lines, rates.target_units, strict=True)):
        target = rates.targets[index]
        entries.append(
            {
                "left": left_side(target, result.model),
                "right": line.partition(" = ")[2],
                "unit": "" if unit == "1" else pretty_unit(unit),
                "terms": [_term(term) for term in terms if term["target"] == target],
                "fitted": percent(float(result.fit.relative_error[index])),
                "held": percent(float(result.held_error[index])),
                "residual": f"{result.fit.residual_rms[index]:.3g}",
                "white": "too few rows" if test is None else test.words(index),
                "p_value": "" if test is None else f"{test.p_value[index]:.2g}",
                "interval": _interval(result, index),
            }
        )
    return entries


def _term(term: dict[str, Any]) -> dict[str, str]:
    row = term_row(term)
    decimals = len(row["coef"].partition(".")[2]) if "e" not in row["coef"] else 6
    unit = "" if term["unit"] in ("", "1") else pretty_unit(term["unit"])
    return row | {"unit": unit, "interval": f"{term['low']:.{decimals}f} to {term['high']:.{decimals}f}"}


def _interval(result: RecordingFit, index: int) -> tuple[str, str, str] | None:
    """Half-width of the prediction interval, the share of held-out transitions in it, and that of the Gaussian one."""
    found = result.coverage
    if found is None:
        return None
    return f"{found.half_width[index]:.3g}", percent(float(found.share[index])), percent(float(found.gaussian[index]))


def _states(result: RecordingFit) -> list[tuple[str, str]]:
    return [
        (name, "not available" if value is None else f"{value:.1f} %") for name, value in result.fit_percent().items()
    ]


def _horizons(result: RecordingFit) -> list[dict[str, Any]]:
    table, dt = result.horizons, result.model.dt
    return [
        {
            "steps": steps,
            "seconds": f"{steps * dt:.4g}",
            "relative": ["–" if not np.isfinite(value) else percent(float(value)) for value in row],
            "diverged": percent(float(lost)) if lost else "none",
        }
        for steps, row, lost in zip(table.horizons, table.relative, table.diverged, strict=True)
    ]


def _actuators(result: RecordingFit) -> list[dict[str, str]]:
    report = result.fit.actuators
    if report is None:
        return []
    excited = {each.name: each for each in result.excitation}
    return [
        {
            "target": target,
            "input": name,
            "gain": f"{report.gain[t, j]:.4g}",
            "dense": f"{report.dense_gain[t, j]:.4g}",
            "effect": percent(float(report.effect[t, j])),
            "verdict": "removed" if report.removed[t, j] else report.note(t, j) or "kept",
            "spread": f"{excited[name].spread:.3g}",
            "own": percent(excited[name].own),
        }
        for t, target in enumerate(report.targets)
        for j, name in enumerate(report.inputs)
    ]


def _figures(result: RecordingFit) -> Iterator[tuple[str, Any]]:
    model, rates = result.model, result.model.rates
    targets, names = rates.targets, rates.library.names
    yield "rollout", fit_plot.data_against_model(result.rollouts, model.states)
    yield "residuals", fit_plot.residuals(result.residual, result.whiteness, targets, model.dt)
    yield "inclusion", fit_plot.inclusion(result.fit.inclusion, rates.support, names, targets)
    selected = [[names[j] for j in np.flatnonzero(row)] for row in rates.support]
    yield "paths", fit_plot.coefficient_paths(result.path, targets, selected)
