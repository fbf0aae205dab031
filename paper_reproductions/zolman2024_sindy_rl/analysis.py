"""From finished lines to figures: steps to a level, quantiles over seeds, fixed points, and what peers needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paper_reproductions.zolman2024_sindy_rl.methods import METHODS
from paper_reproductions.zolman2024_sindy_rl.studies import pole_plane, rebuilt
from sindyrl.landscape import landscape
from sindyrl.model import Model
from sindyrl.uncertainty import step_spread

__all__ = [
    "LEVEL",
    "figures",
    "peer_curves",
    "quantile_curve",
    "steps_to",
    "swimmer_figures",
    "table",
    "variance_over_training",
]

LEVEL = 700.0  # of at most 1000: the pole is up, and stays there
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
KEPT, FEW = 0.95, 20  # a sparse policy keeps its network's return: at least this share, with at most so many terms
NN_POLICY = 4674  # numbers of the paper's policy network for the swing-up

_NEAR = 0.1  # rad: as far from its true place as a fixed point may be
Record = Mapping[str, Any]


# ---- learning curves


def spent(point: Record, counted: bool) -> int:
    """Real steps up to a point of a curve: all of them, or as the paper counts, without those that evaluate."""
    return int(point["data"] + (point["selection"] if counted else 0))


def steps_to(curve: Sequence[Record], level: float = LEVEL, *, counted: bool) -> float:
    """Real steps to the first evaluation of at least ``level``; infinite if there is none."""
    return next((float(spent(point, counted)) for point in curve if point["return"] >= level), math.inf)


def quantile_curve(
    curves: Sequence[Sequence[Record]], *, counted: bool, quantiles: Sequence[float] = (0.25, 0.5, 0.75)
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles over seeds of the running best: steps (point,), returns (quantile, point).

    From where every seed has a first policy to where the first seed ends.
    """
    steps = [np.array([spent(point, counted) for point in curve]) for curve in curves]
    best = [np.maximum.accumulate([point["return"] for point in curve]) for curve in curves]
    first, last = max(each[0] for each in steps), max(each[-1] for each in steps)
    grid = np.unique(np.concatenate(steps))
    grid = grid[(grid >= first) & (grid <= last)]
    held = [r[np.searchsorted(s, grid, side="right") - 1] for s, r in zip(steps, best, strict=True)]
    return grid, np.quantile(np.array(held), quantiles, axis=0)


def peer_curves(folder: Path = BENCHMARKS) -> dict[str, list[list[dict[str, Any]]]]:
    """Learning curves of other methods on the same swing-up, from what is committed of `sindyrl bench`.

    "ppo": Stable-Baselines3 with its defaults; others by their names in swingup.jsonl. Evaluations there are free:
    they stand under "selection", and choose only where a running best is taken.
    """
    found: dict[str, list[list[dict[str, Any]]]] = {}
    file = folder / "swingup.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        record = json.loads(line)
        if record.get("figure") != "trial" or "error" in record:
            continue
        curve = [_point(point, number * _per_point(record)) for number, point in enumerate(record["curve"], start=1)]
        found.setdefault(record["method"], []).append(curve)
    older = folder / "ppo_swingup.json"
    if "ppo" not in found and older.exists():
        chosen = json.loads(older.read_text(encoding="utf-8"))["configurations"]["defaults"]
        episodes = chosen["config"]["evaluation_episodes"]
        found["ppo"] = [
            [_point(point, 1000 * episodes * number) for number, point in enumerate(run["curve"], start=1)]
            for run in chosen["runs"]
        ]
    return found


def _per_point(record: Record) -> int:
    """Real steps of one evaluation, which are free there."""
    return round(record["report_steps"] / max(len(record["curve"]), 1))


def _point(point: Record, selection: int) -> dict[str, Any]:
    return {"data": int(point["steps"]), "selection": selection, "return": float(point["return"])}


# ---- figures


