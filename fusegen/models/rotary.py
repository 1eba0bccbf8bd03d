"""Finds rotations of a row's halves in a captured graph: `cat((-x[..., D/2:], x[..., :D/2]), -1)`.

Models with rotary position embedding write them so. As one call they belong to the region of what they meet.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects
from fusegen.models.shapes import same

__all__ = ["half_of", "write_rotations"]

_JOINS = (torch.cat, torch.concat, torch.concatenate)
_SPLITS = frozenset({"chunk", "split", "tensor_split"})


def write_rotations(graph: fx.Graph, effects: Effects) -> None:
    """Replace each rotation by one call; what it was made of is left for those who read it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    for node in [n for n in graph.nodes if n.op == "call_function" and n.target in _JOINS]:
        x = _turned(node, effects)
        if x is not None:
            with graph.inserting_before(node):
                made = graph.call_function(patterns.rotate_half, (x,))
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
            graph.erase_node(node)


def _turned(node: fx.Node, effects: Effects) -> fx.Node | None:
    """Return what a join of two halves rotates, or None if it does something else, or may not be moved."""
    value = tensor_of(node)
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if value is None or not value.is_floating_point() or dim not in (-1, value.dim() - 1):
        return None
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        return None
    minus, first = parts
    if not isinstance(minus, fx.Node) or not isinstance(first, fx.Node):
        return None
    op = patterns.op_of(minus)
    if op is None or op.name != "neg":
        return None
    (second,) = minus.all_input_nodes
    one, other = half_of(first), half_of(second)
    if one is None or other is None or one[0] is not other[0] or (one[1], other[1]) != (0, 1):
        return None
    among = [node, minus, first, second]
    still = all(effects.may_move(n) and effects.stretch[n] == effects.stretch[node] for n in among)
    return one[0] if still else None


def half_of(node: fx.Node) -> tuple[fx.Node, int] | None:
    """Return the tensor of whose last dim a node is a half, and which half; None if it is none."""
    value = tensor_of(node)
    if value is None or node.target is not operator.getitem:
        return None
    base, index = node.args
    if not isinstance(base, fx.Node):
        return None
    whole: Any = base
    if isinstance(index, int):
        whole = base.args[0] if name_of(base) in _SPLITS and base.args else None
        parts = base.meta.get("example_value")
        place = index if isinstance(parts, list | tuple) and len(parts) == 2 else None
    else:
        place = _place(index, tensor_of(base))
    tensor = tensor_of(whole)
    if tensor is None or place not in (0, 1) or not isinstance(tensor.shape[-1], int):
        return None
    halved = (*tensor.shape[:-1], tensor.shape[-1] // 2)
    if tensor.shape[-1] % 2 or not same(tuple(value.shape), halved):
        return None
    return whole, place


def _place(index: Any, tensor: torch.Tensor | None) -> int | None:
    """Return which half of the last dim an index takes, or None if it does something else."""
    if tensor is None or not isinstance(index, tuple) or not isinstance(index[-1], slice):
        return None
    before, last = index[:-1], index[-1]
    if any(i is not Ellipsis and i != slice(None) for i in before) or last.step not in (None, 1):
        return None
    if Ellipsis not in before and len(index) != tensor.dim():
        return None
    middle, size = tensor.shape[-1] // 2, tensor.shape[-1]
    if last.start in (None, 0) and last.stop == middle:
        return 0
    return 1 if last.start == middle and last.stop in (None, size) else None
