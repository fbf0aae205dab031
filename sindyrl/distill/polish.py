"""A short CMA-ES over the coefficients that a sparse policy has, scored by whole episodes in the model.

Reference: Hansen, The CMA Evolution Strategy, arXiv 1604.00772.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sindyrl.learn.evolution import evolution
from sindyrl.learn.scoring import Scenarios, Scorer


def polished(
    scorer: Scorer,
    weights: np.ndarray,
    merit: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    *,
    generations: int,
    step: float = 0.1,
    population: int = 32,
    scenarios: int = 8,
    spread: float = 0.05,
    redraw: int = 10,
    exam: Scenarios,
    enough: float = math.inf,
) -> np.ndarray:
    """The non-zero ``weights`` (n_inputs, n_terms), in the scorer's units, moved to where they return more.

    merit : what of returns (policy, scenario) is to be large, (policy,)
    step : standard deviation of the first generation, in units of each weight

    Scenarios are drawn anew every ``redraw`` generations. It ends early when the median of a generation is ``enough``.
    Of where it began, its mean and its last generation, what has most merit in the ``exam`` is handed back: never less
    there than ``weights``.
    """
    mask = weights != 0
    size = int(mask.sum())
    if size == 0:
        return weights
    # Weights of very different size share one step length, so each is searched in units of its own magnitude.
    scale = np.abs(weights[mask]) + 0.1 * np.abs(weights[mask]).mean()
    strategy = evolution(weights[mask] / scale, step, population, rng)

    def in_place(vectors: np.ndarray) -> np.ndarray:
        out = np.zeros((len(vectors), *mask.shape))
        out[:, mask] = vectors[:, :size] * scale
        return out

    batch = weights[None]
    for generation in range(generations):
        if generation % redraw == 0:
            drawn = scorer.scenarios(scenarios, spread, rng)
        asked = np.array(strategy.ask())
        batch = in_place(asked)
        scores = merit(scorer.returns(batch, drawn))
        strategy.tell(list(asked), list(-scores))
        if generation % redraw >= redraw // 2 and np.median(scores) >= enough:
            break
    finalists = np.concatenate([weights[None], in_place(np.array(strategy.mean)[None]), batch])
    return np.asarray(finalists[int(np.argmax(merit(scorer.returns(finalists, exam))))])
