r"""Closed-form policies by direct search: CMA-ES on the coefficients of a sparse library, inside an identified model.

    u = clip(sum_j w_j phi_j(x), u_min, u_max)

A dense policy is sought first, then terms are removed one by one, the least missed first, and the rest is optimized
again after each removal. Every candidate is scored by whole episodes in the model, in several *scenarios*: a member of
the ensemble, with coefficients perturbed at random, from a random initial state. The score is the average of the mean
and the worst return, so that a policy which lives on one model's peculiarity scores low. Nothing here knows any
particular system.

References: Hansen, The CMA Evolution Strategy, arXiv 1604.00772; Mania, Guy, Recht, NeurIPS 2018 (random search over
linear policies is competitive); Zolman et al., arXiv 2403.09110 (policies in a library of candidate terms).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from sindyrl.learn.evolution import evolution
from sindyrl.learn.scoring import Scorer, objective, policy_terms
from sindyrl.model import Model
from sindyrl.number_check import check_fields, whole
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task

Progress = Callable[[str, float], None]
"""``progress(stage, score)``, called after each generation."""

Validate = Callable[[SymbolicMap], float]
"""The return of one real episode under a policy."""


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Effort and caution of the search; the defaults suit episodes of about 1000 steps.

    population, generations, restarts, sigma : of the dense searches; sigma is the initial standard deviation of the
        coefficients of unit-scaled terms. They end early when they no longer improve.
    scenarios, spread : of the robust stages: how many, and the relative standard deviation of the model's coefficients
    offspring : candidates per generation of the robust stages
    polish : generations of the robust stage before removing terms, and again at the end
    repair : generations after each removal, at most; it stops as soon as the score is back
    tries : how many removals are tried for each of the last terms if the first is not enough
    keep : a sparse policy is accepted if it keeps this share of the dense policy's score
    trust : a real validation episode accepts a policy that earns this share of what the best dense policy earns in the
        model as fitted
    attempts : how many dense policies are made sparse, the best first, before the best result is taken although none
        was accepted; also the limit on real validation episodes
    """

    population: int = 64
    generations: int = 80
    restarts: int = 3
    sigma: float = 3.0
    scenarios: int = 8
    spread: float = 0.05
    offspring: int = 32
    polish: int = 60
    repair: int = 25
    tries: int = 3
    keep: float = 0.97
    trust: float = 0.97
    attempts: int = 3

    def __post_init__(self) -> None:
        check_fields(self, "population offspring", "an integer of at least 2", whole(2))
        counts = "generations restarts scenarios polish repair tries attempts"
        check_fields(self, counts, "an integer of at least 1", whole(1))
        check_fields(self, "sigma", "a positive number", lambda value: value > 0)
        check_fields(self, "spread keep trust", "a number that is not negative", lambda value: value >= 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A sparse policy and what the model predicts for it.

    sparse : the policy before clipping, coefficients (n_inputs, n_terms) in physical units
    policy : the same, clipped to the inputs' limits
    score : average of the mean and the worst return over the scenarios
    returns : returns by scenario
    path : (number of terms, score) along the removal of terms
    """

    sparse: SparseMap
    policy: SymbolicMap
    score: float
    returns: np.ndarray
    path: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """The policy chosen, and how.

    chosen : the candidate whose policy this is
    dense_score : score of the best policy before any term was removed
    reach : return of the best such policy in the model as fitted, unperturbed
    candidates : all sparse candidates, in the order in which they were found
    validations : (index into candidates, real return) for each real episode
    model_steps : steps taken inside the model
    """

    chosen: Candidate
    dense_score: float
    reach: float
    candidates: tuple[Candidate, ...]
    validations: tuple[tuple[int, float], ...]
    model_steps: int

    @property
    def policy(self) -> SymbolicMap:
        return self.chosen.policy


def search_policy(
    task: Task,
    model: Model,
    *,
    max_terms: int = 10,
    rng: np.random.Generator,
    validate: Validate | None = None,
    noise: np.ndarray | None = None,
    settings: SearchSettings | None = None,
    progress: Progress | None = None,
) -> SymbolicMap:
    """A closed-form policy of at most ``max_terms`` terms; `search` with the policy alone as the answer."""
    return search(
        task, model, max_terms=max_terms, rng=rng, validate=validate, noise=noise, settings=settings, progress=progress
    ).policy


def search(
    task: Task,
    model: Model,
    *,
    max_terms: int = 10,
    rng: np.random.Generator,
    validate: Validate | None = None,
    noise: np.ndarray | None = None,
    settings: SearchSettings | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a closed-form policy in the model.

    max_terms : most terms over all inputs together
    validate : one real episode; called at most ``settings.attempts`` times in all, first on candidates whose score the
        model accepts. One that really earns less than ``settings.trust`` of what is within reach is rejected and the
        search goes on; if none is accepted, the best real return decides. Without it the model's score decides.
    noise : (n_states,) standard deviation of the measurement noise, which the policy then meets in the model as well
        (`sindyrl.measurement_noise` estimates it from data); None for none

    Raises ValueError if the model and the task disagree, or ``max_terms`` is less than the number of inputs.
    """
    settings = SearchSettings() if settings is None else settings
    if model.state_names != task.state_names or model.input_names != task.input_names:
        raise ValueError(
            f"`search(task=..., model=...)` must agree on names. Got {task.state_names} with {task.input_names}, and "
            f"{model.state_names} with {model.input_names}."
        )
    if not math.isclose(model.dt, task.dt, rel_tol=1e-6):
        raise ValueError(f"`search(task=..., model=...)` must have one time step. Got {task.dt} s and {model.dt} s.")
    if max_terms < len(task.inputs):
        raise ValueError(
            f"`search(max_terms=...)` must allow at least one term per input, {len(task.inputs)}. Got {max_terms}."
        )
    return _Search(task, model, max_terms, settings, rng, progress, noise).run(validate)


class _Search:
    """One search: the compiled scorer, the random stream, and the stages."""

    def __init__(
        self,
        task: Task,
        model: Model,
        max_terms: int,
        settings: SearchSettings,
        rng: np.random.Generator,
        progress: Progress | None,
        noise: np.ndarray | None,
    ) -> None:
        self.task, self.max_terms, self.settings, self.rng, self.progress = task, max_terms, settings, rng, progress
        library, self.allowed = policy_terms(task, model, rng)
        self.scorer = Scorer(task, model, library, noise)
        # One and the same examination for every finished policy, dense or sparse.
        self.exam = self.scorer.scenarios(_EXAM, settings.spread, rng)

    # ---- stages

    def run(self, validate: Validate | None) -> SearchResult:
        dense = self._dense()
        found: list[Candidate] = []
        validations: list[tuple[int, float]] = []
        dense_score, reach = -math.inf, -math.inf
        for attempt in range(self.settings.attempts):
            weights = self._robust("robust", dense[attempt % len(dense)], 0.3, self.settings.polish, self.allowed)
            returns = self.scorer.returns(weights[None], self.exam)[0]
            dense_score, reach = max(dense_score, objective(returns)), max(reach, float(returns[0]))
            found.append(self._sparse(weights, self._share(self.settings.keep, objective(returns))))
            if found[-1].score < self._share(self.settings.keep, dense_score):
                continue
            if validate is None:
                break
            validations.append((attempt, validate(found[-1].policy)))
            if validations[-1][1] >= self._share(self.settings.trust, reach):
                break
        else:  # none was accepted: let reality judge what the model rejected, the best first
            rest = sorted(set(range(len(found))) - {index for index, _ in validations}, key=lambda i: -found[i].score)
            validations += [(index, validate(found[index].policy)) for index in rest if validate is not None]
        if validations:
            best = max(validations, key=lambda item: item[1])[0]
        else:
            best = max(range(len(found)), key=lambda index: found[index].score)
        return SearchResult(found[best], dense_score, reach, tuple(found), tuple(validations), self.scorer.model_steps)

    def _share(self, share: float, value: float) -> float:
        """``share`` of the way from failing at once to ``value``; rewards may be negative."""
        floor = min(self.scorer.floor, value)
        return floor + share * (value - floor)

    def _dense(self) -> list[np.ndarray]:
        """Independent searches over all allowed terms in a few, little perturbed scenarios; the best first."""
        settings = self.settings
        few = max(settings.scenarios // 2, 1)
        found = [
            self._evolve(
                "dense",
                np.zeros(self.allowed.shape),
                self.allowed,
                sigma=settings.sigma,
                generations=settings.generations,
                population=settings.population,
                scenarios=few,
                spread=settings.spread / 2,
            )
            for _ in range(settings.restarts)
        ]
        scores = objective(self.scorer.returns(np.array(found), self.exam))
        return [found[index] for index in np.argsort(-scores, kind="stable")]

    def _robust(
        self,
        stage: str,
        weights: np.ndarray,
        sigma: float,
        generations: int,
        mask: np.ndarray,
        enough: float = math.inf,
    ) -> np.ndarray:
        return self._evolve(
            stage,
            weights,
            mask,
            sigma=sigma,
            generations=generations,
            population=self.settings.offspring,
            scenarios=self.settings.scenarios,
            spread=self.settings.spread,
            enough=enough,
        )

    def _sparse(self, weights: np.ndarray, enough: float) -> Candidate:
        mask = self.allowed.copy()
        path: list[tuple[int, float]] = []
        while mask.sum() > self.max_terms:
            weights, mask, score = self._one_term_fewer(weights, mask, enough)
            path.append((int(mask.sum()), score))
        weights = self._robust("polish", weights, self._step(weights, mask, 0.05), self.settings.polish, mask)
        returns = self.scorer.returns(weights[None], self.exam)[0]
        used = np.flatnonzero(mask.any(axis=0))
        units = tuple(signal.unit for signal in self.task.inputs)
        coef = (weights * self.scorer.term_scale)[:, used]
        sparse = SparseMap(self.scorer.library.select(used), coef, self.task.input_names, units)
        return Candidate(sparse, self._policy(sparse), float(objective(returns)), returns, tuple(path))

    def _one_term_fewer(
        self, weights: np.ndarray, mask: np.ndarray, enough: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Remove the term that is missed least; near the goal try others too, if that was not enough."""
        tries = self.settings.tries if mask.sum() <= 1.5 * self.max_terms else 1
        best: tuple[np.ndarray, np.ndarray, float] | None = None
        for smaller in self._by_loss(weights, mask)[:tries]:
            kept = np.where(smaller, weights, 0.0)
            stage, sigma = f"{smaller.sum()} terms", self._step(kept, smaller, 0.1)
            kept = self._robust(stage, kept, sigma, self.settings.repair, smaller, enough)
            score = float(objective(self.scorer.returns(kept[None], self.exam)[0]))
            if best is None or score > best[2]:
                best = kept, smaller, score
            if score >= enough:
                break
        assert best is not None  # `max_terms` is at least the number of inputs, so something can be removed
        return best

    def _by_loss(self, weights: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
        """The masks with one term fewer, the one with the best score first; an input keeps its last term."""
        removable = [tuple(index) for index in np.argwhere(mask & (mask.sum(axis=1, keepdims=True) > 1))]
        trials = np.repeat(weights[None], len(removable), axis=0)
        masks = [mask.copy() for _ in removable]
        for trial, smaller, index in zip(trials, masks, removable, strict=True):
            trial[index], smaller[index] = 0.0, False
        scores = objective(self.scorer.returns(trials, self.exam))
        return [masks[index] for index in np.argsort(-scores, kind="stable")]

    @staticmethod
    def _step(weights: np.ndarray, mask: np.ndarray, share: float) -> float:
        return share * float(np.abs(weights[mask]).mean()) + 1e-3

    # ---- one evolution

    def _evolve(
        self,
        stage: str,
        weights: np.ndarray,
        mask: np.ndarray,
        *,
        sigma: float,
        generations: int,
        population: int,
        scenarios: int,
        spread: float,
        enough: float = math.inf,
    ) -> np.ndarray:
        """CMA-ES over the masked weights. Of where it began, its mean and its last generation, what examines best.

        Ends early when the median stops rising, or as soon as the median on one set of scenarios is ``enough``.
        """
        strategy = evolution(weights[mask], sigma, population, self.rng)
        stall = _Stall()
        batch = weights[None]
        for generation in range(generations):
            if generation % _SAME_SCENARIOS == 0:
                drawn = self.scorer.scenarios(scenarios, spread, self.rng)
            asked = np.array(strategy.ask())
            batch = self._masked(asked, mask)
            scores = objective(self.scorer.returns(batch, drawn))
            strategy.tell(list(asked), list(-scores))
            if self.progress is not None:
                self.progress(stage, float(scores.max()))
            median = float(np.median(scores))
            settled = generation % _SAME_SCENARIOS >= _SAME_SCENARIOS // 2
            if (stall.over(median) or median >= enough) and settled:
                break
        finalists = np.concatenate([weights[None], self._masked(np.array(strategy.mean)[None], mask), batch])
        return np.asarray(finalists[int(np.argmax(objective(self.scorer.returns(finalists, self.exam))))])

    @staticmethod
    def _masked(vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Weights (candidate, n_inputs, n_terms) from vectors of the masked ones."""
        weights = np.zeros((len(vectors), *mask.shape))
        weights[:, mask] = vectors[:, : int(mask.sum())]
        return weights

    # ---- the answer

    def _policy(self, sparse: SparseMap) -> SymbolicMap:
        limits = (self.task.action_low.tolist(), self.task.action_high.tolist())
        return sparse.symbolic(
            outputs=list(self.task.inputs), clip=limits, inputs=list(self.task.states), name="policy"
        )


_SAME_SCENARIOS = 10  # generations that are compared on the same draw
_EXAM = 32  # scenarios in which finished policies are compared


class _Stall:
    """Has the median of the population stopped rising?"""

    patience, gain = 20, 1e-3

    def __init__(self) -> None:
        self.best, self.since = -math.inf, 0

    def over(self, value: float) -> bool:
        rise = value - self.best
        if not math.isfinite(self.best) or rise > self.gain * abs(self.best):
            self.best, self.since = max(value, self.best), 0
        else:
            self.since += 1
        return self.since >= self.patience
