"""The cross-entropy planner: near the optimum where it is known, repeatable, and never compiled twice."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from sindyrl.controllers.sampling import CrossEntropyPlanner, _compiled, _Form, _worst_mean
from sindyrl.expression import Variable
from sindyrl.library import identity_library
from sindyrl.model import Model
from sindyrl.protocols import Outcome
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.systems import CART, cart_matrices, cart_model, cart_task
from tests.systems import CART_TASK as TASK

WEIGHT = 0.5
quick = {"horizon": 12, "hold": 3, "samples": 64, "elites": 8, "rounds": 3, "members": 2}


def integrator(limit=2.0):
    """``x+ = x + u`` with cost ``x+^2 + WEIGHT u^2``; its task and model."""
    x, u = Variable("x"), Variable("u")
    states, inputs = (Signal("x", "", -50.0, 50.0),), (Signal("u", "", -limit, limit),)
    task = cart_task(
        states=states,
        inputs=inputs,
        dt=1.0,
        structure=Increment(),
        reward=SymbolicMap(["x", "u"], {"r": -(x * x) - WEIGHT * (u * u)}),
        mirror=("x", "u"),
    )
    library = identity_library().bind(("x",), ("u",))
    model = Model(SparseMap(library, [[0.0, 1.0]], ("delta_x",)), Increment(), states, inputs, 1.0, [[-1.0, 1.0]])
    return task, model


def best_inputs(horizon):
    """Gains k with optimal ``u = -k x`` for the cost to go, by dynamic programming backwards; first input first."""
    gains, p = [], 0.0
    for _ in range(horizon):
        q = 1.0 + p  # cost of x+ is x+^2 now and p x+^2 later
        gains.append(q / (q + WEIGHT))
        p = WEIGHT * q / (q + WEIGHT)
    return gains[::-1]


@pytest.mark.parametrize("x0", [-1.5, 1.0])
def test_the_plan_of_a_linear_system_is_near_the_analytic_optimum(x0):
    task, model = integrator()
    planner = CrossEntropyPlanner(model, task, horizon=4, hold=1, samples=512, elites=32, rounds=12, members=1)
    plan = planner.plan(np.array([x0]), planner.init(np.array([x0])))
    x, cost = x0, 0.0
    for k, gain in enumerate(best_inputs(4)):
        assert plan.u[k, 0] == pytest.approx(-gain * x, abs=0.12)
        u = -gain * x
        x += u
        cost += x * x + WEIGHT * u * u
    assert cost <= plan.cost + 1e-5
    assert plan.cost == pytest.approx(cost, rel=0.03)
    # Along a long horizon the gain is the one of the Riccati equation: two routes to the same optimum.
    p = solve_discrete_are(np.eye(1), np.eye(1), np.eye(1), np.eye(1) * WEIGHT)[0, 0]
    assert best_inputs(40)[0] == pytest.approx(p / (p + WEIGHT), rel=1e-9)


def test_limits_are_kept_and_reached():
    task, model = integrator(limit=0.3)
    planner = CrossEntropyPlanner(model, task, horizon=4, hold=1, samples=256, elites=16, rounds=8, members=1)
    plan = planner.plan(np.array([10.0]), planner.init(np.array([10.0])))
    assert (np.abs(plan.u) <= 0.3 + 1e-7).all()
    np.testing.assert_allclose(plan.u, -0.3, atol=1e-2)


def test_the_plan_says_what_the_model_predicts():
    task, model = TASK, cart_model()
    planner = CrossEntropyPlanner(model, task, **{**quick, "members": 1})
    plan = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
    assert plan.u.shape == (12, 1)
    assert plan.x.shape == (13, 2)
    assert (plan.u.reshape(4, 3) == plan.u[::3]).all()  # held
    x, total = np.array([0.5, 0.1]), 0.0
    for k in range(12):
        np.testing.assert_allclose(plan.x[k], x, atol=1e-6)
        x = model.step(x, plan.u[k])
        total += task.reward(np.concatenate([x, plan.u[k]]))[0]
    assert plan.cost == pytest.approx(-total, rel=1e-5)
    assert plan.outcome is Outcome.solved


MEMBERS = np.array([[0.0, 0.0, 1.0], [0.0, -0.5, 0.7], [0.3, 0.0, 1.2]])


def totals(plan, members):
    """The return of a plan from (0.5, 0.1) in each of the members, by the model's own steps."""
    found = []
    for coef in members:
        x, total = np.array([0.5, 0.1]), 0.0
        for held in plan.u:
            x = cart_model(coef).step(x, held)
            total += TASK.reward(np.concatenate([x, held]))[0]
        found.append(total)
    return np.array(found)


def test_over_an_ensemble_the_cost_is_the_mean_over_the_members():
    for used in (2, 5):
        planner = CrossEntropyPlanner(cart_model(MEMBERS), TASK, **{**quick, "members": used})
        plan = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
        assert plan.cost == pytest.approx(-totals(plan, MEMBERS[np.arange(used) % 3]).mean(), rel=1e-5)


