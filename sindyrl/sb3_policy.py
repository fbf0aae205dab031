"""Policies of Stable-Baselines3 as ours, and ours with its ``predict``.

A checkpoint of Stable-Baselines3 is a zip of tensors and of JSON, in which whatever is not plain JSON is a pickle
beside its printed form. A pickle is a program. `from_sb3` does not run it: the tensors are read by torch with
``weights_only=True``, which executes nothing, and what the network does with them follows from their names and from
the printed forms. A file that lies in these yields a wrong policy, as one with wrong tensors does, and nothing worse.
What cannot be known in this way needs ``trust=True``, with which Stable-Baselines3 itself loads the file: do that with
your own files only.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sindyrl.learn.network import Activation, NeuralPolicy, Squash
from sindyrl.protocols import Policy
from sindyrl.task import Task

Family = Literal["gaussian", "sac", "td3"]

_ACTIVATIONS: Mapping[str, Activation] = {
    "<class 'torch.nn.modules.activation.Tanh'>": "tanh",
    "<class 'torch.nn.modules.activation.ReLU'>": "relu",
}
_FAMILIES: Mapping[str, Family] = {
    "stable_baselines3.common.policies": "gaussian",
    "stable_baselines3.sac.policies": "sac",
    "stable_baselines3.td3.policies": "td3",
}
_BOX = "<class 'gymnasium.spaces.box.Box'>"
_FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"
_DEFAULTS: Mapping[Family, Activation] = {"gaussian": "tanh", "sac": "relu", "td3": "relu"}
_CHECKED = 256  # observations on which a trusted checkpoint is compared with what was rebuilt


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or not without executing it; the text says which."""


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What `VecNormalize` does to observations: ``clip((x - mean) / sqrt(var + epsilon), -clip, clip)``.

    mean, var : (n_states,), its ``obs_rms.mean`` and ``obs_rms.var``    clip, epsilon : ``clip_obs`` and ``epsilon``
    """

    mean: Sequence[float] | np.ndarray
    var: Sequence[float] | np.ndarray
    clip: float = 10.0
    epsilon: float = 1e-8


def from_sb3(
    path: str | Path,
    task: Task,
    *,
    trust: bool = False,
    normalize: Normalization | str | Path | None = None,
) -> NeuralPolicy:
    """The deterministic policy of a checkpoint: PPO, A2C, SAC, TD3 or DDPG, an ``MlpPolicy`` of tanh or relu layers.

    path : the zip that ``model.save`` wrote
    task : names the states, in the order of the observation, and the inputs with the limits of the action space
    trust : whether the file may be executed, by Stable-Baselines3. Then what was rebuilt must agree with the model's
        own ``predict`` on random observations, whatever the file says of itself.
    normalize : of the observations, if the model learned on normalized ones, which the checkpoint does not tell; the
        file that ``VecNormalize.save`` wrote is a pickle and needs ``trust``

    Exploration is taken over where it does not depend on the state (PPO, A2C); elsewhere there is none.
    Raises CheckpointError, a ValueError; ImportError without torch or, with ``trust``, without Stable-Baselines3.
    """
    file = Path(path)
    data, stored = _opened(file)
    statistics = _statistics(normalize, len(task.states), trust)
    family, impossible, unknown = _family(data), _impossible(data), _unknown(data)
    if impossible:
        raise CheckpointError(f"`from_sb3({str(file)!r})` has no such form here: {impossible}")
    if unknown and not trust:
        raise CheckpointError(
            f"`from_sb3({str(file)!r})`: {unknown} What it computes can only be known by executing the file. "
            "If it is your own, or you trust its author, pass trust=True."
        )
    _check_spaces(file, data, task)
    tensors = _tensors(file, stored)
    if family is None:
        family = _family_of(tensors)
    layers, log_std = _layers(file, tensors, family)
    shape = (layers[0][0].shape[0], layers[-1][0].shape[1])
    if shape != (len(task.states), len(task.inputs)):
        raise CheckpointError(
            f"`from_sb3({str(file)!r}, task)` must have a network from {len(task.states)} states to "
            f"{len(task.inputs)} inputs, as the task. Got one from {shape[0]} to {shape[1]}."
        )
    squash = _squash(data, family)
    activation = _activation(data, family)
    choices: tuple[Activation, ...] = ("tanh", "relu") if activation is None else (activation,)
    candidates = [_rebuilt(layers, log_std, task, squash, choice) for choice in choices]
    policy = _confirmed(file, candidates, family, data) if trust else candidates[0]
    if statistics is None:
        return policy
    mean, std, clip = statistics
    return dataclasses.replace(policy, mean=mean, std=std, clip=clip)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """Any policy with the ``predict`` of Stable-Baselines3, for one observation or a batch.

    policy : a `SymbolicMap`, a `NeuralPolicy`, whatever has ``input_names`` is fed these states, a batch at
        once; any other policy is asked for one observation after the other
    task : names the states, in the order of the observation, and says where inputs are cut

    ``predict`` ignores ``deterministic``: a policy draws for itself, or does not.
    """

    policy: Policy
    task: Task

    def __post_init__(self) -> None:
        names = getattr(self.policy, "input_names", self.task.state_names)
        foreign = [name for name in names if name not in self.task.state_names]
        if foreign:
            raise ValueError(
                f"`Predictor(policy=...)` must read states of the task {list(self.task.state_names)}. Got {foreign}."
            )

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Action (n_inputs,) for one observation (n_states,), (batch, n_inputs) for a batch; and ``state`` as it is."""
        x = np.asarray(observation, dtype=np.float64)
        names = self.task.state_names
        if x.ndim not in (1, 2) or x.shape[-1] != len(names):
            raise ValueError(
                f"`predict(observation)` must be {len(names)} states {list(names)} or a batch. Got {x.shape}."
            )
        read = [names.index(name) for name in getattr(self.policy, "input_names", names)]
        rows = np.atleast_2d(x)[:, read]
        if hasattr(self.policy, "input_names"):
            u = np.asarray(self.policy(rows), dtype=np.float64)
        else:  # x[0] of a function is a state of one observation, and would be an observation of a batch
            u = np.array([self.policy(row) for row in rows], dtype=np.float64)
        if u.shape != (len(rows), len(self.task.inputs)):
            raise ValueError(
                f"`Predictor(policy=...)` must return {len(self.task.inputs)} inputs for each observation. "
                f"Got shape {u.shape[1:]}."
            )
        u = np.clip(u, self.task.action_low, self.task.action_high)
        return (u[0] if x.ndim == 1 else u), state


