"""Text, LaTeX and C say what the expression computes; the C is what a careful person would write."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sindyrl.backends import c as c_backend
from sindyrl.emit import latex, text
from sindyrl.emit.c import Number, c_body, c_function, c_prototype, literal, math_functions
from sindyrl.emit.c_names import LocalNames
from sindyrl.emit.notation import TooLong
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
    maximum,
    minimum,
    piecewise,
    sign,
    sin,
    sqrt,
    tanh,
)
from sindyrl.symbolic_map import SymbolicMap
from tests.strategies import NAMES, bits, expressions, maps, points, seeds

x, v, theta = Variable("x"), Variable("v"), Variable("theta")
fast = settings(max_examples=30, deadline=None)
STRICT = [
    "-std=c99",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wdouble-promotion",
    "-Wshadow",
    "-pedantic",
    "-Werror",
]


def compile_strictly(code: str, tmp_path) -> None:
    file = tmp_path / "code.c"
    file.write_text(code, encoding="ascii")
    command = [
        *c_backend.find_compiler(),
        *STRICT,
        "-Wno-missing-prototypes",
        "-c",
        "-o",
        str(tmp_path / "code.o"),
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\n{code}"


def as_file(form: SymbolicMap, number: Number) -> str:
    outputs = dict(zip(form.output_names, form.nodes, strict=True))
    include = "#include <math.h>\n" if math_functions(form.nodes, number=number) else ""
    prototype = c_prototype(len(form.inputs), len(outputs), "f", number=number)
    return f"{include}{prototype};\n{c_function(form.input_names, outputs, 'f', number=number)}"


# ---- plain text


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (x + v + 2, "x + v + 2"),
        (x + (v + 2), "x + (v + 2)"),
        (x - (v - 2), "x - (v - 2)"),
        (x + -2.0 * v, "x - 2*v"),
        (x - -2.0 * v * x, "x + 2*v*x"),
        (x + -2.0, "x - 2"),
        (x + -v, "x - v"),
        (x - (-2.0 + v), "x - (-2 + v)"),
        (x + -2.0 / v, "x - 2/v"),
        (2 * (x * v), "2*(x*v)"),
        (2 * x * v, "2*x*v"),
        (x / (v * 2), "x/(v*2)"),
        (x / v * 2, "x/v*2"),
        (x * -2.0, "x*(-2)"),
        (-(x * v), "-(x*v)"),
        (-x * v, "-x*v"),
        (Unary("neg", -x), "-(-x)"),
        (-(x**2), "-x^2"),
        ((-x) ** 2, "(-x)^2"),
        ((x + 1) ** 3, "(x + 1)^3"),
        ((x**2) ** 3, "(x^2)^3"),
        (Constant(-2.0) ** 2, "(-2)^2"),
        (x**-2, "x^-2"),
        (sin(x) ** 2, "sin(x)^2"),
        (sin(x + v), "sin(x + v)"),
        (clip(x, -1, 1), "clip(x, -1, 1)"),
        (minimum(maximum(x, 1), -1), "min(max(x, 1), -1)"),
        (minimum(x, v) * 2, "min(x, v)*2"),
        (piecewise([(x < 0, -x), (x >= v, 2)], 1 + v), "piecewise(x < 0: -x, x >= v: 2, else: 1 + v)"),
        (dense([[1, 2]], [0], "tanh", [x, v])[0], "tanh_layer_1x2(x, v)[0]"),
        (absolute(x), "abs(x)"),
        (Constant(1e-12) * x, "1e-12*x"),
        (Constant(-0.0) + x, "-0 + x"),
        (0.1 + x + 0.2, "0.1 + x + 0.2"),
    ],
)
def test_text_has_the_parentheses_the_order_of_the_arithmetic_needs(node, expected):
    assert text.expression(node) == expected


@fast
@given(node=expressions(exact=True), seed=seeds)
def test_text_read_by_python_computes_the_same_bits(node, seed):
    """Python's parser is the second route: the printed formula, built again, gives the same values."""
    written = text.expression(node)
    if "layer" in written or "piecewise" in written:
        return
    numbers = r"(?<![\w.^])(?<!\^-)(\d+\.?\d*(?:e[+-]?\d+)?)"
    source = re.sub(numbers, r"Constant(\1)", written).replace("^", "**")
    names = {name: Variable(name) for name in NAMES if name != "sin"}
    functions = {"min": minimum, "max": maximum, "clip": clip, "sqrt": sqrt, "sign": sign, "abs": absolute}
    source = re.sub(r"\bsin\b", "sine", source)
    again = eval(source, {"Constant": Constant, "sine": Variable("sin"), **names, **functions})  # our own text
    inputs = points(seed, 30)
    expected = SymbolicMap(NAMES, {"y": node})(inputs)
    np.testing.assert_array_equal(bits(SymbolicMap(NAMES, {"y": again})(inputs)), bits(expected))


