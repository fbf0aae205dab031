r"""Least squares through a clip: coefficients ``w`` such that ``clip(theta w, low, high)`` matches labels.

A label at a limit says only on which side of the limit ``theta w`` has to be. It is therefore fitted one-sidedly,

    loss(w) = mean r_i(w)^2 + ridge sum_j rms_j^2 w_j^2,    r_i = theta_i w - y_i   between the limits,
                                                            r_i = min(theta_i w - high, 0)   at the upper one,
                                                            r_i = max(theta_i w - low, 0)    at the lower one,

which is convex and piecewise quadratic, and zero for any ``w`` whose clipped values are the labels. Plain least squares
pulls ``theta w`` towards the limit from both sides instead and so flattens what a bang-bang teacher does where it
switches. Minimized by Newton steps: the rows that count change from step to step, the rest is least squares.

The one-sided loss is that of the Tobit model with known noise, in its limit of small noise, and for labels at the
limits alone the squared hinge of a support-vector machine: Keerthi, DeCoste, JMLR 6, 2005 (the same Newton steps).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

_AT_LIMIT = 1e-6  # of the range: a label this near to a limit is at it


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Rows and what they are labelled with, one input.

    theta : (sample, feature)    y : (sample,) within the limits    low, high : the limits
    one_sided : whether labels at a limit count one-sidedly; if not, this is plain least squares
    """

    theta: np.ndarray
    y: np.ndarray
    low: float
    high: float
    one_sided: bool = True

    @cached_property
    def side(self) -> np.ndarray:
        """1 for labels at the upper limit, -1 for those at the lower one, 0 between; (sample,)."""
        if not self.one_sided:
            return np.zeros(len(self.y))
        slack = _AT_LIMIT * (self.high - self.low)
        return np.where(self.y >= self.high - slack, 1.0, np.where(self.y <= self.low + slack, -1.0, 0.0))

    @cached_property
    def between(self) -> np.ndarray:
        """Products of columns, summed over the rows between the limits, which always count: (feature, feature)."""
        theta = self.theta[self.side == 0.0]
        return np.asarray(theta.T @ theta)

    def residual(self, predicted: np.ndarray) -> np.ndarray:
        """``r_i``, (sample,), of predictions (sample,)."""
        off = predicted - self.y
        off = np.where(self.side > 0.0, np.minimum(off, 0.0), off)
        return np.asarray(np.where(self.side < 0.0, np.maximum(off, 0.0), off))

    def curvature(self, theta: np.ndarray, used: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Half of the second derivative of the sum of squares; theta (sample, n_used) are the columns ``used``."""
        counting = theta[(r != 0.0) & (self.side != 0.0)]
        return np.asarray(self.between[np.ix_(used, used)] + counting.T @ counting)


@dataclasses.dataclass(frozen=True, eq=False)
class ClippedFit:
    """w : (feature,)    loss : what was minimized    converged : whether the last step hardly lowered it"""

    w: np.ndarray
    loss: float
    converged: bool


def clipped_least_squares(
    labels: Labels,
    support: np.ndarray | None = None,
    *,
    ridge: float = 1e-6,
    start: np.ndarray | None = None,
    max_iter: int = 60,
) -> ClippedFit:
    """Minimize the one-sided loss of the module text over the columns of ``support`` (bool, (feature,); None: all).

    ridge : relative to each column's mean square, so that units do not matter
    start : (feature,) where to begin; None begins at zero
    """
    used = np.arange(labels.theta.shape[1]) if support is None else np.flatnonzero(support)
    theta = np.ascontiguousarray(labels.theta[:, used])
    n, square = len(theta), np.maximum((theta**2).mean(axis=0), 1e-300)
    w = np.zeros(len(used)) if start is None else start[used].copy()
    penalty = ridge * square

    def total(candidate: np.ndarray) -> tuple[float, np.ndarray]:
        r = labels.residual(theta @ candidate)
        return float(r @ r / n + penalty @ candidate**2), r

    loss, r = total(w)
    converged = False
    for _ in range(max_iter):
        hessian = labels.curvature(theta, used, r) / n + np.diag(penalty)
        step = _solve(hessian, theta.T @ r / n + penalty * w, square)
        share = 1.0
        after, r_after = total(w - step)
        while after >= loss and share > 1e-4:
            share /= 2.0
            after, r_after = total(w - share * step)
        gained = loss - after
        if gained > 0.0:
            w, loss, r = w - share * step, after, r_after
        if gained <= 1e-6 * loss + 1e-12 * (labels.high - labels.low) ** 2:
            converged = True
            break
    full = np.zeros(labels.theta.shape[1])
    full[used] = w
    return ClippedFit(full, loss, converged)


def backward_path(
    labels: Labels, allowed: np.ndarray, singly: int, *, ridge: float = 1e-6
) -> list[tuple[np.ndarray, float]]:
    """(coefficients, loss) with all allowed terms, then with ever fewer, down to one.

    The terms that go are those whose removal would raise the local quadratic least, ``w_j^2 / (H^-1)_jj``: a tenth at a
    time, one by one from ``singly`` terms on; the rest is fitted again. Source: Hassibi, Stork, Second order
    derivatives for network pruning: Optimal Brain Surgeon, NeurIPS 1992.
    """
    support = np.array(allowed, dtype=bool)
    fit = clipped_least_squares(labels, support, ridge=ridge)
    path = [(fit.w, fit.loss)]
    while support.sum() > 1:
        used = np.flatnonzero(support)
        cost = fit.w[used] ** 2 / np.diag(inverse_hessian(labels, fit.w, used, ridge))
        many = max(min(len(used) // 10, len(used) - singly), 1)
        support[used[np.argsort(cost, kind="stable")[:many]]] = False
        fit = clipped_least_squares(labels, support, ridge=ridge, start=fit.w)
        path.append((fit.w, fit.loss))
    return path


def inverse_hessian(labels: Labels, w: np.ndarray, used: np.ndarray, ridge: float) -> np.ndarray:
    """Inverse of half the loss's second derivative at ``w``, (n_used, n_used) over the columns ``used``."""
    theta = labels.theta[:, used]
    scale = 1.0 / np.sqrt(np.maximum((theta**2).mean(axis=0), 1e-300))
    hessian = labels.curvature(theta, used, labels.residual(theta @ w[used])) / len(theta)
    # The floor keeps it finite where no row counts: labels at the limits alone, all of them met.
    scaled = hessian * np.outer(scale, scale) + max(ridge, 1e-9) * np.eye(len(used))
    return np.asarray(np.linalg.inv(scaled) * np.outer(scale, scale))


def _solve(hessian: np.ndarray, gradient: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Newton's step, in columns of unit size."""
    scale = 1.0 / np.sqrt(square)
    scaled = hessian * np.outer(scale, scale)
    try:
        step = np.linalg.solve(scaled, gradient * scale)
    except np.linalg.LinAlgError:
        step = np.linalg.lstsq(scaled, gradient * scale, rcond=None)[0]
    return np.asarray(step * scale)


def merged(paths: Sequence[list[tuple[np.ndarray, float]]], widths: np.ndarray) -> list[np.ndarray]:
    """Coefficients (n_inputs, n_terms) of all inputs together, along all paths to their ends.

    paths : for each input, (coefficients, loss) with one term fewer at a time
    widths : of the inputs' ranges, in whose squares the losses are compared: the input that minds least goes on
    """
    at = [0] * len(paths)
    found = []
    while True:
        found.append(np.array([path[index][0] for path, index in zip(paths, at, strict=True)]))
        costs = [
            (path[index + 1][1] - path[index][1]) / width**2 if index + 1 < len(path) else math.inf
            for path, index, width in zip(paths, at, widths, strict=True)
        ]
        if not math.isfinite(min(costs)):
            return found
        at[int(np.argmin(costs))] += 1


def one_fewer(coef: np.ndarray, labels: Sequence[Labels], ridge: float) -> np.ndarray:
    """Coefficients (policy, n_inputs, n_terms) without one of the terms, the others taking over what they can.

    ``w - H^-1_j w_j / (H^-1)_jj`` changes the outputs least among all that lack term j. It comes first, and then the
    same without the others' help. An input keeps one term.

    coef : (n_inputs, n_terms)    labels : input by input
    """
    found = []
    for index, (row, each) in enumerate(zip(coef, labels, strict=True)):
        used = np.flatnonzero(row)
        if len(used) < 2:
            continue
        inverse = inverse_hessian(each, row, used, ridge)
        for place in range(len(used)):
            for takes_over in (inverse[:, place] / inverse[place, place], np.eye(len(used))[place]):
                smaller = coef.copy()
                smaller[index, used] = row[used] - row[used[place]] * takes_over
                smaller[index, used[place]] = 0.0
                found.append(smaller)
    return np.array(found)
