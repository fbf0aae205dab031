"""What is compared: four ways from noisy trajectories to coefficients, two of rows times two of regressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paper_reproductions.kaptanoglu2023_dysts.peers import AICC, Found, pysindy_stlsq
from sindyrl.library import Library
from sindyrl.regression.weak import MeasuredRows, fit_noisy, strong_rows, weak_rows
from sindyrl.trajectory import Dataset

__all__ = ["AICC", "SETTINGS", "Found", "fit"]

MAX_TERMS = 15  # for each equation
_WIDTH = 20  # steps: a fifth of the dominant period


def fit(setting: str, data: Dataset, library: Library) -> Found:
    """Coefficients (state, feature) that one of `SETTINGS` finds."""
    rows, regression = SETTINGS[setting]
    return regression(rows(data, library), library)


def _strong(data: Dataset, library: Library) -> list[MeasuredRows]:
    return strong_rows(data, library)


def _weak(data: Dataset, library: Library) -> list[MeasuredRows]:
    return weak_rows(data, library, n_windows=200, width=_WIDTH * data.dt)


def _whitened_subsets(rows: Sequence[MeasuredRows], library: Library) -> Found:
    coef: np.ndarray = fit_noisy(rows, library, max_terms=MAX_TERMS).coef
    return Found(coef, {})


SETTINGS: dict[
    str,
    tuple[Callable[[Dataset, Library], list[MeasuredRows]], Callable[[Sequence[MeasuredRows], Library], Found]],
] = {
    "strong": (_strong, _whitened_subsets),
    "weak": (_weak, _whitened_subsets),
    "pysindy_stlsq_strong": (_strong, pysindy_stlsq),
    "pysindy_stlsq_weak": (_weak, pysindy_stlsq),
}
