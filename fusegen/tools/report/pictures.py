"""The pictures of a report, as SVG that is part of the page: its colours are those of the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.figure import INPUT, VALUE, draw_curves, figure, points_of_curves
from fusegen.tools.report.errors import EveryNumber
from fusegen.tools.report.one_variable import with_derivatives

__all__ = ["curves", "errors", "inlined"]

#: The colours of the page, by those of the figures.
_COLOURS = {
    "#ffffff": "none",
    "#000000": "var(--text)",
    "#0b6e4f": "var(--first)",
    "#d9822b": "var(--second)",
    "#4269d0": "var(--third)",
    "#a463b0": "var(--fourth)",
    "#8a8f98": "var(--faint)",
    "#e6e8eb": "var(--line)",
    "#b0b0b0": "var(--line)",
}
#: How many neighbouring numbers share a point of a picture.
_TOGETHER = 128
#: Errors below and above are drawn at these.
_LEAST, _MOST = 0.1, 1e6
_MARKED = (-1e20, -1.0, -1e-20, 0.0, 1e-20, 1.0, 1e20)


def curves(chain: Chain) -> str:
    """Return a picture of a chain of one variable and its derivatives."""
    points = points_of_curves()
    found = with_derivatives(chain, points)
    names = ("value", "derivative", "second", "third")
    shown = dict(zip(names, found, strict=False))
    text = figure(lambda axes: draw_curves(axes, points, shown, "x"))
    return inlined(text, f"{chain.spec.title}-curves")


def errors(measured: EveryNumber, name: str) -> str:
    """Return a picture of the errors at all numbers, beside those of torch's own functions.

    Args:
        measured: the errors.
        name: the name of the picture, for the page.
    """

    def drawn(axes: Any) -> None:
        for label, values, colour in (
            ("eager", measured.eager, INPUT),
            ("fusegen", measured.own, VALUE),
        ):
            largest = _largest(values).clamp(_LEAST, _MOST)
            places = [place * _TOGETHER for place in range(len(largest))]
            axes.plot(places, [round(v, 4) for v in largest.tolist()], colour, label=label, lw=1)
        axes.axhline(0.5, color="#000000", lw=0.6, ls=(0, (2, 2)))
        axes.set_yscale("log")
        axes.set_ylim(bottom=_LEAST)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlim(0, len(measured.x))
        axes.set_xticks([int((measured.x < m).sum()) for m in _MARKED], [f"{m:g}" for m in _MARKED])
        axes.set_xlabel("x, each number of bfloat16 in turn")
        axes.set_ylabel("largest error in ulp")

    return inlined(figure(drawn, linear=False), name)


def _largest(values: Tensor) -> Tensor:
    """Return the largest of each few neighbours."""
    short = -len(values) % _TOGETHER
    return torch.nn.functional.pad(values, (0, short)).reshape(-1, _TOGETHER).amax(1)


def inlined(text: str, name: str) -> str:
    """Return an SVG file as an element of a page.

    Its ids get the name of the picture, so that those of two pictures differ. Its colours become variables
    of the page. Its own fonts, style and metadata are left out.
    """
    root = ET.fromstring(text)
    referred = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        given = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in given.items():
            if key != "id":
                element.set(key, _own(value, name))
            elif value in referred:
                element.set(key, f"{name}-{value}")
    for size in ("width", "height"):
        root.attrib.pop(size)
    root.set("role", "img")
    root.set("aria-label", name.replace("-", " "))
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]


def _own(value: str, name: str) -> str:
    """Return an attribute's value with the picture's own ids and the page's colours and font."""
    value = re.sub(r"(url\(#|^#)(?![0-9a-f]{6}\b)", rf"\g<1>{name}-", value)
    for colour, variable in _COLOURS.items():
        value = value.replace(colour, variable)
    return re.sub(r"font-family: [^;]*;? ?", "", value)
