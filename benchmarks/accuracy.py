"""Accuracy figures for the benchmarks of identification: claims of the reproductions, stored or from a small run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.seeds import ROOT
from sindyrl.map_file import read_json
from sindyrl.reproduction import judged, read_expected

FOLDER = ROOT / "paper_reproductions"
REPRODUCTIONS = ("kaptanoglu2023_dysts", "kaiser2018_sindy_mpc")
_SHOWN = ("claim", "figure", "theirs", "source", "ours", "rule", "met", "command")


def stored() -> list[dict[str, Any]]:
    """The claims of the last saved full run of each reproduction; ``same_code`` says whether they are still of this
    code, None if that reproduction does not tell."""
    records = []
    for name in _available():
        file = FOLDER / name / "results" / "reproduced.json"
        if not file.exists():
            records.append(_head(name) | {"source_of_ours": f"no saved run; `sindyrl reproduce {name}` makes one"})
            continue
        saved = read_json(file)
        module = importlib.import_module(f"paper_reproductions.{name}.run")
        same = module.code() == saved["code"] if saved.get("code") and hasattr(module, "code") else None
        age = {True: "by the same code", False: "by another version of the code", None: "version of the code unknown"}
        head = _head(name) | {"source_of_ours": f"saved with the reproduction, made {age[same]}", "same_code": same}
        records += _records(head, saved["claims"])
    return records


def quick(progress: Callable[[float, str], None] = lambda share, text: None) -> list[dict[str, Any]]:
    """The claims of a quick run now, most of which it does not judge."""
    records = []
    for name in _available():
        module = importlib.import_module(f"paper_reproductions.{name}.run")
        result = module.reproduce(quick=True, progress=progress)
        claims = judged(read_expected(FOLDER / name / "expected.toml"), result["figures"], quick=True)
        records += _records(_head(name) | {"source_of_ours": f"a quick run: {result['origin']}"}, claims)
    return records


ACCURACY: dict[str, Callable[[], list[dict[str, Any]]]] = {"stored": stored, "quick": quick}


def print_accuracy(records: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not records:
        return
    table = Table("reproduction", "claim", "theirs", "ours", "asked", "met")
    for record in records:
        cells = (record.get(key) for key in ("claim", "theirs", "ours", "rule", "met"))
        table.add_row(record["reproduction"], *("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)
    for line in dict.fromkeys(f"{record['reproduction']}: ours {record['source_of_ours']}" for record in records):
        Console(highlight=False).print(line, markup=False)


def _available() -> Iterable[str]:
    return (name for name in REPRODUCTIONS if (FOLDER / name / "expected.toml").exists())


def _head(name: str) -> dict[str, Any]:
    return {"figure": "accuracy", "reproduction": name}


def _records(head: dict[str, Any], claims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [head | {key if key != "figure" else "name": row[key] for key in _SHOWN} for row in claims]
