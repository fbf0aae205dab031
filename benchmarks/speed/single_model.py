"""One model beside pysindy's: a fit on many rows, prediction at one state and at many, a simulation to 1e-12."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed.setting import Config, alternate, lorenz, seconds


def measure_single_fit(config: Config) -> list[dict[str, Any]]:
    """One STLSQ, the library matrix given."""
    import pysindy

    from sindyrl.library import polynomial_library
    from sindyrl.regression.stlsq import STLSQ

    data = Config(rows=config.single_rows, dt=config.dt, noise=config.noise)
    x, dx = lorenz(data, np.random.default_rng(config.seed))
    theta = polynomial_library(config.degree, bias=True).bind(["x", "y", "z"]).features(x)
    ours = STLSQ(config.threshold, alpha=config.alpha)
    peer = pysindy.STLSQ(threshold=config.threshold, alpha=config.alpha, unbias=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pysindy warns of ill-conditioned systems
        ours.fit(theta, dx)
        peer.fit(theta, dx)
        own, other = alternate(lambda: ours.fit(theta, dx), lambda: peer.fit(theta, dx), 3 * config.repeats)
    return [
        {
            "figure": "single_fit",
            "rows": config.single_rows,
            "terms": theta.shape[1],
            **_compared(own, other),
            "equal_supports": bool(np.array_equal(ours.coef_ != 0, peer.coef_ != 0)),
            "largest_difference": float(np.abs(ours.coef_ - peer.coef_).max()),
            "condition": ours.condition_,
            "method": ours.method_,
        }
    ]


def measure_predict(config: Config) -> list[dict[str, Any]]:
    """The Lorenz equations at one state and at a batch, from Python; and one state inside compiled C."""
    model, peer = _lorenz_models()
    closed = model.symbolic()
    compiled = closed.backend("c")
    rng = np.random.default_rng(config.seed)
    records = []
    for batch in (1, config.predict_batch):
        x = rng.normal(size=(batch, 3)) * 10
        calls = config.predict_calls if batch == 1 else max(3, config.predict_calls // 10)
        own, other = alternate(
            _often(partial(closed, x), calls), _often(partial(peer.predict, x), calls), config.repeats
        )
        in_c = statistics.median(seconds(_often(partial(compiled, x), calls)) for _ in range(3 * config.repeats))
        other_s = statistics.median(other) / calls
        records.append(
            {
                "figure": f"predict_{batch}",
                "batch": batch,
                **_compared([value / calls for value in own], [value / calls for value in other]),
                "compiled_c_s": in_c / calls,
                "compiled_c_ratio": other_s / (in_c / calls),
                "compiled_c_s_per_state": in_c / calls / batch,
                "largest_difference": float(np.abs(compiled(x) - np.asarray(peer.predict(x))).max()),
            }
        )
    return records


def measure_simulate(config: Config) -> list[dict[str, Any]]:
    """Lorenz from (-8, 8, 27), LSODA at ``tolerance`` on both sides, the same times asked for."""
    from scipy.integrate import odeint

    model, peer = _lorenz_models()
    compiled = model.symbolic().backend("c")
    t = np.arange(0.0, config.simulated, config.dt)
    x0 = np.array([-8.0, 8.0, 27.0])
    tolerance = config.tolerance

    def ours() -> np.ndarray:
        return np.asarray(odeint(lambda x, _: compiled(x), x0, t, rtol=tolerance, atol=tolerance, mxstep=5000))

    def theirs() -> np.ndarray:
        return np.asarray(peer.simulate(x0, t))  # its default: solve_ivp, LSODA, rtol = atol = 1e-12

    difference = np.abs(ours() - theirs()).max(axis=1)
    own, other = alternate(ours, theirs, config.repeats)
    return [
        {
            "figure": "simulate",
            "seconds_simulated": config.simulated,
            "tolerance": tolerance,
            **_compared(own, other),
            # Errors of 1e-12 grow by e^0.9 a second: agreement can be asked for in the beginning only.
            "largest_difference_first_second": float(difference[t <= 1.0].max()),
            "largest_difference": float(difference.max()),
        }
    ]


def _lorenz_models() -> tuple[Any, Any]:
    """The exact Lorenz equations over all monomials of degree 2, as ours and as a fitted pysindy model."""
    import pysindy

    from sindyrl.library import polynomial_library
    from sindyrl.sparse_map import SparseMap

    library = polynomial_library(2, bias=True).bind(["x", "y", "z"])
    coef = np.zeros((3, len(library)))
    for target, name, value in (
        (0, "x", -10.0),
        (0, "y", 10.0),
        (1, "x", 28.0),
        (1, "y", -1.0),
        (1, "x*z", -1.0),
        (2, "z", -8.0 / 3.0),
        (2, "x*y", 1.0),
    ):
        coef[target, library.index(name)] = value
    model = SparseMap(library, coef, ("dx", "dy", "dz"))
    x = np.random.default_rng(0).normal(size=(200, 3)) * 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pysindy.SINDy(optimizer=pysindy.STLSQ(threshold=0.05), feature_library=pysindy.PolynomialLibrary(2))
        peer.fit(x, t=0.01, x_dot=model(x))
    order = [name.replace(" ", "*") for name in peer.get_feature_names()]
    peer.optimizer.coef_ = np.array([[coef[i, _column(library, name)] for name in order] for i in range(3)])
    return model, peer


def _column(library: Any, name: str) -> int:
    """Our column of a monomial that pysindy calls ``x0*x1`` or ``x0^2``."""
    for old, new in (("x0", "x"), ("x1", "y"), ("x2", "z")):
        name = name.replace(old, new)
    return int(library.index(name))


def _often(call: Callable[[], Any], calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            call()

    return run


def _compared(own: list[float], other: list[float]) -> dict[str, float]:
    return {
        "sindyrl_s": statistics.median(own),
        "pysindy_s": statistics.median(other),
        "ratio": statistics.median(other) / statistics.median(own),
        "ratio_least": min(other) / max(own),
    }
