"""Compilers: the machine's own for comparing, and zig's clang for ARM.

`python -m ziglang` (extra ``embedded``) is a complete cross-compiler in a wheel. Its own caches go to the user's cache
folder, never into the working directory.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sindyrl.backends.c import CompilerNotFound, find_compiler

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Werror")
# contraction off: a*b + c must round twice on every machine, or the same source gives different numbers
ARITHMETIC = ("-std=c99", "-O2", "-ffp-contract=off")
COMPILE_SECONDS = 300.0


class ExportError(RuntimeError):
    """The package could not be made or did not agree with its map. Nothing was left in the folder."""


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A command that compiles C, and the first line of what it says about itself."""

    command: tuple[str, ...]
    version: str

    def run(self, arguments: Sequence[str | Path], folder: Path) -> None:
        """Compile; ExportError with the compiler's own words if it refuses."""
        _run([*self.command, *map(str, arguments)], folder)


def host_compiler() -> Compiler:
    """The C compiler of this machine; CompilerNotFound with the ways out if there is none."""
    try:
        command = tuple(find_compiler())
    except CompilerNotFound as error:
        raise CompilerNotFound(f'{error} Or pass `verify="none"` to write the C without checking it.') from None
    return Compiler(command, _version(command))


@functools.lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    return _first_line([*command, "--version"]) or Path(command[0]).name


def has_zig() -> bool:
    """Whether the ziglang wheel is installed."""
    return importlib.util.find_spec("ziglang") is not None


@functools.lru_cache(maxsize=1)
def zig_version() -> str:
    """For example ``zig 0.17.1``."""
    return f"zig {_first_line([*_zig(), 'version'])}"


def zig_compiler() -> Compiler:
    """zig's clang as a compiler for this machine."""
    return Compiler((*_zig(), "cc"), zig_version())


def build_library(compiler: Compiler, source: Path) -> ctypes.CDLL:
    """Compile one C file with warnings as errors into a shared object beside it, and load it."""
    target = source.with_suffix(".dll" if os.name == "nt" else ".so")
    flags = ["-shared"] if os.name == "nt" else ["-shared", "-fPIC"]
    compiler.run([*ARITHMETIC, *WARNINGS, *flags, source.name, "-o", target.name, "-lm"], source.parent)
    try:
        return ctypes.CDLL(str(target.resolve()))
    except OSError as error:
        raise ExportError(
            f"The compiled check could not be loaded: {error}. If the target folder is on a drive mounted `noexec`, "
            "export to another folder and copy the files."
        ) from error


def write_texts(texts: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """Name -> text into a folder that a compiler will read, in order."""
    paths = tuple(folder / name for name in texts)
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8", newline="\n")
    return paths


def run_self_test(compiler: Compiler, sources: Sequence[Path], macro: str) -> int:
    """Compile the package with its self-test ``main``, warnings as errors, and return that program's exit code."""
    folder = sources[0].parent
    program = folder / ("selftest.exe" if os.name == "nt" else "selftest")
    names = [source.name for source in sources]
    compiler.run([*ARITHMETIC, *WARNINGS, f"-D{macro}", *names, "-o", program.name, "-lm"], folder)
    return subprocess.run([str(program.resolve())], cwd=folder, timeout=COMPILE_SECONDS, check=False).returncode


def zig(arguments: Sequence[str | Path], folder: Path) -> None:
    """Run zig with its local cache in ``folder`` (which the caller deletes)."""
    _run([*_zig(), *map(str, arguments)], folder)


def _zig() -> tuple[str, ...]:
    return sys.executable, "-m", "ziglang"


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        result = subprocess.run(
            command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=COMPILE_SECONDS,
            errors="replace", check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"`{shlex.join(command)}` could not run: {error}") from error
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise ExportError(f"`{shlex.join(command)}` failed with exit code {result.returncode}:\n{said[:4000]}")


def _environment(folder: Path) -> dict[str, str]:
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")}
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(_cache_folder()))
    return environment


@functools.lru_cache(maxsize=1)
def _cache_folder() -> Path:
    """A folder that outlives this process for zig's run-time library: the user's cache, else the temporary folder."""
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "sindyrl" / "zig"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return Path(tempfile.gettempdir()) / f"sindyrl-zig-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _first_line(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, errors="replace", check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip().splitlines()[0] if result.returncode == 0 and result.stdout.strip() else ""
