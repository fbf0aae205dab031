"""Tables of fixed point: functions keep their bound, derivatives are bounded closely, too large a table is refused."""

import math

import mpmath
import numpy as np
import pytest

from sindyrl.emit.integer_program import Width
from sindyrl.export.fixed_segments import TableTooLarge, approximate, derivative_bound

FUNCTIONS = (
    ("sin", -3.0, 3.0), ("cos", 0.2, 0.9), ("tan", -1.2, 1.3), ("tanh", -20.0, 20.0), ("exp", -9.0, 1.0),
    ("log", 0.7, 2.5), ("turns", 0.0, 0.99996),
)  # fmt: skip


@pytest.mark.parametrize(("op", "lower", "upper"), FUNCTIONS)
@pytest.mark.parametrize("bits", [16, 32])
def test_tables_keep_their_bound(op, lower, upper, bits):
    scale = bits - 1 - max(0, math.ceil(math.log2(max(abs(lower), abs(upper)))))
    first, last = math.ceil(math.ldexp(lower, scale)), math.floor(math.ldexp(upper, scale))
    out = bits - 4
    found = approximate(op, scale, first, last, out, Width(bits), 2.0 ** -(out + 2))
    every = np.arange(first, last + 1) if bits == 16 else np.random.default_rng(3).integers(first, last, 100_000)
    x = np.ldexp(every.astype(float), -scale)
    exact = np.sin(2.0 * np.pi * x) if op == "turns" else getattr(np, op)(x)
    error = np.abs(np.ldexp(found.table.evaluate(every).astype(float), -out) - exact).max()
    bound = float(found.error)
    assert error <= bound + 1e-15
    assert bound < 4.0 * 2.0**-out
    assert error > 0.2 * bound


@pytest.mark.parametrize("op", ["sin", "exp", "log", "tanh", "tan", "turns"])
def test_derivatives_are_bounded_and_closely(op):
    lower, upper = 0.3, 1.2
    function = (lambda x: mpmath.sin(2 * mpmath.pi * x)) if op == "turns" else getattr(mpmath, op)
    for order in range(1, 8):
        with mpmath.workprec(120):
            points = [mpmath.mpf(lower) + (upper - lower) * k / mpmath.mpf(40) for k in range(41)]
            largest = max(abs(mpmath.diff(function, point, order)) for point in points)
        bound = derivative_bound(op, order, lower, upper)
        assert largest <= bound
        assert bound < 3.0 * largest


def test_a_table_that_would_be_too_large_is_refused():
    with pytest.raises(TableTooLarge):
        approximate("exp", 20, -1000 << 20, 0, 30, Width(32), 2.0**-32)
