"""Nodes of the closed-form language: what every map, model, policy and exported function is made of.

A node is immutable and *interned*: two structurally equal nodes are the same object, so ``a is b`` is structural
equality, hashing is O(1), and a sub-expression written twice is stored and evaluated once. Constructors never
simplify: ``0 + x`` stays ``0 + x``, because the stored arithmetic is what is simulated, printed, saved and shipped.

Meaning of the operations, the same in every back end (IEEE 754, round to nearest):

* ``log(-1)`` is NaN, ``1/0`` is an infinity; nothing raises.
* ``sign(x)`` is ``x > 0 ? 1 : (x < 0 ? -1 : x)``: zero of either sign and NaN are returned as they came.
* ``minimum(a, b)`` is ``a < b ? a : b`` and ``maximum(a, b)`` is ``a > b ? a : b``. A NaN in either argument makes the
  comparison false, so the *second* argument is returned; ``clip(NaN, lo, hi)`` is therefore ``lo``.
* ``x**n`` is a fixed chain of multiplications, see :func:`sindyrl.traversal.multiply_chain`; ``x**0`` is 1 for every x.
* ``Dense`` sums from the bias, left to right: ``((b + w0*a0) + w1*a1) + ...``; relu is ``z > 0 ? z : 0``.

All traversals are loops, never recursion: an expression 100,000 levels deep is as good as any other.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNARY_OPS = ("neg", "sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "abs", "sign")
BINARY_OPS = ("add", "sub", "mul", "div", "min", "max")
COMPARISON_OPS = ("lt", "le", "gt", "ge")
ACTIVATIONS = ("identity", "tanh", "relu")
MAX_EXPONENT = 1024
MAX_NAME_LENGTH = 128

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_N = TypeVar("_N", bound="Node")

# Keys hold the ids of children. An id stays valid while the entry lives, because the interned node holds its children.
_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_interning = threading.RLock()  # re-entrant: garbage collection inside the lock may run code that builds nodes


def _intern(cls: type[_N], content: tuple[Any, ...], children: tuple[Node, ...], **fields: object) -> _N:
    """Return the one node of this class with this content and these children."""
    key = (cls, content, tuple(map(id, children)))
    with _interning:
        node = _interned.get(key)
        if node is None:
            node = object.__new__(cls)
            object.__setattr__(node, "children", children)
            for field, value in fields.items():
                object.__setattr__(node, field, value)
            _interned[key] = node
    return node  # type: ignore[return-value]


class Node:
    """Base of all nodes. ``children`` are the nodes it is computed from, in evaluation order.

    ``+ - * / **``, unary minus and ``abs`` build nodes; ``< <= > >=`` build a :class:`Comparison` for
    ``piecewise``. ``==`` is identity, which interning makes structural equality. Numbers become constants.
    """

    __slots__ = ("__weakref__", "children")
    children: tuple[Node, ...]
    __array_ufunc__ = None  # numpy scalars defer to our reflected operators

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"`{type(self).__name__}` is immutable: cannot set `{name}`.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"`{type(self).__name__}` is immutable: cannot delete `{name}`.")

    def with_children(self, children: Sequence[Node]) -> Node:
        """The same operation on other children (leaves return themselves)."""
        return self

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: object) -> Node:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Nodes are not pickled: put them in a `SymbolicMap`, which is (as its JSON text).")

    def __repr__(self) -> str:
        return _short_repr(self, levels=4)

    def __add__(self, other: Node | float) -> Node:
        return _binary("add", self, other)

    def __radd__(self, other: float) -> Node:
        return _binary("add", other, self)

    def __sub__(self, other: Node | float) -> Node:
        return _binary("sub", self, other)

    def __rsub__(self, other: float) -> Node:
        return _binary("sub", other, self)

    def __mul__(self, other: Node | float) -> Node:
        return _binary("mul", self, other)

    def __rmul__(self, other: float) -> Node:
        return _binary("mul", other, self)

    def __truediv__(self, other: Node | float) -> Node:
        return _binary("div", self, other)

    def __rtruediv__(self, other: float) -> Node:
        return _binary("div", other, self)

    def __pow__(self, exponent: int) -> Node:
        return Power(self, exponent)

    def __neg__(self) -> Node:
        return Unary("neg", self)

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return Unary("abs", self)

    def __lt__(self, other: Node | float) -> Comparison:
        return Comparison("lt", self, as_node(other))

    def __le__(self, other: Node | float) -> Comparison:
        return Comparison("le", self, as_node(other))

    def __gt__(self, other: Node | float) -> Comparison:
        return Comparison("gt", self, as_node(other))

    def __ge__(self, other: Node | float) -> Comparison:
        return Comparison("ge", self, as_node(other))


class Constant(Node):
    """A finite float64. ``-0.0`` and ``0.0`` are different constants."""

    __slots__ = ("value",)
    value: float

    def __new__(cls, value: float) -> Constant:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"`Constant(value=...)` must be a real number. Got {value!r}.")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"`Constant(value=...)` must be finite in float64. Got {value!r}.")
        return _intern(cls, (number, math.copysign(1.0, number)), (), value=number)


class Variable(Node):
    """A named input. Names are ASCII identifiers, so that they can be locals of generated code."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Variable:
        check_name("Variable(name=...)", name)
        return _intern(cls, (name,), (), name=name)


