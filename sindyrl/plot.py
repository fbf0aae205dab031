"""Figures of a run. Each function returns a `matplotlib.figure.Figure`; no global state of pyplot is touched.

Their style, and `to_svg`, which turns a figure into text for a page, are in `sindyrl.plot_style`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sindyrl.model import Model
from sindyrl.plot_style import COLORS as COLORS
from sindyrl.plot_style import GRID as GRID
from sindyrl.plot_style import INK as INK
from sindyrl.plot_style import MUTED as MUTED
from sindyrl.plot_style import axis_label as axis_label
from sindyrl.plot_style import percent as percent
from sindyrl.plot_style import pretty_unit as pretty_unit
from sindyrl.plot_style import styled_figure as styled_figure
from sindyrl.plot_style import thinned as thinned
from sindyrl.plot_style import to_svg as to_svg
from sindyrl.protocols import Policy
from sindyrl.structure import SecondOrder
from sindyrl.symbolic_map import Signal
from sindyrl.task import Task
from sindyrl.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_DOTS = 400  # of a scatter plot in one panel
_MAX_EPISODES = 10  # in one phase portrait


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """What one method returned after how many real steps.

    method : its name
    source : where the numbers are from, "measured here, FILE" or "published, WHERE"; results print it
    steps : real interactions, one per return, or a single number for all of them
    returns : returns after them; empty if none is known, and the steps alone are shown
    note : what else a reader must know to compare, in a few words

    Increasing steps are a learning curve; otherwise each return is a run of its own. Raises ValueError.
    """

    method: str
    source: str
    steps: tuple[float, ...]
    returns: tuple[float, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        steps = tuple(float(value) for value in self.steps)
        returns = tuple(float(value) for value in self.returns)
        if not self.source.startswith(("measured here", "published")):
            raise ValueError(
                f"`MethodResult(source=...)` must begin with 'measured here' or 'published'. Got {self.source!r}."
            )
        if not steps or not all(math.isfinite(value) and value > 0 for value in steps):
            raise ValueError(f"`MethodResult(steps=...)` must be positive numbers, at least one. Got {self.steps}.")
        if not all(map(math.isfinite, returns)):
            raise ValueError(f"`MethodResult(returns=...)` must be finite numbers. Got {self.returns}.")
        if len(steps) == 1:
            steps *= max(len(returns), 1)
        if returns and len(steps) != len(returns):
            raise ValueError(f"`MethodResult(returns=...)` must have {len(steps)} entries. Got {len(returns)}.")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "returns", returns)

    @property
    def is_curve(self) -> bool:
        """Whether the returns are those of one learner along its way."""
        return len(self.returns) > 1 and bool(np.all(np.diff(self.steps) > 0))

    @property
    def published(self) -> bool:
        return self.source.startswith("published")


# ---- figures


def learned_against_true(
    true: np.ndarray, learned: np.ndarray, names: Sequence[str], units: Sequence[str] = ()
) -> Figure:
    """For each target, learned over true values and what is left between them.

    true, learned : (n, n_targets)   names, units : of the targets

    The title states ``rms(learned - true) / rms(true)`` over all rows. Of more than 400 rows at most as many are drawn,
    the 20 largest residuals among them. Raises ValueError if the shapes differ.
    """
    true, learned = np.asarray(true, dtype=np.float64), np.asarray(learned, dtype=np.float64)
    if true.ndim != 2 or true.shape != learned.shape or true.shape[1] != len(names) or len(true) == 0:
        raise ValueError(
            f"`learned_against_true(true, learned, names)` must have shapes (n, {len(names)}). "
            f"Got {true.shape} and {learned.shape}."
        )
    units = tuple(units) or ("",) * len(names)
    errors = relative_rms(true, learned)
    with styled_figure(2.5 * len(names)) as figure:
        grid = figure.subplots(len(names), 2, squeeze=False, width_ratios=(1, 1))
        for (left, right), x, y, name, unit, error in zip(grid, true.T, learned.T, names, units, errors, strict=True):
            rows = _shown_rows(x, np.abs(y - x))
            ends = [x.min(), x.max()]
            left.plot(x[rows], y[rows], ".", color=COLORS[0], markersize=3.2, markeredgewidth=0, alpha=0.7)
            left.plot(ends, ends, color=MUTED, linewidth=0.8, zorder=1)
            left.set_title(f"{name}: relative RMS error {percent(error)}")
            left.set_xlabel(axis_label(f"true {name}", unit))
            left.set_ylabel(axis_label("learned", unit))
            right.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
            right.plot(x[rows], (y - x)[rows], ".", color=COLORS[1], markersize=3.2, markeredgewidth=0, alpha=0.7)
            right.set_title("What is left")
            right.set_xlabel(axis_label(f"true {name}", unit))
            right.set_ylabel(axis_label("learned − true", unit))
        return figure


def relative_rms(true: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """``rms(learned - true) / rms(true)`` by column; over 1 where the truth is zero. (n, m), (n, m) -> (m,)."""
    size = np.sqrt(np.mean(true**2, axis=0))
    error = np.sqrt(np.mean((learned - true) ** 2, axis=0))
    return np.asarray(error / np.where(size > 0, size, 1.0))


def episode(trajectory: Trajectory, task: Task, *, until: float | None = None) -> Figure:
    """States, inputs and reward over time; neighboring states of one unit share a panel.

    until : seconds; what comes later is not shown
    """
    # At least one step, however short the time asked for.
    steps = len(trajectory) if until is None else max(int(np.searchsorted(trajectory.t, until + 1e-9)) - 1, 1)
    t = trajectory.t[: steps + 1]
    groups = _groups(task.states)
    panels = len(groups) + 1 + (trajectory.r is not None)
    rows = (panels + 1) // 2
    with styled_figure(1.75 * rows + 0.3) as figure:
        every = list(figure.subplots(rows, 2, squeeze=False, sharex=True).flat)
        for axes, group in zip(every, groups, strict=False):
            _lines(axes, t, [trajectory.column(signal.name)[: len(t)] for signal in group], group)
        _held(every[len(groups)], t, trajectory.u[: len(t) - 1], task.inputs)
        if trajectory.r is not None:
            _running_reward(every[len(groups) + 1], t, trajectory.r)
        every[0].set_xlim(t[0], t[-1])
        for axes in every[panels:]:
            axes.set_visible(False)
        for axes in every[max(panels - 2, 0) : panels]:
            axes.set_xlabel("time [s]")
            axes.xaxis.set_tick_params(labelbottom=True)
        return figure


def phase_portrait(trajectories: Sequence[Trajectory], task: Task, model: Model, policy: Policy) -> Figure:
    """Real episodes over the closed loop of the learned model under the policy.

    With an angle in a `SecondOrder` structure, angle against angular velocity, the angle unwound so that an episode
    ends within half a turn of 0; else the first two states. The field is taken where all other states are zero.
    Raises ValueError if the task has fewer than two states.
    """
    plane = _plane(task, model)
    with styled_figure(4.6) as figure:
        axes = figure.subplots()
        tracks = [plane.track(trajectory.x) for trajectory in trajectories[:_MAX_EPISODES]]
        limits = _padded_limits(tracks)
        _stream(axes, plane, limits, model, policy)
        for track in tracks:
            axes.plot(*thinned(track).T, color=COLORS[0], alpha=0.75, linewidth=1.1, zorder=3)
        first, last = np.array([track[0] for track in tracks]), np.array([track[-1] for track in tracks])
        axes.plot(*first.T, "o", color=COLORS[1], markersize=6, fillstyle="none", zorder=4, label="start of an episode")
        axes.plot(*last.T, "o", color=COLORS[1], markersize=6, zorder=4, label="its end")
        axes.plot([], [], color=COLORS[0], label="real episode")
        axes.plot([], [], color=MUTED, linewidth=0.8, label="learned model under the policy")
        axes.set(xlim=limits[0], ylim=limits[1], xlabel=plane.labels[0], ylabel=plane.labels[1])
        if plane.is_angle:
            _degree_ticks(axes, limits[0])
        figure.legend(loc="outside upper left", ncols=4, handlelength=1.4, columnspacing=1.4)
        return figure


def return_against_steps(results: Sequence[MethodResult]) -> Figure:
    """Returns over real steps, logarithmic; filled or solid where measured here, hollow or dashed where published.

    Raises ValueError without any result.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not results:
        raise ValueError("`return_against_steps(results)` must have at least one result. Got none.")
    with styled_figure(3.1 + 0.2 * len(results)) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        handles = [_method(axes, result, COLORS[i % len(COLORS)]) for i, result in enumerate(results)]
        steps = [step for result in results for step in result.steps]
        axes.set_xlim(10 ** math.floor(math.log10(min(steps))), 10 ** math.ceil(math.log10(1.5 * max(steps))))
        axes.xaxis.set_major_locator(LogLocator(numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set(xlabel="real steps spent (data and selection)", ylabel="return")
        known = [value for result in results for value in result.returns]
        if known and min(known) >= 0:
            axes.set_ylim(0.0, 1.08 * max(*known, 1e-9))
        labels = [f"{result.method}: {result.source}" for result in results]
        figure.legend(handles, labels, loc="outside lower left", ncols=1, handlelength=1.6)
        return figure


def terms_against_score(path: Sequence[tuple[int, float]], *, dense_score: float | None = None) -> Figure:
    """Score of the policy in the model as terms are removed one by one, from left to right.

    path : (number of terms, score) in the order of removal   dense_score : of the policy before, drawn as a line
    Raises ValueError if the path is empty.
    """
    from matplotlib.ticker import MaxNLocator

    if not path:
        raise ValueError("`terms_against_score(path)` must have at least one entry. Got none.")
    terms, scores = np.array(path, dtype=np.float64).T
    with styled_figure(2.6) as figure:
        axes = figure.subplots()
        axes.plot(terms, scores, "o-", color=COLORS[0], markersize=4)
        if dense_score is not None:
            axes.axhline(dense_score, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.text(terms[0], dense_score, "before removing any", color=MUTED, va="bottom")
        axes.annotate(f"{terms[-1]:.0f} terms", (terms[-1], scores[-1]), (8, -3), textcoords="offset points")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        room = 0.04 * np.ptp(terms) + 0.3
        axes.set_xlim(terms.max() + room, terms.min() - 3 * room)  # room for the label after the last
        axes.set(xlabel="terms left in the policy", ylabel="score in the model")
        axes.margins(y=0.15)
        return figure


# ---- parts of an episode


def _groups(signals: Sequence[Signal]) -> list[list[Signal]]:
    """Neighbors with the same, stated unit together, three at most."""
    groups: list[list[Signal]] = []
    for signal in signals:
        if groups and signal.unit and groups[-1][0].unit == signal.unit and len(groups[-1]) < 3:
            groups[-1].append(signal)
        else:
            groups.append([signal])
    return groups


def _lines(axes: Axes, t: np.ndarray, columns: Sequence[np.ndarray], group: Sequence[Signal]) -> None:
    for column, signal, color in zip(columns, group, COLORS, strict=False):
        axes.plot(*thinned(np.column_stack([t, column])).T, color=color, label=signal.name)
    _name(axes, group)


def _held(axes: Axes, t: np.ndarray, u: np.ndarray, inputs: Sequence[Signal]) -> None:
    for index, column in enumerate(u.T):
        # Held over each step; the last value is repeated so that the last step has its length.
        held = np.column_stack([t, np.append(column, column[-1])])
        axes.plot(*thinned(held).T, color=COLORS[index % len(COLORS)], drawstyle="steps-post", linewidth=0.9)
    _name(axes, inputs)


def _running_reward(axes: Axes, t: np.ndarray, r: np.ndarray) -> None:
    total = np.concatenate([[0.0], np.cumsum(r)])
    axes.plot(*thinned(np.column_stack([t, total[: len(t)]])).T, color=COLORS[2])
    axes.set_title(f"reward so far; return of the episode {total[-1]:.4g}")


def _name(axes: Axes, group: Sequence[Signal]) -> None:
    axes.set_title(axis_label(", ".join(signal.name for signal in group), group[0].unit))
    if len(group) > 1:
        names = [signal.name for signal in group]
        place: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98)}
        axes.legend(axes.get_lines(), names, ncols=len(names), handlelength=1.2, borderpad=0, **place)


# ---- parts of a phase portrait


@dataclasses.dataclass(frozen=True)
class _Plane:
    """Two coordinates cut out of the state space.

    track : states (n, n_states) -> points (n, 2)
    place : points (..., 2) -> states (..., n_states), all others zero
    flow : states and their rates (..., n_states) -> rates of the two coordinates (..., 2)
    """

    labels: tuple[str, str]
    is_angle: bool
    track: Callable[[np.ndarray], np.ndarray]
    place: Callable[[np.ndarray], np.ndarray]
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _plane(task: Task, model: Model) -> _Plane:
    if len(task.states) < 2:
        raise ValueError(f"`phase_portrait(task=...)` must have at least two states. Got {list(task.state_names)}.")
    structure = model.structure
    if isinstance(structure, SecondOrder) and structure.angles:
        return _angle_plane(task, structure)
    first, second = task.states[:2]

    def place(points: np.ndarray) -> np.ndarray:
        x = _at_rest(task, ())
        return np.concatenate([points, np.broadcast_to(x[2:], (*points.shape[:-1], len(x) - 2))], axis=-1)

    return _Plane(
        (axis_label(first.name, first.unit), axis_label(second.name, second.unit)),
        False,
        lambda x: x[:, :2],
        place,
        lambda x, rates: rates[..., :2],
    )


def _angle_plane(task: Task, structure: SecondOrder) -> _Plane:
    (cosine, sine), velocity = next(iter(structure.angles.items()))
    c, s, w = (task.state_names.index(name) for name in (cosine, sine, velocity))

    def track(x: np.ndarray) -> np.ndarray:
        angle = np.unwrap(np.arctan2(x[:, s], x[:, c]))
        if np.ptp(angle) > 6 * math.pi:  # it spins: one turn, with breaks where it wraps
            angle = np.arctan2(x[:, s], x[:, c])
            breaks = np.flatnonzero(np.abs(np.diff(angle)) > math.pi) + 1
            points = np.column_stack([np.degrees(angle), x[:, w]])
            return np.insert(points, breaks, np.nan, axis=0)
        turns = np.round(angle[-1] / (2 * math.pi))
        return np.column_stack([np.degrees(angle) - 360.0 * turns, x[:, w]])

    def place(points: np.ndarray) -> np.ndarray:
        x = np.broadcast_to(_at_rest(task, structure.angles), (*points.shape[:-1], len(task.states))).copy()
        angle = np.radians(points[..., 0])
        x[..., c], x[..., s], x[..., w] = np.cos(angle), np.sin(angle), points[..., 1]
        return x

    unit = next(signal.unit for signal in task.states if signal.name == velocity)
    return _Plane(
        (f"angle of ({cosine}, {sine}) [degrees]", axis_label(f"angular velocity {velocity}", unit)),
        True,
        track,
        place,
        lambda x, rates: np.stack([np.degrees(x[..., w]), rates[..., w]], axis=-1),
    )


def _at_rest(task: Task, angles: Any) -> np.ndarray:
    """All states zero, as far as their ranges allow; angles zero."""
    cosines = {cosine for cosine, _ in angles}
    zero = [1.0 if s.name in cosines else min(max(0.0, s.lower), s.upper) for s in task.states]
    return np.array(zero)


def _stream(axes: Axes, plane: _Plane, limits: Sequence[tuple[float, float]], model: Model, policy: Policy) -> None:
    horizontal, vertical = (np.linspace(*limit, 60) for limit in limits)
    points = np.stack(np.meshgrid(horizontal, vertical), axis=-1)
    x = plane.place(points)
    rows = x.reshape(-1, x.shape[-1])
    seen = [model.state_names.index(name) for name in getattr(policy, "input_names", model.state_names)]
    u = np.asarray(policy(rows[:, seen])).reshape(*x.shape[:-1], -1)
    try:
        rates = model.derivative(x, u)
    except TypeError:  # in discrete time, the change per step
        rates = (model.step(x, u) - x) / model.dt
    flow = plane.flow(x, rates)
    axes.streamplot(
        horizontal, vertical, flow[..., 0], flow[..., 1], color=MUTED, linewidth=0.5, density=1.1, arrowsize=0.7
    )


def _padded_limits(tracks: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    points = np.concatenate(tracks)
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    pad = np.maximum(0.06 * (high - low), 1e-6)
    return list(zip((low - pad).tolist(), (high + pad).tolist(), strict=True))


def _degree_ticks(axes: Axes, limits: tuple[float, float]) -> None:
    step = 90.0 if limits[1] - limits[0] <= 1000.0 else 180.0
    axes.set_xticks(np.arange(math.ceil(limits[0] / step), math.floor(limits[1] / step) + 1) * step)


# ---- parts of a comparison


def _method(axes: Axes, result: MethodResult, color: str) -> Any:
    """Draw one result; returns what stands for it in the legend."""
    from matplotlib.lines import Line2D

    style: Any = {"color": color, "linestyle": (0, (4, 2)) if result.published else "-"}
    if not result.returns:
        for step in result.steps:
            axes.axvline(step, **style)
        return Line2D([], [], **style)
    style |= {"marker": "o", "fillstyle": "none" if result.published else "full"}
    style |= {"markersize": 3.5} if result.is_curve else {"markersize": 5.5, "linestyle": "none", "alpha": 0.8}
    (drawn,) = axes.plot(result.steps, result.returns, **style)
    return drawn


# ---- rows of a scatter plot


def _shown_rows(value: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """All rows of a short column; else some even in row, most even in value, and the 20 largest residuals."""
    if len(value) <= _MAX_DOTS:
        return np.arange(len(value))
    in_time = np.linspace(0, len(value) - 1, _MAX_DOTS // 4).round().astype(int)
    # A system at rest most of the time would otherwise fill the figure with one spot.
    order = np.argsort(value, kind="stable")
    levels = np.linspace(value[order[0]], value[order[-1]], _MAX_DOTS * 3 // 4 - 20)
    in_value = order[np.minimum(np.searchsorted(value[order], levels), len(value) - 1)]
    largest = np.argsort(residual, kind="stable")[-20:]
    return np.unique(np.concatenate([in_time, in_value, largest]))
