"""Runs ninja with a number of compilers, and returns what it built in how many seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fusegen.base.errors import UserError
from fusegen.toolchain.compile_errors import compile_error


class Progress(Protocol):
    """Receives the progress of a build."""

    def say(self, text: str) -> None:
        """Show a line."""

    def step(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` steps are finished, the last of them being `what`."""


class Silent:
    """Ignores the progress."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def step(self, done: int, total: int, what: str) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Ninja:
    """Runs ninja in a folder of packages.

    Args:
        out: the folder.
        file: the ninja file.
        jobs: compilers at once.
        verbose: show the commands.
        progress: where to say how far it is.
        lock: the build lock, which ninja's compilers keep if this process is killed.
        variables: environment variables of the compilers.
    """

    out: Path
    file: Path
    jobs: int
    verbose: bool
    progress: Progress
    lock: int
    variables: Mapping[str, str]

    def run(self, targets: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
        """Build what is out of date; return what was compiled for each package, with seconds.

        Raises:
            CompileError: if a compiler refuses a source.
        """
        command = [find_ninja(), "-C", str(self.out), "-f", str(self.file.relative_to(self.out))]
        command += ["-j", str(self.jobs), *(["-v"] if self.verbose else []), *targets]
        environment = {**os.environ, **self.variables, "NINJA_STATUS": "[%f/%t] "}
        log = self.out / ".build" / ".ninja_log"
        known = _log_lines(log)
        output: list[str] = []
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=(self.lock,),
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                output.append(line)
                status = re.match(r"\[(\d+)/(\d+)\] (.*)", line)
                if status:
                    self.progress.step(int(status[1]), int(status[2]), status[3])
                elif self.verbose:
                    self.progress.say(line.rstrip())  # a compiler's warnings
        if process.returncode:
            raise compile_error("".join(output), self.out)
        made: dict[str, list[tuple[str, float]]] = {}
        for name, file, seconds in _made(_log_lines(log) - known):
            made.setdefault(name, []).append((file, seconds))
        return made


def _log_lines(log: Path) -> set[str]:
    """Return the lines of ninja's log. Each line has a time, so all are different."""
    return set(log.read_text(errors="replace").splitlines()[1:]) if log.exists() else set()


def _made(lines: set[str]) -> Iterator[tuple[str, str, float]]:
    """Yield package, file and seconds of each output in lines of ninja's log.

    A killed build may leave half a line, which is ignored.
    """
    for line in sorted(lines):
        found = re.fullmatch(r"(\d+)\t(\d+)\t\d+\t([^\t]+)\t[0-9a-f]+", line)
        if found:
            output = Path(found[3])
            yield output.parent.name, output.name, (int(found[2]) - int(found[1])) / 1000


def find_ninja() -> str:
    """Return ninja's program, preferably that of this Python environment."""
    beside = Path(sys.executable).parent / "ninja"
    found = str(beside) if beside.exists() else shutil.which("ninja")
    if found is None:
        raise UserError("ninja is not installed; `pip install ninja`")
    return found
