"""Time derivatives of sampled states, and how much to smooth them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["METHODS", "Smoothing", "choose_smoothing", "derivative", "local_polynomial"]

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


@dataclasses.dataclass(frozen=True, eq=False)
class Smoothing:
    """Held-out errors of local polynomial fits, and what follows from them.

    windows : (candidate,) numbers of samples
    order : of the polynomials
    squared_error : (candidate, state) mean square of a sample minus its prediction from the other samples of its window
    window : (state,) the window of the least error
    noise : (state,) estimate of the noise's standard deviation there, in the unit of the state
    """

    windows: tuple[int, ...]
    order: int
    squared_error: np.ndarray

    @property
    def window(self) -> tuple[int, ...]:
        return tuple(self.windows[k] for k in self.squared_error.argmin(axis=0))

    @property
    def noise(self) -> np.ndarray:
        return np.sqrt(self.squared_error.min(axis=0))


_WINDOWS = (7, 9, 11, 13, 15, 19, 23, 27, 33, 41, 51, 63, 77, 95)


def choose_smoothing(t: Any, x: Any, *, order: int = 4, windows: Sequence[int] | None = None) -> Smoothing:
    r"""Choose the window of a local polynomial smoother, state by state, by the error on held-out samples.

    Each sample is predicted from the others of its window; for a linear smoother ``S`` that error needs no refit,
    ``(x - S x)_i / (1 - S_ii)``.  A window is right when it is as wide as the signal's own bends allow.
    The error holds noise and prediction error, so `Smoothing.noise` is slightly above the noise itself.

    t : (time,) seconds, any spacing   x : (time,) or (time, state)
    windows : candidates, odd; default 7 to 95 samples, as far as they fit
    Assumes noise that is independent from sample to sample; noise that is not is taken for signal.
    Raises ValueError for shapes that do not fit, times that do not increase, or no candidate that fits.
    Reference: Fan and Gijbels, Local Polynomial Modelling and Its Applications, 1996, section 4.
    """
    t, x = np.asarray(t, dtype=np.float64), np.asarray(x, dtype=np.float64)
    _check(t, x, "finite_difference")
    x = x.reshape(len(t), -1)
    given = _WINDOWS if windows is None else tuple(windows)
    fitting = tuple(window for window in given if order + 1 < window <= len(t))
    if not fitting or any(window % 2 == 0 for window in fitting):
        raise ValueError(
            f"`choose_smoothing(windows=...)` must be odd, above `order` + 1 ({order + 1}) and at most the number of "
            f"samples ({len(t)}). Got {given}."
        )
    errors = np.empty((len(fitting), x.shape[1]))
    for row, window in zip(errors, fitting, strict=True):
        smoother = local_polynomial(t, window, order)
        kept = 1.0 - smoother.diagonal()
        row[:] = np.mean(((x - smoother @ x) / kept[:, None]) ** 2, axis=0)
    return Smoothing(fitting, order, errors)


def local_polynomial(t: np.ndarray, window: int, order: int, derivative: int = 0) -> csr_array:
    """Matrix (time, time) of a local polynomial fit, evaluated at every sample or differentiated once there.

    Row ``i`` fits ``order`` to the ``window`` samples around sample ``i`` (at the ends, to the first and last ones):
    a Savitzky-Golay filter, for any spacing.
    """
    from scipy.sparse import csr_array

    n = len(t)
    starts = np.clip(np.arange(n) - window // 2, 0, n - window)
    columns = starts[:, None] + np.arange(window)
    steps = np.diff(t)
    even = np.abs(steps - steps.mean()).max() <= 1e-6 * steps.mean() + 4 * np.spacing(np.abs(t).max())
    # On an even grid all windows are the same, so one factorization serves them all.
    distinct = np.arange(1) if even else np.arange(n - window + 1)
    samples = t[distinct[:, None] + np.arange(window)]
    center = samples.mean(axis=1)
    half = (samples[:, -1] - samples[:, 0]) / 2
    powers = np.arange(order + 1)
    s = (samples - center[:, None]) / half[:, None]
    fits = np.linalg.pinv(s[..., None] ** powers)  # (window start, power, sample)
    which = np.zeros(n, dtype=int) if even else starts
    at = s[which, np.arange(n) - starts]
    if derivative == 0:
        basis = at[:, None] ** powers
    else:
        basis = powers * at[:, None] ** np.maximum(powers - 1, 0) / half[which][:, None]
    weights = np.einsum("ip,ipw->iw", basis, fits[which])
    return csr_array((weights.ravel(), columns.ravel(), window * np.arange(n + 1)), shape=(n, n))


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
