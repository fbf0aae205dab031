r"""Equations from noisy recordings: rows that average the noise, whitened regressions, and their uncertainty.

Midpoint collocation divides the noise of two neighboring samples by the step: its rates carry ``sqrt(2) noise / dt``.
The weak form and local polynomials (`sindyrl.regression.weak`) look at a window of samples at once. Their rows overlap
and are whitened, after which they count as independent: row bootstraps of them are the uncertainty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sindyrl.differentiate import choose_smoothing
from sindyrl.library import Library
from sindyrl.pieces import remaining
from sindyrl.regression.subset import bootstrap_refits, inclusion_by_bootstrap
from sindyrl.regression.weak import MeasuredRows, fit_noisy, strong_rows, weak_rows, whitened
from sindyrl.structure import Structure
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["METHODS", "Method", "NoisyEquations", "choose_method", "measured_states", "noise_share", "noisy_equations"]

Method = Literal["collocation", "weak", "derivatives", "auto"]
METHODS = ("collocation", "weak", "derivatives", "auto")

_LEAST, _MOST = 20, 1000  # steps of a piece: a window must fit, and whitening costs the cube of a piece's rows
_STEPS_PER_WINDOW = 5
_MOST_TERMS = 15
_NOISY = 0.05  # share of the one-step changes; below it collocation is as good


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyEquations:
    """coef : (target, feature)   members : (member, target, feature), the first is ``coef``
    inclusion : (target, feature) share of row bootstraps with the term   rows : regression rows"""

    coef: np.ndarray
    members: np.ndarray
    inclusion: np.ndarray
    rows: int


def noise_share(data: Dataset, targets: Sequence[str]) -> float:
    """Noise of the one-step changes over their size, the largest over the states named ``targets``, in [0, 1].

    The noise is that of `choose_smoothing`, an upper bound: what a local polynomial cannot predict counts as noise.
    Trajectories with fewer than 20 steps do not count; 0 if all are.
    """
    long = [part for part in data if len(part) >= _LEAST]
    if not long:
        return 0.0
    weight = np.array([float(len(part)) for part in long])
    noise = np.average([choose_smoothing(part.t, part.x).noise ** 2 for part in long], axis=0, weights=weight)
    change = np.average([np.mean(np.diff(part.x, axis=0) ** 2, axis=0) for part in long], axis=0, weights=weight)
    share = np.sqrt(2.0 * noise / np.where(change > 0, change, np.inf))
    return float(min(max(share[data.states.index(name)] for name in targets), 1.0))


def choose_method(structure: Structure, data: Dataset, keep: np.ndarray) -> Method:
    """ "weak" if over 5 % of the one-step changes of some state are noise and whole windows are left, else collocation.

    Discrete time has no derivative and therefore one method.
    """
    try:
        targets = measured_states(structure, data.states)
    except ValueError:
        return "collocation"
    pieces = remaining(data, keep, _LEAST, _MOST)
    if sum(map(len, pieces)) < 0.9 * int(keep.sum()):
        return "collocation"
    return "weak" if noise_share(Dataset(tuple(pieces)), targets) > _NOISY else "collocation"


def measured_states(structure: Structure, states: Sequence[str]) -> list[str]:
    """The states whose rates are the structure's targets. Raises ValueError for discrete time."""
    if structure.kind not in ("derivative", "second_order"):
        raise ValueError(
            f"`identify(method=...)` must be 'collocation' for a structure of kind {structure.kind!r}: other methods "
            "estimate derivatives. Give `structure=Derivative()` or a `SecondOrder` one."
        )
    return [target.removeprefix("d") for target in structure.targets(states)]


def noisy_equations(
    data: Dataset,
    keep: np.ndarray,
    library: Library,
    structure: Structure,
    method: Method,
    *,
    regressor: Any = None,
    members: int = 8,
    resamples: int = 20,
    rng: np.random.Generator,
) -> NoisyEquations:
    """Fit ``library`` over some of the states and all inputs to the transitions with ``keep`` (n_pairs,).

    method : "weak" or "derivatives"
    regressor : None, or one with ``max_terms`` and cross-validation, chooses subsets of whitened rows by the extended
        BIC (`fit_noisy`); any other is fitted to the rows as they are
    members, resamples : row bootstraps of the coefficients and of the selection; 0 resamples for none

    Raises ValueError for discrete time, a target that is not among the library's states, or pieces that are too short.
    """
    names = measured_states(structure, data.states)
    missing = [name for name in names if name not in library.states]
    if missing:
        raise ValueError(
            f"`identify(method={method!r})` needs the states {missing} among the library's. Take them out of the "
            "structure's `ignore`, or use method='collocation'."
        )
    pieces = remaining(data, keep, _LEAST, _MOST)
    if not pieces:
        raise ValueError(
            f"`identify(method={method!r})` needs {_LEAST} uninterrupted steps; the longest run has fewer. "
            "Record longer pieces, exclude fewer transitions, or use method='collocation'."
        )
    rows = _rows([_columns(piece, library) for piece in pieces], library, method)
    targets = [library.states.index(name) for name in names]
    whole = np.zeros((len(library.states), len(library)))
    if regressor is None or _selects_subsets(regressor):
        most = getattr(regressor, "max_terms", _MOST_TERMS)
        whole = fit_noisy(rows, library, max_terms=most, targets=targets).coef
    else:
        theta = np.concatenate([part.theta for part in rows])
        regressor.fit(theta, np.concatenate([part.y for part in rows])[:, targets])
        whole[targets] = np.atleast_2d(regressor.coef_)
    found, share = [], np.zeros((len(targets), len(library)))
    for k, target in enumerate(targets):
        theta, y = whitened(rows, library, whole, target)
        found.append(bootstrap_refits(theta, y[:, None], whole[[target]], members, rng))
        size = int(np.count_nonzero(whole[target]))
        share[k] = (
            inclusion_by_bootstrap(theta, y[:, None], [size], resamples, rng)[0] if resamples else whole[target] != 0
        )
    return NoisyEquations(whole[targets], np.concatenate(found, axis=1), share, sum(len(part.y) for part in rows))


def _selects_subsets(regressor: Any) -> bool:
    return type(regressor).__name__ in ("SubsetSelection", "CriterionSubset")


def _columns(piece: Trajectory, library: Library) -> Trajectory:
    """The same recording with only the states that the library knows."""
    x = piece.x[:, [piece.states.index(name) for name in library.states]]
    return Trajectory(piece.t, x, piece.u, states=library.states, inputs=piece.inputs)


def _rows(pieces: Sequence[Trajectory], library: Library, method: Method) -> list[MeasuredRows]:
    data = Dataset(tuple(pieces))
    if method == "derivatives":
        return strong_rows(data, library)
    windows = max(1, max(map(len, pieces)) // _STEPS_PER_WINDOW)
    return weak_rows(data, library, n_windows=windows)
