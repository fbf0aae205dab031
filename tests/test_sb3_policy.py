"""Policies of Stable-Baselines3: nothing in a checkpoint is executed unasked, and what is rebuilt is the model's own.

What needs torch runs where Stable-Baselines3 is installed; what must be refused is refused without both.
"""

import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from sindyrl.expression import Variable
from sindyrl.sb3_policy import CheckpointError, Normalization, Predictor, from_sb3
from sindyrl.structure import NextState
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.systems import cart_task

PENDULUM = tuple(Signal(name, "", -8.0, 8.0) for name in ("cos", "sin", "w"))
# An uneven range: a middle that is not 0 would hide in an even one.
TORQUE = Signal("u", "N m", -2.0, 2.0)


def pendulum(*inputs):
    made = inputs or (TORQUE,)
    effort = sum((Variable(signal.name) ** 2 for signal in made), start=Variable("w") ** 2)
    return cart_task(
        states=PENDULUM, inputs=made, mirror=(), reward=SymbolicMap([*PENDULUM, *made], {"r": -effort}),
        structure=NextState(),
    )  # fmt: skip


TASK = pendulum()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def described(**changes):
    """The description of a checkpoint of PPO, as far as it is read."""
    box = {":type:": "<class 'gymnasium.spaces.box.Box'>"}
    plain = {
        "policy_class": {"__module__": "stable_baselines3.common.policies"},
        "policy_kwargs": {},
        "observation_space": box | {"low": "[-8. -8. -8.]", "high": "[8. 8. 8.]"},
        "action_space": box | {"low": "[-2.]", "high": "[2.]"},
    }
    return plain | changes


def checkpoint(path, **content):
    """A zip of these files; without others, what is needed for a description to be read."""
    files = {"data": described(), "policy.pth": b"nothing"} | content
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in files.items():
            archive.writestr(name, part if isinstance(part, (str, bytes)) else json.dumps(part))
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- refusals, which need neither torch nor Stable-Baselines3


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        from_sb3(tmp_path / "nowhere.zip", TASK)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(CheckpointError, match="must be a checkpoint"):
        from_sb3(tmp_path / "text.zip", TASK)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(CheckpointError, match=r"has no 'policy\.pth'"):
        from_sb3(tmp_path / "other.zip", TASK)
    for text in ("{", b"\xff\xfe"):
        with pytest.raises(CheckpointError, match="JSON"):
            from_sb3(checkpoint(tmp_path / "broken.zip", data=text), TASK)
    with pytest.raises(CheckpointError, match="no JSON object"):
        from_sb3(checkpoint(tmp_path / "list.zip", data="[]"), TASK)


PICKLE = {":type:": "<class 'dict'>", ":serialized:": "gASVAAAAAAAAAAAu"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy_class": {"__module__": "my.policies"}}, "my.policies"),
        ({"policy_class": "text"}, "unknown"),
        ({"policy_kwargs": PICKLE}, "a pickle only"),
        ({"policy_kwargs": None}, "policy_kwargs"),
        ({"policy_kwargs": PICKLE | {"activation_fn": "<class 'my.Softsign'>"}}, "my.Softsign"),
        ({"policy_kwargs": PICKLE | {"features_extractor_class": "<class 'my.Extractor'>"}}, "my.Extractor"),
    ],
)
def test_what_only_executing_the_file_could_tell_is_refused_and_says_so(tmp_path, changes, words):
    path = checkpoint(tmp_path / "policy.zip", data=described(**changes))
    with pytest.raises(CheckpointError, match=words) as refused:
        from_sb3(path, TASK)
    assert "executing the file" in str(refused.value)
    assert "trust=True" in str(refused.value)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy_kwargs": PICKLE | {"activation_fn": "<class 'torch.nn.modules.activation.ELU'>"}}, "ELU"),
        ({"action_space": {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>"}}, "action space is no Box"),
        ({"observation_space": {":type:": "<class 'gymnasium.spaces.dict.Dict'>"}}, "observation space is no Box"),
    ],
)
def test_what_no_trust_would_help_against_does_not_ask_for_it(tmp_path, changes, words):
    path = checkpoint(tmp_path / "policy.zip", data=described(**changes))
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=words) as refused:
            from_sb3(path, TASK, trust=trust)
        assert "trust=True" not in str(refused.value)


def test_other_limits_of_the_action_are_told(tmp_path):
    path = checkpoint(tmp_path / "policy.zip", data=described(action_space={"low": "[-1.]", "high": "[1.]"}))
    with pytest.raises(CheckpointError, match=r"actions from \[-1\.\] to \[1\.\]"):
        from_sb3(path, TASK)


