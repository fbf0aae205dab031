r"""How good a model is on data that it was not fitted to, in the figures that system identification expects.

One step and several steps against persistence ("nothing changes"), roll-outs with the recorded inputs and their NRMSE
fit, whiteness of the residuals, and a search for dead time between inputs and states. A roll-out that diverges is an
outcome, not an error.

References: Ljung, System Identification, 1999, chapter 16 (fit, residual tests); Ljung and Box, Biometrika 65(2), 1978.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.pieces import part
from sindyrl.protocols import Outcome
from sindyrl.regression.intervals import PredictionIntervals
from sindyrl.simulate import simulate
from sindyrl.structure import Structure
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

__all__ = [
    "Coverage",
    "DeadTime",
    "HorizonErrors",
    "RollOut",
    "Whiteness",
    "blocks",
    "coverage",
    "dead_times",
    "hold_out",
    "horizon_errors",
    "nrmse_fit",
    "part",
    "rollouts",
    "whiteness",
]

_WIDER = 10.0  # widths of the box of the data on either side of it, beyond which a roll-out has diverged
_MAX_STARTS = 300  # roll-outs of a horizon error
_MAX_ROWS = 20_000  # of a dead-time search
_LEAST_JUDGED = 40  # rows of a coverage: half of them calibrate
_FLOOR = 1e-18  # of the target's energy: below this, residuals are rounding


# ---- parts of a dataset


def hold_out(data: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(to fit, to judge): of three or more trajectories the last ones, otherwise the last part of each.

    share : of the trajectories or steps to hold out, in (0, 1); at least one of them
    Raises ValueError if too little is left on either side.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"`hold_out(share=...)` must be between 0 and 1. Got {share}.")
    if len(data) >= 3:
        kept = len(data) - max(1, round(share * len(data)))
        return Dataset(data.trajectories[: max(kept, 1)]), Dataset(data.trajectories[max(kept, 1) :])
    fitted, judged = [], []
    for trajectory in data:
        cut = len(trajectory) - max(1, round(share * len(trajectory)))
        if cut < 1:
            raise ValueError(f"`hold_out(data=...)` needs trajectories of at least 2 steps. Got {len(trajectory)}.")
        fitted.append(part(trajectory, 0, cut))
        judged.append(part(trajectory, cut, len(trajectory)))
    return Dataset(tuple(fitted)), Dataset(tuple(judged))


def blocks(data: Dataset, folds: int) -> list[Dataset]:
    """The data in ``folds`` contiguous parts of about the same number of steps, trajectories cut where they must be."""
    if not 2 <= folds <= data.steps:
        raise ValueError(f"`blocks(folds=...)` must be between 2 and the {data.steps} steps. Got {folds}.")
    edges = np.linspace(0, data.steps, folds + 1).round().astype(int)
    found: list[list[Trajectory]] = [[] for _ in range(folds)]
    begun = 0
    for trajectory in data:
        for fold, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
            start, stop = max(low - begun, 0), min(high - begun, len(trajectory))
            if stop > start:
                found[fold].append(part(trajectory, int(start), int(stop)))
        begun += len(trajectory)
    return [Dataset(tuple(trajectories)) for trajectories in found]


# ---- prediction


def nrmse_fit(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """``100 (1 - |measured - predicted| / |measured - mean|)`` in percent by column, (row, column) -> (column,).

    100 is perfect, 0 is as good as the mean, below 0 is worse; NaN for a column that does not vary.
    """
    measured, predicted = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if measured.ndim != 2 or measured.shape != predicted.shape:
        raise ValueError(
            f"`nrmse_fit(...)` must have two arrays (row, column). Got {measured.shape}, {predicted.shape}."
        )
    size = np.linalg.norm(measured - measured.mean(axis=0), axis=0)
    error = np.linalg.norm(measured - predicted, axis=0)
    varies = size > 1e-12 * np.abs(measured).max(axis=0, initial=0.0) * np.sqrt(len(measured))
    return np.where(varies, 100.0 * (1.0 - error / np.where(varies, size, 1.0)), np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class RollOut:
    """A simulation from the first measured state under the recorded inputs, beside the measurement.

    t : (steps + 1,)   measured, predicted : (steps + 1, n_states); after it diverged the prediction stays where it was
    valid : steps before it diverged   fit : (n_states,) NRMSE fit in percent over all rows
    """

    t: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    valid: int
    outcome: Outcome
    fit: np.ndarray

    @property
    def diverged(self) -> bool:
        return self.outcome is not Outcome.solved


def rollouts(model: Model, data: Dataset) -> list[RollOut]:
    """One roll-out for each trajectory; it has diverged ten widths outside of the box of the fitted data."""
    bounded = _bounded(model)
    found = []
    for trajectory in data:
        path = simulate(bounded, trajectory.x[0], trajectory.u)
        fit = nrmse_fit(trajectory.x, path.x)
        found.append(RollOut(trajectory.t, trajectory.x, path.x, int(path.valid), path.outcome, fit))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class HorizonErrors:
    """Prediction errors after several numbers of steps, from many measured states.

    horizons : (h,) steps
    model, persistence : (h, n_states) root-mean-square errors; persistence predicts no change
    diverged : (h,) share of the predictions that had diverged by then (they count with the state they stopped at)
    """

    horizons: tuple[int, ...]
    model: np.ndarray
    persistence: np.ndarray
    diverged: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Model over persistence, (h, n_states): below 1 the model is worth having; NaN where nothing moves."""
        moves = self.persistence > 0
        return np.where(moves, self.model / np.where(moves, self.persistence, 1.0), np.nan)


