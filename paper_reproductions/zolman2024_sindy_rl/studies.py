"""What is measured: models of random steps, a learning run, a learned reward, and the surrogate's speed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

import sindyrl.envs  # noqa: F401  (registers the swing-up)
from paper_reproductions.zolman2024_sindy_rl.methods import Method, MethodName, method
from sindyrl.collect import InteractionMeter, collect, evaluate, random_policy
from sindyrl.envs import cartpole
from sindyrl.envs.surrogate import Surrogate
from sindyrl.landscape import Plane, along, around, fixed_points
from sindyrl.learn.dyna import dyna
from sindyrl.learn.network import NeuralPolicy
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.regression.ensemble import Ensemble
from sindyrl.regression.stlsq import STLSQ
from sindyrl.reward_model import fit_reward
from sindyrl.sparse_map import SparseMap
from sindyrl.trajectory import Dataset

__all__ = [
    "Keep",
    "correlation",
    "learn",
    "measure_models",
    "measure_speed",
    "measure_swimmer_reward",
    "network",
    "packed",
    "packed_network",
    "pole_plane",
    "rebuilt",
    "reward_map",
    "true_accelerations",
    "true_step",
    "unpacked",
]

Keep = Literal["nothing", "teacher", "models"]

ENVIRONMENT = "sindyrl/CartPoleSwingUp-v0"
REWARD_LIBRARY = polynomial_library(3, bias=True)
_INERTIA = 9.42459e-3  # kg m^2, of the capsule about its center
# x_next, cos_next and sin_next of an explicit Euler step, by term; the paper says that its models are near it.
_EULER = {
    "x_next": {"x": 1.0, "v": cartpole.DT},
    "cos_next": {"cos": 1.0, "sin*w": -cartpole.DT},
    "sin_next": {"sin": 1.0, "cos*w": cartpole.DT},
}


# ---- numbers that are kept


def packed(coef: np.ndarray) -> dict[str, Any]:
    """Coefficients for JSON, most of which are zero: to 8 digits, where they are not."""
    flat = np.ravel(coef)
    index = np.flatnonzero(flat)
    return {
        "shape": list(coef.shape),
        "index": index.tolist(),
        "values": [float(f"{value:.8g}") for value in flat[index]],
    }


def unpacked(record: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `packed`."""
    coef = np.zeros(int(np.prod(record["shape"])))
    coef[record["index"]] = record["values"]
    return coef.reshape(record["shape"])


def rebuilt(name: MethodName, record: Mapping[str, Any]) -> Model:
    """The model of a method with the coefficients of a snapshot."""
    task = method(name).task
    names, form = task.state_names, task.structure
    library = task.library.bind(form.features_of(names), task.input_names)
    units = form.target_units(names, [signal.unit for signal in task.states])
    rates = SparseMap(library, unpacked(record["coef"]), form.targets(names), units)
    return Model(rates, form, task.states, task.inputs, task.dt, np.array(record["seen"]))


def packed_network(policy: NeuralPolicy) -> dict[str, Any]:
    """A network for JSON, its float32 numbers exactly."""

    def numbers(values: np.ndarray) -> Any:
        return [float(f"{value:.9g}") for value in values] if values.ndim == 1 else [numbers(row) for row in values]

    arrays = {name: numbers(getattr(policy, name)) for name in ("mean", "std", "log_std")}
    layers = {name: [numbers(layer) for layer in getattr(policy, name)] for name in ("weights", "biases")}
    return layers | arrays | {"squash": policy.squash}


def network(name: MethodName, record: Mapping[str, Any]) -> NeuralPolicy:
    """The inverse of `packed_network`."""
    task = method(name).task
    weights, biases = (tuple(np.array(layer) for layer in record[part]) for part in ("weights", "biases"))
    mean, std, log_std = (np.array(record[part]) for part in ("mean", "std", "log_std"))
    return NeuralPolicy(weights, biases, mean, std, log_std, task.states, task.inputs, record["squash"])


def reward_map(record: Mapping[str, Any]) -> SparseMap:
    """A learned reward of a learning run."""
    library = REWARD_LIBRARY.bind(cartpole.task.state_names, cartpole.task.input_names)
    return SparseMap(library, unpacked(record), ("reward",))


# ---- models of random steps


def measure_models(seed: int, steps: int = 8000, *, keep: bool = True) -> dict[str, Any]:
    """Each method's model of the same kind of data that it has before its first policy, without any learning.

    keep : the coefficients too, for figures
    """
    found: dict[str, Any] = {}
    for name in ("published", "linear", "default"):
        made = method(name)
        data = first_data(made, seed, min(steps, made.settings.first_steps))
        model = sparse(made.fit(data))
        found[name] = {
            "data": data.steps,
            "terms": model.n_terms,
            "fixed_points": poles_found(model),
            **(snapshot(model) if keep else {}),
        }
        if name == "published":
            found[name]["euler"] = euler(model)
    return {"models": found}