def test_a_pickle_of_statistics_needs_trust(tmp_path):
    (tmp_path / "vec_normalize.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    path = checkpoint(tmp_path / "policy.zip")
    with pytest.raises(CheckpointError, match="trust=True"):
        from_sb3(path, TASK, normalize=tmp_path / "vec_normalize.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "wrong",
    [Normalization([0.0], [1.0]), Normalization([0, 0, np.nan], [1, 1, 1]), Normalization([0, 0, 0], [1, 1, -1])],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, wrong):
    with pytest.raises(CheckpointError, match="3 finite means"):
        from_sb3(checkpoint(tmp_path / "policy.zip"), TASK, normalize=wrong)


def test_without_torch_the_error_says_what_to_install(tmp_path):
    path = checkpoint(tmp_path / "policy.zip")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tests.test_sb3_policy import TASK, from_sb3\n"
        f"try: from_sb3({str(path)!r}, TASK)\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "sindyrl[baselines]"' in done.stdout


# ---- the other way: ours with their `predict`


def proportional():
    return SymbolicMap([PENDULUM[2], PENDULUM[0]], {"u": -1.0 * Variable("w") + 3.0 * Variable("cos")})


def test_a_closed_form_predicts_for_one_observation_and_for_a_batch():
    # It reads two of three states, in another order.
    model = Predictor(proportional(), TASK)
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (20, 3)).astype(np.float32)
    expected = np.clip(3.0 * x[:, 0] - x[:, 2], -2.0, 2.0)[:, None]
    assert (np.abs(expected) == 2.0).any()
    action, memory = model.predict(x)
    np.testing.assert_allclose(action, expected, rtol=1e-6)
    assert memory is None
    one, memory = model.predict(x[3], state="kept", episode_start=np.array([True]), deterministic=True)
    np.testing.assert_array_equal(one, action[3])
    assert memory == "kept"


def test_a_function_is_fed_all_states():
    model = Predictor(lambda x: x[..., 1:2] - x[..., 2:3], TASK)
    np.testing.assert_allclose(model.predict(np.array([5.0, 1.0, 0.5]))[0], [0.5])
    np.testing.assert_allclose(model.predict(np.array([[5.0, 1.0, 0.5]]))[0], [[0.5]])


def test_a_function_of_a_single_state_predicts_for_as_many_observations_as_there_are_states():
    """x[1] is a state, in a batch of any size; a batch of 3 of 3 states would hide that it was taken for a row."""
    model = Predictor(lambda x: np.array([x[1] - 0.5 * x[2]]), TASK)
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (3, 3))
    np.testing.assert_allclose(model.predict(x)[0], x[:, 1:2] - 0.5 * x[:, 2:])
    np.testing.assert_allclose(model.predict(x[2])[0], x[2, 1:2] - 0.5 * x[2, 2:])
    with pytest.raises(ValueError, match=r"1 inputs for each observation. Got shape \(2,\)"):
        Predictor(lambda x: x[:2], TASK).predict(x)


def test_a_predictor_of_foreign_states_and_observations_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="'z'"):
        Predictor(SymbolicMap(["z"], {"u": Variable("z")}), TASK)
    for wrong in (np.zeros(2), np.zeros((1, 1, 3))):
        with pytest.raises(ValueError, match="3 states"):
            Predictor(proportional(), TASK).predict(wrong)


# ---- the real thing


