"""The speed figures are measured on answers that agree; how fast they are is not asked here."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

import pytest

from benchmarks.speed import growth, identification, setting, single_model

TINY = dataclasses.replace(
    setting.QUICK, rows=400, degree=2, members=4, checked_members=2, single_rows=1000, simulated=0.2
)
TINY = dataclasses.replace(TINY, predict_calls=2, predict_batch=50, most_rows=10_000, chunk=1000)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_fits_are_compared_on_equal_supports():
    pytest.importorskip("pysindy")
    (single,) = single_model.measure_single_fit(TINY)
    assert single["equal_supports"]
    assert single["ratio"] == pytest.approx(single["pysindy_s"] / single["sindyrl_s"])
    rows, blocks, agreement = identification.measure_ensemble(TINY)
    assert agreement["same_rows_equal_supports"] == agreement["same_rows_members"] == 2
    assert rows["pysindy_s"] == blocks["pysindy_s"]
    assert math.isfinite(blocks["ratio"])


def test_predictions_and_simulations_are_compared_on_equal_values():
    pytest.importorskip("pysindy")
    for record in single_model.measure_predict(TINY):
        assert record["largest_difference"] < 1e-9
    (simulated,) = single_model.measure_simulate(TINY)
    assert simulated["largest_difference"] < 1e-9


def test_growth_counts_every_size_and_its_memory():
    (record,) = growth.measure_growth(TINY)
    assert record["rows"] == [1000, 10_000]
    assert len(record["seconds"]) == len(record["peak_traced_bytes"]) == 2
    assert record["peak_traced_bytes"][1] < 2 * record["peak_traced_bytes"][0]


@pytest.mark.slow
def test_the_quick_form_prints_every_figure_as_json_lines():
    command = [sys.executable, "-m", "benchmarks.speed.identification", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = [json.loads(line)["figure"] for line in done.stdout.splitlines()]
    assert {"ensemble", "ensemble_blocks", "single_fit", "predict_1", "simulate", "growth"} < set(figures)
    assert "surroundings" in figures
    assert figures[-1] == "accuracy"  # as stored: not measured here
