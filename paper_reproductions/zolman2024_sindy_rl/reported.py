"""Writes what a saved run found into expected.toml.

    python -m paper_reproductions.zolman2024_sindy_rl.reported    # after `sindyrl reproduce ... --save`

A row whose figure was run has it as `ours`, unless it misses what the row asks for: then a comment says so, as the
rows themselves must hold. Rows whose figure was not run have neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sindyrl.map_file import write_text
from sindyrl.reproduction import judged, read_expected

__all__ = ["reported"]

_OLD = re.compile(r"^(?:ours = |# The saved run).*\n", re.MULTILINE)
_FIGURE = re.compile(r'^figure = "(\w+)"\n', re.MULTILINE)


def reported(file: Path, figures: Mapping[str, Any]) -> str:
    """The text of an ``expected.toml`` with these figures in its rows."""
    rows = {row["figure"]: row for row in judged(read_expected(file), figures)}

    def line(figure: re.Match[str]) -> str:
        row = rows[figure[1]]
        if row["ours"] is None:
            return figure[0]
        found = f"{row['ours']:.12g}"
        text = f"# The saved run misses this: {found}." if row["met"] is False else f"ours = {found}"
        return f"{figure[0]}{text}\n"

    return _FIGURE.sub(line, _OLD.sub("", file.read_text(encoding="utf-8")))


def main() -> None:
    folder = Path(__file__).parent
    saved = json.loads((folder / "results" / "reproduced.json").read_text(encoding="utf-8"))
    file = folder / "expected.toml"
    write_text(file, reported(file, saved["figures"]))


if __name__ == "__main__":
    main()
