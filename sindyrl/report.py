"""One self-contained page about a run: everything a reader needs, nothing that is loaded from elsewhere.

What it says is read from the run folder alone, so that the same folder gives the same page.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sindyrl import plot
from sindyrl.emit.text import number
from sindyrl.map_file import read_json, write_text
from sindyrl.model import Model, Truth
from sindyrl.page import NOT_MEASURED, count, kinematics, left_side, render, sides, term_row, typeset
from sindyrl.plot import MethodResult, pretty_unit
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset, Trajectory

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["MethodResult", "ReportError", "typeset", "write_report"]

STAGES = ("data", "model", "policy", "export", "report")


class ReportError(ValueError):
    """The folder does not hold what a report is made of; the text says what is missing and what to do."""


def write_report(
    folder: str | Path,
    *,
    title: str,
    task: Task,
    comparisons: Sequence[MethodResult] = (),
    notes: Sequence[str] = (),
    truth: Truth | None = None,
    command: str = "",
) -> Path:
    """Write ``report.html`` into the folder of a finished run and return its path.

    title : of the page
    comparisons : other methods on the same problem, each with where its numbers are from
    notes : sentences printed below the equations of motion
    truth : the true targets ``(x, u) -> (n, n_targets)`` if a simulator can tell them; otherwise the model is compared
        with the rates measured in the report episodes
    command : what a reader types to get this run again

    The file appears whole or not at all. Raises ReportError if a stage is missing, MapFileError if a file is damaged.
    """
    run = _Run(Path(folder), task)
    page = _page(run, title, tuple(comparisons), tuple(notes), truth, command)
    target = run.folder / "report.html"
    write_text(target, page)
    return target


@dataclasses.dataclass(frozen=True)
class _Run:
    """The content of a run folder."""

    folder: Path
    task: Task

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._object("config.json")

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        return {name: self._object(f"stages/{name}.json") for name in STAGES}

    @cached_property
    def model(self) -> Model:
        return Model.load(self._file("model.json"))

    @cached_property
    def policy(self) -> SymbolicMap:
        return SymbolicMap.load(self._file("policy.json"))

    @cached_property
    def data(self) -> Dataset:
        return Dataset.from_npz(self._file("data.npz"))

    @cached_property
    def episodes(self) -> Dataset:
        return Dataset.from_npz(self._file("episodes.npz"))

    @property
    def real_steps(self) -> int:
        """What the result cost: steps to learn from and steps that chose."""
        return int(self.stages["data"]["data_steps"]) + int(self.stages["policy"]["selection_steps"])

    def policy_equations(self) -> list[str]:
        """The policy's lines; from its sparse form if that was stored, which needs fewer parentheses."""
        lines: list[str] = self.stages["policy"]["policy"].splitlines()
        file = self.folder / "policy_terms.json"
        if not file.exists():
            return lines
        sparse = SparseMap.load(file)
        limits = {signal.name: (number(signal.lower, 4), number(signal.upper, 4)) for signal in self.task.inputs}
        if set(sparse.targets) != set(limits):
            return lines
        parts = [line.split(" = ", 1) for line in sparse.equations(precision=4)]
        return [f"{name} = clip({right}, {', '.join(limits[name])})" for name, right in parts]

    def sources(self) -> list[tuple[str, str]]:
        """(name, text) of the exported header and source, as far as they are there."""
        name = re.sub(r"[^A-Za-z0-9_]", "", str(self.stages["export"].get("name", "policy")))
        files = [self.folder / "firmware" / f"{name}.{ending}" for ending in ("c", "h")]
        return [(file.name, file.read_text(encoding="utf-8")) for file in files if file.exists()]

    def _file(self, name: str) -> Path:
        file = self.folder / name
        if not file.exists():
            raise ReportError(f"{self.folder} holds no {name}. Run the chain to its end there first.")
        return file

    def _object(self, name: str) -> dict[str, Any]:
        found = read_json(self._file(name))
        if not isinstance(found, dict):
            raise ReportError(f"{self.folder / name} does not hold a JSON object. Start the run over.")
        return found


