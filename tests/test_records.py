"""Records are compared by episode, their laws counted by node and their real steps by head."""

import dataclasses
import importlib
import json
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest

from benchmarks import records
from benchmarks.control.stable_baselines import Baseline
from benchmarks.interpretable import agents, learning
from benchmarks.interpretable.laws import count_nodes, environment_module, play, published_law
from benchmarks.interpretable.learning import learned_law
from benchmarks.interpretable.recipes import RECIPES, Trials
from benchmarks.records import Settings, compare, paired_interval, run
from sindyrl.collect import collect
from sindyrl.expression import Variable, clip, cos, log
from sindyrl.identify import identify
from sindyrl.sparse_map import SparseMap
from sindyrl.trajectory import Dataset


def test_nodes_are_counted_as_written_out():
    a, b = Variable("a"), Variable("b")
    assert count_nodes(10.0 * a + b) == 5
    assert count_nodes(log(cos(1.0)) / log(a)) == 6
    assert count_nodes(a**3) == 3
    shared = a * b
    assert count_nodes(shared + shared) == 7, "a shared part counts each time"
    assert count_nodes(clip(a, -1.0, 1.0)) == 5
    assert count_nodes(a, b) == 2


TOKENS = {
    "cartpole": ["add,mul,10.0,x3,x4"],
    "mountain_car": ["div,log,cos,1.0,log,x2"],
    "pendulum": ["add,mul,-2.0,x2,div,add,mul,-8.0,x2,mul,-2.0,x3,x1"],
    "lunar_lander": [
        "add,add,mul,0.7624715039886016,sub,sin,x3,add,add,add,add,div,add,sin,add,0.09101695879983959,"
        "0.0922444066126055,add,x2,x4,0.11289444161591844,x4,x4,x4,x4,-0.0008359813574848967,-0.12271695008045375",
        "add,add,mul,0.24326721693967257,div,div,x4,log,sin,1.019536868443063,sub,x6,x3,-0.07620830192712105,"
        "0.07787010100098943",
    ],
}
OPERATIONS = {
    "add": (2, np.add), "sub": (2, np.subtract), "mul": (2, np.multiply), "div": (2, np.divide), "log": (1, np.log),
    "sin": (1, np.sin), "cos": (1, np.cos),
}  # fmt: skip


def value_of(tokens: str, x: np.ndarray) -> float:
    """Of a token string in prefix notation, by a stack machine."""
    stack: list[float] = []
    with np.errstate(all="ignore"):
        for token in reversed(tokens.split(",")):
            if token in OPERATIONS:
                count, function = OPERATIONS[token]
                stack.append(function(*(stack.pop() for _ in range(count))))
            else:
                stack.append(x[int(token[1:]) - 1] if token.startswith("x") else np.float64(token))
    return stack[0]


@pytest.mark.parametrize("name", RECIPES)
def test_published_laws_say_what_their_tokens_say(name):
    """Their token strings by the stack machine, NaN as no input, and limited."""
    recipe = RECIPES[name]
    task = importlib.import_module(environment_module(recipe.env)).task
    (published,) = recipe.published
    law = published_law(task, published)
    assert published.tokens == sum(len(tokens.split(",")) for tokens in TOKENS[name])
    assert law.nodes == published.tokens + 4 * len(task.inputs)
    rows = np.random.default_rng(0).uniform(-0.9, 0.9, (50, len(task.states)))
    if name == "lunar_lander":
        rows[0], rows[1], rows[2] = 0.0, 0.5, -0.5  # its second law is 0 / 0 and +-1 / 0
    for x in rows:
        expected = [value_of(tokens, x) for tokens in TOKENS[name]]
        limited = np.clip(np.nan_to_num(expected, nan=0.0), task.action_low, task.action_high)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(law.policy(x), limited, atol=1e-12)


def test_the_published_mountain_car_law_is_no_input_at_rest_and_backwards():
    law = published_law(gymnasium.make("sindyrl/MountainCar-v0").unwrapped.task, RECIPES["mountain_car"].published[0])
    np.testing.assert_array_equal(law.policy(np.array([[0.0, 0.0], [0.0, -0.03]])), 0.0)


def test_a_quoted_goal_is_told_beside_what_the_same_algorithm_earns_here():
    stored = json.loads(records.RESULTS.read_text(encoding="utf-8"))["tasks"]
    (said,) = records.measured_goal(stored["pendulum"])
    assert said.startswith("The goal is TD3 as quoted, easier than the one measured: Stable-Baselines3 TD3, seed 0")
    assert "earns -146.4 over the laws' episodes" in said
    worse = {"rows": [{"law": "Stable-Baselines3 TD3, seed 0", "mean": -160.0}]}
    assert "harder than" in records.measured_goal(stored["pendulum"] | worse)[0]
    for task in ("cartpole", "mountain_car", "lunar_lander"):
        assert records.measured_goal(stored[task]) == [], "their goals are nobody's quoted score"


