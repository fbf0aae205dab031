"""`sindyrl fit`: a CSV file in; equations with their uncertainty, a model file and a report out."""

from __future__ import annotations

import dataclasses
import json as json_text
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sindyrl import console
from sindyrl.fit_report import write_fit_report
from sindyrl.fitting import FitSettings, RecordingFit, fit_recording
from sindyrl.map_file import write_text
from sindyrl.recording import read_recording

__all__ = ["names", "pairs", "run_fit", "units"]


def names(text: str, option: str) -> tuple[str, ...]:
    """``x,v`` as names; empty text is none. Raises ValueError for an empty name between commas."""
    found = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if not all(found):
        raise ValueError(f"`{option}` must be names separated by commas, such as x,v. Got {text!r}.")
    return found


def pairs(text: str, option: str) -> tuple[tuple[str, str], ...]:
    """``x:v,y:w`` as pairs."""
    found = []
    for part in names(text, option):
        left, colon, right = (piece.strip() for piece in part.partition(":"))
        if not (left and colon and right) or ":" in right:
            raise ValueError(f"`{option}` must be position:velocity pairs, such as x:v. Got {text!r}.")
        found.append((left, right))
    return tuple(found)


def units(text: str, option: str) -> tuple[tuple[str, str], ...]:
    """``x=m,v=m/s`` as pairs of a column and its unit."""
    found: list[tuple[str, str]] = []
    for part in names(text, option):
        name, equals, unit = (piece.strip() for piece in part.partition("="))
        if not (name and equals and unit) or name in dict(found):
            raise ValueError(f"`{option}` must be column=unit pairs, each column once, as x=m,v=m/s. Got {text!r}.")
        found.append((name, unit))
    return tuple(found)


