"""A law as it plays: a closed form of a task's states, its size, and what it cost.

A law's nodes are counted as symbolic regression does, every occurrence of an operation, a constant and a variable, and
the limits of the actuator with them (4 nodes for each input); those of a published law are its tokens and the same 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import gymnasium
import numpy as np

import sindyrl.envs  # noqa: F401  (registers the environments)
from benchmarks.interpretable.recipes import Published, Recipe
from sindyrl.chain import compiled
from sindyrl.collect import InteractionMeter, evaluate
from sindyrl.expression import Node, Power, Variable, clip
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """A law as it plays.

    nodes : of its expressions, limits included    terms : of its library; None for a published law
    steps : real steps, by what they were for
    """

    name: str
    policy: SymbolicMap
    nodes: int
    terms: int | None = None
    steps: dict[str, int] | None = None
    seed: int | None = None
    model: tuple[str, ...] = ()
    model_steps: int = 0
    learning_s: float = 0.0


def count_nodes(*nodes: Node) -> int:
    """Occurrences of operations, constants and variables, as if each expression were written out.

    A power counts as itself and its exponent.
    """
    return sum((2 if isinstance(node, Power) else 1) + count_nodes(*node.children) for node in nodes)


def published_law(task: Task, published: Published) -> Law:
    """The law of others with the limits of the task's inputs, as a closed form of the task's states."""
    nodes = published.law(*(Variable(name) for name in task.state_names))
    limited = {s.name: clip(node, s.lower, s.upper) for s, node in zip(task.inputs, nodes, strict=True)}
    return Law(published.name, SymbolicMap(task.states, limited, name="policy"), published.tokens + 4 * len(nodes))


def play(recipe: Recipe, law: Law, seeds: Sequence[int]) -> np.ndarray:
    """Returns of one episode for each seed, (episode,)."""
    env = InteractionMeter(gymnasium.make(recipe.env))
    with env.counting("report"), np.errstate(all="ignore"):
        returns = evaluate(env, compiled(law.policy), seeds=seeds)
    env.close()
    return returns


def environment_module(env: str) -> str:
    """The module that an environment's id leads to."""
    entry = gymnasium.spec(env).entry_point
    assert isinstance(entry, str)
    return entry.split(":")[0]
