"""Emulated microcontrollers: counts are exact, floating point faults where there is none, bits are those of IEEE."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from sindyrl.export import (
    PROCESSORS,
    EmulationUnavailable,
    Image,
    ProcessorFault,
    build_image,
    emulate,
    execute,
)

pytest.importorskip("ziglang")
unicorn = pytest.importorskip("unicorn")
pytest.importorskip("elftools")

CUBIC = """
void cubic(const float in[2], float out[1]) {
    const float u = 1.5f*in[0] - 0.3f*(in[1]*in[1]*in[1]) + 0.1f*in[0]*in[1];
    out[0] = u > -1.0f ? (u < 1.0f ? u : 1.0f) : -1.0f;
}
"""
POINTS = np.random.default_rng(0).uniform(-2, 2, (50, 2)).astype(np.float32)


def built(folder: Path, text: str, name: str, processor: str = "cortex-m4f") -> Image:
    source = folder / f"{name}.c"
    source.write_text(text)
    return build_image(source, name, PROCESSORS[processor])


def cubic_in_numpy(x: np.ndarray) -> np.ndarray:
    a, b = x.T
    f = np.float32
    return np.clip(f(1.5) * a - f(0.3) * (b * b * b) + f(0.1) * a * b, f(-1), f(1))[:, None]


def test_instructions_are_counted_from_entry_to_return(tmp_path):
    # one move, five rounds of two, one return; the caller is not counted
    text = """
    __attribute__((naked)) void loop(const float *in, float *out) {
        __asm__ volatile("movs r2, #5\\n1: subs r2, #1\\n bne 1b\\n bx lr");
    }
    """
    execution = execute(built(tmp_path, text, "loop"), np.zeros((3, 1), np.float32), 1)
    assert execution.instructions.tolist() == [12, 12, 12]
    assert execution.library_instructions.tolist() == [0, 0, 0]
    assert execution.stack_bytes == 0


def test_m4f_returns_the_bits_of_ieee_arithmetic(tmp_path):
    execution = execute(built(tmp_path, CUBIC, "cubic"), POINTS, 1)
    assert np.array_equal(execution.outputs, cubic_in_numpy(POINTS))
    assert 10 < execution.instructions.min() <= execution.instructions.max() < 40


@pytest.mark.parametrize("processor", ["cortex-m0", "cortex-m3"])
def test_floating_point_instructions_fault_where_there_is_no_fpu(tmp_path, processor):
    image = built(tmp_path, CUBIC, "cubic")
    with pytest.raises(ProcessorFault, match=f"{processor}.*no floating-point unit"):
        execute(image, POINTS, 1, PROCESSORS[processor])


def test_rv32_returns_the_same_bits_and_faults_without_an_fpu(tmp_path):
    image = built(tmp_path, CUBIC, "cubic", "rv32imafc")
    execution = execute(image, POINTS, 1)
    assert np.array_equal(execution.outputs, cubic_in_numpy(POINTS))
    assert 10 < execution.instructions.min() <= execution.instructions.max() < 40
    with pytest.raises(ProcessorFault, match=r"rv32imc.*no floating-point unit"):
        execute(image, POINTS, 1, PROCESSORS["rv32imc"])


@pytest.mark.parametrize("processor", ["cortex-m0", "cortex-m3", "rv32imc"])
def test_software_arithmetic_returns_the_same_bits_for_more_instructions(tmp_path, processor):
    execution = execute(built(tmp_path, CUBIC, "cubic", processor), POINTS, 1)
    assert np.array_equal(execution.outputs, cubic_in_numpy(POINTS))
    assert execution.instructions.min() > 200
    assert execution.library_instructions.min() > 100


def test_with_the_m_class_mode_unicorn_would_run_floating_point_on_an_m0(tmp_path):
    """The trap that UC_MODE_THUMB alone avoids. If this fails, unicorn has changed: adapt the comment in emulate.py."""
    from elftools.elf.elffile import ELFFile
    from unicorn import arm_const as names

    image = built(tmp_path, CUBIC, "cubic")
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    engine.ctl_set_cpu_model(names.UC_CPU_ARM_CORTEX_M0)
    engine.mem_map(0, 0x100000)
    for part in ELFFile(io.BytesIO(image.elf)).iter_segments():
        if part["p_type"] == "PT_LOAD":
            engine.mem_write(part["p_vaddr"], part.data())
    engine.mem_write(0x80000, np.float32([0.5, 0.0]).tobytes())
    for register, value in (("R0", 0x80000), ("R1", 0x80100), ("SP", 0x90000), ("LR", 0xA0001)):
        engine.reg_write(getattr(names, f"UC_ARM_REG_{register}"), value)
    engine.emu_start(image.entry | 1, 0xA0000)
    assert np.frombuffer(engine.mem_read(0x80100, 4), np.float32)[0] == 0.75


def test_libm_functions_are_linked_and_counted_apart(tmp_path):
    text = """#include <math.h>
    void waves(const float in[2], float out[2]) { out[0] = sinf(in[0]); out[1] = tanhf(in[1])*sqrtf(fabsf(in[0])); }
    """
    image = built(tmp_path, text, "waves")
    execution = execute(image, POINTS, 2)
    x = POINTS.astype(float)
    truth = np.stack([np.sin(x[:, 0]), np.tanh(x[:, 1]) * np.sqrt(np.abs(x[:, 0]))], axis=1)
    assert np.all(np.abs(execution.outputs - truth) <= 4 * np.spacing(np.abs(truth).astype(np.float32)))
    own = execution.instructions - execution.library_instructions
    assert own.max() < 40 < execution.library_instructions.min()  # sqrtf and fabsf are instructions, not calls
    assert image.code_bytes < 120 < image.library_bytes


def test_a_function_without_implementation_is_named(tmp_path):
    text = "float nowhere(float); void f(const float in[1], float out[1]) { out[0] = nowhere(in[0]); }"
    with pytest.raises(EmulationUnavailable, match=r'nowhere.*verify="compile"'):
        built(tmp_path, text, "f")


def test_written_stack_is_measured(tmp_path):
    text = """void f(const float in[1], float out[1]) {
        volatile float a[64];
        for (int i = 0; i < 64; i++) a[i] = in[0];
        out[0] = a[9];
    }"""
    execution = execute(built(tmp_path, text, "f"), POINTS[:1, :1], 1)
    assert 256 <= execution.stack_bytes <= 280


def test_an_endless_loop_ends_in_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(emulate, "_CALL_MICROSECONDS", 50_000)
    image = built(tmp_path, "void f(const float *in, float *out) { for (;;) { *(volatile float *)out = *in; } }", "f")
    with pytest.raises(ProcessorFault, match="had not returned"):
        execute(image, POINTS[:1, :1], 1)


def test_a_wild_address_is_a_fault(tmp_path):
    image = built(tmp_path, "void f(const float *in, float *out) { out[0] = ((volatile float *)0x70000000)[0]; }", "f")
    with pytest.raises(ProcessorFault, match="READ_UNMAPPED"):
        execute(image, POINTS[:1, :1], 1)


def test_nothing_is_left_in_the_working_directory(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    built(tmp_path, CUBIC, "cubic")
    assert list(work.iterdir()) == []


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(emulate, "has_zig", lambda: False)
    with pytest.raises(ImportError, match=r'pip install "sindyrl\[embedded\]"'):
        built(tmp_path, CUBIC, "cubic")
