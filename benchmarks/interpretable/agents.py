"""Stable-Baselines3's agents with the settings of RL Baselines3 Zoo, trained here and played over the shared episodes.

What is kept of an agent is what it earns, episode by episode: trained where torch is, it stands beside our laws
wherever they are. A kept agent counts for the same settings and the same environment.

The settings are the Zoo's for the environment that ours is. The cart-pole with a continuous input is not in the Zoo;
its own cart-pole is, with the same plant, two inputs and half the time. Nothing was tuned here.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from benchmarks.control import stable_baselines
from benchmarks.control.perceptron import Perceptron
from benchmarks.control.problem import Problem, RealSystem
from benchmarks.control.stable_baselines import Baseline
from benchmarks.finished import FinishedLines, Record
from benchmarks.interpretable.laws import environment_module
from benchmarks.provenance import code_digest
from benchmarks.seeds import ROOT
from sindyrl.collect import InteractionMeter, evaluate
from sindyrl.map_file import write_text

KEPT = ROOT / "runs" / "records" / "agents"
SAVED = ROOT / "benchmarks" / "results" / "agents"
_DECIMALS = 3  # of a kept return
_ZOO = "RL Baselines3 Zoo, hyperparams"

# Learning rates and ranges that fall to zero are written as there, "lin_" and where they begin.
AGENTS: dict[str, Baseline] = {
    "cartpole": Baseline(
        "PPO", 100_000, 100_000,
        f"{_ZOO}/ppo.yml, commit 208b6fdf3a9a, CartPole-v1 (tuned for that), which has two inputs and 500 steps",
        {
            "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0,
            "learning_rate": "lin_0.001", "clip_range": "lin_0.2",
        },
        n_envs=8,
    ),
    "mountain_car": Baseline(
        "SAC", 50_000, 50_000,
        f"{_ZOO}/sac.yml, commit c94924e5b31b, MountainCarContinuous-v0 (tuned)",
        {
            "learning_rate": 3e-4, "buffer_size": 50_000, "batch_size": 512, "ent_coef": 0.1, "train_freq": 32,
            "gradient_steps": 32, "gamma": 0.9999, "tau": 0.01, "learning_starts": 0, "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64]},
        },
    ),
    "pendulum": Baseline(
        "TD3", 20_000, 20_000,
        f"{_ZOO}/td3.yml, commit a02f4fbfaefa, Pendulum-v0 (tuned)",
        {
            "gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000, "gradient_steps": -1,
            "train_freq": [1, "episode"], "learning_rate": 1e-3, "policy_kwargs": {"net_arch": [400, 300]},
        },
        action_noise=0.1,
    ),
    "lunar_lander": Baseline(
        "PPO", 1_000_000, 1_000_000,
        f"{_ZOO}/ppo.yml, commit 208b6fdf3a9a, LunarLanderContinuous-v3 (tuned)",
        {
            "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01,
        },
        n_envs=16,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
    """What an agent earned. name : algorithm and seed    steps : real ones it was trained by    returns : (episode,)"""

    name: str
    seed: int
    steps: int
    parameters: int
    returns: np.ndarray
    source: str


def trainable() -> bool:
    """Whether what trains is installed."""
    return all(importlib.util.find_spec(package) is not None for package in stable_baselines.PACKAGES)


def find(
    task: str,
    env: str,
    seed: int,
    episodes: Sequence[int],
    *,
    train_missing: bool = True,
    kept: Path = KEPT,
    saved: Path = SAVED,
) -> Agent | None:
    """The agent of a task, from what is kept or trained now; None if it is not kept and cannot or must not be trained.

    env : the environment's id    episodes : their seeds, one after another
    """
    baseline = AGENTS[task]
    book = lines(env, kept, saved)
    found = book.read().get((task, _text(_settings(baseline)), seed))
    if found is None or not _covers(found, episodes):
        if not (train_missing and trainable()):
            return None
        found = book.keep(train(task, env, baseline, seed, episodes))
    begin = episodes[0] - found["first_episode"]
    returns = np.array(found["returns"][begin : begin + len(episodes)])
    name = f"Stable-Baselines3 {baseline.algorithm}, seed {seed}"
    return Agent(name, seed, found["data_steps"], found["parameters"], returns, baseline.source)


def train(task: str, env: str, baseline: Baseline, seed: int, episodes: Sequence[int]) -> Record:
    """Train an agent on the environment of a task, every step counted, and play it."""
    begun, processor = time.perf_counter(), time.process_time()
    problem = Problem(task, gymnasium.make(env).unwrapped.task, lambda: gymnasium.make(env), np.inf)  # type: ignore[attr-defined]
    system = RealSystem(problem)
    policy = stable_baselines.learn(unfolded(baseline), system, seed, lambda policy: None)
    assert isinstance(policy, Perceptron)
    counts = system.counts
    system.close()
    learned = {"wall_s": time.perf_counter() - begun, "processor_s": time.process_time() - processor}
    meter = InteractionMeter(gymnasium.make(env))
    with meter.counting("report"):
        returns = evaluate(meter, policy, seeds=episodes)
    meter.close()
    return {
        "task": task,
        "env": env,
        "settings": _settings(baseline),
        "seed": seed,
        "source": baseline.source,
        "data_steps": counts["data"],
        "selection_steps": counts["selection"],
        "parameters": policy.n_parameters,
        "first_episode": episodes[0],
        "returns": [round(float(value), _DECIMALS) for value in returns],
        **{name: round(value, 1) for name, value in learned.items()},
        "packages": {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium", "numpy")},
    }


def save(environments: Mapping[str, str], *, kept: Path = KEPT, saved: Path = SAVED) -> None:
    """Write what is known of the agents of tasks to ``records.jsonl``. environments : id by task"""
    records = [
        record
        for task, env in environments.items()
        for (name, settings, _), record in sorted(lines(env, kept, saved).read().items())
        if name == task and settings == _text(_settings(AGENTS[task]))
    ]
    saved.mkdir(parents=True, exist_ok=True)
    write_text(saved / "records.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def lines(env: str, kept: Path = KEPT, saved: Path = SAVED) -> FinishedLines[tuple[str, str, int]]:
    """What is kept and saved of agents on an environment: of the files that make it, and that train an agent."""
    module = ROOT.joinpath(*environment_module(env).split(".")).with_suffix(".py")
    control = ROOT / "benchmarks" / "control"
    files = [module, module.with_name("classic_control.py"), control / "stable_baselines.py", control / "perceptron.py"]
    code = code_digest([], files)
    return FinishedLines(_key, code=code, tree="", folder=kept, results=saved)


def _key(record: Record) -> tuple[str, str, int]:
    return record["task"], _text(record["settings"]), record["seed"]


def _text(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True)


def _settings(baseline: Baseline) -> dict[str, Any]:
    """What decides what is learned."""
    told = dataclasses.asdict(baseline)
    return {name: value for name, value in told.items() if name not in ("source", "report_every")}


def _covers(record: Record, episodes: Sequence[int]) -> bool:
    first = record["first_episode"]
    return bool(first <= episodes[0] and episodes[-1] < first + len(record["returns"]))


def unfolded(baseline: Baseline) -> Baseline:
    """As Stable-Baselines3 takes it: "lin_0.2" is a function of the share of training that is left."""
    # Copied: Stable-Baselines3 adds to the dictionaries that it is given.
    arguments = {name: _scheduled(value) for name, value in copy.deepcopy(dict(baseline.arguments)).items()}
    if isinstance(arguments.get("train_freq"), list):
        arguments["train_freq"] = tuple(arguments["train_freq"])
    return dataclasses.replace(baseline, arguments=arguments)


def _scheduled(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    begin = float(value.removeprefix("lin_"))

    def falling(left: float) -> float:
        return begin * left

    return falling
