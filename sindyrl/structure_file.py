"""Structures from what their ``to_dict`` stored: the one place that knows every kind. Nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sindyrl.planar_body import PlanarBody
from sindyrl.stops_at_wall import StopsAtWall
from sindyrl.structure import Derivative, Increment, NextState, OnCircles, SecondOrder, Structure


def structure_from_dict(data: Mapping[str, Any]) -> Structure:
    """The inverse of ``to_dict``. Raises `ValueError` for an unknown kind or missing fields."""
    try:
        kind = data["kind"]
        if kind in KINDS:
            return KINDS[kind](data)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"The stored structure is incomplete: {error!r} in {data!r}.") from error
    raise ValueError(f"Unknown structure {kind!r}. Known: {', '.join(KINDS)}.")


def _second_order(data: Mapping[str, Any]) -> SecondOrder:
    angles = {(cosine, sine): velocity for cosine, sine, velocity in data["angles"]}
    return SecondOrder(data["positions"], angles, tuple(data["ignore"]))


def _on_circles(data: Mapping[str, Any]) -> OnCircles:
    base = structure_from_dict(data["base"])
    if not isinstance(base, (NextState, Increment)):
        raise ValueError(f"`on_circles` wraps next_state or increment. Got {base.kind!r}.")
    return OnCircles(base, tuple((cosine, sine) for cosine, sine in data["circles"]))


# Add a structure by adding how it is read.
KINDS: dict[str, Callable[[Mapping[str, Any]], Structure]] = {
    "next_state": lambda _: NextState(),
    "increment": lambda _: Increment(),
    "derivative": lambda data: Derivative(integrator=data["integrator"]),
    "second_order": _second_order,
    "on_circles": _on_circles,
    "planar_body": PlanarBody.from_dict,
    "stops_at_wall": StopsAtWall.from_dict,
}
