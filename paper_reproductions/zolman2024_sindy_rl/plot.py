"""The figures of the paper, drawn again from finished lines; each function returns SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_reproductions.zolman2024_sindy_rl.analysis import quantile_curve, total_variance
from paper_reproductions.zolman2024_sindy_rl.figure_file import figure_file
from paper_reproductions.zolman2024_sindy_rl.methods import method
from paper_reproductions.zolman2024_sindy_rl.studies import network, pole_plane, rebuilt, reward_map, true_step
from sindyrl.envs import cartpole
from sindyrl.landscape import Landscape, Plane, along, around, drawn, heat_maps, landscape, portraits
from sindyrl.model import Model
from sindyrl.plot import COLORS, INK, styled_figure
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.uncertainty import policy_spread, return_spread, reward_spread, step_reward_spread

__all__ = [
    "coefficients",
    "collect_and_batch",
    "learning_curves",
    "models_portraits",
    "policies",
    "portraits_over_training",
    "reward_surfaces",
    "variances",
]

Record = Mapping[str, Any]
_LABELS = {
    "published": "SINDy-RL, published settings",
    "linear": "Dyna-linear, published settings",
    "default": "sindyrl.dyna",
    "ppo": "PPO on the real system",
    "dyna-nn": "Dyna-NN",
    "mb-mpo": "MB-MPO",
}
_MOST = 4  # snapshots in a row


def learning_curves(curves: Mapping[str, Sequence[Sequence[Record]]]) -> str:
    """Running best over real steps, median and quartiles over seeds: as the paper counts, and with all counted."""
    with styled_figure(3.4) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, counted in zip(panels, (False, True), strict=True):
            for index, (name, label) in enumerate(_LABELS.items()):
                if not curves.get(name):
                    continue
                steps, (low, middle, high) = quantile_curve(curves[name], counted=counted)
                color = COLORS[index % len(COLORS)]
                line = "-" if index < len(COLORS) else "--"
                marker = "o" if len(steps) < 12 else None
                axes.plot(
                    np.maximum(steps, 1), middle, line, color=color, label=label, drawstyle="steps-post",
                    marker=marker, markersize=3,
                )  # fmt: skip
                axes.fill_between(np.maximum(steps, 1), low, high, step="post", color=color, alpha=0.18, linewidth=0)
            title = "real steps with evaluations" if counted else "real steps without evaluations, as in the paper"
            axes.set(xscale="log", xlabel=title, ylim=(0.0, 1000.0))
        panels[0].set_ylabel("best return so far")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure_file(figure, "learning-curves")


def models_portraits(models: Record) -> str:
    """The pole in the models that random steps give, beside the true one; ``models`` of a line of kind "models"."""
    made = {name: rebuilt(name, record) for name, record in models.items()}  # type: ignore[arg-type]
    titles = ["true system", *(f"{name}, {models[name]['data']:,} steps" for name in made)]
    figure = portraits([true_step, *(model.step for model in made.values())], pole_plane(), cartpole.DT, titles=titles,
                       columns=4)  # fmt: skip
    return figure_file(figure, "portraits")


def portraits_over_training(record: Record) -> str:
    """The pole in the models of a run, from the first to the last, and in truth."""
    shown = _chosen(record["snapshots"])
    steps = [rebuilt(record["method"], snapshot).step for snapshot in shown]
    titles = [*(f"{snapshot['data']:,} real steps" for snapshot in shown), "true system"]
    figure = portraits([*steps, true_step], pole_plane(), cartpole.DT, titles=titles, columns=len(steps) + 1)
    return figure_file(figure, "portraits-training")


def variances(record: Record, *, quick: bool = False) -> str:
    """Variance over the pole's plane during training: of the next state, of one reward, and of the teacher's return."""
    shown = _chosen(record["snapshots"])
    models = [rebuilt(record["method"], snapshot) for snapshot in shown]
    task = method(record["method"]).task
    teacher = network(record["method"], record["teacher"]["network"])
    plane = pole_plane(31, 21) if quick else pole_plane()
    coarse = pole_plane(11, 7) if quick else pole_plane(31, 21)
    steps = 20 if quick else 200

    def zero(x: np.ndarray) -> np.ndarray:
        return np.zeros((*x.shape[:-1], 1))

    def one_reward(model: Model) -> Landscape:
        return landscape(plane, lambda x: step_reward_spread(task, model, x, zero(x)).total, "variance of one reward")

    def value(model: Model) -> Landscape:
        spread = lambda x: return_spread(task, model, teacher, x, steps=steps).total  # noqa: E731
        return landscape(coarse, spread, f"variance of the return of {steps} steps")

    rows = [
        [landscape(plane, total_variance(model), "variance of the next state") for model in models],
        [one_reward(model) for model in models],
        [value(model) for model in models],
    ]
    titles = [f"{snapshot['data']:,} real steps" for snapshot in shown]
    return figure_file(drawn(rows, titles=titles, logarithmic=True), f"variances-{record['method']}")


def reward_surfaces(record: Record) -> str:
    """Reward against input and angle: the task's own, those learned from random and from all steps, their variance."""
    task = cartpole.task
    names = (*task.state_names, *task.input_names)
    plane = Plane(names, around("cos", "sin"), along("u", -1.0, 1.0, 21))
    order = [names.index(name) for name in task.reward.input_names]
    learned = [reward_map(record["rewards"][when]) for when in ("before", "after")]

    def promised(reward: SparseMap) -> Landscape:
        return landscape(plane, reward, "reward")

    def spread(reward: SparseMap) -> Landscape:
        return landscape(plane, lambda z: reward_spread(task, reward, z[..., :-1], z[..., -1:]).total, "variance")

    true = landscape(plane, lambda z: task.reward(z[..., order]), "reward")
    values, spreads = [true, *map(promised, learned)], [spread(reward) for reward in learned]
    titles = ["true", "learned from random steps", "learned from all steps"]
    figure = drawn([values, spreads], titles=[titles, titles[1:]], logarithmic=[False, True], share=False)
    return figure_file(figure, "reward")


