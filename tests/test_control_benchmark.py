"""Methods of control beside each other: every real step counts, the problem grades, and a seed that fails is told.

This file is also the module of a small problem and of planted methods, which trials in other processes import.
"""

import ast
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import command, swimmer, swingup
from benchmarks.control import methods, parallel, study
from benchmarks.control.figure import write_figure
from benchmarks.control.grading import Judge, episode_seeds, steps_to
from benchmarks.control.methods import policy_search
from benchmarks.control.parallel import Job, run_job
from benchmarks.control.perceptron import Perceptron
from benchmarks.control.policy_size import c_bytes, n_parameters
from benchmarks.control.problem import Problem, RealSystem, UncountedSteps
from benchmarks.control.results import read_trials, summarize, write_results
from benchmarks.control.statistics import bootstrap_interval, interquartile_mean, median_steps, quartile_curve
from benchmarks.control.study import Settings, run_study
from benchmarks.control.trial import run_trial
from benchmarks.control.worker import load
from sindyrl import bench_command
from sindyrl.chain import Chain, ChainSettings
from sindyrl.collect import collect, evaluate
from sindyrl.envs import cartpole
from sindyrl.expression import Variable
from sindyrl.learn.policy_search import SearchSettings
from sindyrl.run_folder import RunFolder
from sindyrl.symbolic_map import SymbolicMap
from tests.systems import CART, CART_TASK, FORCE, CartEnv, cart_matrices

ROOT = Path(__file__).resolve().parent.parent
HERE = "tests.test_control_benchmark"
LENGTH = 30  # steps of an episode of the cart

PROBLEM = Problem("cart", CART_TASK, CartEnv, threshold=-0.5)


