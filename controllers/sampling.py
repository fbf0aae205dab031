"""Cross-entropy planning: sample input sequences, roll them out in the model, keep the best, sample again near them.

References: Rubinstein and Kroese, The Cross-Entropy Method, 2004; Chua et al., Deep Reinforcement Learning in a
Handful of Trials, NeurIPS 2018 (planning over an ensemble); Rockafellar and Uryasev, Optimization of Conditional
Value-at-Risk, Journal of Risk 2(3), 2000; Rajeswaran et al., EPOpt, ICLR 2017 (the worst share of an ensemble).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sindyrl.model import Model
from sindyrl.number_check import check_fields, whole
from sindyrl.protocols import Outcome, Plan
from sindyrl.simulate import scored_step, start
from sindyrl.task import Task


@dataclasses.dataclass(frozen=True)
class SamplingState:
    """knots : (n_knots, n_inputs) means of the held inputs, shifted to start now    calls : plans made so far"""

    knots: np.ndarray
    calls: int


@dataclasses.dataclass(frozen=True)
class CrossEntropyPlanner:
    r"""Maximize the mean predicted return over the ensemble's members, or over the worst share of them.

    The plan is a sequence of knots, each held for ``hold`` steps. Each round draws ``samples`` sequences around the
    mean, scores each in every member, and moves mean and spread to the ``elites`` best; the best so far is kept.

    model : its members' coefficients are arguments of the compiled roll-out: a model refitted over the same library
        (`dataclasses.replace(planner, model=...)`) compiles nothing.
    task : reward, limits, ranges
    horizon : steps looked ahead, a multiple of ``hold``
    spread : initial standard deviation, as a share of half the input range
    members : how many of the model's members to plan with
    seed : of the sampling; the same seed and state give the same plan
    tail : risk aversion: the plan's mean return over the worst share ``tail`` of the members, its conditional value at
        risk (CVaR), is maximized, and its negative is `Plan.cost`. 1 is the mean over all members, ``1 / members`` or
        less the worst member alone; between, the last member of the tail counts in part. Changing it compiles nothing.
    """

    model: Model
    task: Task
    horizon: int = 100
    hold: int = 5
    samples: int = 128
    elites: int = 12
    rounds: int = 4
    spread: float = 0.8
    members: int = 4
    seed: int = 0
    tail: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "horizon hold samples elites rounds members", "a positive integer", whole(1))
        if self.horizon % self.hold:
            raise ValueError(
                f"`CrossEntropyPlanner(horizon=..., hold=...)` must divide evenly. Got {self.horizon} and {self.hold}."
            )
        if self.elites > self.samples:
            raise ValueError(
                f"`CrossEntropyPlanner(elites=...)` must not exceed samples={self.samples}. Got {self.elites}."
            )
        check_fields(self, "spread", "positive", lambda value: value > 0)
        check_fields(self, "tail", "a share of the members in (0, 1]", lambda value: 0 < value <= 1)
        if self.tail < 1 and min(self.members, self._coef.shape[0]) < 2:
            raise ValueError(
                f"`CrossEntropyPlanner(tail={self.tail!r})` needs at least 2 different members to be averse to risk. "
                f"Got members={self.members} and a model with {self._coef.shape[0]}."
            )
        if self.model.state_names != self.task.state_names or self.model.input_names != self.task.input_names:
            raise ValueError(
                f"`CrossEntropyPlanner(model=..., task=...)` must agree on names. Got {self.model.state_names} with "
                f"{self.model.input_names}, and {self.task.state_names} with {self.task.input_names}."
            )

        if not math.isclose(self.model.dt, self.task.dt, rel_tol=1e-6):
            raise ValueError(
                f"`CrossEntropyPlanner(model=..., task=...)` must have one time step. Got {self.model.dt} s and "
                f"{self.task.dt} s."
            )

    def init(self, x: np.ndarray, /) -> SamplingState:
        """Start from the middle of the input range."""
        middle = (self.task.action_low + self.task.action_high) / 2.0
        return SamplingState(np.tile(middle, (self.horizon // self.hold, 1)), 0)

    def plan(self, x: np.ndarray, state: SamplingState, /) -> Plan[SamplingState]:
        """Plan from ``x`` (n_states,). The state handed back continues one knot, ``hold`` steps, later."""
        import jax

        x = np.asarray(x, dtype=np.float64)
        if x.shape != (len(self.task.states),):
            raise ValueError(
                f"`CrossEntropyPlanner.plan(x=...)` must be one state, shape ({len(self.task.states)},). Got {x.shape}."
            )
        coef = np.resize(self._coef[: self.members], (self.members, *self._coef.shape[1:]))
        search = _compiled(
            self.task, _Form(self.model), self.horizon, self.hold, self.samples, self.elites, self.rounds, self.spread
        )
        key = jax.random.fold_in(jax.random.key(self.seed), state.calls)
        # (member, target, feature) -> (target, feature, member): one member per roll-out of the batch.
        columns = np.moveaxis(coef, 0, -1).astype(np.float32)
        knots, score, path, valid = search(
            columns, x.astype(np.float32), state.knots.astype(np.float32), key, np.float32(self.tail)
        )
        u = np.repeat(np.asarray(knots, dtype=np.float64), self.hold, axis=0)
        later = np.concatenate([np.asarray(knots, dtype=np.float64)[1:], self.init(x).knots[:1]])
        return Plan(
            u=u,
            x=np.concatenate([x[None], np.asarray(path, dtype=np.float64)]),
            cost=-float(score),
            outcome=Outcome.solved if bool(valid) else Outcome.diverged,
            state=SamplingState(later, state.calls + 1),
        )

    @property
    def _coef(self) -> np.ndarray:
        """Of all of the model's members, (member, target, feature)."""
        coef = self.model.rates.coef
        return coef if coef.ndim == 3 else coef[None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Form:
    """What of a model is compiled: everything but the coefficients. Equal forms share one compiled search."""

    model: Model

    def _key(self) -> tuple[Any, ...]:
        # Roll-outs are in float32; the step length of recorded data varies in its last float64 bits.
        dt = float(np.float32(self.model.dt))
        return (self.model.rates.library, self.model.structure, self.model.states, self.model.inputs, dt)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Form) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@functools.lru_cache(maxsize=16)