class Unary(Node):
    """``op(arg)``, op one of neg sin cos tan tanh exp log sqrt abs sign. Angles in radians."""

    __slots__ = ("op",)
    op: str

    def __new__(cls, op: str, arg: Node) -> Unary:
        _check_op("Unary", op, UNARY_OPS)
        return _intern(cls, (op,), (_scalar("Unary(arg=...)", arg),), op=op)

    @property
    def arg(self) -> Node:
        """The argument."""
        return self.children[0]

    def with_children(self, children: Sequence[Node]) -> Node:
        return Unary(self.op, children[0])


class Binary(Node):
    """``left op right``, op one of add sub mul div min max."""

    __slots__ = ("op",)
    op: str

    def __new__(cls, op: str, left: Node, right: Node) -> Binary:
        _check_op("Binary", op, BINARY_OPS)
        pair = (_scalar("Binary(left=...)", left), _scalar("Binary(right=...)", right))
        return _intern(cls, (op,), pair, op=op)

    @property
    def left(self) -> Node:
        """The first operand."""
        return self.children[0]

    @property
    def right(self) -> Node:
        """The second operand."""
        return self.children[1]

    def with_children(self, children: Sequence[Node]) -> Node:
        return Binary(self.op, children[0], children[1])


class Power(Node):
    """``base**exponent`` with an integer exponent in [-1024, 1024]; see ``multiply_chain`` for its arithmetic."""

    __slots__ = ("exponent",)
    exponent: int

    def __new__(cls, base: Node, exponent: int) -> Power:
        if isinstance(exponent, (bool, np.bool_)) or not isinstance(exponent, numbers.Integral):
            raise TypeError(f"`x ** exponent` needs an integer; write sqrt(x) or exp(a*log(x)). Got {exponent!r}.")
        integer = operator.index(exponent)
        if abs(integer) > MAX_EXPONENT:
            raise ValueError(f"`x ** exponent` must lie in [-{MAX_EXPONENT}, {MAX_EXPONENT}]. Got {integer}.")
        return _intern(cls, (integer,), (_scalar("Power(base=...)", base),), exponent=integer)

    @property
    def base(self) -> Node:
        """What is multiplied with itself."""
        return self.children[0]

    def with_children(self, children: Sequence[Node]) -> Node:
        return Power(children[0], self.exponent)


class Comparison(Node):
    """``left op right``, op one of lt le gt ge; a truth value, allowed only as a condition of :class:`Piecewise`."""

    __slots__ = ("op",)
    op: str

    def __new__(cls, op: str, left: Node, right: Node) -> Comparison:
        _check_op("Comparison", op, COMPARISON_OPS)
        pair = (_scalar("Comparison(left=...)", left), _scalar("Comparison(right=...)", right))
        return _intern(cls, (op,), pair, op=op)

    @property
    def left(self) -> Node:
        """The first operand."""
        return self.children[0]

    @property
    def right(self) -> Node:
        """The second operand."""
        return self.children[1]

    def with_children(self, children: Sequence[Node]) -> Node:
        return Comparison(self.op, children[0], children[1])

    def __bool__(self) -> bool:
        # `0 < x < 1` and `if x < 0:` would otherwise silently mean something else
        raise TypeError(
            "A comparison of expressions has no truth value yet: pass it to `piecewise([(cond, value)], default)`."
        )


class Piecewise(Node):
    """The value of the first branch whose condition is true, else ``default``.

    ``children`` are ``(condition, value, condition, value, ..., default)``.
    """

    __slots__ = ()

    def __new__(cls, branches: Iterable[tuple[Comparison, Node]], default: Node) -> Piecewise:
        children: list[Node] = []
        for condition, value in branches:
            if not isinstance(condition, Comparison):
                raise TypeError(f"`Piecewise(branches=...)` conditions must be comparisons. Got {condition!r}.")
            children += (condition, _scalar("Piecewise(branches=...)", value))
        if not children:
            raise ValueError("`Piecewise(branches=...)` needs at least one (condition, value) pair. Got none.")
        children.append(_scalar("Piecewise(default=...)", default))
        return _intern(cls, (), tuple(children))

    @property
    def branches(self) -> tuple[tuple[Comparison, Node], ...]:
        """The (condition, value) pairs in order."""
        pairs = zip(self.children[0:-1:2], self.children[1:-1:2], strict=True)
        return tuple(pairs)  # type: ignore[arg-type]

    @property
    def default(self) -> Node:
        """The value when no condition holds."""
        return self.children[-1]

    def with_children(self, children: Sequence[Node]) -> Node:
        pairs = zip(children[0:-1:2], children[1:-1:2], strict=True)
        return Piecewise(pairs, children[-1])  # type: ignore[arg-type]


