"""Learning inside a model beside the same loop around pysindy; populations and vectors of it. One core, processor time.

    sindyrl bench surrogate [--json] [--quick] [--save]
    python -m benchmarks.speed.surrogate    # the same

Loop: one update of PPO (collect, then learn) in a discrete-time model of the cart-pole, 28 terms and 5 targets, per
surrogate step. Ours is one compiled call. The peer's loop has the same model, the same random numbers and the same
compiled update of the networks, which act in NumPy; its steps take pysindy's `predict`, of the whole batch or of one
state after the other, and the rest in NumPy. The update costs both sides the same, and bounds the ratio: with the
peer's collection taking C and the update U, it stays below (C + U) / U. So both are given, and the ratio of the
collections alone. Batches of 16, as `PPOSettings` has it, 32, 4 and 512, all with its one epoch; and of 2 with 30
epochs, as published.
Population: 20 learners in one compiled call beside 20 calls, and what is compiled while their numbers mutate.
Vector: steps of `SurrogateVectorEnv` in the cart-pole's own form (Runge-Kutta 4, 49 terms a target).

--json prints one JSON line for each figure; --save also writes benchmarks/results/speed_surrogate.json.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.speed.setting import alternate, print_table, seconds, stay_on_one_core, surroundings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed_surrogate.json"
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured. Times are medians over `repeats` alternating runs."""

    seed: int = 0
    repeats: int = 3
    slow_repeats: int = 1  # of the peer's loop, state by state
    # (environments, length, epochs, minibatches) of an update
    shapes: tuple[tuple[int, int, int, int], ...] = (
        (16, 512, 1, 32),
        (32, 256, 1, 32),
        (4, 2048, 1, 32),
        (512, 16, 1, 32),
        (2, 2000, 30, 32),
    )
    compared_steps: int = 5  # of the collections: errors grow along a path
    population: int = 20
    generations: int = 3
    vector: int = 4096
    vector_steps: int = 50


QUICK = Config(
    repeats=2,
    slow_repeats=1,
    shapes=((8, 16, 2, 4),),
    population=4,
    generations=2,
    vector=64,
    vector_steps=5,
)

