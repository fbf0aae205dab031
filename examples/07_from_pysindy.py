"""The same problem in pysindy and here: the Lorenz system from 10 s of noisy samples.

Claim: a pysindy model becomes a closed form that predicts the same numbers; regressors work on either side; and known
physics (two exact ties and an energy-preserving nonlinearity) holds in every member of an ensemble.

    python examples/07_from_pysindy.py
"""

import time
import warnings

import numpy as np
import pysindy as ps
from scipy.integrate import solve_ivp

import sindyrl
from sindyrl.pysindy_bridge import PySINDyOptimizer, PySINDyRegressor
from sindyrl.regression import energy_preserving, trapping_region

DT, NOISE = 0.002, 0.02  # s; standard deviation, of states near 10
NAMES = ["x", "y", "z"]
TRUTH = "dx = -10*x + 10*y, dy = 28*x - y - x*z, dz = -2.667*z + x*y"


def lorenz(_: float, s: np.ndarray) -> list[float]:
    return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]


def seconds_per_call(function: object, *arguments: object, calls: int = 200) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function(*arguments)  # type: ignore[operator]
    return (time.perf_counter() - start) / calls


def main() -> None:
    warnings.filterwarnings("ignore", module="pysindy")
    t = DT * np.arange(5000)
    clean = solve_ivp(lorenz, (0, t[-1]), [-8, 8, 27], t_eval=t, rtol=1e-10, atol=1e-10).y.T
    data = clean + NOISE * np.random.default_rng(0).normal(size=clean.shape)
    smooth = ps.SmoothedFiniteDifference()
    print(f"truth: {TRUTH}\n")

    theirs = ps.SINDy(optimizer=ps.STLSQ(threshold=0.5), differentiation_method=smooth)
    theirs.fit(data, t=DT, feature_names=NAMES)
    closed = sindyrl.from_pysindy(theirs)  # prints, saves, simulates, compiles to C
    print(f"pysindy, as a closed form:\n{closed}")
    difference = np.abs(closed(data) - np.asarray(theirs.predict(data))).max()
    one, function = data[:1], closed.symbolic().backend("c")
    slow, fast = seconds_per_call(theirs.predict, one), seconds_per_call(function, one)
    print(f"largest difference in prediction {difference:.1e}")
    print(f"one state: {slow * 1e6:.0f} us in pysindy, {fast * 1e6:.0f} us from C called by Python\n")

    ours = ps.SINDy(optimizer=PySINDyOptimizer(sindyrl.STLSQ(threshold=0.5)), differentiation_method=smooth)
    ours.fit(data, t=DT, feature_names=NAMES)
    print(f"our STLSQ inside pysindy:\n{sindyrl.from_pysindy(ours)}\n")

    library = sindyrl.polynomial_library(2, bias=True).bind(NAMES)
    theta, rates = library.features(data), np.asarray(smooth(data, t))
    sr3 = PySINDyRegressor(ps.SR3(reg_weight_lam=0.5, relax_coeff_nu=1.0)).fit(theta, rates)
    print(f"pysindy's SR3 as our regressor:\n{sindyrl.SparseMap(library, sr3.coef_, ['dx', 'dy', 'dz'])}\n")

    known = sindyrl.Constraints(library, ["dx", "dy", "dz"]).equal(("dx", "x"), ("dx", "y"), -1.0).fix("dy", "y", -1.0)
    known = energy_preserving(known)
    base = sindyrl.ConstrainedSTLSQ(known, threshold=0.5)
    many = sindyrl.Ensemble(base, n_members=20, aggregate="mean", random_state=0).fit(theta, rates)
    mean = sindyrl.SparseMap(library, many.coef_, ["dx", "dy", "dz"]).mean()
    print(f"with {len(known)} constraints, mean of 20 members:\n{mean}")
    print(f"largest violation in any member {known.violation(many.coef_):.1e}\n{trapping_region(mean)}")


if __name__ == "__main__":
    main()
