"""Small tensors that a graph computes for a region, as 1 + weight: the kernel computes them itself.

They are read as they are stored, so that their dtype stays that of the region, and one launch is saved.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.operands import has_channels, is_small
from fusegen.models.regions import Region, rounds
from fusegen.models.shapes import numel

__all__ = ["inlined", "leaves"]

#: How deep a small tensor's own expression is followed into the kernel.
DEPTH = 4
#: How many times larger the activation is than a tensor that is broadcast to it and computed in the kernel,
#: once for each element.
TIMES = 4


def inlined(region: Region, x: fx.Node, effects: Effects, *, is_image: bool) -> dict[fx.Node, Call]:
    """Return the small tensors that the kernel computes, each with its call, and masks as numbers.

    A tensor that varies along rows and columns, as 1 + scale of each sample, is computed from one other
    tensor alone: the gradient of each is as large as the activation before it is summed.

    Args:
        region: the region that reads them.
        x: the activation.
        effects: what may not be moved in the graph.
        is_image: whether the region's channel is dim 1.
    """
    stretch = effects.stretch[next(iter(region.calls))]
    found: dict[fx.Node, Call] = {}

    def varying(node: fx.Node, depth: int) -> set[fx.Node] | None:
        """Take in a tensor; return what is read for it that is not small, or None if it stays outside."""
        small = is_small(node, region, is_image)
        call = call_or_none(node)
        is_mask = call is not None and call.is_mask
        if node is x or not depth or not (small or is_mask or _is_broadcast(node, region)):
            return None
        if effects.stretch[node] != stretch or not effects.may_move(node):
            return None
        if call is not None and is_mask:
            found[node] = call
            return set()
        if call is None or call.dims or call.ends or call.condition is not None:
            return None
        if call.part or call.name in patterns.KEPT or not _has_channels_of(region, node, call):
            return None
        if not all(is_small(i, region, is_image) or _is_broadcast(i, region) for i in call.inputs):
            return None
        taken = dict(found)
        read: set[fx.Node] = set()
        for used in call.inputs:
            inner = None if _is_rounded(used, call) else varying(used, depth - 1)
            if inner is None:
                inner = set() if is_small(used, region, is_image) else {used}
            read |= inner
        if len(read) > 1 or (small and read):
            found.clear()
            found.update(taken)
            return None
        found[node] = call
        return read

    rounded = {i for call in region.calls.values() for i in call.inputs if _is_rounded(i, call)}
    tables = (call.inputs for call in region.calls.values() if call.name == "rope")
    rounded |= {node for read in tables for node in read}  # narrower than a row
    for node in region.inputs:
        if node not in rounded:
            varying(node, DEPTH)
    return _of_whole_regions(found, region)


def _has_channels_of(region: Region, node: fx.Node, call: Call) -> bool:
    """Return whether dim 1 of a tensor is that of the activation, if its op has a number for each channel."""
    tensor = tensor_of(node)
    return not has_channels(call) or (tensor is not None and tensor.dim() == len(region.shape))


def _is_rounded(node: fx.Node, user: Call) -> bool:
    """Return whether a cast asks for the value that another cast has rounded."""
    call = call_or_none(node) if user.op is None else None
    return call is not None and rounds(node, call)


def _of_whole_regions(found: Mapping[fx.Node, Call], region: Region) -> dict[fx.Node, Call]:
    """Leave out what belongs to a region of which another part stays outside: no package gives that part."""
    left = dict(found)
    while True:
        part = [
            n
            for n in left
            if n in region.around and not region.around[n].calls.keys() <= left.keys()
        ]
        if not part:
            return left
        for node in part:
            del left[node]


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


def _is_broadcast(node: fx.Node, region: Region) -> bool:
    """Return whether a tensor is broadcast to the activation, which is many times larger."""
    tensor = tensor_of(node)
    if tensor is None or not tensor.is_floating_point() or not tensor.dim():
        return False
    return TIMES * numel(tuple(tensor.shape)) <= numel(region.shape)
