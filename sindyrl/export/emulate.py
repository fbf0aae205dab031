"""Running exported C on an emulated microcontroller: exact instruction counts, and the bits that chip would return.

zig's clang compiles for the chip, unicorn executes the function from its first instruction to its return; the caller
is not counted. Instructions, not cycles: no emulator at hand is cycle-accurate, and an instruction that an IT block
skips is not counted although the core spends a cycle on it.

A new processor is one row in :data:`PROCESSORS`.
"""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sindyrl.export.toolchain import ARITHMETIC, ExportError, has_zig, zig

STACK_TOP = 0x2001_0000
STACK_BYTES = 0x1_0000
_INPUTS, _OUTPUTS = 0x3000_0000, 0x3010_0000
_DATA_BYTES = 0x20_0000
_RETURN = 0x0F00_0000
_PAINT = 0xA5
_CALL_MICROSECONDS = 20_000_000


@dataclasses.dataclass(frozen=True)
class Processor:
    """What to compile for and what to execute on.

    cpu : zig's name. The FPU feature has to be named, or arithmetic goes soft without a word.
    model : unicorn's name of the same core, which decides which instructions exist. riscv : RV32 instead of ARM Thumb
    """

    name: str
    triple: str
    cpu: str
    model: str
    has_fpu: bool
    riscv: bool = False

    @property
    def target(self) -> list[str]:
        """Options of zig's compiler that select this processor."""
        # zig derives the ABI of ARM from the triple; for RISC-V it has to be told
        abi = ["-mabi=ilp32f" if self.has_fpu else "-mabi=ilp32"] if self.riscv else []
        return ["-target", self.triple, f"-mcpu={self.cpu}", *abi]


PROCESSORS = {
    row.name: row
    for row in (
        Processor("cortex-m0", "thumb-freestanding-eabi", "cortex_m0", "UC_CPU_ARM_CORTEX_M0", has_fpu=False),
        Processor("cortex-m3", "thumb-freestanding-eabi", "cortex_m3", "UC_CPU_ARM_CORTEX_M3", has_fpu=False),
        Processor(
            "cortex-m4f", "thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp", "UC_CPU_ARM_CORTEX_M4", has_fpu=True
        ),
        Processor(
            "cortex-m7", "thumb-freestanding-eabihf", "cortex_m7+fp_armv8d16sp", "UC_CPU_ARM_CORTEX_M7", has_fpu=True
        ),
        # such as the ESP32-C3, and the same with a floating-point unit
        Processor(
            name="rv32imc",
            triple="riscv32-freestanding",
            cpu="generic_rv32+m+c",
            model="UC_CPU_RISCV32_SIFIVE_E31",
            has_fpu=False,
            riscv=True,
        ),
        Processor(
            name="rv32imafc",
            triple="riscv32-freestanding",
            cpu="generic_rv32+m+a+f+c",
            model="UC_CPU_RISCV32_SIFIVE_U34",
            has_fpu=True,
            riscv=True,
        ),
    )
}


class EmulationUnavailable(ExportError):
    """The function needs something of the C library that the emulated target does not have."""


class ProcessorFault(ExportError):
    """The emulated processor met an instruction or an address it does not have."""


@dataclasses.dataclass(frozen=True)
class Image:
    """One compiled function.

    code_bytes : .text and .rodata of the source itself      library_bytes : what the C library's functions add
    data_bytes : .data and .bss of the whole image, static RAM
    entry : address of the function      own_code : [first, last) addresses of the source's own instructions
    """

    elf: bytes
    function: str
    processor: Processor
    entry: int
    own_code: tuple[int, int]
    code_bytes: int
    library_bytes: int
    data_bytes: int


@dataclasses.dataclass(frozen=True)
class Execution:
    """Results of calls on the emulated processor.

    outputs : (call, output)      instructions : (call,), function entry to return, library functions included
    library_instructions : (call,), those spent outside the source's own code      stack_bytes : deepest stack written
    """

    outputs: NDArray[Any]
    instructions: NDArray[np.int64]
    library_instructions: NDArray[np.int64]
    stack_bytes: int


def has_emulator() -> bool:
    """Whether zig, unicorn and pyelftools are installed."""
    try:
        import elftools  # noqa: F401
        import unicorn  # noqa: F401
    except ImportError:
        return False
    return has_zig()


def require_emulator() -> None:
    """ImportError naming the extra unless zig, unicorn and pyelftools are installed."""
    if not has_emulator():
        raise ImportError(
            'Emulation needs ziglang, unicorn and pyelftools: `pip install "sindyrl[embedded]"`; '
            'or pass `verify="compile"`, which needs a C compiler only.'
        )


