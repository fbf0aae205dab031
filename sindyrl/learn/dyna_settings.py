"""What a run of `dyna` may spend, how far it trusts its model, and what it tells of each round."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

from sindyrl.envs.surrogate import Leaving, Mode
from sindyrl.learn.ppo import PPOSettings
from sindyrl.number_check import check_fields, checked_numbers, whole


@dataclasses.dataclass(frozen=True)
class DynaSettings:
    """What is spent where. The defaults are meant to be efficient; `published` has those of the paper.

    first_steps, hold, reset_every : real steps of random inputs before the first fit, each input held for ``hold``
        steps, a new episode every ``reset_every`` at the latest
    collect_steps : real steps of the policies, without exploration, round by round; the last number is repeated
    keep_steps : at most so many of the policies' real steps are kept, the newest, by whole episodes
    rounds : of fitting, learning and collecting, at most
    calls : of the learner's `train` in a round, at most, each of ``ppo.updates`` updates
    patience : calls without progress in the model after which a round ends; None for never. Progress is a gain of 2 %,
        or what ``agreement`` says
    target : real return that ends it all; a round ends when the model promises ``margin`` times as much, and not for
        lack of progress before it promises the target. None: no such thing
    margin : see ``target``
    selection_episodes : real episodes that grade a policy whose data have no episode that began a whole horizon before
        the last step
    rollback : take back a policy that grades worse than the best one, and return the best one
    log_std : what the exploration is raised to, if it is lower, when the model has changed: a policy that no longer
        explores cannot learn that the new model is another one. None leaves it
    mode, leaving, spread : of the `Surrogate`
    ppo : sizes and numbers of the learner, unless `dyna` is given another one
    anneal : surrogate steps over which the learning rate falls to nothing, linearly; None keeps it
    caution : weight of the members' disagreement in the reward while learning (see `sindyrl.envs.surrogate`), so that
        1 takes one standard deviation of the real rewards from a step on which they disagree as on the real data, where
        that is very little, and ten where they disagree ten times as much. 0 for none
    believable : largest error over ``validate_steps`` steps of the newest real data at which a member of the model is
        believed (see `sindyrl.learn.member_validation`; 1 is as wrong as the mean of the data); None believes all
    validate_steps : see ``believable``
    agreement : share of the believed members in which a call must do better than the best policy so far to be progress;
        too few of them, ``patience`` times in a row, end the round even short of the target. Needs mode "member"
    explore_steps : more real steps in each round, of an explorer: the policy after ``explore_calls`` more calls of
        `train` in which disagreement is rewarded, weight ``curiosity`` in units of ``caution``. They are data and grade
        nothing
    curiosity, explore_calls : see ``explore_steps``
    """

    first_steps: int = 300
    hold: int = 10
    reset_every: int = 125
    collect_steps: tuple[int, ...] = (200, 1000)
    keep_steps: int | None = None
    rounds: int = 3
    calls: int = 40
    patience: int | None = 15
    target: float | None = None
    margin: float = 1.05
    selection_episodes: int = 0
    rollback: bool = True
    log_std: float | None = -1.0
    mode: Mode = "member"
    leaving: Leaving = "penalty"
    spread: float = 0.5
    ppo: PPOSettings = dataclasses.field(default_factory=lambda: PPOSettings(entropy=0.003))
    anneal: float | None = None
    caution: float = 0.0
    believable: float | None = 1.0
    validate_steps: int = 20
    agreement: float | None = None
    explore_steps: int = 0
    curiosity: float = 1.0
    explore_calls: int = 2

    def __post_init__(self) -> None:
        counts = "first_steps hold reset_every rounds calls validate_steps explore_calls"
        check_fields(self, counts, "a positive integer", whole(1))
        steps = self.collect_steps
        steps = checked_numbers("DynaSettings(collect_steps=...)", steps, "at least one positive integer", whole(1))
        object.__setattr__(self, "collect_steps", steps)
        check_fields(self, "keep_steps patience", "an integer of at least 1 or None", whole(1), optional=True)
        check_fields(self, "selection_episodes explore_steps", "an integer of at least 0", whole(0))
        check_fields(self, "target log_std", "a finite number or None", math.isfinite, optional=True)
        check_fields(self, "margin curiosity", "a positive, finite number", lambda value: 0 < value < math.inf)
        for name, allowed in (("mode", get_args(Mode)), ("leaving", get_args(Leaving))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`DynaSettings({name}=...)` must be one of {allowed}. Got {getattr(self, name)!r}.")
        check_fields(self, "spread", "a number in [0, 1)", lambda value: 0 <= value < 1)
        check_fields(self, "caution", "a finite number", math.isfinite)
        check_fields(self, "anneal believable", "a positive number or None", lambda value: value > 0, optional=True)
        check_fields(self, "agreement", "a number in (0, 1] or None", lambda value: 0 < value <= 1, optional=True)
        if self.agreement is not None and (self.mode != "member" or self.patience is None):
            raise ValueError(
                "`DynaSettings(agreement=...)` needs mode='member', so that the members are judged one by one, and a "
                f"patience. Got mode={self.mode!r}, patience={self.patience}."
            )

    def collected_in(self, turn: int) -> int:
        """Real steps of the policy in this round, counted from 0."""
        return self.collect_steps[min(turn, len(self.collect_steps) - 1)]

    @classmethod
    def published(cls, **changes: Any) -> DynaSettings:
        """The paper's settings for the swing-up: 8,000 random steps, then 500 for every 10 iterations of PPO.

        Use with `sindyrl.learn.published.published_model` and the paper's task. What differs: 32 minibatches of 125 for
        31.25 of 128; standardized observations; one log-deviation per input, not one per state; no adaptive KL penalty;
        and the squared error of the critic is not clamped to 0.2, which stopped the published one from learning.
        """
        learner = PPOSettings(environments=2, length=2000, epochs=30, minibatches=32, updates=10, learning_rate=3e-4)
        settings = cls(
            first_steps=8000, hold=1, reset_every=1000, collect_steps=(500,), keep_steps=8000, rounds=250, calls=1,
            patience=None, rollback=False, log_std=None, mode="median", spread=0.0, ppo=learner, anneal=1e7,
            believable=None,
        )  # fmt: skip
        return dataclasses.replace(settings, **changes)


@dataclasses.dataclass(frozen=True)
class Round:
    """One turn of the loop, and a row of its log. None where there is no such figure.

    turn : from 0
    data_steps, selection_steps : real steps so far, this round's included
    lost_steps : real steps so far that a kill may have cost, at most: taken, and in nobody's data
    model_steps : steps in the surrogate so far
    model_terms : non-zero coefficients of the model    members, believed : of the model, and of these believed
    member_error : median error of the believed members on the newest data before this round, which they were fitted to
    model_error : the same on this round's new data of the policy, which came after the fit
    reward_correlation : of predicted and real returns of windows of these new data (`reward_correlation`)
    promised : objective of the policy in the model, less caution    earned : mean real return, if it was graded
    promise_correlation : of ``promised`` and ``earned`` over the rounds so far, from three on
    agreed : share of the believed members in which the policy does better than at the beginning of the round
    calls, ended : of the learner, and why there were no more: "calls" used up, "patience" over, too little
        "agreement", "target" promised, or "not finite" numbers
    taken_back : whether the policy was rejected for an earlier one
    failed : whether the real system broke off with numbers that are not finite; that policy's steps are lost
    policy_loss, value_loss, entropy : of the learner's last call
    fit_s, learn_s, collect_s : wall time in seconds
    """

    turn: int
    data_steps: int
    selection_steps: int
    lost_steps: int
    model_steps: int
    model_terms: int
    members: int
    believed: int
    member_error: float | None
    model_error: float | None
    reward_correlation: float | None
    promised: float | None
    earned: float | None
    promise_correlation: float | None
    agreed: float | None
    calls: int
    ended: str
    taken_back: bool
    failed: bool
    policy_loss: float | None
    value_loss: float | None
    entropy: float | None
    fit_s: float
    learn_s: float
    collect_s: float
