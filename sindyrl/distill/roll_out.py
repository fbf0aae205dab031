"""Roll-outs of any policy in the scenarios in which sparse policies are scored, step by step, with what it saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sindyrl.distill.teacher import Teacher
from sindyrl.learn.scoring import Scenarios, Scorer
from sindyrl.simulate import scored_step, start

Student = Callable[[np.ndarray], np.ndarray]
"""``student(x)``: (n, n_states) -> (n, n_inputs), within the limits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Visited:
    """States and the teacher's labels there, of roll-outs while they were valid, in the order of time.

    x : (n, n_states)    u : (n, n_inputs)    returns : (scenario,)
    """

    x: np.ndarray
    u: np.ndarray
    returns: np.ndarray


class RollOuts:
    """Steps the scorer's model from Python, so that any policy can act; rewards, limits and ends are the scorer's."""

    def __init__(self, scorer: Scorer) -> None:
        import jax
        import jax.numpy as jnp

        self.scorer = scorer
        step = scored_step(scorer.task, scorer.model)

        @jax.jit
        def advance(coef: Any, before: Any, u: Any) -> tuple[Any, Any]:
            after = step(coef, before, list(u))
            lives = after.valid if after.over is None else after.valid & ~after.over
            return after, (jnp.stack(after.x), lives)

        self._advance = advance

    def visited(
        self,
        teacher: Teacher,
        scenarios: Scenarios,
        rng: np.random.Generator,
        *,
        student: Student | None = None,
        share: float = 1.0,
        length: int | None = None,
    ) -> Visited:
        """Roll out the teacher, or a mixture with a student, and label every state with the teacher.

        share : probability, at each step of each roll-out, that the teacher's input is the one applied
        length : steps; None for the task's horizon
        """
        if teacher.pointwise:
            return self._batch(teacher, scenarios, rng, student, share, length)
        singles = [_one(scenarios, index) for index in range(scenarios.x0.shape[-1])]
        parts = [self._batch(teacher, single, rng, student, share, length) for single in singles]
        return Visited(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "u", "returns")))

    def _batch(
        self,
        teacher: Teacher,
        scenarios: Scenarios,
        rng: np.random.Generator,
        student: Student | None,
        share: float,
        length: int | None,
    ) -> Visited:
        task = self.scorer.task
        steps, count = task.horizon if length is None else length, scenarios.x0.shape[-1]
        coef = scenarios.coef.astype(np.float32)
        x = scenarios.x0.astype(np.float32)
        carry = start(task, list(x))
        lives = np.ones(count, dtype=bool)
        seen_at, labels = [], []
        teacher.begin(rng)
        for k in range(steps):
            seen = x.T.astype(np.float64)
            if scenarios.noise is not None:
                seen = seen + scenarios.noise[k % len(scenarios.noise)].T
            label = teacher(seen)
            applied = label
            if student is not None:
                applied = np.where(rng.random((count, 1)) < share, label, student(seen))
            seen_at.append(seen[lives])
            labels.append(label[lives])
            carry, (after, alive) = self._advance(coef, carry, applied.T.astype(np.float32))
            x, lives = np.asarray(after), np.asarray(alive)
            if not lives.any() and not teacher.pointwise:
                break
        self.scorer.model_steps += count * steps
        returns = np.asarray(carry.total, dtype=np.float64)
        # Cut short: what is out of the ranges, and not at its end, would have failed at every step that was left.
        missing = (steps - len(labels)) * float(task.failure_reward or 0.0)
        returns = np.where(np.asarray(carry.valid), returns, returns + missing)
        returns = np.where(np.isfinite(returns), returns, self.scorer.floor)
        return Visited(np.concatenate(seen_at), np.concatenate(labels), returns)


def _one(scenarios: Scenarios, index: int) -> Scenarios:
    at = slice(index, index + 1)
    noise = None if scenarios.noise is None else scenarios.noise[..., at]
    return Scenarios(scenarios.coef[..., at], scenarios.x0[..., at], noise)
