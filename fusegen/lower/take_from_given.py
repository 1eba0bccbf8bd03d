"""Loads an element of a value per column that is loaded anyway, instead of computing the element.

A saved value's element, such as the mean of a batch norm at the class of a cross entropy, is a formula over
elements of what the value was computed from. A part that loads the value may have none of that, and the
element's bits are those of the value only if it is taken from it.
"""

from __future__ import annotations

from dataclasses import replace

from fusegen.lower.part import Part
from fusegen.program import Kind, Map, Take, Value
from fusegen.program.rebuild import rebuilt

__all__ = ["take_from_given"]


def take_from_given(part: Part) -> Part:
    """Return the part, in which elements of given values per column are taken from these."""
    loaded = {value.name: value for value in part.given if value.kind == Kind.COL}
    elements: dict[Value, Value] = {
        node: Take(node.name, node.kind, loaded[node.whole.name], node.whole.index)
        for node in part.program.nodes()
        if isinstance(node, Map) and node.whole and node.whole.name in loaded
    }
    if not elements:
        return part
    return replace(part, program=rebuilt(part.program, elements, part.given))
