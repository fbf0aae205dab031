"""The ten maps of the comparison of generated code, committed as JSON beside this file.

    python -m benchmarks.speed.maps                                    # writes maps/*.json anew
    python -m benchmarks.speed.maps --demo runs/demo/policy.json       # and takes the demo's policy from a run

The demo's policy is that of `sindyrl demo --seed 8`. Drawn numbers have seed 0, the first that was tried.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sindyrl.expression import (
    Constant,
    Node,
    Variable,
    absolute,
    clip,
    cos,
    dense,
    exp,
    log,
    piecewise,
    sign,
    sin,
    sqrt,
    substitute,
    tanh,
)
from sindyrl.symbolic_map import Signal, SymbolicMap

FOLDER = Path(__file__).resolve().parent / "maps"
DEMO_POLICY = "cartpole_policy"


def load_maps(names: Sequence[str] = ()) -> dict[str, SymbolicMap]:
    """Name -> map, of those named or all; ValueError for one that is not there."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"`maps` must be some of {', '.join(known)}. Got {', '.join(unknown)}.")
    return {name: SymbolicMap.load(known[name]) for name in (names or known)}


def save_maps(demo_policy: Path | None = None) -> list[Path]:
    """Write every map; the demo's policy from ``demo_policy``, else as it is."""
    policy = SymbolicMap.load(demo_policy or FOLDER / f"{DEMO_POLICY}.json")
    maps = {make.__name__: make() for make in MAKERS}
    maps[DEMO_POLICY] = SymbolicMap(policy.inputs, _pairs(policy), name=DEMO_POLICY)
    FOLDER.mkdir(exist_ok=True)
    paths = []
    for name, form in maps.items():
        if suspects := form.undefined():
            raise ValueError(f"`{name}` may be undefined on its ranges: {suspects[0]!r}.")
        paths.append(FOLDER / f"{name}.json")
        form.save(paths[-1])
    return paths


def _pairs(form: SymbolicMap) -> list[tuple[Signal, Node]]:
    return list(zip(form.outputs, form.nodes, strict=True))


def cubic_policy() -> SymbolicMap:
    """Twelve of the 34 monomials of four inputs up to degree three, drawn, as are their coefficients; clipped."""
    rng = np.random.default_rng(0)
    names = ("x", "v", "theta", "w")
    symbols = [Variable(name) for name in names]
    monomials = [
        combination for size in (1, 2, 3) for combination in itertools.combinations_with_replacement(symbols, size)
    ]
    total: Node = Constant(0.0)
    for position, index in enumerate(sorted(rng.choice(len(monomials), 12, replace=False))):
        term: Node = Constant(round(float(rng.normal()), 4))
        for factor in monomials[index]:
            term = term * factor
        total = total + term if position else term
    inputs = [
        Signal("x", "m", -2.0, 2.0),
        Signal("v", "m/s", -2.0, 2.0),
        Signal("theta", "rad", -1.0, 1.0),
        Signal("w", "rad/s", -2.0, 2.0),
    ]
    return SymbolicMap(inputs, {Signal("u", "N", -1.0, 1.0): clip(total, -1.0, 1.0)}, name="cubic_policy")


def cartpole_step() -> SymbolicMap:
    """One step of 0.02 s of a cart-pole by the semi-implicit Euler method, the pole's angle as it is.

    Cart 1 kg, pole 0.1 kg on a rod of 0.5 m; 0 is upright. Barto, Sutton, Anderson, IEEE SMC 13, 1983, point mass.
    """
    x, v, theta, w, u = (Variable(name) for name in ("x", "v", "theta", "w", "u"))
    cart, pole, length, gravity, dt = 1.0, 0.1, 0.5, 9.81, 0.02
    sine, cosine = sin(theta), cos(theta)
    room = cart + pole * sine**2
    a = (u + pole * sine * (length * w**2 - gravity * cosine)) / room
    b = ((cart + pole) * gravity * sine - cosine * (u + pole * length * w**2 * sine)) / (length * room)
    v_next, w_next = v + dt * a, w + dt * b
    inputs = [
        Signal("x", "m", -2.4, 2.4),
        Signal("v", "m/s", -5.0, 5.0),
        Signal("theta", "rad", -2 * math.pi, 2 * math.pi),
        Signal("w", "rad/s", -10.0, 10.0),
        Signal("u", "N", -10.0, 10.0),
    ]
    outputs = [
        (Signal("x_next", "m"), x + dt * v_next),
        (Signal("v_next", "m/s"), v_next),
        (Signal("theta_next", "rad"), theta + dt * w_next),
        (Signal("w_next", "rad/s"), w_next),
    ]
    return SymbolicMap(inputs, outputs, name="cartpole_step")


