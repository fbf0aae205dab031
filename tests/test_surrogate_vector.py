"""A vector of surrogates is what Gymnasium makes of single ones, to the last bit of what can be compared."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from sindyrl.envs.surrogate import Surrogate
from sindyrl.envs.surrogate_env import SurrogateEnv
from sindyrl.envs.surrogate_vector import SurrogateVectorEnv, _jitted
from sindyrl.expression import Variable
from sindyrl.symbolic_map import SymbolicMap
from tests.systems import cart_model, cart_task

MEMBERS = ((0.0, -0.1, 1.0), (0.0, -0.2, 1.1), (0.3, -0.6, 0.5))
# Episodes end in all three ways: by the clock, by leaving at |x| or |v| > 2, and by success beyond x + v = 1.5.
TASK = cart_task(horizon=25, mirror=(), ends=SymbolicMap(["x", "v"], {"far": Variable("x") + Variable("v") - 1.5}))
COUNT = 6


def begin_left(rng, n):
    return rng.uniform([-1.6, -1.2], [0.6, 0.6], (n, 2))


def cart(**changes):
    return Surrogate(TASK, cart_model(MEMBERS), **{"reset": begin_left, "n_starts": 64} | changes)


def pushes(rng, count=COUNT):
    # Beyond the limits at times: both sides clip. Each copy has a direction, so that all ends are reached.
    return (rng.uniform(-1.5, 1.5, (count, 1)) + np.linspace(-1.0, 1.0, count)[:, None]).astype(np.float32)


def same(one, other, where=""):
    """Two dictionaries of information, Gymnasium's nested ones included."""
    assert one.keys() == other.keys(), where
    for name, value in one.items():
        if isinstance(value, dict):
            same(value, other[name], f"{where}.{name}")
        elif value.dtype == object:
            for a, b in zip(value, other[name], strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert value.dtype == other[name].dtype, name
            np.testing.assert_array_equal(value, other[name], err_msg=f"{where}.{name}")


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("leaving", ["penalty", "bootstrap"])
def test_it_is_gymnasiums_vector_of_single_surrogates(mode, leaving):
    # One start and one model: no draw decides anything, so all must agree in everything.
    surrogate = cart(leaving=leaving, n_starts=1, reset=lambda rng, n: np.tile([-0.4, -0.3], (n, 1)))
    ours = SurrogateVectorEnv(surrogate, COUNT, discount=0.95, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: SurrogateEnv(surrogate, discount=0.95)] * COUNT, autoreset_mode=mode)
    for space in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"] == mode
    (x, info), (expected, theirs_info) = ours.reset(seed=0), theirs.reset(seed=0)
    np.testing.assert_array_equal(x, expected)
    same(info, theirs_info)
    rng = np.random.default_rng(0)
    seen = {"over": 0, "left": 0, "clock": 0}
    for _ in range(120):
        u = pushes(rng)
        x, reward, terminated, truncated, info = ours.step(u)
        expected = theirs.step(u)
        np.testing.assert_array_equal(x, expected[0])
        # The penalty is a sum of powers, added in another order.
        np.testing.assert_allclose(reward, expected[1], rtol=1e-13)
        np.testing.assert_array_equal(terminated, expected[2])
        np.testing.assert_array_equal(truncated, expected[3])
        same(info, expected[4])
        for one, other in zip((x, reward, terminated, truncated), expected, strict=False):
            assert one.dtype == other.dtype
        told = info.get("final_info", info) if mode == AutoresetMode.SAME_STEP else info
        left = told.get("left", np.zeros(COUNT, bool))
        seen["left"] += left.sum()
        ended = terminated | truncated
        seen["over"] += (terminated & ~left).sum()
        seen["clock"] += (ended & ~terminated & ~left).sum()
    assert min(seen.values()) > 2, seen


def test_every_copy_has_its_own_start_and_member():
    surrogate = cart(mode="member")
    env = SurrogateVectorEnv(surrogate, 200)
    x, _ = env.reset(seed=1)
    assert {tuple(row) for row in x} <= {tuple(row) for row in surrogate.starts.astype(np.float32)}
    assert len({tuple(row) for row in x}) > 50  # of 64
    state = np.array([0.1, 0.2])
    env.reset(seed=1, options={"state": state})
    after = env.step(np.full((200, 1), 0.3, np.float32))[0]
    expected = np.array([cart_model(member).step(state, np.array([0.3])) for member in MEMBERS])
    apart = np.abs(after[:, None] - expected[None]).max(axis=2)
    assert apart.min(axis=1).max() < 1e-6
    assert set(apart.argmin(axis=1)) == {0, 1, 2}


