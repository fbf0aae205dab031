"""Online identification on systems whose equations, changes and best model are known. Every count is of fixed seeds."""

import itertools
import sys

import numpy as np
import pytest

from sindyrl.library import polynomial_library
from sindyrl.online import OnlineIdentifier
from sindyrl.simulate import simulate
from sindyrl.structure import Derivative, Increment, NextState

LIBRARY = polynomial_library(2, bias=True)
JUMP = 600


def runge_kutta(f, x, u, dt):
    for _ in range(2):
        h = dt / 2
        k1 = f(x, u)
        k2 = f(x + h / 2 * k1, u)
        k3 = f(x + h / 2 * k2, u)
        k4 = f(x + h * k3, u)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


class LotkaVolterra:
    """Kaiser, Kutz, Brunton 2018; ``b`` is how fast prey is eaten."""

    states, dt, half_life, size = ("prey", "predator"), 0.1, 20.0, np.array([50.0, 20.0])
    before, after = 0.025, 0.035

    @staticmethod
    def start(rng):
        return np.array([60.0, 50.0]) * rng.uniform(0.8, 1.2, 2)

    @staticmethod
    def excite(rng, x):
        return rng.uniform(-2.0 if x[1] > 10.0 else 0.0, 2.0)  # predators never die out

    @staticmethod
    def field(b):
        return lambda x, u: np.array([0.5 * x[0] - b * x[0] * x[1], 0.005 * x[0] * x[1] - 0.5 * x[1] + u[0]])

    @staticmethod
    def truth(b):
        prey = {"prey": 0.5, "prey*predator": -b}
        return [prey, {"predator": -0.5, "u": 1.0, "prey*predator": 0.005}]


class Lorenz:
    """``after`` is the jump of rho in the middle."""

    states, dt, half_life, size = ("x", "y", "z"), 0.01, 2.0, np.array([8.0, 9.0, 8.0])
    before, after = 28.0, 35.0

    @staticmethod
    def start(rng):
        return np.array([-8.0, 8.0, 27.0]) + rng.normal(size=3)

    @staticmethod
    def excite(rng, x):
        return rng.uniform(-10.0, 10.0)

    @staticmethod
    def field(rho):
        return lambda x, u: np.array(
            [10 * (x[1] - x[0]) + u[0], rho * x[0] - x[1] - x[0] * x[2], x[0] * x[1] - 8 / 3 * x[2]]
        )

    @staticmethod
    def truth(rho):
        return [{"x": -10.0, "y": 10.0}, {"x": rho, "x*z": -1.0}, {"z": -8 / 3, "x*y": 1.0}]


class Oscillator:
    """Linear, and with the input held a linear map of a step exactly."""

    states, dt, half_life, size = ("x", "v"), 0.05, 10.0, np.array([1.0, 1.0])
    before = after = 1.0

    @staticmethod
    def start(rng):
        return rng.normal(size=2)

    @staticmethod
    def excite(rng, x):
        return rng.uniform(-2.0, 2.0)

    @staticmethod
    def field(stiffness):
        return lambda x, u: np.array([x[1], -stiffness * x[0] - 0.3 * x[1] + u[0]])


def transitions(system, seed, n, noise=0.001, jump=None):
    """(x, u, x_next) as measured; noise as a share of the system's size."""
    rng = np.random.default_rng(seed)
    x, u = system.start(rng), np.zeros(1)
    seen = x + noise * system.size * rng.normal(size=len(x))
    for k in range(n):
        if k % 5 == 0:
            u = np.array([system.excite(rng, x)])
        x = runge_kutta(
            system.field(system.after if jump is not None and k >= jump else system.before), x, u, system.dt
        )
        following = x + noise * system.size * rng.normal(size=len(x))
        yield seen, u, following
        seen = following


def identifier(system, **settings):
    structure = settings.pop("structure", Derivative("rk4"))
    given = {"half_life": system.half_life} | settings
    return OnlineIdentifier(LIBRARY, structure, system.states, ["u"], system.dt, **given)


def followed(system, seed, n, *, noise=0.001, jump=None, **settings):
    """The identifier after n rows, and the kind in use after each of them."""
    online = identifier(system, **settings)
    kinds = []
    for row in transitions(system, seed, n, noise, jump):
        online.update(*row)
        kinds.append(online.kind)
    return online, kinds


def error(online, truth):
    """Largest relative error of the coefficients of the true terms."""
    coef, library = online.sparse_model.rates.coef, online.library
    return max(
        abs(coef[target, library.index(name)] / value - 1)
        for target, terms in enumerate(truth)
        for name, value in terms.items()
    )


def switches(kinds):
    return sum(a != b for a, b in itertools.pairwise(kinds))


# ---- constant systems


