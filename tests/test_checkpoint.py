"""A run that was killed goes on to the same bits; another run's folder is refused; no step goes uncounted."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest

from sindyrl.collect import InteractionMeter
from sindyrl.learn import checkpoint, dyna_state
from sindyrl.learn.checkpoint import (
    CheckpointError,
    TrainingFolder,
    generator_from,
    generator_record,
    load_arrays,
    plain,
    save_arrays,
)
from sindyrl.learn.dyna import DynaSettings, dyna, sparse_model
from sindyrl.learn.ppo import PPOSettings
from sindyrl.learn.training_log import TensorBoardMissingError, read_log
from sindyrl.reward_model import fit_reward
from sindyrl.symbolic_map import SymbolicMap
from tests.systems import CART_TASK, CartEnv

learner = PPOSettings(environments=4, length=16, epochs=2, minibatches=2, updates=2, hidden=(8,), log_std=-0.5)
quick = DynaSettings(
    first_steps=60, hold=3, reset_every=30, collect_steps=(30, 50), rounds=3, calls=2, patience=None, ppo=learner
)
REQUEST = {"seed": 0, "settings": {"rate": 0.1, "sizes": (3, 4), "worst": float("inf")}}
WALL = ("fit_s", "learn_s", "collect_s")


# ---- the parts


def test_arrays_come_back_bit_by_bit_and_in_their_structure(tmp_path):
    tree = {
        "weights": (np.float32([[0.1, -0.0]]), np.int32([3])),
        "key": jax.random.key(7),
        "none": None,
        "n": np.bool_(1),
    }
    save_arrays(tmp_path / "a.npz", tree)
    like = jax.tree.map(lambda leaf: leaf, {**tree, "key": jax.random.key(0)})
    back = load_arrays(tmp_path / "a.npz", like)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves({**back, "key": 0}), jax.tree.leaves({**tree, "key": 0}), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert isinstance(back["weights"][0], np.ndarray)  # where it was: JAX would round 64 bits
    on_device = load_arrays(tmp_path / "a.npz", jax.device_put(like))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(on_device))
    assert jax.random.normal(back["key"]) == jax.random.normal(jax.random.key(7))


def test_arrays_of_another_structure_or_with_objects_in_them_are_refused(tmp_path):
    save_arrays(tmp_path / "a.npz", (np.zeros(3), np.zeros(2)))
    for like in ((np.zeros(3),), (np.zeros(3), np.zeros(3)), (np.zeros(3), np.zeros(2, np.float32))):
        with pytest.raises(CheckpointError, match="not those of this learner"):
            load_arrays(tmp_path / "a.npz", like)
    np.savez(tmp_path / "b.npz", leaf_0000=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "c.npz").write_bytes(pickle.dumps({"leaf_0000": np.zeros(3)}))
    for name in ("b.npz", "c.npz", "missing.npz"):
        with pytest.raises(CheckpointError, match="not a readable npz"):
            load_arrays(tmp_path / name, (np.zeros(3),))


def test_random_numbers_go_on_where_they_were():
    rng = np.random.default_rng(5)
    rng.normal(size=3)
    record = json.loads(json.dumps(generator_record(rng)))
    np.testing.assert_array_equal(generator_from(record).normal(size=4), rng.normal(size=4))
    rng.integers(3, dtype=np.int32)  # leaves half a number behind
    np.testing.assert_array_equal(
        generator_from(generator_record(rng)).integers(99, size=4, dtype=np.int32),
        rng.integers(99, size=4, dtype=np.int32),
    )
    for wrong in ({}, {"bit_generator": "MT19937"}, None, {**record, "state": {"state": "a", "inc": 1}}):
        with pytest.raises(CheckpointError, match="PCG64"):
            generator_from(wrong)


def test_settings_in_plain_types():
    assert plain(REQUEST) == {"seed": 0, "settings": {"rate": 0.1, "sizes": [3, 4], "worst": "inf"}}
    assert plain(learner)["hidden"] == [8]
    assert plain(np.float64(0.1)) == 0.1
    with pytest.raises(TypeError, match="function"):
        plain({"fit": lambda: None})


def test_a_folder_serves_one_request(tmp_path):
    TrainingFolder(tmp_path / "a", REQUEST)
    TrainingFolder(tmp_path / "a", REQUEST)
    with pytest.raises(CheckpointError, match=r"settings.rate: 0.1 there, 0.2 asked for") as told:
        TrainingFolder(tmp_path / "a", {"seed": 0, "settings": {**REQUEST["settings"], "rate": 0.2}})
    assert "sizes" not in str(told.value)
    with pytest.raises(CheckpointError, match=r"settings\.more: null there, 1 asked for"):
        TrainingFolder(tmp_path / "a", {"seed": 0, "settings": {**REQUEST["settings"], "more": 1}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(CheckpointError, match=r"holds no training run \(thesis.tex\)"):
        TrainingFolder(tmp_path / "b", REQUEST)
    (tmp_path / "a" / "training.json").write_text('{"format": "other", "schema": 1}')
    with pytest.raises(CheckpointError, match='"format" must be'):
        TrainingFolder(tmp_path / "a", REQUEST)
    with pytest.raises(CheckpointError, match="cannot be made"):
        TrainingFolder(tmp_path / "b" / "thesis.tex" / "c", REQUEST)


def test_other_versions_of_the_packages_are_told(tmp_path, monkeypatch):
    TrainingFolder(tmp_path, REQUEST)
    monkeypatch.setattr(checkpoint, "_versions", lambda: {"numpy": "0.1"})
    with pytest.warns(UserWarning, match="begun with other versions"):
        TrainingFolder(tmp_path, REQUEST)


def test_a_checkpoint_is_there_as_a_whole_or_not_at_all(tmp_path):
    folder = TrainingFolder(tmp_path, REQUEST)
    assert folder.newest() is None
    for number in range(11):
        folder.save(number, lambda path: (path / "x").write_text(""))
        assert folder.newest().name == f"checkpoint-{number:05d}"

    def half(path):
        (path / "x").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.save(11, half)
    assert folder.newest().name == "checkpoint-00010"
    again = TrainingFolder(tmp_path, REQUEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00010", "training.json"]
    again.save(11, lambda path: (path / "x").write_text(""))
    assert again.newest().name == "checkpoint-00011"


def test_steps_that_a_kill_may_have_cost_add_up_until_they_are_stored(tmp_path):
    folder = TrainingFolder(tmp_path, REQUEST)
    assert folder.lost == 0
    folder.expect(100)
    again = TrainingFolder(tmp_path, REQUEST)
    assert again.lost == 100
    again.expect(30)
    assert TrainingFolder(tmp_path, REQUEST).lost == 130
    again.save(0, lambda path: None)
    assert again.lost == 0
    again.expect(7)
    (tmp_path / "checkpoint-00001").mkdir()  # a kill between putting it in place and forgetting the expectation
    assert again.lost == 0


# ---- a whole run


class KilledError(Exception):
    pass


def killed_after(rounds):
    def after(told, policy, model):
        if told.turn + 1 == rounds:
            raise KilledError

    return after


def same(a, b):
    """Equal results but for the seconds."""
    for left, right in zip(a.policy.weights + a.policy.biases, b.policy.weights + b.policy.biases, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(a.policy.mean, b.policy.mean)
    assert a.model.to_json() == b.model.to_json()
    assert a.data == b.data
    numbers = [[dataclasses.replace(r, **dict.fromkeys(WALL, 0.0)) for r in x.rounds] for x in (a, b)]
    assert numbers[0] == numbers[1]
    assert str(a.judged) == str(b.judged)
    return True


@pytest.fixture(scope="module")
def whole():
    return dyna(CartEnv(40), CART_TASK, quick, seed=3)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, whole, rounds):
    with pytest.raises(KilledError):
        dyna(CartEnv(40), CART_TASK, quick, seed=3, folder=tmp_path, after=killed_after(rounds))
    meter, told = InteractionMeter(CartEnv(40)), []
    found = dyna(meter, CART_TASK, quick, seed=3, folder=tmp_path, after=lambda *args: told.append(args[0].turn))
    assert same(found, whole)
    assert told == list(range(rounds, 3))
    assert meter.counts["data"] == 50 * (3 - rounds)  # what was paid before is not paid again
    assert found.cost == whole.cost == 60 + 30 + 50 + 50
    rows = read_log(tmp_path)
    assert [{**row, **dict.fromkeys(WALL)} for row in rows] == [
        {**dataclasses.asdict(row), **dict.fromkeys(WALL)} for row in whole.rounds
    ]
    stored = SymbolicMap.load(tmp_path / "checkpoint-00003" / "policy.json")
    np.testing.assert_allclose(stored(np.ones((1, 2))), whole.policy(np.ones((1, 2))), rtol=1e-12)


def test_a_run_that_has_ended_is_handed_back_and_can_go_on(tmp_path, whole):
    short = dataclasses.replace(quick, rounds=2)
    dyna(CartEnv(40), CART_TASK, short, seed=3, folder=tmp_path)
    meter = InteractionMeter(CartEnv(40))
    first = dyna(meter, CART_TASK, short, seed=3, folder=tmp_path)
    second = dyna(meter, CART_TASK, short, seed=3, folder=tmp_path)
    assert meter.cost == 0
    assert same(first, second)
    assert same(dyna(meter, CART_TASK, quick, seed=3, folder=tmp_path), whole)
    assert meter.cost == 50


@pytest.mark.filterwarnings("ignore:This run was killed")
def test_a_run_killed_within_its_real_steps_says_what_they_may_have_cost(tmp_path, whole):
    class Breaking(CartEnv):
        """Is cut off in its k-th step."""

        def __init__(self, k):
            super().__init__(40)
            self.k = k

        def step(self, action):
            if self.taken == self.k:
                raise KilledError
            return super().step(action)

    for k in (10, 65):  # in the random steps, then in those of the first policy
        with pytest.raises(KilledError):
            dyna(Breaking(k), CART_TASK, quick, seed=3, folder=tmp_path)
    with pytest.warns(UserWarning, match="Up to 30 of them are lost"):
        found = dyna(CartEnv(40), CART_TASK, quick, seed=3, folder=tmp_path)
    # 60 random ones were lost at first and stored with the next; then up to 30 of the policy.
    assert [r.lost_steps for r in found.rounds] == [90, 90, 90]
    assert found.cost == whole.cost + 90
    for left, right in zip(found.policy.weights, whole.policy.weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_best_policy_and_its_return_are_remembered(tmp_path, monkeypatch):
    """Taken back in the third round, which is another process's."""
    grades = {0: -1.0, 1: -2.0, 2: -0.5}
    monkeypatch.setattr("sindyrl.learn.dyna._Dyna._grade", lambda self, *_: grades[len(self.known.rounds)])
    uninterrupted = dyna(CartEnv(40), CART_TASK, quick, seed=4)
    for rounds in (1, 2):
        with pytest.raises(KilledError):
            dyna(CartEnv(40), CART_TASK, quick, seed=4, folder=tmp_path, after=killed_after(rounds))
    found = dyna(CartEnv(40), CART_TASK, quick, seed=4, folder=tmp_path)
    assert [r.taken_back for r in found.rounds] == [False, True, False]
    assert same(found, uninterrupted)