# ---- reading


def _opened(file: Path) -> tuple[dict[str, Any], bytes]:
    """The description and the stored tensors."""
    if not file.is_file():
        raise CheckpointError(f"`from_sb3({str(file)!r})`: there is no such file.")
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            missing = [name for name in ("data", "policy.pth") if name not in names]
            if missing:
                raise CheckpointError(
                    f"`from_sb3({str(file)!r})` must be a checkpoint of Stable-Baselines3. It has no {missing[0]!r}."
                )
            described, stored = archive.read("data"), archive.read("policy.pth")
        data = json.loads(described)
    except (zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"`from_sb3({str(file)!r})` must be a checkpoint of Stable-Baselines3, a zip with JSON in it. {error}"
        ) from None
    if not isinstance(data, dict):
        raise CheckpointError(f"`from_sb3({str(file)!r})`: its description is no JSON object.")
    return data, stored


def _tensors(file: Path, stored: bytes) -> dict[str, np.ndarray]:
    """Name -> float64 array. Executes nothing: torch refuses whatever is not a tensor."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'Reading tensors of a checkpoint needs torch. Run: pip install "sindyrl[baselines]"'
        ) from error
    try:
        loaded = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
        return {str(name): np.asarray(value.numpy(), dtype=np.float64) for name, value in loaded.items()}
    except Exception as error:  # of pickle, of zip, of torch: it names no class for "not only tensors"
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"`from_sb3({str(file)!r})`: 'policy.pth' is damaged or holds more than tensors, and was "
            f"not loaded. {first}"
        ) from None


def _statistics(
    normalize: Normalization | str | Path | None, n_states: int, trust: bool
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """mean, std, clip"""
    if normalize is None:
        return None
    if not isinstance(normalize, Normalization):
        if not trust:
            raise CheckpointError(
                f"`from_sb3(normalize={str(normalize)!r})` names a pickle, which is executed when it is loaded. If it "
                "is your own, pass trust=True; or pass its numbers as `Normalization(mean, var)`."
            )
        normalize = _unpickled(Path(normalize))
    mean, var = (np.asarray(values, dtype=np.float64) for values in (normalize.mean, normalize.var))
    usable = mean.shape == var.shape == (n_states,) and np.isfinite(mean).all() and (var >= 0).all()
    if not usable or not normalize.epsilon > 0:
        raise CheckpointError(
            f"`from_sb3(normalize=...)` must have {n_states} finite means and variances, as the task has states. "
            f"Got {mean} and {var}."
        )
    return mean, np.sqrt(var + normalize.epsilon), float(normalize.clip)


def _unpickled(file: Path) -> Normalization:
    """What `VecNormalize.save` wrote. Executes the file."""
    import pickle

    if not file.is_file():
        raise CheckpointError(f"`from_sb3(normalize={str(file)!r})`: there is no such file.")
    saved = pickle.loads(file.read_bytes())
    moments: Any = getattr(saved, "obs_rms", None)
    if not getattr(saved, "norm_obs", False) or not hasattr(moments, "mean"):
        raise CheckpointError(
            f"`from_sb3(normalize={str(file)!r})` must be a `VecNormalize` of vectors of observations. "
            f"Got {type(saved).__name__} with norm_obs={getattr(saved, 'norm_obs', None)}."
        )
    return Normalization(moments.mean, moments.var, float(saved.clip_obs), float(saved.epsilon))


# ---- what the description says


def _family(data: Mapping[str, Any]) -> Family | None:
    """By the module of the policy's class."""
    return _FAMILIES.get(str(_entry(data, "policy_class").get("__module__")))


