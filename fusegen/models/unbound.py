"""Takes a tensor apart at once where a model takes all its parts, one by one.

In eager `q, k, v = x` is `q, k, v = x.unbind(0)`, whose gradient is one `stack`. torch.compile captures it
as `x[0], x[1], x[2]`. The gradient of each of these is as large as x and nearly all zeros, and autograd adds
them up: attention with one projection wrote and read its gradient nine times more.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from fusegen.models.arguments import tensor_of
from fusegen.models.effects import Effects

__all__ = ["take_apart"]

_SELECT = ("select", torch.select)


def take_apart(graph: fx.Graph, effects: Effects, fused: Collection[fx.Node]) -> int:
    """Replace selections that together are a whole tensor by those of one `unbind`; return how often.

    The selections stay the same nodes.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved; it gets to know the new nodes.
        fused: the nodes that packages compute.
    """
    found: dict[tuple[fx.Node, int], list[tuple[int, fx.Node]]] = {}
    for node in graph.nodes:
        selection = _selection(node)
        if selection is not None:
            base, dim, index = selection
            found.setdefault((base, dim), []).append((index, node))
    count = 0
    for (base, dim), selections in found.items():
        nodes = [node for _, node in selections]
        tensor, taken = tensor_of(base), {index for index, _ in selections}
        whole = tensor is not None and len(taken) == tensor.shape[dim]
        if not whole or len(taken) < 2 or not all(map(effects.may_move, nodes)):
            continue
        if not set(nodes).isdisjoint(fused) or len({effects.stretch[n] for n in nodes}) > 1:
            continue
        with graph.inserting_before(nodes[0]):
            parts = graph.call_method("unbind", (base, dim))
        effects.before[parts], effects.stretch[parts] = (
            effects.before.get(nodes[0], ()),
            effects.stretch[nodes[0]],
        )
        for index, node in selections:
            node.op, node.target = "call_function", operator.getitem
            node.args, node.kwargs = (parts, index), {}
        count += 1
    return count


def _selection(node: fx.Node) -> tuple[fx.Node, int, int] | None:
    """Return the tensor that a node selects from, the dim and the index, neither below 0, or None."""
    given: tuple[Any, ...] = ()
    if node.target is operator.getitem:
        given = (node.args[0], 0, node.args[1])
    elif node.target in _SELECT and len(node.args) == 3 and not node.kwargs:
        given = node.args
    tensor = tensor_of(given[0]) if given and isinstance(given[0], fx.Node) else None
    if tensor is None or not all(type(number) is int for number in given[1:]):
        return None
    base, dim, index = given
    dim %= tensor.dim()
    size = tensor.shape[dim]
    return (base, dim, index % size) if isinstance(size, int) and -size <= index < size else None
