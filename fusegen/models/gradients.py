"""Which values of a graph have a gradient, and which results of a region get one: others are detached.

A kernel adds the gradients of all its results. Of one that is compared, or detached to be shown, there is
none, and zeros in its place become NaN where its derivative is infinite, as that of a norm of 0.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree

from fusegen.models import functions
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects, body_of, changes, storages

__all__ = ["gets_gradient", "reached_by_gradients"]


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


def reached_by_gradients(graph: fx.Graph, effects: Effects) -> set[fx.Node]:
    """Return the nodes that a gradient may go back to: those computed from an input or a parameter that needs
    one.

    Not through what is detached or has no slope, as a comparison. A tensor into which such a value is written
    is one of them, wherever it is read.
    """
    found: set[fx.Node] = set()
    written: set[int] = set()
    for node in graph.nodes:
        if node.op == "output" or not _may_be_reached(node, found, effects):
            continue
        found.add(node)
        if node.op in ("call_function", "call_method") and changes(node):
            written = written.union(*map(storages, node.all_input_nodes))
    return found | {node for node in graph.nodes if not written.isdisjoint(storages(node))}


def _may_be_reached(node: fx.Node, found: set[fx.Node], effects: Effects) -> bool:
    """Return whether a gradient may go back to a node, if some of those before it are reached."""
    value = tensor_of(node)
    needs = value is not None and value.requires_grad
    if node.op in ("placeholder", "get_attr"):
        return value is None or needs
    return not _stops(node, effects) and (needs or not found.isdisjoint(node.all_input_nodes))


def _stops(node: fx.Node, effects: Effects) -> bool:
    """Return whether no gradient goes through a node, which detaches, compares, or has a shape like it."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = name_of(node)
    detaches = name == "detach" or node.target is functions.detached
    if detaches or name.endswith("_like") or node in effects.gradless:
        return True
    values: list[Any] = [
        v for v in _pytree.tree_leaves(node.meta.get("example_value")) if v is not None
    ]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return bool(values) and not any(t.is_floating_point() or t.is_complex() for t in tensors)
