"""Dyna: learn a model from real steps, a policy in the model, let the policy collect more real steps, and again.

    D = random real steps
    repeat:  model (and reward) from D;  policy = PPO in the model;  D = D + real steps of the policy

Every real step is counted: those that the model is fitted to as *data*, episodes played only to grade a policy as
*selection*. Where the data of a policy are whole episodes, their returns grade it as well and grading costs nothing.
A policy that does really worse than an earlier one is taken back: learning goes on from the best so far, with the
better model. Nothing here knows any particular system.

Source: Zolman et al., SINDy-RL, arXiv 2403.09110, Algorithm 1; Sutton, Dyna, SIGART Bulletin 2(4), 1991. Its published
settings are `DynaSettings.published`; taking back, grading and stopping are not part of it.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from sindyrl.collect import InteractionMeter, collect, evaluate, random_policy
from sindyrl.envs.surrogate import Leaving, Mode, Surrogate
from sindyrl.identify import identify
from sindyrl.learn import ppo
from sindyrl.learn.network import NeuralPolicy
from sindyrl.learn.ppo import Learner, PPOSettings
from sindyrl.learn.scoring import objective
from sindyrl.model import Model
from sindyrl.regression.subset import SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset

FitModel = Callable[[Dataset], Model]
FitReward = Callable[[Dataset], SparseMap]


@dataclasses.dataclass(frozen=True)
class DynaSettings:
    """What is spent where. The defaults are meant to be efficient; `published` has those of the paper.

    first_steps, hold, reset_every : real steps of random inputs before the first fit, each input held for ``hold``
        steps, a new episode every ``reset_every`` at the latest
    collect_steps : real steps of the policies, without exploration, round by round; the last number is repeated
    keep_steps : at most so many of the policies' real steps are kept, the newest, by whole episodes
    rounds : of fitting, learning and collecting, at most
    calls : of `ppo.train` in a round, at most, each of ``ppo.updates`` updates
    patience : calls without progress of the return in the model after which a round ends; None for never
    target : real return that ends it all; a round ends when the model promises ``margin`` times as much, and not for
        lack of progress before it promises the target. None: no such thing
    margin : see ``target``
    selection_episodes : real episodes that grade a policy whose data are not whole episodes
    rollback : take back a policy that grades worse than the best one, and return the best one
    log_std : what the exploration is raised to, if it is lower, when the model has changed: a policy that no longer
        explores cannot learn that the new model is another one. None leaves it
    mode, leaving, spread : of the `Surrogate`
    ppo : sizes and numbers of the learner
    anneal : surrogate steps over which the learning rate falls to nothing, linearly; None keeps it
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

    def __post_init__(self) -> None:
        for name in ("first_steps", "hold", "reset_every", "rounds", "calls"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`DynaSettings({name}=...)` must be a positive integer. Got {value!r}.")
        object.__setattr__(self, "collect_steps", tuple(self.collect_steps))
        wrong = [n for n in self.collect_steps if isinstance(n, bool) or not isinstance(n, int) or n < 1]
        if not self.collect_steps or wrong:
            raise ValueError(
                f"`DynaSettings(collect_steps=...)` must be at least one positive integer. Got {self.collect_steps!r}."
            )
        for name, least in (("keep_steps", 1), ("patience", 1), ("selection_episodes", 0)):
            value = getattr(self, name)
            optional = value is None and name != "selection_episodes"
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"`DynaSettings({name}=...)` must be an integer of at least {least}. Got {value!r}.")
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError(f"`DynaSettings(target=...)` must be a finite return or None. Got {self.target!r}.")
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"`DynaSettings(margin=...)` must be positive. Got {self.margin!r}.")
        if self.anneal is not None and not self.anneal > 0:
            raise ValueError(f"`DynaSettings(anneal=...)` must be positive or None. Got {self.anneal!r}.")

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
        )  # fmt: skip
        return dataclasses.replace(settings, **changes)


