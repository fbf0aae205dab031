"""What a trial has told so far, kept in its folder: one that was killed goes on from there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sindyrl.map_file import write_text

_NAME = "progress.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Of all attempts together, up to the last policy that was reported: what came after it in a killed one is lost.

    kills : how often the trial went on after one      wall_s, processor_s : of learning
    grading_wall_s, report_steps : of grading      curve : as of `Judge`
    """

    kills: int = 0

    wall_s: float = 0.0
    processor_s: float = 0.0
    grading_wall_s: float = 0.0
    report_steps: int = 0
    curve: tuple[dict[str, Any], ...] = ()

    @classmethod
    def read(cls, folder: Path | None) -> Progress:
        """Of attempts that were killed; nothing if there were none."""
        if folder is None or not (folder / _NAME).exists():
            return cls()
        stored = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        return cls(**stored | {"kills": stored["kills"] + 1, "curve": tuple(stored["curve"])})

    def write(self, folder: Path) -> None:
        write_text(folder / _NAME, json.dumps(dataclasses.asdict(self), allow_nan=False) + "\n")
