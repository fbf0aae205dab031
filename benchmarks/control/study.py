"""Many trials of many methods: what is finished is read back, the rest is run, and all of it is told in one way."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.control import methods
from benchmarks.control.parallel import Backend, Job, run_jobs
from benchmarks.control.policy_size import c_bytes
from benchmarks.control.problem import Problem
from benchmarks.control.results import Key, Record, key, summarize, write_results
from benchmarks.control.worker import load, sized
from benchmarks.finished import FinishedLines
from benchmarks.provenance import code_digest
from benchmarks.seeds import ROOT
from sindyrl.map_file import write_text
from sindyrl.symbolic_map import SymbolicMap

RESULTS = ROOT / "benchmarks" / "results"
DEVELOPMENT = 10_000  # from here on seeds are for development, never for a reported table

_WIDTH = 120  # of the table, where the terminal is narrower

NO_PART = ("benchmarks.command", "benchmarks.control.study", "sindyrl.export", "sindyrl.emit")
"""Has no part in learning and grading. The bytes of C in a stored line are those of the code as it was then."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is run, and how it is told."""

    methods: str = "policy-search,dyna-ppo,ppo"
    """Names with commas between them; `all` for every one."""
    seeds: int = 5
    """How many for each method."""
    first_seed: int | None = None
    """The first of them; by default 0, with --quick 10000. Those from 10000 on are for development."""
    jobs: int = 1
    """Trials at a time."""
    backend: Backend = "loky"
    """Where: processes on this machine, or a cluster of Ray or Dask."""
    out: Path | None = None
    """Folder of finished trials; by default runs/<task>."""
    quick: bool = False
    """Small sizes: does it run, not how good is it."""
    plot: bool = False
    """Draw the learning curves, beside the results with --save, else into the folder of the runs."""
    save: bool = False
    """Write benchmarks/results/<task>.jsonl; methods that are not named keep their lines there."""
    json: bool = False
    """Print JSON lines on standard output and nothing else there."""


