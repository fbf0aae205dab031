"""Predictions over the validation recording, a batch of models at a time, and their errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paper_reproductions.kaiser2018_sindy_mpc.systems import Recording, System

__all__ = ["SHORT", "errors", "predict", "predict_linear"]

SHORT = 250  # samples of the study's shorter error
_FAR = 1e3  # times the largest state: the prediction has diverged


def predict(coef: np.ndarray, system: System, validation: Recording) -> np.ndarray:
    """States (model, time, state) of models ``coef`` (model, state, feature) from the recording's first state.

    Classical Runge-Kutta at the recording's step, with the input where each stage needs it. NaN from where a model
    diverges.
    """
    used = np.flatnonzero(coef.any(axis=(0, 1)))
    library = system.library.select(used if len(used) else [0])
    kept = coef[:, :, used if len(used) else [0]]
    dt = float(validation.t[1] - validation.t[0])

    def rates(x: np.ndarray, u: float) -> np.ndarray:
        z = np.column_stack([x, np.full(len(x), u)])
        return np.asarray(np.einsum("msf,mf->ms", kept, library.features(z)))

    def step(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        k1 = rates(x, u[0])
        k2 = rates(x + dt / 2 * k1, u[1])
        k3 = rates(x + dt / 2 * k2, u[1])
        k4 = rates(x + dt * k3, u[2])
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return _roll(len(coef), step, validation)


def predict_linear(matrices: np.ndarray, validation: Recording) -> np.ndarray:
    """The same for ``x_{k+1} = m @ [1, x_k, u_k]``, matrices (model, state, 1 + state + 1), u a step's mean."""

    def step(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        mean = (u[0] + 4 * u[1] + u[2]) / 6
        z = np.column_stack([np.ones(len(x)), x, np.full(len(x), mean)])
        return np.asarray(np.einsum("msf,mf->ms", matrices, z))

    return _roll(len(matrices), step, validation)


def _roll(models: int, step: Callable[[np.ndarray, np.ndarray], np.ndarray], validation: Recording) -> np.ndarray:
    paths = np.full((models, *validation.x.shape), np.nan)
    paths[:, 0] = validation.x[0]
    alive = np.arange(models)
    limit = _FAR * np.abs(validation.x).max()
    for k, u in enumerate(validation.stages):
        with np.errstate(all="ignore"):
            after = step(np.where(np.isfinite(paths[:, k]), paths[:, k], 0.0), u)[alive]
        good = np.isfinite(after).all(axis=1) & (np.abs(after) < limit).all(axis=1)
        alive = alive[good]
        paths[alive, k + 1] = after[good]
        if not len(alive):
            break
    return paths


def errors(paths: np.ndarray, validation: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Mean over time of the squared error summed over states, whole and first `SHORT` samples; infinite if diverged."""
    squared = np.sum((paths[:, 1:] - validation.x[1:]) ** 2, axis=2)
    squared = np.where(np.isnan(squared), np.inf, squared)
    return squared.mean(axis=1), squared[:, :SHORT].mean(axis=1)