def run_fit(
    data: Path,
    settings: FitSettings,
    *,
    states: tuple[str, ...],
    inputs: tuple[str, ...] = (),
    time: str | None = None,
    dt: float | None = None,
    episode: str | None = None,
    resample: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> RecordingFit:
    """Read, fit, write ``model.json``, ``fit.json`` and ``report.html`` into ``out``, and print."""
    folder = out if out is not None else Path("runs") / f"{data.stem}-fit"
    with console.stage_bars(json) as progress:
        progress("Read", 0.0, str(data))
        recording = read_recording(
            data, states=states, inputs=inputs, time=time, dt=dt, episode=episode, resample=resample
        )
        progress("Read", 1.0, f"{recording.rows} rows, {recording.data.steps} transitions")
        result = fit_recording(
            recording.data, settings, notes=recording.notes, progress=lambda share, what: progress("Fit", share, what)
        )
        progress("Write", 0.0, str(folder))
        asked = _asked(settings, states, inputs, recording.time, result, episode, resample)
        summary = _write(result, folder, data, asked)
        progress("Write", 1.0, "")
    if json:
        console.json_line(summary)
    else:
        _show(result, summary)
    return result


def _asked(
    settings: FitSettings,
    states: tuple[str, ...],
    inputs: tuple[str, ...],
    time: str | None,
    result: RecordingFit,
    episode: str | None,
    resample: bool,
) -> list[tuple[str, str]]:
    """(name, value) of what decided the result."""
    sampling = time if time is not None else f"every {result.model.dt:.6g} s"
    rows: list[tuple[str, Any]] = [("states", ", ".join(states)), ("inputs", ", ".join(inputs)), ("time", sampling)]
    rows += [("episode", episode or ""), ("resample", resample)]
    for name, value in dataclasses.asdict(settings).items():
        if name in ("kinematics", "units"):
            value = ", ".join(("=" if name == "units" else ":").join(pair) for pair in value)
        if name == "method" and value == "auto":
            value = f"auto: {result.fit.method}"
        rows.append((name, ", ".join(value) if isinstance(value, tuple) else value))
    return [(name, str(value)) for name, value in rows if value not in ("", None, False)]


def _write(result: RecordingFit, folder: Path, data: Path, asked: list[tuple[str, str]]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    model, report = folder / "model.json", folder / "report.html"
    result.model.save(model)
    write_fit_report(result, report, title=f"Equations from {data.name}", source=str(data.name), settings=asked)
    summary = {**_figures(result), "model": str(model), "report": str(report)}
    write_text(folder / "fit.json", json_text.dumps(summary, indent=2, allow_nan=False) + "\n")
    return summary


def _figures(result: RecordingFit) -> dict[str, Any]:
    """The outcome as JSON-able numbers."""
    test, actuators, table = result.whiteness, result.fit.actuators, result.horizons
    targets, states = result.model.rates.targets, result.model.state_names
    found: dict[str, Any] = {
        "equations": result.equations(),
        "method": result.fit.method,
        "terms": result.terms(),
        "fit_percent": result.fit_percent(),
        "diverged": sum(path.diverged for path in result.rollouts),
        "rollouts": len(result.rollouts),
        "relative_error": dict(zip(targets, result.fit.relative_error.tolist(), strict=True)),
        "held_out_error": dict(zip(targets, result.held_error.tolist(), strict=True)),
        "horizon_steps": list(table.horizons),
        "error_of_persistence": {
            name: [float(value) if value == value else None for value in column]
            for name, column in zip(states, table.relative.T, strict=True)
        },
        "whiteness_p": None if test is None else dict(zip(targets, test.p_value.tolist(), strict=True)),
        "condition": result.fit.condition if result.fit.condition < float("inf") else None,
        "dropped": list(result.fit.dropped),
        "transitions": result.fitted.steps,
        "used": result.fit.rows,
        "held_out": result.held.steps,
        "outliers": result.outliers,
        "dt": result.model.dt,
        "excitation": {each.name: {"spread": each.spread, "own": each.own} for each in result.excitation},
        "dead_time_steps": {each.name: each.best for each in result.dead_times},
        "prediction_interval": _interval(result),
        "warnings": list(result.warnings),
    }
    if result.drift is not None:
        found["drift"] = dataclasses.asdict(result.drift)
    if actuators is not None:
        found["actuators"] = [
            {
                "target": target,
                "input": name,
                "gain": float(actuators.gain[t, j]),
                "dense_gain": float(actuators.dense_gain[t, j]),
                "effect": float(actuators.effect[t, j]),
                "removed": bool(actuators.removed[t, j]),
            }
            for t, target in enumerate(actuators.targets)
            for j, name in enumerate(actuators.inputs)
        ]
    return found


def _interval(result: RecordingFit) -> dict[str, Any] | None:
    """Coverage of the one-step prediction intervals, by equation."""
    found, targets = result.coverage, result.model.rates.targets
    if found is None:
        return None
    arrays = {"coverage": found.share, "coverage_gaussian": found.gaussian, "half_width": found.half_width}
    by_target = {name: dict(zip(targets, values.tolist(), strict=True)) for name, values in arrays.items()}
    return {"level": found.level, "judged_on": found.rows, **by_target}


def _show(result: RecordingFit, summary: dict[str, Any]) -> None:
    screen = Console(highlight=False, soft_wrap=True)
    screen.print()
    for line in result.equations():
        screen.print(f"  {line}", markup=False, style="bold")
    screen.print()
    table = Table("", "term", "coefficient", "±", "in resamples", box=None, pad_edge=True)
    for column in table.columns[2:]:
        column.justify = "right"
    before = ""
    for term in result.terms():
        first = term["target"] if term["target"] != before else ""
        before = term["target"]
        cells = (
            first,
            term["term"],
            f"{term['coef']:.4g}" + (f" {term['unit']}" if term["unit"] not in ("", "1") else ""),
            f"{term['standard_error']:.1g}",
            f"{100 * term['inclusion']:.0f} %",
        )
        table.add_row(*cells)
    screen.print(table, markup=False)
    screen.print()
    fits = ", ".join(
        f"{name} {'–' if value is None else f'{value:.1f} %'}" for name, value in summary["fit_percent"].items()
    )
    diverged = f"; {summary['diverged']} of {summary['rollouts']} diverged" if summary["diverged"] else ""
    lines = [f"Fit of held-out roll-outs ({summary['held_out']} transitions, NRMSE): {fits}{diverged}"]
    if result.whiteness is not None:
        lines += [
            f"Residuals of {name} on the {result.judged_on}: {result.whiteness.words(t)}"
            for t, name in enumerate(result.model.rates.targets)
        ]
    if result.coverage is not None:
        shares = ", ".join(
            f"{name} {100 * share:.0f} %"
            for name, share in zip(result.model.rates.targets, result.coverage.share, strict=True)
        )
        lines.append(
            f"{100 * result.coverage.level:.0f} % prediction intervals hold of the last {result.coverage.rows} "
            f"held-out transitions: {shares}"
        )
    if result.drift is not None:
        lines.append(str(result.drift))
    lines.append(f"Method: {result.fit.method}")
    lines.append(f"Condition number of the candidate terms: {result.fit.condition:.3g}")
    if result.fit.actuators is not None:
        lines += str(result.fit.actuators).splitlines()
    for line in lines:
        screen.print(line, markup=False)
    for text in result.warnings:
        screen.print(f"Note: {text}", markup=False, style="yellow")
    screen.print(f"Model: {summary['model']}\nReport: {summary['report']}", markup=False)
