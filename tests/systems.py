"""Small systems with known answers, shared by the tests of models, planners and learning.

The cart is a double integrator, ``dv/dt = u``; the pendulum has 0 upright and no friction, ``dw/dt = 9.81 sin + u``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from scipy.integrate import solve_ivp

from sindyrl.expression import Variable
from sindyrl.library import polynomial_library
from sindyrl.model import Model
from sindyrl.sparse_map import SparseMap
from sindyrl.structure import SecondOrder
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

CART = (Signal("x", "m", -2.0, 2.0), Signal("v", "m/s", -2.0, 2.0))
FORCE = (Signal("u", "N", -1.0, 1.0),)
PENDULUM = (Signal("cos", "", -1.1, 1.1), Signal("sin", "", -1.1, 1.1), Signal("w", "rad/s", -12.0, 12.0))
GRAVITY = 9.81


def cart_task(**changes) -> Task:
    """Bring the cart to the origin within 4 s; quadratic cost, reflection symmetric."""
    x, v, u = Variable("x"), Variable("v"), Variable("u")
    settings: dict[str, Any] = {
        "name": "cart",
        "states": CART,
        "inputs": FORCE,
        "dt": 0.1,
        "horizon": 40,
        "reward": SymbolicMap([*CART, *FORCE], {"reward": -(x * x + 0.2 * v * v + 0.1 * u * u)}),
        "reset": lambda rng, n: rng.uniform(-0.2, 0.2, (n, 2)),
        "structure": SecondOrder({"x": "v"}),
        "library": polynomial_library(1),
        "policy_library": polynomial_library(3, bias=True),
        "mirror": ("x", "v", "u"),
    }
    return Task(**(settings | changes))


CART_TASK = cart_task()  # one object, so that what is compiled for it is compiled once


def cart_model(coef=(0.0, 0.0, 1.0), *, dt=0.1, seen=((-0.4, 0.4), (-0.6, 0.6)), states=CART) -> Model:
    """``dv/dt = coef @ (x, v, u)``; coef (3,) or (member, 3)."""
    library = polynomial_library(1).bind(("x", "v"), ("u",))
    rates = SparseMap(library, np.asarray(coef, dtype=float)[..., None, :], ("dv",), ("m/s^2",))
    return Model(rates, SecondOrder({"x": "v"}), states, FORCE, dt, np.array(seen))


def cart_matrices(dt=0.1) -> tuple[np.ndarray, np.ndarray]:
    """The exact step of the double integrator with the input held, ``x+ = A x + B u``."""
    return np.array([[1.0, dt], [0.0, 1.0]]), np.array([[dt**2 / 2.0], [dt]])


def pendulum_task(**changes) -> Task:
    """Hold the pendulum upright; the reward names its variables in another order than the state."""
    cos, w, u = Variable("cos"), Variable("w"), Variable("u")
    settings: dict[str, Any] = {
        "states": PENDULUM,
        "structure": SecondOrder(angles={("cos", "sin"): "w"}),
        "dt": 0.02,
        "reward": SymbolicMap(["u", "w", "cos"], {"reward": cos - 0.01 * w * w - 0.1 * u * u}),
        "policy_library": polynomial_library(2, bias=True),
        "mirror": (),
    }
    return cart_task(**settings | changes)


def pendulum_model(dt=0.02, *, states=PENDULUM) -> Model:
    """``dw/dt = 9.81 sin + u`` over all monomials up to degree 2."""
    library = polynomial_library(2).bind(("cos", "sin", "w"), ("u",))
    coef = np.zeros((1, len(library)))
    coef[0, library.index("sin")], coef[0, library.index("u")] = GRAVITY, 1.0
    rates = SparseMap(library, coef, ("dw",), ("rad/s^2",))
    seen = np.array([[-1.0, 1.0], [-1.0, 1.0], [-9.0, 9.0]])
    return Model(rates, SecondOrder(angles={("cos", "sin"): "w"}), states, FORCE, dt, seen)


def exact_flow(rate, x0: np.ndarray, u: np.ndarray, dt: float) -> np.ndarray:
    """States (steps + 1, n) of ``dx/dt = rate(x, u)`` to 13 digits, the input held over each step."""
    path = [np.asarray(x0, dtype=float)]
    for held in u:
        solution = solve_ivp(lambda _, y: rate(y, held), (0.0, dt), path[-1], method="DOP853", rtol=1e-13, atol=1e-13)  # noqa: B023
        path.append(solution.y[:, -1])
    return np.array(path)


class CartEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """The cart itself, stepped exactly; an episode ends after ``length`` steps or outside of ``|x| < 2``.

    ``taken`` counts the steps of all episodes.
    """

    def __init__(self, length: int = 30) -> None:
        self.length, self.taken = length, 0
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self._x, self._k = np.zeros(2), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._k = self.np_random.uniform(-0.2, 0.2, 2), 0
        return self._x.copy(), {}

    def step(self, action):
        a, b = cart_matrices()
        self._x, self._k, self.taken = a @ self._x + b @ action, self._k + 1, self.taken + 1
        reward = -float(self._x[0] ** 2 + 0.2 * self._x[1] ** 2 + 0.1 * action[0] ** 2)
        return self._x.copy(), reward, bool(abs(self._x[0]) > 2.0), self._k >= self.length, {}
