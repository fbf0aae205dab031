"""A figure as a small SVG file: what is filled as pixels, everything else as sharp as letters."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_file"]

DPI = 200  # of the pixels


def figure_file(figure: Figure, name: str) -> str:
    """The figure as a file of its own; equal figures of one ``name`` give equal bytes.

    Contours and heat-maps become images of few colors, coordinates have a tenth of a point, and a style that is used
    more than once is written once.
    """
    import matplotlib
    from matplotlib.collections import QuadMesh
    from matplotlib.contour import ContourSet

    for axes in figure.axes:
        for layer in axes.collections:
            if isinstance(layer, (ContourSet, QuadMesh)):
                layer.set(rasterized=True, antialiased=False)  # so that each level is one color
                axes.grid(visible=False)  # below it
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", dpi=DPI, metadata={"Date": None})
    return _shortened(text.getvalue())


def _shortened(svg: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _short_tag(tag[0]), svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    styles = Counter(re.findall(r' style="([^"]*)"', svg))
    names = {style: f"s{number}" for number, (style, count) in enumerate(styles.items()) if count > 1}
    svg = re.sub(r' style="([^"]*)"', lambda s: f' class="{names[s[1]]}"' if s[1] in names else s[0], svg)
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    return svg.replace("<defs>", f"<defs>\n<style>\n{rules}</style>", 1)


def _short_tag(tag: str) -> str:
    """A tag with the page's font and shorter numbers or pixels; what is between tags stays as it is."""
    if "base64," in tag:
        return re.sub(r"(?<=base64,)[^\"]*", lambda data: _few_colors(data[0]), tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", tag)
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag)


def _few_colors(data: str) -> str:
    """A PNG image in base64 of up to 256 colors by their numbers; one of more as it is."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    colors, index = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colors) > 256:
        return data
    small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
    small.putpalette(colors[:, :3].tobytes())
    file = io.BytesIO()
    small.save(file, format="png", optimize=True, transparency=colors[:, 3].tobytes())
    return base64.b64encode(file.getvalue()).decode()
