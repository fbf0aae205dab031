"""What integers of fixed point stand for: ranges saturate, jumps count in the bound, no form means the remedy."""

import math

import numpy as np
import pytest

from sindyrl.export.fixed_point import dequantize, evaluate, fixed_function, plan, quantize
from sindyrl.expression import Constant, absolute, exp, log, piecewise, sign, sqrt, tan
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.fixed_cases import X, cubic, excess, inside, one


def test_quantize_rounds_to_nearest_and_saturates_at_the_range():
    planned = plan(one(2.0 * X, -1.0, 1.0))
    (scale,) = planned.input_scales
    q = quantize(planned, [[0.3], [1.0], [7.0], [-math.inf]])
    assert q.dtype == np.int32
    assert q[:, 0].tolist() == [round(0.3 * 2**scale), 2**scale, 2**scale, -(2**scale)]
    top = evaluate(planned, np.array([[2**31 - 1]]))
    assert dequantize(planned, top)[0, 0] == 2.0  # an integer outside stands for the range's end
    with pytest.raises(ValueError, match="NaN"):
        quantize(planned, [math.nan])
    with pytest.raises(ValueError, match="integers of shape"):
        evaluate(planned, np.array([0.5]))


def test_a_jump_counts_in_the_bound_and_a_continuous_switch_does_not():
    jump = plan(one(piecewise([(X < 0.1, -3.0 * X)], Constant(2.0)), -1.0, 1.0))
    assert 2.3 <= jump.bound[0] < 2.31
    # 0.1 lies between two integers: just beside it the other branch is taken, and the error is the jump
    near = np.nextafter(0.1, 0.0)
    wrong = max(
        abs(dequantize(jump, evaluate(jump, quantize(jump, [x])))[0] - (-3.0 * x if x < 0.1 else 2.0))
        for x in (near, 0.1)
    )
    assert 2.29 < wrong <= jump.bound[0]
    bent = plan(one(piecewise([(X < 0.1, 0.3 - 3.0 * X)], X - 0.1), -1.0, 1.0))
    assert bent.bound[0] < 1e-8
    # the jump is part of the error, not of the integers' range: a magnitude keeps the scale
    magnitude = plan(one(absolute(piecewise([(X < 0.1, -3.0 * X)], Constant(2.0))), -1.0, 1.0))
    assert magnitude.bound == jump.bound
    assert magnitude.output_scales == jump.output_scales
    far = plan(one(piecewise([(X < 5.0, X)], 100.0 * X), -1.0, 1.0))
    assert far.bound[0] < 1e-7


def test_a_sign_that_may_be_wrong_says_so():
    assert plan(one(sign(X), -1.0, 1.0)).bound[0] == 2.0
    assert plan(one(sign(X), 0.5, 1.0)).bound[0] == 0.0


def test_an_output_saturates_at_the_range_its_signal_states():
    form = SymbolicMap([Signal("x", "", -2.0, 2.0)], [(Signal("u", "N", -1.0, 1.0), 3.0 * X)])
    planned = plan(form, 16)
    assert planned.saturated == ("u",)
    x = np.linspace(-2.0, 2.0, 101)[:, None]
    assert np.all(
        np.abs(dequantize(planned, evaluate(planned, quantize(planned, x))) - np.clip(3 * x, -1, 1)) <= planned.bound
    )
    assert "saturated" in planned.scaling_table()[-1]
    assert plan(SymbolicMap([Signal("x", "", -0.3, 0.3)], [(Signal("u", "N", -1.0, 1.0), 3.0 * X)])).saturated == ()


def test_terms_that_cancel_cost_nothing():
    planned = plan(one((X + 1.0) * 3.0 - 3.0 * X, -1.0, 1.0))
    assert planned.bound[0] == 0.0
    assert len(planned.program.instructions) == 2


def test_logarithms_over_many_octaves_and_roots_down_to_zero():
    for bits, limit in ((16, 0.01), (32, 4e-6)):
        form = one(log(X), 0.01, 100.0) if bits == 32 else one(log(X), 0.1, 4.0)
        planned = plan(form, bits)
        assert excess(form, planned, inside(planned, np.random.default_rng(4), 60)) <= 1.0
        assert planned.bound[0] < limit
        root = one(sqrt(X), 0.0, 4.0)
        assert excess(root, plan(root, bits), np.geomspace(1e-12, 4.0, 60)[:, None]) <= 1.0


REFUSED = (
    (one(1.0 / X, -1.0, 1.0), r"1/x with x in \[-1, 1\] is not bounded.*stay away from 0"),
    (one(log(X), 0.0, 1.0), r"log\(x\) with x in \[0, 1\] is not bounded.*above 0"),
    (one(sqrt(X), -0.5, 1.0), r"sqrt\(x\).*not be negative"),
    (one(tan(X), 0.0, 2.0), r"tan\(x\).*poles"),
    (one(exp(X), 0.0, 2000.0), r"exp\(x\) with x in \[0, 2000\] is not bounded.*Narrow"),
    (one(X / 0.0, 0.0, 1.0), r"x/0 with x in \[0, 1\] divides by zero"),
    (one(1e200 * X * X, 0.0, 1.0), r"too large.*Narrow"),
    (SymbolicMap(["x"], {"y": X}), r"'x' needs a finite range.*Signal\('x', lower=-1.0"),
)


@pytest.mark.parametrize(("form", "message"), REFUSED)
def test_what_has_no_fixed_point_form_is_refused_with_the_remedy(form, message):
    with pytest.raises(ValueError, match=message):
        plan(form)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="16 or 32"):
        plan(cubic(), 24)
    with pytest.raises(ValueError, match="must be among"):
        plan(cubic(), ranges={"y": (0.0, 1.0)})
    with pytest.raises(ValueError, match="reserved in C"):
        fixed_function(plan(cubic()), "int")


def test_ranges_may_be_given_apart_from_the_map():
    form = SymbolicMap(["x"], {"y": X * X})
    assert plan(form, ranges={"x": (-1.0, 1.0)}).bound == plan(one(X * X, -1.0, 1.0)).bound
