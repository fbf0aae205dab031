"""The command line: what the user can mend is one line and exit code 2; standard output is for programs."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from sindyrl import cli, demo
from sindyrl.run_folder import RunFolder
from tests.test_chain import SUMMARY, timeless

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--data-steps", "30", "--warmup", "15", "--plan-horizon", "10"]
SMALL += ["--report-episodes", "2", "--max-terms", "3", "--model-terms", "3"]
CART = ["learn", "--env", "tests.systems:CartEnv", "--task", "cart_task.py"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's folder with a task file; imports from it are forgotten afterwards."""
    (tmp_path / "cart_task.py").write_text("from tests.systems import cart_task\n\ntask = cart_task()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def ask(capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()
        with warnings.catch_warnings():
            try:
                code = cli.main(list(arguments))
            except SystemExit as ended:  # the parser's own errors
                code = ended.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def environment():
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "sindyrl", *arguments]


def start(folder, *arguments):
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite in the background of a script ignores Ctrl-C, and hands that on.
        preexec_fn=None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def learn(folder, *arguments):
    return subprocess.run(
        command(*CART, *SMALL, "--json", *arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def one_line(err):
    assert err.startswith("sindyrl: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# ---- what the user can mend


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--noise", "-1"], "`noise`"),
        (["--noise", "nan"], "`noise`"),
        (["--noise", "inf"], "`noise`"),
        (["--seed", "-1"], "`seed`"),
        (["--data-steps", "3"], "`data_steps`"),
        (["--data-steps", "0"], "`data_steps`"),
    ],
)
def test_a_wrong_argument_of_the_demo_is_one_line_and_leaves_nothing(here, ask, arguments, named):
    before = sorted(here.iterdir())
    code, out, err = ask("demo", "--json", *arguments)
    assert (code, out) == (2, "")
    assert named in one_line(err)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--env", "Nope-v0", "--task", "cart_task.py"], "`--env Nope-v0`"),
        (["--env", "no_such:Env", "--task", "cart_task.py"], "no module 'no_such'"),
        (["--env", "os:getcwd", "--task", "cart_task.py"], "gymnasium.Env"),
        (["--env", "CartPole-v1", "--task", "cart_task.py"], "continuous"),
        (["--env", "Pendulum-v1", "--task", "cart_task.py"], "2 states ['x', 'v']"),
        (["--env", "tests.systems:CartEnv", "--task", "missing.py"], "`--task missing.py`"),
        (["--env", "tests.systems:CartEnv", "--task", "empty.py"], "must define `task`"),
        (["--env", "tests.systems:CartEnv", "--task", "wrong.py"], "`Task(dt=...)`"),
        ([*CART[1:], "--plan-horizon", "12"], "`horizon`"),
        ([*CART[1:], "--report-episodes", "0"], "`report_episodes`"),
    ],
)
def test_a_wrong_environment_or_task_is_one_line_and_leaves_nothing(here, ask, arguments, named):
    (here / "empty.py").write_text("")
    (here / "wrong.py").write_text("from tests.systems import cart_task\ntask = cart_task(dt=-1.0)\n")
    code, out, err = ask("learn", "--json", *arguments)
    assert (code, out) == (2, "")
    assert named in one_line(err)
    assert not (here / "runs").exists()


@pytest.mark.parametrize("arguments", [[], ["demo", "--noise", "loud"], ["learn"], ["frobnicate"]])
def test_what_the_parser_refuses_has_exit_code_2_and_a_clean_standard_output(ask, arguments):
    code, out, err = ask(*arguments)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["learn", "--help"]])
def test_help_is_there(ask, arguments):
    code, out, _ = ask(*arguments)
    assert code == 0
    assert "sindyrl" in out


def test_importing_the_entry_point_runs_nothing(monkeypatch):
    """Documentation tools import every module of a package."""
    monkeypatch.delitem(sys.modules, "sindyrl.__main__", raising=False)
    importlib.import_module("sindyrl.__main__")


def test_a_file_in_the_way_of_the_run_folder_is_one_line(here, ask):
    (here / "taken").write_text("mine")
    code, out, err = ask("demo", "--json", "--out", "taken/run")
    assert (code, out) == (2, "")
    assert "--out" in one_line(err)
    assert (here / "taken").read_text() == "mine"


