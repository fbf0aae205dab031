"""The command line of a benchmark: its ``Settings`` as options, its ``run`` as what happens.

A file of benchmarks/ or benchmarks/speed/ that defines both is listed by `sindyrl bench` and run by
`sindyrl bench <its name>`, which is `python -m` with that file. It ends with

    if __name__ == "__main__":
        sys.exit(command.main(Settings, run, __doc__))

Settings : a frozen dataclass, every field with a default and a line of text below it; ``json: bool`` among them
run : ``run(settings) -> int | None`` prints, JSON lines only with ``json``, and returns the exit code
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from benchmarks import orphan

Options = TypeVar("Options")


def main(
    settings: type[Options],
    run: Callable[[Options], int | None],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse the options and run. What the user can mend is one line on standard error and exit code 2."""
    orphan.if_asked()
    program = f"sindyrl bench {Path(sys.argv[0]).stem}" if arguments is None else None
    asked: Any = tyro.cli(settings, args=arguments, prog=program, description=description)
    try:
        return run(asked) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, ImportError) as error:
        if error.__traceback__ is None or not _ours(error):
            raise
        sys.stderr.write(f"sindyrl bench: {error}\n")
        return 2


def _ours(error: BaseException) -> bool:
    """Whether the message was written here: a traceback is for errors of others."""
    name, traceback = "", error.__traceback__
    while traceback is not None:
        name, traceback = str(traceback.tb_frame.f_globals.get("__name__", "")), traceback.tb_next
    return name == "__main__" or name.split(".")[0] in ("sindyrl", "benchmarks", "paper_reproductions")
