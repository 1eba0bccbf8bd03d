"""What a long derivation is doing: it says so while it runs, after a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["doing", "reported"]

#: Seconds before the first report, and between two.
PATIENCE = 4.0

_now = threading.local()


def doing(what: str) -> None:
    """Say what this thread begins to do; it costs next to nothing where nobody listens."""
    reports = getattr(_now, "reports", None)
    if reports is not None:
        reports[-1] = what


@contextmanager
def reported(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Report what `doing` was told last, every few seconds, until the block ends.

    Args:
        name: what is worked on, such as a spec's name.
        say: takes a line; it is called from another thread.
    """
    current = ["reading"]
    before = getattr(_now, "reports", None)
    ended = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while not ended.wait(PATIENCE):
            say(f"{name}: {current[-1]} ({time.monotonic() - started:.0f} s)")

    watcher = threading.Thread(target=watch, daemon=True)
    _now.reports = current
    watcher.start()
    try:
        yield
    finally:
        _now.reports = before
        ended.set()
        watcher.join()