@dataclasses.dataclass(frozen=True)
class Gain:
    """``u = -gain (x + v)``; ``n_parameters`` is made up."""

    gain: float
    n_parameters: int = 2

    def __call__(self, x):
        return np.clip(-self.gain * x.sum(keepdims=True), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Planted:
    """12 + 7 steps on two environments, three policies, each better than the last."""

    gains: tuple = (0.0, 0.3, 2.0)

    @classmethod
    def of(cls, problem, *, quick):
        return cls()

    def learn(self, system, seed, report):
        rng = np.random.default_rng(seed)
        first, second = system.make_env("data"), system.make_env()
        assert report(Gain(self.gains[0])) is None
        collect(first, lambda x: np.zeros(1), steps=12, rng=rng, dt=0.1)
        report(Gain(self.gains[1]))
        with second.counting("selection"):
            evaluate(second, Gain(1.0), episodes=1, rng=rng, max_steps=7)
        return Gain(self.gains[2])


class Failing(Planted):
    """Not for every seed."""

    def learn(self, system, seed, report):
        if seed % 2:
            raise ArithmeticError("an odd seed")
        return super().learn(system, seed, report)


class Linear(Planted):
    """A closed form."""

    def learn(self, system, seed, report):
        x, v = Variable("x"), Variable("v")
        return SymbolicMap(CART, {FORCE[0]: -float(seed) * x - 0.5 * v}, name="linear")


class Unavailable(Planted):
    """Needs what is nowhere."""

    PACKAGES = ("no_such_package_of_ours",)
    EXTRA = "baselines"


PLANTED = {name.lower(): f"{HERE}:{name}" for name in ("Planted", "Failing", "Linear", "Unavailable")}


def true_return(policy, seed):
    """Of one episode of the cart, stepped here."""
    a, b = cart_matrices()
    x, total = CartEnv().reset(seed=seed)[0], 0.0
    for _ in range(LENGTH):
        u = policy(x)
        x = a @ x + b @ u
        total -= float(x[0] ** 2 + 0.2 * x[1] ** 2 + 0.1 * u[0] ** 2)
    return total


@pytest.fixture(scope="module")
def trial():
    return run_trial(PROBLEM, Planted(), seed=3)


# ---- one trial


def test_every_real_step_is_counted_once_and_grading_is_free(trial):
    assert (trial["data_steps"], trial["selection_steps"], trial["cost"]) == (12, 7, 19)
    assert trial["report_steps"] == LENGTH * (3 + 3 + 10)
    assert (trial["n_parameters"], trial["form"]) == (2, None)


def test_the_curve_is_what_the_policies_earn_on_the_problems_own_episodes(trial):
    assert [point["steps"] for point in trial["curve"]] == [0, 12, 19]
    purposes = [("curve", 3), ("curve", 3), ("report", 10)]
    for point, gain, (purpose, count) in zip(trial["curve"], Planted().gains, purposes, strict=True):
        seeds = episode_seeds("cart", 3, purpose, count)
        expected = [true_return(Gain(gain), seed) for seed in seeds]
        assert point["returns"] == pytest.approx(expected, abs=1e-3)
        assert point["return"] == pytest.approx(np.mean(expected))
    assert trial["final_return"] == trial["curve"][-1]["return"]
    assert trial["returns"] == trial["curve"][-1]["returns"]


def test_the_steps_to_the_threshold_are_those_of_the_first_policy_that_reaches_it(trial):
    returns = [point["return"] for point in trial["curve"]]
    assert sorted(returns) == returns
    assert [steps_to(trial["curve"], value) for value in returns] == [0, 12, 19]
    assert steps_to(trial["curve"], np.nextafter(returns[0], 0.0)) == 12
    assert steps_to(trial["curve"], 0.0) is None
    reached = run_trial(dataclasses.replace(PROBLEM, threshold=returns[1]), Planted(), seed=3)
    assert reached["steps_to_threshold"] == 12


def test_one_seed_one_trial_two_seeds_two(trial):
    def timeless(figures):
        return {name: value for name, value in figures.items() if not name.endswith("_s")}

    assert timeless(run_trial(PROBLEM, Planted(), seed=3)) == timeless(trial)
    assert run_trial(PROBLEM, Planted(), seed=4)["returns"] != trial["returns"]


def test_graded_episodes_are_the_same_for_every_method_and_others_for_every_seed_and_purpose():
    every = [episode_seeds("cart", seed, purpose, 5) for seed in (0, 1) for purpose in ("curve", "report")]
    assert len({seed for seeds in every for seed in seeds}) == 20
    assert episode_seeds("cart", 0, "curve", 3) == every[0][:3]
    assert all(0 <= seed < 2**31 for seeds in every for seed in seeds)


def test_time_spent_on_grading_is_not_the_methods():
    slow = dataclasses.replace(PROBLEM, curve_episodes=200)
    figures = run_trial(slow, Planted(), seed=0)
    assert figures["grading_wall_s"] > 5 * figures["wall_s"]


def test_points_hardly_apart_are_left_out_and_the_last_of_equal_steps_stays():
    judge = Judge(dataclasses.replace(PROBLEM, curve_episodes=1), seed=0)
    for steps, gain in ((1000, 0.0), (1000, 0.5), (1019, 1.0), (1020, 2.0), (1020, 3.0)):
        judge.report(Gain(gain), steps)
    assert [point["steps"] for point in judge.curve] == [1000, 1020]
    (seed,) = episode_seeds("cart", 0, "curve", 1)
    expected = [true_return(Gain(gain), seed) for gain in (0.5, 3.0)]
    assert [point["return"] for point in judge.curve] == pytest.approx(expected)


class Cheat(Planted):
    """Takes one more step than is counted, or one that is free."""

    def __init__(self, how):
        object.__setattr__(self, "how", how)

    def learn(self, system, seed, report):
        env = system.make_env("report" if self.how == "free" else "data")
        inside = {"behind": env.env, "underneath": env.unwrapped, "own": CartEnv(), "free": env, "honest": env}[
            self.how
        ]
        inside.reset(seed=0)
        inside.step(np.zeros(1))
        return Gain(1.0)


@pytest.mark.parametrize("how", ["behind", "underneath", "own", "free"])
def test_steps_that_are_not_counted_are_found_out(how):
    step = CartEnv.step
    with pytest.raises(UncountedSteps, match="free" if how == "free" else r"took 301 steps, but 300 were counted"):
        run_trial(PROBLEM, Cheat(how), seed=0)
    assert CartEnv.step is step
    assert run_trial(PROBLEM, Cheat("honest"), seed=0)["cost"] == 1


def test_a_step_without_a_head_is_refused():
    system = RealSystem(PROBLEM)
    env = system.make_env()
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="outside of a head"):
        env.step(np.zeros(1))
    assert system.cost == 0


# ---- figures over seeds


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side():
    assert interquartile_mean(np.array([100.0, 1.0, 3.0, -100.0])) == 2.0
    assert interquartile_mean(np.array([5.0, 1.0, 3.0])) == 3.0
    assert interquartile_mean(np.arange(20.0)) == np.arange(5.0, 15.0).mean()


