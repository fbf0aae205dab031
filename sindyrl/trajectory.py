"""Measured trajectories and sets of them: the data every fit starts from.

A :class:`Trajectory` has one state row more than input rows, because ``u[k]`` is held constant
from ``t[k]`` to ``t[k + 1]`` and carries ``x[k]`` to ``x[k + 1]``.  A :class:`Dataset` is a tuple
of trajectories over the same names.  Both are immutable, and both refuse data that no fit could use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sindyrl.trajectory_file import (
    FORMAT,
    SCHEMA,
    DatasetFileError,
    episodes,
    numbers,
    parse_column,
    read_csv,
    read_npz,
    write_whole,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["Dataset", "DatasetFileError", "Pairs", "Trajectory"]

_UNIFORM_RTOL = 1e-6  # steps that differ by more than this share are not "the same dt"


class Pairs(NamedTuple):
    """Transitions of a dataset, stacked over its trajectories.

    x : (n_pairs, n_states)   u : (n_pairs, n_inputs)   x_next : (n_pairs, n_states)   r : (n_pairs,) or None
    """

    x: np.ndarray
    u: np.ndarray
    x_next: np.ndarray
    r: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One uninterrupted recording, in the order ``(t, x, u)``.

    t : (steps + 1,)             seconds, strictly increasing
    x : (steps + 1, n_states)    measured states
    u : (steps, n_inputs)        inputs, held constant over each step; None means no inputs
    r : (steps,)                 rewards ``r[k] = R(x[k + 1], u[k])``; None means not recorded
    states, inputs : names of the columns of ``x`` and ``u``

    Raises ValueError if a shape does not fit, a name is doubled, time does not increase, there is
    no step, or an entry is NaN or infinite (named by row and column).
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray = None  # type: ignore[assignment]  # None is resolved to a (steps, 0) array
    r: np.ndarray | None = None
    states: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        states, inputs = _names("states", self.states), _names("inputs", self.inputs)
        _distinct(states + inputs)
        t = _array("t", self.t, 1)
        x = _array("x", self.x, 2)
        _check_columns("x", x, "states", states)
        steps = len(x) - 1
        if steps < 1:
            raise ValueError(f"`Trajectory(x=...)` must have at least 2 rows, that is one step. Got {len(x)}.")
        if len(t) != steps + 1:
            raise ValueError(f"`Trajectory(t=...)` must have {steps + 1} entries, one per row of `x`. Got {len(t)}.")
        u = np.zeros((steps, 0)) if self.u is None else _array("u", self.u, 2)
        _check_columns("u", u, "inputs", inputs)
        if len(u) != steps:
            raise ValueError(
                f"`Trajectory(u=...)` must have {steps} rows, one fewer than `x`, because each input is held over "
                f"the step that follows it. Got {len(u)}."
            )
        r = None if self.r is None else _array("r", self.r, 1)
        if r is not None and len(r) != steps:
            raise ValueError(f"`Trajectory(r=...)` must have {steps} entries, one per row of `u`. Got {len(r)}.")
        _check_finite("t", t[:, None], ("t",))
        _check_finite("x", x, states)
        _check_finite("u", u, inputs)
        if r is not None:
            _check_finite("r", r[:, None], ("r",))
        if not (np.diff(t) > 0).all():
            row = int(np.argmin(np.diff(t) > 0)) + 1
            raise ValueError(
                f"`Trajectory(t=...)` must increase from row to row. Row {row} has t = {t[row]!s} after {t[row - 1]!s}."
            )
        for field, value in (("t", t), ("x", x), ("u", u), ("r", r), ("states", states), ("inputs", inputs)):
            object.__setattr__(self, field, value)

    @classmethod
    def uniform(
        cls,
        x: Any,
        u: Any = None,
        r: Any = None,
        *,
        dt: float,
        start: float = 0.0,
        states: Sequence[str],
        inputs: Sequence[str] = (),
    ) -> Trajectory:
        """Trajectory sampled every ``dt`` seconds from time ``start``."""
        if not (np.isfinite(dt) and dt > 0):
            raise ValueError(f"`Trajectory.uniform(dt=...)` must be a positive number of seconds. Got {dt!r}.")
        t = start + dt * np.arange(len(x))
        return cls(t, x, u, r, states=tuple(states), inputs=tuple(inputs))

    def __len__(self) -> int:
        """Number of steps, one fewer than the number of state rows."""
        return len(self.x) - 1

    @property
    def dt(self) -> float:
        """The common time step in seconds.

        Raises ValueError if the samples are not evenly spaced (to one part in 10^6).
        """
        dt = float(self.t[-1] - self.t[0]) / len(self)
        steps = np.diff(self.t)
        worst = int(np.argmax(np.abs(steps - dt)))
        # Each time is itself rounded, so a small dt late in a recording may be off by an ulp of t.
        allowed = _UNIFORM_RTOL * dt + 4 * np.spacing(np.abs(self.t).max())
        if abs(steps[worst] - dt) > allowed:
            raise ValueError(
                f"`Trajectory.dt` needs evenly spaced samples. The mean step is {dt:.6g} s, but the step from row "
                f"{worst} to {worst + 1} is {steps[worst]:.6g} s. Resample the data, or use `t` itself."
            )
        return dt

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectory):
            return NotImplemented
        same_reward = (self.r is None) == (other.r is None) and (
            self.r is None or other.r is None or np.array_equal(self.r, other.r)
        )
        return (
            (self.states, self.inputs) == (other.states, other.inputs)
            and np.array_equal(self.t, other.t)
            and np.array_equal(self.x, other.x)
            and np.array_equal(self.u, other.u)
            and same_reward
        )

    def __hash__(self) -> int:
        return hash((self.states, self.inputs, self.x.tobytes(), self.u.tobytes()))

    def column(self, name: str) -> np.ndarray:
        """The column called ``name``: a state, (steps + 1,), or an input, (steps,)."""
        if name in self.states:
            return self.x[:, self.states.index(name)]
        if name in self.inputs:
            return self.u[:, self.inputs.index(name)]
        raise ValueError(_unknown(name, self.states + self.inputs))


@dataclass(frozen=True)
class Dataset:
    """Trajectories over the same states and inputs; immutable, `append` returns a new one.

    Raises ValueError if there is none, or if names or the presence of rewards differ.
    """

    trajectories: tuple[Trajectory, ...]

    def __post_init__(self) -> None:
        given = self.trajectories
        trajectories = (given,) if isinstance(given, Trajectory) else tuple(given)
        if not trajectories:
            raise ValueError("`Dataset(trajectories=...)` must hold at least one trajectory. Got none.")
        for index, trajectory in enumerate(trajectories):
            if not isinstance(trajectory, Trajectory):
                raise TypeError(
                    f"`Dataset(trajectories=...)` must hold Trajectory objects. Entry {index} is a "
                    f"{type(trajectory).__name__}."
                )
            _check_same_columns(index, trajectory, trajectories[0])
        object.__setattr__(self, "trajectories", trajectories)

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return self.trajectories[0].states

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.trajectories[0].inputs

    @property
    def steps(self) -> int:
        """Number of recorded steps over all trajectories."""
        return sum(len(trajectory) for trajectory in self.trajectories)

    @property
    def dt(self) -> float:
        """The time step common to all trajectories, in seconds; ValueError if they differ."""
        steps = [trajectory.dt for trajectory in self.trajectories]
        if max(steps) - min(steps) > _UNIFORM_RTOL * max(steps):
            raise ValueError(
                f"`Dataset.dt` needs one common time step. They are {min(steps):.6g} to {max(steps):.6g} s."
            )
        return steps[0]

    @property
    def has_rewards(self) -> bool:
        """Whether rewards were recorded."""
        return self.trajectories[0].r is not None

    def __len__(self) -> int:
        """Number of trajectories."""
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self.trajectories)

    def __getitem__(self, index: int) -> Trajectory:
        return self.trajectories[index]

    def append(self, other: Trajectory | Dataset) -> Dataset:
        """A new dataset with the trajectory, or all trajectories of the dataset, at its end."""
        more = (other,) if isinstance(other, Trajectory) else other.trajectories
        return Dataset(self.trajectories + more)

    def pairs(self) -> Pairs:
        """All transitions ``(x_k, u_k) -> x_{k+1}``, stacked in the order of the trajectories."""
        parts = self.trajectories
        rewards = np.concatenate([part.r for part in parts if part.r is not None]) if self.has_rewards else None
        return Pairs(
            np.concatenate([part.x[:-1] for part in parts]),
            np.concatenate([part.u for part in parts]),
            np.concatenate([part.x[1:] for part in parts]),
            rewards,
        )

    def episode_of_pairs(self) -> np.ndarray:
        """Index of the trajectory each transition of `pairs` comes from, (n_pairs,)."""
        return np.repeat(np.arange(len(self)), [len(part) for part in self.trajectories])

    def exclude(self, predicate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Mask over `pairs`, True for those to KEEP, False where ``predicate(x, u, x_next)`` is true.

        The predicate receives the stacked arrays and returns one boolean for each pair, for instance
        ``lambda x, u, x_next: np.abs(x_next[:, 0]) > 1.75`` for contact with a stop.
        """
        pairs = self.pairs()
        unwanted = np.asarray(predicate(pairs.x, pairs.u, pairs.x_next))
        if unwanted.shape != (self.steps,) or unwanted.dtype != np.bool_:
            raise ValueError(
                f"`Dataset.exclude(predicate=...)` must return {self.steps} booleans, one for each pair. "
                f"Got shape {unwanted.shape} of {unwanted.dtype}."
            )
        return ~unwanted

    # ---- files ------------------------------------------------------------------------------

    def to_npz(self, path: str | Path) -> None:
        """Write a compressed npz file without pickle; the file appears whole or not at all."""
        lengths = np.array([len(part) for part in self.trajectories], dtype=np.int64)
        arrays: dict[str, np.ndarray] = {
            "format": np.array(FORMAT),
            "schema": np.array(SCHEMA),
            "states": np.array(self.states, dtype=np.str_),
            "inputs": np.array(self.inputs, dtype=np.str_),
            "steps": lengths,
            "t": np.concatenate([part.t for part in self.trajectories]),
            "x": np.concatenate([part.x for part in self.trajectories]),
            "u": np.concatenate([part.u for part in self.trajectories]),
        }
        if self.has_rewards:
            arrays["r"] = np.concatenate([part.r for part in self.trajectories if part.r is not None])
        write_whole(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def from_npz(cls, path: str | Path) -> Dataset:
        """Read what `to_npz` wrote.  Never unpickles.  Raises DatasetFileError."""
        arrays = read_npz(path)
        lengths = arrays["steps"].astype(int)
        expected = {"t": lengths.sum() + len(lengths), "u": lengths.sum()}
        expected |= {"x": expected["t"]} | ({"r": expected["u"]} if "r" in arrays else {})
        for name, rows in expected.items():
            if arrays[name].ndim == 0 or len(arrays[name]) != rows:
                raise DatasetFileError(f"{path}: array '{name}' must have {rows} rows. Got {arrays[name].shape}.")
        row_cuts, step_cuts = np.cumsum(lengths + 1)[:-1], np.cumsum(lengths)[:-1]
        t, x = np.split(arrays["t"], row_cuts), np.split(arrays["x"], row_cuts)
        u = np.split(arrays["u"], step_cuts)
        r = np.split(arrays["r"], step_cuts) if "r" in arrays else [None] * len(lengths)
        states, inputs = (tuple(str(name) for name in arrays[key]) for key in ("states", "inputs"))
        parts = zip(t, x, u, r, strict=True)
        return cls(tuple(Trajectory(*part, states=states, inputs=inputs) for part in parts))

    def to_csv(self, path: str | Path) -> None:
        """Write columns ``episode, t, <states>, <inputs>[, r]``, numbers in shortest round-trip form.

        The last row of an episode has a state but no input and no reward; those cells are empty.
        """
        header = ["episode", "t", *self.states, *self.inputs] + (["r"] if self.has_rewards else [])
        lines = [",".join(header)]
        for episode, part in enumerate(self.trajectories):
            for k in range(len(part) + 1):
                held: list[float] = [] if k == len(part) else [*part.u[k]]
                if part.r is not None and k < len(part):
                    held.append(part.r[k])
                cells = [repr(float(value)) for value in (part.t[k], *part.x[k], *held)]
                cells += [""] * (len(header) - 1 - len(cells))
                lines.append(",".join([str(episode), *cells]))
        text = "\n".join(lines) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        states: Sequence[str],
        inputs: Sequence[str] = (),
        time: str | None = None,
        dt: float | None = None,
        reward: str | None = None,
        episode: str | None = None,
    ) -> Dataset:
        """Read named columns of a CSV file with a header line.

        Give either ``time``, the name of the time column, or ``dt`` in seconds.  ``episode`` names the
        column whose change starts a new trajectory.  The last row of each trajectory supplies
        only its state: its input and reward may be empty and are not used.  Raises DatasetFileError
        naming the line for malformed text, ValueError for a column that is not in the header.
        """
        header, rows = read_csv(path)
        return cls.from_columns(
            {name: parse_column(path, rows, index, name) for index, name in enumerate(header)},
            states=states,
            inputs=inputs,
            time=time,
            dt=dt,
            reward=reward,
            episode=episode,
        )

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        states: Sequence[str],
        inputs: Sequence[str] = (),
        time: str | None = None,
        dt: float | None = None,
        reward: str | None = None,
        episode: str | None = None,
    ) -> Dataset:
        """Dataset from equally long columns by name; same rules as `from_csv`."""
        if (time is None) == (dt is None):
            raise ValueError(f"Give exactly one of `time=` and `dt=`. Got time={time!r}, dt={dt!r}.")
        states, inputs = _names("states", states), _names("inputs", inputs)
        for name in (*states, *inputs, time, reward, episode):
            if name is not None and name not in columns:
                raise ValueError(_unknown(name, tuple(columns)))
        n_rows = len(columns[states[0]])
        x, u = (np.column_stack([numbers(columns, name) for name in names] or [np.zeros((n_rows, 0))])
                for names in (states, inputs))  # fmt: skip
        parts = []
        for rows in episodes(columns[episode] if episode is not None else np.zeros(n_rows)):
            t = numbers(columns, time)[rows] if time is not None else (dt or 0.0) * np.arange(len(x[rows]))
            r = None if reward is None else numbers(columns, reward)[rows][:-1]
            try:
                parts.append(Trajectory(t, x[rows], u[rows][:-1], r, states=states, inputs=inputs))
            except ValueError as error:
                raise ValueError(
                    f"Data rows {rows.start} to {rows.stop - 1}, trajectory {len(parts)}: {error}"
                ) from None
        return cls(tuple(parts))

    @classmethod
    def from_pandas(cls, frame: pandas.DataFrame, **names: Any) -> Dataset:
        """Dataset from a data frame; keyword arguments as in `from_csv`."""
        return cls.from_columns({str(name): frame[name].to_numpy() for name in frame.columns}, **names)

    def to_pandas(self) -> pandas.DataFrame:
        """Data frame with the columns of `to_csv`; the input and reward of each last row are NaN."""
        import pandas

        frames = []
        for episode, part in enumerate(self.trajectories):
            columns: dict[str, Any] = {"episode": np.full(len(part.t), episode), "t": part.t}
            columns |= dict(zip(part.states, part.x.T, strict=True))
            columns |= {name: np.append(values, np.nan) for name, values in zip(part.inputs, part.u.T, strict=True)}
            if part.r is not None:
                columns["r"] = np.append(part.r, np.nan)
            frames.append(pandas.DataFrame(columns))
        return pandas.concat(frames, ignore_index=True)


