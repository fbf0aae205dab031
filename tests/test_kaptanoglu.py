"""The study of the chaotic systems: exact equations, protocol, resuming; two systems end to end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import eye_array

from benchmarks.finished import read_lines
from paper_reproductions.kaptanoglu2023_dysts import methods, peers
from paper_reproductions.kaptanoglu2023_dysts import run as study
from paper_reproductions.kaptanoglu2023_dysts.data import NAMES, POINTS, load_system, noisy, trajectories
from sindyrl.reproduction import read_expected
from sindyrl.trajectory import Dataset, Trajectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kaptanoglu")


def test_there_are_seventy_quartic_systems():
    assert len(set(NAMES)) == 70
    for name in NAMES:
        system = load_system(name)
        assert len(system.library) == {3: 35, 4: 70}[len(system.library.states)]
        assert (system.coef != 0).any(axis=1).all()
        assert np.count_nonzero(system.coef, axis=1).max() <= 15  # what the methods may find


def test_lorenz_is_lorenz():
    system = load_system("Lorenz")
    x, y, z = 1.5, -2.0, 20.0
    expected = [10 * (y - x), x * (28 - z) - y, x * y - 2.667 * z]
    np.testing.assert_allclose(system.rates(np.array([[x, y, z]]))[0], expected, rtol=1e-12)


def test_trajectories_solve_the_equations_and_are_kept(folder, monkeypatch):
    system = load_system("SprottC")
    training, test = trajectories(system, folder)
    assert (len(training), len(test)) == (5, 5)
    part = training[0]
    assert part.x.shape == (POINTS, 3)
    assert part.t[-1] == pytest.approx(10 * system.period)
    slope = (part.x[:-4] - 8 * part.x[1:-3] + 8 * part.x[3:-1] - part.x[4:]) / (12 * system.dt)
    np.testing.assert_allclose(slope, system.rates(part.x[2:-2]), atol=1e-3 * np.abs(slope).max())
    monkeypatch.setattr("paper_reproductions.kaptanoglu2023_dysts.data._simulate", None)
    assert trajectories(system, folder)[1].trajectories == test.trajectories


def test_noise_is_a_percentage_of_the_whole_trajectory():
    clean = Dataset(Trajectory.uniform(np.full((20001, 2), [3.0, 4.0]), dt=0.1, states=("x", "y")))
    difference = noisy(clean, 1.0, np.random.default_rng(0))[0].x - clean[0].x
    np.testing.assert_allclose(difference.std(axis=0), 0.01 * np.sqrt(12.5), rtol=0.02)
    np.testing.assert_array_equal(noisy(clean, 0.0, np.random.default_rng(0))[0].x, clean[0].x)


def test_the_true_equations_are_found_and_finished_ones_are_not_run_again(folder, monkeypatch):
    wanted = [("SprottC", 1.0, "strong"), ("SprottC", 1.0, "weak")]
    records = list(study.run(wanted, study.lines_of("test", folder), folder))
    for record in records:
        assert record["missing"] == record["spurious"] == 0
        assert record["e_coef"] < 0.01
        assert record["rmse"] < 0.01
    assert records[0]["seed"] == records[1]["seed"]
    with monkeypatch.context() as changed:
        changed.setattr(study, "measure", None)
        assert list(study.run(wanted, study.lines_of("test", folder), folder)) == records
    # Neither other code nor other noise takes them for its own.
    assert set(study.lines_of("test", folder).read()) == set(wanted)
    assert study.lines_of("another", folder).read() == {}
    monkeypatch.setattr(study, "code", lambda: "changed")
    assert study.lines_of("test", folder).read() == {}


def test_lines_of_other_code_are_left_out_whatever_file_they_are_in(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    line = {"system": "Lorenz", "noise": 1.0, "setting": "weak", "tree": "t", "code": study.code()}
    other = line | {"system": "Chen", "code": "000000000000"}
    old = {"system": "Qi", "noise": 1.0, "setting": "weak"}
    (tmp_path / "weak-noise1.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (line, other, old)))
    assert study.lines_of("t", None).read() == {("Lorenz", 1.0, "weak"): line}


def test_a_line_cut_off_by_a_kill_is_run_again(tmp_path):
    file = tmp_path / "finished.jsonl"
    whole = {"system": "Lorenz", "noise": 1.0, "setting": "weak", "e_coef": 0.5}
    file.write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:20])
    assert read_lines(file, study.key_of) == {("Lorenz", 1.0, "weak"): whole}


def planted_rows(n_rows=300, noise=0.01):
    """A library of ten columns of which three, and two, make the targets; every row from samples of its own."""
    rng = np.random.default_rng(3)
    theta = rng.normal(size=(n_rows, 10)) * np.geomspace(0.1, 10, 10)
    coef = np.zeros((2, 10))
    coef[0, [1, 4, 8]], coef[1, [0, 9]] = [2.0, -1.0, 0.5], [-3.0, 0.25]
    y = theta @ coef.T + noise * rng.normal(size=(n_rows, 2))
    return [SimpleNamespace(theta=theta, y=y, functionals=(eye_array(n_rows),))], coef


def test_pysindy_finds_planted_terms_and_aicc_keeps_more_of_others(monkeypatch):
    monkeypatch.setattr(peers, "_THRESHOLDS", np.geomspace(1e-4, 1e3, 15))
    rows, coef = planted_rows()
    found = peers.pysindy_stlsq(rows, None)
    np.testing.assert_array_equal(found.coef != 0, coef != 0)
    np.testing.assert_allclose(found.coef, coef, atol=0.02)
    assert (found.others[peers.AICC] != 0)[coef != 0].all()
    assert np.count_nonzero(found.others[peers.AICC]) > np.count_nonzero(coef)


def test_pysindy_gets_ten_halves_of_the_rows_and_every_column(monkeypatch):
    rows, _ = planted_rows()
    asked = []

    def stlsq(theta, y, threshold):
        asked.append((theta.shape, threshold))
        return np.zeros((y.shape[1], theta.shape[1]))

    monkeypatch.setattr(peers, "_stlsq", stlsq)
    assert not peers.pysindy_stlsq(rows, None).coef.any()
    assert asked == [((150, 10), pytest.approx(1e-4))] * 10  # and no more: without terms the scan is over


def test_a_record_of_pysindy_holds_the_choice_by_aicc_beside_that_by_the_shared_rule(folder, monkeypatch):
    truth = load_system("SprottC").coef
    found = methods.Found(truth, {methods.AICC: 1.05 * truth})
    monkeypatch.setattr("paper_reproductions.kaptanoglu2023_dysts.measure.fit", lambda *_: found)
    record = study.measure("SprottC", 1.0, "pysindy_stlsq_weak", "test", folder)
    assert record["e_coef"] == 0.0
    assert record["aicc"]["e_coef"] == pytest.approx(0.05)
    ours, aicc, *_ = study.summarize([record])
    assert (ours["setting"], ours["below_1_percent"]) == ("pysindy_stlsq_weak", 1)
    assert (aicc["setting"], aicc["below_1_percent"], aicc["below_10_percent"]) == ("pysindy_stlsq_weak_aicc", 0, 1)


def test_counts_are_strictly_below_their_limits():
    records = [
        {"noise": 1.0, "setting": "weak", "e_coef": error, "rmse": 0.1, "missing": 0, "spurious": int(error > 0.05)}
        for error in (0.001, 0.01, 0.1, 0.09)
    ]
    ours, *stored = study.summarize(records)
    assert (ours["below_1_percent"], ours["below_10_percent"], ours["exact_supports"]) == (1, 3, 2)
    assert {line["source"] for line in stored} == {"stored"}
    assert study.figures([ours, *stored])["weak_noise1_below_10_percent"] == 3


def test_pysindy_is_run_at_its_own_levels_of_noise(monkeypatch):
    asked = []

    def run(wanted, tree, folder, jobs, finished):
        asked.extend(wanted)
        line = {"e_coef": 0.5, "rmse": 0.1, "missing": 0, "spurious": 0}
        return (line | {"system": name, "noise": noise, "setting": setting} for name, noise, setting in wanted)

    monkeypatch.setattr(study, "run", run)
    quiet = {"quick": True, "progress": lambda share, text: None, "folder": None}
    result = study.reproduce(noise=(0.0, 1.0), **quiet)
    assert {key[1:] for key in asked} == {
        *((level, setting) for level in (0.0, 1.0) for setting in ("strong", "weak")),
        *((1.0, setting) for setting in ("pysindy_stlsq_strong", "pysindy_stlsq_weak")),
    }
    assert result["figures"]["pysindy_stlsq_weak_noise1_below_10_percent"] == 0
    assert result["files"] == {}
    with pytest.raises(ValueError, match="something to run"):
        study.reproduce(noise=(0.0,), settings=("pysindy_stlsq_weak",), **quiet)


def test_an_unknown_system_is_named():
    with pytest.raises(ValueError, match=r"load_system\(name=\.\.\.\).*'Lorentz'"):
        load_system("Lorentz")


def test_only_whole_cells_are_saved():
    line = {"noise": 0.1, "setting": "weak"}
    all_of_them = [line | {"system": name} for name in reversed(NAMES)]
    saved = study.files([*all_of_them, {"system": "Chen", "noise": 1.0, "setting": "weak"}])
    assert list(saved) == ["weak-noise0.1.jsonl"]
    assert [json.loads(each)["system"] for each in saved["weak-noise0.1.jsonl"].splitlines()] == list(NAMES)


def test_the_counts_that_are_reported_are_those_of_the_stored_lines():
    records = [record for file in study.RESULTS.glob("*.jsonl") for record in read_lines(file, study.key_of).values()]
    stored = study.figures(study.summarize(records))
    expected = read_expected(study.RESULTS.parent / "expected.toml")
    assert {claim.figure for claim in expected.claims if claim.ours is not None} <= set(stored)
    for claim in expected.claims:
        assert claim.ours == stored.get(claim.figure), claim
