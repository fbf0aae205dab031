"""Figures contain what they claim, and turn into the same self-contained text every time."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from sindyrl import plot
from sindyrl.expression import Variable, clip
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.plot import MethodResult
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Derivative, Increment, SecondOrder
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task
from sindyrl.trajectory import Trajectory


def system(states, structure, coef, *, policy):
    """A task, a model over monomials of degree 1 and a policy, all by hand."""
    inputs = (Signal("u", "N", -1.0, 1.0),)
    names = tuple(signal.name for signal in states)
    library = polynomial_library(degree=1).bind(structure.features_of(names), ("u",))
    rates = SparseMap(library, np.array(coef, dtype=float), structure.targets(names))
    model = Model(rates, structure, states, inputs, 0.1, np.array([[-1.0, 1.0]] * len(states)))
    task = Task(
        name="by hand",
        states=states,
        inputs=inputs,
        dt=0.1,
        horizon=50,
        reward=SymbolicMap([*states, *inputs], {"reward": -(Variable("u") ** 2)}),
        reset=lambda rng, n: np.zeros((n, len(states))),
        structure=structure,
        library=polynomial_library(degree=1),
        policy_library=polynomial_library(degree=1),
        failure_reward=-1.0,
    )
    return task, model, SymbolicMap(policy[0], {"u": clip(policy[1], -1.0, 1.0)})


@pytest.fixture
def pendulum():
    states = (Signal("c"), Signal("s"), Signal("w", "rad/s", -9.0, 9.0))
    structure = SecondOrder(angles={("c", "s"): "w"})
    # dw = 2 s + 3 u
    return system(states, structure, [[0.0, 2.0, 0.0, 3.0]], policy=(["s"], -Variable("s")))


@pytest.fixture
def oscillator():
    states = (Signal("p", "m"), Signal("q", "m"), Signal("z", "K", 1.0, 2.0))
    coef = [[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 1.0], [0.0, 0.0, -1.0, 0.0]]
    return system(states, Derivative(), coef, policy=(["p", "q", "z"], -Variable("q")))


def turning(angle, speed, rewards=True):
    """A recording of an angle, in radians."""
    x = np.column_stack([np.cos(angle), np.sin(angle), speed])
    steps = len(x) - 1
    r = np.linspace(0.0, 1.0, steps) if rewards else None
    u = np.linspace(-1.0, 1.0, steps)[:, None]
    return Trajectory.uniform(x, u, r, dt=0.1, states=("c", "s", "w"), inputs=("u",))


def line(axes, color):
    """The data of the only line of this color."""
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_color() == color]
    return found.get_xydata()


# ---- learned against true


def test_learned_against_true_draws_the_data_and_titles_the_error():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((50, 2)) * [1.0, 1e3] + [0.0, 5.0]
    learned = true + rng.standard_normal((50, 2)) * [0.1, 20.0]
    figure = plot.learned_against_true(true, learned, ["dv", "dw"], ["m/s^2", ""])
    for target in range(2):
        left, right = figure.axes[2 * target], figure.axes[2 * target + 1]
        np.testing.assert_array_equal(line(left, plot.COLORS[0]), np.column_stack([true, learned])[:, target::2])
        np.testing.assert_array_equal(line(right, plot.COLORS[1])[:, 1], (learned - true)[:, target])
        error = np.linalg.norm(learned[:, target] - true[:, target]) / np.linalg.norm(true[:, target])
        stated = float(re.search(r"error ([\d.]+) %", left.get_title(loc="left"))[1])
        assert stated == pytest.approx(100 * error, rel=0.05)
    assert figure.axes[0].get_xlabel() == "true dv [m/s²]"
    assert figure.axes[2].get_xlabel() == "true dw"


def test_the_error_does_not_depend_on_the_unit_and_is_zero_for_an_exact_model():
    true, learned = np.random.default_rng(1).standard_normal((2, 30, 1))
    np.testing.assert_allclose(plot.relative_rms(true, learned), plot.relative_rms(1e6 * true, 1e6 * learned))
    assert plot.relative_rms(true, true) == 0.0
    assert plot.relative_rms(np.zeros((3, 1)), np.ones((3, 1))) == 1.0


def test_a_long_column_is_thinned_but_not_its_worst_rows():
    true = np.concatenate([np.zeros(9000), np.linspace(-1.0, 1.0, 1000)])[:, None]
    learned = true.copy()
    learned[1234] += 7.0
    figure = plot.learned_against_true(true, learned, ["a"])
    drawn = line(figure.axes[1], plot.COLORS[1])
    assert len(drawn) <= 400
    assert drawn[:, 1].max() == 7.0
    assert len(np.unique(drawn[:, 0].round(1))) == 21  # the whole range, although it is mostly at rest


def test_learned_against_true_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"must have shapes \(n, 1\). Got \(3, 1\) and \(2, 1\)"):
        plot.learned_against_true(np.zeros((3, 1)), np.zeros((2, 1)), ["a"])


# ---- an episode


def test_an_episode_shows_states_held_inputs_and_the_running_reward(oscillator):
    task, _, _ = oscillator
    x = np.random.default_rng(2).standard_normal((11, 3))
    u, r = np.arange(10.0)[:, None], np.full(10, 0.5)
    trajectory = Trajectory.uniform(x, u, r, dt=0.1, states=("p", "q", "z"), inputs=("u",))
    positions, temperature, held, reward = plot.episode(trajectory, task).axes
    for axes, column, color in ((positions, 0, 0), (positions, 1, 1), (temperature, 2, 0)):
        np.testing.assert_array_equal(line(axes, plot.COLORS[color]), np.column_stack([trajectory.t, x[:, column]]))
    np.testing.assert_array_equal(line(held, plot.COLORS[0])[:, 1], [*range(10), 9])
    assert held.get_lines()[0].get_drawstyle() == "steps-post"
    np.testing.assert_allclose(line(reward, plot.COLORS[2])[:, 1], 0.5 * np.arange(11))
    assert [axes.get_title(loc="left") for axes in (positions, temperature, held)] == ["p, q [m]", "z [K]", "u [N]"]
    assert [text.get_text() for text in positions.get_legend().get_texts()] == ["p", "q"]


def test_an_episode_cut_short_still_states_its_whole_return(oscillator):
    task, _, _ = oscillator
    trajectory = Trajectory.uniform(
        np.ones((11, 3)), np.ones((10, 1)), np.ones(10), dt=0.1, states=("p", "q", "z"), inputs=("u",)
    )
    *_, reward = plot.episode(trajectory, task, until=0.4).axes
    np.testing.assert_allclose(line(reward, plot.COLORS[2]), np.column_stack([[0, 0.1, 0.2, 0.3, 0.4], range(5)]))
    assert reward.get_title(loc="left").endswith("return of the episode 10")


# ---- phase portrait


def test_an_angle_is_unwound_and_ends_within_half_a_turn_of_zero(pendulum):
    angle = np.linspace(-np.pi, 6.0, 40)
    trajectory = turning(angle, np.linspace(0.0, 2.0, 40))
    axes = plot.phase_portrait([trajectory], *pendulum).axes[0]
    track = next(drawn for drawn in axes.get_lines() if len(drawn.get_xydata()) == 40).get_xydata()
    np.testing.assert_allclose(track[:, 0], np.degrees(angle - 2 * np.pi), atol=1e-9)
    np.testing.assert_array_equal(track[:, 1], trajectory.x[:, 2])
    assert axes.get_xlabel() == "angle of (c, s) [degrees]"
    assert axes.get_ylabel() == "angular velocity w [rad/s]"


def test_an_angle_that_spins_is_shown_within_one_turn(pendulum):
    angle = np.linspace(0.0, 60.0, 400)
    axes = plot.phase_portrait([turning(angle, np.full(400, 6.0))], *pendulum).axes[0]
    drawn = max((found.get_xydata() for found in axes.get_lines()), key=len)
    assert np.nanmax(np.abs(drawn[:, 0])) <= 180.0
    assert np.isnan(drawn[:, 0]).sum() == 10  # one break for each half turn passed: 60 rad are 9.55 turns


def test_the_field_is_the_closed_loop_of_the_model(pendulum, monkeypatch):
    task, model, policy = pendulum
    seen = {}
    monkeypatch.setattr(
        matplotlib.axes.Axes, "streamplot", lambda axes, *field, **style: seen.update(field=field, style=style)
    )
    plot.phase_portrait([turning(np.linspace(0.1, 3.0, 20), np.linspace(-1, 1, 20))], task, model, policy)
    angle, speed, turn, push = seen["field"]
    sine = np.sin(np.radians(angle))
    np.testing.assert_allclose(turn, np.degrees(np.tile(speed[:, None], (1, len(angle)))))
    # dw = 2 s + 3 u with u = -s, which the limits of the input do not touch
    np.testing.assert_allclose(push, np.tile(-sine, (len(speed), 1)), atol=1e-12)


def test_without_an_angle_the_first_two_states_are_shown_and_the_rest_is_at_its_limit(oscillator, monkeypatch):
    task, model, policy = oscillator
    seen = []
    monkeypatch.setattr(matplotlib.axes.Axes, "streamplot", lambda axes, *field, **style: seen.append(field))
    x = np.column_stack([np.linspace(-1, 1, 9), np.linspace(0, 0.5, 9), np.full(9, 1.5)])
    trajectory = Trajectory.uniform(x, np.zeros((8, 1)), dt=0.1, states=("p", "q", "z"), inputs=("u",))
    axes = plot.phase_portrait([trajectory], task, model, policy).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("p [m]", "q [m]")
    p, q, dp, dq = seen[0]
    np.testing.assert_allclose(dp, np.tile(q[:, None], (1, len(p))))
    np.testing.assert_allclose(dq, -p[None, :] - q[:, None], atol=1e-12)
    plane = plot._plane(task, model)
    np.testing.assert_array_equal(plane.place(np.array([[0.3, 0.4]])), [[0.3, 0.4, 1.0]])  # 0 K is out of range


def test_a_model_in_discrete_time_has_a_phase_portrait_too():
    states = (Signal("p", "m"), Signal("q", "m"))
    task, model, policy = system(
        states, Increment(), [[0.0, 0.1, 0.0], [-0.1, 0.0, 0.1]], policy=(["p", "q"], -Variable("q"))
    )
    x = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    trajectory = Trajectory.uniform(x, np.zeros((2, 1)), dt=0.1, states=("p", "q"), inputs=("u",))
    assert plot.phase_portrait([trajectory], task, model, policy).axes[0].collections


# ---- comparisons


def test_returns_stand_at_their_steps_and_a_method_without_returns_is_a_line():
    own = MethodResult("ours", "measured here, report.json", (1250,), (870, 860, 850))
    curve = MethodResult("PPO", "measured here, ppo.json", (1e4, 1e5, 1e6), (10, 400, 800))
    published = MethodResult("SINDy-RL", "published, somewhere", (8000,))
    figure = plot.return_against_steps([own, curve, published])
    dots, learning, mark = figure.axes[0].get_lines()
    np.testing.assert_array_equal(dots.get_xydata(), [[1250, 870], [1250, 860], [1250, 850]])
    assert (dots.get_linestyle(), learning.get_linestyle()) == ("None", "-")
    np.testing.assert_array_equal(learning.get_xydata()[:, 1], [10, 400, 800])
    assert list(mark.get_xdata()) == [8000, 8000]
    assert figure.axes[0].get_xscale() == "log"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [f"{result.method}: {result.source}" for result in (own, curve, published)]


def test_a_published_result_is_hollow():
    figure = plot.return_against_steps(
        [MethodResult("a", "published, b", (10, 10), (1, 2)), MethodResult("c", "measured here, d", (5,), (1,))]
    )
    theirs, ours = figure.axes[0].get_lines()
    assert (theirs.get_fillstyle(), ours.get_fillstyle()) == ("none", "full")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "somewhere"}, "must begin with 'measured here' or 'published'"),
        ({"steps": ()}, "at least one"),
        ({"steps": (0,)}, "positive"),
        ({"steps": (1, 2), "returns": (1, 2, 3)}, "must have 2 entries. Got 3"),
        ({"returns": (float("nan"),)}, "finite"),
    ],
)
def test_a_result_says_where_it_is_from_and_fits(wrong, message):
    with pytest.raises(ValueError, match=message):
        MethodResult(**({"method": "m", "source": "measured here, f", "steps": (1,)} | wrong))


def test_the_pruning_path_runs_from_many_terms_to_few():
    figure = plot.terms_against_score([(12, 5.0), (11, 4.5), (10, 4.0)], dense_score=6.0)
    axes = figure.axes[0]
    np.testing.assert_array_equal(line(axes, plot.COLORS[0]), [[12, 5.0], [11, 4.5], [10, 4.0]])
    assert axes.get_xlim()[0] > 12 > 10 > axes.get_xlim()[1]
    assert [text.get_text() for text in axes.texts] == ["before removing any", "10 terms"]


# ---- text


def test_the_text_of_a_figure_is_well_formed_self_contained_and_repeatable():
    true = np.linspace(-1, 1, 30)[:, None]
    one, two = (plot.to_svg(plot.learned_against_true(true, true**3, ["a"]), "rates") for _ in range(2))
    assert one == two
    assert "http" not in one
    tree = ElementTree.fromstring(one)
    identifiers = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(set(identifiers)) == len(identifiers)
    assert all(identifier.startswith("rates-") for identifier in identifiers)
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one)
    assert targets
    assert {first or second for first, second in targets} <= set(identifiers)
    assert "What is left" in [element.text for element in tree.iter()]  # letters stay letters
    assert f"var(--c1, {plot.COLORS[0]})" in one


def test_names_cannot_leave_their_place_in_a_figure():
    true = np.linspace(-1, 1, 30)[:, None]
    hostile = "</text></svg><script>alert(1)</script>--> $\\frac{1}{$ #0072b2 1.23456 xlink:href"
    text = plot.to_svg(plot.learned_against_true(true, true, ["a"], [hostile]), "rates")
    assert "<script" not in text
    assert any(hostile in (element.text or "") for element in ElementTree.fromstring(text).iter())


def test_the_name_of_a_figure_is_an_identifier():
    with pytest.raises(ValueError, match="letters, digits"):
        plot.to_svg(plot.terms_against_score([(1, 1.0)]), 'a" onload="x')


def test_no_global_state_of_matplotlib_is_touched():
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams)\n"
        "from sindyrl import plot\n"
        "plot.to_svg(plot.terms_against_score([(2, 1.0), (1, 0.5)]), 'a')\n"
        "assert dict(matplotlib.rcParams) == before and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
