"""The same map as C by SymPy and by CasADi, each in the forms a user of it may choose; the best is measured.

SymPy 64 : `sympy.utilities.codegen.codegen`, C99, as its documentation shows it: double, `pow`, no sharing.
SymPy 32 : `cse`, and the C99 printer with `real` as `float32`, taught to print powers as products (SymPy's own
    rewriting of powers fails inside of Min and Max); its limits are `fminf` and `fmaxf`. An expert's form writes these
    by hand.
CasADi : `CodeGenerator` with a header, `casadi_real` float or double, after `cse`; limits by `if_else` or by `fmin` and
    `fmax`; layers of a network unrolled (SX), or as matrix products (MX).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.backends import casadi as casadi_backend
from sindyrl.export.fixed_point import FixedPlan, dequantize, quantize
from sindyrl.node import Binary, Dense, Element, Node
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.traversal import expand_powers, topological

SYMPY_MOST_TERMS = 20_000
"""Nodes of the expression written out without sharing, beyond which SymPy's plain form is not attempted."""


@dataclasses.dataclass(frozen=True)
class Code:
    """C of one map by one generator.

    files : name -> text, of which one is ``source``      function : what is counted, from its entry to its return
    entry : ``void entry(const T *in, T *out)`` that calls it; the same as ``function``, or defined in ``shim``
    number : float32, float64, or int32 with the ``plan`` of its scales
    variant : which of the generator's forms this is      seconds : to generate
    """

    files: dict[str, str]
    source: str
    function: str
    entry: str
    number: str
    shim: str = ""
    variant: str = ""
    seconds: float = 0.0
    plan: FixedPlan | None = None

    def encode(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Inputs (vector, input) as the code takes them."""
        return inputs.astype(self.number) if self.plan is None else quantize(self.plan, inputs.astype(np.float64))

    def decode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs (vector, output) of the code in their units."""
        return outputs if self.plan is None else dequantize(self.plan, outputs)


class Infeasible(RuntimeError):
    """The generator cannot make code of this map in reasonable time; the text says why."""


# ---- SymPy


def sympy_double(form: SymbolicMap) -> Iterator[Code]:
    """The documented way. Several outputs become pointers, one is returned."""
    import sympy
    from sympy.utilities.codegen import codegen

    size = written_out(form)
    if size > SYMPY_MOST_TERMS:
        raise Infeasible(f"{size:.3g} operations when written out without sharing, which codegen does")
    begin = time.perf_counter()
    symbols = [sympy.Symbol(name, real=True) for name in form.input_names]
    values = list(form.sympy().values())
    single = len(values) == 1
    results = [sympy.Symbol(f"result_{index}") for index in range(len(values))]
    body = values[0] if single else [sympy.Eq(name, value) for name, value in zip(results, values, strict=True)]
    arguments = symbols if single else [*symbols, *results]
    (source, text), (header, declarations) = codegen(
        ("peer", body), "C99", "peer", header=False, empty=False, argument_sequence=arguments
    )
    inputs = [f"in[{index}]" for index in range(len(symbols))]
    call = f"out[0] = peer({', '.join(inputs)});"
    if not single:
        call = f"peer({', '.join([*inputs, *(f'&out[{index}]' for index in range(len(values)))])});"
    shim = f'#include "{header}"\nvoid entry(const double *in, double *out);\n'
    shim += f"void entry(const double *in, double *out) {{ {call} }}\n"
    yield Code({source: text, header: declarations}, source, "peer", "entry", "float64", shim, "codegen", _since(begin))


def sympy_float(form: SymbolicMap) -> Iterator[Code]:
    """Float32 by `cse` and the C99 printer; limits as it prints them, `fminf` and `fmaxf`."""
    return _sympy_printed(form, "fminf", "fmaxf", "cse")


def sympy_expert(form: SymbolicMap) -> Iterator[Code]:
    """The same with limits as conditional expressions, written by the user: they let a NaN through."""
    return _sympy_printed(form, "least", "most", "cse, limits written by hand")


def _sympy_printed(form: SymbolicMap, least: str, most: str, variant: str) -> Iterator[Code]:
    import sympy

    begin = time.perf_counter()
    shared, results = sympy.cse(list(form.sympy().values()), symbols=sympy.numbered_symbols("shared"))
    line = _float_printer(least, most).doprint
    head = ["#include <math.h>", '#include "peer.h"']
    if least != "fminf" and any(value.has(sympy.Min, sympy.Max) for value in [*dict(shared).values(), *results]):
        head += [
            f"static float {name}(float a, float b) {{ return a {sign} b ? a : b; }}"
            for name, sign in ((least, "<"), (most, ">"))
        ]
    elif least != "fminf":
        raise Infeasible("no limits in this map: the same as sympy float32")
    lines = [f"    const float {name} = in[{index}];" for index, name in enumerate(form.input_names)]
    for name, value in shared:
        lines.append(f"    const {'int' if value.is_Relational else 'float'} {name} = {line(value)};")
    lines += [f"    out[{index}] = {line(value)};" for index, value in enumerate(results)]
    text = "\n".join([*head, "void peer(const float *in, float *out) {", *lines, "}", ""])
    files = {"peer.c": text, "peer.h": "void peer(const float *in, float *out);\n"}
    yield Code(files, "peer.c", "peer", "peer", "float32", variant=variant, seconds=_since(begin))


def _float_printer(least: str, most: str) -> Any:
    """SymPy's C99 printer in float32, powers multiplied out, Min and Max by these functions of two arguments."""
    import sympy
    from sympy.codegen.ast import float32, real
    from sympy.printing.c import C99CodePrinter
    from sympy.printing.precedence import PRECEDENCE

    class Printer(C99CodePrinter):
        def _print_Pow(self, expr: Any) -> str:
            base, exponent = expr.args
            if exponent.is_Integer and 1 < abs(int(exponent)) <= 16:
                product = "*".join([self.parenthesize(base, PRECEDENCE["Atom"])] * abs(int(exponent)))
                return f"({product})" if exponent > 0 else f"(1.0F/({product}))"
            if exponent == -sympy.S.Half:
                return f"(1.0F/sqrtf({self._print(base)}))"
            return str(super()._print_Pow(expr))

        def _chain(self, function: str, values: Sequence[Any]) -> str:
            text = self._print(values[0])
            for value in values[1:]:
                text = f"{function}({text}, {self._print(value)})"
            return str(text)

        def _print_Min(self, expr: Any) -> str:
            return self._chain(least, expr.args)

        def _print_Max(self, expr: Any) -> str:
            return self._chain(most, expr.args)

    return Printer({"type_aliases": {real: float32}})


def written_out(form: SymbolicMap) -> float:
    """Operations of a map as a tree, every shared part as often as it is used."""
    size: dict[Node, float] = {}
    for node in topological(form.nodes):
        if isinstance(node, Dense):  # one row: an element costs the arguments once
            size[node] = 2.0 * len(node.children) + sum(size[child] for child in node.children)
        else:
            size[node] = 1.0 + sum(size[child] for child in node.children)
    return sum(size[node] for node in form.nodes)


# ---- CasADi


def casadi_code(real: str) -> Callable[[SymbolicMap], Iterator[Code]]:
    """Generator of the forms for ``casadi_real`` = ``float`` or ``double``."""

    def make(form: SymbolicMap) -> Iterator[Code]:
        import casadi

        for variant, build in _casadi_functions(form):
            begin = time.perf_counter()
            function = build()
            generator = casadi.CodeGenerator("peer", {"with_header": True, "casadi_real": real})
            generator.add(function)
            text = generator.dump()
            header = f"#define casadi_real {real}\n#define casadi_int long long int\n"
            header += "int peer(const casadi_real **arg, casadi_real **res, casadi_int *iw, casadi_real *w, int mem);\n"
            sizes = (function.sz_arg(), function.sz_res(), function.sz_iw(), function.sz_w())
            arguments, results, integers, reals = (max(size, 1) for size in sizes)
            shim = f"""#include "peer.h"
void entry(const casadi_real *in, casadi_real *out);
void entry(const casadi_real *in, casadi_real *out) {{
    const casadi_real *arg[{arguments}];
    casadi_real *res[{results}];
    casadi_int iw[{integers}];
    casadi_real w[{reals}];
    arg[0] = in;
    res[0] = out;
    peer(arg, res, iw, w, 0);
}}
"""
            number = "float32" if real == "float" else "float64"
            yield Code(
                {"peer.c": text, "peer.h": header}, "peer.c", "peer", "entry", number, shim, variant, _since(begin)
            )

    return make


def _casadi_functions(form: SymbolicMap) -> Iterator[tuple[str, Callable[[], Any]]]:
    import casadi

    nodes = topological(form.nodes)

    def scalar(limits: bool) -> Callable[[], Any]:
        def build() -> Any:
            inputs = casadi.SX.sym("inputs", len(form.inputs))
            symbols = dict(zip(form.input_names, casadi.vertsplit(inputs), strict=True))
            results = _values(form, symbols, limits=limits, matrices=False)
            return casadi.Function("peer", [inputs], [casadi.cse(casadi.vertcat(*results))])

        return build

    yield "SX, if_else", scalar(False)
    if any(isinstance(node, Binary) and node.op in ("min", "max") for node in nodes):
        yield "SX, fmin and fmax", scalar(True)
    if any(isinstance(node, Dense) for node in nodes):

        def matrices() -> Any:
            inputs = casadi.MX.sym("inputs", len(form.inputs))
            symbols = dict(zip(form.input_names, casadi.vertsplit(inputs), strict=True))
            return casadi.Function(
                "peer", [inputs], [casadi.vertcat(*_values(form, symbols, limits=False, matrices=True))]
            )

        yield "MX, matrix products", matrices


def _values(form: SymbolicMap, symbols: dict[str, Any], *, limits: bool, matrices: bool) -> list[Any]:
    import casadi

    outputs = expand_powers(form.nodes)
    values: dict[Node, Any] = {}
    for node in topological(outputs):
        children = [values[child] for child in node.children]
        if limits and isinstance(node, Binary) and node.op in ("min", "max"):
            values[node] = (casadi.fmin if node.op == "min" else casadi.fmax)(*children)
        elif matrices and isinstance(node, Dense):
            first = node.children[0]
            whole = isinstance(first, Element) and len(first.dense.bias) == len(children)
            argument = values[first.dense] if whole and isinstance(first, Element) else casadi.vertcat(*children)
            total = casadi.mtimes(casadi.DM(node.matrix), argument) + casadi.DM(node.bias)
            values[node] = casadi.tanh(total) if node.activation == "tanh" else total
        else:
            values[node] = casadi_backend._evaluate(node, children, symbols)
    return [values[node] for node in outputs]


def _since(begin: float) -> float:
    return time.perf_counter() - begin
