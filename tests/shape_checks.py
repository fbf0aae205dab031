"""Checks the shapes that a module's signatures state, in every call that the tests make.

Only the arguments and results annotated with jaxtyping shapes are checked. Everything else is left to the code under
test, whose own errors for wrong arguments are part of its interface.
"""

import pathlib
import types

import jaxtyping
from beartype import beartype


def check(function):
    """A type checker for jaxtyping's import hook."""
    shapes = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        hint = _resolve(annotation, function)
        if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
            shapes[name] = hint
    if not shapes or not isinstance(function, types.FunctionType):
        return function
    checked = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    checked.__kwdefaults__ = function.__kwdefaults__
    checked.__qualname__, checked.__module__ = function.__qualname__, function.__module__
    checked.__annotations__ = shapes
    return beartype(checked)


def modules_with_shapes(package: pathlib.Path) -> list[str]:
    """The modules that mention jaxtyping or the axis words of sindyrl.protocols; others need no hook."""
    found = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "import jaxtyping" in text or "from jaxtyping" in text or "from sindyrl.protocols import" in text:
            parts = path.relative_to(package.parent).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def _resolve(annotation, function):
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except Exception:  # a name that only type checkers see
        return None
