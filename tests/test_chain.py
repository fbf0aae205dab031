"""The whole chain on a cart: interrupted or not it ends with the same numbers, and every real step is counted."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

from sindyrl import chain as module
from sindyrl import demo, run_folder
from sindyrl.chain import STAGES, Chain, ChainSettings, compiled
from sindyrl.demo import run_chain
from sindyrl.learn.policy_search import SearchSettings
from sindyrl.model import Model
from sindyrl.run_folder import RunFolder, RunFolderError
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.trajectory import Dataset
from tests.systems import CART_TASK, CartEnv

SUMMARY = [
    "seed", "data_steps", "selection_steps", "n_terms", "return_mean", "return_min", "report_episodes", "wall_s",
    "c_matches", "c_bytes", "m4_instructions", "model_terms", "acceleration_errors",
]  # fmt: skip
SETTINGS = ChainSettings(
    data_steps=30, max_terms=3, model_terms=3, report_episodes=2, warmup=15, refit_every=5, horizon=10
)
QUICK = SearchSettings(
    population=8, generations=5, restarts=1, scenarios=2, offspring=8, polish=3, repair=2, tries=1, attempts=1
)


def chain(folder, *, env=CartEnv, settings=SETTINGS, search_settings=QUICK, **options):
    run = RunFolder(folder, dataclasses.asdict(settings))
    return Chain(CART_TASK, env, run, settings, search_settings=search_settings, **options)


def timeless(record):
    return {name: value for name, value in record.items() if name != "wall_s"}


def numbers(folder):
    """Everything a run found, times excepted."""
    run = RunFolder(folder, json.loads((folder / "config.json").read_text())["config"])
    files = ("model.json", "policy.json", "policy_terms.json", "firmware/policy.h", "firmware/policy.c")
    data = [Dataset.from_npz(folder / name).pairs() for name in ("data.npz", "episodes.npz")]
    return {
        "stages": {stage: timeless(result) for stage, result in run.results().items()},
        "metrics": run.metrics(),
        "files": [(folder / name).read_bytes() for name in files],
        "data": [[column.tolist() for column in (pairs.x, pairs.u, pairs.x_next)] for pairs in data],
    }


def show(folder, *, json=False, page=False):
    """`sindyrl learn` without its command line; writing the page takes seconds and is left out unless asked for."""
    with pytest.MonkeyPatch.context() as patch:
        if not page:
            patch.setattr(demo, "write_report", lambda folder, **options: folder / "report.html")
        return run_chain(CART_TASK, CartEnv, {}, SETTINGS, folder, title="Cart", json=json)


@pytest.fixture(scope="module", autouse=True)
def same_code():
    """A source file that is edited while the tests run is no change of code between two halves of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "code_digest", lambda: "0" * 64)
        yield


@pytest.fixture(scope="module")
def environments():
    """Those that the finished run has made."""
    return []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environments):
    """A run from beginning to end, and its summary."""

    def env():
        environments.append(CartEnv())
        return environments[-1]

    folder = tmp_path_factory.mktemp("chain") / "run"
    return folder, chain(folder, env=env).run()


@pytest.fixture
def copy(tmp_path, finished):
    """A finished run that a test may damage."""
    return shutil.copytree(finished[0], tmp_path / "copy")


def unfinish(folder, *stages):
    for stage in stages:
        (folder / "stages" / f"{stage}.json").unlink()


# ---- what comes out


def test_the_summary_has_the_promised_keys_and_agrees_with_the_stages(finished):
    folder, summary = finished
    assert list(summary) == SUMMARY
    stages = numbers(folder)["stages"]
    assert list(stages) == sorted(STAGES)
    returns = stages["report"]["returns"]
    assert (summary["return_mean"], summary["return_min"]) == (np.mean(returns), min(returns))
    assert summary["report_episodes"] == len(returns) == 2
    assert summary["data_steps"] == 30
    assert summary["n_terms"] <= 3
    assert summary["c_matches"] is True
    assert summary["wall_s"] > 0.0


def test_every_real_step_is_under_one_head(finished, environments):
    folder, summary = finished
    report = json.loads((folder / "stages" / "report.json").read_text())
    taken = [env.taken for env in environments]
    assert taken == [summary["data_steps"], summary["selection_steps"], report["report_steps"]]
    assert taken == [30, 30, 60]


def test_the_double_integrator_is_recovered_exactly(finished):
    folder, summary = finished
    (rates,) = Model.load(folder / "model.json").rates.symbolic()(np.array([[0.3, -0.2, 0.7]]))
    np.testing.assert_allclose(rates, [0.7], rtol=1e-12)
    assert summary["model_terms"] == 1
    assert summary["acceleration_errors"] == pytest.approx([0.0], abs=1e-9)


