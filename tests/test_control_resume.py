"""A trial that is killed goes on: nothing is learned twice, every real step of every attempt counts."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.control import study, worker
from benchmarks.control.dyna_run import run_dyna
from benchmarks.control.problem import Problem, RealSystem, UncountedSteps
from benchmarks.control.progress import Progress
from benchmarks.control.study import Settings, run_study
from benchmarks.control.trial import run_trial
from sindyrl.learn.dyna import DynaSettings
from sindyrl.learn.ppo import PPOSettings
from tests.systems import CART_TASK, CartEnv

ROOT = Path(__file__).resolve().parent.parent
PROBLEM = Problem("cart", CART_TASK, CartEnv, threshold=0.0, curve_episodes=1, report_episodes=2)
LENGTH = 30  # steps of an episode of the cart
SMALL = DynaSettings(
    first_steps=60, collect_steps=(20,), rounds=3, calls=1, selection_episodes=0,
    ppo=PPOSettings(environments=8, length=16, epochs=1, minibatches=2, updates=1, hidden=(8,)),
)  # fmt: skip


class Killed(BaseException):
    """As nothing else is."""


@dataclasses.dataclass(frozen=True)
class Dyna:
    """Ends at the report with this number, after it was graded."""

    RESUMES = True

    killed_at: int | None = None

    def learn(self, system, seed, report):
        reports = 0

        def told(policy):
            nonlocal reports
            report(policy)
            reports += 1
            if reports == self.killed_at:
                raise Killed

        return run_dyna(system, system.task, SMALL, seed=seed, report=told)


class Fragile(CartEnv):
    """Ends the process, as it were, at a step of the whole process."""

    left = 10**9

    def step(self, action):
        if type(self).left == 0:
            raise Killed
        type(self).left -= 1
        return super().step(action)


def timeless(figures):
    return {name: value for name, value in figures.items() if not name.endswith("_s")}


@pytest.fixture(scope="module")
def whole():
    return run_trial(PROBLEM, Dyna(), seed=10_000)


def test_killed_between_rounds_a_trial_comes_out_as_if_it_had_not_been(tmp_path, whole):
    assert [point["steps"] for point in whole["curve"]] == [80, 100, 120]
    for at in (1, 1):  # twice
        with pytest.raises(Killed):
            run_trial(PROBLEM, Dyna(killed_at=at), seed=10_000, folder=tmp_path)
    kept = Progress.read(tmp_path)
    assert [point["steps"] for point in kept.curve] == [80, 100]
    figures = run_trial(PROBLEM, Dyna(), seed=10_000, folder=tmp_path)
    assert timeless(figures) == timeless(whole) | {"kills": 2}
    assert figures["wall_s"] > kept.wall_s > 0.0


def test_killed_while_it_takes_real_steps_a_trial_pays_for_them(tmp_path, whole, monkeypatch):
    problem = dataclasses.replace(PROBLEM, make=Fragile)
    # 60 random steps, 20 of the first policy, an episode that grades it, and 7 of the second policy.
    monkeypatch.setattr(Fragile, "left", 60 + 20 + LENGTH + 7)
    with pytest.raises(Killed):
        run_trial(problem, Dyna(), seed=10_000, folder=tmp_path)
    monkeypatch.setattr(Fragile, "left", 10**9)
    with pytest.warns(UserWarning, match="Up to 20 of them are lost, and count"):
        figures = run_trial(problem, Dyna(), seed=10_000, folder=tmp_path)
    assert figures["returns"] == whole["returns"]
    assert figures["cost"] == whole["cost"] + 20
    assert [point["steps"] for point in figures["curve"]] == [80, 120, 140]
    assert [point["return"] for point in figures["curve"]] == [point["return"] for point in whole["curve"]]


def test_who_does_not_resume_gets_no_folder(tmp_path):
    class Fresh(Dyna):
        RESUMES = False

        def learn(self, system, seed, report):
            assert system.folder is None
            return super().learn(system, seed, report)

    Progress(report_steps=77).write(tmp_path)
    assert run_trial(PROBLEM, Fresh(), seed=10_000, folder=tmp_path)["report_steps"] == 5 * LENGTH
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]


def test_nobody_accounts_for_less_than_was_taken():
    system = RealSystem(PROBLEM)
    env = system.make_env("data")
    env.reset(seed=0)
    env.step(np.zeros(1))
    system.account(data=5, selection=2)
    assert (system.counts["data"], system.counts["selection"], system.cost) == (5, 2, 7)
    env.step(np.zeros(1))
    assert (system.counts["data"], system.taken["data"], system.cost) == (6, 2, 8)
    with pytest.raises(UncountedSteps, match="accounts for 1 data and 0 selection"):
        system.account(data=1, selection=0)


class Forgetful(Dyna):
    """Two rounds of 5 steps an attempt; does not account for those of earlier attempts."""

    def learn(self, system, seed, report):
        env = system.make_env("data")
        env.reset(seed=seed)
        for _ in range(2):
            for _ in range(5):
                env.step(np.zeros(1))
            report(lambda x: -x[:1])
        if self.killed_at:
            raise Killed
        return lambda x: -x[:1]


def test_who_forgets_what_earlier_attempts_cost_is_found_out(tmp_path):
    with pytest.raises(Killed):
        run_trial(PROBLEM, Forgetful(killed_at=2), seed=10_000, folder=tmp_path)
    with pytest.raises(UncountedSteps, match="at 5 real steps after one at 10"):
        run_trial(PROBLEM, Forgetful(), seed=10_000, folder=tmp_path)


class Sly(Dyna):
    """Steps an environment that nobody counts, and would be killed after its report."""

    def learn(self, system, seed, report):
        env = CartEnv()
        env.reset(seed=seed)
        env.step(np.zeros(1))
        return super().learn(system, seed, report)


def test_uncounted_steps_are_found_at_the_report_and_not_forgotten_with_the_process(tmp_path):
    with pytest.raises(UncountedSteps, match="but 110 were counted"):
        run_trial(PROBLEM, Sly(killed_at=1), seed=10_000, folder=tmp_path)
    assert not (tmp_path / "progress.json").exists()


# ---- processes


PLANTED = '''
import os, pathlib, signal, time
import numpy as np
from benchmarks.control.problem import Problem
from tests.systems import CART_TASK, CartEnv

PROBLEM = Problem("cart", CART_TASK, CartEnv, threshold=-0.5)


class Walker:
    """Three rounds of 5 steps; its process is killed in the rounds ``killed_in``, once in each."""

    __dataclass_fields__ = {}
    RESUMES = True
    killed_in = (1,)

    @classmethod
    def of(cls, problem, *, quick):
        return cls()

    def learn(self, system, seed, report):
        system.folder.mkdir(parents=True, exist_ok=True)
        rounds = system.folder / "rounds"
        done = int(rounds.read_text()) if rounds.exists() else 0
        env = system.make_env("data")
        env.reset(seed=seed)
        for turn in range(done, 3):
            marker = system.folder / f"killed{turn}"
            if turn in self.killed_in and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            for _ in range(5):
                env.step(np.zeros(1))
            rounds.write_text(str(turn + 1))
            system.account(data=5 * (turn + 1), selection=0)
            report(lambda x: -x[:1])
        return lambda x: -x[:1]


class OftenKilled(Walker):
    killed_in = (0, 1, 2)


class Raising(Walker):
    killed_in = ()

    def learn(self, system, seed, report):
        super().learn(system, seed, report)
        raise ArithmeticError("after three rounds")


class Sleeper(Walker):
    """Tells who it is and never ends."""

    def learn(self, system, seed, report):
        (pathlib.Path(os.environ["WHO"]) / str(os.getpid())).touch()
        time.sleep(600.0)
'''


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The methods above, for trials in other processes."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield {name.lower(): f"planted:{name}" for name in ("Walker", "OftenKilled", "Raising", "Sleeper")}
    sys.modules.pop("planted", None)


def told(capsys):
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["figure"] == "trial"]


@pytest.mark.skipif(os.name != "posix", reason="processes are killed by a signal")
def test_a_process_that_is_killed_goes_on_and_so_does_a_study(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "code_digest", lambda modules, without: "the code")
    settings = Settings(methods="walker,oftenkilled", seeds=1, first_seed=10_000, out=tmp_path, json=True)
    assert run_study("planted:PROBLEM", settings, planted) == 1
    lines = {line["method"]: line for line in told(capsys)}
    assert (lines["walker"]["cost"], [point["steps"] for point in lines["walker"]["curve"]]) == (15, [5, 10, 15])
    assert lines["oftenkilled"]["error"] == f"ended by signal {signal.SIGKILL.value}"
    (unfinished,) = tmp_path.glob("*/*-unfinished")
    assert unfinished.parent.name == "oftenkilled"
    assert run_study("planted:PROBLEM", settings, planted) == 0
    lines = {line["method"]: line for line in told(capsys)}
    assert lines["oftenkilled"]["curve"] == lines["walker"]["curve"]
    assert not list(tmp_path.glob("*/*-unfinished"))


@pytest.mark.skipif(os.name != "posix", reason="nobody resumes without a lock")
def test_what_raised_begins_again_and_a_folder_in_use_is_refused(planted, tmp_path, monkeypatch):
    folder = tmp_path / "trial"
    arguments = ["planted:PROBLEM", planted["raising"], "10000", "full", str(tmp_path / "figures.json"), str(folder)]
    with pytest.raises(ArithmeticError):
        worker.main(arguments)
    assert not folder.exists()  # else the next attempt would find three rounds done, and nothing to raise
    monkeypatch.setattr(worker, "_PATIENCE", 0)
    with worker._alone(folder), pytest.raises(BlockingIOError, match="Another process runs this trial"):
        worker.main(arguments)
    assert folder.exists()


def ended(pids, within):
    """Whether all of these processes are gone within so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
