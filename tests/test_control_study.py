"""A study of control: what is finished is not computed again, failures are told, and wrong options run nothing."""

import json
import sys

import pytest

from benchmarks import command, swingup
from benchmarks.control import parallel, study
from benchmarks.control.parallel import Job
from benchmarks.control.study import Settings, run_study
from benchmarks.control.trial import run_trial
from benchmarks.control.worker import load
from sindyrl.symbolic_map import SymbolicMap
from tests.control_cases import HERE, PLANTED, PROBLEM, Linear, told


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
    assert "planted (2 seeds)" in (tmp_path / "results" / "cart.svg").read_text()
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


def test_a_missing_package_is_one_line_with_the_remedy_before_anything_runs(here):
    remedy = r"`--methods unavailable` needs no_such_package.*sindyrl\[baselines\]"
    with pytest.raises(ImportError, match=remedy) as raised:
        here("planted,unavailable")
    assert "\n" not in str(raised.value)
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


@pytest.mark.slow
def test_a_quick_study_of_the_swing_up_runs(tmp_path, capsys):
    pytest.importorskip("dm_control")
    arguments = ["--methods", "policy-search,dyna-ppo", "--seeds", "1", "--quick", "--json", "--out", str(tmp_path)]
    assert command.main(swingup.Settings, swingup.run, "", arguments) == 0
    lines = told(capsys)
    assert [line["figure"] for line in lines] == ["trial", "trial", "summary", "summary"]
    assert all(0.0 <= value <= 1000.0 for line in lines[:2] for value in line["returns"])
