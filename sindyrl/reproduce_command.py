"""`sindyrl reproduce`: a published result run again with this code, each claim beside what the paper states."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json as json_text
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from sindyrl import console
from sindyrl.checkout import Listed, find_checkout, importable
from sindyrl.map_file import write_text
from sindyrl.reproduction import Expected, judged, read_expected
from sindyrl.run_folder import versions

__all__ = ["list_reproductions", "reproductions", "run_reproduction"]

FOLDER = "paper_reproductions"
SAVED = "reproduced.json"  # in results/ of the reproduction
_MARKS = {True: "yes", False: "NO", None: "-"}


@dataclasses.dataclass(frozen=True)
class Common:
    """What every reproduction has."""

    quick: bool = False
    """A smaller run: does it work. What needs the full one is not judged."""
    json: bool = False
    """Print one line of JSON on standard output."""
    save: bool = False
    """Write the results of a full run to the reproduction's results/."""


def reproductions(root: Path) -> Listed:
    """The reproductions of a checkout, each with its paper: folders whose ``run.py`` defines ``reproduce``."""
    found = {}
    for file in sorted((root / FOLDER).glob("*/run.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "reproduce" for node in tree.body):
            found[file.parent.name] = read_expected(file.with_name("expected.toml")).paper
    return found


def list_reproductions(*, json: bool = False) -> None:
    """Print what there is."""
    found = reproductions(find_checkout())
    if json:
        console.json_line({"reproductions": found})
    else:
        console.print_names(found, "sindyrl reproduce")


def run_reproduction(name: str, options: Sequence[str] = ()) -> int:
    """Run one and print its claims; ``options`` are the common ones and those of its ``Settings``.

    Returns 0, or 1 if a claim that was judged is not met.
    """
    root = find_checkout()
    folder = root / FOLDER / name
    if name not in (known := reproductions(root)):
        raise ValueError(f"`reproduce` must name one of {', '.join(known)}. Got {name!r}.")
    importable(root)
    module = importlib.import_module(f"{FOLDER}.{name}.run")
    common, own = _options(module, name, options)
    if common.save and common.quick:
        raise ValueError("`--save` needs the full run; leave out `--quick`.")
    expected = read_expected(folder / "expected.toml")
    began = time.perf_counter()
    with console.stage_bars(common.json) as progress, _one_thread():
        report: Callable[[float, str], None] = lambda share, figure: progress(name[:16], share, figure)  # noqa: E731
        result = module.reproduce(quick=common.quick, progress=report, **own)
    record = {
        "reproduction": name,
        "paper": expected.paper,
        "quick": common.quick,
        "claims": judged(expected, result["figures"], quick=common.quick),
        "figures": result["figures"],
        "table": result.get("table"),
        "origin": result["origin"],
        "notes": list(result.get("notes", ())),
        "departures": list(expected.departures),
        "code": module.code() if hasattr(module, "code") else None,
        "seconds": round(time.perf_counter() - began, 1),
        "machine": platform.machine(),
        "versions": versions(),
    }
    judgments = [row["met"] for row in record["claims"] if row["met"] is not None]
    record["met"], record["judged"] = sum(judgments), len(judgments)
    if common.save:
        _save(folder / "results", record, result.get("files", {}))
    if common.json:
        console.json_line(record)
    else:
        _show(record, expected, folder)
    return 0 if all(judgments) else 1


def _options(module: Any, name: str, options: Sequence[str]) -> tuple[Common, dict[str, Any]]:
    """The common options, and the others by name."""
    what = (module.__doc__ or "").strip().splitlines()[0] if module.__doc__ else ""
    settings = getattr(module, "Settings", None)
    if settings is None:
        return tyro.cli(Common, args=options, prog=f"sindyrl reproduce {name}", description=what), {}
    flat: Any = tyro.conf.OmitArgPrefixes
    both = dataclasses.make_dataclass("Options", [("common", flat[Common]), ("own", flat[settings])])
    asked: Any = tyro.cli(both, args=options, prog=f"sindyrl reproduce {name}", description=what)
    return asked.common, {field.name: getattr(asked.own, field.name) for field in dataclasses.fields(asked.own)}


def _one_thread() -> Any:
    """Small matrices: more threads only get in each other's way, and sums in another order end in other digits."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1)


def _save(folder: Path, record: dict[str, Any], files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        if Path(name).name != name or name == SAVED:
            raise ValueError(f"`files` must be plain names, {SAVED} not among them. Got {name!r}.")
        write_text(folder / name, text)
    write_text(folder / SAVED, json_text.dumps(record, indent=1, allow_nan=False) + "\n")


def _show(record: dict[str, Any], expected: Expected, folder: Path) -> None:
    out = Console(highlight=False)
    out.print(f"\n[bold]{expected.paper}[/bold]")
    if record["table"] is not None:
        table = Table(*record["table"]["columns"], box=None, pad_edge=False)
        for cells in record["table"]["rows"]:
            table.add_row(*(_text(cell) for cell in cells))
        out.print(table)
        out.print()
    table = Table("claim", "theirs", "ours", "difference", "asked", "met", box=None, pad_edge=False)
    for number, row in enumerate(record["claims"], start=1):
        cells = (row["theirs"], row["ours"], row["difference"])
        table.add_row(f"{number}. {row['claim']}", *(_text(cell) for cell in cells), row["rule"], _MARKS[row["met"]])
    out.print(table)
    out.print()
    sources: dict[str, list[int]] = {}
    for number, row in enumerate(record["claims"], start=1):
        theirs = f"theirs: {row['source']}; " if row["source"] else ""
        minutes = f"{row['command']}, about {row['minutes']:g} min on one core"
        also = f"; {row['departures']}" if row["departures"] else ""
        sources.setdefault(f"{theirs}ours: {minutes}{also}", []).append(number)
    for text, numbers in sources.items():
        out.print(f"{', '.join(str(number) for number in numbers)}: {text}", style="dim", markup=False)
    out.print(f"Ours: {record['origin']}. {record['seconds']:g} s.", style="dim", markup=False)
    for note in record["notes"]:
        out.print(note, style="dim", markup=False)
    for departure in record["departures"]:
        out.print(f"Departs from the paper: {departure}", style="dim", markup=False)
    if record["quick"]:
        out.print("A quick run: what needs the full one is not judged.", markup=False)
    out.print(f"{record['met']} of {record['judged']} judged claims met. More: {folder / 'README.md'}", markup=False)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
