"""A small problem of control, planted methods that other processes import by name, and what their policies earn."""

import dataclasses
import json

import numpy as np

from benchmarks.control.problem import Problem
from sindyrl.collect import collect, evaluate
from sindyrl.expression import Variable
from sindyrl.symbolic_map import SymbolicMap
from tests.systems import CART, CART_TASK, FORCE, CartEnv, cart_matrices

HERE = "tests.control_cases"
LENGTH = 30  # steps of an episode of the cart

PROBLEM = Problem("cart", CART_TASK, CartEnv, threshold=-0.5)


@dataclasses.dataclass(frozen=True)
class Gain:
    """``u = -gain (x + v)``; ``n_parameters`` is made up."""

    gain: float
    n_parameters: int = 2

    def __call__(self, x):
        return np.clip(-self.gain * x.sum(keepdims=True), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Planted:
    """12 + 7 steps on two environments, three policies, each better than the last."""

    gains: tuple = (0.0, 0.3, 2.0)

    @classmethod
    def of(cls, problem, *, quick):
        return cls()

    def learn(self, system, seed, report):
        rng = np.random.default_rng(seed)
        first, second = system.make_env("data"), system.make_env()
        assert report(Gain(self.gains[0])) is None
        collect(first, lambda x: np.zeros(1), steps=12, rng=rng, dt=0.1)
        report(Gain(self.gains[1]))
        with second.counting("selection"):
            evaluate(second, Gain(1.0), episodes=1, rng=rng, max_steps=7)
        return Gain(self.gains[2])


class Failing(Planted):
    """Not for every seed."""

    def learn(self, system, seed, report):
        if seed % 2:
            raise ArithmeticError("an odd seed")
        return super().learn(system, seed, report)


class Linear(Planted):
    """A closed form."""

    def learn(self, system, seed, report):
        x, v = Variable("x"), Variable("v")
        return SymbolicMap(CART, {FORCE[0]: -float(seed) * x - 0.5 * v}, name="linear")


class Unavailable(Planted):
    """Needs what is nowhere."""

    PACKAGES = ("no_such_package_of_ours",)
    EXTRA = "baselines"


PLANTED = {name.lower(): f"{HERE}:{name}" for name in ("Planted", "Failing", "Linear", "Unavailable")}


def true_return(policy, seed):
    """Of one episode of the cart, stepped here."""
    a, b = cart_matrices()
    x, total = CartEnv().reset(seed=seed)[0], 0.0
    for _ in range(LENGTH):
        u = policy(x)
        x = a @ x + b @ u
        total -= float(x[0] ** 2 + 0.2 * x[1] ** 2 + 0.1 * u[0] ** 2)
    return total


def told(capsys):
    """The figures that a study has printed as JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
