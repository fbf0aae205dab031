"""Test signals: power exactly where it was asked for, correlations known to the last bit, limits kept."""

import math

import numpy as np
import pytest

from sindyrl.collect import collect, random_policy
from sindyrl.excitation import (
    PRIMITIVE_TAPS,
    crest_factor,
    play,
    prbs,
    random_steps,
    schroeder_harmonics,
    schroeder_multisine,
    schroeder_phases,
)
from tests.systems import CartEnv


def rng(seed=0):
    return np.random.default_rng(seed)


# --- multisines


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_equal_powers_give_the_quadratic_phases(count):
    k = np.arange(1, count + 1)
    np.testing.assert_allclose(schroeder_phases(np.full(count, 3.0)), -np.pi * k * (k - 1) / count, atol=1e-12)


def test_phases_are_schroeder_s_double_sum():
    power = rng().uniform(0, 1, 12)
    share = power / power.sum()
    direct = [-2 * np.pi * sum((k - j) * share[j] for j in range(k)) for k in range(12)]
    np.testing.assert_allclose(schroeder_phases(power), direct, atol=1e-12)


@pytest.mark.parametrize(("lines", "beaten"), [(10, 90), (40, 100), (80, 100)])
def test_schroeder_s_phases_are_more_compact_than_zero_phases_and_than_random_ones(lines, beaten):
    n = 16 * lines
    wave = 2 * np.pi * np.outer(np.arange(n), np.arange(1, lines + 1)) / n
    ours = crest_factor(np.cos(wave + schroeder_phases(np.ones(lines))).sum(axis=1))
    drawn = rng().uniform(0, 2 * np.pi, (100, lines))
    # Among few lines a lucky draw is as good; among many no draw of a hundred is.
    assert sum(ours < crest_factor(np.cos(wave + phases).sum(axis=1)) for phases in drawn) >= beaten
    assert crest_factor(np.cos(wave).sum(axis=1)) == pytest.approx(np.sqrt(2 * lines), rel=0.02)  # of a pulse
    assert ours < 2.0


def spectrum(u):
    """Amplitude of each line k/(n dt), k = 0, 1, ...; (line, input)."""
    return np.abs(np.fft.rfft(u, axis=0)) * 2 / len(u)


@pytest.mark.parametrize("n", [200, 201])
def test_the_spectrum_is_flat_on_exactly_the_lines_asked_for(n):
    dt = 0.05
    u = schroeder_multisine(n, dt, lower=-2.0, upper=4.0, band=(5 / (n * dt), 60 / (n * dt)))
    amplitude = spectrum(u - 1.0)[:, 0]
    asked = np.zeros(len(amplitude), dtype=bool)
    asked[5:61] = True
    np.testing.assert_allclose(amplitude[asked], amplitude[asked].mean(), rtol=1e-9)
    assert amplitude[asked].mean() > 0.1
    np.testing.assert_allclose(amplitude[~asked], 0.0, atol=1e-12)  # the mean is the middle of the limits


def test_lines_at_the_edges_of_the_band_are_in_it_whatever_rounding_says():
    assert 6 / (24 * 0.1) < 2.5  # although they are equal on paper
    amplitude = spectrum(schroeder_multisine(24, 0.1, lower=-1, upper=1, band=(2.5, 0.4 / 0.1)))[:, 0]
    assert np.flatnonzero(amplitude > 1e-9)[0] == 6


def test_powers_and_frequencies_are_those_given():
    n, dt, lines, power = 400, 0.1, np.array([2, 3, 11, 50]), np.array([1.0, 4.0, 0.0, 9.0])
    amplitude = spectrum(schroeder_multisine(n, dt, lower=-1, upper=1, frequencies=lines / (n * dt), power=power))[:, 0]
    np.testing.assert_allclose(amplitude[lines] / amplitude[2], [1.0, 2.0, 0.0, 3.0], atol=1e-12)
    np.testing.assert_allclose(np.delete(amplitude, lines), 0.0, atol=1e-12)


