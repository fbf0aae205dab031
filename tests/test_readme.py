"""The README is run: its Python as printed, its commands as far as their options, its output in its shape."""

import functools
import inspect
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import tyro

import sindyrl
from sindyrl.bench_command import benchmarks
from sindyrl.cli import Command
from sindyrl.learn import policy_search
from sindyrl.loading import check_fit, load_task
from sindyrl.reproduce_command import reproductions

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![A-Za-z_^\d])[+-]?\d+(?:,\d{3})*\.?\d*(?:e[+-]?\d+)?(?![A-Za-z_])")

# The tour with a fraction of the effort: the same code, a worse policy.
LESS = {"steps=250": "steps=50", "episodes=3": "episodes=1"}
LESS_SEARCH = {
    "population": 8,
    "generations": 3,
    "restarts": 1,
    "offspring": 8,
    "polish": 2,
    "repair": 1,
    "tries": 1,
    "attempts": 1,
}


class Plant(gymnasium.Env):
    """A mass on a cubic spring, in the README the reader's own environment."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = np.array([self.np_random.uniform(-1.0, 1.0), 0.0]), 0
        return self.state.copy(), {}

    def step(self, action):
        u = float(action[0])
        for _ in range(20):
            x, v = self.state
            self.state = self.state + 0.001 * np.array([v, 1.5 * u - 0.4 * v - 3.0 * x**3])
        self.steps += 1
        x, v = self.state
        return self.state.copy(), -(x**2 + 0.1 * v**2 + 0.01 * u**2), False, self.steps >= 200, {}


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def python_block(holding: str) -> str:
    (found,) = [text for text in blocks("python") if holding in text]
    return found


def output_of(code: str) -> str:
    """The text block that the README prints right below a Python block."""
    index = BLOCKS.index(("python", code))
    assert BLOCKS[index + 1][0] == "text"
    return BLOCKS[index + 1][1]


def commands() -> list[str]:
    """Every command line: from console blocks, from lines that begin with `make`, and from running text."""
    lines = [line for text in blocks("console") for line in text.splitlines()]
    lines += re.findall(r"^    (make .*)$", README, re.MULTILINE)
    lines += re.findall(r"`((?:sindyrl|make|python|pip) [^`\n]+)`", README)
    return [line.split("  #")[0].strip() for line in lines]


def example_recording(path: pathlib.Path) -> None:
    """The CSV file of the first example."""
    code: dict[str, Any] = {"__name__": "example"}
    exec((ROOT / "examples" / "01_equations_from_a_csv.py").read_text(encoding="utf-8"), code)
    code["record"](path, np.random.default_rng(0))


def masked(text: str) -> list[str]:
    """Lines with numbers and the amount of white space taken out."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.strip().splitlines()]


def heads(text: str) -> list[str]:
    """What of an output does not depend on which terms were found: left sides, limits, words."""
    closed = [re.sub(r"= clip\(.*, (\S+), (\S+)\)$", r"= clip(..., \1, \2)", line) for line in text.splitlines()]
    opened = [re.sub(r"^(\s*d\w+ = ).*$", r"\1...", line) for line in closed]
    return masked("\n".join(opened))


def python(*arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "100", "MUJOCO_GL": "disable"}
    found = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found


def test_the_masks_hide_numbers_and_nothing_else():
    assert masked("dv = -0.68*cos^2*u + 1e-05*x2  [855. 859.]") == ["dv = #*cos^2*u + #*x2 [# #]"]
    assert heads("  dv = 1*u\n  u = clip(2*x + 3*v, -1, 1)\n") == ["dv = ...", "u = clip(..., #, #)"]


# ---- your own CSV


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> dict[str, Any]:
    """The two blocks about CSV files, run in one namespace in a folder of their own; what each printed."""
    folder = tmp_path_factory.mktemp("csv")
    example_recording(folder / "pendulum.csv")
    space: dict[str, Any] = {}
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in (python_block("from_csv"), python_block("Model.load")):
            lines: list[str] = []
            space["print"] = lambda *values, lines=lines: lines.append(" ".join(map(str, values)))
            exec(code, space)
            printed[code] = "\n".join(lines)
    return {"space": space, "printed": printed, "folder": folder}


def test_your_own_csv_prints_what_is_printed(recorded):
    for code, text in recorded["printed"].items():
        assert masked(text) == masked(output_of(code))


