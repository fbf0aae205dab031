"""Nanoseconds per call on this machine: a loop in C over an array of inputs, the generators taking turns."""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.peer_code import Code
from sindyrl.export.toolchain import ARITHMETIC, host_compiler

_HARNESS = """#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <time.h>
void entry(const T *in, T *out);
double run(const T *in, T *out, long rows, long repeats);
double run(const T *in, T *out, long rows, long repeats) {
    struct timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    for (long repeat = 0; repeat < repeats; repeat++) {
        for (long row = 0; row < rows; row++) {
            entry(in + row*N, out);
        }
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    return 1e9*(double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec);
}
"""


def nanoseconds_per_call(
    codes: Mapping[str, Code], inputs: NDArray[np.float64], n_outputs: int, *, rounds: int, milliseconds: float
) -> dict[str, tuple[float, float]]:
    """Method -> (median of ``rounds`` of processor time per call, seconds to compile).

    The shim of a peer is included, a caller needs it. Every measurement lasts about ``milliseconds``.
    """
    compiled = {}
    with tempfile.TemporaryDirectory(prefix="codegen-", ignore_cleanup_errors=True) as name:
        for number, (method, code) in enumerate(codes.items()):
            begin = time.perf_counter()
            library = _compiled(code, inputs.shape[1], Path(name) / str(number))
            compiled[method] = (library, time.perf_counter() - begin)
        arrays = {method: np.ascontiguousarray(code.encode(inputs)) for method, code in codes.items()}
        outputs = np.empty(n_outputs)  # room enough for every type

        def measure(method: str, repeats: int) -> float:
            source = arrays[method]
            spent = compiled[method][0].run(source.ctypes.data, outputs.ctypes.data, len(source), repeats)
            return float(spent) / (repeats * len(source))

        repeats = {method: max(1, int(milliseconds * 1e6 / (measure(method, 1) * len(inputs)))) for method in codes}
        found: dict[str, list[float]] = {method: [] for method in codes}
        for _ in range(rounds):
            for method in codes:
                found[method].append(measure(method, repeats[method]))
    return {method: (statistics.median(found[method]), compiled[method][1]) for method in codes}


def _compiled(code: Code, n_inputs: int, folder: Path) -> ctypes.CDLL:
    folder.mkdir()
    kind = {"float32": "float", "float64": "double", "int32": "int32_t"}[code.number]
    harness = (
        _HARNESS.replace("T *", f"{kind} *").replace("row*N", f"row*{n_inputs}").replace("entry(", f"{code.entry}(")
    )
    files = {**code.files, "harness.c": harness}
    if code.shim:
        files["shim.c"] = code.shim
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    sources = [code.source, "harness.c", *(["shim.c"] if code.shim else [])]
    host_compiler().run([*ARITHMETIC, "-w", "-shared", "-fPIC", *sources, "-o", "code.so", "-lm"], folder)
    library = ctypes.CDLL(str(folder / "code.so"))
    library.run.restype = ctypes.c_double
    library.run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    return library
