"""The four systems of the study: equations, constants, inputs, and trajectories of them.

Equations are coefficients of the polynomial library that the study fits, so that a support can be compared term by
term. Inputs are functions of time that act continuously, between samples too, except HIV's, which is held from sample
to sample.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from sindyrl.library import Library, polynomial_library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Trajectory

__all__ = ["SYSTEMS", "Input", "Recording", "System", "medication", "record", "schroeder"]

Input = Callable[[np.ndarray], np.ndarray]
_RTOL = 1e-11


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """One system with the study's settings.

    equations : for each state, term of the library -> coefficient
    degree : of the library, which has the constant too
    thresholds : (state,) the study's, on coefficients of columns of unit length
    dt : seconds (HIV: days) between samples   training : how long the training recording is, from ``x0``
    training_input, validation_input : functions of time   held : whether they are held over each step
    """

    name: str
    states: tuple[str, ...]
    equations: tuple[Mapping[str, float], ...]
    degree: int
    thresholds: tuple[float, ...]
    dt: float
    training: float
    x0: tuple[float, ...]
    training_input: Input
    validation_input: Input
    held: bool = False

    @functools.cached_property
    def library(self) -> Library:
        return polynomial_library(self.degree, bias=True).bind(self.states, ("u",))

    @functools.cached_property
    def coef(self) -> np.ndarray:
        """The true coefficients (state, feature)."""
        coef = np.zeros((len(self.states), len(self.library)))
        for row, equation in zip(coef, self.equations, strict=True):
            for term, value in equation.items():
                row[self.library.index(term)] = value
        return coef

    @functools.cached_property
    def model(self) -> Model:
        """The true system as a `Model` in continuous time, stepped by Runge-Kutta."""
        rates = SparseMap(self.library, self.coef, tuple(f"d{name}" for name in self.states))
        states = tuple(Signal(name) for name in self.states)
        seen = np.column_stack([self.x0, self.x0])
        return Model(rates, Derivative("rk4"), states, (Signal("u"),), self.dt, seen)

    def recordings(self) -> tuple[Recording, Recording]:
        """The study's noise-free training recording, and as long a one for validation that starts where it ends."""
        steps = round(self.training / self.dt)
        training = record(self, np.array(self.x0), self.training_input, 0.0, steps, self.dt)
        return training, record(self, training.x[-1], self.validation_input, training.t[-1], steps, self.dt)


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """t : (time,)   x : (time, state)   u : (time,) input at the samples

    stages : (time - 1, 3) input at the start, in the middle and at the end of each step
    """

    states: tuple[str, ...]
    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    stages: np.ndarray

    def first(self, samples: int) -> Recording:
        """The recording up to the ``samples``-th sample."""
        cut = slice(None, samples)
        return Recording(self.states, self.t[cut], self.x[cut], self.u[cut], self.stages[: samples - 1])

    def with_noise(self, scale: np.ndarray | float, rng: np.random.Generator) -> Recording:
        """With white noise of standard deviation ``scale``, a number or (state,), on the states."""
        return dataclasses.replace(self, x=self.x + scale * rng.standard_normal(self.x.shape))

    def trajectory(self) -> Trajectory:
        """For routes that hold the input over each step: its mean over the step, by Simpson's rule."""
        mean = self.stages @ np.array([1.0, 4.0, 1.0]) / 6.0
        return Trajectory(self.t, self.x, mean[:, None], states=self.states, inputs=("u",))


def record(system: System, x0: np.ndarray, signal: Input, start: float, steps: int, dt: float) -> Recording:
    """Integrate the true equations by DOP853 at a relative tolerance of 1e-11. RuntimeError if that fails."""
    from scipy.integrate import solve_ivp

    t = start + dt * np.arange(steps + 1)
    # A held input is asked for in the middle of each step, where no rounding of its jumps' times matters.
    middle = signal(t[:-1] + dt / 2)
    u = np.append(middle, signal(t[-1:] + dt / 2)) if system.held else signal(t)
    stages = np.column_stack([middle] * 3) if system.held else np.column_stack([u[:-1], middle, u[1:]])
    used = np.flatnonzero(system.coef.any(axis=0))
    # A monomial at 2 in one variable and 1 in the others is 2 to that variable's exponent.
    exponents = np.log2(system.library.select(used).features(1.0 + np.eye(len(x0) + 1))).T
    coef = system.coef[:, used]
    jumps = [0, *np.flatnonzero(np.diff(middle)) + 1, steps] if system.held else [0, steps]
    x = np.empty((steps + 1, len(x0)))
    x[0] = x0
    for begin, end in itertools.pairwise(jumps):
        at = (lambda _, value=middle[begin]: value) if system.held else lambda time: float(signal(np.asarray(time)))
        solution = solve_ivp(
            lambda time, y, at=at: coef @ np.prod(np.array([*y, at(time)]) ** exponents, axis=1),
            (t[begin], t[end]),
            x[begin],
            method="DOP853",
            t_eval=t[begin : end + 1],
            rtol=_RTOL,
            # Populations fall to 1e-14 and recover: below a tolerance they would go negative and grow.
            atol=1e-30 if system.held else _RTOL * np.maximum(np.abs(x[begin]), 1e-3),
        )
        if not solution.success or not np.isfinite(solution.y).all():
            raise RuntimeError(f"{system.name} could not be simulated: {solution.message}")
        x[begin : end + 1] = solution.y.T
    return Recording(system.states, t, x, u, stages)