def _unknown(data: Mapping[str, Any]) -> str:
    """What of the network cannot be told from the description; empty if all can."""
    if _family(data) is None:
        module = _entry(data, "policy_class").get("__module__", "unknown")
        return f"Its policy class is of the module {module!r}, which is not known here."
    settings = data.get("policy_kwargs")
    if not isinstance(settings, dict):
        return "It does not say what its network was made with (`policy_kwargs`)."
    if ":serialized:" in settings and len(settings) <= 2:
        return "What its network was made with (`policy_kwargs`) is a pickle only."
    activation = settings.get("activation_fn")
    if activation is not None and activation not in _ACTIVATIONS:
        return f"The activation of its layers is {activation}."
    extractor = settings.get("features_extractor_class", _FLATTEN)
    if extractor != _FLATTEN:
        return f"What comes before its layers is {extractor}."
    return ""


def _impossible(data: Mapping[str, Any]) -> str:
    """What no trust helps against; empty if there is nothing."""
    for name in ("observation_space", "action_space"):
        kind = str(_entry(data, name).get(":type:", _BOX))
        if kind != _BOX:
            return f"its {name.replace('_', ' ')} is no Box, a vector of real numbers, but {kind}."
    activation = str(_entry(data, "policy_kwargs").get("activation_fn", ""))
    if activation.startswith("<class 'torch.nn.") and activation not in _ACTIVATIONS:
        return f"the activation of its layers is {activation}, neither Tanh nor ReLU."
    return ""


