"""Policy search: planted optima are found, LQR is nearly matched, symmetry holds, and reality has the last word."""

import warnings

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from sindyrl.learn import policy_search, scoring
from sindyrl.learn.policy_search import SearchSettings, search, search_policy
from sindyrl.learn.scoring import policy_terms
from sindyrl.library import custom_library, identity_library, polynomial_library
from sindyrl.model import Model
from sindyrl.simulate import simulate
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.systems import CART_TASK, cart_matrices, cart_model, cart_task, pendulum_model, pendulum_task

ODD = ("x", "v", "x^3", "x^2*v", "x*v^2", "v^3")
EVEN = ("1", "x^2", "x*v", "v^2")
small = SearchSettings(
    population=24, generations=40, restarts=1, scenarios=4, offspring=16, polish=20, repair=10, attempts=1
)


def rng(seed=0):
    return np.random.default_rng(seed)


def two_inputs(**changes):
    inputs = (Signal("u", "N", -1.0, 1.0), Signal("brake", "", 0.0, 1.0))
    return cart_task(inputs=inputs, **{"mirror": ("x", "v", "u")} | changes)


def braked_model():
    """The cart with a second input that does nothing."""
    one, task = cart_model(), two_inputs()
    library = polynomial_library(1).bind(("x", "v"), task.input_names)
    rates = SparseMap(library, [[0.0, 0.0, 1.0, 0.0]], one.rates.targets)
    return Model(rates, one.structure, one.states, task.inputs, one.dt, one.seen)


# ---- which terms


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        (("x", "v", "u"), ODD),
        (("x", "v"), EVEN),
        (("v",), ("1", "x", "x^2", "v^2", "x^3", "x*v^2")),
        (("v", "u"), ("v", "x*v", "x^2*v", "v^3")),
        ((), (*EVEN, *ODD)),
    ],
)
def test_an_input_uses_the_terms_that_change_sign_as_it_does(mirror, expected):
    library, allowed = policy_terms(cart_task(mirror=mirror), cart_model(), rng())
    assert set(library.names) == set(expected)
    assert allowed.all()


def test_each_input_has_its_own_terms():
    library, allowed = policy_terms(two_inputs(), cart_model(), rng())
    assert allowed.shape == (2, 10)
    np.testing.assert_array_equal(allowed[0], [name in ODD for name in library.names])
    np.testing.assert_array_equal(allowed[1], [name in EVEN for name in library.names])


def test_terms_that_depend_on_others_on_the_circle_are_left_out():
    library, _ = policy_terms(pendulum_task(), pendulum_model(), rng())
    assert set(library.names) == {"1", "cos", "sin", "w", "cos^2", "cos*sin", "cos*w", "sin*w", "w^2"}


def test_an_input_without_any_term_is_an_error():
    task = two_inputs(policy_library=identity_library())
    with pytest.raises(ValueError, match=r"`Task\(policy_library=..., mirror=...\)` leaves no term .*'u', 'brake'"):
        policy_terms(task, cart_model(), rng())
    policy_terms(two_inputs(policy_library=identity_library() + custom_library([lambda x: x * x])), cart_model(), rng())


# ---- scoring


