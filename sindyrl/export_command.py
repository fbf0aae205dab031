"""`sindyrl export`: a saved map or model in; a checked C package, or one for a tool or another language, out."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from sindyrl import console
from sindyrl.export import PROCESSORS, ExportReport, to_c
from sindyrl.export.static_checks import Findings, check_misra, has_cppcheck
from sindyrl.map_file import MapFileError, read_json, write_text
from sindyrl.model import Model
from sindyrl.symbolic_map import SymbolicMap

__all__ = ["load_map", "read_fallback", "run_export"]


def load_map(path: Path) -> SymbolicMap:
    """A map; of a model the step as one closed form. Raises MapFileError for anything else."""
    document = read_json(path)
    format = document.get("format") if isinstance(document, dict) else None
    if format == "sindyrl.model":
        return Model.load(path).step_map()
    if format == "sindyrl.sparse_map":
        from sindyrl.sparse_map import SparseMap

        return SparseMap.load(path).symbolic()
    if format == "sindyrl.symbolic_map":
        return SymbolicMap.load(path)
    raise MapFileError(f"{path} must hold a map or a model saved by sindyrl. Its format is {format!r}.")


def read_fallback(text: str) -> dict[str, float] | None:
    """``u=0,v=1`` as output -> value; None if empty. Raises ValueError for anything else."""
    if not text.strip():
        return None
    values = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            values[name] = float(number)
        except ValueError:
            equals = ""
        if not name or not equals:
            raise ValueError(f"`--fallback` must be output=value pairs, such as u=0,v=1. Got {text!r}.")
    return values


def run_export(
    file: Path,
    *,
    target: str,
    number: Literal["float32", "float64", "q31", "q15"],
    prefix: str | None,
    out: Path,
    math: Literal["own", "libm"] | None,
    fallback: Mapping[str, float] | None,
    outside: Literal["fallback", "compute"],
    max_error: float | None,
    undefined: Literal["refuse", "allow"],
    period: float | None,
    batch: bool,
    processors: tuple[str, ...],
    report: bool,
    json: bool,
) -> ExportReport:
    """Export, look for MISRA findings where cppcheck is installed, and print a short table."""
    form = load_map(file)
    found = to_c(
        form,
        out,
        number=number,
        name=prefix,
        math=math,
        fallback=fallback,
        outside=outside,
        max_error=max_error,
        undefined=undefined,
        period=period,
        batch=batch,
        package=None if target == "c" else target,
        processors=tuple(PROCESSORS) if processors == ("all",) else processors,
    )
    sources = [path for path in found.files if path.suffix in (".c", ".h")]
    misra = check_misra(sources) if sources and has_cppcheck() else None
    record = found.to_dict() | {"target": target, "misra": None if misra is None else misra.to_dict()}
    if report:
        write_text(out / f"{found.name}_export.json", json_text.dumps(record, indent=1) + "\n")
    if json:
        console.json_line(record)
    else:
        _print(found, misra)
    return found


def _print(report: ExportReport, misra: Findings | None) -> None:
    out = Console(highlight=False, soft_wrap=True)
    if report.processors:
        heads = ("processor", "instructions", "at most", "bytes", "library", "RAM", "stack")
        table = Table(*heads, box=None, pad_edge=False)
        for row in report.processors:
            fewest, most = row.instructions_min, row.instructions
            table.add_row(
                row.processor,
                str(most) if fewest == most else f"{fewest} to {most}",
                "-" if row.bound is None else str(row.bound),
                *map(str, (row.code_bytes, row.library_bytes, row.data_bytes, row.stack_bytes)),
            )
        out.print(table)
    if report.max_error is not None:
        ulps = "" if report.max_ulp is None else f" ({report.max_ulp:.3g} ulp)"
        out.print(
            f"worst error {report.max_error:.3g}{ulps} on {report.vectors} vectors, bound {report.error_bound:.3g}"
            + (", every bit as computed by NumPy" if report.bitwise else ""),
            markup=False,
        )
    if report.note:
        out.print(f"not executed: {report.note}", markup=False)
    if misra is not None:
        out.print(f"MISRA C:2012: {misra.summary()}", markup=False)
    for path in report.files:
        out.print(str(path), markup=False)
