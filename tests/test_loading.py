"""A user's environment and task are found by name, and what does not fit is refused with both sides named."""

import sys
import warnings

import gymnasium
import numpy as np
import pytest

from sindyrl.collect import UnsupportedEnvironmentError
from sindyrl.expression import Variable
from sindyrl.loading import LoadingError, check_fit, env_maker, load_task
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task
from tests.systems import CART, CART_TASK, CartEnv, cart_task, pendulum_task


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The user's own folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def spaces(observation, action):
    env = gymnasium.Env()
    env.observation_space, env.action_space = observation, action
    return env


def with_inputs(*ranges):
    inputs = tuple(Signal(f"u{i}", "N", float(low), float(high)) for i, (low, high) in enumerate(ranges))
    x, v = Variable("x"), Variable("v")
    return cart_task(inputs=inputs, mirror=(), reward=SymbolicMap([*CART, *inputs], {"reward": -(x * x + v * v)}))


def box(low, high, shape, dtype=np.float64):
    return gymnasium.spaces.Box(low, high, shape, dtype)


# ---- environments


def test_a_class_in_a_file_of_the_current_folder_is_found(here):
    (here / "crane.py").write_text("from tests.systems import CartEnv\nclass Crane(CartEnv):\n    pass\n")
    make = env_maker("crane:Crane")
    assert type(make()).__name__ == "Crane"
    assert make() is not make()


def test_a_function_that_makes_the_environment_is_found(here):
    (here / "plant.py").write_text("from tests.systems import CartEnv\ndef make():\n    return CartEnv(length=7)\n")
    assert env_maker("plant:make")().length == 7


@pytest.mark.parametrize("name", ["sindyrl/CartPoleSwingUp-v0", "Pendulum-v1"])
def test_registered_environments_are_found(name):
    env = env_maker(name)()
    assert env.spec.id == name
    env.close()


def test_gymnasiums_own_way_to_name_a_module_works(here):
    (here / "lab.py").write_text(
        "import gymnasium\ngymnasium.register(id='Lab-v0', entry_point='tests.systems:CartEnv')\n"
    )
    env = env_maker("lab:Lab-v0")()
    assert isinstance(env.unwrapped, CartEnv)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nope-v0", "Nope"),
        ("CartPole", "CartPole"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("", "Malformed"),
        ("two words", "Malformed"),
        (":Crane", "Crane"),
        ("no_such_module:Crane", "no module 'no_such_module'"),
        ("no_such_module.deeper:Crane", "no module 'no_such_module'"),
        ("tests.systems:NoSuchClass", "NoSuchClass"),
    ],
)
def test_an_environment_that_is_not_there_is_a_named_error(name, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium also warns about old versions
        with pytest.raises(LoadingError) as refused:
            env_maker(name)
    start = f"`--env {name}`: "
    assert str(refused.value).startswith(start)
    assert said in str(refused.value).removeprefix(start)
    assert "\n" not in str(refused.value)


def test_a_module_that_needs_another_names_that_one(here):
    (here / "needy.py").write_text("import no_such_simulator\n")
    with pytest.raises(LoadingError, match=r"`--env needy:Env`.*needs 'no_such_simulator'"):
        env_maker("needy:Env")


def test_an_error_inside_the_users_module_is_not_taken_for_a_missing_one(here):
    (here / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        env_maker("broken:Env")


def test_what_is_no_environment_is_refused_when_it_is_made():
    with pytest.raises(LoadingError, match=r"`--env os:getcwd` must make a gymnasium.Env. Got a str"):
        env_maker("os:getcwd")()


def test_a_simulator_that_is_not_installed_is_a_named_error(here):
    (here / "simulated.py").write_text(
        "import gymnasium\n"
        "def make():\n"
        "    raise gymnasium.error.DependencyNotInstalled('Run `pip install simulator`')\n"
    )
    with pytest.raises(LoadingError, match=r"`--env simulated:make`: Run `pip install simulator`"):
        env_maker("simulated:make")()


# ---- tasks


def test_the_variable_task_is_taken(here):
    (here / "mine.py").write_text("from tests.systems import cart_task\ntask = cart_task(name='mine', horizon=17)\n")
    task = load_task(here / "mine.py")
    assert isinstance(task, Task)
    assert (task.name, task.horizon) == ("mine", 17)
    assert load_task("mine.py").horizon == 17


def test_a_dataclass_with_postponed_annotations_works_in_a_task_file(here):
    (here / "typed.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from tests.systems import cart_task\n"
        "@dataclasses.dataclass\n"
        "class Plant:\n"
        "    horizon: int = 9\n"
        "task = cart_task(horizon=Plant().horizon)\n"
    )
    assert load_task("typed.py").horizon == 9


def test_a_task_file_does_not_replace_a_module_of_its_name(here):
    import json

    (here / "json.py").write_text("from tests.systems import cart_task\ntask = cart_task()\n")
    load_task(here / "json.py")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.py", None, "there is no such file"),
        ("task.txt", "task = 1", "must be a Python file"),
        ("empty.py", "", "must define `task`.*nothing of that name"),
        ("other.py", "task = 'swing up'", "must define `task`.*a str"),
        ("class.py", "from sindyrl.task import Task as task", "must define `task`.*a type"),
    ],
)
def test_a_file_without_a_task_is_a_named_error(here, name, text, said):
    if text is not None:
        (here / name).write_text(text)
    with pytest.raises(LoadingError, match=rf"`--task {name}`.*{said}"):
        load_task(name)


def test_a_folder_is_not_a_task_file(here):
    with pytest.raises(LoadingError, match="there is no such file"):
        load_task(here)


# ---- task and environment together


def test_what_fits_is_accepted():
    check_fit(CART_TASK, CartEnv())
    check_fit(CART_TASK, spaces(box(-9, 9, (2,), np.float32), box(-1, 1, (1,), np.float32)))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (pendulum_task(), r"3 states \['cos', 'sin', 'w'\].*shape \(2,\)"),
        (with_inputs((-1, 1), (0, 1)), r"2 inputs \['u0', 'u1'\].*shape \(1,\)"),
        (with_inputs((-2, 2)), r"range over \[-2.0\] to \[2.0\].*\[-1.0\] to \[1.0\]"),
        (with_inputs((0, 1)), r"range over \[0.0\] to \[1.0\].*must agree"),
    ],
)
def test_a_task_of_another_system_is_refused(task, said):
    with pytest.raises(LoadingError, match=said):
        check_fit(task, CartEnv())


@pytest.mark.parametrize(
    ("observation", "action", "said"),
    [
        (box(-1, 1, (2,)), gymnasium.spaces.Discrete(2), "continuous"),
        (box(-1, 1, (2,)), gymnasium.spaces.Box(0, 9, (1,), np.int64), "continuous"),
        (box(-1, 1, (2,)), box(-np.inf, np.inf, (1,)), "finite"),
        (box(-1, 1, (2,)), box(-1, 1, (1, 1)), "vectors"),
        (gymnasium.spaces.Discrete(5), box(-1, 1, (1,)), "FlattenObservation"),
        (gymnasium.spaces.Dict(x=box(-1, 1, (2,))), box(-1, 1, (1,)), "FlattenObservation"),
        (box(0, 1, (8, 8)), box(-1, 1, (1,)), "vectors"),
    ],
)
def test_spaces_that_are_no_vectors_of_real_numbers_are_refused(observation, action, said):
    with pytest.raises(UnsupportedEnvironmentError, match=said):
        check_fit(CART_TASK, spaces(observation, action))
