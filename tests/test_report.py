"""The page says what the run folder says, loads nothing from elsewhere, and cannot be taken over by a name."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from sindyrl.expression import Variable
from sindyrl.identify import identify
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.plot import MethodResult, relative_rms
from sindyrl.report import ReportError, typeset, write_report
from sindyrl.structure import Derivative
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Dataset, Trajectory

VOID = {"meta", "br", "img", "link", "hr"}


def hostile(place):
    """A name that would run in a browser, and says where it was given."""
    return f'<script>alert("{place}")</script>'


STATES = (Signal("p", "m"), Signal("q", "</title>" + hostile("unit")))
INPUTS = (Signal("u", "N", -1.0, 1.0),)


def accelerate(x, u):
    """What the made-up system does: a damped spring, pushed."""
    return np.stack([x[..., 1], -2.0 * x[..., 0] - 0.5 * x[..., 1] + u[..., 0]], axis=-1)


def recorded(rng, steps):
    x = [rng.standard_normal(2)]
    u = rng.uniform(-1.0, 1.0, (steps, 1))
    for held in u:
        half = x[-1] + 0.01 * accelerate(x[-1], held)
        x.append(x[-1] + 0.02 * accelerate(half, held))
    return Trajectory.uniform(np.array(x), u, -(u[:, 0] ** 2), dt=0.02, states=("p", "q"), inputs=("u",))


@pytest.fixture(scope="module")
def task():
    return Task(
        name=hostile("task"),
        states=STATES,
        inputs=INPUTS,
        dt=0.02,
        horizon=100,
        reward=SymbolicMap([*STATES, *INPUTS], {"reward": -(Variable("u") ** 2)}),
        reset=lambda rng, n: rng.standard_normal((n, 2)),
        structure=Derivative(),
        library=polynomial_library(degree=2),
        policy_library=polynomial_library(degree=1),
        failure_reward=-1.0,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, task):
    """A finished run of a generic system, without an angle, an emulator or any name to be trusted."""
    tmp_path = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    data = Dataset((recorded(rng, 150),))
    episodes = Dataset(tuple(recorded(rng, 100) for _ in range(3)))
    fit = identify(data, task.library, structure=task.structure, states=STATES, inputs=INPUTS)
    policy = SymbolicMap(list(STATES), {INPUTS[0]: Variable("p") * -0.5}, name="policy")
    data.to_npz(tmp_path / "data.npz")
    episodes.to_npz(tmp_path / "episodes.npz")
    fit.model.save(tmp_path / "model.json")
    policy.save(tmp_path / "policy.json")
    returns = [float(np.sum(episode.r)) for episode in episodes]
    (tmp_path / "stages").mkdir()
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "policy.c").write_text(f"/* {hostile('source')} */ if (u < 1.0f && u > 0.0f) return;\n")
    config = {"seed": 5, "x": hostile("setting")}
    write(tmp_path, "config", {"config": config, "code": "abc", "versions": {"numpy": "2.0"}})
    write(tmp_path, "stages/data", {"data_steps": 150, "episodes": 1, "wall_s": 1.0})
    write(tmp_path, "stages/model", model_stage(fit))
    write(tmp_path, "stages/policy", policy_stage(policy))
    write(tmp_path, "stages/export", {"name": "policy", "matches": False, "verified": "none", "m4_instructions": None})
    write(
        tmp_path,
        "stages/report",
        {
            "report_episodes": 3,
            "report_steps": 300,
            "returns": returns,
            "return_mean": float(np.mean(returns)),
            "return_min": min(returns),
            "acceleration_errors": [0.01, 0.02],
            "judged_by": "measured rates",
        },
    )
    return tmp_path


@pytest.fixture(scope="module")
def page(finished, task):
    """The whole page, figures included."""
    return report(finished, task)


@pytest.fixture
def run(tmp_path, finished, monkeypatch):
    """A run to change; its page is made without figures, which take most of the time."""
    monkeypatch.setattr("sindyrl.report._figures", lambda *_: {})
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("report.html"))
    return folder


def write(folder, name, content):
    (folder / f"{name}.json").write_text(json.dumps(content))


def model_stage(fit):
    return {
        "equations": fit.model.rates.equations(precision=4),
        "model_terms": fit.model.n_terms,
        "residual_rms": fit.residual_rms.tolist(),
        "relative_error": fit.relative_error.tolist(),
        "condition": fit.condition,
        "dropped": [hostile("dropped")],
        "rows": fit.rows,
        "excluded": 7,
        "terms": [
            {"target": "dp", "term": "q", "coef": -1.23456, "standard_error": 0.0021, "inclusion": 0.875},
            {"target": "dq", "term": hostile("term"), "coef": 2.0, "standard_error": 0.5, "inclusion": 1.0},
        ],
    }


def policy_stage(policy):
    text = policy.equations(precision=4)
    rejected = {"policy": f"u = {hostile('rejected')}", "n_terms": 2, "score": 1.5, "returns": [2.0, 1.0], "path": []}
    doubted = rejected | {"policy": "u = 9*p", "score": 7.25}
    chosen = {"policy": text, "n_terms": 1, "score": 8.0, "returns": [9.0, 7.0], "path": [[2, 8.5], [1, 8.0]]}
    return {
        "policy": text,
        "n_terms": 1,
        "selection_steps": 1200,
        "model_steps": 10**6,
        "dense_score": 8.75,
        "chosen": 2,
        "candidates": [rejected, doubted, chosen],
        "validations": [{"candidate": 1, "return": -3.5}, {"candidate": 2, "return": 7.5}],
    }


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open, self.unbalanced = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def report(run, task, **arguments):
    path = write_report(run, **({"title": "A run", "task": task} | arguments))
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def cells(html):
    """The rows of all tables, each a tuple of the texts of its cells."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, flags=re.DOTALL)
    clean = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.DOTALL) for row in rows]
    return [tuple(re.sub(r"<[^>]*>", "", cell).strip() for cell in row) for row in clean]


