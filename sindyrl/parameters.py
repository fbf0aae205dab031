r"""Parameters that vary and are measured, but are not commanded: a load, a temperature, an airspeed.

For identification such a parameter is one more input column, ``dx/dt = f(x, u, p)``, and a polynomial library in
``(x, u, p)`` finds how the coefficients depend on it. Two things differ from a command:

* A command is held over a step, a parameter moves on. The column that a step needs is the parameter's mean over it; its
  value at the start of the step leaves an error of first order in ``dt``. `measured_inputs` takes the mean.
* Nobody chooses it. A simulation under feedback needs its course beside the policy's inputs: `beside`. And an equation
  that does without it loses no actuator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sindyrl.protocols import Policy, Resettable
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["WithParameters", "beside", "measured_inputs"]


def measured_inputs(data: Dataset | Trajectory, names: Sequence[str]) -> Dataset:
    """The data with these states turned into inputs, behind the ones there are; each is ``(p_k + p_{k+1})/2``.

    Record or read the parameters as states, which have a value at both ends of every step, and convert them here. The
    same numbers serve a roll-out that repeats the experiment: ``simulate(model, x[0], u)`` on a trajectory of the
    result.

    Raises ValueError for a name that is no state, and if no state would be left.
    """
    if isinstance(names, str):
        raise TypeError(f"`measured_inputs(names=...)` must be a sequence of names. Got the single text {names!r}.")
    parts = (data,) if isinstance(data, Trajectory) else data.trajectories
    states = parts[0].states
    unknown = [name for name in names if name not in states]
    if unknown or len(set(names)) < len(names) or not set(states) - set(names):
        raise ValueError(
            f"`measured_inputs(names=...)` must be some, but not all, of the states {list(states)}. Got {list(names)}."
        )
    moved = [states.index(name) for name in names]
    kept = [index for index in range(len(states)) if index not in moved]
    return Dataset(
        tuple(
            Trajectory(
                part.t,
                part.x[:, kept],
                np.column_stack([part.u, (part.x[:-1, moved] + part.x[1:, moved]) / 2.0]),
                part.r,
                states=tuple(states[index] for index in kept),
                inputs=(*part.inputs, *names),
            )
            for part in parts
        )
    )


class WithParameters:
    """A policy's inputs, and behind them the parameters of the step; see `beside`."""

    def __init__(self, policy: Policy, course: np.ndarray) -> None:
        self.policy, self.course = policy, course
        self._next = 0

    def reset(self, rng: np.random.Generator) -> None:
        self._next = 0
        if isinstance(self.policy, Resettable):
            self.policy.reset(rng)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._next >= len(self.course):
            raise ValueError(
                f"`beside(course=...)` covers {len(self.course)} steps, and one more was asked for. Give a longer "
                "course, or call `reset` before each roll-out."
            )
        p = self.course[self._next]
        self._next += 1
        u = np.asarray(self.policy(x), dtype=np.float64)
        return np.concatenate([u, np.broadcast_to(p, (*u.shape[:-1], len(p)))], axis=-1)


def beside(policy: Policy, course: Any) -> WithParameters:
    """A policy for `sindyrl.simulate` of a model whose last inputs are parameters, which take the given course.

    policy : the commanded inputs from the states (..., n_states)
    course : (steps, n_parameters), the mean over each step; (steps,) for one parameter
    """
    rows = np.array(course, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or 0 in rows.shape or not np.isfinite(rows).all():
        raise ValueError(f"`beside(course=...)` must be finite, of shape (steps, n_parameters). Got {rows.shape}.")
    return WithParameters(policy, rows)
