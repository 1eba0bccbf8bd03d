"""Builds packages in the background: one process after the other, for which a thread waits.

What asks for packages while a process runs is built by the next one, together.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusegen.models.packages import write_specs
from fusegen.models.spec_text import PackageSpec
from fusegen.toolchain.build_process import BuildProcess

__all__ = ["Build", "start_build", "wait_for_builds"]


@dataclass(eq=False)
class Build:
    """A build in the background.

    Args:
        specs: what is built.
        folder: where the packages are kept; see `packages_of`.
        files: the files of the specs.
        refused: why some could not be built, by name, once it has ended.
        ended: set when it has ended.
    """

    specs: Sequence[PackageSpec]
    folder: Path
    files: Sequence[Path]
    refused: dict[str, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)


class _Builder:
    """Builds what it is given, in a thread that ends when there is nothing left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Build] = []
        self._running: list[Build] = []
        self._process: BuildProcess | None = None

    def add(self, build: Build) -> None:
        """Begin a build, or let it wait for those before it."""
        with self._changed:
            self._waiting.append(build)
            if len(self._waiting) == 1 and not self._running:
                # A daemon, so that a process that ends need not wait for its compilers.
                threading.Thread(target=self._run, name="fusegen builds", daemon=True).start()

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is nothing left to build; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._running), timeout)

    def stop(self) -> None:
        """End what runs, and begin nothing else."""
        with self._changed:
            self._waiting.clear()
            if self._process is not None:
                self._process.stop()

    def _run(self) -> None:
        while batch := self._next():
            refused = self._build(batch)
            for build in batch:
                names = {path.stem for path in build.files}
                build.refused = {n: reason for n, reason in refused.items() if n in names}
                build.ended.set()

    def _next(self) -> list[Build]:
        """Return the builds that are next, all those in one folder."""
        with self._changed:
            folder = self._waiting[0].folder if self._waiting else None
            self._running = [b for b in self._waiting if b.folder == folder]
            self._waiting = [b for b in self._waiting if b.folder != folder]
            self._changed.notify_all()
            return self._running

    def _build(self, batch: Sequence[Build]) -> dict[str, str]:
        files = list(dict.fromkeys(path for build in batch for path in build.files))
        try:
            with self._changed:
                self._process = BuildProcess(files, batch[0].folder / "generated")
            return self._process.wait()
        except Exception as error:  # a bug, or no process: who waits for the build reports it
            return {path.stem: f"{type(error).__name__}: {error}" for path in files}
        finally:
            with self._changed:
                self._process = None


_builder = _Builder()
_pid = os.getpid()


def start_build(specs: Sequence[PackageSpec], folder: Path) -> Build:
    """Begin to build packages in the background.

    Args:
        specs: the specs.
        folder: where they are kept; see `packages_of`.
    """
    build = Build(specs, folder, write_specs(specs, folder))
    _builder.add(build)
    return build


def wait_for_builds(timeout: float | None = None) -> bool:
    """Wait until all builds in the background have ended. Graphs use them from their next call on.

    Args:
        timeout: the most seconds to wait.

    Returns:
        Whether they have ended.
    """
    return _builder.wait(timeout)


@atexit.register
def _stop() -> None:
    if os.getpid() == _pid:  # a process that was forked has not begun them
        _builder.stop()


def _forked() -> None:
    """Begin anew: the thread and the locks are those of the other process."""
    global _builder, _pid
    _builder, _pid = _Builder(), os.getpid()


os.register_at_fork(after_in_child=_forked)
