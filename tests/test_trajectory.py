"""Trajectories and datasets: what goes in comes out of every format, and bad data are named."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.trajectory import Dataset, DatasetFileError, Trajectory


def walk(seed=0, steps=6, rewards=True, start=0.0):
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(steps + 1, 2)), rng.normal(size=(steps, 1))
    r = rng.normal(size=steps) if rewards else None
    return Trajectory.uniform(x, u, r, dt=0.1, start=start, states=["x", "v"], inputs=["u"])


def test_pairs_align_state_input_next_state_and_reward_within_each_trajectory():
    data = Dataset((walk(0, 3), walk(1, 5)))
    pairs = data.pairs()
    assert (data.steps, len(data), pairs.x.shape, pairs.u.shape) == (8, 2, (8, 2), (8, 1))
    for k, (episode, step) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]):
        part = data[episode]
        np.testing.assert_array_equal(pairs.x[k], part.x[step])
        np.testing.assert_array_equal(pairs.x_next[k], part.x[step + 1])
        np.testing.assert_array_equal(pairs.u[k], part.u[step])
        assert pairs.r[k] == part.r[step]
    np.testing.assert_array_equal(data.episode_of_pairs(), [0, 0, 0, 1, 1, 1, 1, 1])


def test_exclude_gives_the_mask_of_pairs_to_keep():
    data = Dataset((walk(0), walk(1)))
    keep = data.exclude(lambda x, u, x_next: np.abs(x_next[:, 0]) > 0.5)
    np.testing.assert_array_equal(keep, np.abs(data.pairs().x_next[:, 0]) <= 0.5)
    with pytest.raises(ValueError, match="must return 12 booleans"):
        data.exclude(lambda x, u, x_next: x[:, 0])


def test_append_returns_a_new_dataset_and_leaves_the_old():
    data = Dataset((walk(0),))
    more = data.append(walk(1)).append(Dataset((walk(2), walk(3))))
    assert (len(data), len(more)) == (1, 4)
    assert list(more)[3] == walk(3)
    assert more == Dataset((walk(0), walk(1), walk(2), walk(3)))
    assert more != data


def test_arrays_are_copied_and_read_only():
    x = np.zeros((3, 1))
    trajectory = Trajectory.uniform(x, dt=1.0, states=["x"])
    x[:] = 7
    assert not trajectory.x.any()
    assert trajectory.u.shape == (2, 0)
    with pytest.raises(ValueError, match="read-only"):
        trajectory.x[0] = 1


def test_dt_is_the_common_step_and_refuses_uneven_samples():
    assert walk().dt == pytest.approx(0.1, rel=1e-12)
    late = Trajectory.uniform(np.zeros((1001, 1)), dt=1e-3, start=1e6, states=["x"])
    assert late.dt == pytest.approx(1e-3, rel=1e-6)
    uneven = Trajectory([0, 1, 2, 3.5], np.zeros((4, 1)), states=("x",))
    with pytest.raises(ValueError, match=r"needs evenly spaced samples.*row 2 to 3 is 1.5 s"):
        _ = uneven.dt
    other = Trajectory.uniform(np.zeros((3, 1)), dt=0.2, states=["x"])
    with pytest.raises(ValueError, match=r"0.1 to 0.2 s"):
        _ = Dataset((Trajectory.uniform(np.zeros((3, 1)), dt=0.1, states=["x"]), other)).dt


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.lists(numbers, min_size=2, max_size=5), reward=st.booleans())
def test_every_format_reads_back_the_same_numbers(tmp_path_factory, values, reward):
    folder = tmp_path_factory.mktemp("data")
    x = np.array(values)[:, None]
    r = x[1:, 0] if reward else None
    one = Trajectory.uniform(x, -x[:-1], r, dt=0.25, states=["x"], inputs=["u"])
    data = Dataset((one, one))
    names = {"states": ["x"], "inputs": ["u"], "time": "t", "episode": "episode", "reward": "r" if reward else None}
    data.to_npz(folder / "d.npz")
    assert Dataset.from_npz(folder / "d.npz") == data
    data.to_csv(folder / "d.csv")
    assert Dataset.from_csv(folder / "d.csv", **names) == data
    assert sorted(entry.name for entry in folder.iterdir()) == ["d.csv", "d.npz"]


def test_pandas_round_trip():
    pytest.importorskip("pandas")
    data = Dataset((walk(0), walk(1, 3)))
    frame = data.to_pandas()
    assert list(frame.columns) == ["episode", "t", "x", "v", "u", "r"]
    again = Dataset.from_pandas(frame, states=["x", "v"], inputs=["u"], time="t", episode="episode", reward="r")
    assert again == data


def write(folder, text):
    path = folder / "data.csv"
    path.write_text(text)
    return path


def test_csv_without_time_or_episode_and_with_spaces_and_a_byte_order_mark(tmp_path):
    path = write(tmp_path, "\ufeffv , u\n1, 5\n2, 6\n3, \n")
    (only,) = Dataset.from_csv(path, states=["v"], inputs=["u"], dt=0.5)
    np.testing.assert_array_equal(only.t, [0, 0.5, 1])
    np.testing.assert_array_equal(only.u, [[5], [6]])


def test_csv_episodes_may_be_labels_and_times_may_start_again(tmp_path):
    path = write(tmp_path, "run,t,x\na,0,1\na,1,2\nb,0,3\nb,1,4\nb,2,5\n")
    data = Dataset.from_csv(path, states=["x"], time="t", episode="run")
    assert [len(part) for part in data] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header line and data. Got 0 lines"),
        ("x,u\n", "Got 1 lines"),
        ("1,2\n3,4\n", "the first line must name the columns. Got numbers: 1, 2"),
        ("x,x\n1,2\n", "the header names 'x' more than once"),
        ("x,u\n1,2\n1,2,3\n", "line 3: expected 2 cells. Got 3"),
        ("x,u\n1,2\noops,4\n", "line 3, column 'x': 'oops' is not a number"),
    ],
)
def test_malformed_csv_is_named_by_line(tmp_path, text, message):
    with pytest.raises(DatasetFileError, match=message):
        Dataset.from_csv(write(tmp_path, text), states=["x"], inputs=["u"], dt=1.0)


def test_csv_columns_must_exist_and_time_must_be_given_once(tmp_path):
    path = write(tmp_path, "x,u\n1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"There is no column 'v'. Available: x, u"):
        Dataset.from_csv(path, states=["v"], dt=1.0)
    with pytest.raises(ValueError, match=r"Give exactly one of `time=` and `dt=`. Got time=None, dt=None"):
        Dataset.from_csv(path, states=["x"])
    with pytest.raises(ValueError, match=r"rows 0 to 1, trajectory 0: .*'u' is nan"):
        Dataset.from_csv(write(tmp_path, "x,u\n1,\n3,4\n"), states=["x"], inputs=["u"], dt=1.0)


def test_npz_that_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(DatasetFileError, match="no format mark"):
        Dataset.from_npz(path)
    np.savez(path, format=np.array("sindyrl.dataset"), schema=np.array(9))
    with pytest.raises(DatasetFileError, match="schema 9; this version reads up to schema 1"):
        Dataset.from_npz(path)
    np.savez(path, format=np.array([{"pickled": object}], dtype=object))
    with pytest.raises(DatasetFileError, match="without pickled objects"):
        Dataset.from_npz(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(DatasetFileError, match="not a readable npz"):
        Dataset.from_npz(path)
    Dataset((walk(),)).to_npz(path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["x"] = arrays["x"][:-1]
    np.savez(path, **arrays)
    with pytest.raises(DatasetFileError, match="array 'x' must have 7 rows"):
        Dataset.from_npz(path)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    Dataset((walk(0),)).to_npz(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DatasetFileError, match="disk full"):
        Dataset((walk(1),)).to_npz(path)
    assert Dataset.from_npz(path) == Dataset((walk(0),))
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_a_named_error(tmp_path):
    for write_file in (Dataset((walk(),)).to_npz, Dataset((walk(),)).to_csv):
        with pytest.raises(DatasetFileError, match="the folder is missing or not writable"):
            write_file(tmp_path / "nowhere" / "d")


def good():
    return {"t": np.arange(4.0), "x": np.zeros((4, 2)), "u": np.zeros((3, 1)), "states": ("x", "v"), "inputs": ("u",)}


def with_entry(array, where, value):
    array = np.array(array)
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": with_entry(np.zeros((4, 2)), (2, 1), np.nan)}, r"x=...\)` must be finite. Row 2, column 'v' is nan"),
        ({"u": with_entry(np.zeros((3, 1)), (0, 0), -np.inf)}, r"Row 0, column 'u' is -inf"),
        ({"r": [0.0, np.nan, np.nan]}, r"Row 1, column 'r' is nan and 1 more entries"),
        ({"t": [0.0, 1.0, np.nan, 3.0]}, r"Row 2, column 't' is nan"),
        ({"t": [0.0, 2.0, 1.0, 3.0]}, r"must increase from row to row. Row 2 has t = 1.0 after 2.0"),
        ({"t": [0.0, 1.0]}, "must have 4 entries, one per row of `x`. Got 2"),
        ({"u": np.zeros((4, 1))}, "must have 3 rows, one fewer than `x`.* Got 4"),
        ({"r": np.zeros(4)}, "must have 3 entries, one per row of `u`. Got 4"),
        ({"x": np.zeros((4, 3))}, r"must have 2 columns, one for each of `states=\('x', 'v'\)`. Got shape \(4, 3\)"),
        ({"x": np.zeros(4)}, r"must have two axes \(time, column\). Got shape \(4,\)"),
        ({"x": np.zeros((1, 2)), "t": [0.0], "u": np.zeros((0, 1))}, "at least 2 rows, that is one step. Got 1"),
        ({"x": [["a", "b"]] * 4}, "must be an array of real numbers"),
        ({"inputs": ("v",)}, "Given twice: v"),
        ({"states": ("x", "2nd")}, "names such as 'x' or 'cart_speed'. Got '2nd'"),
        ({"states": ()}, "must name at least one state"),
    ],
)
def test_bad_data_are_refused_by_name_row_and_column(change, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(**(good() | change))


def test_datasets_hold_trajectories_of_the_same_columns():
    with pytest.raises(ValueError, match="at least one trajectory"):
        Dataset(())
    with pytest.raises(TypeError, match="Entry 0 is a int"):
        Dataset((1,))
    other = Trajectory.uniform(np.zeros((3, 1)), dt=0.1, states=["y"])
    with pytest.raises(ValueError, match=r"same states. Trajectory 1 has \('y',\), the first has \('x', 'v'\)"):
        Dataset((walk(), other))
    with pytest.raises(ValueError, match=r"Either all trajectories have rewards or none. Trajectory 1"):
        Dataset((walk(), walk(rewards=False)))
    with pytest.raises(ValueError, match=r"There is no column 'w'. Available: x, v, u"):
        walk().column("w")
    np.testing.assert_array_equal(walk().column("u"), walk().u[:, 0])
