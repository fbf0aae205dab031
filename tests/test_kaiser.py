"""The study of the four SINDY-MPC systems: equations, inputs, recovery without noise, predictions, resuming."""

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from benchmarks.finished import read_lines
from paper_reproductions.kaiser2018_sindy_mpc import run as study
from paper_reproductions.kaiser2018_sindy_mpc.methods import fit
from paper_reproductions.kaiser2018_sindy_mpc.plot import drawn
from paper_reproductions.kaiser2018_sindy_mpc.predict import SHORT, errors, predict, predict_linear
from paper_reproductions.kaiser2018_sindy_mpc.studies import LENGTHS, NOISES, Cell, cells
from paper_reproductions.kaiser2018_sindy_mpc.systems import SYSTEMS, Recording, medication, record, schroeder

FOLDER = Path(study.__file__).parent


def lotka_volterra(x, u):
    return [0.5 * x[0] - 0.025 * x[0] * x[1], 0.005 * x[0] * x[1] - 0.5 * x[1] + u]


def lorenz(x, u):
    return [10 * (x[1] - x[0]) + u, x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]


def f8(x, u):
    a, b, c = x
    return [
        -0.877 * a + c - 0.088 * a * c + 0.47 * a**2 - 0.019 * b**2 - a**2 * c + 3.846 * a**3
        - 0.215 * u + 0.28 * a**2 * u + 0.47 * a * u**2 + 0.63 * u**3,
        c,
        -4.208 * a - 0.396 * c - 0.47 * a**2 - 3.564 * a**3
        - 20.967 * u + 6.265 * a**2 * u + 46 * a * u**2 + 61.4 * u**3,
    ]  # fmt: skip


def hiv(x, u):
    healthy, infected, precursors, helper_free, effectors = x
    infection = (1 - 0.9799 * u) * healthy * infected
    return [
        1 - 0.1 * healthy - infection,
        infection - 0.2 * infected - helper_free * infected - effectors * infected,
        0.06 * (healthy - 0.5) * infected * precursors - 0.01 * precursors,
        0.03 * infected * helper_free - 0.1 * helper_free,
        0.06 * 0.5 * infected * precursors - 0.1 * effectors,
    ]


def training(name):
    system = SYSTEMS[name]
    return record(
        system, np.array(system.x0), system.training_input, 0.0, round(system.training / system.dt), system.dt
    )


@pytest.fixture(scope="module")
def recordings():
    return {name: training(name) for name in SYSTEMS}


@pytest.mark.parametrize("written", [lotka_volterra, lorenz, f8, hiv])
def test_equations_are_those_of_the_paper(written):
    system = SYSTEMS[written.__name__]
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, u = rng.normal(size=len(system.states)), rng.normal()
        np.testing.assert_allclose(system.model.derivative(x, np.array([u])), written(x, u), rtol=1e-12, atol=1e-12)


def test_stated_equilibria_are_at_rest():
    root = np.sqrt(72)
    infected = 0.1 / 0.03  # the immune response without medication: x2 = b1 / c1
    healthy = 1 / (0.1 + infected)
    for name, x in {
        "lotka_volterra": [100, 20],
        "lorenz": [-root, -root, 27],
        "f8": [0, 0, 0],
        "hiv": [healthy, infected, 0, healthy - 0.2, 0],
    }.items():
        np.testing.assert_allclose(SYSTEMS[name].model.derivative(np.array(x), np.zeros(1)), 0, atol=1e-12)


def test_harmonics_repeat_and_have_equal_power():
    t = np.arange(1000) / 1000 * 0.5
    u = schroeder(t, period=0.5, harmonics=8)
    np.testing.assert_allclose(schroeder(t + 0.5, period=0.5, harmonics=8), u, atol=1e-9)
    power = np.abs(np.fft.rfft(u) / len(t)) ** 2
    np.testing.assert_allclose(power[1:9], 1 / 16, rtol=1e-9)
    phases = 2 * np.pi / 8 * np.cumsum(np.arange(1, 9))  # as in the study's code
    np.testing.assert_allclose(u[0], 0.5 * np.cos(phases).sum(), rtol=1e-12)
    np.testing.assert_allclose(np.angle(np.fft.rfft(u)[1:9] / np.exp(1j * phases)), 0, atol=1e-9)
    assert power[0] < 1e-20
    assert power[9:].max() < 1e-20


