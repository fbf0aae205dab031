"""Hypothesis strategies for random expressions and maps, shared by the tests of back ends, emitters and exports."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import strategies as st

from sindyrl.expression import (
    Binary,
    Comparison,
    Constant,
    Dense,
    Element,
    Node,
    Piecewise,
    Power,
    Unary,
    Variable,
    clip,
)
from sindyrl.symbolic_map import SymbolicMap

NAMES = ("x", "v", "theta", "sin")
EXACT_UNARY = ("neg", "abs", "sign", "sqrt")
ALL_UNARY = (*EXACT_UNARY, "sin", "cos", "tan", "tanh", "exp", "log")

constants = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.1, 3.0, 1e-12, 12345.678]),
    st.floats(-100.0, 100.0, allow_nan=False),
)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def expressions(draw: st.DrawFn, *, exact: bool = False, names: tuple[str, ...] = NAMES, size: int = 12) -> Node:
    """A random expression with shared parts.

    exact : only operations that IEEE rounds correctly, so that every back end must give the same bits.
    """
    pool: list[Node] = [Variable(name) for name in names] + [Constant(value) for value in draw(st.tuples(constants))]
    for _ in range(draw(st.integers(0, size))):
        pool.append(draw(_operation(pool, exact=exact)))
    return pool[-1]


@st.composite
def maps(draw: st.DrawFn, *, exact: bool = False, outputs: int = 8, size: int = 12) -> SymbolicMap:
    """A random map of ``NAMES`` with up to ``outputs`` outputs."""
    nodes = draw(st.lists(expressions(exact=exact, size=size), min_size=1, max_size=outputs))
    return SymbolicMap(NAMES, {f"y{index}": node for index, node in enumerate(nodes)}, name="random_map")


def points(seed: int, n: int, *, n_inputs: int = len(NAMES), extreme: bool = True) -> np.ndarray:
    """Inputs (n, n_inputs) of many magnitudes; with ``extreme``, also zeros of both signs, infinities and NaN."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_inputs)) * 10.0 ** rng.integers(-3, 3, size=(n, n_inputs))
    if extreme:
        special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e308, 5e-324])
        hit = np.less(rng.random(size=x.shape), 0.15)
        x[hit] = rng.choice(special, size=int(hit.sum()))
    return x


def bits(values: np.ndarray) -> np.ndarray:
    """The bit pattern of float64 values, all NaN alike: -0.0 differs from 0.0."""
    values = np.where(np.isnan(values), np.nan, values)
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance in units in the last place; 0 where both are NaN, huge where one is."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    with np.errstate(all="ignore"):
        distance = np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.abs(b)))
    distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, distance)
    return np.where(np.isnan(distance), np.inf, distance)


def bits_of(value: float) -> bytes:
    """The eight bytes of a float."""
    return struct.pack("<d", value)


@st.composite
def _operation(draw: st.DrawFn, pool: list[Node], *, exact: bool) -> Node:
    node = st.sampled_from(pool[::-1])  # shrinks towards the newest
    kind = draw(st.sampled_from(["binary"] * 6 + ["unary"] * 3 + ["power", "clip", "piecewise", "dense"]))
    if kind == "binary":
        return Binary(draw(st.sampled_from(["add", "sub", "mul", "div", "min", "max"])), draw(node), draw(node))
    if kind == "unary":
        return Unary(draw(st.sampled_from(EXACT_UNARY if exact else ALL_UNARY)), draw(node))
    if kind == "power":
        return Power(draw(node), draw(st.integers(-4, 7)))
    if kind == "clip":
        low = draw(constants)
        return clip(draw(node), low, low + abs(draw(constants)))
    if kind == "piecewise":
        op = st.sampled_from(["lt", "le", "gt", "ge"])
        branches = st.tuples(st.builds(Comparison, op, node, node), node)
        return Piecewise(draw(st.lists(branches, min_size=1, max_size=3)), draw(node))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    matrix = [[draw(constants) for _ in range(columns)] for _ in range(rows)]
    activation = draw(st.sampled_from(["identity", "relu"] if exact else ["identity", "relu", "tanh"]))
    layer = Dense(matrix, [draw(constants) for _ in range(rows)], activation, [draw(node) for _ in range(columns)])
    return Element(layer, draw(st.integers(0, rows - 1)))