@pytest.mark.parametrize("noisy", [False, True])
def test_compiled_episodes_equal_simulated_ones_policy_by_policy_and_scenario_by_scenario(noisy):
    task = cart_task(horizon=25, failure_reward=-30.0)
    model = cart_model()
    library, _ = policy_terms(task, model, rng())
    weights = rng(1).normal(size=(1, 6, 5)) * np.array([2.0, 2.0, 5.0, 5.0, 5.0, 5.0])[:, None]
    members = np.array([[[0.0, 0.0, 1.0]], [[-0.5, 0.2, 0.8]], [[6.0, 1.0, 1.2]]])
    x0 = rng(2).uniform(-1.5, 1.5, (3, 2))
    noise = (0.1 * rng(3).normal(size=(25, 2, 3)) if noisy else np.zeros((25, 2, 3))).astype(np.float32)
    returns = scoring._compile(task, model, library)(
        weights.astype(np.float32),
        np.moveaxis(members, 0, -1).astype(np.float32),
        x0.T.astype(np.float32),
        noise if noisy else None,
    )
    assert returns.shape == (5, 3)
    left = 0
    for p, s in np.ndindex(5, 3):
        steps = iter(noise[:, :, s])

        def policy(x, p=p, steps=steps):
            return np.clip(library.features(x + next(steps)) @ weights[:, :, p].T, -1.0, 1.0)

        done = simulate(cart_model(members[s, 0]), x0[s], policy, steps=25)
        rewards = task.reward(np.hstack([done.x[1:], done.u]))[: done.valid, 0]
        assert returns[p, s] == pytest.approx(rewards.sum() - 30.0 * (25 - done.valid), rel=2e-4)
        left += done.valid < 25
    assert 0 < left < 15


def test_running_away_never_pays():
    """With negative rewards, ending the sum of costs by leaving the ranges would otherwise be tempting."""
    library, _ = policy_terms(CART_TASK, cart_model(), rng())
    score = scoring._compile(CART_TASK, cart_model(), library)
    weights = np.zeros((1, 6, 2), dtype=np.float32)
    weights[0, 0, 1] = 100.0  # full thrust outward
    x0 = np.array([[0.2, 1.0, 1.9], [0.0, 0.0, 0.0]], dtype=np.float32)
    coef = np.repeat(cart_model().rates.coef[..., None], 3, axis=-1)
    resting, fleeing = np.asarray(score(weights, coef.astype(np.float32), x0))
    assert (fleeing < resting).all()


