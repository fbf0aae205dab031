"""The shared vocabulary, and that the tests really check the shapes written in signatures."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sindyrl.protocols import Outcome, Plan, Resettable


def test_a_plan_has_one_state_more_than_inputs():
    settings = {"cost": 0.0, "outcome": Outcome.solved, "state": None}
    assert len(Plan(u=np.zeros((3, 1)), x=np.zeros((4, 2)), **settings).x) == 4
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        Plan(u=np.zeros((3, 1)), x=np.zeros((3, 2)), **settings)


def test_every_failure_says_what_to_do():
    assert [outcome for outcome in Outcome if outcome.ok] == [Outcome.solved]
    for outcome in Outcome:
        sentences = str(outcome).rstrip(".").split(". ")
        assert outcome.ok or len(sentences) >= 2, f"{outcome.name} names no remedy"


def test_only_policies_with_a_reset_are_resettable():
    class Forgetful:
        def reset(self, rng):
            pass

    assert isinstance(Forgetful(), Resettable)
    assert not isinstance(lambda x: x, Resettable)
