"""A process that ends with the one that started it, also where that one is killed and can tell nobody."""

from __future__ import annotations

import functools
import os
import threading
import time

_EVERY = 1.0  # seconds between two looks


@functools.cache  # one look is enough
def end_with_parent() -> None:
    """End this process, at most a second later, as soon as its parent has ended: nobody waits for it any more.

    Does nothing where a process keeps the number of its dead parent (Windows).
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
