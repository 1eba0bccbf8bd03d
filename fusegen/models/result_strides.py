"""Where the strides of a region's result matter: packages give theirs, which may be others than eager's.

`(q * 2).transpose(1, 2).view(b, n, c)` of a part of a projection needs the strides that torch's product has:
those of q, without its gaps. A package gives a contiguous tensor where no kernel reads q as it lies.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, fx

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.shapes import is_dense, numel

__all__ = ["in_order", "order_that_matters"]

#: Views that fail, or give other elements, where their tensor has other strides.
_OF_STRIDES = frozenset({"view", "view_as", "as_strided", "unflatten"})


def order_that_matters(node: fx.Node, fused: Collection[fx.Node]) -> tuple[int, ...] | None:
    """Return the order in which a result's dims lie in memory in eager; None if nobody minds another one.

    Args:
        node: the result of a region.
        fused: the nodes of all regions.
    """
    value = tensor_of(node)
    if value is None or is_dense(value):
        return None
    strides = [numel((stride,)) for stride in value.stride()]
    order = sorted(range(value.dim()), key=lambda dim: -strides[dim])
    if not is_dense(value.permute(order)) or not _matters(node, fused):
        return None
    return tuple(order)


def in_order(value: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return a tensor whose dims lie in memory in an order, without gaps: a copy if they do not."""
    seen = value.permute(order)
    if seen.is_contiguous():
        return value
    return seen.contiguous().permute([order.index(dim) for dim in range(value.dim())])


def _matters(node: fx.Node, fused: Collection[fx.Node]) -> bool:
    """Return whether a result of the graph, or a view that needs them, has a node's strides."""
    pending, seen = list(node.users), set[fx.Node]()
    while pending:
        user = pending.pop()
        if user.op == "output" or name_of(user) in _OF_STRIDES:
            return True
        if user not in seen and user not in fused and _may_have_the_strides(user):
            seen.add(user)
            pending += user.users
    return False


def _may_have_the_strides(node: fx.Node) -> bool:
    """Return whether a node's value may have the strides of what it reads."""
    name = name_of(node)
    if name == "contiguous" and len(node.args) == 1:
        return False
    if name not in patterns.PRODUCTS:
        return True
    value = tensor_of(node)  # a convolution's are channels-last if its input's are
    return "conv" in name and value is not None and not is_dense(value)
