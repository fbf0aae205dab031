"""Networks as dynamics: they find a planted map, differ, stop in time, and play in the surrogate as any model does."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from sindyrl.envs.surrogate import Surrogate, _jitted, by_member, transition
from sindyrl.learn import neural_model as module
from sindyrl.learn.neural_model import NeuralSettings, fit_neural, neural_model
from sindyrl.learn.published import linear_model
from sindyrl.simulate import simulate
from sindyrl.structure import Increment, NextState, OnCircles
from sindyrl.trajectory import Dataset, Trajectory
from tests.systems import CART, CART_TASK, cart_task, pendulum_task

A, B = np.array([[0.9, 0.2], [-0.3, 0.8]]), np.array([[0.1], [0.5]])
LINEAR = cart_task(structure=NextState(), mirror=())
small = NeuralSettings(members=3, hidden=(16,), epochs=60, batch=100, learning_rate=5e-3, patience=8)


def single_steps(x, u, after, task):
    names = {"states": task.state_names, "inputs": task.input_names}
    pairs = zip(x, after, u, strict=True)
    return Dataset(tuple(Trajectory.uniform(np.stack([a, b]), c[None], dt=task.dt, **names) for a, b, c in pairs))


def linear_data(n=900, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x, u = rng.uniform(-1.0, 1.0, (n, 2)), rng.uniform(-1.0, 1.0, (n, 1))
    return single_steps(x, u, x @ A.T + u @ B.T + noise * rng.standard_normal((n, 2)), LINEAR)


@pytest.fixture(scope="module")
def found():
    longer = dataclasses.replace(small, epochs=300, learning_rate=1e-2)
    return fit_neural(linear_data(), LINEAR, longer, rng=np.random.default_rng(0))


def fresh(n=400, seed=9):
    """As `linear_data`, but never seen."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (n, 2)), rng.uniform(-1.0, 1.0, (n, 1))


def test_the_planted_map_is_found_by_each_member(found):
    x, u = fresh()
    true = x @ A.T + u @ B.T
    for index in range(3):
        apart = found.member(index).step(x, u) - true
        assert (apart.std(axis=0) < 0.03 * true.std(axis=0)).all()
    assert found.loss.max() < 1e-3
    # What was held out is as new as what no member has seen.
    apart = np.array([((found.member(i).step(x, u) - true) ** 2).mean() for i in range(3)])
    np.testing.assert_allclose(found.loss, apart, rtol=0.5)


def test_the_model_is_the_mean_of_members_that_differ(found):
    x, u = fresh(50)
    each = np.stack([found.member(index).step(x, u) for index in range(3)])
    assert min(np.abs(one - other).max() for one, other in itertools.combinations(each, 2)) > 1e-4
    np.testing.assert_allclose(found.step(x, u), each.mean(axis=0), rtol=1e-12)
    assert found.n_terms == 3 * (3 * 16 + 16 + 16 * 2 + 2)
    with pytest.raises(ValueError, match="below 3"):
        found.member(3)
    path = simulate(found, np.array([0.3, 0.2]), np.zeros((20, 1)))
    assert path.outcome.ok
    np.testing.assert_allclose(path.x[:4, 0], [0.3, *(found_powers([0.3, 0.2], 3)[:, 0])], atol=0.05)


def found_powers(x, n):
    path = [np.array(x)]
    for _ in range(n):
        path.append(A @ path[-1])
    return np.array(path[1:])


