"""Random cells on a terminal: the worst first, then how many meet the targets, by form and in all."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fusegen.tools.bench.summary import geometric_mean, short
from fusegen.tools.bench.sweep.record import (
    BEHIND,
    FAR,
    TARGETS,
    RandomCell,
    RandomRecord,
)


def cells_table(record: RandomRecord) -> Table:
    """Return the cells, the worst first: times as multiples of the limit, and of the best of torch."""
    chip, torch = (record.machine.get(name) or "?" for name in ("chip", "torch"))
    title = f"seed {record.seed}, {chip}, torch {torch}; times as multiples of the byte limit"
    table = Table(title=title, title_justify="left")
    for name in ("spec", "dtype", "shape", "memory", "direction"):
        table.add_column(name, overflow="fold")
    for name in ("limit ms", "fusegen", "eager", "compile", "over best"):
        table.add_column(name, justify="right")
    table.add_column("steps", overflow="fold")
    for cell in record.worst_first():
        sizes = "x".join(map(str, cell.shape))
        shape = sizes if cell.groups is None else f"{sizes} in {cell.groups} groups"
        row = [cell.spec.removeprefix("random_"), short(cell.dtype), shape, cell.memory_format]
        row.append(cell.direction)
        if cell.state == "timed":
            row.append(f"{cell.limit_ms:.4g}")
            times = (cell.fusegen_ms, cell.eager_ms, cell.compile_ms)
            row += [_over(ms, cell.limit_ms) for ms in times]
            row.append("" if cell.over_best is None else f"{cell.over_best:.2f}")
        else:
            row += ["", cell.state, "", "", ""]
        steps = f"{cell.steps}; {cell.note}" if cell.note else cell.steps
        table.add_row(*row, Text(steps), style="red" if cell.badness > 1 else "")
    return table


def means_table(record: RandomRecord) -> Table:
    """Return, by form and direction and in all, the means and how many cells meet the targets."""
    table = Table(title="by form", title_justify="left")
    for name in ("form", "direction"):
        table.add_column(name)
    for name in (
        *("cells", "wrong", "failed", "x limit", "worst", "over compile", "over eager"),
        *("near limit", f"over {FAR} x", "behind"),
    ):
        table.add_column(name, justify="right")
    forms = sorted({cell.form for cell in record.cells})
    for form in (*forms, "all"):
        for direction in TARGETS:
            cells = [
                c for c in record.cells if c.direction == direction and form in (c.form, "all")
            ]
            if cells:
                table.add_row(form, direction, *_summary(cells), style="bold" * (form == "all"))
    return table


def _summary(cells: Sequence[RandomCell]) -> list[str]:
    timed = [cell for cell in cells if cell.over_limit is not None]
    limits = [cell.over_limit or 0.0 for cell in timed]
    gains = [
        geometric_mean(
            other / cell.fusegen_ms
            for cell in timed
            if (other := getattr(cell, name)) is not None and cell.fusegen_ms
        )
        for name in ("compile_ms", "eager_ms")
    ]
    near = sum(n <= TARGETS[c.direction] for n, c in zip(limits, timed, strict=True))
    return [
        str(len(cells)),
        *(str(sum(cell.state == state for cell in cells)) for state in ("wrong", "failed")),
        _number(geometric_mean(limits)),
        _number(max(limits, default=None)),
        *map(_number, gains),
        f"{100 * near / len(timed):.0f} %" if timed else "",
        str(sum(n > FAR for n in limits)),
        str(sum((cell.over_best or 0.0) > BEHIND for cell in timed)),
    ]


def _over(taken: float | None, limit: float | None) -> str:
    return "" if taken is None or not limit else f"{taken / limit:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
