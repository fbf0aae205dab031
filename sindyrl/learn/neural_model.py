r"""Dynamics by an ensemble of neural networks: what a sparse model is compared with, and played in the same surrogate.

Each member is a perceptron of the structure's targets, ``y = f(x, u)``, fitted by mean squared error,

    L = mean_n mean_j ((y_nj - f_j(x_n, u_n)) / s_j)^2,    s_j = 1, or with ``standardize`` the targets' deviation

to its own random share of the transitions, part of which is held out. A member stops when its error on what is held out
has risen ``patience`` times in a row, the first time by default, and is what it was at the lowest. Networks may begin
where those of the fit before ended. The members' mean of ``y`` is what a step uses; the structure turns it into the
next state, so that circles are kept as anywhere else.

Source: the baseline "Dyna-NN" of Zolman et al., SINDy-RL, arXiv 2403.09110, whose numbers are `NeuralSettings()`, to be
used with `OnCircles(NextState(), ...)`. What differs: the paper projects the next state of each member and then the
mean of them; here the mean is projected once, which differs in the second order of the members' spread.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from sindyrl.number_check import check_fields, check_number, checked_numbers, whole
from sindyrl.structure import Structure
from sindyrl.symbolic_map import Signal
from sindyrl.task import Task
from sindyrl.trajectory import Dataset

Activation = Literal["tanh", "relu"]


@dataclasses.dataclass(frozen=True)
class NeuralSettings:
    """members : networks
    hidden, activation : of each
    share : of the transitions that a member sees, drawn without replacement
    validation : of that share, what is held out
    epochs, batch : passes through the rest at most, and its transitions in a step of Adam
    patience : passes without a new lowest error on what is held out, after which a member stops
    learning_rate, max_gradient : step length, and the norm at which gradients are cut
    standardize : inputs and targets of the networks have mean 0 and deviation 1 in the data
    """

    members: int = 5
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    share: float = 0.6
    validation: float = 0.2
    epochs: int = 50
    batch: int = 500
    patience: int = 1
    learning_rate: float = 1e-3
    max_gradient: float = 1.0
    standardize: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "members epochs batch patience", "a positive integer", whole(1))
        hidden = checked_numbers("NeuralSettings(hidden=...)", self.hidden, "at least one positive integer", whole(1))
        object.__setattr__(self, "hidden", hidden)
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"`NeuralSettings(activation=...)` must be one of {get_args(Activation)}. Got {self.activation!r}."
            )
        check_fields(self, "share", "a number in (0, 1]", lambda value: 0 < value <= 1)
        check_fields(self, "validation", "a number in (0, 1)", lambda value: 0 < value < 1)
        wanted = "a positive, finite number"
        check_fields(self, "learning_rate max_gradient", wanted, lambda value: 0 < value < math.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class NeuralModel:
    """A fitted ensemble; a `sindyrl.envs.surrogate.LearnedModel`.

    structure, states, inputs, dt, seen : as of a `sindyrl.model.Model`
    hidden, activation : of the networks
    coef : (member, parameter) weights (in, out), then biases, layer by layer; in the units of states and inputs
    epochs : (member,) passes through the data    loss : (member,) error on what was held out
    """

    structure: Structure
    states: tuple[Signal, ...]
    inputs: tuple[Signal, ...]
    dt: float
    seen: np.ndarray
    hidden: tuple[int, ...]
    activation: Activation
    coef: np.ndarray
    epochs: np.ndarray
    loss: np.ndarray

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.states)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.inputs)

    @property
    def members(self) -> int:
        return len(self.coef)

    @property
    def n_terms(self) -> int:
        """Weights and biases of all members."""
        return self.coef.size

    @property
    def form(self) -> Hashable:
        return ("perceptrons", self.hidden, self.activation, self.members)

    def coefficients(self) -> np.ndarray:
        return self.coef

    def rates(self) -> Callable[[Any, Sequence[Any], Sequence[Any]], list[Any]]:
        """See `sindyrl.envs.surrogate.LearnedModel`."""
        import jax.numpy as jnp

        sizes, used = self._sizes, self._used

        def rates(coef: Any, x: Sequence[Any], u: Sequence[Any]) -> list[Any]:
            columns = jnp.broadcast_arrays(*(x[k] for k in used), *u)
            y = _network(jnp, sizes, self.activation, coef, jnp.stack(columns, axis=-1))
            return [y[..., j] for j in range(sizes[-1])]

        return rates

    def step(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Next state by the members' mean, ``(..., n_states), (..., n_inputs) -> (..., n_states)``."""
        x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
        for name, value, names in (("x", x, self.state_names), ("u", u, self.input_names)):
            if value.ndim < 1 or value.shape[-1] != len(names):
                raise ValueError(f"`{name}` must have {len(names)} columns {list(names)}. Got shape {value.shape}.")

        def mean(x: Sequence[Any], u: Sequence[Any]) -> list[Any]:
            z = np.stack(np.broadcast_arrays(*(x[k] for k in self._used), *u), axis=-1)
            y = np.mean([_network(np, self._sizes, self.activation, coef, z) for coef in self.coef], axis=0)
            return list(np.moveaxis(y, -1, 0))

        columns = list(np.moveaxis(x, -1, 0)), list(np.moveaxis(u, -1, 0))
        after = self.structure.advance(self.state_names, mean, *columns, self.dt)
        return np.stack(np.broadcast_arrays(*after), axis=-1)

    def member(self, index: int) -> NeuralModel:
        """The model of one member alone."""
        if not -self.members <= index < self.members:
            raise ValueError(f"`NeuralModel.member(index=...)` must be below {self.members}. Got {index}.")
        alone = {name: getattr(self, name)[index][None] for name in ("coef", "epochs", "loss")}
        return dataclasses.replace(self, **alone)

    @property
    def _used(self) -> list[int]:
        return [self.state_names.index(name) for name in self.structure.features_of(self.state_names)]

    @property
    def _sizes(self) -> tuple[int, ...]:
        outputs = len(self.structure.targets(self.state_names))
        return (len(self._used) + len(self.inputs), *self.hidden, outputs)