def tanh_network() -> SymbolicMap:
    """Four inputs, two layers of 64 tanh units, one output; weights drawn, to four decimals."""
    rng = np.random.default_rng(0)
    values: Sequence[Node] = [Variable(name) for name in ("x", "v", "theta", "w")]
    for size, activation in ((64, "tanh"), (64, "tanh"), (1, "identity")):
        matrix = np.round(rng.normal(0.0, 1.0 / math.sqrt(len(values)), (size, len(values))), 4)
        values = dense(matrix, np.round(rng.normal(0.0, 0.1, size), 4), activation, values)
    units = ("m", "m/s", "rad", "rad/s")
    inputs = [Signal(name, unit, -2.0, 2.0) for name, unit in zip(("x", "v", "theta", "w"), units, strict=True)]
    return SymbolicMap(inputs, {Signal("u", "N"): values[0]}, name="tanh_network")


def gain_schedule() -> SymbolicMap:
    """Steering: proportional and derivative, gains by speed in four steps, a deadband on the error, clipped."""
    error, rate, speed = (Variable(name) for name in ("error", "rate", "speed"))
    width = 0.02
    effective = piecewise([(error > width, error - width), (error < -width, error + width)], 0.0)
    gains = [
        piecewise([(speed < 10.0, low), (speed < 20.0, middle), (speed < 30.0, high)], highest)
        for low, middle, high, highest in ((1.9, 1.2, 0.8, 0.55), (0.31, 0.24, 0.18, 0.13))
    ]
    inputs = [Signal("error", "rad", -1.0, 1.0), Signal("rate", "rad/s", -4.0, 4.0), Signal("speed", "m/s", 0.0, 40.0)]
    output = {Signal("steering", "rad", -0.5, 0.5): clip(gains[0] * effective + gains[1] * rate, -0.5, 0.5)}
    return SymbolicMap(inputs, output, name="gain_schedule")


def lorenz_rk4() -> SymbolicMap:
    """One classical Runge-Kutta step of 0.01 of the Lorenz system, sigma 10, rho 28, beta 8/3."""
    names, dt = ("x", "y", "z"), 0.01
    x, y, z = symbols = [Variable(name) for name in names]
    field: list[Node] = [10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z]

    def slope(point: Sequence[Node]) -> list[Node]:
        return substitute(field, dict(zip(names, point, strict=True)))

    def moved(slopes: Sequence[Node], step: float) -> list[Node]:
        return [value + step * change for value, change in zip(symbols, slopes, strict=True)]

    first = slope(symbols)
    second = slope(moved(first, dt / 2))
    third = slope(moved(second, dt / 2))
    fourth = slope(moved(third, dt))
    following = [
        value + dt / 6 * (a + 2.0 * b + 2.0 * c + d)
        for value, a, b, c, d in zip(symbols, first, second, third, fourth, strict=True)
    ]
    inputs = [Signal("x", "1", -20.0, 20.0), Signal("y", "1", -27.0, 27.0), Signal("z", "1", 0.0, 50.0)]
    outputs = [(Signal(f"{name}_next", "1"), node) for name, node in zip(names, following, strict=True)]
    return SymbolicMap(inputs, outputs, name="lorenz_rk4")


def saturated_lqr() -> SymbolicMap:
    """Linear-quadratic regulator of the upright cart-pole of `cartpole_step`, all weights one, clipped at 10 N."""
    from scipy.linalg import solve_continuous_are

    cart, pole, length, gravity = 1.0, 0.1, 0.5, 9.81
    a = np.zeros((4, 4))
    a[0, 1] = a[2, 3] = 1.0
    a[1, 2], a[3, 2] = -pole * gravity / cart, (cart + pole) * gravity / (cart * length)
    b = np.array([[0.0], [1.0 / cart], [0.0], [-1.0 / (cart * length)]])
    gain = np.round(b.T @ solve_continuous_are(a, b, np.eye(4), np.eye(1)), 6)[0]
    inputs = [
        Signal("x", "m", -2.4, 2.4),
        Signal("v", "m/s", -5.0, 5.0),
        Signal("theta", "rad", -0.5, 0.5),
        Signal("w", "rad/s", -5.0, 5.0),
    ]
    total: Node = -float(gain[0]) * Variable("x")
    for signal, value in zip(inputs[1:], gain[1:], strict=True):
        total = total - float(value) * Variable(signal.name)
    return SymbolicMap(inputs, {Signal("u", "N", -10.0, 10.0): clip(total, -10.0, 10.0)}, name="saturated_lqr")


