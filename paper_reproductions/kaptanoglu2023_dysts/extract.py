"""Renew systems.json: the 70 polynomial systems of the paper as coefficients, read from an installed `dysts`.

    python -m paper_reproductions.kaptanoglu2023_dysts.extract

Only needed for another version of `dysts` (Gilpin 2021, Apache License 2.0), which must be installed; the names stay.
The right-hand sides are evaluated at random points and fitted exactly in the quartic library; a fit that leaves more
than 1e-9 of the size is an error.
"""

from __future__ import annotations

import importlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sindyrl.library import polynomial_library
from sindyrl.map_file import write_text

SYSTEMS_FILE = Path(__file__).with_name("systems.json")
DEGREE = 4
STATES = ("x", "y", "z", "w")


def extract(model: Any) -> dict[str, Any]:
    """Period, initial state and exact coefficients of one system of `dysts`. ValueError if it is not quartic."""
    ic = np.asarray(model.ic, dtype=np.float64)
    library = polynomial_library(DEGREE, bias=True).bind(STATES[: len(ic)])
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (400, len(ic))) * (np.abs(ic).max() + 1.0)
    rates = np.array([model.rhs(point, 0.0) for point in points])
    theta = library.features(points)
    length = np.linalg.norm(theta, axis=0)
    coef = (np.linalg.lstsq(theta / length, rates, rcond=None)[0] / length[:, None]).T
    size = np.abs(rates).max(axis=0)
    coef[np.abs(coef) * np.abs(theta).max(axis=0) < 1e-9 * size[:, None]] = 0.0
    error = np.abs(theta @ coef.T - rates).max(axis=0)
    if (error > 1e-9 * size).any():
        raise ValueError(f"{model.name} is not a polynomial of degree {DEGREE}: error {error.max():.2g}.")
    equations = [
        {library.names[j]: float(f"{row[j]:.12g}") for j in np.flatnonzero(row)} for row in coef
    ]  # 12 digits: what rounding left of parameters that have at most 5
    return {"period": float(model.period), "initial_state": ic.tolist(), "equations": equations}


def main() -> None:
    flows = importlib.import_module("dysts.flows")
    names = json.loads(SYSTEMS_FILE.read_text(encoding="utf-8"))["systems"]
    systems = {name: extract(getattr(flows, name)()) for name in names}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(system)}" for name, system in systems.items())
    write_text(SYSTEMS_FILE, f'{{"dysts": "{version("dysts")}", "systems": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
