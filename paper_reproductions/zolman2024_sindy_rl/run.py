"""SINDy-RL's cart-pole swing-up and what is checked of its Swimmer: real steps, models, rewards, sparse policies.

    sindyrl reproduce zolman2024_sindy_rl [--quick] [--methods published ...] [--seeds 20] [--rounds 250] [--minutes M]
        [--distill 20] [--study] [--plot] [--fresh] [--json] [--save]
    python -m paper_reproductions.zolman2024_sindy_rl.run    # the same

Models of random steps first, then learning runs, seed by seed, each followed by what is distilled from it. Each is a
line in runs/zolman2024_sindy_rl/ as soon as it is known: killed and started again, or after --minutes, the program
goes on with the next. Lines that the same code made with the same settings are not computed again, those in results/
included; `origin` counts them. Peers are read from benchmarks/results/ (`sindyrl bench swingup`), never run here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.finished import FinishedLines
from benchmarks.provenance import NO_PART, code_digest
from paper_reproductions.zolman2024_sindy_rl import analysis, distillation, studies
from paper_reproductions.zolman2024_sindy_rl.methods import MethodName, method
from sindyrl.map_file import write_text

__all__ = ["Settings", "code", "reproduce"]

RESULTS = Path(__file__).with_name("results")
CACHE = Path(__file__).resolve().parents[2] / "runs" / "zolman2024_sindy_rl"
ALL: tuple[MethodName, ...] = ("published", "linear", "default")
DEVELOPMENT = 10_000  # seeds from here on are for trying things out, never for a reported result

_COLLECT = (250, 500, 1000)  # N_collect
_BATCH = (5, 10, 20, 40)  # n_batch
_CELL_STEPS = 4000  # real steps of the policies in a cell
_CELL_SEEDS = 3
# Sizes that only show that all of it runs. One learning rate for all: nothing is annealed in so short a run.
_QUICK: dict[str, dict[str, Any]] = {
    "published": {
        "first_steps": 1000, "reset_every": 250, "collect_steps": (200,), "rounds": 2, "anneal": None,
        "ppo": {"length": 200, "epochs": 4, "minibatches": 4, "updates": 4},
    },
    "default": {"rounds": 1, "calls": 3, "patience": None},
}  # fmt: skip
_QUICK["linear"] = _QUICK["published"] | {"rounds": 1}
_WITH_MODELS = " with models"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is run; the defaults are the whole study."""

    methods: tuple[MethodName, ...] = ALL
    """Which of ours; with none only models are fitted."""
    seeds: int = 20
    """Learning runs of each method."""
    first_seed: int = 0
    """The first seed; those from 10000 on are for development. --quick always takes 10000."""
    rounds: int | None = None
    """Of fitting, learning and collecting; by default 250 (published), 62 (linear) and at most 8 (default).
    Given, linear has half as many, each of which takes twice as many real steps, and default still at most 8."""
    distill: int = 20
    """Seeds of the published settings whose best network becomes sparse policies; of our loop each seed's does."""
    minutes: float = float("inf")
    """Start nothing new after this time."""
    study: bool = False
    """Also N_collect x n_batch: 12 cells of 3 seeds with the published settings."""
    plot: bool = False
    """Draw the figures too: to results/ with --save, and to the folder."""
    fresh: bool = False
    """Compute everything, finished lines too."""
    folder: Path = CACHE
    """Where finished lines are kept."""


@functools.cache
def code() -> str:
    """Twelve digits that change with any source file a line depends on."""
    package = "paper_reproductions.zolman2024_sindy_rl"
    return code_digest([f"{package}.studies", f"{package}.distillation"], without=NO_PART)[:12]


@dataclasses.dataclass(frozen=True)
class Task:
    """One line of the study.

    key : its name, which says everything it depends on but the code   kind : "models", "learn", "cell", "speed" ...
    run : what is done, given the records so far and where progress goes; None if these lack what it needs
    """

    key: str
    kind: str
    run: Callable[[Mapping[str, dict[str, Any]], Callable[[float, str], None]], dict[str, Any] | None]


