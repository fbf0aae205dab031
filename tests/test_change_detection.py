"""The cumulative-sum test and the paired switch on random numbers whose law is known. Fixed seeds throughout."""

import itertools
import math

import numpy as np
import pytest

from sindyrl.change_detection import ChangeDetector
from sindyrl.paired_switch import PairedSwitch


def first_alarm(detector, innovations, size=None):
    """The row of the first alarm, counted from 0, or None."""
    size = np.ones_like(innovations) * 10 if size is None else size
    for k, (e, y) in enumerate(zip(innovations, size, strict=True)):
        if detector.update(e, y):
            return k
    return None


def test_false_alarms_are_as_rare_as_promised():
    """The bound is on the mean run length: 20 x 2000 rows at 4000 rows between alarms are ten alarms at the bound.

    The cap on one row's evidence makes them far fewer; the bound itself is that of the threshold.
    """
    for seed in range(20):
        detector = ChangeDetector(1, false_alarm_rows=4e3)
        assert first_alarm(detector, np.random.default_rng(seed).normal(size=(2000, 1))) is None
        assert detector.threshold >= math.log(4e3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(5))
def test_errors_three_times_as_large_are_noticed_and_dated_in_any_unit(scale, seed):
    e = scale * np.random.default_rng(seed).normal(size=(600, 2))
    e[400:, 1] *= 3.0
    detector = ChangeDetector(2)
    found = first_alarm(detector, e, np.full_like(e, 10 * scale))
    assert 400 <= found < 440
    assert abs(found + 1 - detector.onset - 400) <= 15


def test_an_abrupt_change_is_dated_to_the_row():
    e = np.random.default_rng(0).normal(size=(500, 1))
    e[300:] += 30.0
    detector = ChangeDetector(1)
    found = first_alarm(detector, e)
    assert found + 1 - detector.onset == 300
    assert found >= 303  # one row's evidence is capped at a quarter of the threshold


def test_one_outlier_is_no_alarm_and_is_told():
    e = np.random.default_rng(0).normal(size=(500, 1))
    e[300] = 1e6
    detector = ChangeDetector(1)
    assert first_alarm(detector, e[:301]) is None
    assert detector.loudest > 1e9
    assert first_alarm(detector, e[301:]) is None


def test_bursts_seen_in_calibration_are_no_alarm_later_and_bursts_not_seen_are():
    def bursts(period):
        e = np.random.default_rng(1).normal(size=(1000, 1))
        e[(np.arange(1000) % period) > period - 8] = 5.0  # the same in every cycle, as errors of a model are
        return e

    assert first_alarm(ChangeDetector(1, calibration=120), bursts(100)) is None
    assert first_alarm(ChangeDetector(1, calibration=120), bursts(300)) is not None


def test_growth_of_negligible_errors_is_no_change():
    e = 1e-9 * np.random.default_rng(0).normal(size=(600, 1))
    e[300:] *= 1e3
    assert first_alarm(ChangeDetector(1), e, np.ones_like(e)) is None
    assert first_alarm(ChangeDetector(1, least_error=1e-12), e, np.ones_like(e)) is not None


def test_uncertain_predictions_may_err_more():
    e = np.random.default_rng(0).normal(size=(600, 1))
    e[300:] *= 5.0
    known, unknown = ChangeDetector(1), ChangeDetector(1)
    alarms = [
        any([detector.update(row, np.full(1, 10.0), inflation if k >= 300 else 1.0) for k, row in enumerate(e)])
        for detector, inflation in ((known, 1.0), (unknown, 25.0))
    ]
    assert alarms == [True, False]


def test_it_begins_anew_after_a_restart():
    e = np.random.default_rng(0).normal(size=(600, 1))
    detector = ChangeDetector(1)
    first_alarm(detector, 10 * e[:300])
    detector.restart()
    assert not detector.calibrated
    assert detector.threshold == math.inf
    first_alarm(detector, e[300:])
    assert np.sqrt(detector.variance[0]) == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("name", ["calibration", "false_alarm_rows", "ratio", "least_error"])
def test_wrong_settings_are_refused(name):
    with pytest.raises(ValueError, match=name):
        ChangeDetector(1, **{name: -1})


# ---- the switch


def compared(switch, logs):
    """States of the switch along windows whose log ratios are given."""
    states = []
    for d in logs:
        switch = switch.compare(math.exp(d), 1.0)
        states.append(switch.challenger)
    return switch, states


def changes(states):
    return sum(a != b for a, b in itertools.pairwise(states))


def test_mean_and_standard_error_are_those_of_the_weighted_windows():
    logs = np.random.default_rng(0).normal(size=40)
    switch, _ = compared(PairedSwitch(memory=10), logs)
    weights = 0.9 ** np.arange(39, -1, -1.0)
    mean = np.average(logs, weights=weights)
    variance = weights @ (logs - mean) ** 2 / (weights.sum() - (weights**2).sum() / weights.sum())
    assert switch.mean == pytest.approx(mean)
    assert switch.standard_error == pytest.approx(np.sqrt(variance * (weights**2).sum()) / weights.sum())


def test_a_clear_advantage_switches_once_and_back_when_it_is_reversed():
    rng = np.random.default_rng(0)
    _, states = compared(PairedSwitch(), np.concatenate([rng.normal(-1, 1, 200), rng.normal(1, 1, 200)]))
    assert states[199]
    assert not states[-1]
    assert states[:7] == [False] * 7
    assert changes(states) == 2


@pytest.mark.parametrize("mean", [0.0, -0.1, 0.1])
def test_ties_stay_with_what_is_in_use(mean):
    """Differences below a tenth; 20 seeds of 300 windows from either state. Chance may move a few once."""
    moved = [
        changes([start, *compared(PairedSwitch(challenger=start), np.random.default_rng(seed).normal(mean, 1, 300))[1]])
        for seed in range(20)
        for start in (False, True)
    ]
    assert sum(moved) <= 2
    assert max(moved) <= 1


def test_the_decision_is_the_formula():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        switch, before = PairedSwitch(least=5), False
        for d in rng.normal(rng.uniform(-1, 1), 0.5, 30):
            switch = switch.compare(math.exp(d), 1.0)
            if switch.windows >= 5:
                if switch.mean + 3 * switch.standard_error < -math.log(1.21):
                    before = True
                elif switch.mean - 3 * switch.standard_error > math.log(1.21):
                    before = False
            assert switch.challenger is before


@pytest.mark.parametrize("settings", [{"least": 2}, {"memory": 5.0}])
def test_wrong_switch_settings_are_refused(settings):
    with pytest.raises(ValueError, match="least"):
        PairedSwitch(**settings)
