"""``to_c``: a map as a C package, verified before it is in place."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sindyrl.backends.c import CompilerNotFound
from sindyrl.emit.c import TYPES, Number
from sindyrl.emit.elementary import Elementary, called_functions, own_functions
from sindyrl.export.artifact import Artifact
from sindyrl.export.check import (
    Vectors,
    call,
    compare,
    compare_batch,
    compare_guarded,
    compare_steps,
    make_vectors,
    same_bits,
    subset,
)
from sindyrl.export.emulate import (
    PROCESSORS,
    EmulationUnavailable,
    build_image,
    execute,
    has_emulator,
    require_emulator,
)
from sindyrl.export.fixed_export import make_fixed
from sindyrl.export.fixed_package import FIXED, FixedPackage
from sindyrl.export.guarded import Outside, make_guard
from sindyrl.export.placement import place_files
from sindyrl.export.reporting import ExportReport, figures, verification_lines
from sindyrl.export.shaping import Shape, cheapest, operations
from sindyrl.export.source import Package, check_package_name, implementation, library_version, make_package, short_text
from sindyrl.export.stateful import StatefulMap, memory_of
from sindyrl.export.targets import TARGETS, target_files
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

Verify = Literal["emulate", "compile", "none"]
Math = Literal["own", "libm"]

SELF_TEST_VECTORS = 16
_EMULATED_VECTORS = 200
_EMULATED_INSTRUCTIONS = 400_000  # about half a second of emulation; fewer vectors if a call is long
_SHAPE_VECTORS = 4
_STEPS = 50


def to_c(
    map: SymbolicMap | StatefulMap,
    folder: str | os.PathLike[str],
    *,
    number: Number | Literal["q31", "q15"] = "float32",
    name: str | None = None,
    verify: Verify | None = None,
    regroup: bool = True,
    math: Math | None = None,
    fallback: Mapping[str, float] | None = None,
    outside: Outside = "fallback",
    undefined: Literal["refuse", "allow"] = "refuse",
    period: float | None = None,
    batch: bool = False,
    max_error: float | None = None,
    package: str | None = None,
    processors: Sequence[str] = ("cortex-m4f",),
    n_vectors: int = 1000,
    rng: np.random.Generator | None = None,
) -> ExportReport:
    """Write ``NAME.h``, ``NAME.c`` and ``NAME_selftest.c``: ``void NAME(const float state[n], float out[m])``.

        report = to_c(policy, "firmware/", fallback={"u": 0.0})
        report.m4_instructions, report.max_error

    map : a closed form; or one with memory (`sindyrl.export.StatefulMap`), which becomes ``NAME_reset`` and
        ``NAME_step`` around ``NAME``, whose figures are reported.
    number : "float32", "float64", or fixed point, "q31" or "q15": integers with a scaling table in the header and a
        proven error bound (`sindyrl.export.fixed_point`); every input needs a finite range.
    name : of function and files; by default the map's (a map called "map" becomes "closed_form").
    verify : "compile" compiles with warnings as errors and compares with the map on ``n_vectors`` random and some edge
        vectors; "emulate" also compiles with a second compiler and executes on the emulated ``processors``; "none" only
        writes. By default the most that this machine can do. The header says which.
    regroup : factor sums of products as it takes fewest instructions (see `sindyrl.export.shaping`): the same function
        of the reals, with its own rounding errors, which are bounded and tested as ever. False keeps the map's order.
    math : "own" brings sin, cos, tanh, exp and log along, and sqrt if the first of ``processors`` has no instruction
        for it: for targets without a libm or with a slow one, with stated errors and the same bits everywhere. "libm"
        calls <math.h>. Default "own" for float32, else "libm".
    batch : also write ``void NAME_batch(const float *states, float *out, int count)``, for roll-outs on a host.
    fallback : output name -> value: also write ``int NAME_checked(...)``, which returns a status for inputs that are
        NaN, infinite or out of range, and then these outputs; ``outside="compute"`` computes out of range too.
    undefined : "refuse" raises if a division by zero, or log or sqrt of a negative number, cannot be ruled out on the
        inputs' ranges; "allow" says so in the header.
    period : seconds between calls, for what has a time step; said in the header.
    max_error : ExportError if the rounding-error bound, in the unit of the output, is larger anywhere.
    package : put the files into a package for a tool or language, a name in `sindyrl.export.TARGETS` such as "arduino";
        by default the three files alone.
    processors : names in `sindyrl.export.PROCESSORS` to execute on.
    rng : for the vectors; the default is fixed, so that equal maps give equal bytes.

    Nothing is in place until everything agreed, and other files in the folder stay as they are.

    Raises ValueError for a name C cannot have, a constant beyond float32 or a value that may be undefined,
    CompilerNotFound, ImportError naming the extra if the emulator is asked for and missing, and ExportError if
    compiling, comparing or writing fails.
    """
    stateful = map if isinstance(map, StatefulMap) else None
    if isinstance(map, StatefulMap):
        if fallback is not None:
            raise ValueError("`to_c(fallback=...)` is for maps without memory. Got one and a StatefulMap.")
        period = map.dt if period is None else period
        map = map.map
    _check_arguments(map, number, verify, n_vectors, processors, package)
    if period is not None and not 0.0 < period < np.inf:
        raise ValueError(f"`to_c(period=...)` must be a positive number of seconds. Got {period!r}.")
    if name is None:
        name = "closed_form" if map.name == "map" else map.name
    name = check_package_name(name)
    rng = np.random.default_rng(0) if rng is None else rng
    if number == "q31" or number == "q15":
        if fallback is not None or stateful is not None or batch:
            raise ValueError(
                f"`to_c(fallback=...)`, `batch` and maps with memory need floating point. Got number={number!r}."
            )
        fixed, texts, report = make_fixed(
            map,
            name,
            number,
            verify=verify,
            period=period,
            max_error=max_error,
            processors=processors,
            n_vectors=n_vectors,
            rng=rng,
        )
        nothing = np.zeros_like(fixed.expected)
        artifact = _artifact(fixed, texts, fixed.inputs, fixed.expected, nothing, None)
        return dataclasses.replace(report, files=_placed(artifact, package, folder))
    math = ("own" if number == "float32" else "libm") if math is None else math
    if math not in get_args(Math) or (math == "own" and number != "float32"):
        raise ValueError(f"`to_c(math=...)` must be 'libm', or 'own' with number='float32'. Got {math!r}, {number!r}.")
    if undefined not in ("refuse", "allow"):
        raise ValueError(f"`to_c(undefined=...)` must be 'refuse' or 'allow'. Got {undefined!r}.")
    if undefined == "refuse":
        _refuse_undefined(map)
    guard = None if fallback is None else make_guard(map.inputs, map.outputs, fallback, outside, number)
    soft = not PROCESSORS[processors[0]].has_fpu
    own = own_functions(map.nodes, square_root=soft) if math == "own" else {}
    shape = cheapest(map, _price(number, own, verify, processors)) if regroup else Shape(map, False, 0.0)
    vectors = make_vectors(map, number, n_vectors, rng, shape.form, own)
    memory = None if stateful is None else memory_of(stateful, number)
    made = make_package(
        map,
        name,
        number,
        vectors,
        SELF_TEST_VECTORS,
        shipped=shape.form,
        own=own,
        guard=guard,
        memory=memory,
        period=period,
        batch=batch,
    )
    made.texts([])  # what the emitter refuses, it refuses before anything is on disk
    with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as hidden:
        report = _verified(made, vectors, verify, processors, Path(hidden))
        report = dataclasses.replace(
            report, regrouped=shape.regrouped, math=math if called_functions(map.nodes) else "none"
        )
        if max_error is not None and (found := float(vectors.expected.bound.max())) > max_error:
            raise ExportError(
                f"The rounding-error bound of `{map.name}` in {number} is {found:.3g}, over `max_error={max_error:g}`. "
                "Use float64, narrower input ranges, or a map with smaller intermediate values."
            )
        # the last gate: the very bytes that will be in place, with their own self-test
        texts = made.texts(verification_lines(report))
        if report.verified != "none":
            _pass_self_test(made, host_compiler(), write_texts(texts, Path(hidden)))
    artifact = _artifact(made, texts, made.inputs, made.expected, made.tolerance, stateful)
    return dataclasses.replace(report, files=_placed(artifact, package, folder))


def _artifact(
    made: Package | FixedPackage,
    texts: Mapping[str, str],
    inputs: NDArray[Any],
    expected: NDArray[Any],
    tolerance: NDArray[Any],
    stateful: StatefulMap | None,
) -> Artifact:
    return Artifact(
        made.name,
        made.form,
        made.number,
        texts,
        inputs,
        expected,
        tolerance,
        made.period,
        library_version(),
        made.form.digest(),
        () if stateful is None else tuple(signal.name for signal in stateful.states),
        () if stateful is None else stateful.initial,
    )


def _placed(artifact: Artifact, package: str | None, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    files = artifact.texts if package is None else target_files(artifact, package)
    return place_files(files, folder, argument="to_c(folder=...)")


def _check_arguments(
    map: object, number: str, verify: str | None, n_vectors: int, processors: Sequence[str], package: str | None
) -> None:
    if not isinstance(map, SymbolicMap):
        hint = " Call its `.symbolic()` first." if hasattr(map, "symbolic") else ""
        raise TypeError(f"`to_c(map=...)` must be a SymbolicMap or a StatefulMap. Got {type(map).__name__}.{hint}")
    if number not in TYPES and number not in FIXED:
        raise ValueError(f"`to_c(number=...)` must be one of {', '.join([*TYPES, *FIXED])}. Got {number!r}.")
    if verify is not None and verify not in get_args(Verify):
        raise ValueError(f"`to_c(verify=...)` must be one of {', '.join(get_args(Verify))} or None. Got {verify!r}.")
    if n_vectors < 1:
        raise ValueError(f"`to_c(n_vectors=...)` must be at least 1. Got {n_vectors}.")
    if package is not None and package not in TARGETS:
        raise ValueError(f"`to_c(package=...)` must be one of {', '.join(TARGETS)}. Got {package!r}.")
    if not processors or any(each not in PROCESSORS for each in processors):
        raise ValueError(f"`to_c(processors=...)` must be some of {', '.join(PROCESSORS)}. Got {list(processors)}.")


def _refuse_undefined(map: SymbolicMap) -> None:
    suspects = map.undefined()
    if not suspects:
        return
    shown = "; ".join(short_text(node) for node in suspects[:3]) + ("; ..." if len(suspects) > 3 else "")
    ranges = ", ".join(f"{signal.name} in [{signal.lower:g}, {signal.upper:g}]" for signal in map.inputs)
    raise ValueError(
        f"`{map.name}` cannot be shown to be defined for {ranges}: {shown}. Narrow the ranges of its inputs "
        '(`Signal(lower=..., upper=...)`), keep the argument away with `clip`, or pass `undefined="allow"`, and the '
        "header will say so."
    )


def _price(
    number: Number, own: Mapping[str, Elementary], verify: Verify | None, processors: Sequence[str]
) -> Callable[[SymbolicMap], float] | None:
    """Instructions on the first processor where they can be measured; None counts operations instead."""
    if verify not in (None, "emulate") or not has_emulator():
        return None

    def price(form: SymbolicMap) -> float:
        with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as folder:
            source = Path(folder) / "shape.c"
            source.write_text(implementation(form, "shape", number, own), encoding="utf-8")
            inputs = make_vectors(form, number, _SHAPE_VECTORS, np.random.default_rng(0)).inputs
            try:
                image = build_image(source, "shape", PROCESSORS[processors[0]])
            except EmulationUnavailable:
                return operations(form)
            return float(execute(image, inputs[:_SHAPE_VECTORS], len(form.outputs)).instructions.max())

    return price


def _verified(
    package: Package, vectors: Vectors, verify: Verify | None, processors: Sequence[str], hidden: Path
) -> ExportReport:
    """Verify as asked; by default as far as possible, with a note on what was in the way."""
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
        warnings.warn(f"The exported C was not verified. {error}", stacklevel=4)
        return dataclasses.replace(report, note="there was no C compiler on the exporting machine")
    source = write_texts(package.texts(["Being verified."]), hidden)[1]
    report, outputs = _compiled(package, vectors, compiler, source, report)
    if verify == "compile":
        return report
    try:
        report = _emulated(package, vectors, source, processors, report)
    except (ImportError, EmulationUnavailable) as error:
        if verify == "emulate":
            raise
        return dataclasses.replace(report, note=str(error))
    return dataclasses.replace(report, compilers_agree=_second_compiler(package, vectors, source, outputs))


def _compiled(
    package: Package, vectors: Vectors, compiler: Compiler, source: Path, report: ExportReport
) -> tuple[ExportReport, NDArray[Any]]:
    form = package.form
    library = build_library(compiler, source)
    outputs, hostile = (
        call(library, package.name, rows, len(form.outputs)) for rows in (vectors.inputs, vectors.hostile)
    )
    where = f"The C compiled by {compiler.version}"
    agreement = compare(form, vectors, outputs, hostile, where)
    if package.guard is not None:
        compare_guarded(library, package.name, package.guard, vectors, np.concatenate([outputs, hostile]), where)
    if package.batch:
        compare_batch(library, package.name, vectors.inputs, outputs, where)
    if package.memory is not None:
        compare_steps(library, package.name, package.memory, vectors.inputs[-_STEPS:], where)
    report = dataclasses.replace(
        report, verified="compiled", matches=True, host_compiler=compiler.version, **dataclasses.asdict(agreement)
    )
    return report, np.concatenate([outputs, hostile])


def _second_compiler(package: Package, vectors: Vectors, source: Path, expected: NDArray[Any]) -> bool | None:
    """Whether zig's clang gives the same bits on this machine; ExportError where bits are defined and differ."""
    if not vectors.bitwise:
        return None
    with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file in (source, source.with_suffix(".h")):
            shutil.copy(file, folder)
        library = build_library(zig_compiler(), folder / source.name)
        rows = np.concatenate([vectors.inputs, vectors.hostile])
        found = call(library, package.name, rows, len(package.form.outputs))
    if not same_bits(found, expected).all():
        row = rows[np.argwhere(~same_bits(found, expected))[0][0]]
        raise ExportError(f"{zig_version()} and the host's compiler disagree about `{package.name}` at {row}.")
    return True


