"""What the identification benchmarks share: sizes, the Lorenz data, and timing in alternating runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.  Times are medians over `repeats` alternating runs."""

    seed: int = 0
    rows: int = 10_000
    degree: int = 5
    dt: float = 0.01  # s
    noise: float = 0.01  # of the standard deviation of each state and of each derivative
    threshold: float = 0.1
    alpha: float = 0.05
    members: int = 100
    checked_members: int = 20
    repeats: int = 3
    batch: int = 4096
    steps: int = 100
    roll_out_repeats: int = 15
    single_rows: int = 100_000
    predict_batch: int = 10_000
    predict_calls: int = 200
    simulated: float = 10.0  # s
    tolerance: float = 1e-12
    most_rows: int = 10_000_000
    chunk: int = 10_000  # rows of one `partial_fit`


QUICK = Config(
    rows=2000,
    members=20,
    checked_members=5,
    repeats=1,
    batch=512,
    roll_out_repeats=3,
    single_rows=5000,
    predict_calls=20,
    simulated=1.0,
    most_rows=100_000,
)


def lorenz(config: Config, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States (rows, 3) and derivatives (rows, 3) of the Lorenz system, both with noise."""
    from scipy.integrate import solve_ivp

    def field(_: float, x: np.ndarray) -> list[np.ndarray]:
        return [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]

    t = config.dt * np.arange(config.rows)
    x = solve_ivp(field, (0, t[-1]), [-8.0, 8.0, 27.0], t_eval=t, rtol=1e-9, atol=1e-9, method="DOP853").y
    dx = np.array(field(0.0, x))

    def noisy(clean: np.ndarray) -> np.ndarray:
        return clean.T + config.noise * clean.std(axis=1) * rng.standard_normal(clean.T.shape)

    return noisy(x), noisy(dx)


def alternate(
    ours: Callable[[], Any], peer: Callable[[], Any], repeats: int, *, peer_runs: int | None = None
) -> tuple[list[float], list[float]]:
    """Seconds of each run, one of ours and one of the peer's in turn; the peer may stop earlier."""
    own_seconds, peer_seconds = [], []
    for run in range(repeats):
        own_seconds.append(seconds(ours))
        if peer_runs is None or run < peer_runs:
            peer_seconds.append(seconds(peer))
    return own_seconds, peer_seconds


def seconds(call: Callable[[], Any]) -> float:
    """Processor time of one call: on one thread its duration, and other work on the machine does not lengthen it."""
    begin = time.process_time()
    call()
    return time.process_time() - begin
