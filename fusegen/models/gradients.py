"""Which results of a region get a gradient in a graph: others are detached in its spec.

A kernel adds the gradients of all its results. Of one that is compared, or detached to be shown, there is
none, and zeros in its place become NaN where its derivative is infinite, as that of a norm of 0.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree

from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects, body_of, changes

__all__ = ["gets_gradient", "may_have_gradient"]


def gets_gradient(node: fx.Node, inside: Collection[fx.Node], effects: Effects) -> bool:
    """Return whether a node may get a gradient from what others than some nodes compute of it.

    Args:
        node: the node.
        inside: the nodes that do not count, as those of its region.
        effects: says where gradients are off.
    """
    pending = [user for user in node.users if user not in inside]
    seen: set[fx.Node] = set()
    while pending:
        user = pending.pop()
        if user in seen or _stops(user, effects):
            continue
        if user.op not in ("call_function", "call_method") or body_of(user) or changes(user):
            return True
        seen.add(user)
        pending += user.users
    return False


def may_have_gradient(node: fx.Node) -> bool:
    """Return whether a gradient may go back to a node: it is not detached, nor an input that needs none."""
    value = tensor_of(node)
    if value is None or node.op in ("placeholder", "get_attr"):
        return value is None or value.requires_grad
    return name_of(node) != "detach"


def _stops(node: fx.Node, effects: Effects) -> bool:
    """Return whether no gradient goes through a node, which detaches, compares, or has a shape like it."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = name_of(node)
    if name == "detach" or name.endswith("_like") or node in effects.gradless:
        return True
    values: list[Any] = [
        v for v in _pytree.tree_leaves(node.meta.get("example_value")) if v is not None
    ]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return bool(values) and not any(t.is_floating_point() or t.is_complex() for t in tensors)
