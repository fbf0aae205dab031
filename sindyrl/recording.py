"""A CSV file as somebody recorded it, made into trajectories that a fit can use, and what had to be done for it.

Gaps and missing cells cut a recording in parts, repeated rows go, small jitter of the clock is leveled; each of these
is said. What would need a guess (two values at one time, uneven steps) is refused with the remedy.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.trajectory_file import episodes, numbers, parse_column, read_csv

__all__ = ["Recording", "read_recording"]

TIME_NAMES = ("t", "time", "time_s", "time[s]", "timestamp", "seconds", "sec")
_JITTER = 0.1  # share of the step that the clock may be off without resampling
_GAP = 1.5  # steps; a longer one is a gap
_IRREGULAR = 0.05  # share of long steps from which they are no gaps but the way of sampling
_LONG = 10.0  # median steps; a gap even then


@dataclasses.dataclass(frozen=True)
class Recording:
    """data : the trajectories   notes : what was done to the file, sentence by sentence   rows : of the file
    time : name of the time column, or None with a given step"""

    data: Dataset
    notes: tuple[str, ...]
    rows: int
    time: str | None


def read_recording(
    path: str | Path,
    *,
    states: Sequence[str],
    inputs: Sequence[str] = (),
    time: str | None = None,
    dt: float | None = None,
    episode: str | None = None,
    resample: bool = False,
) -> Recording:
    """Read named columns of a CSV file with a header line.

    time : the column with the seconds; without it and without ``dt``, a column called t, time or the like
    episode : the column whose change starts a new recording
    resample : uneven steps are interpolated (states linearly, inputs held) onto an even grid of the median step

    Raises ValueError for columns that are not there, times that go back or come twice with different values, and uneven
    steps without ``resample``; DatasetFileError for text that is no CSV file.
    """
    header, rows = read_csv(path)
    time = _time_column(header, (*states, *inputs), time, dt)
    wanted = [name for name in (*states, *inputs, time, episode) if name is not None]
    for name in wanted:
        if name not in header:
            raise ValueError(f"{path} has no column {name!r}. Its columns: {', '.join(header)}.")
    columns = {name: parse_column(path, rows, header.index(name), name) for name in dict.fromkeys(wanted)}
    table = {name: numbers(columns, name) for name in (*states, *inputs, *([time] if time is not None else []))}
    x = np.column_stack([table[name] for name in states])
    u = np.column_stack([table[name] for name in inputs]) if inputs else np.zeros((len(x), 0))
    notes: list[str] = []
    pieces = []
    for part in episodes(columns[episode] if episode is not None else np.zeros(len(x))):
        t = (dt or 0.0) * np.arange(part.stop - part.start) if time is None else table[time][part]
        pieces += _pieces(_Piece(t, x[part], u[part], np.arange(part.start, part.stop) + 2), notes)
    if not pieces:
        raise ValueError(f"{path} has no two consecutive complete rows of {', '.join((*states, *inputs))}.")
    even, step = _evened(pieces, resample, notes) if time is not None else (pieces, dt or 0.0)
    trajectories = [
        Trajectory.uniform(p.x, p.u[:-1], dt=step, start=float(p.t[0]), states=tuple(states), inputs=tuple(inputs))
        for p in even
    ]
    _whole_numbers(table, states, notes)
    return Recording(Dataset(tuple(trajectories)), tuple(notes), len(rows), time)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """An uninterrupted part: times, states, inputs, and the lines of the file they are from."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    line: np.ndarray

    def rows(self, chosen: np.ndarray | slice) -> _Piece:
        return _Piece(self.t[chosen], self.x[chosen], self.u[chosen], self.line[chosen])


def _time_column(header: Sequence[str], used: Sequence[str], time: str | None, dt: float | None) -> str | None:
    if time is not None and dt is not None:
        raise ValueError(f"Give either a time column or a step, not both. Got time={time!r} and dt={dt!r}.")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"`dt` must be a positive number of seconds. Got {dt!r}.")
    if time is not None or dt is not None:
        return time
    found = [name for name in header if name.lower() in TIME_NAMES and name not in used]
    if len(found) != 1:
        raise ValueError(
            f"Name the time column or give the step in seconds (`--time`, `--dt`). Columns: {', '.join(header)}."
        )
    return found[0]


def _pieces(whole: _Piece, notes: list[str]) -> list[_Piece]:
    """Cut where cells are missing; refuse times that go back; drop rows that come twice."""
    bad_time = ~np.isfinite(whole.t)
    # The last row of a recording has no input that matters.
    complete = np.isfinite(whole.x).all(axis=1) & ~bad_time
    held = np.isfinite(whole.u).all(axis=1)
    held[-1] = True
    missing = int((~complete | ~held).sum())
    if missing:
        notes.append(
            f"{missing} {'row has' if missing == 1 else 'rows have'} missing or infinite cells (first in line "
            f"{int(whole.line[np.argmax(~complete | ~held)])}); the recording is cut there."
        )
    found, start = [], 0
    for stop in range(1, len(whole.t) + 1):
        # Row k - 1 is followed by row k in a piece if both states and the input of k - 1 are there.
        if stop == len(whole.t) or not (complete[stop] and complete[stop - 1] and held[stop - 1]):
            piece = whole.rows(slice(start, stop))
            if len(piece.t) >= 2:
                piece = _increasing(piece, notes)
            if len(piece.t) >= 2:
                piece.u[-1] = np.where(np.isfinite(piece.u[-1]), piece.u[-1], 0.0)
                found.append(piece)
            start = stop
    return found


