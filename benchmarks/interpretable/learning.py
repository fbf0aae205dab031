"""A law from real steps: equations identified from them, terms sought inside these, coefficients refined there."""

from __future__ import annotations

import dataclasses
import time

import gymnasium
import numpy as np

import sindyrl.envs  # noqa: F401  (registers the environments)
from benchmarks.interpretable.laws import Law, count_nodes
from benchmarks.interpretable.recipes import Recipe
from benchmarks.interpretable.refinement import Refinement
from sindyrl.collect import InteractionMeter, collect, random_policy
from sindyrl.identify import identify
from sindyrl.learn.policy_search import search
from sindyrl.learn.scoring import policy_terms
from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.regression.subset import SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset


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
    """The terms of a law and their coefficients, before its limits, and the steps taken inside the model."""
    planned = task if recipe.shaped is None else recipe.shaped(task)
    found = search(planned, model, max_terms=recipe.max_terms, rng=rng, settings=recipe.search)
    law, steps = found.chosen.sparse, found.model_steps
    hurried = dataclasses.replace(task, horizon=recipe.refine_horizon or task.horizon)

    def refinement(library: Library, states: int) -> Refinement:
        return Refinement(
            hurried, model, library, states=states, spread=recipe.refine_spread, worst=recipe.refine_worst, rng=rng
        )

    if recipe.exchange:
        library, allowed = policy_terms(task, model, rng)
        # Many laws are compared, so that fewer states have to do.
        exchange = refinement(library, max(recipe.refine_states // 4, 1))
        law = exchange.exchanged(law, allowed, recipe.exchange)
        steps += exchange.model_steps
    if recipe.refine:
        last = refinement(law.library, recipe.refine_states)
        law, _ = last.refined(law, recipe.refine)
        steps += last.model_steps
    return law, steps
