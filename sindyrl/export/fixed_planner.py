"""From the nodes of a map to the instructions of a fixed-point program."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from fractions import Fraction

from sindyrl.emit import text as plain_text
from sindyrl.emit.notation import TooLong, clip_parts
from sindyrl.export.fixed_functions import FUNCTIONS, function, layer
from sindyrl.export.fixed_numbers import Linear, NoScale, Value
from sindyrl.export.fixed_segments import TableTooLarge
from sindyrl.export.fixed_surface import surface_gap
from sindyrl.export.fixed_values import Builder
from sindyrl.interval import interval
from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Unary, Variable
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.traversal import expand_powers, topological

_NARROWER = "Narrow the ranges of the inputs, or export in float32."


class Planner:
    """One pass over the nodes in evaluation order."""

    def __init__(self, form: SymbolicMap, bits: int, ranges: Mapping[str, tuple[float, float]] | None) -> None:
        self.form, self.bits = form, bits
        unknown = [name for name in ranges or {} if name not in form.input_names]
        if unknown:
            raise ValueError(f"`plan(ranges=...)` must be among {list(form.input_names)}. Got {unknown}.")
        self.inputs = tuple(_with_range(signal, (ranges or {}).get(signal.name)) for signal in form.inputs)
        self.ranges = {signal.name: (signal.lower, signal.upper) for signal in self.inputs}
        self.builder = Builder(bits, form.input_names)
        self.roots = expand_powers(form.nodes)
        self.order = topological(self.roots)
        self.uses = dict.fromkeys(self.order, 0)
        for node in self.order:
            for child in node.children:
                self.uses[child] += 1
        self.wishes = dict(zip(self.roots, form.output_names, strict=True))
        self.reads: list[Value] = []
        self.forms: dict[Node, Linear] = {}
        self.layers: dict[Node, list[Value]] = {}

    def outputs(self) -> tuple[list[Value], list[str]]:
        """Registers of the outputs, and the names of those that saturate."""
        for index, signal in enumerate(self.inputs):
            self.builder.wish = signal.name
            self.reads.append(self.builder.read(index, signal.lower, signal.upper))
        for signal, read in zip(self.inputs, self.reads, strict=True):
            self.forms[Variable(signal.name)] = Linear({read: Fraction(1)})
        for node in self.order:
            self._visit(node)
        outputs, saturated = [], []
        for signal, node in zip(self.form.outputs, self.roots, strict=True):
            value, limited = self._guarded(node, lambda s=signal, n=node: self._output(s, n))
            outputs.append(value)
            saturated += [signal.name] * limited
        return outputs, saturated

    def _output(self, signal: Signal, node: Node) -> tuple[Value, bool]:
        form = self.forms[node]
        low, high = max(form.lower, _fraction(signal.lower)), min(form.upper, _fraction(signal.upper))
        self.builder.wish = signal.name
        if form.lower >= low and form.upper <= high:
            return self.builder.narrow(form), False
        low, high = min(low, _fraction(signal.upper)), max(high, _fraction(signal.lower))
        return self.builder.clamp(form, low, high), True

    def _visit(self, node: Node) -> None:
        if isinstance(node, (Variable, Comparison)):
            return  # a comparison is computed by the piecewise that asks
        self.builder.wish = self.wishes.get(node, "")
        if isinstance(node, Dense):
            arguments = [self.builder.narrow(self.forms[child]) for child in node.children]
            self.layers[node] = self._guarded(node, lambda: layer(self.builder, node, arguments))
            return
        form = self._guarded(node, lambda: self._form(node))
        sums = isinstance(node, Binary) and len(form.terms) > 1
        if sums and self.uses[node] > 1:
            form = Linear({self._guarded(node, lambda: self.builder.narrow(form)): Fraction(1)})
        self.forms[node] = form

    def _guarded(self, node, compute):  # type: ignore[no-untyped-def]
        try:
            return compute()
        except (NoScale, TableTooLarge) as error:
            raise ValueError(f"{self._where(node)} has no fixed-point form: {error}. {_NARROWER}") from None

    def _where(self, node: Node) -> str:
        """``plan: y/x, where y in [0, 1], x in [-1, 1],``."""
        shown = node if not isinstance(node, Dense) else Element(node, 0)
        parts = [
            f"{_text(child)} in [{_outward(self.forms[child].lower, down=True):.6g}, "
            f"{_outward(self.forms[child].upper, down=False):.6g}]"
            for child in node.children
            if child in self.forms and not isinstance(child, Constant)
        ]
        where = f" with {', '.join(parts[:3])}" if parts else ""
        return f"`plan`: the expression {_text(shown)}{where}"

    def _form(self, node: Node) -> Linear:
        if isinstance(node, Constant):
            return Linear({}, Fraction(node.value))
        if isinstance(node, Element):
            return self._single(self.layers[node.dense][node.index])
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Piecewise):
            return self._piecewise(node)
        assert isinstance(node, Binary)
        clipped = clip_parts(node)
        if clipped:
            x, low, high = clipped
            return self._single(self.builder.clamp(self.forms[x], Fraction(low.value), Fraction(high.value)))
        a, b = self.forms[node.left], self.forms[node.right]
        if node.op in ("add", "sub"):
            return a.plus(b if node.op == "add" else b.times(Fraction(-1)))
        if node.op == "mul":
            return self._product(node, a, b)
        if node.op == "div":
            return self._quotient(node, a, b)
        return self._extreme(node.op, a, b)

    def _extreme(self, op: str, a: Linear, b: Linear) -> Linear:
        """min or max; the one side where the ranges leave no choice."""
        for one, other in ((a, b), (b, a)):
            if one == other or (one.upper <= other.lower if op == "min" else one.lower >= other.upper):
                return one
        return self._single(self.builder.extreme(op, a, b))

    @staticmethod
    def _single(value: Value) -> Linear:
        if value.lower == value.upper:
            return Linear({}, value.lower)
        return Linear({value: Fraction(1)})

    def _factor(self, form: Linear) -> tuple[Fraction, Value]:
        """A form as factor times value."""
        if len(form.terms) == 1 and not form.offset:
            ((value, factor),) = form.terms.items()
            return factor, value
        return Fraction(1), self.builder.narrow(form)

    def _product(self, node: Binary, a: Linear, b: Linear) -> Linear:
        for constant, other in ((a, b), (b, a)):
            if not constant.terms:
                return other.times(constant.offset)
        (left, x), (right, y) = self._factor(a), self._factor(b)
        lower, upper = self._range(node, Binary("mul", _X, _X if x == y else _Y), x, y)
        self._name(node, f"{self.builder.label(x)}_{self.builder.label(y)}", x, y)
        return self._single(self.builder.product(x, y, lower, upper)).times(left * right)

    def _quotient(self, node: Binary, a: Linear, b: Linear) -> Linear:
        if not b.terms:
            if b.offset == 0:
                raise ValueError(f"{self._where(node)} divides by zero. Remove it.")
            return a.times(1 / b.offset)
        factor, y = self._factor(b)
        numerator = Value(0, 0, a.lower, a.upper, Fraction(0))
        lower, upper = self._range(node, Binary("div", _X, _Y), numerator, y)
        return self._single(self.builder.quotient(a, y, lower, upper)).times(1 / factor)

    def _unary(self, node: Unary) -> Linear:
        a = self.forms[node.arg]
        if node.op == "neg":
            return a.times(Fraction(-1))
        probe = Value(0, 0, a.lower, a.upper, Fraction(0))
        lower, upper = self._range(node, Unary(node.op, _X), probe)
        if lower == upper:
            return Linear({}, lower)
        if not a.terms:
            return Linear({self.builder.constant(lower, upper): Fraction(1)})
        if node.op == "sign":
            wide = self.builder.wide(a)
            return self._single(self.builder.sign(wide, Fraction(2 if wide.error else 0)))
        x = self.builder.narrow(a)
        self._name(node, f"{node.op}_{self.builder.label(x)}", x)
        if node.op == "abs":
            return self._single(self.builder.absolute(x))
        if node.op == "sqrt":
            return self._single(self.builder.root(x))
        assert node.op in FUNCTIONS
        return self._single(function(self.builder, node.op, x, lower, upper))

    def _name(self, node: Node, wish: str, *operands: Value) -> None:
        """``x_x`` for x*x, ``sin_theta``: a wish for the local in C, unless the node is an output or it gets long."""
        if node not in self.wishes:
            known = all(self.builder.label(operand) for operand in operands)
            self.builder.wish = wish if known and len(wish) <= _LONGEST_WISH else ""

    def _range(self, node: Node, operation: Node, *operands: Value) -> tuple[Fraction, Fraction]:
        """Bounds of an operation on operands in their ranges; ValueError where it is undefined or infinite."""
        spans = [(_outward(operand.lower, down=True), _outward(operand.upper, down=False)) for operand in operands]
        boxes = dict(zip(("x", "y"), spans, strict=False))
        ((low, high),) = interval([operation], boxes)
        if math.isfinite(low) and math.isfinite(high):
            return Fraction(low), Fraction(high)
        remedy = _REMEDY.get(getattr(operation, "op", ""), "")
        raise ValueError(f"{self._where(node)} is not bounded. {remedy}{_NARROWER}")

    def _piecewise(self, node: Piecewise) -> Linear:
        conditions = [condition for condition, _ in node.branches]
        branches = [*(value for _, value in node.branches), node.default]
        tests, doubts = [], []
        for condition in conditions:
            wide = self.builder.wide(self.forms[condition.left].plus(self.forms[condition.right].times(Fraction(-1))))
            tests.append((condition.op, wide))
            doubts.append(wide.error)

        def error(values: list[Value]) -> Fraction:
            bound = max(value.error for value in values)
            for i, condition in enumerate(conditions):
                if not doubts[i]:
                    continue
                difference = Binary("sub", condition.left, condition.right)
                doubt = _outward(doubts[i], down=False)
                for j in range(i + 1, len(branches)):
                    gap = surface_gap(difference, doubt, branches[i], branches[j], self.ranges)
                    if math.isinf(gap) and gap > 0.0:
                        raise NoScale("its branches have no bounded gap where rounding may decide between them")
                    if gap >= 0.0:
                        bound = max(bound, Fraction(gap) + max(values[i].error, values[j].error))
            return bound

        return self._single(self.builder.select(tests, [self.forms[branch] for branch in branches], error))


_LONGEST_WISH = 24
_X, _Y = Variable("x"), Variable("y")
_REMEDY = {
    "div": "Its denominator must stay away from 0: guard it, as in maximum(d, 0.1). ",
    "log": "Its argument must stay above 0: guard it, as in maximum(a, 0.01). ",
    "sqrt": "Its argument must not be negative: guard it, as in maximum(a, 0). ",
    "tan": "Its argument must stay away from the poles: clip it. ",
}


def _with_range(signal: Signal, pair: tuple[float, float] | None) -> Signal:
    """The signal with the range that the plan takes, which must be finite."""
    lower, upper = (signal.lower, signal.upper) if pair is None else map(float, pair)
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise ValueError(
            f"`plan`: the input {signal.name!r} needs a finite range for fixed point, such as "
            f'`Signal({signal.name!r}, lower=-1.0, upper=1.0)` or `ranges={{"{signal.name}": (-1.0, 1.0)}}`. '
            f"Got [{lower}, {upper}]."
        )
    return Signal(signal.name, signal.unit, lower, upper)


def _fraction(x: float) -> Fraction:
    """A float, with the infinities as numbers beyond all others."""
    return Fraction(x) if math.isfinite(x) else Fraction(2) ** 2000 * (1 if x > 0 else -1)


def _outward(x: Fraction, *, down: bool) -> float:
    """The float64 at or beyond x."""
    try:
        near = float(x)
    except OverflowError:
        near = math.inf if x > 0 else -math.inf
    if math.isinf(near):
        return near if (near < 0) == down else math.copysign(sys.float_info.max, near)
    if (Fraction(near) > x) if down else (Fraction(near) < x):
        near = math.nextafter(near, -math.inf if down else math.inf)
    return near


def _text(node: Node) -> str:
    try:
        shown = plain_text.expression(node, precision=6)
    except TooLong:
        return "(too long to print)"
    return shown if len(shown) <= 120 else shown[:117] + "..."
