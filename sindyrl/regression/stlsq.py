"""Sequentially thresholded least squares as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl.number_check import check_number, not_negative, whole
from sindyrl.regression.gram import Factor, Problem, SparseFit, least_squares_problem, threshold_rounds
from sindyrl.regression.streaming import PartialFit

__all__ = ["STLSQ"]


class STLSQ(PartialFit, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Sequentially thresholded least squares, each target for itself, without intercept.

    Repeats ``w = argmin |y - theta_S w|^2 + alpha |w|^2`` on the support S and drops ``|w_j| < threshold``
    until the support stays as it is.  ``alpha`` is not scaled by the number of rows, and a coefficient
    equal to the threshold is kept; both as in pysindy's STLSQ.

    Parameters
    ----------
    threshold : float or array-like, default 0.1
        Smallest magnitude of a coefficient, in the unit of the coefficient: one number, one for each target
        (n_targets,), or a table (n_targets or 1, n_features or 1).  Zero never drops a column, infinity always.
    alpha : float, default 0.0
        Weight of the ridge penalty.
    max_iter : int, default 20
        Largest number of rounds.
    normalize : bool, default False
        Measure the threshold as a share of the target: ``|w_j| rms(theta_j) / rms(y)``, and the penalty in the
        same scale, ``alpha * mean(theta_j^2) * w_j^2``.  The support then does not depend on the units of columns
        and targets.  (pysindy's ``normalize_columns`` compares ``|w_j| rms(theta_j) sqrt(n)``.)
    unbias : bool, default False
        Finish with a fit without penalty on the chosen support.

    Attributes
    ----------
    coef_ : ndarray (n_targets, n_features), or (n_features,) if y has one axis
    support_ : bool ndarray of the same shape, where ``coef_`` is not zero
    condition_ : float
        Condition number of the columns scaled to unit length; above 1e7 the tall matrix is factorized by QR,
        below it the Gram matrix is used.
    converged_ : bool
        Whether every support settled within ``max_iter`` rounds; a ConvergenceWarning tells if not.
    method_ : "gram" or "qr"
    sums_ : Gram or Factor
        What was kept of the rows; `partial_fit` adds to it.
    n_iter_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray (n_features,), only if X has column names that are all texts

    `fit` raises ValueError if a parameter is out of range or X or y hold NaN or infinity.

    References
    ----------
    Brunton, Proctor, Kutz, PNAS 113(15), 2016, supporting information.

    Examples
    --------
    >>> import numpy as np
    >>> theta = np.random.default_rng(0).normal(size=(50, 4))
    >>> STLSQ(threshold=0.5).fit(theta, 3.0 * theta[:, 1]).coef_.round(6)
    array([0., 3., 0., 0.])
    """

    def __init__(
        self,
        threshold: float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray = 0.1,
        *,
        alpha: float = 0.0,
        max_iter: int = 20,
        normalize: bool = False,
        unbias: bool = False,
    ) -> None:
        self.threshold = threshold
        self.alpha = alpha
        self.max_iter = max_iter
        self.normalize = normalize
        self.unbias = unbias

    def _check_parameters(self) -> None:
        # By `fit`: scikit-learn's contract wants constructors and `set_params` to assign and never to raise.
        rule = "`STLSQ(threshold=...)` must be a non-negative number, one for each target, or a table of them."
        try:
            threshold = np.asarray(self.threshold, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{rule} Got {self.threshold!r}.") from None
        if threshold.ndim > 2 or not (threshold >= 0).all():
            raise ValueError(f"{rule} Got {self.threshold!r}.")
        check_number("STLSQ(alpha=...)", self.alpha, "a non-negative number", not_negative)
        check_number("STLSQ(max_iter=...)", self.max_iter, "a positive integer", whole(1))
        for name in ("normalize", "unbias"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"`STLSQ({name}=...)` must be True or False. Got {getattr(self, name)!r}.")

    def fit(self, X: Any, y: Any) -> STLSQ:
        """Fit X, the library matrix (n_samples, n_features), to y, (n_samples,) or (n_samples, n_targets)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        self._conclude(*least_squares_problem(X, targets), y.ndim == 1)
        return self

    def _conclude(self, sums: Problem, condition: float, flat: bool) -> None:
        fit = self.fit_problem(sums)
        self.sums_, self.condition_ = sums, condition
        self.method_ = "qr" if isinstance(sums, Factor) else "gram"
        self.converged_ = bool(fit.converged.all())
        self.n_iter_ = int(fit.rounds.max())
        self.coef_ = fit.coef[0] if flat else fit.coef
        self.support_ = self.coef_ != 0
        if not self.converged_:
            unsettled = ", ".join(map(str, np.flatnonzero(~fit.converged)))
            warnings.warn(
                f"The support of target {unsettled} still changed after max_iter={self.max_iter} rounds. "
                "Raise `max_iter`, or lower `threshold`.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def fit_problem(self, problem: Problem, columns: np.ndarray | None = None) -> SparseFit:
        """Threshold one `gram.Problem` with these settings; ``columns`` limits which may enter.

        What `fit` does after its checks, and what an ensemble does for each member.
        """
        ridge: float | np.ndarray = float(self.alpha)
        if self.normalize:
            ridge = self.alpha * problem.column_squares / problem.n
        fit = threshold_rounds(problem, self.coefficient_thresholds(problem), ridge, self.max_iter, columns)
        if self.unbias and np.any(ridge):
            for target, coef in enumerate(fit.coef):
                support = np.flatnonzero(coef)
                if len(support):
                    coef[support] = problem.solve(support, np.array([target]))[0]
        return fit

    def coefficient_thresholds(self, problem: Problem) -> np.ndarray:
        """The thresholds in the units of the coefficients of one `gram.Problem`, (n_targets, n_features)."""
        threshold = np.asarray(self.threshold, dtype=np.float64)
        if threshold.ndim == 1 and len(threshold) != problem.shape[0]:
            raise ValueError(
                f"`STLSQ(threshold=...)` must have one entry for each of the {problem.shape[0]} targets. "
                f"Got {len(threshold)}."
            )
        table = threshold if threshold.ndim == 2 else threshold[..., None]
        if table.ndim == 2 and any(
            given not in (1, size) for given, size in zip(table.shape, problem.shape, strict=True)
        ):
            raise ValueError(
                f"`STLSQ(threshold=...)` must have shape (targets, features) = {problem.shape}, or 1 in place of "
                f"either. Got {threshold.shape}."
            )
        thresholds = np.broadcast_to(table, problem.shape)
        if not self.normalize:
            return thresholds
        lengths = np.sqrt(problem.column_squares)
        # A column of zeros explains nothing: no coefficient of it reaches the infinite threshold.
        shares = np.sqrt(problem.energy)[:, None] / np.where(lengths > 0, lengths, 1.0)
        return np.where(lengths > 0, thresholds * shares, np.inf)

    def predict(self, X: Any) -> np.ndarray:
        """``theta w``: (n_samples,) or (n_samples, n_targets), as y was."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_.T)
