"""The sparse policy of the published SINDy-RL, to compare with: dense by its rule, fitted to what the teacher wanted.

States come from roll-outs of the teacher in the median model, with noise added and not put back on any manifold. Labels
are what the teacher wanted before the limits, as far as it can tell, cut off well beyond them. An ensemble of
thresholded fits is made for every pair of settings on a grid, and the pair whose clipped outputs have the smallest mean
squared error on the states without noise is taken, whatever it returns.

Source: Zolman et al., SINDy-RL, arXiv 2403.09110.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Any, Literal, get_args

import numpy as np

from sindyrl.distill.exam import Exam
from sindyrl.distill.result import Distilled, GridFit, clipped_policy, label_errors, pareto
from sindyrl.distill.roll_out import RollOuts
from sindyrl.distill.teacher import Teacher
from sindyrl.learn.scoring import Scenarios, Scorer, objective
from sindyrl.model import Model
from sindyrl.number_check import check_fields, checked_numbers, not_negative, whole
from sindyrl.regression.ensemble import Ensemble
from sindyrl.regression.stlsq import STLSQ
from sindyrl.sparse_map import SparseMap
from sindyrl.task import Sampler, Task

Aggregate = Literal["mean", "median"]
Select = Literal["labels", "returns"]


@dataclasses.dataclass(frozen=True)
class PublishedSettings:
    """The published values for the swing-up.

    steps, length : of the roll-outs in all, and of each
    copies, noise : noisy copies of each visited state, and their standard deviation in the states' units
    limit : where labels are cut off, in half ranges of the input from its middle
    alphas, thresholds : of the grid, see `STLSQ`
    members, drop_columns : of the `Ensemble`; each member sees as many rows as there are, drawn with replacement (the
        published ones 60 % of them)
    aggregate : of the members' coefficients
    select : by the "labels" as published, or by the "returns" in the model
    scenarios, spread : in which returns are measured, as in `DistillSettings`
    """

    steps: int = 5000
    length: int = 500
    copies: int = 2
    noise: float = 0.1
    limit: float = 5.0
    alphas: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    thresholds: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    members: int = 20
    drop_columns: int = 1
    aggregate: Aggregate = "mean"
    select: Select = "labels"
    scenarios: int = 32
    spread: float = 0.05

    def __post_init__(self) -> None:
        counts = {"steps": 1, "length": 1, "copies": 1, "members": 2, "drop_columns": 0, "scenarios": 1}
        for name, least in counts.items():
            check_fields(self, name, f"an integer of at least {least}", whole(least))
        for name, allowed in (("aggregate", get_args(Aggregate)), ("select", get_args(Select))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`PublishedSettings({name}=...)` must be one of {allowed}. Got {getattr(self, name)!r}."
                )
        check_fields(self, "noise spread", "a finite number of at least 0", not_negative)
        check_fields(self, "limit", "at least 1, the input's limit", lambda value: value >= 1)
        for name in ("alphas", "thresholds"):
            wanted = "finite numbers of at least 0, at least one"
            values = checked_numbers(f"PublishedSettings({name}=...)", getattr(self, name), wanted, not_negative)
            object.__setattr__(self, name, values)


def published(
    task: Task,
    model: Model,
    teacher: Any,
    *,
    rng: np.random.Generator,
    settings: PublishedSettings,
    start: Sampler | None = None,
) -> Distilled:
    """What `distill` does with ``method="published"``."""
    library = task.policy_library.bind(task.state_names, ())
    scorer = Scorer(task, model, library)
    exam = Exam(scorer, scorer.scenarios(settings.scenarios, settings.spread, rng))
    asked, roll_outs = Teacher(task, teacher, rng), RollOuts(scorer)
    judged = roll_outs.visited(asked, exam.scenarios, rng).returns
    exam.aim(float(judged.mean()), float(objective(judged)))

    count = -(-settings.steps // settings.length)
    x0 = (task.reset if start is None else start)(rng, count).T
    median = np.repeat(scorer.model.rates.median().coef[..., None], count, axis=-1)
    seen = roll_outs.visited(asked, Scenarios(median, x0), rng, length=settings.length)
    around = np.repeat(seen.x, settings.copies, axis=0)
    around = around + settings.noise * rng.standard_normal(around.shape)
    middle, half = (task.action_low + task.action_high) / 2.0, (task.action_high - task.action_low) / 2.0
    wanted = np.clip(asked.wanted(around, rng), middle - settings.limit * half, middle + settings.limit * half)

    grid, maps = [], []
    theta, seed = library.features(around), int(rng.integers(2**31))
    for alpha, threshold in itertools.product(settings.alphas, settings.thresholds):
        ensemble = Ensemble(
            STLSQ(threshold, alpha=alpha),
            n_members=settings.members,
            drop_columns=settings.drop_columns,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a member without a column it needs says so; the aggregate does without
            members = SparseMap(library, ensemble.fit(theta, wanted).coef_, task.input_names)
        sparse = members.mean() if settings.aggregate == "mean" else members.median()
        errors, by_member = (label_errors(task, each, seen.x, seen.u) for each in (sparse, members))
        (record,) = exam.records(sparse.coef[None], [f"alpha {alpha:g}, threshold {threshold:g}"])
        grid.append(GridFit(alpha, threshold, float(errors.mse.mean()), float(errors.l1.mean()), by_member, record))
        maps.append((sparse, members))
    if settings.select == "labels":
        best = min(range(len(grid)), key=lambda index: grid[index].mse)
    else:
        best = max(range(len(grid)), key=lambda index: grid[index].record.kept)
    return Distilled(
        clipped_policy(task, maps[best][0]),
        *maps[best],
        pareto([fit.record for fit in grid]),
        grid[best].record,
        library,
        float(exam.goal[0]),
        float(exam.goal[1]),
        (),
        around,
        wanted,
        scorer.model_steps,
        asked.calls,
        tuple(grid),
    )
