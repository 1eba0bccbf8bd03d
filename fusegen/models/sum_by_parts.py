"""Adds parts of two tensors, where only parts of their sum are read: `(x + y).chunk(4, -1)`.

No kernel computes the sum with what reads its parts, since these are smaller. The gates of a recurrent cell
are such parts. With gradients the sum stays as it is: those of the parts are put together once for it, and
would be for each of the two tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx

from fusegen.models.added_node import added
from fusegen.models.arguments import tensor_of
from fusegen.models.beside import is_arithmetic
from fusegen.models.calls import call_or_none
from fusegen.models.effects import Effects
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.models.shapes import same

__all__ = ["are_read_by_ops", "only_cut", "sum_by_parts"]

_CUTS = (
    *(torch.chunk, torch.split, torch.tensor_split, torch.unbind),
    *("chunk", "split", "tensor_split", "unbind"),
)


def sum_by_parts(graph: fx.Graph, effects: Effects) -> int:
    """Cut two tensors instead of their sum, and add the parts; return for how many sums.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph.
    """
    if not runs_without_gradients(graph):
        return 0
    count = 0
    for node in list(graph.nodes):
        terms, cut = _terms(node), only_cut(node, effects)
        if terms is None or cut is None:
            continue
        with graph.inserting_before(cut):
            cuts = [
                added(graph, cut, cut.target, (term, *cut.args[1:]), cut.kwargs) for term in terms
            ]
        for part in list(cut.users):
            with graph.inserting_before(part):
                both = [added(graph, part, operator.getitem, (c, part.args[1])) for c in cuts]
                part.replace_all_uses_with(added(graph, part, torch.add, (*both,)))
            graph.erase_node(part)
        graph.erase_node(cut)
        graph.erase_node(node)
        count += 1
    return count


def _terms(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two tensors that a node adds, if they have one shape and dtype and it does nothing else."""
    call = call_or_none(node)
    if call is None or call.name != "add" or call.attributes.get("alpha", 1) != 1:
        return None
    first, second = call.x, call.operands.get("other")
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    x, y = tensor_of(first), tensor_of(second)
    if x is None or y is None or x.dtype is not y.dtype or not same(tuple(x.shape), tuple(y.shape)):
        return None
    return first, second


def only_cut(node: fx.Node, effects: Effects) -> fx.Node | None:
    """Return what cuts a value into parts, if nothing else reads it, ops read these, and all may move."""
    if len(node.users) != 1:
        return None
    cut = next(iter(node.users))
    parts = [*cut.users]
    if cut.target not in _CUTS or cut.all_input_nodes != [node]:
        return None
    if not are_read_by_ops(parts):
        return None
    moves = all(effects.may_move(n) for n in (node, cut, *parts))
    return cut if moves and cut.args and cut.args[0] is node else None


def are_read_by_ops(parts: Sequence[fx.Node]) -> bool:
    """Return whether some nodes are parts of a value, and all that read them are ops."""
    return all(
        part.target is operator.getitem and all(map(is_arithmetic, part.users)) for part in parts
    )
