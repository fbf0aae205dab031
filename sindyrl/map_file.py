"""Reading and writing the JSON files of maps: strict on the way in, whole on the way out.

A file is text that somebody else may have written. Nothing in it is evaluated, and whatever is wrong with it ends in
:class:`MapFileError` saying what and where.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 64 * 1024 * 1024


class MapFileError(ValueError):
    """A file or text that is not a valid map of this program, and why."""


def parse_json(text: str | bytes) -> Any:
    """Decode strict JSON: UTF-8, at most 64 MiB, no repeated keys, finite numbers only. Raises MapFileError.

    A number that no float holds is none: 1e400 is Infinity to Python, and an integer of so many digits an error later.
    """
    if not isinstance(text, (str, bytes)):
        raise TypeError(f"A map is read from JSON text. Got {type(text).__name__}.")
    if len(text) > MAX_BYTES:
        raise MapFileError(f"The text has {len(text)} characters; a map file has at most {MAX_BYTES}.")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(
            decoded,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_real,
            object_pairs_hook=_unique_keys,
        )
    except MapFileError:
        raise
    except UnicodeDecodeError as error:
        raise MapFileError(f"The file is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise MapFileError("The text is nested too deeply to be a map file.") from None
    except ValueError as error:  # malformed JSON
        raise MapFileError(f"The text is not valid JSON: {error}.") from None


def check_header(document: Any, *, format: str, schema: int) -> dict[str, Any]:
    """Return ``document`` if it is an object of this ``format`` and of a schema up to ``schema``."""
    if not isinstance(document, dict):
        raise MapFileError(f"A {format} file holds a JSON object. Got {type(document).__name__}.")
    if document.get("format") != format:
        raise MapFileError(f'"format" must be "{format}". Got {shown(document.get("format"))}.')
    found = document.get("schema")
    if type(found) is not int or found < 1:
        raise MapFileError(f'"schema" must be a positive integer. Got {shown(found)}.')
    if found > schema:
        raise MapFileError(
            f"The file has schema {found}, this version of sindyrl reads up to schema {schema}. Upgrade sindyrl."
        )
    return document


def check_keys(owner: str, record: Any, required: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return ``record`` if it is an object with exactly these keys."""
    if not isinstance(record, dict):
        raise MapFileError(f"{owner} must be a JSON object. Got {shown(record)}.")
    missing, unknown = required - record.keys(), record.keys() - required - optional
    if missing:
        raise MapFileError(f"{owner} lacks {', '.join(sorted(missing))}.")
    if unknown:
        raise MapFileError(f"{owner} has unknown keys: {', '.join(shown(key) for key in sorted(unknown)[:5])}.")
    return record


def read_json(path: str | os.PathLike[str]) -> Any:
    """Decode a file with :func:`parse_json`. MapFileError names the file; OSError if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise MapFileError(f"The file is larger than {MAX_BYTES} bytes, the limit of a map file.")
        return parse_json(content)
    except MapFileError as error:
        raise MapFileError(f"{os.fspath(path)}: {error}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _permissions(target: Path) -> int:
    """Those of the file being replaced, else what ``open`` would give (mkstemp makes files private)."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _refuse_constant(token: str) -> NoReturn:
    raise MapFileError(f"The text holds {token if len(token) <= 60 else token[:57] + '...'}; numbers must be finite.")


def _integer(token: str) -> int:
    _real(token)
    return int(token)


def _real(token: str) -> float:
    value = float(token)
    return value if math.isfinite(value) else _refuse_constant(token)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MapFileError(f"The key {shown(repeated)} appears twice in one object.")
    return record


def shown(value: Any) -> str:
    """A short form of hostile content for an error message."""
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'JSON object'} of {len(value)} entries"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
