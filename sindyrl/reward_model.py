"""Learned rewards: a sparse ensemble ``r_k = R(x_{k+1}, u_k)``, with printing and pointwise variance.

For systems whose reward is only observed. The pairs are those of the definition: the state *after* the step and the
input held during it. (The published code fits on the state before and evaluates on the state after.)

Source: Zolman et al., arXiv 2403.09110.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sindyrl.library import Library, LibrarySpec, polynomial_library
from sindyrl.number_check import check_number, whole
from sindyrl.regression.subset import SubsetSelection, bootstrap_refits
from sindyrl.sparse_map import SparseMap
from sindyrl.trajectory import Dataset, Trajectory

_MEMBERS = 8


def fit_reward(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library | None = None,
    *,
    regressor: Any = None,
    members: int = _MEMBERS,
    rng: np.random.Generator | None = None,
    name: str = "reward",
) -> SparseMap:
    """A sparse ensemble of the rewards in the data; ``str`` prints it, `SparseMap.variance` is its pointwise spread.

    library : candidate terms of ``(x_{k+1}, u_k)``; default all monomials up to degree 2, with a constant
    regressor : default `SubsetSelection()`, whose members are row bootstraps on the selected support. Any estimator
        with ``fit(theta, r)`` and ``coef_`` will do; one that has members of its own (`Ensemble`) keeps them.
    members : size of the ensemble; member 0 is the fit to all rows
    rng : for the bootstraps; default a fixed seed

    Columns that depend exactly on earlier ones are left out (their coefficients are zero).
    Raises ValueError without rewards, or with fewer than 10 steps.
    """
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    members = check_number("fit_reward(members=...)", members, "a positive integer", whole(1))
    pairs = data.pairs()
    if pairs.r is None:
        raise ValueError("`fit_reward(data=...)` must have rewards in every trajectory. Got some without.")
    if len(pairs.r) < 10:
        raise ValueError(f"`fit_reward(data=...)` must have at least 10 steps. Got {len(pairs.r)}.")
    library = polynomial_library(2, bias=True) if library is None else library
    bound = library.bind(data.states, data.inputs) if isinstance(library, LibrarySpec) else library
    names = (*data.states, *data.inputs)
    missing = [variable for variable in bound.variables if variable not in names]
    if missing:
        raise ValueError(f"`fit_reward(library=...)` uses {missing}, which are not in the data {list(names)}.")
    z = np.column_stack([pairs.x_next, pairs.u])[:, [names.index(variable) for variable in bound.variables]]
    reduced = bound.independent(z)
    theta, r = reduced.features(z), pairs.r[:, None]

    estimator = SubsetSelection() if regressor is None else regressor
    estimator.fit(theta, r)
    found = np.asarray(estimator.coef_, dtype=np.float64)
    if found.ndim == 3:
        coef = found
    else:
        found = np.atleast_2d(found)
        coef = bootstrap_refits(theta, r, found, members, np.random.default_rng(0) if rng is None else rng)
    every = np.zeros((len(coef), 1, len(bound)))
    every[..., [bound.index(term) for term in reduced.names]] = coef
    return SparseMap(bound, every[0] if len(every) == 1 else every, (name,))
