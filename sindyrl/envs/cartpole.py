"""Cart-pole swing-up of the dm_control suite: the environment, and what is known of it beforehand.

The simulator, its initial states and its reward are dm_control's own; this file gives them the Gymnasium interface.

| index | state | meaning                                  | unit  | range                                   |
|-------|-------|------------------------------------------|-------|-----------------------------------------|
| 0     | x     | cart position                            | m     | soft stops at -1.8 and 1.8              |
| 1     | cos   | cosine of the pole angle                 | 1     | 1 upright, -1 hanging                   |
| 2     | sin   | sine of the pole angle                   | 1     | positive: the tip leans towards +x      |
| 3     | v     | cart velocity                            | m/s   |                                         |
| 4     | w     | angular velocity of the pole             | rad/s | positive: clockwise                     |
| input | u     | motor command, 10 N of force on the cart | 1     | -1 to 1                                 |

Signs are dm_control's: angle 0 is upright and **clockwise is positive** (x to the right, seen from the front), so a
positive force on the cart under an upright pole accelerates the cart towards +x and makes ``w`` negative.

Cart 1 kg; pole 0.1 kg, a capsule of length 1 m between the centers of its caps and radius 0.045 m; 0.01 s per step
(Runge-Kutta 4), 1000 steps per episode, which then is truncated; it never terminates. An episode starts near rest with
the pole hanging.

Source: Tassa et al., DeepMind Control Suite, arXiv 1801.00690; task ``cartpole.swingup`` of dm_control.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sindyrl.envs.control_suite import ControlSuite, cartpole_suite
from sindyrl.expression import Variable, exp, maximum
from sindyrl.library import polynomial_library
from sindyrl.structure import SecondOrder
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

STATES = (
    # The velocities' ranges and the slack on the circle say where a model is still worth following.
    Signal("x", "m", -1.8, 1.8),
    Signal("cos", "1", -1.01, 1.01),
    Signal("sin", "1", -1.01, 1.01),
    Signal("v", "m/s", -10.0, 10.0),
    Signal("w", "rad/s", -20.0, 20.0),
)
INPUTS = (Signal("u", "1", -1.0, 1.0),)
STEPS_PER_EPISODE = 1000
DT = 0.01

# Contact with the soft stops begins at 1.8 m; within one step the cart moves by a few centimeters.
_NEAR_STOP = 1.75


def _reward() -> SymbolicMap:
    """dm_control's reward at ``(x_{k+1}, u_k)``: upright, small input, slow pole, centered cart; at most 1 per step."""
    x, cos, w, u = (Variable(name) for name in ("x", "cos", "w", "u"))
    log_tenth = math.log(0.1)
    upright = (cos + 1.0) / 2.0
    small_input = (maximum(1.0 - u**2, 0.0) + 4.0) / 5.0
    slow = (exp(log_tenth * (w / 5.0) ** 2) + 1.0) / 2.0
    centered = (exp(log_tenth * (x / 2.0) ** 2) + 1.0) / 2.0
    return SymbolicMap([*STATES, *INPUTS], {"reward": upright * small_input * slow * centered}, name="reward")


def hanging(rng: np.random.Generator, n: int) -> np.ndarray:
    """Initial states as dm_control draws them: hanging, everything within about 0.01. Shape ``(n, 5)``."""
    x, tilt, v, w = 0.01 * rng.standard_normal((4, n))
    return np.column_stack([x, np.cos(math.pi + tilt), np.sin(math.pi + tilt), v, w])


def near_stop(x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Transitions that begin or end near a stop, where the equations of motion change. Shape ``(n,)``."""
    return (np.abs(x[:, 0]) > _NEAR_STOP) | (np.abs(x_next[:, 0]) > _NEAR_STOP)


structure = SecondOrder(positions={"x": "v"}, angles={("cos", "sin"): "w"}, ignore=("x",))

task = Task(
    name="cart-pole swing-up",
    states=STATES,
    inputs=INPUTS,
    dt=DT,
    horizon=STEPS_PER_EPISODE,
    reward=_reward(),
    reset=hanging,
    structure=structure,
    library=polynomial_library(degree=3, input_degree=1),
    policy_library=polynomial_library(degree=3),
    exclude=near_stop,
    mirror=("x", "sin", "v", "w", "u"),
    failure_reward=0.0,
)


class CartPoleSwingUp(ControlSuite):
    """``sindyrl/CartPoleSwingUp-v0``; observation, action, units and signs are in the text of this module.

    ``reset(seed=...)`` decides everything that follows; without a seed the random stream goes on.
    ``reset(options={"state": (x, cos, sin, v, w)})`` starts at a state instead of drawing one.
    Raises `ImportError` if the ``envs`` extra is not installed.
    """

    task = task
    dt = DT

    def __init__(self, render_mode: None = None) -> None:
        super().__init__(render_mode)
        self._pole_frame = self._physics.data.xmat[self._physics.model.name2id("pole_1", "body")]

    @staticmethod
    def _simulation() -> Any:
        return cartpole_suite().swingup()

    def _observation(self) -> np.ndarray:
        # The pole turns about y: its frame's z axis is (sin, 0, cos) in the world.
        frame, qpos, qvel = self._pole_frame, self._qpos, self._qvel
        return np.array([qpos[0], frame[8], frame[2], qvel[0], qvel[1]])

    @staticmethod
    def _inner(state: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        x, cos, sin, v, w = state
        return (x, math.atan2(sin, cos)), (v, w)


def accelerations(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """True accelerations of cart (m/s^2) and pole (rad/s^2) from the simulator, for comparing a model with.

    x : (n, 5)    u : (n, 1)    Returns (n, 2), columns ``dv, dw``.
    """
    return CartPoleSwingUp.accelerations(x, u)
