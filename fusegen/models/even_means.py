"""Leaves the gradient of a mean unwritten where its tensor is read besides, as in squeeze and excitation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, fx

from fusegen.models.arguments import tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.cost import bytes_of
from fusegen.models.effects import Effects
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.runtime.even_mean import EvenMean

__all__ = ["spread_means"]

#: How large a tensor is at least, in bytes: of a smaller one, Python takes longer than memory.
_LEAST_BYTES = 2**20


def spread_means(graph: fx.Graph, effects: Effects, fused: Collection[fx.Node]) -> int:
    """Let the gradient of each mean that torch computes be a small tensor, expanded; return of how many.

    Autograd adds it to that of the other readers: in one pass, where it was written and added in three. The
    nodes stay the same.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved.
        fused: the nodes that packages compute.
    """
    if runs_without_gradients(graph):
        return 0
    count = 0
    for node in graph.nodes:
        if node in fused or node in effects.gradless or node in effects.nested:
            continue
        call = call_or_none(node)
        if call is None or call.name != "mean" or not call.dims or not isinstance(call.x, fx.Node):
            continue
        x, value = tensor_of(call.x), tensor_of(node)
        if x is None or value is None or not x.requires_grad or x.dtype is not value.dtype:
            continue
        if (
            len(call.x.users) > 1
            and node.args[:1] == (call.x,)
            and bytes_of(call.x) >= _LEAST_BYTES
        ):
            function: Any = node.target
            if node.op == "call_method":
                function = getattr(Tensor, function)
            node.op, node.target = "call_function", EvenMean(function, call.dims)
            count += 1
    return count
