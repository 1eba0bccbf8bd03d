"""Takes the biases of convolutions into the regions that follow.

On a GPU a convolution adds its bias in a pass of its own over the result. What reads the result there can
add it for nothing, and its kernels sum the gradient.
"""

from __future__ import annotations

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.convolutions import BIAS, argument, convolutions
from fusegen.models.effects import Effects

__all__ = ["take_biases"]

_CONVOLUTIONS = convolutions(1, 2, 3)


def take_biases(graph: fx.Graph, effects: Effects) -> int:
    """Write convolutions without their biases, which are added to the results; return how many.

    Only those of which every reader is an op that fusegen computes.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    count = 0
    for node in list(graph.nodes):
        bias = _bias(node)
        if bias is not None and _is_apart(node) and _may_take(node, bias, effects):
            _take(graph, node, bias)
            count += 1
    return count


def _is_apart(node: fx.Node) -> bool:
    """Whether a convolution adds its bias in a pass of its own."""
    value = tensor_of(node)
    return value is not None and value.is_cuda


def _bias(node: fx.Node) -> fx.Node | None:
    """Return the bias of a convolution, or None if there is none, or the node is something else."""
    if node.target not in _CONVOLUTIONS:
        return None
    found = argument(node, BIAS)
    return found if isinstance(found, fx.Node) else None


def _may_take(node: fx.Node, bias: fx.Node, effects: Effects) -> bool:
    """Return whether all readers can be in a region with the sum."""
    value, own = tensor_of(node), tensor_of(bias)
    if value is None or own is None or value.dtype is not own.dtype or value.dim() < 3:
        return False
    if not node.users or not effects.may_move(node):
        return False
    return all(
        effects.stretch[user] == effects.stretch[node]
        and effects.may_move(user)
        and (call := call_or_none(user)) is not None
        and (call.name not in patterns.KEPT or call.name.endswith("_norm"))
        for user in node.users
    )


def _take(graph: fx.Graph, node: fx.Node, bias: fx.Node) -> None:
    """Add a convolution's bias to its result."""
    value, own = tensor_of(node), tensor_of(bias)
    assert value is not None and own is not None
    place, name = BIAS
    if len(node.args) > place:
        node.update_arg(place, None)
    else:
        node.update_kwarg(name, None)
    shape = (-1, *(1,) * (value.dim() - 2))
    with graph.inserting_after(node):
        view = graph.call_method("reshape", (bias, shape))
        view.meta = {**bias.meta, "example_value": own.reshape(shape)}
    with graph.inserting_after(view):
        total = graph.call_function(torch.add, (node, view))
        total.meta = {**node.meta, "example_value": torch.empty_like(value)}
    node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
