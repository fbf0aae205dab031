"""Which of several models: by information criteria, cross-validation, held-out roll-outs, or how they do in control.

One table for all of them: every candidate is fitted once, measured in all these ways, and one column decides. A model
that predicts well may still be useless for control (see `sindyrl.guard`), so the decision can be left to a callback
that runs each candidate in closed loop.

References: Burnham and Anderson, Model Selection and Multimodel Inference, 2002 (AICc, BIC).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.guard import Action
from sindyrl.identify import Fit, Regressor, identify
from sindyrl.library import Library, LibrarySpec
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.regression.gram import Gram
from sindyrl.regression.subset import subset_path
from sindyrl.regression.weak import few_terms
from sindyrl.structure import Structure
from sindyrl.trajectory import Dataset
from sindyrl.validation import blocks, horizon_errors, rollouts

__all__ = ["Candidate", "CriterionSubset", "Selection", "information", "select_model"]

By = Literal["aicc", "bic", "one_step", "multi_step", "rollout", "closed_loop"]
_FLOOR = 1e-20  # of the target's energy: below this, residuals are rounding and more terms gain nothing


def information(rss: float, n: int, terms: int) -> dict[str, float]:
    r"""AIC, AICc and BIC of a least-squares fit with Gaussian residuals; smaller is better.

    ``n log(rss / n) + 2 k``, ``+ 2 k (k + 1) / (n - k - 1)``, and ``n log(rss / n) + k log n`` with ``k = terms + 1``,
    the variance of the residuals counted. AICc is infinite with fewer than ``k + 2`` rows.
    """
    k = terms + 1
    level = n * math.log(max(rss, np.finfo(float).tiny) / n)
    aic = level + 2.0 * k
    return {
        "aic": aic,
        "aicc": aic + 2.0 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf,
        "bic": level + k * math.log(n),
    }


class CriterionSubset(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Least squares on few columns, as many per target as an information criterion asks for.

    Parameters
    ----------
    criterion : "aicc", "bic" or "ebic", default "aicc"; None takes exactly ``max_terms``
        The extended BIC counts how many subsets of a size there are, ``n log(rss / n) + k (log n + 2 log p)``, which
        keeps accidental terms out of equations from large libraries.
    max_terms : int, default 5
        Most columns per target; an information criterion may also ask for none.

    Attributes
    ----------
    coef_ : (target, feature), or (feature,) for one-dimensional ``y``
    n_features_in_ : int

    Supports are those of `sindyrl.regression.subset.subset_path`, for "ebic" those of a beam search, exhaustive up to
    size 3 (`sindyrl.regression.weak.few_terms`). Raises ValueError for wrong parameters.
    """

    def __init__(self, criterion: str | None = "aicc", max_terms: int = 5) -> None:
        self.criterion = criterion
        self.max_terms = max_terms

    def fit(self, X: np.ndarray, y: np.ndarray) -> CriterionSubset:
        if self.criterion not in ("aicc", "bic", "ebic", None):
            raise ValueError(
                f"`CriterionSubset(criterion=...)` must be 'aicc', 'bic', 'ebic' or None. Got {self.criterion!r}."
            )
        check_number("CriterionSubset(max_terms=...)", self.max_terms, "a positive integer", whole(1))
        theta, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        targets = np.asarray(y, dtype=np.float64).reshape(len(theta), -1)
        gram = Gram.from_rows(theta, targets)
        coef = np.array([self._best(gram, theta, targets[:, t], t) for t in range(targets.shape[1])])
        self.coef_ = coef if np.ndim(y) > 1 else coef[0]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_.T)

    def _best(self, gram: Gram, theta: np.ndarray, y: np.ndarray, target: int) -> np.ndarray:
        if self.criterion == "ebic":
            return few_terms(theta, y, self.max_terms)
        floor, n = _FLOOR * float(gram.energy[target]), len(y)
        # A target that no column explains gets none.
        empty = math.inf if self.criterion is None else information(float(y @ y), n, 0)[self.criterion]
        best, lowest = np.zeros(theta.shape[1]), empty
        for support in subset_path(gram, target, self.max_terms):
            columns = theta[:, list(support)]
            length = np.linalg.norm(columns, axis=0)
            coef = np.zeros(theta.shape[1])
            coef[list(support)] = np.linalg.lstsq(columns / length, y, rcond=None)[0] / length
            rss = max(float(np.sum((y - theta @ coef) ** 2)), floor)
            level = -math.inf if self.criterion is None else information(rss, n, len(support))[self.criterion]
            if level < lowest or self.criterion is None:
                best, lowest = coef, level
        return best


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One fitted candidate and all its figures.

    aicc, bic : summed over the targets, on the data it was fitted to; smaller is better
    one_step, multi_step : cross-validated root-mean-square error over that of persistence, averaged over the states;
        NaN if not asked for
    rollout : mean NRMSE fit in percent over the held-out roll-outs; minus infinity if one diverged; NaN without any
    diverged : how many of the held-out roll-outs diverged
    closed_loop : what the callback returned, larger is better; NaN without one
    """

    name: str
    fit: Fit
    aicc: float
    bic: float
    one_step: float
    multi_step: float
    rollout: float
    diverged: int
    closed_loop: float

    @property
    def n_terms(self) -> int:
        return self.fit.model.n_terms


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """All candidates, and the one that ``by`` decided for."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    by: By

    def __str__(self) -> str:
        titles = ("terms", 6), ("AICc", 12), ("BIC", 12), ("1 step", 10), ("steps", 10), ("fit %", 9), ("loop", 10)
        head = f"  {'candidate':<20s}" + "".join(f"{title:>{width}s}" for title, width in titles)
        lines = [head]
        for each in self.candidates:
            mark = "* " if each is self.chosen else "  "
            lines.append(
                f"{mark}{each.name:<20s}{each.n_terms:>6d}{each.aicc:>12.5g}{each.bic:>12.5g}{each.one_step:>10.3g}"
                f"{each.multi_step:>10.3g}{each.rollout:>9.3g}{each.closed_loop:>10.4g}"
            )
        return "\n".join([*lines, f"* chosen by {self.by}"])


