"""Coefficients over the threshold of sequential thresholding: which terms hold on, and which go early."""

from __future__ import annotations

import dataclasses

import numpy as np

from sindyrl.regression.gram import least_squares_problem, threshold_rounds

__all__ = ["CoefficientPath", "coefficient_path"]

_STEPS = 40  # thresholds


@dataclasses.dataclass(frozen=True, eq=False)
class CoefficientPath:
    """Coefficients over the threshold of sequential thresholding, as shares of the target's size.

    thresholds : (step,) shares   shares : (step, target, feature) ``w_j rms(theta_j) / rms(y)``   names : of features
    """

    thresholds: np.ndarray
    shares: np.ndarray
    names: tuple[str, ...]


def coefficient_path(theta: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> CoefficientPath:
    """Path of all targets; theta (row, feature), y (row, target)."""
    size, target = np.sqrt(np.mean(theta**2, axis=0)), np.sqrt(np.mean(y**2, axis=0))
    size, target = np.where(size > 0, size, 1.0), np.where(target > 0, target, 1.0)
    problem, _ = least_squares_problem(theta / size, y / target)
    thresholds = np.geomspace(1e-3, 2.0, _STEPS)
    shares = np.array([threshold_rounds(problem, value).coef for value in thresholds])
    return CoefficientPath(thresholds, shares, names)
