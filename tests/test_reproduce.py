"""`sindyrl reproduce`: a claim is met, not met or not judged, and what is saved is what was found."""

import json
import sys
from pathlib import Path

import pytest

from sindyrl import cli, reproduce_command
from sindyrl.reproduction import Claim, judged, read_expected

ROOT = Path(__file__).resolve().parent.parent
RUN = '''"""Counts what is left.

More about it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    found: int = 57
    """How many are found."""
    sizes: tuple[int, ...] = (1,)


def code():
    return "abc"


def reproduce(*, quick, progress, found, sizes):
    if found < 0:
        raise ValueError("`--found` must not be negative.")
    progress(0.5, "half")
    progress(1.0, "")
    return {
        "figures": {"found": found, "error": 0.1 * sizes[-1], "works": True},
        "origin": "computed now",
        "notes": ["A note."],
        "table": {"columns": ["size"], "rows": [[size] for size in sizes]},
        "files": {"sizes.txt": str(list(sizes))},
    }
'''
EXPECTED = """
paper = "Inventor, A paper, 2020"
command = "sindyrl reproduce invented2020_thing"
minutes = 2
departures = ["other data"]

[[claim]]
claim = "found"
figure = "found"
theirs = 57
source = "table 2"
ours = 57
at_least = 57

[[claim]]
claim = "error"
figure = "error"
theirs = 0.1
within = 0.05

[[claim]]
claim = "works at all"
figure = "works"
at_least = 1
quick = true

[[claim]]
claim = "of another run"
figure = "absent"
at_most = 3
"""


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Run the command in a checkout that has one reproduction: exit code, standard output, standard error."""
    folder = tmp_path / "paper_reproductions" / "invented2020_thing"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(RUN)
    (folder / "expected.toml").write_text(EXPECTED)
    monkeypatch.setattr(reproduce_command, "find_checkout", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        capsys.readouterr()
        try:
            code = cli.main(["reproduce", *arguments])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    for name in [name for name in sys.modules if name.startswith("paper_reproductions.invented2020_thing")]:
        del sys.modules[name]


def test_without_a_name_the_reproductions_are_listed(ask):
    code, out, _ = ask("--json")
    assert (code, json.loads(out)) == (0, {"reproductions": {"invented2020_thing": "Inventor, A paper, 2020"}})
    assert "invented2020_thing" in ask()[1]


def test_a_folder_without_reproduce_is_not_listed(ask, tmp_path):
    unfinished = tmp_path / "paper_reproductions" / "begun2020_thing"
    unfinished.mkdir()
    (unfinished / "run.py").write_text("raise RuntimeError('imported')\n")
    assert "begun2020_thing" not in ask("--json")[1]


def test_the_last_line_is_one_object_with_every_claim(ask):
    code, out, _ = ask("invented2020_thing", "--json")
    record = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (record["met"], record["judged"], record["code"], record["origin"]) == (3, 3, "abc", "computed now")
    found, error, works, absent = record["claims"]
    assert (found["theirs"], found["ours"], found["reported"], found["difference"]) == (57, 57, 57, 0.0)
    assert (found["rule"], found["met"], found["command"]) == (
        "at least 57",
        True,
        "sindyrl reproduce invented2020_thing",
    )
    assert (error["rule"], error["met"], error["minutes"]) == ("within 0.05", True, 2)
    assert (works["ours"], works["met"]) == (True, True)
    assert (absent["ours"], absent["met"], absent["difference"]) == (None, None, None)


def test_a_claim_that_is_not_met_says_so_and_ends_with_1(ask):
    code, out, _ = ask("invented2020_thing", "--found", "56")
    assert code == 1
    assert "NO" in out
    assert "2 of 3 judged claims met" in out
    assert json.loads(ask("invented2020_thing", "--found", "56", "--json")[1])["claims"][0]["difference"] == -1.0


def test_the_table_says_theirs_ours_the_source_and_the_command(ask):
    _, out, _ = ask("invented2020_thing", "--found", "58")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("1. found")]
    assert row[2:] == ["57", "58", "1", "at", "least", "57", "yes"]
    for text in ("table 2", "sindyrl reproduce invented2020_thing", "computed now", "other data"):
        assert text in out
    assert "A note." in out


def test_a_quick_run_judges_only_what_it_can(ask):
    code, out, _ = ask("invented2020_thing", "--quick", "--json", "--found", "3")
    record = json.loads(out)
    assert (code, [row["met"] for row in record["claims"]]) == (0, [None, None, True, None])
    assert [row["difference"] for row in record["claims"]] == [None] * 4  # 3 of a small run is not 54 less than 57


def test_a_full_run_is_saved_and_a_quick_one_is_not(ask, tmp_path):
    results = tmp_path / "paper_reproductions" / "invented2020_thing" / "results"
    code, out, err = ask("invented2020_thing", "--quick", "--save")
    assert (code, out) == (2, "")
    assert err == "sindyrl: `--save` needs the full run; leave out `--quick`.\n"
    assert not results.exists()
    ask("invented2020_thing", "--save", "--sizes", "1", "2", "--json")
    assert (results / "sizes.txt").read_text() == "[1, 2]"
    saved = json.loads((results / "reproduced.json").read_text())
    assert saved["figures"]["error"] == pytest.approx(0.2)
    assert saved["claims"][1]["met"] is False


def test_options_of_the_reproduction_are_shown_and_checked(ask):
    code, out, _ = ask("invented2020_thing", "--help")
    assert (code, "How many are found." in out, "--quick" in out) == (0, True, True)
    assert ask("invented2020_thing", "--lost", "3")[0] == 2
    assert ask("invented2020_thing", "--json", "--found", "-1")[::2] == (
        2,
        "sindyrl: `--found` must not be negative.\n",
    )
    for name in ("other2020_thing", "..", "../paper_reproductions/invented2020_thing"):
        code, _, err = ask(name)
        assert (code, "must name one of invented2020_thing" in err) == (2, True)


@pytest.mark.parametrize(
    ("limits", "value", "met"),
    [
        ({"at_least": 3.0}, 3.0, True),
        ({"at_least": 3.0}, 2.999, False),
        ({"at_most": 3.0}, 3.001, False),
        ({"at_least": 1.0, "at_most": 3.0}, 0.0, False),
        ({"within": 0.5}, 2.5, True),
        ({"within": 0.5}, 2.51, False),
        ({"within": 0.5}, 1.49, False),
        ({"at_least": 3.0}, float("nan"), False),
        ({"within": 0.5}, float("nan"), False),
        ({}, 5.0, None),
        ({"at_least": 3.0}, None, None),
    ],
)
def test_limits_are_reached_or_not(limits, value, met):
    assert Claim("c", "f", "x", 1.0, theirs=2.0, **limits).met(value) is met


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('paper = "p"', "`claim`"),
        ('paper = "p"\n[[claim]]\nclaim = "c"\nfigure = "f"\ncommand = "x"\nminutes = "long"', "`minutes`"),
        ('paper = "p"\n[[claim]]\nclaim = "c"\nfigure = "f"\ncommand = "x"\nminutes = 1\nwithin = 2', "`theirs`"),
        ('paper = "p"\n[[claim]]\nclaim = "c"\nfigure = "f"\ncommand = "x"\nminutes = 1\nat_lest = 2', "at_lest"),
        ('paper = "p"\ncommand = "x"\nminutes = 1\n' + 2 * '[[claim]]\nclaim = "c"\nfigure = "f"\n', "twice"),
        ("paper", "expected.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, named):
    file = tmp_path / "expected.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=named):
        read_expected(file)


def test_the_reproductions_of_this_checkout_can_be_read():
    found = reproduce_command.reproductions(ROOT)
    assert "kaptanoglu2023_dysts" in found
    for name in found:
        expected = read_expected(ROOT / "paper_reproductions" / name / "expected.toml")
        rows = judged(expected, {claim.figure: claim.ours for claim in expected.claims})
        assert all(row["met"] is not False for row in rows), f"{name}: its own reported figures miss a claim"
