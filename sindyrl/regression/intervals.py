r"""Intervals for what will be measured: the uncertainty of the model and the noise of the measurement together.

For a new row ``x`` the model's prediction varies over the ensemble with variance ``v(x)``, and a measurement scatters
about the truth with the noise variance ``s^2`` of the residuals. The interval is ``w'x +- q sqrt(v(x) + s^2)``. The
spread over members alone answers another question, where the *mean* lies, and contains far too few measurements.

``q`` is Student's quantile for Gaussian noise, or the quantile of ``|y - w'x| / sqrt(v(x) + s^2)`` over rows that the
fit has not seen: then the coverage holds for noise of any shape, and also where the model is wrong.

References: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 25; Lei, G'Sell, Rinaldo, Tibshirani,
Wasserman, J. Am. Stat. Assoc. 113, 2018 (split conformal prediction, locally weighted).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

__all__ = ["PredictionIntervals", "noise_variance"]


def noise_variance(squares: np.ndarray, n: float, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the noise (target,) and its degrees of freedom ``n - terms`` (at least 1).

    squares : (target,) sum of squared residuals   n : rows   terms : (target,) nonzero coefficients
    """
    freedom = np.maximum(n - np.asarray(terms, dtype=np.float64), 1.0)
    return np.asarray(squares) / freedom, freedom


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionIntervals:
    """Prediction intervals of an ensemble.

    coef : (target, feature), the prediction   members : (member, target, feature), whose spread is its uncertainty
    variance : (target,) of the noise   freedom : (target,) its degrees of freedom
    scores : (row, target) sorted ``|error| / std`` of rows left out of the fit, or None for Gaussian noise
    """

    coef: np.ndarray
    members: np.ndarray
    variance: np.ndarray
    freedom: np.ndarray
    scores: np.ndarray | None = None

    def std(self, theta: Any) -> np.ndarray:
        """Standard deviation of a new measurement about the prediction, (sample, target)."""
        theta = np.asarray(theta, dtype=np.float64)
        if theta.ndim != 2 or theta.shape[1] != self.coef.shape[1]:
            raise ValueError(f"`theta` must have shape (n, {self.coef.shape[1]}). Got {theta.shape}.")
        spread = np.zeros((len(theta), len(self.coef)))
        if len(self.members) > 1:
            for target in range(len(self.coef)):
                # v(x) = x' C x with C the covariance of the coefficients: no prediction of each member is stored.
                covariance = np.atleast_2d(np.cov(self.members[:, target].T))
                spread[:, target] = np.einsum("ij,jk,ik->i", theta, covariance, theta, optimize=True)
        return np.asarray(np.sqrt(np.maximum(spread, 0.0) + self.variance))

    def __call__(self, theta: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (sample, target) between which a new measurement lies with probability ``level``."""
        std = self.std(theta)
        center = np.asarray(theta, dtype=np.float64) @ self.coef.T
        half = self._quantile(level) * std
        return center - half, center + half

    def calibrated(self, theta: Any, y: Any) -> PredictionIntervals:
        """The same with scores from rows that no fit has seen, theta (sample, feature), y (sample, target).

        A new row like these is then covered with at least the probability asked for, whatever the distribution.
        """
        y = np.asarray(y, dtype=np.float64)
        y = y[:, None] if y.ndim == 1 else y
        std = self.std(theta)
        if y.shape != std.shape:
            raise ValueError(f"`calibrated(y=...)` must have shape {std.shape}, as `theta` has rows. Got {y.shape}.")
        error = np.abs(y - np.asarray(theta, dtype=np.float64) @ self.coef.T)
        with np.errstate(divide="ignore", invalid="ignore"):  # no noise and no error: any interval holds the value
            scores = np.where(error > 0, error / std, 0.0)
        return dataclasses.replace(self, scores=np.sort(scores, axis=0))

    def _quantile(self, level: float) -> np.ndarray:
        if not 0.0 < level < 1.0:
            raise ValueError(f"`level=` must lie between 0 and 1. Got {level!r}.")
        if self.scores is None:
            from scipy.stats import t

            return np.asarray(t.ppf(0.5 + level / 2.0, self.freedom))
        rank = math.ceil((len(self.scores) + 1) * level)
        if rank > len(self.scores):
            least = math.ceil(level / (1.0 - level))
            raise ValueError(f"`level={level}` needs at least {least} rows to calibrate with. Got {len(self.scores)}.")
        return np.asarray(self.scores[rank - 1])
