"""Numbers in arguments and settings are refused where they are given, by name, if they are something else.

A number may be Python's or NumPy's; what goes on from here is Python's own, which JSON takes and which does not wrap
around where it has no more bits. An array is no number, not even one without axes: it has no hash, as a key of what is
compiled must have, and may change after it was checked. ``array.item()`` is a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

Rule = Callable[[Any], bool]
Number = TypeVar("Number")


def check_number(argument: str, value: Number, wanted: str, holds: Rule) -> Number:
    """The number, as Python's own. Raises ValueError unless the rule holds for it; no bool, text, None or NaN is one.

    argument : as a user types it, ``PPOSettings(clip=...)``    wanted : the rule in words, ``a positive number``
    """
    if not _is_number(value) or not holds(value):
        raise ValueError(f"`{argument}` must be {wanted}. Got {value!r}.")
    return _own(value)


def checked_numbers(argument: str, values: Any, wanted: str, holds: Rule) -> tuple[Any, ...]:
    """The values as a tuple. Raises ValueError unless there is at least one, and each is as for `check_number`."""
    entries = tuple(values) if hasattr(values, "__iter__") else ()
    if not entries or not all(_is_number(value) and holds(value) for value in entries):
        raise ValueError(f"`{argument}` must be {wanted}. Got {values!r}.")
    return tuple(map(_own, entries))


def check_fields(settings: Any, names: str, wanted: str, holds: Rule, *, optional: bool = False) -> None:
    """`check_number` of fields of a frozen dataclass, which then hold Python's own numbers.

    names : separated by spaces    optional : None is allowed as well
    """
    for name in names.split():
        value = getattr(settings, name)
        if value is not None or not optional:
            number = check_number(f"{type(settings).__name__}({name}=...)", value, wanted, holds)
            object.__setattr__(settings, name, number)


def whole(least: int, most: float = math.inf) -> Rule:
    """The rule of an integer, of Python or NumPy, from ``least`` to ``most``."""
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def not_negative(value: Any) -> bool:
    """The rule of a finite number of at least 0."""
    return bool(0 <= value < math.inf)


def _is_number(value: Any) -> bool:
    # A bool is an integer to Python, and integers may be larger than any float.
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    except OverflowError:
        return False


def _own(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
