"""The study of the chaotic systems: exact equations, protocol, resuming; two systems end to end."""

import json

import numpy as np
import pytest

from paper_reproductions.kaptanoglu2023_dysts import run as study
from paper_reproductions.kaptanoglu2023_dysts.data import NAMES, POINTS, load_system, noisy, trajectories
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


def test_trajectories_solve_the_equations_and_are_kept(folder):
    system = load_system("SprottC")
    training, test = trajectories(system, folder)
    assert (len(training), len(test)) == (5, 5)
    part = training[0]
    assert part.x.shape == (POINTS, 3)
    assert part.t[-1] == pytest.approx(10 * system.period)
    slope = (part.x[:-4] - 8 * part.x[1:-3] + 8 * part.x[3:-1] - part.x[4:]) / (12 * system.dt)
    np.testing.assert_allclose(slope, system.rates(part.x[2:-2]), atol=1e-3 * np.abs(slope).max())
    assert trajectories(system, folder)[1].trajectories == test.trajectories


def test_noise_is_a_percentage_of_the_whole_trajectory():
    clean = Dataset(Trajectory.uniform(np.full((20001, 2), [3.0, 4.0]), dt=0.1, states=("x", "y")))
    difference = noisy(clean, 1.0, np.random.default_rng(0))[0].x - clean[0].x
    np.testing.assert_allclose(difference.std(axis=0), 0.01 * np.sqrt(12.5), rtol=0.02)
    np.testing.assert_array_equal(noisy(clean, 0.0, np.random.default_rng(0))[0].x, clean[0].x)


def test_the_true_equations_are_found_and_finished_ones_are_not_run_again(folder, monkeypatch):
    wanted = [("SprottC", 1.0, "strong"), ("SprottC", 1.0, "weak")]
    records = list(study.run(wanted, "test", folder))
    for record in records:
        assert record["missing"] == record["spurious"] == 0
        assert record["e_coef"] < 0.01
        assert record["rmse"] < 0.01
    assert records[0]["seed"] == records[1]["seed"]
    monkeypatch.setattr(study, "measure", None)
    assert list(study.run(wanted, "test", folder)) == records


def test_a_line_cut_off_by_a_kill_is_run_again(tmp_path):
    file = tmp_path / "finished.jsonl"
    whole = {"system": "Lorenz", "noise": 1.0, "setting": "weak", "e_coef": 0.5}
    file.write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:20])
    assert study.read(file) == {("Lorenz", 1.0, "weak"): whole}


def test_counts_are_strictly_below_their_limits():
    records = [
        {"noise": 1.0, "setting": "weak", "e_coef": error, "rmse": 0.1, "missing": 0, "spurious": int(error > 0.05)}
        for error in (0.001, 0.01, 0.1, 0.09)
    ]
    ours, *stored = study.summarize(records)
    assert (ours["below_1_percent"], ours["below_10_percent"], ours["exact_supports"]) == (1, 3, 2)
    assert {line["source"] for line in stored} == {"stored"}


def test_an_unknown_system_is_named():
    with pytest.raises(ValueError, match=r"load_system\(name=\.\.\.\).*'Lorentz'"):
        load_system("Lorentz")


def test_quick_results_cannot_be_saved(capsys):
    with pytest.raises(SystemExit):
        study.main(["--quick", "--save"])
    assert "--save needs all systems" in capsys.readouterr().err