def _increasing(piece: _Piece, notes: list[str]) -> _Piece:
    steps = np.diff(piece.t)
    if (steps < 0).any():
        k = int(np.argmax(steps < 0))
        raise ValueError(
            f"Time goes back in line {int(piece.line[k + 1])}, from {piece.t[k]:.6g} to {piece.t[k + 1]:.6g} s. If a "
            "new recording starts there, name a column that tells them apart with `--episode`; otherwise sort the rows."
        )
    again = np.concatenate([[False], steps == 0])
    if again.any():
        values = np.column_stack([piece.x, piece.u])
        same = np.concatenate([[False], (np.diff(values, axis=0) == 0).all(axis=1)])
        if (again & ~same).any():
            k = int(np.argmax(again & ~same))
            raise ValueError(
                f"Lines {int(piece.line[k - 1])} and {int(piece.line[k])} have the same time, {piece.t[k]:.6g} s, and "
                "different values. Remove one of them, average them, or tell recordings apart with `--episode`."
            )
        notes.append(f"{int(again.sum())} repeated rows (same time, same values) were dropped.")
        return piece.rows(~again)
    return piece


def _evened(pieces: list[_Piece], resample: bool, notes: list[str]) -> tuple[list[_Piece], float]:
    """Pieces of one common step: cut at gaps, jitter leveled, resampled if asked for."""
    steps = np.concatenate([np.diff(piece.t) for piece in pieces])
    median = float(np.median(steps))
    irregular = float(np.mean(steps > _GAP * median)) > _IRREGULAR
    limit = (_LONG if irregular else _GAP) * median
    gaps = int((steps > limit).sum())
    if gaps:
        notes.append(
            f"{gaps} gap{'' if gaps == 1 else 's'} of up to {steps.max():.4g} s between samples {median:.4g} s apart; "
            "the recording is cut there."
        )
    cut = [
        piece.rows(slice(start, stop))
        for piece in pieces
        for start, stop in _runs(np.diff(piece.t) <= limit)
        if stop - start >= 2
    ]
    if not cut:
        raise ValueError("No two consecutive samples are left between the gaps. Check the time column.")
    steps = np.concatenate([np.diff(piece.t) for piece in cut])
    step = float(steps.mean())
    off = float(np.abs(steps - step).max()) / step
    if off <= 1e-6:
        return cut, step
    if off <= _JITTER:
        notes.append(f"Time steps differ by up to {100 * off:.2g} % of {step:.6g} s; they are taken as equal.")
        return cut, step
    if not resample:
        raise ValueError(
            f"Time steps differ: from {steps.min():.4g} to {steps.max():.4g} s, median {median:.4g} s. "
            "Give `--resample` to interpolate onto an even grid of the median step, or export the data at a fixed rate."
        )
    notes.append(
        f"Uneven steps ({steps.min():.4g} to {steps.max():.4g} s) were interpolated onto a grid of {median:.4g} s."
    )
    even = [_resampled(piece, median) for piece in cut if piece.t[-1] - piece.t[0] >= median]
    return even, median


def _runs(joined: np.ndarray) -> list[tuple[int, int]]:
    """Row ranges of rows that are joined to their successors."""
    edges = [0, *(np.flatnonzero(~joined) + 1).tolist(), len(joined) + 1]
    return list(itertools.pairwise(edges))


def _resampled(piece: _Piece, step: float) -> _Piece:
    grid = piece.t[0] + step * np.arange(int((piece.t[-1] - piece.t[0]) / step * (1 + 1e-12)) + 1)
    x = np.column_stack([np.interp(grid, piece.t, column) for column in piece.x.T])
    rows = np.clip(np.searchsorted(piece.t, grid + 1e-9 * step, side="right") - 1, 0, len(piece.t) - 1)
    return _Piece(grid, x, piece.u[rows], piece.line[rows])


def _whole_numbers(table: Mapping[str, np.ndarray], states: Sequence[str], notes: list[str]) -> None:
    for name in states:
        column = table[name][np.isfinite(table[name])]
        if len(column) and (column == np.round(column)).all() and np.ptp(column) > 0:
            still = float(np.mean(np.diff(column) == 0))
            notes.append(
                f"State {name!r} holds whole numbers only; {100 * still:.0f} % of its steps show no change. If a finer "
                "reading was rounded, rates cannot be told better than that: record more digits, or sample more slowly."
            )
