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
    method: Literal["auto", "collocation", "weak", "derivatives"] = "auto"
    """How rates are taken from samples: differences, windowed integrals, local polynomials; auto looks at the noise."""
    units: str = ""
    """column=unit pairs such as x=m,v=m/s,u=N; checked, and shown with the coefficients."""
    threshold: float | None = None
    """Use STLSQ with this threshold; by default the best subset of the terms is searched."""
    max_terms: int = 8
    """Most terms of each equation, for the best subset."""
    criterion: Literal["ebic", "cv", "aicc", "bic"] = "ebic"
    """What decides how many terms, for the best subset; weak and derivatives always take ebic."""
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
        from sindyrl.fit_command import names, pairs, run_fit, units
        from sindyrl.fitting import FitSettings

        settings = FitSettings(
            degree=self.degree,
            bias=not self.no_bias,
            trig=names(self.trig, "--trig"),
            discrete=self.discrete,
            kinematics=pairs(self.kinematics, "--kinematics"),
            method=self.method,
            units=units(self.units, "--units"),
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


@dataclasses.dataclass(frozen=True)
class Bench:
    """A benchmark of the checkout, or the list of them: sindyrl bench identification --quick"""

    name: tyro.conf.Positional[str | None] = None
    """Without it: what there is. What follows it are the benchmark's own options, --help among them."""
    json: bool = False
    """Print one line of JSON on standard output."""
    options: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        from sindyrl.bench_command import list_benchmarks, run_benchmark

        if self.name is not None:
            return run_benchmark(self.name, self.options)
        list_benchmarks(json=self.json)
        return 0


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """A published result run with this code, beside what the paper states, or the list of them. Exit code 1 if a claim
    is not met."""

    name: tyro.conf.Positional[str | None] = None
    """Without it: what there is. What follows it are --quick, --json, --save and the reproduction's own options."""
    json: bool = False
    """Print one line of JSON on standard output."""
    options: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        from sindyrl.reproduce_command import list_reproductions, run_reproduction

        if self.name is not None:
            return run_reproduction(self.name, self.options)
        list_reproductions(json=self.json)
        return 0


@dataclasses.dataclass(frozen=True)
class Export:
    """A saved map or model as checked C, or as a package for a tool or another language."""

    file: tyro.conf.Positional[Path]
    """JSON file of a map, or of a model, whose step is exported."""
    out: Path = Path("firmware")
    """Folder of the files; others in it stay."""
    target: str = "c"
    """c for the three files alone, or arduino, cmake, fmu, javascript, latex, numpy, platformio, rust, simulink,
    zephyr."""
    number: Literal["float32", "float64", "q31", "q15"] = "float32"
    """Number type of the C; q31 and q15 are fixed point and need a finite range for every input."""
    prefix: str | None = None
    """Name of the function and the files; by default the map's."""
    math: Literal["own", "libm"] | None = None
    """Bring sin, cos, tanh, exp and log along, or call <math.h>; by default own for float32."""
    fallback: str = ""
    """output=value pairs, such as u=0: also write a function that checks its inputs and falls back to these."""
    outside: Literal["fallback", "compute"] = "fallback"
    """What the checked function does with inputs that are finite and beyond their ranges."""
    max_error: float | None = None
    """Fail if the bound on the error is larger, in the unit of the output."""
    undefined: Literal["refuse", "allow"] = "refuse"
    """What to do if a division by zero or the like cannot be ruled out."""
    period: float | None = None
    """Seconds between calls, for the header."""
    batch: bool = False
    """Also write a function for many rows at once, for roll-outs on a host."""
    processors: str = "cortex-m4f"
    """Emulated processors, separated by commas: cortex-m0, cortex-m3, cortex-m4f, cortex-m7, or all."""
    report: bool = False
    """Also write NAME_export.json with every figure."""
    json: bool = False
    """Print one line of JSON on standard output."""

    def run(self) -> None:
        from sindyrl.export_command import read_fallback, run_export
        from sindyrl.fit_command import names

        run_export(
            self.file,
            target=self.target,
            number=self.number,
            prefix=self.prefix,
            out=self.out,
            math=self.math,
            fallback=read_fallback(self.fallback),
            outside=self.outside,
            max_error=self.max_error,
            undefined=self.undefined,
            period=self.period,
            batch=self.batch,
            processors=names(self.processors, "--processors"),
            report=self.report,
            json=self.json,
        )


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
)
_FROM_CHECKOUT: dict[str, type[Bench] | type[Reproduce]] = {"bench": Bench, "reproduce": Reproduce}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. What the user can mend is one line on standard error and exit code 2."""
    command = _command(list(sys.argv[1:] if arguments is None else arguments))
    warnings.simplefilter("default", UserWarning)
    try:
        return command.run() or 0
    except KeyboardInterrupt:
        sys.stderr.write("sindyrl: interrupted. The same command goes on from the last finished stage.\n")
        return 130
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        if _is_ours(error):
            return console.fail(str(error))
        raise


def _command(arguments: list[str]) -> Command:
    """What to run. After `bench NAME` and `reproduce NAME` everything belongs to that benchmark or reproduction."""
    head, *tail = arguments or [""]
    if head in _FROM_CHECKOUT and tail and not tail[0].startswith("-"):
        return _FROM_CHECKOUT[head](name=tail[0], options=tuple(tail[1:]))
    what = "From a few seconds of data to equations, a readable controller and C."
    command: Command = tyro.cli(Command, args=arguments, prog="sindyrl", description=what)
    return command


def _is_ours(error: BaseException) -> bool:
    """Errors raised by this project itself say what to do; a traceback is for those that do not."""
    traceback = error.__traceback__
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.split(".")[0] in ("sindyrl", "benchmarks", "paper_reproductions")


if __name__ == "__main__":
    sys.exit(main())