def test_doses_are_the_published_random_numbers_and_are_held_over_samples():
    # MATLAB's first three numbers after rng(0) are .8147, .9058 and .1270.
    drawn_times = np.cumsum(0.2 + 9.8 * np.array([0.81472369, 0.90579194, 0.12698682]))
    samples = np.arange(4801) / 12
    doses = medication(samples)
    changes = samples[1:][np.diff(doses) != 0]
    assert set(doses) <= {0, 0.25, 0.5, 0.75, 1}
    assert changes[0] == pytest.approx(np.ceil(drawn_times[0] * 12) / 12)
    assert changes[1] == pytest.approx(np.ceil(drawn_times[1] * 12) / 12)
    assert np.diff(changes).min() >= 0.2 - 1 / 12
    for inside in (0.1, 0.5, 0.9):
        np.testing.assert_array_equal(medication(samples + inside / 12), doses)


@pytest.mark.parametrize("written", [lotka_volterra, lorenz, f8, hiv])
def test_recordings_solve_the_equations(written, recordings):
    system, found = SYSTEMS[written.__name__], recordings[written.__name__]
    assert len(found.x) == round(system.training / system.dt) + 1
    t = found.t[: 98 if system.held else 40]  # HIV's first dose comes after that
    solution = solve_ivp(
        lambda time, x: written(x, float(system.training_input(np.array(time)))),
        (t[0], t[-1]),
        system.x0,
        method="LSODA",
        t_eval=t,
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(found.x[: len(t)], solution.y.T, rtol=1e-6, atol=1e-9)
    if system.held:
        assert (found.x > 0).all()  # populations
        np.testing.assert_array_equal(found.u[:-1, None] * np.ones(3), found.stages)


@pytest.mark.parametrize("name", SYSTEMS)
def test_all_four_systems_are_recovered(name, recordings):
    coef = fit("ours", recordings[name], SYSTEMS[name])
    np.testing.assert_array_equal(coef != 0, SYSTEMS[name].coef != 0)
    np.testing.assert_allclose(coef, SYSTEMS[name].coef, rtol=2e-4)


@pytest.mark.parametrize("name", ["lotka_volterra", "lorenz", "f8"])
def test_the_papers_recipe_recovers_three_and_pysindy_agrees(name, recordings):
    ours, theirs = (fit(method, recordings[name], SYSTEMS[name]) for method in ("study", "study_pysindy"))
    np.testing.assert_array_equal(ours != 0, SYSTEMS[name].coef != 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_diverging_model_has_an_infinite_error_and_leaves_others_alone():
    system = SYSTEMS["lorenz"]
    wild = np.where(system.coef == -1, 50.0, system.coef)
    path = record(system, np.array(system.x0), system.training_input, 0.0, 400, 0.01)
    whole, first = errors(predict(np.stack([system.coef, wild]), system, path), path)
    alone, _ = errors(predict(system.coef[None], system, path), path)
    assert whole[0] == pytest.approx(alone[0], rel=1e-9)
    assert whole[0] < 1e-4
    assert np.isinf([whole[1], first[1]]).all()


def test_errors_are_means_over_time_of_sums_over_states():
    t = np.arange(SHORT + 51) * 0.1
    truth = Recording(("a", "b"), t, np.zeros((len(t), 2)), np.zeros(len(t)), np.zeros((len(t) - 1, 3)))
    path = np.where(np.arange(len(t)) > SHORT, 2.0, 1.0)[None, :, None] * np.ones(2)
    whole, first = errors(path, truth)
    assert first[0] == pytest.approx(2.0)
    assert whole[0] == pytest.approx((2 * SHORT + 8 * 50) / (SHORT + 50))


def test_linear_predictions_step_by_the_matrix():
    rng = np.random.default_rng(1)
    stages = rng.normal(size=(3, 3))
    truth = Recording(("a", "b"), np.arange(4.0), np.array([[1.0, -1.0]] * 4), np.zeros(4), stages)
    matrix = rng.normal(size=(2, 4))
    x = truth.x[0]
    for k in range(3):
        x = matrix @ [1.0, *x, stages[k] @ [1, 4, 1] / 6]
        np.testing.assert_allclose(predict_linear(matrix[None], truth)[0, k + 1], x, rtol=1e-12)


def test_the_cells_are_those_of_the_study():
    whole = cells(tuple(SYSTEMS), 50)
    assert len({cell.key for cell in whole}) == len(whole)
    assert LENGTHS[:3] == (5, 6, 7)
    assert LENGTHS[10:13] == (15, 20, 25)
    assert LENGTHS[-11:-8] == (95, 100, 200)
    assert LENGTHS[-1] == 1000
    assert NOISES == (1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    for name in ("lorenz", "lotka_volterra"):
        assert {(cell.noise, cell.realizations) for cell in whole if cell.system == name and cell.length == 3000} == {
            (noise, 50) for noise in NOISES
        }
    assert {cell.system for cell in cells(["f8"], 50)} == {"f8"}


def test_a_quick_run_finds_the_equations_and_finished_lines_are_not_run_again(tmp_path, monkeypatch):
    options = {"quick": True, "progress": lambda *_: None, "systems": ("lotka_volterra",), "tree": "test"}
    found = study.reproduce(**options, folder=tmp_path)
    assert found["figures"]["clean_ours_exact"] == found["figures"]["clean_study_pysindy_exact"] == 1
    noisy = found["records"][-1]["methods"]
    assert noisy["ours_weak"]["e_coef"] < 0.5 * noisy["study"]["e_coef"]
    assert found["files"] == {}
    monkeypatch.setattr(study, "measure_clean", None)
    monkeypatch.setattr(study, "measure_cell", None)
    again = study.reproduce(**options, folder=tmp_path)
    assert again["records"] == found["records"]
    assert "0 lines computed now, 2 read" in again["origin"]


def line(length, ours, linear):
    methods = {"ours_weak": {"mse_short": [1, ours, 9]}, "dmdc": {"mse_short": [1, linear, 9]}}
    return {"system": "lorenz", "length": length, "noise": 5.0, "methods": methods, "realizations": 1}


def test_a_line_is_only_reused_for_the_same_code_and_noise(tmp_path):
    good = {"key": "a", "code": study.code(), "tree": "tree"}
    lines = [good, good | {"key": "b", "code": "other"}, good | {"key": "c", "tree": "other"}]
    kept = study.lines_of("tree", tmp_path)
    kept.file.write_text("\n".join(map(json.dumps, lines)) + "\n" + json.dumps(good | {"key": "d"})[:20])
    assert kept.read() == {"a": good}


def test_enough_samples_are_those_from_which_ours_stays_better():
    records = [line(length, 5.0 if length in (9, 40) else 1.0, 2.0) for length in LENGTHS]
    assert study.samples_to_beat_dmdc(records, 5.0) == 45
    assert study.samples_to_beat_dmdc(records[1:], 5.0) is None
    assert study.samples_to_beat_dmdc([line(n, None, 2.0) for n in LENGTHS], 5.0) is None


def test_nothing_is_started_after_the_time(tmp_path):
    tasks = study.tasks_of(["hiv"], [Cell("f8", 100, 1.0, 2)])
    assert list(study.run(tasks, study.lines_of("tree", tmp_path), {}, minutes=0)) == []


def test_the_figure_has_the_methods_and_no_date():
    found = {"mse_short": [1.0, 2.0, None]}
    methods = {"ours_weak": found, "pysindy_weak": found, "dmdc": found}
    records = [{"system": "lorenz", "noise": 5.0, "length": n, "methods": methods | {"study": None}} for n in (5, 6)]
    text = drawn(records)
    assert text == drawn(records)
    assert "<svg" in text
    for label in ("ours (weak form)", "pysindy STLSQ, our rows", "DMDc"):
        assert f"<!-- {label} -->" in text
    assert "the paper's recipe" not in text  # of which the records have nothing
    assert "dc:date" not in text


def test_claims_are_the_saved_figures():
    lines = [read_lines(FOLDER / f"results/{name}.jsonl", study.key_of).values() for name in ("clean", "sweeps")]
    saved = study.figures([record for part in lines for record in part])
    claims = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))["claim"]
    assert {claim["figure"]: claim["ours"] for claim in claims} == {
        claim["figure"]: saved[claim["figure"]] for claim in claims
    }


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"realisations=.* must be at least 1"):
        study.reproduce(quick=True, progress=lambda *_: None, realisations=0)
    assert dataclasses.is_dataclass(study.Settings)
