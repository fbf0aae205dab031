"""How many real steps Stable-Baselines3's PPO takes for the cart-pole swing-up.

    python -m benchmarks.ppo_swingup [--settings defaults|zoo] [--seeds 3] [--steps 400000] [--json] [--save] [--quick]

Learns on `sindyrl/CartPoleSwingUp-v0`, one seed after another, on one thread. After every 5th update the policy without
its exploration noise is judged by 3 whole episodes on other instances of the environment. Those steps are counted apart
and are free for PPO, although its figure, the steps to the first mean return of at least 800, is chosen by them.
Two configurations are measured by the same rules and from the same seeds: Stable-Baselines3's own defaults, and what
RL Baselines3 Zoo uses for its nearest task. Neither was tuned here.

A finished seed is a line of runs/ppo_swingup.jsonl: killed and started again, the program goes on with the next seed.
Delete that file to start over. --json prints one JSON line for each seed and one for the summary; --save also writes
the configuration to benchmarks/results/ppo_swingup.json, where the other one stays as it is. Needs torch, and so its
own environment: pip install "sindyrl[envs,baselines]".
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import sindyrl.envs  # noqa: F401  (registers the environment)
from benchmarks import command
from sindyrl.collect import InteractionMeter
from sindyrl.map_file import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ppo_swingup.json"
FINISHED = ROOT / "runs" / "ppo_swingup.jsonl"
PACKAGES = ("stable-baselines3", "torch", "gymnasium", "mujoco", "dm_control", "numpy", "sindyrl")

Progressed = Callable[[int, float], None]  # steps so far, return of the last evaluation


@dataclasses.dataclass(frozen=True)
class PPOSettings:
    """Arguments of `stable_baselines3.PPO`, by its names; what is not here has its default there.

    The values are its defaults as well, but for `n_steps`: 2048 there, with one environment. 8 environments of 256
    steps are the same 2048 real steps for each update.
    """

    policy: str = "MlpPolicy"  # two tanh layers of 64 units for the policy, two for the value
    learning_rate: float = 3e-4
    n_steps: int = 256
    batch_size: int = 64
    n_epochs: int = 10
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    environment: str = "sindyrl/CartPoleSwingUp-v0"
    steps: int = 400_000  # rounded up to whole updates of n_envs * n_steps
    n_envs: int = 8
    normalize: bool = False  # running normalization of observations and rewards
    evaluate_every: int = 10_240  # steps: 5 updates
    evaluation_episodes: int = 3
    threshold: float = 800.0  # mean return over the evaluation episodes; at most 1000
    ppo: PPOSettings = PPOSettings()


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A config and where its settings are from."""

    config: Config
    source: str


CONFIGURATIONS = {
    "defaults": Configuration(
        Config(), "Stable-Baselines3 defaults, 8 environments of 256 steps for one of 2048; not tuned"
    ),
    # hyperparams/ppo.yml, commit 00128b5d46d4; its nearest task, a cart-pole swung up. Its n_steps is 2048, which with
    # 8 environments would be one update in 16,384 steps.
    "zoo": Configuration(
        Config(normalize=True, ppo=PPOSettings(learning_rate=2.5e-4)),
        "RL Baselines3 Zoo, InvertedPendulumSwingupBulletEnv-v0, n_steps 256; not tuned",
    ),
}
QUICK = {"steps": 4096, "evaluate_every": 2048, "evaluation_episodes": 1}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how it is told."""

    settings: Literal["defaults", "zoo"] = "defaults"
    """Of PPO."""
    seeds: int | None = None
    """How many; by default 3, with --quick 1."""
    steps: int | None = None
    """Real steps for each seed; by default 400000, with --quick 4096."""
    json: bool = False
    """Print JSON lines on standard output and nothing else there."""
    save: bool = False
    """Write ppo_swingup.json beside the other results."""
    quick: bool = False
    """Small sizes: does it run, not how good is it."""


def run(options: Settings) -> int:
    """Measure, print, and save if asked."""
    if options.save and options.quick:
        raise ValueError("`--save` needs the full sizes; leave out `--quick`.")
    seeds = (1 if options.quick else 3) if options.seeds is None else options.seeds
    steps = (QUICK["steps"] if options.quick else Config.steps) if options.steps is None else options.steps
    if min(seeds, steps) < 1:
        raise ValueError(f"`--seeds` and `--steps` must be at least 1. Got {seeds} and {steps}.")
    config = CONFIGURATIONS[options.settings].config
    changes: dict[str, Any] = (QUICK if options.quick else {}) | {"steps": steps}
    config = dataclasses.replace(config, **changes)
    runs = []
    for learned in measure(config, seeds, FINISHED):
        runs.append(learned)
        if options.json:
            print(json.dumps({"figure": "ppo_swingup_seed", "settings": options.settings, **learned}), flush=True)
    if options.json:
        print(json.dumps({"figure": "ppo_swingup", "settings": options.settings, **summarize(runs)}), flush=True)
    else:
        _print_table(runs, config)
    if options.save:
        words = "".join(f" --{name}" for name in ("json", "save", "quick") if getattr(options, name))
        typed = f"python -m benchmarks.ppo_swingup --settings {options.settings} --seeds {seeds} --steps {steps}{words}"
        save(options.settings, measured(options.settings, runs, settings(config), typed))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command.main(Settings, run, __doc__, arguments)


def derived_seed(index: int, purpose: str = "") -> int:
    """The seed of a run, below 2**32: derived from its number and not picked."""
    return int.from_bytes(hashlib.sha256(f"ppo_swingup{index}{purpose}".encode()).digest()[:4], "big")


def settings(config: Config) -> dict[str, Any]:
    """What decides a run besides its seed."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"config": dataclasses.asdict(config), "versions": versions}