def first_data(made: Method, seed: int, steps: int) -> Dataset:
    """The random steps with which the loop begins."""
    env = gymnasium.make(ENVIRONMENT)
    settings = made.settings
    return collect(
        env,
        random_policy(env, settings.hold),
        steps=steps,
        rng=np.random.default_rng(seed),
        reset_every=settings.reset_every,
    )


def sparse(model: Any) -> Model:
    """The model itself: all methods here have sparse ones."""
    if not isinstance(model, Model):
        raise TypeError(f"A sparse model is needed here. Got {type(model).__name__}.")
    return model


def snapshot(model: Model) -> dict[str, Any]:
    return {"coef": packed(model.rates.coef), "seen": model.seen.tolist()}


def euler(model: Model) -> dict[str, float]:
    """Ratio to the explicit Euler step's coefficient of each of its six kinematic terms, 0 where one is missing."""
    coef, names = model.rates.median().coef, model.rates.library.names
    rows = dict(zip(model.rates.targets, coef, strict=True))
    return {
        f"{target}: {term}": float(f"{rows[target][names.index(term)] / value:.6g}")
        for target, terms in _EULER.items()
        for term, value in terms.items()
    }


def pole_plane(n: int = 61, m: int = 31, reach: float = 6.0) -> Plane:
    """Angle and angular velocity of the pole, the cart at rest in the middle."""
    across, up = around("cos", "sin", n), along("w", -reach, reach, m, "rad/s")
    return Plane(cartpole.task.state_names, across, up)


def poles_found(model: Model) -> list[dict[str, Any]]:
    """The fixed points of the pole in a model: angle (rad), angular velocity, kind."""
    points = fixed_points(model.step, pole_plane(), model.dt)
    return [{"angle": round(float(p.at[0]), 5), "velocity": round(float(p.at[1]), 5), "kind": p.kind} for p in points]


