"""Finds rotations of pairs of a row in a captured graph.

A pair has one element from each half of the row, `cat((-x[..., D/2:], x[..., :D/2]), -1)`, or is two
neighbours, `stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)`. Models with rotary position embedding write
them so. As one call they belong to the region of what they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects
from fusegen.models.halves import half_of
from fusegen.models.shapes import same

__all__ = ["write_rotations"]

_JOINS = (torch.cat, torch.concat, torch.concatenate)
_FLATTENS = frozenset({"flatten", "reshape", "view"})


def write_rotations(graph: fx.Graph, effects: Effects) -> None:
    """Replace each rotation by one call; what it was made of is left for those who read it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    for node in list(graph.nodes):
        alternating = name_of(node) in _FLATTENS
        if not alternating and (node.op != "call_function" or node.target not in _JOINS):
            continue
        x = _turned(node, effects, alternating=alternating)
        if x is not None:
            with graph.inserting_before(node):
                keywords: dict[str, Any] = {"interleaved": True} if alternating else {}
                made = graph.call_function(functions.rotate_half, (x,), keywords)
            replace_node(node, made)


def _turned(node: fx.Node, effects: Effects, *, alternating: bool) -> fx.Node | None:
    """Return what a join of two halves rotates, or None if it does something else, or may not be moved."""
    value = tensor_of(node)
    join = node.args[0] if alternating and node.args else node
    if value is None or not value.is_floating_point() or not isinstance(join, fx.Node):
        return None
    if alternating and not _flattens(node, join):
        return None
    parts = _parts(join)
    if parts is None:
        return None
    minus, first = parts
    op = patterns.op_of(minus)
    if op is None or op.name != "neg":
        return None
    (second,) = minus.all_input_nodes
    one, other = half_of(first), half_of(second)
    if one is None or other is None or one.whole is not other.whole:
        return None
    if (one.place, other.place) != (0, 1) or {one.alternating, other.alternating} != {alternating}:
        return None
    among = [node, join, minus, first, second]
    still = all(effects.may_move(n) and effects.stretch[n] == effects.stretch[node] for n in among)
    return one.whole if still else None


def _parts(join: fx.Node) -> Sequence[fx.Node] | None:
    """Return the two tensors that a node joins along the last dim of its result; None if it does not."""
    parts: Any = join.args[0] if join.args else join.kwargs.get("tensors")
    dim = join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", join.kwargs.get("axis", 0))
    value = tensor_of(join)
    if value is None or dim not in (-1, value.dim() - 1):
        return None
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        return None
    return parts if all(isinstance(part, fx.Node) for part in parts) else None


def _flattens(node: fx.Node, join: fx.Node) -> bool:
    """Whether a node makes one dim of the last two of a stack."""
    value, stacked = tensor_of(node), tensor_of(join)
    if join.target is not torch.stack or value is None or stacked is None or stacked.dim() < 2:
        return False
    *before, count, two = stacked.shape
    return same(tuple(value.shape), (*before, count * two))