def _entry(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _activation(data: Mapping[str, Any], family: Family) -> Activation | None:
    if _unknown(data):
        return None
    return _ACTIVATIONS.get(str(_entry(data, "policy_kwargs").get("activation_fn")), _DEFAULTS[family])


def _squash(data: Mapping[str, Any], family: Family) -> Squash:
    if family != "gaussian" or _entry(data, "policy_kwargs").get("squash_output") is True:
        return "tanh"
    return "clip"


def _check_spaces(file: Path, data: Mapping[str, Any], task: Task) -> None:
    """The task's limits must be those the policy learned within, as far as they are printed."""
    space = _entry(data, "action_space")
    low, high = (_numbers(space.get(name), len(task.inputs)) for name in ("low", "high"))
    for printed, stated in ((low, task.action_low), (high, task.action_high)):
        if printed is not None and not np.allclose(printed, stated, rtol=1e-5, atol=1e-6):
            raise CheckpointError(
                f"`from_sb3({str(file)!r}, task)` learned with actions from {low} to {high}; the task's inputs range "
                f"from {task.action_low} to {task.action_high}. They must agree."
            )


def _numbers(printed: Any, count: int) -> np.ndarray | None:
    """The array of ``count`` numbers that NumPy printed; None if it is not that."""
    parts = re.fullmatch(r"\[([^\[\]]*)\]", str(printed).strip())
    try:
        values = np.array([float(word) for word in parts[1].split()]) if parts else None
    except ValueError:
        return None
    return values if values is not None and len(values) == count else None


# ---- what the tensors are


def _family_of(tensors: Mapping[str, np.ndarray]) -> Family:
    if any(name.startswith("actor.latent_pi.") for name in tensors):
        return "sac"
    return "td3" if "actor.mu.0.weight" in tensors else "gaussian"


def _layers(
    file: Path, tensors: Mapping[str, np.ndarray], family: Family
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """Weights (in, out) and biases (out,) from the observation to the mean; and a log_std that is a vector."""
    chain, last = {
        "gaussian": ("mlp_extractor.policy_net.", "action_net."),
        "sac": ("actor.latent_pi.", "actor.mu."),
        "td3": ("actor.mu.", ""),
    }[family]
    before = ("features_extractor.", "pi_features_extractor.", "actor.features_extractor.", "mlp_extractor.shared_net.")
    strange = [name for name in tensors if name.startswith(before)]
    inner = [name for name in tensors if name.startswith(chain)]
    # create_mlp of Stable-Baselines3: linear layers at 0, 2, 4, ..., activations between them.
    names = [f"{chain}{2 * index}." for index in range(len(inner) // 2)] + ([last] if last else [])
    strange += [name for name in inner if not any(name == f"{one}{part}" for one in names for part in _PARTS)]
    layers = []
    for one in names:
        pair = [tensors.get(f"{one}{part}") for part in _PARTS]
        if pair[0] is None or pair[1] is None or pair[0].ndim != 2 or pair[1].shape != pair[0].shape[:1]:
            strange.append(f"{one}weight")
            break
        layers.append((pair[0].T, pair[1]))
    fits = all(one[0].shape[1] == following[0].shape[0] for one, following in itertools.pairwise(layers))
    if strange or not layers or not fits:
        raise CheckpointError(
            f"`from_sb3({str(file)!r})` must hold an `MlpPolicy` for continuous actions: linear layers from the "
            f"observation to the action, without state-dependent exploration in SAC. Got the tensors {sorted(tensors)}."
        )
    log_std = tensors.get("log_std") if family == "gaussian" else None
    return layers, log_std if log_std is not None and log_std.shape == layers[-1][1].shape else None


_PARTS = ("weight", "bias")


def _rebuilt(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    log_std: np.ndarray | None,
    task: Task,
    squash: Squash,
    activation: Activation,
) -> NeuralPolicy:
    weights, biases = [weight for weight, _ in layers], [bias for _, bias in layers]
    if squash == "clip":
        # There the last layer speaks in units of the action; here -1 and 1 are its limits.
        middle, half = (task.action_low + task.action_high) / 2.0, (task.action_high - task.action_low) / 2.0
        weights[-1], biases[-1] = weights[-1] / half, (biases[-1] - middle) / half
        log_std = None if log_std is None else log_std - np.log(half)
    n_states, n_inputs = len(task.states), len(task.inputs)
    return NeuralPolicy(
        tuple(weights),
        tuple(biases),
        np.zeros(n_states),
        np.ones(n_states),
        np.full(n_inputs, -np.inf) if log_std is None else log_std,
        task.states,
        task.inputs,
        squash,
        activation,
        np.inf,
    )


# ---- with trust


def _confirmed(file: Path, candidates: Sequence[NeuralPolicy], family: Family, data: Mapping[str, Any]) -> NeuralPolicy:
    """The candidate that does what the loaded model does. Executes the file."""
    try:
        import stable_baselines3 as sb3
    except ImportError as error:
        raise ImportError(
            '`from_sb3(trust=True)` needs Stable-Baselines3. Run: pip install "sindyrl[baselines]"'
        ) from error
    on_policy = sb3.PPO if "clip_range" in data else sb3.A2C
    algorithm = {"gaussian": on_policy, "sac": sb3.SAC, "td3": sb3.TD3}[family]
    try:
        model = algorithm.load(file, device="cpu")
    except Exception as error:
        raise CheckpointError(
            f"`from_sb3({str(file)!r}, trust=True)`: Stable-Baselines3 could not load it. {error}"
        ) from error
    rng = np.random.default_rng(0)
    space = model.observation_space
    x = rng.standard_normal((_CHECKED, *space.shape))
    x = np.clip(x, space.low, space.high).astype(space.dtype)
    expected, _ = model.predict(x, deterministic=True)
    for policy in candidates:
        tolerance = 1e-4 * np.array([signal.upper - signal.lower for signal in policy.inputs])
        if (np.abs(policy(x) - expected) <= tolerance).all():
            return policy
    raise CheckpointError(
        f"`from_sb3({str(file)!r}, trust=True)`: the loaded model does something else than layers of "
        f"{' or '.join(policy.activation for policy in candidates)} with these tensors, so it has no such form here. "
        "Its `predict` still serves as a teacher."
    )
