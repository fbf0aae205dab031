"""The task file of Gymnasium's Pendulum-v1: from 200 real steps to a policy that swings it up and holds it.

    sindyrl learn --env Pendulum-v1 --task examples/pendulum_task.py --data-steps 200 --plan-horizon 30

| state | meaning                      | unit  |        Angle 0 is upright, counter-clockwise positive.
|-------|------------------------------|-------|        The torque is too weak to lift the pendulum directly.
| cos   | cosine of the angle          | 1     |
| sin   | sine of the angle            | 1     |
| w     | angular velocity             | rad/s |
| u     | torque                       | N m   |

A task says what is wanted and what is known; nothing here says how the pendulum moves.
"""

import numpy as np

import sindyrl
from sindyrl.expression import Variable

STATES = (
    sindyrl.Signal("cos", "1", -1.01, 1.01),
    sindyrl.Signal("sin", "1", -1.01, 1.01),
    sindyrl.Signal("w", "rad/s", -8.5, 8.5),
)
INPUTS = (sindyrl.Signal("u", "N*m", -2.0, 2.0),)


def reward() -> sindyrl.SymbolicMap:
    """Pendulum-v1 charges angle^2 + 0.1 w^2 + 0.001 u^2; angle^2 is written in cos, exact at 0 and at 180 degrees."""
    cos, w, u = Variable("cos"), Variable("w"), Variable("u")
    angle_squared = 2.0 * (1.0 - cos) + (np.pi**2 / 4.0 - 1.0) * (1.0 - cos) ** 2
    cost = angle_squared + 0.1 * w**2 + 0.001 * u**2
    return sindyrl.SymbolicMap([*STATES, *INPUTS], {"reward": -1.0 * cost}, name="reward")


def reset(rng: np.random.Generator, n: int) -> np.ndarray:
    """Any angle, slow: as the environment resets. Shape (n, 3)."""
    angle, w = rng.uniform(-np.pi, np.pi, n), rng.uniform(-1.0, 1.0, n)
    return np.column_stack([np.cos(angle), np.sin(angle), w])


def at_speed_limit(x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Transitions to leave out: the environment clips w at 8 rad/s, which no equation of motion explains."""
    return np.abs(x_next[:, 2]) > 7.99


task = sindyrl.Task(
    name="pendulum swing-up",
    states=STATES,
    inputs=INPUTS,
    dt=0.05,
    horizon=200,
    reward=reward(),
    reset=reset,
    structure=sindyrl.SecondOrder(angles={("cos", "sin"): "w"}),
    library=sindyrl.polynomial_library(degree=3, input_degree=1),
    policy_library=sindyrl.polynomial_library(degree=3),
    exclude=at_speed_limit,
    mirror=("sin", "w", "u"),  # seen in a mirror it is the same pendulum
)