def _page(
    run: _Run, title: str, comparisons: Sequence[MethodResult], notes: Sequence[str], truth: Truth | None, command: str
) -> str:
    results = [_own_result(run), *comparisons]
    try:
        return render(
            "report.html",
            title=title,
            task=run.task,
            stages=run.stages,
            tiles=_tiles(run),
            real_steps=run.real_steps,
            seconds=run.stages["data"]["data_steps"] * run.task.dt,
            kinematics=kinematics(run.model),
            has_angle=bool(getattr(run.model.structure, "angles", None)),
            equations=_equations(run),
            notes=notes,
            policy=[sides(line) for line in run.policy_equations()],
            methods=[_method_row(result) for result in results],
            figures=_figures(run, results, truth),
            episode_cut=_interesting(run.episodes[0]) is not None,
            sources=run.sources(),
            verification=_verification(run.stages["export"]),
            export_note=run.stages["export"].get("note", ""),
            costs=_costs(run),
            candidates=_candidates(run.stages["policy"]),
            settings=sorted(run.config.get("config", {}).items()),
            versions=_versions(run),
            code=run.config.get("code", ""),
            command=command,
        )
    except KeyError as error:
        raise ReportError(f"{run.folder} is of another version: it lacks {error}. Start the run over.") from None


# ---- numbers and words


def _measured(value: Any, form: str = "{:,}", unit: str = "") -> str:
    return NOT_MEASURED if value is None else form.format(value) + unit


def _yes(value: bool | None) -> str:
    return NOT_MEASURED if value is None else "yes" if value else "no"


def _span(values: Sequence[float]) -> str:
    """``1,250``, or ``250,000 to 350,000``."""
    low, high = count(min(values)), count(max(values))
    return low if low == high else f"{low} to {high}"


# ---- the parts of the page


def _tiles(run: _Run) -> list[tuple[str, str, str]]:
    """(figure, what it is, small print) of what came out."""
    stages = run.stages
    report, policy, export = stages["report"], stages["policy"], stages["export"]
    instructions, size = export.get("m4_instructions"), export.get("c_bytes")
    return [
        (
            f"{report['return_mean']:.4g}",
            "mean return",
            f"over {report['report_episodes']} real episodes, worst {report['return_min']:.4g}",
        ),
        (
            count(run.real_steps),
            "real steps",
            f"{count(stages['data']['data_steps'])} to learn from, {count(policy['selection_steps'])} to choose",
        ),
        (str(policy["n_terms"]), "terms in the policy", f"{stages['model']['model_terms']} in the equations of motion"),
        (
            _measured(instructions),
            "instructions per call",
            "on an emulated Cortex-M4F" + ("" if size is None else f", {size:,} bytes"),
        ),
    ]


def _own_result(run: _Run) -> MethodResult:
    returns = tuple(run.stages["report"]["returns"])
    return MethodResult("this run", "measured here, stages/report.json", (float(run.real_steps),), returns)


def _method_row(result: MethodResult) -> dict[str, str]:
    returns = result.returns
    if not returns:
        value = "not published" if result.published else NOT_MEASURED
    elif result.is_curve:
        value = f"{returns[-1]:.4g} at the end"
    elif len(returns) == 1:
        value = f"{returns[0]:.4g}"
    else:
        value = f"{np.mean(returns):.4g} ({min(returns):.4g} to {max(returns):.4g})"
    return {
        "method": result.method,
        "steps": count(result.steps[-1]) if result.is_curve else _span(result.steps),
        "value": value,
        "source": result.source,
        "note": result.note,
    }


def _equations(run: _Run) -> list[dict[str, Any]]:
    """One entry for each target: its line, the terms one by one, and how well it fits."""
    stage, rates = run.stages["model"], run.model.rates
    terms = stage.get("terms") or _bare_terms(rates)
    entries = []
    for index, line in enumerate(stage["equations"]):
        target = rates.targets[index]
        unit = rates.target_units[index]
        entries.append(
            {
                "left": left_side(target, run.model),
                "right": sides(line)[1],
                "unit": "" if unit == "1" else pretty_unit(unit),
                "terms": [term_row(term) for term in terms if term["target"] == target],
                "residual": f"{stage['residual_rms'][index]:.2g}",
                "relative": plot.percent(stage["relative_error"][index]),
            }
        )
    return entries


def _bare_terms(rates: SparseMap) -> list[dict[str, Any]]:
    coef = rates.median().coef
    return [
        {"target": rates.targets[t], "term": rates.library.names[f], "coef": float(coef[t, f])}
        for t, f in np.argwhere(rates.support)
    ]