def horizon_errors(model: Model, data: Dataset, horizons: Sequence[int] = (1, 5, 20, 50)) -> HorizonErrors:
    """Errors after each of ``horizons`` steps; those longer than the longest trajectory are left out.

    Predictions start at up to 300 rows, evenly spread. Noise in the state that they start from counts as error.
    """
    longest = max(map(len, data))
    horizons = tuple(sorted({int(h) for h in horizons if 1 <= h <= longest}))
    if not horizons:
        raise ValueError(f"`horizon_errors(horizons=...)` must name one of 1 to {longest} steps.")
    bounded = _bounded(model)
    errors, still, lost = [], [], []
    for h in horizons:
        x0, u, after = _windows(data, h)
        path = simulate(bounded, x0, u)
        errors.append(np.sqrt(np.mean((path.x[:, -1] - after) ** 2, axis=0)))
        still.append(np.sqrt(np.mean((x0 - after) ** 2, axis=0)))
        lost.append(float(np.mean(path.valid < h)))
    return HorizonErrors(horizons, np.array(errors), np.array(still), np.array(lost))


def _windows(data: Dataset, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States to start from (start, state), inputs (start, steps, input) and states reached (start, state)."""
    starts = [(trajectory, k) for trajectory in data for k in range(len(trajectory) - steps + 1)]
    every = -(-len(starts) // _MAX_STARTS)
    chosen = starts[::every]
    return (
        np.array([trajectory.x[k] for trajectory, k in chosen]),
        np.array([trajectory.u[k : k + steps] for trajectory, k in chosen]),
        np.array([trajectory.x[k + steps] for trajectory, k in chosen]),
    )


def _bounded(model: Model) -> Model:
    """The model with finite ranges, so that a roll-out ends before its numbers overflow."""
    width = np.maximum(model.seen[:, 1] - model.seen[:, 0], 1e-3 * np.abs(model.seen).max(axis=1) + 1e-12)
    low, high = model.seen[:, 0] - _WIDER * width, model.seen[:, 1] + _WIDER * width
    states = tuple(
        Signal(s.name, s.unit, max(s.lower, float(a)), min(s.upper, float(b)))
        for s, a, b in zip(model.states, low, high, strict=True)
    )
    return dataclasses.replace(model, states=states)


# ---- residuals


@dataclasses.dataclass(frozen=True, eq=False)
class Whiteness:
    """Autocorrelation of the residuals of each target, and the Ljung-Box test of whether there is any.

    correlation : (lags + 1, target), 1 at lag 0   bound : 95 % of white residuals stay within ± this at each lag
    statistic, p_value : (target,)   white : (target,) p-value of at least 0.01
    """

    correlation: np.ndarray
    bound: float
    statistic: np.ndarray
    p_value: np.ndarray

    @property
    def white(self) -> np.ndarray:
        return self.p_value >= 0.01

    def words(self, target: int) -> str:
        """What the residuals of one target say."""
        if self.white[target]:
            return "white"
        first = float(self.correlation[1, target])
        if first < -0.3:
            return f"alternating (lag-one correlation {first:.2f}): measurement noise, differentiated"
        if first > self.bound:
            return f"correlated (lag one {first:.2f}): a term, an input or a dead time may be missing"
        return "not white at longer lags"


def whiteness(residual: np.ndarray, episodes: np.ndarray | None = None, lags: int = 20) -> Whiteness:
    """Test the residuals (row, target) of consecutive steps; ``episodes`` (row,) labels uninterrupted recordings.

    ``Q = n (n + 2) sum_k rho_k^2 / (n - k)``, chi-squared with ``lags`` degrees of freedom for white residuals.
    Raises ValueError if there are not more rows than lags.
    """
    from scipy.stats import chi2

    residual = np.asarray(residual, dtype=np.float64)
    n = len(residual)
    if residual.ndim != 2 or n <= lags + 1:
        raise ValueError(
            f"`whiteness(residual=...)` must be (row, target), over {lags + 1} rows. Got {residual.shape}."
        )
    episodes = np.zeros(n) if episodes is None else np.asarray(episodes)
    centered = residual - residual.mean(axis=0)
    energy = np.sum(centered**2, axis=0)
    energy = np.where(energy > 0, energy, 1.0)
    correlation, statistic = np.ones((lags + 1, residual.shape[1])), np.zeros(residual.shape[1])
    for k in range(1, lags + 1):
        same = (episodes[k:] == episodes[:-k])[:, None]
        correlation[k] = np.sum(centered[k:] * centered[:-k] * same, axis=0) / energy
        statistic += correlation[k] ** 2 / max(int(same.sum()), 1)
    statistic *= n * (n + 2)
    return Whiteness(correlation, 1.96 / np.sqrt(n), statistic, np.asarray(chi2.sf(statistic, lags)))


# ---- intervals


@dataclasses.dataclass(frozen=True, eq=False)
class Coverage:
    """How many new measurements prediction intervals contained; arrays are (target,).

    level : what was asked for   share : contained, of the later half of the rows, after calibration on the earlier half
    gaussian : contained of the same rows by the intervals for Gaussian noise, which saw none of them
    half_width : of the calibrated intervals, the median over the rows, in the target's unit   rows : judged on
    """

    level: float
    share: np.ndarray
    gaussian: np.ndarray
    half_width: np.ndarray
    rows: int


def coverage(intervals: PredictionIntervals, theta: np.ndarray, y: np.ndarray, level: float = 0.9) -> Coverage | None:
    """Calibrate on the first half of rows that no fit has seen, count on the second; None with fewer than 40 rows.

    theta : (row, feature)   y : (row, target)
    """
    if len(y) < _LEAST_JUDGED:
        return None
    half = len(y) // 2
    shares = []
    for each in (intervals.calibrated(theta[:half], y[:half]), intervals):
        low, high = each(theta[half:], level)
        shares.append(np.mean((y[half:] >= low) & (y[half:] <= high), axis=0))
        if len(shares) == 1:
            width = np.median((high - low) / 2.0, axis=0)
    return Coverage(level, shares[0], shares[1], np.asarray(width), len(y) - half)


# ---- dead time


@dataclasses.dataclass(frozen=True)
class DeadTime:
    """Fit quality of all library terms when one input is taken from ``delay`` steps earlier.

    delays : steps; -1 is the input of the next row   errors : residual RMS over the best, averaged over the targets
    best : the delay that explains the data best, 0 unless another one is clearly better
    """

    name: str
    delays: tuple[int, ...]
    errors: tuple[float, ...]
    best: int

    def problem(self, dt: float) -> str:
        """The warning to print, with the remedy; empty if there is no dead time."""
        if self.best > 0:
            return (
                f"Input {self.name!r} seems to act {self.best} {'step' if self.best == 1 else 'steps'} "
                f"({self.best * dt:.4g} s) late. Shift its column down by that many rows before fitting."
            )
        if self.best < 0:
            return (
                f"Input {self.name!r} seems to be logged one row late: each row's input acts before that row. "
                "Shift its column up by one row before fitting."
            )
        return ""


def dead_times(data: Dataset, library: Library, structure: Structure, max_delay: int = 10) -> list[DeadTime]:
    """Search each input for a delay, with dense least squares on the library's terms; at most 20,000 rows are used.

    A delay other than 0 is reported if it lowers the residual variance of some target by a tenth and the likelihood by
    a factor of e^10. Empty if trajectories are too short for the comparison.
    """
    fitted = _delayed_rows(data, structure, max_delay)
    if fitted is None or len(fitted[1]) < 2 * len(library) + 10:
        return []
    middle, y, inputs = fitted
    used = [data.states.index(name) for name in structure.features_of(data.states)]
    delays = (-1, *range(max_delay + 1))
    energy = np.sum((y - y.mean(axis=0)) ** 2, axis=0) + np.finfo(float).tiny
    found = []
    for j, name in enumerate(data.inputs):
        rss = []
        for delay in delays:
            u = inputs[0].copy()
            u[:, j] = inputs[delay][:, j]
            rss.append(
                np.maximum(_dense_rss(library.features(np.column_stack([middle[:, used], u])), y), _FLOOR * energy)
            )
        found.append(_judged(name, delays, np.array(rss), len(y)))
    return found


def _judged(name: str, delays: tuple[int, ...], rss: np.ndarray, n: int) -> DeadTime:
    """rss : (delay, target)"""
    level = np.log(rss).mean(axis=1)
    best = int(level.argmin())
    zero = delays.index(0)
    likelier = 0.5 * n * (np.log(rss[zero]) - np.log(rss[best])).sum() > 10.0
    clearer = bool((rss[best] < 0.9 * rss[zero]).any())
    errors = tuple(float(value) for value in np.exp(0.5 * (level - level[best])))
    return DeadTime(name, delays, errors, delays[best] if likelier and clearer else 0)


def _delayed_rows(
    data: Dataset, structure: Structure, max_delay: int
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]] | None:
    """Where the library is evaluated, what is regressed, and the inputs by delay, over the rows that have them all."""
    x, after, held, rows = [], [], [], 0
    for trajectory in data:
        steps = np.arange(max_delay, len(trajectory) - 1)[: max(_MAX_ROWS - rows, 0)]
        if len(steps):
            x.append(trajectory.x[steps])
            after.append(trajectory.x[steps + 1])
            held.append({delay: trajectory.u[steps - delay] for delay in (-1, *range(max_delay + 1))})
            rows += len(steps)
    if not rows:
        return None
    inputs = {delay: np.concatenate([each[delay] for each in held]) for delay in held[0]}
    return *structure.samples(data.states, np.concatenate(x), np.concatenate(after), data.dt), inputs


def _dense_rss(theta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Residual sum of squares of least squares on unit columns and a constant, (target,)."""
    length = np.linalg.norm(theta, axis=0)
    scaled = np.column_stack([theta / np.where(length > 0, length, 1.0), np.ones(len(theta)) / np.sqrt(len(theta))])
    return np.sum((y - scaled @ np.linalg.lstsq(scaled, y, rcond=1e-12)[0]) ** 2, axis=0)
