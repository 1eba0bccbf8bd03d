"""Draws the shape of an activation: of a given size in bytes, and as varied as what people bring."""

from __future__ import annotations

import math
import random

from fusegen.tools.bench.sweep.specs import DrawnSpec

_MOST_ROWS = 10**7
_MOST_COLS = 1 << 20
_CHANNELS = (3, 7, 8, 16, 24, 32, 33, 48, 64, 65, 96, 100, 128, 160, 192, 256, 320, 512, 640, 1024)
_COLS_A_GROUP = (4, 8, 10, 16, 32, 33, 64, 100, 128, 256, 512, 1000, 1024, 4096)


def draw_shape(
    spec: DrawnSpec, rng: random.Random, elements: int
) -> tuple[tuple[int, ...], int | None]:
    """Return a shape of at most so many elements, and the number of groups if the spec has groups."""
    if spec.rank:
        return _image(spec, rng, elements)
    if spec.groups:
        cols, groups = _grouped(rng, min(spec.most_cols, elements))
        return (max(elements // cols, 1), cols), groups
    cols = _cols(spec, rng, elements)
    rows = max(1, min(elements // cols, _MOST_ROWS))
    return ((rows,) if spec.flat else _leading(rng, rows)) + (cols,), None


def _cols(spec: DrawnSpec, rng: random.Random, elements: int) -> int:
    """Return a number of columns: any, a multiple of 8, or a power of two."""
    most = max(1, min(spec.most_cols, _MOST_COLS, elements // spec.least_rows))
    least = min(max(spec.least, 1, -(-elements // _MOST_ROWS)), most)
    cols = _near(rng, least, most)
    style = rng.random()
    if style < 0.35:
        cols = 1 << round(math.log2(cols))
    elif style < 0.6:
        cols = -(-cols // 8) * 8
    if spec.even:
        cols += cols % 2
    return max(least, min(cols, most))


def _leading(rng: random.Random, rows: int) -> tuple[int, ...]:
    """Return the dims before the columns: mostly one."""
    sizes: list[int] = []
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        first = _near(rng, 1, max(1, min(64, rows // 2)))
        sizes.append(first)
        rows = max(1, rows // first)
    return (*sizes, rows)


def _grouped(rng: random.Random, most: int) -> tuple[int, int]:
    """Return columns and groups: of 4 columns, or more, up to the whole row."""
    a_group = rng.choice([n for n in _COLS_A_GROUP if n <= most] or [most])
    groups = _near(rng, 1, max(1, most // a_group))
    if rng.random() < 0.6:
        groups = 1 << int(math.log2(groups))
    return a_group * groups, groups


def _image(
    spec: DrawnSpec, rng: random.Random, elements: int
) -> tuple[tuple[int, ...], int | None]:
    """Return samples, channels, and the dims after them, odd sizes as often as even ones."""
    channels = rng.choice([n for n in _CHANNELS if 4 * n <= elements] or [1])
    if spec.even:
        channels += channels % 2
    axes = spec.rank - 2
    most = max(1, min(_MOST_COLS, elements // channels))
    area = _near(rng, min(spec.least, most), most)
    sizes = []
    for left in range(axes, 0, -1):
        size = max(1, round(area ** (1 / left) * (rng.uniform(0.7, 1.4) if left > 1 else 1)))
        size = max(1, size - 1 + size % 2 if rng.random() < 0.5 else size - size % 2)
        sizes.append(size)
        area = max(1, area // size)
    samples = max(1, elements // (channels * math.prod(sizes)))
    groups = None
    if spec.groups:
        fitting = [n for n in range(1, channels + 1) if channels % n == 0]
        groups = rng.choice(fitting)
        if channels // groups * math.prod(sizes) < spec.least:
            groups = 1
    return (samples, channels, *sizes), groups


def _near(rng: random.Random, least: int, most: int) -> int:
    """Return a number between two, each magnitude as likely as another."""
    return max(least, min(most, round(math.exp(rng.uniform(math.log(least), math.log(most))))))
