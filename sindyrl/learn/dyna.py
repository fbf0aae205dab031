"""Dyna: learn a model from real steps, a policy in the model, let the policy collect more real steps, and again.

    D = random real steps
    repeat:  model (and reward) from D;  policy = PPO in the model;  D = D + real steps of the policy

Every real step is counted: those that the model is fitted to as *data*, episodes played only to grade a policy as
*selection*. Where the data of a policy are whole episodes, their returns grade it as well and grading costs nothing.
A policy that does really worse than an earlier one is taken back: learning goes on from the best so far, with the
better model. Nothing here knows any particular system.

How far the model is trusted: members that do not follow the real data are left out (`member_validation`); learning may
be cautious where members disagree, and stop as soon as too few of them still improve. Data may be collected by an
explorer as well, the policy trained on for a moment with optimism in place of caution. So roll-outs stay conservative
while the data lean to where the model is unsure, and the explorer's returns never grade the policy. (A planner that
seeks disagreement would do, too; the adapted policy needs nothing new and stays near where the policy goes, which is
where the model has to be right. How far it strays depends on ``curiosity`` and ``explore_calls``.)

With a folder, every round ends in a checkpoint (`checkpoint`) and a row of a log (`training_log`). A run that was
killed goes on with the next round, to the same bits on the same machine.

Source: Zolman et al., SINDy-RL, arXiv 2403.09110, Algorithm 1; Sutton, Dyna, SIGART Bulletin 2(4), 1991. Its published
settings are `DynaSettings.published`; taking back, grading and stopping are not part of it. The share of members that
still improve: Kurutach et al., Model-Ensemble Trust-Region Policy Optimization, arXiv 1802.10592.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sindyrl.collect import InteractionMeter, NonFiniteError, collect, evaluate, random_policy
from sindyrl.envs.surrogate import Surrogate
from sindyrl.identify import identify
from sindyrl.learn.checkpoint import TrainingFolder
from sindyrl.learn.dyna_learning import explored, improved
from sindyrl.learn.dyna_request import FitModel as FitModel
from sindyrl.learn.dyna_request import FitReward as FitReward
from sindyrl.learn.dyna_request import request
from sindyrl.learn.dyna_settings import DynaSettings as DynaSettings
from sindyrl.learn.dyna_settings import Round as Round
from sindyrl.learn.dyna_state import State, load_state, save_state
from sindyrl.learn.learner import PPO, LearnedPolicy, PolicyLearner
from sindyrl.learn.member_validation import (
    MemberReport,
    mean_disagreement,
    member_coefficients,
    pooled_std,
    validate_members,
)
from sindyrl.learn.reward_correlation import correlation, reward_correlation
from sindyrl.learn.training_log import TrainingLog
from sindyrl.loading import check_fit
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.regression.subset import SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class DynaResult:
    """policy : the best by real return, or the last if none was graded    model, reward : the last ones fitted
    judged : which members of the model are believed, and why not the others; None if nobody asked
    """

    policy: Any
    model: Any
    reward: SparseMap | None
    data: Dataset
    rounds: tuple[Round, ...]
    judged: MemberReport | None = None

    @property
    def cost(self) -> int:
        """Real steps in all: data, selection, and those that a kill may have cost."""
        last = self.rounds[-1]
        return last.data_steps + last.selection_steps + last.lost_steps


def dyna(
    env: gymnasium.Env[Any, Any],
    task: Task,
    settings: DynaSettings | None = None,
    *,
    seed: int,
    fit: FitModel | None = None,
    fit_reward: FitReward | None = None,
    learner: PolicyLearner | None = None,
    after: Callable[[Round, Any, Any], None] | None = None,
    folder: str | Path | None = None,
    tensorboard: bool | None = None,
) -> DynaResult:
    """Learn a policy for a real environment.

    env : the real system; an `InteractionMeter` goes on counting, anything else is wrapped in one
    fit : data -> model, always over the same library; default `sparse_model(task)`
    fit_reward : data -> reward map, always over the same library; None takes the task's own
    learner : how a policy is learned in the model (see `sindyrl.learn.learner`); default PPO with ``settings.ppo``
    after : called after each round with its policy and model: to show, to store, or to evaluate for a *report*
    folder : where checkpoints and the log of the rounds go. A run that was killed goes on there with its next round;
        one that has ended is handed back without a real step, or goes on if more ``rounds`` are asked for. The real
        steps before are in the result's `cost`, not in this process's meter
    tensorboard : whether the log has event files too; None if the package is there

    A refit that fails (ValueError) warns and keeps the model before it; the first one raises. A real system that breaks
    off with numbers that are not finite warns and ends that policy's turn; in the random steps it raises. So do spaces
    other than the task's, before the first step: inputs that it has not got would be learned with, or applied.
    Raises `CheckpointError` if the folder holds a run of other settings, task, learner or seed. Functions are told
    apart by their names and by the plain settings they enclose, not by what they do; one that remembers earlier calls
    (networks that go on where the last fit ended) begins anew in a run that goes on, which then has other numbers.
    """
    settings = DynaSettings() if settings is None else settings
    seed = check_number("dyna(seed=...)", seed, "a non-negative integer", whole(0))
    check_fit(task, env)
    meter = env if isinstance(env, InteractionMeter) else InteractionMeter(env)
    fit = sparse_model(task) if fit is None else fit
    learner = PPO(settings.ppo) if learner is None else learner
    if folder is None:
        return _Dyna(meter, task, settings, seed, fit, fit_reward, learner).run(after)
    stored = TrainingFolder(folder, request(task, settings, seed, fit, fit_reward, learner))
    return _Dyna(meter, task, settings, seed, fit, fit_reward, learner, stored, tensorboard).run(after)


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
    """One run."""

    def __init__(
        self,
        meter: InteractionMeter,
        task: Task,
        settings: DynaSettings,
        seed: int,
        fit: FitModel,
        fit_reward: FitReward | None,
        learner: PolicyLearner,
        folder: TrainingFolder | None = None,
        tensorboard: bool | None = None,
    ) -> None:
        self.meter, self.task, self.settings, self.seed = meter, task, settings, seed
        self.fit, self.fit_reward, self.learner = fit, fit_reward, learner
        self.folder, self.tensorboard = folder, tensorboard
        self._counted = dict(meter.counts)
        self.known: State

    # ---- the loop

    def run(self, after: Callable[[Round, Any, Any], None] | None) -> DynaResult:
        restored = self._restored()
        # Before the first real step, so that a missing package costs nothing.
        log = self._log(() if restored is None else restored.rounds)
        known = self.known = self._begun() if restored is None else restored
        while len(known.rounds) < self.settings.rounds and not known.done:
            policy = self._round()
            self._store()
            if log is not None:
                log.add(dataclasses.asdict(known.rounds[-1]))
            if after is not None:
                after(known.rounds[-1], policy, known.model)
        return DynaResult(self._chosen(), known.model, known.reward, known.data, known.rounds, self._judged())

    def _begun(self) -> State:
        """The first, random, real steps."""
        settings, rng = self.settings, np.random.default_rng(self.seed)
        lost = self._lost()
        self._expect(settings.first_steps)
        with self.meter.counting("data"):
            act = random_policy(self.meter, settings.hold)
            first = self._collected(rng, act, settings.first_steps, settings.reset_every)
        still = [name for name, std in zip(first.states, pooled_std(first), strict=True) if std == 0]
        if still:
            warnings.warn(
                f"{still} never changed in {first.steps} real steps: no model of these data can know what moves them. "
                "Start elsewhere, let inputs last longer with `hold`, or leave constant states out of the task.",
                stacklevel=4,
            )
        self.known = State(rng, first, lost_steps=lost)
        self._count()
        self._store()
        return self.known

    def _round(self) -> LearnedPolicy:
        known, settings, turn = self.known, self.settings, len(self.known.rounds)
        clock = [time.perf_counter()]
        self._refit()
        judged = self._judged()
        known.members = None if judged is None or judged.believed.all() else judged.believed
        if judged is not None and not judged.trusted:
            warnings.warn(
                f"Hardly any member of the model follows the newest real data: {judged}\nWhat is learned in it may "
                "fail in reality. Offer other terms, or collect more.",
                stacklevel=4,
            )
        surrogate = self._surrogate(settings.caution)
        clock.append(time.perf_counter())

        if known.learner is None:
            known.learner = self.learner.start(surrogate, int(known.rng.integers(2**31)))
        elif settings.log_std is not None:
            known.learner = self.learner.exploring(known.learner, settings.log_std)
        learned = improved(self.learner, surrogate, known.learner, settings, known.model_steps)
        known.learner, known.model_steps = learned.state, known.model_steps + learned.steps
        policy = self.learner.policy(surrogate, learned.state)
        explorer = self._explorer(learned.state) if settings.explore_steps else None
        clock.append(time.perf_counter())

        planned = settings.collected_in(turn) + settings.explore_steps
        self._expect(planned + settings.selection_episodes * self.task.horizon)
        extra = None if explorer is None else self._tried(explorer, settings.explore_steps)
        new = self._tried(policy, settings.collected_in(turn))
        earned = None if new is None else self._grade(policy, new)
        clock.append(time.perf_counter())

        model_error, going = self._compared(new)
        fresh = [part for data in (extra, new) if data is not None for part in data]
        known.later = _newest((*known.later, *fresh), settings.keep_steps)
        worse = known.best is not None and (new is None or (earned is not None and earned < known.best[0]))
        if earned is not None and not worse:
            known.best = (earned, known.learner)
        taken_back = worse and settings.rollback
        if taken_back and known.best is not None:
            known.learner = known.best[1]
        self._count()
        known.done = settings.target is not None and earned is not None and earned >= settings.target
        pairs = [(r.promised, r.earned) for r in known.rounds] + [(learned.promised, earned)]
        graded = [(a, b) for a, b in pairs if a is not None and b is not None]
        told = Round(
            turn=turn,
            data_steps=known.data_steps,
            selection_steps=known.selection_steps,
            lost_steps=known.lost_steps,
            model_steps=known.model_steps,
            model_terms=surrogate.model.n_terms,
            members=len(member_coefficients(surrogate.model)),
            believed=len(surrogate.believed),
            member_error=None if judged is None else judged.error,
            model_error=model_error,
            reward_correlation=going,
            promised=learned.promised,
            earned=earned,
            promise_correlation=correlation([a for a, _ in graded], [b for _, b in graded]),
            agreed=learned.agreed,
            calls=learned.calls,
            ended=learned.ended,
            taken_back=taken_back,
            failed=new is None,
            policy_loss=learned.figures.get("policy_loss"),
            value_loss=learned.figures.get("value_loss"),
            entropy=learned.figures.get("entropy"),
            fit_s=clock[1] - clock[0],
            learn_s=clock[2] - clock[1],
            collect_s=clock[3] - clock[2],
        )
        known.rounds = (*known.rounds, told)
        return policy

    # ---- the model

    def _refit(self) -> None:
        known = self.known
        data = known.data
        try:
            model = self.fit(data)
            reward = None if self.fit_reward is None else self.fit_reward(data)
        except ValueError as error:
            if known.model is None:
                raise
            warnings.warn(f"A refit failed and the model before it stays. {error}", stacklevel=5)
            return
        seen = data.pairs().r if reward is not None else None
        known.model, known.reward, known.fitted, known.reward_range = model, reward, data, None
        if seen is not None and seen.min() < seen.max():
            known.reward_range = (float(seen.min()), float(seen.max()))

    def _judged(self) -> MemberReport | None:
        """Which members of the model follow the newest real data; None if nobody asks."""
        known, settings = self.known, self.settings
        if settings.believable is None or known.model is None:
            return None
        return validate_members(
            known.model,
            Dataset(_newest(known.data.trajectories, _JUDGED)),
            horizon=settings.validate_steps,
            worst=settings.believable,
            scale=pooled_std(known.data),
            exclude=self.task.exclude,
        )

    def _surrogate(self, caution: float) -> Surrogate:
        """caution : as in `DynaSettings`"""
        known, settings = self.known, self.settings
        assert known.model is not None
        if caution:
            caution *= self._disagreement_unit()
        return Surrogate(
            self.task,
            known.model,
            known.reward,
            mode=settings.mode,
            leaving=settings.leaving,
            spread=settings.spread,
            seed=self.seed,
            reward_range=known.reward_range,
            caution=caution,
            members=known.members,
        )

    def _disagreement_unit(self) -> float:
        """Standard deviation of the real rewards over the mean disagreement on the real data."""
        known = self.known
        assert known.model is not None
        count = len(member_coefficients(known.model)) if known.members is None else int(known.members.sum())
        if count < 2:
            raise ValueError(
                "`DynaSettings(caution=..., explore_steps=...)` needs a model with at least 2 members, whose "
                f"disagreement counts. Got {count}; without them both are 0."
            )
        rewards = known.data.pairs().r
        spread = 0.0 if rewards is None else float(np.std(rewards))
        # Below that, disagreement is the rounding of roll-outs in float32.
        typical = max(mean_disagreement(known.model, known.data, known.members), _ROUNDING)
        return (spread if spread > 0 else 1.0) / typical

    def _compared(self, new: Dataset | None) -> tuple[float | None, float | None]:
        """Error of prediction on data that came after the fit, and how predicted rewards go with real ones there."""
        known, settings = self.known, self.settings
        if new is None:
            return None, None
        assert known.model is not None
        everything = Dataset((*known.data.trajectories, *new.trajectories))
        horizon, scale, exclude = settings.validate_steps, pooled_std(everything), self.task.exclude
        found = validate_members(known.model, new, horizon=horizon, scale=scale, exclude=exclude)
        believed = found.errors if known.members is None else found.errors[known.members]
        error = float(np.median(believed))
        going = reward_correlation(
            self.task, known.model, new, reward=known.reward, members=known.members, horizon=horizon
        )
        return (error if math.isfinite(error) else None), going

    # ---- the policy

    def _explorer(self, state: Any) -> LearnedPolicy:
        """The policy after some calls in which disagreement is sought; what the learner knows stays as it was."""
        optimistic, known = self._surrogate(-self.settings.curiosity), self.known
        state, steps = explored(self.learner, optimistic, state, self.settings, known.model_steps)
        known.model_steps += steps
        return self.learner.policy(optimistic, state)

    def _chosen(self) -> LearnedPolicy | None:
        """The policy that the run would return now."""
        known = self.known
        if known.learner is None:
            return None
        chosen = known.best[1] if self.settings.rollback and known.best is not None else known.learner
        return self.learner.policy(self._surrogate(0.0), chosen)

    # ---- the real system

    def _collected(self, rng: np.random.Generator, policy: Any, steps: int, reset_every: int) -> Dataset:
        names = {"states": self.task.state_names, "inputs": self.task.input_names, "dt": self.task.dt}
        return collect(self.meter, policy, steps=steps, rng=rng, reset_every=reset_every, **names)  # type: ignore[arg-type]

    def _tried(self, policy: LearnedPolicy, steps: int) -> Dataset | None:
        """Real steps of a policy; None, and a warning, if the system broke off."""
        try:
            with self.meter.counting("data"):
                return self._collected(self.known.rng, policy, steps, self.task.horizon)
        except NonFiniteError as error:
            warnings.warn(f"The real steps of a policy were broken off and are lost. {error}", stacklevel=5)
            return None

    def _grade(self, policy: LearnedPolicy, new: Dataset) -> float | None:
        """Mean real return: of the whole episodes among the new data, or else of episodes played for it."""
        horizon = self.task.horizon
        # Those that began early enough to reach the horizon. All that happened to end within the steps would be the
        # short ones: of a policy that falls now and then only the falls.
        begun = np.cumsum([0, *(len(part) for part in new)])
        parts = [part for part, k in zip(new, begun, strict=False) if k + horizon <= new.steps]
        if parts:
            return float(np.mean([np.sum(part.r) for part in parts if part.r is not None]))
        if not self.settings.selection_episodes:
            return None
        try:
            with self.meter.counting("selection"):
                returns = evaluate(
                    self.meter,
                    policy,
                    episodes=self.settings.selection_episodes,
                    rng=self.known.rng,
                    max_steps=horizon,
                    states=self.task.state_names,
                )
        except NonFiniteError as error:
            warnings.warn(f"The real episodes that grade a policy were broken off. {error}", stacklevel=5)
            return None
        return float(returns.mean())

    def _count(self) -> None:
        """Add the real steps that the meter has counted since the last time."""
        now = self.meter.counts
        self.known.data_steps += now["data"] - self._counted["data"]
        self.known.selection_steps += now["selection"] - self._counted["selection"]
        self._counted = now

    # ---- the folder

    def _restored(self) -> State | None:
        """What the folder's newest checkpoint knows."""
        newest = None if self.folder is None else self.folder.newest()
        if newest is None:
            return None

        def like(state: State) -> Any:
            self.known = state
            return self.learner.start(self._surrogate(0.0), 0)

        self.known = load_state(newest, self.fit, like)
        self.known.lost_steps += self._lost()
        return self.known

    def _lost(self) -> int:
        """Real steps that an interrupted attempt may have taken."""
        steps = 0 if self.folder is None else self.folder.lost
        if steps:
            warnings.warn(
                f"This run was killed while it took real steps. Up to {steps} of them are lost, and count.",
                stacklevel=5,
            )
        return steps

    def _expect(self, steps: int) -> None:
        if self.folder is not None:
            self.folder.expect(steps)

    def _store(self) -> None:
        if self.folder is not None:
            policy = self._chosen()
            self.folder.save(len(self.known.rounds), lambda path: save_state(path, self.known, policy))

    def _log(self, rounds: tuple[Round, ...]) -> TrainingLog | None:
        if self.folder is None:
            return None
        columns = [field.name for field in dataclasses.fields(Round)]
        earlier = [dataclasses.asdict(each) for each in rounds]
        return TrainingLog(self.folder.path, columns, axis="data_steps", tensorboard=self.tensorboard, earlier=earlier)


_ROUNDING = 1e-6  # of half the width of the data
_JUDGED = 1000  # newest real steps, at least a trajectory, on which members are judged


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
