"""The whole way in five stages: data, model, policy, C, report. `sindyrl demo` and `sindyrl learn` are this chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sindyrl.collect import InteractionMeter, StepCallback, evaluate
from sindyrl.controllers.receding import RecedingHorizon
from sindyrl.controllers.sampling import CrossEntropyPlanner, SamplingState
from sindyrl.export import to_c
from sindyrl.identify import Fit, identify
from sindyrl.learn.active import collect_actively
from sindyrl.learn.policy_search import Candidate, SearchSettings, search
from sindyrl.measurement_noise import measurement_noise
from sindyrl.model import Model, Truth
from sindyrl.number_check import check_number, whole
from sindyrl.protocols import Policy
from sindyrl.run_folder import RunFolder
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset, Trajectory

STAGES = ("data", "model", "policy", "export", "report")

Progress = Callable[[str, float, str], None]
"""``progress(stage, share, figure)``: share of the stage that is done, in [0, 1], and the figure that matters."""


@dataclasses.dataclass(frozen=True)
class ChainSettings:
    """What is spent where.

    data_steps : real steps to learn from, the first ``warmup`` of them random, then planned with a refit every
        ``refit_every``
    max_terms : of the policy, over all inputs
    model_terms : of each equation of the model, at most
    report_episodes : real episodes that measure the result and choose nothing
    horizon, hold : of the planner that drives the system while data are collected, in steps
    """

    seed: int = 0
    data_steps: int = 250
    max_terms: int = 10
    model_terms: int = 5
    report_episodes: int = 10
    warmup: int = 40
    refit_every: int = 10
    horizon: int = 100
    hold: int = 5

    def __post_init__(self) -> None:
        for name in (field.name for field in dataclasses.fields(self)):
            wanted, least = ("a non-negative integer", 0) if name == "seed" else ("a positive integer", 1)
            # Named as on the command line. Python's own integers, for the configuration of the folder.
            object.__setattr__(self, name, check_number(name, getattr(self, name), wanted, whole(least)))
        if self.horizon % self.hold:
            raise ValueError(f"`horizon` must be a multiple of `hold`, {self.hold}. Got {self.horizon}.")
        if self.warmup > self.data_steps:
            raise ValueError(f"`data_steps` must be at least the {self.warmup} random ones. Got {self.data_steps}.")


class Chain:
    """One run of the chain in a folder.

    make_env : makes the real environment; it is stepped under a meter and closed after each stage
    truth : the true targets ``(x, u) -> (n, n_targets)`` if a simulator can tell them; otherwise the model is judged by
        the rates seen in the report episodes
    search_settings : of the policy search, by default its own; they are not in the folder's configuration
    """

    def __init__(
        self,
        task: Task,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        folder: RunFolder,
        settings: ChainSettings,
        *,
        truth: Truth | None = None,
        progress: Progress | None = None,
        search_settings: SearchSettings | None = None,
    ) -> None:
        self.task, self.make_env, self.folder, self.settings = task, make_env, folder, settings
        self.truth, self.search_settings = truth, search_settings
        self._progress = progress
        self._stage_of = {
            "data": self._data,
            "model": self._model,
            "policy": self._policy,
            "export": self._export,
            "report": self._report,
        }

    def run(self, after: Callable[[str, dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """All stages; ``after(stage, result)`` is called as each is finished or found finished. Returns the summary."""
        results = {}
        for stage in STAGES:
            if not self.folder.finished(stage):
                self.progress(stage, 0.0, "")
            results[stage] = self.folder.stage(stage, self._stage_of[stage])
            self.progress(stage, 1.0, "")
            if after is not None:
                after(stage, results[stage])
        return self._summary(results)

    def progress(self, stage: str, share: float, figure: str) -> None:
        if self._progress is not None:
            self._progress(stage, share, figure)

    def path(self, name: str) -> Path:
        return self.folder.path / name

    @contextmanager
    def _metered(self, head: str) -> Iterator[InteractionMeter]:
        meter = InteractionMeter(self.make_env())
        try:
            with meter.counting(head):
                yield meter
        finally:
            meter.close()

    # ---- stages

    def _data(self, rng: np.random.Generator) -> dict[str, Any]:
        settings = self.settings
        drive: RecedingHorizon[SamplingState] | None = None
        planner_seed = int(rng.integers(2**31))

        def controller(model: Model) -> Policy:
            nonlocal drive
            planner = CrossEntropyPlanner(
                model, self.task, horizon=settings.horizon, hold=settings.hold, seed=planner_seed
            )
            if drive is None:
                drive = RecedingHorizon(planner, every=settings.hold)
            else:
                drive.replace_planner(planner)
            return drive

        def tell(steps: int, model: Model | None) -> None:
            figure = "random inputs" if model is None else f"planning with {model.n_terms} terms"
            self.progress("data", steps / settings.data_steps, f"{steps} real steps, {figure}")
            if steps % settings.refit_every == 0:
                self.folder.log("data", steps=steps, model_terms=None if model is None else model.n_terms)

        with self._metered("data") as meter:
            data = collect_actively(
                meter,
                self.task,
                lambda data: self.identified(data, quick=True).model,
                controller,
                steps=settings.data_steps,
                warmup=settings.warmup,
                refit_every=settings.refit_every,
                hold=settings.hold,
                rng=rng,
                progress=tell,
            )
        data.to_npz(self.path("data.npz"))
        return {"data_steps": meter.counts["data"], "episodes": len(data.trajectories)}

    def identified(self, data: Dataset, *, quick: bool = False) -> Fit:
        """The model of some data; ``quick`` leaves the inclusion probabilities out."""
        from sindyrl.regression.subset import SubsetSelection

        task = self.task
        return identify(
            data,
            task.library,
            structure=task.structure,
            regressor=SubsetSelection(max_terms=self.settings.model_terms),
            exclude=task.exclude,
            states=task.states,
            inputs=task.inputs,
            inclusion=not quick,
            # From 40 rows an input may well be lost; the next refit, ten steps on, has more to go by.
            actuators="allow" if quick else "error",
        )

    def _model(self, rng: np.random.Generator) -> dict[str, Any]:
        fit = self.identified(Dataset.from_npz(self.path("data.npz")))
        fit.model.save(self.path("model.json"))
        return {
            "equations": fit.model.rates.equations(precision=4),
            "model_terms": fit.model.n_terms,
            "text": str(fit),
            "terms": _terms(fit),
            "targets": list(fit.model.rates.targets),
            "residual_rms": fit.residual_rms.tolist(),
            "relative_error": fit.relative_error.tolist(),
            "condition": fit.condition,
            "dropped": list(fit.dropped),
            "rows": fit.rows,
            "excluded": fit.excluded,
        }

    def _policy(self, rng: np.random.Generator) -> dict[str, Any]:
        model = Model.load(self.path("model.json"))
        noise = measurement_noise(model, Dataset.from_npz(self.path("data.npz")))
        generations = 0

        def tell(stage: str, score: float) -> None:
            nonlocal generations
            generations += 1
            # The number of generations is not known beforehand; the bar approaches its end.
            self.progress("policy", 1.0 - 0.5 ** (generations / 250), f"{stage}, {score:.0f} in the model")
            if generations % 10 == 0:
                self.folder.log("policy", generation=generations, search=stage, score=score)

        with self._metered("selection") as meter:

            def validate(policy: SymbolicMap) -> float:
                value = self._evaluated(meter, compiled(policy), rng)
                self.progress("policy", 1.0 - 0.5 ** (generations / 250), f"one real episode returned {value:.0f}")
                return value

            found = search(
                self.task,
                model,
                max_terms=self.settings.max_terms,
                rng=rng,
                validate=validate,
                noise=noise,
                settings=self.search_settings,
                progress=tell,
            )
        found.chosen.sparse.save(self.path("policy_terms.json"))
        found.policy.save(self.path("policy.json"))
        return {
            "policy": found.policy.equations(precision=4),
            "n_terms": found.chosen.sparse.n_terms,
            "selection_steps": meter.counts["selection"],
            "model_steps": found.model_steps,
            "dense_score": found.dense_score,
            "reach": found.reach,
            "measurement_noise": noise.tolist(),
            "chosen": found.candidates.index(found.chosen),
            "candidates": [_candidate(candidate) for candidate in found.candidates],
            "validations": [{"candidate": index, "return": value} for index, value in found.validations],
        }

    def _export(self, rng: np.random.Generator) -> dict[str, Any]:
        report = to_c(SymbolicMap.load(self.path("policy.json")), self.path("firmware"), number="float32")
        found = report.to_dict()
        found["files"] = [Path(file).name for file in report.files]
        return found

    def _report(self, rng: np.random.Generator) -> dict[str, Any]:
        policy = SymbolicMap.load(self.path("policy.json"))
        model = Model.load(self.path("model.json"))
        episodes = self.settings.report_episodes
        act = compiled(policy)
        trajectories: list[Trajectory] = []
        returns: list[float] = []
        with self._metered("report") as meter:
            for episode in range(episodes):
                trajectories.append(self._episode(meter, act, rng))
                returns.append(float(np.sum(trajectories[-1].r)))  # type: ignore[arg-type]
                self.progress("report", (episode + 1) / episodes, f"mean return {np.mean(returns):.0f}")
                self.folder.log("report", episode=episode, value=returns[-1])
        data = Dataset(tuple(trajectories))
        data.to_npz(self.path("episodes.npz"))
        errors = self.errors(model, data)
        return {
            "report_episodes": episodes,
            "report_steps": meter.counts["report"],
            "returns": returns,
            "return_mean": float(np.mean(returns)),
            "return_min": float(np.min(returns)),
            "acceleration_errors": errors,
            "judged_by": "measured rates" if self.truth is None else "the simulator's own",
        }

    def _evaluated(
        self, meter: InteractionMeter, act: Policy, rng: np.random.Generator, callback: StepCallback | None = None
    ) -> float:
        """The return of one real episode; an environment that never ends is stopped at the task's horizon."""
        limit, names = self.task.horizon, self.task.state_names
        return float(evaluate(meter, act, episodes=1, rng=rng, max_steps=limit, states=names, callback=callback)[0])

    def _episode(self, meter: InteractionMeter, act: Policy, rng: np.random.Generator) -> Trajectory:
        rows: list[tuple[np.ndarray, np.ndarray, float, np.ndarray]] = []
        self._evaluated(meter, act, rng, lambda *row: rows.append(row))
        return Trajectory.uniform(
            np.array([rows[0][0], *(row[3] for row in rows)]),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows]),
            dt=self.task.dt,
            states=self.task.state_names,
            inputs=self.task.input_names,
        )

    def errors(self, model: Model, data: Dataset) -> list[float]:
        """Relative root-mean-square error of each target."""
        pairs = data.pairs()
        true, learned = model.against(pairs.x, pairs.u, pairs.x_next, self.truth)
        size = np.sqrt(np.mean(true**2, axis=0))
        return (np.sqrt(np.mean((learned - true) ** 2, axis=0)) / np.where(size > 0, size, 1.0)).tolist()

    def _summary(self, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
        data, model, policy = results["data"], results["model"], results["policy"]
        export, report = results["export"], results["report"]
        return {
            "seed": self.settings.seed,
            "data_steps": data["data_steps"],
            "selection_steps": policy["selection_steps"],
            "n_terms": policy["n_terms"],
            "return_mean": report["return_mean"],
            "return_min": report["return_min"],
            "report_episodes": report["report_episodes"],
            "wall_s": sum(result["wall_s"] for result in results.values()),
            "c_matches": export["matches"],
            "c_bytes": export["c_bytes"],
            "m4_instructions": export["m4_instructions"],
            "model_terms": model["model_terms"],
            "acceleration_errors": report["acceleration_errors"],
        }


def compiled(policy: SymbolicMap) -> Policy:
    """The policy at the speed of C where the machine has a compiler, by NumPy otherwise; the numbers are the same."""
    from sindyrl.backends.c import CompilerNotFound

    try:
        evaluate_rows = policy.backend("c")
        evaluate_rows(np.zeros(len(policy.inputs)))
    except CompilerNotFound:
        return policy
    return _Compiled(policy.input_names, evaluate_rows)


@dataclasses.dataclass(frozen=True)
class _Compiled:
    input_names: tuple[str, ...]
    evaluate_rows: Callable[[Any], Any]

    def __call__(self, x: np.ndarray, /) -> np.ndarray:
        return np.asarray(self.evaluate_rows(x))


def _terms(fit: Fit) -> list[dict[str, Any]]:
    """The terms of the model one by one, with what is known of each coefficient."""
    rates = fit.model.rates.median()
    return [
        {
            "target": rates.targets[target],
            "term": rates.library.names[feature],
            "coef": float(rates.coef[target, feature]),
            "standard_error": float(fit.standard_error[target, feature]),
            "inclusion": float(fit.inclusion[target, feature]),
        }
        for target, feature in np.argwhere(rates.support)
    ]


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "policy": candidate.policy.equations(precision=4),
        "n_terms": candidate.sparse.n_terms,
        "score": candidate.score,
        "returns": candidate.returns.tolist(),
        "path": [list(step) for step in candidate.path],
    }


__all__ = ["STAGES", "Chain", "ChainSettings", "compiled"]
