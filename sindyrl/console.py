"""What a run shows on the terminal: one progress bar per stage, or JSON lines for a program to read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sindyrl.chain import STAGES

_TITLES = {
    "data": "Real system",
    "model": "Equations",
    "policy": "Policy",
    "export": "C",
    "report": "Report episodes",
}


@contextmanager
def stage_bars(quiet: bool) -> Iterator[Callable[[str, float, str], None]]:
    """Yields ``progress(stage, share, figure)``. Bars go to standard error, so that standard output stays clean."""
    if quiet:
        yield lambda stage, share, figure: None
        return
    columns = (
        TextColumn("{task.description:<16s}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figure]:<44s}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        ids: dict[str, TaskID] = {}

        def show(stage: str, share: float, figure: str) -> None:
            if stage not in ids:
                ids[stage] = bars.add_task(_TITLES.get(stage, stage), total=1.0, figure=figure)
            bars.update(ids[stage], completed=share)
            if figure:
                bars.update(ids[stage], figure=figure)
            if share >= 1.0:
                bars.stop_task(ids[stage])

        yield show


def json_line(record: dict[str, Any]) -> None:
    """One JSON object on one line of standard output."""
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
    sys.stdout.flush()


def stage_line(stage: str, result: dict[str, Any]) -> None:
    """The result of a finished stage as a JSON line."""
    json_line({"stage": stage, "of": list(STAGES), **result})


def print_closing(
    equations: Sequence[str],
    policy: Sequence[str],
    notes: Sequence[str],
    rows: Sequence[Sequence[str]],
    lines: Sequence[str],
) -> None:
    """The closing summary: equations, policy, the comparison table, and further lines.

    rows : method, return, real steps and source of each
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print("\n[bold]Equations of motion[/bold]")
    for equation in equations:
        console.print(f"  {equation}", markup=False)
    for note in notes:
        console.print(f"  {note}", style="dim", markup=False)
    console.print("\n[bold]Policy[/bold]")
    for line in policy:
        console.print(f"  {line}", markup=False)
    console.print()
    # Sources below the table: they are sentences, and a terminal is 80 columns wide.
    table = Table("method", "return", "real steps", "", box=None, pad_edge=False)
    for number, (*cells, _) in enumerate(rows, start=1):
        table.add_row(*cells, rf"\[{number}]")
    console.print(table)
    for number, row in enumerate(rows, start=1):
        console.print(f"[{number}] {row[-1]}", style="dim", markup=False)
    console.print()
    for line in lines:
        console.print(line, markup=False)


def print_names(names: Mapping[str, str], command: str) -> None:
    """What a command can be given, each name with its line."""
    out = Console(highlight=False)
    table = Table("name", "what", box=None, pad_edge=False)
    for name, what in names.items():
        table.add_row(name, what)
    out.print(table)
    out.print(f"\n{command} NAME runs one; {command} NAME --help shows its options.", markup=False)


def fail(message: str) -> int:
    """An error that the user can mend: one line on standard error, exit code 2."""
    sys.stderr.write(f"sindyrl: {message}\n")
    return 2
