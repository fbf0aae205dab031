"""Figures over seeds: robust means, intervals of all resamples, failed seeds told, and stored lines that agree."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.control import study
from benchmarks.control.figure import write_figure
from benchmarks.control.grading import steps_to
from benchmarks.control.results import read_trials, summarize, write_results
from benchmarks.control.statistics import bootstrap_interval, interquartile_mean, median_steps, quartile_curve


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
