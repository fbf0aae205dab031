"""Cart-pole swing-up: how many real steps each method needs, and what it earns in the end.

    sindyrl bench swingup --methods policy-search,dyna-ppo,ppo --seeds 20 [--jobs 2] [--json] [--plot] [--save]

Learns on `sindyrl/CartPoleSwingUp-v0`, at most 1000 in an episode; learned at 800. Every method is graded by the same
free episodes, 3 for each policy along the way and 10 for the last one, which it is told nothing about; its cost is
every other real step. A finished seed is kept under runs/swingup, and each round of one that is not finished, where the
method is a form of Dyna: killed and started again, the study goes on. Methods that are not ours need the extra
`baselines`, in an environment of its own where torch is.
"""

from __future__ import annotations

import dataclasses
import sys

from benchmarks import command
from benchmarks.control import study
from benchmarks.control.problem import Problem
from sindyrl.envs import cartpole

PROBLEM = Problem("swingup", cartpole.task, cartpole.CartPoleSwingUp, threshold=800.0)


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Cart-pole swing-up, method beside method."""

    json: bool = False
    """Print JSON lines on standard output and nothing else there."""


def run(settings: Settings) -> int:
    return study.run_study("benchmarks.swingup:PROBLEM", settings)


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
