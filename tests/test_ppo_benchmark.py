"""The stored figures of PPO follow from the curves stored beside them; a killed measurement goes on; no torch."""

import dataclasses
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import ppo_swingup
from benchmarks.ppo_swingup import (
    CONFIGURATIONS,
    RESULTS,
    Config,
    document,
    finished_runs,
    measured,
    steps_to,
    summarize,
    text,
)

SHARED = {"config": {"steps": 10}, "versions": {"torch": "0"}}


@pytest.fixture(params=CONFIGURATIONS)
def name(request):
    return request.param


@pytest.fixture
def stored(name):
    return json.loads(RESULTS.read_text())["configurations"][name]


def run(index, steps):
    seconds = {"learning_wall_s": 2.0, "processor_s": 1.0}
    return {"index": index, "seed": 7 * index, "steps_to_threshold": steps, "final_return": 1.0, **seconds}


def test_the_steps_to_the_threshold_are_those_of_the_first_row_that_reaches_it(stored):
    threshold = stored["config"]["threshold"]
    for seed in stored["runs"]:
        reached = [row["steps"] for row in seed["curve"] if sum(row["returns"]) / len(row["returns"]) >= threshold]
        assert seed["steps_to_threshold"] == (min(reached) if reached else None)
    assert stored["summary"]["steps_to_threshold"] == [seed["steps_to_threshold"] for seed in stored["runs"]]


def test_the_summary_follows_from_the_curves(stored):
    finals = [statistics.fmean(seed["curve"][-1]["returns"]) for seed in stored["runs"]]
    assert stored["summary"]["final_return"] == pytest.approx(finals)
    for seed in stored["runs"]:
        means = [statistics.fmean(row["returns"]) for row in seed["curve"]]
        assert [row["return"] for row in seed["curve"]] == pytest.approx(means)
        assert seed["best_return"] == pytest.approx(max(means))
    steps = [seed["steps_to_threshold"] for seed in stored["runs"]]
    if None not in steps:
        assert stored["summary"]["steps_to_threshold_least"] == min(steps)
        assert stored["summary"]["steps_to_threshold_most"] == max(steps)