def test_all_laws_play_the_same_episodes():
    recipe = RECIPES["pendulum"]
    task = gymnasium.make(recipe.env).unwrapped.task
    law = published_law(task, recipe.published[0])
    returns = play(recipe, law, range(20_000, 20_003))
    np.testing.assert_array_equal(play(recipe, law, range(20_000, 20_003)), returns)
    # The other route: Gymnasium's own environment, seed by seed, rounded observations and all.
    theirs = gymnasium.make("Pendulum-v1")
    for seed, ours in zip(range(20_000, 20_003), returns, strict=True):
        x, _ = theirs.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            x, reward, _, over, _ = theirs.step(law.policy(x.astype(np.float64)))
            total += reward
        assert ours == pytest.approx(total, abs=0.05)


def test_the_interval_of_a_mean_difference_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = paired_interval(rng.normal(0.3, 1.0, 80), rng, resamples=300)
        covered += low <= 0.3 <= high
    assert 178 <= covered <= 199  # 95 % of 200, give or take four standard deviations
    constant = paired_interval(np.full(10, 0.25), rng, resamples=50)
    assert constant == (0.25, 0.25)


def test_terms_are_exchanged_before_coefficients_are_refined_and_all_steps_are_counted(monkeypatch):
    """What is sought passes from hand to hand; each hand adds its name to the law and ten times the steps."""
    made = []

    class Planted:
        def __init__(self, task, model, library, **given):
            made.append((task.horizon, library, given["states"], given["spread"], given["worst"]))
            self.model_steps = 10 ** len(made)

        def exchanged(self, law, allowed, generations):
            return types.SimpleNamespace(library="used", text=f"{law.text}, exchanged {allowed} {generations}")

        def refined(self, law, generations):
            return types.SimpleNamespace(library="used", text=f"{law.text}, refined {generations}"), 0.0

    found = types.SimpleNamespace(library="found", text="found")
    chosen = types.SimpleNamespace(chosen=types.SimpleNamespace(sparse=found), model_steps=1)
    monkeypatch.setattr(learning, "search", lambda *_, **__: chosen)
    monkeypatch.setattr(learning, "policy_terms", lambda *_: ("all", "terms"))
    monkeypatch.setattr(learning, "Refinement", Planted)

    def sought(name, **changes):
        made.clear()
        recipe = dataclasses.replace(RECIPES[name], **changes)
        law, steps = learning.sought(recipe, gymnasium.make(recipe.env).unwrapped.task, None, None)
        return law.text, steps

    assert sought("cartpole") == ("found", 1)
    assert sought("mountain_car") == ("found, refined 60", 11)
    assert made == [(900, "found", 512, 0.005, 0.5)]
    assert sought("pendulum") == ("found, exchanged terms 20, refined 200", 111)
    assert made == [(200, "all", 128, 0.0, 0.0), (200, "used", 512, 0.0, 0.0)]
    assert sought("pendulum", refine=0) == ("found, exchanged terms 20", 11)


def test_the_mountain_cars_search_earns_ten_for_the_goal_and_pays_the_same_effort():
    task = gymnasium.make("sindyrl/MountainCar-v0").unwrapped.task
    shaped = RECIPES["mountain_car"].shaped(task)
    rows = np.array([[0.5, 0.01, 0.5], [0.0, 0.01, 0.5]])
    np.testing.assert_allclose(task.reward(rows)[:, 0], [99.975, -0.025])
    np.testing.assert_allclose(shaped.reward(rows)[:, 0], [9.975, -0.025], atol=1e-12)


# ---- real trials


