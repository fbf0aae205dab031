"""What is compared: ways from a recording to coefficients of the polynomial library, and linear models beside them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np

from paper_reproductions.kaiser2018_sindy_mpc.systems import Recording, System
from sindyrl.differentiate import derivative
from sindyrl.dmdc import dmdc
from sindyrl.identify import identify
from sindyrl.regression.gram import Gram
from sindyrl.regression.stlsq import STLSQ
from sindyrl.regression.subset import SubsetSelection, subset_path
from sindyrl.regression.weak import MeasuredRows, fit_noisy, weak_rows
from sindyrl.structure import Derivative

__all__ = ["CLEAN", "NOISY", "fit", "linear_step"]

_ROUNDS = 10  # of thresholding, the study's
_MAX_TERMS = {"lotka_volterra": 6, "lorenz": 6, "f8": 15, "hiv": 8}  # of an equation, by the search for best subsets
_EXACT = 1e-6  # of a target's RMS: a residual below it counts as none, whatever the derivatives' own error
_WINDOWS = 200
_WIDEST = 40  # steps
_THRESHOLDS = np.geomspace(1e-3, 0.5, 20)  # of pysindy's STLSQ, as shares of the target


def fit(method: str, recording: Recording, system: System) -> np.ndarray | None:
    """Coefficients (state, feature) that a method of `CLEAN` or `NOISY` finds; None if it needs more samples."""
    methods = CLEAN | NOISY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rounds that ran out and supports that emptied show in the result
        try:
            return methods[method](recording, system)
        except ValueError:
            return None


def linear_step(recording: Recording) -> np.ndarray:
    """DMDc: the matrix (state, 1 + state + input) of ``x_{k+1} = c + a x_k + b u_k``, u the mean over the step."""
    found = dmdc(recording.trajectory())
    return np.column_stack([found.c, found.a, found.b])


def central_rows(recording: Recording, system: System) -> tuple[np.ndarray, np.ndarray]:
    """The study's rows: library and fourth-order central differences at all samples but two at each end."""
    x, dt = recording.x, float(recording.t[1] - recording.t[0])
    if len(x) < 5:
        raise ValueError("`central_rows(recording=...)` must have at least 5 samples.")
    slope = (x[:-4] - 8 * x[1:-3] + 8 * x[3:-1] - x[4:]) / (12 * dt)
    return system.library.features(np.column_stack([x, recording.u])[2:-2]), slope


def _study(recording: Recording, system: System) -> np.ndarray:
    """The study's recipe with our STLSQ: unit columns, the study's thresholds, ten rounds."""
    theta, slope = central_rows(recording, system)
    length = np.linalg.norm(theta, axis=0)
    length[length == 0] = 1.0
    estimator = STLSQ(np.array(system.thresholds), max_iter=_ROUNDS)
    return np.asarray(estimator.fit(theta / length, slope).coef_ / length)


def _study_pysindy(recording: Recording, system: System) -> np.ndarray:
    """The same by pysindy's STLSQ, which has one threshold for all targets: each target for itself, no ridge."""
    from pysindy import STLSQ as Pysindy

    theta, slope = central_rows(recording, system)
    coef = []
    for threshold, y in zip(system.thresholds, slope.T, strict=True):
        optimizer = Pysindy(threshold=threshold, alpha=0.0, normalize_columns=True, max_iter=_ROUNDS)
        coef.append(np.asarray(optimizer.fit(theta, y[:, None]).coef_))
    return np.concatenate(coef)