@pytest.mark.parametrize("inputs", [2, 3])
def test_several_inputs_share_no_line_and_are_orthogonal(inputs):
    u = schroeder_multisine(300, 0.02, lower=[-1.0] * inputs, upper=[1.0] * inputs, band=(0.5, 12.0))
    used = spectrum(u) > 1e-9
    assert (used.sum(axis=1) <= 1).all()
    lines = np.flatnonzero(used.any(axis=1))
    np.testing.assert_array_equal(lines, np.arange(3, 73))  # 0.5 to 12 Hz in steps of 1/6 Hz, both ends
    for i in range(inputs):
        np.testing.assert_array_equal(np.flatnonzero(used[:, i]), lines[i::inputs])
    product = u.T @ u / 300
    np.testing.assert_allclose(product, np.diag(np.diag(product)), atol=1e-12)


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1e-3), (-7e5, 1e5), (0.1, 0.3)])
def test_signals_keep_their_limits_and_reach_one(limits):
    low, high = limits
    for u in (
        schroeder_multisine(128, 0.1, lower=low, upper=high, band=(0.1, 4.0)),
        prbs(128, lower=low, upper=high, hold=3, rng=rng()),
        random_steps(128, lower=low, upper=high, hold=(1, 4), levels=3, rng=rng()),
    ):
        assert u.shape == (128, 1)
        assert low <= u.min()
        assert u.max() <= high
        assert min(u.min() - low, high - u.max()) <= 1e-9 * (high - low)


