"""Packages, one file per target: what a build system, a tool or a language needs around the exported map.

A target is a module of this folder with

    files(artifact) -> dict     relative path -> text or bytes; equal artifacts give equal bytes, nothing is dated
    CHECK                       one sentence: how the package is checked, by whose tool

and its docstring says who loads it and how. The folder is the registry: a new file here is a new target, known to
:data:`TARGETS`, to :func:`write_target` and to the command line without a line changed elsewhere. ``latex.py`` is the
shortest example; ``arduino.py`` shows a package around the C. What a target cannot hold raises ValueError with the
remedy.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

from sindyrl.export.artifact import Artifact
from sindyrl.export.placement import place_files


class Target(Protocol):
    """What a module of this folder offers."""

    CHECK: str

    def files(self, artifact: Artifact) -> dict[str, str | bytes]:
        """Relative path -> content."""
        ...


class _Registry(Mapping[str, Target]):
    """Name -> module of this folder, imported when it is asked for."""

    def __init__(self) -> None:
        self._names = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))

    def __getitem__(self, name: str) -> Target:
        if name not in self._names:
            raise KeyError(name)
        return cast(Target, importlib.import_module(f"{__name__}.{name}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


TARGETS: Mapping[str, Target] = _Registry()
"""Target name -> module, from the files of this folder."""


def target_files(artifact: Artifact, target: str) -> dict[str, str | bytes]:
    """Relative path -> content of one package; ValueError for an unknown target or what it cannot hold."""
    if target not in TARGETS:
        raise ValueError(f"`target` must be one of {', '.join(TARGETS)}. Got {target!r}.")
    return TARGETS[target].files(artifact)


def write_target(artifact: Artifact, target: str, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write one package into ``folder``, whole or not at all, and return its files.

    Files in the way are replaced only if this library wrote them; other files stay.
    Raises ValueError for an unknown target or what it cannot hold, ExportError if the folder cannot be written.
    """
    return place_files(target_files(artifact, target), folder, argument="write_target(folder=...)")
