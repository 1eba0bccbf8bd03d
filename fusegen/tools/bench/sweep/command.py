"""Runs `fusegen bench --random` with its parsed options."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fusegen.toolchain.builder import Progress
from fusegen.tools.bench.cells import VALID_DIRECTIONS, shard
from fusegen.tools.bench.sweep import build, measure, table
from fusegen.tools.bench.sweep.cases import Draw, parse_dtypes, parse_megabytes
from fusegen.tools.bench.sweep.measure import Sweep
from fusegen.tools.bench.sweep.record import RandomRecord

#: Where the packages are built if no folder is given.
FOLDER = Path("random_bench")
#: How many cells are drawn by default.
CELLS = 60
_WIDTH = 230  # of the widest table


def wanted(
    seed: int,
    device: str,
    *,
    out: Path | None,
    cells: int | None,
    megabytes: str | None,
    seconds: float | None,
    dtypes: Sequence[str],
    directions: Sequence[str],
    compile_: bool,
    rounds: int | None,
    output: Path | None,
    resume: bool,
) -> Sweep:
    """Return the run for the options.

    Raises:
        UserError: if one is wrong.
    """
    draw = Draw(
        seed,
        CELLS if cells is None else cells,
        parse_megabytes(megabytes, device),
        parse_dtypes(dtypes),
        tuple(d for d in VALID_DIRECTIONS if not directions or d in directions),
    )
    deadline = None if seconds is None else time.monotonic() + seconds
    return Sweep(draw, device, out or FOLDER, compile_, rounds, deadline, output, resume)


def build_only(sweep: Sweep, progress: Progress) -> dict[str, str]:
    """Build the packages; return why some cannot be built."""
    return build.build(sweep.draw.specs(), sweep.out, sweep.device, progress)


def warm(sweep: Sweep, part: str, console: Console) -> None:
    """Compile torch.compile's variants of every n-th case from the i-th on, for "i/n".

    Raises:
        UserError: if `part` says something else.
    """
    build.write_specs(sweep.draw.specs(), sweep.out)
    measure.warm(sweep, shard(sweep.draw.cases(), part), _say(console))


def run(sweep: Sweep, refused: dict[str, str], console: Console) -> RandomRecord:
    """Check and time the cells.

    Raises:
        UserError: see `measure.run`.
    """
    return measure.run(sweep, refused, _say(console))


def show(record: RandomRecord, console: Console) -> None:
    """Print a record's tables."""
    if not console.is_terminal:
        console = Console(width=_WIDTH, highlight=False)  # a file wraps nothing
    console.print(table.cells_table(record))
    console.print(table.means_table(record))


def _say(console: Console) -> measure.Say:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return say
