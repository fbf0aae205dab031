"""What the pages of this package share: one environment for their templates, and equations as HTML."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sindyrl.model import Model
from sindyrl.plot import pretty_unit
from sindyrl.structure import SecondOrder

if TYPE_CHECKING:
    from markupsafe import Markup

NOT_MEASURED = "not measured"


def render(template: str, **values: Any) -> str:
    """A page from one of the package's templates; what is not marked as HTML is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typeset": typeset, "count": count, "unit": pretty_unit}
    return environment.get_template(template).render(**values)


def typeset(text: str) -> Markup:
    """An equation in plain text as HTML: italic names, raised exponents, minus signs, breaks only between terms."""
    from markupsafe import Markup

    # Inside a product the parentheses of a product say only in which order it is evaluated.
    text = re.sub(r"\*\(([\w.*^]+)\)", r"*\1", text)
    pieces = [Markup("").join(map(_token, _TOKEN.findall(term))) for term in re.split(r" (?=[+-] )", text)]
    return Markup(" ").join(Markup('<span class="term">{}</span>').format(piece) for piece in pieces)


_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?|\^-?\d+|[A-Za-z_]\w*\(?|[\s\S]")


def _token(token: str) -> Markup:
    from markupsafe import Markup, escape

    if token[0] == "^" and len(token) > 1:
        return Markup("<sup>{}</sup>").format(token[1:].replace("-", "−"))
    if token[0].isdigit():
        digits, _, power = token.partition("e")
        raised = Markup("·10<sup>{}</sup>").format(str(int(power)).replace("-", "−")) if power else ""
        return escape(digits) + raised
    if token[0].isalpha() or token[0] == "_":
        return escape(token) if token.endswith("(") else Markup("<var>{}</var>").format(token)
    return escape({"*": "\u2009·\u2009", "-": "−"}.get(token, token))


def sides(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" = ")
    return left, right


def count(value: Any) -> str:
    return f"{value:,.0f}"


def term_row(term: dict[str, Any]) -> dict[str, str]:
    error, inclusion = term.get("standard_error"), term.get("inclusion")
    value = term["coef"]
    # As many decimals as the standard error has, so that the two line up.
    decimals = 4 if not error else min(max(1 - math.floor(math.log10(error)), 0), 12)
    return {
        "term": term["term"],
        "coef": f"{value:.4g}" if not error else f"{value:.{decimals}f}",
        "error": NOT_MEASURED if error is None else f"{error:.{decimals}f}" if error else "0",
        "inclusion": NOT_MEASURED if inclusion is None else f"{100 * inclusion:.0f} %",
    }


def left_side(target: str, model: Model) -> Markup:
    """The left side of an equation of motion, from the name of its target."""
    from markupsafe import Markup

    kind = model.structure.kind
    if kind in ("second_order", "derivative"):
        return Markup("d<var>{}</var>/d<var>t</var>").format(target.removeprefix("d"))
    if kind == "next_state":
        return Markup("<var>{}</var><sub>next</sub>").format(target.removesuffix("_next"))
    return Markup("Δ<var>{}</var>").format(target.removeprefix("delta_"))


def kinematics(model: Model) -> list[tuple[str, str]]:
    """What the structure knows beforehand: (state, its rate)."""
    structure = model.structure
    if not isinstance(structure, SecondOrder):
        return []
    known = [(position, velocity) for position, velocity in structure.positions.items()]
    for (cosine, sine), velocity in structure.angles.items():
        known += [(cosine, f"-{sine}*{velocity}"), (sine, f"{cosine}*{velocity}")]
    return known
