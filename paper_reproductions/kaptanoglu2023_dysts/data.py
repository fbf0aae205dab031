"""The systems, their trajectories and the noise of the study."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from pathlib import Path

import numpy as np

from paper_reproductions.kaptanoglu2023_dysts.extract import DEGREE, STATES, SYSTEMS_FILE
from sindyrl.library import Library, polynomial_library
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["NAMES", "System", "load_system", "noisy", "trajectories"]

# The 70 systems, in alphabetical order.
NAMES: tuple[str, ...] = tuple(json.loads(SYSTEMS_FILE.read_text(encoding="utf-8"))["systems"])
CACHE = Path(__file__).resolve().parents[2] / "runs" / "kaptanoglu2023_dysts"
POINTS = 1000
POINTS_PER_PERIOD = 100
TRAINING, TEST = 5, 5
_SETTLE, _WANDER = 10, 33  # periods onto the attractor, and along it, where initial states are drawn
_RTOL = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """One system: ``dx/dt = coef theta(x)`` with the quartic library; ``period`` of its dominant frequency."""

    name: str
    library: Library
    coef: np.ndarray
    period: float
    initial_state: np.ndarray

    @property
    def dt(self) -> float:
        # As in dysts: `POINTS` points from 0 to the end of the last period, both included.
        return self.period * (POINTS / POINTS_PER_PERIOD) / (POINTS - 1)

    def rates(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.library.features(x) @ self.coef.T)


@functools.cache
def load_system(name: str) -> System:
    """A system by its name in `dysts`. ValueError for another name."""
    systems = json.loads(SYSTEMS_FILE.read_text(encoding="utf-8"))["systems"]
    if name not in systems:
        raise ValueError(f"`load_system(name=...)` must be one of {', '.join(systems)}. Got {name!r}.")
    record = systems[name]
    library = polynomial_library(DEGREE, bias=True).bind(STATES[: len(record["equations"])])
    coef = np.zeros((len(library.states), len(library)))
    for row, equation in zip(coef, record["equations"], strict=True):
        for term, value in equation.items():
            row[library.index(term)] = value
    return System(name, library, coef, record["period"], np.array(record["initial_state"]))


def trajectories(system: System, cache: Path | None = CACHE) -> tuple[Dataset, Dataset]:
    """Training and test trajectories without noise, `TRAINING` and `TEST` of `POINTS` points on the attractor.

    Initial states are points of one long solution, drawn with a seed that only depends on the name. With ``cache``
    they are kept there as an npz file.
    """
    path = None if cache is None else cache / f"{system.name}.npz"
    if path is not None and path.exists():
        whole = Dataset.from_npz(path)
    else:
        whole = _simulate(system)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.to_npz(path)
    return Dataset(whole.trajectories[:TRAINING]), Dataset(whole.trajectories[TRAINING:])


def noisy(data: Dataset, percent: float, rng: np.random.Generator) -> Dataset:
    """The data plus white noise of ``percent`` of each trajectory's RMS, the same for all of its states."""
    parts = []
    for part in data:
        scale = percent / 100 * float(np.sqrt(np.mean(part.x**2)))
        parts.append(dataclasses.replace(part, x=part.x + scale * rng.standard_normal(part.x.shape)))
    return Dataset(tuple(parts))


def _simulate(system: System) -> Dataset:
    rng = np.random.default_rng(zlib.crc32(system.name.encode()))
    step = system.period / POINTS_PER_PERIOD
    long = _integrate(system, system.initial_state[None], np.arange((_SETTLE + _WANDER) * POINTS_PER_PERIOD) * step)
    attractor = long[0, _SETTLE * POINTS_PER_PERIOD :]
    start = attractor[rng.choice(len(attractor), TRAINING + TEST, replace=False)]
    t = system.dt * np.arange(POINTS)
    states = system.library.states
    return Dataset(tuple(Trajectory(t, x, states=states) for x in _integrate(system, start, t)))


def _integrate(system: System, start: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Solutions (start, time, state) from each row of ``start``, all at once. RuntimeError if the solver fails."""
    from scipy.integrate import solve_ivp

    shape = start.shape
    solution = solve_ivp(
        lambda _, y: system.rates(y.reshape(shape)).ravel(),
        (t[0], t[-1]),
        start.ravel(),
        method="DOP853",
        t_eval=t,
        rtol=_RTOL,
        atol=_RTOL * np.abs(start).max(),
    )
    if not solution.success or not np.isfinite(solution.y).all():
        raise RuntimeError(f"{system.name} could not be simulated: {solution.message}")
    return np.asarray(solution.y).reshape(*shape, len(t)).transpose(0, 2, 1)