PACKAGES = ("numpy", "jax", "optax", "pysindy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how it is told."""

    quick: bool = False
    """Small sizes: does it run, not how fast is it."""
    json: bool = False
    """Print JSON lines on standard output."""
    save: bool = False
    """Write the timings to benchmarks/results/."""


def run(settings: Settings) -> int:
    """Measure, print, and save if asked."""
    if settings.save and settings.quick:
        raise ValueError("`--save` needs the full sizes; leave out `--quick`.")
    config = QUICK if settings.quick else Config()
    bound = stay_on_one_core()
    records = []
    for measure in (measure_loop, measure_population, measure_vector):
        for record in measure(config):
            records.append(record)
            if settings.json:
                print(json.dumps(record), flush=True)
    records.append({"figure": "surroundings", **surroundings(config, bound, PACKAGES)})
    if settings.json:
        print(json.dumps(records[-1]), flush=True)
    else:
        print_table(records)
    if settings.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    return 0


def measure_loop(config: Config) -> list[dict[str, Any]]:
    """Processor time of one update of PPO per surrogate step, and of its collection alone."""
    import jax

    from sindyrl.learn import ppo

    surrogate = next_state_surrogate()
    batched = pysindy_predict(surrogate)
    records = []
    for environments, length, epochs, minibatches in config.shapes:
        settings = ppo.PPOSettings(
            environments=environments, length=length, epochs=epochs, minibatches=minibatches, updates=1
        )
        learner = ppo.start(surrogate, settings, config.seed)
        compiled = ppo.trainer(surrogate.form, settings.shape)
        collect = jax.jit(ppo.collector(surrogate.form, settings.shape))
        peer = PeerLoop(surrogate, settings)

        def ours(learner: Any = learner, compiled: Any = compiled, hyper: Any = settings.hyper) -> Any:
            return jax.block_until_ready(compiled(surrogate.data, learner, hyper))

        def ours_alone(learner: Any = learner, collect: Any = collect) -> Any:
            return jax.block_until_ready(collect(surrogate.data, learner, learner.key))

        compilation = seconds(ours)
        _, played = ours_alone()
        theirs = peer.collect(learner, learner.key, batched)
        peer.improve(learner, theirs)
        error = np.abs(np.asarray(played.seen) - theirs.seen)[: config.compared_steps].max()
        update = [seconds(partial(peer.improve, learner, theirs)) for _ in range(config.repeats)]
        alone, other_alone = alternate(ours_alone, partial(peer.collect, learner, learner.key, batched), config.repeats)
        for name, predict, repeats in (
            ("batch", batched, config.repeats),
            ("single", one_by_one(batched), config.slow_repeats),
        ):
            own, other = alternate(ours, partial(peer.update, learner, predict), config.repeats, peer_runs=repeats)
            record = {
                "figure": f"loop_{name}_{environments}",
                "environments": environments,
                "length": length,
                "epochs": epochs,
                "hidden": settings.hidden,
                "sindyrl_us_per_step": 1e6 * statistics.median(own) / settings.batch,
                "pysindy_us_per_step": 1e6 * statistics.median(other) / settings.batch,
                "ratio": statistics.median(other) / statistics.median(own),
                "ratio_least": min(other) / max(own),
            }
            if name == "batch":
                record |= {
                    "update_us_per_step": 1e6 * statistics.median(update) / settings.batch,
                    "collection_sindyrl_us_per_step": 1e6 * statistics.median(alone) / settings.batch,
                    "collection_pysindy_us_per_step": 1e6 * statistics.median(other_alone) / settings.batch,
                    "collection_ratio": statistics.median(other_alone) / statistics.median(alone),
                    "collection_ratio_least": min(other_alone) / max(alone),
                    "first_call_s": compilation,
                    "largest_difference_of_states": float(error),
                }
            records.append(record)
    return records


def next_state_surrogate(seed: int = 0) -> Any:
    """The cart-pole stepped by explicit Euler as 28 terms of degree 2, (cos, sin) put back on the circle."""
    from sindyrl.envs import cartpole
    from sindyrl.envs.surrogate import Surrogate
    from sindyrl.library import polynomial_library
    from sindyrl.model import Model
    from sindyrl.sparse_map import SparseMap
    from sindyrl.structure import NextState, OnCircles

    structure = OnCircles(NextState(), (("cos", "sin"),))
    task = dataclasses.replace(cartpole.task, structure=structure, library=polynomial_library(2, bias=True))
    library = task.library.bind(task.state_names, task.input_names)
    coef = np.zeros((5, len(library)))
    for row, terms in enumerate(
        (
            {"x": 1.0, "v": 0.01},
            {"cos": 1.0, "sin*w": -0.01},
            {"sin": 1.0, "cos*w": 0.01},
            {"v": 1.0, "u": 0.097, "cos*sin": -0.007},
            {"w": 1.0, "sin": 0.15, "cos*u": -0.14},
        )
    ):
        for name, value in terms.items():
            coef[row, library.index(name)] = value
    rates = SparseMap(library, coef, structure.targets(task.state_names))
    seen = np.array([[-1.8, 1.8], [-1.0, 1.0], [-1.0, 1.0], [-4.0, 4.0], [-10.0, 10.0]])
    return Surrogate(task, Model(rates, structure, task.states, task.inputs, task.dt, seen), seed=seed, spread=0.5)


def pysindy_predict(surrogate: Any) -> Predict:
    """A discrete model of pysindy with the surrogate's coefficients: ``predict(x, u)`` of a batch."""
    import pysindy

    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((200, 5)), rng.uniform(-1, 1, (200, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pysindy.DiscreteSINDy(pysindy.STLSQ(threshold=0.0), pysindy.PolynomialLibrary(degree=2))
        peer.fit(x, t=1, u=u)
    # The same monomials in the same order; that the answers agree is measured.
    peer.optimizer.coef_ = np.array(surrogate.model.rates.coef)
    return lambda x, u: np.asarray(peer.predict(x, u=u))


def one_by_one(predict: Predict) -> Predict:
    """One call of ``predict`` for each state."""
    return lambda x, u: np.concatenate([predict(x[i : i + 1], u[i : i + 1]) for i in range(len(x))])


class PeerLoop:
    """Our update of PPO around steps of another's model: what is not ``predict`` is NumPy or the compiled update."""

    def __init__(self, surrogate: Any, settings: Any) -> None:
        import jax

        from sindyrl.learn import ppo
        from sindyrl.simulate import limits

        form, shape = surrogate.form, settings.shape
        self.surrogate, self.settings = surrogate, settings
        self._limits = limits(surrogate.task.states)
        self._drawn = jax.jit(lambda data, key: ppo.drawn(form, shape, data, key))
        self._improve = jax.jit(ppo.improver(form, shape))

    def update(self, learner: Any, predict: Predict) -> Any:
        """The learner after one update, as `ppo.train` has it; the episodes stay those of the beginning."""
        import jax

        _, draw, shuffle = jax.random.split(learner.key, 3)
        return self.improve(learner, self.collect(learner, draw, predict), shuffle)

    def improve(self, learner: Any, steps: Any, key: Any = None) -> Any:
        """The compiled update alone: the learner after it."""
        import jax

        shuffle = learner.key if key is None else key
        return jax.block_until_ready(self._improve(self.settings.hyper, learner, steps, shuffle))[0]

    def collect(self, learner: Any, key: Any, predict: Predict) -> Any:
        """`ppo.Steps` of one collection."""
        from sindyrl.learn.network import CLIPPED_AT
        from sindyrl.learn.ppo import Steps

        noise, fresh, _ = (np.asarray(part) for part in self._drawn(self.surrogate.data, key))
        actor, moments = learner.agent.actor, learner.observations
        weights, biases = ([np.asarray(part) for part in parts] for parts in (actor.weights, actor.biases))
        center, spread = np.asarray(moments.mean), np.asarray(moments.std)
        std = np.exp(np.asarray(learner.agent.log_std))
        x, taken = np.asarray(learner.episodes.x).T, np.asarray(learner.episodes.steps)
        horizon = self.surrogate.task.horizon
        rows = []
        for drawn, new in zip(noise, fresh, strict=True):
            hidden = np.clip((x - center) / spread, -CLIPPED_AT, CLIPPED_AT)
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                hidden = np.tanh(hidden @ weight + bias)
            mean = hidden @ weights[-1] + biases[-1]
            pre = mean + std * drawn
            after, reward, left = self._stepped(x, np.clip(pre, -1.0, 1.0), predict)
            taken = taken + 1
            ended = left | (taken >= horizon)
            rows.append((x, pre, mean, reward, after, left, np.zeros_like(left), ended))
            x, taken = np.where(ended[:, None], new, after), np.where(ended, 0, taken)
        return Steps(*(np.stack(part) for part in zip(*rows, strict=True)))

    def _stepped(self, x: np.ndarray, u: np.ndarray, predict: Predict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, rewards, and who left the ranges, as the surrogate has it; the cart-pole's own reward."""
        after = predict(x, u)
        after[:, 1:3] /= np.sqrt(after[:, 1:2] ** 2 + after[:, 2:3] ** 2)
        low, high = self._limits
        inside = np.asarray(((after >= low) & (after <= high)).all(axis=1))
        after = np.where(inside[:, None], after, x).astype(np.float32)
        upright, effort = (after[:, 1] + 1.0) / 2.0, (np.maximum(1.0 - u[:, 0] ** 2, 0.0) + 4.0) / 5.0
        log_tenth = np.float32(np.log(0.1))
        slow, centered = (
            (np.exp(log_tenth * (after[:, i] / size) ** 2) + 1.0) / 2.0 for i, size in ((4, 5.0), (0, 2.0))
        )
        failure = np.float32(self.surrogate.task.failure_reward)
        return after, np.where(inside, upright * effort * slow * centered, failure), ~inside


def measure_population(config: Config) -> list[dict[str, Any]]:
    """A population in one call beside its members one after the other, by the same compiled training loop."""
    import jax

    from sindyrl.learn import population, ppo

    surrogate = next_state_surrogate()
    environments, length, epochs, minibatches = config.shapes[0]
    settings = population.PopulationSettings(
        size=config.population,
        ppo=ppo.PPOSettings(
            environments=environments, length=length, epochs=epochs, minibatches=minibatches, updates=2
        ),
    )
    begun = population.start(surrogate, settings, config.seed)
    alone = [population.member(begun, index) for index in range(settings.size)]
    single = ppo.trainer(surrogate.form, settings.ppo.shape)

    def together() -> Any:
        return jax.block_until_ready(population.train(surrogate, begun, settings)[0].learners)

    def one_after_the_other() -> Any:
        return [jax.block_until_ready(single(surrogate.data, learner, hyper)) for learner, hyper in alone]

    first = seconds(together)
    first_alone = seconds(lambda: jax.block_until_ready(single(surrogate.data, *alone[0])))
    own, other = alternate(together, one_after_the_other, config.repeats)
    now, rng = begun, np.random.default_rng(config.seed)

    def generation(now: Any) -> Any:
        now, metrics = population.train(surrogate, now, settings)
        return population.renewed(now, metrics.reward.mean(axis=1), settings, rng)[0]

    compiled: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration_secs)

    now = generation(now)
    jax.monitoring.register_event_duration_secs_listener(listen)
    rates = set()
    for _ in range(config.generations):
        now = generation(now)
        rates.add(tuple(now.hyper.learning_rate.tolist()))
    return [
        {
            "figure": "population",
            "members": settings.size,
            "environments": environments,
            "length": length,
            "epochs": epochs,
            "together_s": statistics.median(own),
            "one_after_the_other_s": statistics.median(other),
            "together_over_one_after_the_other": statistics.median(own) / statistics.median(other),
            "largest": max(own) / min(other),
            "first_call_s": first,
            "first_call_of_one_s": first_alone,
            "generations_with_other_numbers": len(rates),
            "compilations_while_they_mutated": len(compiled),
        }
    ]


def measure_vector(config: Config) -> list[dict[str, Any]]:
    """Steps a second of the vector environment, all copies together, autoreset included."""
    from sindyrl.envs import cartpole
    from sindyrl.envs.surrogate import Surrogate
    from sindyrl.envs.surrogate_vector import SurrogateVectorEnv
    from sindyrl.model import Model
    from sindyrl.sparse_map import SparseMap

    task, rng = cartpole.task, np.random.default_rng(config.seed)
    library = task.library.bind(task.structure.features_of(task.state_names), task.input_names)
    coef = np.zeros((8, 2, len(library)))
    for row, name, value in ((0, "u", 9.7), (0, "cos*sin", -0.7), (1, "sin", 15.0), (1, "cos*u", -14.0)):
        coef[:, row, library.index(name)] = value * (1.0 + 0.02 * rng.standard_normal(8))
    seen = np.array([[-1.8, 1.8], [-1.0, 1.0], [-1.0, 1.0], [-4.0, 4.0], [-10.0, 10.0]])
    rates = SparseMap(library, coef, task.structure.targets(task.state_names))
    model = Model(rates, task.structure, task.states, task.inputs, task.dt, seen)
    inputs = rng.uniform(-1.0, 1.0, (config.vector_steps, config.vector, 1)).astype(np.float32)
    records = []
    for mode in ("median", "member"):
        env = SurrogateVectorEnv(Surrogate(task, model, mode=mode, spread=0.5), config.vector)
        env.reset(seed=config.seed)
        first = seconds(lambda env=env: env.step(inputs[0]))  # type: ignore[misc]

        def play(env: Any = env) -> None:
            for u in inputs:
                env.step(u)

        spent = [seconds(play) for _ in range(config.repeats)]
        steps = config.vector * config.vector_steps
        records.append(
            {
                "figure": f"vector_{mode}",
                "batch": config.vector,
                "terms": len(library),
                "steps_per_s": steps / statistics.median(spent),
                "steps_per_s_least": steps / max(spent),
                "first_call_s": first,
            }
        )
    return records


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