def run_study(problem: str, settings: Settings, known: Mapping[str, str] | None = None) -> int:
    """The study of a problem, ``module:name``. Exit code 1 if a trial failed.

    known : name -> ``module:class`` of the methods to choose from; by default those of benchmarks/control/methods
    """
    known = {name: methods.reference(name) for name in methods.available()} if known is None else known
    names = chosen(settings, known)
    definition = sized(load(problem), settings.quick)
    folder = settings.out if settings.out is not None else ROOT / "runs" / definition.name
    entries = {name: _entry(problem, definition, name, known[name], settings.quick, folder) for name in names}
    seeds, records = _seeds(settings), dict[tuple[str, int], Record]()
    for name, entry in entries.items():
        found = entry.store.read()
        records |= {(name, seed): found[it] for seed in seeds if (it := (definition.name, name, seed)) in found}
    for (_, seed), record in records.items():
        _tell(settings, record, f"seed {seed} was finished before")
    # Seed by seed: stopped early, there is something of every method.
    left = [(name, seed) for seed in seeds for name in names if (name, seed) not in records]
    check_packages({name: known[name] for name, _ in left})
    jobs = {
        Job(problem, known[name], seed, settings.quick, str(entries[name].folder(seed))): name for name, seed in left
    }
    for job, figures in run_jobs(list(jobs), workers=settings.jobs, backend=settings.backend):
        name = jobs[job]
        record = {"figure": "trial", "task": definition.name, "method": name, "threshold": definition.threshold}
        record |= figures | {"quick": settings.quick, "machine": platform.machine()}
        records[name, job.seed] = entries[name].kept(record)
        _tell(settings, records[name, job.seed], f"{len(records)} of {len(names) * len(seeds)}")
    told = [entries[name].with_size(records[name, seed]) for name in names for seed in seeds]
    return _conclude(settings, definition.name, folder, told)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A method in a study: its settings, and where its finished trials are."""

    settings: dict[str, Any]
    store: FinishedLines[Key]

    def kept(self, record: Record) -> Record:
        """The record of a trial that has just ended, stored unless it failed; its policy goes into a file."""
        form = record.pop("form", None)
        record["settings"] = self.settings
        if "error" in record:
            return record
        if form is not None:
            self._policy(record).parent.mkdir(parents=True, exist_ok=True)
            write_text(self._policy(record), form)
        made = self.store.keep(record)
        shutil.rmtree(self.folder(record["seed"]), ignore_errors=True)
        return made

    def with_size(self, record: Record) -> Record:
        """With the bytes of C: measured here, for the interpreter that learned may have no compiler of that kind."""
        if "error" in record or record.get("c_bytes") is not None:
            return record
        file = self._policy(record)
        size = c_bytes(SymbolicMap.load(file)) if file.exists() else None
        record = record | {"c_bytes": size}
        return record if size is None else self.store.keep(record)

    def folder(self, seed: int) -> Path:
        """Where a trial that is not finished keeps what it needs to go on."""
        return self._beside(f"seed{seed}-unfinished").resolve()

    def _policy(self, record: Record) -> Path:
        return self._beside(f"seed{record['seed']}.json")

    def _beside(self, name: str) -> Path:
        assert self.store.file is not None
        return self.store.file.with_name(f"{self.store.file.stem}-{name}")


def _entry(problem: str, definition: Problem, name: str, reference: str, quick: bool, folder: Path) -> _Entry:
    settings = dataclasses.asdict(load(reference).of(definition, quick=quick))
    shown = json.loads(json.dumps(settings), parse_constant=str)  # infinity is no number in JSON
    graded = [definition.name, definition.threshold, definition.curve_episodes, definition.report_episodes]
    modules = [each.split(":")[0] for each in (problem, reference)]
    store: FinishedLines[Key] = FinishedLines(
        key,
        code=code_digest(["benchmarks.control.trial", *modules], without=NO_PART),
        tree=hashlib.sha256(json.dumps([graded, shown]).encode()).hexdigest(),
        folder=folder / name,
        results=RESULTS,
    )
    return _Entry(shown, store)


def chosen(settings: Settings, known: Mapping[str, str]) -> list[str]:
    """The methods asked for, each once; ValueError for options that make no sense."""
    names = [name.strip() for name in settings.methods.split(",") if name.strip()]
    names = list(known) if names == ["all"] else list(dict.fromkeys(names))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = unknown[0] if unknown else settings.methods
        raise ValueError(f"`--methods` must name some of {', '.join(known)}. Got {got!r}.")
    for option in ("seeds", "jobs"):
        if getattr(settings, option) < 1:
            raise ValueError(f"`--{option}` must be at least 1. Got {getattr(settings, option)}.")
    if settings.first_seed is not None and settings.first_seed < 0:
        raise ValueError(f"`--first-seed` must not be negative. Got {settings.first_seed}.")
    if settings.save and (settings.quick or _seeds(settings)[-1] >= DEVELOPMENT):
        raise ValueError("`--save` is for full sizes and seeds under 10000. Leave `--quick` and `--first-seed` out.")
    return names


def _seeds(settings: Settings) -> range:
    default = DEVELOPMENT if settings.quick else 0
    first = default if settings.first_seed is None else settings.first_seed
    return range(first, first + settings.seeds)


def check_packages(references: Mapping[str, str]) -> None:
    """ImportError with the remedy if a method needs what is not installed; nothing is imported for it."""
    for name, reference in references.items():
        kind = load(reference)
        for package in getattr(kind, "PACKAGES", ()):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"`--methods {name}` needs {package}, which is not installed. Install it with: "
                    f'pip install "sindyrl[{kind.EXTRA}]", or leave {name} out.'
                )


def _conclude(settings: Settings, task: str, folder: Path, records: Sequence[Record]) -> int:
    methods_of = list(dict.fromkeys(record["method"] for record in records))
    summaries = [summarize([record for record in records if record["method"] == method]) for method in methods_of]
    if settings.save:
        write_results(RESULTS / f"{task}.jsonl", records)
    if settings.plot and any("error" not in record for record in records):
        from benchmarks.control.figure import write_figure

        file = (RESULTS if settings.save else folder) / f"{task}.svg"
        write_figure(file, records)
        sys.stderr.write(f"Learning curves: {file}\n")
    if settings.json:
        for summary in summaries:
            print(json.dumps(summary), flush=True)
    else:
        console = Console()
        Console(width=max(console.width, _WIDTH)).print(table(summaries))
    return 1 if any(summary["failed"] for summary in summaries) else 0


def table(summaries: Sequence[Record]) -> Table:
    """The summaries, one row a method."""
    threshold = summaries[0]["threshold"]
    shown = Table(
        "method", "seeds", "return [95 %]", "worst", f"steps to {threshold:g}", "steps", "wall, s", "CPU, s", "numbers",
        "C, bytes", box=None, pad_edge=False,
    )  # fmt: skip
    for summary in summaries:
        count = len(summary["seeds"]) - len(summary["failed"])
        seeds = str(count) if not summary["failed"] else f"{count}, {len(summary['failed'])} failed"
        if not count:
            shown.add_row(summary["method"], seeds)
            continue
        low, high = summary["final_return_interval"]
        steps = "never" if summary["steps_to_threshold"] is None else _number(summary["steps_to_threshold"])
        reached = "" if summary["reached"] == count else f" ({summary['reached']} of {count})"
        shown.add_row(
            summary["method"],
            seeds,
            f"{_value(summary['final_return'])} [{_value(low)}, {_value(high)}]",
            _value(summary["worst"]),
            f"{steps}{reached}",
            *(_number(summary[name]) for name in ("cost", "wall_s", "processor_s", "n_parameters", "c_bytes")),
        )
    return shown


def _value(earned: float) -> str:
    return f"{earned:.0f}" if abs(earned) >= 100 else f"{earned:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _tell(settings: Settings, record: Record, progress: str) -> None:
    if settings.json:
        print(json.dumps(record), flush=True)
    elif "error" in record:
        sys.stderr.write(f"{record['method']}, seed {record['seed']} failed: {record['error']} ({progress})\n")
    else:
        sys.stderr.write(
            f"{record['method']}, seed {record['seed']}: return {_value(record['final_return'])} after "
            f"{record['cost']:,} real steps, {record['wall_s']:.0f} s ({progress})\n"
        )
