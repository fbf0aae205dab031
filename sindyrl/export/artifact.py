"""What every package holds, whatever its shape: a map, its C, and answers that are known."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.emit import text as plain_text
from sindyrl.emit.notation import TooLong
from sindyrl.emit.wrapping import wrapped
from sindyrl.export.source import MARK, check_package_name
from sindyrl.symbolic_map import Signal, SymbolicMap

C_TYPES = {"float32": "float", "float64": "double", "q31": "int32_t", "q15": "int16_t"}
"""Number type of the exported C -> type of its arguments."""

FREEDOM = "This generated code belongs to you, without conditions."
_LONGEST_FORMULA = 4000
_RELEASE = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:\.(0|[1-9][0-9]*))?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One exported map, ready to be put into a package.

    name : of the C function and of the files      form : the map as shipped
    number : float32, float64, q31 or q15      texts : file name -> text; ``NAME.h``, ``NAME.c``, ``NAME_selftest.c``
    inputs (vector, input), expected and tolerance (vector, output) : the self-test, in the number type
    dt : seconds between calls, None if time does not matter      version : of this library      digest : of the map
    states, initial : the first inputs of a map that carries state, and their first values. The first outputs are then
        the next states, or, with ``derivatives``, the states' time derivatives.

    Raises ValueError if these do not fit together.
    """

    name: str
    form: SymbolicMap
    number: str
    texts: Mapping[str, str]
    inputs: NDArray[Any]
    expected: NDArray[Any]
    tolerance: NDArray[Any]
    dt: float | None
    version: str
    digest: str
    states: tuple[str, ...] = ()
    initial: tuple[float, ...] = ()
    derivatives: bool = False

    def __post_init__(self) -> None:
        check_package_name(self.name)
        if self.number not in C_TYPES:
            raise ValueError(f"`Artifact(number=...)` must be one of {', '.join(C_TYPES)}. Got {self.number!r}.")
        missing = [name for name in self.file_names if name not in self.texts]
        if missing:
            raise ValueError(f"`Artifact(texts=...)` must hold {list(self.file_names)}. Missing: {missing}.")
        nested = [name for name in self.texts if "/" in name or "\\" in name or name.startswith(".")]
        if nested:
            raise ValueError(f"`Artifact(texts=...)` must have plain file names. Got {nested}.")
        self._check_vectors()
        self._check_states()
        if not _RELEASE.match(self.version):
            raise ValueError(f"`Artifact(version=...)` must begin with numbers such as 1.2.0. Got {self.version!r}.")

    def _check_vectors(self) -> None:
        count, n, m = len(self.inputs), len(self.form.inputs), len(self.form.outputs)
        for field, shape in (("inputs", (count, n)), ("expected", (count, m)), ("tolerance", (count, m))):
            found = np.shape(getattr(self, field))
            if found != shape:
                raise ValueError(f"`Artifact({field}=...)` must have shape {shape}. Got {found}.")

    def _check_states(self) -> None:
        if self.dt is not None and not (math.isfinite(self.dt) and self.dt > 0.0):
            raise ValueError(f"`Artifact(dt=...)` must be a positive number of seconds or None. Got {self.dt!r}.")
        count = len(self.states)
        if self.states != self.form.input_names[:count]:
            raise ValueError(
                f"`Artifact(states=...)` must be the first inputs, {self.form.input_names[:count]}. Got {self.states}."
            )
        if len(self.initial) != count:
            raise ValueError(f"`Artifact(initial=...)` needs one value per state, {count}. Got {len(self.initial)}.")
        if len(self.form.outputs) < count:
            raise ValueError(
                f"`Artifact(states=...)` needs an output for each of {count} states. Got {len(self.form.outputs)}."
            )
        if self.derivatives and (not count or self.dt is not None):
            raise ValueError("`Artifact(derivatives=True)` needs states and no `dt`: an integrator chooses the steps.")

    @property
    def file_names(self) -> tuple[str, str, str]:
        """Header, source, self-test."""
        return f"{self.name}.h", f"{self.name}.c", f"{self.name}_selftest.c"

    @property
    def sources(self) -> tuple[str, ...]:
        """The C files other than the self-test, the first one named after the artifact."""
        _, source, self_test = self.file_names
        others = sorted(name for name in self.texts if name.endswith(".c") and name not in (source, self_test))
        return (source, *others)

    @property
    def c_type(self) -> str:
        """Type of the C function's arguments."""
        return C_TYPES[self.number]

    @property
    def self_test_macro(self) -> str:
        """Defines a ``main`` in the self-test."""
        return f"{self.name.upper()}_SELFTEST_MAIN"

    @property
    def release(self) -> str:
        """The version as three numbers, which every package manager accepts."""
        found = _RELEASE.match(self.version)
        assert found  # checked when built
        return ".".join(part or "0" for part in found.groups())

    @property
    def title(self) -> str:
        """One line without the formula: ``policy: x, v to u``."""
        inputs, outputs = (_listed(names) for names in (self.form.input_names, self.form.output_names))
        return f"{self.name}: {inputs or 'nothing'} to {outputs}"

    def banner(self, prefix: str = "", suffix: str = "") -> list[str]:
        """The two lines that begin every generated file, as comments of its language."""
        lines = (f"{MARK} {self.version} from the map {self.digest[:16]}.", FREEDOM)
        return [f"{prefix}{line}{suffix}" for line in lines]

    def description(self) -> list[str]:
        """Formulas, units and ranges as plain lines, for the comment at the top of a generated file."""
        lines = [f"  {line}" for line in _formulas(self.form)]
        for label, signals in (("in ", self.form.inputs), ("out", self.form.outputs)):
            lines += [f"  {label} {index}  {signal.name}{_described(signal)}" for index, signal in enumerate(signals)]
        if self.states:
            start = ", ".join(f"{name} = {value!r}" for name, value in zip(self.states, self.initial, strict=True))
            meaning = "time derivatives" if self.derivatives else "next values"
            lines += wrapped(f"  states, kept by the caller, at first {start}; the first outputs are their {meaning}")
        if self.dt is not None:
            lines.append(f"  called every {self.dt!r} s")
        return lines


