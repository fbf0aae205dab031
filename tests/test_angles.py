"""Raw angles: the same values, from the angle."""

import numpy as np
import pytest

from sindyrl.export import raw_angles, to_c
from sindyrl.expression import Variable, clip
from sindyrl.symbolic_map import Signal, SymbolicMap

C, S, W = map(Variable, ("c", "s", "w"))


def law() -> SymbolicMap:
    inputs = [Signal("w", "rad/s", -9.0, 9.0), Signal("c", "", -1.0, 1.0), Signal("s", "", -1.0, 1.0)]
    return SymbolicMap(inputs, {"u": clip(3.0 * S * C - 0.5 * W * C * C + 0.1 * S, -1.0, 1.0)}, name="law")


def test_values_are_those_of_the_cosine_and_sine(tmp_path):
    raw = raw_angles(law(), {"theta": ("c", "s")})
    assert [signal.name for signal in raw.inputs] == ["w", "theta"]
    angles = np.linspace(-7.0, 7.0, 41)
    speeds = np.linspace(-2.0, 2.0, 41)
    expected = law()(np.column_stack([speeds, np.cos(angles), np.sin(angles)]))
    np.testing.assert_array_equal(raw(np.column_stack([speeds, angles])), expected)
    assert to_c(raw, tmp_path, verify="compile").bitwise is True


@pytest.mark.parametrize(
    "angles", [{"theta": ("c", "sine")}, {"w": ("c", "s")}, {"theta": ("c", "c")}, {"a": ("c", "s"), "b": ("s", "w")}]
)
def test_wrong_names_are_refused(angles):
    with pytest.raises(ValueError, match="raw_angles"):
        raw_angles(law(), angles)
