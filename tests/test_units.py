"""Units: what a text means, what a coefficient carries, and which sums no coefficient can mend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.expression import Constant, Variable, cos, exp, maximum, piecewise, sign, sin, sqrt
from sindyrl.library import custom_library, polynomial_library, trigonometric_library
from sindyrl.sparse_map import SparseMap
from sindyrl.units import Unit, check_units, parse_unit, unit_of

X, V, Q = Variable("x"), Variable("v"), Variable("q")
UNITS = {"x": parse_unit("m"), "v": parse_unit("m/s"), "q": parse_unit("rad")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("N*m", "kg m^2/s^2"),
        ("N m", "J"),
        ("m/s/s", "m s^-2"),
        ("m/s²", "m*s**-2"),
        ("rad/s", "1/s"),
        ("W", "V*A"),
        ("kg/(m*s^2)", "Pa"),
        ("km/h", "0.2777777777777778 m/s"),
        ("cm^2", "1e-4 m^2"),
        ("m^(1/2)", "m^0.5"),
        ("Hz", "s^-1"),
        ("rpm", "0.10471975511965977 rad/s"),
        ("mN·m", "1e-3 J"),
        ("rabbits/d", "rabbits/(24 h)"),
        ("-", "1"),
        ("m^0", "1"),
    ],
)
def test_texts_that_mean_the_same(one, other):
    a, b = parse_unit(one), parse_unit(other)
    assert a.like(b), (str(a), str(b))


@pytest.mark.parametrize(("one", "other"), [("m", "mm"), ("m", "s"), ("deg", "rad"), ("rabbits", "foxes"), ("N", "J")])
def test_texts_that_mean_something_else(one, other):
    assert not parse_unit(one).like(parse_unit(other))


def test_an_empty_unit_is_not_known_and_nonsense_is_refused():
    assert parse_unit("") is None
    assert parse_unit("  ") is None
    for nonsense in ("m/", "m^", "*m", "m^^2", "(m", "m)", "m$", "m^(1/0)", "m^s", "/s", "m - s", "()"):
        with pytest.raises(ValueError, match="The unit"):
            parse_unit(nonsense)
    with pytest.raises(TypeError, match="must be a text"):
        parse_unit(3)


symbols = st.sampled_from(["m", "s", "kg", "A", "K", "rabbits"])
units = st.dictionaries(symbols, st.integers(-3, 3), max_size=4)


@given(units, units)
def test_units_form_a_group_and_print_so_that_they_read_back(a, b):
    def build(powers):
        total = Unit()
        for name, power in powers.items():
            total = total * parse_unit(name) ** power
        return total

    one, two = build(a), build(b)
    assert (one * two / two).like(one)
    assert (one / one).like(Unit())
    assert ((one * two) ** 2).like(one**2 * two**2)
    assert parse_unit(str(one)).like(one)
    assert parse_unit(str(one * Unit((), 0.001))).like(one * Unit((), 0.001))


@pytest.mark.parametrize(
    ("node", "unit"),
    [
        (X * V, "m^2/s"),
        (V**2 / X, "m/s^2"),
        (V * abs(V), "m^2/s^2"),
        (sqrt(X * X + X**2), "m"),
        (2.0 * X + 1.0, "m"),
        (Constant(2.0), "1"),
        (sin(Q) * V, "m/s"),
        (exp(-X / (2.0 * X)), "1"),
        (sign(V) * X, "m"),
        (maximum(X, 0.0), "m"),
        (piecewise([(V > 0.0, X)], -X), "m"),
    ],
)
def test_expressions_have_the_unit_that_physics_gives_them(node, unit):
    assert unit_of(node, UNITS).like(parse_unit(unit))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (X + V, r"x \+ v: x is in m and v in m/s"),
        (sin(X), r"sin\(x\): sin needs an angle in rad; x is in m"),
        (exp(V), "exp needs a plain number"),
        (X * (1.0 + maximum(X, V)), "cannot be added or compared"),
        (piecewise([(X > V, X)], X), "cannot be added or compared"),
        (piecewise([(X > 0.0, X)], V), "cannot be added or compared"),
    ],
)
def test_sums_of_unlike_quantities_are_named(node, message):
    with pytest.raises(ValueError, match=message):
        unit_of(node, UNITS)


def test_an_unknown_unit_makes_the_result_unknown_and_not_wrong():
    assert unit_of(X * Variable("w"), UNITS) is None
    assert unit_of(X + Variable("w"), UNITS) is None
    assert unit_of(sin(Variable("w")), UNITS).like(Unit())


def test_coefficients_carry_the_missing_unit():
    library = (polynomial_library(1, bias=True) + trigonometric_library(of=["q"])).bind(["q", "w"], ["torque"])
    report = check_units(library, {"q": "rad", "w": "rad/s", "torque": "N*m"}, {"dw": "rad/s^2"})
    assert report.consistent
    unit = dict(zip(report.terms, report.coefficient_units[0], strict=True))
    for term, expected in {"1": "1/s^2", "w": "1/s", "torque": "1/(kg*m^2)", "sin(q)": "1/s^2"}.items():
        assert unit[term].like(parse_unit(expected)), term
    assert "w: coefficient in 1/s" in str(report)


def test_a_sparse_map_is_checked_on_the_terms_it_uses():
    library = (polynomial_library(1) + custom_library([X + V, cos(X)])).bind(["x", "v"])
    units = {"x": "m", "v": "m/s"}
    assert len(check_units(library, units, {"dv": "m/s^2"}).problems) == 2
    clean = SparseMap(library, [[-4.0, -0.1, 0, 0]], ["dv"], ("m/s^2",))
    assert check_units(clean, units).consistent
    report = check_units(SparseMap(library, [[0, 0, 1.0, 0]], ["dv"], ("m/s^2",)), units)
    assert report.problems == ("x + v: x is in m and v in m/s; they cannot be added or compared",)
    assert "Inconsistent: x + v" in str(report)
    assert not np.any([u for u in report.coefficient_units[0][2:]])
    with pytest.raises(ValueError, match=r"names \['z'\]"):
        check_units(clean, {"z": "m"})


def test_a_model_in_other_units_has_coefficients_in_the_same_ratio():
    # dv/dt = -k x: in m, and in cm with everything else alike, k is the same number with the same unit.
    library = polynomial_library(1).bind(["x", "v"])
    metric = check_units(library, {"x": "m", "v": "m/s"}, {"dv": "m/s^2"}).coefficient_units[0]
    small = check_units(library, {"x": "cm", "v": "cm/s"}, {"dv": "cm/s^2"}).coefficient_units[0]
    assert all(a.like(b) for a, b in zip(metric, small, strict=True))
    mixed = check_units(library, {"x": "cm", "v": "m/s"}, {"dv": "m/s^2"}).coefficient_units[0]
    assert mixed[0].like(parse_unit("100 1/s^2"))