@pytest.mark.slow  # compiles once more
def test_a_learned_reward_and_its_range_are_remembered(tmp_path):
    short = dataclasses.replace(quick, rounds=2)
    uninterrupted = dyna(CartEnv(40), CART_TASK, short, seed=4, fit_reward=fit_reward)
    with pytest.raises(KilledError):
        dyna(CartEnv(40), CART_TASK, short, seed=4, fit_reward=fit_reward, folder=tmp_path, after=killed_after(1))
    found = dyna(CartEnv(40), CART_TASK, short, seed=4, fit_reward=fit_reward, folder=tmp_path)
    assert found.reward == uninterrupted.reward
    assert same(found, uninterrupted)


def test_a_model_that_cannot_be_written_is_fitted_once_more(tmp_path, whole, monkeypatch):
    calls, fit = [], sparse_model(CART_TASK)

    def counted(data):
        calls.append(data.steps)
        if len(calls) == 3:
            raise ValueError("No luck.")  # so that the model before it is needed
        return fit(data)

    class Foreign:
        """What `isinstance(model, Model)` is asked about when a state is stored and read."""

        load = staticmethod(lambda path: None)

    monkeypatch.setattr(dyna_state, "Model", Foreign)
    with pytest.raises(KilledError):
        dyna(CartEnv(40), CART_TASK, quick, seed=3, fit=counted, folder=tmp_path, after=killed_after(1))
    assert not (tmp_path / "checkpoint-00001" / "model.json").exists()
    with pytest.warns(UserWarning, match="No luck"):
        found = dyna(CartEnv(40), CART_TASK, quick, seed=3, fit=counted, folder=tmp_path)
    assert calls == [60, 60, 90, 140]
    assert len(found.rounds) == 3


