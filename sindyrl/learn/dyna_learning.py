"""A round of learning in `dyna`: the policy is trained in the model while it gets better there, or until it is good."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from sindyrl.envs.surrogate import Surrogate
from sindyrl.learn.dyna_settings import DynaSettings
from sindyrl.learn.learner import PolicyLearner
from sindyrl.learn.member_validation import member_coefficients
from sindyrl.learn.scoring import objective

_PROGRESS = 0.02  # relative gain that counts as progress


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """What came of a round of learning; the fields of `Round`, what the learner knows, and steps in the model."""

    state: Any
    promised: float | None
    agreed: float | None
    calls: int
    ended: str
    figures: dict[str, float]
    steps: int


def improved(
    learner: PolicyLearner, surrogate: Surrogate, state: Any, settings: DynaSettings, steps_before: int
) -> Learned:
    """What was best in the model, and its return there.

    state : what the learner knows    steps_before : in models of this run, which the learning rate falls with
    """
    at_first = _by_member(surrogate, learner.judge(surrogate, state), settings)
    best, reference, promised = state, at_first, -math.inf
    since, calls, steps, ended = 0, 0, 0, "calls"
    figures: dict[str, float] = {}
    while calls < settings.calls:
        state, figures = learner.train(surrogate, state, _slowed(settings, steps_before + steps))
        steps += learner.steps
        calls += 1
        returns = learner.judge(surrogate, state)
        value = float(objective(returns))
        if not math.isfinite(value):
            ended = "not finite"  # the numbers blew up: what was best before stays
            break
        by_member = _by_member(surrogate, returns, settings)
        if settings.agreement is not None:
            progress = float(np.mean(by_member > reference)) >= settings.agreement
        else:
            progress = value > promised + _PROGRESS * abs(promised) or promised == -math.inf
        since = 0 if progress else since + 1
        if value > promised or settings.patience is None:
            best, promised, reference = state, value, by_member
        # Short of the target there is nothing to be gained by collecting with what there is, except where the members
        # no longer agree on what is better.
        short = settings.target is not None and promised < settings.target and settings.agreement is None
        if settings.patience is not None and since >= settings.patience and not short:
            ended = "patience" if settings.agreement is None else "agreement"
            break
        if settings.target is not None and promised >= settings.margin * settings.target:
            ended = "target"
            break
    agreed = None if settings.mode != "member" else float(np.mean(reference > at_first))
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    return Learned(best, promised if math.isfinite(promised) else None, agreed, calls, ended, finite, steps)


def explored(
    learner: PolicyLearner, optimistic: Surrogate, state: Any, settings: DynaSettings, steps_before: int
) -> tuple[Any, int]:
    """What the learner knows after some calls in a model that rewards disagreement, and the steps they took there."""
    steps = 0
    for _ in range(settings.explore_calls):
        state, _ = learner.train(optimistic, state, _slowed(settings, steps_before + steps))
        steps += learner.steps
    return state, steps


def _by_member(surrogate: Surrogate, returns: np.ndarray, settings: DynaSettings) -> np.ndarray:
    """Mean return in each believed member that was judged; of all episodes, where they share one."""
    if settings.mode != "member":
        return np.array([returns.mean()])
    believed = len(surrogate.believed)
    # Episode i is played in the i-th place, and believed members fill the places again from the first.
    member = (np.arange(len(returns)) % len(member_coefficients(surrogate.model))) % believed
    return np.array([returns[member == k].mean() for k in np.unique(member)])


def _slowed(settings: DynaSettings, steps: int) -> float:
    """What the learning rate is multiplied by after so many steps in models."""
    return 1.0 if settings.anneal is None else max(1.0 - steps / settings.anneal, 1e-5)
