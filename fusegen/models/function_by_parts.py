"""Applies a function to parts of a tensor, where only those of its value are read: `gelu(x).chunk(2, -1)`.

No kernel computes the whole with what reads its parts, since these are smaller. A spatial gating unit reads
one half with a norm and multiplies the other.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from fusegen.models.added_node import added
from fusegen.models.calls import call_or_none
from fusegen.models.effects import Effects
from fusegen.models.sum_by_parts import only_cut

__all__ = ["apply_by_parts"]


def apply_by_parts(graph: fx.Graph, effects: Effects) -> int:
    """Cut what a function reads instead of what it gives; return for how many functions.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph. It knows nothing of the nodes that are added.
    """
    count = 0
    for node in reversed(list(graph.nodes)):  # the last of several functions first
        if not _is_of_each_element(node) or (cut := only_cut(node, effects)) is None:
            continue
        (source,) = node.all_input_nodes
        args = (source, *cut.args[1:])
        with graph.inserting_before(cut):
            pieces = added(graph, cut, cut.target, args, cut.kwargs)
        for part in list(cut.users):
            with graph.inserting_before(part):
                piece = added(graph, part, operator.getitem, (pieces, part.args[1]))
                applied = added(graph, part, node.target, *_reading(node, piece))
            part.replace_all_uses_with(applied)
            graph.erase_node(part)
        graph.erase_node(cut)
        graph.erase_node(node)
        count += 1
    return count


def _reading(node: fx.Node, piece: fx.Node) -> tuple[Any, Any]:
    """Return a node's arguments, with another tensor in place of the one that it reads."""
    found: tuple[Any, Any] = fx.map_arg((node.args, node.kwargs), lambda _: piece)
    return found


def _is_of_each_element(node: fx.Node) -> bool:
    """Return whether a node computes each element of one tensor from the same element of another one."""
    call = call_or_none(node)
    if call is None or call.op is None or call.dims or call.ends or call.is_step or call.halves:
        return False
    return call.inputs == (call.x,) == (*node.all_input_nodes,) and not (
        call.op.over or call.op.groups or call.op.paired or call.condition
    )
