"""Physical systems behind the Gymnasium interface, one file each, with what is known of each beside it.

Importing this package registers them; the simulators are loaded when an environment is made.
"""

import gymnasium

if "sindyrl/CartPoleSwingUp-v0" not in gymnasium.registry:
    gymnasium.register(
        id="sindyrl/CartPoleSwingUp-v0",
        entry_point="sindyrl.envs.cartpole:CartPoleSwingUp",
        order_enforce=False,
        disable_env_checker=True,
    )
