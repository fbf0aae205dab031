r"""Has the one-step error grown?  A cumulative-sum test on innovations, calibrated on the data it watches.

For each target, with ``z`` the innovation over its usual size, the log-likelihood ratio of "the size is ``ratio`` times
as large" against "as usual" is summed up, never below zero:

    l = min( z^2 (1 - ratio^-2) / 2 - log(ratio), H0 / 4 ),     g <- max(0, g + l),     alarm when g > H

``H0 = log(false_alarm_rows)``. For independent normal innovations of known size the mean number of rows between false
alarms is then at least ``false_alarm_rows`` (``E exp(l) <= 1``, also with the cap, which keeps single outliers from
raising an alarm: it takes four rows at least). Innovations of real models come in bursts, with every cycle of the
motion, so the first ``calibration`` rows only set the scale, as their root mean square, and ``H`` is the larger of
``H0`` and twice the highest ``g`` among them. Innovations below the share ``least_error`` of the target's own root mean
square count as that large: the small errors of a nearly exact model come and go, and their growth is of no consequence.

References: Page, Biometrika 41, 1954 (the test); Lorden, Ann. Math. Statist. 42, 1971 (the bound and optimality);
Basseville and Nikiforov, Detection of Abrupt Changes, 1993, chapter 2.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["ChangeDetector"]

_CLIP = 36.0  # squared innovations over their usual size count at most this much for the usual size itself


class ChangeDetector:
    """The test of the module text; `update` once a row, `restart` after a change was dealt with.

    targets : number of innovations a row
    calibration : rows that set the scale and the threshold, during which there is no alarm
    memory : rows over which the scale keeps adapting afterwards
    false_alarm_rows, ratio, least_error : see the module text

    Constant memory and time. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        targets: int,
        *,
        calibration: int = 100,
        memory: float = 1000.0,
        false_alarm_rows: float = 1e6,
        ratio: float = 2.0,
        least_error: float = 0.01,
    ) -> None:
        if calibration < 10:
            raise ValueError(f"`ChangeDetector(calibration=...)` must be at least 10 rows. Got {calibration}.")
        if not false_alarm_rows > math.e:
            raise ValueError(f"`ChangeDetector(false_alarm_rows=...)` must be above e. Got {false_alarm_rows}.")
        if not ratio > 1:
            raise ValueError(f"`ChangeDetector(ratio=...)` must be above 1. Got {ratio}.")
        if not least_error >= 0:
            raise ValueError(f"`ChangeDetector(least_error=...)` must not be negative. Got {least_error}.")
        self._least = float(least_error)
        self._first_threshold = math.log(false_alarm_rows)
        self._cap = self._first_threshold / 4
        self._ratio, self._memory = float(ratio), max(float(memory), float(calibration))
        self._squares = np.empty((calibration, targets))
        self.restart()

    def restart(self) -> None:
        """Forget everything and calibrate anew."""
        targets = self._squares.shape[1]
        self.rows = 0
        self.variance = np.zeros(targets)  # of innovations, (target,)
        self.threshold = math.inf
        self.loudest = 0.0  # z^2 of the last row's worst target; 0 while calibrating
        self.sums = np.zeros(targets)  # g, (target,)
        self._energy = np.zeros(targets)
        self._since = np.zeros(targets, dtype=int)
        self._loud = np.zeros(targets, dtype=int)

    @property
    def calibrated(self) -> bool:
        return self.rows >= len(self._squares)

    @property
    def onset(self) -> int:
        """Rows since a change began, the present one included, as the target with the highest sum tells.

        Since its sum was last zero, the most likely onset; of an abrupt change, since the first row after that whose
        evidence is as large as one row's can be, as a row or two before it may be above zero by chance.
        """
        loudest = int(self.sums.argmax())
        return int(self._loud[loudest] or self._since[loudest])

    def update(self, innovation: np.ndarray, size: np.ndarray, inflation: np.ndarray | float = 1.0) -> bool:
        """Whether the error has grown, with this row.

        innovation : (target,) measured minus predicted before it was learned from
        size : (target,) the measured targets, whose mean square bounds from below what counts as an error
        inflation : (target,) ``1 + leverage``, by which the variance exceeds that of the residuals while few rows are
            known
        """
        squares = innovation**2 / inflation
        share = 1.0 / min(self.rows + 1.0, self._memory)
        self._energy += share * (size**2 - self._energy)
        squares = np.maximum(squares, self._least**2 * self._energy)
        if not self.calibrated:
            self._squares[self.rows] = squares
            self.rows += 1
            self.variance = self._squares[: self.rows].mean(axis=0)
            if self.calibrated:
                self._set_threshold()
            return False
        self.rows += 1
        usual = np.where(self.variance > 0, self.variance, np.finfo(float).tiny)
        z_squared = squares / usual
        self.loudest = float(z_squared.max())
        evidence = self._evidence(z_squared)
        self.sums = np.maximum(0.0, self.sums + evidence)
        above = self.sums > 0
        self._since = np.where(above, self._since + 1, 0)
        self._loud = np.where(above & ((self._loud > 0) | (evidence >= self._cap)), self._loud + 1, 0)
        self.variance += share * (np.minimum(squares, _CLIP * usual) - self.variance)
        return bool((self.sums > self.threshold).any())

    def _evidence(self, z_squared: np.ndarray) -> np.ndarray:
        ratio = self._ratio
        return np.minimum(0.5 * z_squared * (1 - ratio**-2) - math.log(ratio), self._cap)

    def _set_threshold(self) -> None:
        usual = np.where(self.variance > 0, self.variance, np.finfo(float).tiny)
        sums, highest = np.zeros_like(usual), 0.0
        for evidence in self._evidence(self._squares / usual):
            sums = np.maximum(0.0, sums + evidence)
            highest = max(highest, float(sums.max()))
        self.threshold = max(self._first_threshold, 2.0 * highest)
