r"""Dynamic mode decomposition with control: the best linear model of a step, ``x_{k+1} = A x_k + B u_k + c``.

A stop-gap while data are too few for a sparse nonlinear model, and the yardstick that such a model has to beat: it has
``n_states + n_inputs + 1`` coefficients per state and no choice to make. The result carries a `Model`, so it plans,
simulates and exports like any other.

References: Proctor, Brunton, Kutz, SIAM J. Appl. Dyn. Syst. 15(1), 2016; Gavish, Donoho, IEEE Trans. Inf. Theory 60(8),
2014 (where to cut singular values); Kaiser, Kutz, Brunton, Proc. R. Soc. A 474, 2018 (use in predictive control).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from sindyrl.library import Library, polynomial_library
from sindyrl.model import Model
from sindyrl.number_check import check_number, whole
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import NextState
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory

__all__ = ["DMDc", "affine_model", "dmdc", "hard_threshold"]


@dataclasses.dataclass(frozen=True, eq=False)
class DMDc:
    """What `dmdc` returns: ``x_{k+1} = a x_k + b u_k + c``.

    model : the same as a `Model` with structure `NextState` on the affine library ``1, states, inputs``
    a : (state, state)   b : (state, input)   c : (state,)
    singular_values : of the regression matrix ``[x, u, 1]``, descending, all of them
    rank : how many of these were used
    residual_rms : (state,) of the one-step prediction
    rows : transitions used
    """

    model: Model
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    singular_values: np.ndarray
    rank: int
    residual_rms: np.ndarray
    rows: int

    @functools.cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eig(self.a)
        order = np.argsort(-np.abs(values), kind="stable")
        return values[order], vectors[:, order]

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of ``a``, complex (state,), the largest magnitude first; a mode decays if its magnitude is below 1."""
        return self._eigen[0]

    @property
    def modes(self) -> np.ndarray:
        """Eigenvectors of ``a`` of unit length, (state, mode), in the order of `eigenvalues`."""
        return self._eigen[1]

    @property
    def rates(self) -> np.ndarray:
        """``log(eigenvalue) / dt``: growth in 1/s and, in the imaginary part, frequency in rad/s; -inf for 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.eigenvalues.astype(complex)) / self.model.dt)


def dmdc(
    data: Dataset | Trajectory,
    *,
    rank: int | str | None = None,
    bias: bool = True,
    states: Sequence[Signal] | None = None,
    inputs: Sequence[Signal] | None = None,
) -> DMDc:
    r"""Least squares for ``x_{k+1} = A x_k + B u_k + c`` over all transitions of the data.

    With ``O = [x, u, 1]`` (sample, column) and its singular values cut off after the first ``rank``,
    ``[A, B, c]' = V_r S_r^-1 U_r' X_next``. Columns are in their own units, so cut off only where they are comparable.

    rank : None uses all (the shortest solution where columns depend on each other); a number; or "auto", the number of
        singular values above `hard_threshold`. That rule takes the median singular value for noise: it suits many
        correlated sensors, and cuts away at least half of a few independent states.
    bias : False leaves out ``c``, for a system at rest at the origin
    states, inputs : signals with units and ranges, by default bare names

    Raises ValueError for an unknown rank, or signals that are not named as the data.
    """
    data = Dataset((data,)) if isinstance(data, Trajectory) else data
    state_signals = _signals("states", states, data.states)
    input_signals = _signals("inputs", inputs, data.inputs)
    pairs = data.pairs()
    columns = np.column_stack([pairs.x, pairs.u, *([np.ones(len(pairs.x))] if bias else [])])
    left, singular, right = np.linalg.svd(columns, full_matrices=False)
    known = int(np.count_nonzero(singular > singular[0] * max(columns.shape) * np.finfo(float).eps))
    used = min(_rank(rank, singular, columns.shape), known)
    solution = (right[:used].T / singular[:used]) @ (left[:, :used].T @ pairs.x_next)
    n, m = len(data.states), len(data.inputs)
    a, b = solution[:n].T, solution[n : n + m].T
    c = solution[-1] if bias else np.zeros(n)
    seen = np.column_stack([pairs.x.min(axis=0), pairs.x.max(axis=0)])
    return DMDc(
        affine_model(a, b, c, state_signals, input_signals, data.dt, seen),
        a,
        b,
        c,
        singular,
        used,
        np.sqrt(np.mean((pairs.x_next - columns @ solution) ** 2, axis=0)),
        len(columns),
    )


def affine_model(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    states: Sequence[Signal],
    inputs: Sequence[Signal],
    dt: float,
    seen: np.ndarray,
) -> Model:
    """The `Model` that steps by ``a x + b u + c``; see `DMDc` for the shapes, `Model` for the rest."""
    names = tuple(signal.name for signal in states)
    library = _affine_library(names, tuple(signal.name for signal in inputs))
    form = NextState()
    units = form.target_units(names, [signal.unit for signal in states])
    rates = SparseMap(library, np.column_stack([c, a, b]), form.targets(names), units)
    return Model(rates, form, tuple(states), tuple(inputs), dt, seen)


@functools.lru_cache(maxsize=16)
def _affine_library(states: tuple[str, ...], inputs: tuple[str, ...]) -> Library:
    """1, states, inputs; kept, as an identifier that runs in a loop asks for the same one again and again."""
    return polynomial_library(1, bias=True).bind(states, inputs)


def hard_threshold(singular: np.ndarray, shape: tuple[int, int]) -> float:
    r"""Where to cut the singular values of a matrix of this shape, low rank plus white noise of unknown size.

    ``tau = median(singular) * lambda(beta) / sqrt(mu(beta))`` with ``beta`` the aspect ratio, at most 1,
    ``lambda = sqrt(2 (beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1)))`` and ``mu`` the median of the
    Marchenko-Pastur distribution. Optimal in mean square error as the matrix grows. Source: Gavish, Donoho, 2014.
    """
    beta = min(shape) / max(shape)
    best = np.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + np.sqrt(beta**2 + 14 * beta + 1)))
    return float(best / np.sqrt(_marchenko_pastur_median(beta)) * np.median(singular))


def _marchenko_pastur_median(beta: float) -> float:
    """With ``x = 1 + beta - 2 sqrt(beta) cos(phi)`` the density has no singular ends; midpoint rule over phi."""
    cells = 20_000
    phi = (np.arange(cells) + 0.5) * np.pi / cells
    x = 1 + beta - 2 * np.sqrt(beta) * np.cos(phi)
    mass = np.cumsum(np.sin(phi) ** 2 / x)
    return float(np.interp(0.5 * mass[-1], mass, x))


def _rank(rank: int | str | None, singular: np.ndarray, shape: tuple[int, int]) -> int:
    if rank is None:
        return len(singular)
    if isinstance(rank, str) and rank == "auto":
        return max(1, int(np.count_nonzero(singular > hard_threshold(singular, shape))))
    wanted = f"None, 'auto' or an integer of 1 to {shape[1]}"
    return min(int(check_number("dmdc(rank=...)", rank, wanted, whole(1, shape[1]))), len(singular))


def _signals(argument: str, signals: Sequence[Signal] | None, names: tuple[str, ...]) -> tuple[Signal, ...]:
    if signals is None:
        return tuple(Signal(name) for name in names)
    given = tuple(signal.name for signal in signals)
    if given != names:
        raise ValueError(f"`dmdc({argument}=...)` must be named {list(names)} as in the data. Got {list(given)}.")
    return tuple(signals)