def test_the_coefficients_of_the_csv_are_those_printed(recorded):
    code = python_block("from_csv")

    def coefficients(text):
        return [float(value) for value in re.findall(r"^\s+(\S+) ±", text, re.MULTILINE)]

    found = coefficients(recorded["printed"][code])
    assert len(found) == 3
    np.testing.assert_allclose(found, coefficients(output_of(code)), rtol=1e-2)


def test_the_files_of_the_csv_section_are_there(recorded):
    there = {path.relative_to(recorded["folder"]).as_posix() for path in recorded["folder"].rglob("*.*")}
    assert {"pendulum.json", "firmware/pendulum_step.h", "firmware/pendulum_step.c"} <= there


def test_what_is_said_about_pysindy(recorded):
    pysindy = pytest.importorskip("pysindy")
    space = recorded["space"]
    assert "regressor=pysindy.STLSQ(threshold=0.2)" in README
    theirs = sindyrl.identify(
        space["data"], space["candidates"], structure=space["known"], regressor=pysindy.STLSQ(threshold=0.2)
    )
    assert np.array_equal(theirs.model.rates.support, space["fit"].model.rates.support)
    defaults = sindyrl.STLSQ().get_params(), pysindy.STLSQ().get_params()
    assert [(found["alpha"], found["unbias"]) for found in defaults] == [(0, False), (0.05, True)]
    assert {found["threshold"] for found in defaults} == {0.1}


# ---- your own environment


def write_task(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "my_task.py"
    path.write_text(python_block("# my_task.py"), encoding="utf-8")
    return path


def test_the_task_file_describes_the_environment(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_task", None)  # restored afterwards
    task = load_task(write_task(tmp_path))
    check_fit(task, Plant())
    rng = np.random.default_rng(0)
    assert task.reset(rng, 7).shape == (7, 2)
    data = sindyrl.collect(
        Plant(), sindyrl.random_policy(Plant(), hold=10), steps=100, rng=rng, states=task.state_names, dt=task.dt
    )
    r = task.reward(np.column_stack([data.pairs().x_next, data.pairs().u]))[:, 0]
    np.testing.assert_allclose(r, data.pairs().r, rtol=1e-12)


@pytest.mark.slow
def test_learn_runs_on_the_environment_of_ones_own(tmp_path):
    write_task(tmp_path)
    source = f"import gymnasium\nimport numpy as np\n\n\n{inspect.getsource(Plant)}"
    (tmp_path / "my_plant.py").write_text(source, encoding="utf-8")
    (line,) = [line for line in commands() if "my_plant:Plant" in line]
    found = python("-m", *shlex.split(line), cwd=tmp_path)
    assert "Equations of motion" in found.stdout
    assert (tmp_path / "runs" / "my_task-seed0" / "report.html").exists()


# ---- the tour


def run_tour(code: str, folder: pathlib.Path, patch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    pytest.importorskip("dm_control")
    patch.chdir(folder)
    lines: list[str] = []
    space: dict[str, Any] = {"print": lambda *values: lines.append(" ".join(map(str, values)))}
    exec(code, space)
    return "\n".join(lines), space


def test_the_tour_runs_and_prints_what_is_printed(tmp_path, monkeypatch):
    printed = code = python_block("search_policy")
    for old, new in LESS.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    less = functools.partial(policy_search.SearchSettings, **LESS_SEARCH)
    monkeypatch.setattr(policy_search, "SearchSettings", less)
    text, space = run_tour(code, tmp_path, monkeypatch)
    shown = [re.sub(r"\[#.*\]", "[#]", line) for line in heads(output_of(printed))]
    assert [re.sub(r"\[#.*\]", "[#]", line) for line in heads(text)] == shown
    assert (tmp_path / "firmware" / "policy.c").exists()
    assert sindyrl.SymbolicMap.load(tmp_path / "policy.json") == space["policy"]
    claims = re.findall(r"`(policy\.\w+\([^`]*\))`", README)
    assert len(claims) == 3
    for claim in claims:
        eval(claim, dict(space))


@pytest.mark.slow
def test_the_tour_as_printed_swings_the_pole_up(tmp_path, monkeypatch):
    text, _ = run_tour(python_block("search_policy"), tmp_path, monkeypatch)
    (returns,) = [line for line in text.splitlines() if line.startswith("[")]
    assert np.mean([float(value) for value in returns.strip("[]").split()]) > 700
    assert "250 data + 0 selection" in text


# ---- the demonstration


def demo_output() -> str:
    (found,) = [text for text in blocks("text") if text.startswith("Equations of motion")]
    return found


def test_the_demonstration_is_shown_with_its_notes_and_comparisons():
    from sindyrl.demo import NOTES, OTHERS

    text = " ".join(demo_output().split())
    for shown in (*NOTES, *(part for other in OTHERS for part in (other.method, other.source, other.note))):
        assert " ".join(shown.split()) in text, "Run `COLUMNS=100 sindyrl demo --seed 1` and paste what it prints."
    assert {"dv =", "dw =", "u ="} <= {line.strip()[:4].strip() for line in demo_output().splitlines()}


def test_the_demonstration_shown_keeps_its_limits():
    from sindyrl.envs.cartpole import task

    text = demo_output()
    rates = task.library.bind(task.structure.features_of(task.state_names), task.input_names)
    (policy,) = re.findall(r"^\s+u = clip\((.*), -1, 1\)$", text, re.MULTILINE)
    terms = {"dv": rates, "dw": rates, "u": task.policy_library.bind(task.state_names)}
    sides = dict(re.findall(r"^\s+(dv|dw) = (.*)$", text, re.MULTILINE)) | {"u": policy}
    for name, side in sides.items():
        found = [term.split("*", 1)[1].strip("()") for term in re.split(r" [+-] ", side)]
        assert len(found) <= (10 if name == "u" else 5)
        assert set(found) <= set(terms[name].names)
    data, chosen = re.findall(r"this run .*?([\d,]+) \+ ([\d,]+) to choose", text)[0]
    assert (int(data), int(chosen.replace(",", "")) <= 3000) == (250, True)


@pytest.mark.slow
def test_the_demonstration_prints_what_is_shown(tmp_path):
    pytest.importorskip("dm_control")
    (line,) = [line for line in commands() if line == "sindyrl demo --seed 1"]
    found = python("-m", *shlex.split(line), cwd=tmp_path)

    def shape(text):
        # On another machine more may be missing than the emulator's figures, and columns are as wide as their content.
        return [line.split()[0] for line in heads(text) if line]

    assert shape(found.stdout) == shape(demo_output())


# ---- commands, links, the tree


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("sindyrl ")])
def test_a_sindyrl_command_has_these_options(command):
    words = shlex.split(command)[1:]
    if words[0] not in ("bench", "reproduce"):
        tyro.cli(Command, args=words, prog="sindyrl")
        return
    found = {"bench": benchmarks, "reproduce": reproductions}[words[0]](ROOT)
    assert words[1] in found
    if options := [word for word in words[2:] if word.startswith("--")]:
        module = found[words[1]][0] if words[0] == "bench" else f"paper_reproductions.{words[1]}.run"
        shown = python("-m", module, "--help", cwd=ROOT).stdout
        assert all(option in shown for option in options)


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("make ")])
def test_a_make_target_exists(command):
    (target,) = shlex.split(command)[1:]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("python ")])
