"""The bound on instructions: never below what is counted, exact where there is one path, absent where there is none."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sindyrl.emit.elementary import called_functions, own_functions
from sindyrl.export import PROCESSORS, Image, build_image, execute
from sindyrl.export.check import make_vectors
from sindyrl.export.source import implementation
from sindyrl.export.worst_case import instruction_bound
from sindyrl.expression import Variable, cos, dense, exp, piecewise, sin, tanh
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.strategies import maps

for needed in ("ziglang", "unicorn", "elftools", "capstone"):
    pytest.importorskip(needed)

FLOATING = ("cortex-m4f", "cortex-m7")
X, V = Variable("x"), Variable("v")


def image_of(form: SymbolicMap, folder: Path, processor: str) -> Image:
    source = folder / "law.c"
    source.write_text(implementation(form, "law", "float32", own_functions(form.nodes)))
    return build_image(source, "law", PROCESSORS[processor])


def counts(form: SymbolicMap, image: Image, n: int = 20) -> np.ndarray:
    """Instructions (call,) on regular and hostile vectors."""
    vectors = make_vectors(form, "float32", n, np.random.default_rng(0))
    rows = np.concatenate([vectors.inputs[-n:], vectors.hostile])
    return execute(image, rows, len(form.outputs)).instructions


def assembled(folder: Path, text: str, processor: str = "cortex-m4f") -> Image:
    source = folder / "law.c"
    lines = "\\n".join(line.strip() for line in text.strip().splitlines())
    source.write_text(
        f'__attribute__((naked)) void law(const float *in, float *out) {{ __asm__ volatile("{lines}"); }}'
    )
    return build_image(source, "law", PROCESSORS[processor])


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(maps(outputs=6))
def test_no_call_takes_more_than_the_bound(tmp_path, form):
    for processor in FLOATING:
        image = image_of(form, tmp_path, processor)
        bound = instruction_bound(image)
        if bound is None:
            assert "tan" in called_functions(form.nodes)  # the one that is not brought along
        else:
            assert counts(form, image).max() <= bound


@pytest.mark.parametrize("processor", FLOATING)
def test_own_functions_are_bounded_tightly(tmp_path, processor):
    """Every branch of theirs is met by some vector, and only instructions that IT blocks skip make a difference."""
    form = SymbolicMap([Signal("x", "", -4.0, 4.0)], {"s": sin(X), "t": tanh(X), "e": exp(X)}, name="law")
    image = image_of(form, tmp_path, processor)
    most = counts(form, image, 60).max()
    assert most <= instruction_bound(image) <= 1.1 * most


@pytest.mark.parametrize("processor", FLOATING)
def test_without_branches_the_bound_is_the_count(tmp_path, processor):
    form = SymbolicMap(["x", "v"], {"y": 1.5 * X - 0.3 * V**3 + X / (1.0 + V * V), "z": X * V}, name="law")
    image = image_of(form, tmp_path, processor)
    found = counts(form, image)
    assert found.min() == found.max() == instruction_bound(image)


@pytest.mark.parametrize("processor", ["cortex-m0", "cortex-m3"])
def test_software_arithmetic_without_data_loops_is_bounded(tmp_path, processor):
    form = SymbolicMap(["x", "v"], {"y": 1.5 * X - 0.3 * V**3 + X * V}, name="law")
    image = image_of(form, tmp_path, processor)
    assert counts(form, image, 60).max() <= instruction_bound(image)


def test_loops_over_constant_tables_are_walked_to_their_end(tmp_path):
    """On the M7 ReLU is a conditional select, so a network has loops and one path."""
    rng = np.random.default_rng(0)
    hidden = dense(rng.normal(size=(24, 2)), rng.normal(size=24), "relu", [X, V])
    hidden = dense(rng.normal(size=(24, 24)), rng.normal(size=24), "relu", hidden)
    form = SymbolicMap(["x", "v"], {"u": dense(rng.normal(size=(1, 24)), [0.1], "identity", hidden)[0]}, name="law")
    image = image_of(form, tmp_path, "cortex-m7")
    found = counts(form, image)
    assert found.min() == found.max() == instruction_bound(image) > 24 * 24


def test_the_longer_arm_counts(tmp_path):
    form = SymbolicMap(["x"], {"y": piecewise([(X > 100.0, cos(X) + sin(3.0 * X))], X)}, name="law")
    image = image_of(form, tmp_path, "cortex-m4f")
    usual, rare = execute(image, np.array([[1.0], [500.0]], np.float32), 1).instructions
    assert instruction_bound(image) >= rare > usual + 20


NESTED = """
    movs r2, #0
    2: movs r3, #7
    1: subs r3, #1
    bne 1b
    adds r2, #3
    cmp r2, #12
    blo 2b
    bx lr
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("movs r2, #5\n1: subs r2, #1\n bne 1b\n bx lr", 12),
        (NESTED, 1 + 4 * (1 + 14 + 3) + 1),
        ("ldr r2, [r0]\n cbz r2, 1f\n nop\n nop\n 1: bx lr", 5),
        ("ldr r2, [r0]\n cmp r2, #0\n it ne\n movne r2, #1\n str r2, [r1]\n bx lr", 6),
        (
            "push {r4, lr}\n movs r4, #3\n 1: bl 2f\n subs r4, #1\n bne 1b\n pop {r4, pc}\n 2: nop\n bx lr",
            2 + 3 * 5 + 1,
        ),
    ],
    ids=["counter", "nested", "branch", "it-block", "calls"],
)
def test_paths_counted_by_hand(tmp_path, text, expected):
    image = assembled(tmp_path, text)
    assert instruction_bound(image) == expected
    observed = execute(image, np.array([[0.0], [1.0], [-2.0]], np.float32), 1).instructions
    assert observed.max() == expected


