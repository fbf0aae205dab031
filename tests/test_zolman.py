"""The SINDy-RL reproduction: what it counts, the true pole, what is kept comes back, and a small run of all of it."""

import base64
import dataclasses
import io
import json
import math
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from paper_reproductions.zolman2024_sindy_rl import analysis, distillation, plot, studies
from paper_reproductions.zolman2024_sindy_rl import run as study
from paper_reproductions.zolman2024_sindy_rl.figure_file import figure_file
from paper_reproductions.zolman2024_sindy_rl.methods import METHODS, method, published_task
from paper_reproductions.zolman2024_sindy_rl.reported import reported
from sindyrl.envs import cartpole
from sindyrl.landscape import drawn, fixed_points, landscape
from sindyrl.learn.network import NeuralPolicy
from sindyrl.sparse_map import SparseMap

FOLDER = Path(study.__file__).parent
ROOT = FOLDER.parents[1]
CLAIMS = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))["claim"]


def point(data, selection, value):
    return {"data": data, "selection": selection, "return": value, "promised": None, "terms": 3}


# ---- counting


def test_steps_to_a_level_are_those_of_its_first_evaluation_and_count_it_or_not():
    curve = [point(8500, 5000, 100.0), point(9000, 10000, 720.0), point(9500, 15000, 650.0)]
    assert analysis.steps_to(curve, counted=False) == 9000
    assert analysis.steps_to(curve, counted=True) == 19000
    assert analysis.steps_to(curve[:1], counted=True) == math.inf
    assert analysis.steps_to(curve, 720.0, counted=False) == 9000


def test_quantiles_are_of_the_running_best_where_all_seeds_have_one():
    curves = [
        [point(10, 5, 1.0), point(20, 10, 9.0), point(30, 15, 2.0)],
        [point(12, 5, 4.0), point(25, 10, 3.0)],
    ]
    steps, (low, middle, high) = analysis.quantile_curve(curves, counted=False, quantiles=(0.0, 0.5, 1.0))
    np.testing.assert_array_equal(steps, [12, 20, 25, 30])
    np.testing.assert_array_equal(low, [1, 4, 4, 4])
    np.testing.assert_array_equal(high, [4, 9, 9, 9])
    np.testing.assert_array_equal(middle, (low + high) / 2)
    assert analysis.quantile_curve(curves, counted=True)[0].tolist() == [17, 30, 35, 45]


def learned(name, seed, values, first=8500, every=500, selection=5000):
    curve = [point(first + every * k, selection * (k + 1), value) for k, value in enumerate(values)]
    return {"kind": "learn", "method": name, "key": f"{name} {seed}", "curve": curve}


def test_ratios_compare_medians_over_seeds():
    ours = [learned("published", k, [0.0] * k + [800.0]) for k in range(3)]
    theirs = [[point(100_000, 3000, 10.0), point(200_000, 6000, 750.0)]] * 3
    found = analysis.figures(ours, {"ppo": theirs})
    assert found["published_steps_to_700"] == 9000
    assert found["published_times_fewer_than_ppo"] == pytest.approx(200_000 / 9000, abs=0.05)
    assert found["published_counted_times_fewer_than_ppo"] == pytest.approx(206_000 / 19_000, abs=0.05)
    assert (found["published_reached_700"], found["published_final_return"]) == (1.0, 800.0)
    # If the median seed never gets there, there is no such number, and no ratio.
    failed = [*ours[:1], *(learned("published", k, [100.0]) for k in (5, 6))]
    lacking = analysis.figures(failed, {"ppo": theirs})
    assert lacking["published_reached_700"] == pytest.approx(1 / 3, abs=1e-3)
    assert "published_steps_to_700" not in lacking
    assert "published_times_fewer_than_ppo" not in lacking


def distilled(method_name, seed, teacher, **recipes):
    made = {name: {"terms": terms, "return": value} for name, (terms, value) in recipes.items()}
    head = {"of": f"{method_name} {seed}", "return": teacher}
    return {"kind": "distill", "key": f"d {seed}", "method": method_name, "teacher": head, "recipes": made}


