"""Elementary functions that generated C brings along, for targets without a libm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sindyrl.emit.c import called_operations
from sindyrl.node import Node


@dataclasses.dataclass(frozen=True)
class Elementary:
    """A function in float32: its C, its NumPy twin with the same bits, and how far it may be from the truth.

    c_text : name -> the text of ``static float name(float x)``
    max_ulp, floor : the error is at most ``max_ulp`` units in the last place of the true value plus ``floor``
    domain : where that holds, in words, such as "for |x| <= 1e4"
    """

    op: str
    c_text: Callable[[str], str]
    evaluate: Callable[[NDArray[Any]], NDArray[Any]]
    max_ulp: float
    floor: float
    domain: str


ELEMENTARY: dict[str, Elementary] = {}


def called_functions(outputs: Sequence[Node]) -> set[str]:
    """Operations of ``outputs`` that a libm would be called for; sqrt and abs are instructions."""
    return called_operations(outputs) - {"sqrt", "abs"}


def own_functions(outputs: Sequence[Node]) -> Mapping[str, Elementary]:
    """Those of `ELEMENTARY` that ``outputs`` call, in a fixed order."""
    called = called_functions(outputs)
    return {op: entry for op, entry in ELEMENTARY.items() if op in called}


def helper_text(entry: Elementary, name: str) -> str:
    """The C of one function."""
    return entry.c_text(name)