class Dense(Node):
    """A layer ``activation(matrix @ args + bias)``: a vector, read out by :class:`Element`.

    matrix : (m, n)      bias : (m,)      args : n scalar nodes      activation : identity, tanh or relu
    """

    __slots__ = ("activation", "bias", "matrix")
    matrix: NDArray[np.float64]
    bias: NDArray[np.float64]
    activation: str

    def __new__(cls, matrix: ArrayLike, bias: ArrayLike, activation: str, args: Sequence[Node]) -> Dense:
        if activation not in ACTIVATIONS:
            raise ValueError(f"`Dense(activation=...)` must be one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        children = tuple(_scalar("Dense(args=...)", arg) for arg in args)
        weights = _frozen("matrix", matrix, 2)
        offsets = _frozen("bias", bias, 1)
        if weights.shape != (len(offsets), len(children)) or 0 in weights.shape:
            expected = f"({len(offsets)}, {len(children)}), one row per bias and one column per argument, none zero"
            raise ValueError(f"`Dense(matrix=...)` must have shape {expected}. Got {weights.shape}.")
        content = (weights.shape, weights.tobytes(), offsets.tobytes(), activation)
        return _intern(cls, content, children, matrix=weights, bias=offsets, activation=activation)

    def with_children(self, children: Sequence[Node]) -> Node:
        return Dense(self.matrix, self.bias, self.activation, children)


class Element(Node):
    """Entry ``index`` of a :class:`Dense` layer, a scalar."""

    __slots__ = ("index",)
    index: int

    def __new__(cls, dense: Dense, index: int) -> Element:
        if not isinstance(dense, Dense):
            raise TypeError(f"`Element(dense=...)` must be a Dense node. Got {dense!r}.")
        if isinstance(index, (bool, np.bool_)) or not isinstance(index, numbers.Integral):
            raise TypeError(f"`Element(index=...)` must be an integer. Got {index!r}.")
        if not 0 <= index < len(dense.bias):
            raise ValueError(f"`Element(index=...)` must lie in [0, {len(dense.bias) - 1}]. Got {index}.")
        return _intern(cls, (int(index),), (dense,), index=int(index))

    @property
    def dense(self) -> Dense:
        """The layer this entry belongs to."""
        return self.children[0]  # type: ignore[return-value]

    def with_children(self, children: Sequence[Node]) -> Node:
        return Element(children[0], self.index)  # type: ignore[arg-type]


def check_name(argument: str, name: object) -> str:
    """Return ``name`` if it is an ASCII identifier of at most 128 characters, else raise naming ``argument``."""
    if not isinstance(name, str):
        raise TypeError(f"`{argument}` must be a string. Got {name!r}.")
    if len(name) > MAX_NAME_LENGTH or not _IDENTIFIER.fullmatch(name):
        rule = f"an ASCII identifier (letters, digits, underscore) of at most {MAX_NAME_LENGTH} characters"
        raise ValueError(f"`{argument}` must be {rule}. Got {name[:200]!r}.")
    return name


def as_node(value: Node | float) -> Node:
    """A scalar node as it is, a real number as a :class:`Constant`; TypeError for anything else."""
    return _scalar("expression", value) if isinstance(value, Node) else Constant(value)


def _scalar(argument: str, node: object) -> Node:
    if not isinstance(node, Node):
        raise TypeError(f"`{argument}` must be a node. Got {node!r}.")
    if isinstance(node, Dense):
        raise TypeError(f"`{argument}` must be a scalar. Got a Dense layer: take an `Element` of it.")
    if isinstance(node, Comparison):
        raise TypeError(f"`{argument}` must be a scalar. Got a comparison: it belongs in `piecewise`.")
    return node


def _check_op(owner: str, op: object, allowed: tuple[str, ...]) -> None:
    if op not in allowed:
        raise ValueError(f"`{owner}(op=...)` must be one of {', '.join(allowed)}. Got {op!r}.")


def _frozen(name: str, values: ArrayLike, ndim: int) -> NDArray[np.float64]:
    """A float64 copy backed by bytes, which no flag can make writable again."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"`Dense({name}=...)` must have {ndim} dimensions. Got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"`Dense({name}=...)` must be finite. Got {array[~np.isfinite(array)][0]}.")
    return np.frombuffer(array.tobytes(), dtype=np.float64).reshape(array.shape)


def _binary(op: str, left: object, right: object) -> Node:
    """The operator form: anything that is neither a node nor a number is left to Python (TypeError)."""
    for operand in (left, right):
        if not isinstance(operand, (Node, numbers.Real)) or isinstance(operand, (bool, np.bool_)):
            return NotImplemented
    return Binary(op, as_node(left), as_node(right))  # type: ignore[arg-type]


def _short_repr(node: Node, levels: int) -> str:
    if levels == 0:
        return "..."
    values = [getattr(node, field) for field in type(node).__slots__]
    parts = [repr(v) if not isinstance(v, np.ndarray) else f"array{v.shape}" for v in values]
    shown = node.children[:4]
    parts += [_short_repr(child, levels - 1) for child in shown] + ["..."] * (len(node.children) > len(shown))
    return f"{type(node).__name__}({', '.join(parts)})"
