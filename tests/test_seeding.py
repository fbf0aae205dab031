"""Environments that cannot be repeated, one of each kind, and honest ones: what is noticed free, what at some steps."""

import random
import warnings

import numpy as np
import pytest

from sindyrl.collect import InteractionMeter, collect, evaluate, random_policy
from sindyrl.seeding import UnseededEnvironmentWarning, check_seeds
from tests.systems import CartEnv


class Gusty(CartEnv):
    """A cart in gusts that follow the seed: honest. The others change where gusts come from."""

    def gust(self):
        return self.np_random.normal()

    def step(self, action):
        _, *rest = super().step(action)
        self._x += 1e-3 * self.gust()
        return self._x.copy(), *rest


class IgnoresTheSeedOfReset(CartEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None)


class DrawsFromNumPy(Gusty):
    def gust(self):
        return np.random.normal()  # noqa: NPY002


class DrawsFromPython(Gusty):
    def gust(self):
        return random.gauss(0.0, 1.0)


class SeedsWhatItShares(DrawsFromNumPy):
    """Bad manners, but it can be repeated."""

    def reset(self, *, seed=None, options=None):
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed=seed)


class SeedsOneAndDrawsFromTheOther(DrawsFromPython):
    def reset(self, *, seed=None, options=None):
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed=seed)


class HasItsOwnGenerator(Gusty):
    own = np.random.default_rng(0)  # seeded once, and never by `reset`

    def gust(self):
        return self.own.normal()


class HidesWhatResetDraws(HasItsOwnGenerator):
    """The first observation is repeated; the wind of the episode, which nobody sees yet, is not."""

    def reset(self, *, seed=None, options=None):
        self.wind = self.own.normal()
        return super().reset(seed=seed)

    def gust(self):
        return self.wind


class GustsAreRare(HasItsOwnGenerator):
    def gust(self):
        return self.own.normal() if self._k > 5 else 0.0


HONEST = [CartEnv, Gusty, SeedsWhatItShares]
SHARED = [DrawsFromNumPy, DrawsFromPython, SeedsOneAndDrawsFromTheOther]
OWN = [HasItsOwnGenerator, HidesWhatResetDraws]


@pytest.fixture(autouse=True)
def shared_generators():
    """What a test draws from them, or seeds, is undone."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


def told(call) -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    assert all(each.category is UnseededEnvironmentWarning for each in seen)
    return [str(each.message) for each in seen]


def collected(env, steps=12):
    return told(lambda: collect(env, random_policy(env), steps=steps, rng=np.random.default_rng(0), dt=0.1))


def checked(env, steps=5):
    return told(lambda: check_seeds(env, steps=steps, rng=np.random.default_rng(0)))


@pytest.mark.parametrize("kind", HONEST)
def test_nothing_is_said_of_what_repeats_itself(kind):
    assert collected(kind()) == checked(kind()) == []


@pytest.mark.parametrize("kind", SHARED)
def test_draws_from_what_the_process_shares_are_told_once_and_take_no_step(kind):
    env = kind()
    (said,) = collected(env, steps=12)
    assert said.startswith(f"<{kind.__name__} instance> draws from `random` or `np.random` in `step`")
    assert env.taken == 12
    policy = random_policy(env)
    assert len(told(lambda: evaluate(env, policy, seeds=[1, 2], max_steps=3))) == 1


def test_a_policy_that_draws_from_what_the_process_shares_is_no_fault_of_the_environment():
    def policy(x):
        return np.array([np.random.uniform(-1.0, 1.0)])  # noqa: NPY002

    env = CartEnv()
    assert told(lambda: collect(env, policy, steps=12, rng=np.random.default_rng(0), dt=0.1)) == []


@pytest.mark.parametrize("kind", [*SHARED, *OWN])
def test_one_seed_played_twice_shows_every_kind_from_the_first_step_on(kind):
    (said,) = checked(kind())
    assert said.startswith(f"<{kind.__name__} instance> does not repeat itself")
    assert "step 1 of an episode" in said


@pytest.mark.parametrize("kind", OWN)
def test_a_generator_of_its_own_goes_unnoticed_while_data_are_collected(kind):
    """As the docstring of `collect` says."""
    assert collected(kind()) == []


def test_the_seed_of_reset_is_checked_by_both():
    (first,), (second,) = collected(IgnoresTheSeedOfReset()), checked(IgnoresTheSeedOfReset())
    assert first == second
    assert "ignores the seed of `reset`" in first


def test_what_happens_later_needs_as_many_steps():
    assert checked(GustsAreRare(), steps=5) == []
    assert "step 6 of an episode" in checked(GustsAreRare(), steps=6)[0]


def test_the_steps_of_a_check_are_counted_and_end_with_the_episode():
    meter = InteractionMeter(CartEnv(length=7))
    with pytest.raises(RuntimeError, match="outside of a head"):
        check_seeds(meter, steps=5, rng=np.random.default_rng(0))
    with meter.counting("selection"):
        check_seeds(meter, steps=5, rng=np.random.default_rng(0))
        assert meter.counts == {"data": 0, "selection": 10, "report": 0}
        check_seeds(meter, steps=100, rng=np.random.default_rng(0))
    assert meter.counts["selection"] == 10 + 2 * 7


def test_an_end_that_is_not_repeated_is_a_difference():
    class EndsAtRandom(CartEnv):
        lengths = iter([7, 3, 3, 7])

        def reset(self, *, seed=None, options=None):
            self.length = next(self.lengths)
            return super().reset(seed=seed)

    env = EndsAtRandom()
    assert "step 3 of an episode" in checked(env, steps=10)[0]
    assert "step 3 of an episode" in checked(env, steps=10)[0]


def test_a_check_leaves_the_generators_alone():
    env = CartEnv()
    env.action_space.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), env.action_space.np_random.bit_generator.state  # noqa: NPY002
    collected(env)
    checked(env)
    after = random.getstate(), np.random.get_state()[1].tolist(), env.action_space.np_random.bit_generator.state  # noqa: NPY002
    assert before == after


@pytest.mark.parametrize("steps", [0, 2.5, True, "5"])
def test_steps_are_a_whole_number(steps):
    with pytest.raises(ValueError, match=r"`check_seeds\(steps=\.\.\.\)` must be a whole number of at least 1"):
        check_seeds(CartEnv(), steps=steps, rng=np.random.default_rng(0))