def _discrepancy(recording: Recording, system: System) -> np.ndarray:
    """Ours for noise-free data: the fewest terms that explain the derivatives as well as these are known.

    Derivatives are central differences over nine samples; those over seven tell their error. Rows whose nine samples
    straddle a jump of a held input are left out. Of the best subsets by size the first is taken whose residual is
    within that error, and then every term dropped that it can do without. No threshold is set.
    """
    t, x = recording.t, recording.x
    nine, seven = derivative(t, x, window=9, order=8), derivative(t, x, window=7, order=6)
    inside = np.zeros(len(t), dtype=bool)
    inside[4:-4] = True
    for jump in np.flatnonzero(np.diff(recording.u)) + 1 if system.held else ():
        inside[max(jump - 3, 0) : jump + 4] = False
    theta = system.library.features(np.column_stack([x, recording.u])[inside])
    y, error = nine[inside], np.sqrt(np.mean((nine - seven)[inside] ** 2, axis=0))
    length = np.linalg.norm(theta, axis=0)
    length[length == 0] = 1.0
    q, r = np.linalg.qr(theta / length)
    coef = np.zeros((y.shape[1], theta.shape[1]))
    for row, target, unknown in zip(coef, y.T, error, strict=True):
        allowed = max(unknown, _EXACT * float(np.sqrt(np.mean(target**2))))
        z = q.T @ target
        outside = float(target @ target - z @ z)

        def solve(support: list[int], z: np.ndarray = z, outside: float = outside) -> tuple[np.ndarray, float]:
            w = np.linalg.lstsq(r[:, support], z, rcond=None)[0]
            return w, float(np.sqrt(max(outside + np.sum((z - r[:, support] @ w) ** 2), 0.0) / len(theta)))

        sizes = subset_path(Gram.from_rows(theta, target[:, None]), 0, _MAX_TERMS[system.name])
        support = list(next((found for found in sizes if solve(list(found))[1] <= allowed), sizes[-1]))
        while len(support) > 1:
            smaller = [support[:k] + support[k + 1 :] for k in range(len(support))]
            best = min(smaller, key=lambda found: solve(found)[1])
            if solve(best)[1] > allowed:
                break
            support = best
        row[support] = solve(support)[0] / length[support]
    return coef


def _default(recording: Recording, system: System) -> np.ndarray:
    """`identify` as a user would call it, with as many terms allowed as elsewhere."""
    found = identify(
        recording.trajectory(),
        system.library,
        structure=Derivative(),
        regressor=SubsetSelection(max_terms=_MAX_TERMS[system.name]),
        members=1,
        inclusion=False,
        actuators="allow",
    )
    return np.asarray(found.model.rates.coef)


def _rows(recording: Recording, system: System) -> list[MeasuredRows]:
    data = recording.trajectory()
    width = min(_WIDEST, max(len(data) // 2, 6))
    return weak_rows(data, system.library, n_windows=_WINDOWS, width=width * data.dt)


# Two methods of one cell take the same rows.
_kept = functools.lru_cache(maxsize=1)(_rows)


def _weak(recording: Recording, system: System) -> np.ndarray:
    """Ours for noisy data: integrals against 200 bumps up to 40 steps wide, best subsets of whitened rows."""
    return fit_noisy(_kept(recording, system), system.library, max_terms=_MAX_TERMS[system.name]).coef


def _weak_pysindy(recording: Recording, system: System) -> np.ndarray:
    """pysindy's STLSQ on the rows of `_weak`, unit columns and targets; the threshold by the criterion of `fit_noisy`.

    The criterion counts the rows that do not overlap: STLSQ knows nothing of their covariance.
    """
    from pysindy import STLSQ as Pysindy

    (rows,) = _kept(recording, system)
    theta, size = rows.theta, np.sqrt(np.mean(rows.y**2, axis=0))
    y, p = rows.y / size, rows.theta.shape[1]
    n = len(y) / max(1.0, rows.functionals[0].count_nonzero() / rows.functionals[0].shape[1])
    best, least = np.zeros((y.shape[1], p)), np.inf
    for threshold in _THRESHOLDS:
        optimizer = Pysindy(threshold=threshold * np.sqrt(len(y)), alpha=1e-5, normalize_columns=True)
        coef = np.asarray(optimizer.fit(theta, y).coef_)
        mean_square = np.maximum(np.mean((y - theta @ coef.T) ** 2, axis=0), 1e-24)
        value = n * float(np.log(mean_square).sum()) + np.count_nonzero(coef) * (np.log(n) + 2 * np.log(p))
        if value < least:
            best, least = coef * size[:, None], value
    return best


Method = Callable[[Recording, System], np.ndarray]
CLEAN: dict[str, Method] = {
    "ours": _discrepancy,
    "ours_identify": _default,
    "ours_weak": _weak,
    "study": _study,
    "study_pysindy": _study_pysindy,
}
NOISY: dict[str, Method] = {"ours_weak": _weak, "study": _study, "pysindy_weak": _weak_pysindy}
