"""`fusegen bench`: which groups are measured, in which order, and what becomes of the results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusegen.bench import record
from fusegen.bench.cells import DTYPES, MODELS, SHAPES, TAILS, Bench, Group


@dataclass(frozen=True)
class Selection:
    """What to measure.

    Args:
        device: "cuda" or "cpu".
        specs, dtypes, shapes: of the tails; the defaults of the device where empty.
        models: whether whole models too.
        shard: n of m: every m-th group from the n-th on, so that several processes can share the work.
    """

    device: str
    specs: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    shapes: Sequence[str] = ()
    models: bool = False
    shard: tuple[int, int] = (0, 1)

    def groups(self) -> Iterator[Group]:
        """Yield the groups of cells, tails first."""
        found = list(self._tails())
        if self.models:
            found += self._models()
        first, step = self.shard
        yield from found[first::step]

    def _tails(self) -> Iterator[Group]:
        specs = self.specs or TAILS
        shapes = self.shapes or SHAPES[self.device]
        dtypes = self.dtypes or DTYPES[self.device]
        for spec, shape, dtype in itertools.product(specs, shapes, dtypes):
            rows, cols = (int(n) for n in shape.split("x"))
            yield Group("tail", spec, dtype, rows, cols)

    def _models(self) -> list[Group]:
        chosen = {k: v for k, v in MODELS.items() if not self.specs or k in self.specs}
        return [
            Group("model", spec, dtype, batch, out, features)
            for spec, (batch, features, out) in chosen.items()
            for dtype in ("bfloat16", "tf32")
        ]


def run(
    bench: Bench,
    selection: Selection,
    output: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure, writing the record after every group, so that a killed run keeps what it had.

    Returns:
        the record.
    """
    cells: list[dict[str, Any]] = []
    if resume and output.exists():
        cells = record.read(output)["cells"]
    done = {(c["kind"], c["spec"], c["dtype"], c["rows"], c["cols"]) for c in cells}
    machine = record.machine(bench.device)
    for group in selection.groups():
        if (group.kind, group.spec, group.dtype, group.rows, group.cols) in done:
            continue
        for cell in bench.measure(group):
            cells.append(cell.record())
            times = f"{cell.fusegen_ms / cell.limit_ms:.2f} x limit"
            if cell.compile_ms is not None:
                times += f", torch.compile {cell.compile_ms / cell.limit_ms:.2f}"
            say(f"{group} {cell.direction}: {times}, eager {cell.eager_ms / cell.limit_ms:.2f}")
        record.write(output, machine, cells)
    return {"machine": machine, "cells": cells}