def test_a_sparse_policy_is_compared_with_its_own_network_seed_by_seed():
    lines = [
        distilled("default", 0, 800.0, ours=(6, 760.0)),  # exactly 95 %
        distilled("default", 1, 400.0, ours=(21, 800.0)),  # too many terms
        distilled("default", 2, 500.0, ours=(8, 470.0)),  # 94 %
        distilled("default", 3, 500.0, ours=(20, 550.0)),
        distilled("published", 0, 100.0, ours=(4, 90.0)),
    ]
    found = analysis.figures(lines, {})
    of = lambda what: found[f"default_sparse_{what}"]  # noqa: E731
    assert (of("seeds"), of("teacher_return"), of("ours_terms"), of("ours_most_terms")) == (4, 500, 14, 21)
    assert of("ours_kept") == 0.5
    quartiles = np.quantile([0.95, 2.0, 0.94, 1.1], (0.25, 0.5, 0.75))
    names = [f"ours_share_of_teacher{part}" for part in ("_quartile_1", "", "_quartile_3")]
    np.testing.assert_allclose([of(name) for name in names], quartiles, atol=6e-4)
    assert (found["sparse_seeds"], found["sparse_ours_share_of_teacher"], found["sparse_ours_kept"]) == (1, 0.9, 0.0)


def test_peers_are_read_from_what_is_committed(tmp_path):
    assert analysis.peer_curves(tmp_path) == {}
    curve = [{"steps": 500, "return": 90.0}, {"steps": 900, "return": 810.0}]
    trial = {"figure": "trial", "method": "ppo", "curve": curve, "report_steps": 6000, "final_return": 10.0, "cost": 8}
    failed = {"figure": "trial", "method": "ppo", "error": "no"}
    lines = [trial, failed, {"figure": "summary", "method": "ppo"}, trial | {"method": "dyna-nn"}]
    (tmp_path / "swingup.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = analysis.peer_curves(tmp_path)
    assert {name: len(curves) for name, curves in found.items()} == {"ppo": 1, "dyna-nn": 1}
    assert found["ppo"][0][-1] == {"data": 900, "selection": 6000, "return": 810.0}
    assert len(analysis.peer_curves()["ppo"]) >= 1  # of this checkout
    swimmers = [trial, trial | {"method": "dyna-ppo", "final_return": 15.0, "cost": 2}]
    (tmp_path / "swimmer.jsonl").write_text("".join(json.dumps(line) + "\n" for line in swimmers))
    ratios = analysis.swimmer_figures(tmp_path)
    assert (ratios["swimmer_dyna_ppo_best_over_ppo"], ratios["swimmer_dyna_ppo_times_fewer_than_ppo"]) == (1.5, 4.0)


# ---- models


def test_the_closed_form_of_the_true_pole_is_the_simulators():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-3.0, 3.0, 6)
    x = np.column_stack([rng.uniform(-1, 1, 6), np.cos(angle), np.sin(angle), rng.normal(size=(6, 2))])
    u = rng.uniform(-1.0, 1.0, (6, 1))
    found = np.column_stack(studies.true_accelerations(x, u))
    np.testing.assert_allclose(found, cartpole.accelerations(x, u), rtol=2e-3, atol=2e-3)
    saddle, center = fixed_points(studies.true_step, studies.pole_plane(), cartpole.DT)
    assert (saddle.kind, center.kind) == ("saddle", "center")
    np.testing.assert_allclose([saddle.at[0], abs(center.at[0])], [0.0, np.pi], atol=1e-9)


@pytest.mark.parametrize(
    ("points", "right"),
    [
        ([(0.02, "saddle"), (-3.13, "center")], 2),
        ([(0.02, "center"), (3.13, "unstable")], 1),
        ([(0.5, "saddle"), (3.13, "saddle")], 0),
        ([(0.0, "saddle"), (1.0, "stable")], 1),
        ([], 0),
    ],
)
def test_a_fixed_point_is_right_if_it_is_near_and_of_its_kind(points, right):
    assert analysis.right_poles([{"angle": angle, "kind": kind} for angle, kind in points]) == right


def test_what_is_kept_comes_back():
    rng = np.random.default_rng(1)
    coef = rng.normal(size=(3, 2, 5)) * (rng.random((3, 2, 5)) < 0.4)
    record = json.loads(json.dumps(studies.packed(coef)))
    np.testing.assert_allclose(studies.unpacked(record), coef, rtol=1e-7)
    assert len(record["values"]) == np.count_nonzero(coef)


