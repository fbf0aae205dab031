"""What a user may ask of `sindyrl fit`: candidates, structure, regression and how it is judged."""

from __future__ import annotations

import dataclasses
import math

from sindyrl.identify import Regressor
from sindyrl.library import LibrarySpec, polynomial_library, trigonometric_library
from sindyrl.model_selection import CriterionSubset
from sindyrl.noisy import METHODS, Method
from sindyrl.regression.stlsq import STLSQ
from sindyrl.regression.subset import SubsetSelection
from sindyrl.structure import Derivative, Increment, SecondOrder, Structure
from sindyrl.symbolic_map import Signal
from sindyrl.units import check_units, kinematic_problems, parse_unit

__all__ = ["FitSettings"]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How to fit.

    degree : of the polynomial library in states and inputs; bias : with the constant; trig : states with sin and cos
    discrete : difference equations ``x[k+1] - x[k] = f`` in place of differential equations
    kinematics : position -> velocity; then only the velocities' rates are identified
    threshold : STLSQ with this threshold, in the unit of the coefficients; None selects the best subset
    criterion : "ebic", "cv", "aicc" or "bic", for the size of the best subset; max_terms : of each equation
    method : how rates are taken from the samples, see `sindyrl.identify`
    units : (column, unit) pairs; checked before the fit
    holdout : share of the data that judges; robust : leave outliers out; allow_lost_inputs : see `sindyrl.guard`
    """

    degree: int = 2
    bias: bool = True
    trig: tuple[str, ...] = ()
    discrete: bool = False
    kinematics: tuple[tuple[str, str], ...] = ()
    threshold: float | None = None
    criterion: str = "ebic"
    max_terms: int = 8
    method: Method = "auto"
    units: tuple[tuple[str, str], ...] = ()
    holdout: float = 0.2
    robust: bool = False
    allow_lost_inputs: bool = False

    def __post_init__(self) -> None:
        if self.criterion not in ("ebic", "cv", "aicc", "bic"):
            raise ValueError(f"`criterion` must be 'ebic', 'cv', 'aicc' or 'bic'. Got {self.criterion!r}.")
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Got {self.method!r}.")
        if self.discrete and self.method in ("weak", "derivatives"):
            raise ValueError(f"`discrete` equations have no rates. Leave out `method={self.method}`, or `discrete`.")
        for _, unit in self.units:
            parse_unit(unit)
        if self.discrete and self.kinematics:
            raise ValueError("`kinematics` belong to differential equations. Leave out `discrete`, or `kinematics`.")
        if not 0.0 < self.holdout < 1.0:
            raise ValueError(f"`holdout` must be between 0 and 1. Got {self.holdout}.")
        if self.threshold is not None and not 0.0 <= self.threshold < math.inf:
            raise ValueError(f"`threshold` must be a non-negative number. Got {self.threshold}.")

    def structure(self, method: Method = "collocation") -> Structure:
        """What ``method`` identifies. Collocated rates belong to the midpoint rule, all others to the flow itself."""
        if self.kinematics:
            return SecondOrder(dict(self.kinematics))
        if self.discrete:
            return Increment()
        return Derivative() if method == "collocation" else Derivative(integrator="rk4")

    def library(self) -> LibrarySpec:
        spec = polynomial_library(self.degree, bias=self.bias)
        return spec + trigonometric_library(of=self.trig) if self.trig else spec

    def regressor(self) -> Regressor:
        if self.threshold is not None:
            return STLSQ(self.threshold)
        if self.criterion == "cv":
            return SubsetSelection(max_terms=self.max_terms, min_terms=0)
        return CriterionSubset(self.criterion, self.max_terms)

    def signals(self, names: tuple[str, ...]) -> tuple[Signal, ...]:
        """Columns with their units."""
        units = dict(self.units)
        return tuple(Signal(name, units.get(name, "")) for name in names)

    def check_units(self, states: tuple[str, ...], inputs: tuple[str, ...]) -> None:
        """Raise ValueError for units of unknown columns, and for candidates or kinematics that they forbid."""
        units, names = dict(self.units), (*states, *inputs)
        unknown = [name for name in units if name not in names]
        if unknown:
            raise ValueError(f"`--units` names {', '.join(unknown)}; the states and inputs are {', '.join(names)}.")
        used = self.structure().features_of(states)
        library = self.library().bind(used, inputs)
        problems = list(check_units(library, {n: units[n] for n in library.variables if n in units}).problems)
        if problems:
            raise ValueError(
                f"Units do not fit in {len(problems)} candidate terms: {'; '.join(problems[:3])}. Convert the column, "
                "correct `--units`, or leave the name out of `--trig`."
            )
        wrong = kinematic_problems(dict(self.kinematics), {}, units)
        if wrong:
            raise ValueError(wrong[0])
