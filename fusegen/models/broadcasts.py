"""Leaves out broadcasts that an op does by itself: `x * gate.expand_as(x)` is `x * gate`.

The gate then is a small tensor, which a kernel reads as it is, or computes. A view that drops dims of size 1
at the start is one too, as that of a mean in `x - x.mean(0)`.
"""

from __future__ import annotations

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.added_node import value_of
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.effects import effects_of, is_in_place
from fusegen.models.shapes import same
from fusegen.models.views import base_of, step_of

__all__ = ["leave_out_broadcasts"]

_BROADCASTS = frozenset({"expand", "expand_as", "broadcast_to"})


def leave_out_broadcasts(graph: fx.Graph) -> None:
    """Let ops read what a broadcast is of, where their results have the same shape without it."""
    effects = effects_of(graph)
    for node in reversed(graph.nodes):
        base = base_of(node)
        if base is None or node in effects.nested:
            continue
        stretch = effects.stretch[node]
        if stretch != effects.stretch[base]:
            continue  # under no_grad no gradient goes through it
        if name_of(node) not in _BROADCASTS and not _drops_first_dims(node, base):
            continue
        for user in list(node.users):
            if effects.stretch[user] != stretch:
                continue  # base may be a tensor with a gradient that `contiguous` returned under no_grad
            if _broadcasts(user) and _gives_the_same(user, node, base):
                user.replace_input_with(node, base)


def _drops_first_dims(node: fx.Node, base: fx.Node) -> bool:
    """Return whether a view drops dims of size 1 at the start, which broadcasting adds again."""
    value, tensor = tensor_of(node), tensor_of(base)
    if value is None or tensor is None or value.dim() >= tensor.dim() or step_of(node) is None:
        return False
    ones = (1,) * (tensor.dim() - value.dim())
    return same(tuple(tensor.shape), (*ones, *value.shape))


def _broadcasts(node: fx.Node) -> bool:
    """Return whether a node computes each element from one of each of its tensors."""
    call = call_or_none(node)
    if call is None or call.op is None or is_in_place(node):
        return False
    if "reduction" in call.op.attributes:
        return False  # torch refuses a target of another shape in some losses, and warns in others
    by_element = not (call.dims or call.ends or call.is_step or call.halves or call.op.paired)
    return by_element and call.name not in (*patterns.KEPT, "prelu", "rope")


def _gives_the_same(user: fx.Node, broadcast: fx.Node, base: fx.Node) -> bool:
    """Return whether a result has its shape and memory format without a broadcast."""
    value = tensor_of(user)
    with torch.no_grad():  # torch refuses gradients of some views of what changed
        found = value_of(user, {broadcast: base})
    if value is None or not same(tuple(value.shape), tuple(found.shape)):
        return False
    return same(value.stride(), found.stride()) and value.dtype is found.dtype