def test_a_network_comes_back_to_the_last_bit_of_float32():
    made = network(3)
    made = dataclasses.replace(made, weights=tuple(layer.astype(np.float32).astype(float) for layer in made.weights))
    again = studies.network("published", json.loads(json.dumps(studies.packed_network(made))))
    x = np.random.default_rng(4).normal(size=(9, 5))
    np.testing.assert_allclose(again.unclipped(x), made.unclipped(x), rtol=1e-7, atol=1e-7)
    for one, other in zip(again.weights, made.weights, strict=True):
        np.testing.assert_array_equal(one.astype(np.float32), other.astype(np.float32))


def test_the_methods_are_those_of_the_paper_and_ours():
    sizes = {}
    for name in METHODS:
        task = method(name).task
        names = task.structure.features_of(task.state_names)
        sizes[name] = len(task.library.bind(names, task.input_names))
    assert (sizes["published"], sizes["linear"]) == (41, 6)
    linear, ours = method("linear").settings, method("default")
    assert (linear.ppo.updates, linear.collect_steps, linear.first_steps) == (40, (1000,), 8000)
    assert ours.task is cartpole.task
    assert not ours.chosen
    changed = method("published", rounds=3, ppo={"updates": 2}).settings
    assert (changed.rounds, changed.ppo.updates, changed.ppo.length) == (3, 2, 2000)
    limits = {signal.name: (signal.lower, signal.upper) for signal in published_task().states}
    assert limits == {"x": (-5, 5), "cos": (-1.1, 1.1), "sin": (-1.1, 1.1), "v": (-10, 10), "w": (-10, 10)}


def test_what_was_compiled_for_one_seed_serves_the_next():
    for name in METHODS:
        assert method(name).task is method(name, rounds=3).task
    assert method("published", rounds=3).settings.rounds == 3
    assert method("published").settings.rounds == 250


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A quick run without learning: models, their speed, and Swimmer's reward."""
    folder = tmp_path_factory.mktemp("lines")
    found = study.reproduce(quick=True, progress=lambda *_: None, methods=(), folder=folder, plot=True)
    return found, folder


def test_a_quick_run_has_the_figures_that_it_is_judged_by(small):
    found, folder = small
    asked = [claim for claim in CLAIMS if claim.get("quick")]
    assert len(asked) >= 6
    for claim in asked:
        value = found["figures"][claim["figure"]]
        assert claim.get("at_least", -math.inf) <= value <= claim.get("at_most", math.inf), claim["figure"]
    assert found["files"] == {}
    assert "<svg" in (folder / "portraits.svg").read_text()
    assert found["notes"] == []


def test_finished_lines_are_not_run_again_and_the_rebuilt_model_is_the_model(small, monkeypatch):
    found, folder = small
    for name in ("measure_models", "measure_speed", "measure_swimmer_reward"):
        monkeypatch.setattr(studies, name, None)
    again = study.reproduce(quick=True, progress=lambda *_: None, methods=(), folder=folder)
    assert again["records"] == found["records"]
    assert "0 lines computed now, 3 read" in again["origin"]
    models = found["records"][0]["models"]
    for name, record in models.items():
        model = studies.rebuilt(name, record)
        assert model.n_terms == record["terms"]
        assert studies.poles_found(model) == record["fixed_points"]


def test_nothing_is_started_after_the_time(tmp_path):
    found = study.reproduce(quick=True, progress=lambda *_: None, minutes=0, folder=tmp_path)
    assert found["records"] == []
    assert "7 of 7 lines are not finished" in found["notes"][0]


# ---- figures from planted lines


def network(seed=0):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(5, 4)), rng.normal(size=(4, 1)))
    task = published_task()
    parts = (weights, (np.zeros(4), np.zeros(1)), np.zeros(5), np.ones(5), np.zeros(1))
    return NeuralPolicy(*parts, task.states, task.inputs)


