r"""The next experiment: inputs that are expected to teach the model most.

Candidate input sequences are rolled out in the model, each in every member of its ensemble, and judged by what the
predicted path would add to the data:

* ``"d_optimal"``: the growth of ``log det`` of the information matrix ``G = theta' theta`` over the library's terms,

  .. math:: \log\det(G + \Theta'\Theta) - \log\det G = \log\det(I + \Theta G^{-1} \Theta'),

  which for equal noise is twice the expected gain, in nats, about one target's coefficients; it needs the data so far.
* ``"variance"``: how much the members disagree along the path, as active learning with ensembles does it; it needs
  an ensemble, and no data.

A path that leaves the states' limits in any member is not taken: an experiment should come back.

References: Fedorov, Theory of Optimal Experiments, 1972; Goodwin and Payne, Dynamic System Identification, 1977;
Fasel, Kutz, Brunton, Brunton, Proceedings of the Royal Society A 478, 2022 (ensemble SINDy, active learning).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Outcome
from sindyrl.structure import Columns
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["ActiveExcitation", "Criterion", "DesignedInput", "information_matrix", "input_candidates", "next_input"]

Criterion = Literal["d_optimal", "variance"]

_RIDGE = 1e-12  # on unit columns: terms that depend on each other get no gain out of rounding
_HUGE = 1e20  # a state beyond has left any limits; its powers in a library can still be squared


@dataclasses.dataclass(frozen=True, eq=False)
class DesignedInput:
    """The best of the candidates.

    u : (horizon, n_inputs)    x : (horizon + 1, n_states), the path predicted by the first member
    index : which candidate    gains : (candidate,) the criterion, -inf for those that leave the limits
    outcome : `Outcome.infeasible` if every candidate leaves the limits; then the one that stays longest is taken
    """

    u: np.ndarray
    x: np.ndarray
    index: int
    gains: np.ndarray
    outcome: Outcome

    @property
    def gain(self) -> float:
        return float(self.gains[self.index])


def information_matrix(model: Model, data: Dataset | Trajectory) -> np.ndarray:
    """``theta' theta`` (feature, feature) of the model's library over the transitions of the data.

    The terms are evaluated where the regression evaluates them, at the midpoint of a step for a derivative.
    """
    pairs = (Dataset((data,)) if isinstance(data, Trajectory) else data).pairs()
    theta = _features(model, pairs.x, pairs.u, pairs.x_next)
    return np.asarray(theta.T @ theta)


def input_candidates(
    count: int,
    horizon: int,
    *,
    lower: Sequence[float] | np.ndarray,
    upper: Sequence[float] | np.ndarray,
    hold: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Random sequences (count, horizon, n_inputs), each value held for ``hold`` steps; half the values are limits.

    What informs most about a linear effect lies at the limits, what tells a curved one from it lies between them.
    """
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    shape = (count, -(-horizon // hold), len(low))
    extreme = np.where(rng.random(shape) < 0.5, low, high)
    values = np.where(rng.random(shape) < 0.5, extreme, rng.uniform(low, high, shape))
    return np.repeat(values, hold, axis=1)[:, :horizon]


def next_input(
    model: Model,
    x: np.ndarray,
    candidates: np.ndarray,
    *,
    criterion: Criterion = "d_optimal",
    information: np.ndarray | None = None,
    limits: np.ndarray | None = None,
) -> DesignedInput:
    r"""The candidate whose predicted path is expected to teach most; the first of equals.

    model : its members each predict a path and the gain is their mean; one member is enough for ``"d_optimal"``
    x : (n_states,) the state now
    candidates : (candidate, horizon, n_inputs), for instance from `input_candidates`
    criterion : ``"d_optimal"`` is the growth of ``log det`` of the information matrix. ``"variance"`` is the mean over
        the path and the targets of the members' variance, each target in units of the variance of its predictions over
        all candidates. Neither depends on the units of states, inputs or terms.
    information : (feature, feature) of the data so far, from `information_matrix`; for ``"d_optimal"``
    limits : (n_states, 2) that every member's path must keep to. By default the ranges of the model's states; a state
        without one may leave the box of the data by its width on either side, as beyond it no prediction is to be
        trusted and polynomials promise any information one likes.

    Raises ValueError for shapes that do not fit, and for what the criterion lacks.
    """
    x = np.asarray(x, dtype=np.float64)
    u = np.asarray(candidates, dtype=np.float64)
    coef = model.rates.coef if model.rates.coef.ndim == 3 else model.rates.coef[None]
    _check(model, x, u, criterion, information, len(coef))
    box = _box(model) if limits is None else np.asarray(limits, dtype=np.float64)
    if box.shape != (len(model.states), 2):
        raise ValueError(f"`next_input(limits=...)` must have shape ({len(model.states)}, 2). Got {box.shape}.")
    # A state that is already outside may not go farther out; otherwise nothing would be left to choose.
    box = np.clip(np.column_stack([np.minimum(box[:, 0], x), np.maximum(box[:, 1], x)]), -_HUGE, _HUGE)

    paths, valid = _roll_out(model, coef, x, u, box)
    members, count, horizon = paths.shape[0], u.shape[0], u.shape[1]
    held = np.broadcast_to(u, (members, *u.shape)).reshape(-1, u.shape[2])
    before, after = (part.reshape(-1, len(x)) for part in (paths[:, :, :-1], paths[:, :, 1:]))
    theta = _features(model, before, held, after).reshape(members, count, horizon, -1)
    if criterion == "d_optimal":
        assert information is not None
        gains = _log_det_growth(information, theta).mean(axis=0)
    else:
        gains = _disagreement(theta, coef)
    stays = (valid == horizon).all(axis=0)
    gains = np.where(stays, gains, -np.inf)
    index = int(gains.argmax()) if stays.any() else int(valid.min(axis=0).argmax())
    outcome = Outcome.solved if stays.any() else Outcome.infeasible
    return DesignedInput(u[index].copy(), paths[0, index].copy(), index, gains, outcome)


class ActiveExcitation:
    """A policy that excites a system so as to learn its model, and refits the model as it goes.

        excite = ActiveExcitation(fit, states=("x", "v"), inputs=(Signal("u", "N", -1, 1),), dt=0.05)
        data = sindyrl.collect(env, excite, steps=400, rng=rng)

    It sees its transitions by itself: each call brings the state that the last input led to. Inputs are random, held
    for ``hold`` steps, until ``warmup`` transitions are known and ``refit`` succeeds; from then on every ``hold`` steps
    the best of new candidates is chosen and its first ``hold`` steps are played. What it has seen is kept from one
    `collect` to the next.

    refit : the model of the data so far; raises ValueError if they do not suffice yet
    states : names, in the order of the observation    inputs : signals with finite limits, within the actuator's
    dt : seconds per step    refit_every : transitions    horizon : steps looked ahead    candidates : per choice
    criterion, limits : see `next_input`

    Attributes: ``model``, the newest or None; ``reason``, why the last refit failed or None.
    """

    def __init__(
        self,
        refit: Callable[[Dataset], Model],
        *,
        states: Sequence[str],
        inputs: Sequence[Signal],
        dt: float,
        criterion: Criterion = "d_optimal",
        warmup: int = 30,
        refit_every: int = 30,
        horizon: int = 20,
        hold: int = 5,
        candidates: int = 64,
        limits: np.ndarray | None = None,
    ) -> None:
        counts = {
            "warmup": warmup, "refit_every": refit_every, "horizon": horizon, "hold": hold, "candidates": candidates
        }  # fmt: skip
        warmup, refit_every, horizon, hold, candidates = (
            check_number(f"ActiveExcitation({name}=...)", value, "a positive integer", whole(1))
            for name, value in counts.items()
        )
        self.low, self.high = (np.array([getattr(s, side) for s in inputs]) for side in ("lower", "upper"))
        if not inputs or not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(f"`ActiveExcitation(inputs=...)` must be signals with finite limits. Got {tuple(inputs)}.")
        if criterion not in ("d_optimal", "variance"):
            raise ValueError(f"`ActiveExcitation(criterion=...)` must be 'd_optimal' or 'variance'. Got {criterion!r}.")
        self.model: Model | None = None
        self.reason: ValueError | None = None
        self._refit, self._criterion, self._limits, self._dt = refit, criterion, limits, dt
        self._names = tuple(states), tuple(signal.name for signal in inputs)
        self._warmup, self._refit_every = warmup, refit_every
        self._horizon, self._hold, self._candidates = horizon, hold, candidates
        self._episodes: list[tuple[list[np.ndarray], list[np.ndarray]]] = []  # states and the inputs after them
        self._fitted = -refit_every  # transitions known at the last refit
        self._queue: list[np.ndarray] = []
        self._rng: np.random.Generator | None = None

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._episodes.append(([], []))
        self._queue = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._rng is None:
            raise RuntimeError("`ActiveExcitation` must be given its generator first. Call `policy.reset(rng)`.")
        states, inputs = self._episodes[-1]
        states.append(np.array(x, dtype=np.float64))
        if not self._queue:
            self._queue = list(self._choose(states[-1], self._rng)[: self._hold])
        inputs.append(self._queue.pop(0))
        return inputs[-1].copy()

    def _choose(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        data = self.data
        known = 0 if data is None else data.steps
        if data is not None and known >= self._warmup and known - self._fitted >= self._refit_every:
            self._fitted = known
            try:
                self.model, self.reason = self._refit(data), None
            except ValueError as error:
                self.reason = error
        options = input_candidates(
            self._candidates, self._horizon, lower=self.low, upper=self.high, hold=self._hold, rng=rng
        )
        if self.model is None or data is None:
            return np.tile(rng.uniform(self.low, self.high), (self._hold, 1))
        seen = information_matrix(self.model, data) if self._criterion == "d_optimal" else None
        return next_input(self.model, x, options, criterion=self._criterion, information=seen, limits=self._limits).u

    @property
    def data(self) -> Dataset | None:
        """The transitions that the policy has seen, None before the first."""
        trajectories = [
            Trajectory.uniform(
                np.array(x), np.array(u[: len(x) - 1]), dt=self._dt, states=self._names[0], inputs=self._names[1]
            )
            for x, u in self._episodes
            if len(x) > 1
        ]
        return Dataset(tuple(trajectories)) if trajectories else None


def _features(model: Model, x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Library matrix (transition, feature) where the structure evaluates it."""
    middle, _ = model.structure.samples(model.state_names, x, x_next, model.dt)
    return model.rates.library.features(np.stack(model.feature_columns(list(middle.T), list(u.T)), axis=-1))


def _roll_out(
    model: Model, coef: np.ndarray, x: np.ndarray, u: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paths (member, candidate, horizon + 1, state) and the steps (member, candidate) before each leaves the box.

    Coefficients enter as a batched product with the library matrix, so that a refit compiles nothing.
    """
    library = model.rates.library

    def rates(states: Columns, held: Columns) -> Columns:
        z = np.stack(np.broadcast_arrays(*model.feature_columns(states, held)), axis=-1)
        return list(np.moveaxis(library.features(z) @ np.swapaxes(coef, -1, -2), -1, 0))

    shape = (len(coef), len(u))
    state = np.broadcast_to(x, (*shape, len(x)))
    alive, valid, path = np.ones(shape, dtype=bool), np.zeros(shape, dtype=int), [state]
    for k in range(u.shape[1]):
        held = [np.broadcast_to(column, shape) for column in u[:, k].T]
        with np.errstate(all="ignore"):  # a path that overflows has left the box
            columns = model.structure.advance(model.state_names, rates, list(np.moveaxis(state, -1, 0)), held, model.dt)
            after = np.stack(np.broadcast_arrays(*columns), axis=-1)
            alive = alive & np.isfinite(after).all(axis=-1) & ((after >= box[:, 0]) & (after <= box[:, 1])).all(axis=-1)
        state = np.where(alive[..., None], after, state)  # where it left, it stays put
        valid += alive
        path.append(state)
    return np.stack(path, axis=-2), valid


def _log_det_growth(information: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """``log det(G + theta' theta) - log det G`` over the last two axes (horizon, feature) of theta."""
    # Columns of comparable size: the growth is the same, and the ridge means the same for every term.
    size = np.sqrt(np.diag(information) + np.mean(np.sum(theta**2, axis=-2), axis=tuple(range(theta.ndim - 2))))
    size = np.where(size > 0, size, 1.0)
    factor = np.linalg.cholesky(information / np.outer(size, size) + _RIDGE * np.eye(len(size)))
    whitened = np.linalg.solve(factor, np.swapaxes(theta / size, -1, -2))  # (..., feature, horizon)
    rows = np.swapaxes(whitened, -1, -2)
    inner = rows @ whitened if theta.shape[-2] <= theta.shape[-1] else whitened @ rows
    return np.asarray(np.linalg.slogdet(np.eye(inner.shape[-1]) + inner)[1])


def _disagreement(theta: np.ndarray, coef: np.ndarray) -> np.ndarray:
    """Mean variance (candidate,) of the members' predictions along the paths, each target in units of its own spread.

    All members predict at the same points, those of every member's path: what differs are the equations, not the paths.
    """
    predicted = np.einsum("mchf,ntf->ncmht", theta, coef)  # by member n, at the path of member m
    spread = predicted.mean(axis=0).var(axis=(0, 1, 2))
    variance = predicted.var(axis=0, ddof=1).mean(axis=(1, 2))
    return np.asarray((variance / np.where(spread > 0, spread, np.inf)).mean(axis=-1))


def _box(model: Model) -> np.ndarray:
    """Ranges of the states, and where there are none the box of the data with its width on either side."""
    low, high = model.seen.T
    lower, upper = np.array([(signal.lower, signal.upper) for signal in model.states]).T
    width = high - low
    return np.column_stack(
        [np.where(np.isfinite(lower), lower, low - width), np.where(np.isfinite(upper), upper, high + width)]
    )


def _check(
    model: Model, x: np.ndarray, u: np.ndarray, criterion: str, information: np.ndarray | None, members: int
) -> None:
    if x.shape != (len(model.states),):
        raise ValueError(f"`next_input(x=...)` must have shape ({len(model.states)},). Got {x.shape}.")
    if u.ndim != 3 or u.shape[2] != len(model.inputs) or 0 in u.shape:
        raise ValueError(
            f"`next_input(candidates=...)` must have shape (candidate, horizon, {len(model.inputs)}). Got {u.shape}."
        )
    if criterion not in ("d_optimal", "variance"):
        raise ValueError(f"`next_input(criterion=...)` must be 'd_optimal' or 'variance'. Got {criterion!r}.")
    p = len(model.rates.library)
    if criterion == "d_optimal" and (information is None or np.shape(information) != (p, p)):
        raise ValueError(
            f"`next_input(information=...)` must be the ({p}, {p}) matrix of the data so far, from "
            f"`information_matrix(model, data)`. Got {None if information is None else np.shape(information)}."
        )
    if criterion == "variance" and members < 2:
        raise ValueError(
            "`next_input(criterion='variance')` needs an ensemble of at least 2 members. This model has 1; "
            "identify with `members=8`, or choose 'd_optimal'."
        )