def figures(records: Iterable[Record], peers: Mapping[str, Sequence[Sequence[Record]]]) -> dict[str, Any]:
    """All numbers of the study, by name; what was not run is left out."""
    records = list(records)
    found: dict[str, Any] = {}
    for name in METHODS:
        curves = [record["curve"] for record in records if record["kind"] == "learn" and record["method"] == name]
        found |= _learned(name, curves)
    found |= _learned("ppo", list(peers.get("ppo", ())), free=True)
    for peer in ("dyna-nn", "mb-mpo"):
        found |= _learned(peer.replace("-", "_"), list(peers.get(peer, ())), free=True)
    for ours_is in ("published", "default"):
        for counted in ("", "counted_"):
            ours, theirs = (found.get(f"{method}_{counted}steps_to_{LEVEL:g}") for method in (ours_is, "ppo"))
            if ours and theirs:
                found[f"{ours_is}_{counted}times_fewer_than_ppo"] = round(theirs / ours, 1)
    found |= _of_models([record["models"] for record in records if record["kind"] == "models"])
    for record in records:
        if record["kind"] == "learn" and record.get("snapshots") and record["method"] == "published":
            first, last = variance_over_training(record)[:: max(len(record["snapshots"]) - 1, 1)][:2]
            found["published_variance_falls"] = float(f"{first / last:.3g}")
            for when in ("before", "after"):
                found[f"published_reward_correlation_{when}"] = record["rewards"][f"correlation_{when}"]
        elif record["kind"] == "speed":
            found["surrogate_steps_per_s"] = record["steps_per_s"]
    for name in METHODS:
        found |= _distilled(name, [r for r in records if r["kind"] == "distill" and r["method"] == name])
    rewards = [record for record in records if record["kind"] == "swimmer reward"]
    if rewards:
        found["swimmer_reward_terms"] = float(np.median([len(record["terms"]) for record in rewards]))
        slopes = [record["terms"].get("vx", 0.0) for record in rewards]
        found["swimmer_reward_vx"] = round(float(np.median(slopes)), 3)
        found["swimmer_reward_explained"] = float(np.median([record["explained"] for record in rewards]))
    return found | _of_cells([record for record in records if record["kind"] == "cell"])


def _learned(name: str, curves: Sequence[Sequence[Record]], *, free: bool = False) -> dict[str, float]:
    if not curves:
        return {}
    best = [max(point["return"] for point in curve) for curve in curves]
    found: dict[str, float] = {
        f"{name}_seeds": len(curves),
        f"{name}_reached_{LEVEL:g}": round(sum(value >= LEVEL for value in best) / len(curves), 3),
        f"{name}_best_return": round(float(np.median(best)), 1),
        f"{name}_final_return": round(float(np.median([curve[-1]["return"] for curve in curves])), 1),
    }
    for counted in (False, True):
        steps = float(np.median([steps_to(curve, counted=counted) for curve in curves]))
        if math.isfinite(steps):
            found[f"{name}_{'counted_' if counted else ''}steps_to_{LEVEL:g}"] = steps
    if not free:
        found[f"{name}_data_steps"] = float(np.median([curve[-1]["data"] for curve in curves]))
    return found


def right_poles(points: Sequence[Record]) -> int:
    """How many of the pole's two true fixed points are there with their kind: a saddle upright, none hanging."""
    upright = any(abs(p["angle"]) < _NEAR and p["kind"] == "saddle" for p in points)
    hanging = any(math.pi - abs(p["angle"]) < _NEAR and p["kind"] != "saddle" for p in points)
    return int(upright) + int(hanging)


def _of_models(models: Sequence[Record]) -> dict[str, float]:
    found: dict[str, float] = {}
    if not models:
        return found
    for name in models[0]:
        points = [made[name]["fixed_points"] for made in models]
        found[f"{name}_fixed_points_right"] = float(np.median([right_poles(p) for p in points]))
        found[f"{name}_fixed_points"] = float(np.median([len(p) for p in points]))
        found[f"{name}_model_terms"] = float(np.median([made[name]["terms"] for made in models]))
    ratios = [list(made["published"]["euler"].values()) for made in models]
    found["published_euler_terms"] = float(np.median([sum(abs(r - 1.0) < 0.05 for r in row) for row in ratios]))
    return found