def measure(config: Config, seeds: int, finished: Path) -> Iterator[dict[str, Any]]:
    """One run for each seed, taken from the file of finished runs or computed and added to it."""
    shared = settings(config)
    for index in range(seeds):
        run = finished_runs(finished, shared).get(index)
        if run is None:
            with _bar(f"Seed {index + 1} of {seeds}", config) as progressed:
                run = learn(config, index, progressed)
            finished.parent.mkdir(parents=True, exist_ok=True)
            earlier = finished.read_text() if finished.exists() else ""
            write_text(finished, earlier + json.dumps({"settings": shared, "run": run}) + "\n")
        yield run


def finished_runs(file: Path, shared: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The runs in the file that have these settings, by their index; runs with other settings are left alone."""
    if not file.exists():
        return {}
    records = [json.loads(line) for line in file.read_text().splitlines()]
    wanted = json.loads(json.dumps(shared))
    return {record["run"]["index"]: record["run"] for record in records if record["settings"] == wanted}


def learn(config: Config, index: int, progressed: Progressed) -> dict[str, Any]:
    """PPO from scratch, judged every `evaluate_every` steps."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(1)
    seed, judge_seed = derived_seed(index), derived_seed(index, " evaluation")
    meters = [InteractionMeter(gymnasium.make(config.environment)) for _ in range(config.n_envs)]
    judges = [InteractionMeter(gymnasium.make(config.environment)) for _ in range(config.evaluation_episodes)]
    plain: Any = DummyVecEnv([lambda meter=meter: meter for meter in meters])
    env: Any = VecNormalize(plain, gamma=config.ppo.gamma) if config.normalize else plain
    judge: Any = DummyVecEnv([lambda meter=meter: meter for meter in judges])
    judge.seed(judge_seed)  # takes effect at the first reset, after which the random streams go on
    learner: Any = PPO(env=env, seed=seed, device="cpu", **dataclasses.asdict(config.ppo))
    see = env.normalize_obs if config.normalize else np.asarray
    curve: list[dict[str, Any]] = []
    seconds, processor = {"learning": 0.0, "evaluation": 0.0}, time.process_time()

    def evaluate() -> None:
        begun = time.perf_counter()
        with _counting(judges, "report"):
            returns = episode_returns(lambda x: learner.predict(see(x), deterministic=True)[0], judge)
        seconds["evaluation"] += time.perf_counter() - begun
        mean = statistics.fmean(returns)
        curve.append({"steps": learner.num_timesteps, "return": mean, "returns": returns})
        progressed(learner.num_timesteps, mean)

    evaluate()
    while learner.num_timesteps < config.steps:
        begun = time.perf_counter()
        with _counting(meters, "data"):
            # The learning rate is constant, so that learning in portions is learning in one go.
            portion = min(config.evaluate_every, config.steps - learner.num_timesteps)
            learner.learn(portion, reset_num_timesteps=False)
        seconds["learning"] += time.perf_counter() - begun
        evaluate()
    env.close()
    judge.close()
    return {
        "index": index,
        "seed": seed,
        "evaluation_seed": judge_seed,
        "steps_to_threshold": steps_to(curve, config.threshold),
        "final_return": curve[-1]["return"],
        "best_return": max(point["return"] for point in curve),
        "data_steps": sum(meter.counts["data"] for meter in meters),
        "report_steps": sum(meter.counts["report"] for meter in judges),
        "learning_wall_s": round(seconds["learning"], 1),
        "evaluation_wall_s": round(seconds["evaluation"], 1),
        "processor_s": round(time.process_time() - processor, 1),
        "curve": curve,
    }


def episode_returns(act: Callable[[np.ndarray], np.ndarray], judge: Any) -> list[float]:
    """Returns of one whole episode in each of the vector's environments, which all end at the same step."""
    x, returns, done = judge.reset(), np.zeros(judge.num_envs), np.zeros(judge.num_envs, dtype=bool)
    while not done.any():
        x, rewards, done, _ = judge.step(act(x))
        returns += rewards
    if not done.all():
        raise RuntimeError("The evaluation episodes have different lengths.")
    return [round(float(value), 3) for value in returns]


def steps_to(curve: Sequence[dict[str, Any]], threshold: float) -> int | None:
    """Real steps learned from at the first evaluation whose mean return reaches the threshold; None if none does."""
    return next((point["steps"] for point in curve if point["return"] >= threshold), None)


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures over all seeds; a seed that never got there has None, and then the largest is None, too."""
    steps = [run["steps_to_threshold"] for run in runs]
    reached = [count for count in steps if count is not None]
    return {
        "seeds": len(runs),
        "seeds_that_reached_threshold": len(reached),
        "steps_to_threshold": steps,
        "steps_to_threshold_least": min(reached, default=None),
        "steps_to_threshold_most": max(reached) if len(reached) == len(runs) else None,
        "final_return": [run["final_return"] for run in runs],
        "learning_wall_s": [run["learning_wall_s"] for run in runs],
        "processor_s": [run["processor_s"] for run in runs],
    }


def measured(name: str, runs: Sequence[dict[str, Any]], shared: dict[str, Any], command: str) -> dict[str, Any]:
    """All that was measured of one configuration, as it is saved."""
    return {
        "command": command,
        "settings_source": CONFIGURATIONS[name].source,
        "summary": summarize(runs),
        **shared,
        "machine": f"{platform.machine()}, one thread, shared with other work: seconds are an upper estimate",
        "seeds": [run["seed"] for run in runs],
        "runs": list(runs),
    }


def document(configurations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The saved file: what was measured of each configuration, by its name."""
    return {
        "figure": "ppo_swingup",
        "schema": 2,
        "what": "Stable-Baselines3 PPO on the real environment; returns are means over deterministic episodes",
        "seed_rule": "first 4 bytes, big-endian, of sha256('ppo_swingup' + index); evaluation: + ' evaluation'",
        "configurations": {name: configurations[name] for name in CONFIGURATIONS if name in configurations},
    }


def save(name: str, result: dict[str, Any]) -> None:
    """Write the results of one configuration; those of the other stay in the file."""
    earlier = json.loads(RESULTS.read_text())["configurations"] if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    write_text(RESULTS, text(document(earlier | {name: result})) + "\n")


def text(value: Any, margin: str = "") -> str:
    """JSON in which whatever fits is on one line: every point of a curve is a row."""
    line = json.dumps(value, allow_nan=False)
    if len(margin) + len(line) <= 110 or not isinstance(value, dict | list):
        return line
    inner = margin + " "
    if isinstance(value, dict):
        rows, brackets = [f"{json.dumps(key)}: {text(entry, inner)}" for key, entry in value.items()], "{}"
    else:
        rows, brackets = [text(entry, inner) for entry in value], "[]"
    body = ",\n".join(inner + row for row in rows)
    return f"{brackets[0]}\n{body}\n{margin}{brackets[1]}"


@contextlib.contextmanager
def _counting(meters: Sequence[InteractionMeter], head: str) -> Iterator[None]:
    with contextlib.ExitStack() as heads:
        for meter in meters:
            heads.enter_context(meter.counting(head))
        yield


@contextlib.contextmanager
def _bar(title: str, config: Config) -> Iterator[Progressed]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>7,.0f} real steps, return {task.fields[latest]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=config.steps, latest="-")
        yield lambda steps, mean: bars.update(task, completed=steps, latest=f"{mean:.0f}")


def _print_table(runs: Sequence[dict[str, Any]], config: Config) -> None:
    table = Table("seed", f"steps to {config.threshold:.0f}", "final return", "best return", "learning, s")
    for run in runs:
        steps = run["steps_to_threshold"]
        shown = "not reached" if steps is None else f"{steps:,}"
        returns = (f"{run[name]:.0f}" for name in ("final_return", "best_return"))
        table.add_row(str(run["seed"]), shown, *returns, f"{run['learning_wall_s']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
