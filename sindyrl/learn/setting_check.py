"""Settings that are numbers are refused where they are given, by name, if they are something else."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

Rule = Callable[[Any], bool]


def check_number(argument: str, value: Any, wanted: str, holds: Rule) -> None:
    """Raise ValueError unless ``value`` is a number that the rule holds for; no bool, text, None or NaN is one.

    argument : as a user types it, ``PPOSettings(clip=...)``    wanted : the rule in words, ``a positive number``
    """
    if not _is_number(value) or not holds(value):
        raise ValueError(f"`{argument}` must be {wanted}. Got {value!r}.")


def checked_numbers(argument: str, values: Any, wanted: str, holds: Rule) -> tuple[Any, ...]:
    """The values as a tuple. Raises ValueError unless there is at least one, and each is as for `check_number`."""
    entries = tuple(values) if hasattr(values, "__iter__") else ()
    if not entries or not all(_is_number(value) and holds(value) for value in entries):
        raise ValueError(f"`{argument}` must be {wanted}. Got {values!r}.")
    return entries


def whole(least: int) -> Rule:
    """The rule of an integer of at least so much."""
    return lambda value: isinstance(value, int) and value >= least


def _is_number(value: Any) -> bool:
    # A bool is an integer to Python; what is unequal to itself is NaN.
    return isinstance(value, Real) and not isinstance(value, bool) and bool(value == value)
