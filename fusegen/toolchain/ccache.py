"""ccache, which keeps what was compiled: it is used where it is installed.

The ninja file names the compilers alone. Its commands begin with `LAUNCHER`, which the shell replaces: with
ccache's program where it is used, else with nothing. By its command ninja tells whether an object is up to
date, and that is the same with ccache and without.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

_VARIABLE = "FUSEGEN_COMPILER_LAUNCHER"
#: What a command that compiles begins with.
LAUNCHER = f'${{{_VARIABLE}:+"${_VARIABLE}"}}'


def find_ccache() -> Path | None:
    """Return ccache's program; None where it is not on PATH or is turned off.

    `FUSEGEN_CCACHE=0` turns it off for fusegen, and CCACHE_DISABLE, which is ccache's own, everywhere.
    """
    if os.environ.get("FUSEGEN_CCACHE") == "0" or os.environ.get("CCACHE_DISABLE"):
        return None
    found = shutil.which("ccache")
    return Path(found).absolute() if found else None  # ninja runs elsewhere


def environment(compilers: Sequence[Path]) -> dict[str, str]:
    """Return the environment variables that the commands of a ninja file run with.

    Args:
        compilers: the compilers. ccache refuses to start itself, as which one in /usr/lib/ccache would be.
    """
    found = find_ccache()
    if found is None or found.resolve() in {path.resolve() for path in compilers}:
        return {_VARIABLE: ""}
    return {_VARIABLE: str(found)}
