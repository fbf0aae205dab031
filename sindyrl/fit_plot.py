"""Figures of one fit, in the style of `sindyrl.plot`: data against model, residuals, inclusion, coefficient paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sindyrl.coefficient_path import CoefficientPath
from sindyrl.plot import COLORS, GRID, INK, MUTED, axis_label, styled_figure, thinned
from sindyrl.symbolic_map import Signal
from sindyrl.validation import RollOut, Whiteness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROLLOUTS = 6  # drawn one after the other in time
_MAX_TERMS = 12  # per equation, of inclusion and of a path


def data_against_model(paths: Sequence[RollOut], states: Sequence[Signal]) -> Figure:
    """Held-out measurements and the roll-outs of the model from their first states, one panel per state."""
    with styled_figure(1.7 * len(states)) as figure:
        grid = figure.subplots(len(states), 1, squeeze=False, sharex=True)[:, 0]
        for index, (axes, signal) in enumerate(zip(grid, states, strict=True)):
            for path in paths[:_MAX_ROLLOUTS]:
                seen = thinned(np.column_stack([path.t, path.measured[:, index]]))
                axes.plot(*seen.T, ".", color=COLORS[0], markersize=5, markeredgewidth=0, alpha=0.6, label="measured")
                valid = slice(0, path.valid + 1)
                line = thinned(np.column_stack([path.t[valid], path.predicted[valid, index]]))
                axes.plot(*line.T, color=COLORS[1], label="model")
                if path.diverged:
                    axes.plot(*line[-1], "x", color=COLORS[1])
            fits = [path.fit[index] for path in paths if not path.diverged]
            words = f", fit {np.mean(fits):.1f} %" if fits and np.isfinite(fits).all() else ""
            axes.set_title(axis_label(signal.name, signal.unit) + words)
        grid[0].legend(*_first(grid[0], ("measured", "model")), ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98))
        grid[-1].set_xlabel("time [s]")
        return figure


def _first(axes, names: Sequence[str]):  # type: ignore[no-untyped-def]
    """Handles and labels of the legend, each label once."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return [handles[name] for name in names], list(names)


def residuals(residual: np.ndarray, test: Whiteness | None, targets: Sequence[str], dt: float) -> Figure:
    """Residuals of each target in time, and their autocorrelation with the 95 % bounds of white ones."""
    with styled_figure(1.9 * len(targets)) as figure:
        grid = figure.subplots(len(targets), 2, squeeze=False, width_ratios=(1.4, 1))
        for index, (target, (left, right)) in enumerate(zip(targets, grid, strict=True)):
            rows = thinned(np.column_stack([np.arange(len(residual)), residual[:, index]]))
            left.plot(*rows.T, ".", color=COLORS[0], markersize=2.6, markeredgewidth=0)
            left.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
            left.set_title(f"{target}: measured − model")
            right.set_title("autocorrelation")
            if test is not None:
                lags = np.arange(1, len(test.correlation))
                right.axhspan(-test.bound, test.bound, color=GRID, zorder=0, linewidth=0)
                right.vlines(lags, 0.0, test.correlation[1:, index], color=COLORS[0], linewidth=1.6)
                right.axhline(0.0, color=MUTED, linewidth=0.8)
                right.set_ylim(-1.05, 1.05)
        grid[-1, 0].set_xlabel("row")
        grid[-1, 1].set_xlabel(f"lag [steps of {dt:.4g} s]")
        return figure


def inclusion(share: np.ndarray, support: np.ndarray, names: Sequence[str], targets: Sequence[str]) -> Figure:
    """How often each term is selected in resamples, selected ones filled; share, support (target, feature)."""
    chosen = [_most(row, kept) for row, kept in zip(share, support, strict=True)]
    heights = [max(len(rows), 1) for rows in chosen]
    with styled_figure(0.5 + sum(0.24 * height + 0.42 for height in heights)) as figure:
        grid = figure.subplots(len(targets), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for axes, target, rows, values, kept in zip(grid, targets, chosen, share, support, strict=True):
            for place, j in enumerate(rows):
                axes.barh(place, values[j], height=0.62, color=COLORS[0] if kept[j] else "none", edgecolor=COLORS[0])
            axes.set_yticks(range(len(rows)), [names[j] for j in rows])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_xlim(0.0, 1.02)
            axes.set_title(target)
            axes.grid(visible=False, axis="y")
        grid[-1].set_xlabel("share of resamples in which the term is selected")
        return figure


def _most(share: np.ndarray, kept: np.ndarray) -> list[int]:
    """The terms that are selected, or are in some resample, most frequent first."""
    order = sorted(np.flatnonzero((share > 0) | kept), key=lambda j: (not kept[j], -share[j], j))
    return [int(j) for j in order[:_MAX_TERMS]]


def coefficient_paths(path: CoefficientPath, targets: Sequence[str], selected: Sequence[Sequence[str]]) -> Figure:
    """Coefficients over the threshold, as shares of the target; the terms of the model in color, the rest gray.

    selected : for each target the names of its terms in the model
    """
    with styled_figure(2.3 * len(targets)) as figure:
        grid = figure.subplots(len(targets), 1, squeeze=False, sharex=True)[:, 0]
        for index, (axes, target, own) in enumerate(zip(grid, targets, selected, strict=True)):
            shares = path.shares[:, index]
            for j in np.flatnonzero((shares != 0).any(axis=0)):
                line = np.where(shares[:, j] != 0, shares[:, j], np.nan)
                if path.names[j] not in own:
                    axes.plot(path.thresholds, line, color=GRID, linewidth=1.1, zorder=1)
            for place, name in enumerate(own):
                if name not in path.names:
                    continue
                column = shares[:, path.names.index(name)]
                style = ("-", "--", ":")[place // len(COLORS) % 3]
                line = np.where(column != 0, column, np.nan)
                axes.plot(path.thresholds, line, style, color=COLORS[place % len(COLORS)], label=name)
            axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=0)
            limits = path.thresholds, -path.thresholds
            low, high = axes.get_ylim()
            for limit in limits:
                axes.plot(path.thresholds, limit, color=INK, linewidth=0.6, alpha=0.5)
            axes.set_ylim(low, high)
            axes.set_xscale("log")
            axes.set_title(target)
            axes.set_ylabel("share of its size")
            if own:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), borderpad=0, handlelength=1.4)
        grid[-1].set_xlabel("threshold, as a share of the target's size")
        return figure
