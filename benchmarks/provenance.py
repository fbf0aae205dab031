"""Which code a stored result was made by: a digest of the source files that its numbers depend on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.seeds import ROOT

NO_PART = ("sindyrl.emit", "sindyrl.backends.c")
"""Has no part in studies of identification: they write and compile no code."""

_OURS = ("sindyrl", "controllers", "benchmarks", "paper_reproductions")


def code_digest(
    modules: Sequence[str], files: Iterable[Path] = (), *, without: Sequence[str] = (), root: Path = ROOT
) -> str:
    """SHA-256 over the files of ``modules``, of all modules of the checkout that they import, and over ``files``.

    Imports inside functions count. A module that imports by a computed name counts with its whole folder. The
    ``__init__`` of a package counts where something is imported from it by its name, not where it only leads to a
    file: ours list names. ``without`` names modules, or packages with all in them, that the numbers cannot depend on,
    such as what writes C for a study that compiles none. Raises ValueError for a module that is not there.
    """
    digest = hashlib.sha256()
    for path in sorted({*code_files(modules, without=without, root=root), *files}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_files(modules: Sequence[str], *, without: Sequence[str] = (), root: Path = ROOT) -> list[Path]:
    """The files of ``modules`` and of what they import, directly or not, in the checkout."""
    left, found = list(modules), dict[str, Path]()
    for name in modules:
        if _file(name, root) is None:
            raise ValueError(f"`code_files(modules=...)` must name modules of {root.name}. Got {name!r}.")
    while left:
        name = left.pop()
        path = _file(name, root)
        # The package itself is a table of contents that loads names on use; everyone names the modules instead.
        if path is None or name in found or name == "sindyrl":
            continue
        if any(name == other or name.startswith(f"{other}.") for other in without):
            continue
        found[name] = path
        left += _imported(name, path, root)
    return sorted(found.values())


def _imported(name: str, path: Path, root: Path) -> list[str]:
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{start}.{alias.name}"
                names.append(full if _file(full, root) else start)
        elif _computes_a_name(node):
            names += [".".join([*package, file.stem]) for file in path.parent.glob("*.py") if file.stem != "__init__"]
    return [one for one in names if one.split(".")[0] in _OURS]


def _computes_a_name(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called == "import_module" and not isinstance(node.args[0], ast.Constant)


def _file(name: str, root: Path) -> Path | None:
    if name.split(".")[0] not in _OURS:
        return None
    stem = root.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None
