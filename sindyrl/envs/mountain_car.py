"""Driving a weak car out of a valley: the environment, and what is known of it beforehand.

The simulator, its initial states, its reward and its ends are Gymnasium's own (``MountainCarContinuous-v0``); this file
gives them states that can be set, and a description.

| index | state | meaning                               | unit | range                                              |
|-------|-------|---------------------------------------|------|----------------------------------------------------|
| 0     | x     | position; the bottom is at -pi/6      | 1    | a wall at -1.2; the goal at 0.45; nothing past 0.6 |
| 1     | v     | velocity                              | 1/s  | -0.07 to 0.07, where the simulator stops it        |
| input | u     | force, in units of 0.0015 /s^2        | 1    | -1 to 1                                            |

Gymnasium counts time in steps; a step is called 1 s here. It calls the position meters, and takes the cosine of three
times it; here it is a number. 999 steps per episode. One step is, exactly,

    v_{k+1} = v_k + 0.0015 u_k - 0.0025 cos(3 x_k)        x_{k+1} = x_k + v_{k+1}

and both changes are linear in the candidate terms. The car starts at rest between -0.6 and -0.4.

Each step earns ``-0.1 u^2``, and the one that reaches the goal 100 besides; it is the last. Gymnasium limits the force
to -1 and 1 but takes the cost of the input as it came, and so it is here.

The simulator keeps its states in float32, hence so do the observations, in arrays of float64.
"""

from __future__ import annotations

import numpy as np
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv

from sindyrl.envs.classic_control import ClassicControl
from sindyrl.expression import Node, Variable, absolute, piecewise, sign, sqrt
from sindyrl.library import custom_library, polynomial_library, trigonometric_library
from sindyrl.stops_at_wall import StopsAtWall
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

WALL, GOAL, END = -1.2, 0.45, 0.6
MOST_SPEED = 0.07
STATES = (Signal("x", "1", WALL, END), Signal("v", "1/s", -MOST_SPEED, MOST_SPEED))
INPUTS = (Signal("u", "1", -1.0, 1.0),)
STEPS_PER_EPISODE = 999
DT = 1.0


def _arrived() -> Node:
    """1 at the goal, 0 before it."""
    x, v = Variable("x"), Variable("v")
    return piecewise([(x >= GOAL, piecewise([(v >= 0.0, 1.0)], 0.0))], 0.0)


def at_rest(rng: np.random.Generator, n: int) -> np.ndarray:
    """Initial states as Gymnasium draws them: at rest, between -0.6 and -0.4. Shape ``(n, 2)``."""
    return np.column_stack([rng.uniform(-0.6, -0.4, n), np.zeros(n)])


def at_a_limit(x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Transitions at whose end the simulator stopped the car at a wall or at its largest speed. Shape ``(n,)``."""
    position, speed = x_next[:, 0], np.abs(x_next[:, 1])
    return (position <= WALL + 1e-6) | (position >= END - 1e-6) | (speed >= MOST_SPEED - 1e-6)


def signed_root(v: Node) -> Node:
    """``sign(v) sqrt|v|``: pushes the way the car moves, in its small first swings nearly as much as in its large ones.

    To swing up in a given time at the least sum of squares, an oscillator wants about the same amplitude throughout; a
    law linear in ``v`` pushes too little first and too much later.
    """
    return sign(v) * sqrt(absolute(v))


# Without the wall a model could not say what the best laws do, which touch it once, gently, for the longest run-up.
structure = StopsAtWall("x", "v", WALL)

task = Task(
    name="mountain car",
    states=STATES,
    inputs=INPUTS,
    dt=DT,
    horizon=STEPS_PER_EPISODE,
    reward=SymbolicMap([*STATES, *INPUTS], {"reward": 100.0 * _arrived() - 0.1 * Variable("u") ** 2}, name="reward"),
    reset=at_rest,
    structure=structure,
    library=polynomial_library(degree=2, input_degree=1) + trigonometric_library(frequencies=3, of=("x",)),
    policy_library=polynomial_library(degree=2, bias=True) + custom_library([signed_root]),
    exclude=at_a_limit,
    ends=SymbolicMap([*STATES, *INPUTS], {"arrived": _arrived()}, name="ends"),
)


class MountainCar(ClassicControl):
    """``sindyrl/MountainCar-v0``; observation, action, units, reward and ends are in the text of this module.

    ``reset(seed=...)`` decides everything that follows, as it does in ``MountainCarContinuous-v0``; without a seed the
    random stream goes on. ``reset(options={"state": (x, v)})`` starts at a state instead of drawing one.
    """

    task = task
    dt = DT
    simulator = Continuous_MountainCarEnv
