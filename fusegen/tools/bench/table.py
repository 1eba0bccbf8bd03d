"""A record on a terminal: one row per cell, and the means at the end."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fusegen.tools.bench.record import Cell, Record
from fusegen.tools.bench.summary import (
    VARIANTS,
    geometric_mean,
    mean_multiple,
    misses,
    multiple,
    parts,
    short,
    speedup,
)

#: The variants with a column.
_COLUMNS = [name for name in VARIANTS if name != "best compile"]


def cells_table(record: Record) -> Table:
    """Return the cells: times as multiples of the limit, the speedup, the missed targets."""
    chip, torch = (record.machine.get(name) or "?" for name in ("chip", "torch"))
    table = Table(
        title=f"{chip}, torch {torch}; times as multiples of the byte limit, which is in ms",
        title_justify="left",
    )
    for title in ("spec", "dtype", "shape", "direction"):
        table.add_column(title, overflow="fold")
    for title in ("limit ms", *_COLUMNS, "over compile"):
        table.add_column(title, justify="right")
    table.add_column("misses")
    for cell in record.cells:
        missed = misses(cell)
        times = [_number(multiple(cell, name)) for name in _COLUMNS]
        row = [cell.spec, short(cell.dtype), shape(cell), cell.direction, f"{cell.limit_ms:.4g}"]
        row += [*times, _number(speedup(cell, "best compile"))]
        table.add_row(*row, Text(", ".join(missed)), style="red" if missed else "")
    return table


def means_table(record: Record) -> Table:
    """Return the geometric means over the cells, by kind and direction."""
    table = Table(title="geometric means", title_justify="left")
    for title in ("", "cells"):
        table.add_column(title)
    for title in (*_COLUMNS, "over eager", "over compile", "misses"):
        table.add_column(title, justify="right")
    for title, cells in parts(record.cells).items():
        times = [_number(mean_multiple(cells, name)) for name in _COLUMNS]
        gains = [
            _number(geometric_mean(speedup(cell, other) for cell in cells))
            for other in ("eager", "best compile")
        ]
        missed = sum(bool(misses(cell)) for cell in cells)
        table.add_row(title, str(len(cells)), *times, *gains, str(missed))
    return table


def shape(cell: Cell) -> str:
    """Return a cell's shape: rows, for a model the columns of x, columns, further dims."""
    between = () if cell.in_features is None else (cell.in_features,)
    return "x".join(map(str, (cell.rows, *between, cell.cols, *cell.trailing)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