def true_accelerations(x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cart (m/s^2) and pole (rad/s^2) at x (..., 5), u (..., 1), in closed form: the simulator takes a millisecond.

    With the cart's position q, clockwise angle a from upright, pole of mass m, its center at l from the hinge, inertia
    I about it, all of mass M:

        M q'' + m l (cos a'' - sin w^2) = 10 u - d v        (I + m l^2) a'' + m l cos q'' = m g l sin - e w
    """
    _, cos, sin, v, w = np.moveaxis(x, -1, 0)
    total, weight, inertia = 1.1, 0.1 * 0.5, _INERTIA + 0.1 * 0.5**2
    force = 10.0 * u[..., 0] - 5e-4 * v + weight * sin * w**2
    torque = 9.81 * weight * sin - 2e-6 * w
    pole = (torque - weight * cos * force / total) / (inertia - (weight * cos) ** 2 / total)
    return (force - weight * cos * pole) / total, pole


def true_step(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """One step of the true system by the midpoint rule, of second order in the step."""
    half = _moved(x, x, true_accelerations(x, u), cartpole.DT / 2.0)
    return _moved(x, half, true_accelerations(half, u), cartpole.DT)


def _moved(x: np.ndarray, at: np.ndarray, rates: tuple[np.ndarray, np.ndarray], dt: float) -> np.ndarray:
    """``x`` after ``dt`` with the velocities of ``at`` and these accelerations; the angle is turned."""
    out = np.array(x, dtype=np.float64)
    cos, sin = np.cos(at[..., 4] * dt), np.sin(at[..., 4] * dt)
    out[..., 0] += at[..., 3] * dt
    out[..., 1], out[..., 2] = x[..., 1] * cos - x[..., 2] * sin, x[..., 2] * cos + x[..., 1] * sin
    out[..., 3] += rates[0] * dt
    out[..., 4] += rates[1] * dt
    return out


# ---- the reward of Swimmer


def measure_swimmer_reward(seed: int, steps: int = 12_000) -> dict[str, Any]:
    """The reward that the published recipe learns from random steps of Swimmer: its terms, and what they explain.

    Monomials of single states up to degree 2, no inputs, thresholded at 0.05, bagged.
    """
    from sindyrl.envs import swimmer

    env = swimmer.Swimmer()
    data = collect(env, random_policy(env), steps=steps, rng=np.random.default_rng(seed), reset_every=100)
    names = swimmer.task.state_names
    library = polynomial_library(2, interaction=False).bind(names, ())
    regressor = Ensemble(STLSQ(0.05, alpha=1e-5), n_members=20, drop_columns=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a member without the one column it needs says so
        found = fit_reward(data, library, regressor=regressor)
    coef = found.median().coef[0]
    pairs = data.pairs()
    true = np.asarray(pairs.r)
    left = true - found(pairs.x_next)[:, 0]
    return {
        "terms": {library.names[term]: float(f"{coef[term]:.6g}") for term in np.flatnonzero(coef)},
        "explained": round(1.0 - float(np.var(left) / np.var(true)), 4),
    }


# ---- learning


def learn(
    name: MethodName,
    seed: int,
    *,
    changes: Mapping[str, Any] | None = None,
    keep: Keep = "nothing",
    episodes: int | None = None,
    told: Callable[[float, str], None] = lambda share, text: None,
) -> dict[str, Any]:
    """One run: a point of the learning curve after each round.

    changes : of the method's settings, see `method`
    keep : the best network with its model, from which sparse policies are distilled ("teacher"); also models along
        the way, and rewards learned before and after, for the figures ("models")
    episodes : of each evaluation, default the method's
    """
    made = method(name, **(changes or {}))
    episodes = made.episodes if episodes is None else episodes
    env = gymnasium.make(ENVIRONMENT)
    meter, judge = InteractionMeter(env), np.random.default_rng([seed, 1])
    curve: list[dict[str, Any]] = []
    snapshots: list[dict[str, Any]] = []
    best: dict[str, Any] = {"return": -np.inf}
    begun = time.process_time()

    def after(turn: Any, policy: Any, model: Model) -> None:
        nonlocal best
        head = "selection" if made.chosen else "report"
        if turn.taken_back and curve:
            value = curve[-1]["return"]  # learning goes on from the policy before
        else:
            with meter.counting(head):
                returns = evaluate(meter, policy, episodes=episodes, rng=judge, states=made.task.state_names)
            value = round(float(returns.mean()), 2)
        counts = meter.counts
        point = {"data": counts["data"], "selection": counts["selection"], "return": value}
        curve.append(point | {"promised": _number(turn.promised), "terms": turn.model_terms})
        number = len(curve)
        if keep == "models" and (number & (number - 1) == 0 or number == made.settings.rounds):
            snapshots.append({"data": point["data"]} | snapshot(model))
        if keep != "nothing" and value > best["return"]:
            best = {"return": value, "data": point["data"], "network": packed_network(policy)} | snapshot(model)
        told(number / made.settings.rounds, f"{name} {seed}: {value:.0f} after {point['data']} steps")

    found = dyna(meter, made.task, made.settings, seed=seed, fit=made.fit, after=after)
    record = {"curve": curve, "processor_s": round(time.process_time() - begun, 1)}
    if keep != "nothing":
        record["teacher"] = best
    if keep == "models":
        if not snapshots or snapshots[-1]["data"] != curve[-1]["data"]:
            snapshots.append({"data": curve[-1]["data"]} | snapshot(sparse(found.model)))
        record |= {"snapshots": snapshots, "rewards": _rewards(found.data, made.settings.first_steps)}
    return record


def _number(value: float) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None


def _rewards(data: Dataset, first_steps: int) -> dict[str, Any]:
    """Rewards learned from the random steps and from all, and how they go with the true ones on the newest steps."""
    count = int(np.searchsorted(np.cumsum([len(part) for part in data.trajectories]), first_steps)) + 1
    before = fit_reward(Dataset(data.trajectories[:count]), REWARD_LIBRARY)
    last = fit_reward(data, REWARD_LIBRARY)
    newest = Dataset(data.trajectories[count:][-4:] or data.trajectories[-1:])
    return {
        "before": packed(before.coef),
        "after": packed(last.coef),
        "correlation_before": correlation(before, newest),
        "correlation_after": correlation(last, newest),
    }


def correlation(reward: SparseMap, data: Dataset) -> float:
    """Of learned and true rewards over the steps of ``data``; 0 if one of them does not vary."""
    pairs = data.pairs()
    names = (*data.states, *data.inputs)
    z = np.column_stack([pairs.x_next, pairs.u])[:, [names.index(name) for name in reward.library.variables]]
    found, true = reward(z)[:, 0], np.asarray(pairs.r)
    if min(np.std(found), np.std(true)) == 0.0:
        return 0.0
    return round(float(np.corrcoef(found, true)[0, 1]), 4)


# ---- speed


def measure_speed(model_record: Mapping[str, Any], batch: int = 256, steps: int = 2000) -> dict[str, Any]:
    """Steps per second of the published model's surrogate on one thread: projection, reward and ranges included."""
    import jax
    import jax.numpy as jnp

    surrogate = Surrogate(method("published").task, rebuilt("published", model_record))
    step = surrogate.transition()
    data, member = surrogate.data, jnp.zeros(batch, jnp.int32)
    inputs = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, 1, batch)).astype(np.float32)

    @jax.jit
    def run(x: Any, inputs: Any) -> Any:
        return jax.lax.scan(lambda x, u: (step(data, member, x, u).x, None), x, inputs)[0]

    x = jnp.asarray(np.resize(surrogate.starts.T.astype(np.float32), (len(surrogate.task.states), batch)))
    run(x, inputs).block_until_ready()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        run(x, inputs).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return {"steps_per_s": round(batch * steps / min(seconds)), "batch": batch}
