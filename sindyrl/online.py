r"""A model that follows a running system: every step refines it, a change in the system is noticed, old rows fade.

Two models are kept from the first row on. **DMDc** (`sindyrl.dmdc`), ``x_{k+1} = A x_k + B u_k + c``, is there after a
handful of rows. The **sparse** one needs more, and then has to earn its place. With ``n`` the effective number of rows
(the sum of their weights) and ``d`` the difference of the logarithms of both models' squared errors ``horizon`` steps
ahead, predicted before those rows were learned from, mean ``D``, standard error ``S`` (`sindyrl.paired_switch`):

    DMDc     until  n >= min_rows, and while the sparse model has lost an input
    sparse   from   D + 3 S < -log 1.21   on (a tenth better in root mean square, beyond chance)
    DMDc     again  from  D - 3 S > +log 1.21  on

Every row makes the earlier ones fade (`sindyrl.regression.forgetting`) and refits the coefficients on the present
support: exact least squares with the weights stated there. The support is selected when there are ``min_rows`` rows,
and at every doubling until the memory is full. A change is an alarm of `sindyrl.change_detection` on the sparse model's
one-step innovations; a row whose innovation is over six times its usual size waits for that test, and is part of a
change, or else an outlier from which nothing is learned. After a change

1. the sums begin anew with the rows since the onset that the test dates (at most the last 256);
2. the support stays, and its coefficients move from their old values ``w`` as the new rows demand, minimizing
   ``|y - theta v|^2 + s^2 sum_j (v_j / w_j - 1)^2`` with ``s`` the usual size of the residual: as if each had changed
   by its own size, give or take. Nothing needs many rows, and nothing is forgotten where the new rows are silent;
3. with ``min_rows`` new rows, and at the doublings, equations whose residuals have more than 1.5 times their variance
   before the change get a new support, selected as at the start; the others changed in their coefficients only.

A row costs a fixed number of operations in ``p x p`` matrices (p library terms), however many rows there were; a
selection, at rows ``min_rows * 2^i`` after a start, some milliseconds more.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sindyrl.change_detection import ChangeDetector
from sindyrl.dmdc import affine_model
from sindyrl.expression import Variable
from sindyrl.library import Library, LibrarySpec
from sindyrl.model import Model
from sindyrl.online_report import Kind, OnlineReport
from sindyrl.paired_switch import PairedSwitch
from sindyrl.prediction_window import PredictionWindow, SparseRates
from sindyrl.regression.best_subset import BestSubset
from sindyrl.regression.forgetting import (
    Fading,
    Forgetting,
    information_matrix,
    leverage,
    residual_problem,
    solve_all,
)
from sindyrl.regression.gram import Problem, SparseFit
from sindyrl.regression.streaming import residual_squares
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Columns, Increment, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.traversal import topological

__all__ = ["OnlineIdentifier", "OnlineReport"]

_BUFFER = 256  # rows kept as such, from which the sums begin anew after a change
_FULL = 4.0  # memories after which a selection could learn nothing from more rows
_AS_GOOD = 1.5  # times the variance that innovations had before a change
_OUTLIER = 6.0  # usual sizes of an innovation, beyond which a row teaches nothing unless it was a change
_CHANGES = 100  # remembered for the report


class Selector(Protocol):
    """Chooses few columns from sums over rows, as `BestSubset` and `STLSQ` do."""

    def fit_problem(self, problem: Problem) -> SparseFit: ...


class OnlineIdentifier:
    """Identification row by row, for use inside a control loop; the module text has the rules as formulas.

    library : candidate terms; a specification is bound to the states that the structure lets in, and to the inputs
    structure : default `Increment`
    states, inputs : names or signals      dt : seconds per step
    half_life : seconds after which a row counts half; None never forgets
    min_rows : effective rows before the first selection; default twice the number of library terms
    max_terms : most terms of an equation      selector : in place of `BestSubset` by the extended BIC
    horizon : steps of the predictions that choose between the models
    refit_every : rows between refits of the coefficients
    calibration : rows over which innovations are watched before a change can be noticed; default 100, or half of the
        memory if that is more (at most 1000). It should span a cycle of the motion.
    false_alarm_rows : mean rows between false alarms, as far as innovations are independent and normal
    allow_lost_inputs : use a sparse model in which an input has no term; otherwise DMDc stays
    floor : see `Forgetting`

    Raises ValueError for values out of range, or a half-life whose memory never reaches ``min_rows``.
    """

    def __init__(
        self,
        library: LibrarySpec | Library,
        structure: Structure | None = None,
        states: Sequence[str | Signal] = (),
        inputs: Sequence[str | Signal] = (),
        dt: float = 1.0,
        *,
        half_life: float | None = None,
        min_rows: int | None = None,
        max_terms: int = 5,
        selector: Selector | None = None,
        horizon: int = 5,
        refit_every: int = 1,
        calibration: int | None = None,
        false_alarm_rows: float = 1e6,
        allow_lost_inputs: bool = False,
        floor: float = 100.0,
    ) -> None:
        self.states = tuple(s if isinstance(s, Signal) else Signal(s) for s in states)
        self.inputs = tuple(s if isinstance(s, Signal) else Signal(s) for s in inputs)
        self.structure: Structure = Increment() if structure is None else structure
        self.dt = float(dt)
        self._names = tuple(s.name for s in self.states)
        used = self.structure.features_of(self._names)
        u_names = tuple(s.name for s in self.inputs)
        self.library = library.bind(used, u_names) if isinstance(library, LibrarySpec) else library
        if self.library.variables != (*used, *u_names):
            raise ValueError(
                f"`OnlineIdentifier(library=...)` must be in {[*used, *u_names]}. Got {list(self.library.variables)}."
            )
        for name, value in (("horizon", horizon), ("refit_every", refit_every), ("max_terms", max_terms)):
            if value < 1:
                raise ValueError(f"`OnlineIdentifier({name}=...)` must be at least 1. Got {value}.")
        self.forgetting = Forgetting.from_half_life(half_life, self.dt, floor)
        self.min_rows = 2 * len(self.library) if min_rows is None else min_rows
        if not max_terms + 3 <= self.min_rows <= self.forgetting.memory:
            raise ValueError(
                f"`OnlineIdentifier(min_rows=...)` must be between {max_terms + 3}, for {max_terms} terms, and the "
                f"memory of {self.forgetting.memory:.0f} rows. Got {self.min_rows}. Raise `half_life`, or offer fewer "
                "terms."
            )
        memory = self.forgetting.memory
        watched = (max(100, round(memory / 2)) if memory < 2000 else 1000) if math.isfinite(memory) else 100
        self._columns = [self._names.index(name) for name in used]
        self._targets = self.structure.targets(self._names)
        self._selector: Selector = (
            BestSubset("ebic", max_terms=max_terms, node_limit=0) if selector is None else selector
        )
        self._horizon, self._refit_every, self._allow_lost = horizon, refit_every, allow_lost_inputs
        self._detector = ChangeDetector(
            len(self._targets),
            calibration=watched if calibration is None else calibration,
            memory=min(memory, 1e6),
            false_alarm_rows=false_alarm_rows,
        )
        self._switch = PairedSwitch(memory=max(20.0, min(memory / horizon, 100.0)))
        self._atoms = [{n.name for n in topological([term]) if isinstance(n, Variable)} for term in self.library.terms]

        self.rows = 0
        self._recent: collections.deque[tuple[np.ndarray, ...]] = collections.deque(maxlen=_BUFFER)
        self._changes: collections.deque[tuple[int, int]] = collections.deque(maxlen=_CHANGES)
        self._fading: Fading | None = None  # of the library's rows
        self._linear_fading: Fading | None = None  # of the rows 1, x, u
        self._sparse: SparseRates | None = None
        self._prior: tuple[np.ndarray, np.ndarray] | None = None  # coefficients and penalties, each (target, feature)
        self._linear = np.zeros((len(self.states), 1 + len(self.states) + len(self.inputs)))  # of x_next - x
        self._usual: np.ndarray | None = None  # variance of the innovations before the last change, (target,)
        self._since_start = 0
        self._next_selection = self.min_rows
        self._window: PredictionWindow | None = None
        self._last: np.ndarray | None = None
        self._seen: np.ndarray | None = None
        self._model: Model | None = None

    # ---- what is known

    @property
    def kind(self) -> Kind:
        """Which model is in use; the rule is in the module text."""
        usable = self._sparse is not None and (self._allow_lost or not self.lost_inputs)
        return "sparse" if usable and self._switch.challenger else "dmdc"

    @property
    def effective_rows(self) -> float:
        return 0.0 if self._fading is None else float(self._fading.sums.n)

    @property
    def lost_inputs(self) -> tuple[str, ...]:
        """Inputs without any term in the sparse model; empty before there is one."""
        if self._sparse is None:
            return ()
        present = set().union(*(self._atoms[j] for j in np.flatnonzero(self._sparse.coef.any(axis=0))))
        return tuple(s.name for s in self.inputs if s.name not in present)

    @property
    def model(self) -> Model:
        """The model in use. Raises ValueError before the first row."""
        if self._model is None:
            sparse = self.sparse_model if self.kind == "sparse" else None
            self._model = self.linear_model if sparse is None else sparse
        return self._model

    @property
    def sparse_model(self) -> Model | None:
        """The sparse model, in use or not; None before the first selection."""
        if self._sparse is None:
            return None
        units = self.structure.target_units(self._names, [s.unit for s in self.states])
        rates = SparseMap(self.library, self._sparse.coef, self._targets, units)
        return Model(rates, self.structure, self.states, self.inputs, self.dt, self._box())

    @property
    def linear_model(self) -> Model:
        """DMDc on the remembered rows, in use or not. Raises ValueError before the first row."""
        n = len(self.states)
        c, a, b = np.split(self._linear, [1, 1 + n], axis=1)
        return affine_model(a + np.eye(n), b, c[:, 0], self.states, self.inputs, self.dt, self._box())

    @property
    def report(self) -> OnlineReport:
        some = self._switch.windows >= 2
        return OnlineReport(
            self.kind,
            self.rows,
            self.effective_rows,
            np.sqrt(self._detector.variance) if self._detector.rows else np.full(len(self._targets), np.nan),
            self._switch.mean if some else math.nan,
            self._switch.standard_error if some else math.nan,
            tuple(row for row, _ in self._changes),
            tuple(row for _, row in self._changes),
            self.lost_inputs,
            self._fading is not None and not self._fading.forgot,
        )

    # ---- learning

    def update(self, x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> bool:
        """Learn from one transition; True if a change of the system was noticed with it.

        x, x_next : (state,)   u : (input,), held over the step

        A transition that does not begin where the last one ended begins a new recording.
        Raises ValueError if shapes do not fit, or anything is NaN or infinite; nothing is learned then.
        """
        x, u, x_next = self._checked("x", x), self._checked("u", u), self._checked("x_next", x_next)
        at, y = self.structure.samples(self._names, x[None], x_next[None], self.dt)
        theta = self.library.features(np.concatenate([at[0, self._columns], u]))
        if not np.isfinite(theta).all():
            name = self.library.names[int(np.flatnonzero(~np.isfinite(theta))[0])]
            raise ValueError(f"`OnlineIdentifier.update(x=..., u=...)` leaves the term {name!r} undefined at {x}, {u}.")
        row = (theta, y[0], np.concatenate([[1.0], x, u]), x_next - x)

        self._compare(x, u, x_next)
        changed = self._innovate(theta, y[0], x)
        self.rows += 1
        self._recent.append(row)
        if changed:
            self._start_anew(self._detector.onset)
        elif self._detector.loudest <= _OUTLIER**2:
            self._since_start += 1
            self._fading = self.forgetting.take(self._fading, theta[None], row[1][None])
            self._linear_fading = self.forgetting.take(self._linear_fading, row[2][None], row[3][None])
        self._see(x, x_next)
        self._learn()
        self._last = x_next
        self._model = None
        if self._window is None and self._sparse is not None:
            self._window = PredictionWindow(x_next, self._sparse, self._linear)
        return changed

    def _learn(self) -> None:
        assert self._fading is not None
        assert self._linear_fading is not None
        full = self._since_start > _FULL * self.forgetting.memory
        if self._since_start >= self._next_selection and self.effective_rows >= self.min_rows * 0.99 and not full:
            self._next_selection = 2 * self._since_start
            self._select()
        if self.rows % self._refit_every == 0:
            self._refit()
        # Between as many rows as coefficients and more, the old coefficients are the better ones; at first there are
        # none, and the shortest solution predicts no change where nothing is known.
        enough = self._linear_fading.sums.n > self._linear.shape[1] + 1
        if enough or not self._changes:
            solved = solve_all(self._linear_fading.sums)
            if np.isfinite(solved).all():
                self._linear = solved

    def _select(self) -> None:
        assert self._fading is not None
        coef = self._selector.fit_problem(self._fading.sums).coef
        if not np.isfinite(coef).all():
            return
        if self._sparse is None:
            self._adopt(coef)
            self._detector.restart()
            return
        if self._usual is not None:
            # Another support is wanted only where the present one does not explain the new rows as it did the old.
            self._refit()
            now = residual_squares(self._fading.sums, self._sparse.coef) / self._fading.sums.n
            kept = now <= _AS_GOOD * self._usual
            coef = np.where(kept[:, None], self._sparse.coef, coef)
            assert self._prior is not None
            self._prior[1][~kept] = 0.0
        self._adopt(coef)

    def _adopt(self, coef: np.ndarray) -> None:
        used = np.flatnonzero(coef.any(axis=0))
        used = used if len(used) else np.array([0])
        if self._sparse is not None and np.array_equal(used, self._sparse.used):
            self._sparse = dataclasses.replace(self._sparse, coef=coef)
        else:
            self._sparse = SparseRates(coef, used, self.library.select(used))

    def _refit(self) -> None:
        """Least squares on the support, drawn towards the coefficients before the last change if there was one."""
        if self._sparse is None:
            return
        assert self._fading is not None
        old = self._sparse.coef
        coef = np.zeros_like(old)
        for target in range(len(old)):
            support = np.flatnonzero(old[target])
            if not len(support):
                continue
            if self._prior is None:
                coef[target, support] = self._fading.sums.solve(support, np.array([target]))[0]
            else:
                center, penalty = self._prior[0][target], self._prior[1][target]
                moved = residual_problem(self._fading.sums, center, target)
                delta = moved.solve(support, np.array([0]), penalty)[0]
                coef[target, support] = center[support] + delta
        # A coefficient that comes out as zero would leave the support for good.
        if np.isfinite(coef).all() and ((coef != 0) == (old != 0)).all():
            self._adopt(coef)

    # ---- changes

    def _innovate(self, theta: np.ndarray, y: np.ndarray, x: np.ndarray) -> bool:
        """Test the innovation of the sparse model, before the row is learned from."""
        if self._sparse is None:
            return False
        assert self._fading is not None
        information = information_matrix(self._fading.sums)
        inflation = np.ones(len(y))
        for target, row in enumerate(self._sparse.coef):
            support = np.flatnonzero(row)
            if len(support):
                inflation[target] += leverage(information[np.ix_(support, support)], theta[support])
        if not self._detector.calibrated and (inflation > 2.0).any():
            self._detector.loudest = 0.0
            return False  # of a coefficient that is not known yet, which tells nothing about the usual size
        # Of a next state only the change counts as size, as it counts as what there is to explain.
        size = y - x if self.structure.kind == "next_state" else y
        return self._detector.update(y - self._sparse.coef @ theta, size, inflation)

    def _start_anew(self, onset: int) -> None:
        assert self._sparse is not None
        rows = list(self._recent)[-min(onset, len(self._recent)) :]
        theta, y, affine, change = (np.array(part) for part in zip(*rows, strict=True))
        self._fading = self.forgetting.take(None, theta, y)
        self._linear_fading = self.forgetting.take(None, affine, change)
        coef = self._sparse.coef
        size = np.where(coef != 0, coef, 1.0)
        self._usual = self._detector.variance
        self._prior = (coef, self._usual[:, None] / size**2)
        self._detector.restart()
        self._since_start, self._next_selection = len(rows), self.min_rows
        self._changes.append((self.rows, self.rows - len(rows) + 1))

    # ---- which model

    def _compare(self, x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> None:
        """Carry on both predictions by a step; at the end of a window, judge them."""
        if self._window is None:
            return
        if self._last is None or not np.array_equal(x, self._last):
            self._window = None
            return
        window = self._window
        window.advance(self._step, u)
        if window.steps < self._horizon:
            return
        box = self._box()
        width = np.where(box[:, 1] > box[:, 0], box[:, 1] - box[:, 0], 1.0)
        errors = window.errors(x_next, width)
        self._switch = self._switch.compare(*errors)
        self._window = None

    def _step(self, sparse: SparseRates, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        def rates(state: Columns, held: Columns) -> Columns:
            return sparse.rates([*(state[j] for j in self._columns), *held])

        return np.array(self.structure.advance(self._names, rates, list(x), list(u), self.dt), dtype=np.float64)

    def _see(self, x: np.ndarray, x_next: np.ndarray) -> None:
        low, high = np.minimum(x, x_next), np.maximum(x, x_next)
        if self._seen is not None:
            low, high = np.minimum(low, self._seen[:, 0]), np.maximum(high, self._seen[:, 1])
        self._seen = np.column_stack([low, high])

    def _box(self) -> np.ndarray:
        if self._seen is None:
            raise ValueError("An `OnlineIdentifier` has no model before the first `update`.")
        return self._seen

    def _checked(self, name: str, value: np.ndarray) -> np.ndarray:
        size = len(self.inputs) if name == "u" else len(self.states)
        array = np.array(value, dtype=np.float64)
        if array.shape != (size,) or not np.isfinite(array).all():
            raise ValueError(f"`OnlineIdentifier.update({name}=...)` must be {size} finite numbers. Got {value!r}.")
        return array