def test_the_harmonic_sequence_of_sindy_mpc_is_the_multisine_backwards_and_later():
    period, harmonics, amplitude, n = 20.0, 8, 5.0, 400
    t = period * np.arange(n) / n
    u = schroeder_harmonics(t, period=period, harmonics=harmonics, amplitude=amplitude)
    # As defined there: phase 2 pi/K (1 + 2 + ... + i) for the i-th harmonic.
    direct = sum(
        np.sqrt(2 / harmonics) * np.cos(2 * np.pi * i * t / period + 2 * np.pi / harmonics * sum(range(1, i + 1)))
        for i in range(1, harmonics + 1)
    )
    np.testing.assert_allclose(u, amplitude * direct, atol=1e-12)
    assert np.sqrt(np.mean(u**2)) == pytest.approx(amplitude, rel=1e-12)
    multisine = schroeder_multisine(n, period / n, lower=-1, upper=1, band=(1 / period, harmonics / period))[:, 0]
    backwards = multisine[(-(np.arange(n) + n // harmonics)) % n]
    np.testing.assert_allclose(u / np.abs(u).max(), backwards, atol=1e-12)


# --- binary sequences


def remainder(exponent: int, polynomial: int) -> int:
    """``x^exponent`` modulo a polynomial over two elements, polynomials written as bits."""
    degree = polynomial.bit_length() - 1

    def product(a: int, b: int) -> int:
        total = 0
        while b:
            total ^= a if b & 1 else 0
            a, b = a << 1, b >> 1
            a ^= polynomial if a >> degree else 0
        return total

    result, base = 1, 2
    while exponent:
        result = product(result, base) if exponent & 1 else result
        base, exponent = product(base, base), exponent >> 1
    return result


@pytest.mark.parametrize("order", range(2, 21))
def test_the_polynomials_are_primitive(order):
    polynomial, period = 1 + sum(1 << tap for tap in PRIMITIVE_TAPS[order]), 2**order - 1
    assert max(PRIMITIVE_TAPS[order]) == order
    primes = [q for q in range(2, period + 1) if period % q == 0 and all(q % p for p in range(2, math.isqrt(q) + 1))]
    assert remainder(period, polynomial) == 1
    assert all(remainder(period // q, polynomial) != 1 for q in primes)


@pytest.mark.parametrize("order", range(2, 15))
def test_a_sequence_of_maximum_length_is_balanced_and_correlates_as_stated(order):
    period = 2**order - 1
    s = prbs(2 * period, lower=-1, upper=1, order=order)[:, 0].astype(int)
    np.testing.assert_array_equal(s[period:], s[:period])
    s = s[:period]
    assert s.sum() == 1  # one more of the upper level
    correlation = np.rint(np.fft.irfft(np.abs(np.fft.rfft(s)) ** 2, period)).astype(int)
    assert correlation[0] == period
    np.testing.assert_array_equal(correlation[1:], -1)
    assert s @ np.roll(s, 1) == -1  # without a transform
    # Every word of `order` bits but one appears exactly once: it runs through all states of the register.
    words = np.lib.stride_tricks.sliding_window_view(np.append(s, s[: order - 1]) > 0, order)
    assert len({word.tobytes() for word in words}) == period


def test_the_sequence_obeys_the_recurrence_of_its_polynomial():
    for order, taps in PRIMITIVE_TAPS.items():
        s = prbs(500, lower=0, upper=1, order=order)[:, 0].astype(int)
        assert (s[:order] == 1).all()
        # x^n = sum of the lower powers, so s[k + n] = s[k + tap] ^ ... ^ s[k], tap below n.
        total = sum(s[tap : tap + len(s) - order] for tap in (*taps[1:], 0)) % 2
        np.testing.assert_array_equal(s[order:], total)


def test_bits_are_held_and_inputs_are_shifted_copies_uncorrelated_within_their_share_of_the_period():
    u = prbs(4 * 127, lower=[-1.0, 0.0, -5.0], upper=[1.0, 2.0, -4.0], hold=4, order=7)
    assert [sorted(set(column)) for column in u.T] == [[-1, 1], [0, 2], [-5, -4]]
    bits = u[::4]
    np.testing.assert_array_equal(u, np.repeat(bits, 4, axis=0))
    s = np.sign(bits - bits.mean(axis=0)).astype(int)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert {int(s[:, i] @ np.roll(s[:, j], lag)) for lag in range(-41, 42)} == {-1}
        assert 127 in {int(s[:, i] @ np.roll(s[:, j], lag)) for lag in range(127)}  # copies


def test_by_default_the_period_is_as_short_as_the_record_allows_and_the_generator_sets_the_start():
    def period(u):
        return next(k for k in range(1, len(u)) if (u[k:] == u[:-k]).all())

    np.testing.assert_array_equal(prbs(15, lower=0, upper=1), prbs(15, lower=0, upper=1, order=4))
    np.testing.assert_array_equal(prbs(16, lower=0, upper=1), prbs(16, lower=0, upper=1, order=5))
    assert period(prbs(300, lower=0, upper=1, order=5, rng=rng(3))) == 31
    first, again, other = (prbs(200, lower=0, upper=1, rng=rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# --- random steps


def test_random_steps_take_the_levels_and_times_they_are_given():
    settings = {"lower": [0.0, -1.0], "upper": [2.0, 1.0], "hold": (3, 6), "levels": 5}
    u = random_steps(5000, **settings, rng=rng())
    assert u.shape == (5000, 2)
    assert set(u[:, 0]) == {0.0, 0.5, 1.0, 1.5, 2.0}
    assert np.diff(np.flatnonzero(np.diff(u[:, 0]))).min() == 3  # equal neighbors make a run longer, never shorter
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.1  # about 1100 independent levels each: standard deviation 0.03
    np.testing.assert_array_equal(u, random_steps(5000, **settings, rng=rng()))
    assert (u != random_steps(5000, **settings, rng=rng(1))).any()
    fixed = random_steps(40, lower=0, upper=1, hold=4, rng=rng())[:, 0]
    np.testing.assert_array_equal(fixed, np.repeat(fixed[::4], 4))
    assert len(set(fixed)) == 10


# --- as a policy


def test_a_sequence_is_played_row_by_row_anew_in_every_episode_or_on_where_it_stopped():
    sequence = prbs(31, lower=-1, upper=1, order=5)
    data = collect(CartEnv(length=10), play(sequence), steps=25, rng=rng(), dt=0.1)
    assert [len(part) for part in data] == [10, 10, 5]
    for part in data:
        np.testing.assert_array_equal(part.u, sequence[: len(part)])
    data = collect(CartEnv(length=10), play(sequence, restart=False), steps=70, rng=rng(), dt=0.1)
    np.testing.assert_array_equal(np.concatenate([part.u for part in data]), np.concatenate([sequence] * 3)[:70])


def test_a_sequence_is_added_to_a_controller_s_inputs():
    wave, env = 0.1 * prbs(20, lower=-1, upper=1), CartEnv(length=20)
    (part,) = collect(env, play(wave, around=lambda x: -0.3 * x[:1]), steps=20, rng=rng(), dt=0.1)
    np.testing.assert_allclose(part.u, wave - 0.3 * part.x[:-1, :1], atol=1e-15)
    inner = random_policy(env, hold=2)  # has to be given its generator
    (part,) = collect(env, play(np.zeros((1, 1)), around=inner), steps=20, rng=rng(), dt=0.1)
    assert len(set(part.u[:, 0])) == 10


def test_a_policy_that_is_played_cannot_be_changed_through_what_it_was_given_or_returned():
    sequence = np.zeros((3, 1))
    policy = play(sequence)
    sequence += 1.0
    policy(np.zeros(2))[0] = 9.0
    assert [policy(np.zeros(2))[0] for _ in range(3)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schroeder_multisine(100, 0.1, lower=-1, upper=1), "either `band` or `frequencies`"),
        (lambda: schroeder_multisine(100, 0.1, lower=1, upper=1, band=(0, 1)), "lower < upper. Got 1, 1"),
        (lambda: schroeder_multisine(100, 0.1, lower=[-1, -1], upper=1, band=(0, 1)), r"Got shapes \(2,\) and \(1,\)"),
        (lambda: schroeder_multisine(100, 0.1, lower=-1, upper=1, frequencies=[1.0, 5.0]), "Nyquist frequency 5 Hz"),
        (lambda: schroeder_multisine(100, 0.1, lower=-1, upper=1, frequencies=[2.0, 1.0]), "must increase"),
        (lambda: schroeder_multisine(100, 0.1, lower=[-1] * 3, upper=[1] * 3, band=(0.1, 0.2)), "Got 2: widen `band`"),
        (lambda: schroeder_multisine(100, 0.1, lower=-1, upper=1, frequencies=[1.0], power=[1, 2]), "one entry per li"),
        (lambda: schroeder_multisine(100, 0.0, lower=-1, upper=1, band=(0, 1)), r"`schroeder_multisine\(dt=\.\.\.\)`"),
        (lambda: schroeder_phases(np.array([1.0, -1.0])), "at least 0, not all 0"),
        (lambda: schroeder_harmonics(np.zeros(3), period=0.0, harmonics=3), "positive number of seconds. Got 0.0"),
        (lambda: prbs(100, lower=0, upper=1, order=21), "from 2 to 20. Got 21"),
        (lambda: prbs(100, lower=0, upper=1, hold=0), r"`prbs\(hold=\.\.\.\)` must be a whole number .* Got 0"),
        (lambda: prbs(9, lower=[0] * 4, upper=[1] * 4, order=2), "period of 3 bits, too short for 4 inputs"),
        (lambda: random_steps(9, lower=0, upper=1, hold=(4, 2), rng=rng()), "of at least 4. Got 2"),
        (lambda: random_steps(9, lower=0, upper=np.inf, hold=1, rng=rng()), "must be finite"),
        (lambda: random_steps(9, lower=0, upper=1, hold=1, levels=1, rng=rng()), r"levels=\.\.\.\)` .* at least 2"),
        (lambda: play(np.zeros((0, 2))), r"shape \(n, n_inputs\). Got \(0, 2\)"),
        (lambda: play([[0.0], [np.nan]]), "must be finite. Got nan"),
    ],
)
def test_wrong_arguments_are_named_as_typed(call, message):
    with pytest.raises(ValueError, match=message):
        call()
