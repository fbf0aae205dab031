"""``sindyrl …``: the command line, one dataclass per command."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from sindyrl import console


@dataclasses.dataclass(frozen=True)
class Demo:
    """Cart-pole swing-up, from the first real step to C on an emulated Cortex-M4."""

    seed: int = 0
    """Decides every random number of the run."""
    data_steps: int = 250
    """Real steps to learn from (0.01 s each)."""
    noise: float = 0.0
    """Standard deviation of the measurement noise on every observation."""
    out: Path | None = None
    """Folder of the run; by default runs/cartpole-seed<seed>. A run that was interrupted goes on."""
    json: bool = False
    """Print JSON lines on standard output, the last one the summary."""
    fresh: bool = False
    """Remove an earlier run in the folder first."""

    def run(self) -> None:
        from sindyrl.chain import ChainSettings
        from sindyrl.demo import run_demo

        settings = ChainSettings(seed=self.seed, data_steps=self.data_steps)
        run_demo(settings, noise=self.noise, out=self.out, json=self.json, fresh=self.fresh)


@dataclasses.dataclass(frozen=True)
class Learn:
    """The same chain on your own system: a Gymnasium environment with continuous actions, and a task file."""

    env: str
    """A registered id, or module:Class of your own."""
    task: Path
    """Python file that defines `task`, a sindyrl.Task. It is run: give your own."""
    seed: int = 0
    """Decides every random number of the run."""
    data_steps: int = 250
    """Real steps to learn from."""
    max_terms: int = 10
    """Most terms of the policy, over all inputs."""
    model_terms: int = 5
    """Most terms of each equation of the model."""
    report_episodes: int = 10
    """Real episodes that measure the result."""
    warmup: int = 40
    """How many of the data steps are random."""
    plan_horizon: int = 100
    """Steps that the planner looks ahead while data are collected; a multiple of 5."""
    out: Path | None = None
    """Folder of the run; by default runs/<task's file name>-seed<seed>. A run that was interrupted goes on."""
    json: bool = False
    """Print JSON lines on standard output, the last one the summary."""
    fresh: bool = False
    """Remove an earlier run in the folder first."""

    def run(self) -> None:
        from sindyrl.chain import ChainSettings
        from sindyrl.demo import run_chain
        from sindyrl.loading import check_fit, env_maker, load_task

        settings = ChainSettings(
            seed=self.seed,
            data_steps=self.data_steps,
            max_terms=self.max_terms,
            model_terms=self.model_terms,
            report_episodes=self.report_episodes,
            warmup=self.warmup,
            horizon=self.plan_horizon,
        )
        make_env, task = env_maker(self.env), load_task(self.task)
        env = make_env()
        try:
            check_fit(task, env)
        finally:
            env.close()
        out = self.out if self.out is not None else Path("runs") / f"{self.task.stem}-seed{self.seed}"
        origin = {"env": self.env, "task": self.task.read_text(encoding="utf-8")}
        run_chain(task, make_env, origin, settings, out, title=task.name, json=self.json, fresh=self.fresh)


Command = Annotated[Demo, tyro.conf.subcommand("demo")] | Annotated[Learn, tyro.conf.subcommand("learn")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. What the user can mend is one line on standard error and exit code 2."""
    command = tyro.cli(Command, args=arguments, prog="sindyrl", description=__doc__)
    warnings.simplefilter("default", UserWarning)
    try:
        command.run()
    except KeyboardInterrupt:
        sys.stderr.write("sindyrl: interrupted. The same command goes on from the last finished stage.\n")
        return 130
    except (ValueError, TypeError, ImportError, OSError) as error:
        if _is_ours(error):
            return console.fail(str(error))
        raise
    return 0


def _is_ours(error: BaseException) -> bool:
    """Errors raised by this package itself say what to do; a traceback is for those that do not."""
    traceback = error.__traceback__
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.split(".")[0] == "sindyrl"


if __name__ == "__main__":
    sys.exit(main())
