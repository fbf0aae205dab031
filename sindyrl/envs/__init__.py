"""Physical systems behind the Gymnasium interface, one file each, with what is known of each beside it.

Importing this package registers them; the simulators are loaded when an environment is made.
"""

import gymnasium

_ENTRY_POINTS = {
    "sindyrl/CartPoleSwingUp-v0": "sindyrl.envs.cartpole:CartPoleSwingUp",
    "sindyrl/DoubleCartPoleSwingUp-v0": "sindyrl.envs.double_cartpole:DoubleCartPoleSwingUp",
    "sindyrl/Pendulum-v0": "sindyrl.envs.pendulum:Pendulum",
    "sindyrl/Acrobot-v0": "sindyrl.envs.acrobot:Acrobot",
    "sindyrl/ContinuousCartPole-v0": "sindyrl.envs.continuous_cartpole:ContinuousCartPole",
    "sindyrl/MountainCar-v0": "sindyrl.envs.mountain_car:MountainCar",
    "sindyrl/Swimmer-v0": "sindyrl.envs.swimmer:Swimmer",
    "sindyrl/LunarLander-v0": "sindyrl.envs.lunar_lander:LunarLander",
}

for _id, _entry_point in _ENTRY_POINTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(id=_id, entry_point=_entry_point, order_enforce=False, disable_env_checker=True)
