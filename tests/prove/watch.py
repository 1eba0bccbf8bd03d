"""Watches a process: what it writes, starts, connects to and executes, by Python's audit events."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prove.records import ROOT

#: Events that nothing has a reason for while a spec is read, derived and rendered.
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.putenv", "os.utime", "shutil.", "socket.", "ctypes.dlopen"),
    *(
        "urllib.",
        "http.",
        "ftplib.",
        "smtplib.",
        "webbrowser.",
        "pickle.find_class",
        "cpython.run_",
    ),
)
#: sympy's code for products of polynomials, which it makes of their number of variables alone.
GENERATES = "sympy/polys/monomials.py"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Where the code is that may be executed, and bytecode that may be written.
_OWN = (
    *(str(ROOT / folder) for folder in ("fusegen", "templates", "tests")),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
)


class Watch:
    """Notes forbidden events while it is on; there is one in a process, since hooks cannot be removed."""

    def __init__(self, programs: tuple[str, ...]) -> None:
        """Install the hook.

        Args:
            programs: the programs that may be started.
        """
        self._programs = programs
        self._on = False
        self._seen: list[str] = []
        sys.addaudithook(self._heard)

    @contextmanager
    def on(self) -> Iterator[list[str]]:
        """Note what is forbidden until the block ends."""
        self._seen = []
        self._on = True
        try:
            yield self._seen
        finally:
            self._on = False

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if self._on and self._forbidden(event, given):
            self._seen.append(f"{event} {str(given)[:200]}")

    def _forbidden(self, event: str, given: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = given
            writes = any(c in str(mode or "") for c in "wax+") or bool((flags or 0) & _WRITING)
            # A pipe is a number; bytecode is that of a module that is imported late.
            return writes and not isinstance(path, int) and "__pycache__" not in str(path)
        if event == "subprocess.Popen":
            return str(given[0]) not in self._programs
        if event == "exec":
            return not (_is_own(given[0].co_filename) or _caller().endswith(GENERATES))
        return event.startswith(FORBIDDEN)


def _caller() -> str:
    """Return the file of the code that raised an audit event: the frame outside of this file."""
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame.f_code.co_filename


def _is_own(file: object) -> bool:
    """Whether code comes from a file of fusegen, of Python or of a library, or is a dataclass's."""
    name = os.fsdecode(file) if isinstance(file, bytes | str) else ""
    return name.startswith(("<frozen", *_OWN)) and (name[0] == "<" or Path(name).is_file())
