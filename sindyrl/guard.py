r"""Does a sparse model still listen to its inputs? The check that no actuator is thrown away without a word.

Sparsification compares terms by what they add to the *prediction*. An actuator that moves a state a little, slowly or
rarely adds little, so its terms may go, and open-loop errors hardly change; but a controller that is designed on such a
model believes that the input does nothing. So each input is held against a dense reference: least squares on all terms
of the library, with and without those that contain the input.

    effect = sqrt((rss_without - rss_dense) / n) / scale      F test of rss_without against rss_dense

An input is *removed* from a target if the sparse fit has no term with it there although the effect is both significant
and large enough to matter. Residuals of neighboring samples resemble each other, so the test counts
``n (1 - rho) / (1 + rho)`` rows, ``rho`` being their lag-one correlation.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sindyrl.expression import Variable
from sindyrl.library import Library
from sindyrl.regression.gram import least_squares_problem
from sindyrl.traversal import topological

__all__ = [
    "Action",
    "ActuatorError",
    "ActuatorReport",
    "Excitation",
    "actuator_gains",
    "check_actuators",
    "enforce",
    "excitation",
]

Action = Literal["error", "warn", "allow"]

_RELATIVE_STEP = 1e-3  # of an input's size, for the slope: central differences are exact up to degree two
_SPARE_ROWS = 10  # beyond the number of columns, for a dense reference that means something


class ActuatorError(ValueError):
    """The sparse fit has lost the whole effect of an input; the text says which and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class ActuatorReport:
    """The inputs' effect in a sparse fit and in its dense reference; arrays are (target, input).

    gain : root-mean-square slope ``d target / d input`` of the sparse fit over the data, signed as its mean
    dense_gain : the same of the reference
    effect : share of the target's size that the reference cannot explain without the input
    p_value : of the hypothesis that the input has no effect
    kept : whether the sparse fit has any term with the input
    removed : not kept, although the effect is significant and at least ``least_effect``
    reference : what was compared with
    """

    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    gain: np.ndarray
    dense_gain: np.ndarray
    effect: np.ndarray
    p_value: np.ndarray
    kept: np.ndarray
    removed: np.ndarray
    reference: str

    def __str__(self) -> str:
        lines = [f"gains of the inputs (root mean square over the data), against {self.reference}"]
        for t, target in enumerate(self.targets):
            for j, name in enumerate(self.inputs):
                note = self.note(t, j)
                lines.append(
                    f"    d({target})/d{name} = {self.gain[t, j]:+.4g}, dense {self.dense_gain[t, j]:+.4g}, "
                    f"worth {100 * self.effect[t, j]:.2g} % of the size of {target}" + (f"; {note}" if note else "")
                )
        return "\n".join(lines)

    def note(self, target: int, column: int) -> str:
        """In a few words, what became of an input in an equation; empty if it is kept."""
        if self.removed[target, column]:
            return "REMOVED"
        return "" if self.kept[target, column] else "no term; its effect is too small to matter or to be seen"

    def message(self, remedy: str = 'pass `actuators="warn"` or `"allow"`') -> str:
        """What an error or a warning says; empty if nothing was removed. ``remedy`` is how to allow it."""
        if not self.removed.any():
            return ""
        lost = "; ".join(
            f"{self.inputs[j]!r} from {self.targets[t]} (dense gain {self.dense_gain[t, j]:+.3g}, "
            f"{100 * self.effect[t, j]:.2g} % of its size)"
            for t, j in np.argwhere(self.removed)
        )
        return (
            f"Sparsification removed the whole effect of an input: {lost}. A controller designed on this model would "
            "not use it. Lower the threshold or allow more terms, move the input more while recording, or, if the "
            f"effect may be neglected, {remedy}."
        )


def actuator_gains(library: Library, z: np.ndarray, coef: np.ndarray) -> np.ndarray:
    """Root-mean-square slope of each target in each input over the data, signed as its mean; (target, input).

    z : (sample, variable) states and inputs in the order of the library   coef : (target, feature)

    Central differences with a step of a thousandth of the input's size; samples where a term is undefined do not count.
    """
    gains = np.zeros((len(coef), len(library.inputs)))
    for j in range(len(library.inputs)):
        column = len(library.states) + j
        step = _RELATIVE_STEP * (float(np.sqrt(np.mean(z[:, column] ** 2))) or 1.0)
        shift = np.zeros(z.shape[1])
        shift[column] = step
        with np.errstate(all="ignore"):
            slope = (library.features(z + shift) - library.features(z - shift)) @ coef.T / (2.0 * step)
        slope = slope[np.isfinite(slope).all(axis=1)]
        if len(slope):
            size, mean = np.sqrt(np.mean(slope**2, axis=0)), slope.mean(axis=0)
            gains[:, j] = np.where(mean < 0, -size, size)
    return gains


