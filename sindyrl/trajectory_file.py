"""Files behind `Dataset`: npz without pickle, CSV with a header, written whole or not at all."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = [
    "FORMAT",
    "SCHEMA",
    "DatasetFileError",
    "episodes",
    "numbers",
    "parse_column",
    "read_csv",
    "read_npz",
    "write_whole",
]

FORMAT = "sindyrl.dataset"
SCHEMA = 1


class DatasetFileError(ValueError):
    """A data file that cannot be read or written; the text says what is wrong and where."""


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file beside ``path`` and rename it, so that no reader ever sees half a file."""
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise DatasetFileError(f"Cannot write {target}: the folder is missing or not writable. {error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DatasetFileError(f"Cannot write {target}. {error}") from error
        raise


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zip, npy header and pickle refusals have no common class
        raise DatasetFileError(f"{path} is not a readable npz file without pickled objects. {error}") from error
    if str(arrays.get("format")) != FORMAT:
        raise DatasetFileError(f"{path} is not a dataset written by `Dataset.to_npz`: no format mark '{FORMAT}'.")
    schema = int(arrays.get("schema", np.array(0)))
    if schema > SCHEMA:
        raise DatasetFileError(f"{path} has schema {schema}; this version reads up to schema {SCHEMA}.")
    missing = sorted({"states", "inputs", "steps", "t", "x", "u"} - set(arrays))
    if missing:
        raise DatasetFileError(f"{path} lacks the arrays {', '.join(missing)}.")
    return arrays


def read_csv(path: str | Path) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetFileError(f"{path} is not a CSV text file. {error}") from error
    if len(lines) < 2:
        raise DatasetFileError(f"{path} must have a header line and data. Got {len(lines)} lines.")
    header = [name.strip() for name in lines[0]]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DatasetFileError(f"{path}: the header names {', '.join(map(repr, doubled))} more than once.")
    if all(_is_number(name) for name in header):
        raise DatasetFileError(f"{path}: the first line must name the columns. Got numbers: {', '.join(header)}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DatasetFileError(f"{path}, line {number}: expected {len(header)} cells. Got {len(line)}.")
    return header, lines[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_column(path: str | Path, rows: list[list[str]], index: int, name: str) -> np.ndarray:
    """Numbers, empty cells as NaN; a column of texts (an episode label, say) stays text."""
    cells = [row[index].strip() for row in rows]
    numeric = [not cell or _is_number(cell) for cell in cells]
    if not any(numeric):
        return np.array(cells)
    if not all(numeric):
        line = numeric.index(False)
        raise DatasetFileError(f"{path}, line {line + 2}, column {name!r}: {cells[line]!r} is not a number.")
    return np.array([float(cell) if cell else np.nan for cell in cells])


def numbers(columns: Mapping[str, Any], name: str) -> np.ndarray:
    try:
        return np.asarray(columns[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Column {name!r} must hold numbers. {error}") from None


def episodes(labels: Any) -> list[slice]:
    labels = np.asarray(labels)
    cuts = (np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist()
    return [slice(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(labels)], strict=True)]
