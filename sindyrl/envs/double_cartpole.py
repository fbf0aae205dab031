"""Swing-up of two poles in a row on a cart, of the dm_control suite: the environment, and what is known of it.

The simulator, its initial states and its reward are dm_control's own; this file gives them the Gymnasium interface.

| index | state | meaning                                  | unit  | range                                   |
|-------|-------|------------------------------------------|-------|-----------------------------------------|
| 0     | x     | cart position                            | m     | soft stops at -1.8 and 1.8              |
| 1     | cos1  | cosine of the first pole's angle         | 1     | 1 upright, -1 hanging                   |
| 2     | sin1  | sine of the first pole's angle           | 1     | positive: its tip leans towards +x      |
| 3     | cos2  | cosine of the second pole's angle        | 1     | 1 upright, -1 hanging                   |
| 4     | sin2  | sine of the second pole's angle          | 1     | positive: its tip leans towards +x      |
| 5     | v     | cart velocity                            | m/s   |                                         |
| 6     | w1    | angular velocity of the first pole       | rad/s | positive: clockwise                     |
| 7     | w2    | angular velocity of the second pole      | rad/s | positive: clockwise                     |
| input | u     | motor command, 10 N of force on the cart | 1     | -1 to 1                                 |

Both angles are from the vertical, 0 upright and **clockwise positive**, as in dm_control's observation. Its second
velocity is that of the hinge, ``w2 - w1``; ours is the pole's own, so that no product of rates enters the equations of
motion and gravity turns each pole by its own sine.

Cart 1 kg; poles 0.1 kg each, capsules of length 1 m between the centers of their caps and radius 0.045 m, the second on
the tip of the first; 0.01 s per step (Runge-Kutta 4), 1000 steps per episode, which then is truncated; it never
terminates. An episode starts near rest with both poles hanging.

Equations. The accelerations are rational: sums of `numerators` over the determinant of the mass matrix, a sum of
`denominators`. The library is an approximation. It divides by what that determinant is for two equal thin rods on a
pivot at rest, up to a factor ``7 + 9 sin(a1 - a2)^2``; the cart recoils, and the poles are not thin.

From 30 s of random pushes, at most 12 terms per acceleration, the RMS error of a step on another recording is, relative
to the step's change, 0.9 % for the cart's velocity and 1.9 and 2.3 % for the poles' (median of 5 development seeds; at
most 1.6, 2.2 and 2.6 %). The true accelerations, stepped by the same midpoint rule, leave 0.2, 0.6 and 0.8 %. Without
the division the poles' errors are four to nine times as large. At states drawn at random, also where no push has been,
the accelerations found are off by 2.6, 2.2 and 12 % (at most 28, 10 and 16 %).
`identify_rational` over both lists, with ``ImplicitSubset(max_terms=16, node_limit=0)`` and one correction, finds the
poles' equations themselves from 15 s of pushes (3 of 3 seeds), the cart's not reliably (1 of 3).

Source: Tassa et al., DeepMind Control Suite, arXiv 1801.00690; task ``cartpole.two_poles`` of dm_control.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from sindyrl.envs.control_suite import ControlSuite, cartpole_suite
from sindyrl.expression import Node, Variable, exp, maximum
from sindyrl.library import custom_library, polynomial_library
from sindyrl.structure import SecondOrder
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

STATES = (
    Signal("x", "m", -1.8, 1.8),
    Signal("cos1", "1", -1.01, 1.01),
    Signal("sin1", "1", -1.01, 1.01),
    Signal("cos2", "1", -1.01, 1.01),
    Signal("sin2", "1", -1.01, 1.01),
    Signal("v", "m/s", -10.0, 10.0),
    Signal("w1", "rad/s", -20.0, 20.0),
    Signal("w2", "rad/s", -30.0, 30.0),
)
INPUTS = (Signal("u", "1", -1.0, 1.0),)
STEPS_PER_EPISODE = 1000
DT = 0.01

# Contact with the soft stops begins at 1.8 m; within one step the cart moves by a few centimeters.
_NEAR_STOP = 1.75


def numerators() -> tuple[Node, ...]:
    """Forces, times up to two cosines: what the accelerations are made of, up to the determinant of the mass matrix.

    Forces, each over an unknown mass or inertia: the input, gravity on each pole, and the centrifugal forces of each on
    the cart and on the other pole. Cosines: of both angles and of their difference. No mass and no length is told.
    """
    cos1, sin1, cos2, sin2, w1, w2, u = (Variable(n) for n in ("cos1", "sin1", "cos2", "sin2", "w1", "w2", "u"))
    between = _sine_between()
    forces = (u, sin1, sin2, sin1 * w1**2, sin2 * w2**2, between * w1**2, between * w2**2)
    cosines = (cos1, cos2, cos1 * cos2 + sin1 * sin2)
    pairs = (a**2 if a is b else a * b for a, b in itertools.combinations_with_replacement(cosines, 2))
    factors = (*cosines, *pairs)
    return tuple(term for force in forces for term in (force, *(force * factor for factor in factors)))


def candidate_terms() -> tuple[Node, ...]:
    """`numerators` over the determinant of two equal thin rods on a pivot at rest, up to a factor."""
    determinant = 7.0 + 9.0 * _sine_between() ** 2
    return tuple(term / determinant for term in numerators())


def denominators() -> tuple[Node, ...]:
    """What the determinant of the mass matrix is a sum of, beside a constant.

    In sines, whose squares are added to it: no bound then takes it for zero, as one of cosines would be.
    """
    return Variable("sin1") ** 2, Variable("sin2") ** 2, _sine_between() ** 2


def _sine_between() -> Node:
    """``sin(a1 - a2)``"""
    cos1, sin1, cos2, sin2 = (Variable(name) for name in ("cos1", "sin1", "cos2", "sin2"))
    return sin1 * cos2 - cos1 * sin2


def _reward() -> SymbolicMap:
    """dm_control's reward at ``(x_{k+1}, u_k)``: upright poles, small input, slow hinges, centered cart; at most 1."""
    x, cos1, cos2, w1, w2, u = (Variable(name) for name in ("x", "cos1", "cos2", "w1", "w2", "u"))
    log_tenth = math.log(0.1)
    upright = (cos1 + cos2 + 2.0) / 4.0
    small_input = (maximum(1.0 - u**2, 0.0) + 4.0) / 5.0
    # The faster of the two hinges counts; the second one turns with w2 - w1.
    slow = (exp(log_tenth / 25.0 * maximum(w1**2, (w2 - w1) ** 2)) + 1.0) / 2.0
    centered = (exp(log_tenth * (x / 2.0) ** 2) + 1.0) / 2.0
    return SymbolicMap([*STATES, *INPUTS], {"reward": upright * small_input * slow * centered}, name="reward")


