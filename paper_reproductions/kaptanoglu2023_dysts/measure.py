"""One fit of the study: noise drawn, coefficients found, compared with the true ones."""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import NO_PART, code_digest
from benchmarks.seeds import derived_seeds
from paper_reproductions.kaptanoglu2023_dysts.data import CACHE, System, load_system, noisy, trajectories
from paper_reproductions.kaptanoglu2023_dysts.extract import SYSTEMS_FILE
from paper_reproductions.kaptanoglu2023_dysts.methods import fit

__all__ = ["code", "measure", "short"]


@functools.cache
def code() -> str:
    """Twelve digits that change with any source file a record depends on."""
    return code_digest([__name__], [SYSTEMS_FILE], without=NO_PART)[:12]


def measure(name: str, noise: float, setting: str, tree: str, folder: Path | None = CACHE) -> dict[str, Any]:
    """Fit one system and compare with its true coefficients and, without noise, with its rates on test trajectories.

    The noise depends on the tree, the system and the level only, so all settings see the same data.
    """
    system = load_system(name)
    training, test = trajectories(system, folder)
    seed = derived_seeds(hashlib.sha256(f"{tree}{name}{noise}".encode()).hexdigest(), 1)[0]
    data = noisy(training, noise, np.random.default_rng(seed))
    start = time.perf_counter()
    found = fit(setting, data, system.library)
    seconds = time.perf_counter() - start
    x = test.pairs().x
    return {
        "system": name,
        "noise": noise,
        "setting": setting,
        **_errors(system, found.coef, x),
        **{rule: _errors(system, coef, x) for rule, coef in found.others.items()},
        "terms": int(np.count_nonzero(system.coef)),
        "seconds": round(seconds, 2),
        "seed": seed,
        "tree": tree,
        "code": code(),
    }


def _errors(system: System, coef: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    true, found = system.rates(x), system.library.features(x) @ coef.T
    wrong = coef - system.coef
    return {
        "e_coef": short(np.linalg.norm(wrong, 2) / np.linalg.norm(system.coef, 2)),
        "e_frobenius": short(np.linalg.norm(wrong) / np.linalg.norm(system.coef)),
        "rmse": short(np.linalg.norm(found - true, 2) / np.linalg.norm(true, 2)),
        "missing": int(np.count_nonzero((coef == 0) & (system.coef != 0))),
        "spurious": int(np.count_nonzero((coef != 0) & (system.coef == 0))),
    }


def short(value: Any) -> float:
    return float(f"{float(value):.4g}")