def test_trials_take_the_first_law_they_accept_and_else_the_best(monkeypatch):
    """Laws sought in turn earn what is planted, each in equations that know the episodes of those before."""
    recipe = dataclasses.replace(
        RECIPES["pendulum"], refine=0, trials=Trials(4, accept=-200.0, worst=-300.0, attempts=3)
    )
    library = gymnasium.make(recipe.env).unwrapped.task.policy_library.bind(("cos", "sin", "w"), ())

    def law(weight):
        coef = np.zeros((1, len(library.names)))
        coef[0, library.index("w")] = weight
        return SparseMap(library, coef, ("u",), ("",))

    def chosen(means, worsts):
        laws = iter([law(float(weight)) for weight in range(1, 4)])
        known = []

        def planted(env, policy, *, steps=None, episodes=None, rng):
            if episodes is None:
                return collect(env, policy, steps=steps, rng=rng)
            worst, mean = next(earned)
            returns = [worst, *[(episodes * mean - worst) / (episodes - 1)] * (episodes - 1)]
            played = collect(env, policy, steps=3 * episodes, reset_every=3, rng=rng)
            rewards = [np.array([0.0, 0.0, value]) for value in returns]
            return Dataset(tuple(dataclasses.replace(e, r=r) for e, r in zip(played, rewards, strict=True)))

        def identified(data, **named):
            known.append(data.steps - recipe.data_steps)
            return identify(data, **named)

        earned = iter(zip(worsts, means, strict=True))
        monkeypatch.setattr(learning, "sought", lambda *_: (next(laws), 10))
        monkeypatch.setattr(learning, "collect", planted)
        monkeypatch.setattr(learning, "identify", identified)
        found = learned_law(recipe, 10_000)
        assert known == [0, 12, 24][: len(known)]
        assert found.steps == {"data": recipe.data_steps, "selection": 12 * len(known), "report": 0}
        return round(float(found.policy(np.array([0.0, 0.0, 0.1]))[0] * 10)), found.model_steps

    assert chosen([-150.0, -100.0, -50.0], [-299.0] * 3) == (1, 10)
    assert chosen([-150.0, -100.0, -50.0], [-301.0, -300.0, 0.0]) == (2, 20)
    assert chosen([-250.0, -210.0, -230.0], [-290.0] * 3) == (2, 30)


# ---- agents


TINY = Baseline("PPO", 32, 32, "a test", {"n_steps": 16, "batch_size": 16, "learning_rate": "lin_0.01"}, n_envs=2)


@pytest.fixture
def one_agent(tmp_path, monkeypatch):
    """A kept agent of the pendulum that is 5 better in episode k than DSP, and k / 10 more."""
    recipe = RECIPES["pendulum"]
    law = published_law(gymnasium.make(recipe.env).unwrapped.task, recipe.published[0])
    theirs = play(recipe, law, range(20_000, 20_004))
    monkeypatch.setitem(agents.AGENTS, "pendulum", TINY)
    book = agents.lines(recipe.env, tmp_path / "kept", tmp_path / "saved")
    settings = json.loads(json.dumps(dataclasses.asdict(TINY)))
    del settings["source"], settings["report_every"]
    returns = (theirs + 5.0 + 0.1 * np.arange(4)).tolist()
    book.keep(
        {"task": "pendulum", "settings": settings, "seed": 0, "first_episode": 20_000, "returns": returns}
        | {"data_steps": 32, "parameters": 7}
    )
    return tmp_path, theirs


def found(folder, episodes, seed=0):
    return agents.find(
        "pendulum", "sindyrl/Pendulum-v0", seed, episodes,
        train_missing=False, kept=folder / "kept", saved=folder / "saved",
    )  # fmt: skip


def test_a_kept_agent_is_paired_by_episode_and_counts_for_its_settings_and_its_environment(one_agent, monkeypatch):
    folder, theirs = one_agent
    np.testing.assert_allclose(found(folder, range(20_000, 20_004)).returns - theirs, [5.0, 5.1, 5.2, 5.3])
    np.testing.assert_allclose(found(folder, range(20_001, 20_003)).returns - theirs[1:3], [5.1, 5.2])
    assert found(folder, range(20_001, 20_005)) is None, "an episode that it has not played"
    assert found(folder, range(20_000, 20_004), seed=1) is None
    agents.save({"pendulum": "sindyrl/Pendulum-v0"}, kept=folder / "kept", saved=folder / "saved")
    for file in (folder / "kept").iterdir():
        file.unlink()
    assert found(folder, range(20_000, 20_004)).steps == 32, "saved with the results"
    monkeypatch.setattr(agents, "code_digest", lambda *_: "another environment")
    assert found(folder, range(20_000, 20_004)) is None
    monkeypatch.undo()
    assert found(folder, range(20_000, 20_004)) is None, "the agents of the tasks have other settings"


def test_saving_one_task_keeps_the_others_and_says_how_each_was_made(tmp_path):
    file = tmp_path / "records.json"
    assert records.stored(file) == {}
    options = [Settings(seeds=2), Settings(seeds=4, first_seed=7)]
    commands = [records.made_by("pendulum", each) for each in options]
    first = records.document({"pendulum": {"command": commands[0]}, "lunar_lander": {"rows": [1]}}, {})
    file.write_text(json.dumps(first))
    again = records.document({"pendulum": {"command": commands[1]}}, records.stored(file))
    assert again["tasks"]["lunar_lander"] == first["tasks"]["lunar_lander"]
    assert again["tasks"]["pendulum"]["command"] == commands[1] != commands[0]
    assert "--tasks pendulum --seeds 4 --first-seed 7 " in commands[1]