@pytest.mark.parametrize("sample", [[0.0, 1.0, 10.0], [0.0, 1.0, 4.0, 16.0]])
def test_the_interval_is_that_of_all_resamples(sample):
    """All n^n resamples of a small sample can be written down."""
    every = np.array(list(itertools.product(sample, repeat=len(sample))))
    exact = np.sort(interquartile_mean(every))
    low, high = bootstrap_interval(sample, np.random.default_rng(0), level=0.8, resamples=200_000)
    # The distribution is discrete: the ends are among the exact values around the two quantiles.
    for end, level in ((low, 0.1), (high, 0.9)):
        assert exact[int((level - 0.01) * len(exact))] <= end <= exact[int((level + 0.01) * len(exact))]


def test_the_interval_repeats_with_its_seed_and_shrinks_to_a_point_without_spread():
    sample = list(np.random.default_rng(0).normal(size=20))

    def interval(seed):
        return bootstrap_interval(sample, np.random.default_rng(seed), resamples=500)

    assert interval(1) == interval(1) != interval(2)
    assert bootstrap_interval([5.0, 5.0, 5.0], np.random.default_rng(0)) == (5.0, 5.0)
    assert bootstrap_interval([7.0], np.random.default_rng(0)) == (7.0, 7.0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([], np.random.default_rng(0))


def test_a_seed_that_never_gets_there_counts_as_infinitely_late():
    assert median_steps([10, 30, None]) == 30.0
    assert median_steps([10, None, None]) is None
    assert median_steps([10, 20]) == 15.0


def test_between_gradings_a_curve_stays_where_it_was():
    def curve(*points):
        return [{"steps": steps, "return": value} for steps, value in points]

    found = quartile_curve([curve((0, -5.0), (10, 0.0), (100, 8.0)), curve((20, 4.0)), curve((10, 2.0), (50, 6.0))])
    steps, median = np.array(found["steps"]), np.array(found["median"])
    assert (steps[0], steps[-1]) == (20.0, 100.0)
    np.testing.assert_allclose(median[steps < 50], 2.0)  # of 0, 4, 2
    np.testing.assert_allclose(median[(steps >= 50) & (steps < 100)], 4.0)  # of 0, 4, 6
    assert median[-1] == 6.0  # of 8, 4, 6
    assert (found["low"][-1], found["high"][-1]) == (5.0, 7.0)


def record(seed, returned, steps, *, method="planted", **changes):
    made = {
        "figure": "trial", "task": "cart", "method": method, "threshold": -0.5, "seed": seed, "data_steps": 10 * seed,
        "selection_steps": 1, "cost": 10 * seed + 1, "steps_to_threshold": steps, "final_return": returned,
        "returns": [returned - 1.0, returned + 1.0], "wall_s": 2.0, "processor_s": 1.0, "n_parameters": 2,
        "c_bytes": None, "curve": [{"steps": 10 * seed + 1, "return": returned}],
    }  # fmt: skip
    return made | changes


def test_a_summary_tells_the_failed_seeds_and_is_of_the_others():
    failed = {"figure": "trial", "task": "cart", "method": "planted", "threshold": -0.5, "seed": 9, "error": "No."}
    records = [record(seed, value, steps) for seed, value, steps in ((0, 1.0, 5), (1, 2.0, None), (2, 6.0, 7))]
    found = summarize([*records, failed])
    assert found["failed"] == [{"seed": 9, "error": "No."}]
    assert found["seeds"] == [0, 1, 2, 9]
    assert (found["final_return"], found["worst"], found["cost"]) == (3.0, 0.0, 11.0)
    assert (found["reached"], found["steps_to_threshold"], found["c_bytes"]) == (2, 7.0, None)
    assert found["final_return_interval"][0] <= 3.0 <= found["final_return_interval"][1]
    assert "final_return" not in summarize([failed])
    lines = study.table([found, summarize([failed])])
    assert lines.row_count == 2


def test_saving_one_method_leaves_the_others_lines(tmp_path):
    file = tmp_path / "results" / "cart.jsonl"
    write_results(file, [record(0, 1.0, 5), record(1, 2.0, 6), record(0, 3.0, None, method="other")])
    kept = read_trials(file)
    write_results(file, [record(0, 9.0, 5)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["method"] for line in lines if line["figure"] == "summary"] == ["other", "planted"]
    assert [trial for trial in read_trials(file) if trial["method"] == "other"] == [kept[0]]
    assert [trial["final_return"] for trial in read_trials(file) if trial["method"] == "planted"] == [9.0]
    (command,) = [line["command"] for line in lines if line["figure"] == "summary" and line["method"] == "planted"]
    assert command == "sindyrl bench cart --methods planted --seeds 1 --save"


STORED = [file for task in ("swingup", "swimmer") if (file := study.RESULTS / f"{task}.jsonl").exists()]


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_summaries_follow_from_the_stored_trials(file):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    summaries, trials = ([x for x in lines if x["figure"] == figure] for figure in ("summary", "trial"))
    assert len(summaries) + len(trials) == len(lines)
    for summary in summaries:
        own = [trial for trial in trials if trial["method"] == summary["method"]]
        assert summary == summarize(own)
        for trial in own:
            if "error" not in trial:
                assert trial["cost"] == trial["data_steps"] + trial["selection_steps"] == trial["curve"][-1]["steps"]
                assert trial["steps_to_threshold"] == steps_to(trial["curve"], trial["threshold"])
                assert trial["seed"] < study.DEVELOPMENT


def test_equal_records_give_the_same_figure(tmp_path):
    records = [record(seed, float(seed), None, method=method) for seed in (1, 2, 3) for method in ("one", "other")]
    records.append({"method": "one", "seed": 4, "error": "No."})
    for name in ("a.svg", "b.svg"):
        write_figure(tmp_path / name, records)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match="at least one"):
        write_figure(tmp_path / "c.svg", records[-1:])


# ---- a study


@pytest.fixture
def here(tmp_path, monkeypatch):
    """``study(methods, **options)``: exit code; trials run in this process, and `ran` lists them."""
    ran = []

    def run_jobs(jobs, *, workers, backend):
        for job in jobs:
            ran.append((job.method.split(":")[1], job.seed))
            try:
                yield job, run_trial(PROBLEM, load(job.method)(), job.seed)
            except ArithmeticError as error:
                yield job, {"seed": job.seed, "error": str(error)}

    def start(names, **options):
        ran.clear()
        options = {"seeds": 2, "out": tmp_path / "runs", "json": True, "first_seed": 10_000} | options
        return run_study(f"{HERE}:PROBLEM", Settings(methods=names, **options), PLANTED)

    monkeypatch.setattr(study, "run_jobs", run_jobs)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "code_digest", lambda modules, without: "the code")
    start.ran = ran
    return start


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_is_finished_is_not_computed_again(here, capsys, monkeypatch):
    assert here("planted") == 0
    assert here.ran == [("Planted", 10_000), ("Planted", 10_001)]
    first = told(capsys)
    assert here("planted", seeds=3) == 0
    assert here.ran == [("Planted", 10_002)]
    assert told(capsys)[:2] == first[:2]
    assert here("planted", quick=True) == 0
    assert len(here.ran) == 2  # other sizes, other trials
    monkeypatch.setattr(study, "code_digest", lambda modules, without: "other code")
    assert here("planted", seeds=1) == 0
    assert len(here.ran) == 1