def test_the_objective_is_half_the_mean_and_half_the_worst_tenth():
    returns = np.arange(40.0)[::-1].reshape(1, 40)
    assert scoring.objective(returns)[0] == pytest.approx(0.5 * 19.5 + 0.5 * 1.5)
    assert scoring.objective(np.array([3.0, 1.0, 2.0])) == pytest.approx(0.5 * 2.0 + 0.5 * 1.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_median_that_stops_rising_ends_the_search(sign):
    stall = policy_search._Stall()
    rising = sign * 100.0 + np.arange(30.0)
    assert not any(stall.over(value) for value in rising)
    flat = [stall.over(rising[-1] + 0.01) for _ in range(25)]
    assert flat == [False] * 19 + [True] * 6


# ---- stages, on a landscape whose optimum is known


def planted(monkeypatch, optimum):
    """Replace the roll-outs: the return is minus the squared distance of the coefficients from ``optimum``."""

    def compile_landscape(task, model, library):
        target = np.array([[by_name.get(name, 0.0) for name in library.names] for by_name in optimum])

        def returns(weights, coef, x0, noise=None):
            distance = ((np.asarray(weights, dtype=float) - target[..., None]) ** 2).sum(axis=(0, 1))
            return np.repeat(-distance[:, None], coef.shape[-1], axis=1)

        return returns

    monkeypatch.setattr(scoring, "_compile", compile_landscape)


def coefficients(sparse, target=0):
    return {name: value for name, value in zip(sparse.library.names, sparse.coef[target], strict=True) if value}


@pytest.mark.parametrize("seed", range(4))
def test_the_planted_terms_survive_and_get_their_coefficients(monkeypatch, seed):
    optimum = [{"v": -2.0, "x^3": 9.0}]
    planted(monkeypatch, optimum)
    result = search(CART_TASK, cart_model(), max_terms=2, rng=rng(seed), settings=small)
    assert coefficients(result.chosen.sparse) == pytest.approx(optimum[0], abs=0.1)
    assert result.chosen.score == pytest.approx(0.0, abs=0.02)
    assert [terms for terms, _ in result.chosen.path] == [5, 4, 3, 2]


@pytest.mark.parametrize("most", [2, 3, 5, 20])
def test_never_more_than_max_terms_and_each_input_keeps_one(monkeypatch, most):
    planted(monkeypatch, [{"x": 1.0, "v": -3.0, "v^3": 5.0}, {}])
    result = search(two_inputs(), braked_model(), max_terms=most, rng=rng(), settings=small)
    used = (result.chosen.sparse.coef != 0).sum(axis=1)
    assert used.sum() <= most
    assert (used >= 1).all()
    assert result.policy.output_names == ("u", "brake")


def test_a_single_term_can_be_optimized(monkeypatch):
    planted(monkeypatch, [{"v": -2.0, "x": 0.1}])
    result = search(CART_TASK, cart_model(), max_terms=1, rng=rng(), settings=small)
    assert coefficients(result.chosen.sparse) == pytest.approx({"v": -2.0}, abs=0.05)


class Reality:
    """A validation that returns what it was told to, and keeps the policies it was shown."""

    def __init__(self, *returns):
        self.returns, self.seen = returns, []

    def __call__(self, policy):
        assert isinstance(policy, SymbolicMap)
        self.seen.append(policy)
        return self.returns[len(self.seen) - 1]


thrice = SearchSettings(
    population=12, generations=30, restarts=3, scenarios=2, offspring=8, polish=10, repair=5, attempts=3
)


@pytest.mark.parametrize(
    ("returns", "calls", "chosen"),
    [
        ((-0.5,), 1, 0),  # as good as the model promises: accepted
        ((-50.0, -0.5), 2, 1),  # the first does badly and is rejected
        ((-50.0, -60.0, -0.5), 3, 2),
        ((-50.0, -20.0, -30.0), 3, 1),  # none is accepted: the best real return
    ],
)
def test_reality_has_the_last_word(monkeypatch, returns, calls, chosen):
    planted(monkeypatch, [{"v": -2.0, "x": -1.0}])
    reality = Reality(*returns)
    result = search(CART_TASK, cart_model(), max_terms=2, rng=rng(), validate=reality, settings=thrice)
    assert len(reality.seen) == calls
    assert list(result.validations) == list(enumerate(returns))
    assert result.chosen is result.candidates[chosen]
    assert result.policy == reality.seen[chosen]


def test_without_validation_the_first_accepted_candidate_is_enough(monkeypatch):
    planted(monkeypatch, [{"v": -2.0, "x": -1.0}])
    result = search(CART_TASK, cart_model(), max_terms=2, rng=rng(), settings=thrice)
    assert len(result.candidates) == 1
    assert result.validations == ()


def test_when_the_model_accepts_none_reality_judges_all_within_the_budget(monkeypatch):
    planted(monkeypatch, [{"v": -2.0, "x": -1.0}])
    strict = SearchSettings(**{**vars(thrice), "keep": 1.5})  # nothing can score more than the dense policy
    reality = Reality(-3.0, -1.0, -2.0)
    result = search(CART_TASK, cart_model(), max_terms=2, rng=rng(), validate=reality, settings=strict)
    assert len(reality.seen) == 3
    scores = [result.candidates[index].score for index, _ in result.validations]
    assert scores == sorted(scores, reverse=True)
    assert result.policy == reality.seen[1]
    alone = search(CART_TASK, cart_model(), max_terms=2, rng=rng(), settings=strict)
    assert alone.chosen.score == max(candidate.score for candidate in alone.candidates)


def test_the_same_generator_gives_the_same_policy_and_the_global_one_is_left_alone(monkeypatch):
    planted(monkeypatch, [{"v": -2.0, "x": -1.0}])
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policies = [search_policy(CART_TASK, cart_model(), max_terms=3, rng=rng(s), settings=small) for s in (1, 1, 2)]
    assert policies[0] == policies[1]
    assert policies[0] != policies[2]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_progress_is_told_after_each_generation(monkeypatch):
    planted(monkeypatch, [{"v": -2.0}])
    told = []
    search(
        CART_TASK,
        cart_model(),
        max_terms=4,
        rng=rng(),
        settings=small,
        progress=lambda stage, score: told.append(stage),
    )
    assert list(dict.fromkeys(told)) == ["dense", "robust", "5 terms", "4 terms", "polish"]
    assert 1 < told.count("dense") <= small.generations


# ---- a real landscape


def lqr_gain():
    a, b = cart_matrices()
    q, r = np.diag([1.0, 0.2]), np.array([[0.1]])
    p = solve_discrete_are(a, b, q, r)
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)