def test_one_seed_one_ensemble_two_seeds_two(found):
    quick = dataclasses.replace(small, epochs=2)
    one, same, other = (neural_model(LINEAR, quick, seed=seed)(linear_data(200)).coef for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all(axis=0).any()


def test_each_member_sees_its_share_and_holds_part_of_it_out(monkeypatch):
    seen = {}

    def watch(sizes, settings, coef, z, y, fitted, held_out, rng):
        seen.update(fitted=fitted, held_out=held_out)
        return coef, np.zeros(3, int), np.zeros(3)

    monkeypatch.setattr(module, "_descended", watch)
    fit_neural(linear_data(200), LINEAR, small, rng=np.random.default_rng(0))
    assert (seen["fitted"].shape, seen["held_out"].shape) == ((3, 96), (3, 24))  # 60 % of 200, of which a fifth
    for fitted, held_out in zip(seen["fitted"], seen["held_out"], strict=True):
        assert len({*fitted, *held_out}) == 120  # without replacement
    assert {*seen["fitted"][0]} != {*seen["fitted"][1]}


def test_a_member_stops_at_the_first_rise_and_is_what_it_was_before_it(monkeypatch):
    errors = iter(np.array([[9, 9, 9], [5, 5, np.nan], [4, 6, 1], [4.5, 1, 1], [3, 1, 1]], float))

    def descend(flat, state, *_):
        return flat + 1.0, state

    monkeypatch.setattr(module, "_compiled", lambda *_: (descend, lambda *_: next(errors), lambda flat: None))
    rows = np.tile(np.arange(40), (3, 1))
    settings = dataclasses.replace(small, batch=40, patience=1)
    coef, epochs, loss = module._descended(
        (3, 16, 2), settings, np.zeros((3, 98)), np.zeros((40, 3)), np.zeros((40, 2)), rows, rows[:, :1],
        np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_array_equal(coef, np.broadcast_to([[2.0], [1.0], [0.0]], (3, 98)))
    np.testing.assert_array_equal(epochs, [3, 2, 1])
    np.testing.assert_array_equal(loss, [4.0, 5.0, 9.0])
    # With more patience a rise is forgiven.
    errors = iter(np.array([[9, 9, 9], [5, 5, 9], [6, 6, 9], [4, 6, 9], [4.5, 5.5, 9], [4.5, 1, 9]], float))
    coef, epochs, loss = module._descended(
        (3, 16, 2), dataclasses.replace(settings, patience=2), np.zeros((3, 98)), np.zeros((40, 3)), np.zeros((40, 2)),
        rows, rows[:, :1], np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_array_equal(coef[:, 0], [3.0, 1.0, 0.0])
    np.testing.assert_array_equal(epochs, [5, 3, 2])
    np.testing.assert_array_equal(loss, [4.0, 5.0, 9.0])


def test_what_cannot_be_learned_stops_it_soon():
    rng = np.random.default_rng(0)
    x, u = rng.uniform(-1.0, 1.0, (300, 2)), rng.uniform(-1.0, 1.0, (300, 1))
    noise = single_steps(x, u, rng.standard_normal((300, 2)), LINEAR)
    found = fit_neural(noise, LINEAR, small, rng=rng)
    assert (found.epochs < small.epochs).all()
    assert (found.loss > 0.5).all()


def test_a_warm_start_begins_where_the_last_fit_ended():
    data = linear_data()
    once = dataclasses.replace(small, epochs=3)
    cold, warm = neural_model(LINEAR, once, seed=0, warm=False), neural_model(LINEAR, once, seed=0)
    first = warm(data).loss
    second, again = warm(data).loss, [cold(data).loss, cold(data).loss][1]
    assert (second < first).all()
    assert (second < again).all()
    before = warm(data)
    with pytest.raises(ValueError, match="before"):
        fit_neural(data, LINEAR, dataclasses.replace(once, hidden=(8,)), rng=np.random.default_rng(0), before=before)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_standardized_or_not_networks_are_in_the_users_units(activation):
    # The same map in millimeters and for 1000 times the force: only with standardizing it does not matter.
    settings = dataclasses.replace(small, activation=activation, standardize=True, epochs=30)
    data, x_unit, u_unit = linear_data(), np.array([1e3, 1.0]), 1e-3
    scaled = Dataset(tuple(dataclasses.replace(part, x=part.x * x_unit, u=part.u * u_unit, t=part.t) for part in data))
    plain, other = (fit_neural(d, LINEAR, settings, rng=np.random.default_rng(0)) for d in (data, scaled))
    x, u = (0.9 * part for part in fresh(100))
    np.testing.assert_allclose(other.step(x * x_unit, u * u_unit) / x_unit, plain.step(x, u), atol=2e-3)
    assert np.abs(plain.step(x, u) - (x @ A.T + u @ B.T)).max() < 0.15
    # Taken apart and put together again for a warm start, it is the same network.
    rested = dataclasses.replace(settings, learning_rate=1e-30)
    still = fit_neural(scaled, LINEAR, rested, rng=np.random.default_rng(1), before=other)
    np.testing.assert_allclose(still.coef, other.coef, rtol=1e-4, atol=1e-4 * np.abs(other.coef).max())


def test_more_data_compile_nothing():
    quick = dataclasses.replace(small, epochs=1)
    rng = np.random.default_rng(0)
    fit_neural(linear_data(200), LINEAR, quick, rng=rng)
    descend, error, start = module._compiled((3, 16, 2), "tanh")
    sizes = descend._cache_size(), error._cache_size(), start._cache_size()
    fit_neural(linear_data(517), LINEAR, quick, rng=rng)
    fit_neural(linear_data(517), LINEAR, dataclasses.replace(quick, learning_rate=1e-4), rng=rng)
    assert (descend._cache_size(), error._cache_size(), start._cache_size()) == sizes == (1, 1, 1)


def test_too_little_data_and_settings_without_sense_are_refused():
    with pytest.raises(ValueError, match="hold out"):
        fit_neural(linear_data(2), LINEAR, small, rng=np.random.default_rng(0))
    for name, value in {
        "members": 0, "hidden": (), "activation": "sine", "share": 0.0, "validation": 1.0, "epochs": True, "batch": 1.5,
        "learning_rate": 0.0, "max_gradient": np.nan,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(small, **{name: value})
    with pytest.raises(ValueError, match="seed"):
        neural_model(LINEAR, small, seed=-1)


# ---- in the surrogate


def in_double(surrogate, x, u, member):
    with jax.enable_x64(True):
        data = surrogate.arguments(np.float64)
        after, reward, left, _ = map(np.asarray, jax.jit(transition(surrogate.form))(data, member, x.T, u.T))
    return after.T, reward, left


def test_in_the_surrogate_it_is_the_mean_the_median_or_one_of_the_members(found):
    x, u = fresh(60)
    each = np.stack([found.member(index).step(x, u) for index in range(3)])
    member = np.arange(60) % 5
    expected = {
        "mean": each.mean(axis=0), "median": np.median(each, axis=0), "member": each[member % 3, np.arange(60)]
    }  # fmt: skip
    for mode, after in expected.items():
        np.testing.assert_allclose(in_double(Surrogate(LINEAR, found, mode=mode), x, u, member)[0], after, rtol=1e-12)
    believed = each[[0, 2]]
    for mode, after in {
        "mean": believed.mean(axis=0), "median": believed.mean(axis=0), "member": believed[member % 3 % 2, range(60)]
    }.items():  # fmt: skip
        only = in_double(Surrogate(LINEAR, found, mode=mode, members=(0, 2)), x, u, member)[0]
        np.testing.assert_allclose(only, after, rtol=1e-12)


@pytest.mark.parametrize("members", [None, (0, 2)])
def test_alone_each_member_steps_as_among_the_others(found, members):
    x, u = fresh(60)
    surrogate = Surrogate(LINEAR, found, mode="member", members=members, caution=0.5)
    step = transition(surrogate.form)
    with jax.enable_x64(True):
        data = surrogate.arguments(np.float64)
        apart = jax.vmap(lambda data: step(data, np.zeros(60, int), x.T, u.T))(by_member(data))
        for index in range(3):
            together = step(data, np.full(60, index), x.T, u.T)
            for one, other in zip(apart, together, strict=True):
                np.testing.assert_allclose(one[index], other, rtol=1e-12, atol=1e-14)


def test_the_surrogate_scores_and_leaves_as_with_any_model(found):
    x, u = fresh(60)
    near = dataclasses.replace(LINEAR, states=tuple(dataclasses.replace(s, lower=-0.9, upper=0.9) for s in CART))
    after, reward, left = in_double(Surrogate(near, found, mode="mean"), x, u, np.zeros(60, int))
    free = found.step(x, u)
    np.testing.assert_array_equal(left, (np.abs(free) > 0.9018).any(axis=1))
    assert left.sum() in range(2, 30)
    kept = np.where(left[:, None], x, free)
    cost = kept[:, 0] ** 2 + 0.2 * kept[:, 1] ** 2 + 0.1 * u[:, 0] ** 2
    np.testing.assert_allclose(after, kept, rtol=1e-12)
    np.testing.assert_allclose(reward, np.where(left, near.failure_reward, -cost), rtol=1e-11)


def test_caution_is_the_spread_of_the_networks(found):
    x, u = fresh(60)
    plain = Surrogate(LINEAR, found, mode="mean")
    each = np.stack([found.member(index).step(x, u) for index in range(3)])
    half = np.ptp(found.seen, axis=1) / 2.0
    apart = np.sqrt(((each.std(axis=0, ddof=1) / half) ** 2).mean(axis=1))
    lost = in_double(plain, x, u, 0)[1] - in_double(dataclasses.replace(plain, caution=2.0), x, u, 0)[1]
    np.testing.assert_allclose(lost, 2.0 * apart, rtol=1e-9)
    assert apart.min() > 1e-5


def test_a_refit_compiles_nothing_in_the_surrogate(found):
    x, u = fresh(7)
    surrogate = Surrogate(LINEAR, found, mode="mean")
    first = surrogate.step(x, u).x
    compiled = _jitted(surrogate.form)
    size, misses = compiled._cache_size(), _jitted.cache_info().misses
    refit = dataclasses.replace(found, coef=found.coef * 1.1, seen=found.seen * 2.0)
    assert not np.allclose(dataclasses.replace(surrogate, model=refit).step(x, u).x, first)
    assert (compiled._cache_size(), _jitted.cache_info().misses) == (size, misses)
    assert Surrogate(LINEAR, found, mode="median").form != surrogate.form


def test_circles_are_kept_and_increments_are_added():
    task = pendulum_task(
        structure=OnCircles(Increment(), (("cos", "sin"),)), reset=lambda rng, n: np.tile([1.0, 0.0, 0.0], (n, 1))
    )
    rng = np.random.default_rng(0)
    angle, w = rng.uniform(-3.0, 3.0, 400), rng.uniform(-2.0, 2.0, 400)
    x, u = np.column_stack([np.cos(angle), np.sin(angle), w]), rng.uniform(-1.0, 1.0, (400, 1))
    after = np.column_stack([np.cos(angle + 0.02 * w), np.sin(angle + 0.02 * w), w + 0.02 * u[:, 0]])
    longer = dataclasses.replace(small, standardize=True, epochs=120, learning_rate=1e-2)
    model = fit_neural(single_steps(x, u, after, task), task, longer, rng=np.random.default_rng(0))
    found = model.step(x, u)
    np.testing.assert_allclose(np.hypot(found[:, 0], found[:, 1]), 1.0, rtol=1e-12)
    assert np.abs(found - after).mean() < 0.25 * np.abs(x - after).mean()
    inside = in_double(Surrogate(task, model, mode="mean"), x[:9], u[:9], np.zeros(9, int))[0]
    np.testing.assert_allclose(inside, found[:9], rtol=1e-12, atol=1e-13)


# ---- Dyna-linear


def test_the_linear_baseline_is_least_squares():
    model = linear_model(LINEAR)(linear_data(60))
    assert model.rates.library.variables == ("x", "v", "u")
    assert model.rates.coef.shape == (20, 2, 3)
    np.testing.assert_allclose(model.rates.coef, np.broadcast_to(np.hstack([A, B]), (20, 2, 3)), atol=1e-10)
    noisy = linear_data(200, noise=0.1)
    bagged, pairs = linear_model(LINEAR, members=200)(noisy).rates, noisy.pairs()
    theta = np.column_stack([pairs.x, pairs.u])
    expected, residual, *_ = np.linalg.lstsq(theta, pairs.x_next, rcond=None)
    # The bootstrap's spread is the standard error, of 60 % of the rows, and its middle the solution, to the noise of
    # 200 draws.
    variance = residual[:, None] / 197 * np.diag(np.linalg.inv(theta.T @ theta)) / 0.6
    np.testing.assert_allclose(bagged.coef.std(axis=0), np.sqrt(variance), rtol=0.2)
    assert (np.abs(bagged.median().coef - expected.T) < 4.0 * 1.25 * np.sqrt(variance / 200)).all()


def test_the_linear_baseline_drops_nothing_and_leaves_out_contact():
    task = cart_task(structure=NextState(), mirror=(), exclude=lambda x, u, x_next: np.abs(x[:, 0]) > 0.9)
    data = linear_data(300)
    broken = Dataset(
        tuple(
            dataclasses.replace(part, x=np.stack([part.x[0], [5.0, 5.0]])) if abs(part.x[0, 0]) > 0.9 else part
            for part in data
        )
    )
    np.testing.assert_allclose(linear_model(task)(broken).rates.median().coef, np.hstack([A, B]), atol=1e-10)
    # Accelerations, where that is what the task's structure is made of.
    assert linear_model(CART_TASK)(linear_data(60)).rates.targets == ("dv",)
