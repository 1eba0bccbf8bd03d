"""Applies a function to parts of a tensor, where only those of its value are read: `gelu(x).chunk(2, -1)`.

No kernel computes the whole with what reads its parts, since these are smaller. A spatial gating unit reads
one half with a norm and multiplies the other.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from fusegen.models.added_node import added
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.effects import Effects
from fusegen.models.sum_by_parts import are_read_by_ops, only_cut

__all__ = ["apply_by_parts"]


def apply_by_parts(graph: fx.Graph, effects: Effects) -> int:
    """Cut what a function reads instead of what it gives; return for how many functions.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph. It knows nothing of the nodes that are added.
    """
    count = 0
    for node in reversed(list(graph.nodes)):  # the last of several functions first
        if not _is_of_each_element(node):
            continue
        (source,) = node.all_input_nodes
        if cut := only_cut(node, effects):
            with graph.inserting_before(cut):
                pieces = added(graph, cut, cut.target, (source, *cut.args[1:]), cut.kwargs)
            _apply(node, pieces, list(cut.users))
            graph.erase_node(cut)
        elif slices := _only_slices(node, effects):
            _apply(node, source, slices)
        else:
            continue
        graph.erase_node(node)
        count += 1
    return count


def _apply(node: fx.Node, whole: fx.Node, parts: Sequence[fx.Node]) -> None:
    """Compute parts of a node's value from the same parts of what it reads, or of the pieces of that."""
    graph = node.graph
    for part in parts:
        with graph.inserting_before(part):
            piece = added(graph, part, operator.getitem, (whole, part.args[1]))
            applied = added(graph, part, node.target, *_reading(node, piece))
        part.replace_all_uses_with(applied)
        graph.erase_node(part)


def _only_slices(node: fx.Node, effects: Effects) -> list[fx.Node]:
    """Return the slices of a value, if nothing else is read of it, ops read these, and none twice."""
    slices = list(node.users)
    movable = all(effects.may_move(n) for n in (node, *slices))
    if len(slices) < 2 or not movable or not are_read_by_ops(slices):
        return []
    if not all(part.all_input_nodes == [node] and _is_sliced(part.args[1]) for part in slices):
        return []
    whole, *sizes = (value.numel() for n in (node, *slices) if (value := tensor_of(n)) is not None)
    known = all(isinstance(size, int) for size in (whole, *sizes))
    return slices if known and sum(sizes) <= whole else []


def _is_sliced(index: Any) -> bool:
    """Return whether an index takes slices alone."""
    each = index if isinstance(index, tuple) else (index,)
    return all(one is Ellipsis or isinstance(one, slice) for one in each)


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