def reproduce(
    *,
    quick: bool,
    progress: Callable[[float, str], None],
    methods: Sequence[MethodName] = Settings.methods,
    seeds: int = Settings.seeds,
    first_seed: int = Settings.first_seed,
    rounds: int | None = Settings.rounds,
    distill: int = Settings.distill,
    minutes: float = Settings.minutes,
    study: bool = Settings.study,
    plot: bool = Settings.plot,
    fresh: bool = Settings.fresh,
    folder: Path | None = Settings.folder,
) -> dict[str, Any]:
    """Run what is not finished; figures, their origin and the files to save, by the contract of ../README.md."""
    counts = (("seeds", seeds, 1), ("first_seed", first_seed, 0), ("rounds", rounds, 1), ("distill", distill, 0))
    for name, value, least in counts:
        if value is not None and value < least:
            raise ValueError(f"`reproduce({name}=...)` must be at least {least}. Got {value}.")
    chosen = range(DEVELOPMENT, DEVELOPMENT + 1) if quick else range(first_seed, first_seed + seeds)
    tasks = tasks_of(methods, chosen, rounds, quick=quick, study=study, distill=distill)
    lines = FinishedLines(_key, code=code(), tree="", folder=folder, results=RESULTS)
    finished = {} if fresh else lines.read()
    records: dict[str, dict[str, Any]] = {}
    reused = 0
    for record in run(tasks, lines, finished, progress, minutes):
        records[record["key"]] = record
        reused += finished.get(record["key"]) is record
        progress(len(records) / len(tasks), record["key"])
    peers = analysis.peer_curves()
    found = analysis.figures(records.values(), peers) | analysis.swimmer_figures()
    complete = not quick and all(task.key in records for task in tasks)
    files = texts(records.values()) if complete else {}
    if plot:
        pictures = drawings(list(records.values()), peers, found, quick=quick)
        files |= pictures if complete else {}
        if folder is not None:
            for name, text in pictures.items():
                write_text(folder / name, text)
    missing = [task.key for task in tasks if task.key not in records]
    return {
        "figures": found,
        "origin": f"{len(records) - reused} lines computed now, {reused} read from finished runs of the same code "
        f"({code()}); peers from what is committed in benchmarks/results",
        "notes": [f"{len(missing)} of {len(tasks)} lines are not finished; run again to go on."] if missing else [],
        "table": analysis.table(found),
        "records": list(records.values()),
        "files": files,
    }


def tasks_of(
    methods: Sequence[MethodName],
    seeds: Sequence[int],
    rounds: int | None,
    *,
    quick: bool,
    study: bool,
    distill: int = Settings.distill,
) -> list[Task]:
    """What is to be done: cheap lines first, then seed by seed, so that a run cut short has something of everything."""
    steps = 2000 if quick else 8000
    tasks = [_models(seed, steps, keep=seed == seeds[0]) for seed in seeds]
    tasks += [_speed(tasks[0].key, quick), *(_swimmer_reward(seed, 2000 if quick else 12_000) for seed in seeds)]
    distilled: dict[MethodName, int] = {"published": distill, "linear": 0, "default": 0 if quick else len(seeds)}
    for number, seed in enumerate(seeds):
        for name in methods:
            changes = dict(_QUICK[name]) if quick else _rounds(name, rounds)
            keep: studies.Keep = "teacher" if number else "models"  # figures are of the first seed
            if name == "linear":
                keep = "nothing"  # its models show nothing that the others do not
            learning = _learning(name, seed, changes, keep=keep, episodes=1 if quick else None)
            tasks += [learning, *([_distilling(learning, seed, quick)] if number < distilled[name] else [])]
    if study:
        for seed in seeds[:_CELL_SEEDS]:
            tasks += [_cell(collect, batch, seed, quick) for collect in _COLLECT for batch in _BATCH]
    return tasks