@pytest.mark.parametrize(("tail", "worst"), [(2 / 3, 2), (1 / 3, 1), (0.01, 1)])
def test_averse_to_risk_the_cost_is_the_mean_over_the_worst_members(tail, worst):
    planner = CrossEntropyPlanner(cart_model(MEMBERS), TASK, **{**quick, "members": 3}, tail=tail)
    plan = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
    assert plan.cost == pytest.approx(-np.sort(totals(plan, MEMBERS))[:worst].mean(), rel=1e-5)


def test_the_mean_of_the_tail_is_the_conditional_value_at_risk():
    returns = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    tails = np.linspace(0.02, 1.0, 50)
    found = np.stack([jax.jit(_worst_mean)(returns, np.float32(tail)) for tail in tails])
    # Rockafellar and Uryasev: max over c of c - E[(c - r)+] / tail, a concave function with its kinks at the returns.
    below = np.maximum(returns[:, :, None] - returns[:, None, :], 0.0).mean(axis=-1)
    for tail, one in zip(tails, found, strict=True):
        np.testing.assert_allclose(one, (returns - below / tail).max(axis=-1), atol=1e-5)
    assert (np.diff(found, axis=0) >= -1e-6).all()
    np.testing.assert_allclose(found[tails <= 0.2], np.broadcast_to(returns.min(axis=-1), (10, 50)), atol=1e-7)
    np.testing.assert_array_equal(found[-1], jax.jit(lambda r: r.mean(axis=-1))(returns))  # to the last bit


def test_near_a_cliff_that_one_member_of_four_sees_earlier_risk_decides_how_far_to_go():
    """``x+ = b u``, the reward x, and 0.25 is lost beyond x = 1; b is 1 in three members and 2 in the fourth.

    Of the inputs at which no member falls u = 1/2 is the best, of the others u = 1, where the fourth falls. The worst
    2 or 3 members earn 1/2 in the one case; a tail of s members earns (s - 1 - 0.25) / s in the other, which is more
    from s = 2.5 on, a share of 0.625.
    """
    x = Variable("x")
    states, inputs = (Signal("x", "", -1.0, 1.0),), (Signal("u", "", -1.0, 1.0),)
    task = cart_task(
        states=states,
        inputs=inputs,
        structure=Increment(),
        reward=SymbolicMap(["x"], {"r": x}),
        failure_reward=-0.25,
        mirror=(),
    )
    rates = SparseMap(identity_library().bind(("x",), ("u",)), [[[0.0, b]] for b in (1.0, 1.0, 1.0, 2.0)], ("delta_x",))
    model = Model(rates, Increment(), states, inputs, task.dt, [[-1.0, 1.0]])
    planner = CrossEntropyPlanner(model, task, horizon=1, hold=1, samples=256, elites=16, rounds=6)
    for tail, u, value in ((1.0, 1.0, 0.6875), (0.65, 1.0, 1.35 / 2.6), (0.6, 0.5, 0.5), (0.25, 0.5, 0.5)):
        plan = dataclasses.replace(planner, tail=tail).plan(np.zeros(1), planner.init(np.zeros(1)))
        assert plan.u[0, 0] == pytest.approx(u, abs=0.01)
        assert plan.cost == pytest.approx(-value, abs=0.01)


def test_another_risk_compiles_nothing():
    planner = CrossEntropyPlanner(cart_model(MEMBERS), TASK, **quick)
    planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
    before, size = _compiled.cache_info(), compiled_search(planner)._cache_size()
    plans = [
        dataclasses.replace(planner, tail=tail).plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
        for tail in (1.0, 0.7, 0.5)
    ]
    assert _compiled.cache_info().misses == before.misses
    assert compiled_search(planner)._cache_size() == size
    assert plans[0].cost < plans[1].cost < plans[2].cost


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    task, model = TASK, cart_model()
    plans = []
    for seed in (0, 0, 1):
        planner = CrossEntropyPlanner(model, task, seed=seed, **quick)
        first = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
        second = planner.plan(np.array([0.5, 0.1]), first.state)
        plans.append(np.stack([first.u, second.u]))
    np.testing.assert_array_equal(plans[0], plans[1])
    assert (plans[0][0] != plans[2][0]).any()
    assert (plans[0][0] != plans[0][1]).any()


def test_the_warm_start_is_the_plan_one_knot_later():
    task = cart_task(inputs=(Signal("u", "N", -1.0, 3.0),), mirror=())
    planner = CrossEntropyPlanner(cart_model(), task, **quick)
    start = planner.init(np.zeros(2))
    np.testing.assert_array_equal(start.knots, np.full((4, 1), 1.0))
    plan = planner.plan(np.array([0.5, 0.1]), start)
    np.testing.assert_array_equal(plan.state.knots, [*plan.u[3::3], [1.0]])
    assert (start.calls, plan.state.calls) == (0, 1)


