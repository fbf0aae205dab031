"""What a reproduction claims, and how what it finds stands against that.

`paper_reproductions/README.md` has the format of ``expected.toml`` and the contract of ``run.py``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Claim", "Expected", "judged", "read_expected"]

_LIMITS = ("at_least", "at_most", "within")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of ``expected.toml``.

    claim : a sentence   figure : the name of our figure in what ``reproduce`` returns
    theirs : the published figure, if there is one   source : of theirs
    ours : our figure in the reported run, if there was one
    at_least, at_most : what ours must reach   within : how far ours may be from theirs; none of them: not judged
    quick : whether --quick judges it too   command, minutes : of the run that gives the figure
    departures : from what the paper did, for this row alone
    """

    claim: str
    figure: str
    command: str
    minutes: float
    theirs: float | None = None
    source: str = ""
    ours: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    within: float | None = None
    quick: bool = False
    departures: str = ""

    def __post_init__(self) -> None:
        for name in ("minutes", "theirs", "ours", *_LIMITS):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"`{name}` of {self.figure!r} must be a number. Got {value!r}.")
        if self.within is not None and self.theirs is None:
            raise ValueError(f"`within` of {self.figure!r} needs `theirs`: it is a distance from it.")

    @property
    def rule(self) -> str:
        """What ours must reach, in words; empty if it is not judged."""
        limits = [(name, getattr(self, name)) for name in _LIMITS]
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in limits if value is not None)

    def met(self, value: float | None, *, quick: bool = False) -> bool | None:
        """Whether ``value`` reaches what the row asks for. None: not run, or nothing asked."""
        if value is None or not self.rule or (quick and not self.quick):
            return None
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.within is None or self.theirs is None or abs(value - self.theirs) <= self.within)
        )


@dataclasses.dataclass(frozen=True)
class Expected:
    """An ``expected.toml``: the paper, departures from it that concern all rows, and the rows."""

    paper: str
    claims: tuple[Claim, ...]
    departures: tuple[str, ...] = ()


def read_expected(file: Path) -> Expected:
    """Raises ValueError for keys or values that are wrong, FileNotFoundError without the file."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        rows = document.pop("claim", [])
        shared = {name: document.pop(name) for name in ("command", "minutes") if name in document}
        claims = tuple(Claim(**{**shared, **row}) for row in rows)
        departures = tuple(document.pop("departures", ()))
        expected = Expected(**document, claims=claims, departures=departures)
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
    repeated = {claim.figure for claim in claims if sum(other.figure == claim.figure for other in claims) > 1}
    if repeated or not claims:
        raise ValueError(f"{file}: `claim` must be rows with a `figure` each of its own. Got {sorted(repeated)} twice.")
    return expected


def judged(expected: Expected, figures: Mapping[str, Any], *, quick: bool = False) -> list[dict[str, Any]]:
    """One record for each claim: theirs, ours, their difference, what was asked and whether it was met.

    ``met`` is None where nothing is asked, where the figure was not run, and for a quick run of what needs a full one,
    which has no ``difference`` either.
    """
    rows = []
    for claim in expected.claims:
        value = figures.get(claim.figure)
        number = None if value is None else float(value)
        difference = None
        if number is not None and claim.theirs is not None and (claim.quick or not quick):
            difference = float(f"{number - claim.theirs:.6g}")
        rows.append(
            {
                "claim": claim.claim,
                "figure": claim.figure,
                "theirs": claim.theirs,
                "source": claim.source,
                "ours": value,
                "reported": claim.ours,
                "difference": difference,
                "rule": claim.rule,
                "met": claim.met(number, quick=quick),
                "command": claim.command,
                "minutes": claim.minutes,
                "departures": claim.departures,
            }
        )
    return rows