def select_model(
    data: Dataset,
    library: LibrarySpec | Library,
    regressors: Mapping[str, Regressor],
    *,
    by: By = "multi_step",
    held_out: Dataset | None = None,
    closed_loop: Callable[[Model], float] | None = None,
    structure: Structure | None = None,
    folds: int = 5,
    steps: int = 20,
    actuators: Action = "allow",
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Fit one candidate for each regressor, measure all, and let ``by`` decide; among equals the smaller model.

    held_out : for the roll-outs; required by ``by="rollout"``
    closed_loop : ``score(model) -> float``, larger is better; required by ``by="closed_loop"``
    folds, steps : of the cross-validated errors, which cost ``folds`` further fits each; they are computed only if they
        decide
    actuators : as in `identify`, for every candidate; by default the table may show candidates that lost an input
    progress : ``progress(done, of)`` after each candidate
    """
    if not regressors:
        raise ValueError("`select_model(regressors=...)` must hold at least one regressor. Got none.")
    if by not in ("aicc", "bic", "one_step", "multi_step", "rollout", "closed_loop"):
        raise ValueError(f"`select_model(by=...)` is unknown: {by!r}.")
    for needed, value, argument in (("rollout", held_out, "held_out"), ("closed_loop", closed_loop, "closed_loop")):
        if by == needed and value is None:
            raise ValueError(f"`select_model({argument}=...)` is needed to select by {by!r}.")
    settings: dict[str, Any] = {"structure": structure, "actuators": actuators, "inclusion": False}
    candidates = []
    for done, (name, regressor) in enumerate(regressors.items(), start=1):
        fit = identify(data, library, regressor=regressor, **settings)
        errors = (math.nan, math.nan)
        if by in ("one_step", "multi_step"):
            errors = _cross_validated(data, library, regressor, folds, steps, settings)
        paths = [] if held_out is None else rollouts(fit.model, held_out)
        diverged = sum(path.diverged for path in paths)
        mean = float(np.nanmean([path.fit for path in paths])) if paths else math.nan
        aicc, bic = _criteria(fit)
        score = math.nan if closed_loop is None else float(closed_loop(fit.model))
        reached = -math.inf if diverged else mean
        candidates.append(Candidate(name, fit, aicc, bic, *errors, reached, diverged, score))
        if progress is not None:
            progress(done, len(regressors))
    sign = -1.0 if by in ("rollout", "closed_loop") else 1.0

    def order(candidate: Candidate) -> tuple[float, int]:
        value = sign * float(getattr(candidate, by))
        return (math.inf if math.isnan(value) else value, candidate.n_terms)

    return Selection(tuple(candidates), min(candidates, key=order), by)


def _criteria(fit: Fit) -> tuple[float, float]:
    terms = [int(row.sum()) for row in fit.model.rates.member(0).support]
    size = fit.residual_rms / np.where(fit.relative_error > 0, fit.relative_error, 1.0)
    found = [
        information(max(float(rms) ** 2, _FLOOR * float(whole) ** 2) * fit.rows, fit.rows, k)
        for rms, whole, k in zip(fit.residual_rms, size, terms, strict=True)
    ]
    return sum(each["aicc"] for each in found), sum(each["bic"] for each in found)


def _cross_validated(
    data: Dataset,
    library: LibrarySpec | Library,
    regressor: Regressor,
    folds: int,
    steps: int,
    settings: dict[str, Any],
) -> tuple[float, float]:
    """One-step and multi-step error over that of persistence, averaged over states and folds (root mean square)."""
    parts = blocks(data, folds)
    ones, manys = [], []
    for fold, judged in enumerate(parts):
        rest = tuple(t for other, each in enumerate(parts) if other != fold for t in each)
        fit = identify(Dataset(rest), library, regressor=regressor, members=1, **settings)
        errors = horizon_errors(fit.model, judged, (1, min(steps, max(map(len, judged)))))
        ones.append(np.nanmean(errors.relative[0] ** 2))
        manys.append(np.nanmean(errors.relative[-1] ** 2))
    return float(np.sqrt(np.mean(ones))), float(np.sqrt(np.mean(manys)))
