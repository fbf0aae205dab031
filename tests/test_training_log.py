"""The log of a run: the same figures in every file, a fixed schema, and nothing lost or doubled by a kill."""

import csv
import dataclasses
import importlib.util
import json
import math
import re

import pytest

from sindyrl.learn import training_log
from sindyrl.learn.dyna import Round
from sindyrl.learn.training_log import SCHEMA, TensorBoardMissingError, TrainingLog, read_log

COLUMNS = ("turn", "steps", "earned", "why", "taken_back")
ROWS = [
    {"turn": 0, "steps": 300, "earned": None, "why": "calls", "taken_back": False},
    {"turn": 1, "steps": 500, "earned": 0.1 + 0.2, "why": 'a "quoted", word', "taken_back": True},
    {"turn": 2, "steps": 900, "earned": -1e-300, "why": "", "taken_back": False},
]


def written(folder, rows=ROWS, **more):
    log = TrainingLog(folder, COLUMNS, axis="steps", tensorboard=False, **more)
    for row in rows:
        log.add(row)
    return log


def test_all_files_tell_the_same(tmp_path):
    written(tmp_path)
    assert read_log(tmp_path) == ROWS
    with (tmp_path / "rounds.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [float(line[2]) if line[2] else None for line in lines] == [row["earned"] for row in ROWS]
    assert [line[3] for line in lines] == [row["why"] for row in ROWS]
    assert [line[4] for line in lines] == ["false", "true", "false"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rounds.csv", "rounds.jsonl"]
    for line in (tmp_path / "rounds.jsonl").read_text().splitlines():
        assert json.loads(line)["schema"] == SCHEMA


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_not_there(tmp_path, value):
    written(tmp_path, [{**ROWS[0], "earned": value}])
    assert read_log(tmp_path)[0]["earned"] is None
    assert (tmp_path / "rounds.csv").read_text().splitlines()[1] == "0,300,,calls,false"


def test_a_run_that_goes_on_writes_the_log_it_remembers(tmp_path):
    written(tmp_path)
    whole = [(tmp_path / name).read_bytes() for name in ("rounds.csv", "rounds.jsonl")]
    # It remembers two rounds: the third is done again.
    log = TrainingLog(tmp_path, COLUMNS, axis="steps", tensorboard=False, earlier=ROWS[:2])
    assert read_log(tmp_path) == ROWS[:2]
    log.add(ROWS[2])
    assert [(tmp_path / name).read_bytes() for name in ("rounds.csv", "rounds.jsonl")] == whole


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    written(tmp_path)
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert read_log(tmp_path) == ROWS[:2]
    path.write_text('{"schema": 1}\nnonsense\n{"schema": 1}\n')
    with pytest.raises(ValueError, match="line 2 is not a row"):
        read_log(tmp_path)
    path.write_text('{"schema": 2, "turn": 0}\n')
    with pytest.raises(ValueError, match="schema 2; this version reads schema 1"):
        read_log(tmp_path)


def test_rows_of_another_shape_and_columns_that_clash_are_refused(tmp_path):
    log = written(tmp_path)
    with pytest.raises(ValueError, match=r"too many or missing: \['more', 'why'\]"):
        log.add({**{k: v for k, v in ROWS[0].items() if k != "why"}, "more": 1})
    assert read_log(tmp_path) == ROWS
    for columns in (("turn", "turn"), ("turn", "schema")):
        with pytest.raises(ValueError, match="different names"):
            TrainingLog(tmp_path, columns, axis="turn")
    with pytest.raises(ValueError, match="axis"):
        TrainingLog(tmp_path, ("turn",), axis="steps")


def test_the_schema_of_a_training_run():
    """Who reads these files relies on the names and on their order; a change needs another `SCHEMA`."""
    names = [field.name for field in dataclasses.fields(Round)]
    assert SCHEMA == 1
    assert names == [
        "turn", "data_steps", "selection_steps", "lost_steps", "model_steps", "model_terms", "members", "believed",
        "member_error", "model_error", "reward_correlation", "promised", "earned", "promise_correlation", "agreed",
        "calls", "ended", "taken_back", "failed", "policy_loss", "value_loss", "entropy", "fit_s", "learn_s",
        "collect_s",
    ]  # fmt: skip
    explained = re.findall(r"((?:\w+, )*\w+) : ", Round.__doc__)
    assert sorted(", ".join(explained).split(", ")) == sorted(names)


def test_event_files_asked_for_in_vain_are_an_error_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TensorBoardMissingError, match="pip install tensorboard"):
        TrainingLog(tmp_path, COLUMNS, axis="steps", tensorboard=True)
    TrainingLog(tmp_path, COLUMNS, axis="steps").add(ROWS[0])
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_event_files_hold_the_figures_over_the_real_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped,import-not-found,unused-ignore]

    log = TrainingLog(tmp_path, COLUMNS, axis="steps")
    for row in ROWS:
        log.add(row)

    def found(tag):
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        return [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors(tag)]

    assert found("earned") == [(500, pytest.approx(0.3)), (900, 0.0)]  # float32, and where there is a figure
    assert found("taken_back") == [(300, 0.0), (500, 1.0), (900, 0.0)]
    TrainingLog(tmp_path, COLUMNS, axis="steps", earlier=ROWS[:2])
    assert found("turn") == [(300, 0.0), (500, 1.0)]
