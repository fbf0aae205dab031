"""The style that all figures share: colors, rules, labels; and a figure as text for a page.

`to_svg` turns a figure into text: letters stay letters, equal figures give equal bytes, and the colors follow the
page's light or dark scheme through CSS variables (``--ink``, ``--muted``, ``--grid``, ``--c1`` ...), with the colors
below as defaults. The hues are those of Okabe and Ito, which people with color blindness can tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#b0569a", "#8a6d00")
INK, MUTED, GRID = "#22262b", "#6c727a", "#dfe2e6"

_WIDTH = 9.0  # inches; 864 CSS pixels, so that a point is a point on a page 900 pixels wide
_MAX_POINTS = 1500  # of a line

_RULES: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlecolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a unit may contain a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def styled_figure(height: float) -> Iterator[Figure]:
    """A new figure, ``height`` inches high, in this module's style; drawn into within the context."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RULES):
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def thinned(points: np.ndarray) -> np.ndarray:
    """Every k-th row of a long line and its last one."""
    every = -(-len(points) // _MAX_POINTS)
    return points if every == 1 else np.concatenate([points[:-1:every], points[-1:]])


def axis_label(name: str, unit: str) -> str:
    return name if unit in ("", "1") else f"{name} [{pretty_unit(unit)}]"


def pretty_unit(unit: str) -> str:
    """``m/s^2`` as ``m/s²``."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"\^(-?\d+)", lambda power: power[1].translate(digits), unit)


def percent(share: float) -> str:
    """``3.9 %`` for 0.039."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


# ---- text of a figure

_SCHEME = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--c{i}" for i, c in enumerate(COLORS, start=1)}


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element for a page: no address, no script, the same bytes for the same figure.

    name : identifier-like, different for each figure of a page; the identifiers inside the figure begin with it
    """
    import matplotlib

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"`to_svg(name=...)` must be letters, digits, '_' and '-', a letter first. Got {name!r}.")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 role="img">', text, count=1)
    # The tags only: what is between them is what somebody called a state, and stays as it is.
    text = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], name), text)
    return re.sub(r"\n\s*", "\n", text).strip()


def _for_page(tag: str, name: str) -> str:
    """A tag with identifiers of its own, hundredths of a point, the page's font and the page's colors."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    tag = re.sub(r"(font: [^'\";]*)'[^\";]*", r"\1system-ui, sans-serif", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda color: _themed(color[0]), tag)


def _themed(color: str) -> str:
    return f"var({_SCHEME[color]}, {color})" if color in _SCHEME else color
