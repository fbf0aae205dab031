"""CMA-ES as every search here uses it: silent, and from the caller's generator alone.

Reference: Hansen, The CMA Evolution Strategy, arXiv 1604.00772.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def evolution(first: np.ndarray, sigma: float, population: int, rng: np.random.Generator) -> Any:
    """A `cma.CMAEvolutionStrategy` that begins at ``first`` (n,) with a standard deviation of ``sigma``.

    cma wants two dimensions: a single number gets a second one, which callers leave out of what is asked.
    """
    import cma

    options = {
        "popsize": population,
        "verbose": -9,
        "seed": math.nan,  # leave the global generator alone; the normals are the caller's
        "randn": lambda *shape: rng.standard_normal(shape),
    }
    return cma.CMAEvolutionStrategy(first if first.size > 1 else np.append(first, 0.0), sigma, options)
