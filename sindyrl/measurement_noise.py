r"""How noisy the measured states are, told from a model's one-step residuals.

With measured states ``y_k = x_k + n_k`` and white noise ``n``, the residual ``e_k = y_{k+1} - step(y_k, u_k)`` is close
to ``n_{k+1} - n_k + m_k``, because over one short step the state hardly changes; ``m`` is what the model does wrong.
Noise makes consecutive residuals negatively correlated, ``cov(e_k, e_{k+1}) = -sigma^2``; a model error changes slowly
and makes them positively correlated. So ``sigma^2 = max(0, -cov(e_k, e_{k+1}))`` tells the two apart.
"""

from __future__ import annotations

import numpy as np

from sindyrl.model import Model
from sindyrl.simulate import limits
from sindyrl.trajectory import Dataset


def measurement_noise(model: Model, data: Dataset) -> np.ndarray:
    """Standard deviation of the measurement noise of each state, (n_states,), in the states' units; 0 if none shows.

    Transitions that leave the model's ranges are left out. Too large by the share of noise that one step of the system
    amplifies, so meant for ``dt`` short against the system's time constants.
    """
    total, count = np.zeros(len(model.states)), 0
    low, high = limits(model.states)
    for trajectory in data:
        residual = trajectory.x[1:] - model.step(trajectory.x[:-1], trajectory.u)
        inside = np.all((trajectory.x >= low) & (trajectory.x <= high), axis=1)
        usable = inside[:-2] & inside[1:-1] & inside[2:] & np.isfinite(residual[:-1] + residual[1:]).all(axis=1)
        total += (residual[:-1] * residual[1:])[usable].sum(axis=0)
        count += int(usable.sum())
    return np.sqrt(np.maximum(-total / max(count, 1), 0.0))
