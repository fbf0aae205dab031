"""Designed inputs: the choice is the best of its candidates by two routes, keeps the limits, and pays in rows."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from sindyrl.collect import collect, random_policy
from sindyrl.identify import identify
from sindyrl.input_design import ActiveExcitation, information_matrix, input_candidates, next_input
from sindyrl.library import Library, polynomial_library
from sindyrl.model import Model
from sindyrl.protocols import Outcome
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative, Increment, SecondOrder
from sindyrl.symbolic_map import Signal
from sindyrl.trajectory import Dataset, Trajectory
from sindyrl.validation import part

TRUTH = {"x": -1.0, "v": -0.3, "u": 1.0, "x^3": -1.0}  # dv/dt of a damped, hardening spring
STATES, INPUTS = (Signal("x", "m"), Signal("v", "m/s")), (Signal("u", "N", -1.0, 1.0),)
DT = 0.1
SPRING = SecondOrder({"x": "v"})
CUBIC = polynomial_library(3)


def spring_model(members=1, *, states=STATES, structure=SPRING, seed=0) -> Model:
    """The spring over all 19 cubic terms; further members have other coefficients of the same terms."""
    library = CUBIC.bind(("x", "v"), ("u",))
    coef = np.zeros((len(library),))
    for term, value in TRUTH.items():
        coef[library.index(term)] = value
    spread = 1 + 0.2 * np.random.default_rng(seed).standard_normal((members, 1, len(library)))
    spread[0] = 1.0
    targets = structure.targets(("x", "v"))
    rows = np.zeros((members, len(targets), len(library)))
    rows[:, -1:] = spread * coef
    rows[:, :-1, library.index("v")] = 1.0  # dx/dt = v, where that is not known
    return Model(SparseMap(library, rows, targets), structure, states, INPUTS, DT, np.array([[-1.0, 1.0], [-2.0, 2.0]]))


def recorded(model, steps=300, seed=0) -> Trajectory:
    rng = np.random.default_rng(seed)
    u = np.repeat(rng.uniform(-3, 3, (steps // 3, 1)), 3, axis=0)
    member = dataclasses.replace(model, rates=model.rates.member(0))
    return Trajectory.uniform(
        simulate(member, rng.uniform(-0.5, 0.5, 2), u).x, u, dt=DT, states=("x", "v"), inputs=("u",)
    )


def options(count=24, horizon=12, seed=1):
    return input_candidates(count, horizon, lower=[-1], upper=[1], hold=4, rng=np.random.default_rng(seed))


def brute_force_rows(model, x, u) -> np.ndarray:
    """Library matrix (step, feature) along the path of one member, by way of `simulate`."""
    path = simulate(model, x, u).x
    middle = (path[:-1] + path[1:]) / 2
    return model.rates.library.features(np.column_stack([middle, u]))


# --- the criteria


@pytest.mark.parametrize("structure", [SPRING, Derivative("rk4")], ids=["second order", "derivative"])
@pytest.mark.parametrize("members", [1, 3])
def test_the_d_optimal_choice_is_the_one_with_the_largest_determinant(structure, members):
    model, x, candidates = spring_model(members, structure=structure), np.array([0.3, -0.2]), options()
    seen = information_matrix(model, recorded(model))
    found = next_input(model, x, candidates, information=seen)

    unit = np.sqrt(np.diag(seen))  # determinants of comparable columns; the differences are the same

    def log_det(matrix):
        return np.linalg.slogdet(matrix / np.outer(unit, unit))[1]

    gains = []
    for u in candidates:
        rows = [brute_force_rows(dataclasses.replace(model, rates=model.rates.member(m)), x, u) for m in range(members)]
        gains.append(np.mean([log_det(seen + theta.T @ theta) - log_det(seen) for theta in rows]))
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6)
    assert found.index == int(np.argmax(gains))
    assert max(gains) > 2 * min(gains)  # there is something to choose
    np.testing.assert_array_equal(found.u, candidates[found.index])
    first = dataclasses.replace(model, rates=model.rates.member(0))
    np.testing.assert_allclose(found.x, simulate(first, x, found.u).x, atol=1e-12)
    assert found.outcome is Outcome.solved


ANYWHERE = (Signal("x"),)


def linear_model(coef, *, unit=1.0, states=ANYWHERE) -> Model:
    """``x+ - x = coef[0] x + coef[1] u/unit``; coef (2,) or (member, 2)."""
    library = polynomial_library(1).bind(("x",), ("u",))
    rows = np.asarray(coef, dtype=float)[..., None, :] / np.array([1.0, unit])
    rates = SparseMap(library, rows, ("delta_x",))
    return Model(rates, Increment(), states, (Signal("u"),), 1.0, np.array([[-1.0, 1.0]]))


def test_the_gain_of_a_known_path_is_that_of_the_formula():
    model = linear_model((0.0, 0.0))  # the state stays where it is
    seen = np.array([[2.0, 0.5], [0.5, 3.0]])
    u = np.array([[[0.7], [-0.4], [0.1]], [[0.0], [0.0], [0.0]]])
    found = next_input(model, np.array([0.6]), u, information=seen)
    added = np.array([[3 * 0.36, 0.6 * 0.4], [0.6 * 0.4, 0.49 + 0.16 + 0.01]])
    np.testing.assert_allclose(found.gain, np.log(np.linalg.det(seen + added) / np.linalg.det(seen)), rtol=1e-8)
    assert found.index == 0
    assert found.gains[1] == pytest.approx(np.log(np.linalg.det(seen + np.diag([3 * 0.36, 0])) / 5.75), rel=1e-8)


@pytest.mark.parametrize("criterion", ["d_optimal", "variance"])
def test_units_decide_nothing(criterion):
    coef, u = np.array([[-0.2, 1.0], [-0.3, 1.2], [-0.1, 0.7]]), np.random.default_rng(0).uniform(-1, 1, (20, 6, 1))
    gains = []
    for unit in (1.0, 1e4):
        model = linear_model(coef, unit=unit)
        seen = np.array([[2.0, 0.5], [0.5, 3.0]]) * np.outer([1, unit], [1, unit])
        gains.append(next_input(model, np.array([0.5]), unit * u, criterion=criterion, information=seen).gains)
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-6)
    assert np.ptp(gains[0]) > 0


def test_the_variance_is_that_of_the_members_along_each_path():
    model, x, candidates = spring_model(4), np.array([0.3, -0.2]), options()
    found = next_input(model, x, candidates, criterion="variance")
    variances, predictions = [], []
    for u in candidates:
        z = [
            brute_force_points(dataclasses.replace(model, rates=model.rates.member(m)), x, u)
            for m in range(model.rates.members)
        ]
        variances.append(np.mean([model.rates.variance(points) for points in z]))
        predictions.append([model.rates.predict_members(points).mean(axis=0) for points in z])
    np.testing.assert_allclose(found.gains, np.array(variances) / np.var(predictions), rtol=1e-9)
    assert found.index == int(np.argmax(variances))


def brute_force_points(model, x, u):
    path = simulate(model, x, u).x
    return np.column_stack([(path[:-1] + path[1:]) / 2, u])


def test_members_that_disagree_about_the_input_ask_for_a_large_one_and_about_the_state_for_a_large_state():
    u = np.array([[[1.0]] * 4, [[0.2]] * 4, [[1.0], [-1.0]] * 2])
    settings = {"criterion": "variance", "limits": np.array([[-20.0, 20.0]])}
    about_input = next_input(linear_model([[0.0, 1.0], [0.0, 2.0]]), np.zeros(1), u, **settings)
    assert about_input.gains[0] == pytest.approx(about_input.gains[2])
    assert about_input.gains[0] == pytest.approx(25 * about_input.gains[1])
    about_state = next_input(linear_model([[-0.1, 0.3], [0.1, 0.3]]), np.zeros(1), u, **settings)
    assert about_state.index == 0  # one direction all along, so that the state goes far


# --- limits


def test_paths_that_leave_the_limits_in_any_member_are_not_taken():
    u = np.array([[[1.0]] * 5, [[0.5]] * 5, [[0.1]] * 5])
    seen = np.diag([1.0, 1.0])
    model = linear_model([[0.0, 1.0], [0.0, 1.5]])

    def chosen(model, limits=None):
        return next_input(model, np.zeros(1), u, information=seen, limits=limits)

    assert chosen(model, np.array([[-10.0, 10.0]])).index == 0
    narrow = chosen(model, np.array([[-4.0, 4.0]]))  # the second goes to 2.5 and 3.75, the first to 5 and 7.5
    assert (narrow.index, narrow.outcome) == (1, Outcome.solved)
    assert narrow.gains[0] == -np.inf
    assert chosen(model, np.array([[-3.0, 3.0]])).index == 2  # in the second member alone would the second leave
    # By default the states' ranges; without one, the box of the data, here of width 2, and its width on either side.
    assert chosen(linear_model([0.0, 1.0], states=(Signal("x", "", -6.0, 6.0),))).index == 0
    assert chosen(linear_model([0.0, 1.0])).index == 1
    assert chosen(linear_model([0.0, 1.3])).index == 2


def test_if_every_candidate_leaves_the_one_that_stays_longest_is_taken_and_said_so():
    u = np.array([[[1.0]] * 5, [[-0.5]] * 5, [[0.8]] * 5])
    found = next_input(linear_model([0.0, 1.0]), np.zeros(1), u, information=np.eye(2), limits=np.array([[-2.0, 2.0]]))
    assert (found.index, found.outcome) == (1, Outcome.infeasible)
    assert (found.gains == -np.inf).all()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_state_that_is_outside_already_may_come_back(side):
    u = side * np.array([[[1.0]] * 3, [[-1.0]] * 3])
    limits = np.array([[-2.0, 2.0]])
    found = next_input(linear_model([0.0, 1.0]), np.array([side * 3.6]), u, information=np.eye(2), limits=limits)
    assert (found.index, found.outcome) == (1, Outcome.solved)
    assert found.gains[0] == -np.inf


def test_a_path_that_overflows_has_left_the_limits():
    library = polynomial_library(3).bind(("x",), ("u",))
    coef = np.zeros((1, len(library)))
    coef[0, library.index("x^3")] = 1e3
    coef[0, library.index("u")] = 1.0
    rates = SparseMap(library, coef, ("delta_x",))
    model = Model(rates, Increment(), (Signal("x"),), (Signal("u"),), 1.0, np.array([[-1.0, 1.0]]))
    wide = np.array([[-np.inf, np.inf]])
    u = np.array([[[1.0]] * 30, [[0.0]] * 30])
    found = next_input(model, np.zeros(1), u, information=np.eye(len(library)), limits=wide)
    assert (found.index, found.gains[0]) == (1, -np.inf)


# --- candidates


def test_candidates_keep_the_limits_hold_their_values_and_often_go_to_a_limit():
    u = input_candidates(400, 22, lower=[-1.0, 3.0], upper=[1.0, 4.0], hold=5, rng=np.random.default_rng(0))
    assert u.shape == (400, 22, 2)
    assert (u >= [-1, 3]).all()
    assert (u <= [1, 4]).all()
    np.testing.assert_array_equal(u, np.repeat(u[:, ::5], 5, axis=1)[:, :22])
    at_limit = (u[:, ::5] == [-1, 3]) | (u[:, ::5] == [1, 4])
    assert at_limit.mean() == pytest.approx(0.5, abs=0.03)  # 4000 values: standard deviation 0.008


# --- as a policy


class Spring(gymnasium.Env):
    """The spring with a random acceleration, uniform over each step, and states that are measured exactly."""

    dt = DT

    def __init__(self, shaking=0.3, length=10**6):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.shaking, self.length = shaking, length
        self._x, self._k = np.zeros(2), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._k = np.zeros(2), 0
        return self._x.copy(), {}

    def step(self, action):
        x, held = self._x, float(action[0])
        rate = lambda y: np.array([y[1], -y[0] - 0.3 * y[1] - y[0] ** 3 + held])  # noqa: E731
        for _ in range(2):
            h = DT / 2
            k1 = rate(x)
            k2 = rate(x + h / 2 * k1)
            k3 = rate(x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(x + h * k3))
        x[1] += self.shaking * DT * self.np_random.standard_normal()
        self._x, self._k = x, self._k + 1
        return x.copy(), 0.0, False, self._k == self.length, {}


def fit(data) -> Model:
    return identify(
        data, CUBIC, structure=SPRING, states=STATES, inputs=INPUTS, inclusion=False, actuators="allow", members=4
    ).model


def active(refit=fit, **settings) -> ActiveExcitation:
    return ActiveExcitation(
        refit, states=("x", "v"), inputs=INPUTS, dt=DT, **{"candidates": 8, "horizon": 10} | settings
    )


def gather(policy, steps=60, seed=0, **settings) -> Dataset:
    env = Spring(**settings)
    rng = np.random.default_rng(seed)
    return collect(env, policy, steps=steps, rng=rng, states=("x", "v"), inputs=("u",))


@pytest.mark.parametrize("criterion", ["d_optimal", "variance"])
def test_it_refits_on_time_sees_what_was_recorded_and_repeats_with_its_seed(criterion):
    sizes = []

    def refit(data):
        sizes.append(data.steps)
        return spring_model(3)

    policy = active(refit, criterion=criterion, warmup=20, refit_every=15, hold=5)
    data = gather(policy, 63, length=40)
    assert sizes == [20, 35, 54]  # a new episode starts after 40; the decisions come every 5 steps
    for part_, seen in zip(data, policy.data, strict=True):
        # The state after an episode's last input is never shown to a policy.
        np.testing.assert_array_equal(seen.x, part_.x[:-1])
        np.testing.assert_array_equal(seen.u, part_.u[:-1])
    u = np.concatenate([part_.u[:, 0] for part_ in data])
    assert (np.abs(u) <= 1).all()
    assert len(set(u[:20])) == 4
    again, other = (
        gather(active(refit, criterion=criterion, warmup=20, refit_every=15, hold=5), 63, seed, length=40)
        for seed in (0, 1)
    )
    assert again.trajectories == data.trajectories
    assert other.trajectories != data.trajectories


def test_while_no_model_can_be_fitted_the_inputs_stay_random_and_the_reason_is_kept():
    def refit(data):
        raise ValueError("too few usable transitions")

    policy = active(refit, warmup=10, refit_every=10)
    data = gather(policy)
    assert policy.model is None
    assert str(policy.reason) == "too few usable transitions"
    assert len(set(data[0].u[:, 0])) == 12
    policy = active(warmup=10, refit_every=10)
    gather(policy)
    assert policy.model is not None
    assert policy.reason is None


# --- what it is worth

SEEDS = range(8)
ENOUGH = 0.10  # relative error of the coefficients, over all 19 candidates


def coefficient_error(model: Model) -> float:
    library: Library = model.rates.library
    truth = np.zeros(len(library))
    for term, value in TRUTH.items():
        truth[library.index(term)] = value
    found = model.rates.median().coef[0]
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def rows_needed(policy, seed) -> int:
    """The fewest rows, in steps of 30, from which on every fit is good enough; 360 if 330 are not."""
    data = gather(policy, 330, seed)[0]
    good = [coefficient_error(fit(part(data, 0, n))) < ENOUGH for n in range(30, 331, 30)]
    return 30 * (len(good) - good[::-1].index(False) + 1) if False in good else 30


@pytest.mark.slow
def test_designed_inputs_reach_an_accuracy_with_fewer_rows_than_random_ones():
    random = [rows_needed(random_policy(Spring(), hold=5), seed) for seed in SEEDS]
    designed = [rows_needed(active(candidates=48, horizon=20), seed) for seed in SEEDS]
    print(random, designed)
    assert sum(d < r for d, r in zip(designed, random, strict=True)) >= 7
    assert np.median(designed) <= 0.7 * np.median(random)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: next_input(m, np.zeros(3), options(), information=np.eye(19)),
            r"x=\.\.\.\)` must have shape \(2,\)",
        ),
        (lambda m: next_input(m, np.zeros(2), options()[0], information=np.eye(19)), r"\(candidate, horizon, 1\)"),
        (lambda m: next_input(m, np.zeros(2), options()), r"the \(19, 19\) matrix of the data so far.* Got None"),
        (lambda m: next_input(m, np.zeros(2), options(), information=np.eye(3)), r"Got \(3, 3\)"),
        (lambda m: next_input(m, np.zeros(2), options(), criterion="variance"), "at least 2 members. This model has 1"),
        (
            lambda m: next_input(m, np.zeros(2), options(), criterion="best"),  # type: ignore[arg-type]
            "must be 'd_optimal' or 'variance'",
        ),
        (
            lambda m: next_input(m, np.zeros(2), options(), information=np.eye(19), limits=np.zeros((1, 2))),
            r"limits=\.\.\.\)` must have shape \(2, 2\)",
        ),
        (lambda m: active(hold=0), r"`ActiveExcitation\(hold=\.\.\.\)` must be a positive integer. Got 0"),
        (lambda m: active(criterion="best"), r"`ActiveExcitation\(criterion=\.\.\.\)`"),
        (
            lambda m: ActiveExcitation(fit, states=("x",), inputs=(Signal("u"),), dt=DT),
            "must be signals with finite limits",
        ),
    ],
)
def test_wrong_arguments_are_named_as_typed(call, message):
    with pytest.raises(ValueError, match=message):
        call(spring_model())
    with pytest.raises(RuntimeError, match=r"policy.reset\(rng\)"):
        active()(np.zeros(2))
