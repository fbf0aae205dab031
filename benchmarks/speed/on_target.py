"""Generated code on an emulated Cortex-M4F: one compiler, one set of flags and one C library for every generator.

As `sindyrl.export.emulate`, with two things that only peers need. Their functions of <math.h> come from zig's
compiler_rt, `pow` from the sources of musl in zig's wheel, `tanh` from zig's own C library. And where a peer's function
cannot be called with two pointers, a shim calls it, whose instructions are not counted.

zig compiles for a target without an operating system as a freestanding one, for which clang does not know <math.h>:
sqrtf would be a call. The header given to everybody restores what every hosted compiler does.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.peer_code import Code
from sindyrl.export.emulate import PROCESSORS, Image, execute
from sindyrl.export.toolchain import ARITHMETIC, ExportError, zig

PROCESSOR = PROCESSORS["cortex-m4f"]
FLAGS = (*ARITHMETIC, "-fno-math-errno", "-fomit-frame-pointer", "-g0")
_TARGET = ("-target", PROCESSOR.triple, f"-mcpu={PROCESSOR.cpu}")
_SILENT = ("-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-w")
_ONE = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "fabs")
_TWO = ("pow", "fmin", "fmax")
_POW = (
    *(
        f"{name}{suffix}"
        for name in ("pow", "__math_divzero", "__math_invalid", "__math_oflow")
        for suffix in ("", "f")
    ),
    *(f"{name}{suffix}" for name in ("__math_uflow", "__math_xflow") for suffix in ("", "f")),
    *("pow_data", "exp_data", "powf_data", "exp2f_data"),
)


@dataclasses.dataclass(frozen=True)
class Counted:
    """One function executed on many vectors.

    outputs : (vector, output)      instructions : (vector,) from the function's entry to its return, all it calls
    library : (vector,) those of them outside the generated source: libm and software floating point
    text_bytes : .text and .rodata of the generated source      library_bytes : what it makes the linker add
    shim : instructions of the shim around it, which are not in the others      stack_bytes : deepest written
    """

    outputs: NDArray[Any]
    instructions: NDArray[np.int64]
    library: NDArray[np.int64]
    text_bytes: int
    library_bytes: int
    shim: int
    stack_bytes: int


@dataclasses.dataclass(frozen=True)
class Built:
    """A linked image, and the addresses [first, last) of the shim, equal if there is none."""

    image: Image
    shim: tuple[int, int]


def build(code: Code) -> Built:
    """Compile and link. Raises ExportError with the linker's words if something is missing."""
    with tempfile.TemporaryDirectory(prefix="codegen-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file, text in {**code.files, "shim.c": code.shim, "math.h": _math_header()}.items():
            (folder / file).write_text(text, encoding="utf-8")
        sources = [code.source, *(["shim.c"] if code.shim else [])]
        objects = []
        for source in sources:
            objects.append(f"{Path(source).stem}.o")
            zig(["cc", *_TARGET, *FLAGS, *_SILENT, "-isystem", folder, "-c", source, "-o", objects[-1]], folder)
        missing = _undefined(folder / objects[0])
        objects += [str(path) for path in _libraries(frozenset(missing & {"pow", "powf", "tanh", "tanhf"}))]
        # without a need for compiler_rt there is no reason to wait for it
        nothing = ["-nostdlib"] if not missing else []
        link = ["cc", *_TARGET, "-O2", "-g0", *nothing, *objects, f"-Wl,--entry={code.entry}", "-o", "image.elf"]
        zig(link, folder)
        return _described(folder, code, objects[0])


def count(built: Built, inputs: NDArray[Any], n_outputs: int) -> Counted:
    """Execute on every row of ``inputs`` (vector, input), in the number type of the code."""
    execution = execute(built.image, inputs, n_outputs)
    shim = 0
    if built.shim[1] > built.shim[0]:
        # straight-line code, the same for every input
        once = execute(dataclasses.replace(built.image, own_code=built.shim), inputs[:1], n_outputs)
        shim = int(once.instructions[0] - once.library_instructions[0])
    return Counted(
        execution.outputs,
        execution.instructions - shim,
        execution.library_instructions - shim,
        built.image.code_bytes,
        built.image.library_bytes,
        shim,
        execution.stack_bytes,
    )


def _described(folder: Path, code: Code, first_object: str) -> Built:
    from elftools.elf.elffile import ELFFile

    elf = (folder / "image.elf").read_bytes()
    linked: Any = ELFFile(io.BytesIO(elf))
    symbols = linked.get_section_by_name(".symtab")

    def span(function: str) -> tuple[int, int]:
        symbol = symbols.get_symbol_by_name(function)[0]
        start = symbol["st_value"] & ~1
        return start, start + symbol["st_size"]

    text, constants = _sizes(folder / first_object)
    first = linked.get_section_by_name(".text")["sh_addr"]  # of the first object on the linker's command line
    function, entry = span(code.function), span(code.entry)
    assert first <= function[0] < first + text
    shim = entry if code.shim else (0, 0)
    everything = sum(_sizes(folder / "image.elf"))
    shims = sum(_sizes(folder / "shim.o")) if code.shim else 0
    own = text + constants
    image = Image(
        elf=elf,
        function=code.entry,
        processor=PROCESSOR,
        entry=entry[0],
        own_code=(first, first + text),
        code_bytes=own,
        library_bytes=max(everything - own - shims, 0),
        data_bytes=0,
    )
    return Built(image, shim)


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of .text and of .rodata."""
    from elftools.elf.elffile import ELFFile

    sizes = {".text": 0, ".rodata": 0}
    with path.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            for prefix in sizes:
                if section.name == prefix or section.name.startswith(prefix + "."):
                    sizes[prefix] += section["sh_size"]
    return sizes[".text"], sizes[".rodata"]


def _undefined(path: Path) -> set[str]:
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}


def _math_header() -> str:
    lines = ["/* <math.h> of a target without a C library; clang knows these functions as on any hosted one */"]
    for kind, suffix in (("float", "f"), ("double", "")):
        for name in _ONE:
            lines += [f"{kind} {name}{suffix}({kind});", f"#define {name}{suffix}(a) __builtin_{name}{suffix}(a)"]
        for name in _TWO:
            lines += [f"{kind} {name}{suffix}({kind}, {kind});"]
            lines += [f"#define {name}{suffix}(a, b) __builtin_{name}{suffix}(a, b)"]
    return "\n".join(["#ifndef BENCH_MATH_H", "#define BENCH_MATH_H", *lines, "#endif", ""])


@functools.lru_cache(maxsize=8)
def _libraries(names: frozenset[str]) -> tuple[Path, ...]:
    """Objects of the functions that compiler_rt lacks, compiled once for this process."""
    paths: list[Path] = []
    if names & {"pow", "powf"}:
        paths += _pow_objects()
    if names & {"tanh", "tanhf"}:
        paths += [_tanh_object()]
    return tuple(paths)


@functools.lru_cache(maxsize=1)
def _kept() -> tempfile.TemporaryDirectory[str]:
    """A folder that lives as long as this process."""
    return tempfile.TemporaryDirectory(prefix="codegen-libraries-", ignore_cleanup_errors=True)


def _pow_objects() -> list[Path]:
    import ziglang

    library = Path(ziglang.__file__).parent / "lib" / "libc"
    source = library / "musl" / "src" / "math"
    if not (source / "pow.c").is_file():
        raise ExportError("needs pow, which this version of zig's wheel has no source of")
    headers = [library / "musl" / part for part in ("arch/arm", "arch/generic", "src/include", "src/internal")]
    headers += [library / part for part in ("include/arm-linux-musl", "include/generic-musl", "musl/include")]
    include = [item for path in headers for item in ("-isystem", path)]
    folder = Path(_kept().name)
    flags = [*_TARGET, *FLAGS, *_SILENT, "-D_XOPEN_SOURCE=700", "-nostdinc", *include]
    zig(["cc", *flags, "-c", *(source / f"{name}.c" for name in _POW)], folder)
    return [folder / f"{name}.o" for name in _POW]


def _tanh_object() -> Path:
    from sindyrl.export.emulate import _TANH_ZIG

    folder = Path(_kept().name)
    (folder / "tanh.zig").write_text(_TANH_ZIG, encoding="ascii")
    # ReleaseFast: a library built for speed, as a vendor's is
    zig(["build-obj", *_TARGET, "-O", "ReleaseFast", "-fstrip", "tanh.zig", "-femit-bin=tanh.o"], folder)
    return folder / "tanh.o"
