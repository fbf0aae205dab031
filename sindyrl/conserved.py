"""Does a model keep what the system keeps? The drift of energy or another conserved quantity along roll-outs."""

from __future__ import annotations

import dataclasses

import numpy as np

from sindyrl.expression import Node
from sindyrl.model import Model
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.traversal import variables
from sindyrl.validation import rollouts

__all__ = ["Drift", "drift"]


@dataclasses.dataclass(frozen=True)
class Drift:
    """How a quantity changes along measured recordings and along the model's roll-outs from their first states.

    size : root mean square of the quantity over the data, in its own unit; the other figures are shares of it
    model_rate, data_rate : slope of a line through its values, per second; root mean square over the recordings
    model_spread, data_spread : standard deviation about the mean of each recording; noise counts in the data's
    seconds : of roll-outs before they diverged   diverged : roll-outs that did
    """

    name: str
    size: float
    model_rate: float
    data_rate: float
    model_spread: float
    data_spread: float
    seconds: float
    diverged: int

    def __str__(self) -> str:
        return (
            f"{self.name} of size {self.size:.4g}: drifts {100 * self.model_rate:.2g} % per second in the model and "
            f"{100 * self.data_rate:.2g} % in the data; varies by {100 * self.model_spread:.2g} % and "
            f"{100 * self.data_spread:.2g} % ({self.seconds:.4g} s of roll-outs, {self.diverged or 'none'} diverged)"
        )


def drift(model: Model, quantity: SymbolicMap | Node, data: Dataset | Trajectory) -> Drift:
    """Compare a conserved quantity of the states along the data and along the model's roll-outs.

    quantity : a closed form of states with one output, or an expression

    Without forcing and friction a right model keeps it up to the integrator's error, and the data up to noise. Under
    inputs both rates are those of the work done, and should agree.
    Raises ValueError for a quantity that is not one value of the model's states.
    """
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    if isinstance(quantity, Node):
        used = [signal for signal in model.states if signal.name in variables([quantity])]
        quantity = SymbolicMap(used, {"quantity": quantity})
    foreign = [name for name in quantity.input_names if name not in model.state_names]
    if foreign or len(quantity.outputs) != 1:
        raise ValueError(
            f"`drift(quantity=...)` must be one value of the states {list(model.state_names)}. Got "
            f"{len(quantity.outputs)} outputs of {list(quantity.input_names)}."
        )
    columns = [model.state_names.index(name) for name in quantity.input_names]
    paths = rollouts(model, data)
    measured = [quantity(path.measured[:, columns])[:, 0] for path in paths]
    predicted = [quantity(path.predicted[: path.valid + 1, columns])[:, 0] for path in paths]
    size = float(np.sqrt(np.mean(np.concatenate(measured) ** 2))) or 1.0
    model_rate, model_spread = _changes([path.t[: path.valid + 1] for path in paths], predicted)
    data_rate, data_spread = _changes([path.t for path in paths], measured)
    return Drift(
        quantity.output_names[0],
        size,
        model_rate / size,
        data_rate / size,
        model_spread / size,
        data_spread / size,
        sum(float(path.t[path.valid] - path.t[0]) for path in paths),
        sum(path.diverged for path in paths),
    )


def _changes(times: list[np.ndarray], values: list[np.ndarray]) -> tuple[float, float]:
    """Root mean squares over the recordings of slope and standard deviation; a recording of one row does not count."""
    slopes, spreads = [], []
    for t, value in zip(times, values, strict=True):
        if len(t) > 1:
            centered = t - t.mean()
            slopes.append(float(centered @ (value - value.mean()) / (centered @ centered)))
            spreads.append(float(value.std()))
    if not slopes:
        return 0.0, 0.0
    return float(np.sqrt(np.mean(np.square(slopes)))), float(np.sqrt(np.mean(np.square(spreads))))