@pytest.fixture(scope="module")
def planted(small):
    """A learning run and a distillation as lines, their models those of the quick run."""
    snapshot = small[0]["records"][0]["models"]["published"]
    library = studies.REWARD_LIBRARY.bind(cartpole.task.state_names, cartpole.task.input_names)
    rng = np.random.default_rng(2)
    rewards = {when: studies.packed(rng.normal(size=(3, 1, len(library)))) for when in ("before", "after")}
    rewards |= {"correlation_before": 0.1, "correlation_after": 0.9}
    run = learned("published", 0, [100.0, 900.0]) | {
        "snapshots": [{"data": 8500} | snapshot, {"data": 9000} | snapshot],
        "teacher": {"return": 900.0, "data": 9000, "network": studies.packed_network(network())} | snapshot,
        "rewards": rewards,
    }
    terms = cartpole.task.policy_library.bind(cartpole.task.state_names, ())
    members = SparseMap(terms, rng.normal(size=(3, 1, len(terms))), ("u",))
    recipe = {"terms": 7, "return": 810.0, "ensemble": members.to_json()}
    recipe["policy"] = members.symbolic(outputs=list(cartpole.INPUTS), clip=(-1.0, 1.0)).to_json()
    distill = {"kind": "distill", "key": "d", "method": "published", "teacher": {"of": run["key"], "return": 900.0}}
    return run, distill | {"recipes": {"ours": recipe}}


def test_numbers_of_a_run_and_of_its_distillation(planted):
    found = analysis.figures(planted, {})
    assert found["published_variance_falls"] == 1.0  # the same model twice
    assert found["published_reward_correlation_after"] == 0.9
    assert found["sparse_ours_share_of_teacher"] == 0.9
    assert found["sparse_ours_times_fewer_numbers"] == pytest.approx(4674 / 7, abs=0.05)


def test_every_figure_is_drawn_and_twice_the_same(small, planted, monkeypatch):
    monkeypatch.setattr(plot, "pole_plane", lambda n=61, m=31: studies.pole_plane(13, 9))
    # Coarse, to be quick; the next test looks at pixels.
    monkeypatch.setattr("paper_reproductions.zolman2024_sindy_rl.figure_file.DPI", 60)
    models = next(record for record in small[0]["records"] if record["kind"] == "models")
    cells = {"cell_collect250_batch5_best_return": 1.0, "cell_collect500_batch5_best_return": 2.0}
    files, again = (study.drawings([models, *planted], {}, cells, quick=True) for _ in range(2))
    assert set(files) == {
        "learning-curves.svg", "portraits.svg", "portraits-training.svg", "variances-published.svg", "reward.svg",
        "coefficients.svg", "policies-published.svg", "collect-batch.svg",
    }  # fmt: skip
    for text in files.values():
        assert "<svg" in text
        assert "dc:date" not in text
    assert set(again) == set(files)
    assert [name for name, text in files.items() if again[name] != text] == []


def test_a_figure_s_file_has_its_letters_and_its_levels_as_exact_pixels(monkeypatch):
    from PIL import Image

    plane = studies.pole_plane(13, 9)
    made = landscape(plane, lambda x: x[..., 1] * x[..., 4], "product of two")
    figure = lambda: drawn([[made, made]], titles=["left", "right <&>"])  # noqa: E731
    text = figure_file(figure(), "product")
    assert figure_file(figure(), "product") == text
    for words in ("product of two", "left", "right &lt;&amp;&gt;", "angle (cos, sin) [°]"):
        assert f">{words}</text>" in text
    images = [base64.b64decode(data) for data in re.findall(r'base64,([^"]*)"', text)]
    monkeypatch.setattr("paper_reproductions.zolman2024_sindy_rl.figure_file._few_colors", lambda data: data)
    originals = [base64.b64decode(data) for data in re.findall(r'base64,([^"]*)"', figure_file(figure(), "product"))]
    assert len(images) == len(originals) >= 2
    for image, original in zip(images, originals, strict=True):
        one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")) for data in (image, original))
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one.reshape(-1, 4), axis=0)) < 20
        assert len(image) < len(original)
    ElementTree.fromstring(text)
    used, known = set(re.findall(r'class="(\w+)"', text)), set(re.findall(r"^\.(\w+)\{", text, re.MULTILINE))
    assert used == known != set()


def test_saved_figures_are_small():
    sizes = [file.stat().st_size for file in (FOLDER / "results").glob("*.svg")]
    assert sizes
    assert max(sizes) < 150_000
    assert sum(sizes) < 750_000


