"""Laws are refined, and terms of them exchanged, in x_{k+1} = x_k + 0.1 u_k, where the best law is known."""

import numpy as np
import pytest

from benchmarks.interpretable.refinement import Refinement
from sindyrl.expression import Variable
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import Increment
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

STATES, INPUTS = (Signal("x", "", -10.0, 10.0),), (Signal("u", "", -5.0, 5.0),)
LIBRARY = polynomial_library(degree=3).bind(("x",), ())


def riccati():
    """(best gain, cost p of a state, reward and cost p x^2 after the step).

    The reward is of the next state: minimize the sum of (x + 0.1 u)^2 + 0.1 u^2.
    """
    p = 1.0
    for _ in range(500):
        gain = 0.1 * p / (0.01 * p + 0.1)
        p = 1.0 + p * (1.0 - 0.1 * gain) ** 2 + 0.1 * gain**2
    return gain, p


def law(*coef):
    return SparseMap(LIBRARY, np.array([coef]), ("u",), ("",))


def laws(*rows):
    return SparseMap(LIBRARY, np.array(rows), ("u", "f"), ("", ""))


@pytest.fixture
def refinement():
    return planted(1)


def planted(n_inputs, **changes):
    """The inputs push together, and each costs what it does."""
    x, u, f = Variable("x"), Variable("u"), Variable("f")
    inputs = (INPUTS[0], Signal("f", "", -5.0, 5.0))[:n_inputs]
    effort = 0.1 * u**2 if n_inputs == 1 else 0.1 * u**2 + 0.1 * f**2
    task = Task(
        "scalar", STATES, inputs, 0.1, 200, SymbolicMap([*STATES, *inputs], {"r": -(x**2) - effort}),
        lambda rng, n: rng.uniform(-1.0, 1.0, (n, 1)), Increment(), polynomial_library(degree=3),
        polynomial_library(degree=3),
    )  # fmt: skip
    bound = polynomial_library(degree=1).bind(("x",), tuple(signal.name for signal in inputs))
    rates = SparseMap(bound, np.array([[0.0, *[0.1] * n_inputs]]), ("delta_x",), ("",))
    model = Model(rates, Increment(), STATES, inputs, 0.1, np.array([[-1.0, 1.0]]))
    return Refinement(task, model, LIBRARY, states=8, rng=np.random.default_rng(0), **changes)


def test_refining_finds_the_best_gain_and_stays_among_its_terms(refinement):
    before = refinement.model_steps
    found, score = refinement.refined(law(-0.5, 0.0, 0.0), 25)
    gain, p = riccati()
    assert found.library.names == ("x",)
    assert found.coef[0, 0] == pytest.approx(-gain, rel=0.02)
    # From there on it costs (p - 1) x^2, and x^2 is 1/3 in the mean over 2048 states, give or take 2 %.
    assert score == pytest.approx(-(p - 1.0) / 3.0, rel=0.08)
    assert refinement.model_steps > before


def test_a_law_that_only_switches_is_refined_to_one_that_does_not(refinement):
    """Nothing near u = -1e5 x does better: all of it is at the limits, wherever the state is."""
    found, _ = refinement.refined(law(-1e5, 0.0, 0.0), 25)
    assert found.coef[0, 0] == pytest.approx(-riccati()[0], rel=0.02)


def test_the_wrong_term_is_exchanged_for_the_right_one(refinement):
    found = refinement.exchanged(law(0.0, 0.0, -1.0), np.array([[True, True, True]]), 25)
    assert found.library.names == ("x",)
    assert found.coef[0, 0] == pytest.approx(-riccati()[0], rel=0.02)


def test_only_terms_that_are_allowed_come_in(refinement):
    found = refinement.exchanged(law(0.0, 0.0, -1.0), np.array([[False, True, True]]), 10)
    assert found.library.names == ("x^3",)


def test_a_law_with_the_right_term_keeps_it(refinement):
    found = refinement.exchanged(law(-1.0, 0.0, 0.0), np.array([[True, True, True]]), 25)
    assert found.library.names == ("x",)


def worth(refinement, monkeypatch, *values):
    """Each term that an input uses earns what is planted, whatever its coefficient."""
    monkeypatch.setattr(refinement, "_scores", lambda weights, _: ((weights != 0) * np.array(values)).sum(axis=(1, 2)))
    return refinement


def test_the_least_missed_term_gives_way_first(refinement, monkeypatch):
    """With one try: of x^2, x^3 the first; if the most missed went first, x and x^2 would be left."""
    planted = worth(refinement, monkeypatch, [3.0, 1.0, 2.0])
    found = planted.exchanged(law(0.0, 1.0, 1.0), np.array([[True, True, True]]), 1, tries=1)
    assert found.library.names == ("x", "x^3")


def test_an_input_keeps_its_last_term(monkeypatch):
    """The second input's only term is worth next to nothing, and would be the first to go."""
    refinement = worth(planted(2), monkeypatch, [5.0, 0.0, 2.0], [0.0, 0.0, 0.1])
    start, allowed = laws([0.0, 0.0, 1.0], [0.0, 0.0, 1.0]), np.array([[True] * 3, [False, False, True]])
    found = refinement.exchanged(start, allowed, 1, tries=1)
    np.testing.assert_array_equal(found.coef != 0, [[True, False], [False, True]])


def test_an_input_without_terms_stays_without_where_none_can_be_spared():
    refinement = planted(2)
    found = refinement.exchanged(laws([-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]), np.array([[True, False, False]] * 2), 3)
    assert found.library.names == ("x",)
    assert found.coef[0, 0] != 0
    assert found.coef[1, 0] == 0


def test_a_law_of_no_terms_is_scored_and_stays(refinement):
    found, score = refinement.refined(law(0.0, 0.0, 0.0), 3)
    assert not found.coef.any()
    # 200 steps of -x^2, which is 1/3 in the mean over 2048 states, give or take 2 %.
    assert score == pytest.approx(-200.0 / 3.0, rel=0.08)


def test_the_worst_tenth_counts_as_asked():
    """Where nothing acts, x stays, and its square has quantiles: E[x^2 | the largest tenth] = (1 - 0.9^3) / 0.3."""
    _, score = planted(1, worst=1.0).refined(law(0.0, 0.0, 0.0), 1)
    assert score == pytest.approx(-200.0 * (1.0 - 0.9**3) / 0.3, rel=0.02)