def test_every_real_step_of_the_stored_runs_is_counted(stored):
    config = stored["config"]
    update = config["n_envs"] * config["ppo"]["n_steps"]
    for seed in stored["runs"]:
        steps = [row["steps"] for row in seed["curve"]]
        assert seed["data_steps"] == steps[-1] == -(-config["steps"] // update) * update
        assert all(later - earlier <= config["evaluate_every"] for earlier, later in itertools.pairwise(steps))
        assert steps == sorted(set(steps))
        returns = [value for row in seed["curve"] for value in row["returns"]]
        assert len(returns) == len(steps) * config["evaluation_episodes"]
        assert seed["report_steps"] == 1000 * len(returns)
        assert all(0.0 <= value <= 1000.0 for value in returns)


def test_the_stored_result_says_how_to_repeat_it(stored, name):
    assert stored["command"].startswith(f"python -m benchmarks.ppo_swingup --settings {name} --seeds 3 --steps 400000")
    assert set(stored["versions"]) == {"python", *ppo_swingup.PACKAGES}
    assert stored["config"] == dataclasses.asdict(dataclasses.replace(CONFIGURATIONS[name].config, steps=400_000))
    digests = [hashlib.sha256(f"ppo_swingup{i}".encode()).hexdigest() for i in range(3)]
    assert stored["seeds"] == [seed["seed"] for seed in stored["runs"]] == [int(digest[:8], 16) for digest in digests]
    evaluations = {seed["evaluation_seed"] for seed in stored["runs"]}
    assert len(evaluations) == 3
    assert evaluations.isdisjoint(stored["seeds"])


def test_the_configurations_differ_in_the_learner_only_and_share_seeds_and_protocol():
    configurations = json.loads(RESULTS.read_text())["configurations"]
    assert list(configurations) == list(CONFIGURATIONS)
    one, other = configurations.values()
    assert one["seeds"] == other["seeds"]
    assert one["versions"] == other["versions"]
    assert [run["evaluation_seed"] for run in one["runs"]] == [run["evaluation_seed"] for run in other["runs"]]
    assert {key for key in one["config"] if one["config"][key] != other["config"][key]} == {"normalize", "ppo"}
    learners = one["config"]["ppo"], other["config"]["ppo"]
    assert {key for key in learners[0] if learners[0][key] != learners[1][key]} == {"learning_rate"}
    assert one["runs"][0]["curve"] != other["runs"][0]["curve"]


def test_the_stored_file_is_what_the_program_writes():
    rebuilt = {}
    for name, stored in json.loads(RESULTS.read_text())["configurations"].items():
        shared = {key: stored[key] for key in SHARED}
        rebuilt[name] = measured(name, stored["runs"], shared, stored["command"]) | {"machine": stored["machine"]}
    assert text(document(rebuilt)) + "\n" == RESULTS.read_text()


def test_saving_one_configuration_leaves_the_other_as_it_is(tmp_path, monkeypatch):
    file = tmp_path / "results" / "ppo.json"
    monkeypatch.setattr(ppo_swingup, "RESULTS", file)
    first = {name: measured(name, [run(0, 30)], SHARED, "c") for name in ("zoo", "defaults")}
    for name, result in first.items():
        ppo_swingup.save(name, result)
    assert json.loads(file.read_text()) == document(first)
    assert list(json.loads(file.read_text())["configurations"]) == ["defaults", "zoo"]
    again = measured("defaults", [run(0, 20)], SHARED, "c")
    ppo_swingup.save("defaults", again)
    assert json.loads(file.read_text())["configurations"] == {"defaults": again, "zoo": first["zoo"]}


@pytest.mark.parametrize(
    ("arguments", "configuration"),
    [([], "defaults"), (["--settings", "defaults"], "defaults"), (["--settings", "zoo"], "zoo")],
)
def test_the_settings_asked_for_are_the_ones_measured(arguments, configuration, tmp_path, monkeypatch, capsys):
    learned = []

    def learn(config, index, progressed):
        learned.append(config)
        return run(index, 30)

    monkeypatch.setattr(ppo_swingup, "learn", learn)
    monkeypatch.setattr(ppo_swingup, "settings", lambda config: {"config": dataclasses.asdict(config), "versions": {}})
    monkeypatch.setattr(ppo_swingup, "FINISHED", tmp_path / "finished.jsonl")
    monkeypatch.setattr(ppo_swingup, "RESULTS", tmp_path / "ppo.json")
    assert ppo_swingup.main([*arguments, "--seeds", "1", "--steps", "5", "--json", "--save"]) == 0
    assert learned == [dataclasses.replace(CONFIGURATIONS[configuration].config, steps=5)]
    stored = json.loads((tmp_path / "ppo.json").read_text())["configurations"]
    assert list(stored) == [configuration]
    assert stored[configuration]["config"]["normalize"] == (configuration == "zoo")
    assert stored[configuration]["command"].split()[3:5] == ["--settings", configuration]
    assert {json.loads(line)["settings"] for line in capsys.readouterr().out.splitlines()} == {configuration}


def test_finished_seeds_of_one_configuration_are_not_taken_for_the_other(tmp_path, monkeypatch):
    computed = []

    def learn(config, index, progressed):
        computed.append((config.normalize, index))
        return run(index, 30)

    monkeypatch.setattr(ppo_swingup, "learn", learn)
    monkeypatch.setattr(ppo_swingup, "settings", lambda config: {"config": dataclasses.asdict(config), "versions": {}})
    file = tmp_path / "finished.jsonl"
    for name in ("zoo", "defaults", "zoo", "defaults"):
        list(ppo_swingup.measure(CONFIGURATIONS[name].config, 2, file))
    assert computed == [(True, 0), (True, 1), (False, 0), (False, 1)]


def test_a_threshold_counts_when_it_is_reached_exactly_and_not_before():
    curve = [{"steps": 10, "return": 799.999}, {"steps": 20, "return": 800.0}, {"steps": 30, "return": 10.0}]
    assert steps_to(curve, 800.0) == 20
    assert steps_to(curve[:1], 800.0) is None


def test_a_seed_that_never_arrived_leaves_the_most_steps_open():
    summary = summarize([run(0, 30), run(1, None), run(2, 20)])
    assert summary["seeds_that_reached_threshold"] == 2
    assert summary["steps_to_threshold_least"] == 20
    assert summary["steps_to_threshold_most"] is None
    assert summarize([run(0, 30), run(2, 20)])["steps_to_threshold_most"] == 30


def test_the_layout_of_the_file_changes_no_value_and_gives_a_point_of_a_curve_one_line():
    curve = [{"steps": k, "return": 1e-30, "returns": [k, 0.1 + 0.2]} for k in range(9)]
    awkward = {"": [], "b": [1, 2.5, None], 'c "': ["x [ 1,\n 2 ]", "y" * 200], "runs": [{"curve": curve}], "e": {}}
    assert json.loads(text(awkward)) == awkward
    assert sum('"steps": ' in line for line in text(awkward).splitlines()) == len(curve)


def test_finished_seeds_are_read_back_and_only_the_others_are_computed(tmp_path, monkeypatch):
    computed = []

    def learn(config, index, progressed):
        computed.append(index)
        if computed == [0, 1]:
            raise KeyboardInterrupt
        progressed(5, 1.0)
        return run(index, 30)

    monkeypatch.setattr(ppo_swingup, "learn", learn)
    monkeypatch.setattr(ppo_swingup, "settings", lambda config: SHARED | {"config": {"steps": config.steps}})
    file = tmp_path / "runs" / "finished.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(ppo_swingup.measure(Config(steps=10), 3, file))
    resumed = list(ppo_swingup.measure(Config(steps=10), 3, file))
    assert computed == [0, 1, 1, 2]
    assert [each["index"] for each in resumed] == [0, 1, 2]
    list(ppo_swingup.measure(Config(steps=11), 1, file))
    assert computed == [0, 1, 1, 2, 0], "a run with other settings was taken for this one"
    assert set(finished_runs(file, SHARED)) == {0, 1, 2}


def test_a_return_is_the_sum_over_one_whole_episode_of_each_instance():
    steps = iter(range(1, 5))

    def step(action):
        k = next(steps)
        return np.full((2, 1), k), np.array([1.0, action[1]]), np.array([k == 3, k == 3]), [{}, {}]

    judge = SimpleNamespace(num_envs=2, reset=lambda: np.zeros((2, 1)), step=step)
    assert ppo_swingup.episode_returns(lambda x: 10.0 * x[:, 0], judge) == [3.0, 30.0]


def test_the_program_can_be_asked_for_help_without_torch():
    code = (
        "import sys; from benchmarks import ppo_swingup\n"
        "try:\n    ppo_swingup.main(['--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "assert not {'torch', 'stable_baselines3'} & set(sys.modules)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=ppo_swingup.ROOT, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    assert "--seeds" in asked.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--save", "--quick"], "`--save` needs the full sizes"),
        (["--seeds", "0"], "must be at least 1. Got 0 and"),
        (["--steps", "-1"], "must be at least 1. Got 3 and -1"),
        (["--settings", "mine"], "'mine'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, named, capsys):
    try:
        code = ppo_swingup.main(arguments)
    except SystemExit as refused:  # by the parser
        code = refused.code
    assert code == 2
    assert named in capsys.readouterr().err
