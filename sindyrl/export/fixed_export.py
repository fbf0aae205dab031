"""The way from a map to verified fixed-point files; `to_c(number="q31")` comes here."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.backends.c import CompilerNotFound
from sindyrl.export import fixed_point
from sindyrl.export.check import call, make_vectors
from sindyrl.export.emulate import PROCESSORS, EmulationUnavailable, build_image, execute, require_emulator
from sindyrl.export.fixed_package import FIXED, FixedPackage, FixedVectors, fixed_vectors, make_fixed_package
from sindyrl.export.reporting import ExportReport, ProcessorFigures, figures, verification_lines
from sindyrl.export.toolchain import (
    Compiler,
    ExportError,
    build_library,
    host_compiler,
    run_self_test,
    write_texts,
    zig_compiler,
    zig_version,
)
from sindyrl.symbolic_map import SymbolicMap

_SELF_TEST_VECTORS = 16
_EMULATED_VECTORS = 100


def make_fixed(
    form: SymbolicMap,
    name: str,
    number: str,
    *,
    verify: str | None,
    period: float | None,
    max_error: float | None,
    processors: Sequence[str],
    n_vectors: int,
    rng: np.random.Generator,
) -> tuple[FixedPackage, dict[str, str], ExportReport]:
    """Plan, write and verify; the package, its texts, and what was found. Nothing is on disk afterwards.

    Raises ValueError for a map that fixed point cannot hold, ExportError if the bound is over ``max_error`` or the C
    differs from the integer arithmetic it was made from.
    """
    plan = fixed_point.plan(form, FIXED[number])
    if max_error is not None and plan.bound.max() > max_error:
        worst = int(plan.bound.argmax())
        raise ExportError(
            f"The proven error bound of {form.output_names[worst]} in {number} is {plan.bound[worst]:.3g}, over "
            f"`max_error={max_error:g}`. Use q31 or float32, or narrower input ranges."
        )
    points = make_vectors(form, "float64", n_vectors, rng).inputs
    vectors = fixed_vectors(form, plan, points)
    if (vectors.error > plan.bound).any():
        raise ExportError(f"`{form.name}` in {number} is off by {vectors.error}, beyond its bound {plan.bound}.")
    package = make_fixed_package(form, plan, name, number, vectors, _SELF_TEST_VECTORS, period)
    with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as hidden:
        folder = Path(hidden)
        report = _verified(package, vectors, verify, processors, folder)
        texts = package.texts(verification_lines(report))
        if report.verified != "none":
            code = run_self_test(host_compiler(), write_texts(texts, folder)[1:], package.self_test_macro)
            if code != 0:
                raise ExportError(f"The self-test of `{name}` ended with exit code {code} on this machine.")
    return package, texts, report


def _verified(
    package: FixedPackage, vectors: FixedVectors, verify: str | None, processors: Sequence[str], folder: Path
) -> ExportReport:
    report = ExportReport(package.name, package.number, files=(), verified="none", matches=False)
    if verify == "none":
        return dataclasses.replace(report, note='`verify="none"` was asked for')
    if verify == "emulate":
        require_emulator()
    try:
        compiler = host_compiler()
    except CompilerNotFound as error:
        if verify is not None:
            raise
        warnings.warn(f"The exported C was not verified. {error}", stacklevel=5)
        return dataclasses.replace(report, note="there was no C compiler on the exporting machine")
    source = write_texts(package.texts(["Being verified."]), folder)[1]
    _compiled(package, vectors, compiler, folder)
    report = dataclasses.replace(
        report,
        verified="compiled",
        matches=True,
        vectors=len(vectors.inputs),
        max_error=float(vectors.error.max()),
        error_bound=float(package.plan.bound.max()),
        bitwise=True,
        overflows=0,
        host_compiler=compiler.version,
    )
    if verify == "compile":
        return report
    try:
        found = tuple(_emulated(package, vectors, source, processor) for processor in processors)
    except (ImportError, EmulationUnavailable) as error:
        if verify == "emulate":
            raise
        return dataclasses.replace(report, note=str(error))
    _compiled(package, vectors, zig_compiler(), folder / "second")
    return dataclasses.replace(
        report, verified="emulated", processors=found, cross_compiler=zig_version(), compilers_agree=True
    )


def _compiled(package: FixedPackage, vectors: FixedVectors, compiler: Compiler, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    library = build_library(compiler, write_texts(package.texts(["Being verified."]), folder)[1])
    found = call(library, package.name, vectors.inputs, vectors.expected.shape[1])
    _same(package, vectors.inputs, found, vectors.expected, f"The C compiled by {compiler.version}")


def _emulated(package: FixedPackage, vectors: FixedVectors, source: Path, processor: str) -> ProcessorFigures:
    image = build_image(source, package.name, PROCESSORS[processor])
    rows = np.unique(np.linspace(0, len(vectors.inputs) - 1, _EMULATED_VECTORS).astype(int))
    execution = execute(image, vectors.inputs[rows], vectors.expected.shape[1])
    where = f"The C on an emulated {processor}"
    _same(package, vectors.inputs[rows], execution.outputs, vectors.expected[rows], where)
    return figures(image, execution)


def _same(package: FixedPackage, inputs: NDArray[Any], found: NDArray[Any], expected: NDArray[Any], where: str) -> None:
    if (found != expected).any():
        row = int(np.argmax((found != expected).any(axis=1)))
        raise ExportError(
            f"{where} returns {found[row]} for `{package.form.name}` at {inputs[row]}, where the same integer "
            f"arithmetic gives {expected[row]}."
        )
