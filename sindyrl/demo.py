"""The demonstration: a cart-pole never seen before, from its first real step to C on an emulated Cortex-M4."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium

from sindyrl import console
from sindyrl.chain import Chain, ChainSettings
from sindyrl.map_file import MapFileError
from sindyrl.model import Truth
from sindyrl.plot import MethodResult
from sindyrl.report import ReportError, write_report
from sindyrl.run_folder import RunFolder, RunFolderError
from sindyrl.task import Task
from sindyrl.trajectory_file import DatasetFileError

NOTES = (
    "The polynomial approximates: with the mass matrix solved for, the true accelerations are rational in cos and sin.",
)

# What others need for the same task; a test compares the measured ones with the file they are from.
OTHERS = (
    MethodResult(
        "PPO (Stable-Baselines3)",
        "measured here, benchmarks/results/ppo_swingup.json",
        steps=(204_800.0, 225_280.0, 163_840.0),
        returns=(816.0, 857.6, 834.9),
        note="its defaults, three seeds, each at its first evaluation of at least 800; none stays there to the end",
    ),
    MethodResult(
        "SINDy-RL (Dyna-PPO)",
        "published settings, arXiv 2403.09110",
        steps=(8_000.0,),
        note="random steps before the first policy update, up to 133,000 in all; no return is printed",
    ),
)


def make_cartpole(noise: float) -> gymnasium.Env[Any, Any]:
    """The real environment, with measurement noise of this standard deviation in every observation."""
    from sindyrl.envs.cartpole import CartPoleSwingUp
    from sindyrl.envs.noise import ObservationNoise

    env = gymnasium.make("sindyrl/CartPoleSwingUp-v0")
    assert isinstance(env.unwrapped, CartPoleSwingUp)
    return ObservationNoise(env, noise) if noise > 0 else env


def run_demo(
    settings: ChainSettings, *, noise: float = 0.0, out: Path | None = None, json: bool = False, fresh: bool = False
) -> dict[str, Any]:
    """`sindyrl demo`. Returns the summary."""
    if not 0.0 <= noise < float("inf"):
        raise ValueError(f"`noise` must be a finite standard deviation of at least 0. Got {noise}.")
    from sindyrl.envs import cartpole

    where = out if out is not None else Path("runs") / f"cartpole-seed{settings.seed}"
    return run_chain(
        cartpole.task,
        lambda: make_cartpole(noise),
        {"env": "sindyrl/CartPoleSwingUp-v0", "noise": noise},
        settings,
        where,
        title="Cart-pole swing-up",
        truth=cartpole.accelerations,
        notes=NOTES,
        others=OTHERS,
        json=json,
        fresh=fresh,
    )


def run_chain(
    task: Task,
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    origin: dict[str, Any],
    settings: ChainSettings,
    out: Path,
    *,
    title: str,
    truth: Truth | None = None,
    notes: tuple[str, ...] = (),
    others: tuple[MethodResult, ...] = (),
    json: bool = False,
    fresh: bool = False,
) -> dict[str, Any]:
    """Run the chain in a folder, write its report, and show the outcome."""
    folder = RunFolder(out, {**origin, **dataclasses.asdict(settings)}, fresh=fresh)
    with console.stage_bars(json) as progress:
        chain = Chain(task, make_env, folder, settings, truth=truth, progress=progress)
        try:
            summary = chain.run(after=console.stage_line if json else None)
            page = write_report(folder.path, title=title, task=task, comparisons=others, notes=notes, truth=truth)
        except (MapFileError, DatasetFileError, ReportError) as error:
            raise RunFolderError(f"{error} A file of the run is damaged: start over with --fresh.") from error
    if json:
        console.json_line(summary)
    else:
        _show(folder, summary, page, notes, others)
    return summary


def _show(
    folder: RunFolder, summary: dict[str, Any], page: Path, notes: tuple[str, ...], others: tuple[MethodResult, ...]
) -> None:
    results = folder.results()
    export = results["export"]
    cost = f"{summary['data_steps']:,} + {summary['selection_steps']:,} to choose"
    ours = f"{summary['return_mean']:.0f} (worst of {summary['report_episodes']}: {summary['return_min']:.0f})"
    rows = [("this run", ours, cost, f"measured here, {folder.path / 'stages'}")]
    rows += [_other_row(other) for other in others]
    errors = ", ".join(
        f"{name} {100 * error:.1f} %"
        for name, error in zip(results["model"]["targets"], summary["acceleration_errors"], strict=True)
    )
    lines = [f"Relative error of the equations over the report episodes ({results['report']['judged_by']}): {errors}"]
    lines.append(_export_line(folder, export))
    lines.append(f"Report: {page}   ({summary['wall_s']:.0f} s)")
    console.print_closing(results["model"]["equations"], results["policy"]["policy"].splitlines(), notes, rows, lines)


def _other_row(other: MethodResult) -> tuple[str, str, str, str]:
    low, high = min(other.steps), max(other.steps)
    steps = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    returned = ", ".join(f"{value:.0f}" for value in other.returns) if other.returns else "not stated"
    return other.method, returned, steps, f"{other.source}; {other.note}" if other.note else other.source


def _export_line(folder: RunFolder, export: dict[str, Any]) -> str:
    where = folder.path / "firmware" / f"{export['name']}.c"
    if export["verified"] == "none":
        return f"C: {where}, not verified: {export['note']}"
    text = (
        f"C: {where}, compiled and compared on {export['vectors']} inputs, largest difference {export['max_error']:.1g}"
    )
    if export["verified"] == "emulated":
        return (
            f"{text}; {export['m4_instructions']} instructions per call and {export['c_bytes']} bytes "
            "on an emulated Cortex-M4F"
        )
    return f"{text}; not executed on a Cortex-M4F: {export['note']}"