def test_the_page_loads_nothing_and_runs_nothing(page):
    parsed = Page(page)
    assert parsed.open == parsed.unbalanced == []
    for tag, attributes in parsed.elements:
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "image", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value.startswith("#")
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_every_identifier_is_unique_and_every_reference_resolves(page):
    identifiers = [attributes["id"] for _, attributes in Page(page).elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert references
    assert {first or second for first, second in references} <= set(identifiers)


def shown(html):
    """How often each hostile name is text of the page. Spaces do not count: equations are broken into their words."""
    return Counter(re.findall(r'<script>alert\("(\w+)"\)</script>', "".join(Page(html).text.split())))


def test_names_from_outside_stay_text(run, task, monkeypatch):
    monkeypatch.undo()  # with figures
    method = MethodResult(hostile("method"), f"published, {hostile('origin')}", (10.0,), (1.0,), note=hostile("remark"))
    given = {"title": hostile("title"), "notes": [hostile("note")], "command": hostile("command")}
    html = report(run, task, comparisons=[method], **given)
    assert "<script" not in html.lower()
    words, figures = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL), re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    once = "task setting source dropped term rejected note command method origin remark"
    # The title is the browser's and the page's; the unit is that of a state and of its rate.
    assert shown(words) == Counter(once.split()) + Counter(title=2, unit=2)
    assert set(shown("".join(figures))) == {"unit", "method", "origin"}


def test_the_headline_is_what_the_stages_say(run, task):
    html = report(run, task)
    tiles = re.findall(r'<div class="tile"><b[^>]*>(.*?)</b><span>(.*?)</span>', html)
    mean = json.loads((run / "stages/report.json").read_text())["return_mean"]
    assert tiles == [
        (f"{mean:.4g}", "mean return"),
        ("1,350", "real steps"),
        ("1", "terms in the policy"),
        ("not measured", "instructions per call"),
    ]


def test_what_was_not_measured_says_so(run, task):
    found = dict(row for row in cells(report(run, task)) if len(row) == 2)
    assert found["Instructions per call"] == found["Code and constants"] == found["Largest error"] == "not measured"
    assert found["Within the bound on every vector"] == "no"
    assert found["Verified"] == found["Executed on an emulated Cortex-M4F"] == "no"


def test_what_was_measured_is_stated(run, task):
    measured = {
        "name": "policy",
        "verified": "emulated",
        "matches": True,
        "vectors": 1065,
        "max_error": 2.4e-6,
        "error_bound": 9.1e-5,
        "bitwise": True,
        "m4_instructions": 1059,
        "m4_instructions_min": 57,
        "c_bytes": 0,
        "host_compiler": "cc 12",
    }
    write(run, "stages/export", measured)
    found = dict(row for row in cells(report(run, task)) if len(row) == 2)
    assert found["Instructions per call"] == "57 to 1,059"
    assert found["Code and constants"] == "0 bytes"
    assert found["Largest error"] == "2.4·10−6"
    assert found["Within the bound on every vector"] == found["Every bit as NumPy&#39;s float32"] == "yes"
    assert found["Compiled with all warnings as errors by"] == "cc 12"


def test_coefficients_line_up_with_their_standard_errors(run, task):
    rows = cells(report(run, task))
    assert ("dp/dt", "q", "−1.2346", "0.0021", "88 %") in rows


def test_a_model_stage_without_single_terms_still_has_its_coefficients(run, task):
    stage = json.loads((run / "stages/model.json").read_text())
    del stage["terms"]
    write(run, "stages/model", stage)
    rows = [row for row in cells(report(run, task)) if len(row) == 5 and row[-1] == "not measured"]
    assert {row[1] for row in rows} == {"p", "q", "u"}
    assert all(row[3] == "not measured" for row in rows)