def neural_model(
    task: Task, settings: NeuralSettings | None = None, *, seed: int, warm: bool = True
) -> Callable[[Dataset], NeuralModel]:
    """A fit for `sindyrl.learn.dyna.dyna`, in the task's structure.

    warm : each fit begins with the networks of the one before. That memory is the function's own, so one is made for
        each run; a run that is stored and goes on begins its networks anew.
    """
    settings = NeuralSettings() if settings is None else settings
    seed = check_number("neural_model(seed=...)", seed, "a non-negative integer", whole(0))
    rng = np.random.default_rng(seed)
    before: NeuralModel | None = None

    def fit(data: Dataset) -> NeuralModel:
        nonlocal before
        found = fit_neural(data, task, settings, rng=rng, before=before)
        before = found if warm else None
        return found

    return fit


def fit_neural(
    data: Dataset,
    task: Task,
    settings: NeuralSettings,
    *,
    rng: np.random.Generator,
    before: NeuralModel | None = None,
) -> NeuralModel:
    """Fit all members at once; more data compile nothing.

    before : where the networks begin; None draws them

    Raises ValueError if there are too few transitions, or if a network does not get finite.
    """
    pairs = data.pairs()
    keep = np.ones(len(pairs.x), dtype=bool) if task.exclude is None else data.exclude(task.exclude)
    names, form = task.state_names, task.structure
    at, y = form.samples(names, pairs.x[keep], pairs.x_next[keep], task.dt)
    z = np.column_stack([at[:, [names.index(name) for name in form.features_of(names)]], pairs.u[keep]])
    seen_by_one = round(settings.share * len(z))
    held_out = round(settings.validation * seen_by_one)
    if not 0 < held_out < seen_by_one:
        raise ValueError(
            "`fit_neural(data=...)` must have transitions to fit and to hold out for each member. "
            f"Got {len(z)} in all, of which {seen_by_one} and {held_out} of those."
        )
    sizes = (z.shape[1], *settings.hidden, y.shape[1])
    count = settings.members
    if before is None:
        coef = np.stack([_drawn(sizes, settings.activation, rng) for _ in range(count)])
    else:
        coef = before.coef
        expected = (count, sum((a + 1) * b for a, b in itertools.pairwise(sizes)))
        if coef.shape != expected or before.activation != settings.activation:
            raise ValueError(f"`fit_neural(before=...)` must have networks of shape {expected}. Got {coef.shape}.")
    moments = (np.zeros(sizes[0]), np.ones(sizes[0]), np.zeros(sizes[-1]), np.ones(sizes[-1]))
    if settings.standardize:
        moments = (z.mean(axis=0), _deviation(z), y.mean(axis=0), _deviation(y))
    z, y = (z - moments[0]) / moments[1], (y - moments[2]) / moments[3]
    if settings.standardize and before is not None:
        coef = np.stack([_rescaled(sizes, one, *_inverse(moments)) for one in coef])
    rows = np.stack([rng.permutation(len(z))[:seen_by_one] for _ in range(count)])
    found, epochs, loss = _descended(sizes, settings, coef, z, y, rows[:, held_out:], rows[:, :held_out], rng)
    if not np.isfinite(found).all():
        raise ValueError("A network does not get finite. Lower `NeuralSettings(learning_rate=...)`.")
    if settings.standardize:
        found = np.stack([_rescaled(sizes, one, *moments) for one in found])
    seen = np.column_stack([pairs.x.min(axis=0), pairs.x.max(axis=0)])
    return NeuralModel(form, task.states, task.inputs, task.dt, seen, settings.hidden, settings.activation, found,
                       epochs, loss)  # fmt: skip