def test_planning_again_from_a_warm_start_is_no_worse():
    task, model = TASK, cart_model()
    planner = CrossEntropyPlanner(model, task, **{**quick, "members": 1})
    x, state, costs = np.array([0.5, 0.1]), planner.init(np.zeros(2)), []
    for _ in range(8):
        plan = planner.plan(x, state)
        costs.append(plan.cost)
        state = dataclasses.replace(plan.state, knots=plan.u[::3])  # the same plan, not shifted
    assert (np.diff(costs) <= 1e-6).all()


def test_a_refitted_model_compiles_nothing():
    planner = CrossEntropyPlanner(cart_model([[0.0, 0.0, 1.0], [0.0, 0.1, 0.9]]), TASK, **quick)
    plan = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
    before = _compiled.cache_info()
    search = compiled_search(planner)
    size = search._cache_size()
    inputs = []
    for gain, dt in ((1.0, 0.1), (1.1, 0.1), (-1.0, np.nextafter(0.1, 1.0))):  # recorded steps differ in the last bit
        refit = cart_model([[0.0, 0.0, gain], [0.0, 0.0, gain]], dt=dt)
        plan = dataclasses.replace(planner, model=refit).plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
        inputs.append(plan.u)
    assert _compiled.cache_info().misses == before.misses
    assert search._cache_size() == size
    assert (inputs[0] != inputs[1]).any()  # but it plans with the new coefficients
    assert inputs[0].mean() < 0 < inputs[2].mean()


def compiled_search(p):
    return _compiled(p.task, _Form(p.model), p.horizon, p.hold, p.samples, p.elites, p.rounds, p.spread)


def test_another_library_or_step_length_is_compiled_anew():
    keys = [_Form(cart_model()), _Form(cart_model(dt=0.05)), _Form(cart_model(states=(CART[0], Signal("v", "m/s"))))]
    assert len(set(keys)) == 3
    assert _Form(cart_model()) == _Form(cart_model([0.0, 0.0, 2.0]))
    assert hash(TASK) == hash(dataclasses.replace(TASK))


def test_a_start_from_which_everything_leaves_the_ranges_is_reported():
    planner = CrossEntropyPlanner(cart_model(), TASK, **quick)
    plan = planner.plan(np.array([1.95, 1.9]), planner.init(np.zeros(2)))
    assert plan.outcome is Outcome.diverged
    assert np.isfinite(plan.u).all()
    assert np.isfinite(plan.x).all()
    assert plan.cost > 0


def test_no_setting_of_jax_is_changed_and_double_precision_is_not_needed():
    planner = CrossEntropyPlanner(cart_model(), TASK, **quick)
    before = dict(jax.config.values)
    plan = planner.plan(np.array([0.5, 0.1]), planner.init(np.zeros(2)))
    assert dict(jax.config.values) == before
    assert plan.u.dtype == plan.x.dtype == np.float64
    assert isinstance(plan.cost, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[
            ({name: 0}, rf"`CrossEntropyPlanner\({name}=...\)` must be a positive integer. Got 0")
            for name in ("horizon", "hold", "samples", "elites", "rounds", "members")
        ],
        ({"rounds": True}, r"`CrossEntropyPlanner\(rounds=...\)`.*True"),
        ({"horizon": 10, "hold": 3}, "must divide evenly. Got 10 and 3"),
        ({"samples": 5, "elites": 6}, r"`CrossEntropyPlanner\(elites=...\)` must not exceed samples=5. Got 6"),
        ({"spread": 0.0}, r"`CrossEntropyPlanner\(spread=...\)` must be positive. Got 0.0"),
        ({"spread": np.nan}, r"`CrossEntropyPlanner\(spread=...\)` must be positive. Got nan"),
        *[
            ({"tail": tail}, rf"`CrossEntropyPlanner\(tail=...\)` must be a share of the members in .* Got {tail}")
            for tail in (0.0, 1.5, np.nan)
        ],
        ({"tail": 0.5, "model": cart_model(MEMBERS), "members": 1}, r"at least 2 different .* Got members=1 and .* 3"),
        ({"tail": 0.5, "model": cart_model()}, r"at least 2 different .* Got members=4 and a model with 1"),
        ({"model": integrator()[1]}, r"must agree on names. Got \('x',\) with"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropyPlanner(**{"model": cart_model(), "task": cart_task(), **settings})


def test_several_states_at_once_are_refused():
    planner = CrossEntropyPlanner(cart_model(), TASK, **quick)
    with pytest.raises(ValueError, match=r"`CrossEntropyPlanner.plan\(x=...\)` must be one state, .* Got \(3, 2\)"):
        planner.plan(np.zeros((3, 2)), planner.init(np.zeros(2)))


def test_closing_the_loop_brings_the_cart_to_rest():
    planner = CrossEntropyPlanner(cart_model(), TASK, **quick)
    a, b = cart_matrices()
    x, state = np.array([0.8, -0.5]), planner.init(np.zeros(2))
    for _ in range(25):
        plan = planner.plan(x, state)
        state = plan.state
        for held in plan.u[:3]:
            x = a @ x + b @ held
    assert np.abs(x).max() < 0.25