def build_image(source: Path, function: str, processor: Processor = PROCESSORS["cortex-m4f"]) -> Image:
    """Compile one C file (headers beside it) for a processor and link it with what it needs of the C library.

    Raises EmulationUnavailable naming the functions needed if linking fails. Only + - * / sqrt, comparisons and
    tables need nothing; sinf and the like come from zig's compiler_rt, whose first use compiles it (several seconds).
    """
    require_emulator()
    with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        compiled = _compile(source.resolve(), processor, folder)
        missing = _undefined(compiled)
        libraries = _libraries(missing, processor, folder)
        link = ["cc", *processor.target, "-O2", "-g0", compiled.name, *libraries]
        link += [f"-Wl,--entry={function}", "-o", "image.elf"]
        try:
            zig(link, folder)
        except ExportError as error:
            names = ", ".join(sorted(missing)) or "nothing"
            raise EmulationUnavailable(
                f"emulation is not available: zig could not link the function, which needs {names}; "
                'pass `verify="compile"`'
            ) from error
        return _describe((folder / "image.elf").read_bytes(), compiled.read_bytes(), function, processor)


def execute(image: Image, inputs: NDArray[Any], n_outputs: int, processor: Processor | None = None) -> Execution:
    """Call ``void function(const T *in, T *out)`` once per row of ``inputs`` (call, input), T the type of ``inputs``.

    processor : execute on another one than the image was compiled for. Raises :class:`ProcessorFault`.
    """
    require_emulator()
    machine = _Machine(image, processor or image.processor)
    outputs = np.empty((len(inputs), n_outputs), inputs.dtype)
    counts = np.empty((len(inputs), 2), np.int64)
    for row, values in enumerate(np.ascontiguousarray(inputs)):
        raw, counts[row, 0], counts[row, 1] = machine.call(values.tobytes(), n_outputs * inputs.itemsize)
        outputs[row] = np.frombuffer(raw, inputs.dtype)
    return Execution(outputs, counts[:, 0].copy(), counts[:, 1].copy(), machine.stack_bytes())


