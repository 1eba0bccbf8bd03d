"""A record in words: a rich table, geometric means, and the README's table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.table import Table

Cells = Sequence[dict[str, Any]]

#: Cells of tensors from this size on are to be within these multiples of the limit.
LARGE = 128_000_000
TARGETS = {"forward": 1.08, "backward": 1.12}
MODEL_TARGET = 1.06
#: What counts as noise when two variants are compared.
NOISE = 1.03

_OTHERS = ("eager_ms", "compile_ms", "compile_max_autotune_ms")


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean; NaN of nothing."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def missed(cell: dict[str, Any]) -> list[str]:
    """Return which targets a cell misses: "limit", "best" (of eager and torch.compile)."""
    found = []
    target = (
        TARGETS.get(cell["direction"], MODEL_TARGET) if cell["kind"] == "tail" else MODEL_TARGET
    )
    large = cell["kind"] == "model" or cell["tensor_bytes"] >= LARGE
    if large and cell["fusegen_ms"] > target * cell["limit_ms"]:
        found.append("limit")
    others = [cell[k] for k in _OTHERS if cell[k] is not None]
    if cell["fusegen_ms"] > NOISE * min(others):
        found.append("best")
    return found


def cells_table(cells: Cells) -> Table:
    """Return a row for each cell: times as multiples of the limit, and which targets it misses."""
    table = Table(
        title=f"{len(cells)} cells, times as multiples of the limit", title_justify="left"
    )
    for column in ("spec", "dtype", "shape", "direction"):
        table.add_column(column)
    for column in (
        "limit ms",
        "fusegen",
        "eager",
        "compile",
        "max-autotune",
        "/ compile",
        "misses",
    ):
        table.add_column(column, justify="right")
    for cell in cells:
        limit = cell["limit_ms"]
        times = [cell["fusegen_ms"], *(cell[k] for k in _OTHERS)]
        multiples = ["" if t is None else f"{t / limit:.2f}" for t in times]
        gain = (
            "" if cell["compile_ms"] is None else f"{cell['compile_ms'] / cell['fusegen_ms']:.2f}x"
        )
        table.add_row(
            cell["spec"] + (" (model)" if cell["kind"] == "model" else ""),
            cell["dtype"],
            f"{cell['rows']}x{cell['cols']}",
            cell["direction"],
            f"{limit:.4f}",
            *multiples,
            gain,
            ", ".join(missed(cell)),
        )
    return table


def summary(cells: Cells) -> list[str]:
    """Return the geometric means and the counts of missed targets, a line each."""
    lines = []
    for kind in dict.fromkeys(c["kind"] for c in cells):
        of = [c for c in cells if c["kind"] == kind]
        for key, name in (("compile_ms", "torch.compile"), ("eager_ms", "eager")):
            measured = [c for c in of if c[key] is not None]
            if measured:
                gain = geometric_mean(c[key] / c["fusegen_ms"] for c in measured)
                lines.append(
                    f"{kind}s: {gain:.2f}x {name}, geometric mean of {len(measured)} cells"
                )
        large = [c for c in of if c["kind"] == "model" or c["tensor_bytes"] >= LARGE]
        slow = sum("limit" in missed(c) for c in large)
        lines.append(f"{kind}s: {slow} of {len(large)} large cells miss the limit's target")
        worse = sum("best" in missed(c) for c in of)
        lines.append(f"{kind}s: {worse} of {len(of)} cells are slower than the best of the others")
    return lines


def markdown(record: dict[str, Any]) -> str:
    """Return the README's table: for each spec and dtype the geometric means over the shapes."""
    cells = record["cells"]
    head = record["machine"]
    lines = [
        f"{head['chip']}, torch {head['torch']}, {head['date']}; times as multiples of the byte limit, "
        "geometric means over the shapes (1.00 is the speed of a copy).",
        "",
        "| tail | dtype | forward: fusegen | compile | eager | backward: fusegen | compile | eager |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    tails = [c for c in cells if c["kind"] == "tail"]
    for spec in dict.fromkeys(c["spec"] for c in tails):
        for dtype in dict.fromkeys(c["dtype"] for c in tails if c["spec"] == spec):
            row = [spec, dtype]
            for direction in ("forward", "backward"):
                of = [
                    c
                    for c in tails
                    if (c["spec"], c["dtype"], c["direction"]) == (spec, dtype, direction)
                ]
                row += [f"{_mean(of, key):.2f}" for key in ("fusegen_ms", "compile_ms", "eager_ms")]
            lines.append(f"| {' | '.join(row)} |")
    models = [c for c in cells if c["kind"] == "model"]
    if models:
        lines += [
            "",
            "| whole model | precision | direction | linear alone, ms | fusegen | compile | eager |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for c in models:
            times = [
                f"{c[k] / c['linear_ms']:.2f}" for k in ("fusegen_ms", "compile_ms", "eager_ms")
            ]
            names = [c["spec"], c["dtype"], c["direction"], f"{c['linear_ms']:.3f}"]
            lines.append(f"| {' | '.join([*names, *times])} |")
    lines += ["", *(f"- {line}" for line in summary(cells))]
    return "\n".join(lines)


def _mean(cells: Cells, key: str) -> float:
    return geometric_mean(c[key] / c["limit_ms"] for c in cells if c[key] is not None)


def update_block(text: str, name: str, body: str) -> str:
    """Return a text with what stands between `<!-- name -->` and `<!-- /name -->` replaced.

    Raises:
        ValueError: where the text has no such block.
    """
    pattern = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    if not pattern.search(text):
        raise ValueError(f"no block between <!-- {name} --> and <!-- /{name} -->")
    replacement: Callable[[re.Match[str]], str] = lambda m: f"{m[1]}{body}\n{m[2]}"  # noqa: E731
    return pattern.sub(replacement, text)
