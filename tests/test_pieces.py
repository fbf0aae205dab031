"""Parts of recordings: what is left out is in none, what is kept is in one, and steps stay in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sindyrl.pieces import part, remaining
from sindyrl.trajectory import Dataset, Trajectory


def counted(steps, start):
    """A recording whose states and inputs count its rows on from ``start``."""
    x = start + np.arange(steps + 1.0)
    return Trajectory.uniform(x[:, None], x[:-1, None], dt=0.5, states=("x",), inputs=("u",))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=3), st.integers(2, 9))
def test_every_kept_step_is_in_one_piece_and_no_other_is_in_any(masks, most):
    data = Dataset(tuple(counted(len(mask), 100 * k) for k, mask in enumerate(masks)))
    pieces = remaining(data, np.concatenate([np.array(mask) for mask in masks]), 1, most)
    steps = [value for piece in pieces for value in piece.u[:, 0]]
    assert steps == [100.0 * k + i for k, mask in enumerate(masks) for i, kept in enumerate(mask) if kept]
    for piece in pieces:
        assert len(piece) <= most
        np.testing.assert_array_equal(piece.x[:-1], piece.u)
        np.testing.assert_array_equal(np.diff(piece.t), 0.5)


def test_runs_that_are_too_short_are_left_out():
    keep = np.array([True] * 3 + [False] + [True] * 6)
    (piece,) = remaining(Dataset((counted(10, 0),)), keep, 4, 100)
    np.testing.assert_array_equal(piece.x[:, 0], [4, 5, 6, 7, 8, 9, 10])


def test_a_part_keeps_the_state_after_its_last_step_and_its_rewards():
    whole = Trajectory.uniform(np.arange(5.0)[:, None], None, np.arange(4.0), dt=1.0, states=("x",))
    piece = part(whole, 1, 3)
    assert piece.x[:, 0] == pytest.approx([1, 2, 3])
    assert piece.r == pytest.approx([1, 2])
