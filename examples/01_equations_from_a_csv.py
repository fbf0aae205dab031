"""From a CSV file to equations of motion: a damped pendulum driven by a torque, its rod and friction unknown.

Claim: from 10 s of noisy samples, `identify` picks the three true terms out of 21 candidates, and every planted
coefficient lies within three of the standard errors that it states.

    python examples/01_equations_from_a_csv.py      writes pendulum.csv into the current folder
"""

from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

import sindyrl

DT, STEPS = 0.01, 1000  # s, -
NOISE = 0.002  # rad and rad/s, standard deviation
TRUTH = {"rate": -0.3, "torque": 4.0, "sin(angle)": -9.81}  # rad/s^2 per unit of each term


def motion(_: float, state: np.ndarray, torque: float) -> list[float]:
    """The planted equation of motion; angle 0 is hanging, in rad."""
    angle, rate = state
    return [rate, TRUTH["rate"] * rate + TRUTH["torque"] * torque + TRUTH["sin(angle)"] * np.sin(angle)]


def record(path: str | Path, rng: np.random.Generator) -> None:
    """Simulate with random torques, each held for 0.25 s, and write what noisy sensors would show."""
    torque = np.repeat(rng.uniform(-2.0, 2.0, STEPS // 25), 25)
    state = [np.array([2.0, 0.0])]
    for held in torque:
        state.append(solve_ivp(motion, (0.0, DT), state[-1], args=(held,), rtol=1e-9, atol=1e-9).y[:, -1])
    seen = np.array(state) + NOISE * rng.standard_normal((STEPS + 1, 2))
    lines = ["time,angle,rate,torque"]
    # The last row has no torque: nothing is known of what follows it.
    for k, (angle, rate) in enumerate(seen):
        lines.append(f"{k * DT:.2f},{angle:.6f},{rate:.6f}," + (f"{torque[k]:.6f}" if k < STEPS else ""))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    record("pendulum.csv", np.random.default_rng(0))
    data = sindyrl.Dataset.from_csv("pendulum.csv", states=["angle", "rate"], inputs=["torque"], time="time")
    library = sindyrl.polynomial_library(degree=3) + sindyrl.trigonometric_library(of=["angle"])
    fit = sindyrl.identify(data, library, structure=sindyrl.SecondOrder(positions={"angle": "rate"}))
    print(fit)

    print(f"\n{'term':<12s}{'planted':>9s}{'found':>10s}{'error / standard error':>26s}")
    rates = fit.model.rates.median()
    for term, planted in TRUTH.items():
        j = rates.library.index(term)
        found, error = rates.coef[0, j], fit.standard_error[0, j]
        print(f"{term:<12s}{planted:>9.3f}{found:>10.4f}{abs(found - planted) / error:>26.1f}")
    print(f"terms that were not planted: {rates.n_terms - len(TRUTH)}")


if __name__ == "__main__":
    main()