def _rounds(name: MethodName, rounds: int | None) -> dict[str, Any]:
    """The change of settings. `linear` collects 1,000 steps for 500 of `published`, and so ends with as many real ones;
    `default` stops by itself, and has its own most rounds unless fewer are asked for."""
    if rounds is None or (name == "default" and rounds >= method(name).settings.rounds):
        return {}
    return {"rounds": -(-rounds // 2) if name == "linear" else rounds}


def _models(seed: int, steps: int, *, keep: bool) -> Task:
    key = f"models {seed} {steps}{' with coefficients' * keep}"
    return Task(key, "models", lambda done, told: studies.measure_models(seed, steps, keep=keep))


def _speed(models: str, quick: bool) -> Task:
    def run_it(done: Mapping[str, dict[str, Any]], told: Any) -> dict[str, Any] | None:
        if models not in done:
            return None
        return studies.measure_speed(done[models]["models"]["published"], steps=500 if quick else 2000)

    return Task(f"speed of {models}", "speed", run_it)


def _swimmer_reward(seed: int, steps: int) -> Task:
    kind = "swimmer reward"
    return Task(f"{kind} {seed} {steps}", kind, lambda done, told: studies.measure_swimmer_reward(seed, steps))


def _learning(
    name: MethodName, seed: int, changes: dict[str, Any], *, keep: studies.Keep, episodes: int | None
) -> Task:
    def run_it(done: Mapping[str, dict[str, Any]], told: Callable[[float, str], None]) -> dict[str, Any]:
        found = studies.learn(name, seed, changes=changes, keep=keep, episodes=episodes, told=told)
        return {"method": name, "seed": seed} | found

    return Task(f"{name} {seed}{_WITH_MODELS * (keep == 'models')}{_digest(changes, episodes)}", "learn", run_it)


def _distilling(learning: Task, seed: int, quick: bool) -> Task:
    def run_it(done: Mapping[str, dict[str, Any]], told: Any) -> dict[str, Any] | None:
        learned = done.get(learning.key)
        if learned is None:
            return None
        if "teacher" not in learned:  # as in most saved lines: learned again
            learned = learned | (learning.run(done, told) or {})
        return distillation.distilled(learned, seed, quick=quick, keep=_WITH_MODELS in learning.key)

    return Task(f"distill {learning.key}", "distill", run_it)


def _cell(collect: int, batch: int, seed: int, quick: bool) -> Task:
    changes: dict[str, Any] = {"collect_steps": (collect,), "rounds": _CELL_STEPS // collect, "ppo": {"updates": batch}}
    if quick:
        changes = _QUICK["published"] | {"collect_steps": (collect // 5,), "rounds": 1}
        changes["ppo"] = changes["ppo"] | {"updates": 1}

    def run_it(done: Mapping[str, dict[str, Any]], told: Callable[[float, str], None]) -> dict[str, Any]:
        found = studies.learn("published", seed, changes=changes, episodes=1 if quick else None, told=told)
        return {"collect": collect, "batch": batch, "seed": seed} | found

    return Task(f"cell {collect} {batch} {seed}{_digest(changes)}", "cell", run_it)


def _digest(*parts: Any) -> str:
    """What else a line depends on, in a few letters; nothing if all is as in the whole study."""
    if not any(parts):
        return ""
    return " " + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def run(
    tasks: Sequence[Task],
    lines: FinishedLines[str],
    finished: Mapping[str, dict[str, Any]],
    progress: Callable[[float, str], None],
    minutes: float = float("inf"),
) -> Iterator[dict[str, Any]]:
    """One record for each task: ``finished`` ones as they are, others are kept. What lacks its premises is left out."""
    end = time.monotonic() + 60 * minutes
    done: dict[str, dict[str, Any]] = {}
    for number, task in enumerate(tasks):
        if task.key in finished:
            done[task.key] = finished[task.key]
        elif time.monotonic() < end:
            told = lambda share, text, n=number: progress((n + share) / len(tasks), text)  # noqa: E731
            found = task.run(done, told)
            if found is None:
                continue
            done[task.key] = lines.keep({"key": task.key, "kind": task.kind} | found)
        else:
            continue
        yield done[task.key]


def _key(record: Mapping[str, Any]) -> str:
    return str(record["key"])


def texts(records: Any) -> dict[str, str]:
    """One file of lines for each kind; networks, 65 kB each, only where figures are drawn from them."""
    groups: dict[str, list[str]] = {}
    for record in records:
        slim = record["kind"] == "learn" and "snapshots" not in record
        line = {name: value for name, value in record.items() if not (slim and name == "teacher")}
        groups.setdefault(record["kind"].replace(" ", "-"), []).append(json.dumps(line) + "\n")
    return {f"{kind}.jsonl": "".join(lines) for kind, lines in groups.items()}


def drawings(
    records: Sequence[Mapping[str, Any]], peers: Mapping[str, Any], found: Mapping[str, Any], *, quick: bool
) -> dict[str, str]:
    """The figures that these lines suffice for, as SVG by file name."""
    from paper_reproductions.zolman2024_sindy_rl import plot

    learned = [record for record in records if record["kind"] == "learn"]
    curves = {name: [r["curve"] for r in learned if r["method"] == name] for name in ALL} | dict(peers)
    by_key = {record["key"]: record for record in records}
    files = {}
    if learned:
        files["learning-curves.svg"] = plot.learning_curves(curves)
    for record in records:
        if record["kind"] == "models" and "portraits.svg" not in files:
            files["portraits.svg"] = plot.models_portraits(record["models"])
        elif record["kind"] == "distill" and "snapshots" in by_key[record["teacher"]["of"]]:
            files[f"policies-{record['method']}.svg"] = plot.policies(record, by_key[record["teacher"]["of"]])
    for record in learned:
        if "snapshots" in record:
            files[f"variances-{record['method']}.svg"] = plot.variances(record, quick=quick)
        if record["method"] == "published" and "snapshots" in record:
            files["portraits-training.svg"] = plot.portraits_over_training(record)
            files["reward.svg"] = plot.reward_surfaces(record)
            files["coefficients.svg"] = plot.coefficients(record)
    if any(name.startswith("cell_") for name in found):
        files["collect-batch.svg"] = plot.collect_and_batch(found)
    return files


if __name__ == "__main__":
    from sindyrl.cli import main

    sys.exit(main(["reproduce", Path(__file__).parent.name, *sys.argv[1:]]))