def hanging(rng: np.random.Generator, n: int) -> np.ndarray:
    """Initial states as dm_control draws them: hanging, the second hinge within about 0.1, the rest within about 0.01.

    Returns shape ``(n, 8)``.
    """
    x, tilt, v, w1, turn = 0.01 * rng.standard_normal((5, n))
    first = math.pi + tilt
    second = first + 0.1 * rng.standard_normal(n)
    return np.column_stack([x, np.cos(first), np.sin(first), np.cos(second), np.sin(second), v, w1, w1 + turn])


def near_stop(x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Transitions that begin or end near a stop, where the equations of motion change. Shape ``(n,)``."""
    return (np.abs(x[:, 0]) > _NEAR_STOP) | (np.abs(x_next[:, 0]) > _NEAR_STOP)


structure = SecondOrder(positions={"x": "v"}, angles={("cos1", "sin1"): "w1", ("cos2", "sin2"): "w2"}, ignore=("x",))

task = Task(
    name="double cart-pole swing-up",
    states=STATES,
    inputs=INPUTS,
    dt=DT,
    horizon=STEPS_PER_EPISODE,
    reward=_reward(),
    reset=hanging,
    structure=structure,
    library=custom_library(candidate_terms()),
    policy_library=polynomial_library(degree=2),
    exclude=near_stop,
    mirror=("x", "sin1", "sin2", "v", "w1", "w2", "u"),
    failure_reward=0.0,
)


class DoubleCartPoleSwingUp(ControlSuite):
    """``sindyrl/DoubleCartPoleSwingUp-v0``; observation, action, units and signs are in the text of this module.

    ``reset(seed=...)`` decides everything that follows; without a seed the random stream goes on.
    ``reset(options={"state": (x, cos1, sin1, cos2, sin2, v, w1, w2)})`` starts at a state instead of drawing one.
    Raises `ImportError` if the ``envs`` extra is not installed.
    """

    task = task
    dt = DT

    def __init__(self, render_mode: None = None) -> None:
        super().__init__(render_mode)
        bodies = [self._physics.model.name2id(name, "body") for name in ("pole_1", "pole_2")]
        self._frames = [self._physics.data.xmat[body] for body in bodies]

    @staticmethod
    def _simulation() -> Any:
        return cartpole_suite().two_poles()

    def _observation(self) -> np.ndarray:
        # The poles turn about y: their frames' z axes are (sin, 0, cos) in the world.
        (lower, upper), (v, w1, turn) = self._frames, self._qvel
        return np.array([self._qpos[0], lower[8], lower[2], upper[8], upper[2], v, w1, w1 + turn])

    @staticmethod
    def _inner(state: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        x, cos1, sin1, cos2, sin2, v, w1, w2 = state
        first = math.atan2(sin1, cos1)
        return (x, first, math.atan2(sin2, cos2) - first), (v, w1, w2 - w1)


def accelerations(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """True accelerations of cart (m/s^2) and poles (rad/s^2) from the simulator, for comparing a model with.

    x : (n, 8)    u : (n, 1)    Returns (n, 3), columns ``dv, dw1, dw2``.
    """
    dv, dw1, turn = DoubleCartPoleSwingUp.accelerations(x, u).T
    return np.column_stack([dv, dw1, dw1 + turn])
