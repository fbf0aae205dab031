"""How many real steps a closed-form policy for Gymnasium's swimmer takes, with a model identified on the way.

    python -m benchmarks.swimmer_search [--seeds 3] [--first-seed 10000] [--json] [--save] [--quick]

On `sindyrl/Swimmer-v0`, which is Swimmer-v5, one seed after another, on one thread:

1. random inputs around a weak spring that keeps the joints off their stops;
2. sparse equations from all data so far, by `sindyrl.identify` with the task's structure and library;
3. CMA-ES on the coefficients of a policy that is linear in seven states and clipped, inside the model, undiscounted:
   from nothing, and from the best real policy so far;
4. each policy swims really for a short while; one that is fast enough for the target swims a whole episode; all of it
   is data for 2. Until a whole episode earns the target;
5. terms are removed from that policy, in the model, as long as a whole real episode still earns the target.

Every real step before the report counts. The report is 10 further episodes of the policy chosen, which choose nothing.

A finished seed is a line of runs/swimmer_search.jsonl: killed and started again, the program goes on with the next
seed. --json prints one JSON line for each seed and one for the summary; --save writes
benchmarks/results/swimmer_search.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.seeds import ROOT, derived_seeds, tree_hash
from sindyrl.collect import InteractionMeter, collect, evaluate
from sindyrl.emit import text
from sindyrl.envs.swimmer import Swimmer, kinematics, task
from sindyrl.excitation import play, random_steps
from sindyrl.identify import identify
from sindyrl.learn.evolution import evolution
from sindyrl.learn.scoring import Scenarios, Scorer, objective, policy_terms
from sindyrl.map_file import write_text
from sindyrl.model import Model
from sindyrl.regression.subset import SubsetSelection
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset

RESULTS = ROOT / "benchmarks" / "results" / "swimmer_search.json"
FINISHED = ROOT / "runs" / "swimmer_search.jsonl"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is spent where; steps are real unless they are called the model's.

    target : return of a whole episode that ends the search; ``margin`` times as much is asked for, so that other
        episodes of the policy earn the target as well
    random_steps, reset_every, hold : of the first data, each input held for a random number of steps
    spring, damper : of the feedback around which the random inputs are played, on joint angles and rates
    probe_steps : of each policy; a whole episode follows if it was ``worth`` of the target's pace
    rounds : of fitting and searching, at most
    model_terms : most terms of each of the five equations
    plan_steps : length of the model's episodes
    members, scenarios : of the ensemble, and how many of them a policy is tried in
    population, generations, repair : of CMA-ES: candidates, and generations from nothing and from an earlier policy
    sigma, near : initial standard deviations, of unit-scaled weights and relative to an earlier policy's mean weight
    restarts : searches from nothing in the first two rounds; one afterwards
    max_terms, keep : terms of the policy are removed down to so many while the model promises this share
    report_episodes : after everything has been chosen
    """

    target: float = 340.0
    margin: float = 1.005
    random_steps: int = 1500
    reset_every: int = 100
    hold: tuple[int, int] = (4, 16)
    spring: float = 0.5
    damper: float = 0.1
    probe_steps: int = 300
    worth: float = 0.95
    rounds: int = 8
    model_terms: int = 20
    plan_steps: int = 250
    members: int = 8
    scenarios: int = 3
    population: int = 24
    generations: int = 40
    repair: int = 30
    sigma: float = 1.0
    near: float = 0.2
    restarts: int = 2
    max_terms: int = 8
    keep: float = 0.98
    report_episodes: int = 10


