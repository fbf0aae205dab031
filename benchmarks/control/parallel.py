"""Trials in processes of their own, some at a time, here or on a cluster; a process that dies takes one trial along."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import orphan
from benchmarks.seeds import ROOT

Backend = Literal["loky", "ray", "dask"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_POOLS = 3  # that may break before what is left is given up
_ATTEMPTS = 2  # at a trial whose process is killed, as a machine short of memory does


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial to be run.

    problem, method : ``module:name`` of a `Problem` and of a `Method`
    folder : where it keeps what it needs to go on if it is killed; on a cluster it begins again
    """

    problem: str
    method: str
    seed: int
    quick: bool = False
    folder: str | None = None


def run_job(job: Job) -> dict[str, Any]:
    """The figures of a trial, or ``error``: the last words of the process and how it ended. Never raises.

    A process that is killed is started once more: it goes on from what it kept, or begins its seed again.
    """
    with tempfile.TemporaryDirectory(prefix="sindyrl-", ignore_cleanup_errors=True) as name:
        file = Path(name) / "figures.json"
        command = [sys.executable, "-P", "-m", "benchmarks.control.worker", job.problem, job.method, str(job.seed)]
        command += ["quick" if job.quick else "full", str(file), *([job.folder] if job.folder else [])]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        surroundings = os.environ | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": os.pathsep.join(paths)}
        surroundings |= orphan.for_child()
        try:
            for _ in range(_ATTEMPTS):
                done = subprocess.run(command, env=surroundings, cwd=ROOT, capture_output=True, text=True, check=False)
                if done.returncode >= 0:
                    break
            if done.returncode == 0:
                return dict(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            return {"seed": job.seed, "error": f"The process could not be started. {error}"}
    words = done.stderr.strip().splitlines()
    end = f"exit code {done.returncode}" if done.returncode > 0 else f"ended by signal {-done.returncode}"
    return {"seed": job.seed, "error": f"{words[-1]} ({end})" if words else end, "traceback": done.stderr[-4000:]}


def run_jobs(jobs: Sequence[Job], *, workers: int, backend: Backend) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job with its figures, as they are finished. Raises ImportError where the back end is not installed."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    left = dict(enumerate(jobs))
    if not left:
        return
    for _ in range(_POOLS):
        try:
            for number, figures in _computed(dict(left), workers, backend):
                yield left.pop(number), figures
            return
        except BrokenProcessPool as error:
            # Not a trial, whose process is its own: somebody ended the worker that waits for it. What it was waiting
            # for is started once more in a new pool.
            broken = error
    for job in left.values():
        yield job, {"seed": job.seed, "error": f"Its worker died, {_POOLS} times. {broken}"}


def _computed(jobs: dict[int, Job], workers: int, backend: Backend) -> Iterator[tuple[int, dict[str, Any]]]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.parallel import get_active_backend

    with _cluster(backend), parallel_config(backend=backend, n_jobs=workers):
        streams = getattr(get_active_backend()[0], "supports_return_generator", False)
        # The workers of a cluster belong to others, and its machines need not share a folder.
        here = backend == "loky"
        jobs = jobs if here else {number: dataclasses.replace(job, folder=None) for number, job in jobs.items()}
        tasks = [delayed(_numbered)(number, job, os.getpid() if here else None) for number, job in jobs.items()]
        # Where results come all together at the end, a few at a time: what is finished is kept.
        size = len(tasks) if streams else workers
        for start in range(0, len(tasks), size):
            pool: Any = Parallel(return_as="generator_unordered" if streams else "list")
            yield from pool(tasks[start : start + size])


def _numbered(number: int, job: Job, study: int | None) -> tuple[int, dict[str, Any]]:
    if study not in (None, os.getpid()):
        orphan.end_with_parent(os.getppid())  # a study that is killed leaves no workers behind, and they no trials
    return number, run_job(job)


@contextlib.contextmanager
def _cluster(backend: Backend) -> Iterator[None]:
    """Make a back end known to joblib: Ray at RAY_ADDRESS, Dask at DASK_SCHEDULER_ADDRESS, else on this machine."""
    if backend == "ray":
        try:
            ray = importlib.import_module("ray.util.joblib")
        except ImportError as error:
            raise ImportError(
                "`--backend ray` needs Ray. Install it here and on the cluster: pip install ray"
            ) from error
        ray.register_ray()
        yield
    elif backend == "dask":
        try:
            dask = importlib.import_module("distributed")
        except ImportError as error:
            raise ImportError(
                '`--backend dask` needs Dask. Install it here and on the cluster: pip install "dask[distributed]"'
            ) from error
        with dask.Client():
            yield
    else:
        yield