def coefficients(record: Record) -> str:
    """Heat-maps of the coefficients of the next state, without the state itself, first and last."""
    shown = [record["snapshots"][0], record["snapshots"][-1]]
    maps = [rebuilt(record["method"], snapshot).rates for snapshot in shown]
    titles = [f"next state, {snapshot['data']:,} real steps" for snapshot in shown]
    return figure_file(heat_maps(maps, titles=titles), "coefficients")


def policies(record: Record, learned: Record) -> str:
    """Inputs over the pole's plane: the network of a learning run, and the sparse policies distilled from it."""
    teacher = network(learned["method"], learned["teacher"]["network"])
    plane = pole_plane()
    shown: dict[str, Any] = {"network": teacher}
    shown |= {name: SymbolicMap.from_json(made["policy"]) for name, made in record["recipes"].items()}

    def command(policy: Any) -> Landscape:
        names = [plane.names.index(name) for name in policy.input_names]
        return landscape(plane, lambda x: policy(x[..., names])[..., 0], "input u")

    rows, titles = [[command(policy) for policy in shown.values()]], [list(shown)]
    ensembles = {name: made["ensemble"] for name, made in record["recipes"].items() if made.get("ensemble")}
    if ensembles:
        members = [SparseMap.from_json(made) for made in ensembles.values()]
        rows.append([landscape(plane, _spread_of(policy, plane), "variance of the input") for policy in members])
        titles.append([f"members of: {name}" for name in ensembles])
    return figure_file(
        drawn(rows, titles=titles, logarithmic=[False, True][: len(rows)]), f"policies-{record['method']}"
    )


def _spread_of(policy: SparseMap, plane: Plane) -> Any:
    names = [plane.names.index(name) for name in policy.library.variables]
    return lambda x: policy_spread(policy, x[..., names], low=-1.0, high=1.0).total


def collect_and_batch(found: Mapping[str, float]) -> str:
    """Best return over N_collect, a line for each n_batch."""
    cells = {tuple(int("".join(filter(str.isdigit, part))) for part in name.split("_")[1:3]): value
             for name, value in found.items() if name.startswith("cell_")}  # fmt: skip
    with styled_figure(2.8) as figure:
        axes = figure.subplots()
        for index, batch in enumerate(sorted({batch for _, batch in cells})):
            points = sorted((collect, value) for (collect, b), value in cells.items() if b == batch)
            axes.plot(*zip(*points, strict=True), "o-", color=COLORS[index % len(COLORS)], label=f"n_batch {batch}")
        axes.set(xscale="log", xlabel="N_collect, real steps of a round", ylabel="best return")
        axes.legend(labelcolor=INK)
    return figure_file(figure, "collect-batch")


def _chosen(snapshots: Sequence[Record]) -> list[Record]:
    """At most four of them, the first and the last among them."""
    index = np.unique(np.linspace(0, len(snapshots) - 1, min(_MOST, len(snapshots))).round().astype(int))
    return [snapshots[i] for i in index]