def check_actuators(
    library: Library,
    z: np.ndarray,
    y: np.ndarray,
    coef: np.ndarray,
    *,
    targets: Sequence[str],
    scale: np.ndarray | None = None,
    least_effect: float = 0.01,
    significance: float = 1e-4,
) -> ActuatorReport:
    """Compare a sparse fit with the dense one on the same rows, input by input.

    library : independent terms (`Library.independent`)   z : (sample, variable)   y : (sample, target)
    coef : (target, feature) of the sparse fit
    scale : (target,) size that effects are shares of; by default the standard deviation of each target
    least_effect, significance : an effect counts from this share on, and below this p-value

    With fewer rows than terms there is no dense fit; the reference is then each target's own sparse terms and the
    inputs themselves.
    """
    theta = library.features(z)
    scale = np.std(y, axis=0) if scale is None else np.asarray(scale, dtype=np.float64)
    contains = _contains(library)
    shape = (y.shape[1], len(library.inputs))
    dense = len(theta) >= theta.shape[1] + _SPARE_ROWS
    effect, p_value, reference = np.zeros(shape), np.ones(shape), np.zeros(coef.shape)
    groups = [np.arange(y.shape[1])] if dense else [np.array([t]) for t in range(y.shape[1])]
    for members in groups:
        offered = np.ones(theta.shape[1], dtype=bool)
        if not dense:
            offered = (coef[members[0]] != 0) | _bare_inputs(library)
        fitted, residual = _least_squares(theta, y[:, members], offered)
        reference[members] = fitted
        for j in range(len(library.inputs)):
            without = offered & ~contains[j]
            _, rest = _least_squares(theta, y[:, members], without)
            effect[members, j], p_value[members, j] = _effect(
                rest, residual, scale[members], int((offered & contains[j]).sum()), int(offered.sum())
            )
    kept = np.array([[bool((row[contains[j]] != 0).any()) for j in range(shape[1])] for row in coef]).reshape(shape)
    return ActuatorReport(
        tuple(targets),
        library.inputs,
        actuator_gains(library, z, coef),
        actuator_gains(library, z, reference),
        effect,
        p_value,
        kept,
        ~kept & (p_value < significance) & (effect >= least_effect),
        f"least squares on all {theta.shape[1]} terms" if dense else "least squares on the chosen terms and the inputs",
    )


def enforce(report: ActuatorReport, action: Action) -> None:
    """Raise ActuatorError, or warn, if the report says that an input was removed."""
    message = report.message()
    if message and action == "error":
        raise ActuatorError(message)
    if message and action == "warn":
        warnings.warn(message, UserWarning, stacklevel=3)


def _contains(library: Library) -> np.ndarray:
    """(input, feature): whether the input occurs in the term."""
    atoms = [{node.name for node in topological([term]) if isinstance(node, Variable)} for term in library.terms]
    return np.array([[name in names for names in atoms] for name in library.inputs], dtype=bool).reshape(
        len(library.inputs), len(library)
    )


def _bare_inputs(library: Library) -> np.ndarray:
    inputs = {Variable(name) for name in library.inputs}
    return np.array([term in inputs for term in library.terms], dtype=bool)


def _least_squares(theta: np.ndarray, y: np.ndarray, offered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (target, feature) on the offered columns, and residuals (sample, target)."""
    coef = np.zeros((y.shape[1], theta.shape[1]))
    columns = np.flatnonzero(offered)
    if len(columns):
        length = np.sqrt(np.mean(theta[:, columns] ** 2, axis=0))
        length[length == 0] = 1.0
        problem, _ = least_squares_problem(theta[:, columns] / length, y)
        coef[:, columns] = problem.solve(np.arange(len(columns)), np.arange(y.shape[1])) / length
    return coef, y - theta @ coef.T


def _effect(
    without: np.ndarray, full: np.ndarray, scale: np.ndarray, extra: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Effect and p-value by target from the residuals without and with the ``extra`` columns."""
    from scipy.stats import f as f_distribution

    n = len(full)
    rss, rss_without = np.sum(full**2, axis=0), np.sum(without**2, axis=0)
    gain = np.maximum(rss_without - rss, 0.0)
    effect = np.sqrt(gain / n) / np.where(scale > 0, scale, np.inf)
    if not extra:
        return np.zeros_like(effect), np.ones_like(effect)
    rho = np.clip(np.sum(full[1:] * full[:-1], axis=0) / np.where(rss > 0, rss, 1.0), 0.0, 0.99)
    freedom = np.maximum(n * (1.0 - rho) / (1.0 + rho) - columns, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Relative to the effective number of rows, a gain that is spread over few independent rows shrinks with it.
        statistic = (gain / extra) / (rss / freedom)
    p_value = f_distribution.sf(np.nan_to_num(statistic, nan=0.0, posinf=np.inf), extra, freedom)
    return effect, np.asarray(p_value)


@dataclasses.dataclass(frozen=True)
class Excitation:
    """How much an input tells: ``spread`` is its standard deviation, ``levels`` the number of its values,
    ``own`` the share of it, in [0, 1], that is no linear function of the states at the same time."""

    name: str
    spread: float
    levels: int
    own: float

    @property
    def problem(self) -> str:
        """What keeps the input from being identified, with the remedy; empty if nothing does."""
        if self.spread == 0.0:
            return (
                f"Input {self.name!r} never changes, so its effect cannot be told from a constant. "
                "Move it while recording, or leave it out of the inputs."
            )
        if self.own < 0.02:
            return (
                f"Input {self.name!r} is a linear function of the states to {100 * self.own:.1g} % (feedback), so its "
                "effect cannot be told from theirs. Add an independent signal to the input while recording."
            )
        return ""


def excitation(x: np.ndarray, u: np.ndarray, names: Sequence[str]) -> list[Excitation]:
    """How far each input moves by itself: x (sample, state), u (sample, input)."""
    states = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)])
    found = []
    for name, column in zip(names, u.T, strict=True):
        centered = column - column.mean()
        spread = float(centered.std())
        # A constant such as 0.1 has a spread of rounding errors.
        if spread <= 1e-12 * float(np.abs(column).max(initial=0.0)):
            found.append(Excitation(name, 0.0, len(np.unique(column)), 0.0))
            continue
        residual = centered - states @ np.linalg.lstsq(states, centered, rcond=None)[0]
        found.append(Excitation(name, spread, len(np.unique(column)), float(residual.std() / spread)))
    return found