def test_the_stored_returns_are_those_of_the_stored_policy_in_the_stored_episodes(finished):
    folder, _ = finished
    policy = SymbolicMap.load(folder / "policy.json")
    episodes = Dataset.from_npz(folder / "episodes.npz").trajectories
    returns = json.loads((folder / "stages" / "report.json").read_text())["returns"]
    assert [float(np.sum(episode.r)) for episode in episodes] == returns
    for episode in episodes:
        np.testing.assert_array_equal(policy(episode.x[:-1]), episode.u)


def test_an_environment_that_never_ends_is_stopped_at_the_horizon(tmp_path):
    chain(tmp_path / "run", env=lambda: CartEnv(length=10**9)).run()
    report = json.loads((tmp_path / "run" / "stages" / "report.json").read_text())
    assert report["report_steps"] == 2 * CART_TASK.horizon


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(finished, tmp_path):
    folder, summary = finished
    shares = {stage: [] for stage in STAGES}
    again = chain(tmp_path / "again", progress=lambda stage, share, figure: shares[stage].append(share)).run()
    assert timeless(again) == timeless(summary)
    assert numbers(tmp_path / "again") == numbers(folder)
    for seen in shares.values():
        assert (seen[0], seen[-1]) == (0.0, 1.0)
        assert seen == sorted(seen)
    chain(tmp_path / "other", settings=dataclasses.replace(SETTINGS, seed=1)).run()
    ours, theirs = numbers(folder), numbers(tmp_path / "other")
    assert ours["data"] != theirs["data"]
    assert ours["stages"]["report"]["returns"] != theirs["stages"]["report"]["returns"]
    assert ours["stages"]["policy"]["policy"] != theirs["stages"]["policy"]["policy"]


def test_the_model_is_judged_by_the_simulator_if_it_can_tell(copy):
    unfinish(copy, "report")
    chain(copy, truth=lambda x, u: 2.0 * u).run()
    report = json.loads((copy / "stages" / "report.json").read_text())
    assert report["judged_by"] == "the simulator's own"
    assert report["acceleration_errors"] == pytest.approx([0.5])  # the model says u where 2 u would be true


# ---- interruptions


def interrupt_at(stage, monkeypatch):
    """Options of a chain that is interrupted in the middle of a stage."""
    after = {"data": 8, "policy": 4, "report": 3}  # calls: data and report have logged a line by then
    if stage in after:
        calls = []

        def progress(current, share, figure):
            calls.append(current)
            if calls.count(stage) >= after[stage]:
                raise KeyboardInterrupt

        return {"progress": progress}
    owner, name = (Model, "save") if stage == "model" else (module, "to_c")
    whole = getattr(owner, name)

    def written_and_interrupted(*arguments, **options):
        whole(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, written_and_interrupted)
    return {}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was interrupted once in every stage, and its summary."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    for index, stage in enumerate(STAGES):
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(KeyboardInterrupt):
            chain(folder, **interrupt_at(stage, monkeypatch)).run()
        assert {file.stem for file in (folder / "stages").iterdir()} == set(STAGES[:index])
    return folder, chain(folder).run()


def test_interrupted_in_every_stage_it_ends_with_the_same_numbers(finished, interrupted):
    folder, summary = interrupted
    assert timeless(summary) == timeless(finished[1])
    assert numbers(folder) == numbers(finished[0])


def test_the_lines_of_an_interrupted_stage_do_not_appear_twice(interrupted):
    metrics = numbers(interrupted[0])["metrics"]
    assert [line["steps"] for line in metrics if line["stage"] == "data"] == [5, 10, 15, 20, 25, 30]
    assert [line["episode"] for line in metrics if line["stage"] == "report"] == [0, 1]
    assert len({json.dumps(line) for line in metrics}) == len(metrics)