def test_a_study_that_is_killed_leaves_no_trial_behind(planted, tmp_path):
    who, out = tmp_path / "who", tmp_path / "runs"
    who.mkdir()
    settings = f"study.Settings(methods='sleeper', seeds=2, first_seed=10_000, jobs=2, out=Path({str(out)!r}))"
    text = "from pathlib import Path; from benchmarks.control import study; "
    text += "study.code_digest = lambda modules, without: 'the code'; "
    text += f"study.run_study('planted:PROBLEM', {settings}, {planted})"
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, env=os.environ | {"WHO": str(who)}) as process:
        until = time.monotonic() + 120.0
        while len(list(who.iterdir())) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        process.kill()
    trials = [int(file.name) for file in who.iterdir()]
    assert len(trials) == 2
    assert ended(trials, within=20.0)


SLEEPING = '''
"""Sleeps."""
import dataclasses, os, pathlib, sys, time
from benchmarks import command

@dataclasses.dataclass(frozen=True)
class Settings:
    """Nothing."""
    json: bool = False
    """Nothing."""

def run(settings):
    (pathlib.Path(os.environ["WHO"]) / str(os.getpid())).touch()
    time.sleep(600.0)

if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
'''


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
def test_a_benchmark_ends_with_the_command_that_began_it(tmp_path):
    who, folder = tmp_path / "who", tmp_path / "benchmarks"
    who.mkdir()
    folder.mkdir()
    for name in ("__init__.py", "command.py", "orphan.py"):
        (folder / name).write_text((ROOT / "benchmarks" / name).read_text())
    (folder / "sleeping.py").write_text(SLEEPING)
    text = "from pathlib import Path; from sindyrl import bench_command; "
    text += f"bench_command.find_checkout = lambda: Path({str(tmp_path)!r}); bench_command.run_benchmark('sleeping')"
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, env=os.environ | {"WHO": str(who)}) as process:
        until = time.monotonic() + 60.0
        while not list(who.iterdir()) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        process.kill()
    (benchmark,) = [int(file.name) for file in who.iterdir()]
    assert benchmark != process.pid
    assert ended([benchmark], within=20.0)