@pytest.mark.parametrize("system", [LotkaVolterra, Lorenz])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_from_dmdc_to_the_true_equations_in_one_switch(system, seed):
    online, kinds = followed(system, seed, 500)
    assert kinds[0] == "dmdc"
    assert kinds[-1] == "sparse"
    assert switches(kinds) == 1
    assert error(online, system.truth(system.before)) < 0.02
    assert online.report.log_ratio + 3 * online.report.standard_error < 0
    assert online.report.changes == ()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_on_a_linear_system_dmdc_stays(seed, noise):
    _, kinds = followed(Oscillator, seed, 500, noise=noise)
    assert set(kinds) == {"dmdc"}


def test_of_two_exact_models_dmdc_stays():
    """A linear map of a step: both models are exact to rounding, which is a tie."""
    rng = np.random.default_rng(0)
    online = OnlineIdentifier(LIBRARY, NextState(), ["x", "v"], ["u"], 0.1)
    x, a = np.array([1.0, 0.0]), np.array([[0.99, 0.1], [-0.1, 0.95]])
    for _ in range(200):
        u = rng.normal(size=1)
        after = a @ x + np.array([0.0, 0.1]) * u
        online.update(x, u, after)
        x = after
    assert online.kind == "dmdc"
    assert online.report.log_ratio == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(online.sparse_model.step(x, u), online.linear_model.step(x, u), atol=1e-7)
    np.testing.assert_allclose(online.linear_model.linearize(x, u)[0], a, atol=1e-9)


