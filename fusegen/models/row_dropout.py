"""Draws the masks of dropout of reduced values by torch: kernels draw for each element of a whole row.

`x * dropout(gate(x.mean(-1, keepdim=True)))` becomes a product with a small mask of zeros and 1 / (1 - p), as
torch's own dropout is. The region then has it all, but for the mask.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models.added_node import added, replace_node
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects

__all__ = ["draw_row_masks"]


def draw_row_masks(graph: fx.Graph, effects: Effects) -> None:
    """Write dropout of values that are reduced as a product with a mask.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved in the graph.
    """
    for node in list(graph.nodes):
        call = call_or_none(node)
        if call is None or call.name != "dropout" or not isinstance(call.x, fx.Node):
            continue
        reduced = _reduced(call.x)
        value = tensor_of(node)
        if reduced is None or value is None or not effects.may_move(node):
            continue
        row, dims = reduced
        index: Any = (
            Ellipsis,
            *(slice(0, 1) if d in dims else slice(None) for d in range(min(dims), 0)),
        )
        share = {"p": call.attributes.get("p", 0.5), "training": True}
        with graph.inserting_before(node):
            places = added(graph, row, operator.getitem, (row, index))
            ones = added(graph, node, torch.ones_like, (places,), {"dtype": value.dtype})
            mask = added(graph, node, functional.dropout, (ones,), share)
            made = added(graph, node, operator.mul, (call.x, mask))
        replace_node(node, made)


def _reduced(node: fx.Node) -> tuple[fx.Node, tuple[int, ...]] | None:
    """Return the row that a value is reduced from, and the dims; None if it is not reduced.

    The value is a reduction that keeps its dims, or computed of one and of numbers, or of tensors beside it.
    """
    call = call_or_none(node)
    if call is None or call.ends or not call.keepdim:
        return None
    if _reduces(call):
        return (call.x, call.dims) if isinstance(call.x, fx.Node) else None
    shape = tensor_of(node)
    for used in call.inputs:
        tensor = tensor_of(used)
        if shape is not None and tensor is not None and tensor.shape == shape.shape:
            found = _reduced(used)
            if found is not None:
                return found
    return None


def _reduces(call: Call) -> bool:
    return call.op is not None and bool(call.dims) and "keepdim" in call.op.attributes
