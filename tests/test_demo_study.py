"""One real demonstration, and the study over many: seeds that nobody picked, counts that anybody can redo."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import demo_swingup, seeds
from benchmarks.demo_swingup import Settings, run_seed, verdict
from benchmarks.seeds import derived_seeds, tree_hash
from sindyrl.chain import STAGES
from sindyrl.demo import OTHERS
from tests.test_chain import SUMMARY, timeless

ROOT = Path(__file__).resolve().parent.parent
PPO = ROOT / "benchmarks" / "results" / "ppo_swingup.json"
MEASURED = ["exit_code", "process_wall_s", "peak_memory_mb"]


# ---- the demonstration itself, once per session


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Standard output of a study of one seed, and the folder of that seed's run.

    The workers of a parallel session share it: the first computes, the others find it finished.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = base / "demo_study"
    with (base / "demo_study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "benchmarks.demo_swingup", "--quick", "--json", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = out.glob("*/*/seed0")
    assert (folder / "run" / "report.html").exists(), (folder / "stderr.txt").read_text()
    return done.stdout, folder


@pytest.fixture(scope="session")
def lines(study):
    """What ``sindyrl demo --json`` printed on standard output."""
    return [json.loads(line) for line in (study[1] / "stdout.jsonl").read_text().splitlines()]


def test_the_demo_prints_one_json_object_per_stage_and_the_summary_last(lines):
    assert [line.get("stage") for line in lines] == [*STAGES, None]
    assert list(lines[-1]) == SUMMARY
    assert lines[-1]["seed"] == 0


def test_the_demo_keeps_its_promises(lines):
    summary = lines[-1]
    assert summary["data_steps"] <= 250
    assert summary["selection_steps"] <= 3000
    assert summary["n_terms"] <= 10
    assert summary["model_terms"] <= 10
    assert summary["report_episodes"] == 10
    assert 700.0 <= summary["return_min"] <= summary["return_mean"] <= 1000.0
    assert len(summary["acceleration_errors"]) == 2
    assert max(summary["acceleration_errors"]) <= 0.05
    assert summary["c_matches"] is True


def test_the_demo_executes_its_c(lines):
    pytest.importorskip("unicorn")
    pytest.importorskip("ziglang")
    assert 0 < lines[-1]["m4_instructions"] <= 120
    assert lines[-1]["c_bytes"] > 0


def test_the_demo_shows_no_traceback_and_stays_within_its_memory(study):
    assert "Traceback" not in (study[1] / "stderr.txt").read_text()
    assert json.loads((study[1] / "row.json").read_text())["peak_memory_mb"] < 2000


def test_the_run_folder_of_the_demo_holds_everything(study):
    run = study[1] / "run"
    for name in ("config.json", "metrics.jsonl", "data.npz", "model.json", "policy.json", "report.html"):
        assert (run / name).stat().st_size > 0
    assert {file.stem for file in (run / "stages").iterdir()} == set(STAGES)
    assert {file.name for file in (run / "firmware").iterdir()} == {"policy.h", "policy.c", "policy_selftest.c"}
    assert not [file for file in run.rglob("*") if file.name.startswith(".")]


def test_the_study_prints_the_row_and_the_verdict(study, lines):
    row, found = (json.loads(line) for line in study[0].splitlines())
    assert {name: row[name] for name in SUMMARY} == lines[-1]
    assert list(row) == [*SUMMARY, *MEASURED]
    assert row["exit_code"] == 0
    assert found == verdict([row])


@pytest.mark.slow
def test_the_demo_gives_the_same_numbers_in_another_process_and_others_for_another_seed(lines, tmp_path):
    def demo(seed):
        command = [
            sys.executable,
            "-m",
            "sindyrl",
            "demo",
            "--json",
            "--seed",
            str(seed),
            "--out",
            str(tmp_path / seed),
        ]
        environment = os.environ | {"PYTHONHASHSEED": "4711"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return timeless(json.loads(done.stdout.splitlines()[-1]))

    assert demo("0") == timeless(lines[-1])
    assert demo("1")["return_mean"] != lines[-1]["return_mean"]


# ---- what others need


def test_the_figures_of_ppo_are_those_of_the_stored_measurement():
    """Steps and return of each seed at its first evaluation of at least 800, or at the end if there was none.

    A peer is used at its best: of several measured configurations, the one with which most seeds got there, soonest.
    """

    def shortfall(configuration):
        needed = configuration["summary"]["steps_to_threshold"]
        return needed.count(None), sum(filter(None, needed))

    stored = min(json.loads(PPO.read_text())["configurations"].values(), key=shortfall)
    threshold = stored["config"]["threshold"]
    points = []
    for run in stored["runs"]:
        reached = [point for point in run["curve"] if point["return"] >= threshold]
        points.append(reached[0] if reached else run["curve"][-1])
    ppo = next(other for other in OTHERS if other.method.startswith("PPO"))
    assert list(ppo.steps) == [point["steps"] for point in points]
    assert list(ppo.returns) == pytest.approx([point["return"] for point in points], abs=0.05)
    assert ppo.source == f"measured here, {PPO.relative_to(ROOT)}"
    missed = stored["summary"]["steps_to_threshold"].count(None)
    assert (len(points), missed) == (3, 0), "the note says three seeds, all of which got there"
    assert f"{threshold:.0f}" in ppo.note


def test_what_was_not_measured_here_is_marked_published():
    for other in OTHERS:
        measured = other.source.startswith("measured here")
        assert measured == other.method.startswith("PPO")
        assert measured or other.source.startswith("published")


# ---- seeds


def test_the_seeds_are_the_hash_of_tree_and_index():
    tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    last_four_bytes = [hashlib.sha256(tree.encode() + str(i).encode()).digest()[-4:] for i in range(20)]
    assert derived_seeds(tree, 20) == [int.from_bytes(each, "big") for each in last_four_bytes]
    assert derived_seeds(tree, 3) == derived_seeds(tree, 20)[:3]
    assert derived_seeds("another", 20) != derived_seeds(tree, 20)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(seeds, "ROOT", tmp_path)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "model.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_tree_is_that_of_the_commit(checkout):
    assert git(checkout, "cat-file", "-p", "HEAD").startswith(f"tree {tree_hash()}\n")
    first = tree_hash()
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "same files")
    assert tree_hash() == first
    (checkout / "notes.txt").write_text("not part of the tree")
    assert tree_hash() == first


@pytest.mark.parametrize("staged", [False, True])
def test_a_changed_work_tree_is_refused(checkout, staged):
    (checkout / "model.py").write_text("x = 2\n")
    if staged:
        git(checkout, "add", ".")
    with pytest.raises(RuntimeError, match=r"Commit first(.|\n)*model.py"):
        tree_hash()


def test_without_a_checkout_there_are_no_seeds(checkout, monkeypatch):
    empty = checkout / "empty"
    empty.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout))
    monkeypatch.setattr(seeds, "ROOT", empty)
    with pytest.raises(RuntimeError, match="git checkout is needed"):
        tree_hash()


# ---- the verdict


def row(**changes):
    good = {
        "seed": 1,
        "data_steps": 250,
        "selection_steps": 1000,
        "n_terms": 10,
        "return_mean": 870.0,
        "return_min": 860.0,
        "report_episodes": 10,
        "wall_s": 14.0,
        "c_matches": True,
        "c_bytes": 300,
        "m4_instructions": 60,
        "model_terms": 6,
        "acceleration_errors": [0.001, 0.002],
        "exit_code": 0,
        "process_wall_s": 15.0,
        "peak_memory_mb": 600,
    }
    return good | changes


COUNTS = {
    "data_steps_at_most_250": ({"data_steps": 250}, {"data_steps": 251}),
    "selection_steps_at_most_3000": ({"selection_steps": 3000}, {"selection_steps": 3001}),
    "n_terms_at_most_10": ({"n_terms": 10}, {"n_terms": 11}),
    "return_mean_at_least_850": ({"return_mean": 850.0}, {"return_mean": 849.999}),
    "return_mean_under_700": ({"return_mean": 699.999}, {"return_mean": 700.0}),
    "c_matches": ({"c_matches": True}, {"c_matches": False}),
    "m4_instructions_at_most_120": ({"m4_instructions": 120}, {"m4_instructions": 121}),
    "model_terms_at_most_10": ({"model_terms": 10}, {"model_terms": 11}),
    "acceleration_errors_at_most_5_percent": (
        {"acceleration_errors": [0.05, 0.0]},
        {"acceleration_errors": [0.0, 0.0501]},
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_each_count_is_of_the_seeds_within_its_bound(name):
    within, beyond = COUNTS[name]
    assert verdict([row(**within), row(**beyond), row(**beyond), row(**beyond)])[name] == 1
    assert verdict([row(**within)] * 4)[name] == 4


def test_instructions_that_were_not_measured_do_not_count():
    assert verdict([row(m4_instructions=None), row()])["m4_instructions_at_most_120"] == 1


def test_a_seed_that_failed_is_counted_as_a_seed_and_as_nothing_else():
    failed = {"seed": 2, "exit_code": 1, "process_wall_s": 99.0, "peak_memory_mb": 700}
    found = verdict([row(), failed])
    assert (found["seeds"], found["finished"], found["slowest_process_wall_s"]) == (2, 1, 99.0)
    assert found["largest_peak_memory_mb"] == 700
    assert all(found[name] == (0 if name == "return_mean_under_700" else 1) for name in COUNTS)
    nothing = verdict([failed])
    assert nothing["finished"] == 0
    assert nothing["return_mean_lowest"] is None
    assert nothing["return_mean_interquartile_mean"] is None


def test_the_interquartile_mean_is_over_the_middle_half():
    returns = [0.0, 1000.0, 871.0, 872.0, 873.0, 874.0, 500.0, 1000.0]  # sorted: the middle four are 871 ... 874
    found = verdict([row(return_mean=value) for value in returns])
    assert found["return_mean_interquartile_mean"] == 872.5
    assert found["return_mean_lowest"] == 0.0
    assert json.loads(json.dumps(found)) == found


# ---- the study


def test_a_seed_that_fails_becomes_a_row_and_is_not_run_again(tmp_path, monkeypatch):
    settings = Settings(data_steps=3)  # refused by the demo
    failed = run_seed(settings, 5, tmp_path / "seed5")
    assert list(failed) == ["seed", *MEASURED]
    assert (failed["seed"], failed["exit_code"]) == (5, 2)
    assert "data_steps" in (tmp_path / "seed5" / "stderr.txt").read_text()
    monkeypatch.setattr(demo_swingup.subprocess, "Popen", None)
    assert run_seed(settings, 5, tmp_path / "seed5") == failed


def test_a_study_of_derived_seeds_is_saved_with_every_row(tmp_path, monkeypatch, capsys):
    ran = []

    def record(settings, seed, folder):
        ran.append((seed, folder))
        return row(seed=seed, return_mean=600.0 if len(ran) == 2 else 880.0)

    monkeypatch.setattr(demo_swingup, "run_seed", record)
    monkeypatch.setattr(demo_swingup, "tree_hash", lambda: "tree")
    monkeypatch.setattr(demo_swingup, "RESULTS", tmp_path / "results")
    settings = Settings(seeds=3, noise=1e-3, data_steps=400, save=True, json=True, out=tmp_path)
    assert demo_swingup.run(settings) == 0
    table = json.loads((tmp_path / "results" / "demo_swingup_noise0.001.json").read_text())
    assert table["tree"] == "tree"
    assert [each["seed"] for each in table["rows"]] == derived_seeds("tree", 3) == [seed for seed, _ in ran]
    assert table["verdict"] == verdict(table["rows"])
    assert table["verdict"]["return_mean_under_700"] == 1
    assert "--seeds 3 --noise 0.001 --data-steps 400 --save" in table["command"]
    assert len({folder for _, folder in ran}) == 3
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [*table["rows"], table["verdict"]]


@pytest.mark.parametrize("changes", [{"first_seed": 0}, {"quick": True}])
def test_development_seeds_are_never_saved(tmp_path, monkeypatch, capsys, changes):
    monkeypatch.setattr(demo_swingup, "run_seed", None)
    monkeypatch.setattr(demo_swingup, "RESULTS", tmp_path / "results")
    assert demo_swingup.run(Settings(save=True, out=tmp_path, **changes)) == 2
    assert "`--save` is for derived seeds" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_study_of_no_seed_is_refused(capsys):
    assert demo_swingup.run(Settings(seeds=0)) == 2
    assert "`--seeds`" in capsys.readouterr().err