def _emulated(
    package: Package, vectors: Vectors, source: Path, processors: Sequence[str], report: ExportReport
) -> ExportReport:
    """Execute on each processor. Where bits are defined ``compare`` demands NumPy's, which the host gave too."""
    found = []
    for processor in processors:
        image = build_image(source, package.name, PROCESSORS[processor])
        n_outputs = len(package.form.outputs)
        one_call = int(execute(image, vectors.inputs[:1], n_outputs).instructions[0])
        few = subset(vectors, max(8, min(_EMULATED_VECTORS, _EMULATED_INSTRUCTIONS // one_call)))
        execution = execute(image, np.concatenate([few.inputs, few.hostile]), n_outputs)
        regular, hostile = np.split(execution.outputs, [len(few.inputs)])
        compare(package.form, few, regular, hostile, f"The C on an emulated {image.processor.name}")
        found.append(figures(image, execution))
    return dataclasses.replace(report, verified="emulated", cross_compiler=zig_version(), processors=tuple(found))


def _pass_self_test(package: Package, compiler: Compiler, paths: tuple[Path, ...]) -> None:
    code = run_self_test(compiler, paths[1:], package.self_test_macro)
    if code != 0:
        raise ExportError(f"The self-test of `{package.name}` ended with exit code {code} on this machine.")