def test_precision_rounds_what_is_printed():
    assert text.expression(3.14159 * x + 1e-7, precision=3) == "3.14*x + 1e-07"
    assert text.expression(2.0 * x, precision=3) == "2*x"


def test_text_that_would_explode_is_refused():
    node: Node = x
    for _ in range(60):
        node = node + node
    with pytest.raises(TooLong, match="longer than 10000 characters"):
        text.expression(node, limit=10_000)


def test_a_deep_chain_is_written_in_linear_time():
    node: Node = x
    for _ in range(100_000):
        node = node + v
    assert len(text.expression(node)) == 1 + 4 * 100_000


# ---- LaTeX


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (4.5 * theta + Variable("x_1") ** 3, r"4.5\,\theta + x_{1}^{3}"),
        (x / (v + 1), r"\frac{x}{v + 1}"),
        ((x / v) ** 2, r"\left(\frac{x}{v}\right)^{2}"),
        (sqrt(x) * 2, r"\sqrt{x} \cdot 2"),
        (abs(x) - -2.0 * v, r"\left|x\right| + 2\,v"),
        (1e-12 * x, r"1 \cdot 10^{-12}\,x"),
        (sin(x + v), r"\sin\left(x + v\right)"),
        (Variable("theta_dot") + Variable("speed"), r"\dot{\theta} + \mathrm{speed}"),
        (Variable("x2"), "x_{2}"),
        (Variable("_"), r"\_"),
        (sign(x), r"\operatorname{sign}\left(x\right)"),
        (piecewise([(x <= 0, 1)], 2), r"\begin{cases} 1 & \text{if } x \le 0 \\ 2 & \text{otherwise} \end{cases}"),
    ],
)
def test_latex(node, expected):
    assert latex.latex(node) == expected


@fast
@given(node=expressions())
def test_latex_is_balanced(node):
    written = latex.latex(node)
    assert written.count(r"\left") == written.count(r"\right")
    assert written.count("{") == written.count("}")


# ---- C


def test_the_c_of_a_policy_reads_as_if_written_by_hand():
    names = ("x", "theta", "v", "w")
    p, q, r, s = (Variable(name) for name in names)
    terms = [(-0.1, p), (2.0, q), (0.5, r), (-1.25, s), (1e-3, q**3), (-0.7, p * q**2), (0.3, s**3), (0.2, p * r * s)]
    total: Node = terms[0][0] * terms[0][1]
    for coefficient, term in terms[1:]:
        total = total + coefficient * term
    assert c_function(names, {"u": clip(total, -1, 1)}, "policy") == (
        "void policy(const float state[4], float out[1]) {\n"
        "    const float x = state[0];\n"
        "    const float theta = state[1];\n"
        "    const float v = state[2];\n"
        "    const float w = state[3];\n"
        "    const float theta_sq = theta*theta;\n"
        "    const float u = -0.1f*x + 2.0f*theta + 0.5f*v - 1.25f*w + 0.001f*(theta_sq*theta) - 0.7f*(x*theta_sq)\n"
        "        + 0.3f*(w*w*w) + 0.2f*(x*v*w);\n"
        "    out[0] = u > -1.0f ? (u < 1.0f ? u : 1.0f) : -1.0f;\n"
        "}\n"
    )


