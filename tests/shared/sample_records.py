"""Records that tests of the benchmark share."""

from __future__ import annotations

from dataclasses import replace

from fusegen.tools.bench.record import Cell, Record


def cell(**changes: object) -> Cell:
    base = Cell(
        kind="tail",
        spec="some_tail",
        dtype="float32",
        rows=8192,
        cols=8192,
        in_features=None,
        direction="forward",
        tensor_bytes=2**28,
        fusegen_ms=0.13,
        eager_ms=0.9,
        compile_ms=0.2,
        compile_max_autotune_ms=0.18,
        copy_ms=0.125,
        limit_ms=0.125,
        linear_ms=None,
    )
    return replace(base, **changes)


def sample() -> Record:
    found = []
    for name, dtype, factor in (("a", "float32", 1.0), ("a", "bfloat16", 1.1), ("b", "float32", 2)):
        for rows in (8192, 64):
            for direction in ("forward", "backward"):
                found.append(
                    cell(
                        spec=name,
                        dtype=dtype,
                        rows=rows,
                        direction=direction,
                        fusegen_ms=0.125 * factor,
                    )
                )
    found.append(cell(kind="model", in_features=512, linear_ms=0.125, direction="forward+backward"))
    return Record(
        {"device": "cuda", "chip": "a chip", "torch": "2.11.0", "date": "2026-11-21"}, found
    )
