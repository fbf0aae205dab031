"""SymbolicMap: named inputs to named outputs in closed form; what is learned, planned, proved and shipped."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sindyrl import backends
from sindyrl.backends import Backend
from sindyrl.calculus import differentiate
from sindyrl.emit import latex as latex_text
from sindyrl.emit import text as plain_text
from sindyrl.emit.notation import TooLong
from sindyrl.interval import interval, undefined
from sindyrl.map_file import MapFileError, check_header, check_keys, parse_json, read_json, write_text
from sindyrl.node import Node, Variable, as_node, check_name
from sindyrl.node_table import from_list, to_list
from sindyrl.traversal import substitute, topological, variables

if TYPE_CHECKING:
    from sympy import Expr

Array = NDArray[np.float64]

FORMAT = "sindyrl.symbolic_map"
SCHEMA = 1
MAX_UNIT_LENGTH = 64

__all__ = ["Backend", "MapFileError", "Signal", "SymbolicMap"]


@dataclass(frozen=True)
class Signal:
    """A named quantity: its unit (free text such as ``rad/s``) and the range it is meant for (not enforced)."""

    name: str
    unit: str = ""
    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        check_name("Signal(name=...)", self.name)
        if not isinstance(self.unit, str) or len(self.unit) > MAX_UNIT_LENGTH or not self.unit.isprintable():
            raise ValueError(
                f"`Signal(unit=...)` must be printable text of at most {MAX_UNIT_LENGTH} characters. Got {self.unit!r}."
            )
        for field in ("lower", "upper"):
            value = getattr(self, field)
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
                raise TypeError(f"`Signal({field}=...)` must be a number. Got {value!r}.")
            object.__setattr__(self, field, float(value))
        if not self.lower < self.upper:
            raise ValueError(
                f"`Signal(lower=..., upper=...)` must satisfy lower < upper. Got {self.lower}, {self.upper}."
            )


class SymbolicMap:
    """An immutable map from named inputs to named outputs, in closed form.

        x, v = Variable("x"), Variable("v")
        spring = SymbolicMap(["x", "v"], {"a": -2.0 * x - 0.1 * v}, name="spring")
        spring([0.5, 0.0])                      # array([-1.])

    inputs : names or signals, in the order of the last axis of the argument.
    outputs : name or signal -> expression (or number), in the order of the last axis of the result; a mapping or pairs.
    Equal content is equal (``==``), and equal expressions are the same nodes.

    Raises ValueError for repeated names and for variables that are not inputs.
    """

    __slots__ = ("_callables", "inputs", "name", "nodes", "outputs")
    inputs: tuple[Signal, ...]
    outputs: tuple[Signal, ...]
    nodes: tuple[Node, ...]
    name: str
    _callables: dict[tuple[str, str], Callable[..., Any]]

    def __init__(
        self,
        inputs: Iterable[str | Signal],
        outputs: Mapping[str, Node | float]
        | Mapping[Signal, Node | float]
        | Iterable[tuple[str | Signal, Node | float]],
        *,
        name: str = "map",
    ) -> None:
        if isinstance(inputs, str):
            raise TypeError(f"`SymbolicMap(inputs=...)` must be a sequence of names. Got the string {inputs!r}.")
        pairs = cast(Any, outputs.items() if isinstance(outputs, Mapping) else outputs)
        labels, values = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
        self._set("name", check_name("SymbolicMap(name=...)", name))
        self._set("inputs", _signals("SymbolicMap(inputs=...)", inputs))
        self._set("outputs", _signals("SymbolicMap(outputs=...)", labels))
        self._set("nodes", tuple(as_node(value) for value in values))
        self._set("_callables", {})
        if not self.outputs:
            raise ValueError("`SymbolicMap(outputs=...)` needs at least one output. Got none.")
        known = set(self.input_names)
        unknown = [used for used in variables(self.nodes) if used not in known]
        if unknown:
            raise ValueError(
                f"`SymbolicMap(outputs=...)` may use the inputs {list(self.input_names)} only. Got also {unknown}."
            )

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"`SymbolicMap` is immutable: cannot set `{name}`. Build a new map.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"`SymbolicMap` is immutable: cannot delete `{name}`.")

    def __copy__(self) -> SymbolicMap:
        return self

    def __deepcopy__(self, memo: object) -> SymbolicMap:
        return self

    def __reduce__(self) -> tuple[Callable[[str], SymbolicMap], tuple[str]]:
        return SymbolicMap.from_json, (self.to_json(),)  # for worker processes

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(signal.name for signal in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(signal.name for signal in self.outputs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SymbolicMap):
            return NotImplemented
        mine = (self.name, self.inputs, self.outputs, self.nodes)
        return mine == (other.name, other.inputs, other.outputs, other.nodes)

    def __hash__(self) -> int:
        return hash((self.name, self.inputs, self.outputs, self.nodes))

    # ---- evaluation

    def __call__(self, x: ArrayLike) -> Array:
        """Evaluate with NumPy in float64: x (..., n_inputs) -> (..., n_outputs). NaN passes through."""
        return cast(Array, self.backend("numpy")(x))

    def columns(self, kind: Backend = "numpy") -> Callable[[Sequence[Any]], list[Any]]:
        """``evaluate(input columns) -> output columns`` of a back end; columns have any broadcastable shapes."""
        key = ("columns", kind)
        if key not in self._callables:
            self._callables[key] = backends.columns(self, kind)
        return self._callables[key]

    def backend(self, kind: Backend = "numpy") -> Callable[[Any], Any]:
        """``evaluate(x) -> y`` of a back end, x (..., n_inputs), y (..., n_outputs); compiled once.

        "numpy" float64; "jax" pure, dtype of the input; "casadi" numeric, through ``casadi.Function``; "c" float64,
        compiled on this machine (raises :class:`sindyrl.backends.c.CompilerNotFound` where there is no compiler).
        """
        key = ("rows", kind)
        if key not in self._callables:
            self._callables[key] = backends.rows(self, kind)
        return self._callables[key]

    # ---- calculus

    def jacobian(self, names: Sequence[str] | None = None) -> SymbolicMap:
        """Map of the partial derivatives ``d<output>_d<input>``, output by output, for all inputs or those named."""
        chosen = list(self.input_names) if names is None else list(names)
        _check_known("SymbolicMap.jacobian(names=...)", chosen, self.input_names)
        slopes = differentiate(self.nodes, chosen)
        outputs = [
            (f"d{output}_d{name}", slope)
            for output, row in zip(self.output_names, slopes, strict=True)
            for name, slope in zip(chosen, row, strict=True)
        ]
        return SymbolicMap(self.inputs, outputs, name=f"{self.name}_jacobian")

    def linearize(self, x0: ArrayLike, u0: ArrayLike = ()) -> tuple[Array, Array]:
        """``(A, B)`` of ``f(x0 + dx, u0 + du) = f(x0, u0) + A dx + B du + ...``.

        x0 : (n,), values of the first n inputs      u0 : (m,), of the other m
        A : (n_outputs, n)      B : (n_outputs, m)
        """
        x, u = np.asarray(x0, dtype=np.float64), np.asarray(u0, dtype=np.float64)
        if x.ndim != 1 or u.ndim != 1 or len(x) + len(u) != len(self.inputs):
            raise ValueError(
                f"`SymbolicMap.linearize(x0, u0)` needs {len(self.inputs)} values, one per input of "
                f"{list(self.input_names)}. Got shapes {x.shape} and {u.shape}."
            )
        slopes = self._jacobian_values(np.concatenate([x, u]))
        return slopes[:, : len(x)], slopes[:, len(x) :]

    def _jacobian_values(self, point: Array) -> Array:
        if not self.inputs:
            return np.zeros((len(self.outputs), 0))
        key = ("jacobian", "numpy")
        if key not in self._callables:
            self._callables[key] = self.jacobian().backend("numpy")
        return cast(Array, self._callables[key](point)).reshape(len(self.outputs), len(self.inputs))

    def interval(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> dict[str, tuple[float, float]]:
        """Guaranteed bounds of every output; see :func:`sindyrl.interval.interval`.

        ranges : input name -> (lower, upper); inputs not named take their signal's range.
        """
        bounds = interval(self.nodes, self._ranges("SymbolicMap.interval(ranges=...)", ranges))
        return dict(zip(self.output_names, bounds, strict=True))

    def undefined(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> list[Node]:
        """Sub-expressions that may be undefined somewhere in the ranges; see :func:`sindyrl.interval.undefined`."""
        return undefined(self.nodes, self._ranges("SymbolicMap.undefined(ranges=...)", ranges))

    def _ranges(self, argument: str, ranges: Mapping[str, Any] | None) -> dict[str, Any]:
        _check_known(argument, list(ranges or {}), self.input_names)
        return {signal.name: (signal.lower, signal.upper) for signal in self.inputs} | dict(ranges or {})

    # ---- other maps from this one

    def __matmul__(self, inner: SymbolicMap) -> SymbolicMap:
        """``g @ f``: f's outputs feed g's inputs of the same name. Inputs: those of f, then the rest of g's.

        Inputs of g that f does not provide stay inputs (shared with f where the names agree); outputs of f that g does
        not use are dropped. Raises ValueError if nothing matches or if units differ.
        """
        if not isinstance(inner, SymbolicMap):
            return NotImplemented
        provided = {signal.name: (signal, node) for signal, node in zip(inner.outputs, inner.nodes, strict=True)}
        fed = [signal for signal in self.inputs if signal.name in provided]
        if not fed:
            raise ValueError(
                f"`g @ f` needs an output of f among g's inputs {list(self.input_names)}. "
                f"Got outputs {list(inner.output_names)}."
            )
        rest = [signal for signal in self.inputs if signal.name not in provided]
        shared = {signal.name: signal for signal in inner.inputs}
        for signal in fed:
            _check_units(provided[signal.name][0], signal)
        for signal in rest:
            _check_units(shared.get(signal.name, signal), signal)
        nodes = substitute(self.nodes, {signal.name: provided[signal.name][1] for signal in fed})
        inputs = [*inner.inputs, *(signal for signal in rest if signal.name not in shared)]
        return SymbolicMap(inputs, list(zip(self.outputs, nodes, strict=True)), name=self.name)

    def rename(
        self,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> SymbolicMap:
        """The same map under other names: ``inputs`` and ``outputs`` are old name -> new name."""
        _check_known("SymbolicMap.rename(inputs=...)", list(inputs or {}), self.input_names)
        _check_known("SymbolicMap.rename(outputs=...)", list(outputs or {}), self.output_names)
        nodes = substitute(self.nodes, {old: Variable(new) for old, new in (inputs or {}).items()})
        return SymbolicMap(
            [_renamed(signal, inputs) for signal in self.inputs],
            [(_renamed(signal, outputs), node) for signal, node in zip(self.outputs, nodes, strict=True)],
            name=self.name if name is None else name,
        )

    def select(self, outputs: Sequence[str]) -> SymbolicMap:
        """Only these outputs, in this order; the inputs stay."""
        if isinstance(outputs, str):
            raise TypeError(
                f"`SymbolicMap.select(outputs=...)` must be a sequence of names. Got the string {outputs!r}."
            )
        _check_known("SymbolicMap.select(outputs=...)", outputs, self.output_names)
        by_name = {signal.name: (signal, node) for signal, node in zip(self.outputs, self.nodes, strict=True)}
        return SymbolicMap(self.inputs, [by_name[wanted] for wanted in outputs], name=self.name)

    # ---- files

    def to_json(self) -> str:
        """JSON text with exact numbers; equal maps give equal bytes."""
        table, rows = to_list(self.nodes)
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "name": self.name,
            "inputs": [signal_record(signal) for signal in self.inputs],
            "outputs": [signal_record(signal) | {"node": row} for signal, row in zip(self.outputs, rows, strict=True)],
            "nodes": table,
        }
        return json.dumps(document, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> SymbolicMap:
        """Read :meth:`to_json`'s text. Raises MapFileError for anything else; nothing in the text is evaluated."""
        return cls._from_document(parse_json(text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file, whole or not at all."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SymbolicMap:
        """Read a file of :meth:`save`. Raises MapFileError for anything else, OSError if it cannot be opened."""
        document = read_json(path)
        try:
            return cls._from_document(document)
        except MapFileError as error:
            raise MapFileError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def _from_document(cls, document: Any) -> SymbolicMap:
        record = check_header(document, format=FORMAT, schema=SCHEMA)
        check_keys("The map", record, {"format", "schema", "name", "inputs", "outputs", "nodes"})
        if not isinstance(record["inputs"], list) or not isinstance(record["outputs"], list):
            raise MapFileError('"inputs" and "outputs" must be lists.')
        inputs = [read_signal("An input", item) for item in record["inputs"]]
        outputs = [read_signal("An output", item, frozenset({"node"})) for item in record["outputs"]]
        nodes = from_list(record["nodes"], [item["node"] for item in record["outputs"]])
        try:
            return cls(inputs, list(zip(outputs, nodes, strict=True)), name=record["name"])
        except (TypeError, ValueError) as error:
            raise MapFileError(f"The map is not valid: {error}") from None

    def digest(self) -> str:
        """SHA-256 of :meth:`to_json`, hexadecimal."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()

    # ---- views

    def __str__(self) -> str:
        return self.equations()

    def equations(self, precision: int | None = None) -> str:
        """One line per output, ``u = clip(4.76*sin + ..., -1, 1)``; ``precision`` rounds the printed numbers."""
        return "\n".join(
            f"{name} = {_printed(node, precision)}" for name, node in zip(self.output_names, self.nodes, strict=True)
        )

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(self.input_names), ", ".join(self.output_names)
        return f"<SymbolicMap {self.name}: ({inputs}) -> ({outputs}), {len(topological(self.nodes))} nodes>"

    def latex(self, precision: int | None = None) -> str:
        """Equations of all outputs, for an ``align`` environment."""
        return " \\\\\n".join(
            f"{latex_text.symbol(name)} &= {latex_text.latex(node, precision=precision)}"
            for name, node in zip(self.output_names, self.nodes, strict=True)
        )

    def sympy(self) -> dict[str, Expr]:
        """Outputs as SymPy expressions of real symbols. A view: SymPy reorders and folds the arithmetic."""
        from sindyrl.sympy_view import to_sympy

        return dict(zip(self.output_names, to_sympy(self.nodes), strict=True))

    @classmethod
    def from_sympy(
        cls,
        exprs: Mapping[str, Expr | float] | Mapping[Signal, Expr | float],
        inputs: Iterable[str | Signal],
        *,
        name: str = "map",
    ) -> SymbolicMap:
        """Map from SymPy expressions; symbols are matched to inputs by name. Text is refused: nothing is parsed."""
        from sindyrl.sympy_view import from_sympy

        nodes = from_sympy(list(exprs.values()))
        return cls(inputs, list(zip(exprs.keys(), nodes, strict=True)), name=name)


def _signals(argument: str, labels: Iterable[str | Signal]) -> tuple[Signal, ...]:
    signals = tuple(label if isinstance(label, Signal) else Signal(label) for label in labels)
    names = [signal.name for signal in signals]
    if len(set(names)) != len(names):
        raise ValueError(f"`{argument}` must have distinct names. Got {names}.")
    return signals


def _renamed(signal: Signal, names: Mapping[str, str] | None) -> Signal:
    return Signal((names or {}).get(signal.name, signal.name), signal.unit, signal.lower, signal.upper)


def _check_known(argument: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"`{argument}` must be among {list(known)}. Got {unknown}.")


def _check_units(a: Signal, b: Signal) -> None:
    if a.unit and b.unit and a.unit != b.unit:
        raise ValueError(f"`g @ f`: the unit of {a.name!r} is {a.unit!r} in f and {b.unit!r} in g. They must agree.")


def _printed(node: Node, precision: int | None) -> str:
    try:
        return plain_text.expression(node, precision=precision)
    except TooLong:
        return f"<{len(topological([node]))} nodes, too long to print: parts are shared>"


def signal_record(signal: Signal) -> dict[str, Any]:
    """Name, and what differs from the default."""
    record: dict[str, Any] = {"name": signal.name}
    if signal.unit:
        record["unit"] = signal.unit
    for field, value in (("lower", signal.lower), ("upper", signal.upper)):
        if math.isfinite(value):
            record[field] = value
    return record


def read_signal(owner: str, record: Any, required: frozenset[str] = frozenset()) -> Signal:
    check_keys(owner, record, {"name", *required}, frozenset({"unit", "lower", "upper"}))
    try:
        return Signal(**{key: value for key, value in record.items() if key != "node"})
    except (TypeError, ValueError, OverflowError) as error:
        raise MapFileError(f"{owner} is not valid: {error}") from None
