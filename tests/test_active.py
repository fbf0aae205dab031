"""Active collection: the budget is kept to the step, refits come on time, and failure leaves chance in charge."""

import numpy as np
import pytest

from sindyrl.collect import ZeroOrderHold, random_policy
from sindyrl.controllers import receding, sampling
from sindyrl.identify import identify
from sindyrl.learn.active import collect_actively
from tests.systems import CART_TASK, CartEnv, cart_model


class Recorder:
    """``fit`` and ``controller`` that note when they were asked; the controller plays ``0.001 * its number``."""

    def __init__(self, fails=()):
        self.fails, self.sizes, self.data, self.models = fails, [], [], []

    def fit(self, data):
        self.sizes.append(data.steps)
        self.data.append(data)
        if len(self.sizes) in self.fails:
            raise ValueError("too few usable transitions")
        return cart_model()

    def controller(self, model):
        self.models.append(model)
        number = 0.001 * len(self.models)
        return lambda x: np.array([number])


def gather(recorder, env=None, seed=0, **settings):
    env = CartEnv() if env is None else env
    settings = {"steps": 100, "warmup": 40, "refit_every": 25, "hold": 4} | settings
    return collect_actively(
        env, CART_TASK, recorder.fit, recorder.controller, rng=np.random.default_rng(seed), **settings
    )


@pytest.mark.parametrize(
    ("steps", "warmup", "every"), [(100, 40, 25), (90, 30, 30), (7, 7, 1), (8, 1, 1), (50, 49, 100)]
)
def test_exactly_the_steps_are_taken_and_refits_come_at_the_stated_times(steps, warmup, every):
    env, recorder = CartEnv(), Recorder()
    data = gather(recorder, env, steps=steps, warmup=warmup, refit_every=every)
    assert env.taken == data.steps == steps
    assert recorder.sizes == list(range(warmup, steps, every))
    assert (data.states, data.inputs, data.dt) == (("x", "v"), ("u",), pytest.approx(0.1))


def inputs(data):
    return np.concatenate([part.u[:, 0] for part in data])


def test_inputs_are_random_and_held_first_then_the_newest_controllers():
    u = inputs(gather(Recorder()))
    first = u[:40]
    assert np.abs(first).max() > 0.5
    for start, stop in ((0, 30), (30, 40)):  # the hold starts anew with each episode of 30 steps
        blocks = [first[k : min(k + 4, stop)] for k in range(start, stop, 4)]
        assert all((block == block[0]).all() for block in blocks)
        assert len({block[0] for block in blocks}) == len(blocks)
    np.testing.assert_array_equal(u[40:], np.repeat([0.001, 0.002, 0.003], [25, 25, 10]))


def test_each_fit_sees_all_the_data_so_far_episode_by_episode():
    recorder = Recorder()
    whole = gather(recorder)
    assert [len(part) for part in whole] == [30, 30, 30, 10]
    for size, seen in zip(recorder.sizes, recorder.data, strict=True):
        rest = size
        for part, episode in zip(seen, whole, strict=False):
            n = min(rest, len(episode))
            np.testing.assert_array_equal(part.x, episode.x[: n + 1])
            np.testing.assert_array_equal(part.u, episode.u[:n])
            np.testing.assert_array_equal(part.r, episode.r[:n])
            rest -= n
        assert rest == 0
        assert seen.dt == pytest.approx(CART_TASK.dt, rel=1e-12)


def test_a_failing_fit_leaves_random_inputs_in_charge_until_the_next_time():
    recorder = Recorder(fails=(1, 2))
    u = inputs(gather(recorder))
    assert recorder.sizes == [40, 65, 90]
    assert len(recorder.models) == 1
    assert len(np.unique(u[:90])) > 15
    np.testing.assert_array_equal(u[90:], 0.001)


def test_a_later_failing_fit_keeps_the_controller():
    u = inputs(gather(Recorder(fails=(2,))))
    np.testing.assert_array_equal(u[40:], np.repeat([0.001, 0.002], [50, 10]))


def test_other_errors_of_the_fit_are_not_hidden():
    def broken(data):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        collect_actively(
            CartEnv(), CART_TASK, broken, None, steps=9, warmup=5, refit_every=1, rng=np.random.default_rng(0)
        )


def test_one_seed_repeats_and_two_differ():
    data = [gather(Recorder(), seed=seed) for seed in (1, 1, 2)]
    assert data[0] == data[1]
    assert data[0] != data[2]


def test_progress_is_told_every_step_and_which_model_is_in_use():
    told = []
    gather(Recorder(), progress=lambda steps, model: told.append((steps, model is not None)))
    assert told == [(k, k > 40) for k in range(1, 101)]


class Episodes:
    """A controller with memory, which counts its episodes."""

    def __init__(self):
        self.resets, self.calls = [], 0

    def reset(self, rng):
        assert isinstance(rng, np.random.Generator)
        self.resets.append(self.calls)

    def __call__(self, x):
        self.calls += 1
        return np.zeros(1)


def test_controllers_are_reset_when_they_come_and_with_each_episode():
    memory = Episodes()
    recorder = Recorder()
    recorder.controller = lambda model: memory
    gather(recorder, warmup=40, refit_every=10)
    assert memory.calls == 60
    assert memory.resets == [0, 20, 50]  # on arrival, then at steps 60 and 90; not at refits that hand it back


def test_a_controller_that_draws_at_random_is_given_its_generator():
    env, recorder = CartEnv(), Recorder()
    recorder.controller = lambda model: random_policy(env, 1)
    u = inputs(gather(recorder, env))
    assert len(np.unique(u[40:])) == 60
    assert isinstance(random_policy(env, 1), ZeroOrderHold)


def test_planning_with_refits_of_the_real_cart_keeps_it_near_the_origin():
    drive = None

    def controller(model):
        nonlocal drive
        planner = sampling.CrossEntropyPlanner(
            model, CART_TASK, horizon=12, hold=3, samples=64, elites=8, rounds=3, members=2
        )
        if drive is None:
            drive = receding.RecedingHorizon(planner, every=3)
        drive.replace_planner(planner)
        return drive

    def fit(data):
        found = identify(
            data, CART_TASK.library, structure=CART_TASK.structure, states=CART_TASK.states, inclusion=False
        )
        return found.model

    data = collect_actively(
        CartEnv(60), CART_TASK, fit, controller, steps=120, warmup=20, refit_every=20, rng=np.random.default_rng(0)
    )
    assert np.abs(data[1].x[-20:]).max() < 0.2
    model = fit(data)
    np.testing.assert_allclose(model.rates.member(0).coef[0], [0.0, 0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": 0}, r"`collect_actively\(warmup=...\)` must be between 1 and steps=100. Got 0"),
        ({"warmup": 101}, r"`collect_actively\(warmup=...\)` must be between 1 and steps=100. Got 101"),
        ({"refit_every": 0}, r"`collect_actively\(refit_every=...\)` must be at least 1. Got 0"),
        ({"hold": 0}, r"hold=...\)` must be a whole number of at least 1. Got 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    env = CartEnv()
    with pytest.raises(ValueError, match=message):
        gather(Recorder(), env, **settings)
    assert env.taken == 0