@dataclasses.dataclass(frozen=True)
class Answers:
    """Known answers in float64: inputs (vector, input), expected and tolerance (vector, output)."""

    inputs: NDArray[np.float64]
    expected: NDArray[np.float64]
    tolerance: NDArray[np.float64]


def float_answers(artifact: Artifact) -> Answers:
    """The self-test for code in float64; without vectors if the artifact is in fixed point, where units differ."""
    count = len(artifact.inputs) if artifact.number.startswith("float") else 0
    tables = (artifact.inputs, artifact.expected, artifact.tolerance)
    return Answers(*(np.asarray(table[:count], dtype=np.float64) for table in tables))


def starting_value(signal: Signal) -> float:
    """Zero, or the value of the range that is nearest to it."""
    return min(max(0.0, signal.lower), signal.upper)


def _formulas(form: SymbolicMap) -> list[str]:
    lines = []
    for signal, node in zip(form.outputs, form.nodes, strict=True):
        try:
            text = plain_text.expression(node, limit=_LONGEST_FORMULA)
        except TooLong:
            text = "(too long to print here)"
        lines += wrapped(f"{signal.name} = {text}")
    return lines


def _described(signal: Signal) -> str:
    unit = f" ({_safe(signal.unit)})" if signal.unit else ""
    if math.isinf(signal.lower) and math.isinf(signal.upper):
        return unit
    return f"{unit} from {plain_text.number(signal.lower)} to {plain_text.number(signal.upper)}"


def _safe(unit: str) -> str:
    """Units are free text: nothing in them may end the comment they stand in."""
    for end, harmless in (("*/", "* /"), ('"', "'"), ("\\", "/"), ("```", "'")):
        unit = unit.replace(end, harmless)
    return unit


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