# ---- networks as one vector of numbers


def _layers(sizes: tuple[int, ...], flat: Any) -> list[tuple[Any, Any]]:
    """Weights (in, out) and biases (out,) of each layer."""
    layers, start = [], 0
    for rows, columns in itertools.pairwise(sizes):
        weight = flat[start : start + rows * columns].reshape(rows, columns)
        start += (rows + 1) * columns
        layers.append((weight, flat[start - columns : start]))
    return layers


def _network(lib: Any, sizes: tuple[int, ...], activation: Activation, flat: Any, z: Any) -> Any:
    """(..., in) -> (..., out), by NumPy or by JAX."""
    *hidden, last = _layers(sizes, flat)
    for weight, bias in hidden:
        z = z @ weight + bias
        z = lib.tanh(z) if activation == "tanh" else lib.maximum(z, 0.0)
    return z @ last[0] + last[1]


def _drawn(sizes: tuple[int, ...], activation: Activation, rng: np.random.Generator) -> np.ndarray:
    """Uniform weights of variance 2/(in + out), for ReLU 2/in; zero biases.

    Sources: Glorot, Bengio, AISTATS 2010; He, Zhang, Ren, Sun, arXiv 1502.01852.
    """
    parts = []
    for rows, columns in itertools.pairwise(sizes):
        bound = math.sqrt(6.0 / (rows + columns if activation == "tanh" else rows))
        parts += [rng.uniform(-bound, bound, rows * columns), np.zeros(columns)]
    return np.concatenate(parts)