def test_a_folder_of_another_run_is_one_line_with_the_ways_out(here, ask):
    RunFolder(here / "run", {"seed": 3})
    code, out, err = ask("demo", "--json", "--out", "run")
    assert (code, out) == (2, "")
    assert "--out" in one_line(err)
    assert "--fresh" in err


def test_a_missing_extra_is_one_line_with_the_pip_command(here, ask, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    code, out, err = ask("demo", "--json", "--out", "run")
    assert (code, out) == (2, "")
    assert 'pip install "sindyrl[envs]"' in one_line(err)
    assert list((here / "run" / "stages").iterdir()) == []


def test_an_interruption_says_how_to_go_on(here, ask, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    code, out, err = ask("demo", "--json")
    assert (code, out) == (130, "")
    assert "goes on from the last finished stage" in one_line(err)


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, RuntimeError, OSError])
def test_an_error_that_is_not_ours_keeps_its_traceback(here, ask, monkeypatch, kind):
    def fails(*arguments, **options):
        raise kind("in somebody else's code")

    monkeypatch.setattr(demo, "run_demo", fails)
    with pytest.raises(kind, match="somebody else"):
        ask("demo", "--json")


def test_the_arguments_arrive(here, ask, monkeypatch):
    seen = {}

    def note(settings, **options):
        seen.update(options, settings=settings)

    monkeypatch.setattr(demo, "run_demo", note)
    arguments = ["--seed", "7", "--data-steps", "90", "--noise", "1e-3", "--out", "a/b", "--json", "--fresh"]
    assert ask("demo", *arguments)[0] == 0
    settings = seen.pop("settings")
    assert (settings.seed, settings.data_steps) == (7, 90)
    assert seen == {"noise": 1e-3, "out": Path("a/b"), "json": True, "fresh": True}


# ---- a whole run in a process of its own


def test_an_environment_that_ignores_seeds_gives_a_warning_and_clean_json(here):
    """One run of the user's own system, with everything a program that reads it relies on."""
    (here / "unseeded.py").write_text(
        "import numpy as np\n"
        "from tests.systems import CartEnv\n"
        "class Unseeded(CartEnv):\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return super().reset(seed=int(np.random.default_rng().integers(2**31)))\n"
    )
    (here / "cart_task.py").write_text("from tests.systems import cart_task\n\ntask = cart_task(horizon=8)\n")
    done = learn(here, "--env", "unseeded:Unseeded")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(lines[-1]) == SUMMARY
    assert [line["stage"] for line in lines[:-1]] == ["data", "model", "policy", "export", "report"]
    assert "UnseededEnvironmentWarning" in done.stderr
    assert "ignores the seed of `reset`" in done.stderr
    assert "Traceback" not in done.stderr
    assert (here / "runs" / "cart_task-seed0" / "report.html").exists()


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_in_another_process(here):
    once = learn(here, "--out", "once")
    again = learn(here, "--out", "again")
    other = learn(here, "--out", "other", "--seed", "1")
    summaries = [timeless(json.loads(done.stdout.splitlines()[-1])) for done in (once, again, other)]
    assert summaries[0] == summaries[1]
    assert summaries[0]["return_mean"] != summaries[2]["return_mean"]
    for name in ("model.json", "policy.json", "firmware/policy.c", "metrics.jsonl"):
        assert (here / "once" / name).read_bytes() == (here / "again" / name).read_bytes()


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_and_ends_with_the_same_numbers(here):
    whole = json.loads(learn(here, "--out", "whole").stdout.splitlines()[-1])
    for stage in ("data", "policy"):
        process = start(here, *CART, *SMALL, "--json", "--out", "killed")
        wait_for(here / "killed" / "metrics.jsonl", f'"{stage}"', process)
        process.kill()
        process.communicate()
        assert not (here / "killed" / "stages" / f"{stage}.json").exists()
    resumed = learn(here, "--out", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert timeless(json.loads(resumed.stdout.splitlines()[-1])) == timeless(whole)
    for name in ("model.json", "policy.json", "firmware/policy.c", "metrics.jsonl"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interrupted_process_has_exit_code_130_and_no_traceback(here):
    process = start(here, *CART, *SMALL, "--json", "--out", "run")
    wait_for(here / "run" / "metrics.jsonl", '"policy"', process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert [json.loads(line)["stage"] for line in out.splitlines()] == ["data", "model"]
    assert "goes on from the last finished stage" in err
    assert "Traceback" not in err


def wait_for(file, text, process):
    deadline = time.monotonic() + 120.0
    while not (file.exists() and text in file.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
