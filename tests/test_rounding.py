"""The rounding bound: never below the error in exact arithmetic, never above the textbook's bound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given

from sindyrl.export import check
from sindyrl.export.rounding import evaluate_rounded
from sindyrl.symbolic_map import SymbolicMap
from tests.export_cases import STATES, TERMS, total
from tests.strategies import NAMES, maps, seeds


def test_error_is_within_gamma_n_of_the_sum_of_magnitudes():
    """The textbook bound, in exact rational arithmetic, against both the float32 values and our running bound."""
    form = SymbolicMap(STATES, {"u": total(TERMS)})
    inputs = check.make_vectors(form, "float32", 200, np.random.default_rng(1)).inputs
    result = evaluate_rounded(form, inputs)
    unit, operations = 2.0**-24, 4 * len(TERMS)  # coefficient, at most three products and one sum in each term
    gamma = operations * unit / (1 - operations * unit)
    parts = SymbolicMap(STATES, {f"t{index}": term for index, term in enumerate(TERMS)})
    magnitude = np.abs(parts(inputs.astype(float))).sum(axis=1)
    for row, value, bound, size in zip(inputs, result.value[:, 0], result.bound[:, 0], magnitude, strict=True):
        error = abs(Fraction(float(value)) - exact_sum(row))
        assert error <= bound * (1 + 1e-6) + 1e-40
        assert bound <= gamma * size + 1e-40


def exact_sum(row: np.ndarray) -> Fraction:
    x, v, c, s, w = (Fraction(float(value)) for value in row)
    f = Fraction
    return (
        f(4.76) * s + f(12.4) * v - f(3.1) * x + f(0.52) * c * w + f(1.7) * s * w * w + f(2.2) * v**3
        - f(0.31) * x * x * s + f(5.05) * w - f(0.77) * c * c * v + f(1.25) * s**3
    )  # fmt: skip


@given(maps(outputs=20), seeds)
def test_rounding_bound_holds_for_random_maps(form, seed):
    rng = np.random.default_rng(seed)
    inputs = (rng.normal(size=(40, len(NAMES))) * 10.0 ** rng.integers(-2, 3, size=(40, 1))).astype(np.float32)
    result = evaluate_rounded(form, inputs)
    reference = form(inputs.astype(float))
    finite = np.isfinite(reference) & np.isfinite(result.value)
    with np.errstate(invalid="ignore"):
        error = np.abs(result.value.astype(float) - reference)
    assert np.all(error[finite] <= result.bound[finite])
    assert not np.isnan(result.bound).any()