def _distilled(method: str, records: Sequence[Record]) -> dict[str, float]:
    """Medians and quartiles over seeds; of the published settings' networks without a prefix.

    kept : share of the seeds whose policy keeps 95 % of its own network's return with at most 20 terms
    """
    if not records:
        return {}
    head = "" if method == "published" else f"{method}_"
    teachers = np.array([record["teacher"]["return"] for record in records])
    found = {
        f"{head}sparse_seeds": float(len(records)),
        f"{head}sparse_teacher_return": round(float(np.median(teachers)), 1),
    }
    for recipe in records[0]["recipes"]:
        made = [record["recipes"][recipe] for record in records]
        terms, returns = (np.array([one[part] for one in made], dtype=np.float64) for part in ("terms", "return"))
        shares = returns / np.maximum(teachers, 1e-9)
        name = f"{head}sparse_{recipe}"
        low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75))
        found |= {
            f"{name}_terms": float(np.median(terms)),
            f"{name}_most_terms": float(terms.max()),
            f"{name}_return": round(float(np.median(returns)), 1),
            f"{name}_share_of_teacher": round(float(middle), 3),
            f"{name}_share_of_teacher_quartile_1": round(float(low), 3),
            f"{name}_share_of_teacher_quartile_3": round(float(high), 3),
            f"{name}_kept": round(float(np.mean((shares >= KEPT) & (terms <= FEW))), 3),
            f"{name}_times_fewer_numbers": round(NN_POLICY / max(float(np.median(terms)), 1.0), 1),
        }
    return found


def _of_cells(cells: Sequence[Record]) -> dict[str, float]:
    """Median best return of each cell of N_collect x n_batch."""
    groups: dict[str, list[float]] = {}
    for cell in cells:
        name = f"cell_collect{cell['collect']}_batch{cell['batch']}_best_return"
        groups.setdefault(name, []).append(max(point["return"] for point in cell["curve"]))
    return {name: round(float(np.median(values)), 1) for name, values in groups.items()}


def variance_over_training(record: Record) -> list[float]:
    """Median over the pole's plane of the total variance of the next state, for each snapshot of a run."""
    return [
        float(np.median(landscape(pole_plane(), total_variance(model), "").values))
        for model in (rebuilt(record["method"], snapshot) for snapshot in record["snapshots"])
    ]


def total_variance(model: Model) -> Any:
    """Total variance of the next state over its members, under zero input."""
    return lambda x: step_spread(model, x, np.zeros((*x.shape[:-1], len(model.inputs)))).total


# ---- table


def table(found: Mapping[str, Any]) -> dict[str, Any]:
    """One row a method: what it reaches after how many real steps."""
    columns = [
        "method", "seeds", f"reach {LEVEL:g}", f"steps to {LEVEL:g}, as the paper counts", "all counted",
        "best return", "final return",
    ]  # fmt: skip
    rows = []
    for name in (*METHODS, "ppo", "dyna_nn", "mb_mpo"):
        if f"{name}_seeds" in found:
            steps = (f"reached_{LEVEL:g}", f"steps_to_{LEVEL:g}", f"counted_steps_to_{LEVEL:g}")
            keys = ("seeds", *steps, "best_return", "final_return")
            rows.append([name, *(found.get(f"{name}_{key}", "never") for key in keys)])
    return {"columns": columns, "rows": rows}


def swimmer_figures(folder: Path = BENCHMARKS) -> dict[str, float]:
    """What `sindyrl bench swimmer` has committed: best returns and real steps of each method beside those of PPO."""
    file = folder / "swimmer.jsonl"
    best: dict[str, float] = {}
    cost: dict[str, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        record = json.loads(line)
        if record.get("figure") != "trial" or "error" in record:
            continue
        name = record["method"].replace("-", "_")
        best[name] = max(best.get(name, -math.inf), record["final_return"])
        cost[name] = max(cost.get(name, 0.0), float(record["cost"]))
    found: dict[str, float] = {}
    for name, value in best.items():
        found[f"swimmer_{name}_best_return"] = round(value, 1)
        if "ppo" in best and name != "ppo" and best["ppo"] > 0:
            found[f"swimmer_{name}_best_over_ppo"] = round(value / best["ppo"], 2)
            found[f"swimmer_{name}_times_fewer_than_ppo"] = round(cost["ppo"] / cost[name], 1)
    return found
