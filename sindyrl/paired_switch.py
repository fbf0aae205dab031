r"""Which of two models to use: a paired test on predictions made before the rows were learned from, with hysteresis.

Over windows of several steps that do not overlap, both models start from the same measured state with the coefficients
they had then. ``d = log(error of the challenger) - log(error of the default)`` of the squared errors at the end of each
window, with weights that fade over windows, has the mean ``D`` and the standard error ``S``. Then

    use the challenger  when  D + 3 S < -delta
    use the default     when  D - 3 S > +delta
    otherwise keep what is in use

from ``least`` windows on; ``delta = log 1.21`` is a difference of a tenth in root mean square. Between the two
conditions lie ``2 delta + 6 S``, so that chance does not make the choice flap, and ties stay with the default. The
logarithm makes windows comparable whose errors differ by orders of magnitude, as in `regression.subset`.
"""

from __future__ import annotations

import dataclasses
import math

__all__ = ["PairedSwitch"]

_DELTA = math.log(1.21)
_ERRORS = 3.0  # standard errors; the test is repeated after every window


@dataclasses.dataclass(frozen=True)
class PairedSwitch:
    """The state of the test; a value, as returned by `compare`.

    memory : windows over which the weights fade, at least `least`
    least : windows before the first decision
    challenger : whether the challenger is in use
    """

    memory: float = 30.0
    least: int = 8
    challenger: bool = False
    windows: int = 0
    weight: float = 0.0
    weight_squares: float = 0.0
    mean: float = 0.0
    spread: float = 0.0  # weighted sum of squared deviations

    def __post_init__(self) -> None:
        if self.least < 3 or not self.memory >= self.least:
            raise ValueError(
                "`PairedSwitch(memory=..., least=...)` must be at least 3 windows, the memory not below `least`. "
                f"Got {self.memory}, {self.least}."
            )

    @property
    def standard_error(self) -> float:
        """Of the mean; infinite before there are two windows."""
        if self.windows < 2:
            return math.inf
        effective = self.weight**2 / self.weight_squares
        variance = self.spread / (self.weight - self.weight_squares / self.weight)
        return math.sqrt(variance / effective)

    def compare(self, challenger: float, default: float) -> PairedSwitch:
        """Take up the squared errors of one window, both positive, and decide."""
        d = math.log(challenger) - math.log(default)
        fade = 1.0 - 1.0 / self.memory
        weight = fade * self.weight + 1.0
        mean = self.mean + (d - self.mean) / weight
        after = dataclasses.replace(
            self,
            windows=self.windows + 1,
            weight=weight,
            weight_squares=fade**2 * self.weight_squares + 1.0,
            mean=mean,
            spread=fade * self.spread + (d - self.mean) * (d - mean),
        )
        if after.windows < self.least:
            return after
        margin = _ERRORS * after.standard_error
        if after.mean + margin < -_DELTA:
            return dataclasses.replace(after, challenger=True)
        if after.mean - margin > _DELTA:
            return dataclasses.replace(after, challenger=False)
        return after