def test_a_copy_is_a_single_surrogate_with_its_start_and_member():
    surrogate = cart(mode="member")
    env = SurrogateVectorEnv(surrogate, COUNT)
    first, _ = env.reset(seed=2)
    singles = [SurrogateEnv(surrogate) for _ in range(COUNT)]
    for single, x, member in zip(singles, first, env._member, strict=True):
        single.reset(options={"state": x})
        single._member = int(member)
    rng, running = np.random.default_rng(3), np.ones(COUNT, bool)
    for _ in range(TASK.horizon):
        u = pushes(rng)
        x, reward, terminated, truncated, info = env.step(u)
        for i in np.flatnonzero(running):
            expected = singles[i].step(u[i])
            # Members of a batch are gathered, those of one state too: the same program for another size.
            np.testing.assert_allclose(x[i], expected[0], rtol=1e-5, atol=1e-6)
            assert reward[i] == pytest.approx(expected[1], rel=1e-5, abs=1e-6)
            assert (terminated[i], truncated[i], info["left"][i]) == (*expected[2:4], expected[4]["left"])
        running &= ~(terminated | truncated)
    assert not running.any()


def test_one_seed_one_run_two_seeds_two():
    def run(seed, steps=60):
        env = SurrogateVectorEnv(cart(mode="member"), COUNT)
        env.reset(seed=seed)
        rng = np.random.default_rng(0)
        return np.array([env.step(pushes(rng))[0] for _ in range(steps)])

    np.testing.assert_array_equal(run(5), run(5))
    assert (run(5) != run(6)).any()


def test_what_is_handed_out_is_not_what_is_kept():
    env = SurrogateVectorEnv(cart(), COUNT)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    first[:] = 99.0
    after = env.step(np.zeros((COUNT, 1), np.float32))[0]
    assert np.abs(after - kept).max() < 1.0
    held = after.copy()
    env.step(np.ones((COUNT, 1), np.float32))
    np.testing.assert_array_equal(after, held)


def test_a_refit_compiles_nothing_and_holds_from_the_next_step():
    env = SurrogateVectorEnv(cart(), COUNT)
    env.reset(seed=0, options={"state": (0.0, 0.5)})
    u = np.ones((COUNT, 1), np.float32)
    env.step(u)
    compiled = _jitted(env.surrogate.form)
    size = compiled._cache_size()
    env.surrogate = dataclasses.replace(cart(), model=cart_model(np.array(MEMBERS) * 0.0))
    before = env._x.copy()
    x = env.step(u)[0]
    np.testing.assert_allclose(x[:, 1], before[:, 1], atol=1e-7)  # nothing accelerates any more
    assert (_jitted(env.surrogate.form), compiled._cache_size()) == (compiled, size)


def test_gymnasiums_wrappers_take_it():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(SurrogateVectorEnv(cart(), COUNT))
    env.reset(seed=0)
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        *_, info = env.step(pushes(rng))
        found += int(info["_episode"].sum()) if "episode" in info else 0
    assert found > COUNT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"num_envs": True}, "num_envs"),
        ({"autoreset_mode": AutoresetMode.DISABLED}, "autoreset_mode"),
        ({"autoreset_mode": "never"}, "autoreset_mode"),
        ({"discount": 0.0}, "discount"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        SurrogateVectorEnv(cart(), **{"num_envs": 2} | changes)


def test_steps_that_make_no_sense_are_refused():
    env = SurrogateVectorEnv(cart(), COUNT)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((COUNT, 1)))
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"x": 1})
    for wrong in ((1.0, 2.0, 3.0), np.full((COUNT, 2), np.nan)):
        with pytest.raises(ValueError, match="finite numbers"):
            env.reset(options={"state": wrong})
    env.reset(seed=0)
    for wrong in (np.zeros(1), np.zeros((COUNT, 2)), np.full((COUNT, 1), np.inf)):
        with pytest.raises(ValueError, match="actions"):
            env.step(wrong)