def test_a_method_that_raises_is_told_for_its_seed_and_the_others_go_on(here, capsys):
    assert here("failing,planted") == 1
    assert here.ran == [("Failing", 10_000), ("Planted", 10_000), ("Failing", 10_001), ("Planted", 10_001)]
    lines = told(capsys)
    assert [line["method"] for line in lines if "error" in line] == ["failing"]
    failing, planted = (line for line in lines if line["figure"] == "summary")
    assert failing["failed"] == [{"seed": 10_001, "error": "an odd seed"}]
    assert (planted["failed"], planted["seeds"]) == ([], [10_000, 10_001])
    here("failing")
    assert here.ran == [("Failing", 10_001)]  # a failure is tried again


def test_a_closed_form_is_kept_and_its_c_is_measured_as_soon_as_there_is_a_compiler(
    here, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(study, "c_bytes", lambda policy: None)
    assert here("linear", seeds=1) == 0
    assert told(capsys)[-1]["c_bytes"] is None
    (file,) = (tmp_path / "runs" / "linear").glob("*-seed10000.json")
    assert SymbolicMap.load(file) == Linear().learn(None, 10_000, None)
    measured = []
    monkeypatch.setattr(study, "c_bytes", lambda policy: measured.append(policy) or 44)
    for _ in range(2):
        assert here("linear", seeds=1) == 0
        assert here.ran == []
        assert told(capsys)[-1]["c_bytes"] == 44.0
    assert measured == [SymbolicMap.load(file)]


def test_results_and_figure_are_saved_where_they_belong(here, tmp_path, capsys):
    assert here("planted", first_seed=None, save=True, plot=True) == 0
    stored = [json.loads(line) for line in (tmp_path / "results" / "cart.jsonl").read_text().splitlines()]
    assert [line["figure"] for line in stored] == ["summary", "trial", "trial"]
    assert stored[0] == told(capsys)[-1]
    assert (
        "planted (2 seeds)" in (tmp_path / "results" / "cart.svg").read_text()
        or (tmp_path / "results" / "cart.svg").stat().st_size
    )
    assert here("planted", first_seed=None, out=tmp_path / "elsewhere") == 0
    assert here.ran == []  # saved trials are finished ones


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"methods": "planted,nonsense"}, r"`--methods` must name some of planted.*Got 'nonsense'"),
        ({"methods": " , "}, "`--methods`"),
        ({"methods": "planted", "seeds": 0}, "`--seeds`"),
        ({"methods": "planted", "jobs": 0}, "`--jobs`"),
        ({"methods": "planted", "first_seed": -1}, "`--first-seed`"),
        ({"methods": "planted", "save": True, "quick": True}, "`--save`"),
        ({"methods": "planted", "save": True, "first_seed": 9_999, "seeds": 2}, "`--save`"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_runs(options, named, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "run_jobs", None)
    with pytest.raises(ValueError, match=named):
        run_study(f"{HERE}:PROBLEM", Settings(**options | {"out": tmp_path}), PLANTED)


def test_a_missing_package_is_one_line_with_the_remedy_before_anything_runs(here, capsys):
    with pytest.raises(ImportError, match=r"`--methods unavailable` needs no_such_package.*sindyrl\[baselines\]"):
        here("planted,unavailable")
    assert here.ran == []
    assert here("planted") == 0


def test_an_unknown_method_is_one_line_on_the_command_line(capsys):
    code = command.main(swingup.Settings, swingup.run, "", ["--methods", "policy-search,nonsense"])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("sindyrl bench: `--methods` must name some of ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_back_end_that_is_not_there_is_named_with_the_remedy(backend, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"`--backend {backend}` needs .*pip install"):
        next(iter(parallel.run_jobs([Job("p", "m", 0)], workers=1, backend=backend)))


# ---- processes


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
    trial = "from benchmarks.control.worker import end_with_parent; end_with_parent(); import time; time.sleep(60)"
    waiting = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {trial!r}], stdout=sys.stdout); "
    waiting += "print('begun', flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdout.readline() == b"begun\n"
        time.sleep(8.0)  # until it watches
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


