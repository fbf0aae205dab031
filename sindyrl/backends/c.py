"""Evaluation by C compiled on this machine: the emitter's function, called through ctypes on whole batches."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sindyrl.backends import ClosedForm, check_count
from sindyrl.emit.c import TYPES, Number, c_function, math_functions

Array = NDArray[np.floating]

FLAGS = ("-O2", "-std=c99", "-ffp-contract=off", "-fno-fast-math", "-shared")
COMPILE_SECONDS = 300.0

_folder: tempfile.TemporaryDirectory[str] | None = None  # removed when the process ends
_loaded: dict[str, ctypes.CDLL] = {}
_compiling = threading.Lock()  # two threads must not write the same file


class CompilerNotFound(RuntimeError):
    """No C compiler on this machine; the message says how to get one."""


class CompilationFailed(RuntimeError):
    """The compiler refused the code or ran out of time; the message holds what it said."""


def find_compiler() -> list[str]:
    """Command of the C compiler: the environment variable CC, else cc, gcc, clang, else the ``ziglang`` package's."""
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen and shutil.which(chosen[0]):
        return chosen
    for command in ("cc", "gcc", "clang"):
        path = shutil.which(command)
        if path:
            return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise CompilerNotFound(
        "No C compiler was found (CC, cc, gcc, clang). Install one with the system's package manager, "
        'or run `pip install "sindyrl[embedded]"`, which brings one.'
    )


def source(form: ClosedForm, number: Number = "float64") -> str:
    """The C file behind :func:`rows`: the emitted function and a loop over rows."""
    outputs = dict(zip(form.output_names, form.nodes, strict=True))
    function = c_function(form.input_names, outputs, "evaluate_row", number=number)
    kind, n, m = TYPES[number], len(form.input_names), len(form.output_names)
    include = "#include <math.h>\n\n" if math_functions(form.nodes, number=number) else ""
    export = "#ifdef _WIN32\n__declspec(dllexport)\n#endif\n"
    batch = (
        f"void evaluate_rows(long long count, const {kind} *in, {kind} *out) {{\n"
        f"    for (long long row = 0; row < count; row++) {{\n"
        f"        evaluate_row(in + row*{n}, out + row*{m});\n"
        f"    }}\n"
        f"}}\n"
    )
    prototype = f"void evaluate_rows(long long count, const {kind} *in, {kind} *out);\n"
    return f"{include}static {function}\n{prototype}\n{export}{batch}"


def rows(form: ClosedForm, number: Number = "float64") -> Callable[[ArrayLike], Array]:
    """Return ``evaluate(x) -> y``, x (..., n_inputs), y (..., n_outputs), both of type ``number``.

    Raises CompilerNotFound or CompilationFailed. Compiled once per process and source text.
    """
    evaluate_rows = _load(source(form, number)).evaluate_rows
    evaluate_rows.restype = None
    evaluate_rows.argtypes = [ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p]
    n, m, dtype = len(form.input_names), len(form.output_names), np.dtype(number)

    def evaluate(x: ArrayLike) -> Array:
        given = np.ascontiguousarray(x, dtype=dtype)
        if given.ndim == 0 or given.shape[-1] != n:
            raise ValueError(f"`{form.name}` takes arrays of shape (..., {n}). Got {given.shape}.")
        result = np.empty((*given.shape[:-1], m), dtype=dtype)
        count = result.size // m if m else 0
        evaluate_rows(count, given.ctypes.data, result.ctypes.data)
        return result

    return evaluate


def columns(form: ClosedForm, number: Number = "float64") -> Callable[[Sequence[ArrayLike]], list[Array]]:
    """Return ``evaluate(input columns) -> output columns``, all outputs broadcast to the inputs' common shape."""
    evaluate_rows = rows(form, number)
    dtype = np.dtype(number)

    def evaluate(inputs: Sequence[ArrayLike]) -> list[Array]:
        check_count(form, len(inputs))
        arrays = np.broadcast_arrays(*(np.asarray(column, dtype=dtype) for column in inputs))
        stacked = np.stack(arrays, axis=-1) if arrays else np.empty((0,), dtype=dtype)
        result = evaluate_rows(stacked)
        return [np.ascontiguousarray(result[..., index]) for index in range(result.shape[-1])]

    return evaluate


def _load(text: str) -> ctypes.CDLL:
    command = find_compiler()
    digest = hashlib.sha256("\0".join([*command, *FLAGS, text]).encode()).hexdigest()
    with _compiling:
        if digest not in _loaded:
            _loaded[digest] = ctypes.CDLL(str(_compile(command, text, digest)))
        return _loaded[digest]


def _compile(command: Sequence[str], text: str, digest: str) -> Path:
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True)
    file = Path(_folder.name) / f"{digest[:32]}.c"
    library = file.with_suffix(".dll" if os.name == "nt" else ".so")
    file.write_text(text, encoding="ascii")
    position = () if os.name == "nt" else ("-fPIC",)
    arguments = [*command, *FLAGS, *position, "-o", str(library), str(file), *(() if os.name == "nt" else ("-lm",))]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=COMPILE_SECONDS, cwd=_folder.name)
    except subprocess.TimeoutExpired:
        raise CompilationFailed(f"`{command[0]}` did not finish within {COMPILE_SECONDS:g} seconds.") from None
    if done.returncode != 0:
        raise CompilationFailed(f"`{shlex.join(arguments)}` failed:\n{done.stderr[-4000:]}")
    return library
