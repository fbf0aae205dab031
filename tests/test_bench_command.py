"""`sindyrl bench`: what is listed is what is there, and the options after the name are the benchmark's own."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import accuracy, command
from benchmarks.provenance import code_digest, code_files
from benchmarks.speed import identification
from sindyrl import bench_command, checkout, cli

ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = '''"""Doubles a number.

More about it.
"""

import dataclasses
import json as text
import sys

from benchmarks import command


@dataclasses.dataclass(frozen=True)
class Settings:
    number: int = 1
    """What is doubled."""
    json: bool = False
    """Print JSON."""


def run(settings):
    if settings.number < 0:
        raise ValueError("`--number` must not be negative.")
    if settings.number > 99:
        text.loads('{')
    print(text.dumps({"double": 2 * settings.number}) if settings.json else 2 * settings.number)
    return 3 if settings.number == 0 else None


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
'''


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """A checkout with one benchmark in each folder, beside files that are none."""
    folder = tmp_path / "benchmarks"
    (folder / "speed").mkdir(parents=True)
    (tmp_path / "paper_reproductions").mkdir()
    (tmp_path / "setup.cfg").write_text("")
    for file in (folder / "__init__.py", folder / "speed" / "__init__.py"):
        file.write_text("")
    for name in ("command.py", "orphan.py"):
        (folder / name).write_text((ROOT / "benchmarks" / name).read_text())
    (folder / "double.py").write_text(BENCHMARK)
    (folder / "speed" / "twice.py").write_text(BENCHMARK)
    (folder / "shared.py").write_text('"""No benchmark."""\n\nraise RuntimeError("imported")\n')
    monkeypatch.setattr(bench_command, "find_checkout", lambda: tmp_path)
    return tmp_path


def ask(capfd, *arguments):
    capfd.readouterr()
    try:
        code = cli.main(list(arguments))
    except SystemExit as ended:
        code = ended.code
    said = capfd.readouterr()
    return code, said.out, said.err


def test_every_file_with_settings_and_run_is_listed_and_nothing_is_imported(invented, capfd):
    code, out, _ = ask(capfd, "bench", "--json")
    assert code == 0
    assert json.loads(out) == {"benchmarks": {"double": "Doubles a number", "twice": "Doubles a number"}}
    code, out, _ = ask(capfd, "bench")
    assert (code, "double" in out, "twice" in out, "shared" in out) == (0, True, True, False)


def test_options_after_the_name_belong_to_the_benchmark(invented, capfd):
    assert ask(capfd, "bench", "double", "--number", "21", "--json") == (0, '{"double": 42}\n', "")
    assert ask(capfd, "bench", "twice", "--number", "4")[:2] == (0, "8\n")
    code, out, _ = ask(capfd, "bench", "twice", "--help")
    assert (code, "What is doubled" in out, "sindyrl bench twice" in out) == (0, True, True)


def test_the_exit_code_is_the_benchmarks_and_its_refusal_is_one_line(invented, capfd):
    assert ask(capfd, "bench", "double", "--number", "0")[0] == 3
    code, out, err = ask(capfd, "bench", "double", "--number", "-1")
    assert (code, out, err) == (2, "", "sindyrl bench: `--number` must not be negative.\n")
    assert ask(capfd, "bench", "double", "--nonsense")[0] == 2
    code, _, err = ask(capfd, "bench", "treble")
    assert (code, err) == (2, "sindyrl: `bench` must name one of double, twice. Got 'treble'.\n")


def test_what_a_benchmark_did_not_foresee_is_a_traceback(invented, capfd):
    code, _, err = ask(capfd, "bench", "double", "--number", "100")
    assert (code, "JSONDecodeError" in err, "Traceback" in err) == (1, True, True)


def test_without_a_checkout_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=r"not installed.*Clone the repository"):
        checkout.find_checkout(tmp_path)
    monkeypatch.chdir(ROOT / "tests")
    with pytest.raises(RuntimeError, match=r"is a checkout: run `python -m sindyrl` there"):
        checkout.find_checkout(tmp_path)
    assert checkout.find_checkout() == ROOT


def test_the_benchmarks_of_this_checkout_keep_the_contract():
    found = bench_command.benchmarks(ROOT)
    assert {"identification", "demo_swingup", "ppo_swingup"} <= set(found)
    for name, (module, what) in found.items():
        file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert what, name
        tree = ast.parse(file.read_text())
        settings = next(node for node in tree.body if getattr(node, "name", "") == "Settings")
        fields = [node for node in settings.body if isinstance(node, ast.AnnAssign)]
        assert fields
        assert all(node.value is not None for node in fields), f"{name}: every option needs a default"
        assert "json" in [node.target.id for node in fields]
        assert ast.unparse(tree.body[-1]).startswith("if __name__ == '__main__':")


def test_the_speed_benchmark_refuses_to_save_small_sizes():
    with pytest.raises(ValueError, match="`--save` needs the full sizes"):
        identification.run(identification.Settings(quick=True, save=True))


def test_stored_accuracy_says_whether_the_code_is_still_the_same(tmp_path, monkeypatch):
    claim = {
        "claim": "c",
        "figure": "f",
        "theirs": 1,
        "source": "s",
        "ours": 2,
        "rule": "",
        "met": None,
        "command": "x",
    }
    folder = tmp_path / "invented2021_thing"
    (folder / "results").mkdir(parents=True)
    (folder / "expected.toml").write_text("")
    monkeypatch.setattr(accuracy, "FOLDER", tmp_path)
    monkeypatch.setattr(accuracy, "REPRODUCTIONS", ("invented2021_thing", "absent2022_thing"))
    (record,) = accuracy.stored()
    assert record["source_of_ours"].startswith("no saved run")
    for code, same in (("a", True), ("b", False), (None, None)):
        (folder / "results" / "reproduced.json").write_text(json.dumps({"code": code, "claims": [claim]}))
        module = type("Module", (), {"code": staticmethod(lambda: "a")})
        monkeypatch.setattr(accuracy.importlib, "import_module", lambda name, module=module: module)
        (record,) = accuracy.stored()
        assert (record["figure"], record["name"], record["ours"], record["same_code"]) == ("accuracy", "f", 2, same)


# ---- which code made a figure


@pytest.fixture
def tree(tmp_path):
    files = {
        "sindyrl/__init__.py": "from sindyrl.unrelated import x\n",
        "sindyrl/a.py": "def f():\n    from sindyrl.package import deep\n",
        "sindyrl/package/__init__.py": "from sindyrl.package.other import y\n",
        "sindyrl/package/deep.py": "import importlib\n\nimportlib.import_module('sindyrl.' + 'x')\n",
        "sindyrl/package/late.py": "",
        "sindyrl/package/other.py": "",
        "sindyrl/unrelated.py": "",
        "data.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_in_functions_and_by_computed_names_are_followed_and_others_are_not(tree):
    names = [file.name for file in code_files(["sindyrl.a"], root=tree)]
    assert names == ["a.py", "deep.py", "late.py", "other.py"]
    with pytest.raises(ValueError, match="must name modules"):
        code_files(["sindyrl.absent"], root=tree)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("sindyrl/package/late.py", True), ("data.json", True), ("sindyrl/unrelated.py", False)],
)
def test_the_digest_changes_with_what_the_figure_depends_on_and_with_nothing_else(tree, name, changes):
    before = code_digest(["sindyrl.a"], [tree / "data.json"], root=tree)
    (tree / name).write_text("# changed\n")
    assert (code_digest(["sindyrl.a"], [tree / "data.json"], root=tree) != before) == changes


def test_the_command_of_a_benchmark_parses_what_it_is_given():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        seeds: int = 2

    assert command.main(Settings, lambda settings: settings.seeds, None, ["--seeds", "7"]) == 7
    assert command.main(Settings, lambda settings: None, None, []) == 0
