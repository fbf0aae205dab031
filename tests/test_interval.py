"""Bounds contain every value, are tight where they can be, and say where an expression may be undefined."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.expression import (
    Constant,
    Node,
    Power,
    Unary,
    Variable,
    absolute,
    clip,
    cos,
    dense,
    exp,
    interval,
    log,
    maximum,
    minimum,
    piecewise,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
    undefined,
)
from tests.strategies import NAMES, maps, seeds

x, v = Variable("x"), Variable("v")
inf = np.inf
fast = settings(max_examples=25, deadline=None)


def bound(node: Node, **ranges: tuple[float, float]) -> tuple[float, float]:
    return interval([node], ranges)[0]


@fast
@given(form=maps(), seed=seeds, width=st.sampled_from([0.0, 1e-6, 0.5, 30.0]))
def test_every_computed_value_lies_within_the_bounds(form, seed, width):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=len(NAMES)) * 10.0 ** rng.integers(-2, 2)
    high = low + width * rng.random(size=len(NAMES))
    ranges = dict(zip(NAMES, zip(low, high, strict=True), strict=True))
    samples = np.vstack([rng.uniform(low, high, size=(20, len(NAMES))), low, high])
    values = form(samples)
    for column, (lo, hi), node in zip(values.T, form.interval(ranges).values(), form.nodes, strict=True):
        assert lo <= hi
        if not undefined([node], ranges) and np.isfinite(column).all():
            assert (lo <= column).all()
            assert (column <= hi).all()


@fast
@given(form=maps(), seed=seeds)
def test_a_larger_box_never_has_smaller_bounds(form, seed):
    rng = np.random.default_rng(seed)
    low, high = -rng.random(len(NAMES)), rng.random(len(NAMES))
    inner = form.interval(dict(zip(NAMES, zip(low, high, strict=True), strict=True)))
    outer = form.interval(dict(zip(NAMES, zip(low - 0.5, high + 2, strict=True), strict=True)))
    for name in form.output_names:
        assert outer[name][0] <= inner[name][0]
        assert inner[name][1] <= outer[name][1]


@fast
@given(a=st.floats(-1e6, 1e6), b=st.floats(-1e6, 1e6))
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
def test_the_exact_rational_result_lies_within_the_bounds(op, a, b):
    p, q = Fraction(a), Fraction(b)
    if op == "div" and b == 0:
        return
    exact = {"add": lambda: p + q, "sub": lambda: p - q, "mul": lambda: p * q, "div": lambda: p / q}[op]()
    node = {"add": x + v, "sub": x - v, "mul": x * v, "div": x / v}[op]
    lo, hi = bound(node, x=(a, a), v=(b, b))
    assert Fraction(lo) <= exact <= Fraction(hi)
    assert hi - lo <= 2 * np.spacing(max(abs(lo), abs(hi)))


@fast
@given(a=st.floats(-30, 30), n=st.integers(-9, 9))
def test_the_exact_power_lies_within_the_bounds(a, n):
    if a == 0 and n < 0:
        return
    lo, hi = bound(Power(x, n), x=(a, a))
    exact = Fraction(a) ** n
    assert lo == -inf or Fraction(lo) <= exact
    assert hi == inf or exact <= Fraction(hi)


@pytest.mark.parametrize("op", ["sin", "cos", "tan", "tanh", "exp", "log", "sqrt"])
def test_the_exact_function_value_lies_within_narrow_bounds(op):
    rng = np.random.default_rng(0)
    for at in np.abs(rng.normal(size=200)) * 10.0 ** rng.integers(-8, 3, 200):
        lo, hi = bound(Unary(op, x), x=(at, at))
        with mpmath.workdps(60):
            exact = getattr(mpmath, op)(mpmath.mpf(at))
            assert lo <= exact <= hi
        assert hi - lo <= 12 * np.spacing(max(abs(lo), abs(hi))) or np.isinf(hi)


@pytest.mark.parametrize(
    ("node", "ranges", "expected"),
    [
        (x**2, {"x": (-2, 1)}, (0, 4)),
        (x * x, {"x": (-2, 1)}, (0, 4)),
        (x**3, {"x": (-2, 1)}, (-8, 1)),
        (x**4, {"x": (-3, -2)}, (16, 81)),
        (x**0, {"x": (-3, 2)}, (1, 1)),
        (x**-2, {"x": (2, 4)}, (1 / 16, 1 / 4)),
        (x**-1, {"x": (-4, -2)}, (-1 / 2, -1 / 4)),
        (x * v, {"x": (-1, 2), "v": (-3, 4)}, (-6, 8)),
        (x / v, {"x": (-1, 2), "v": (2, 4)}, (-0.5, 1)),
        (x - v, {"x": (0, 1), "v": (0, 1)}, (-1, 1)),
        (-x, {"x": (-1, 2)}, (-2, 1)),
        (absolute(x), {"x": (-3, 2)}, (0, 3)),
        (absolute(x), {"x": (-3, -2)}, (2, 3)),
        (sign(x), {"x": (-3, 2)}, (-1, 1)),
        (sign(x), {"x": (0.1, 2)}, (1, 1)),
        (minimum(x, v), {"x": (0, 5), "v": (1, 2)}, (0, 2)),
        (maximum(x, v), {"x": (0, 5), "v": (1, 2)}, (1, 5)),
        (clip(x, -1, 1), {"x": (-inf, inf)}, (-1, 1)),
        (sin(x), {"x": (0, 10)}, (-1, 1)),
        (sin(x), {"x": (-inf, inf)}, (-1, 1)),
        (sin(x), {"x": (1, 2)}, (np.sin(1), 1)),
        (sin(x), {"x": (4, 5)}, (-1, np.sin(4))),
        (cos(x), {"x": (-1, 2)}, (np.cos(2), 1)),
        (cos(x), {"x": (3, 4)}, (-1, np.cos(4))),
        (cos(x), {"x": (314.0, 314.5)}, (np.cos(314.5), 1)),
        (cos(x), {"x": (-314.5, -314.0)}, (np.cos(314.5), 1)),
        (sin(x), {"x": (1e20, 1e20 + 1e5)}, (-1, 1)),
        (tan(x), {"x": (-1, 1)}, (np.tan(-1), np.tan(1))),
        (tanh(x), {"x": (-inf, 1)}, (-1, np.tanh(1))),
        (exp(x), {"x": (-inf, 0)}, (0, 1)),
        (log(x), {"x": (1, np.e)}, (0, 1)),
        (sqrt(x), {"x": (0, 4)}, (0, 2)),
        (piecewise([(x < 0, 1.0), (x < 5, v)], 9.0), {"x": (-1, 4), "v": (2, 3)}, (1, 3)),
        (piecewise([(x < 0, 1.0), (x < 5, v)], 9.0), {"x": (0, 4), "v": (2, 3)}, (2, 3)),
        (piecewise([(x < 0, 1.0), (x < 5, v)], 9.0), {"x": (0, 5), "v": (2, 3)}, (2, 9)),
        (piecewise([(x >= 5, 1.0)], 9.0), {"x": (5, 6)}, (1, 1)),
        (piecewise([(x > 5, 1.0)], 9.0), {"x": (5, 5)}, (9, 9)),
        (dense([[1, -2]], [0.5], "identity", [x, v])[0], {"x": (0, 1), "v": (-1, 1)}, (-1.5, 3.5)),
        (dense([[1, -2]], [0.5], "relu", [x, v])[0], {"x": (0, 1), "v": (-1, 1)}, (0, 3.5)),
        (dense([[1], [3]], [0.5, 0], "tanh", [x])[1], {"x": (-1, 1)}, (-np.tanh(3), np.tanh(3))),
        (0 * x, {"x": (-inf, inf)}, (0, 0)),
        (x + v, {"x": (-inf, inf), "v": (-inf, inf)}, (-inf, inf)),
        (x / v, {"x": (1, inf), "v": (1, inf)}, (0, inf)),
        (Constant(0.1), {}, (0.1, 0.1)),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_bounds_are_the_range_up_to_rounding(node, ranges, expected):
    lo, hi = interval([node], ranges)[0]
    assert lo <= expected[0]
    assert expected[1] <= hi
    np.testing.assert_allclose([lo, hi], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("node", "good", "bad"),
    [
        (log(x), (0.1, 2), (0, 2)),
        (sqrt(x), (0, 2), (-1e-300, 2)),
        (1 / x, (0.1, 2), (0, 2)),
        (1 / x, (-2, -0.1), (-2, 0)),
        (x**-3, (0.1, 2), (-1, 2)),
        (tan(x), (-1.5, 1.5), (-1.5, 1.6)),
        (tan(x), (1.6, 4.6), (1.6, 4.8)),
    ],
)
def test_places_that_may_be_undefined_are_named_and_unbounded(node, good, bad):
    assert undefined([node + v], {"x": good, "v": (0, 1)}) == []
    assert undefined([node + v], {"x": bad, "v": (0, 1)}) == [node]
    assert bound(node, x=bad) == (-inf, inf)
    assert np.isfinite(bound(node, x=good)).all()


def test_boxes_can_be_given_as_arrays():
    low, high = np.array([-2.0, 0.0, 1.0]), np.array([-1.0, 1.0, 3.0])
    ((lo, hi),) = interval([sqrt(x) + v], {"x": (low, high), "v": (0.0, 1.0)})
    for index in range(3):
        one = bound(sqrt(x) + v, x=(low[index], high[index]), v=(0.0, 1.0))
        assert (lo[index], hi[index]) == one


def test_an_overflowing_bound_is_infinite_not_nan():
    lo, hi = bound(exp(x), x=(1000, 2000))
    assert lo > 1e308
    assert hi == inf
    assert bound(x * x * x, x=(-1e200, 1e200)) == (-inf, inf)
    assert bound((x * x) - (x * x), x=(1e200, 1e300)) == (-inf, inf)


def test_ranges_are_checked():
    with pytest.raises(ValueError, match="must have a range for 'v'"):
        bound(x + v, x=(0, 1))
    with pytest.raises(ValueError, match="lower <= upper"):
        bound(x, x=(1, 0))
    with pytest.raises(ValueError, match="lower <= upper"):
        bound(x, x=(np.nan, 0))
