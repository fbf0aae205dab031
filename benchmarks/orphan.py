"""A process that ends with the one that started it, also where that one is killed and can tell nobody."""

from __future__ import annotations

import functools
import os
import threading
import time

_VARIABLE = "SINDYRL_ENDS_WITH_PARENT"  # `sindyrl bench` sets it too, and must not import this package
_EVERY = 1.0  # seconds between two looks


def for_child() -> dict[str, str]:
    """What the surroundings of a child must say that shall end with this process."""
    return {_VARIABLE: str(os.getpid())}


def if_asked() -> None:
    """`end_with_parent`, if the surroundings say so; they say it to this process only, not to its own children."""
    asked = os.environ.pop(_VARIABLE, "")
    if asked.isdecimal():
        end_with_parent(int(asked))


@functools.cache  # one look is enough
def end_with_parent(parent: int) -> None:
    """End this process, at most a second later, as soon as its parent has ended: nobody waits for it any more.

    Does nothing where a process keeps the number of its dead parent (Windows).
    """
    if os.name != "posix":
        return

    def watch() -> None:
        # It may have ended before this begins: imports take seconds.
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
