"""Which nodes of a captured graph compute what an op does, and which of them have another beside them.

An op alone between two products is one kernel already. One that has another beside it, and is not fused with
it, is what a report has to say.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.calls import call_or_none

__all__ = ["has_another_beside", "is_arithmetic"]


def is_arithmetic(node: fx.Node) -> bool:
    """Return whether a node computes what an op does, though perhaps with arguments that no spec can say."""
    value = tensor_of(node)
    if value is None or not value.is_floating_point() or not node.users or _is_view(node):
        return False
    call = call_or_none(node)
    if call is not None and call.is_mask:
        return False
    return call.op is not None if call is not None else patterns.op_of(node) is not None


def has_another_beside(node: fx.Node) -> bool:
    """Return whether an op computes what a node reads, or reads what it computes, be it through views."""
    return _is_found(node.all_input_nodes, "all_input_nodes") or _is_found(node.users, "users")


def _is_found(nodes: Iterable[fx.Node], following: str) -> bool:
    """Return whether one of some nodes, or what follows one through views and casts, is an op."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if is_arithmetic(node):
            return True
        if _is_view(node):
            pending += getattr(node, following)
    return False


def _is_view(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and name_of(node) in patterns.VIEWS
