r"""A LaTeX snippet: ``\input{policy.tex}`` in a document that loads ``amsmath``.

The equations, then a table of symbols with units and ranges. Nothing else is needed, no package of this library.
"""

from __future__ import annotations

import math

from sindyrl.emit.latex import symbol
from sindyrl.emit.text import number
from sindyrl.export.artifact import Artifact
from sindyrl.symbolic_map import Signal

CHECK = "Every equation is read back by matplotlib's parser of mathematics in the tests."

_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``NAME.tex``."""
    form = artifact.form
    lines = [*artifact.banner("% "), r"\begin{align}", form.latex(), r"\end{align}"]
    lines += [r"\begin{tabular}{lll}", r"symbol & unit & range \\", r"\hline"]
    lines += [_row(signal) for signal in (*form.inputs, *form.outputs)]
    return {f"{artifact.name}.tex": "\n".join([*lines, r"\end{tabular}", ""])}


def _row(signal: Signal) -> str:
    unit = "".join(_SPECIAL.get(character, character) for character in signal.unit) or "--"
    bounded = math.isfinite(signal.lower) or math.isfinite(signal.upper)
    span = f"$[{_end(signal.lower)}, {_end(signal.upper)}]$" if bounded else "any"
    return rf"${symbol(signal.name)}$ & {unit} & {span} \\"


def _end(value: float) -> str:
    if math.isinf(value):
        return r"\infty" if value > 0 else r"-\infty"
    mantissa, mark, exponent = number(value).partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if mark else mantissa
