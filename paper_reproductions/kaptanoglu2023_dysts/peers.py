"""pysindy's STLSQ on the rows that our regressions get.

As in the paper: the whole quartic library, columns as they are, ten models on halves of the rows drawn without
replacement, a scan of the threshold, and the median of the ten coefficients, which is what pysindy's EnsembleOptimizer
returns. Two rules choose the threshold from the same scan: the extended BIC on training rows that `fit_noisy` uses, so
that ours and theirs are chosen alike, and the AICc of the paper. Here both see training rows; the paper's AICc sees
trajectories without noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sindyrl.library import Library
from sindyrl.regression.weak import MeasuredRows

__all__ = ["AICC", "Found", "pysindy_stlsq"]

AICC = "aicc"
MODELS = 10
_THRESHOLDS = np.geomspace(1e-4, 1e3, 70)  # of coefficients; the scan ends where no term is left
_RIDGE = 1e-5  # the paper's


class Found(NamedTuple):
    """coef : (state, feature) by the rule that all settings share   others : by further rules"""

    coef: np.ndarray
    others: dict[str, np.ndarray]


def pysindy_stlsq(rows: Sequence[MeasuredRows], library: Library) -> Found:
    """Coefficients by the extended BIC of all targets together, and by AICc.

    The extended BIC counts the rows that do not overlap: STLSQ knows nothing of their covariance.
    """
    theta, y = np.concatenate([part.theta for part in rows]), np.concatenate([part.y for part in rows])
    size = np.sqrt(np.mean(y**2, axis=0))
    overlap = np.mean([part.functionals[0].count_nonzero() / part.functionals[0].shape[1] for part in rows])
    n, p, count = len(y) / max(1.0, float(overlap)), theta.shape[1], y.size
    # Drawn here and not by pysindy, which takes the global generator; the same halves for every threshold.
    rng = np.random.default_rng(0)
    halves = [rng.permutation(len(y))[: len(y) // 2] for _ in range(MODELS)]
    chosen: dict[str, tuple[float, np.ndarray]] = {}
    for threshold in _THRESHOLDS:
        members = np.array([_stlsq(theta[half], y[half], threshold) for half in halves])
        coef = np.median(members, axis=0)
        mean_square = np.maximum(np.mean(((y - theta @ coef.T) / size) ** 2, axis=0), 1e-24)
        fit, terms = float(np.log(mean_square).sum()), np.count_nonzero(coef)
        values = {
            "extended_bic": n * fit + terms * (np.log(n) + 2 * np.log(p)),
            AICC: len(y) * fit + 2 * terms + 2 * terms * (terms + 1) / (count - terms - 1),
        }
        for rule, value in values.items():
            if rule not in chosen or value < chosen[rule][0]:
                chosen[rule] = (value, coef)
        if not members.any():
            break
    return Found(chosen["extended_bic"][1], {AICC: chosen[AICC][1]})


def _stlsq(theta: np.ndarray, y: np.ndarray, threshold: float) -> np.ndarray:
    from pysindy import STLSQ

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that all terms went, that rounds ran out: the rules see it
        return np.asarray(STLSQ(threshold=threshold, alpha=_RIDGE).fit(theta, y).coef_)
