"""What is compared: four ways from noisy trajectories to coefficients, two of rows times two of regressions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from sindyrl.library import Library
from sindyrl.regression.weak import MeasuredRows, fit_noisy, strong_rows, weak_rows
from sindyrl.trajectory import Dataset

__all__ = ["SETTINGS", "fit"]

MAX_TERMS = 15  # for each equation
_WIDTH = 20  # steps: a fifth of the dominant period
_THRESHOLDS = np.geomspace(1e-5, 0.5, 60)  # of STLSQ, as shares of the size of the largest target


def fit(setting: str, data: Dataset, library: Library) -> np.ndarray:
    """Coefficients (state, feature) that one of `SETTINGS` finds."""
    rows, regression = SETTINGS[setting]
    return regression(rows(data, library), library)


def _strong(data: Dataset, library: Library) -> list[MeasuredRows]:
    return strong_rows(data, library)


def _weak(data: Dataset, library: Library) -> list[MeasuredRows]:
    return weak_rows(data, library, n_windows=200, width=_WIDTH * data.dt)


def _whitened_subsets(rows: Sequence[MeasuredRows], library: Library) -> np.ndarray:
    return fit_noisy(rows, library, max_terms=MAX_TERMS).coef


def _pysindy_stlsq(rows: Sequence[MeasuredRows], library: Library) -> np.ndarray:
    """pysindy's STLSQ with unit columns; the threshold by the extended BIC that `fit_noisy` uses too, over all targets.

    The criterion counts the rows that do not overlap: STLSQ knows nothing of their covariance.
    """
    from pysindy import STLSQ

    theta, y = np.concatenate([part.theta for part in rows]), np.concatenate([part.y for part in rows])
    # Targets in units of their sizes: there is one threshold for all of them.
    size = np.sqrt(np.mean(y**2, axis=0))
    overlap = np.mean([part.functionals[0].count_nonzero() / part.functionals[0].shape[1] for part in rows])
    n = len(y) / max(1.0, float(overlap))
    best, least = np.zeros((y.shape[1], theta.shape[1])), np.inf
    for threshold in _THRESHOLDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that all terms went, that rounds ran out: the criterion sees it
            optimizer = STLSQ(threshold=threshold * np.sqrt(len(y)), alpha=1e-5, normalize_columns=True)
            coef = optimizer.fit(theta, y / size).coef_
        mean_square = np.maximum(np.mean((y / size - theta @ coef.T) ** 2, axis=0), 1e-24)
        terms = np.count_nonzero(coef)
        value = n * np.log(mean_square).sum() + terms * (np.log(n) + 2 * np.log(theta.shape[1]))
        if value < least:
            best, least = coef * size[:, None], value
    return best


SETTINGS: dict[
    str,
    tuple[Callable[[Dataset, Library], list[MeasuredRows]], Callable[[Sequence[MeasuredRows], Library], np.ndarray]],
] = {
    "strong": (_strong, _whitened_subsets),
    "weak": (_weak, _whitened_subsets),
    "pysindy_stlsq_strong": (_strong, _pysindy_stlsq),
    "pysindy_stlsq_weak": (_weak, _pysindy_stlsq),
}
