"""The user's own environment and task, named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sindyrl.collect import check_spaces
from sindyrl.task import Task


class LoadingError(ValueError):
    """An environment or task that cannot be found or does not fit; the text says what to do."""


def env_maker(name: str) -> Callable[[], gymnasium.Env[Any, Any]]:
    """A function that makes the environment ``name``: a registered id, or ``module:Class`` (or function) of the user's.

    Registered ids may also be written ``module:Id-v0``, as Gymnasium does. Modules are looked up from the
    current folder.
    """
    # Ours are registered on import.
    importlib.import_module("sindyrl.envs")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _, attribute = name.rpartition(":")
    if module_name:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and module_name.split(".")[0] == error.name.split(".")[0]:
                raise LoadingError(f"`--env {name}`: there is no module {error.name!r} here or installed.") from None
            raise LoadingError(f"`--env {name}`: its module needs {error.name!r}, which is not installed.") from None
        maker = getattr(module, attribute, None)
        if callable(maker):
            return lambda: _made(name, maker)
    try:
        gymnasium.spec(attribute)  # without its module, which `gymnasium.spec` does not understand
    except gymnasium.error.Error as error:
        said = str(error).rstrip(".?")
        raise LoadingError(f"`--env {name}`: {said}. Name a registered id, or `module:Class` of your own.") from None
    return lambda: _made(name, lambda: gymnasium.make(attribute))


def _made(name: str, maker: Callable[[], Any]) -> gymnasium.Env[Any, Any]:
    try:
        env = maker()
    except gymnasium.error.Error as error:  # for instance a simulator that is not installed, with what to install
        raise LoadingError(f"`--env {name}`: {error}") from None
    if not isinstance(env, gymnasium.Env):
        raise LoadingError(f"`--env {name}` must make a gymnasium.Env. Got a {type(env).__name__}.")
    return env


def load_task(path: str | Path) -> Task:
    """The variable ``task`` of a Python file. The file is the user's own program and is run: load no stranger's."""
    file = Path(path)
    if not file.is_file():
        raise LoadingError(f"`--task {path}`: there is no such file.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise LoadingError(f"`--task {path}` must be a Python file (.py).")
    module = importlib.util.module_from_spec(spec)
    # Importable by name afterwards, so that dataclasses defined in the file work.
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    task = getattr(module, "task", None)
    if not isinstance(task, Task):
        found = "nothing of that name" if task is None else f"a {type(task).__name__}"
        raise LoadingError(f"`--task {path}` must define `task`, a sindyrl.Task. Got {found}.")
    return task


def check_fit(task: Task, env: gymnasium.Env[Any, Any]) -> None:
    """Raise LoadingError unless the task's states and inputs describe the environment's spaces.

    Raises UnsupportedEnvironmentError if these are not vectors of real numbers, whatever the task.
    """
    check_spaces(env)
    observation, action = env.observation_space, env.action_space
    if isinstance(observation, gymnasium.spaces.Box) and observation.shape != (len(task.states),):
        raise LoadingError(
            f"The task has {len(task.states)} states {list(task.state_names)}; the environment's observations have "
            f"shape {observation.shape}."
        )
    if isinstance(action, gymnasium.spaces.Box):
        if action.shape != (len(task.inputs),):
            raise LoadingError(
                f"The task has {len(task.inputs)} inputs {list(task.input_names)}; the environment's actions have "
                f"shape {action.shape}."
            )
        if not (np.allclose(action.low, task.action_low) and np.allclose(action.high, task.action_high)):
            raise LoadingError(
                f"The task's inputs range over {task.action_low.tolist()} to {task.action_high.tolist()}; the "
                f"environment's actions over {action.low.tolist()} to {action.high.tolist()}. They must agree."
            )