def test_saved_lines_are_one_file_for_each_kind(planted):
    bare = {"key": "published 1", "kind": "learn", "curve": [], "teacher": {"network": 3}}
    files = study.texts([*planted, bare])
    assert set(files) == {"learn.jsonl", "distill.jsonl"}
    first, second = map(json.loads, files["learn.jsonl"].splitlines())
    assert first == json.loads(json.dumps(planted[0]))
    assert second == {"key": "published 1", "kind": "learn", "curve": []}  # its network draws no figure
    assert json.loads(files["distill.jsonl"])["teacher"]["of"] == "published 0"


def test_each_seed_is_distilled_after_it_has_learned_and_a_line_without_its_network_learns_again(monkeypatch):
    tasks = study.tasks_of(("published", "linear", "default"), range(4), 40, quick=False, study=False, distill=2)
    keys = [task.key for task in tasks]
    premises = {task.key: task.key.removeprefix("distill ") for task in tasks if task.kind == "distill"}
    assert [sum(key.startswith(f"distill {name}") for key in keys) for name in METHODS] == [2, 0, 4]
    assert all(keys.index(learned) == keys.index(key) - 1 for key, learned in premises.items())

    asked = []
    monkeypatch.setattr(studies, "learn", lambda name, seed, **_: asked.append(seed) or {"teacher": f"of {seed}"})
    monkeypatch.setattr(distillation, "distilled", lambda record, seed, **more: {"from": record["teacher"], **more})
    without, whole = [task for task in tasks if task.key.startswith("distill default")][1:3]
    done = {premises[without.key]: {"curve": []}, premises[whole.key]: {"teacher": "kept"}}
    told = lambda *_: None  # noqa: E731
    assert without.run(done, told) == {"from": "of 1", "quick": False, "keep": False}
    assert whole.run(done, told)["from"] == "kept"
    assert asked == [1]
    assert without.run({}, told) is None


def test_linear_ends_with_as_many_real_steps():
    steps = {}
    for name in ("published", "linear"):
        settings = method(name, **study._rounds(name, 40)).settings
        steps[name] = settings.first_steps + settings.rounds * settings.collect_steps[0]
    assert steps == {"published": 28_000, "linear": 28_000}
    assert study._rounds("linear", None) == {}


def test_our_loop_is_the_same_whatever_the_published_settings_rounds():
    keys = lambda rounds: [t.key for t in study.tasks_of(("default",), [5, 6], rounds, quick=False, study=False)]  # noqa: E731
    assert keys(40) == keys(None) == keys(8) != keys(7)


def test_claims_are_the_saved_figures():
    saved = FOLDER / "results" / "reproduced.json"
    known = json.loads(saved.read_text(encoding="utf-8"))["figures"] if saved.exists() else {}
    stated = {claim["figure"]: claim["ours"] for claim in CLAIMS if "ours" in claim}
    assert stated == {figure: known.get(figure) for figure in stated}


def test_what_a_run_found_is_written_into_the_claims(tmp_path):
    file = tmp_path / "expected.toml"
    file.write_text(
        'paper = "p"\ncommand = "c"\nminutes = 1\n'
        '[[claim]]\nclaim = "a"\nfigure = "met"\nours = 7\nat_least = 2\n'
        '[[claim]]\nclaim = "b"\nfigure = "missed"\n# The saved run misses this: 9.\ntheirs = 5\nat_least = 4\n'
        '[[claim]]\nclaim = "c"\nfigure = "shown"\n'
        '[[claim]]\nclaim = "d"\nfigure = "not_run"\nours = 3\nat_least = 4\n'
    )
    text = reported(file, {"met": 2.0, "missed": 1, "shown": 0.5})
    assert tomllib.loads(text)["claim"] == [
        {"claim": "a", "figure": "met", "ours": 2.0, "at_least": 2},
        {"claim": "b", "figure": "missed", "theirs": 5, "at_least": 4},
        {"claim": "c", "figure": "shown", "ours": 0.5},
        {"claim": "d", "figure": "not_run", "at_least": 4},
    ]
    assert text.count("# The saved run misses this: 1.\n") == text.count("# The saved") == 1
    file.write_text(text)
    assert reported(file, {"met": 2.0, "missed": 1, "shown": 0.5}) == text
    saved = json.loads((FOLDER / "results" / "reproduced.json").read_text())["figures"]
    assert tomllib.loads(reported(FOLDER / "expected.toml", saved))["claim"] == CLAIMS


