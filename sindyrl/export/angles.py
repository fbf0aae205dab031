"""Raw angles for maps that were learned on their cosine and sine: what a firmware's encoder gives is the angle."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sindyrl.expression import cos, sin
from sindyrl.node import Node, Variable
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.traversal import substitute


def raw_angles(map: SymbolicMap, angles: Mapping[str, tuple[str, str]]) -> SymbolicMap:
    """The same map of the angle itself: ``{"theta": ("cos_theta", "sin_theta")}`` replaces two inputs by one.

    The angle takes the place of its cosine, in rad, with the range [-pi, pi]; the map is defined for every angle.
    Raises ValueError for a name that is no input, an angle named like an input that stays, or an input used twice.
    """
    replaced = [name for pair in angles.values() for name in pair]
    unknown = [name for name in replaced if name not in map.input_names]
    if unknown or len(set(replaced)) < len(replaced):
        raise ValueError(
            f"`raw_angles(angles=...)` must name different inputs of {list(map.input_names)}. Got {replaced}."
        )
    stay = [name for name in map.input_names if name not in replaced]
    if clash := [name for name in angles if name in stay]:
        raise ValueError(f"`raw_angles(angles=...)` must give angles names of their own. Got {clash}.")
    values: dict[str, Node | float] = {}
    signals: dict[str, Signal] = {}
    for angle, (cosine, sine) in angles.items():
        values |= {cosine: cos(Variable(angle)), sine: sin(Variable(angle))}
        signals[cosine] = Signal(angle, "rad", -math.pi, math.pi)
    sines = {sine for _, sine in angles.values()}
    inputs = [signals.get(signal.name, signal) for signal in map.inputs if signal.name not in sines]
    nodes = substitute(map.nodes, values)
    return SymbolicMap(inputs, list(zip(map.outputs, nodes, strict=True)), name=map.name)
