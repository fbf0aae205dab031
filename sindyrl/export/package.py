"""``to_c``: a map as a C package, verified before it is in place."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sindyrl.backends.c import CompilerNotFound
from sindyrl.emit.c import TYPES, Number
from sindyrl.export.check import Vectors, call, compare, make_vectors, subset
from sindyrl.export.emulate import EmulationUnavailable, Execution, Image, build_image, execute, require_emulator
from sindyrl.export.source import MARK, Package, check_package_name, make_package
from sindyrl.export.toolchain import Compiler, ExportError, build_library, host_compiler, run_self_test, zig_version
from sindyrl.symbolic_map import SymbolicMap

Verify = Literal["emulate", "compile", "none"]
Verified = Literal["emulated", "compiled", "none"]

SELF_TEST_VECTORS = 16
_EMULATED_VECTORS = 200
_EMULATED_INSTRUCTIONS = 400_000  # about half a second of emulation; fewer vectors if a call is long


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written and what was found. Figures that were not measured are None.

    verified : "compiled" (and compared on this machine), "emulated" (and executed on an emulated Cortex-M4F), or "none"
    matches : compared and within the bound on every vector; False only if nothing was verified (a mismatch raises)
    max_error, error_bound, max_ulp, overflows, bitwise : see :class:`sindyrl.export.check.Agreement`
    c_bytes : .text and .rodata on the Cortex-M4F      library_bytes : what a libm adds (zig's), 0 if none is needed
    m4_instructions, m4_instructions_min : most and fewest per call, function entry to return, over the vectors
    m4_library_instructions : the largest part of them spent in libm      stack_bytes : deepest stack written
    note : why less was verified than could be, else empty
    """

    name: str
    number: Number
    files: tuple[Path, ...]
    verified: Verified
    matches: bool
    vectors: int = 0
    max_error: float | None = None
    error_bound: float | None = None
    max_ulp: float | None = None
    bitwise: bool | None = None
    overflows: int | None = None
    c_bytes: int | None = None
    library_bytes: int | None = None
    m4_instructions: int | None = None
    m4_instructions_min: int | None = None
    m4_library_instructions: int | None = None
    stack_bytes: int | None = None
    host_compiler: str | None = None
    cross_compiler: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: files become strings."""
        return dataclasses.asdict(self) | {"files": [str(file) for file in self.files]}


def to_c(
    map: SymbolicMap,
    folder: str | os.PathLike[str],
    *,
    number: Number = "float32",
    name: str | None = None,
    verify: Verify | None = None,
    n_vectors: int = 1000,
    rng: np.random.Generator | None = None,
) -> ExportReport:
    """Write ``NAME.h``, ``NAME.c`` and ``NAME_selftest.c``: ``void NAME(const float state[n], float out[m])``.

        report = to_c(policy, "firmware/")
        report.m4_instructions, report.max_error

    name : of function and files; by default the map's (a map called "map" becomes "closed_form").
    verify : "compile" compiles with warnings as errors and compares with the map on ``n_vectors`` random and some edge
        vectors; "emulate" also executes on an emulated Cortex-M4F; "none" only writes. By default the most that this
        machine can do. The header says which.
    rng : for the vectors; the default is fixed, so that equal maps give equal bytes.

    Nothing is in place until everything agreed, and other files in the folder stay as they are.

    Raises ValueError for a name C cannot have or a constant beyond float32, CompilerNotFound, ImportError naming the
    extra if the emulator is asked for and missing, and ExportError if compiling, comparing or writing fails.
    """
    _check_arguments(map, number, verify, n_vectors)
    if name is None:
        name = "closed_form" if map.name == "map" else map.name
    vectors = make_vectors(map, number, n_vectors, np.random.default_rng(0) if rng is None else rng)
    package = make_package(map, check_package_name(name), number, vectors, SELF_TEST_VECTORS)
    package.texts([])  # what the emitter refuses, it refuses before anything is on disk
    target = Path(folder)
    with _workshop(target, package.file_names) as workshop:
        report = _verified(package, vectors, verify, workshop)
        # the last gate: the very bytes that will be in place, with their own self-test
        paths = _write(package.texts(_verification(report)), workshop)
        if report.verified != "none":
            _pass_self_test(package, host_compiler(), paths)
        files = _put_in_place(paths, target)
    return dataclasses.replace(report, files=files)


def _check_arguments(map: object, number: str, verify: str | None, n_vectors: int) -> None:
    if not isinstance(map, SymbolicMap):
        hint = " Call its `.symbolic()` first." if hasattr(map, "symbolic") else ""
        raise TypeError(f"`to_c(map=...)` must be a SymbolicMap. Got {type(map).__name__}.{hint}")
    if number not in TYPES:
        raise ValueError(f"`to_c(number=...)` must be one of {', '.join(TYPES)}. Got {number!r}.")
    if verify is not None and verify not in get_args(Verify):
        raise ValueError(f"`to_c(verify=...)` must be one of {', '.join(get_args(Verify))} or None. Got {verify!r}.")
    if n_vectors < 1:
        raise ValueError(f"`to_c(n_vectors=...)` must be at least 1. Got {n_vectors}.")


def _verified(package: Package, vectors: Vectors, verify: Verify | None, workshop: Path) -> ExportReport:
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
    source = _write(package.texts(["Being verified."]), workshop)[1]
    report = _compiled(package, vectors, compiler, source, report)
    if verify == "compile":
        return report
    try:
        return _emulated(package, vectors, source, report)
    except (ImportError, EmulationUnavailable) as error:
        if verify == "emulate":
            raise
        return dataclasses.replace(report, note=str(error))


def _compiled(
    package: Package, vectors: Vectors, compiler: Compiler, source: Path, report: ExportReport
) -> ExportReport:
    form = package.form
    library = build_library(compiler, source)
    outputs, hostile = (
        call(library, package.name, rows, len(form.outputs)) for rows in (vectors.inputs, vectors.hostile)
    )
    agreement = compare(form, vectors, outputs, hostile, f"The C compiled by {compiler.version}")
    return dataclasses.replace(
        report, verified="compiled", matches=True, host_compiler=compiler.version, **dataclasses.asdict(agreement)
    )


def _emulated(package: Package, vectors: Vectors, source: Path, report: ExportReport) -> ExportReport:
    """Execute on the Cortex-M4F. Where bits are defined ``compare`` demands NumPy's, which the host gave too."""
    image = build_image(source, package.name)
    n_outputs = len(package.form.outputs)
    one_call = int(execute(image, vectors.inputs[:1], n_outputs).instructions[0])
    few = subset(vectors, max(8, min(_EMULATED_VECTORS, _EMULATED_INSTRUCTIONS // one_call)))
    execution = execute(image, np.concatenate([few.inputs, few.hostile]), n_outputs)
    regular, hostile = np.split(execution.outputs, [len(few.inputs)])
    compare(package.form, few, regular, hostile, f"The C on an emulated {image.processor.name}")
    return dataclasses.replace(report, verified="emulated", cross_compiler=zig_version(), **_sizes(image, execution))


def _sizes(image: Image, execution: Execution) -> dict[str, Any]:
    return {
        "c_bytes": image.code_bytes,
        "library_bytes": image.library_bytes,
        "m4_instructions": int(execution.instructions.max()),
        "m4_instructions_min": int(execution.instructions.min()),
        "m4_library_instructions": int(execution.library_instructions.max()),
        "stack_bytes": execution.stack_bytes,
    }


def _verification(report: ExportReport) -> list[str]:
    """What the header says about checking."""
    if report.verified == "none":
        return [f"Not verified: {report.note}."]
    kind = TYPES[report.number]
    lines = [
        f"Verified: compiled by {report.host_compiler} with warnings as errors; compared with the map in float64 on "
        f"{report.vectors} vectors: largest error {report.max_error:.2g} ({report.max_ulp:.3g} ulp), "
        f"rounding-error bound {report.error_bound:.2g}."
    ]
    if report.bitwise:
        lines.append(
            f"Every bit equals NumPy's in {kind} and in the same order, NaN, infinite and denormal inputs included."
        )
    if report.overflows:
        lines.append(f"On {report.overflows} of these vectors the value is beyond {kind} although the map's is finite.")
    if report.verified == "emulated":
        lines.append(_emulation(report))
    elif report.note:
        lines.append(f"Not executed on an emulated processor: {report.note.rstrip('.')}.")
    return lines


def _emulation(report: ExportReport) -> str:
    fewest, most = report.m4_instructions_min, report.m4_instructions
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    libm = f" (up to {report.m4_library_instructions} of them in libm)" if report.m4_library_instructions else ""
    return (
        f"Executed on an emulated Cortex-M4F, compiled by {report.cross_compiler} -O2: "
        f"{count} instructions per call{libm}, "
        f"{report.c_bytes} bytes of code and constants, {report.stack_bytes} bytes of stack."
    )


def _pass_self_test(package: Package, compiler: Compiler, paths: tuple[Path, ...]) -> None:
    code = run_self_test(compiler, paths[1:], package.self_test_macro)
    if code != 0:
        raise ExportError(f"The self-test of `{package.name}` ended with exit code {code} on this machine.")


def _write(texts: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    paths = tuple(folder / name for name in texts)
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8", newline="\n")
    return paths


@contextmanager
def _workshop(target: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder inside ``target``, hence on its file system. Folders made for it go again if left empty."""
    created = [path for path in (target, *target.parents) if not path.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(target, names)
        workshop = Path(tempfile.mkdtemp(prefix=".sindyrl-", dir=target))
    except OSError as error:
        raise ExportError(f"`to_c(folder=...)` cannot be written: {error}. Choose another folder.") from error
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        for path in created:
            if any(path.iterdir()):
                break
            path.rmdir()


def _refuse_foreign(target: Path, names: tuple[str, ...]) -> None:
    """A file of this name that somebody else wrote stays."""
    for path in (target / name for name in names):
        if path.is_dir() or (path.exists() and MARK.encode() not in path.read_bytes()[:200]):
            raise ExportError(
                f"{path} exists and was not generated by sindyrl. Pass another `name=` or folder, or move it away."
            )


def _put_in_place(paths: tuple[Path, ...], target: Path) -> tuple[Path, ...]:
    """All files, or, if one cannot be replaced, those that were there before."""
    final = tuple(target / path.name for path in paths)
    previous = {path: path.read_bytes() for path in final if path.exists()}
    done: list[Path] = []
    try:
        for path, place in zip(paths, final, strict=True):
            os.replace(path, place)
            done.append(place)
    except BaseException as error:
        for place in done:
            if place in previous:
                place.write_bytes(previous[place])
            else:
                place.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ExportError(f"`to_c(folder=...)` cannot be written: {error}. Choose another folder.") from error
        raise
    return final
