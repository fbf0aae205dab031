r"""Regression rows for noisy data: integrals against test functions, and generalized least squares for them.

The weak form of ``dx/dt = theta(x, u) w`` multiplies by a bump ``phi`` that vanishes at both ends of a window and
integrates by parts, so no derivative of the data is taken:

    - integral of phi'(t) x dt  =  integral of phi(t) theta(x, u) dt  w

Rows of that kind, and rows of pointwise derivative estimates too, are linear in the measured states up to the
curvature of the library, so the covariance of their residuals is known up to the noise's size once a first model is
there. Whitened by it, overlapping rows count for what they tell, and residuals tell how many terms are worth having.

References: Messenger and Bortz, Weak SINDy, Multiscale Modeling & Simulation 19(3), 2021 (test functions);
Bortz, Messenger and Dukic, Bulletin of Mathematical Biology 85, 2023 (covariance of the weak residual, reweighting);
Chen and Chen, Biometrika 95(3), 2008 (extended Bayesian information criterion).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sindyrl.differentiate import choose_smoothing, local_polynomial
from sindyrl.library import Library, LibrarySpec
from sindyrl.number_check import check_number, whole
from sindyrl.trajectory import Dataset, Trajectory

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["MeasuredRows", "NoisyFit", "few_terms", "fit_noisy", "strong_rows", "weak_form", "weak_rows", "whitened"]

_DEFAULT_WIDTH = 20  # mean steps
_SMOOTHING_ORDER = 4
_UNDERSMOOTHING = (
    0.4  # of the window with the least error, where bias and noise are alike: whitening handles noise only
)
_NUGGET = 1e-8  # of the mean variance: overlapping test functions are close to dependent
_INDEPENDENT = 1e-10  # of the largest pivot: below, a unit column is a combination of others
# Of a term, round by round. A model with a term too few gives a useful covariance; one with many wrong terms has steep
# slopes that explain any residual, and stays as it is. So the path begins with few terms, and every model on it is
# judged by the covariance that it implies itself.
_PRICES = (32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_BEAM = 150  # supports kept for each size
_RIDGE = 1e-12  # on unit columns: keeps exactly dependent ones apart
_STEP = 1e-4  # of a state's spread, for derivatives of the library


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredRows:
    """Regression rows of one trajectory, and how they depend on every measured state.

    theta : (row, feature) = ``averages @ library.features(points)``
    y : (row, state)
    points : (point, variable) where the library is evaluated
    averages : (row, point)
    functionals : for each state (row, time): ``y[:, i] = functionals[i] @ x[:, i]``
    states_at : for each state (point, time): ``points[:, i] = states_at[i] @ x[:, i]``
    noise : (state,) standard deviation of the measurement noise
    """

    theta: np.ndarray
    y: np.ndarray
    points: np.ndarray
    averages: csr_array
    functionals: tuple[csr_array, ...]
    states_at: tuple[csr_array, ...]
    noise: np.ndarray


class NoisyFit(NamedTuple):
    """coef : (target, feature); criterion : (target,) extended BIC at the chosen size; rounds : reweightings made"""

    coef: np.ndarray
    criterion: np.ndarray
    rounds: int


def weak_form(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library,
    *,
    n_windows: int = 200,
    width: float | None = None,
    order: int = 4,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Integral rows ``theta_w w = y_w`` of ``dx/dt = theta w``, for any regressor.

    Test functions ``(1 - s^2)^order`` on ``n_windows`` windows of each trajectory, scaled to integral 1, so that
    ``y_w`` has the unit of ``dx/dt``. Between samples states and library columns are straight lines, which are
    integrated exactly against the bump, step by step: any spacing will do, and inputs are held over their step.
    What the lines miss is alike on both sides, so that smooth data fit to fourth order or better on even steps.

    width : of the windows in seconds; default 20 mean steps, or the trajectory if that is shorter
    rng : draws the windows at random; without it they are evenly spread
    Returns theta_w (n_windows * trajectories, feature) and y_w (n_windows * trajectories, state).
    Raises ValueError for wrong parameters or a width that a trajectory does not have or that holds too few samples.
    """
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    bound = _bound(library, data)
    rows = [_weak_rows(part, bound, n_windows, width, order, rng, None) for part in data]
    return np.concatenate([part.theta for part in rows]), np.concatenate([part.y for part in rows])


