"""The demonstration over many seeds: ``sindyrl bench demo_swingup --seeds 20``.

Each seed is one ``sindyrl demo`` in a process of its own, pinned to one core. A seed that is finished is not run again
by the same code; the table is written when all are. ``--noise 1e-3 --data-steps 400`` adds measurement noise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.seeds import ROOT, derived_seeds, tree_hash
from sindyrl.run_folder import code_digest

RESULTS = ROOT / "benchmarks" / "results"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The demonstration over many seeds."""

    seeds: int = 20
    """How many, derived from the committed tree."""
    noise: float = 0.0
    """Standard deviation of the measurement noise."""
    data_steps: int = 250
    """Real steps to learn from."""
    out: Path = Path("runs/demo_swingup")
    """Folder of the runs, one per seed."""
    first_seed: int | None = None
    """Count seeds up from here instead of deriving them: for development, never for a reported table."""
    save: bool = False
    """Write the table to benchmarks/results/."""
    quick: bool = False
    """One development seed: does it run, not how good is it."""
    json: bool = False
    """Print JSON lines."""


def run_seed(settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
    """One demonstration; its summary with process wall time (s), peak memory (MB) and exit code."""
    row_file = folder / "row.json"
    if row_file.exists():
        return dict(json.loads(row_file.read_text(encoding="utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sindyrl", "demo", "--json", "--seed", str(seed), "--out", str(folder / "run")]
    command += ["--noise", str(settings.noise), "--data-steps", str(settings.data_steps)]
    begun = time.perf_counter()
    with (folder / "stdout.jsonl").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, preexec_fn=_one_core, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    lines = (folder / "stdout.jsonl").read_text(encoding="utf-8").splitlines()
    row: dict[str, Any] = json.loads(lines[-1]) if process.returncode == 0 and lines else {"seed": seed}
    row |= {
        "exit_code": process.returncode,
        "process_wall_s": round(time.perf_counter() - begun, 2),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
    }
    temporary = folder / "row.json.tmp"
    temporary.write_text(json.dumps(row), encoding="utf-8")
    temporary.replace(row_file)
    return row


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the table stands against what the demonstration promises; every count is of seeds."""
    done = [row for row in rows if row["exit_code"] == 0]
    means = np.array([row["return_mean"] for row in done])
    quartiles = np.sort(means)[len(means) // 4 : len(means) - len(means) // 4] if len(means) else means
    return {
        "seeds": len(rows),
        "finished": len(done),
        "data_steps_at_most_250": sum(row["data_steps"] <= 250 for row in done),
        "selection_steps_at_most_3000": sum(row["selection_steps"] <= 3000 for row in done),
        "n_terms_at_most_10": sum(row["n_terms"] <= 10 for row in done),
        "return_mean_at_least_850": int((means >= 850).sum()),
        "return_mean_under_700": int((means < 700).sum()),
        "return_mean_interquartile_mean": round(float(quartiles.mean()), 1) if len(quartiles) else None,
        "return_mean_lowest": round(float(means.min()), 1) if len(means) else None,
        "c_matches": sum(row["c_matches"] is True for row in done),
        "m4_instructions_at_most_120": sum(
            row["m4_instructions"] is not None and row["m4_instructions"] <= 120 for row in done
        ),
        "model_terms_at_most_10": sum(row["model_terms"] <= 10 for row in done),
        "acceleration_errors_at_most_5_percent": sum(max(row["acceleration_errors"]) <= 0.05 for row in done),
        "slowest_process_wall_s": max((row["process_wall_s"] for row in rows), default=None),
        "largest_peak_memory_mb": max((row["peak_memory_mb"] for row in rows), default=None),
    }


def run(settings: Settings) -> int:
    if settings.quick:
        settings = dataclasses.replace(settings, seeds=1, first_seed=settings.first_seed or 0)
    if settings.seeds < 1:
        sys.stderr.write(f"`--seeds` must be at least 1. Got {settings.seeds}.\n")
        return 2
    if settings.save and settings.first_seed is not None:
        sys.stderr.write("`--save` is for derived seeds. Leave `--first-seed` and `--quick` out.\n")
        return 2
    if settings.first_seed is None:
        tree = tree_hash()
        seeds = derived_seeds(tree, settings.seeds)
    else:
        tree = "development seeds"
        seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
    rows = []
    for index, seed in enumerate(seeds):
        folder = (
            settings.out / code_digest()[:12] / f"noise{settings.noise:g}-steps{settings.data_steps}" / f"seed{seed}"
        )
        rows.append(run_seed(settings, seed, folder))
        _tell(settings, index, rows[-1])
    table = {
        "command": f"python -m benchmarks.demo_swingup --seeds {settings.seeds} --noise {settings.noise:g} "
        f"--data-steps {settings.data_steps} --save",
        "tree": tree,
        "machine": f"{platform.machine()}, one core, Python {platform.python_version()}",
        "verdict": verdict(rows),
        "rows": rows,
    }
    if settings.save:
        RESULTS.mkdir(exist_ok=True)
        name = "demo_swingup" + (f"_noise{settings.noise:g}" if settings.noise else "")
        (RESULTS / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(table["verdict"], indent=None if settings.json else 1) + "\n")
    return 0


def _tell(settings: Settings, index: int, row: dict[str, Any]) -> None:
    if settings.json:
        sys.stdout.write(json.dumps(row) + "\n")
    elif row["exit_code"] == 0:
        sys.stdout.write(
            f"{index + 1:3d}  seed {row['seed']:<10d}  return {row['return_mean']:6.1f} "
            f"(worst {row['return_min']:6.1f})  {row['selection_steps']:5d} selection  "
            f"model {row['model_terms']} terms, errors "
            + ", ".join(f"{100 * error:.1f} %" for error in row["acceleration_errors"])
            + f"  M4 {row['m4_instructions']}  {row['process_wall_s']:.0f} s  {row['peak_memory_mb']} MB\n"
        )
    else:
        sys.stdout.write(f"{index + 1:3d}  seed {row['seed']:<10d}  exit code {row['exit_code']}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