# ---- methods


@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_the_contract(name):
    kind = load(methods.reference(name))
    full, quick = (kind.of(swingup.PROBLEM, quick=quick) for quick in (False, True))
    assert json.loads(json.dumps(dataclasses.asdict(full))) != json.loads(json.dumps(dataclasses.asdict(quick)))
    assert methods.available()[name]
    entry = study._entry("benchmarks.swingup:PROBLEM", swingup.PROBLEM, name, methods.reference(name), False, ROOT)
    assert json.dumps(entry.settings, allow_nan=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        full.anything = 1
    assert bool(getattr(kind, "PACKAGES", ())) == hasattr(kind, "EXTRA")


def test_the_methods_of_the_issue_are_there_and_asking_for_them_loads_no_torch():
    assert {"policy-search", "dyna-ppo", "dyna-published", "ppo", "sac", "td3"} <= set(methods.available())
    assert {"swingup", "swimmer"} <= set(bench_command.benchmarks(ROOT))
    for module in (swingup, swimmer):
        assert module.Settings().methods == "policy-search,dyna-ppo,ppo"
    for file in (ROOT / "benchmarks" / "control").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        loaded = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
        loaded |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not [name for name in loaded if name and name.split(".")[0] in ("torch", "stable_baselines3")]


def test_policy_search_is_the_demonstrations_chain(tmp_path):
    search = SearchSettings(
        population=8, generations=5, restarts=1, scenarios=2, offspring=8, polish=3, repair=2, tries=1, attempts=1
    )
    sizes = {"data_steps": 30, "max_terms": 3, "model_terms": 3, "warmup": 15, "refit_every": 5, "horizon": 10}
    settings = ChainSettings(seed=7, **sizes)
    folder = RunFolder(tmp_path / "run", dataclasses.asdict(settings))
    chain = Chain(CART_TASK, CartEnv, folder, settings, search_settings=search)
    told = {stage: folder.stage(stage, chain._stage_of[stage]) for stage in ("data", "model", "policy")}

    learned = []
    method = policy_search.Method(**sizes, search=search)

    class Kept(policy_search.Method):
        def learn(self, system, seed, report):
            learned.append(method.learn(system, seed, report))
            return learned[-1]

    figures = run_trial(dataclasses.replace(PROBLEM, curve_episodes=1, report_episodes=1), Kept(), seed=7)
    assert learned[0] == SymbolicMap.load(tmp_path / "run" / "policy.json")
    assert (figures["data_steps"], figures["selection_steps"]) == (30, told["policy"]["selection_steps"])
    assert figures["curve"][0]["steps"] == 30


def random_network(rng, sizes, activation, squash, **options):
    shapes = list(itertools.pairwise(sizes))
    return Perceptron(
        tuple(rng.normal(size=(b, a)) for a, b in shapes),
        tuple(rng.normal(size=b) for _, b in shapes),
        cartpole.STATES,
        cartpole.INPUTS,
        activation,
        squash,
        **options,
    )


@pytest.mark.parametrize(
    ("activation", "squash", "options"),
    [("tanh", "clip", {"mean": np.arange(5.0), "std": np.full(5, 0.3), "clip": 2.0}), ("relu", "tanh", {"limit": 0.4})],
)
def test_a_network_taken_out_is_its_closed_form(activation, squash, options):
    rng = np.random.default_rng(0)
    network = random_network(rng, (5, 8, 6, 1), activation, squash, **options)
    x = 3.0 * rng.normal(size=(200, 5))
    np.testing.assert_allclose(network(x), network.symbolic()(x), rtol=1e-12, atol=1e-14)
    assert np.abs(network(x)).max() <= 1.0
    if "limit" in options:
        assert np.abs(network(x)).max() == pytest.approx(np.tanh(0.4))
    assert n_parameters(network) == 5 * 8 + 8 + 8 * 6 + 6 + 6 + 1


def test_the_size_of_a_policy_is_that_of_its_closed_form():
    x, v = Variable("x"), Variable("v")
    short = SymbolicMap(CART, {FORCE[0]: -2.0 * x - 0.5 * v}, name="short")
    longer = SymbolicMap(CART, {FORCE[0]: -2.0 * x - 0.5 * v + 0.25 * x * v * v - 3.0 * x**3}, name="longer")
    assert (n_parameters(short), n_parameters(Gain(1.0)), n_parameters(lambda x: x)) == (2, 2, None)
    assert c_bytes(lambda x: x) is None
    pytest.importorskip("ziglang")
    pytest.importorskip("elftools")
    assert 0 < c_bytes(short) < c_bytes(longer) < 200


@pytest.mark.parametrize("name", ["ppo", "sac", "td3"])
def test_a_baseline_takes_as_many_steps_as_it_counts_and_acts_as_it_learned(name):
    pytest.importorskip("stable_baselines3")
    method = load(methods.reference(name)).of(dataclasses.replace(PROBLEM, name="swingup"), quick=True)
    figures = run_trial(PROBLEM, method, seed=10_000)  # that the network acts as the agent is checked at every report
    assert figures["cost"] == figures["data_steps"] >= method.baseline.steps
    assert [point["steps"] for point in figures["curve"]][:2] == [0, method.baseline.report_every]


@pytest.mark.slow
def test_a_quick_study_of_the_swing_up_runs(tmp_path, capsys):
    pytest.importorskip("dm_control")
    arguments = ["--methods", "policy-search,dyna-ppo", "--seeds", "1", "--quick", "--json", "--out", str(tmp_path)]
    assert command.main(swingup.Settings, swingup.run, "", arguments) == 0
    lines = told(capsys)
    assert [line["figure"] for line in lines] == ["trial", "trial", "summary", "summary"]
    assert all(0.0 <= value <= 1000.0 for line in lines[:2] for value in line["returns"])