def test_steps_are_charged_for_data_and_selection_alone(run, task):
    rows = {row[0]: row[1] for row in cells(report(run, task)) if len(row) == 4}
    assert (rows["data"], rows["selection"], rows["data + selection"], rows["report"]) == (
        "150", "1,200", "1,350", "300",
    )  # fmt: skip


def test_rejected_policies_are_shown_with_the_reason(run, task):
    rows = [row for row in cells(report(run, task)) if len(row) == 7]
    assert [(row[2], row[5], row[6]) for row in rows[1:]] == [
        ("1.5", "none", "rejected by its score in the model"),
        ("7.25", "-3.5", "rejected after a real episode"),
        ("8", "7.5", "chosen"),
    ]


def test_every_method_says_where_its_numbers_are_from(run, task):
    comparisons = [
        MethodResult("PPO", "measured here, ppo.json", (1e5, 2e5), (10.0, 800.0)),
        MethodResult("SINDy-RL", "published, somewhere", (8000,)),
    ]
    rows = {row[0]: row[1:] for row in cells(report(run, task, comparisons=comparisons)) if len(row) == 4}
    assert rows["this run"][::2] == ("1,350", "measured here, stages/report.json")
    assert rows["PPO"] == ("200,000", "800 at the end", "measured here, ppo.json")
    assert rows["SINDy-RL"] == ("8,000", "not published", "published, somewhere")


def test_the_figures_of_a_generic_system_are_there(page):
    captions = re.findall(r'<figure id="figure-(\w+)">', page)
    assert captions == ["data", "rates", "episode", "phase", "comparison", "pruning"]
    assert page.count("<svg ") == len(captions)


def test_the_model_is_judged_by_the_truth_where_it_is_known(finished):
    model, episodes = Model.load(finished / "model.json"), Dataset.from_npz(finished / "episodes.npz")
    pairs = episodes.pairs()
    measured, at_middle = model.against(pairs.x, pairs.u, pairs.x_next)
    np.testing.assert_allclose(measured, (pairs.x_next - pairs.x) / 0.02)
    assert relative_rms(measured, at_middle).max() < 1e-6  # the midpoint rule made the data
    true, learned = model.against(pairs.x, pairs.u, pairs.x_next, lambda x, u: 2.0 * accelerate(x, u))
    np.testing.assert_array_equal(true, 2.0 * accelerate(pairs.x, pairs.u))
    np.testing.assert_allclose(relative_rms(true, learned), 0.5, rtol=1e-3)


def test_the_source_is_printed_as_it_is(run, task):
    assert "if (u < 1.0f && u > 0.0f) return;" in Page(report(run, task)).text
    (run / "firmware" / "policy.c").unlink()
    assert "not in the run folder any more" in Page(report(run, task)).text


def test_the_same_folder_gives_the_same_bytes(finished, task, page):
    assert report(finished, task) == page
    assert re.search(r"\b20\d\d-\d\d", page) is None  # no date
    assert [path.name for path in finished.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize("name", ["stages/policy.json", "model.json", "episodes.npz", "config.json"])
def test_a_folder_that_lacks_something_is_refused_and_left_alone(run, task, name):
    (run / name).unlink()
    with pytest.raises(ReportError, match=rf"holds no {name}. Run the chain to its end"):
        write_report(run, title="A run", task=task)
    assert not (run / "report.html").exists()


def test_a_stage_of_another_version_is_refused(run, task):
    write(run, "stages/report", {"returns": [1.0]})
    with pytest.raises(ReportError, match="is of another version: it lacks 'return_mean'"):
        write_report(run, title="A run", task=task)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("2*x^2", '<span class="term">2\u2009·\u2009<var>x</var><sup>2</sup></span>'),
        ("1e-05*v", '<span class="term">1·10<sup>−5</sup>\u2009·\u2009<var>v</var></span>'),
        ("a - b", '<span class="term"><var>a</var></span> <span class="term">− <var>b</var></span>'),
        ("sin(x)", '<span class="term">sin(<var>x</var>)</span>'),
        ("x^-1", '<span class="term"><var>x</var><sup>−1</sup></span>'),
        ("3*(x*v)", '<span class="term">3\u2009·\u2009<var>x</var>\u2009·\u2009<var>v</var></span>'),
        (
            "3*(x + v)",
            '<span class="term">3\u2009·\u2009(<var>x</var></span> <span class="term">+ <var>v</var>)</span>',
        ),
        ("a < b & c", '<span class="term"><var>a</var> &lt; <var>b</var> &amp; <var>c</var></span>'),
    ],
)
def test_equations_are_typeset(text, html):
    assert str(typeset(text)) == html
