"""How time and memory of learning in parts grow with the number of rows."""

from __future__ import annotations

import functools
import math
import resource
import tracemalloc
from typing import Any

import numpy as np

from benchmarks.speed.setting import Config, lorenz, seconds


def measure_growth(config: Config) -> list[dict[str, Any]]:
    """`STLSQ.partial_fit` on chunks of Lorenz data, the library evaluated chunk by chunk, a refit after each.

    The chunks repeat a stretch of data; what is learned does not matter here.  Memory is the peak of what Python and
    NumPy allocated while up to a hundred chunks were learned, beside the largest resident size of the whole process
    until then (all rows; earlier figures may have set it).
    """
    from sindyrl.library import polynomial_library
    from sindyrl.regression.stlsq import STLSQ

    stretch = Config(rows=10 * config.chunk, dt=config.dt, noise=config.noise)
    x, dx = lorenz(stretch, np.random.default_rng(config.seed))
    library = polynomial_library(config.degree, bias=True).bind(["x", "y", "z"])
    library.features(x[:10])  # compiled once

    def learn(rows: int) -> None:
        model = STLSQ(config.threshold, alpha=config.alpha)
        for start in range(0, rows, config.chunk):
            at = slice(start % len(x), start % len(x) + min(config.chunk, rows - start))
            model.partial_fit(library.features(x[at]), dx[at])

    sizes = [10**power for power in range(3, 1 + round(math.log10(config.most_rows)))]
    times, peaks, resident = [], [], []
    for rows in sizes:
        times.append(seconds(functools.partial(learn, rows)))
        tracemalloc.start()
        learn(min(rows, 100 * config.chunk))  # a hundred chunks show growth; tracing them all takes time
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return [
        {
            "figure": "growth",
            "terms": len(library),
            "chunk": config.chunk,
            "rows": sizes,
            "seconds": times,
            "seconds_per_million_rows": times[-1] / sizes[-1] * 1e6,
            "time_exponent": math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2]),
            "peak_traced_bytes": peaks,
            "largest_resident_kib": resident,
        }
    ]
