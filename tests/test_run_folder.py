"""A run killed at any file operation ends with the same numbers; what is not this run is refused and left alone."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sindyrl import run_folder
from sindyrl.run_folder import RunFolder, RunFolderError, code_digest, versions

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"seed": 7, "steps": 3}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def must_not_run(rng):
    raise AssertionError("a finished stage was computed again")


# ---- stages


def test_a_finished_stage_is_read_back_and_not_computed_again(folder):
    first = RunFolder(folder, CONFIG).stage("data", lambda rng: {"drawn": rng.normal(size=3).tolist()})
    again = RunFolder(folder, CONFIG)
    assert again.finished("data")
    assert again.stage("data", must_not_run) == first
    assert again.results() == {"data": first}


def test_the_numbers_of_a_stage_depend_on_seed_and_stage_alone(folder, tmp_path):
    def draws(rng):
        return {"drawn": rng.normal(size=3).tolist()}

    run = RunFolder(folder, CONFIG)
    both = [run.stage(name, draws)["drawn"] for name in ("data", "policy")]
    backwards = RunFolder(tmp_path / "backwards", CONFIG)
    assert [backwards.stage(name, draws)["drawn"] for name in ("policy", "data")] == both[::-1]
    assert both[0] != both[1]
    other = RunFolder(tmp_path / "other", CONFIG | {"seed": 8})
    assert other.stage("data", draws)["drawn"] != both[0]


def test_an_interrupted_stage_starts_over_without_its_lines(folder):
    run = RunFolder(folder, CONFIG)
    run.stage("data", lambda rng: run.log("data", steps=1) or {})

    def interrupted(rng):
        run.log("policy", score=1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("policy", interrupted)
    assert not run.finished("policy")
    resumed = RunFolder(folder, CONFIG)
    resumed.stage("policy", lambda rng: resumed.log("policy", score=2.0) or {})
    assert resumed.metrics() == [{"stage": "data", "steps": 1}, {"stage": "policy", "score": 2.0}]


@pytest.mark.parametrize("cut", [b'{"stage": "data", "st', b'{"stage": "data"}\n\xff\xfe\n', b"17\n", b"\n"])
def test_a_line_that_was_cut_short_is_left_out_and_spoils_no_other(folder, cut):
    run = RunFolder(folder, CONFIG)
    run.stage("data", lambda rng: {})
    run.log("data", steps=1)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(cut)
    run.stage("policy", lambda rng: run.log("policy", score=2.0) or {})
    lines = [line for line in run.metrics() if line != {"stage": "data"}]
    assert lines == [{"stage": "data", "steps": 1}, {"stage": "policy", "score": 2.0}]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == run.metrics()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_result_that_json_cannot_hold_leaves_the_stage_unfinished(folder, bad):
    run = RunFolder(folder, CONFIG)
    with pytest.raises(ValueError, match="JSON"):
        run.stage("data", lambda rng: {"value": bad})
    assert not run.finished("data")
    assert [file.name for file in (folder / "stages").iterdir()] == []


KILLED = """
    import json, os, pathlib, sys
    from sindyrl.run_folder import RunFolder

    root, fresh = pathlib.Path(sys.argv[1]), sys.argv[2] == "fresh"
    # The worst order of removal: config.json, by which a run is known, comes first.
    listed = pathlib.Path.iterdir
    pathlib.Path.iterdir = lambda folder: iter(sorted(listed(folder)))
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def run(folder, seed=7, fresh=False):
        run = RunFolder(folder, {"seed": seed}, fresh=fresh)
        def compute(rng, name):
            for k in range(2):
                run.log(name, value=rng.normal())
            (folder / f"{name}.txt").write_text(repr(rng.normal()))
            return {"value": rng.normal()}
        for name in ("data", "policy"):
            run.stage(name, lambda rng: compute(rng, name))
        result = {name: found["value"] for name, found in run.results().items()}
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
        return result, run.metrics(), names, [(folder / f"{name}.txt").read_text() for name in result]

    def kill_at(operation):
        left = [operation]
        def hook(event, arguments):
            writes = event == "open" and arguments[2] & WRITING
            if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
        sys.addaudithook(hook)

    expected = run(root / "whole")
    operation, killed = 0, True
    while killed:
        folder = root / f"killed{operation}"
        if fresh:
            run(folder, seed=8)
        child = os.fork()
        if child == 0:
            kill_at(operation)
            run(folder, fresh=fresh)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert run(folder, fresh=fresh) == expected, (operation, run(folder), expected)
        operation += 1
    print(operation)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["resumed", "fresh"])
