"""Which members of a model follow what really happened, over several steps.

A member that fits single steps well may still run away when its predictions are fed back. So each one is rolled out
with the recorded inputs from measured states, ``horizon`` steps at a time, and judged by

    e = sqrt(mean_w mean_i ((x_i - xhat_i) / s_i)^2)    over windows w and states i, after ``horizon`` steps

with s_i the standard deviation of state i in the data: 1 is as wrong as always predicting the mean. A member that
leaves the data by ten widths, or the finite numbers, has blown up. Both are left out of what a policy is learned in.

These windows may be among the data that the members were fitted to. Each member is a bootstrap that has not seen about
a third of them, and many steps are more than what was fitted; but only data that came after the fit make ``e`` an error
of prediction. `dyna` reports that one too, as ``model_error``.

Source: the validity mask of Zolman et al., SINDy-RL, arXiv 2403.09110, in its released code; written anew from its
description.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sindyrl.envs.surrogate import LearnedModel
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.pieces import remaining
from sindyrl.sparse_map import combine
from sindyrl.task import Exclusion
from sindyrl.trajectory import Dataset

_WIDER = 10.0  # widths of the data on either side of them, beyond which a member has blown up
_MAX_WINDOWS = 200
_LEAST = 2  # members that always stay: an ensemble that is not one has no disagreement


class Windows(NamedTuple):
    """Runs of equal length out of recordings.

    x : (window, step + 1, state) measured    u : (window, step, input)    r : (window, step), or None
    """

    x: np.ndarray
    u: np.ndarray
    r: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class MemberReport:
    """Judgement of an ensemble.

    horizon, windows : steps of a prediction, and how many predictions; 0 windows if the data have no such runs
    errors : (member,) see above; infinite if it blew up; NaN if nothing could be judged
    believed : (member,) of bool
    reasons : of each member, why it is not believed; empty if it is
    """

    horizon: int
    windows: int
    errors: np.ndarray
    believed: np.ndarray
    reasons: tuple[str, ...]

    @property
    def error(self) -> float | None:
        """Median of the believed members' errors; None if there is none, or if it is not finite."""
        value = float(np.median(self.errors[self.believed]))
        return value if np.isfinite(value) else None

    @property
    def trusted(self) -> bool:
        """Whether the believed members all passed: not so if some stay only because too few did."""
        return not any(reason for reason, stays in zip(self.reasons, self.believed, strict=True) if stays)

    def __str__(self) -> str:
        lines = [f"{int(self.believed.sum())} of {len(self.errors)} members believed over {self.horizon} steps"]
        lines += [
            f"    member {k}: {reason}{' (stays: too few passed)' if self.believed[k] else ''}"
            for k, reason in enumerate(self.reasons)
            if reason
        ]
        return "\n".join(lines)


def validate_members(
    model: Model | LearnedModel,
    data: Dataset,
    *,
    horizon: int = 20,
    worst: float = 1.0,
    scale: np.ndarray | None = None,
    exclude: Exclusion | None = None,
) -> MemberReport:
    """Judge every member on real windows.

    horizon : steps of a prediction; fewer if no run in the data is that long
    worst : largest error at which a member is believed
    scale : (n_states,) the s_i, default the standard deviations in ``data``; a state with 0 is not judged
    exclude : transitions that the model is not meant for, as in `sindyrl.task.Task`; no window contains one

    The best two stay whatever their errors. Without windows all are believed. Raises ValueError for wrong settings.
    """
    horizon = check_number("validate_members(horizon=...)", horizon, "a positive integer", whole(1))
    worst = check_number("validate_members(worst=...)", worst, "positive", lambda value: value > 0)
    found = windows(data, horizon, exclude)
    count = len(member_coefficients(model))
    if found is None:
        return MemberReport(0, 0, np.full(count, np.nan), np.ones(count, bool), ("",) * count)
    spread = pooled_std(data) if scale is None else np.asarray(scale, dtype=np.float64)
    if spread.shape != (len(model.states),):
        raise ValueError(
            f"`validate_members(scale=...)` must have shape {(len(model.states),)}, one for each state. "
            f"Got {spread.shape}."
        )
    errors = path_errors(member_paths(model, found), found, spread)
    steps = found.u.shape[1]
    reasons = [
        "" if error <= worst
        else f"blew up within {steps} steps" if not np.isfinite(error)
        else f"error {error:.3g} after {steps} steps, more than {worst:g}"
        for error in errors.tolist()
    ]  # fmt: skip
    believed = errors <= worst
    believed[np.argsort(errors, kind="stable")[:_LEAST]] = True
    return MemberReport(steps, len(found.x), errors, believed, tuple(reasons))


def mean_disagreement(model: Model | LearnedModel, data: Dataset, members: np.ndarray | None = None) -> float:
    """Mean over at most 200 real transitions of the disagreement d of `sindyrl.envs.surrogate`, about one step.

    members : mask of those that are asked, default all; at least two
    """
    found = windows(data, 1)
    assert found is not None  # every dataset has a transition
    after = member_paths(model, found)[:, :, 1]
    after = after if members is None else after[np.asarray(members, dtype=bool)]
    half = np.ptp(model.seen, axis=1) / 2.0
    apart = after.std(axis=0, ddof=1) / np.where(half > 0, half, 1.0)
    # Where a member blows up at once, one step may end anywhere.
    return float(np.mean(np.nan_to_num(np.minimum(np.sqrt(np.mean(apart**2, axis=-1)), 1.0), nan=1.0)))