def test_an_agents_row_stands_between_the_laws_and_ours_is_compared_with_it(one_agent, monkeypatch):
    folder, _ = one_agent
    recipe = RECIPES["pendulum"]
    law = published_law(gymnasium.make(recipe.env).unwrapped.task, recipe.published[0])
    steps = {"data": 600, "selection": 0, "report": 0}
    monkeypatch.setattr(records, "learned_law", lambda recipe, seed: dataclasses.replace(law, seed=seed, steps=steps))
    kept = found(folder, range(20_000, 20_004))
    monkeypatch.setattr(agents, "find", lambda *_, **__: kept)
    monkeypatch.setattr(records, "KEPT", folder)
    options = Settings(seeds=1, episodes=4, first_episode=20_000)
    published, agent, ours = compare("pendulum", recipe, options)
    monkeypatch.setattr(records, "learned_law", None)
    assert list(compare("pendulum", recipe, options)) == [published, agent, ours], "finished, and not learned again"
    assert (agent["law"], agent["data_steps"], agent["parameters"]) == ("Stable-Baselines3 PPO, seed 0", 32, 7)
    assert agent["mean"] == pytest.approx(published["mean"] + 5.15)
    assert ours["against"]["DSP"] == {"mean": 0.0, "interval_95": [0.0, 0.0]}
    difference = ours["against"][agent["law"]]
    assert difference["mean"] == pytest.approx(-5.15)
    assert -5.3 <= difference["interval_95"][0] < -5.15 < difference["interval_95"][1] <= -5.0


def test_falling_rates_are_functions_of_the_share_that_is_left():
    unfolded = agents.unfolded(TINY).arguments
    assert [unfolded["learning_rate"](left) for left in (1.0, 0.5, 0.0)] == [0.01, 0.005, 0.0]
    assert unfolded["n_steps"] == 16


def test_what_stable_baselines_adds_to_its_arguments_is_not_added_to_the_settings():
    """It writes into the dictionaries it is given; a kept agent would then count for other settings."""
    baseline = dataclasses.replace(TINY, arguments={"policy_kwargs": {"net_arch": [4]}})
    agents.unfolded(baseline).arguments["policy_kwargs"]["use_sde"] = True
    assert baseline.arguments == {"policy_kwargs": {"net_arch": [4]}}


@pytest.mark.skipif(not agents.trainable(), reason="torch is in an environment of its own")
def test_an_agent_is_trained_on_counted_steps_and_plays_the_shared_episodes():
    record = agents.train("pendulum", "sindyrl/Pendulum-v0", TINY, 0, range(20_000, 20_002))
    assert (record["data_steps"], record["selection_steps"]) == (32, 0)
    assert len(record["returns"]) == 2
    again = agents.train("pendulum", "sindyrl/Pendulum-v0", TINY, 0, range(20_000, 20_002))
    assert again["returns"] == record["returns"]


# ---- the whole


@pytest.mark.slow
def test_a_learned_law_counts_its_real_steps_and_balances():
    recipe = dataclasses.replace(records.quick(RECIPES["cartpole"]), search=RECIPES["cartpole"].search)
    law = learned_law(recipe, 10_000)
    assert law.steps == {"data": recipe.data_steps, "selection": 0, "report": 0}
    assert law.terms <= recipe.max_terms
    assert law.nodes == count_nodes(*law.policy.nodes)
    assert play(recipe, law, range(20_000, 20_005)).min() == 1000.0
    assert learned_law(recipe, 10_000).policy == law.policy, "one seed, one law"


@pytest.mark.slow
def test_the_command_prints_one_json_line_for_each_law():
    command = [
        sys.executable,
        "-m",
        "benchmarks.records",
        "--tasks",
        "cartpole",
        "--quick",
        "--json",
        "--agent-seeds",
        "0",
    ]
    done = subprocess.run([*command, "--first-seed", "10000"], capture_output=True, text=True, check=True)
    published, learned = map(json.loads, done.stdout.splitlines())
    assert (published["law"], learned["law"]) == ("DSP", "sindyrl, seed 10000")
    assert published["episodes"] == learned["episodes"] == 5
    assert learned["data_steps"] == RECIPES["cartpole"].data_steps
    difference = learned["against"]["DSP"]
    assert difference["mean"] == pytest.approx(learned["mean"] - published["mean"], abs=1e-9)
    assert difference["interval_95"][0] <= difference["mean"] <= difference["interval_95"][1]


def test_wrong_use_is_a_named_error():
    with pytest.raises(ValueError, match=r"`--tasks` must name some of .*cartpole.* Got walker"):
        run(Settings(tasks=("walker",)))
    with pytest.raises(ValueError, match="`--seeds` must be at least 1"):
        run(Settings(seeds=0))
    with pytest.raises(ValueError, match="`--agent-seeds` must not be negative"):
        run(Settings(agent_seeds=-1))
    with pytest.raises(ValueError, match="at least 1000 episodes"):
        run(Settings(save=True, episodes=999))
    with pytest.raises(ValueError, match="needs the full search"):
        run(Settings(save=True, quick=True))
