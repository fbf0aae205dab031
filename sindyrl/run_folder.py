"""A run is a chain of deterministic stages in a folder; killed at any moment, it goes on where it stopped.

    config.json      what was asked for; another configuration is refused
    metrics.jsonl    figures along the way, one JSON object per line, each with its stage
    stages/          <stage>.json, one result per finished stage, written last and whole; its presence means "finished"

Whatever else a stage writes, it writes before its result. Each stage draws its random numbers from (seed, stage) alone,
so that it does not matter which earlier stages were computed in this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sindyrl.map_file import MapFileError, check_header, read_json, shown, write_text

FORMAT, SCHEMA = "sindyrl.run", 1


class RunFolderError(ValueError):
    """The folder cannot serve this run; the text says why and what to do."""


class RunFolder:
    """The folder of one run.

    config : JSON-able settings that decide the run's numbers, among them ``seed``
    fresh : remove an earlier run in this folder first (only what is a run: a folder with a ``config.json`` of ours)

    Raises RunFolderError if the folder holds another run or foreign files, or cannot be written.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = Path(path)
        self.config = dict(config)
        document = {"format": FORMAT, "schema": SCHEMA, "code": code_digest(), "config": self.config}
        document["versions"] = versions()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if not self._stored("config.json").exists():
                foreign = sorted(entry.name for entry in self.path.iterdir())
                if foreign:
                    raise RunFolderError(
                        f"The folder {self.path} is not empty and holds no run ({', '.join(foreign[:3])} ...). "
                        "Choose another with --out."
                    )
            elif fresh:
                check_header(read_json(self._stored("config.json")), format=FORMAT, schema=SCHEMA)
                self._remove()
            else:
                self._refuse_other(document)
            # Written before anything else: a folder without it would be taken for a stranger's by the next attempt.
            write_text(self._stored("config.json"), json.dumps(document, indent=2) + "\n")
            (self.path / "stages").mkdir(exist_ok=True)
        except MapFileError as error:
            raise RunFolderError(f"{error} Choose another folder with --out.") from None
        except OSError as error:
            raise RunFolderError(
                f"The run folder {self.path} cannot be written: {error.strerror or error}. Choose another with --out."
            ) from None

    def _stored(self, name: str) -> Path:
        return self.path / name

    def _sweep(self) -> None:
        """Remove the temporary files that a kill in the middle of `write_text` left."""
        for folder in (self.path, self.path / "stages"):
            for file in folder.glob(".*.json*.tmp"):
                file.unlink(missing_ok=True)

    def _remove(self) -> None:
        """Remove the run. ``config.json`` stays until it is replaced: after a kill this is still known to be a run."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != "config.json":
                entry.unlink()

    def _result(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def _refuse_other(self, document: dict[str, Any]) -> None:
        stored = check_header(read_json(self._stored("config.json")), format=FORMAT, schema=SCHEMA)
        found, own = stored.get("config"), json.loads(json.dumps(self.config))
        if found != own:
            keys = sorted(set(own) | set(found if isinstance(found, dict) else {}))
            other = found if isinstance(found, dict) else {}
            differing = [f"{key}: {shown(other.get(key))} there" for key in keys if other.get(key) != own.get(key)]
            raise RunFolderError(
                f"The folder {self.path} holds a run with other settings ({'; '.join(differing[:4])}). "
                "Choose another with --out, or start over with --fresh."
            )
        if stored.get("code") != document["code"]:
            raise RunFolderError(
                f"The folder {self.path} holds a run by another version of the code, whose numbers may differ. "
                "Choose another with --out, or start over with --fresh."
            )

    def rng(self, stage: str) -> np.random.Generator:
        """The random numbers of a stage, from (seed, stage)."""
        return np.random.default_rng([int(self.config["seed"]), zlib.crc32(stage.encode())])

    def finished(self, stage: str) -> bool:
        return self._result(stage).exists()

    def stage(self, name: str, compute: Callable[[np.random.Generator], dict[str, Any]]) -> dict[str, Any]:
        """The result of a stage: read back if it finished before, computed otherwise. ``wall_s`` is added to it."""
        file = self._result(name)
        if file.exists():
            result = read_json(file)
            if not isinstance(result, dict):
                raise RunFolderError(f"{file} is not the result of a stage. Start over with --fresh.")
            return result
        self._forget(name)
        begun = time.perf_counter()
        result = dict(compute(self.rng(name)))
        result["wall_s"] = time.perf_counter() - begun
        write_text(file, json.dumps(result, indent=2, allow_nan=False) + "\n")
        return result

    def results(self) -> dict[str, dict[str, Any]]:
        """The results of all finished stages."""
        return {file.stem: read_json(file) for file in sorted((self.path / "stages").glob("*.json"))}

    def log(self, stage: str, **figures: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self._stored("metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, **figures}, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a line that a kill cut short is left out."""
        file = self._stored("metrics.jsonl")
        lines = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in lines if isinstance(line, dict)]

    def _forget(self, stage: str) -> None:
        """Drop what an interrupted attempt at this stage has logged."""
        if self._stored("metrics.jsonl").exists():
            kept = [json.dumps(line) + "\n" for line in self.metrics() if line.get("stage") != stage]
            write_text(self._stored("metrics.jsonl"), "".join(kept))


def versions() -> dict[str, str]:
    """Python and the packages that the numbers of a run may depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in ("sindyrl", "numpy", "scipy", "jax", "cma", "gymnasium", "mujoco", "dm_control"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def code_digest() -> str:
    """SHA-256 over the source files of the installed package, so that a run is not resumed by other code."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*root.rglob("*.py"), *(root / "controllers").glob("*.py")]):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