def observations(n=200, scale=3.0):
    return np.random.default_rng(1).uniform(-scale, scale, (n, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def sb3():
    return pytest.importorskip("stable_baselines3")


@pytest.fixture(scope="module")
def gym():
    return pytest.importorskip("gymnasium")


def space_env(gym, limits, box=8.0):
    """An environment of the pendulum's shape that does nothing, with any limits of the action."""

    class Still(gym.Env):
        observation_space = gym.spaces.Box(-box, box, (3,), np.float32)
        action_space = gym.spaces.Box(*(np.array(side, np.float32) for side in zip(*limits, strict=True)))

        def reset(self, *, seed=None, options=None):
            return np.zeros(3, np.float32), {}

        def step(self, action):
            return np.zeros(3, np.float32), 0.0, False, True, {}

    return Still()


def loud(model, torch, factor=2.0):
    """Weights large enough to reach both limits: a new actor's are too small to tell a scaling from none."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.policy.named_parameters():
            if "critic" not in name and "value" not in name:
                spread = factor / value.shape[-1] ** 0.5 if value.ndim == 2 else 0.3
                value.copy_(spread * torch.randn(value.shape, generator=generator))
    return model


CASES = {
    "PPO": {}, "A2C": {}, "SAC": {"learning_starts": 0}, "TD3": {}, "DDPG": {},
    "PPO relu": {"policy_kwargs": {"net_arch": {"pi": [7, 5], "vf": [4]}}, "activation": "ReLU"},
    "PPO linear": {"policy_kwargs": {"net_arch": []}},
    "PPO gSDE": {"use_sde": True, "policy_kwargs": {"squash_output": True, "net_arch": [6]}},
    "SAC tanh": {"policy_kwargs": {"net_arch": [9]}, "activation": "Tanh"},
}  # fmt: skip


def saved(sb3, gym, path, case, limits=((-2.0, 2.0),)):
    import torch

    settings = dict(CASES[case])
    name = settings.pop("activation", None)
    if name:
        settings["policy_kwargs"] = settings["policy_kwargs"] | {"activation_fn": getattr(torch.nn, name)}
    model = getattr(sb3, case.split()[0])("MlpPolicy", space_env(gym, limits), device="cpu", seed=0, **settings)
    loud(model, torch).save(path)
    return model


@pytest.mark.parametrize("case", CASES)
def test_what_is_rebuilt_is_the_model(sb3, gym, tmp_path, case):
    model = saved(sb3, gym, tmp_path / "policy.zip", case)
    act = from_sb3(tmp_path / "policy.zip", TASK)
    x = observations()
    expected, _ = model.predict(x, deterministic=True)
    assert np.ptp(expected) > 3.0
    np.testing.assert_allclose(act(x), expected, atol=2e-5)
    np.testing.assert_allclose(act.predict(x[0])[0], expected[0], atol=2e-5)
    np.testing.assert_allclose(act.symbolic()(x.astype(float)), act(x), rtol=1e-11, atol=1e-12)
    trusted = from_sb3(tmp_path / "policy.zip", TASK, trust=True)
    np.testing.assert_array_equal(trusted(x), act(x))


@pytest.mark.parametrize("case", ["PPO", "SAC"])
def test_several_inputs_keep_their_own_uneven_limits(sb3, gym, tmp_path, case):
    inputs = (Signal("u", "N", -1.0, 5.0), Signal("q", "N", 0.0, 0.5))
    model = saved(sb3, gym, tmp_path / "policy.zip", case, [(-1.0, 5.0), (0.0, 0.5)])
    act = from_sb3(tmp_path / "policy.zip", pendulum(*inputs))
    x = observations()
    np.testing.assert_allclose(act(x), model.predict(x, deterministic=True)[0], atol=5e-5)
    with pytest.raises(CheckpointError, match="They must agree"):
        from_sb3(tmp_path / "policy.zip", pendulum(*inputs[::-1]))


def test_observations_far_out_are_not_cut_unless_the_model_did(sb3, gym, tmp_path):
    model = saved(sb3, gym, tmp_path / "policy.zip", "PPO linear")
    act = from_sb3(tmp_path / "policy.zip", TASK)
    x = observations(scale=50.0) * np.float32(1e-2)
    x[:, 0] *= 100.0
    np.testing.assert_allclose(act(x), model.predict(x, deterministic=True)[0], atol=2e-4)


def test_exploration_is_that_of_the_model(sb3, gym, tmp_path):
    model = saved(sb3, gym, tmp_path / "policy.zip", "PPO")
    act = from_sb3(tmp_path / "policy.zip", TASK)
    std = float(model.policy.log_std.exp().detach()[0])
    np.testing.assert_allclose(np.exp(act.log_std) * 2.0, std, rtol=1e-6)  # in units of half the range
    saved(sb3, gym, tmp_path / "sac.zip", "SAC")
    still = from_sb3(tmp_path / "sac.zip", TASK)
    still.reset(np.random.default_rng(0))
    np.testing.assert_array_equal(still.predict(observations(), deterministic=False)[0], still(observations()))


def test_normalized_observations_by_numbers_or_from_their_file(sb3, gym, tmp_path):
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    model = saved(sb3, gym, tmp_path / "policy.zip", "PPO")
    scaled = VecNormalize(DummyVecEnv([lambda: space_env(gym, [(-2.0, 2.0)])]), clip_obs=1.5)
    scaled.obs_rms.mean, scaled.obs_rms.var = np.array([0.3, -0.2, 1.0]), np.array([4.0, 0.25, 2.0])
    scaled.save(tmp_path / "vec_normalize.pkl")
    x = observations()
    expected, _ = model.predict(scaled.normalize_obs(x), deterministic=True)
    numbers = Normalization(scaled.obs_rms.mean, scaled.obs_rms.var, clip=1.5)
    by_numbers = from_sb3(tmp_path / "policy.zip", TASK, normalize=numbers)
    by_file = from_sb3(tmp_path / "policy.zip", TASK, normalize=tmp_path / "vec_normalize.pkl", trust=True)
    np.testing.assert_allclose(by_numbers(x), expected, atol=2e-5)
    np.testing.assert_array_equal(by_file(x), by_numbers(x))
    assert np.abs(from_sb3(tmp_path / "policy.zip", TASK)(x) - expected).max() > 0.1
    np.testing.assert_allclose(by_file.symbolic()(x.astype(float)), by_file(x), rtol=1e-11, atol=1e-12)
    other = dataclasses.replace(numbers, clip=10.0)
    assert np.abs(from_sb3(tmp_path / "policy.zip", TASK, normalize=other)(x) - expected).max() > 1e-3


def test_a_pickle_of_something_else_is_no_statistics(sb3, gym, tmp_path):
    saved(sb3, gym, tmp_path / "policy.zip", "PPO")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError, match="VecNormalize"):
        from_sb3(tmp_path / "policy.zip", TASK, normalize=tmp_path / "list.pkl", trust=True)


def test_no_pickle_of_a_checkpoint_is_executed_without_trust(sb3, gym, tmp_path):
    # The same file with bombs wherever Stable-Baselines3 would unpickle, and one in the place of the tensors.
    import base64

    saved(sb3, gym, tmp_path / "policy.zip", "SAC tanh")
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    content = contents(tmp_path / "policy.zip")
    data = json.loads(content["data"])
    armed = 0
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(bomb).decode()
            armed += 1
    assert armed >= 3
    act = from_sb3(checkpoint(tmp_path / "armed.zip", **content | {"data": data}), TASK)
    np.testing.assert_array_equal(act(observations()), from_sb3(tmp_path / "policy.zip", TASK)(observations()))
    with pytest.raises(CheckpointError, match="not loaded"):
        from_sb3(checkpoint(tmp_path / "worse.zip", **content | {"policy.pth": bomb}), TASK)
    assert not (tmp_path / "executed").exists()
    pickle.loads(bomb).close()
    assert (tmp_path / "executed").exists()  # the bomb is one


def test_a_file_that_lies_about_itself_is_found_out_with_trust(sb3, gym, tmp_path):
    saved(sb3, gym, tmp_path / "policy.zip", "PPO")
    content = contents(tmp_path / "policy.zip")
    data = json.loads(content["data"])
    # Silent about its layers: with trust, what they are is seen from what the model does.
    silent = data | {"policy_class": data["policy_class"] | {"__module__": "elsewhere"}}
    path = checkpoint(tmp_path / "silent.zip", **content | {"data": silent})
    with pytest.raises(CheckpointError, match="elsewhere"):
        from_sb3(path, TASK)
    act = from_sb3(path, TASK, trust=True)
    assert act.activation == "tanh"
    np.testing.assert_array_equal(act(observations()), from_sb3(tmp_path / "policy.zip", TASK)(observations()))
    # A printed form that is not that of the pickle beside it.
    saved(sb3, gym, tmp_path / "relu.zip", "PPO relu")
    content = contents(tmp_path / "relu.zip")
    relu = json.loads(content["data"])
    relu["policy_kwargs"]["activation_fn"] = "<class 'torch.nn.modules.activation.Tanh'>"
    lying = checkpoint(tmp_path / "lying.zip", **content | {"data": relu})
    assert from_sb3(lying, TASK).activation == "tanh"
    with pytest.raises(CheckpointError, match="something else"):
        from_sb3(lying, TASK, trust=True)


def test_a_network_of_another_size_or_kind_is_refused(sb3, gym, tmp_path):
    saved(sb3, gym, tmp_path / "policy.zip", "PPO")
    states = (*PENDULUM, Signal("more", "", -1.0, 1.0))
    larger = dataclasses.replace(TASK, states=states)
    with pytest.raises(CheckpointError, match="from 4 states to 1 inputs"):
        from_sb3(tmp_path / "policy.zip", larger)
    model = sb3.SAC("MlpPolicy", space_env(gym, [(-2.0, 2.0)]), device="cpu", use_sde=True)
    model.save(tmp_path / "gsde.zip")
    with pytest.raises(CheckpointError, match="state-dependent exploration"):
        from_sb3(tmp_path / "gsde.zip", TASK)


def test_stable_baselines3_evaluates_our_policies(sb3, gym):
    from stable_baselines3.common.evaluation import evaluate_policy

    env = gym.make("Pendulum-v1")
    upright = Predictor(lambda x: -10.0 * x[..., 1:2] - 2.0 * x[..., 2:3], TASK)
    returns, _ = evaluate_policy(upright, env, n_eval_episodes=4, return_episode_rewards=True, warn=False)
    assert len(returns) == 4
    assert np.isfinite(returns).all()
