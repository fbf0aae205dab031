"""Time derivatives of sampled states."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["METHODS", "derivative"]

METHODS = ("savitzky_golay", "finite_difference", "spline", "trend_filtered", "kalman", "kernel", "spectral")
# What the package leaves to the user; no default would suit data of every unit.
_REQUIRED = {
    "spline": ("s",),
    "trend_filtered": ("order", "alpha"),
    "kalman": ("alpha",),
    "kernel": ("sigma", "lmbd"),
    "spectral": (),
}


def derivative(t: Any, x: Any, method: str = "savitzky_golay", **settings: Any) -> np.ndarray:
    """Derivative ``dx/dt`` of samples: t (time,) in seconds, x (time,) or (time, state), the result shaped like x.

    method :
      * "savitzky_golay": central differences of a polynomial fitted to each window.  ``window=7`` samples, odd;
        ``order=3``.  Needs an even spacing.  Keeps its order at both ends.
      * "finite_difference": second order everywhere, ends included; any spacing; no smoothing.
      * "spline" (``s``), "trend_filtered" (``order, alpha``), "kalman" (``alpha``), "kernel" (``sigma, lmbd``),
        "spectral": from the package `derivative`, whose documentation explains their settings.
    Raises ValueError for an unknown method, shapes that do not fit, times that do not increase, too few samples.
    """
    t, x = np.asarray(t, dtype=np.float64), np.asarray(x, dtype=np.float64)
    _check(t, x, method)
    if method == "finite_difference":
        return np.gradient(x, t, axis=0, edge_order=2, **settings)
    if method == "savitzky_golay":
        return _savitzky_golay(t, x, **settings)
    missing = [name for name in _REQUIRED[method] if name not in settings]
    if missing:
        raise ValueError(f"`derivative(method={method!r})` also needs {', '.join(f'`{name}=`' for name in missing)}.")
    import derivative as package

    rows = x.T if x.ndim == 2 else x[None]
    result = package.dxdt(rows, t, kind=method, axis=1, **settings)
    return np.asarray(result).T.reshape(x.shape)


def _savitzky_golay(t: np.ndarray, x: np.ndarray, *, window: int = 7, order: int = 3) -> np.ndarray:
    from scipy.signal import savgol_filter

    if window % 2 == 0 or not 0 < order < window <= len(t):
        raise ValueError(
            f"`derivative(window=...)` must be odd, above `order` ({order}) and at most the number of samples "
            f"({len(t)}). Got {window}."
        )
    steps = np.diff(t)
    dt = float(steps.mean())
    if np.abs(steps - dt).max() > 1e-6 * dt + 4 * np.spacing(np.abs(t).max()):
        raise ValueError(
            "`derivative(method='savitzky_golay')` needs evenly spaced samples; the steps vary from "
            f"{steps.min():.6g} to {steps.max():.6g} s. Use method='finite_difference' or 'spline', or resample."
        )
    return np.asarray(savgol_filter(x, window, order, deriv=1, delta=dt, axis=0, mode="interp"))


def _check(t: np.ndarray, x: np.ndarray, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"`derivative(method=...)` must be one of {', '.join(METHODS)}. Got {method!r}.")
    if t.ndim != 1 or x.ndim not in (1, 2) or len(x) != len(t):
        raise ValueError(
            f"`derivative(t=..., x=...)` must be (time,) and (time,) or (time, state). Got {t.shape} and {x.shape}."
        )
    if len(t) < 3:
        raise ValueError(f"`derivative(t=...)` must have at least 3 samples. Got {len(t)}.")
    if not (np.diff(t) > 0).all():
        raise ValueError(
            f"`derivative(t=...)` must increase. It does not after sample {int(np.argmin(np.diff(t) > 0))}."
        )
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise ValueError(f"`derivative(x=...)` must be finite. Row {row} is not.")