def weak_rows(
    data: Dataset | Trajectory,
    library: LibrarySpec | Library,
    *,
    n_windows: int = 200,
    width: float | None = None,
    order: int = 4,
    rng: np.random.Generator | None = None,
) -> list[MeasuredRows]:
    """What `weak_form` integrates, at states smoothed by held-out error, with what `fit_noisy` needs; by trajectory."""
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    bound = _bound(library, data)
    smoothing = _smoothing(data)
    return [_weak_rows(part, bound, n_windows, width, order, rng, smoothing) for part in data]


def strong_rows(data: Dataset | Trajectory, library: LibrarySpec | Library, *, every: int = 3) -> list[MeasuredRows]:
    """Rows of derivative estimates at every ``every``-th sample, from local polynomials of held-out width.

    Derivatives and states come from the same fits; samples within a quarter window of the ends are left out.
    """
    from scipy.sparse import eye_array

    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    bound = _bound(library, data)
    windows, noise = _smoothing(data)
    rows = []
    for part in data:
        edge = min(max(windows) // 4, len(part) // 4)
        at = np.arange(edge, len(part) - edge, every)
        smooth = [local_polynomial(part.t, window, _SMOOTHING_ORDER) for window in windows]
        slopes = tuple(local_polynomial(part.t, window, _SMOOTHING_ORDER, 1)[at] for window in windows)
        states_at = tuple(matrix[at] for matrix in smooth)
        points = np.column_stack([*(m @ part.x[:, i] for i, m in enumerate(states_at)), part.u[at]])
        rows.append(_assemble(bound, points, eye_array(len(at), format="csr"), slopes, states_at, part, noise))
    return rows


def fit_noisy(
    rows: Sequence[MeasuredRows],
    library: Library,
    *,
    max_terms: int = 15,
    rounds: int = 3,
    targets: Sequence[int] | None = None,
) -> NoisyFit:
    """Few terms per target by best subsets of whitened rows, the size by the extended Bayesian information criterion.

    Every round whitens with the covariance of the last round's model and lowers the price of a term, down to that of
    the criterion; the first one has no model and takes rows as they are, with the criterion's sample size divided by
    their overlap. Returned is the model of the path whose residuals, whitened by its *own* covariance, have the least
    criterion: the last one need not be it, because wrong terms in one round explain away the noise of the next.

    rounds : most rounds at the last price      targets : the states whose rates are wanted; the others get no term
    """
    theta, y = np.concatenate([part.theta for part in rows]), np.concatenate([part.y for part in rows])
    found, criterion, most = np.zeros((y.shape[1], theta.shape[1])), np.zeros(y.shape[1]), 0
    for i in range(y.shape[1]) if targets is None else targets:
        coef = np.zeros_like(found)
        coef[i] = _select(theta, y[:, i], max_terms, _overlap(rows), _PRICES[0])[0]
        best, done, settled = np.inf, 0, False
        while done < len(_PRICES) - 1 + rounds and not settled:
            price, previous = _PRICES[min(done, len(_PRICES) - 1)], coef[i].copy()
            coef[i], _ = _select(*whitened(rows, library, coef, i), max_terms, 1.0, price)
            done += 1
            if (value := _own_criterion(rows, library, coef, i)) < best:
                best, found[i], criterion[i] = value, coef[i], value
            settled = price == 1.0 and bool(np.abs(coef[i] - previous).max() <= 1e-6 * np.abs(coef[i]).max())
        most = max(most, done)
    return NoisyFit(found, criterion, most)


def _own_criterion(rows: Sequence[MeasuredRows], library: Library, coef: np.ndarray, target: int) -> float:
    """Extended BIC of a model whose residuals are whitened by the covariance that the model itself implies."""
    theta, y = whitened(rows, library, coef, target)
    residual, n = y - theta @ coef[target], len(y)
    mean_square = max(float(residual @ residual), 1e-24 * float(y @ y), np.finfo(float).tiny) / n
    return float(n * np.log(mean_square) + np.count_nonzero(coef[target]) * (np.log(n) + 2 * np.log(theta.shape[1])))


def few_terms(theta: np.ndarray, y: np.ndarray, max_terms: int) -> np.ndarray:
    """Coefficients (feature,) of the subset with the least extended BIC, for independent rows; possibly none.

    theta : (row, feature)   y : (row,)   max_terms : most nonzero coefficients
    """
    return _select(theta, y, max_terms, overlap=1.0)[0]


def whitened(
    rows: Sequence[MeasuredRows], library: Library, coef: np.ndarray, target: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one target with residuals of covariance 1 under the model ``coef``: theta (row, feature), y (row,)."""
    from scipy.linalg import solve_triangular

    parts = []
    for part in rows:
        root = np.linalg.cholesky(_covariance(part, library, coef, target))
        both = np.column_stack([part.theta, part.y[:, target]])
        parts.append(solve_triangular(root, both, lower=True))
    both = np.concatenate(parts)
    return both[:, :-1], both[:, -1]


def _covariance(part: MeasuredRows, library: Library, coef: np.ndarray, target: int) -> np.ndarray:
    """Covariance (row, row) of ``y - theta w`` for one target, to first order in the noise."""
    total = np.zeros((len(part.y), len(part.y)))
    for j, (states_at, noise) in enumerate(zip(part.states_at, part.noise, strict=True)):
        step = np.zeros(part.points.shape[1])
        step[j] = _STEP * max(float(part.points[:, j].std()), np.finfo(float).tiny)
        ahead, behind = library.features(part.points + step), library.features(part.points - step)
        slope = (ahead - behind) @ coef[target] / (2 * step[j])
        sensitivity = -(part.averages.multiply(slope[None, :])).tocsr() @ states_at
        if j == target:
            sensitivity = sensitivity + part.functionals[target]
        total += noise**2 * (sensitivity @ sensitivity.T).toarray()
    total[np.diag_indices(len(total))] += _NUGGET * max(float(np.trace(total)) / len(total), np.finfo(float).tiny)
    return total


def _select(
    theta: np.ndarray, y: np.ndarray, max_terms: int, overlap: float, price: float = 1.0
) -> tuple[np.ndarray, float]:
    """Coefficients (feature,) of the best support, and its criterion ``n log(RSS / n) + k (log n + 2 log p)``.

    Candidates are the supports of a beam search and of backward elimination. The beam starts from all pairs, because
    columns that only help together are beyond greedy addition: one term of a nearly balanced pair explains nothing.
    The winner is improved by adding, dropping and exchanging columns.
    """
    search = _Search(theta, y, overlap, price)
    support = min([(), *search.beam(max_terms), *search.backward(max_terms)], key=search.criterion)
    improved = True
    while improved:
        rest = [j for j in range(theta.shape[1]) if j not in support]
        fewer = [support[:k] + support[k + 1 :] for k in range(len(support))]
        more = [(*support, j) for j in rest] if len(support) < max_terms else []
        exchanged = [(*smaller, j) for smaller in fewer for j in rest]
        best = min([support, *fewer, *more, *exchanged], key=search.criterion)
        improved = search.criterion(best) < search.criterion(support) - 1e-9
        support = best if improved else support
    coef = np.zeros(theta.shape[1])
    coef[list(support)] = search.fit(support)[0]
    return coef, search.criterion(support)


class _Search:
    """Residuals of supports from one orthogonal factorization of rows with unit columns."""

    def __init__(self, theta: np.ndarray, y: np.ndarray, overlap: float, price: float) -> None:
        self.length = np.linalg.norm(theta, axis=0)
        self.length[self.length == 0] = 1.0
        q, self.r = np.linalg.qr(theta / self.length)
        self.z = q.T @ y
        self.rows = len(y)
        self.price = price
        self.n = len(y) / overlap
        self.energy = float(y @ y)
        self.known: dict[frozenset[int], float] = {}

    def fit(self, support: tuple[int, ...]) -> tuple[np.ndarray, float]:
        """Coefficients on the support and the sum of squared residuals."""
        r, z = self.r[:, list(support)], self.z
        w = np.linalg.lstsq(r, z, rcond=None)[0]
        outside = max(self.energy - float(z @ z), 0.0)
        return w / self.length[list(support)], outside + float(np.sum((z - r @ w) ** 2))

    def beam(self, max_terms: int) -> list[tuple[int, ...]]:
        """The best supports of size 2 ... ``max_terms`` in a beam search, which is exhaustive up to size 3."""
        gram, moment = self.r.T @ self.r, self.r.T @ self.z
        p = len(gram)
        beam = np.array(list(itertools.combinations(range(p), min(2, p))))
        found: list[tuple[int, ...]] = [(j,) for j in range(p)] if max_terms else []
        for _ in range(2, min(max_terms, p) + 1):
            explained, gains = _gains(gram, moment, beam)
            found.append(tuple(int(j) for j in beam[explained.argmax()]))
            total = explained[:, None] + gains
            top = np.argsort(total, axis=None)[::-1][: 3 * _BEAM]
            row, column = np.unravel_index(top[np.isfinite(total.ravel()[top])], total.shape)
            if not len(row):
                break
            longer = np.sort(np.column_stack([beam[row], column]), axis=1)
            _, first = np.unique(longer, axis=0, return_index=True)
            beam = longer[np.sort(first)[:_BEAM]]
        return found

    def backward(self, max_terms: int) -> list[tuple[int, ...]]:
        """Supports of backward elimination from all columns that are independent, those of at most ``max_terms``."""
        from scipy.linalg import qr, solve_triangular

        _, r, order = qr(self.r, mode="economic", pivoting=True)
        size = np.abs(np.diag(r))
        support = order[: int((size > _INDEPENDENT * size[0]).sum())]
        supports = []
        while len(support):
            if len(support) <= max_terms:
                supports.append(tuple(int(j) for j in np.sort(support)))
            q, r = np.linalg.qr(self.r[:, support])
            inverse = solve_triangular(r, np.eye(len(r)))
            # Without column j the sum of squares is larger by w_j^2 / [(theta' theta)^-1]_jj.
            cost = (inverse @ (q.T @ self.z)) ** 2 / np.einsum("ij,ij->i", inverse, inverse)
            support = np.delete(support, cost.argmin())
        return supports

    def criterion(self, support: tuple[int, ...]) -> float:
        key = frozenset(support)
        if key not in self.known:
            mean_square = max(self.fit(support)[1], 1e-24 * self.energy, np.finfo(float).tiny) / self.rows
            penalty = self.price * (np.log(self.n) + 2 * np.log(len(self.length)))
            self.known[key] = float(self.n * np.log(mean_square) + len(support) * penalty)
        return self.known[key]


def _gains(gram: np.ndarray, moment: np.ndarray, supports: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squares that supports (candidate, size) explain, and what more each column would, (candidate, column)."""
    columns = gram[supports]  # (candidate, size, column)
    inner = np.take_along_axis(columns, supports[:, None, :], axis=2) + _RIDGE * np.eye(supports.shape[1])
    both = np.concatenate([columns, moment[supports][..., None]], axis=2)
    solved = np.linalg.solve(inner, both)
    explained = np.einsum("ci,ci->c", moment[supports], solved[..., -1])
    rest = moment - np.einsum("cij,ci->cj", columns, solved[..., -1])
    left = np.diag(gram) - np.einsum("cij,cij->cj", columns, solved[..., :-1])
    usable = left > 1e3 * _RIDGE
    np.put_along_axis(usable, supports, False, axis=1)
    return explained, np.where(usable, rest**2 / np.where(usable, left, 1.0), -np.inf)


def _overlap(rows: Sequence[MeasuredRows]) -> float:
    """How many rows a measured sample enters, on average over samples: rows that overlap are not independent."""
    counts = [part.functionals[0].count_nonzero() / part.functionals[0].shape[1] for part in rows]
    return max(1.0, float(np.mean(counts)))


def _bound(library: LibrarySpec | Library, data: Dataset) -> Library:
    bound = library.bind(data.states, data.inputs) if isinstance(library, LibrarySpec) else library
    if bound.variables != data.states + data.inputs:
        raise ValueError(
            f"`weak_form(library=...)` must be over {list(data.states + data.inputs)}, the columns of the data. "
            f"Got {list(bound.variables)}."
        )
    return bound


def _smoothing(data: Dataset) -> tuple[tuple[int, ...], np.ndarray]:
    """One window for each state and its noise, from the held-out errors of all trajectories together."""
    choices = [choose_smoothing(part.t, part.x, order=_SMOOTHING_ORDER) for part in data]
    shared = min((choice.windows for choice in choices), key=len)
    errors = np.mean([choice.squared_error[: len(shared)] for choice in choices], axis=0)
    narrow = [int(_UNDERSMOOTHING * shared[k]) // 2 * 2 + 1 for k in errors.argmin(axis=0)]
    return tuple(max(width, _SMOOTHING_ORDER + 3) for width in narrow), np.sqrt(errors.min(axis=0))


def _weak_rows(
    part: Trajectory,
    library: Library,
    n_windows: int,
    width: float | None,
    order: int,
    rng: np.random.Generator | None,
    smoothing: tuple[tuple[int, ...], np.ndarray] | None,
) -> MeasuredRows:
    from scipy.sparse import csr_array, diags_array, eye_array, hstack, vstack

    falling, rising = _test_functions(part, n_windows, width, order, rng)
    steps, count = np.diff(part.t), len(part)
    # Over each step, the mean of the bump times the change of the state.
    change = diags_array([-1 / steps, 1 / steps], offsets=[0, 1], shape=(count, count + 1))
    functional = csr_array((falling + rising) @ change)
    n_states = len(part.states)
    if smoothing is None:
        smooth, noise = [eye_array(len(part.t), format="csr")] * n_states, np.ones(n_states)
    else:
        windows, noise = smoothing
        smooth = [local_polynomial(part.t, window, _SMOOTHING_ORDER) for window in windows]
    x = np.column_stack([matrix @ part.x[:, i] for i, matrix in enumerate(smooth)])
    if part.inputs:  # an input jumps at the samples, so every step is integrated with its own
        points = np.concatenate([np.column_stack([x[:-1], part.u]), np.column_stack([x[1:], part.u])])
        averages = hstack([falling, rising], format="csr")
        states_at = tuple(vstack([matrix[:-1], matrix[1:]], format="csr") for matrix in smooth)
    else:
        points, states_at = x, tuple(smooth)
        none = csr_array((falling.shape[0], 1))
        averages = csr_array(hstack([falling, none]) + hstack([none, rising]))
    return _assemble(library, points, averages, (functional,) * n_states, states_at, part, noise)


def _assemble(
    library: Library,
    points: np.ndarray,
    averages: csr_array,
    functionals: tuple[csr_array, ...],
    states_at: tuple[csr_array, ...],
    part: Trajectory,
    noise: np.ndarray,
) -> MeasuredRows:
    y = np.column_stack([functional @ part.x[:, i] for i, functional in enumerate(functionals)])
    return MeasuredRows(averages @ library.features(points), y, points, averages, functionals, states_at, noise)


def _test_functions(
    part: Trajectory, n_windows: int, width: float | None, order: int, rng: np.random.Generator | None
) -> tuple[csr_array, csr_array]:
    """Integrals over each step of bumps times a hat that falls, and one that rises, from 1 to 0: both (window, step).

    Centers are samples, which on an even grid makes every window the same. Each bump has integral 1.
    """
    from scipy.sparse import csr_array

    t, span = part.t, float(part.t[-1] - part.t[0])
    for name, value, least in (("n_windows", n_windows, 1), ("order", order, 2)):
        check_number(f"weak_form({name}=...)", value, f"an integer of at least {least}", whole(least))
    wanted = min(_DEFAULT_WIDTH * span / len(part), span) if width is None else float(width)
    if not 0 < wanted <= span * (1 + 1e-12):
        raise ValueError(
            f"`weak_form(width=...)` must be above 0 and at most {span:.6g} s, the recording. Got {width}."
        )
    half = wanted / 2
    slack = 1e-9 * half
    allowed = np.flatnonzero((t >= t[0] + half - slack) & (t <= t[-1] - half + slack))
    if len(allowed) == 0:
        allowed = np.array([int(np.abs(t - (t[0] + t[-1]) / 2).argmin())])
    if rng is None:
        centers = allowed[np.unique(np.linspace(0, len(allowed) - 1, n_windows).round().astype(int))]
    else:
        centers = np.sort(rng.choice(allowed, min(n_windows, len(allowed)), replace=False))
    starts = np.searchsorted(t, t[centers] - half, side="right")
    ends = np.searchsorted(t, t[centers] + half, side="left")
    if (ends - starts).min() < order + 1:
        raise ValueError(
            f"`weak_form(width=...)` must hold at least {order + 1} samples for `order={order}`. {wanted:.6g} s hold "
            f"{(ends - starts).min()} at t = {t[centers[(ends - starts).argmin()]]:.6g}."
        )
    nodes, weights = np.polynomial.legendre.leggauss(order + 1)  # exact for bump times hat
    nodes, weights = (nodes + 1) / 2, weights / 2
    falling, rising, columns = [], [], []
    for center, start, end in zip(centers, starts, ends, strict=True):
        steps = np.arange(max(start - 1, 0), min(end, len(t) - 1))
        length = t[steps + 1] - t[steps]
        s = (t[steps] + np.outer(nodes, length) - t[center]) / half  # (node, step)
        bump = weights[:, None] * length * np.maximum(1 - s * s, 0.0) ** order
        total = bump.sum()
        falling.append((1 - nodes) @ bump / total)
        rising.append(nodes @ bump / total)
        columns.append(steps)
    place = (np.concatenate(columns), np.append(0, np.cumsum([len(one) for one in columns])))
    shape = (len(centers), len(part))
    return (
        csr_array((np.concatenate(falling), *place), shape=shape),
        csr_array((np.concatenate(rising), *place), shape=shape),
    )
