"""What a build says on standard error if a program waits for it and it takes long."""

from __future__ import annotations

import sys
import time

from fusegen.base.activity import PATIENCE
from fusegen.toolchain.ninja_run import Silent

__all__ = ["Patient"]


class Patient(Silent):
    """Says how far a build is, every few seconds; nothing if it ends before.

    Args:
        what: what is built.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._said = time.monotonic()

    def step(self, done: int, total: int, what: str) -> None:
        """Say that `done` of `total` steps are finished."""
        del what
        now = time.monotonic()
        if now - self._said >= PATIENCE:
            self._said = now
            text = (
                f"fusegen: building {self._what}: step {done} of {total}, {now - self._began:.0f} s"
            )
            print(text, file=sys.stderr, flush=True)
