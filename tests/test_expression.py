"""Nodes are interned and immutable, traversal is deterministic and flat, derivatives are derivatives."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
import threading
from typing import Any

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl import node as node_module
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
    absolute,
    as_node,
    clip,
    cos,
    dense,
    differentiate,
    exp,
    expand_powers,
    from_list,
    log,
    maximum,
    minimum,
    multiply_chain,
    piecewise,
    sign,
    sin,
    sqrt,
    substitute,
    tan,
    tanh,
    to_list,
    topological,
    variables,
)
from sindyrl.map_file import MapFileError
from sindyrl.symbolic_map import SymbolicMap
from tests.strategies import NAMES, bits, expressions, maps, points, seeds

x, v = Variable("x"), Variable("v")
fast = settings(max_examples=20, deadline=None)
LONG = 100_000


def untyped(value: Any) -> Any:
    """Hide a deliberate misuse from the type checker."""
    return value


def chain(length: int) -> Node:
    node: Node = x
    for _ in range(length):
        node = node + v
    return node


# ---- identity


def test_structurally_equal_expressions_are_the_same_object():
    assert x * 2 + sin(v) is Variable("x") * 2.0 + Unary("sin", Variable("v"))
    assert dense([[1, 2]], [3], "relu", [x, v])[0] is dense(np.array([[1.0, 2.0]]), (3.0,), "relu", [x, v])[0]
    assert piecewise([(x < 1, v)], 0) is piecewise([(x < 1, v)], 0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (x + v, v + x),
        (x - v, x + v),
        (Constant(0.0), Constant(-0.0)),
        (Power(x, 2), x * x),
        (x < v, x <= v),
        (x < v, v > x),
        (dense([[1.0]], [0.0], "tanh", [x])[0], dense([[1.0]], [-0.0], "tanh", [x])[0]),
        (dense([[1.0]], [0.0], "tanh", [x])[0], dense([[1.0]], [0.0], "relu", [x])[0]),
        (dense([[1.0], [1.0]], [0, 0], "tanh", [x])[0], dense([[1.0], [1.0]], [0, 0], "tanh", [x])[1]),
        (piecewise([(x < 1, v)], 0), piecewise([(x < 1, 0)], v)),
    ],
)
def test_different_expressions_are_different_objects(a, b):
    assert a is not b
    assert a != b


def test_constructors_do_not_simplify():
    assert isinstance(x + 0, Binary)
    assert isinstance(x * 1, Binary)
    assert isinstance(x - x, Binary)
    assert isinstance(Power(x, 1), Power)
    assert isinstance(-Unary("neg", x), Unary)
    assert (0.1 + x) + 0.2 is not x + 0.3


def test_nodes_are_immutable():
    layer = Dense([[1.0]], [0.0], "tanh", [x])
    with pytest.raises(AttributeError, match="immutable"):
        x.name = "y"
    with pytest.raises(AttributeError, match="immutable"):
        del x.name
    with pytest.raises(AttributeError):
        x.extra = 1
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        layer.matrix[0, 0] = 2.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        layer.matrix.setflags(write=True)


def test_a_layer_does_not_alias_the_callers_array():
    matrix = np.array([[1.0, 2.0]])
    layer = Dense(matrix, [0.0], "identity", [x, v])
    matrix[0, 0] = 9.0
    assert layer.matrix.tolist() == [[1.0, 2.0]]


def test_copies_are_the_node_itself():
    node = sin(x) + v
    assert copy.copy(node) is node
    assert copy.deepcopy([node])[0] is node
    with pytest.raises(TypeError, match="SymbolicMap"):
        pickle.dumps(node)


def test_unused_nodes_are_forgotten():
    gc.collect()
    before = len(node_module._interned)
    node = x
    for _ in range(1000):
        node = node * 1.000123
    assert len(node_module._interned) >= before + 1000
    del node
    gc.collect()
    assert len(node_module._interned) <= before + 1


def test_threads_share_one_node_per_expression():
    made: list[list[Node]] = []
    barrier = threading.Barrier(4)

    def build():
        barrier.wait()
        made.append([sin(x * float(k)) + float(k) for k in range(300)])

    threads = [threading.Thread(target=build) for _ in range(4)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # else each is done before the next has its turn
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert all(nodes[k] is made[0][k] for nodes in made for k in range(300))


# ---- refusals


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Constant(np.inf), ValueError, "finite"),
        (lambda: Constant(float("nan")), ValueError, "finite"),
        (lambda: Constant(10**400), ValueError, "finite"),
        (lambda: Constant(True), TypeError, "real number"),
        (lambda: Constant(untyped("1")), TypeError, "real number"),
        (lambda: Constant(untyped(1j)), TypeError, "real number"),
        (lambda: Variable("2x"), ValueError, "identifier"),
        (lambda: Variable(""), ValueError, "identifier"),
        (lambda: Variable("x;y"), ValueError, "identifier"),
        (lambda: Variable("x\n"), ValueError, "identifier"),
        (lambda: Variable("θ"), ValueError, "ASCII identifier"),
        (lambda: Variable("a" * 129), ValueError, "128"),
        (lambda: Variable(untyped(3)), TypeError, "string"),
        (lambda: Unary("sinh", x), ValueError, "one of neg, sin"),
        (lambda: Unary("sin", untyped(1.0)), TypeError, "must be a node"),
        (lambda: Binary("pow", x, v), ValueError, "one of add"),
        (lambda: x ** untyped(0.5), TypeError, "integer"),
        (lambda: x ** untyped(v), TypeError, "integer"),
        (lambda: x**True, TypeError, "integer"),
        (lambda: x**1025, ValueError, r"\[-1024, 1024\]"),
        (lambda: (x < 1) + 1, TypeError, "unsupported|comparison"),
        (lambda: sin(x < 1), TypeError, "piecewise"),
        (lambda: bool(x < 1), TypeError, "truth value"),
        (lambda: 0 < x < 1, TypeError, "truth value"),
        (lambda: piecewise([], 1), ValueError, "at least one"),
        (lambda: piecewise([(untyped(True), x)], 1), TypeError, "comparisons"),
        (lambda: clip(x, 1, -1), ValueError, "lo <= hi"),
        (lambda: dense([[1, 2]], [0], "tanh", [x]), ValueError, r"shape \(1, 1\).*Got \(1, 2\)"),
        (lambda: dense([1, 2], [0], "tanh", [x]), ValueError, "2 dimensions"),
        (lambda: dense([[np.nan]], [0], "tanh", [x]), ValueError, "finite"),
        (lambda: dense([[1]], [0], "sigmoid", [x]), ValueError, "identity, tanh, relu"),
        (lambda: dense(np.zeros((0, 1)), [], "tanh", [x]), ValueError, "none zero"),
        (lambda: Element(Dense([[1]], [0], "tanh", [x]), 1), ValueError, r"\[0, 0\]"),
        (lambda: Element(untyped(x), 0), TypeError, "Dense"),
        (lambda: sin(Dense([[1]], [0], "tanh", [x])), TypeError, "Element"),
        (lambda: x + untyped("1"), TypeError, "unsupported"),
        (lambda: x + True, TypeError, "unsupported"),
        (lambda: x + untyped(np.ones(2)), TypeError, "does not support|unsupported"),
        (lambda: as_node(untyped(None)), TypeError, "real number"),
    ],
)
def test_wrong_use_is_refused_where_it_happens(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_numpy_scalars_are_numbers_on_either_side():
    assert np.float64(2.0) * x is 2.0 * x
    assert x + np.int64(3) is x + 3.0
    assert np.float32(0.5) - x is 0.5 - x
    assert x ** np.int64(2) is x**2
    assert (np.float64(1.0) < x) is (x > 1.0)


# ---- traversal


@fast
@given(form=maps())
def test_children_come_before_parents_and_nodes_once(form):
    order = topological(form.nodes)
    position = {node: index for index, node in enumerate(order)}
    assert len(position) == len(order)
    assert all(position[child] < position[node] for node in order for child in node.children)
    assert set(form.nodes) <= set(order)


def test_evaluation_order_does_not_depend_on_the_hash_seed():
    code = (
        "from sindyrl.expression import *\n"
        "x, v, w = (Variable(n) for n in 'xvw')\n"
        "print(to_list([sin(x * v) + w / (x - v), cos(w) * sin(x * v) + w**3]))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": s}, capture_output=True, check=True).stdout
        for s in ("0", "1", "12345")
    ]
    assert len(set(runs)) == 1
    assert b"sin" in runs[0]


def test_substitution_is_simultaneous():
    (swapped,) = substitute([x - 2 * v], {"x": v, "v": x})
    assert swapped is v - 2 * x
    (unchanged,) = substitute([x - 2 * v], {"w": Constant(1.0)})
    assert unchanged is x - 2 * v


@fast
@given(form=maps(exact=True), seed=seeds)
def test_substituting_a_value_is_evaluating_there(form, seed):
    point = points(seed, 1, extreme=False)[0]
    nodes = substitute(form.nodes, dict(zip(form.input_names, point, strict=True)))
    filled = SymbolicMap([], dict(zip(form.output_names, nodes, strict=True)))
    np.testing.assert_array_equal(bits(filled([])), bits(form(point)))


def test_variables_are_listed_in_order_of_first_use():
    assert variables([sin(v) + x, x * v]) == ["v", "x"]


@pytest.mark.parametrize("n", range(1, 40))
def test_the_multiplication_chain_is_a_power_with_few_factors(n):
    assert multiply_chain(1, n, lambda a, b: a + b) == n
    count = []
    multiply_chain(1, n, lambda a, b: count.append(1) or a + b)
    assert len(count) < 2 * n.bit_length()


def test_expanded_powers_share_their_squares():
    square, cube, inverse = expand_powers([Power(x, 2), Power(x, 3), Power(x, -1)])
    assert square is x * x
    assert cube is (x * x) * x
    assert inverse is Constant(1.0) / x


def test_deep_expressions_are_as_good_as_others():
    node = chain(LONG)
    assert len(topological([node])) == LONG + 2
    (slopes,) = differentiate([node], ["v"])
    assert slopes == [Constant(LONG)]
    assert len(topological(substitute([node], {"x": v}))) == LONG + 1
    del node, slopes  # freeing a deep chain must not overflow the stack either


# ---- derivatives


@pytest.mark.parametrize(
    ("build", "reference"),
    [
        (sin, mpmath.sin),
        (cos, mpmath.cos),
        (tan, mpmath.tan),
        (tanh, mpmath.tanh),
        (exp, mpmath.exp),
        (log, mpmath.log),
        (sqrt, mpmath.sqrt),
        (absolute, abs),
        (sign, mpmath.sign),
        (lambda a: -a, lambda a: -a),
        (lambda a: a**3, lambda a: a**3),
        (lambda a: a**-2, lambda a: a**-2),
        (lambda a: a**0, lambda a: mpmath.mpf(1)),
        (lambda a: a**1, lambda a: a),
        (lambda a: (a + 2) * (a - 3) / (a * a + 1), lambda a: (a + 2) * (a - 3) / (a * a + 1)),
        (lambda a: 1 / sin(a) - a, lambda a: 1 / mpmath.sin(a) - a),
        (lambda a: minimum(a * a, a + 1), lambda a: min(a * a, a + 1)),
        (lambda a: maximum(a * a, 3 * a), lambda a: max(a * a, 3 * a)),
        (
            lambda a: piecewise([(a < 1, a**2), (a < 2, sin(a))], 5),
            lambda a: a**2 if a < 1 else mpmath.sin(a) if a < 2 else 5,
        ),
        (lambda a: dense([[2.0]], [0.3], "tanh", [a**2])[0], lambda a: mpmath.tanh(2 * a**2 + mpmath.mpf(0.3))),
        (
            lambda a: dense([[2.0, -1.0]], [0.3], "relu", [a, sin(a)])[0],
            lambda a: max(2 * a - mpmath.sin(a) + mpmath.mpf(0.3), 0),
        ),
        (
            lambda a: dense([[2.0, 1.0], [1.0, 1.0]], [0.0, 1.0], "identity", [a**2, 4])[1],
            lambda a: a**2 + 5,
        ),
    ],
)
@pytest.mark.parametrize("at", [0.35, 1.7, 4.2])
def test_derivatives_agree_with_differences_in_fifty_digits(build, reference, at):
    slope = SymbolicMap(["x"], {"d": differentiate([build(x)], ["x"])[0][0]})
    with mpmath.workdps(50):
        expected = float(mpmath.diff(reference, mpmath.mpf(at)))
    np.testing.assert_allclose(slope([at]), [expected], rtol=1e-13, atol=1e-15)


@settings(fast, max_examples=4)
@given(nodes=st.lists(expressions(exact=True), min_size=16, max_size=16), seed=seeds)
def test_derivatives_agree_with_automatic_differentiation(nodes, seed):
    # Most random expressions have a slope of 0 or 1, hence many in each map.
    form = SymbolicMap(NAMES, {f"y{index}": node for index, node in enumerate(nodes)})
    point = points(seed, 1, extreme=False)[0]
    with jax.enable_x64(True):
        expected = np.asarray(jax.jacfwd(form.backend("jax"))(point)).ravel()
    jacobian = form.jacobian()
    got = jacobian(point)
    bounds = jacobian.interval({name: (value, value) for name, value in zip(form.input_names, point, strict=True)})
    width = np.array([high - low for low, high in bounds.values()])
    # where rounding cannot explain a difference; JAX splits ties of |x| at 0 its own way
    trusted = np.isfinite(expected) & np.isfinite(got) & (width <= 1e-9 * np.abs(got)) & (point != 0).all()
    np.testing.assert_allclose(got[trusted], expected[trusted], rtol=1e-6)


def test_derivatives_of_independent_names_are_zero_and_trivial_factors_disappear():
    assert differentiate([sin(x)], ["v"]) == [[Constant(0.0)]]
    assert differentiate([2 * x + v], ["x", "v"]) == [[Constant(2.0), Constant(1.0)]]
    assert differentiate([x**2], ["x"])[0][0] is 2.0 * x


def test_the_derivative_of_a_branch_not_taken_does_not_matter():
    slope = SymbolicMap(["x"], {"d": differentiate([piecewise([(x > 0, sqrt(x))], 0)], ["x"])[0][0]})
    np.testing.assert_array_equal(slope([[0.0], [-1.0], [4.0]]), [[0.0], [0.0], [0.25]])


# ---- node table


@fast
@given(form=maps())
def test_a_node_table_gives_back_the_same_nodes(form):
    table, rows = json.loads(json.dumps(to_list(form.nodes)))
    assert from_list(table, rows) == list(form.nodes)


@given(node=expressions(exact=True))
@fast
def test_a_table_has_one_row_per_node(node):
    table, _ = to_list([node])
    assert len(table) == len(topological([node]))


@pytest.mark.parametrize(
    ("table", "outputs", "message"),
    [
        ("x", [0], "lists"),
        ([["variable", "x"]], "0", "lists"),
        ([["variable", "x"]], [1], "1 does not refer"),
        ([["variable", "x"]], [-1], "-1 does not refer"),
        ([["variable", "x"]], [False], "false does not refer"),
        ([["variable", "x"]], [0.0], "0.0 does not refer"),
        ([["variable", "x"], ["add", 0, 1]], [1], "Row 1.*1 does not refer to an earlier row"),
        ([["variable", "x"], ["add", 0, 2], ["sin", 0]], [1], "Row 1.*2 does not refer"),
        ([["variable", "x"], ["add", 0]], [1], "add takes 2 values. Got 1"),
        ([["variable", "x"], ["sin", 0, 0]], [1], "sin takes 1 values. Got 2"),
        ([["variable", "x"], ["sin", False]], [1], "false does not refer"),
        ([["variable", "x"], ["eval", 0]], [1], 'operation "eval" is not known'),
        ([["variable", "x"], [["sin"], 0]], [1], "name of an operation"),
        ([{}], [0], "name of an operation"),
        ([[]], [0], "name of an operation"),
        ([["variable", "__import__('os')"]], [0], "identifier"),
        ([["variable", 3]], [0], "string"),
        ([["constant", True]], [0], "number is expected. Got true"),
        ([["constant", "1"]], [0], "number is expected"),
        ([["constant", None]], [0], "number is expected"),
        ([["constant", 2**53 + 1]], [0], "not exact"),
        ([["constant", 10**400]], [0], "not valid"),
        ([["constant", float("inf")]], [0], "finite"),
        ([["variable", "x"], ["power", 0, 2.0]], [1], "integer"),
        ([["variable", "x"], ["power", 0, True]], [1], "integer"),
        ([["variable", "x"], ["power", 0, 10**9]], [1], "1024"),
        ([["variable", "x"], ["lt", 0, 0]], [1], "comparison"),
        ([["variable", "x"], ["lt", 0, 0], ["sin", 1]], [2], "comparison"),
        ([["variable", "x"], ["piecewise", [], 0]], [1], "at least one"),
        ([["variable", "x"], ["piecewise", [[0, 0]], 0]], [1], "comparisons"),
        ([["variable", "x"], ["piecewise", [[0]], 0]], [1], "a condition and a value"),
        ([["variable", "x"], ["piecewise", 0, 0]], [1], "must be a list"),
        ([["variable", "x"], ["dense", [[1], [1, 2]], [0, 0], "tanh", [0]]], [1], "differ in length"),
        ([["variable", "x"], ["dense", [[1]], [0], 3, [0]]], [1], "activation"),
        ([["variable", "x"], ["dense", [[1]], [0], "tanh", [0, 0]]], [1], "shape"),
        ([["variable", "x"], ["dense", [[1]], [0], "tanh", [0]]], [1], "scalar"),
        ([["variable", "x"], ["element", 0, 0]], [1], "Dense"),
        ([["variable", "x"], ["dense", [[1]], [0], "tanh", [0]], ["element", 1, 1]], [2], r"\[0, 0\]"),
        ([["variable", "x"], ["dense", [], [], "tanh", [0]]], [1], "not valid|dimensions"),
    ],
)
def test_a_malformed_table_is_refused_with_the_row(table, outputs, message):
    with pytest.raises(MapFileError, match=message):
        from_list(table, outputs)


def test_comparison_and_piecewise_expose_their_parts():
    condition = x < v
    node = Piecewise([(condition, x), (v >= 1, v)], Constant(0.0))
    assert node.branches == ((condition, x), (v >= 1, v))
    assert node.default is Constant(0.0)
    assert (condition.op, condition.left, condition.right) == ("lt", x, v)
    assert isinstance(condition, Comparison)
    assert "Comparison('lt'" in repr(node)
