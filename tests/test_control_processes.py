"""Trials in processes of their own: one that dies takes nothing along, and none outlives who waits for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.control import parallel, study
from benchmarks.control.grading import episode_seeds
from benchmarks.control.parallel import Job, run_job
from benchmarks.control.study import Settings, run_study
from tests.control_cases import told, true_return

ROOT = Path(__file__).resolve().parent.parent

IN_PROCESSES = """
import os, pathlib, signal
import numpy as np
from benchmarks.control.problem import Problem
from tests.systems import CART_TASK, CartEnv

PROBLEM = Problem("cart", CART_TASK, CartEnv, threshold=-0.5)


class Fine:
    __dataclass_fields__ = {}

    @classmethod
    def of(cls, problem, *, quick):
        return cls()

    def learn(self, system, seed, report):
        env = system.make_env("data")
        env.reset(seed=seed)
        env.step(np.ones(1))
        return lambda x: -x[:1]


class Failing(Fine):
    def learn(self, system, seed, report):
        raise ArithmeticError("an odd seed")


class Dying(Fine):
    def learn(self, system, seed, report):
        os.kill(os.getpid(), signal.SIGKILL)


class KilledOnce(Fine):
    def learn(self, system, seed, report):
        marker = pathlib.Path(__file__).with_name("killed")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().learn(system, seed, report)
"""


def test_trials_run_in_processes_of_their_own_and_one_that_dies_takes_nothing_along(tmp_path, monkeypatch, capsys):
    (tmp_path / "of_processes.py").write_text(IN_PROCESSES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    known = {name.lower(): f"of_processes:{name}" for name in ("Fine", "Failing", "Dying", "KilledOnce")}
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "code_digest", lambda modules, without: "the code")
    settings = Settings(
        methods="dying,failing,fine,killedonce", seeds=1, first_seed=10_001, jobs=2, out=tmp_path, json=True
    )
    assert run_study("of_processes:PROBLEM", settings, known) == 1
    lines = {line["method"]: line for line in told(capsys) if line["figure"] == "trial"}
    assert lines["dying"]["error"] == f"ended by signal {signal.SIGKILL.value}"
    assert lines["failing"]["error"] == "ArithmeticError: an odd seed (exit code 1)"
    assert (lines["fine"]["cost"], lines["fine"]["curve"][0]["steps"]) == (1, 1)
    # Begun again from its seed: the same figures.
    assert lines["killedonce"]["returns"] == lines["fine"]["returns"]
    expected = [true_return(lambda x: -x[:1], seed) for seed in episode_seeds("cart", 10_001, "report", 10)]
    assert lines["fine"]["returns"] == pytest.approx(expected, abs=1e-3)
    assert "numpy" in lines["fine"]["versions"]


@pytest.mark.skipif(os.name != "posix", reason="a process has no new parent there")
def test_a_trial_ends_when_nobody_waits_for_it_any_more():
    trial = (
        "import time; from benchmarks.orphan import if_asked; if_asked(); print('watches', flush=True); time.sleep(60)"
    )
    waiting = "import os, subprocess, sys; from benchmarks.orphan import for_child; subprocess.Popen("
    waiting += f"[sys.executable, '-c', {trial!r}], stdout=sys.stdout, env=os.environ | for_child()).wait()"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdout.readline() == b"watches\n"
        worker.kill()
        begun = time.perf_counter()
        assert worker.stdout.read() == b""  # the pipe ends with the last process that holds it: the trial
        assert time.perf_counter() - begun < 10.0


def test_a_worker_that_dies_is_replaced_and_a_job_that_kills_each_is_given_up(monkeypatch):
    """The worker waits for the trial's process; here it is the worker itself that ends."""
    pools = []

    def computed(jobs, workers, backend):
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        pools.append(sorted(jobs))
        number = min(jobs)
        if jobs[number].seed >= 0:
            yield number, {"seed": jobs[number].seed}
        raise TerminatedWorkerError("gone")

    monkeypatch.setattr(parallel, "_computed", computed)
    jobs = [Job("p", "m", seed) for seed in (0, -1, 2)]
    found = dict(parallel.run_jobs(jobs, workers=2, backend="loky"))
    assert pools == [[0, 1, 2], [1, 2], [1, 2]]
    assert found[jobs[0]] == {"seed": 0}
    assert all("worker died, 3 times" in found[job]["error"] for job in jobs[1:])


def test_a_trial_that_cannot_start_is_an_error_of_that_trial(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "could not be started" in run_job(Job("p:P", "m:M", 0))["error"]
