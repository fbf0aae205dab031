"""Closed-form policies against published symbolic laws and deep agents, over the same evaluation seeds.

    python -m benchmarks.records [--tasks pendulum cartpole] [--seeds 3] [--agent-seeds 1] [--episodes 1000] [--json]
                                 [--save] [--quick]

For each task and learning seed: a few hundred real steps with random inputs, the equations identified from them, a law
of a few terms sought inside those equations, its coefficients refined there and, where searches end with different
terms, single terms exchanged for others. Nothing real chooses between laws, so the real steps of a law are those of its
data; only the lunar lander's are tried in ten real landings, which count, and which the equations know before another
law is sought. All laws and agents of a task play the same episodes, and differences are paired by episode: the mean
with its standard error, and of each difference a bootstrap interval of 95 %.

Agents are trained by Stable-Baselines3 with the settings of RL Baselines3 Zoo (`benchmarks.interpretable.agents`). That
takes torch and up to half an hour each, so what they earn is kept, under runs/records and with --save beside the
results; where torch is not installed only kept ones are shown. Finished laws are kept as well: killed and started
again, the program goes on with the next seed.

Quoted scores are of other episodes. Where a task's goal is one of them, what the same algorithm earns here is told
below the table: Pendulum's, TD3 as quoted, is easier than the TD3 that is measured.

Sizes are counted as in `benchmarks.interpretable.laws`; an agent's is the number of its weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.table import Table

import sindyrl.envs  # noqa: F401  (registers the environments)
from benchmarks import command
from benchmarks.finished import FinishedLines
from benchmarks.interpretable import agents
from benchmarks.interpretable.agents import Agent
from benchmarks.interpretable.laws import Law, environment_module, play, published_law
from benchmarks.interpretable.learning import learned_law
from benchmarks.interpretable.recipes import RECIPES, Recipe
from benchmarks.provenance import code_digest
from benchmarks.seeds import ROOT
from sindyrl.map_file import write_text
from sindyrl.task import Task

RESULTS = ROOT / "benchmarks" / "results" / "records.json"
KEPT = ROOT / "runs" / "records" / "laws"
RESAMPLES = 10_000
_REMEDY = 'to train it: pip install "sindyrl[envs,baselines]", and leave --quick out.'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how it is told."""

    tasks: tuple[str, ...] = ()
    """Names of recipes; all by default."""
    seeds: int = 3
    """How many laws are learned for each task, each from data of its own."""
    first_seed: int = 0
    """Of learning. For development use 10000 and up."""
    agent_seeds: int = 1
    """How many deep agents stand beside them, of seeds 0 and up; trained if torch is there and none is kept."""
    episodes: int = 1000
    """Episodes that all laws of a task play."""
    first_episode: int = 0
    """Seed of the first of them."""
    json: bool = False
    """Print JSON lines on standard output and nothing else there."""
    save: bool = False
    """Write records.json beside the other results, and what agents earned; tasks that are not named stay there."""
    quick: bool = False
    """One seed, few episodes, a short search, kept agents only: does it run, not how good is it."""


