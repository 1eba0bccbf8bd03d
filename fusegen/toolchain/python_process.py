"""How a process of this Python runs a module of fusegen: it imports what its parent would."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["command", "environment"]


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module."""
    # -P: a file of the working folder must not stand for a module.
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of such a process."""
    search = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return {**os.environ, "PYTHONPATH": search}