def _rescaled(
    sizes: tuple[int, ...], flat: np.ndarray, at: np.ndarray, unit: np.ndarray, offset: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """The network ``z -> offset + scale f((z - at) / unit)``."""
    layers = _layers(sizes, flat.copy())
    weight, bias = layers[0]
    layers[0] = (weight / unit[:, None], bias - (at / unit) @ weight)
    weight, bias = layers[-1]
    layers[-1] = (weight * scale, bias * scale + offset)
    return np.concatenate([np.ravel(part) for layer in layers for part in layer])


def _inverse(moments: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    at, unit, offset, scale = moments
    return -at / unit, 1.0 / unit, -offset / scale, 1.0 / scale


def _deviation(rows: np.ndarray) -> np.ndarray:
    std = rows.std(axis=0)
    return np.where(std > 0, std, 1.0)


# ---- descent


def _descended(
    sizes: tuple[int, ...],
    settings: NeuralSettings,
    coef: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    fitted: np.ndarray,
    held_out: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Networks (member, parameter), epochs (member,) and errors on what is held out (member,).

    fitted, held_out : (member, row) indices of each member
    """
    import jax

    descend, error, start = _compiled(sizes, settings.activation)
    z, y = z.astype(np.float32), y.astype(np.float32)
    # On the device, as what a step hands back: otherwise the first call would look different from the others.
    flat, members = jax.device_put(coef.astype(np.float32)), len(coef)
    state, size = start(flat), settings.batch
    numbers = np.float32(settings.learning_rate), np.float32(settings.max_gradient)

    def batches(rows: np.ndarray) -> Any:
        """Parts of one size, the last one filled up with rows that weigh nothing."""
        for k in range(0, rows.shape[1], size):
            part = rows[:, k : k + size]
            missing = size - part.shape[1]
            weight = np.pad(np.ones(part.shape, np.float32), [(0, 0), (0, missing)])
            part = np.pad(part, [(0, 0), (0, missing)], mode="edge")
            yield z[part], y[part], weight

    def judged(flat: Any) -> np.ndarray:
        sums = [np.asarray(error(flat, *part), dtype=np.float64) for part in batches(held_out)]
        return np.asarray(np.sum(sums, axis=0) / held_out.shape[1])

    best, lowest = np.array(flat), judged(flat)
    running, epochs, since = np.ones(members, dtype=bool), np.zeros(members, dtype=int), np.zeros(members, dtype=int)
    for _ in range(settings.epochs):
        shuffled = rng.permuted(fitted, axis=1)
        for part in batches(shuffled):
            flat, state = descend(flat, state, *part, *numbers)
        now = judged(flat)
        epochs += running
        lower = running & (now < lowest)  # not so if it is no number any more
        best[lower], lowest[lower] = np.asarray(flat)[lower], now[lower]
        since = np.where(lower, 0, since + 1)
        running &= since < settings.patience
        if not running.any():
            break
    return best.astype(np.float64), epochs, lowest


@functools.lru_cache(maxsize=8)
def _compiled(sizes: tuple[int, ...], activation: Activation) -> tuple[Callable[..., Any], ...]:
    """A step of Adam, sums of squared errors (member,), and Adam's first state; all members at once."""
    import jax
    import jax.numpy as jnp
    import optax  # type: ignore[import-untyped]

    def squared(flat: Any, z: Any, y: Any, weight: Any) -> Any:
        apart = _network(jnp, sizes, activation, flat, z) - y
        return (weight * (apart**2).mean(axis=-1)).sum()

    def optimizer(learning_rate: Any, max_gradient: Any) -> Any:
        return optax.chain(optax.clip_by_global_norm(max_gradient), optax.adam(learning_rate))

    def one(flat: Any, state: Any, z: Any, y: Any, weight: Any, learning_rate: Any, max_gradient: Any) -> Any:
        gradient = jax.grad(lambda flat: squared(flat, z, y, weight) / weight.sum())(flat)
        change, state = optimizer(learning_rate, max_gradient).update(gradient, state)
        return flat + change, state

    descend = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None, None)))
    return descend, jax.jit(jax.vmap(squared)), jax.jit(jax.vmap(optimizer(0.0, 1.0).init))
