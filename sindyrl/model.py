"""An identified system: sparse equations, what is known besides them, and how to step."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sindyrl.expression import Variable
from sindyrl.map_file import MapFileError, check_header, check_keys, parse_json, read_json, shown, write_text
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Columns, Rates, Structure
from sindyrl.structure_file import structure_from_dict
from sindyrl.symbolic_map import Signal, SymbolicMap, read_signal, signal_record
from sindyrl.traversal import substitute

FORMAT, SCHEMA = "sindyrl.model", 1

Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A `SparseMap` of rates together with the structure that turns rates into the next state.

    rates : the identified targets, functions of some of the states and all inputs; possibly an ensemble, whose
        element-wise median is what `step` uses.
    structure : next state, increment, derivative or second order (`sindyrl.structure`).
    states, inputs : names, units and ranges.
    dt : seconds per step; the input is held over it.
    seen : (n_states, 2) smallest and largest value of each state in the data, the box in which the model was fitted.
    """

    rates: SparseMap
    structure: Structure
    states: tuple[Signal, ...]
    inputs: tuple[Signal, ...]
    dt: float
    seen: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        seen = np.array(self.seen, dtype=np.float64)
        seen.flags.writeable = False
        object.__setattr__(self, "seen", seen)
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"`Model(dt=...)` must be a positive number of seconds. Got {self.dt}.")
        if seen.shape != (len(self.states), 2):
            raise ValueError(f"`Model(seen=...)` must have shape ({len(self.states)}, 2). Got {seen.shape}.")
        if not (np.isfinite(seen).all() and (seen[:, 0] <= seen[:, 1]).all()):
            raise ValueError(f"`Model(seen=...)` must be finite, the smallest value first. Got {seen.tolist()}.")
        targets = self.structure.targets(self.state_names)
        if self.rates.targets != targets:
            raise ValueError(
                f"`Model(rates=...)` must have the targets {list(targets)} of this structure. "
                f"Got {list(self.rates.targets)}."
            )
        expected = (*self.structure.features_of(self.state_names), *self.input_names)
        if self.rates.library.variables != expected:
            raise ValueError(
                f"`Model(rates=...)` must be functions of {list(expected)}. Got {list(self.rates.library.variables)}."
            )

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.states)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.inputs)

    @property
    def n_terms(self) -> int:
        """Non-zero coefficients over all equations, of the median if there are several members."""
        return self.rates.n_terms

    def feature_columns(self, x: Columns, u: Columns) -> list[Any]:
        """The library's variables out of all states and inputs."""
        used = self.structure.features_of(self.state_names)
        return [*(column for name, column in zip(self.state_names, x, strict=True) if name in used), *u]

    def step(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Next state, ``(..., n_states), (..., n_inputs) -> (..., n_states)``."""
        columns = self.structure.advance(self.state_names, self._numpy_rates(), *self._split(x, u), self.dt)
        return np.stack(np.broadcast_arrays(*columns), axis=-1)

    def derivative(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """``dx/dt``, shapes as in `step`. Raises TypeError for a model in discrete time."""
        columns = self.structure.flow(self.state_names, self._numpy_rates(), *self._split(x, u))
        if columns is None:
            raise TypeError(f"A {self.structure.kind} model has no derivative. Identify with `Derivative()` instead.")
        return np.stack(np.broadcast_arrays(*columns), axis=-1)

    def step_map(self) -> SymbolicMap:
        """The step as one closed form of the states and inputs; outputs are named ``<state>_next``."""
        rates = self._closed_rates

        def closed(x: Columns, u: Columns) -> list[Any]:
            values = dict(zip(self.rates.library.variables, self.feature_columns(x, u), strict=True))
            return substitute(rates.nodes, values)

        x = [Variable(name) for name in self.state_names]
        u = [Variable(name) for name in self.input_names]
        after = self.structure.advance(self.state_names, closed, x, u, self.dt)
        outputs = [Signal(f"{s.name}_next", s.unit) for s in self.states]
        return SymbolicMap([*self.states, *self.inputs], list(zip(outputs, after, strict=True)), name="step")

    def linearize(self, x0: np.ndarray, u0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Discrete-time ``A = d x_next/d x`` and ``B = d x_next/d u`` at a point."""
        return self.step_map().linearize(x0, u0)

    def against(
        self, x: np.ndarray, u: np.ndarray, x_next: np.ndarray, truth: Truth | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """True and learned targets over transitions, each ``(n, n_targets)``.

        truth : ``(x, u) -> (n, n_targets)`` where a simulator can tell; otherwise what the transitions themselves show
        """
        if truth is None:
            at, true = self.structure.samples(self.state_names, x, x_next, self.dt)
        else:
            at, true = x, np.asarray(truth(x, u))
        variables = self.feature_columns(list(at.T), list(u.T))
        return true, self.rates(np.stack(variables, axis=-1))

    def compact(self) -> Model:
        """The same model over only those library terms that some member uses: quicker to roll out."""
        used = np.flatnonzero(np.any(self.rates.coef != 0, axis=tuple(range(self.rates.coef.ndim - 1))))
        used = used if len(used) else np.array([0])
        rates = self.rates
        kept = SparseMap(rates.library.select(used), rates.coef[..., used], rates.targets, rates.target_units)
        return dataclasses.replace(self, rates=kept)

    @cached_property
    def _closed_rates(self) -> SymbolicMap:
        # Kept because building it takes much longer than evaluating it.
        return self.rates.symbolic()

    def _numpy_rates(self) -> Rates:
        evaluate = self._closed_rates.columns("numpy")
        return lambda x, u: evaluate(self.feature_columns(x, u))

    def _split(self, x: np.ndarray, u: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
        for name, value, names in (("x", x, self.state_names), ("u", u, self.input_names)):
            if value.ndim < 1 or value.shape[-1] != len(names):
                raise ValueError(f"`{name}` must have {len(names)} columns {list(names)}. Got shape {value.shape}.")
        return list(np.moveaxis(x, -1, 0)), list(np.moveaxis(u, -1, 0))

    def __str__(self) -> str:
        return str(self.rates)

    def to_json(self) -> str:
        """JSON text with a schema version and numbers that read back exactly."""
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "dt": self.dt,
            "states": [signal_record(signal) for signal in self.states],
            "inputs": [signal_record(signal) for signal in self.inputs],
            "structure": self.structure.to_dict(),
            "seen": self.seen.tolist(),
            "rates": json.loads(self.rates.to_json()),
        }
        return json.dumps(document, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file that appears whole or not at all."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def from_json(cls, source: str) -> Model:
        """The inverse of `to_json`. Nothing is evaluated. Raises MapFileError with what is wrong."""
        return cls._from_document(parse_json(source))

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read what `save` wrote. Raises MapFileError naming the file if it is not a model or is damaged."""
        document = read_json(path)
        try:
            return cls._from_document(document)
        except MapFileError as error:
            raise MapFileError(f"{path}: {error}") from None

    @classmethod
    def _from_document(cls, document: Any) -> Model:
        check_header(document, format=FORMAT, schema=SCHEMA)
        keys = {"format", "schema", "dt", "states", "inputs", "structure", "seen", "rates"}
        record = check_keys("A model", document, keys)
        if not isinstance(record["states"], list) or not isinstance(record["inputs"], list):
            raise MapFileError('"states" and "inputs" must be lists.')
        try:
            return cls(
                SparseMap.from_json(json.dumps(record["rates"])),
                structure_from_dict(record["structure"]),
                tuple(read_signal("A state", item) for item in record["states"]),
                tuple(read_signal("An input", item) for item in record["inputs"]),
                _number("dt", record["dt"]),
                _table("seen", record["seen"]),
            )
        except MapFileError:
            raise
        except (TypeError, ValueError) as error:
            raise MapFileError(f"The model is malformed. {error}") from None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MapFileError(f'"{name}" must be a number. Got {shown(value)}.')
    return float(value)


def _table(name: str, value: Any) -> np.ndarray:
    table = np.array(value)
    if table.dtype.kind not in "if":
        raise MapFileError(f'"{name}" must be a rectangular table of numbers. Got {shown(value)}.')
    return table
