"""A ten-term cubic policy, a map of two squares, and what is read back from an export's folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sindyrl.expression import Node, Variable, clip
from sindyrl.symbolic_map import Signal, SymbolicMap

HAS_EMULATOR = all(importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools"))
needs_emulator = pytest.mark.skipif(not HAS_EMULATOR, reason="the `embedded` extra is not installed")

X, V, C, S, W = (Variable(name) for name in ("x", "v", "cos", "sin", "w"))
TERMS = (
    4.76 * S,
    12.4 * V,
    -3.1 * X,
    0.52 * C * W,
    1.7 * S * W * W,
    2.2 * V**3,
    -0.31 * X * X * S,
    5.05 * W,
    -0.77 * C * C * V,
    1.25 * S**3,
)
STATES = (
    Signal("x", "m", -2.4, 2.4),
    Signal("v", "m/s", -5.0, 5.0),
    Signal("cos", "", -1.0, 1.0),
    Signal("sin", "", -1.0, 1.0),
    Signal("w", "rad/s", -10.0, 10.0),
)


def total(terms: tuple[Node, ...]) -> Node:
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def policy(name: str = "policy") -> SymbolicMap:
    return SymbolicMap(STATES, {Signal("u", "N", -1.0, 1.0): clip(total(TERMS), -1.0, 1.0)}, name=name)


def squares() -> SymbolicMap:
    """Two outputs with ranges, one input without."""
    outputs = {Signal("a", "", -9.0, 9.0): X * X - 2.0 * X * V, Signal("b"): V + 1.0}
    return SymbolicMap([Signal("x", "", -1.0, 2.0), Signal("v")], outputs, name="squares")


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}