def pooled_std(data: Dataset) -> np.ndarray:
    """Standard deviation of each state over all rows, (n_states,); exactly 0 where nothing ever changed."""
    x = np.concatenate([part.x for part in data])
    return np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 0.0)


def windows(data: Dataset, horizon: int, exclude: Exclusion | None = None) -> Windows | None:
    """At most 200 runs of ``horizon`` steps, evenly spread over the data; shorter ones if there is none that long."""
    keep = np.ones(data.steps, dtype=bool) if exclude is None else data.exclude(exclude)
    runs = remaining(data, keep, 1, data.steps)
    if not runs:
        return None
    steps = min(horizon, max(map(len, runs)))
    starts = [(run, k) for run in runs for k in range(len(run) - steps + 1)]
    chosen = [starts[k] for k in np.unique(np.linspace(0, len(starts) - 1, min(len(starts), _MAX_WINDOWS)).astype(int))]
    rewards = [run.r[k : k + steps] for run, k in chosen if run.r is not None]
    return Windows(
        np.array([run.x[k : k + steps + 1] for run, k in chosen]),
        np.array([run.u[k : k + steps] for run, k in chosen]),
        np.array(rewards) if rewards else None,
    )


def path_errors(paths: np.ndarray, found: Windows, scale: np.ndarray) -> np.ndarray:
    """The errors e at the end of predictions (member, window, step + 1, state): (member,), infinite for NaN."""
    judged = scale > 0
    if not judged.any():
        return np.where(np.isfinite(paths).all(axis=(1, 2, 3)), 0.0, np.inf)
    apart = (paths[:, :, -1, judged] - found.x[:, -1, judged]) / scale[judged]
    errors = np.sqrt(np.mean(apart**2, axis=(1, 2)))
    return np.where(np.isfinite(paths).all(axis=(1, 2, 3)), errors, np.inf)


def member_paths(model: Model | LearnedModel, found: Windows) -> np.ndarray:
    """What each member predicts in each window, (member, window, step + 1, state); NaN from where it blew up."""
    seen = np.array([found.x.min(axis=(0, 1)), found.x.max(axis=(0, 1))])
    low, high = np.minimum(model.seen[:, 0], seen[0]), np.maximum(model.seen[:, 1], seen[1])
    width = np.maximum(high - low, 1e-3 * np.maximum(np.abs(low), np.abs(high)) + 1e-12)
    low, high = low - _WIDER * width, high + _WIDER * width
    advance, count = _advance(model), len(member_coefficients(model))
    x = np.broadcast_to(found.x[:, 0], (count, *found.x[:, 0].shape))
    path = [x]
    for k in range(found.u.shape[1]):
        with np.errstate(all="ignore"):  # overflow is blowing up
            after = advance(x, found.u[:, k])
            inside = (np.isfinite(after) & (after >= low) & (after <= high)).all(axis=-1)
        x = np.where(inside[..., None], after, np.nan)
        path.append(x)
    return np.stack(path, axis=2)


def member_coefficients(model: Model | LearnedModel) -> np.ndarray:
    """(member, ...) the numbers of each member; one if there is no ensemble."""
    if not isinstance(model, Model):
        return np.asarray(model.coefficients())
    coef = model.rates.coef
    return coef if coef.ndim == 3 else coef[None]


def _advance(model: Model | LearnedModel) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """One step of every member: x (member, window, state), u (window, input) -> (member, window, state)."""
    coef, names = member_coefficients(model), model.state_names
    if isinstance(model, Model):
        features = model.rates.library.columns("numpy")
        columns = model.feature_columns
        by_member = np.moveaxis(coef, 0, -1)[
            ..., None
        ]  # (target, feature, member, 1), against columns (member, window)

        def sparse(x: Any, u: Any) -> list[Any]:
            return combine(by_member, features(columns(x, u)))

        def together(x: np.ndarray, u: np.ndarray) -> np.ndarray:
            held = [np.broadcast_to(column, x.shape[:2]) for column in u.T]
            after = model.structure.advance(names, sparse, list(np.moveaxis(x, -1, 0)), held, model.dt)
            return np.stack([np.broadcast_to(column, x.shape[:2]) for column in after], axis=-1)

        return together
    rates = model.rates()

    def one(numbers: np.ndarray, rows: np.ndarray, u: np.ndarray) -> np.ndarray:
        after = model.structure.advance(
            names, lambda states, held: rates(numbers, states, held), list(rows.T), list(u.T), model.dt
        )
        return np.stack([np.broadcast_to(np.asarray(column), len(rows)) for column in after], axis=-1)

    def one_by_one(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        return np.array([one(numbers, rows, u) for numbers, rows in zip(coef, x, strict=True)], dtype=np.float64)

    return one_by_one
