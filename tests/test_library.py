"""Libraries: the right terms under readable names, one arithmetic everywhere, dependencies named."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.conditioning import independent_columns, resolution
from sindyrl.differentiate import METHODS, derivative
from sindyrl.expression import Variable, exp, sin
from sindyrl.library import (
    Library,
    affine_library,
    custom_library,
    identity_library,
    polynomial_library,
    trigonometric_library,
)


def pendulum_data(seed=0, n=300):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-3, 3, n)
    return np.column_stack([np.cos(angle), np.sin(angle), rng.normal(size=n), rng.uniform(-1, 1, n)])


PENDULUM = (["cos", "sin", "v"], ["u"])


def test_terms_have_readable_names_in_order_of_degree():
    library = polynomial_library(2, bias=True).bind(["x", "v"], ["u"])
    assert library.names == ("1", "x", "v", "u", "x^2", "x*v", "x*u", "v^2", "v*u", "u^2")
    assert "sin^2*u" in polynomial_library(3).bind(*PENDULUM).names


@given(states=st.integers(1, 4), inputs=st.integers(0, 2), degree=st.integers(0, 4))
def test_number_of_monomials_is_the_binomial_coefficient(states, inputs, degree):
    names = [f"x{i}" for i in range(states)], [f"u{i}" for i in range(inputs)]
    library = polynomial_library(degree, bias=True).bind(*names)
    assert len(library) == math.comb(states + inputs + degree, degree)


def test_input_degree_limits_the_powers_of_all_inputs_together():
    library = polynomial_library(3, input_degree=1).bind(["x"], ["u", "w"])
    assert library.names == ("x", "u", "w", "x^2", "x*u", "x*w", "x^3", "x^2*u", "x^2*w")
    assert polynomial_library(2, input_degree=0).bind(["x"], ["u"]).names == ("x", "x^2")


def test_states_restricts_which_states_enter_and_interaction_drops_cross_terms():
    assert polynomial_library(2, states=["v"]).bind(["x", "v"], ["u"]).names == ("v", "u", "v^2", "v*u", "u^2")
    assert polynomial_library(2, interaction=False).bind(["x", "v"]).names == ("x", "v", "x^2", "v^2")
    with pytest.raises(ValueError, match="names 'y', which is not available: x, v"):
        polynomial_library(2, states=["y"]).bind(["x", "v"])


def test_affine_library_is_affine_in_the_inputs():
    library = affine_library(2).bind(["x", "v"], ["u"])
    assert library.names == ("x", "v", "x^2", "x*v", "v^2", "u", "x*u", "v*u", "x^2*u", "x*v*u", "v^2*u")
    x = np.random.default_rng(0).normal(size=(20, 3))
    doubled, zero = x.copy(), x.copy()
    doubled[:, 2] *= 2
    zero[:, 2] = 0
    f = library.features
    np.testing.assert_allclose(f(doubled) - f(zero), 2 * (f(x) - f(zero)), rtol=1e-12, atol=1e-12)


def test_sum_concatenates_and_keeps_a_common_term_once():
    library = (identity_library() + polynomial_library(2)).bind(["x"], ["u"])
    assert library.names == ("x", "u", "x^2", "x*u", "u^2")


def test_product_holds_every_pair_and_merges_powers():
    library = (polynomial_library(1) * polynomial_library(2)).bind(["x"], ["u"])
    assert library.names == ("x^2", "x*u", "x^3", "x^2*u", "x*u^2", "u^2", "u^3")
    trig = (trigonometric_library(2, of=["x"]) * polynomial_library(1, bias=True, states=[])).bind(["x"], ["u"])
    assert trig.names[:4] == ("sin(x)", "u*sin(x)", "cos(x)", "u*cos(x)")
    assert "sin(2*x)" in trig.names


def test_custom_terms_are_expressions_or_functions_of_named_variables():
    terms = [lambda v: v * abs(v), lambda u, x: exp(-x) * u, sin(Variable("x"))]
    library = custom_library(terms).bind(["x", "v"], ["u"])
    x = np.array([[0.5, -2.0, 3.0]])
    np.testing.assert_allclose(library.features(x)[0], [-4.0, 3 * np.exp(-0.5), np.sin(0.5)], rtol=1e-15)
    with pytest.raises(ValueError, match="names 'w', which is not available: x, v, u"):
        custom_library([lambda w: w]).bind(["x", "v"], ["u"])
    with pytest.raises(TypeError, match=r"function 0 must return an expression. Got 1.0"):
        custom_library([lambda x: 1.0]).bind(["x"])
    with pytest.raises(TypeError, match="Entry 0 is 3"):
        custom_library([3])


def everything():
    spec = polynomial_library(4, bias=True) + trigonometric_library(2) * polynomial_library(1)
    return (spec + custom_library([lambda x, v: (x + v) ** 3 / (1 + v**2)])).bind(["x", "v"], ["u"])


def test_features_are_bit_for_bit_the_arithmetic_of_the_symbolic_map():
    library = everything()
    x = np.random.default_rng(0).normal(size=(10_001, 3))
    theta = library.features(x)
    np.testing.assert_array_equal(theta, library.symbolic()(x))
    np.testing.assert_array_equal(library.features(x[7]), theta[7])
    np.testing.assert_array_equal(library.features(x[:6].reshape(2, 3, 3)), theta[:6].reshape(2, 3, -1))
    assert library.features(x[:0]).shape == (0, len(library))


def test_monomials_agree_with_plain_powers():
    library = polynomial_library(5, bias=True).bind(["x", "y", "z"])
    x = np.random.default_rng(0).normal(size=(50, 3))
    columns = [np.ones(50)]
    for degree in range(1, 6):
        for chosen in itertools.combinations_with_replacement(range(3), degree):
            columns.append(np.prod(x[:, chosen], axis=1))
    np.testing.assert_allclose(library.features(x), np.column_stack(columns), rtol=1e-13)


def test_undefined_values_pass_through_without_warnings(recwarn):
    library = polynomial_library(2).bind(["x"])
    theta = library.features(np.array([[np.nan], [np.inf], [1e200]]))
    np.testing.assert_array_equal(theta, [[np.nan, np.nan], [np.inf, np.inf], [1e200, np.inf]])
    assert not recwarn.list


def test_jax_columns_agree_with_numpy():
    library = everything()
    x = np.random.default_rng(0).normal(size=(20, 3))
    columns = library.columns("jax")(list(x.T.astype(np.float32)))
    np.testing.assert_allclose(np.column_stack(columns), library.features(x), rtol=2e-4, atol=2e-5)


def test_dependencies_of_cosine_and_sine_are_found_and_named():
    report = polynomial_library(3, input_degree=1, bias=True).bind(*PENDULUM).conditioning(pendulum_data())
    found = {str(dependency) for dependency in report.dependencies}
    assert {"cos^2 + sin^2 - 1 = 0", "cos^2*u + sin^2*u - u = 0", "cos^3 + cos*sin^2 - cos = 0"} <= found
    assert len(found) == 5
    assert report.condition > 1e12
    assert "cos^2 + sin^2 - 1 = 0" in str(report)


def test_without_the_redundant_terms_the_library_has_full_rank_and_spans_the_same():
    library = polynomial_library(3, bias=True).bind(*PENDULUM)
    x = pendulum_data()
    report = library.conditioning(x)
    reduced = library.without(report.redundant)
    assert reduced == library.independent(x)
    assert not reduced.conditioning(x).dependencies
    assert reduced.conditioning(x).condition < 100
    theta, full = reduced.features(x), library.features(x)
    np.testing.assert_allclose(theta @ np.linalg.lstsq(theta, full, rcond=None)[0], full, atol=1e-10)


def test_of_dependent_terms_the_one_named_last_is_dropped_whatever_the_data():
    library = polynomial_library(2, bias=True).bind(*PENDULUM)
    for seed in range(3):
        assert library.conditioning(pendulum_data(seed)).redundant == ("sin^2",)
    swapped = polynomial_library(2, bias=True).bind(["sin", "cos", "v"], ["u"])
    assert swapped.conditioning(pendulum_data()[:, [1, 0, 2, 3]]).redundant == ("cos^2",)


def test_dependencies_that_hold_to_float32_count_as_exact_for_float32_data():
    library = polynomial_library(2, bias=True).bind(*PENDULUM)
    x = pendulum_data().astype(np.float32)
    assert resolution(x) == 1e-6
    assert resolution(pendulum_data()) == 1e-10
    assert library.conditioning(x).redundant == ("sin^2",)


def test_near_dependencies_and_constant_columns_are_reported_but_not_dropped():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    x[:, 1] = 2 * x[:, 0] + 1e-6 * rng.normal(size=200)
    x[:, 2] = 0.5
    report = identity_library().bind(["x", "y", "z"]).conditioning(x)
    assert report.redundant == ()
    assert [str(near) for near in report.near] == ["y - 2*x = 0"]
    assert report.constant == (("z", 0.5),)
    assert "Constant on these data: z = 0.5" in str(report)
    with_bias = polynomial_library(1, bias=True).bind(["x", "y", "z"]).conditioning(x)
    assert [str(dependency) for dependency in with_bias.dependencies] == ["z - 0.5 = 0"]


def test_zero_columns_and_too_few_rows_are_named():
    x = np.column_stack([np.random.default_rng(0).normal(size=(3, 3)), np.zeros(3)])
    report = identity_library().bind(["a", "b", "c", "d"]).conditioning(x)
    assert "d = 0" in {str(dependency) for dependency in report.dependencies}
    assert report.condition == np.inf
    assert "Fewer rows than terms" in str(polynomial_library(2).bind(["a", "b", "c", "d"]).conditioning(x))


@given(seed=st.integers(0, 1000), rank=st.integers(1, 5), extra=st.integers(0, 4))
def test_independent_columns_are_as_many_as_the_rank(seed, rank, extra):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, rank + extra))
    kept = independent_columns(theta)
    assert len(kept) == rank
    assert np.linalg.matrix_rank(theta[:, kept]) == rank
    assert kept == list(range(rank))  # generic columns: the first `rank` are independent


def test_select_and_without_by_name_or_index():
    library = polynomial_library(2).bind(["x"], ["u"])
    assert library.select(["u^2", 0]).names == ("u^2", "x")
    assert library.without(["x*u", 1]).names == ("x", "x^2", "u^2")
    assert library.without("x*u").names == ("x", "u", "x^2", "u^2")
    with pytest.raises(ValueError, match=r"no term 'x\^3' in the library. Available: x, u, x\^2, x\*u, u\^2"):
        library.without(["x^3"])
    with pytest.raises(ValueError, match=r"must be below 5. Got 5"):
        library.select([5])


def test_json_round_trip_is_exact():
    library = everything()
    again = Library.from_dict(json.loads(json.dumps(library.to_dict())))
    assert again == library
    assert hash(again) == hash(library)
    with pytest.raises(ValueError, match="must have the entries"):
        Library.from_dict({"states": ["x"]})


def test_wrong_use_is_refused_in_words():
    with pytest.raises(
        ValueError, match=r"`polynomial_library\(degree=...\)` must be an integer of at least 0. Got -1"
    ):
        polynomial_library(-1)
    with pytest.raises(TypeError, match=r"must be a sequence of names. Got the single text 'xy'"):
        polynomial_library(1).bind("xy")
    with pytest.raises(ValueError, match="all different"):
        polynomial_library(1).bind(["x"], ["x"])
    with pytest.raises(ValueError, match=r"must have 2 columns \('x', 'u'\). Got shape \(4, 3\)"):
        polynomial_library(1).bind(["x"], ["u"]).features(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="at least one term"):
        polynomial_library(0).bind(["x"])
    with pytest.raises(ValueError, match="at most 20000 are allowed"):
        polynomial_library(9).bind([f"x{i}" for i in range(20)])
    with pytest.raises(ValueError, match="comes twice"):
        Library(("x",), (), (Variable("x"), Variable("x")))


def test_specs_print_as_they_were_written():
    spec = polynomial_library(3, input_degree=1) + trigonometric_library(1, of=["x"])
    assert repr(spec) == "polynomial_library(3, input_degree=1) + trigonometric_library(1, of=['x'])"


@pytest.mark.parametrize(("method", "order"), [("savitzky_golay", 3), ("finite_difference", 2)])
def test_derivatives_converge_at_their_order_ends_included(method, order):
    errors = []
    for n in (101, 201):
        t = np.linspace(0, 2, n)
        errors.append(np.abs(derivative(t, np.column_stack([np.sin(3 * t)]), method)[:, 0] - 3 * np.cos(3 * t)).max())
    assert np.log2(errors[0] / errors[1]) > order - 0.3


def test_derivatives_are_exact_on_polynomials_up_to_their_degree_on_any_time_axis():
    t = 5.0 + np.arange(20) * 0.1
    np.testing.assert_allclose(derivative(t, t**3), 3 * t**2, rtol=1e-9)
    uneven = np.cumsum(np.random.default_rng(0).uniform(0.1, 1, 20))
    np.testing.assert_allclose(derivative(uneven, uneven**2, "finite_difference"), 2 * uneven, rtol=1e-9)


@pytest.mark.parametrize("method", ["spline", "kalman", "spectral"])
def test_methods_of_the_derivative_package_keep_the_shape_and_find_a_slope(method):
    t = np.linspace(0, 2 * np.pi, 60)
    x = np.column_stack([np.sin(t), np.cos(t)])
    settings = {"spline": {"s": 1e-6}, "kalman": {"alpha": 1e-6}, "spectral": {}}[method]
    result = derivative(t, x, method, **settings)
    assert result.shape == x.shape
    np.testing.assert_allclose(result[20:40], np.column_stack([np.cos(t), -np.sin(t)])[20:40], atol=0.02)


def test_derivative_refuses_what_it_cannot_differentiate():
    t = np.arange(10.0)
    with pytest.raises(ValueError, match=f"must be one of {METHODS[0]}.* Got 'magic'"):
        derivative(t, t, "magic")
    with pytest.raises(ValueError, match="needs evenly spaced samples"):
        derivative(t**2 + t, t)
    with pytest.raises(ValueError, match=r"must increase. It does not after sample 9"):
        derivative(np.append(t, 9.0), np.zeros(11))
    with pytest.raises(ValueError, match="Row 3 is not"):
        derivative(t, np.where(t == 3, np.nan, t))
    with pytest.raises(ValueError, match=r"also needs `order=`, `alpha=`"):
        derivative(t, t, "trend_filtered")
    with pytest.raises(ValueError, match="must be odd"):
        derivative(t, t, window=4)
    with pytest.raises(ValueError, match="at least 3 samples"):
        derivative(t[:2], t[:2])