class _Machine:
    """Memory, registers and a counter around one unicorn engine."""

    def __init__(self, image: Image, processor: Processor) -> None:
        import unicorn
        from unicorn import arm_const, riscv_const

        self.image, self.processor = image, processor
        # UC_MODE_MCLASS would select unicorn's largest M core whatever model is asked for, and an "M0" would run
        # floating point. UC_MODE_THUMB alone honors the model.
        if processor.riscv:
            names: Any = riscv_const
            prefix, used = "UC_RISCV_REG_", ("A0", "A1", "SP", "RA", "PC")
            self.engine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        else:
            names = arm_const
            prefix, used = "UC_ARM_REG_", ("R0", "R1", "SP", "LR", "PC")
            self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.source, self.target, self.stack, self.link, self.at = (getattr(names, prefix + each) for each in used)
        self.thumb = 0 if processor.riscv else 1
        self.engine.ctl_set_cpu_model(getattr(names, processor.model))
        self._load()
        # as startup code does
        if processor.has_fpu and processor.riscv:  # the FS field of mstatus
            self.engine.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 3 << 13)
        elif processor.has_fpu:  # access to coprocessors 10 and 11 in CPACR, then the enable bit
            self.engine.reg_write(arm_const.UC_ARM_REG_C1_C0_2, 0xF << 20)
            self.engine.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
        self.total = self.own = 0
        self.engine.hook_add(unicorn.UC_HOOK_CODE, self._count)
        self.fault_type = unicorn.UcError

    def _load(self) -> None:
        from elftools.elf.elffile import ELFFile

        segments = [part for part in ELFFile(io.BytesIO(self.image.elf)).iter_segments() if part["p_type"] == "PT_LOAD"]
        end = max(part["p_vaddr"] + part["p_memsz"] for part in segments)
        self.engine.mem_map(0, -(-end // 0x1000) * 0x1000)
        for part in segments:
            self.engine.mem_write(part["p_vaddr"], part.data())
        self.engine.mem_map(_RETURN, 0x1000)
        self.engine.mem_map(_INPUTS, _DATA_BYTES)
        self.engine.mem_map(STACK_TOP - STACK_BYTES, STACK_BYTES)
        self.engine.mem_write(STACK_TOP - STACK_BYTES, bytes([_PAINT]) * STACK_BYTES)

    def _count(self, engine: Any, address: int, size: int, user: Any) -> None:
        self.total += 1
        first, last = self.image.own_code
        self.own += first <= address < last

    def call(self, inputs: bytes, output_bytes: int) -> tuple[bytes, int, int]:
        """Returned bytes, instructions, and those outside the function's own code."""
        write = self.engine.reg_write
        self.engine.mem_write(_INPUTS, inputs)
        write(self.source, _INPUTS)
        write(self.target, _OUTPUTS)
        write(self.stack, STACK_TOP)
        write(self.link, _RETURN | self.thumb)
        self.total = self.own = 0
        try:
            self.engine.emu_start(self.image.entry | self.thumb, _RETURN, timeout=_CALL_MICROSECONDS)
        except self.fault_type as error:
            raise ProcessorFault(self._fault(str(error))) from error
        at = self.engine.reg_read(self.at)
        if at != _RETURN:
            raise ProcessorFault(f"`{self.image.function}` had not returned after 20 s; it was at {at:#x}.")
        return bytes(self.engine.mem_read(_OUTPUTS, output_bytes)), self.total, self.total - self.own

    def _fault(self, reason: str) -> str:
        at = self.engine.reg_read(self.at)
        text = f"`{self.image.function}` stopped on {self.processor.name} at {at:#x}: {reason}."
        if self.image.processor.has_fpu and not self.processor.has_fpu:
            text += (
                f" It was compiled for {self.image.processor.name}; {self.processor.name} has no floating-point unit."
            )
        return text

    def stack_bytes(self) -> int:
        stack = np.frombuffer(self.engine.mem_read(STACK_TOP - STACK_BYTES, STACK_BYTES), np.uint8)
        touched = np.flatnonzero(stack != _PAINT)
        return int(STACK_BYTES - touched[0]) if len(touched) else 0


def _compile(source: Path, processor: Processor, folder: Path) -> Path:
    (folder / "math.h").write_text(_MATH_H, encoding="ascii")
    # -fno-math-errno: sqrtf is an instruction here, and errno would need a call.
    flags = [*ARITHMETIC, "-fno-math-errno", "-fomit-frame-pointer", "-g0"]
    flags += ["-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]
    zig(["cc", *processor.target, *flags, "-isystem", folder, "-c", source, "-o", "function.o"], folder)
    return folder / "function.o"


def _libraries(missing: Iterable[str], processor: Processor, folder: Path) -> list[str]:
    """What to link: nothing if nothing is missing, else compiler_rt (zig's default) and the functions it lacks."""
    names = set(missing)
    if not names:
        return ["-nostdlib"]
    if not names & {"tanhf", "tanh"}:
        return []
    (folder / "tanh.zig").write_text(_TANH_ZIG, encoding="ascii")
    target = ["-target", processor.triple, f"-mcpu={processor.cpu}"]
    zig(["build-obj", *target, "-O", "ReleaseSmall", "-fstrip", "tanh.zig", "-femit-bin=tanh.o"], folder)
    return ["tanh.o"]


def _undefined(compiled: Path) -> set[str]:
    from elftools.elf.elffile import ELFFile

    table: Any = ELFFile(io.BytesIO(compiled.read_bytes())).get_section_by_name(".symtab")
    names = {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}
    return {name for name in names if not name.startswith("__aeabi_unwind")}


def _describe(elf: bytes, compiled: bytes, function: str, processor: Processor) -> Image:
    from elftools.elf.elffile import ELFFile

    linked: Any = ELFFile(io.BytesIO(elf))
    own, everything = (_sizes(file, (".text", ".rodata")) for file in (ELFFile(io.BytesIO(compiled)), linked))
    ram = sum(_sizes(linked, (".data", ".bss")))
    # the source's object is first on the linker's command line, hence first in .text
    first = linked.get_section_by_name(".text")["sh_addr"]
    entry = linked.get_section_by_name(".symtab").get_symbol_by_name(function)[0]["st_value"] & ~1
    assert first <= entry < first + own[0]
    return Image(elf, function, processor, entry, (first, first + own[0]), sum(own), sum(everything) - sum(own), ram)


def _sizes(file: Any, prefixes: tuple[str, ...]) -> list[int]:
    """Bytes of the sections that begin with each prefix."""
    sizes = dict.fromkeys(prefixes, 0)
    for section in file.iter_sections():
        for prefix in sizes:
            if section.name == prefix or section.name.startswith(prefix + "."):
                sizes[prefix] += section["sh_size"]
    return list(sizes.values())


_MATH_H = "\n".join(
    ["/* prototypes for a target without a C library */"]
    + [f"{t} {name}{suffix}({t});" for t, suffix in (("float", "f"), ("double", "")) for name in
       ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "fabs")]
    # zig compiles for these targets as freestanding, where the names alone would be calls and not instructions
    + [f"#define {name}(x) __builtin_{name}(x)" for name in ("sqrtf", "sqrt", "fabsf", "fabs")]
    + [""]
)  # fmt: skip

_TANH_ZIG = """\
// compiler_rt has no tanh; this is the one of zig's own C library
const std = @import("std");
export fn tanhf(x: f32) callconv(.c) f32 {
    return std.math.tanh(x);
}
export fn tanh(x: f64) callconv(.c) f64 {
    return std.math.tanh(x);
}
"""
