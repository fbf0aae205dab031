"""The figure: prediction error over the length of the training data, one panel for each level of noise."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

__all__ = ["drawn"]

_LABELS = {
    "ours_weak": "ours (weak form)",
    "study": "the paper's recipe",
    "pysindy_weak": "pysindy STLSQ, our rows",
    "dmdc": "DMDc",
}
_COLORS = {"ours_weak": "C0", "study": "C2", "pysindy_weak": "C1", "dmdc": "C3"}


def drawn(records: Sequence[dict[str, Any]]) -> str:
    """SVG text: Lorenz, median and quartiles of the mean squared error over the first 250 validation samples."""
    import matplotlib
    from matplotlib.figure import Figure

    lorenz = [record for record in records if record["system"] == "lorenz"]
    # A level of which not all lengths were run would be drawn across the gap.
    counts = Counter(record["noise"] for record in lorenz)
    levels = sorted(noise for noise, count in counts.items() if count == max(counts.values()))
    with matplotlib.rc_context({"svg.hashsalt": "sindyrl", "font.size": 8}):
        figure = Figure(figsize=(3.2 * max(len(levels), 1), 3.0), layout="constrained")
        axes = figure.subplots(1, max(len(levels), 1), sharey=True, squeeze=False)[0]
        for panel, noise in zip(axes, levels, strict=False):
            cells = sorted((r for r in lorenz if r["noise"] == noise), key=lambda record: record["length"])
            for method, label in _LABELS.items():
                points = [
                    (cell["length"], *(_value(v) for v in cell["methods"][method]["mse_short"]))
                    for cell in cells
                    if cell["methods"].get(method)
                ]
                if points:
                    length, low, middle, high = zip(*points, strict=True)
                    panel.plot(length, middle, color=_COLORS[method], label=label, lw=1.2)
                    panel.fill_between(length, low, high, color=_COLORS[method], alpha=0.2, lw=0)
            panel.set(
                xscale="log", yscale="log", xlabel="training samples", title=f"noise {noise:g} %", ylim=(1e-4, 1e5)
            )
        axes[0].set_ylabel("mean squared error, first 2.5 s")
        axes[-1].legend(loc="lower left", fontsize=7)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _value(mse: float | None) -> float:
    return 1e9 if mse is None else mse  # diverged: off the top of the panel
