"""Lets the products of one weight, as those of a recurrence's steps, sum its gradient in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models.arguments import tensor_of
from fusegen.models.cost import bytes_of
from fusegen.models.effects import Effects
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.runtime import movement, shared_weight

__all__ = ["share_weights"]

_LINEAR = frozenset({functional.linear, torch._C._nn.linear, movement.linear})
#: How many products there are at least. Of two, autograd adds once.
_LEAST_PRODUCTS = 3
#: How large a weight is at least, in bytes: of a smaller one, Python takes longer than memory.
_LEAST_BYTES = 2**20


def share_weights(graph: fx.Graph, effects: Effects) -> int:
    """Let products of one weight sum its gradient; return for how many weights.

    The products stay the same nodes.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved; it gets to know the new nodes.
    """
    if runs_without_gradients(graph):
        return 0
    products: dict[tuple[fx.Node, int], list[fx.Node]] = {}
    for node in graph.nodes:
        weight = _weight_of(node)
        if weight is not None and effects.may_move(node) and node not in effects.gradless:
            products.setdefault((weight, effects.stretch[node]), []).append(node)
    count = 0
    for (weight, _), nodes in products.items():
        tensor = tensor_of(weight)
        if tensor is None or not tensor.requires_grad or bytes_of(weight) < _LEAST_BYTES:
            continue
        if len(nodes) >= _LEAST_PRODUCTS:
            _share(weight, nodes, effects)
            count += 1
    return count


def _weight_of(node: fx.Node) -> fx.Node | None:
    """Return the weight of a product; None if a node is none, or reads the weight in another way too."""
    if node.target not in _LINEAR:
        return None
    weight: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    read = [*node.args, *node.kwargs.values()]
    return weight if isinstance(weight, fx.Node) and read.count(weight) == 1 else None


def _share(weight: fx.Node, nodes: Sequence[fx.Node], effects: Effects) -> None:
    graph, first = weight.graph, nodes[0]
    with graph.inserting_before(first):
        made = graph.call_function(shared_weight.shared, (weight,))
    made.meta = dict(weight.meta)
    effects.add(made, first)
    for node in nodes:
        node.replace_input_with(weight, made)
        node.target = shared_weight.linear