def test_the_coefficients_are_weighted_least_squares_over_all_rows():
    """The second route: all rows kept, one dense solve."""
    online, rows = identifier(Lorenz, floor=np.inf), []
    for row in transitions(Lorenz, 4, 400):
        online.update(*row)
        rows.append(row)
    x, u, after = (np.array(part) for part in zip(*rows, strict=True))
    theta = online.library.features(np.column_stack([(x + after) / 2, u]))
    y = (after - x) / Lorenz.dt
    root = np.sqrt(0.5 ** (np.arange(399, -1, -1) * Lorenz.dt / Lorenz.half_life))[:, None]
    for target, coef in enumerate(online.sparse_model.rates.coef):
        support = np.flatnonzero(coef)
        expected = np.linalg.lstsq(root * theta[:, support], root[:, 0] * y[:, target], rcond=None)[0]
        np.testing.assert_allclose(coef[support], expected, rtol=1e-6)
    affine = root * np.column_stack([np.ones(400), x, u])
    linear = np.linalg.lstsq(affine, root * after, rcond=None)[0].T
    np.testing.assert_allclose(online.linear_model.rates.coef, linear, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("system", [LotkaVolterra, Lorenz, Oscillator])
def test_no_false_alarm_in_twenty_runs_without_a_change(system):
    alarms = [len(followed(system, seed, 1000, noise=0.005)[0].report.changes) for seed in range(20)]
    assert sum(alarms) == 0


# ---- changes


@pytest.mark.parametrize(("system", "rows", "bound"), [(LotkaVolterra, 150, 0.05), (Lorenz, 100, 0.02)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_jump_of_a_coefficient_is_noticed_and_followed(system, rows, bound, seed):
    online, kinds = followed(system, seed, JUMP + rows, jump=JUMP)
    assert len(online.report.changes) == 1
    assert JUMP < online.report.changes[0] <= JUMP + 80
    assert JUMP <= online.report.onsets[0] <= online.report.changes[0]
    assert error(online, system.truth(system.after)) < bound
    assert kinds[-1] == "sparse"
    assert switches(kinds) == 1


@pytest.mark.slow
def test_without_detection_and_with_the_same_memory_the_jump_is_followed_later():
    """What detection is for: forgetting alone still mixes old rows with new ones."""
    following, _ = followed(Lorenz, 0, JUMP + 100, jump=JUMP)
    waiting, _ = followed(Lorenz, 0, JUMP + 100, jump=JUMP, calibration=JUMP + 500)
    assert waiting.report.changes == ()
    truth = Lorenz.truth(Lorenz.after)
    assert error(following, truth) < 0.1 * error(waiting, truth)


def test_an_outlier_is_no_change():
    online = identifier(Lorenz)
    for k, (x, u, after) in enumerate(transitions(Lorenz, 1, 350)):
        before = None if k != 300 else online.sparse_model.rates
        assert not online.update(x, u, after + (5.0 if k == 300 else 0.0))
        if k == 300:
            assert online.sparse_model.rates == before  # nothing is learned from it
    assert error(online, Lorenz.truth(28.0)) < 0.02


# ---- inputs, rest, recordings


def test_a_model_that_lost_an_input_is_not_used_unless_allowed():
    def run(**settings):
        rng = np.random.default_rng(0)
        online = OnlineIdentifier(LIBRARY, Increment(), ["x", "v"], ["u"], 0.05, **settings)
        x = np.array([1.0, 0.0])
        for _ in range(300):
            after = x + 0.05 * np.array([x[1], -x[0] * (1 + x[1])])  # without u
            online.update(x, rng.normal(size=1), after)
            x = after
        return online

    careful, bold = run(), run(allow_lost_inputs=True)
    assert careful.lost_inputs == ("u",)
    assert careful.kind == "dmdc"
    assert "no term of the sparse model has u" in str(careful.report)
    assert bold.kind == "sparse"


def test_coefficients_survive_a_long_rest():
    """At rest rows bring nothing but noise; the forgetting rests too."""
    online, _ = followed(LotkaVolterra, 2, 400, half_life=5.0)
    before = error(online, LotkaVolterra.truth(LotkaVolterra.before))
    rng, rest = np.random.default_rng(0), np.array([100.0, 20.0])
    x = rest
    for _ in range(1000):
        after = rest + 0.001 * LotkaVolterra.size * rng.normal(size=2)
        online.update(x, np.zeros(1), after)
        x = after
    assert online.report.resting
    assert online.report.changes == ()
    assert error(online, LotkaVolterra.truth(LotkaVolterra.before)) < before + 0.05


def test_a_recording_that_starts_anew_is_not_predicted_across_the_gap():
    rows = list(transitions(Lorenz, 0, 400))
    apart = identifier(Lorenz)
    for row in rows[::2]:  # no row begins where the one before ended
        apart.update(*row)
    assert apart.sparse_model is not None
    assert apart.kind == "dmdc"
    assert np.isnan(apart.report.log_ratio)


# ---- use in a loop


def test_the_model_is_an_ordinary_model_from_the_first_row():
    online = identifier(Lorenz)
    with pytest.raises(ValueError, match="before the first"):
        _ = online.model
    for k, (x, u, after) in enumerate(transitions(Lorenz, 0, 300)):
        online.update(x, u, after)
        if k in (0, 1, 5, 299):
            path = simulate(online.model, x, np.tile(u, (3, 1)))
            assert np.isfinite(path.x).all()
            assert type(online.model).from_json(online.model.to_json()).rates == online.model.rates
    assert online.model.rates == online.sparse_model.rates
    np.testing.assert_allclose(online.model.step(x, u), after, atol=0.1)


def test_the_same_rows_give_the_same_model():
    first, second = (followed(Lorenz, 7, 120)[0] for _ in range(2))
    assert first.model.rates == second.model.rates
    assert followed(Lorenz, 8, 120)[0].model.rates != first.model.rates


def calls(function):
    """Python and C function calls: a deterministic measure of work."""
    count = 0

    def tick(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def held(value, seen=None):
    """Bytes of all arrays that an object holds."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(held(v, seen) for v in value.values())
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return sum(held(v, seen) for v in value)
    return held(vars(value), seen) if hasattr(value, "__dict__") and not isinstance(value, type) else 0


def test_work_and_memory_do_not_grow_with_the_rows():
    online = identifier(Lorenz)
    work, size = {}, {}
    for k, row in enumerate(transitions(Lorenz, 0, 1000)):
        if k in range(300, 320) or k in range(980, 1000):
            work[k] = calls(lambda row=row: online.update(*row))
            size[k] = held(vars(online))
        else:
            online.update(*row)
    early_work = np.mean([work[k] for k in range(300, 320)])
    late_work = np.mean([work[k] for k in range(980, 1000)])
    assert late_work < 1.2 * early_work
    assert max(size[k] for k in range(980, 1000)) < 1.1 * max(size[k] for k in range(300, 320))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"half_life": 0.05}, "min_rows"),
        ({"half_life": 0.001}, "half_life"),
        ({"min_rows": 3}, "min_rows"),
        ({"horizon": 0}, "horizon"),
        ({"refit_every": 0}, "refit_every"),
        ({"calibration": 2}, "calibration"),
        ({"false_alarm_rows": 1.0}, "false_alarm_rows"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        identifier(Lorenz, **settings)


@pytest.mark.parametrize("name", ["x", "u", "x_next"])
def test_wrong_rows_are_refused_and_teach_nothing(name):
    online = identifier(Lorenz)
    row = {"x": np.ones(3), "u": np.ones(1), "x_next": np.ones(3)}
    for wrong in (np.full(row[name].shape, np.nan), np.ones(7)):
        with pytest.raises(ValueError, match=rf"update\({name}=\.\.\.\)` must be {len(row[name])} finite numbers"):
            online.update(**(row | {name: wrong}))
    assert online.rows == 0
    assert online.effective_rows == 0.0