@dataclasses.dataclass(frozen=True)
class Round:
    """One turn of the loop.

    data_steps, selection_steps : real steps so far, this round's included
    model_steps : steps in the surrogate so far
    model_terms : non-zero coefficients of the model
    promised : return of the policy in the model    earned : in reality; None if it was not graded
    taken_back : whether the policy was rejected for an earlier one
    fit_s, learn_s, collect_s : wall time in seconds
    """

    data_steps: int
    selection_steps: int
    model_steps: int
    model_terms: int
    promised: float
    earned: float | None
    taken_back: bool
    fit_s: float
    learn_s: float
    collect_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class DynaResult:
    """policy : the best by real return, or the last if none was graded    model, reward : the last ones fitted"""

    policy: NeuralPolicy
    model: Model
    reward: SparseMap | None
    data: Dataset
    rounds: tuple[Round, ...]

    @property
    def cost(self) -> int:
        """Real steps in all, data and selection."""
        return self.rounds[-1].data_steps + self.rounds[-1].selection_steps


def dyna(
    env: gymnasium.Env[Any, Any],
    task: Task,
    settings: DynaSettings | None = None,
    *,
    seed: int,
    fit: FitModel | None = None,
    fit_reward: FitReward | None = None,
    after: Callable[[Round, NeuralPolicy, Model], None] | None = None,
) -> DynaResult:
    """Learn a policy for a real environment.

    env : the real system; an `InteractionMeter` goes on counting, anything else is wrapped in one
    fit : data -> model, always over the same library; default `sparse_model(task)`
    fit_reward : data -> reward map, always over the same library; None takes the task's own reward
    after : called after each round with its policy and model: to show, to store, or to evaluate for a *report*

    A refit that fails (ValueError) warns and keeps the model before it; the first one raises.
    """
    settings = DynaSettings() if settings is None else settings
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`dyna(seed=...)` must be a non-negative integer. Got {seed!r}.")
    meter = env if isinstance(env, InteractionMeter) else InteractionMeter(env)
    return _Dyna(meter, task, settings, seed, fit or sparse_model(task), fit_reward).run(after)


def sparse_model(task: Task, max_terms: int = 5, members: int = 8) -> FitModel:
    """Few terms by best subset, in the task's structure; members are bootstraps."""

    def fit(data: Dataset) -> Model:
        found = identify(
            data,
            task=task,
            regressor=SubsetSelection(max_terms=max_terms),
            members=members,
            inclusion=False,
            actuators="warn",
        )
        return found.model

    return fit


