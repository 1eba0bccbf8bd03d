"""How a measure ends: in time, and with an error if it has measured nothing."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import threading
from collections.abc import Mapping
from typing import Any

#: What says how much a record measured: an entry of it or of its rows.
_MEASURED = ("results", "calls", "trials", "inputs", "packages", "mutants")


def end_after(seconds: float | None) -> None:
    """End this process and those it started with an error after so many seconds, and say where it was."""
    if seconds is not None:
        timer = threading.Timer(seconds, _end, [seconds])
        timer.daemon = True
        timer.start()


def _end(seconds: float) -> None:
    faulthandler.dump_traceback()
    print(f"not done after {seconds:g} s", flush=True)
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(1)


def is_empty(record: Mapping[str, Any]) -> bool:
    """Whether a record has measured nothing, so that nothing in it can be wrong."""
    return not any(row.get(key) for row in (record, *record.get("rows", ())) for key in _MEASURED)
