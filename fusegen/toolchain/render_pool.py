"""Derives the packages of several specs at once, in a process for each core.

The processes are not those of `multiprocessing`, which import the caller's script again: a script that calls
`fusegen.build` need not guard against that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from types import TracebackType

from fusegen.base import paths
from fusegen.base.activity import reported
from fusegen.base.errors import UserError
from fusegen.toolchain import python_process
from fusegen.toolchain.jobs import WORKER, cores, jobs
from fusegen.toolchain.ninja_run import Progress
from fusegen.toolchain.rendered import RenderedPackage

_MODULE = "fusegen.toolchain.render_worker"


def render_all(
    specs: Sequence[Path], requested: int | None, progress: Progress
) -> list[RenderedPackage]:
    """Return the packages of spec files, in memory and in the order of the files.

    Args:
        specs: the spec files.
        requested: processes at once; else MAX_JOBS, else what memory allows; at most one for each core.
        progress: where to say how far it is.

    Raises:
        UserError: where specs are wrong, with the mistake of each.
    """
    count = min(len(specs), jobs(requested, WORKER), cores())
    alone = count < 2 or has_own_declarations()
    done = _here(specs, progress) if alone else _by_workers(specs, count, progress)
    found = [done[path] for path in specs]
    wrong = [result for result in found if isinstance(result, UserError)]
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        listed = "\n".join(map(str, wrong))
        raise UserError(f"{len(wrong)} of {len(specs)} specs are wrong:\n{listed}")
    return [result for result in found if not isinstance(result, UserError)]


def has_own_declarations() -> bool:
    """Return whether this process has declared ops or atoms that a new process would not know."""
    files: set[str] = set()
    if "fusegen.atoms" in sys.modules:  # importing it takes a second
        from fusegen.atoms import ATOMS

        files |= {atom.source for atom in ATOMS.values()}
    if "fusegen.ops" in sys.modules:
        from fusegen.ops import registry

        files |= {op.formula.__code__.co_filename for op in registry().values()}
    return bool(paths.foreign(files))


def _here(specs: Sequence[Path], progress: Progress) -> dict[Path, RenderedPackage | UserError]:
    """Derive one package after the other, in this process."""
    from fusegen.toolchain.pipeline import render_package

    done: dict[Path, RenderedPackage | UserError] = {}
    for path in specs:
        try:
            with reported(path.stem, progress.say):
                done[path] = render_package(path)
            progress.step(len(done), len(specs), f"derived {path.stem}")
        except UserError as error:
            done[path] = error
    return done


def _by_workers(
    specs: Sequence[Path], count: int, progress: Progress
) -> dict[Path, RenderedPackage | UserError]:
    """Derive packages in `count` processes; each gets the next spec when it is done with one."""
    done: dict[Path, RenderedPackage | UserError] = {}
    waiting = list(reversed(specs))
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker()) for _ in range(count)]
        for worker in workers:
            worker.start(waiting.pop())
        busy = {worker.connection: worker for worker in workers}
        while busy:
            for connection in wait([*busy]):
                worker = busy[connection]  # type: ignore[index]  # `wait` gives back what it got
                result = worker.answer()
                if isinstance(result, str):
                    progress.say(result)
                    continue
                if isinstance(result, Exception) and not isinstance(result, UserError):
                    raise result
                done[worker.spec] = result
                if not isinstance(result, UserError):
                    progress.step(len(done), len(specs), f"derived {worker.spec.stem}")
                if waiting:
                    worker.start(waiting.pop())
                else:
                    del busy[worker.connection]
    return done


class _Worker:
    """A process of `render_worker.py`; as a context manager it does not outlive its block."""

    spec: Path

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                python_process.command(_MODULE, [str(theirs.fileno())]),
                env=python_process.environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C is for this process, which ends the others
            )

    def start(self, spec: Path) -> None:
        """Give it a spec to derive."""
        self.spec = spec
        try:
            self.connection.send(spec)
        except OSError:  # it is dead, as `answer` will say
            return

    def answer(self) -> RenderedPackage | Exception | str:
        """Return what it says next.

        Raises:
            UserError: where it has ended.
        """
        try:
            message: RenderedPackage | Exception | str = self.connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise UserError(
                f"{self.spec}: the process that derives it ended with code {code}, as one does that gets no "
                "more memory; --jobs 1 derives one spec after the other"
            ) from None
        return message

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()
