"""What an online identifier says of itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

__all__ = ["Kind", "OnlineReport"]

Kind = Literal["dmdc", "sparse"]


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineReport:
    """Where an `OnlineIdentifier` stands.

    kind : the model in use, "dmdc" or "sparse"
    rows, effective_rows : taken so far; sum of the weights they have now
    error : (target,) usual size of the sparse model's one-step innovations, in the target's unit; NaN before there are
    log_ratio, standard_error : of the sparse model's squared error over DMDc's, ``horizon`` steps ahead; below 0 the
        sparse model is better. NaN before there are two windows to compare
    changes : rows at which a change was noticed, of the last hundred; onsets : rows since which it is thought to act
    lost_inputs : inputs without any term in the sparse model
    resting : no row fades at present, as the new ones bring too little (see `sindyrl.regression.forgetting`)
    """

    kind: Kind
    rows: int
    effective_rows: float
    error: np.ndarray
    log_ratio: float
    standard_error: float
    changes: tuple[int, ...]
    onsets: tuple[int, ...]
    lost_inputs: tuple[str, ...]
    resting: bool

    def __str__(self) -> str:
        changed = f"; changes noticed at rows {', '.join(map(str, self.changes))}" if self.changes else ""
        lost = f"; no term of the sparse model has {', '.join(self.lost_inputs)}" if self.lost_inputs else ""
        ratio = "" if math.isnan(self.log_ratio) else f", sparse error {math.exp(self.log_ratio / 2):.2g} of DMDc's"
        return f"{self.kind} after {self.rows} rows ({self.effective_rows:.0f} remembered){ratio}{changed}{lost}"