class _Dyna:
    """One run: what is known so far."""

    def __init__(
        self,
        meter: InteractionMeter,
        task: Task,
        settings: DynaSettings,
        seed: int,
        fit: FitModel,
        fit_reward: FitReward | None,
    ) -> None:
        self.meter, self.task, self.settings, self.seed = meter, task, settings, seed
        self.fit, self.fit_reward = fit, fit_reward
        self.rng = np.random.default_rng(seed)
        self.model_steps = 0
        self.best: tuple[float, Learner] | None = None

    def run(self, after: Callable[[Round, NeuralPolicy, Model], None] | None) -> DynaResult:
        settings, began = self.settings, dict(self.meter.counts)
        with self.meter.counting("data"):
            first = self._collected(
                random_policy(self.meter, settings.hold), settings.first_steps, settings.reset_every
            )
        later: tuple[Any, ...] = ()
        surrogate: Surrogate | None = None
        learner: Learner | None = None
        rounds: list[Round] = []
        for turn in range(settings.rounds):
            clock = [time.perf_counter()]
            data = Dataset((*first.trajectories, *later))
            surrogate = self._refitted(data, surrogate)
            clock.append(time.perf_counter())
            if learner is None:
                learner = ppo.start(surrogate, settings.ppo, int(self.rng.integers(2**31)))
            elif settings.log_std is not None:
                learner = ppo.exploring(learner, settings.log_std)
            learner, promised = self._improved(surrogate, learner)
            policy = ppo.policy(surrogate, learner, settings.ppo)
            clock.append(time.perf_counter())
            with self.meter.counting("data"):
                new = self._collected(policy, settings.collected_in(turn), self.task.horizon)
            later = _newest((*later, *new.trajectories), settings.keep_steps)
            earned = self._grade(policy, new)
            clock.append(time.perf_counter())
            worse = self.best is not None and earned is not None and earned < self.best[0]
            if earned is not None and not worse:
                self.best = (earned, learner)
            counts = {head: self.meter.counts[head] - began[head] for head in began}
            taken_back = worse and settings.rollback
            spent = (counts["data"], counts["selection"], self.model_steps)
            walls = np.diff(clock).tolist()
            rounds.append(Round(*spent, surrogate.model.n_terms, promised, earned, taken_back, *walls))
            if after is not None:
                after(rounds[-1], policy, surrogate.model)
            if taken_back and self.best is not None:
                learner = self.best[1]
            if settings.target is not None and earned is not None and earned >= settings.target:
                break
        assert surrogate is not None
        assert learner is not None
        chosen = self.best[1] if settings.rollback and self.best is not None else learner
        return DynaResult(
            ppo.policy(surrogate, chosen, settings.ppo),
            surrogate.model,
            surrogate.reward,
            Dataset((*first.trajectories, *later)),
            tuple(rounds),
        )

    def _collected(self, policy: Any, steps: int, reset_every: int) -> Dataset:
        names = {"states": self.task.state_names, "inputs": self.task.input_names, "dt": self.task.dt}
        return collect(self.meter, policy, steps=steps, rng=self.rng, reset_every=reset_every, **names)  # type: ignore[arg-type]

    def _refitted(self, data: Dataset, before: Surrogate | None) -> Surrogate:
        settings = self.settings
        try:
            model = self.fit(data)
            reward = None if self.fit_reward is None else self.fit_reward(data)
        except ValueError as error:
            if before is None:
                raise
            warnings.warn(f"A refit failed and the model before it stays. {error}", stacklevel=4)
            return before
        seen = data.pairs().r if reward is not None else None
        believed = None
        if seen is not None and seen.min() < seen.max():
            believed = (float(seen.min()), float(seen.max()))
        return Surrogate(
            self.task,
            model,
            reward,
            mode=settings.mode,
            leaving=settings.leaving,
            spread=settings.spread,
            seed=self.seed,
            reward_range=believed,
        )

    def _improved(self, surrogate: Surrogate, learner: Learner) -> tuple[Learner, float]:
        """PPO for a round: the learner that was best in the model, and its return there."""
        settings = self.settings
        best, promised, since = learner, -math.inf, 0
        for _ in range(settings.calls):
            sizes = self._annealed()
            learner, _ = ppo.train(surrogate, learner, sizes)
            self.model_steps += sizes.batch * sizes.updates
            value = float(objective(ppo.judge(surrogate, learner, sizes)))
            if not math.isfinite(value):
                break  # the numbers blew up: what was best before stays
            since = 0 if value > promised + _PROGRESS * abs(promised) or promised == -math.inf else since + 1
            if value > promised or settings.patience is None:
                best, promised = learner, value
            # Short of the target there is nothing to be gained by collecting with what there is.
            short = settings.target is not None and promised < settings.target
            stuck = settings.patience is not None and since >= settings.patience and not short
            if stuck or (settings.target is not None and promised >= settings.margin * settings.target):
                break
        return best, promised

    def _annealed(self) -> PPOSettings:
        sizes = self.settings.ppo
        if self.settings.anneal is None:
            return sizes
        left = max(1.0 - self.model_steps / self.settings.anneal, 1e-5)
        return dataclasses.replace(sizes, learning_rate=sizes.learning_rate * left)

    def _grade(self, policy: NeuralPolicy, new: Dataset) -> float | None:
        """Mean real return: of the whole episodes among the new data, or else of episodes played for it."""
        horizon = self.task.horizon
        # All episodes but the last were ended by the environment or the horizon, not by the budget of steps.
        parts = new.trajectories if len(new[-1]) == horizon else new.trajectories[:-1]
        if parts:
            return float(np.mean([np.sum(part.r) for part in parts if part.r is not None]))
        if not self.settings.selection_episodes:
            return None
        with self.meter.counting("selection"):
            returns = evaluate(
                self.meter,
                policy,
                episodes=self.settings.selection_episodes,
                rng=self.rng,
                max_steps=horizon,
                states=self.task.state_names,
            )
        return float(returns.mean())


_PROGRESS = 0.02  # relative gain that counts as progress


def _newest(trajectories: tuple[Any, ...], most: int | None) -> tuple[Any, ...]:
    """The last trajectories that hold at most ``most`` steps together, at least the last one."""
    if most is None:
        return trajectories
    kept, steps = 0, 0
    for part in reversed(trajectories):
        steps += len(part)
        if kept and steps > most:
            break
        kept += 1
    return trajectories[len(trajectories) - kept :]
