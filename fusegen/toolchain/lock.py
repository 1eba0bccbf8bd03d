"""One build at a time in a folder. The lock is the operating system's, so it ends with its process."""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.base.files import cannot_write

_POLL = 0.05  # s


@contextmanager
def build_lock(folder: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the folder's build lock; while another process has it, say which.

    Yields the lock's file descriptor. A child that inherits it (`pass_fds`) keeps the lock until it ends. So
    a new build waits for the compilers of a killed one and does not race them. The wait ends after
    FUSEGEN_LOCK_TIMEOUT seconds (600 by default).

    Raises:
        UserError: if the wait ended without the lock, or the folder cannot be written.
    """
    patience = _patience()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: packages cannot be written there ({error.strerror}); choose another folder"
        ) from None
    holder = folder / "lock.holder"
    try:
        if not _taken(lock):
            say(f"waiting for {_read(holder)}, which is building in {folder.parent}")
            _wait(lock, patience, holder, folder.parent)
        now = datetime.datetime.now().isoformat(timespec="seconds")
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} (since {now})")
        except OSError as error:
            raise UserError(cannot_write(holder, error)) from error
        try:
            yield lock
        finally:
            holder.unlink(missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_UN)  # for children that inherited it, too
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(lock: int, patience: float, holder: Path, out: Path) -> None:
    deadline = time.monotonic() + patience
    while not _taken(lock):
        if time.monotonic() > deadline:
            raise UserError(
                f"{_read(holder)} still builds in {out} after {patience:g} s; wait for it, stop "
                "it, or set FUSEGEN_LOCK_TIMEOUT to more seconds"
            )
        time.sleep(_POLL)


def _patience() -> float:
    text = os.environ.get("FUSEGEN_LOCK_TIMEOUT", "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # neither negative nor NaN
        raise UserError(f"FUSEGEN_LOCK_TIMEOUT={text}: expected a number of seconds")
    return seconds


def _read(holder: Path) -> str:
    try:
        return holder.read_text() or "another process"  # empty while it is written
    except OSError:  # it ended meanwhile
        return "another process"
