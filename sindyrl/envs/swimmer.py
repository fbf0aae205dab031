"""Swimmer-v5 of Gymnasium: the environment, and what is known of it beforehand.

The body, its fluid, the initial states and the reward are Gymnasium's own; the simulator is MuJoCo. Three links of
1 m, in a plane, are joined by two hinges with a motor each; swimming forward, towards +x, pays.

| index | state  | meaning                                             | unit  | range                             |
|-------|--------|-----------------------------------------------------|-------|-----------------------------------|
| 0     | theta  | heading of the first link                           | rad   | 0: along x; not wrapped           |
| 1     | a1     | angle of the middle link, relative to the first     | rad   | soft stops at -1.745 and 1.745    |
| 2     | a2     | angle of the last link, relative to the middle one  | rad   | soft stops at -1.745 and 1.745    |
| 3     | vx     | velocity of the reference point along x             | m/s   |                                   |
| 4     | vy     | velocity of the reference point along y             | m/s   |                                   |
| 5     | w      | angular velocity of the first link                  | rad/s |                                   |
| 6     | w1     | rate of ``a1``                                      | rad/s |                                   |
| 7     | w2     | rate of ``a2``                                      | rad/s |                                   |
| input | u1, u2 | motor commands, 150 N m of torque on each hinge     | 1     | -1 to 1                           |

Counter-clockwise is positive. The reference point moves with the first link, half a meter behind the hinge at its rear
end: the middle of the straight body. 0.04 s per step (four of Runge-Kutta 4), 1000 steps per episode, which then is
truncated; it never terminates. An episode starts near rest, straight and heading along x, each within 0.1.

Reward. The environment pays what Gymnasium pays: the mean of ``vx`` over the step, less ``1e-4 |u|^2``. The mean is not
a function of the state after the step; the reward of the task, to plan with, is ``vx - 1e-4 |u|^2`` there. Single steps
differ by up to 0.5, but over an episode the differences telescope: the sums differ by half of the last ``vx`` less half
of the first, and by what the trapezoidal rule neglects.

Source: Coulom, Reinforcement Learning Using Neural Networks, thesis, Grenoble, 2002; Gymnasium's
``envs/mujoco/swimmer_v5.py`` and ``assets/swimmer.xml``; MuJoCo's documentation, chapter Computation, fluid forces.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sindyrl.expression import Node, Variable, absolute, cos, sin
from sindyrl.library import custom_library, polynomial_library
from sindyrl.planar_body import PlanarBody
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.task import Task

STATES = (
    # Heading and velocities: where a model is still worth following. Random inputs reach 3 m/s and 7 rad/s.
    Signal("theta", "rad", -math.pi, math.pi),
    Signal("a1", "rad", -1.745, 1.745),
    Signal("a2", "rad", -1.745, 1.745),
    Signal("vx", "m/s", -5.0, 5.0),
    Signal("vy", "m/s", -5.0, 5.0),
    Signal("w", "rad/s", -10.0, 10.0),
    Signal("w1", "rad/s", -12.0, 12.0),
    Signal("w2", "rad/s", -12.0, 12.0),
)
INPUTS = (Signal("u1", "1", -1.0, 1.0), Signal("u2", "1", -1.0, 1.0))
STEPS_PER_EPISODE = 1000
DT = 0.04

_FRAMES = 4  # steps of the simulator, of 0.01 s, in one of ours
# The stops' soft constraint begins to act at 100 degrees, 1.745 rad.
_NEAR_STOP = 1.72
_HARMONICS = 3  # of the joint angles, together, in the library


def kinematics() -> dict[str, Node]:
    """Velocities of the links' centers along and across each link (m/s), and turning rates of the links (rad/s).

    The links are 1 m long, and the numbers in these expressions are lever arms in meters.
    """
    theta, a1, a2, vx, vy, w, w1, w2 = (Variable(signal.name) for signal in STATES)
    forward, sideways = cos(theta) * vx + sin(theta) * vy, cos(theta) * vy - sin(theta) * vx
    turn2 = w + w1
    turn3 = turn2 + w2
    hinge = sideways + 0.5 * w  # where the first link ends
    along2, front2 = cos(a1) * forward + sin(a1) * hinge, cos(a1) * hinge - sin(a1) * forward
    rear2 = front2 - turn2
    along3, front3 = cos(a2) * along2 + sin(a2) * rear2, cos(a2) * rear2 - sin(a2) * along2
    return {
        "forward": forward,
        "sideways": sideways,
        "across1": sideways + w,
        "along2": along2,
        "across2": front2 - 0.5 * turn2,
        "along3": along3,
        "across3": front3 - 0.5 * turn3,
        "turn2": turn2,
        "turn3": turn3,
    }


def candidate_terms() -> tuple[Node, ...]:
    """Forces per mass, times harmonics of the joint angles: what the inverse of a mass matrix makes of them.

    Forces: the inputs; ``v |v|`` of each link's center along and across the link, and ``w |w|`` of each link (drag at
    high Reynolds numbers); ``w^2`` of each link and ``w`` times the body's velocity (inertia). The lengths of the links
    are known; no mass, no gain and no drag coefficient is. Harmonics: cosine and sine of ``i a1 + j a2``, with
    ``|i| + |j|`` up to 3.
    """
    a1, a2, w, u1, u2 = (Variable(name) for name in ("a1", "a2", "w", "u1", "u2"))
    v = kinematics()
    odd = [_drag(v[name]) for name in ("across1", "across2", "across3")]
    odd += [_drag(w), _drag(v["turn2"]), _drag(v["turn3"]), u1, u2, w * v["forward"]]
    even = [_drag(v[name]) for name in ("forward", "along2", "along3")]
    even += [w**2, v["turn2"] ** 2, v["turn3"] ** 2, w * v["sideways"]]
    pairs = [(i, j) for i in range(_HARMONICS + 1) for j in range(-_HARMONICS, _HARMONICS + 1)]
    pairs = [(i, j) for i, j in pairs if 0 < i + abs(j) <= _HARMONICS and (i > 0 or j > 0)]
    angles = [_sum(i, a1, j, a2) for i, j in pairs]
    factors = [None, *(cos(angle) for angle in angles), *(sin(angle) for angle in angles)]
    return tuple(force if factor is None else factor * force for force in odd + even for factor in factors)


def _drag(v: Node) -> Node:
    return v * absolute(v)


def _sum(i: int, a: Node, j: int, b: Node) -> Node:
    """``i a + j b`` without products by 0 or 1."""
    first = None if i == 0 else a if i == 1 else float(i) * a
    second = None if j == 0 else b if abs(j) == 1 else float(abs(j)) * b
    if first is None or second is None:
        return first if second is None else second  # type: ignore[return-value]  # never both 0
    return first + second if j > 0 else first - second


def _reward() -> SymbolicMap:
    vx, u1, u2 = (Variable(name) for name in ("vx", "u1", "u2"))
    return SymbolicMap([*STATES, *INPUTS], {"reward": vx - 1e-4 * (u1**2 + u2**2)}, name="reward")


def straight(rng: np.random.Generator, n: int) -> np.ndarray:
    """Initial states as Gymnasium draws them: straight, near rest, everything within 0.1. Shape ``(n, 8)``."""
    return rng.uniform(-0.1, 0.1, (n, len(STATES)))


def near_stop(x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """Transitions that begin or end near a joint's stop, where the equations of motion change. Shape ``(n,)``."""
    return (np.abs(x[:, 1:3]) > _NEAR_STOP).any(axis=1) | (np.abs(x_next[:, 1:3]) > _NEAR_STOP).any(axis=1)


