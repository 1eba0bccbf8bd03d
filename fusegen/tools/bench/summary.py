"""Summaries of cells: multiples of the limit, speedups, missed targets, and means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product

from fusegen.tools.bench.record import Cell


def best_compile_ms(cell: Cell) -> float | None:
    """Return the time of torch.compile in its faster mode, or None if neither was measured."""
    found = [ms for ms in (cell.compile_ms, cell.compile_max_autotune_ms) if ms is not None]
    return min(found, default=None)


#: The variants, by their name in tables.
VARIANTS: dict[str, Callable[[Cell], float | None]] = {
    "fusegen": lambda cell: cell.fusegen_ms,
    "eager": lambda cell: cell.eager_ms,
    "compile": lambda cell: cell.compile_ms,
    "max-autotune": lambda cell: cell.compile_max_autotune_ms,
    "best compile": best_compile_ms,
}
#: The target for a tail as a multiple of its limit, for tensors far larger than the caches.
TARGETS = {"forward": 1.08, "backward": 1.12}
LARGE_BYTES = 128_000_000
#: The target as a multiple of the fastest other variant: the noise between two equal kernels.
NOISE = 1.03

_SHORT = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def multiple(cell: Cell, variant: str) -> float | None:
    """Return a variant's time as a multiple of the cell's limit."""
    taken = VARIANTS[variant](cell)
    return None if taken is None else taken / cell.limit_ms


def speedup(cell: Cell, over: str) -> float | None:
    """Return another variant's time as a multiple of fusegen's."""
    taken = VARIANTS[over](cell)
    return None if taken is None else taken / cell.fusegen_ms


def misses(cell: Cell) -> list[str]:
    """Return the targets that a cell misses, in words."""
    found = []
    target = TARGETS.get(cell.direction)
    if cell.kind == "tail" and target is not None and cell.tensor_bytes >= LARGE_BYTES:
        times = cell.fusegen_ms / cell.limit_ms
        if times > target:
            found.append(f"over {target} x limit")
    others = {"eager": cell.eager_ms, "compile": best_compile_ms(cell)}
    known = {name: ms for name, ms in others.items() if ms is not None}
    fastest = min(known, key=lambda name: known[name])
    if cell.fusegen_ms > NOISE * known[fastest]:
        found.append(f"slower than {fastest}")
    return found


def short(dtype: str) -> str:
    """Return a dtype's short name."""
    return _SHORT.get(dtype, dtype)


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the values that are not None, or None if there are none."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return math.exp(math.fsum(math.log(value) for value in found) / len(found))


def mean_multiple(cells: Iterable[Cell], variant: str) -> float | None:
    """Return the geometric mean of a variant's multiples of the limit."""
    return geometric_mean(multiple(cell, variant) for cell in cells)


def parts(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each mean, by title: tails and models, by direction."""
    found: dict[str, list[Cell]] = {}
    directions = list(dict.fromkeys(cell.direction for cell in cells))
    for kind in ("tail", "model"):
        of_kind = [cell for cell in cells if cell.kind == kind]
        for direction in directions:
            found[f"{kind}s {direction}"] = [c for c in of_kind if c.direction == direction]
        found[f"{kind}s"] = of_kind
    return {title: inside for title, inside in found.items() if inside}


def rows_of(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return the specs and dtypes of cells, in their order of appearance, dtypes within specs."""
    found = list(cells)
    specs = dict.fromkeys(cell.spec for cell in found)
    dtypes = dict.fromkeys(cell.dtype for cell in found)
    present = {(cell.spec, cell.dtype) for cell in found}
    return [row for row in product(specs, dtypes) if row in present]