def test_layers_become_tables_and_loops():
    hidden = dense([[1.0, 2.0], [3.0, 4.0]], [0.5, -0.5], "tanh", [x, v])
    code = c_function(["x", "v"], {"u": dense([[1.0, -1.0]], [0.0], "identity", hidden)[0]}, "net")
    assert "static const float layer_weight[2][2] = {{1.0f, 2.0f}, {3.0f, 4.0f}};" in code
    assert "total_2 += layer_2_weight[row_2][col_2]*layer[col_2];" in code  # the first layer is read in place
    assert code.count("_in[") == 2  # declared and read once
    assert "out[0] = layer_2[0];" in code


@settings(fast, max_examples=12)
@given(form=maps())
@pytest.mark.parametrize("number", ["float32", "float64"])
def test_c_compiles_without_a_warning(number, form, tmp_path_factory):
    compile_strictly(as_file(form, number), tmp_path_factory.mktemp("c"))


@settings(fast, max_examples=20)
@given(form=maps(exact=True, outputs=4), seed=seeds)
def test_input_and_output_may_be_the_same_array(form, seed):
    """Because every input is read before any output is written."""
    lines = c_body(form.input_names, dict(zip(form.output_names, form.nodes, strict=True)))
    first_write = next(index for index, line in enumerate(lines) if line.lstrip().startswith("out["))
    assert not any("state[" in line for line in lines[first_write:])


def test_pow_and_double_never_appear_in_float32_code():
    form = SymbolicMap(["x"], {"y": x**7 + exp(x) / tanh(x) + sqrt(absolute(x)) + 0.1 + sign(x) + minimum(x, 0.3)})
    code = as_file(form, "float32")
    assert "pow" not in code
    assert "double" not in code
    assert not re.search(
        r"\d\.?\d*(e[-+]?\d+)?(?![\d.fe\]])", code.split("{", 1)[1].replace("state[0]", "").replace("out[0]", "")
    )
    assert math_functions(form.nodes) == ["expf", "fabsf", "sqrtf", "tanhf"]
    assert math_functions(form.nodes, number="float64") == ["exp", "fabs", "sqrt", "tanh"]


def test_shared_parts_are_computed_once():
    part = sin(x) * cos(v)
    code = c_function(["x", "v"], {"a": part + part**2, "b": part / (1 + part)}, "f")
    assert code.count("sinf(") == 1
    assert code.count("cosf(") == 1


@fast
@given(form=maps())
def test_c_is_the_same_text_every_time(form):
    assert as_file(form, "float32") == as_file(SymbolicMap.from_json(form.to_json()), "float32")


@pytest.mark.parametrize(
    "names",
    [
        ("double", "float", "for", "restrict", "inline", "_Bool"),
        ("sin", "sinf", "pow", "y0", "gamma", "log2", "abs"),
        ("state", "out", "f", "evaluate_row", "layer", "total", "row", "col"),
        ("I", "NULL", "INFINITY", "NAN", "M_PI", "errno", "unix", "linux", "assert"),
        ("class", "new", "this", "template", "operator"),
        ("x", "X", "x_2", "X_2", "x_sq", "sin_x", "t", "t_2", "u"),
        ("_x", "__x", "_X", "_", "__", "vx", "v_x"),
        ("int32_t", "size_t", "bool", "true", "PI", "HIGH", "A0", "F", "min", "map"),
        tuple("x" * 70 + letter for letter in "abc"),
        ("state_", "sin_", "for_", "for_2", "double_"),
    ],
)
def test_any_variable_name_gives_c_that_compiles_and_agrees(names, tmp_path):
    total: Node = Constant(0.5)
    for index, name in enumerate(names):
        total = total * sin(Variable(name)) + float(index) * Variable(name) ** 2
    form = SymbolicMap(names, {"u": clip(total, -1, 1), "w": total})
    header = "#include <complex.h>\n#include <errno.h>\n#include <limits.h>\n#include <math.h>\n#include <stdbool.h>\n"
    header += "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <assert.h>\n"
    compile_strictly(header + as_file(form, "float32"), tmp_path)
    inputs = points(2, 20, n_inputs=len(names), extreme=False)
    np.testing.assert_allclose(form.backend("c")(inputs), form(inputs), rtol=1e-12, atol=1e-13)


