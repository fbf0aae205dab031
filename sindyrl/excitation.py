r"""Input signals that make a system tell its equations: multisines, maximum-length binary sequences, random steps.

A good test signal is small where the actuator or the system is fragile and large in every direction that a fit needs.
All signals here are sequences ``(n, n_inputs)``, each row held over one step, within limits, and reach those limits.

* `schroeder_multisine`: power on exactly the frequencies asked for, none elsewhere, and phases that keep it compact.
* `prbs`: two levels and a nearly white spectrum; the largest power that given limits allow.
* `random_steps`: several levels, for systems whose gain depends on the input, with hold times that vary.
* `play`: any sequence as a policy for `sindyrl.collect`, alone or on top of a controller.

`sindyrl.guard.excitation` reports how far the inputs of recorded data moved by themselves.

References: Schroeder, IEEE Transactions on Information Theory 16(1), 1970 (phases); Golomb, Shift Register Sequences,
1967; Pintelon and Schoukens, System Identification: A Frequency Domain Approach, 2012, chapter 5; Rivera et al.,
International Journal of Robust and Nonlinear Control 19, 2009 (interleaved lines for several inputs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Policy, Resettable

__all__ = [
    "PRIMITIVE_TAPS",
    "Playback",
    "crest_factor",
    "play",
    "prbs",
    "random_steps",
    "schroeder_harmonics",
    "schroeder_multisine",
    "schroeder_phases",
]

Levels = float | Sequence[float] | np.ndarray

PRIMITIVE_TAPS: dict[int, tuple[int, ...]] = {
    2: (2, 1),
    3: (3, 2),
    4: (4, 3),
    5: (5, 3),
    6: (6, 5),
    7: (7, 6),
    8: (8, 6, 5, 4),
    9: (9, 5),
    10: (10, 7),
    11: (11, 9),
    12: (12, 11, 10, 4),
    13: (13, 12, 11, 8),
    14: (14, 13, 12, 2),
    15: (15, 14),
    16: (16, 15, 13, 4),
    17: (17, 14),
    18: (18, 11),
    19: (19, 18, 17, 14),
    20: (20, 17),
}
"""Exponents of a primitive polynomial over the field of two elements, by degree; the constant term 1 is understood."""


# ---- multisines


def schroeder_phases(power: np.ndarray) -> np.ndarray:
    r"""Phases that keep a sum of cosines compact, in rad.

    .. math:: \phi_k = -2\pi \sum_{l<k} (k - l)\, p_l, \qquad \sum_l p_l = 1,

    which for equal powers of ``K`` lines is ``-pi k (k - 1) / K``, ``k = 1 ... K``: the instantaneous frequency sweeps
    the lines once per period and dwells on each in proportion to its power.

    power : (n_lines,) relative powers of equidistant lines in order of frequency, not negative, any scale
    """
    p = np.asarray(power, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not np.isfinite(p).all() or (p < 0).any() or p.sum() == 0:
        raise ValueError(f"`schroeder_phases(power=...)` must be numbers of at least 0, not all 0. Got {power!r}.")
    before = np.concatenate([[0.0], np.cumsum(p / p.sum())[:-1]])
    return np.asarray(-2.0 * math.pi * np.cumsum(before))


def schroeder_multisine(
    n: int,
    dt: float,
    *,
    lower: Levels,
    upper: Levels,
    band: tuple[float, float] | None = None,
    frequencies: Sequence[float] | np.ndarray | None = None,
    power: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    r"""Sums of cosines with Schroeder's phases on chosen frequency lines, ``(n, n_inputs)``.

    .. math:: u_k = \bar u + a \sum_l \sqrt{p_l} \cos(2 \pi f_l k\,dt + \phi_l)

    Scaled so that the largest excursion touches a limit; the middle of the limits is the mean. Several inputs share the
    lines out in turn (first, second, first, ...), so that their spectra do not overlap and the inputs are orthogonal
    over the record whatever their phases.

    n : steps    dt : seconds per step
    lower, upper : limits, a number for one input or one for each
    band : (lowest, highest) in Hz; takes every line ``k/(n dt)`` in it, of which each input gets its share
    frequencies : the lines in Hz, increasing, instead of ``band``. Off the grid ``k/(n dt)`` the record is no whole
        number of periods, and orthogonality and the flat spectrum hold only approximately.
    power : relative power of each line, default equal

    Raises ValueError unless the lines lie above 0 and below the Nyquist frequency ``1/(2 dt)``, at least one per input.
    """
    low, high = _limits("schroeder_multisine", lower, upper)
    n = check_number("schroeder_multisine(n=...)", n, "a whole number of at least 2", whole(2))
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"`schroeder_multisine(dt=...)` must be a positive number of seconds. Got {dt}.")
    lines = _lines(n, dt, band, frequencies)
    if len(lines) < len(low):
        raise ValueError(
            f"`schroeder_multisine(...)` needs a frequency line for each of the {len(low)} inputs. Got {len(lines)}: "
            "widen `band`, or take more steps, which sets the lines closer."
        )
    p = np.ones(len(lines)) if power is None else np.asarray(power, dtype=np.float64)
    if p.shape != lines.shape:
        raise ValueError(
            f"`schroeder_multisine(power=...)` must have one entry per line, {len(lines)}. Got shape {p.shape}."
        )
    t = dt * np.arange(n)
    signals = []
    for i in range(len(low)):
        mine = slice(i, None, len(low))
        phases = schroeder_phases(p[mine])
        waves = np.cos(2.0 * math.pi * lines[mine] * t[:, None] + phases)
        signals.append(waves @ np.sqrt(p[mine]))
    return _scaled(np.stack(signals, axis=1), low, high)


def schroeder_harmonics(t: np.ndarray, *, period: float, harmonics: int, amplitude: float = 1.0) -> np.ndarray:
    r"""The Schroeder-phased harmonic sequence ("SPHS") with which SINDY-MPC excites its systems, shape of ``t``.

    .. math:: u(t) = A \sqrt{2/K} \sum_{k=1}^{K} \cos\left(2 \pi k t / T + \pi k (k + 1) / K\right)

    ``A`` is the root mean square over a period, not the peak. It is the multisine of `schroeder_multisine` on the first
    ``K`` harmonics, run backwards and shifted by ``T/K``: phases ``-pi k (k - 1)/K`` become ``+pi k (k + 1)/K``.

    t : seconds    period : T, in seconds    harmonics : K    amplitude : A, in the unit of the input

    Reference: Kaiser, Kutz, Brunton, Proceedings of the Royal Society A 474, 2018.
    """
    harmonics = check_number("schroeder_harmonics(harmonics=...)", harmonics, "a whole number of at least 1", whole(1))
    if not (math.isfinite(period) and period > 0):
        raise ValueError(f"`schroeder_harmonics(period=...)` must be a positive number of seconds. Got {period}.")
    k = np.arange(1, harmonics + 1)
    waves = np.cos(
        2.0 * math.pi * k * np.asarray(t, dtype=np.float64)[..., None] / period + math.pi * k * (k + 1) / harmonics
    )
    return np.asarray(amplitude * math.sqrt(2.0 / harmonics) * waves.sum(axis=-1))


def crest_factor(u: np.ndarray) -> np.ndarray:
    """Largest excursion from the mean over the root mean square of the excursions, along the first axis.

    1 for a symmetric binary signal, 1.41 for a sine; the smaller, the more power fits between given limits.
    """
    centered = np.asarray(u, dtype=np.float64) - np.mean(u, axis=0)
    return np.asarray(np.abs(centered).max(axis=0) / np.sqrt(np.mean(centered**2, axis=0)))


# ---- sequences of levels


def prbs(
    n: int,
    *,
    lower: Levels,
    upper: Levels,
    hold: int = 1,
    order: int | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    r"""Pseudo-random binary sequences of maximum length, ``(n, n_inputs)``.

    A shift register of ``order`` bits with a primitive feedback polynomial runs through all states but zero, so its
    output repeats after ``N = 2^order - 1`` bits with ``2^(order-1)`` ones, one more than zeros. Written as -1 and +1,

    .. math:: \frac1N \sum_k s_k s_{k+\tau} = 1 \text{ if } \tau \equiv 0 \pmod N, \quad -1/N \text{ otherwise.}

    Several inputs get copies of one sequence, ``1/n_inputs`` of the period apart: uncorrelated but for ``-1/N`` at all
    lags shorter than that share of the period, within which the system's memory should lie.

    n : steps    lower, upper : the two levels, a number for one input or one for each
    hold : steps per bit. The spectrum is flat to about ``1/(3 hold dt)`` Hz and zero at ``1/(hold dt)``.
    order : 2 ... 20; by default the smallest whose period is not shorter than ``n``
    rng : where in its period the sequence starts; default at the register full of ones
    """
    low, high = _limits("prbs", lower, upper)
    n = check_number("prbs(n=...)", n, "a whole number of at least 1", whole(1))
    hold = check_number("prbs(hold=...)", hold, "a whole number of at least 1", whole(1))
    bits = -(-n // hold)
    if order is None:
        order = next((each for each in PRIMITIVE_TAPS if 2**each - 1 >= bits), max(PRIMITIVE_TAPS))
    if order not in PRIMITIVE_TAPS:
        raise ValueError(f"`prbs(order=...)` must be a whole number from 2 to {max(PRIMITIVE_TAPS)}. Got {order!r}.")
    period = 2**order - 1
    if len(low) > period:
        raise ValueError(f"`prbs(order={order})` has a period of {period} bits, too short for {len(low)} inputs.")
    sequence = _shift_register(order)
    start = 0 if rng is None else int(rng.integers(period))
    shifts = start + np.arange(len(low)) * period // len(low)
    chosen = sequence[(np.arange(bits)[:, None] + shifts) % period]
    return np.repeat(np.where(chosen, high, low), hold, axis=0)[:n]


def random_steps(
    n: int,
    *,
    lower: Levels,
    upper: Levels,
    hold: int | tuple[int, int],
    rng: np.random.Generator,
    levels: int | None = None,
) -> np.ndarray:
    """Random levels held for random times, ``(n, n_inputs)``; the inputs are drawn independently of each other.

    The sequence of `sindyrl.random_policy`, which holds all inputs for the same fixed time, is
    ``random_steps(hold=h)``; times that vary spread the power over more frequencies.

    lower, upper : limits, a number for one input or one for each
    hold : steps per level, or (fewest, most), drawn uniformly
    levels : how many evenly spaced values from ``lower`` to ``upper``; None draws from the whole range
    """
    low, high = _limits("random_steps", lower, upper)
    n = check_number("random_steps(n=...)", n, "a whole number of at least 1", whole(1))
    fewest, most = (hold, hold) if not isinstance(hold, tuple) else hold
    fewest = check_number("random_steps(hold=...)", fewest, "a whole number of at least 1", whole(1))
    most = check_number("random_steps(hold=...)", most, f"a whole number of at least {fewest}", whole(fewest))
    if levels is not None:
        levels = check_number("random_steps(levels=...)", levels, "a whole number of at least 2", whole(2))
    columns = []
    for lowest, highest in zip(low, high, strict=True):
        times = rng.integers(fewest, most, size=-(-n // fewest), endpoint=True)
        if levels is None:
            values = rng.uniform(lowest, highest, len(times))
        else:
            values = np.linspace(lowest, highest, levels)[rng.integers(levels, size=len(times))]
        columns.append(np.repeat(values, times)[:n])
    return np.stack(columns, axis=1)


# ---- as a policy


class Playback:
    """A policy that plays a sequence, whatever the state; see `play`."""

    def __init__(self, sequence: np.ndarray, around: Policy | None, restart: bool) -> None:
        self.sequence, self.around, self.restart = sequence, around, restart
        self._next = 0

    def reset(self, rng: np.random.Generator) -> None:
        if self.restart:
            self._next = 0
        if isinstance(self.around, Resettable):
            self.around.reset(rng)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        row = self.sequence[self._next % len(self.sequence)]
        self._next += 1
        return row.copy() if self.around is None else np.asarray(self.around(x), dtype=np.float64) + row


def play(sequence: Any, *, around: Policy | None = None, restart: bool = True) -> Playback:
    """A sequence (n, n_inputs) as a policy: row after row, from the first again after the last.

    around : a controller to whose inputs the sequence is added, so that data recorded under feedback can tell the
        effect of the inputs from that of the states
    restart : every episode starts at the first row; False goes on where the last episode stopped, so that short
        episodes together play the whole sequence
    """
    rows = np.array(sequence, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"`play(sequence=...)` must have shape (n, n_inputs). Got {rows.shape}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"`play(sequence=...)` must be finite. Got {rows[~np.isfinite(rows)][0]}.")
    return Playback(rows, around, restart)


# ---- checks and parts


def _limits(function: str, lower: Levels, upper: Levels) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.atleast_1d(np.asarray(lower, dtype=np.float64)), np.atleast_1d(np.asarray(upper, dtype=np.float64))
    if low.ndim != 1 or low.shape != high.shape or not len(low):
        raise ValueError(
            f"`{function}(lower=..., upper=...)` must be two numbers, or one each per input. "
            f"Got shapes {low.shape} and {high.shape}."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"`{function}(lower=..., upper=...)` must be finite, lower < upper. Got {lower}, {upper}.")
    return low, high


def _lines(
    n: int, dt: float, band: tuple[float, float] | None, frequencies: Sequence[float] | np.ndarray | None
) -> np.ndarray:
    if (band is None) == (frequencies is None):
        raise ValueError("`schroeder_multisine(...)` must be given either `band` or `frequencies`.")
    nyquist = 0.5 / dt
    if band is not None:
        lowest, highest = band
        if not 0 <= lowest < highest:
            raise ValueError(f"`schroeder_multisine(band=...)` must be (lowest, highest), in Hz. Got {band}.")
        k = np.arange(1, -(-n // 2))  # the Nyquist line has no free phase
        slack = 1e-9 / (n * dt)  # the limits of the band are themselves rounded
        lines = k / (n * dt)
        return np.asarray(lines[(lines >= lowest - slack) & (lines <= highest + slack)])
    lines = np.asarray(frequencies, dtype=np.float64)
    if lines.ndim != 1 or not (np.diff(lines) > 0).all() or not ((lines > 0) & (lines < nyquist)).all():
        raise ValueError(
            "`schroeder_multisine(frequencies=...)` must increase, above 0 and below the Nyquist frequency "
            f"{nyquist:.6g} Hz. Got {frequencies!r}."
        )
    return lines


def _scaled(signal: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Columns stretched about the middle of their limits until they touch one, and not by rounding passed it."""
    half = (high - low) / 2.0
    return np.clip((low + high) / 2.0 + half * signal / np.abs(signal).max(axis=0), low, high)


def _shift_register(order: int) -> np.ndarray:
    """One period of the maximum-length sequence, (2^order - 1,) of bool, beginning with ``order`` ones.

    ``s_k = s_{k-a} ^ s_{k-b} ^ ...`` over the taps. Squaring the polynomial doubles every tap (the field has two
    elements), so that each round extends the sequence by as many bits as the shortest tap allows, without a loop over
    bits.
    """
    period = 2**order - 1
    s = np.ones(order, dtype=bool)
    taps = np.array([order - tap for tap in PRIMITIVE_TAPS[order][1:]] + [order])
    while len(s) < period:
        lags = taps * 2 ** int(math.log2(len(s) // order))
        more = int(lags.min())
        new = np.zeros(more, dtype=bool)
        for lag in lags:
            new ^= s[len(s) - lag : len(s) - lag + more]
        s = np.concatenate([s, new])
    return s[:period]
