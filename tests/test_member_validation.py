"""Members of a model that do not follow real data over several steps are found, and only those."""

import dataclasses

import numpy as np
import pytest

from sindyrl.learn.member_validation import member_paths, pooled_std, validate_members, windows
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import NextState
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART, FORCE, cart_matrices, cart_model

STATES, INPUTS = ("x", "v"), ("u",)
TRUE, WEAK, WRONG, WILD = (0.0, 0.0, 1.0), (0.0, 0.0, 0.98), (0.0, 0.0, -1.0), (60.0, 60.0, 1.0)


def recording(seed: int, steps: int = 60) -> Trajectory:
    """The real cart under inputs held for 5 steps."""
    a, b = cart_matrices()
    rng = np.random.default_rng(seed)
    u = np.repeat(rng.uniform(-0.4, 0.4, (-(-steps // 5), 1)), 5, axis=0)[:steps]
    x = [rng.uniform(-0.2, 0.2, 2)]
    for held in u:
        x.append(a @ x[-1] + b @ held)
    return Trajectory.uniform(np.array(x), u, -np.abs(u[:, 0]), dt=0.1, states=STATES, inputs=INPUTS)


DATA = Dataset((recording(0), recording(1), recording(2, 37)))


def test_members_that_follow_are_believed_and_the_others_are_told():
    report = validate_members(cart_model([TRUE, WRONG, WEAK, WILD]), DATA, horizon=20, worst=0.5)
    assert report.believed.tolist() == [True, False, True, False]
    assert report.errors[0] < 1e-12
    assert report.errors[3] == np.inf
    assert report.reasons[1] == f"error {report.errors[1]:.3g} after 20 steps, more than 0.5"
    assert report.reasons[3] == "blew up within 20 steps"
    assert (report.reasons[0], report.reasons[2]) == ("", "")
    assert report.trusted
    assert report.error == pytest.approx(np.median(report.errors[[0, 2]]))
    assert str(report).splitlines()[0] == "2 of 4 members believed over 20 steps"
    assert "member 3: blew up" in str(report)


def test_the_error_is_that_of_roll_outs_from_every_window():
    model = cart_model([WEAK, TRUE])
    report = validate_members(model, DATA, horizon=7)
    ends = []
    for trajectory in DATA:
        for k in range(len(trajectory) - 6):
            path = simulate(cart_model(WEAK), trajectory.x[k], trajectory.u[k : k + 7]).x
            ends.append(path[-1] - trajectory.x[k + 7])
    assert report.windows == len(ends) == 54 + 54 + 31
    std = np.concatenate([trajectory.x for trajectory in DATA]).std(axis=0)
    assert report.errors[0] == pytest.approx(np.sqrt(np.mean((np.array(ends) / std) ** 2)), rel=1e-12)
    np.testing.assert_allclose(pooled_std(DATA), std, rtol=1e-14)


def test_an_error_of_one_is_to_predict_the_mean():
    rows = np.concatenate([trajectory.x[1:] for trajectory in DATA])
    library = polynomial_library(0, bias=True).bind(("x", "v"), ("u",))
    rates = SparseMap(library, rows.mean(axis=0)[:, None], ("x_next", "v_next"))
    model = Model(rates, NextState(), CART, FORCE, 0.1, pooled_std(DATA)[:, None] * [-2.0, 2.0])
    found = windows(DATA, 1)
    assert found.x.shape == (DATA.steps, 2, 2)  # few enough for every transition to be a window
    report = validate_members(model, DATA, horizon=1, scale=rows.std(axis=0))
    assert report.errors == pytest.approx([1.0], rel=1e-12)


def test_the_unit_of_a_state_does_not_matter():
    """Meters for the position, then millimeters for everything."""
    report = validate_members(cart_model([WEAK, WRONG]), DATA)
    parts = [Trajectory.uniform(1e3 * p.x, p.u, p.r, dt=0.1, states=STATES, inputs=INPUTS) for p in DATA]
    scaled = cart_model(1e3 * np.array([WEAK, WRONG]), seen=((-4e2, 4e2), (-6e2, 6e2)))
    np.testing.assert_allclose(validate_members(scaled, Dataset(tuple(parts))).errors, report.errors, rtol=1e-9)


def test_no_window_holds_an_excluded_transition():
    part = DATA[0]
    x = part.x.copy()
    x[30:, 0] += 5.0  # hit by something between rows 29 and 30
    kicked = Dataset((dataclasses.replace(part, x=x),))

    def hit(x, u, x_next):
        return np.abs(x_next[:, 0] - x[:, 0]) > 2.0

    model = cart_model([TRUE, TRUE])
    assert validate_members(model, kicked, exclude=hit).errors.max() < 1e-9
    assert validate_members(model, kicked).errors.min() > 0.1
    assert validate_members(model, kicked, exclude=hit).windows == (29 - 20 + 1) + (30 - 20 + 1)


def test_short_recordings_are_judged_over_fewer_steps_and_none_not_at_all():
    model = cart_model([TRUE, WRONG])
    short = Dataset((recording(3, 6), recording(4, 4)))
    report = validate_members(model, short, horizon=20)
    assert (report.horizon, report.windows) == (6, 1)
    nothing = validate_members(model, short, exclude=lambda x, u, x_next: np.ones(len(x), bool))
    assert (nothing.windows, nothing.believed.all(), nothing.error, nothing.trusted) == (0, True, None, True)


def test_at_most_200_windows_spread_over_all_data():
    data = Dataset(tuple(recording(seed, 100) for seed in range(4)))
    found = windows(data, 20)
    assert found.x.shape == (200, 21, 2)
    np.testing.assert_array_equal(found.x[0], data[0].x[:21])
    np.testing.assert_array_equal(found.x[-1], data[3].x[-21:])
    starts = [np.flatnonzero((each.x[:-20, None] == found.x[:, 0]).all(axis=2).any(axis=1)) for each in data]
    assert [len(each) for each in starts] == [50] * 4
    assert max(np.diff(each).max() for each in starts) == 2


def test_the_best_two_stay_even_if_nobody_passes():
    report = validate_members(cart_model([WILD, WRONG, (0.0, 0.0, -0.5), (0.0, 0.0, -2.0)]), DATA, worst=1e-3)
    assert report.believed.tolist() == [False, True, True, False]
    assert not report.trusted
    assert str(report).count("stays: too few passed") == 2
    alone = validate_members(cart_model(WILD), DATA)
    assert (alone.believed.tolist(), alone.error, alone.trusted) == ([True], None, False)


def test_a_state_that_never_changed_is_not_judged():
    still = Trajectory.uniform(np.tile([0.5, 0.0], (31, 1)), np.zeros((30, 1)), dt=0.1, states=STATES, inputs=INPUTS)
    data = Dataset((still,))
    assert pooled_std(data).tolist() == [0.0, 0.0]
    report = validate_members(cart_model([TRUE, WILD]), data)
    assert report.errors.tolist() == [0.0, np.inf]
    moving = validate_members(cart_model([WEAK, WRONG]), DATA, scale=np.array([0.0, 1.0]))
    paths = member_paths(cart_model([WEAK, WRONG]), windows(DATA, 20))
    apart = paths[:, :, -1, 1] - windows(DATA, 20).x[:, -1, 1]
    np.testing.assert_allclose(moving.errors, np.sqrt(np.mean(apart**2, axis=1)), rtol=1e-12)


class Opaque:
    """The cart as a model whose rates are no sparse map."""

    def __init__(self, sparse: Model) -> None:
        self._coef = sparse.rates.coef[:, 0]
        self.states, self.inputs, self.dt, self.seen = sparse.states, sparse.inputs, sparse.dt, sparse.seen
        self.state_names, self.input_names, self.structure = sparse.state_names, sparse.input_names, sparse.structure
        self.n_terms, self.form = 3, "opaque cart"

    def coefficients(self):
        return self._coef

    def rates(self):
        return lambda coef, x, u: [coef[0] * x[0] + coef[1] * x[1] + coef[2] * u[0]]


def test_members_that_are_not_sparse_are_judged_alike():
    sparse = cart_model([TRUE, WRONG, WEAK, WILD])
    expected = validate_members(sparse, DATA)
    report = validate_members(Opaque(sparse), DATA)
    np.testing.assert_allclose(report.errors[:3], expected.errors[:3], rtol=1e-9, atol=1e-12)
    assert (report.believed == expected.believed).all()
    assert report.reasons == expected.reasons


@pytest.mark.parametrize(
    ("name", "value"), [("horizon", 0), ("horizon", 2.0), ("worst", 0.0), ("worst", np.nan), ("scale", np.ones(3))]
)
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"validate_members\({name}="):
        validate_members(cart_model(TRUE), DATA, **{name: value})