def energy_swingup() -> SymbolicMap:
    """Pendulum, 1 kg on 1 m, 0 upright: energy to that of the upright rest, dry friction canceled, clipped at 2 N m."""
    theta, w = Variable("theta"), Variable("w")
    excess = 0.5 * w**2 + 9.81 * (cos(theta) - 1.0)
    lift = piecewise([(absolute(w) < 0.05, -0.5 * sin(theta))], 0.0)
    torque = -0.8 * excess * tanh(5.0 * w) + 0.05 * sign(w) + lift
    inputs = [Signal("theta", "rad", -math.pi, math.pi), Signal("w", "rad/s", -8.0, 8.0)]
    return SymbolicMap(inputs, {Signal("torque", "N m", -2.0, 2.0): clip(torque, -2.0, 2.0)}, name="energy_swingup")


def f8_crusader() -> SymbolicMap:
    """F-8 Crusader, angle of attack, pitch and pitch rate: Kaiser, Kutz, Brunton, Proc. R. Soc. A 474, 2018."""
    x1, x2, x3, u = (Variable(name) for name in ("x1", "x2", "x3", "u"))
    first = -0.877 * x1 + x3 - 0.088 * x1 * x3 + 0.47 * x1**2 - 0.019 * x2**2 - x1**2 * x3 + 3.846 * x1**3
    first = first - 0.215 * u + 0.28 * x1**2 * u + 0.47 * x1 * u**2 + 0.63 * u**3
    third = -4.208 * x1 - 0.396 * x3 - 0.47 * x1**2 - 3.564 * x1**3
    third = third - 20.967 * u + 6.265 * x1**2 * u + 46.0 * x1 * u**2 + 61.4 * u**3
    inputs = [
        Signal("x1", "rad", -0.2, 0.4),
        Signal("x2", "rad", -1.0, 1.0),
        Signal("x3", "rad/s", -1.0, 1.0),
        Signal("u", "rad", -0.3, 0.5),
    ]
    outputs = [(Signal("dx1", "rad/s"), first), (Signal("dx2", "rad/s"), x3), (Signal("dx3", "rad/s^2"), third)]
    return SymbolicMap(inputs, outputs, name="f8_crusader")


def battery() -> SymbolicMap:
    """Terminal voltage, charge rate and heat of a cell: Shepherd and Nernst terms, Arrhenius resistance."""
    z, temperature, current = Variable("z"), Variable("temperature"), Variable("current")
    resistance = 0.012 * exp(1800.0 * (1.0 / temperature - 1.0 / 298.15))
    rest = 3.35 - 0.008 / z + 0.45 * exp(-12.0 * (1.0 - z)) + 8.617e-5 * temperature * log(z / (1.0 - z))
    drop = current * resistance + 0.02 * current / sqrt(current**2 + 4.0)
    inputs = [
        Signal("z", "1", 0.05, 0.95),
        Signal("temperature", "K", 253.15, 333.15),
        Signal("current", "A", -20.0, 20.0),
    ]
    outputs = [
        (Signal("voltage", "V"), rest - drop),
        (Signal("dz", "1/s"), -current / 36000.0),
        (Signal("heat", "W"), current * drop),
    ]
    return SymbolicMap(inputs, outputs, name="battery")


MAKERS: tuple[Callable[[], SymbolicMap], ...] = (
    cubic_policy,
    cartpole_step,
    tanh_network,
    gain_schedule,
    lorenz_rk4,
    saturated_lqr,
    energy_swingup,
    f8_crusader,
    battery,
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the maps anew.")
    parser.add_argument("--demo", type=Path, help="policy.json of `sindyrl demo --seed 8`")
    for written in save_maps(parser.parse_args().demo):
        print(written.name)