QUICK: dict[str, Any] = {
    "random_steps": 300,
    "rounds": 1,
    "model_terms": 6,
    "plan_steps": 25,
    "members": 1,
    "scenarios": 1,
    "population": 4,
    "generations": 2,
    "repair": 1,
    "restarts": 1,
    "probe_steps": 50,
    "report_episodes": 1,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A closed-form policy for the swimmer: real steps to the target."""

    seeds: int | None = None
    """How many; by default 3, with --quick 1."""
    first_seed: int | None = None
    """Count seeds up from here instead of deriving them from the committed tree."""
    target: float = Config.target
    """Return of a whole episode that ends the search."""
    json: bool = False
    """Print JSON lines on standard output and nothing else there."""
    save: bool = False
    """Write swimmer_search.json beside the other results."""
    quick: bool = False
    """Small sizes: does it run, not how good is it."""


@dataclasses.dataclass(frozen=True)
class Swum:
    """A policy that has swum: weights (n_inputs, n_terms) in physical units, real steps, and what they earned."""

    weights: np.ndarray
    steps: int
    earned: float
    promised: float

    @property
    def pace(self) -> float:
        return self.earned / self.steps


class SwimmerSearch:
    """One seed: what is known so far. `run` does everything; its answer is JSON."""

    def __init__(self, config: Config, seed: int, tell: Any = None) -> None:
        self.config, self.seed, self.tell = config, seed, tell or (lambda line: None)
        self.rng = np.random.default_rng(seed)
        self.meter = InteractionMeter(Swimmer())
        self.swum: list[Swum] = []
        self.planning = dataclasses.replace(task, horizon=config.plan_steps)
        self.model_steps = 0

    def run(self) -> dict[str, Any]:
        begun, processor = time.perf_counter(), time.process_time()
        config, rounds = self.config, []
        self.data: Dataset = self._random()
        model = self.fitted()
        # Terms and their order are the same in all rounds, so that weights can be handed on.
        self.library, self.allowed = policy_terms(self.planning, model, np.random.default_rng(0))
        reached: int | None = None
        for turn in range(config.rounds):
            if turn:
                model = self.fitted()
            self.scorer = Scorer(self.planning, model, self.library)
            self.drawn = self.scorer.scenarios(config.scenarios, 0.0, self.rng)
            found = self._searched(turn)
            for promised, weights in found:
                self._swim(weights, promised)
                if self.best_whole() >= config.target * config.margin:
                    break
            rounds.append(self._round(model, found))
            self.tell(rounds[-1])
            if self.best_whole() >= config.target * config.margin:
                reached = self.meter.cost
                break
        chosen = max((each for each in self.swum if each.steps == task.horizon), key=_earned, default=None)
        if chosen is not None and reached is not None:
            chosen = self._shortened(chosen)
        chosen = chosen or max(self.swum, key=lambda each: each.pace)
        policy = self._policy(chosen.weights)
        with self.meter.counting("report"):
            returns = evaluate(
                self.meter, policy, episodes=config.report_episodes, rng=np.random.default_rng([self.seed, 1])
            )
        self.meter.close()
        return {
            "seed": self.seed,
            "steps_to_target": reached,
            "real_steps": self.meter.cost,
            "report_steps": self.meter.counts["report"],
            "return_mean": round(float(returns.mean()), 2),
            "return_least": round(float(returns.min()), 2),
            "returns": [round(float(value), 2) for value in returns],
            "policy_terms": int(np.count_nonzero(chosen.weights)),
            "policy": str(policy),
            "model_terms": model.n_terms,
            "equations": readable(model),
            "model_steps": self.model_steps + self.scorer.model_steps,
            "rounds": rounds,
            "wall_s": round(time.perf_counter() - begun, 1),
            "processor_s": round(time.process_time() - processor, 1),
        }

    def best_whole(self) -> float:
        """The largest real return of a whole episode so far."""
        return max((each.earned for each in self.swum if each.steps == task.horizon), default=-math.inf)

    # ---- real steps

    def _random(self) -> Dataset:
        config = self.config
        low, high = task.action_low, task.action_high
        inputs = random_steps(config.random_steps, lower=low, upper=high, hold=config.hold, rng=self.rng)
        around = play(inputs, around=lambda x: -config.spring * x[1:3] - config.damper * x[6:8], restart=False)
        with self.meter.counting("data"):
            return collect(self.meter, around, steps=config.random_steps, rng=self.rng, reset_every=config.reset_every)

    def _swim(self, weights: np.ndarray, promised: float) -> None:
        """A probe, and a whole episode if that was fast enough."""
        for steps in (self.config.probe_steps, task.horizon):
            with self.meter.counting("data"):
                new = collect(self.meter, self._policy(weights), steps=steps, rng=self.rng)
            self.data = Dataset((*self.data.trajectories, *new.trajectories))
            self.swum.append(Swum(weights, steps, float(np.sum(np.asarray(new[0].r))), promised))
            if self.swum[-1].pace < self.config.worth * self.config.target / task.horizon:
                return

    # ---- in the model

    def fitted(self) -> Model:
        """Few terms by best subset; members are bootstraps."""
        fit = identify(
            self.data,
            task=task,
            regressor=SubsetSelection(max_terms=self.config.model_terms),
            members=self.config.members,
            inclusion=False,
            actuators="warn",
        )
        return fit.model

    def _searched(self, turn: int) -> list[tuple[float, np.ndarray]]:
        """(promised return of a whole episode, weights) of this round's policies, the best first."""
        config = self.config
        nothing = np.zeros(self.allowed.shape)
        found = [
            self._evolved(nothing, config.sigma, config.generations, self.allowed)
            for _ in range(config.restarts if turn < 2 else 1)
        ]
        if self.swum:
            best = max(self.swum, key=lambda each: each.pace).weights / self.scorer.term_scale
            found.append(self._evolved(best, self._near(best), config.repair, self.allowed))
        scored = [(self._promised(weights), weights * self.scorer.term_scale) for weights in found]
        self.model_steps += self.scorer.model_steps
        self.scorer.model_steps = 0
        return sorted(scored, key=lambda item: -item[0])

    def _near(self, weights: np.ndarray) -> float:
        return self.config.near * float(np.abs(weights[weights != 0]).mean())

    def _promised(self, weights: np.ndarray) -> float:
        score = float(objective(self.scorer.returns(weights[None], self.drawn))[0])
        return score * task.horizon / self.planning.horizon

    def _evolved(self, weights: np.ndarray, sigma: float, generations: int, mask: np.ndarray) -> np.ndarray:
        """The mean of CMA-ES over the masked weights after so many generations."""
        strategy = evolution(weights[mask], sigma, self.config.population, self.rng)
        drawn: Scenarios = self.drawn
        for generation in range(generations):
            if generation % _SAME_SCENARIOS == 0:
                drawn = self.scorer.scenarios(self.config.scenarios, 0.0, self.rng)
            asked = np.array(strategy.ask())
            batch = np.zeros((len(asked), *mask.shape))
            batch[:, mask] = asked
            strategy.tell(list(asked), list(-objective(self.scorer.returns(batch, drawn))))
        out = np.zeros(mask.shape)
        out[mask] = strategy.mean
        return out

    def _shortened(self, whole: Swum) -> Swum:
        """The policy with few terms if it really earns the target, else the whole one."""
        config = self.config
        weights = whole.weights / self.scorer.term_scale
        mask = weights != 0
        enough = config.keep * self._promised(weights)
        best: np.ndarray | None = None
        while mask.sum() > config.max_terms:
            removable = [tuple(index) for index in np.argwhere(mask & (mask.sum(axis=1, keepdims=True) > 1))]
            trials = np.repeat(weights[None], len(removable), axis=0)
            for trial, index in zip(trials, removable, strict=True):
                trial[index] = 0.0
            weights = trials[int(np.argmax(objective(self.scorer.returns(trials, self.drawn))))]
            mask = weights != 0
            weights = self._evolved(weights, 0.5 * self._near(weights), config.repair // 3, mask)
            if self._promised(weights) >= enough:
                best = weights
        if best is None:
            return whole
        promised = self._promised(best)
        with self.meter.counting("selection"):
            policy = self._policy(best * self.scorer.term_scale)
            earned = float(evaluate(self.meter, policy, episodes=1, rng=self.rng)[0])
        short = Swum(best * self.scorer.term_scale, task.horizon, earned, promised)
        self.tell({"short_terms": int(np.count_nonzero(best)), "promised": round(promised, 1), "earned": earned})
        return short if earned >= config.target * config.margin else whole

    # ---- the answer

    def _policy(self, weights: np.ndarray) -> SymbolicMap:
        used = np.flatnonzero(weights.any(axis=0))
        sparse = SparseMap(self.library.select(used), weights[:, used], task.input_names, ("1",) * len(task.inputs))
        limits = (task.action_low.tolist(), task.action_high.tolist())
        return sparse.symbolic(outputs=list(task.inputs), clip=limits, inputs=list(task.states), name="policy")

    def _round(self, model: Model, found: list[tuple[float, np.ndarray]]) -> dict[str, Any]:
        return {
            "real_steps": self.meter.cost,
            "model_terms": model.n_terms,
            "promised": [round(promised, 1) for promised, _ in found],
            "earned": [
                {"steps": each.steps, "return": round(each.earned, 1), "promised": round(each.promised, 1)}
                for each in self.swum
                if any(each.weights is weights for _, weights in found)
            ],
        }


def _earned(swum: Swum) -> float:
    return swum.earned


_SAME_SCENARIOS = 10  # generations that are compared on the same draw


def readable(model: Model) -> list[str]:
    """The equations with the velocities of the links by name, and what the names stand for."""
    lines = str(model).splitlines()
    named = {name: text.expression(node) for name, node in kinematics().items()}
    for name, written in sorted(named.items(), key=lambda item: -len(item[1])):  # what contains others first
        if any(written in line for line in lines):
            lines = [
                line.replace(f"abs({written})", f"abs({name})").replace(f"({written})", name).replace(written, name)
                for line in lines
            ]
            lines.append(f"{name} = {written}")
    return lines


def run(options: Settings) -> int:
    """Measure, print, and save if asked."""
    if options.save and (options.quick or options.first_seed is not None):
        raise ValueError("`--save` is for derived seeds and full sizes. Leave `--first-seed` and `--quick` out.")
    count = (1 if options.quick else 3) if options.seeds is None else options.seeds
    if count < 1:
        raise ValueError(f"`--seeds` must be at least 1. Got {count}.")
    config = dataclasses.replace(Config(), target=options.target, **(QUICK if options.quick else {}))
    if options.quick and options.first_seed is None:
        options = dataclasses.replace(options, first_seed=0)
    if options.first_seed is None:
        seeds = derived_seeds(tree_hash(), count)
    else:
        seeds = list(range(options.first_seed, options.first_seed + count))
    runs = []
    for seed in seeds:
        runs.append(learned(config, seed, FINISHED, quiet=options.json))
        if options.json:
            print(json.dumps({"figure": "swimmer_search_seed", **runs[-1]}), flush=True)
        else:
            _print_run(runs[-1])
    summary = summarize(runs, config)
    print(json.dumps({"figure": "swimmer_search", **summary}) if options.json else json.dumps(summary, indent=1))
    if options.save:
        typed = f"python -m benchmarks.swimmer_search --seeds {count} --target {options.target:g} --save"
        document = {
            "figure": "swimmer_search",
            "schema": 1,
            "command": typed,
            "machine": _machine(),
            "summary": summary,
        }
        document |= {"config": dataclasses.asdict(config), "runs": runs}
        RESULTS.parent.mkdir(exist_ok=True)
        write_text(RESULTS, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return 0


def learned(config: Config, seed: int, finished: Path, *, quiet: bool) -> dict[str, Any]:
    """The run of a seed, taken from the file of finished runs or computed and added to it."""
    shared = json.loads(json.dumps(dataclasses.asdict(config)))
    earlier = finished.read_text() if finished.exists() else ""
    for record in map(json.loads, earlier.splitlines()):
        if record["config"] == shared and record["run"]["seed"] == seed:
            return dict(record["run"])

    def tell(line: dict[str, Any]) -> None:
        if not quiet:
            print(f"  seed {seed}: {json.dumps(line)}", file=sys.stderr, flush=True)

    done = SwimmerSearch(config, seed, tell).run()
    finished.parent.mkdir(parents=True, exist_ok=True)
    earlier = finished.read_text() if finished.exists() else ""
    write_text(finished, earlier + json.dumps({"config": shared, "run": done}) + "\n")
    return done


def summarize(runs: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """The figures over all seeds; a seed that never got there has None, and then the largest is None, too."""
    steps = [run["steps_to_target"] for run in runs]
    reached = [count for count in steps if count is not None]
    return {
        "target": config.target,
        "seeds": len(runs),
        "seeds_that_reached_target": len(reached),
        "steps_to_target": steps,
        "steps_to_target_median": statistics.median(reached) if reached else None,
        "steps_to_target_most": max(reached) if len(reached) == len(runs) else None,
        "real_steps": [run["real_steps"] for run in runs],
        "return_mean": [run["return_mean"] for run in runs],
        "return_least": min(run["return_least"] for run in runs),
        "policy_terms": [run["policy_terms"] for run in runs],
        "model_terms": [run["model_terms"] for run in runs],
        "processor_s": [run["processor_s"] for run in runs],
    }


def _print_run(run: dict[str, Any]) -> None:
    reached = "not reached" if run["steps_to_target"] is None else f"{run['steps_to_target']:,} real steps"
    print(
        f"seed {run['seed']}: target {reached}; {run['real_steps']:,} in all; return {run['return_mean']:.1f} "
        f"(least {run['return_least']:.1f}); {run['policy_terms']} terms; {run['processor_s']:.0f} s"
    )
    print("\n".join([run["policy"], f"model, {run['model_terms']} terms:", *run["equations"]]), flush=True)


def _machine() -> str:
    return f"{platform.machine()}, one thread, shared with other work, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
