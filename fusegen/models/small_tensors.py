"""Small tensors that a graph computes for a region, as 1 + weight: the kernel computes them itself.

They are read as they are stored, so that their dtype stays that of the region, and one launch is saved.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from fusegen.models import patterns
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.operands import is_small
from fusegen.models.regions import Region

__all__ = ["inlined", "leaves"]

#: How deep a small tensor's own expression is followed into the kernel.
DEPTH = 4


def inlined(region: Region, effects: Effects, *, is_image: bool) -> dict[fx.Node, Call]:
    """Return the small tensors that the kernel computes, each with its call.

    Args:
        region: the region that reads them.
        effects: what may not be moved in the graph.
        is_image: whether the region's channel is dim 1.
    """
    stretch = effects.stretch[next(iter(region.calls))]
    found: dict[fx.Node, Call] = {}

    def follow(node: fx.Node, depth: int) -> None:
        if not depth or not is_small(node, region, is_image):
            return
        if effects.stretch[node] != stretch or not effects.may_move(node):
            return
        call = call_or_none(node)
        if call is None or call.dims or call.name in patterns.KEPT or call.condition is not None:
            return
        if all(is_small(used, region, is_image) for used in call.inputs):
            found[node] = call
            for used in call.inputs:
                follow(used, depth - 1)

    for node in region.inputs:
        follow(node, DEPTH)
    return found


def leaves(region: Region, small: Mapping[fx.Node, Call]) -> list[fx.Node]:
    """Return the tensors that a region's package reads, if it computes some small ones."""
    pending, found = list(region.inputs), []
    while pending:
        node = pending.pop(0)
        if node in small:
            pending += small[node].inputs
        elif node not in found:
            found.append(node)
    return found
