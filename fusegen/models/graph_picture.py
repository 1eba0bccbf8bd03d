"""A model's graph as SVG that is part of the page, with the fused regions marked."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from markupsafe import Markup

from fusegen.models.graph_units import Unit
from fusegen.models.layered import layered

__all__ = ["MOST", "picture"]

#: A larger graph is drawn up to here.
MOST = 300
#: A region's ops, of which a box has so many lines.
_LINES = 8
#: The width of a letter, the height of a line and the space around the text, in pixels.
_LETTER, _LINE, _AROUND = 7.3, 18.0, 9.0


def picture(units: Sequence[Unit], fused: Collection[str], chapters: Collection[str]) -> Markup:
    """Return a picture of a graph.

    Args:
        units: the graph.
        fused: the packages of regions that are fused.
        chapters: the packages that have a chapter on the page, to which their regions are links.
    """
    shown = units[:MOST]
    lines = [_lines(unit) for unit in shown]
    sizes = [
        (max(map(len, text)) * _LETTER + 2 * _AROUND, len(text) * _LINE + 2 * _AROUND)
        for text in lines
    ]
    layout = layered(sizes, [unit.inputs for unit in shown])
    arrows = Markup("").join(Markup('<path d="{}"/>').format(_path(a)) for a in layout.arrows)
    boxes = Markup("").join(
        _box(unit, text, size, centre, unit.package in fused, unit.package in chapters)
        for unit, text, size, centre in zip(shown, lines, sizes, layout.centres, strict=True)
    )
    return Markup(
        '<svg role="img" aria-label="The graph of the model" width="{w:.0f}" height="{h:.0f}" '
        'viewBox="-2 -2 {w:.0f} {h:.0f}"><g class="arrows">{arrows}</g>{boxes}</svg>'
    ).format(w=layout.width + 4, h=layout.height + 4, arrows=arrows, boxes=boxes)


def _lines(unit: Unit) -> list[str]:
    """Return the text of a box."""
    ops = list(unit.ops)
    if len(ops) > _LINES:
        ops[_LINES - 1 :] = [f"and {len(ops) - _LINES + 1} more"]
    return [*ops, *([unit.shape] if unit.shape else [])]


def _box(
    unit: Unit,
    lines: Sequence[str],
    size: tuple[float, float],
    centre: tuple[float, float],
    is_fused: bool,
    is_linked: bool,
) -> Markup:
    (width, height), (x, y) = size, centre
    look = unit.kind if unit.kind != "region" or is_fused else "unfused"
    box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="6"/>').format(
        x - width / 2, y - height / 2, width, height
    )
    first = y - height / 2 + _AROUND + 0.72 * _LINE
    for number, line in enumerate(lines):
        faint = Markup(' class="shape"') if unit.shape and number == len(lines) - 1 else ""
        box += Markup('<text x="{:.1f}" y="{:.1f}"{}>{}</text>').format(
            x, first + number * _LINE, faint, line
        )
    if is_linked:
        box = Markup('<a href="#{}">{}</a>').format(unit.package, box)
    return Markup('<g class="{}">{}</g>').format(look, box)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return an arrow as a curve that leaves and reaches each point straight down."""
    (x, y), *rest = points
    text = f"M{x:.1f} {y:.1f}"
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        if x == to_x:
            text += f"V{to_y:.1f}"
        else:
            text += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return re.sub(r"\.0\b", "", text)
