"""``sindyrl …``: the command line, one dataclass per command."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

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


@dataclasses.dataclass(frozen=True)
class Fit:
    """Equations of motion from a CSV file: sindyrl fit data.csv --states x,v --inputs u"""

    data: tyro.conf.Positional[Path]
    """CSV file with a header line."""
    states: str
    """Columns of the states, separated by commas."""
    inputs: str = ""
    """Columns of the inputs, each held until the next row."""
    time: str | None = None
    """Column of the time in seconds; by default one called t or time."""
    dt: float | None = None
    """Seconds between rows, if there is no time column."""
    episode: str | None = None
    """Column whose change starts a new recording."""
    degree: int = 2
    """Of the polynomials in states and inputs."""
    trig: str = ""
    """States, in rad, whose sine and cosine are candidates too."""
    no_bias: bool = False
    """Leave the constant out of the candidates."""
    discrete: bool = False
    """Difference equations in place of differential equations."""
    kinematics: str = ""
    """position:velocity pairs that are known, such as x:v; then only accelerations are fitted."""
    threshold: float | None = None
    """Use STLSQ with this threshold; by default the best subset of the terms is searched."""
    max_terms: int = 8
    """Most terms of each equation, for the best subset."""
    criterion: Literal["cv", "aicc", "bic"] = "cv"
    """What decides how many terms, for the best subset."""
    holdout: float = 0.2
    """Share of the data that judges the fit: of three or more recordings the last ones, else the end of each."""
    robust: bool = False
    """Leave outliers out of the fit."""
    resample: bool = False
    """Interpolate uneven time steps onto an even grid."""
    allow_lost_inputs: bool = False
    """Accept equations that lost the whole effect of an input."""
    out: Path | None = None
    """Folder for model.json, fit.json and report.html; by default runs/<file name>-fit."""
    json: bool = False
    """Print one line of JSON on standard output."""

    def run(self) -> None:
        from sindyrl.fit_command import names, pairs, run_fit
        from sindyrl.fitting import FitSettings

        settings = FitSettings(
            degree=self.degree,
            bias=not self.no_bias,
            trig=names(self.trig, "--trig"),
            discrete=self.discrete,
            kinematics=pairs(self.kinematics, "--kinematics"),
            threshold=self.threshold,
            criterion=self.criterion,
            max_terms=self.max_terms,
            holdout=self.holdout,
            robust=self.robust,
            allow_lost_inputs=self.allow_lost_inputs,
        )
        run_fit(
            self.data,
            settings,
            states=names(self.states, "--states"),
            inputs=names(self.inputs, "--inputs"),
            time=self.time,
            dt=self.dt,
            episode=self.episode,
            resample=self.resample,
            out=self.out,
            json=self.json,
        )


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. What the user can mend is one line on standard error and exit code 2."""
    what = "From a few seconds of data to equations, a readable controller and C."
    command = tyro.cli(Command, args=arguments, prog="sindyrl", description=what)
    warnings.simplefilter("default", UserWarning)
    try:
        command.run()
    except KeyboardInterrupt:
        sys.stderr.write("sindyrl: interrupted. The same command goes on from the last finished stage.\n")
        return 130
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
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
