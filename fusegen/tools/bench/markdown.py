"""A record in the README: a compact table between two comments. It is never edited by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.tools.bench.record import Cell, Record
from fusegen.tools.bench.summary import mean_multiple, rows_of, short

_VARIANTS = ("fusegen", "best compile", "eager")


def update(path: Path, record: Record) -> bool:
    """Put a record's tables between the markers of a file; return whether that changed it.

    Raises:
        UserError: if the file has no markers for the record's device.
    """
    text = path.read_text()
    opening, closing = markers(record)
    if opening not in text or closing not in text:
        raise UserError(f"{path} has no place for the table: write {opening} and {closing} into it")
    pattern = re.escape(opening) + r".*?" + re.escape(closing)
    block = f"{opening}\n{render(record)}{closing}"
    return write_if_different(path, re.sub(pattern, lambda _: block, text, flags=re.DOTALL))


def markers(record: Record) -> tuple[str, str]:
    """Return the comments before and after a record's tables."""
    return f"<!-- bench:{record.device} -->", f"<!-- /bench:{record.device} -->"


def render(record: Record) -> str:
    """Return a record's tables, with the geometric mean over the shapes for each spec and dtype."""
    tails = [cell for cell in record.cells if cell.kind == "tail"]
    models = [cell for cell in record.cells if cell.kind == "model"]
    blocks = [_machine(record)]
    if tails:
        blocks.append(_table("tail, x the byte limit", tails, ("forward", "backward")))
    if models:
        title = "model, x its linear alone"
        blocks.append(_table(title, models, ("forward", "forward+backward")))
    return "\n\n".join(blocks) + "\n"


def _machine(record: Record) -> str:
    given = {name: record.machine.get(name) for name in ("chip", "torch", "triton", "date")}
    words = [str(given["chip"]), f"torch {given['torch']}"]
    if given["triton"]:
        words.append(f"triton {given['triton']}")
    driver = record.machine.get("driver")
    if driver:
        words.insert(1, f"driver {driver}")
    if record.device == "cpu":
        words.insert(1, f"{record.machine.get('threads')} threads")
    return f"{', '.join(words)}; {given['date']}."


def _table(title: str, cells: Sequence[Cell], directions: Sequence[str]) -> str:
    used = [v for v in _VARIANTS if mean_multiple(cells, v) is not None]
    words = {"best compile": "compile"}
    heads = [f"{d}: {words.get(v, v)}" for d in directions for v in used]
    lines = [
        f"| {title} | dtype | {' | '.join(heads)} |",
        "| --- " * 2 + "| ---: " * len(heads) + "|",
    ]
    for spec, dtype in rows_of(cells):
        inside = [c for c in cells if (c.spec, c.dtype) == (spec, dtype)]
        lines.append(_row(f"`{spec}`", short(dtype), inside, directions, used))
    lines.append(_row("all", "", cells, directions, used))
    return "\n".join(lines)


def _row(
    title: str, dtype: str, cells: Sequence[Cell], directions: Sequence[str], used: Sequence[str]
) -> str:
    numbers = []
    for direction in directions:
        inside = [c for c in cells if c.direction == direction]
        for variant in used:
            mean = mean_multiple(inside, variant)
            text = "" if mean is None else f"{mean:.2f}"
            numbers.append(f"**{text}**" if variant == "fusegen" and text else text)
    return f"| {title} | {dtype} | {' | '.join(numbers)} |"
