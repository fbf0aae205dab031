"""The models of the published SINDy-RL, to compare with: bagged ensembles of thresholded and of linear fits.

Source: Zolman et al., arXiv 2403.09110; Fasel, Kutz, Brunton, Brunton, Proc. R. Soc. A 478:20210904, 2022.
"""

from __future__ import annotations

import warnings

import numpy as np

from sindyrl.learn.dyna import FitModel
from sindyrl.library import LibrarySpec, polynomial_library
from sindyrl.model import Model
from sindyrl.regression.ensemble import Ensemble
from sindyrl.regression.stlsq import STLSQ
from sindyrl.sparse_map import SparseMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset


def published_model(task: Task, *, alpha: float = 5e-5, threshold: float = 7e-3, members: int = 20) -> FitModel:
    """The paper's model: `STLSQ` on the whole library, bagged, each member without one random column.

    What differs: members see 60 % of the rows there are, not of the first fit's number; and columns are dropped for
    each refit from one fixed seed.
    """
    estimator = STLSQ(threshold, alpha=alpha)
    return _bagged(task, task.library, _ensemble(estimator, members, drop_columns=1))


def linear_model(task: Task, *, members: int = 20) -> FitModel:
    """The paper's Dyna-linear: the structure's targets by plain least squares in the states and inputs, bagged.

    No constant, no products, no penalty, no threshold; the task's structure but not its library. The paper's is
    ``x_{k+1} = A x_k + B u_k`` on circles, `OnCircles(NextState(), ...)`, in the mode "median". What differs: as above.
    """
    estimator = STLSQ(0.0, alpha=0.0)
    return _bagged(task, polynomial_library(1), _ensemble(estimator, members))


def _ensemble(estimator: STLSQ, members: int, drop_columns: int = 0) -> Ensemble:
    return Ensemble(estimator, n_members=members, max_samples=0.6, drop_columns=drop_columns, random_state=0)


def _bagged(task: Task, terms: LibrarySpec, ensemble: Ensemble) -> FitModel:
    def fit(data: Dataset) -> Model:
        pairs = data.pairs()
        keep = slice(None) if task.exclude is None else data.exclude(task.exclude)
        names, form = task.state_names, task.structure
        at, y = form.samples(names, pairs.x[keep], pairs.x_next[keep], task.dt)
        used = form.features_of(names)
        library = terms.bind(used, task.input_names)
        theta = library.features(np.column_stack([at[:, [names.index(name) for name in used]], pairs.u[keep]]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a member without a column it needs says so; the median does without it
            coef = ensemble.fit(theta, y).coef_
        units = form.target_units(names, [signal.unit for signal in task.states])
        rates = SparseMap(library, coef, form.targets(names), units)
        seen = np.column_stack([pairs.x.min(axis=0), pairs.x.max(axis=0)])
        return Model(rates, form, task.states, task.inputs, task.dt, seen)

    return fit
