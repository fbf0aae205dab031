"""What learns: the published SINDy-RL, its linear baseline and our loop, each on the same cart-pole."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

from sindyrl.envs import cartpole
from sindyrl.learn.dyna import DynaSettings, FitModel, sparse_model
from sindyrl.learn.published import linear_model, published_model
from sindyrl.library import LibrarySpec, affine_library, polynomial_library
from sindyrl.structure import NextState, OnCircles
from sindyrl.task import Task

__all__ = ["METHODS", "Method", "MethodName", "method", "published_task"]

MethodName = Literal["published", "linear", "default"]
TARGET = 800.0  # the return at which our own loop stops
_RANGES = {"x": 5.0, "cos": 1.1, "sin": 1.1, "v": 10.0, "w": 10.0}


def published_task(library: LibrarySpec | None = None) -> Task:
    """The paper's: next states from a library (default quadratic), the circle by projection, the rail not modeled."""
    states = tuple(dataclasses.replace(s, lower=-_RANGES[s.name], upper=_RANGES[s.name]) for s in cartpole.STATES)
    return dataclasses.replace(
        cartpole.task,
        states=states,
        structure=OnCircles(NextState(), (("cos", "sin"),)),
        library=affine_library(2) if library is None else library,
        exclude=None,
        mirror=(),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """task : what is known   settings : of `dyna`   fit : data -> model

    chosen : whether the best of the evaluated policies counts, as in the paper, so that evaluating is selecting; else
        dyna grades by its own data, and evaluations only report
    episodes : of each evaluation
    """

    task: Task
    settings: DynaSettings
    fit: FitModel
    chosen: bool
    episodes: int = 5


def _published() -> Method:
    task = published_task()
    return Method(task, DynaSettings.published(), published_model(task), True)


def _linear() -> Method:
    """6 columns, no threshold; 40 iterations of PPO for every 1,000 steps, as published."""
    task = published_task(polynomial_library(1))
    settings = DynaSettings.published(rounds=62, collect_steps=(1000,))
    settings = dataclasses.replace(settings, ppo=dataclasses.replace(settings.ppo, updates=40))
    return Method(task, settings, linear_model(task), True)


def _default() -> Method:
    """`dyna` as it comes, told the return to stop at."""
    settings = DynaSettings(target=TARGET, rounds=8)
    return Method(cartpole.task, settings, sparse_model(cartpole.task), False)


METHODS: dict[MethodName, Callable[[], Method]] = {
    "published": _published,
    "linear": _linear,
    "default": _default,
}


def method(name: MethodName, **changes: Any) -> Method:
    """A method by name; ``changes`` of its settings, ``ppo`` as a mapping of changes to its learner."""
    made = _made(name)
    if "ppo" in changes:
        changes["ppo"] = dataclasses.replace(made.settings.ppo, **changes["ppo"])
    return dataclasses.replace(made, settings=dataclasses.replace(made.settings, **changes))


@functools.cache
def _made(name: MethodName) -> Method:
    """Once for all seeds: what was compiled for one task serves no other, were it made in the same way."""
    return METHODS[name]()