def schroeder(t: np.ndarray, *, period: float, harmonics: int) -> np.ndarray:
    """Harmonics of equal power with the phases of the study's code, ``pi i (i + 1) / harmonics`` for the i-th; RMS 1.

    Schroeder, IEEE Transactions on Information Theory 16, 1970.
    """
    i = np.arange(1, harmonics + 1)
    phase = np.pi * i * (i + 1) / harmonics
    angle = 2 * np.pi * i * np.asarray(t)[..., None] / period + phase
    return np.sqrt(2 / harmonics) * np.cos(angle).sum(axis=-1)


@functools.cache
def _doses() -> tuple[np.ndarray, np.ndarray]:
    # MATLAB's `rng(0)` is this generator; its `rand` and `randi` then give the study's own 200 doses.
    generator = np.random.RandomState(5489)
    ends = np.cumsum(0.2 + 9.8 * generator.random_sample(200))
    doses = np.array([0, 0.25, 0.5, 0.75, 1, 0, 0, 0, 0])
    return ends, doses[np.floor(len(doses) * generator.random_sample(200)).astype(int)]


def medication(t: np.ndarray) -> np.ndarray:
    """Pseudo-random doses in {0, .25, .5, .75, 1}, held .2 to 10 days, five of nine draws being 0.

    Changes take effect at the first sample, every 1/12 day, at or after their drawn time.
    """
    ends, doses = _doses()
    sample = np.floor(np.asarray(t) * 12 + 1e-9) / 12
    return doses[np.searchsorted(ends, sample + 1e-9, side="right")]


def _squared_sines(t: np.ndarray) -> np.ndarray:
    return (2 * (np.sin(t) + np.sin(0.1 * t))) ** 2


def _f8_slow(t: np.ndarray) -> np.ndarray:
    return 0.05 * np.sin(0.7 * t) * np.sin(0.1 * t) * np.sin(0.2 * t) * np.sin(0.05 * t)


def _lotka_volterra() -> System:
    a, b, d, g = 0.5, 0.025, 0.005, 0.5
    return System(
        "lotka_volterra",
        ("x1", "x2"),
        ({"x1": a, "x1*x2": -b}, {"x1*x2": d, "x2": -g, "u": 1.0}),
        degree=3,
        thresholds=(0.5, 0.5),
        dt=0.1,
        training=100.0,
        x0=(60.0, 50.0),
        training_input=lambda t: 5 * schroeder(t, period=20.0, harmonics=8) ** 2,
        validation_input=_squared_sines,
    )


def _lorenz() -> System:
    sigma, rho, beta = 10.0, 28.0, 8.0 / 3.0
    return System(
        "lorenz",
        ("x", "y", "z"),
        ({"y": sigma, "x": -sigma, "u": 1.0}, {"x": rho, "y": -1.0, "x*z": -1.0}, {"x*y": 1.0, "z": -beta}),
        degree=2,
        thresholds=(0.1,) * 3,
        dt=0.001,
        training=10.0,
        x0=(-8.0, 8.0, 27.0),
        training_input=lambda t: 10 * schroeder(t, period=0.5, harmonics=8),
        validation_input=lambda t: (5 * np.sin(30 * t)) ** 3,
    )


def _f8() -> System:
    angle = {
        "x1": -0.877, "x3": 1.0, "x1*x3": -0.088, "x1^2": 0.47, "x2^2": -0.019, "x1^2*x3": -1.0, "x1^3": 3.846,
        "u": -0.215, "x1^2*u": 0.28, "x1*u^2": 0.47, "u^3": 0.63,
    }  # fmt: skip
    rate = {
        "x1": -4.208, "x3": -0.396, "x1^2": -0.47, "x1^3": -3.564,
        "u": -20.967, "x1^2*u": 6.265, "x1*u^2": 46.0, "u^3": 61.4,
    }  # fmt: skip
    return System(
        "f8",
        ("x1", "x2", "x3"),
        (angle, {"x3": 1.0}, rate),
        degree=3,
        thresholds=(1e-4, 1e-2, 1e-2),
        dt=0.01,
        training=100.0,
        x0=(0.3, 0.1, -0.5),
        training_input=lambda t: (0.5 * np.sin(5 * t) * np.sin(0.5 * t) + 0.1) ** 3,
        validation_input=_f8_slow,
    )


def _hiv() -> System:
    growth, d, alpha, a, p1, p2 = 1.0, 0.1, 1.0, 0.2, 1.0, 1.0
    c1, c2, b1, b2, q, eta, h = 0.03, 0.06, 0.1, 0.01, 0.5, 0.9799, 0.1
    return System(
        "hiv",
        ("x1", "x2", "x3", "x4", "x5"),
        (
            {"1": growth, "x1": -d, "x1*x2": -alpha, "x1*x2*u": alpha * eta},
            {"x1*x2": alpha, "x1*x2*u": -alpha * eta, "x2": -a, "x2*x4": -p1, "x2*x5": -p2},
            {"x1*x2*x3": c2, "x2*x3": -c2 * q, "x3": -b2},
            {"x2*x4": c1, "x4": -b1},
            {"x2*x3": c2 * q, "x5": -h},
        ),
        degree=3,
        thresholds=(10.0, 3.1, 3.0, 0.1, 0.5),
        dt=1 / 12,
        training=200.0,
        x0=(10.0, 0.1, 0.1, 1.0, 0.1),
        training_input=medication,
        validation_input=medication,
        held=True,
    )


SYSTEMS: dict[str, System] = {
    system.name: system for system in (_lotka_volterra(), _lorenz(), _f8(), _hiv())
}  # in the paper's order