@pytest.mark.parametrize(
    "text",
    [
        "ldr r2, [r0]\n 1: subs r2, #1\n bne 1b\n bx lr",
        "1: b 1b",
        "push {lr}\n bl law\n pop {pc}",
        "ldr r2, [r0]\n bx r2",
        "movs r2, #1\n tbb [pc, r2]\n nop\n bx lr",
        "movs r2, #0\n 1: ldr r3, [r0]\n adds r2, r3\n cmp r2, #8\n bne 1b\n bx lr",
        "push {lr}\n movs r2, #3\n 1: bl 2f\n subs r2, #1\n bne 1b\n pop {pc}\n 2: ldr r2, [r0]\n bx lr",
    ],
    ids=["data", "endless", "recursion", "address", "table", "step-from-data", "counter-lost-in-call"],
)
def test_there_is_no_bound_on_what_data_decides(tmp_path, text):
    assert instruction_bound(assembled(tmp_path, text)) is None


def test_a_counter_that_is_changed_on_one_path_only_is_walked_both_ways(tmp_path):
    """Steps of two or three, as data will have it; the bound is the dearest of all mixtures."""
    text = """
        movs r2, #10
        1: ldr r3, [r0]
        cmp r3, #0
        beq 2f
        subs r2, #1
        2: subs r2, #2
        bgt 1b
        bx lr
    """
    image = assembled(tmp_path, text)
    found = execute(image, np.array([[0.0], [1.0]], np.float32), 1).instructions
    assert found.tolist() == [1 + 5 * 5 + 1, 1 + 4 * 6 + 1]
    costs = []
    for steps in itertools.product((2, 3), repeat=5):
        rounds = next(k for k in range(1, 6) if sum(steps[:k]) >= 10)
        costs.append(1 + sum(5 + (step == 3) for step in steps[:rounds]) + 1)
    assert instruction_bound(image) == max(costs) > found.max()


def test_without_capstone_there_is_no_bound(tmp_path, monkeypatch):
    image = assembled(tmp_path, "bx lr")
    assert instruction_bound(image) == 1
    monkeypatch.setitem(sys.modules, "capstone", None)
    assert instruction_bound(image) is None
