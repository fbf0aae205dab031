"""The coefficients of a law, and single terms of it, for the largest mean return in the model over many initial states.

The search for a law compares terms in few scenarios and cares for the worst of them; a record is a mean.
"""

from __future__ import annotations

import math

import numpy as np

from sindyrl.learn.evolution import evolution
from sindyrl.learn.scoring import Scenarios, Scorer
from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.task import Task

_EXAM = 2048  # initial states in which refined laws are compared
# Where all of a law is at its limits, no small change of it does better; a fraction of it may.
_SCALES = 0.5 ** np.arange(12)
_GAIN = 1e-3  # of the score: less is not worth another term


class Refinement:
    """Laws in one library and one model, before their limits, all compared in the same states.

    library : bound to the task's states
    states : initial states in which coefficients are sought
    spread : relative standard deviation of the model's coefficients over them
    worst : share of the worst tenth beside the mean in what is maximized. Where an episode can fail as a whole, the
        best mean lies at the edge of failing; spread and worst keep a law off it.

    model_steps : taken inside the model so far
    """

    def __init__(
        self,
        task: Task,
        model: Model,
        library: Library,
        *,
        states: int,
        spread: float = 0.0,
        worst: float = 0.0,
        rng: np.random.Generator,
    ) -> None:
        self.library, self.worst, self.rng = library, worst, rng
        self._scorer = Scorer(task, model, library)
        self._drawn = self._scorer.scenarios(states, spread, rng)
        self._exam = self._scorer.scenarios(_EXAM, spread, rng)

    @property
    def model_steps(self) -> int:
        return self._scorer.model_steps

    def refined(self, law: SparseMap, generations: int) -> tuple[SparseMap, float]:
        """The same terms with better coefficients, by CMA-ES, and their score in the common states.

        law : over terms of the library, by name
        """
        weights, score = self._refined(self._weights(law), generations)
        return self._law(law, weights), score

    def exchanged(self, law: SparseMap, allowed: np.ndarray, generations: int, tries: int = 2) -> SparseMap:
        """The law with one term for another, again and again, while that raises its score.

        Each term left out is added in turn, and then one of the others removed, the least missed first: what a search
        removed early may be missed once others are gone (floating selection; Pudil, Novovicova, Kittler, Pattern
        Recognition Letters 15, 1994).

        allowed : (n_inputs, n_terms) of bool, the terms that an input may use
        generations : of each refinement on the way    tries : removals that are refined for each term added
        """
        weights, score = self._refined(self._weights(law), generations)
        while True:
            found = [
                self._one_for(index, weights, generations, tries) for index in np.argwhere(allowed & (weights == 0))
            ]
            if not found:
                return self._law(law, weights)
            other, better = max(found, key=lambda each: each[1])
            if better <= score + _GAIN * abs(score):
                return self._law(law, weights)
            weights, score = other, better

    def _one_for(
        self, index: np.ndarray, weights: np.ndarray, generations: int, tries: int
    ) -> tuple[np.ndarray, float]:
        """With this term and without one of the others, refined."""
        step = np.zeros_like(weights)
        step[tuple(index)] = 1e-3
        larger, _ = self._refined(weights + step, generations)
        # An input keeps its last term.
        removable = (weights != 0) & ((larger != 0).sum(axis=1, keepdims=True) > 1)
        if not removable.any():
            return weights, -math.inf
        trials = np.repeat(larger[None], removable.sum(), axis=0)
        for trial, other in zip(trials, np.argwhere(removable), strict=True):
            trial[tuple(other)] = 0.0
        order = np.argsort(-self._scores(trials, self._exam), kind="stable")[:tries]
        return max((self._refined(trials[place], generations) for place in order), key=lambda each: each[1])

    def _refined(self, weights: np.ndarray, generations: int) -> tuple[np.ndarray, float]:
        """Weights (n_inputs, n_terms); what is 0 stays."""
        used = weights != 0
        first = weights[used]
        size = len(first)
        if not size:
            return weights, float(self._scores(weights[None], self._exam)[0])

        def masked(vectors: np.ndarray) -> np.ndarray:
            made = np.zeros((len(vectors), *used.shape))
            made[:, used] = vectors[:, :size]
            return made

        scaled = _SCALES[:, None] * first
        begin = scaled[int(self._scores(masked(scaled), self._drawn).argmax())]
        strategy = evolution(begin, 0.2 * float(np.abs(begin).mean()) + 1e-6, 32, self.rng)
        leaders = [first, begin]
        for _ in range(generations):
            asked = np.array(strategy.ask())
            scores = self._scores(masked(asked), self._drawn)
            strategy.tell(list(asked), list(-scores))
            leaders.append(asked[int(scores.argmax())][:size])
        # The best where they were refined are those that just get by there: one state in a hundred may already fail.
        finalists = masked(np.array([*leaders, strategy.mean[:size]]))
        scores = self._scores(finalists, self._exam)
        return finalists[int(scores.argmax())], float(scores.max())

    def _scores(self, weights: np.ndarray, scenarios: Scenarios) -> np.ndarray:
        returns = np.sort(self._scorer.returns(weights, scenarios), axis=1)
        tenth = returns[:, : max(returns.shape[1] // 10, 1)].mean(axis=1)
        return np.asarray((1.0 - self.worst) * returns.mean(axis=1) + self.worst * tenth)

    def _weights(self, law: SparseMap) -> np.ndarray:
        coef = np.zeros((len(law.targets), len(self.library)))
        coef[:, [self.library.index(name) for name in law.library.names]] = law.coef
        return coef / self._scorer.term_scale

    def _law(self, like: SparseMap, weights: np.ndarray) -> SparseMap:
        used = np.flatnonzero(weights.any(axis=0))
        used = used if used.size else np.array([0])  # a library has one term at least
        coef = (weights * self._scorer.term_scale)[:, used]
        return SparseMap(self.library.select(used), coef, like.targets, like.target_units)
