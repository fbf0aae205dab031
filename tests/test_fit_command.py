"""`sindyrl fit`: planted equations come back from a file, and a file that cannot be fitted says why and what to do."""

import json

import numpy as np
import pytest

from sindyrl.cli import main
from sindyrl.fit_command import names, pairs
from sindyrl.fitting import FitSettings, fit_recording
from sindyrl.guard import ActuatorError
from sindyrl.model import Model
from sindyrl.recording import read_recording

DT = 0.02
TRUTH = {"x": -2.0, "v": -0.5, "u": 1.0}


def spring(steps=400, noise=0.0, seed=0, gain=1.0):
    """Times, states and inputs of a pushed, damped spring, exact for inputs held over each step."""
    from scipy.linalg import expm

    rng = np.random.default_rng(seed)
    step = expm(DT * np.array([[0, 1, 0], [TRUTH["x"], TRUTH["v"], gain], [0, 0, 0]]))
    u = np.repeat(rng.uniform(-2, 2, -(-steps // 10)), 10)[:steps]
    x = [np.array([1.0, 0.0])]
    for held in u:
        x.append((step @ [*x[-1], held])[:2])
    x = np.array(x) + noise * rng.normal(size=(steps + 1, 2))
    return DT * np.arange(steps + 1), x, u


def table(t, x, u):
    """Rows of the CSV as lists; the last input is missing, as nothing is known of what follows."""
    return [
        [f"{a:.10g}", f"{p:.12g}", f"{q:.12g}", f"{b:.12g}"] for a, (p, q), b in zip(t, x, [*u, np.nan], strict=True)
    ]


def written(path, rows, header="time,x,v,u"):
    path.write_text("\n".join([header, *(",".join(row).replace("nan", "") for row in rows)]) + "\n")
    return path


@pytest.fixture
def rows():
    return table(*spring(noise=0.001))


def read(path, **settings):
    return read_recording(path, **{"states": ("x", "v"), "inputs": ("u",)} | settings)


# ---- the command


def test_planted_equations_come_back_with_honest_errors(tmp_path, rows, capsys):
    file = written(tmp_path / "spring.csv", rows)
    assert main(["fit", str(file), "--states", "x,v", "--inputs", "u", "--out", str(tmp_path / "o"), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads(lines[-1])
    found = {(each["target"], each["term"]): each for each in summary["terms"]}
    assert set(found) == {("dx", "v"), ("dv", "x"), ("dv", "v"), ("dv", "u")}
    for (target, term), each in found.items():
        planted = TRUTH[term] if target == "dv" else 1.0
        assert abs(each["coef"] - planted) < 4 * each["standard_error"]
        assert each["low"] < each["coef"] < each["high"]
        assert each["inclusion"] > 0.9
    assert min(summary["fit_percent"].values()) > 95
    assert summary["dead_time_steps"] == {"u": 0}
    assert summary["warnings"] == []
    assert (summary["transitions"], summary["held_out"]) == (320, 80)
    model = Model.load(tmp_path / "o" / "model.json")
    assert model.dt == pytest.approx(DT)
    assert json.loads((tmp_path / "o" / "fit.json").read_text()) == summary


def test_the_screen_shows_equations_errors_and_gains(tmp_path, rows, capsys):
    file = written(tmp_path / "spring.csv", rows)
    assert main(["fit", str(file), "--states", "x,v", "--inputs", "u", "--out", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr()
    assert "dx = " in shown.out
    assert " v\n" in shown.out
    rows = [line.split()[-5:] for line in shown.out.splitlines()]
    for each in json.loads((tmp_path / "o" / "fit.json").read_text())["terms"]:
        share = f"{100 * each['inclusion']:.0f}"
        assert [each["term"], f"{each['coef']:.4g}", f"{each['standard_error']:.1g}", share, "%"] in rows
    assert "d(dv)/du = +" in shown.out
    assert "model.json" in shown.out
    assert "Fit" in shown.err  # the bars


def test_the_same_file_gives_the_same_model(tmp_path, rows):
    file = written(tmp_path / "spring.csv", rows)
    for folder in ("a", "b"):
        main(["fit", str(file), "--states", "x,v", "--inputs", "u", "--out", str(tmp_path / folder), "--json"])
    one, two = ((tmp_path / folder / "model.json").read_bytes() for folder in "ab")
    assert one == two
    one, two = ((tmp_path / folder / "report.html").read_bytes() for folder in "ab")
    assert one == two


@pytest.mark.parametrize(
    ("option", "targets", "last", "least"),
    [
        (["--kinematics", "x:v"], {"dv"}, {"x", "v", "u"}, 90),
        (["--discrete"], {"delta_x", "delta_v"}, {"x", "v", "u"}, 90),
        (["--threshold", "0.75"], {"dx", "dv"}, {"x", "u"}, 60),  # above the damping of 0.5
    ],
)
def test_structures_and_regressors_can_be_chosen(tmp_path, rows, capsys, option, targets, last, least):
    file = written(tmp_path / "spring.csv", rows)
    out = str(tmp_path / "o")
    assert main(["fit", str(file), "--states", "x,v", "--inputs", "u", "--out", out, "--json", *option]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {each["target"] for each in summary["terms"]} == targets
    assert {each["term"] for each in summary["terms"] if each["target"] in ("dv", "delta_v")} == last
    assert min(summary["fit_percent"].values()) > least


@pytest.mark.parametrize("criterion", ["aicc", "bic"])
def test_information_criteria_keep_the_planted_terms(rows, tmp_path, criterion):
    data = read(written(tmp_path / "s.csv", rows)).data
    settings = FitSettings(criterion=criterion, kinematics=(("x", "v"),))
    assert settings.regressor().get_params()["criterion"] == criterion
    result = fit_recording(data, settings)
    assert {"x", "v", "u"} <= {each["term"] for each in result.terms()}


def test_sine_and_cosine_are_offered_on_request(tmp_path):
    """A driven pendulum; without its sine a polynomial has to do."""
    rng = np.random.default_rng(0)
    u, x = np.repeat(rng.uniform(-3, 3, 50), 10), [np.array([0.5, 0.0])]
    for held in u:
        y = x[-1]
        for _ in range(20):
            k = y + DT / 40 * np.array([y[1], -9.81 * np.sin(y[0]) - 0.2 * y[1] + held])
            y = y + DT / 20 * np.array([k[1], -9.81 * np.sin(k[0]) - 0.2 * k[1] + held])
        x.append(y)
    data = read(written(tmp_path / "p.csv", table(DT * np.arange(501), np.array(x), u))).data
    result = fit_recording(data, FitSettings(kinematics=(("x", "v"),), trig=("x",), degree=1))
    assert result.equations()[0].startswith("dv = ")
    terms = {each["term"]: each["coef"] for each in result.terms()}
    assert terms["sin(x)"] == pytest.approx(-9.81, rel=0.01)
    assert terms["u"] == pytest.approx(1.0, rel=0.01)


def test_rows_without_a_time_column_take_the_given_step(tmp_path, rows):
    file = written(tmp_path / "s.csv", [row[1:] for row in rows], "x,v,u")
    assert read(file, dt=DT).data.dt == pytest.approx(DT)
    with pytest.raises(ValueError, match=r"Name the time column or give the step.*Columns: x, v, u"):
        read(file)


def test_a_column_called_time_is_found_and_both_are_refused(tmp_path, rows):
    file = written(tmp_path / "s.csv", rows)
    assert read(file).time == "time"
    with pytest.raises(ValueError, match="not both"):
        read(file, time="time", dt=0.1)
    with pytest.raises(ValueError, match=r"has no column 'w'. Its columns: time, x, v, u"):
        read(file, inputs=("w",))


def test_episodes_become_trajectories_and_the_last_ones_judge(tmp_path, rows):
    parts = [["a", *row] for row in rows[:150]] + [["b", *row] for row in rows[:150]] + [["c", *row] for row in rows]
    data = read(written(tmp_path / "s.csv", parts, "run,time,x,v,u"), episode="run").data
    assert [len(t) for t in data] == [149, 149, 400]
    result = fit_recording(data, FitSettings())
    assert (len(result.fitted), len(result.held)) == (2, 1)


# ---- bad input


def test_a_pruned_actuator_is_an_error_and_can_be_allowed(tmp_path, capsys):
    file = written(tmp_path / "s.csv", table(*spring(gain=0.3)))
    command = ["fit", str(file), "--states", "x,v", "--inputs", "u", "--threshold", "0.4", "--out", str(tmp_path / "o")]
    assert main([*command, "--json"]) == 2
    error = capsys.readouterr().err
    assert "removed the whole effect of an input: 'u' from dv" in error
    assert "--allow-lost-inputs" in error
    assert main([*command, "--json", "--allow-lost-inputs"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "removed the whole effect" in " ".join(summary["warnings"])
    assert [each["removed"] for each in summary["actuators"]] == [False, True]


def test_gaps_and_missing_cells_cut_the_recording(tmp_path, rows):
    broken = rows[:100] + rows[120:]
    broken[200][1] = ""
    broken[300][3] = "nan"
    recording = read(written(tmp_path / "s.csv", broken))
    assert [len(t) for t in recording.data] == [99, 99, 99, 79]
    assert any("1 gap of up to 0.42 s" in note for note in recording.notes)
    assert any("2 rows have missing or infinite cells (first in line 202)" in note for note in recording.notes)
    # What is left of the equations does not notice.
    result = fit_recording(recording.data, FitSettings(kinematics=(("x", "v"),)), notes=recording.notes)
    assert {each["term"] for each in result.terms()} == {"x", "v", "u"}
    assert any("cut there" in text for text in result.warnings)


def test_repeated_rows_go_and_contradicting_ones_are_refused(tmp_path, rows):
    twice = [*rows[:50], rows[49], *rows[50:]]
    recording = read(written(tmp_path / "s.csv", twice))
    assert recording.data.steps == 400
    assert "1 repeated rows" in recording.notes[0]
    twice[50] = [twice[50][0], "9", *twice[50][2:]]
    with pytest.raises(ValueError, match=r"Lines 51 and 52 have the same time, 0.98 s, and different values"):
        read(written(tmp_path / "s.csv", twice))


def test_time_that_goes_back_is_refused_with_the_remedy(tmp_path, rows):
    with pytest.raises(ValueError, match=r"Time goes back in line 402.*--episode"):
        read(written(tmp_path / "s.csv", rows[:-1] + rows))


def test_uneven_steps_need_resampling_and_jitter_does_not(tmp_path):
    t, x, u = spring()
    rng = np.random.default_rng(0)
    shaken = t + rng.uniform(-0.02, 0.02, len(t)) * DT
    recording = read(written(tmp_path / "s.csv", table(shaken, x, u)))
    assert any("taken as equal" in note for note in recording.notes)
    kept = np.sort(rng.choice(len(t), 300, replace=False))
    uneven = table(t[kept], x[kept], u[kept[:-1]])
    with pytest.raises(ValueError, match="--resample"):
        read(written(tmp_path / "s.csv", uneven))
    recording = read(written(tmp_path / "s.csv", uneven), resample=True)
    (trajectory,) = recording.data
    bound = np.diff(t[kept]).max() ** 2 / 8 * 6.0  # of linear interpolation; no acceleration is above 6
    np.testing.assert_allclose(trajectory.x[:, 0], np.interp(trajectory.t, t, x[:, 0]), rtol=0, atol=bound)
    last = kept[np.searchsorted(t[kept], trajectory.t[:-1] + 1e-9, side="right") - 1]
    np.testing.assert_allclose(trajectory.u[:, 0], u[last])  # held, not interpolated
    assert any("interpolated" in note for note in recording.notes)


def test_outliers_are_counted_and_left_out_on_request(tmp_path):
    t, x, u = spring(noise=0.0005)
    spoiled = x.copy()
    hit = np.random.default_rng(3).choice(300, 12, replace=False)
    spoiled[hit] += 2.0
    data = read(written(tmp_path / "s.csv", table(t, spoiled, u))).data
    settings = FitSettings(kinematics=(("x", "v"),))
    plain, robust = (
        fit_recording(data, settings),
        fit_recording(data, FitSettings(kinematics=(("x", "v"),), robust=True)),
    )
    assert any("--robust" in text for text in plain.warnings)
    assert any("were left out" in text for text in robust.warnings)
    errors = {each["term"]: abs(each["coef"] - TRUTH[each["term"]]) for each in robust.terms()}
    assert set(errors) == set(TRUTH)
    assert max(errors.values()) < 0.05
    spoiled_errors = [abs(each["coef"] - TRUTH.get(each["term"], 0.0)) for each in plain.terms()]
    assert max(spoiled_errors) > 5 * max(errors.values()) or {each["term"] for each in plain.terms()} != set(TRUTH)


def test_robust_leaves_clean_data_alone(tmp_path, rows):
    data = read(written(tmp_path / "s.csv", rows)).data
    assert fit_recording(data, FitSettings(robust=True)).outliers == 0


def test_collinear_columns_are_named(tmp_path, rows):
    doubled = [[*row, f"{2 * float(row[1]):.12g}"] for row in rows]
    data = read(written(tmp_path / "s.csv", doubled, "time,x,v,u,y"), states=("x", "v", "y")).data
    result = fit_recording(data, FitSettings(degree=1))
    assert any("depend on each other exactly" in text and "y" in text for text in result.warnings)
    assert "y" in result.fit.dropped


def test_inputs_that_cannot_be_identified_are_named(tmp_path):
    t, x, u = spring()
    with pytest.raises(ValueError, match="Input 'u' never changes"):
        fit_recording(read(written(tmp_path / "s.csv", table(t, x, 0 * u + 0.1))).data, FitSettings())
    feedback = table(t, x, -x[:-1, 0] + 0.3 * x[:-1, 1])
    result = fit_recording(read(written(tmp_path / "s.csv", feedback)).data, FitSettings(degree=1))
    assert any("feedback" in text for text in result.warnings)


def test_a_library_larger_than_the_data_is_refused(tmp_path, rows):
    data = read(written(tmp_path / "s.csv", rows[:40])).data
    with pytest.raises(ValueError, match=r"56 terms and there are 31 transitions to fit. Lower `--degree`"):
        fit_recording(data, FitSettings(degree=5))
    assert any("may be accidents" in text for text in fit_recording(data, FitSettings()).warnings)


def test_whole_numbers_are_noticed(tmp_path):
    t, x, u = spring()
    coarse = read(written(tmp_path / "s.csv", table(t, np.round(20 * x), np.round(u))))
    assert sum("whole numbers" in note for note in coarse.notes) == 2


def test_a_state_that_never_changes_is_refused(tmp_path, rows):
    still = [[row[0], "1", *row[2:]] for row in rows]
    with pytest.raises(ValueError, match="State 'x' never changes"):
        fit_recording(read(written(tmp_path / "s.csv", still)).data, FitSettings())


def test_dead_time_is_a_warning(tmp_path):
    t, x, u = spring(noise=0.0005)
    early = np.concatenate([u[3:], u[:3]])  # what is logged is asked for three steps before it acts
    result = fit_recording(read(written(tmp_path / "s.csv", table(t, x, early))).data, FitSettings(degree=1))
    assert any("3 steps (0.06 s) late" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--states", "x,,v"], "separated by commas"),
        (["--states", "x,v", "--kinematics", "x-v"], "position:velocity pairs"),
        (["--states", "x,v", "--discrete", "--kinematics", "x:v"], "differential equations"),
        (["--states", "x,v", "--holdout", "1.5"], "between 0 and 1"),
        (["--states", "x,v", "--threshold", "-1"], "non-negative"),
        (["--states", "x,label"], "'label'"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(tmp_path, rows, capsys, arguments, message):
    file = written(tmp_path / "s.csv", [[*row, "text"] for row in rows], "time,x,v,u,label")
    assert main(["fit", str(file), *arguments, "--json", "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none.csv"), "--states", "x", "--json", "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert "none.csv" in error
    assert error.count("\n") == 1


def test_lists_on_the_command_line():
    assert names(" x, v ", "--states") == ("x", "v")
    assert names("", "--inputs") == ()
    assert pairs("x:v, y:w", "--kinematics") == (("x", "v"), ("y", "w"))


def test_the_error_of_a_lost_input_names_the_option_of_the_command(tmp_path):
    data = read(written(tmp_path / "s.csv", table(*spring(gain=0.3)))).data
    with pytest.raises(ActuatorError, match="give `--allow-lost-inputs`"):
        fit_recording(data, FitSettings(threshold=0.4, degree=1))


# ---- method, units, intervals


def summary_of(file, tmp_path, capsys, *options):
    out = str(tmp_path / "o")
    assert main(["fit", str(file), "--states", "x,v", "--inputs", "u", "--out", out, "--json", *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_noisy_data_are_fitted_by_integrals_and_quiet_methods_can_be_asked_for(tmp_path, capsys):
    file = written(tmp_path / "s.csv", table(*spring(noise=0.01)))
    auto, plain = (summary_of(file, tmp_path, capsys, *options) for options in ((), ("--method", "collocation")))
    assert (auto["method"], plain["method"]) == ("weak", "collocation")

    for each in auto["terms"]:
        truth = TRUTH[each["term"]] if each["target"] == "dv" else 1.0
        assert abs(each["coef"] - truth) < 4 * each["standard_error"]
    assert len(auto["terms"]) == 4
    assert set(auto["prediction_interval"]["coverage"]) == {"dx", "dv"}
    assert all(share > 0.7 for share in auto["prediction_interval"]["coverage"].values())


def test_difference_equations_have_no_rates_to_average(tmp_path, rows, capsys):
    file = written(tmp_path / "s.csv", rows)
    assert main(["fit", str(file), "--states", "x,v", "--discrete", "--method", "weak", "--json"]) == 2
    assert "have no rates" in capsys.readouterr().err


def test_units_are_shown_with_the_coefficients(tmp_path, rows, capsys):
    file = written(tmp_path / "s.csv", rows)
    summary = summary_of(file, tmp_path, capsys, "--units", "x=m,v=m/s,u=N")
    found = {(each["target"], each["term"]): each["unit"] for each in summary["terms"]}
    assert found[("dx", "v")] == "1"
    assert found[("dv", "x")] == "1/s^2"
    assert found[("dv", "u")] == "1/kg"
    assert "1/kg" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "x=m,v=m/s", "--trig", "x"], "sin needs an angle in rad; x is in m"),
        (["--units", "x=m,v=km/h", "--kinematics", "x:v"], "d(x)/dt is in m/s, but v is in"),
        (["--units", "w=m"], "`--units` names w; the states and inputs are x, v, u"),
        (["--units", "x=m^^2"], "The unit 'm^^2'"),
        (["--units", "x:m"], "column=unit pairs"),
        (["--units", "x=m,x=km"], "each column once"),
    ],
)
def test_units_that_do_not_match_are_refused_with_the_remedy(tmp_path, rows, capsys, options, message):
    file = written(tmp_path / "s.csv", rows)
    assert main(["fit", str(file), "--states", "x,v", "--inputs", "u", *options, "--json"]) == 2
    assert message in capsys.readouterr().err


def test_a_target_of_pure_noise_gets_no_term(rows, tmp_path):
    rng = np.random.default_rng(5)
    noisy = [[*row, f"{value:.12g}"] for row, value in zip(rows, np.cumsum(rng.normal(size=len(rows))), strict=True)]
    data = read(written(tmp_path / "s.csv", noisy, "time,x,v,u,w"), states=("w",)).data
    for criterion in ("ebic", "cv", "bic"):
        result = fit_recording(data, FitSettings(method="collocation", criterion=criterion, degree=1))
        assert result.equations() == ["dw = 0"]


def test_the_drift_of_a_conserved_quantity_is_reported(tmp_path, capsys):
    from sindyrl.expression import Variable
    from sindyrl.fit_command import _figures
    from sindyrl.trajectory import Dataset, Trajectory

    t = DT * np.arange(401)
    free = Trajectory(t, np.column_stack([np.cos(2 * t), -2 * np.sin(2 * t)]), states=("x", "v"))
    x, v = Variable("x"), Variable("v")
    result = fit_recording(Dataset((free,)), FitSettings(degree=1), conserved=2.0 * x * x + 0.5 * v * v)
    assert result.drift.size == pytest.approx(2.0)
    assert result.drift.data_spread < 1e-9
    assert result.drift.model_spread < 1e-3
    assert _figures(result)["drift"]["diverged"] == 0