def _compiled(
    task: Task, form: _Form, horizon: int, hold: int, samples: int, elites: int, rounds: int, spread: float
) -> Callable[..., Any]:
    """``search(coef, x, mean, key, tail) -> knots, score, path, valid``; the path is the one in the first member."""
    import jax
    import jax.numpy as jnp

    step = scored_step(task, form.model)
    low = jnp.asarray(task.action_low, jnp.float32)
    high = jnp.asarray(task.action_high, jnp.float32)
    half = (high - low) / 2.0
    knots_shape = (horizon // hold, len(task.inputs))

    def score(coef: Any, x: Any, knots: Any, tail: Any) -> Any:
        """CVaR over members of knots (samples, n_knots, n_inputs), and the first sample's path in one member."""
        shape = (knots.shape[0], coef.shape[-1])
        carry = start(task, [jnp.broadcast_to(value, shape) for value in x])

        def one(carry: Any, held: Any) -> Any:
            carry = step(coef, carry, [jnp.broadcast_to(column[:, None], shape) for column in held])
            return carry, jnp.stack([column[0, 0] for column in carry.x])

        sequence = jnp.repeat(jnp.moveaxis(knots, 0, -1), hold, axis=0)  # (horizon, n_inputs, samples)
        after, path = jax.lax.scan(one, carry, sequence)
        return _worst_mean(after.total, tail), path, after.valid[0, 0]

    @jax.jit
    def search(coef: Any, x: Any, mean: Any, key: Any, tail: Any) -> tuple[Any, Any, Any, Any]:
        def improve(carry: Any, key: Any) -> Any:
            mean, deviation, best = carry
            drawn = mean + deviation * jax.random.normal(key, (samples, *knots_shape), jnp.float32)
            drawn = jnp.clip(drawn, low, high).at[0].set(best)
            scores, path, valid = score(coef, x, drawn, tail)
            chosen = drawn[jnp.argsort(-scores)[:elites]]
            # The floor keeps the search alive when all elites agree on a limit.
            moved = (chosen.mean(axis=0), chosen.std(axis=0) + 0.05 * half, chosen[0])
            return moved, (best, scores[0], path, valid)

        first = (mean, jnp.broadcast_to(spread * half, knots_shape), jnp.clip(mean, low, high))
        # One round more than asked for: it rolls out the best of the others once again and so yields its path,
        # which costs less than compiling a second roll-out.
        _, (best, scores, path, valid) = jax.lax.scan(improve, first, jax.random.split(key, rounds + 1))
        return best[-1], scores[-1], path[-1], valid[-1]

    return search


def _worst_mean(returns: Any, tail: Any) -> Any:
    """Mean of the lowest share ``tail`` of returns (..., member), (...), as traced by JAX.

    ``sum_i w_i r_(i)`` with the returns in ascending order and ``w_i = clip(tail n - i, 0, 1) / (tail n)``, i from 0:
    the discrete CVaR, in which the last member of the tail counts in part.
    """
    import jax.numpy as jnp

    n = returns.shape[-1]
    size = jnp.maximum(tail * n, 1.0)  # of the tail, in members: there is no less than the worst
    weight = jnp.clip(size - jnp.arange(n), 0.0, 1.0) / size
    # All members: exactly their mean, to the last bit, in the order that they come in.
    return jnp.where(tail < 1.0, jnp.sort(returns, axis=-1) @ weight, returns.mean(axis=-1))