def checklist():
    """Rows of the README's last table: (identifier, where, tick)."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8").split("## Feature checklist")[1]
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| [A-Z]\d+ \|", line)]
    return [(row[0].strip(), row[2], row[3].strip()) for row in rows]


def test_the_checklist_has_every_feature_once():
    counts = {"D": 13, "L": 19, "M": 10, "R": 4, "E": 7, "A": 20, "S": 11, "B": 5, "V": 7, "F": 10}
    assert [name for name, *_ in checklist()] == [f"{letter}{n + 1}" for letter, k in counts.items() for n in range(k)]
    assert {tick for *_, tick in checklist()} <= {"✓", "part", "later", "in work", "not wanted"}


def test_what_is_ticked_is_where_the_checklist_says():
    folders = ("sindyrl", "benchmarks", "controllers", "paper_reproductions/zolman2024_sindy_rl")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(file.read_text(encoding="utf-8") for file in files)))
    missing = []
    for name, where, tick in checklist():
        for token in re.findall(r"`([^`]+)`", where) if tick in ("✓", "part") else ():
            path = token.split()[0]
            if path.endswith((".py", "/")):
                found = any((ROOT / folder / path).exists() for folder in ("", "sindyrl"))
            else:
                found = all(word in words for word in re.findall(r"[A-Za-z]\w+", token) if word not in ("sindyrl",))
            missing += [] if found else [f"{name}: {token}"]
    assert not missing


def test_cells_cover_the_study_and_spend_the_same_real_steps(monkeypatch):
    tasks = study.tasks_of(("published",), range(5), None, quick=False, study=True)
    cells = [task.key.split() for task in tasks if task.kind == "cell"]
    assert len(cells) == 3 * 4 * 3
    assert len({task.key for task in tasks}) == len(tasks)
    assert {int(collect) for _, collect, *_ in cells} == {250, 500, 1000}
    spent = set()
    monkeypatch.setattr(
        studies, "learn", lambda *_, changes, **__: spent.add(changes["rounds"] * changes["collect_steps"][0]) or {}
    )
    for task in tasks:
        if task.kind == "cell":
            task.run({}, None)
    assert spent == {4000}
    found = analysis.figures(
        [{"kind": "cell", "collect": 250, "batch": 5, "curve": [point(1, 0, v)]} for v in (1.0, 5.0, 9.0)], {}
    )
    assert found == {"cell_collect250_batch5_best_return": 5.0}


def test_other_settings_are_other_lines():
    keys = lambda **changes: {task.key for task in study.tasks_of(("published",), [0], **changes)}  # noqa: E731
    whole = keys(rounds=None, quick=False, study=False)
    assert "published 0 with models" in whole
    assert not {key for key in keys(rounds=3, quick=False, study=False) if key.startswith("published")} & whole
    assert not {key for key in keys(rounds=None, quick=True, study=False) if key.startswith("published")} & whole


@pytest.mark.parametrize(("name", "value"), [("seeds", 0), ("first_seed", -1), ("rounds", 0)])
def test_wrong_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"reproduce\({name}=...\)` must be at least"):
        study.reproduce(quick=True, progress=lambda *_: None, folder=None, **{name: value})


@pytest.mark.slow
def test_a_whole_quick_run_learns_distils_and_draws(tmp_path):
    found = study.reproduce(quick=True, progress=lambda *_: None, folder=tmp_path, plot=True)
    assert found["notes"] == []
    for name in METHODS:
        assert found["figures"][f"{name}_seeds"] == 1
        assert found["figures"][f"{name}_best_return"] > 0
    assert 1 <= found["figures"]["sparse_ours_terms"] <= 6
    run = next(record for record in found["records"] if record["kind"] == "learn" and record["method"] == "published")
    assert [p["data"] for p in run["curve"]] == [1200, 1400]
    assert [p["selection"] for p in run["curve"]] == [1000, 2000]
    assert distillation.distilled(run, 0, quick=True)["teacher"]["of"] == run["key"]
    assert {file.name for file in tmp_path.glob("*.svg")} >= {
        "policies-published.svg",
        "variances-published.svg",
        "reward.svg",
    }
