"""Shows a compiler's errors together with the generated lines."""

from __future__ import annotations

import re
from pathlib import Path

from fusegen.base.errors import UserError

_GCC = re.compile(
    r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?P<column>\d+): (?:fatal )?error: (?P<text>.*)$"
)
_NVCC = re.compile(
    r"^(?P<file>[^\s(][^(]*)\((?P<line>\d+)\): (?:catastrophic )?error\b:? ?(?P<text>.*)$"
)
_CONTEXT = 3


class CompileError(UserError):
    """A compiler refused a source. The message has the compiler's error and the lines around it."""


class DamagedObjectError(CompileError):
    """The linker got an incomplete file, for example after a power failure or on a full disk."""


_DAMAGED = re.compile(
    r"file (format )?not recognized|file truncated|file too short|malformed|corrupt|bad value", re.I
)
_CCACHE = re.compile(r"^ccache: error: ", re.MULTILINE)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


def compile_error(output: str, folder: Path, most: int = 3) -> CompileError:
    """Return the error for a failed build.

    Args:
        output: what ninja and the compilers printed.
        folder: the folder that file names are relative to.
        most: how many of the compiler's errors to show with their lines.
    """
    shown: list[str] = []
    for line in output.splitlines():
        found = _GCC.match(line) or _NVCC.match(line)
        if found and len(shown) < most:
            column = int(found.groupdict().get("column") or 0)
            shown.append(_excerpt(folder, found["file"], int(found["line"]), column, found["text"]))
    if not shown:
        shown = [output.strip()[-4000:]]
    said = "compiling failed\n\n" + "\n\n".join(shown)
    if _FULL.search(output):
        return CompileError(
            f"{said}\n\n{folder}: the disk is full; free some space and build again"
        )
    if _CCACHE.search(output):
        return CompileError(f"{said}\n\nFUSEGEN_CCACHE=0 builds without ccache")
    if _DAMAGED.search(output):
        return DamagedObjectError(
            f"{said}\n\n`fusegen clean` removes what was compiled; then build again"
        )
    return CompileError(said)


def _excerpt(folder: Path, file: str, line: int, column: int, text: str) -> str:
    head = f"{file}:{line}: {text}"
    path = folder / file
    if not path.is_file():
        return head
    lines = path.read_text(errors="replace").splitlines()
    rows = [head]
    for number in range(max(1, line - _CONTEXT), min(len(lines), line + _CONTEXT) + 1):
        rows.append(f"{'>' if number == line else ' '} {number:5d} | {lines[number - 1]}")
        if number == line and column:
            rows.append(" " * (8 + 1 + column) + "^")
    return "\n".join(rows)