def test_a_python_command_names_what_exists(command):
    words = shlex.split(command)[1:]
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file()
        return
    shown = python("-m", words[1], "--help", cwd=ROOT).stdout
    for option in (word for word in words[2:] if word.startswith("--")):
        assert option in shown


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("pip ")])
def test_a_pip_command_names_extras_that_exist(command):
    settings = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for extra in (name for found in re.findall(r"\.\[([\w,]+)\]", command) for name in found.split(",")):
        assert re.search(rf"^{extra} =", settings, re.MULTILINE)
    for pinned in re.findall(r"(dm_control==\S+)", command):
        assert pinned in settings


def test_no_command_escapes_these_checks():
    assert {line.split()[0] for line in commands()} == {"sindyrl", "make", "python", "pip"}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_a_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def tree_shown() -> set[str]:
    (tree,) = [text for text in blocks("text") if text.startswith("sindyrl/\n")]
    shown = set()
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        shown |= {f"sindyrl/{name}" if line.startswith("  ") else name for name in names}
    return shown


def test_the_tree_shows_what_there_is():
    for name in tree_shown():
        assert (ROOT / name).exists(), name


def test_the_tree_leaves_out_no_folder():
    inside = {f"sindyrl/{path.name}/" for path in (ROOT / "sindyrl").iterdir() if path.is_dir()}
    top = {f"{path.name}/" for path in ROOT.iterdir() if any(path.glob("*.py"))}
    shown = tree_shown()
    assert {name for name in inside | top if "__" not in name} - {"sindyrl/controllers/"} <= shown