def paired_interval(
    difference: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Bootstrap percentile interval of 95 % of a mean over episodes. difference : (episode,)"""
    means = np.array([difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(resamples)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compare(name: str, recipe: Recipe, options: Settings) -> Iterator[dict[str, Any]]:
    """One row for each law and agent of the task, those of others first."""
    task: Task = gymnasium.make(recipe.env).unwrapped.task  # type: ignore[attr-defined]
    seeds = range(options.first_episode, options.first_episode + options.episodes)
    others: dict[str, np.ndarray] = {}
    for published in recipe.published:
        law = published_law(task, published)
        others[law.name] = play(recipe, law, seeds)
        yield _row(name, law, others[law.name]) | {"source": published.source}
    for index in range(options.agent_seeds):
        agent = agents.find(name, recipe.env, index, seeds, train_missing=not options.quick)
        if agent is None:
            sys.stderr.write(f"{name}: Stable-Baselines3's agent of seed {index} is not kept; {_REMEDY}\n")
            continue
        others[agent.name] = agent.returns
        yield _agent_row(name, agent)
    for index in range(options.first_seed, options.first_seed + options.seeds):
        row = dict(_learned(name, recipe, index, seeds, KEPT if not options.quick else None))
        returns = np.array(row.pop("returns"))
        row["against"] = {
            other: _difference(returns - theirs, np.random.default_rng(0)) for other, theirs in others.items()
        }
        row["reached"] = bool(
            row["mean"] >= recipe.goal and (recipe.most_nodes is None or row["nodes"] <= recipe.most_nodes)
        )
        yield row


def _learned(name: str, recipe: Recipe, seed: int, episodes: Sequence[int], folder: Path | None) -> dict[str, Any]:
    """The row of a learned law and its ``returns``, taken from what is finished or computed and added to it."""
    code = code_digest(["benchmarks.interpretable.learning", environment_module(recipe.env)])
    finished = FinishedLines(
        lambda line: (line["task"], line["seed"], tuple(line["played"])), code=code, tree="", folder=folder
    )
    played = (episodes[0], len(episodes))
    line = finished.read().get((name, seed, played))
    if line is None:
        law = learned_law(recipe, seed)
        returns = play(recipe, law, episodes)
        line = finished.keep(_row(name, law, returns) | {"played": played, "returns": returns.tolist()})
    return {field: value for field, value in line.items() if field not in ("played", "code", "tree")}


def _difference(difference: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    low, high = paired_interval(difference, rng)
    return {"mean": float(difference.mean()), "interval_95": [low, high]}


def _row(name: str, law: Law, returns: np.ndarray) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": name,
        "law": law.name,
        "policy": law.policy.equations(),
        "nodes": law.nodes,
        **_earned(returns),
    }
    if law.steps is not None:
        row |= {
            "terms": law.terms,
            "data_steps": law.steps["data"],
            "selection_steps": law.steps["selection"],
            "seed": law.seed,
            "model": list(law.model),
            "model_steps": law.model_steps,
            "learning_s": round(law.learning_s, 1),
        }
    return row


def _agent_row(name: str, agent: Agent) -> dict[str, Any]:
    return {
        "task": name,
        "law": agent.name,
        "parameters": agent.parameters,
        **_earned(agent.returns),
        "data_steps": agent.steps,
        "selection_steps": 0,
        "seed": agent.seed,
        "source": agent.source,
    }


def _earned(returns: np.ndarray) -> dict[str, Any]:
    return {
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "standard_error": float(returns.std(ddof=1) / math.sqrt(len(returns))),
        "worst": float(returns.min()),
    }


def quick(recipe: Recipe) -> Recipe:
    """The same with a search too short to be good."""
    short = dataclasses.replace(recipe.search, generations=3, restarts=1, polish=2, repair=2, tries=1, attempts=1)
    trials = None if recipe.trials is None else dataclasses.replace(recipe.trials, episodes=2, attempts=1)
    return dataclasses.replace(
        recipe, search=short, trials=trials, exchange=min(recipe.exchange, 1), refine=min(recipe.refine, 2),
        refine_states=32,
    )  # fmt: skip


def run(options: Settings) -> int:
    """Measure, print, and save if asked."""
    names = options.tasks or tuple(RECIPES)
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        raise ValueError(f"`--tasks` must name some of {', '.join(RECIPES)}. Got {', '.join(unknown)}.")
    if options.quick:
        options = dataclasses.replace(options, seeds=1, episodes=min(options.episodes, 5))
    if options.seeds < 1 or options.episodes < 2:
        raise ValueError(
            f"`--seeds` must be at least 1 and `--episodes` at least 2. Got {options.seeds} and {options.episodes}."
        )
    if options.agent_seeds < 0:
        raise ValueError(f"`--agent-seeds` must not be negative. Got {options.agent_seeds}.")
    if options.save and (options.quick or options.episodes < 1000):
        raise ValueError("`--save` needs the full search and at least 1000 episodes.")
    results: dict[str, Any] = {}
    for name in names:
        recipe = quick(RECIPES[name]) if options.quick else RECIPES[name]
        rows = []
        for row in compare(name, recipe, options):
            rows.append(row)
            if options.json:
                print(json.dumps({"figure": "record", **row}), flush=True)
        results[name] = {
            "command": made_by(name, options),
            "env": recipe.env,
            "goal": recipe.goal,
            "most_nodes": recipe.most_nodes,
            "reached": sum(row.get("reached", False) for row in rows),
            "rows": rows,
            "quoted": [dataclasses.asdict(quoted) for quoted in recipe.quoted],
        }
        if not options.json:
            _print_table(name, results[name])
    if options.save:
        write_text(RESULTS, json.dumps(document(results, stored(RESULTS)), indent=1) + "\n")
        agents.save({name: recipe.env for name, recipe in RECIPES.items()})
    return 0


def made_by(task: str, options: Settings) -> str:
    """The command of one task's rows."""
    made = f"--seeds {options.seeds} --first-seed {options.first_seed} --episodes {options.episodes}"
    made += f" --first-episode {options.first_episode} --agent-seeds {options.agent_seeds}"
    return f"sindyrl bench records --tasks {task} {made} --save"


def stored(file: Path) -> dict[str, Any]:
    """The tasks that a results file holds, none if there is no file."""
    return dict(json.loads(file.read_text(encoding="utf-8"))["tasks"]) if file.exists() else {}


def document(results: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What is stored: the rows of each task and how they were made; those of ``before`` where there are no new ones."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, gymnasium {gymnasium.__version__}"
    made = {name: {**result, "machine": machine} for name, result in results.items()}
    tasks = {name: (before | made)[name] for name in RECIPES if name in before | made}
    return {"bootstrap_resamples": RESAMPLES, "tasks": tasks}


def measured_goal(result: dict[str, Any]) -> list[str]:
    """What the agents measured here earn whose quoted score is the goal."""
    quoted = [each["name"] for each in result["quoted"] if each["mean"] == result["goal"]]
    return [
        f"The goal is {algorithm} as quoted, {'easier' if row['mean'] > result['goal'] else 'harder'} than the one "
        f"measured: {row['law']}, trained here, earns {row['mean']:.1f} over the laws' episodes. Differences are to it."
        for algorithm in quoted
        for row in result["rows"]
        if row["law"].startswith(f"Stable-Baselines3 {algorithm},")
    ]


def _print_table(name: str, result: dict[str, Any]) -> None:
    limit = "" if result["most_nodes"] is None else f", at most {result['most_nodes']} nodes"
    table = Table(
        "law", "mean return", "worst", "nodes", "terms", "real steps", "difference, 95 %",
        title=f"{name}: {result['env']}, goal {result['goal']:g}{limit}",
    )  # fmt: skip
    for row in result["rows"]:
        against = "; ".join(
            f"{each['mean']:+.3g} [{each['interval_95'][0]:+.3g}, {each['interval_95'][1]:+.3g}] vs {other}"
            for other, each in row.get("against", {}).items()
        )
        steps = f"{row['data_steps'] + row['selection_steps']:,}" if "data_steps" in row else "-"
        size = str(row["nodes"]) if "nodes" in row else f"{row['parameters']:,} weights"
        mean = f"{row['mean']:.2f} ± {row['standard_error']:.2f}"
        table.add_row(row["law"], mean, f"{row['worst']:.2f}", size, str(row.get("terms", "-")), steps, against)
    for quoted in result["quoted"]:
        table.add_row(quoted["name"], f"{quoted['mean']:g}", "", "", "", "", quoted["source"])
    console = Console()
    console.print(table)
    for sentence in measured_goal(result):
        console.print(sentence, highlight=False)
    for row in result["rows"]:
        console.print(f"{row['law']}: {row.get('policy', row.get('source'))}", highlight=False)


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
