"""Builds packages in a process of its own, so that deriving them does not hold up this one's threads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fusegen.toolchain import python_process

__all__ = ["BuildProcess"]

_MODULE = "fusegen.toolchain.build_worker"


class BuildProcess:
    """A process that builds packages for this machine.

    Args:
        specs: the spec files.
        out: the folder of the packages.
    """

    def __init__(self, specs: Sequence[Path], out: Path) -> None:
        self._specs = specs
        self._process = subprocess.Popen(
            python_process.command(_MODULE, [str(out.absolute()), *(str(p) for p in specs)]),
            env=python_process.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C is for this process, which stops the other
        )

    def wait(self) -> dict[str, str]:
        """Wait until it ends; return why some packages could not be built, by name."""
        said, complaints = self._process.communicate()
        code = self._process.returncode
        if code == 0:
            refused: dict[str, str] = json.loads(said)
            return refused
        reason = f"the process that builds it ended with code {code}\n{complaints}".strip()
        return {path.stem: reason for path in self._specs}

    def stop(self) -> None:
        """End it with its compilers. What was not finished is built again the next time."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
