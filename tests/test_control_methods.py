"""The methods of control: each keeps the contract, acts as it learned, and is as large as its closed form."""

import ast
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import swimmer, swingup
from benchmarks.control import methods, study
from benchmarks.control.methods import policy_search
from benchmarks.control.perceptron import Perceptron
from benchmarks.control.policy_size import c_bytes, n_parameters
from benchmarks.control.trial import run_trial
from benchmarks.control.worker import load
from sindyrl import bench_command
from sindyrl.chain import Chain, ChainSettings
from sindyrl.envs import cartpole
from sindyrl.expression import Variable
from sindyrl.learn.policy_search import SearchSettings
from sindyrl.run_folder import RunFolder
from sindyrl.symbolic_map import SymbolicMap
from tests.control_cases import PROBLEM, Gain
from tests.systems import CART, CART_TASK, FORCE, CartEnv

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_the_contract(name):
    kind = load(methods.reference(name))
    full, quick = (kind.of(swingup.PROBLEM, quick=quick) for quick in (False, True))
    assert json.loads(json.dumps(dataclasses.asdict(full))) != json.loads(json.dumps(dataclasses.asdict(quick)))
    assert methods.available()[name]
    entry = study._entry("benchmarks.swingup:PROBLEM", swingup.PROBLEM, name, methods.reference(name), False, ROOT)
    assert json.dumps(entry.settings, allow_nan=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        full.anything = 1
    assert bool(getattr(kind, "PACKAGES", ())) == hasattr(kind, "EXTRA")


def test_the_methods_of_the_issue_are_there_and_asking_for_them_loads_no_torch():
    assert {"policy-search", "dyna-ppo", "dyna-published", "ppo", "sac", "td3"} <= set(methods.available())
    assert {"swingup", "swimmer"} <= set(bench_command.benchmarks(ROOT))
    for module in (swingup, swimmer):
        assert module.Settings().methods == "policy-search,dyna-ppo,ppo"
    for file in (ROOT / "benchmarks" / "control").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        loaded = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
        loaded |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not [name for name in loaded if name and name.split(".")[0] in ("torch", "stable_baselines3")]


def test_policy_search_is_the_demonstrations_chain(tmp_path):
    search = SearchSettings(
        population=8, generations=5, restarts=1, scenarios=2, offspring=8, polish=3, repair=2, tries=1, attempts=1
    )
    sizes = {"data_steps": 30, "max_terms": 3, "model_terms": 3, "warmup": 15, "refit_every": 5, "horizon": 10}
    settings = ChainSettings(seed=7, **sizes)
    folder = RunFolder(tmp_path / "run", dataclasses.asdict(settings))
    chain = Chain(CART_TASK, CartEnv, folder, settings, search_settings=search)
    told = {stage: folder.stage(stage, chain._stage_of[stage]) for stage in ("data", "model", "policy")}

    learned = []
    method = policy_search.Method(**sizes, search=search)

    class Kept(policy_search.Method):
        def learn(self, system, seed, report):
            learned.append(method.learn(system, seed, report))
            return learned[-1]

    figures = run_trial(dataclasses.replace(PROBLEM, curve_episodes=1, report_episodes=1), Kept(), seed=7)
    assert learned[0] == SymbolicMap.load(tmp_path / "run" / "policy.json")
    assert (figures["data_steps"], figures["selection_steps"]) == (30, told["policy"]["selection_steps"])
    assert figures["curve"][0]["steps"] == 30


def random_network(rng, sizes, activation, squash, **options):
    shapes = list(itertools.pairwise(sizes))
    return Perceptron(
        tuple(rng.normal(size=(b, a)) for a, b in shapes),
        tuple(rng.normal(size=b) for _, b in shapes),
        cartpole.STATES,
        cartpole.INPUTS,
        activation,
        squash,
        **options,
    )


@pytest.mark.parametrize(
    ("activation", "squash", "options"),
    [("tanh", "clip", {"mean": np.arange(5.0), "std": np.full(5, 0.3), "clip": 2.0}), ("relu", "tanh", {"limit": 0.4})],
)
def test_a_network_taken_out_is_its_closed_form(activation, squash, options):
    rng = np.random.default_rng(0)
    network = random_network(rng, (5, 8, 6, 1), activation, squash, **options)
    x = 3.0 * rng.normal(size=(200, 5))
    np.testing.assert_allclose(network(x), network.symbolic()(x), rtol=1e-12, atol=1e-14)
    assert np.abs(network(x)).max() <= 1.0
    if "limit" in options:
        assert np.abs(network(x)).max() == pytest.approx(np.tanh(0.4))
    assert n_parameters(network) == 5 * 8 + 8 + 8 * 6 + 6 + 6 + 1


def test_the_size_of_a_policy_is_that_of_its_closed_form():
    x, v = Variable("x"), Variable("v")
    short = SymbolicMap(CART, {FORCE[0]: -2.0 * x - 0.5 * v}, name="short")
    longer = SymbolicMap(CART, {FORCE[0]: -2.0 * x - 0.5 * v + 0.25 * x * v * v - 3.0 * x**3}, name="longer")
    assert (n_parameters(short), n_parameters(Gain(1.0)), n_parameters(lambda x: x)) == (2, 2, None)
    assert c_bytes(lambda x: x) is None
    pytest.importorskip("ziglang")
    pytest.importorskip("elftools")
    assert 0 < c_bytes(short) < c_bytes(longer) < 200


@pytest.mark.parametrize("name", ["ppo", "sac", "td3"])
def test_a_baseline_takes_as_many_steps_as_it_counts_and_acts_as_it_learned(name):
    pytest.importorskip("stable_baselines3")
    method = load(methods.reference(name)).of(dataclasses.replace(PROBLEM, name="swingup"), quick=True)
    figures = run_trial(PROBLEM, method, seed=10_000)  # that the network acts as the agent is checked at every report
    assert figures["cost"] == figures["data_steps"] >= method.baseline.steps
    assert [point["steps"] for point in figures["curve"]][:2] == [0, method.baseline.report_every]
