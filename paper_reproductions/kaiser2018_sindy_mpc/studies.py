"""The cells of the study: which system, how many samples, how much noise; and what is measured in each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.seeds import derived_seeds
from paper_reproductions.kaiser2018_sindy_mpc.methods import CLEAN, NOISY, fit, linear_step
from paper_reproductions.kaiser2018_sindy_mpc.predict import errors, predict, predict_linear
from paper_reproductions.kaiser2018_sindy_mpc.systems import SYSTEMS, Recording, System, record

__all__ = ["LENGTHS", "NOISES", "Cell", "cells", "measure_cell", "measure_clean", "short", "sweep_recordings"]

LENGTHS = (*range(5, 16), *range(20, 96, 5), *range(100, 1001, 100))
NOISES = (1.0, *(float(percent) for percent in range(5, 51, 5)))
_LENGTH_NOISES = (5.0, 1.0, 20.0)
_WHOLE = 3000
# The study's noise runs: 400 LV seconds at its step, 40 of Lorenz at ten times its step (see the README); F8 and HIV
# have none, so their clean recordings are used.
_SWEEP_DT = {"lorenz": 0.01}
_SWEEP_STEPS = {"lotka_volterra": (3000, 1000), "lorenz": (3000, 1000)}
_FEW = {"f8": 10, "hiv": 5}  # realizations at most: fits take seconds there
_FEW_PYSINDY = 10  # realizations at most of pysindy's scan of thresholds, which takes as long as all else
_FEW_NOISES = {"f8": (0.1, 1.0, 5.0), "hiv": (0.1, 1.0)}


@dataclasses.dataclass(frozen=True)
class Cell:
    """length : samples used for training   noise : percent   realizations : of the noise"""

    system: str
    length: int
    noise: float
    realizations: int

    @property
    def key(self) -> str:
        return f"{self.system} {self.length} {self.noise:g} {self.realizations}"


def cells(systems: Sequence[str], realizations: int) -> list[Cell]:
    """All cells with noise; those that matter most come first."""
    found = [
        Cell(name, _WHOLE, noise, realizations)
        for name in ("lorenz", "lotka_volterra")
        if name in systems
        for noise in NOISES
    ]
    if "lorenz" in systems:
        found += [Cell("lorenz", length, noise, realizations) for noise in _LENGTH_NOISES for length in LENGTHS]
    for name, few in _FEW.items():
        if name in systems:
            length = round(SYSTEMS[name].training / SYSTEMS[name].dt) + 1
            found += [Cell(name, length, noise, min(realizations, few)) for noise in _FEW_NOISES[name]]
    return found


@functools.cache
def sweep_recordings(name: str) -> tuple[Recording, Recording]:
    """Noise-free training and validation recordings of the cells; the input of training goes on in validation."""
    system = SYSTEMS[name]
    if name not in _SWEEP_STEPS:
        return _clean_recordings(name)
    dt = _SWEEP_DT.get(name, system.dt)
    steps, more = _SWEEP_STEPS[name]
    training = record(system, np.array(system.x0), system.training_input, 0.0, steps, dt)
    return training, record(system, training.x[-1], system.training_input, float(training.t[-1]), more, dt)


@functools.cache
def _clean_recordings(name: str) -> tuple[Recording, Recording]:
    return SYSTEMS[name].recordings()


def measure_clean(name: str) -> dict[str, Any]:
    """Supports, coefficient errors and predictions without noise, by every method."""
    system = SYSTEMS[name]
    training, validation = _clean_recordings(name)
    found: dict[str, np.ndarray] = {}
    methods: dict[str, Any] = {}
    for method in CLEAN:
        start = time.process_time()
        coef = fit(method, training, system)
        methods[method] = None if coef is None else _support(coef, system)
        if coef is not None:
            found[method] = coef
            methods[method]["seconds"] = round(time.process_time() - start, 2)
    # All in one batch: a step of the integrator costs as much for one model as for ten.
    paths = predict(np.stack([*found.values(), system.coef]), system, validation)
    straight = predict_linear(linear_step(training)[None], validation)
    whole, first = errors(np.concatenate([paths, straight]), validation)
    for method, long_error, short_error in zip([*found, "truth", "dmdc"], whole, first, strict=True):
        methods.setdefault(method, {}).update(mse=short(long_error), mse_short=short(short_error))
    return {"system": name, "noise": 0.0, "length": len(training.t), "dt": system.dt, "methods": methods}


def _support(coef: np.ndarray, system: System) -> dict[str, Any]:
    """Whether every support is exact, the terms that are not, and the relative error of each state's coefficients."""
    wrong = {
        state: {
            "missing": _names(system, (coef[i] == 0) & (system.coef[i] != 0)),
            "spurious": _names(system, (coef[i] != 0) & (system.coef[i] == 0)),
        }
        for i, state in enumerate(system.states)
        if ((coef[i] != 0) != (system.coef[i] != 0)).any()
    }
    off = np.linalg.norm(coef - system.coef, axis=1) / np.linalg.norm(system.coef, axis=1)
    return {"exact": not wrong, "wrong": wrong, "e_coef": [short(value) for value in off]}