@settings(fast, max_examples=300)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_literal_is_the_shortest_that_reads_back(value):
    written = literal(value, "float32")
    assert written.endswith("f")
    assert bits(np.array([np.float32(written[:-1])])) == bits(np.array([np.float32(value)]))
    digits = re.sub(r"e.*|[-.]", "", written[:-1]).strip("0")
    if digits and value != 0:
        shorter = f"{value:.{max(len(digits) - 1, 1)}g}"
        assert len(digits) == 1 or np.float32(shorter) != np.float32(value)


@settings(fast, max_examples=300)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float64_literal_reads_back(value):
    assert bits(np.array([float(literal(value, "float64"))])) == bits(np.array([value]))


def test_literals_of_known_constants():
    assert [literal(value, "float32") for value in (4.76, 0.1, 2.0, 1e-12, 1e20, -0.0, 16777216.0)] == [
        *("4.76f", "0.1f", "2.0f", "1e-12f", "1e+20f", "-0.0f"),
        "16777216.0f",
    ]
    assert literal(0.1, "float64") == "0.1"


def test_c_refuses_what_it_cannot_write():
    with pytest.raises(ValueError, match="range of float32"):
        c_function(["x"], {"y": 1e39 * x}, "f")
    with pytest.raises(ValueError, match="'v', which is not an input"):
        c_function(["x"], {"y": v}, "f")
    with pytest.raises(ValueError, match=r"reserved in C\. Got 'double'"):
        c_function(["x"], {"y": x}, "double")
    with pytest.raises(ValueError, match="identifier"):
        c_function(["x"], {"y": x}, "f;")
    with pytest.raises(ValueError, match="float32, float64"):
        c_function(["x"], {"y": x}, "f", number="float16")


def test_long_and_deep_expressions_are_cut_into_statements(tmp_path):
    total, nested, steps = Constant(0.5) * x, x, v
    for index in range(800):
        total = total + float(index) * v * x
    for index in range(300):
        nested = sin(nested * 1.5 + float(index))
        steps = piecewise([(x < float(index), Constant(float(index)))], steps)
    form = SymbolicMap(["x", "v"], {"a": total, "b": nested, "c": steps})
    code = as_file(form, "float64")
    assert max(map(len, code.splitlines())) <= 120
    compile_strictly(code, tmp_path)
    inputs = points(4, 10, n_inputs=2, extreme=False)
    np.testing.assert_array_equal(form.backend("c")(inputs)[:, [0, 2]], form(inputs)[:, [0, 2]])


def test_local_names_never_repeat_even_without_case():
    names = LocalNames(["state"])
    given_out = [names.new(wish) for wish in ["x", "X", "x", "state", "sin", "sin_", "x_2", "for", "t", "t"]]
    assert len({name.lower() for name in given_out}) == len(given_out)
    assert given_out[0] == "x"


def test_unused_inputs_are_not_declared_and_no_input_is_no_warning(tmp_path):
    code = as_file(SymbolicMap(["x", "v"], {"y": Constant(1.0)}), "float32")
    assert "(void)state;" in code
    compile_strictly(code, tmp_path)
    assert "const float x" not in as_file(SymbolicMap(["x", "v"], {"y": v}), "float32")


def test_powers_share_their_squares_with_products():
    code = c_function(["x"], {"a": Power(x, 4), "b": Power(x, 3), "c": Unary("sin", x * x)}, "f")
    assert code.count("x*x") == 1
    assert "x_sq*x_sq" in code
    assert "x_sq*x;" in code
