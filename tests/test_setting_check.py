"""Every setting of every learner that is a number refuses what is none, by name, where it is given."""

import dataclasses
import math

import numpy as np
import pytest

from sindyrl.learn.bptt import BPTTSettings
from sindyrl.learn.dyna_settings import DynaSettings
from sindyrl.learn.mb_mpo import MBMPOSettings
from sindyrl.learn.neural_model import NeuralSettings
from sindyrl.learn.policy_search import SearchSettings
from sindyrl.learn.population import PopulationSettings
from sindyrl.learn.ppo import PPOSettings
from sindyrl.learn.setting_check import check_number, checked_numbers, whole

KINDS = (PPOSettings, MBMPOSettings, BPTTSettings, NeuralSettings, DynaSettings, PopulationSettings, SearchSettings)
NUMBERS = [
    (kind, field.name, "None" in field.type)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if field.type.removesuffix(" | None") in ("int", "float")
]
TUPLES = [
    (kind, field.name)
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if field.type in ("tuple[int, ...]", "tuple[float, ...]")
]


def refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"^`{kind.__name__}\({name}=\.\.\.\)` must be .*\. Got "):
        kind(**{name: value})


def test_there_are_settings_to_check():
    assert {kind for kind, _, _ in NUMBERS} == set(KINDS)
    assert len(NUMBERS) > 50
    assert len(TUPLES) >= 6


@pytest.mark.parametrize(("kind", "name", "optional"), NUMBERS, ids=str)
def test_what_is_no_number_is_refused_by_name(kind, name, optional):
    for value in ("low", "1", True, np.nan, float("-inf"), [1.0], 1j, *([] if optional else [None])):
        refused(kind, name, value)
    if optional:
        kind(**{name: None})


@pytest.mark.parametrize(("kind", "name"), TUPLES, ids=str)
def test_what_is_no_sequence_of_numbers_is_refused_by_name(kind, name):
    for value in ((), 64, None, "64", ("low",), (True,), (np.nan,), (None,), (64, "low")):
        refused(kind, name, value)
    assert getattr(kind(**{name: [64, 32]}), name) == (64, 32)


@pytest.mark.parametrize("choices", [(), 0.1, None, "0.1", ("low",), (True,), (np.nan,), (np.inf,)])
def test_what_a_number_mutates_to_is_a_number(choices):
    refused(PopulationSettings, "mutations", {"clip": choices})


def test_numbers_of_any_library_are_numbers():
    for value in (1, 1.0, np.float32(1.0), np.float64(1.0), np.int64(1)):
        assert PPOSettings(log_std=value).log_std == value
        check_number("f(x=...)", value, "one", lambda number: number == 1)
    assert MBMPOSettings(max_gradient=math.inf).max_gradient == math.inf, "no limit"


def test_the_rule_and_what_came_are_told():
    with pytest.raises(ValueError, match=r"^`f\(x=...\)` must be an integer of at least 2. Got 1.$"):
        check_number("f(x=...)", 1, "an integer of at least 2", whole(2))
    with pytest.raises(ValueError, match=r"Got 2.0.$"):
        check_number("f(x=...)", 2.0, "an integer of at least 2", whole(2))
    with pytest.raises(ValueError, match=r"^`f\(x=...\)` must be some. Got 'low'.$"):
        checked_numbers("f(x=...)", "low", "some", math.isfinite)
    assert checked_numbers("f(x=...)", iter([1, 2.5]), "some", math.isfinite) == (1, 2.5)


def test_no_rule_lets_through_what_is_no_number():
    for value in (np.nan, True, "low", None):
        with pytest.raises(ValueError, match=r"^`f\(x=...\)`"):
            check_number("f(x=...)", value, "anything", lambda _: True)
        with pytest.raises(ValueError, match=r"^`f\(x=...\)`"):
            checked_numbers("f(x=...)", [1.0, value], "anything", lambda _: True)
