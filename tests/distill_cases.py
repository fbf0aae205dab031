"""A planted policy, as a teacher that tells what it wanted too, and quick settings, for the tests of distillation."""

import numpy as np

from sindyrl.distill import DistillSettings, PublishedSettings
from sindyrl.learn.scoring import Scorer, policy_terms
from tests.systems import CART_TASK, cart_model, cart_task

NAMES = {"states": ("x", "v"), "inputs": ("u",)}
imitate = DistillSettings(scenarios=16, rounds=1, episodes=4, polish=0, repair=0, members=4, ridge=(1e-9,))
quick = PublishedSettings(
    steps=400, length=40, alphas=(1e-6, 1e-2), thresholds=(1e-3, 0.1, 3.0), members=6, scenarios=8
)


def rng(seed=0):
    return np.random.default_rng(seed)


def linear(x):
    """A planted policy that is often at its limits."""
    return np.clip(-3.0 * x[..., :1] - 4.0 * x[..., 1:2], -1.0, 1.0)


class Unlimited:
    """``linear``, which also tells what it wanted."""

    def __call__(self, x):
        return np.clip(self.unclipped(x), -1.0, 1.0)

    def unclipped(self, x):
        return -3.0 * x[..., :1] - 4.0 * x[..., 1:2]


def perturbed_scorer():
    """Of the cart, in the model as planted and in one that is off."""
    library, _ = policy_terms(cart_task(mirror=()), cart_model(), rng())
    members = np.array([[0.0, 0.0, 1.0], [-0.5, 0.2, 0.8]])
    return Scorer(CART_TASK, cart_model(members), library)