def _verification(export: dict[str, Any]) -> list[tuple[str, Markup | str]]:
    """(what was checked, what was found)."""
    verified = export.get("verified", "none")
    instructions, fewest = export.get("m4_instructions"), export.get("m4_instructions_min")
    same = fewest is None or fewest == instructions
    words = {"emulated": "compiled, compared and executed", "compiled": "compiled and compared"}
    return [
        ("Verified", words.get(verified, "no")),
        ("Compiled with all warnings as errors by", export.get("host_compiler") or NOT_MEASURED),
        ("Compared with the map in float64", f"{export.get('vectors', 0):,} vectors"),
        ("Within the bound on every vector", _yes(export.get("matches"))),
        ("Largest error", typeset(_measured(export.get("max_error"), "{:.2g}"))),
        ("Bound of the rounding error", typeset(_measured(export.get("error_bound"), "{:.2g}"))),
        ("Every bit as NumPy's float32", _yes(export.get("bitwise"))),
        ("Executed on an emulated Cortex-M4F", "yes" if verified == "emulated" else "no"),
        ("Compiled for it by", export.get("cross_compiler") or NOT_MEASURED),
        ("Instructions per call", _measured(instructions) if same else f"{fewest:,} to {instructions:,}"),
        ("of these in the mathematics library", _measured(export.get("m4_library_instructions"))),
        ("Code and constants", _measured(export.get("c_bytes"), unit=" bytes")),
        ("Mathematics library", _measured(export.get("library_bytes"), unit=" bytes")),
        ("Stack", _measured(export.get("stack_bytes"), unit=" bytes")),
    ]


def _costs(run: _Run) -> list[tuple[str, int, str, float]]:
    """(head, real steps, purpose, seconds of motion)."""
    stages, dt = run.stages, run.task.dt
    data, selection = stages["data"]["data_steps"], stages["policy"]["selection_steps"]
    heads = [
        ("data", data, "the equations of motion were learned from them"),
        ("selection", selection, "real episodes that may reject a policy"),
        ("cost", data + selection, "what this result is charged with"),
        ("report", stages["report"]["report_steps"], "measure the result and choose nothing"),
    ]
    return [(name, steps, purpose, steps * dt) for name, steps, purpose in heads]


def _candidates(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """The sparse policies in the order in which they were found, and what became of each."""
    real: dict[int, list[float]] = {}
    for validation in policy["validations"]:
        real.setdefault(validation["candidate"], []).append(validation["return"])
    chosen = policy["chosen"]
    rows = []
    for index, candidate in enumerate(policy["candidates"]):
        tried = real.get(index, [])
        if index == chosen:
            verdict = "chosen"
        else:
            verdict = "rejected after a real episode" if tried else "rejected by its score in the model"
        rows.append(
            {
                "index": index + 1,
                "chosen": index == chosen,
                "terms": candidate["n_terms"],
                "score": f"{candidate['score']:.4g}",
                "mean": f"{np.mean(candidate['returns']):.4g}" if candidate["returns"] else NOT_MEASURED,
                "worst": f"{min(candidate['returns']):.4g}" if candidate["returns"] else NOT_MEASURED,
                "real": ", ".join(f"{value:.4g}" for value in tried) or "none",
                "verdict": verdict,
                "policy": candidate["policy"],
            }
        )
    return rows


def _versions(run: _Run) -> list[tuple[str, str]]:
    found = run.config.get("versions")
    return sorted((str(name), str(version)) for name, version in found.items()) if isinstance(found, dict) else []


# ---- figures


def _figures(run: _Run, results: Sequence[MethodResult], truth: Truth | None) -> dict[str, Markup]:
    """SVG text by name; a figure that this run has nothing for is left out."""
    from markupsafe import Markup

    return {name: Markup(plot.to_svg(figure, name)) for name, figure in _drawn(run, results, truth)}


def _drawn(run: _Run, results: Sequence[MethodResult], truth: Truth | None) -> Iterator[tuple[str, Any]]:
    task, model, rates = run.task, run.model, run.model.rates
    yield "data", plot.episode(max(run.data, key=len), task)
    pairs = run.episodes.pairs()
    compared = model.against(pairs.x, pairs.u, pairs.x_next, truth)
    yield "rates", plot.learned_against_true(*compared, rates.targets, rates.target_units)
    if len(task.states) >= 2:
        yield "phase", plot.phase_portrait(list(run.episodes), task, model, run.policy)
    first = run.episodes[0]
    yield "episode", plot.episode(first, task, until=_interesting(first))
    yield "comparison", plot.return_against_steps(results)
    policy = run.stages["policy"]
    path = policy["candidates"][policy["chosen"]]["path"]
    if len(path) > 1:
        yield "pruning", plot.terms_against_score([(int(n), float(score)) for n, score in path])


def _interesting(trajectory: Trajectory) -> float | None:
    """Time until which something happens: 1.6 times the last departure from the final state, if that is early."""
    size = np.ptp(trajectory.x, axis=0)
    away = np.abs(trajectory.x - trajectory.x[-1]) > 0.05 * np.where(size > 0, size, 1.0)
    rows = np.flatnonzero(away.any(axis=1))
    if not len(rows):
        return None
    t = trajectory.t - trajectory.t[0]
    until = 1.6 * t[rows[-1]]
    return float(trajectory.t[0] + until) if until < 0.7 * t[-1] else None