def measure_cell(cell: Cell, tree: str) -> dict[str, Any]:
    """Every method on the same realizations of the noise: quartiles of the errors, counts of exact supports."""
    system = SYSTEMS[cell.system]
    whole, validation = sweep_recordings(cell.system)
    training = whole.first(cell.length)
    spread = _spread(cell.system, validation)
    label = f"{tree}{cell.system}{cell.length}{cell.noise:g}"
    seeds = derived_seeds(hashlib.sha256(label.encode()).hexdigest(), cell.realizations)
    start = time.process_time()
    found: dict[str, list[np.ndarray]] = {method: [] for method in NOISY}
    linear = []
    for index, seed in enumerate(seeds):
        noisy = training.with_noise(cell.noise / 100 * spread, np.random.default_rng(seed))
        linear.append(linear_step(noisy))
        for method, models in found.items():
            wanted = method != "pysindy_weak" or index < _FEW_PYSINDY
            coef = fit(method, noisy, system) if wanted else None
            if coef is not None:
                models.append(coef)
    methods: dict[str, Any] = {}
    for method, models in found.items():
        if not models:
            methods[method] = None
            continue
        coefs = np.stack(models)
        numbers = _quartiles(*errors(predict(coefs, system, validation), validation))
        exact = ((coefs != 0) == (system.coef != 0)).all(axis=(1, 2))
        e_coef = np.linalg.norm(coefs - system.coef, axis=(1, 2)) / np.linalg.norm(system.coef)
        methods[method] = numbers | {
            "models": len(models),
            "exact": int(exact.sum()),
            "e_coef": short(np.median(e_coef)),
        }
    methods["dmdc"] = _quartiles(*errors(predict_linear(np.stack(linear), validation), validation))
    head = {"system": cell.system, "length": cell.length, "noise": cell.noise, "realizations": cell.realizations}
    return head | {"methods": methods, "first_seed": seeds[0], "seconds": round(time.process_time() - start, 1)}


def _spread(name: str, validation: Recording) -> np.ndarray | float:
    """What the noise is a percentage of: one state's standard deviation for all states, as in the study's code."""
    chosen = {"lotka_volterra": 1, "lorenz": 2}
    if name in chosen:
        return float(validation.x[:, chosen[name]].std(ddof=1))
    return np.asarray(sweep_recordings(name)[0].x.std(axis=0, ddof=1))


def _quartiles(whole: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    return {
        label: [short(np.percentile(values, q, method="inverted_cdf")) for q in (25, 50, 75)]
        for label, values in (("mse", whole), ("mse_short", first))
    } | {"diverged": int(np.isinf(whole).sum())}


def _names(system: System, chosen: np.ndarray) -> list[str]:
    return [system.library.names[index] for index in np.flatnonzero(chosen)]


def short(value: Any) -> float | None:
    """Three digits; None for what is infinite, which JSON has not."""
    return float(f"{float(value):.3g}") if np.isfinite(value) else None
