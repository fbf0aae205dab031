"""Rows that come in parts: sums that grow by new rows, and estimators that learn from them with ``partial_fit``.

What regression needs to know of rows fits in matrices of ``feature x feature``, so memory does not grow with the rows
and a refit after new data costs nothing that grows with the old.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import validate_data

from sindyrl.regression.gram import MAX_CONDITION, Factor, Gram, Problem

__all__ = ["PartialFit", "extend", "residual_squares"]

_STREAM_CONDITION = MAX_CONDITION / 100  # with room to spare, as sums cannot be formed again from the rows
_ROW_BLOCK = 8192


def extend(sums: Problem | None, theta: np.ndarray, y: np.ndarray) -> tuple[Problem, float]:
    """The problem of all rows so far and of theta (sample, feature), y (sample, target); and its condition number.

    A `Gram` as long as the columns are well enough conditioned for it, else a `Factor` whose triangle takes up the
    new rows by orthogonal transformations. None starts with no rows.
    """
    if sums is None or isinstance(sums, Gram):
        gram = Gram.from_rows(theta, y)
        gram = gram if sums is None else sums + gram
        condition = gram.condition()
        if condition <= _STREAM_CONDITION:
            return gram, condition
    if sums is None:
        targets = y.shape[1]
        sums = Factor(np.zeros((0, theta.shape[1])), np.zeros((0, targets)), np.zeros(targets), 0.0)
    factor = _extend_factor(_factor(sums) if isinstance(sums, Gram) else sums, theta, y)
    condition = factor.condition()
    if condition <= _STREAM_CONDITION:  # early rows often excite less than all of them together
        return Gram(factor.r.T @ factor.r, factor.r.T @ factor.z, factor.energy, factor.n), condition
    return factor, condition


def _factor(gram: Gram) -> Factor:
    """Rows with the same sums: theirs are ``sqrt(s) v'`` where the Gram matrix is ``v s v'``."""
    scale = np.sqrt(gram.column_squares)
    scale[scale == 0] = 1.0
    eigenvalues, v = np.linalg.eigh(gram.matrix / np.outer(scale, scale))
    present = eigenvalues > len(scale) * np.finfo(float).eps * max(eigenvalues[-1], 0.0)
    v, root = v[:, present], np.sqrt(eigenvalues[present])
    z = (v.T @ (gram.moment / scale[:, None])) / root[:, None]
    return Factor(root[:, None] * v.T * scale, z, gram.energy, gram.n)


def _extend_factor(factor: Problem, theta: np.ndarray, y: np.ndarray) -> Factor:
    assert isinstance(factor, Factor)
    r, z = factor.r, factor.z
    for start in range(0, len(theta), _ROW_BLOCK):
        rows = slice(start, start + _ROW_BLOCK)
        q, r = np.linalg.qr(np.vstack([r, theta[rows]]))
        z = q.T @ np.vstack([z, y[rows]])
    return Factor(r, z, factor.energy + np.einsum("ij,ij->j", y, y), factor.n + len(theta))


def residual_squares(sums: Problem, coef: np.ndarray) -> np.ndarray:
    """``|y - theta w|^2`` by target for coef (target, feature); accurate to rounding of ``y'y``."""
    if isinstance(sums, Factor):
        outside = sums.energy - np.einsum("ij,ij->j", sums.z, sums.z)
        inside = ((sums.z - sums.r @ coef.T) ** 2).sum(axis=0)
        return np.asarray(np.maximum(outside, 0.0) + inside)
    assert isinstance(sums, Gram)
    quadratic = np.einsum("ij,jk,ik->i", coef, sums.matrix, coef) - 2.0 * np.einsum("ij,ji->i", coef, sums.moment)
    return np.asarray(np.maximum(sums.energy + quadratic, 0.0))


class PartialFit:
    """``partial_fit`` for regressors that need nothing but sums over rows.

    The estimator says what to do with them in ``_conclude(sums, condition, flat)``, which `fit` uses too.
    """

    sums_: Problem

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _conclude(self, sums: Problem, condition: float, flat: bool) -> None:
        raise NotImplementedError

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Take up further rows, after those of all calls so far and of `fit`, and refit.

        Time and memory do not depend on the rows before. The result is that of `fit` to all rows, to rounding.
        Raises ValueError if the number of features or targets changed, or as `fit` does.
        """
        self._check_parameters()
        before = getattr(self, "sums_", None)
        X, y = validate_data(self, X, y, reset=before is None, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        check_targets(before, targets)
        sums, condition = extend(before, X, targets)
        self._conclude(sums, condition, y.ndim == 1)
        return self


def check_targets(before: Problem | None, y: np.ndarray) -> None:
    """Raises ValueError if y (sample, target) does not continue the rows before."""
    if before is not None and before.shape[0] != y.shape[1]:
        raise ValueError(
            f"`partial_fit(y=...)` must have {before.shape[0]} targets as before. Got {y.shape[1]}; `fit` starts anew."
        )
