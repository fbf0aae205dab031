"""Sparse maps: a library of terms and a matrix of coefficients.

What regression returns, for dynamics, rewards and policies alike: ``y = theta(x, u) coef'``, with one coefficient
matrix, or one for each member of an ensemble.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sindyrl import expression
from sindyrl.emit import text
from sindyrl.expression import Constant, Node, check_name
from sindyrl.library import Library
from sindyrl.map_file import MapFileError, check_header, check_keys, parse_json, read_json, write_text
from sindyrl.symbolic_map import Backend, Signal, SymbolicMap

__all__ = ["SparseMap", "combine"]

FORMAT = "sindyrl.sparse_map"
SCHEMA = 1

Limits = tuple[float | Sequence[float], float | Sequence[float]]


def combine(coef: Any, columns: Sequence[Any]) -> list[Any]:
    """Target columns ``sum_j coef[target, j] * columns[j]``, summed left to right, for any array library.

    coef : (target, feature), or (target, feature, *batch) so that every roll-out uses its own coefficients
    columns : one array (*batch) for each feature

    Written column by column because a compiler fuses it with the evaluation of the features into one loop
    over the batch; a stacked matrix product of so few features spends its time on packing.
    """
    targets = []
    for row in coef:
        total = row[0] * columns[0]
        for j in range(1, len(columns)):
            total = total + row[j] * columns[j]
        targets.append(total)
    return targets


@dataclass(frozen=True, eq=False)
class SparseMap:
    """Targets as sparse combinations of library terms; immutable.

    library : the candidate terms
    coef : (target, feature), or (member, target, feature) for an ensemble; finite, stored read-only
    targets : names of the targets
    target_units : their units, empty if unknown

    Where one coefficient matrix is needed of an ensemble, it is the median over members.
    Raises ValueError if a shape does not fit or a coefficient is not finite.
    """

    library: Library
    coef: np.ndarray
    targets: tuple[str, ...]
    target_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise TypeError(f"`SparseMap(targets=...)` must be a sequence of names. Got the text {self.targets!r}.")
        targets = tuple(check_name("SparseMap(targets=...)", name) for name in self.targets)
        if not targets or len(set(targets)) < len(targets):
            raise ValueError(f"`SparseMap(targets=...)` must be at least one name, all different. Got {targets}.")
        units = tuple(self.target_units) or ("",) * len(targets)
        if len(units) != len(targets):
            raise ValueError(f"`SparseMap(target_units=...)` must have {len(targets)} entries. Got {len(units)}.")
        # Over immutable bytes, so that not even setting a flag makes the coefficients writable.
        given = np.asarray(self.coef, dtype=np.float64)
        coef = np.frombuffer(given.tobytes(), dtype=np.float64).reshape(given.shape)
        shape = (len(targets), len(self.library))
        if coef.ndim not in (2, 3) or coef.shape[-2:] != shape or 0 in coef.shape:
            raise ValueError(f"`SparseMap(coef=...)` must have shape {shape} or (members, *{shape}). Got {coef.shape}.")
        if not np.isfinite(coef).all():
            where = tuple(int(index) for index in np.argwhere(~np.isfinite(coef))[0])
            raise ValueError(
                f"`SparseMap(coef=...)` must be finite. Entry {where}, term {self.library.names[where[-1]]!r} of "
                f"{targets[where[-2]]!r}, is {coef[where]}."
            )
        for field, value in (("coef", coef), ("targets", targets), ("target_units", units)):
            object.__setattr__(self, field, value)

    # ---- coefficients -----------------------------------------------------------------------

    @property
    def members(self) -> int:
        """Number of ensemble members; 1 if there is no ensemble."""
        return len(self.coef) if self.coef.ndim == 3 else 1

    @cached_property
    def _coef(self) -> np.ndarray:
        """The one matrix (target, feature) that stands for all members."""
        return self.coef if self.coef.ndim == 2 else np.median(self.coef, axis=0)

    @property
    def support(self) -> np.ndarray:
        """Where the aggregated coefficient is not zero, (target, feature)."""
        return self._coef != 0

    @property
    def n_terms(self) -> int:
        """Number of non-zero aggregated coefficients over all targets."""
        return int(self.support.sum())

    @property
    def inclusion(self) -> np.ndarray:
        """Share of the members in which each coefficient is not zero, (target, feature)."""
        return (self._members != 0).mean(axis=0)

    @property
    def _members(self) -> np.ndarray:
        return self.coef if self.coef.ndim == 3 else self.coef[None]

    def mean(self) -> SparseMap:
        """Map with the mean of the members' coefficients."""
        return self._with(self._members.mean(axis=0))

    def median(self) -> SparseMap:
        """Map with the median of the members' coefficients: a term is in if more than half the members have it."""
        return self._with(self._coef)

    def member(self, index: int) -> SparseMap:
        """Map with the coefficients of one member."""
        if not -self.members <= index < self.members:
            raise ValueError(f"`SparseMap.member(index=...)` must be below {self.members}. Got {index}.")
        return self._with(self._members[index])

    def _with(self, coef: np.ndarray) -> SparseMap:
        return SparseMap(self.library, coef, self.targets, self.target_units)

    # ---- evaluation -------------------------------------------------------------------------

    def __call__(self, x: Any) -> np.ndarray:
        """Targets (..., n_targets) at x (..., n_variables): states, then inputs, in the order of the library."""
        return self.library.features(x) @ self._coef.T

    def predict_members(self, x: Any) -> np.ndarray:
        """Targets (members, ..., n_targets) at x (..., n_variables), one prediction for each member."""
        theta = self.library.features(x)
        return np.stack([theta @ coef.T for coef in self._members])

    def variance(self, x: Any) -> np.ndarray:
        """Sample variance (divisor members - 1) of the members' predictions at x: (..., n_targets)."""
        if self.members < 2:
            raise ValueError("`SparseMap.variance` needs an ensemble of at least 2 members. This map has 1.")
        return self.predict_members(x).var(axis=0, ddof=1)

    def columns(self, kind: Backend = "jax") -> Callable[[Any, Sequence[Any]], list[Any]]:
        """``f(coef, variables) -> targets`` by columns, with the coefficients as an argument.

        For compiled batches: a refit changes an argument and nothing is compiled again.
        coef : (target, feature), or (target, feature, *batch)   variables, targets : one array (*batch) each
        kind : "numpy" or "jax"
        """
        features = self.library.columns(kind)
        return lambda coef, variables: combine(coef, features(variables))

    # ---- closed form and text ---------------------------------------------------------------

    def symbolic(
        self,
        outputs: Sequence[str | Signal] | None = None,
        clip: Limits | None = None,
        *,
        inputs: Sequence[str | Signal] | None = None,
        name: str = "map",
    ) -> SymbolicMap:
        """The aggregated map as a closed form; zero terms are left out, the rest is summed left to right.

        outputs : names or signals in place of ``targets``
        clip : (lower, upper), each a number or one for each target; the outputs carry them as their range
        inputs : signals (units, ranges) in place of the bare names of the library's variables
        """
        given = self.targets if outputs is None else tuple(outputs)
        if len(given) != len(self.targets):
            raise ValueError(f"`symbolic(outputs=...)` must have {len(self.targets)} entries. Got {len(given)}.")
        nodes = [self._sum(row) for row in self._coef]
        bounds = None if clip is None else self._bounds(clip)
        pairs = []
        for index, (output, node) in enumerate(zip(given, nodes, strict=True)):
            limits = {} if bounds is None else {"lower": bounds[0][index], "upper": bounds[1][index]}
            if bounds is not None:
                node = expression.clip(node, *limits.values())
            signal = output if isinstance(output, Signal) else Signal(output, unit=self.target_units[index], **limits)
            pairs.append((signal, node))
        return SymbolicMap(self.library.variables if inputs is None else inputs, pairs, name=name)

    def _sum(self, row: np.ndarray) -> Node:
        total: Node | None = None
        for value, term in zip(row, self.library.terms, strict=True):
            if value == 0:
                continue
            product = Constant(value) if term is Constant(1.0) else Constant(value) * term
            total = product if total is None else total + product
        return Constant(0.0) if total is None else total

    def _bounds(self, clip: Limits) -> tuple[list[float], list[float]]:
        rule = "`symbolic(clip=...)` must be (lower, upper), each a number or one for each target"
        try:
            lower, upper = (
                np.broadcast_to(np.asarray(limit, dtype=np.float64), (len(self.targets),)).tolist() for limit in clip
            )
        except (TypeError, ValueError):
            raise ValueError(f"{rule}. Got {clip!r}.") from None
        if not all(low < high for low, high in zip(lower, upper, strict=True)):
            raise ValueError(f"{rule}, lower below upper. Got {clip!r}.")
        return lower, upper

    def equations(self, precision: int = 3) -> list[str]:
        """One line for each target with coefficients to ``precision`` significant digits.

        ``0.5*x*v`` where the closed form would say ``0.5*(x*v)``, the order in which it is evaluated.
        """
        return [f"{name} = {self._text(row, precision)}" for name, row in zip(self.targets, self._coef, strict=True)]

    def _text(self, row: np.ndarray, precision: int) -> str:
        line = ""
        for index in np.flatnonzero(row):
            number = text.number(abs(row[index]), precision)
            term, name = self.library.terms[index], self.library.names[index]
            if term is Constant(1.0):
                name = number
            elif isinstance(term, expression.Binary) and term.op in ("add", "sub"):
                name = f"{number}*({name})"
            else:
                name = f"{number}*{name}"
            sign = "-" if row[index] < 0 else "+"
            line += f" {sign} {name}" if line else name if sign == "+" else f"-{name}"
        return line or "0"

    def __str__(self) -> str:
        return "\n".join(self.equations())

    # ---- files ------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseMap):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.library, self.coef.shape, self.coef.tobytes(), self.targets, self.target_units)

    def to_json(self) -> str:
        """JSON text with a schema version; numbers are written so that they read back exactly."""
        data = {
            "format": FORMAT,
            "schema": SCHEMA,
            "library": self.library.to_dict(),
            "targets": list(self.targets),
            "target_units": list(self.target_units),
            "coef": self.coef.tolist(),
        }
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, source: str) -> SparseMap:
        """Map from `to_json`.  Nothing is evaluated.  Raises MapFileError with what is wrong."""
        return cls._from_document(parse_json(source))

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file that appears whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> SparseMap:
        """Read what `save` wrote.  Raises MapFileError naming the file."""
        document = read_json(path)
        try:
            return cls._from_document(document)
        except MapFileError as error:
            raise MapFileError(f"{path}: {error}") from None

    @classmethod
    def _from_document(cls, document: Any) -> SparseMap:
        check_header(document, format=FORMAT, schema=SCHEMA)
        keys = {"format", "schema", "library", "targets", "target_units", "coef"}
        record = check_keys("A sparse map", document, keys)
        for key in ("targets", "target_units"):
            if not isinstance(record[key], list) or not all(isinstance(entry, str) for entry in record[key]):
                raise MapFileError(f'"{key}" must be a list of texts.')
        try:
            coef = np.array(record["coef"])
            if coef.dtype.kind not in "if":
                raise ValueError('"coef" must be a rectangular table of numbers.')
            return cls(Library.from_dict(record["library"]), coef, record["targets"], record["target_units"])
        except MapFileError:
            raise
        except (TypeError, ValueError) as error:
            raise MapFileError(f"The sparse map is malformed. {error}") from None