# ---- checks ---------------------------------------------------------------------------------


def _names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}=` must be a sequence of names. Got the single text {names!r}.")
    result = tuple(names)
    for name in result:
        if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
            raise ValueError(f"`{argument}=` must hold names such as 'x' or 'cart_speed'. Got {name!r}.")
    if argument == "states" and not result:
        raise ValueError("`states=` must name at least one state. Got none.")
    return result


def _distinct(names: tuple[str, ...]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"Names of states and inputs must differ from each other. Given twice: {', '.join(doubled)}.")


def _unknown(name: str, available: Sequence[str]) -> str:
    return f"There is no column {name!r}. Available: {', '.join(available) or 'none'}."


def _array(argument: str, values: Any, ndim: int) -> np.ndarray:
    """Read-only float64 copy with ``ndim`` axes."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`Trajectory({argument}=...)` must be an array of real numbers. {error}") from None
    if array.ndim != ndim:
        wanted = {1: "one axis (time)", 2: "two axes (time, column)"}[ndim]
        raise ValueError(f"`Trajectory({argument}=...)` must have {wanted}. Got shape {array.shape}.")
    array.setflags(write=False)
    return array


def _check_columns(argument: str, array: np.ndarray, names_argument: str, names: tuple[str, ...]) -> None:
    if array.shape[1] != len(names):
        raise ValueError(
            f"`Trajectory({argument}=...)` must have {len(names)} columns, one for each of "
            f"`{names_argument}={names}`. Got shape {array.shape}."
        )


def _check_finite(argument: str, array: np.ndarray, names: Sequence[str]) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        more = f" and {len(bad) - 1} more entries" if len(bad) > 1 else ""
        raise ValueError(
            f"`Trajectory({argument}=...)` must be finite. Row {row}, column {names[column]!r} is "
            f"{array[row, column]}{more}. Drop or repair these rows; a gap starts a new trajectory."
        )


def _check_same_columns(index: int, trajectory: Trajectory, first: Trajectory) -> None:
    for field in ("states", "inputs"):
        if getattr(trajectory, field) != getattr(first, field):
            raise ValueError(
                f"All trajectories must have the same {field}. Trajectory {index} has "
                f"{getattr(trajectory, field)}, the first has {getattr(first, field)}."
            )
    if (trajectory.r is None) != (first.r is None):
        raise ValueError(f"Either all trajectories have rewards or none. Trajectory {index} differs from the first.")
