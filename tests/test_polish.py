"""Polishing: coefficients climb in returns, never end worse than they began, and long steps leave lesser hills."""

import numpy as np
import pytest

from sindyrl.distill.polish import polished
from sindyrl.learn.scoring import objective
from tests.distill_cases import perturbed_scorer, rng
from tests.systems import CART_TASK


def test_polishing_climbs_and_is_never_worse_than_where_it_began():
    scorer = perturbed_scorer()
    exam = scorer.scenarios(8, 0.05, rng(1))
    weights = np.zeros((1, len(scorer.library)))
    weights[0, scorer.library.index("x")], weights[0, scorer.library.index("v")] = -0.1, 0.02

    def worth(w):
        return float(objective(scorer.returns(w[None], exam)[0]))

    better = polished(scorer, weights, objective, rng(), generations=30, population=12, scenarios=8, exam=exam)
    assert worth(better) > 0.8 * worth(weights)  # costs: nearer to zero is better
    np.testing.assert_array_equal(better != 0, weights != 0)
    # At the top, one generation of long steps finds nothing better.
    best = polished(scorer, better, objective, rng(), generations=1, population=4, step=1.0, exam=exam)
    assert worth(best) >= worth(better)
    before = scorer.model_steps
    polished(scorer, better, objective, rng(), generations=30, population=4, exam=exam, enough=-1e9)
    assert scorer.model_steps - before <= (6 + 1) * 32 * 8 * CART_TASK.horizon  # a batch is padded to 32 policies


class TwoHills:
    """In place of a scorer: returns of a single weight, with a hill at 1 and one twice as high at 4."""

    def scenarios(self, count, spread, rng):
        return None

    def returns(self, weights, scenarios):
        w = weights[:, 0, 0]
        return (np.exp(-4.0 * (w - 1.0) ** 2) + 2.0 * np.exp(-4.0 * (w - 4.0) ** 2))[:, None]


def test_longer_steps_leave_a_lesser_optimum_that_short_ones_stay_in():
    def ended(step):
        settings = {"generations": 60, "population": 16, "exam": None, "step": step}
        return polished(TwoHills(), np.array([[1.1]]), lambda r: r[:, 0], rng(), **settings)[0, 0]

    assert ended(0.05) == pytest.approx(1.0, abs=0.01)
    assert ended(2.0) == pytest.approx(4.0, abs=0.01)
