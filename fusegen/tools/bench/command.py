"""Runs `fusegen bench` with its parsed options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from fusegen.base.errors import UserError
from fusegen.tools.bench import chart, compiling, markdown, measure, table, timing
from fusegen.tools.bench.cells import VALID_DIRECTIONS, Group
from fusegen.tools.bench.record import Record
from fusegen.tools.bench.subjects import Choice

_WIDTH = 190  # of the widest table


def device(asked: str | None) -> str:
    """Return the device to run on."""
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def wanted(
    groups: Sequence[Group],
    where: str,
    out: Path,
    directions: Sequence[str],
    *,
    modes: int,
    rounds: int | None,
    output: Path | None,
    resume: bool,
    seconds: float | None = None,
) -> measure.Run:
    """Return the run for the options.

    Args:
        groups: what is measured.
        where: the device.
        out: the folder of the generated packages.
        directions: "forward", "backward"; with none, both.
        modes: how many modes of torch.compile are measured, the default one first.
        rounds: how often each variant is timed, or None.
        output: the record's file, or None.
        resume: go on with the existing record.
        seconds: begin nothing more after these; without them there is no end.

    Raises:
        UserError: if there is nothing to measure.
    """
    if not groups:
        raise UserError("nothing to measure: no group is left by the specs, dtypes and --shard")
    choice = Choice(where, out, dict(list(compiling.MODES.items())[:modes]))
    directions, until = directions or VALID_DIRECTIONS, timing.Deadline(seconds)
    return measure.Run(groups, choice, directions, rounds, output, resume, until)


def perform(run: measure.Run, console: Console, *, warm: bool) -> Record | None:
    """Measure, or with `warm` only compile; report the progress on `console`.

    Raises:
        UserError: see `measure.run`.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if warm:
        measure.warm(run, say)
        return None
    return measure.run(run, say)


def show(record: Record, console: Console, picture: Path | None, readme: Path | None) -> None:
    """Print a record's tables; if asked, draw its chart and update a README.

    Raises:
        UserError: see `chart.draw` and `markdown.update`.
    """
    if not console.is_terminal:
        console = Console(width=_WIDTH, highlight=False)  # a file wraps nothing
    console.print(table.cells_table(record))
    console.print(table.means_table(record))
    if picture is not None:
        chart.draw(record, picture)
    if readme is not None:
        markdown.update(readme, record)
