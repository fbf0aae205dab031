"""A rational law from concentrations: an enzyme's uptake, found as one fraction that predicts, simulates and compiles.

Claim: from ten recordings with 1 % noise the four terms of ``dx/dt = (0.6 - 3 x)/(1 + x/0.3)`` are picked out of ten
candidates, each within three of its standard errors, and a simulation from a new start stays within 2 % of the truth.

    python examples/08_rational_dynamics.py
"""

import numpy as np
from scipy.integrate import solve_ivp

import sindyrl
from sindyrl.rational import identify_rational

DT, STEPS, STARTS, NOISE = 0.05, 60, 10, 0.01  # s, -, -, share of the standard deviation
TRUTH = {"above 1": 0.6, "above x": -3.0, "below x": 1 / 0.3}  # the constant below is set to 1


def uptake(_: float, x: np.ndarray) -> np.ndarray:
    """Constant supply and Michaelis-Menten uptake."""
    return 0.6 - 1.5 * x / (0.3 + x)


def record(start: float) -> np.ndarray:
    """Concentrations (STEPS + 1, 1) from a start."""
    t = DT * np.arange(STEPS + 1)
    return solve_ivp(uptake, (0.0, t[-1]), [start], t_eval=t, rtol=1e-10, atol=1e-12).y.T


def main() -> None:
    clean = np.array([record(start) for start in np.linspace(0.02, 3.0, STARTS)])
    seen = clean + NOISE * clean.std() * np.random.default_rng(0).normal(size=clean.shape)
    data = sindyrl.Dataset(
        tuple(sindyrl.Trajectory.uniform(x, np.zeros((STEPS, 0)), dt=DT, states=("x",), inputs=()) for x in seen)
    )
    fit = identify_rational(data, sindyrl.polynomial_library(4, bias=True), smooth=True)
    print(f"{fit}\n")

    (equation,) = fit.equations
    found = {f"above {term.name}": term for term in equation.numerator}
    found |= {f"below {term.name}": term for term in equation.denominator if term.name != equation.unit_term}
    print(f"{'term':<10s}{'planted':>9s}{'found':>9s}{'error / standard error':>25s}")
    for name, planted in TRUTH.items():
        coefficient, error = found[name].coefficient, found[name].standard_error
        print(f"{name:<10s}{planted:>9.3f}{coefficient:>9.3f}{abs(coefficient - planted) / error:>25.1f}")
    print(f"terms that were not planted: {len(found.keys() - TRUTH.keys())}")
    print(f"denominator over the data: {equation.zero}")

    true = record(2.3)
    predicted = sindyrl.simulate(fit.model, true[0], steps=STEPS)
    print(
        f"simulated from x = 2.3: {predicted.outcome.name}, "
        f"largest error {100 * np.abs(predicted.x - true).max() / np.ptp(true):.2f} % of the range"
    )


if __name__ == "__main__":
    main()