structure = PlanarBody()

task = Task(
    name="swimmer",
    states=STATES,
    inputs=INPUTS,
    dt=DT,
    horizon=STEPS_PER_EPISODE,
    reward=_reward(),
    reset=straight,
    structure=structure,
    library=custom_library(candidate_terms()),
    policy_library=polynomial_library(degree=1),
    exclude=near_stop,
    mirror=("theta", "a1", "a2", "vy", "w", "w1", "w2", "u1", "u2"),
    # As if drifting back for the rest of the episode: no way of swimming is worth less.
    failure_reward=-1.0,
)


class Swimmer(gymnasium.Env[np.ndarray, np.ndarray]):
    """``sindyrl/Swimmer-v0``; observation, action, units and signs are in the text of this module.

    ``reset(seed=...)`` decides everything that follows; without a seed the random stream goes on.
    ``reset(options={"state": (theta, a1, a2, vx, vy, w, w1, w2)})`` starts at a state instead of drawing one, with the
    reference point at the origin.
    Raises `ImportError` if the ``envs`` extra is not installed.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's interface)
    task = task
    dt = DT
    exact_reward = False  # the task's reward is one to plan with; see the text of this module

    def __init__(self, render_mode: None = None) -> None:
        if render_mode is not None:
            raise ValueError(f"`Swimmer(render_mode=...)` must be None. Got {render_mode!r}.")
        self.render_mode = None
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (len(STATES),), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(INPUTS),), np.float32)
        self._mujoco, self._model, self._data = _simulator()
        self._steps_left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"state"})
        if unknown:
            raise ValueError(f"`reset(options=...)` understands 'state'. Got {unknown}.")
        self._mujoco.mj_resetData(self._model, self._data)
        if options and "state" in options:
            _place(self._data, options["state"])
        else:
            # In Gymnasium's order, so that its seeds give its initial states.
            self._data.qpos[:] += self.np_random.uniform(-0.1, 0.1, self._model.nq)
            self._data.qvel[:] += self.np_random.uniform(-0.1, 0.1, self._model.nv)
        self._mujoco.mj_forward(self._model, self._data)
        self._steps_left = STEPS_PER_EPISODE
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._steps_left == 0:
            raise gymnasium.error.ResetNeeded("`step` needs a running episode. Call `reset` first.")
        if not (np.shape(action) == (len(INPUTS),) and np.isfinite(action).all()):
            raise ValueError(f"`step(action)` must be two finite numbers in an array of shape (2,). Got {action!r}.")
        before = self._data.qpos[0]
        self._data.ctrl[:] = action
        self._mujoco.mj_step(self._model, self._data, nstep=_FRAMES)
        reward = float((self._data.qpos[0] - before) / DT - 1e-4 * np.sum(np.square(action)))
        self._steps_left -= 1
        return self._observation(), reward, False, self._steps_left == 0, {}

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._data.qpos[2:], self._data.qvel])


def accelerations(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """True targets of the model from the simulator, for comparing a model with.

    x : (n, 8)    u : (n, 2)    Returns (n, 5), columns ``dforward, dsideways, dw, dw1, dw2``.
    """
    x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(STATES) or u.shape != (len(x), len(INPUTS)):
        raise ValueError(f"`accelerations(x, u)` must have shapes (n, 8) and (n, 2). Got {x.shape} and {u.shape}.")
    mujoco, model, data = _simulator()
    out = np.empty((len(x), 5))
    for row, (state, command) in enumerate(zip(x, u, strict=True)):
        mujoco.mj_resetData(model, data)
        _place(data, state)
        data.ctrl[:] = command
        mujoco.mj_forward(model, data)
        out[row] = data.qacc
    c, s = np.cos(x[:, 0]), np.sin(x[:, 0])
    out[:, 0], out[:, 1] = c * out[:, 0] + s * out[:, 1], c * out[:, 1] - s * out[:, 0]
    return out


def _place(data: Any, state: Any) -> None:
    """Writes a state in the order of the observation into the simulator, the reference point at the origin."""
    values = np.asarray(state, dtype=np.float64)
    if values.shape != (len(STATES),) or not np.isfinite(values).all():
        raise ValueError(f"A swimmer's state must be 8 finite numbers {task.state_names}. Got {state!r}.")
    data.qpos[:] = (0.0, 0.0, *values[:3])
    data.qvel[:] = values[3:]


def _simulator() -> tuple[Any, Any, Any]:
    """MuJoCo, Gymnasium's model of the swimmer, and a simulation of it."""
    try:
        import mujoco
    except ImportError as error:
        raise ImportError('The swimmer needs mujoco. Run: pip install "sindyrl[envs]"') from error
    # Only the file: importing Gymnasium's own package would need its renderer as well.
    package = importlib.util.find_spec("gymnasium.envs.mujoco")
    if package is None or not package.submodule_search_locations:
        raise ImportError('The swimmer needs the files of gymnasium.envs.mujoco. Run: pip install "gymnasium>=1.0"')
    file = Path(package.submodule_search_locations[0]) / "assets" / "swimmer.xml"
    model = mujoco.MjModel.from_xml_path(str(file))
    return mujoco, model, mujoco.MjData(model)