def test_a_run_killed_at_any_file_operation_ends_with_the_same_numbers(tmp_path, how):
    """Each opening for writing, renaming, removal and new folder in turn is where the process ends."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), how]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20, "the run was killed at too few places for this test to say anything"


# ---- whose folder


def test_another_configuration_is_refused_with_the_way_out(folder):
    RunFolder(folder, CONFIG | {"text": "long " * 1000}).stage("data", lambda rng: {})
    before = content(folder)
    with pytest.raises(RunFolderError, match=r"steps: 3 there.*--out.*--fresh") as refused:
        RunFolder(folder, CONFIG | {"steps": 4, "text": "short"})
    assert len(str(refused.value)) < 600
    assert content(folder) == before


def test_settings_added_later_are_another_configuration(folder):
    RunFolder(folder, CONFIG)
    with pytest.raises(RunFolderError, match="noise"):
        RunFolder(folder, CONFIG | {"noise": 0.1})


def test_a_tuple_is_the_list_that_json_makes_of_it(folder):
    RunFolder(folder, CONFIG | {"grid": (1, 2)})
    RunFolder(folder, CONFIG | {"grid": (1, 2)})


def test_a_run_by_other_code_is_refused_with_the_way_out(folder, monkeypatch):
    RunFolder(folder, CONFIG).stage("data", lambda rng: {})
    before = content(folder)
    monkeypatch.setattr(run_folder, "code_digest", lambda: "0" * 64)
    with pytest.raises(RunFolderError, match=r"another version of the code.*--out.*--fresh"):
        RunFolder(folder, CONFIG)
    assert content(folder) == before
    RunFolder(folder, CONFIG, fresh=True)


def test_the_digest_follows_every_source_file_and_no_other(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "controllers").mkdir(parents=True)
    for name in ("run_folder.py", "model.py", "controllers/sampling.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.setattr(run_folder, "__file__", str(package / "run_folder.py"))
    digests = {code_digest()}
    (package / "notes.txt").write_text("not code")
    assert code_digest() in digests
    for name in ("model.py", "controllers/sampling.py"):
        (package / name).write_text("x = 2\n")
        digests.add(code_digest())
    (package / "controllers" / "sampling.py").rename(package / "controllers" / "other.py")
    digests.add(code_digest())
    assert len(digests) == 4


def test_fresh_removes_the_earlier_run(folder):
    run = RunFolder(folder, CONFIG)
    run.stage("data", lambda rng: run.log("data", steps=1) or {})
    (folder / "firmware").mkdir()
    (folder / "firmware" / "policy.c").write_text("")
    again = RunFolder(folder, CONFIG | {"steps": 4}, fresh=True)
    assert not again.finished("data")
    assert again.metrics() == []
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "stages"]
    assert json.loads((folder / "config.json").read_text())["config"]["steps"] == 4


def test_fresh_removes_what_a_link_is_and_not_what_it_points_to(folder, tmp_path):
    RunFolder(folder, CONFIG)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("years of work")
    (folder / "link").symlink_to(elsewhere)
    link_to_run = tmp_path / "latest"
    link_to_run.symlink_to(folder)
    RunFolder(link_to_run, CONFIG, fresh=True)
    assert (elsewhere / "thesis.txt").read_text() == "years of work"
    assert not (folder / "link").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "config.json", "stages"])
def test_a_folder_of_somebody_else_is_refused_and_left_alone(folder, fresh, name):
    folder.mkdir()
    (folder / "data.csv").write_text("1,2,3")
    if name == "stages":
        (folder / name).mkdir()
    else:
        (folder / name).write_text('{"format": "another program"}')
    before = content(folder)
    with pytest.raises(RunFolderError, match="--out"):
        RunFolder(folder, CONFIG, fresh=fresh)
    assert content(folder) == before


def test_a_newer_schema_is_refused_with_both_numbers(folder):
    RunFolder(folder, CONFIG)
    document = json.loads((folder / "config.json").read_text()) | {"schema": 2}
    (folder / "config.json").write_text(json.dumps(document))
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match=r"schema 2.*schema 1"):
            RunFolder(folder, CONFIG, fresh=fresh)


@pytest.mark.parametrize("below", ["", "run", "run/deeper"])
def test_a_file_in_the_way_is_a_named_error(tmp_path, below):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(RunFolderError, match=r"taken.*cannot be written.*--out"):
        RunFolder(tmp_path / "taken" / below, CONFIG)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"value": NaN}', "\x00"])
def test_a_damaged_result_is_a_named_error(folder, text):
    run = RunFolder(folder, CONFIG)
    run.stage("data", lambda rng: {})
    (folder / "stages" / "data.json").write_text(text)
    with pytest.raises(ValueError, match=r"stages.data\.json"):
        run.stage("data", must_not_run)


def test_the_packages_that_decide_numbers_are_recorded(folder):
    RunFolder(folder, CONFIG)
    assert json.loads((folder / "config.json").read_text())["versions"] == versions()
    assert versions()["numpy"] == np.__version__
