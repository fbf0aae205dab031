"""Parts of recordings: a run of steps, and the runs that remain when some transitions are left out."""

from __future__ import annotations

import itertools

import numpy as np

from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["part", "remaining"]


def part(trajectory: Trajectory, start: int, stop: int) -> Trajectory:
    """Steps ``start`` to ``stop - 1`` of a trajectory, with the state after the last of them."""
    rows, steps = slice(start, stop + 1), slice(start, stop)
    r = None if trajectory.r is None else trajectory.r[steps]
    return Trajectory(
        trajectory.t[rows],
        trajectory.x[rows],
        trajectory.u[steps],
        r,
        states=trajectory.states,
        inputs=trajectory.inputs,
    )


def remaining(data: Dataset, keep: np.ndarray, least: int, most: int) -> list[Trajectory]:
    """The uninterrupted runs of transitions with ``keep`` (n_pairs,), each of ``least`` to about ``most`` steps.

    A longer run is cut into equal parts; a shorter one is left out.
    """
    found = []
    begun = 0
    for trajectory in data:
        kept = np.concatenate([[False], keep[begun : begun + len(trajectory)], [False]])
        begun += len(trajectory)
        edges = np.flatnonzero(np.diff(kept.astype(int)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if stop - start < least:
                continue
            cuts = np.linspace(start, stop, -(-(stop - start) // most) + 1).round().astype(int).tolist()
            found += [part(trajectory, low, high) for low, high in itertools.pairwise(cuts)]
    return found
