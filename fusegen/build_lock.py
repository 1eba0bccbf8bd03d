"""One build at a time in a folder. The lock is the operating system's, so it ends with its process."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from fusegen.errors import UserError


@contextmanager
def build_lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's build lock; while another process has it, say which.

    The wait ends after FUSEGEN_LOCK_TIMEOUT seconds (600 by default).

    Raises:
        UserError: where the wait ended without the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "lock.holder"
    lock = filelock.FileLock(folder / "lock")
    patience = float(os.environ.get("FUSEGEN_LOCK_TIMEOUT", "600"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"waiting for {_read(holder)}, which is building in {folder.parent}")
        try:
            lock.acquire(timeout=patience)
        except filelock.Timeout:
            raise UserError(
                f"{_read(holder)} still builds in {folder.parent} after {patience:g} s; wait for it, stop "
                "it, or set FUSEGEN_LOCK_TIMEOUT to more seconds"
            ) from None
    try:
        now = datetime.datetime.now().isoformat(timespec="seconds")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} (since {now})")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read(holder: Path) -> str:
    return holder.read_text() if holder.exists() else "another process"
