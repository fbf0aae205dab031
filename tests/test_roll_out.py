"""Asking a teacher: in batches or one by one; its roll-outs return what compiled ones do, its memory stays in order."""

import dataclasses

import numpy as np
import pytest

from sindyrl.distill.roll_out import RollOuts
from sindyrl.distill.teacher import Teacher
from sindyrl.expression import Variable
from sindyrl.learn.scoring import Scorer, policy_terms
from sindyrl.symbolic_map import SymbolicMap
from tests.distill_cases import Unlimited, linear, perturbed_scorer, rng
from tests.systems import CART, CART_TASK, FORCE, cart_model


class Remembering:
    """A teacher whose answer depends on how many states it has seen since its last reset."""

    def __init__(self):
        self.resets, self.seen = 0, 0

    def reset(self, rng):
        self.resets, self.seen = self.resets + 1, 0

    def __call__(self, x):
        assert x.shape == (2,)
        self.seen += 1
        return np.array([0.001 * self.seen])


def test_a_teacher_is_asked_in_batches_only_if_it_answers_them_like_single_states():
    batched = Teacher(CART_TASK, linear, rng())
    assert batched.pointwise
    x = rng(1).uniform(-1, 1, (5, 2))
    np.testing.assert_array_equal(batched(x), linear(x))
    assert batched.calls == 5
    assert not Teacher(CART_TASK, lambda x: np.array([x[0] + x[1]]), rng()).pointwise
    held = []
    assert not Teacher(CART_TASK, lambda x: held.append(x) or np.clip(held[0][..., :1], -1, 1), rng()).pointwise
    remembering = Teacher(CART_TASK, Remembering(), rng())
    assert not remembering.pointwise
    np.testing.assert_allclose(remembering(x)[:, 0], 0.001 * np.arange(1, 6))
    np.testing.assert_allclose(remembering.afresh(x, rng())[:, 0], 0.001)


def test_a_teacher_with_named_inputs_gets_these_and_is_kept_within_the_limits():
    policy = SymbolicMap(["v"], {"u": -9.0 * Variable("v")})
    x = np.array([[5.0, 0.1], [5.0, 0.2], [5.0, -0.05]])
    np.testing.assert_allclose(Teacher(CART_TASK, policy, rng())(x), [[-0.9], [-1.0], [0.45]])
    wanted = Teacher(CART_TASK, Unlimited(), rng())
    np.testing.assert_allclose(wanted.wanted(x, rng()), -3 * x[:, :1] - 4 * x[:, 1:])
    np.testing.assert_allclose(Teacher(CART_TASK, linear, rng()).wanted(x, rng()), linear(x))


@pytest.fixture(scope="module")
def scorer():
    return perturbed_scorer()


def test_roll_outs_step_by_step_return_what_the_compiled_ones_do(scorer):
    drawn = scorer.scenarios(12, 0.1, rng(1))
    drawn = dataclasses.replace(drawn, x0=rng(2).uniform(-1.8, 1.8, drawn.x0.shape))  # some leave the ranges
    coef = rng(3).normal(size=(1, len(scorer.library)))
    compiled = scorer.returns((coef / scorer.term_scale)[None], drawn)[0]
    roll_outs = RollOuts(scorer)

    def policy(x):
        return np.clip(scorer.library.features(x) @ coef.T, -1.0, 1.0)

    before = scorer.model_steps
    seen = roll_outs.visited(Teacher(CART_TASK, policy, rng()), drawn, rng())
    np.testing.assert_allclose(seen.returns, compiled, rtol=1e-4)
    assert scorer.model_steps - before == 12 * CART_TASK.horizon
    single = roll_outs.visited(Teacher(CART_TASK, lambda x: policy(x[None])[0][:1] + 0 * x[0], rng()), drawn, rng())
    np.testing.assert_allclose(single.returns, compiled, rtol=1e-4)
    assert 12 < len(single.x) == len(seen.x) < 12 * CART_TASK.horizon
    np.testing.assert_allclose(np.sort(single.x[:, 0]), np.sort(seen.x[:, 0]), atol=1e-5)


def test_the_student_drives_and_the_teacher_labels(scorer):
    roll_outs, drawn = RollOuts(scorer), scorer.scenarios(6, 0.0, rng(1))
    teacher = Teacher(CART_TASK, linear, rng())

    def pushing(x):
        return np.ones((len(x), 1))

    away = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=0.0)
    assert away.x[:, 1].max() > 1.5  # nowhere near where the teacher goes
    np.testing.assert_array_equal(away.u, linear(away.x))
    home = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=1.0)
    assert home.x[:, 1].max() < 0.5
    half = roll_outs.visited(teacher, drawn, rng(), student=pushing, share=0.5, length=10)
    assert len(half.x) == 60
    assert home.x[:, 1].max() < half.x[:, 1].max() < away.x[:, 1].max()


def test_a_teacher_with_memory_is_asked_in_the_order_of_each_roll_out_after_a_reset(scorer):
    policy = Remembering()
    teacher = Teacher(CART_TASK, policy, rng())
    resets = policy.resets
    seen = RollOuts(scorer).visited(teacher, scorer.scenarios(3, 0.0, rng(1)), rng(), length=4)
    assert policy.resets - resets == 3
    np.testing.assert_allclose(seen.u[:, 0], 0.001 * np.tile([1, 2, 3, 4], 3))


def test_a_teacher_of_single_states_fails_as_expensively_as_one_of_batches():
    """With a task that can end, too: leaving the ranges costs every step that was left, the end costs nothing."""
    position = Variable("x")
    ends = SymbolicMap([*CART, *FORCE], {"there": position - 0.9}, name="ends")
    task = dataclasses.replace(CART_TASK, ends=ends, mirror=())
    model = cart_model()
    scorer = Scorer(task, model, policy_terms(task, model, rng())[0])
    x0 = np.array([[-0.9, 0.8, -0.5, 0.0], [-0.9, 0.9, -0.9, 0.0]])
    scenarios = dataclasses.replace(scorer.scenarios(4, 0.0, rng()), x0=x0)

    def push(x):
        return np.full((*np.shape(x)[:-1], 1), -1.0) + 2.0 * (x[..., :1] > 0.5)

    def of_one(x):
        assert np.ndim(x) == 1
        return push(x)

    returns = [
        RollOuts(scorer).visited(Teacher(task, each, rng()), scenarios, rng()).returns for each in (push, of_one)
    ]
    np.testing.assert_allclose(*returns, rtol=1e-5)
    assert returns[0][1] > -10.0 > -100.0 > returns[0][0]  # at the end soon, and failing from soon on
