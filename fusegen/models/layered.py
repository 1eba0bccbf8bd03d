"""Places boxes and arrows of a graph without cycles in layers, with few crossings and straight arrows.

This is Sugiyama's method. A box is one layer below the last that it reads. An arrow over several layers has a
point in each, which takes part in the order like a box. Sweeps order a layer by the places of its neighbours,
and then move it as close to these as the gaps allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Layout", "layered"]

#: The gaps between boxes and between layers, and the width of an arrow's point, in pixels.
_BESIDE, _BELOW, _POINT = 20.0, 34.0, 8.0
_SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where boxes and arrows are.

    Args:
        width, height: of the whole picture.
        centres: the centre of each box.
        arrows: the points of each arrow, from the box that it leaves to the box that it reaches.
    """

    width: float
    height: float
    centres: Sequence[tuple[float, float]]
    arrows: Sequence[Sequence[tuple[float, float]]]


def layered(sizes: Sequence[tuple[float, float]], inputs: Sequence[Sequence[int]]) -> Layout:
    """Return where the boxes of a graph are.

    Args:
        sizes: the width and height of each box.
        inputs: the boxes that each box reads, all of them before it.
    """
    layer = _layers(inputs)
    widths = [width for width, _ in sizes]
    above: list[list[int]] = [[] for _ in sizes]
    chains: list[list[int]] = []
    for box, read in enumerate(inputs):
        for source in read:
            chain = [source]
            for between in range(layer[source] + 1, layer[box]):
                layer.append(between)
                widths.append(_POINT)
                above.append([chain[-1]])
                chain.append(len(widths) - 1)
            above[box].append(chain[-1])
            chains.append([*chain, box])
    below: list[list[int]] = [[] for _ in widths]
    for box, read in enumerate(above):
        for source in read:
            below[source].append(box)
    rows = [[b for b in range(len(widths)) if layer[b] == n] for n in range(max(layer) + 1)]
    xs = [0.0] * len(widths)
    for row in rows:
        _place(row, xs, widths, [0.0] * len(row))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            wanted = [_mean([xs[n] for n in near[b]], xs[b]) for b in row]
            if sweep < _SWEEPS // 2:
                order = sorted(range(len(row)), key=wanted.__getitem__)
                row[:], wanted = [row[n] for n in order], [wanted[n] for n in order]
            _place(row, xs, widths, wanted)
    left = min(x - w / 2 for x, w in zip(xs, widths, strict=True))
    xs = [x - left for x in xs]
    tops, heights, top = [], [], 0.0
    for row in rows:
        heights.append(max((sizes[b][1] for b in row if b < len(sizes)), default=0.0))
        tops.append(top)
        top += heights[-1] + _BELOW

    def arrow(chain: Sequence[int]) -> list[tuple[float, float]]:
        """Return points that go straight down in layers, and to the side between them alone."""
        source, box = chain[0], chain[-1]
        found = [(xs[source], centres[source][1] + sizes[source][1] / 2)]
        for b in chain:
            top, bottom = tops[layer[b]], tops[layer[b]] + heights[layer[b]]
            found += [(xs[b], top)] if b != source else []
            found += [(xs[b], bottom)] if b != box else []
        return [*found, (xs[box], centres[box][1] - sizes[box][1] / 2)]

    centres = [(xs[b], tops[layer[b]] + heights[layer[b]] / 2) for b in range(len(sizes))]
    width = max(x + w / 2 for x, w in zip(xs, widths, strict=True))
    return Layout(width, top - _BELOW, centres, [arrow(chain) for chain in chains])


def _layers(inputs: Sequence[Sequence[int]]) -> list[int]:
    """Return the layer of each box; what reads nothing is directly above the first that reads it."""
    layer: list[int] = []
    for read in inputs:
        layer.append(max((layer[n] + 1 for n in read), default=0))
    for box, read in enumerate(inputs):
        readers = [layer[n] for n, sources in enumerate(inputs) if box in sources]
        if not read and readers:
            layer[box] = min(readers) - 1
    return layer


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _place(
    row: Sequence[int], xs: list[float], widths: Sequence[float], wanted: Sequence[float]
) -> None:
    """Move a layer's boxes, in their order, to where the squares of the distances to `wanted` are least.

    Less the gaps between them, the places must not fall: neighbours that would are one group at their mean.
    """
    offset, offsets = 0.0, []
    for before, box in zip([None, *row], row, strict=False):
        offset += 0.0 if before is None else (widths[before] + widths[box]) / 2 + _BESIDE
        offsets.append(offset)
    groups: list[list[float]] = []
    for place, gap in zip(wanted, offsets, strict=True):
        groups.append([place - gap])
        while len(groups) > 1 and _mean(groups[-2], 0) > _mean(groups[-1], 0):
            groups[-2:] = [[*groups[-2], *groups[-1]]]
    places = [_mean(group, 0) for group in groups for _ in group]
    for box, place, gap in zip(row, places, offsets, strict=True):
        xs[box] = place + gap