def test_the_folder_of_another_run_is_refused(tmp_path):
    one = dataclasses.replace(quick, rounds=1)
    dyna(CartEnv(40), CART_TASK, one, seed=3, folder=tmp_path)
    meter = InteractionMeter(CartEnv(40))
    refused = [
        ({"seed": 4}, one, r"seed: 3 there, 4 asked for"),
        ({}, dataclasses.replace(one, calls=3), r"settings\.calls: 2 there, 3"),
        ({}, dataclasses.replace(one, ppo=dataclasses.replace(learner, clip=0.1)), r"learner\.clip: 0\.2 there"),
        ({"fit": sparse_model(CART_TASK, max_terms=4)}, one, r"fit: .*max_terms=5.* there, .*max_terms=4"),
        ({"task": dataclasses.replace(CART_TASK, horizon=41)}, one, r"task\.horizon: 40 there"),
        ({"fit_reward": fit_reward}, one, r"fit_reward: null there"),
    ]
    for changes, settings, words in refused:
        arguments = {"seed": 3, "task": CART_TASK, **changes}
        with pytest.raises(CheckpointError, match=words):
            dyna(meter, settings=settings, folder=tmp_path, **arguments)
    assert meter.cost == 0


def test_a_damaged_checkpoint_is_refused(tmp_path):
    one = dataclasses.replace(quick, rounds=1)
    dyna(CartEnv(40), CART_TASK, one, seed=3, folder=tmp_path)
    stored = tmp_path / "checkpoint-00001"
    for name in ("learner.npz", "first.npz", "model.json", "state.json"):
        whole = (stored / name).read_bytes()
        (stored / name).write_bytes(whole[:-40])
        with pytest.raises(CheckpointError, match="checkpoint-00001 cannot be read"):
            dyna(CartEnv(40), CART_TASK, one, seed=3, folder=tmp_path)
        (stored / name).write_bytes(whole)


def test_a_missing_tensorboard_costs_no_real_step(tmp_path, monkeypatch):
    monkeypatch.setattr("sindyrl.learn.training_log.importlib.util.find_spec", lambda name: None)
    meter = InteractionMeter(CartEnv(40))
    with pytest.raises(TensorBoardMissingError):
        dyna(meter, CART_TASK, quick, seed=3, folder=tmp_path, tensorboard=True)
    assert meter.cost == 0
