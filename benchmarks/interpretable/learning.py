"""A law from real steps: equations identified from them, terms sought inside these, coefficients refined there."""

from __future__ import annotations

import math
import time

import gymnasium
import numpy as np

import sindyrl.envs  # noqa: F401  (registers the environments)
from benchmarks.interpretable.laws import Law, count_nodes
from benchmarks.interpretable.recipes import Recipe
from sindyrl.collect import InteractionMeter, collect, random_policy
from sindyrl.identify import identify
from sindyrl.learn.policy_search import search
from sindyrl.learn.scoring import Scenarios, Scorer
from sindyrl.model import Model
from sindyrl.regression.subset import SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset

_EXAM = 2048  # initial states in which refined laws are compared


def learned_law(recipe: Recipe, seed: int) -> Law:
    """Real steps with random inputs, equations from them, a law sought inside the equations; real trials if asked.

    After trials that refuse a law, the next one is sought in equations that are fitted to their episodes as well.
    """
    begun = time.perf_counter()
    rng = np.random.default_rng(seed)
    env = InteractionMeter(gymnasium.make(recipe.env))
    task: Task = env.unwrapped.task  # type: ignore[attr-defined]
    with env.counting("data"):
        data = collect(env, random_policy(env, recipe.hold), steps=recipe.data_steps, rng=rng)
    steps = 0
    judged: list[tuple[float, SymbolicMap, int, Model]] = []
    for _ in range(1 if recipe.trials is None else recipe.trials.attempts):
        model = _identified(recipe, task, data, rng)
        sparse, more = sought(recipe, task, model, rng)
        steps += more
        limits = (task.action_low.tolist(), task.action_high.tolist())
        policy = sparse.symbolic(outputs=list(task.inputs), clip=limits, inputs=list(task.states), name="policy")
        if recipe.trials is None:
            judged.append((0.0, policy, sparse.n_terms, model))
            break
        with env.counting("selection"):
            played = collect(env, policy, episodes=recipe.trials.episodes, rng=rng)
        returns = [float(np.asarray(episode.r).sum()) for episode in played]
        mean = sum(returns) / len(returns)
        judged.append((mean, policy, sparse.n_terms, model))
        if mean >= recipe.trials.accept and min(returns) >= recipe.trials.worst:
            break
        # A controlled system shows what random inputs do not.
        data = data.append(played)
    env.close()
    _, policy, terms, model = max(judged, key=lambda each: each[0])
    return Law(
        f"sindyrl, seed {seed}", policy, count_nodes(*policy.nodes), terms, env.counts, seed,
        tuple(model.rates.equations(precision=4)), steps, time.perf_counter() - begun,
    )  # fmt: skip


def _identified(recipe: Recipe, task: Task, data: Dataset, rng: np.random.Generator) -> Model:
    regressor = SubsetSelection(max_terms=recipe.model_terms)
    return identify(data, task=task, regressor=regressor, inclusion=False, actuators=recipe.actuators, rng=rng).model


def sought(recipe: Recipe, task: Task, model: Model, rng: np.random.Generator) -> tuple[SparseMap, int]:
    """The terms of a law and their coefficients, before its limits, and the steps taken inside the model.

    Of several searches, the law that is best in the model once refined.
    """
    planned = task if recipe.shaped is None else recipe.shaped(task)
    laws: list[tuple[float, SparseMap]] = []
    # Laws that are compared need states in common; a single one does not.
    exam = rng if recipe.searches == 1 else int(rng.integers(2**32))
    steps = 0
    for _ in range(recipe.searches):
        found = search(planned, model, max_terms=recipe.max_terms, rng=rng, settings=recipe.search)
        sparse, score, more = found.chosen.sparse, found.chosen.score, 0
        if recipe.refine:
            sparse, score, more = refined(
                task, model, sparse, generations=recipe.refine, states=recipe.refine_states,
                spread=recipe.refine_spread, worst=recipe.refine_worst, rng=rng, exam=exam,
            )  # fmt: skip
        laws.append((score, sparse))
        steps += found.model_steps + more
    return max(laws, key=lambda law: law[0])[1], steps


def refined(
    task: Task,
    model: Model,
    sparse: SparseMap,
    *,
    generations: int,
    states: int,
    spread: float,
    worst: float,
    rng: np.random.Generator,
    exam: int | np.random.Generator,
) -> tuple[SparseMap, float, int]:
    """The same terms with the coefficients of the largest mean return in the model, over many initial states.

    The search compares terms in few scenarios and cares for the worst of them; a record is a mean.

    states : how many initial states    spread : relative standard deviation of the model's coefficients over them
    worst : share of the worst tenth beside the mean in what is maximized. Where an episode can fail as a whole, the
        best mean lies at the edge of failing; these two keep a law off it.

    exam : where the states come from, many more of them, in which the best of each generation and the last mean are
        compared; laws of one seed are compared in the same

    Returns the law, before its limits, its score in that comparison, and the steps taken inside the model.
    """
    import cma

    scorer = Scorer(task, model, sparse.library)
    drawn = scorer.scenarios(states, spread, rng)
    used = sparse.coef != 0
    first = (sparse.coef / scorer.term_scale)[used]
    size = len(first)

    def scores_of(vectors: np.ndarray, scenarios: Scenarios) -> np.ndarray:
        weights = np.zeros((len(vectors), *used.shape))
        weights[:, used] = vectors[:, :size]
        returns = np.sort(scorer.returns(weights, scenarios), axis=1)
        tenth = returns[:, : max(returns.shape[1] // 10, 1)].mean(axis=1)
        return np.asarray((1.0 - worst) * returns.mean(axis=1) + worst * tenth)

    options = {
        "popsize": 32,
        "verbose": -9,
        "seed": math.nan,  # leave the global generator alone; the normals are ours
        "randn": lambda *shape: rng.standard_normal(shape),
    }
    # cma wants two dimensions; of a single weight the second is ignored.
    begin = first if size > 1 else np.append(first, 0.0)
    strategy = cma.CMAEvolutionStrategy(begin, 0.2 * float(np.abs(first).mean()) + 1e-6, options)
    leaders = [begin]
    for _ in range(generations):
        asked = np.array(strategy.ask())
        scores = scores_of(asked, drawn)
        strategy.tell(list(asked), list(-scores))
        leaders.append(asked[int(scores.argmax())])
    # The best where they were refined are those that just get by there: one state in a hundred may already fail.
    finalists = np.array([*leaders, strategy.mean])
    scores = scores_of(finalists, scorer.scenarios(_EXAM, spread, np.random.default_rng(exam)))
    weights = np.zeros(used.shape)
    weights[used] = finalists[int(scores.argmax())][:size]
    coef = weights * scorer.term_scale
    law = SparseMap(sparse.library, coef, sparse.targets, sparse.target_units)
    return law, float(scores.max()), scorer.model_steps
