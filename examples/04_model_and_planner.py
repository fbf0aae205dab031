"""A model and a planner drive a real cart-pole to the data that the model needs; a policy of ten terms follows.

Claim: from 250 real steps (2.5 s) on dm_control's cart-pole, whose equations the program does not know, come a planner
that swings the pole up and a closed form that does it too, without a model or a planner at run time.

    python examples/04_model_and_planner.py         needs the `envs` extra; about 20 s
"""

import gymnasium
import numpy as np

import sindyrl
from sindyrl.controllers import CrossEntropyPlanner, RecedingHorizon
from sindyrl.envs.cartpole import task
from sindyrl.identify import Fit
from sindyrl.learn.active import collect_actively
from sindyrl.learn.policy_search import SearchSettings

# A fraction of the default effort, which is worth waiting for.
QUICK = SearchSettings(population=48, generations=60, restarts=2, polish=30, repair=10, tries=1, attempts=1)


def fit_to(data: sindyrl.Dataset) -> Fit:
    return sindyrl.identify(data, task=task)


def planned(model: sindyrl.Model) -> RecedingHorizon:
    return RecedingHorizon(CrossEntropyPlanner(model, task, horizon=100, hold=5), every=5)


def main(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    env = sindyrl.InteractionMeter(gymnasium.make("sindyrl/CartPoleSwingUp-v0"))
    with env.counting("data"):
        # 40 random steps, then the planner drives in a model that is refitted every 10 steps.
        data = collect_actively(
            env, task, lambda data: fit_to(data).model, planned, steps=250, warmup=40, refit_every=10, rng=rng
        )
    fit = fit_to(data)
    print(f"{fit}\n")

    policy = sindyrl.search_policy(task, fit.model, max_terms=10, rng=rng, settings=QUICK)
    print(f"{policy.equations(precision=3)}\n")

    with env.counting("report"):
        by_planner = sindyrl.evaluate(env, planned(fit.model), episodes=1, rng=rng)
        by_policy = sindyrl.evaluate(env, policy, episodes=3, rng=rng)
    print(f"return with the planner {by_planner[0]:.0f}, with the closed form {by_policy.mean():.0f}, of at most 1000")
    print(env)


if __name__ == "__main__":
    main()
