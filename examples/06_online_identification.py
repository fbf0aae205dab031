"""A model that follows a running system: Lotka-Volterra under random inputs, in which predators suddenly hunt better.

Claim: DMDc serves until a sparse model has proven better; the planted jump is noticed within 10 rows (1 s) and dated to
within 2, and 15 s after it the true terms are within 5 % of their new values.

    python examples/06_online_identification.py
"""

import time

import numpy as np
from scipy.integrate import solve_ivp

from sindyrl.library import polynomial_library
from sindyrl.online import OnlineIdentifier
from sindyrl.structure import Derivative

DT, ROWS, JUMP = 0.1, 750, 600  # s, -, row
NOISE = np.array([0.05, 0.02])  # animals, standard deviation
BEFORE, AFTER = 0.025, 0.035  # prey eaten per predator, prey and unit of time


def field(_: float, x: np.ndarray, u: float, eaten: float) -> list[float]:
    """Kaiser, Kutz, Brunton 2018; u is the rate at which predators are released."""
    return [0.5 * x[0] - eaten * x[0] * x[1], 0.005 * x[0] * x[1] - 0.5 * x[1] + u]


def main(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    online = OnlineIdentifier(
        polynomial_library(2, bias=True),  # 10 candidate terms an equation
        Derivative("rk4"),
        ["prey", "predator"],
        ["u"],
        DT,
        half_life=20.0,
    )
    x, u, kind, seconds = np.array([60.0, 50.0]), 0.0, "", []
    seen = x
    for row in range(ROWS):
        if row % 5 == 0:
            u = rng.uniform(-2.0 if x[1] > 10.0 else 0.0, 2.0)
        eaten = BEFORE if row < JUMP else AFTER
        x = solve_ivp(field, (0.0, DT), x, args=(u, eaten), rtol=1e-8, atol=1e-8).y[:, -1]
        following = x + NOISE * rng.standard_normal(2)
        begun = time.perf_counter()
        changed = online.update(seen, np.array([u]), following)
        seconds.append(time.perf_counter() - begun)
        seen = following
        if changed:
            print(f"row {row + 1}: a change, thought to act since row {online.report.onsets[-1]} (planted: {JUMP + 1})")
        if online.kind != kind:
            kind = online.kind
            print(f"row {row + 1}: the model in use is {kind}")
        if row + 1 in (JUMP, ROWS):
            print(f"\nrow {row + 1}\n{online.model}\n")

    coef, library = online.model.rates.coef, online.library
    planted = {(0, "prey"): 0.5, (0, "prey*predator"): -AFTER, (1, "prey*predator"): 0.005, (1, "predator"): -0.5}
    worst = max(abs(coef[target, library.index(name)] / value - 1) for (target, name), value in planted.items())
    print(f"largest error of the true terms, {ROWS - JUMP} rows after the jump: {100 * worst:.1f} %")
    print(f"median time of a row: {1e6 * float(np.median(seconds)):.0f} us")
    print(online.report)


if __name__ == "__main__":
    main()