def mean_return(policy, x0):
    done = simulate(cart_model(), x0, policy, steps=CART_TASK.horizon)
    assert done.outcome.ok
    return CART_TASK.reward(np.concatenate([done.x[:, 1:], done.u], axis=-1)).sum(axis=1).mean()


@pytest.fixture(scope="module")
def found():
    return search(CART_TASK, cart_model(), max_terms=2, rng=rng(3), settings=small)


def test_with_two_terms_the_return_of_lqr_is_nearly_matched(found):
    x0 = CART_TASK.reset(rng(9), 300)
    optimum = mean_return(lambda x: np.clip(-x @ lqr_gain().T, -1.0, 1.0), x0)
    reached = mean_return(found.policy, x0)
    assert found.chosen.sparse.n_terms <= 2
    assert optimum * 1.05 < reached < optimum * 0.99  # rewards are negative; a horizon of 4 s allows hardly more
    assert found.model_steps > 0


def test_the_policy_keeps_the_limits_and_carries_the_tasks_signals(found):
    u = found.policy(rng().uniform(-5, 5, (1000, 2)))
    assert u.min() == -1.0
    assert u.max() == 1.0
    assert found.policy.inputs == CART_TASK.states
    assert found.policy.outputs == CART_TASK.inputs
    assert found.policy.name == "policy"


def test_the_policy_respects_the_mirror_exactly(found):
    x = rng().uniform(-1, 1, (500, 2))
    np.testing.assert_array_equal(found.policy(-x), -found.policy(x))


def test_the_report_is_about_the_policy_that_is_handed_out(found):
    assert found.policy is found.chosen.policy
    assert found.chosen.score == pytest.approx(scoring.objective(found.chosen.returns))
    x = rng().uniform(-0.2, 0.2, (50, 2))
    np.testing.assert_allclose(np.clip(found.chosen.sparse(x), -1, 1), found.policy(x), rtol=1e-12)
    assert found.chosen.score <= found.dense_score + 0.1 * abs(found.dense_score)
    assert SymbolicMap.from_json(found.policy.to_json()) == found.policy


# ---- wrong use


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[
            ({name: 0}, rf"`SearchSettings\({name}=...\)` must be an integer of at least 1. Got 0")
            for name in ("generations", "restarts", "scenarios", "polish", "repair", "attempts")
        ],
        ({"population": 1}, r"`SearchSettings\(population=...\)` must be an integer of at least 2. Got 1"),
        ({"offspring": 2.5}, r"`SearchSettings\(offspring=...\)` must be an integer of at least 2. Got 2.5"),
        ({"attempts": True}, r"`SearchSettings\(attempts=...\)`.*True"),
        ({"sigma": 0.0}, r"`SearchSettings\(sigma=...\)` must be a positive number. Got 0.0"),
        ({"spread": -0.1}, r"`SearchSettings\(spread=...\)` must be a number that is not negative. Got -0.1"),
        ({"trust": np.nan}, r"`SearchSettings\(trust=...\)` must be a number that is not negative. Got nan"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings(**settings)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`search\(task=..., model=...\)` must agree on names. Got \('x', 'v'\)"):
        search(CART_TASK, pendulum_model(), rng=rng())
    with pytest.raises(ValueError, match=r"`search\(max_terms=...\)` must allow at least one term per input, 1. Got 0"):
        search(CART_TASK, cart_model(), max_terms=0, rng=rng())