def test_a_finished_run_takes_no_step_and_computes_nothing(finished, copy, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("computed again")

    for name in ("collect_actively", "identify", "search", "to_c", "evaluate"):
        monkeypatch.setattr(module, name, refuse)
    seen = []
    summary = chain(copy, env=refuse).run(after=lambda stage, result: seen.append(stage))
    assert summary == finished[1]
    assert seen == list(STAGES)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_needs_nothing_of_earlier_stages_but_their_files(finished, copy, stage):
    """Each stage alone, in a chain that computed none of the others, gives what it gave within the whole run."""
    expected = numbers(copy)
    unfinish(copy, stage)
    chain(copy).run()
    found = numbers(copy)
    assert found["stages"] == expected["stages"]
    assert found["files"] == expected["files"]
    assert sorted(map(json.dumps, found["metrics"])) == sorted(map(json.dumps, expected["metrics"]))


# ---- a machine that lacks something


@pytest.fixture
def bare_machine(monkeypatch):
    """No compiler, neither the system's nor one in a wheel."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)


def test_without_a_compiler_the_numbers_are_the_same_and_the_c_is_marked(finished, tmp_path, bare_machine, capsys):
    with pytest.warns(UserWarning, match=r"not verified.*compiler"):
        summary = chain(tmp_path / "run").run()
    unmeasured = {"c_matches": False, "c_bytes": None, "m4_instructions": None}
    assert timeless(summary) == timeless(finished[1]) | unmeasured
    export = json.loads((tmp_path / "run" / "stages" / "export.json").read_text())
    assert export["verified"] == "none"
    assert "no C compiler" in export["note"]
    assert "Not verified" in (tmp_path / "run" / "firmware" / "policy.h").read_text()
    show(tmp_path / "run")
    assert "not verified: there was no C compiler" in capsys.readouterr().out


def test_without_the_emulator_the_c_is_compiled_and_compared(finished, copy, monkeypatch, capsys):
    unfinish(copy, "export")
    monkeypatch.setitem(sys.modules, "unicorn", None)
    summary = chain(copy).run()
    unmeasured = {"c_bytes": None, "m4_instructions": None}
    assert timeless(summary) == timeless(finished[1]) | unmeasured
    export = json.loads((copy / "stages" / "export.json").read_text())
    assert export["verified"] == "compiled"
    assert 'pip install "sindyrl[embedded]"' in export["note"]
    show(copy)
    assert "not executed on a Cortex-M4F" in capsys.readouterr().out


def test_the_compiled_policy_is_the_policy(finished):
    policy = SymbolicMap.load(finished[0] / "policy.json")
    fast = compiled(policy)
    assert fast is not policy
    assert fast.input_names == policy.input_names
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_array_equal([fast(row) for row in x], policy(x))


# ---- damaged files


@pytest.mark.parametrize(
    ("name", "redo"),
    [
        ("data.npz", "model"),
        ("model.json", "policy"),
        ("policy.json", "export"),
        ("model.json", "report"),
        ("model.json", None),
        ("episodes.npz", None),
        ("stages/data.json", None),
        ("stages/report.json", None),
    ],
)
def test_a_damaged_file_is_a_named_error_that_says_what_to_do(copy, name, redo):
    if redo is not None:
        unfinish(copy, redo)
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFolderError, match=r"--fresh") as refused:
        show(copy, page=redo is None)
    assert name in str(refused.value)
    assert redo is None or not (copy / "stages" / f"{redo}.json").exists()


def test_a_run_with_other_settings_is_refused(copy):
    with pytest.raises(RunFolderError, match=r"data_steps: 30 there.*--out.*--fresh"):
        chain(copy, settings=dataclasses.replace(SETTINGS, data_steps=31))


# ---- what is shown


def test_a_program_gets_json_lines_and_nothing_else(finished, copy, capsys):
    assert show(copy, json=True) == finished[1]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("stage") for line in lines] == [*STAGES, None]
    assert lines[-1] == finished[1]
    assert all(line["of"] == list(STAGES) for line in lines[:-1])


def test_the_closing_words_are_the_results(finished, copy, capsys):
    show(copy, page=True)
    out = capsys.readouterr().out
    summary = finished[1]
    stages = numbers(copy)["stages"]
    for text in (*stages["model"]["equations"], *stages["policy"]["policy"].splitlines()):
        assert text in out
    assert f"{summary['return_mean']:.0f} (worst of 2: {summary['return_min']:.0f})" in out
    assert f"{summary['data_steps']} + {summary['selection_steps']} to choose" in out
    assert f"{summary['m4_instructions']} instructions per call and {summary['c_bytes']} bytes" in out
    assert str(copy / "report.html") in out
    assert (copy / "report.html").exists()


def test_every_run_of_others_is_shown_with_its_source():
    ppo, published = (demo._other_row(other) for other in demo.OTHERS)
    assert ppo[1] == "816, 858, 835"
    assert ppo[2] == "163,840 to 225,280"
    assert ppo[3].startswith("measured here, benchmarks/results/ppo_swingup.json; ")
    assert published[1:3] == ("not stated", "8,000")
    assert published[3].startswith("published")


# ---- settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_steps": 0}, "data_steps"),
        ({"data_steps": 20}, "data_steps"),
        ({"data_steps": 250.0}, "data_steps"),
        ({"max_terms": 0}, "max_terms"),
        ({"model_terms": True}, "model_terms"),
        ({"report_episodes": -1}, "report_episodes"),
        ({"warmup": 0}, "warmup"),
        ({"refit_every": 0}, "refit_every"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 7}, "horizon"),
        ({"hold": 0}, "hold"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(changes, named):
    with pytest.raises(ValueError, match=f"`{named}`.*Got"):
        ChainSettings(**changes)
