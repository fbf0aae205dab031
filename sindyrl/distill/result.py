"""What a distillation hands back, and what all ways of distilling check and measure alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A student on the front.

    terms : non-zero coefficients over all inputs
    kept : what it keeps of the teacher's return in the scenarios, where 0 is what the input nearest to zero earns: the
        smaller of the shares of the mean and of the average of mean and worst (`sindyrl.learn.scoring.objective`).
        For recordings, which cannot act, the share of what the best imitation with all terms earns.
    mean, score : mean return, and the average of mean and worst
    coef : (n_inputs, n_terms) over `Distilled.library`, in physical units
    origin : how it was found: "round 1, mirrored", "polished", ...
    """

    terms: int
    kept: float
    mean: float
    score: float
    coef: np.ndarray
    origin: str


@dataclasses.dataclass(frozen=True, eq=False)
class LabelErrors:
    """Errors of clipped outputs against clipped labels: mse, l1 : (member, n_inputs)"""

    mse: np.ndarray
    l1: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class GridFit:
    """An ensemble of the published recipe.

    alpha, threshold : of its thresholded fits
    mse, l1 : errors of its aggregate against the labels, mean over inputs, see `LabelErrors`
    by_member : the same for each member
    record : its aggregate in closed loop
    """

    alpha: float
    threshold: float
    mse: float
    l1: float
    by_member: LabelErrors
    record: Record


@dataclasses.dataclass(frozen=True, eq=False)
class Distilled:
    """The student chosen, and what it was chosen from.

    policy : clipped to the inputs' limits; saves, prints and exports itself
    sparse : the same before clipping, over the terms it uses
    ensemble : its terms fitted to bootstrap samples (sizes as in ``sparse``), for spread; the policy is not their mean
    front : students by number of terms; each keeps more of the teacher's return in the model than all smaller ones
    chosen : the record that is the policy
    library : all terms that were offered
    teacher_return, teacher_score : of the teacher in the same scenarios, as `Record.mean` and `Record.score`; None for
        recordings
    validations : (number of terms, real return) for each real episode
    x, u : the samples, states and the teacher's labels
    model_steps : steps taken inside the model    teacher_calls : states that the teacher was asked about
    grid : the fits of the published recipe, by alpha and then threshold; otherwise empty
    """

    policy: SymbolicMap
    sparse: SparseMap
    ensemble: SparseMap
    front: tuple[Record, ...]
    chosen: Record
    library: Library
    teacher_return: float | None
    teacher_score: float | None
    validations: tuple[tuple[int, float], ...]
    x: np.ndarray
    u: np.ndarray
    model_steps: int
    teacher_calls: int
    grid: tuple[GridFit, ...] = ()

    def variance(self, x: np.ndarray) -> np.ndarray:
        """How much the members disagree before clipping, (..., n_inputs) at states (..., n_states)."""
        return self.ensemble.variance(x)

    def __str__(self) -> str:
        return str(self.policy)


def label_errors(task: Task, sparse: SparseMap, x: np.ndarray, u: np.ndarray) -> LabelErrors:
    """Mean squared and mean absolute error of every member of a sparse policy, within the inputs' limits.

    x : (n, n_states)    u : (n, n_inputs) labels
    """
    low, high = task.action_low, task.action_high
    off = np.clip(sparse.predict_members(x), low, high) - np.clip(u, low, high)
    return LabelErrors((off**2).mean(axis=1), np.abs(off).mean(axis=1))


def clipped_policy(task: Task, sparse: SparseMap) -> SymbolicMap:
    """A sparse map of the states as the policy that is deployed: within the inputs' limits, with the task's signals."""
    limits = (task.action_low.tolist(), task.action_high.tolist())
    return sparse.symbolic(outputs=list(task.inputs), clip=limits, inputs=list(task.states), name="policy")


def pareto(records: Sequence[Record]) -> tuple[Record, ...]:
    """Those that keep more than every one with as few or fewer terms, by number of terms."""
    front: list[Record] = []
    for record in sorted(records, key=lambda each: (each.terms, -each.kept)):
        if not front or record.kept > front[-1].kept:
            front.append(record)
    return tuple(front)


def check_agreement(function: str, task: Task, model: Model) -> None:
    """Raise ValueError unless model and task name the same signals and have the same time step."""
    if model.state_names != task.state_names or model.input_names != task.input_names:
        raise ValueError(
            f"`{function}(task=..., model=...)` must agree on names. Got {task.state_names} with {task.input_names}, "
            f"and {model.state_names} with {model.input_names}."
        )
    if not math.isclose(model.dt, task.dt, rel_tol=1e-6):
        raise ValueError(
            f"`{function}(task=..., model=...)` must have one time step. Got {task.dt} s and {model.dt} s."
        )
