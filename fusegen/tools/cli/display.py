"""How a build looks: on a terminal a bar, then a table at the end; elsewhere plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fusegen.toolchain.builder import BuildResult, Silent


class Reports(Silent):
    """Reports on `console` only what takes long."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class BuildDisplay:
    """Shows a build's progress on `console`; use it as a context manager."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self._console = console
        self._lines = verbose or not console.is_terminal
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=self._lines)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> BuildDisplay:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` steps are finished."""
        if self._lines:
            self.say(f"[{done}/{total}] {what}")
        else:
            self._bar.update(self._task, completed=done, total=total, description=what)


def results_table(results: Sequence[BuildResult], out: Path, seconds: float) -> Table:
    """Return a table of what a build did, one row per package."""
    count = "1 package" if len(results) == 1 else f"{len(results)} packages"
    table = Table(title=f"{count} in {out}/, after {seconds:.1f} s", title_justify="left")
    table.add_column("package")
    table.add_column("for")
    table.add_column("state")
    table.add_column("compiler s", justify="right")
    for result in results:
        state = "built" if result.compiled else "up to date"
        spent = f"{result.seconds:.1f}" if result.compiled else ""
        table.add_row(result.name, " ".join(result.backends), state, spent)
    return table
