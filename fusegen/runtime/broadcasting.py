"""The activation's shape if x is smaller, for example if an operand is added to a mean of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def broadcast(
    x: Tensor, broadcasters: Sequence[Any], kinds: Sequence[object], columns: tuple[int, int]
) -> Tensor:
    """Return a tensor with the activation's shape. Only its shape and strides are read.

    That is a broadcaster if one has this shape, so that results get its strides; else a view of x.

    Args:
        x: the chain's input, with size 1 along the columns' dims.
        broadcasters: the operands that determine the activation's size along these dims. One with a wrong
            shape is left to the check of the call.
        kinds: their kinds.
        columns: the first and the last of these dims, counted from the end.
    """
    shape, rank = list(x.shape), x.dim()
    for own, kind in zip(broadcasters, kinds, strict=True):
        if not isinstance(own, Tensor) or own.dim() > rank:
            continue
        sizes = [1] * (rank - own.dim()) + list(own.shape)
        if kind == "channel" and own.dim() == 1:  # as torch's own modules hold it
            sizes = [own.shape[0] if dim == 1 else 1 for dim in range(rank)]
        for dim in range(rank + columns[0], rank + columns[1] + 1):
            shape[dim] = shape[dim] if sizes[dim] == 1 else sizes[dim]
    for own in broadcasters:
        if not isinstance(own, Tensor) or (own.dtype, own.device) != (x.dtype, x.device):
            continue
        if tuple(own.shape) == tuple(shape):
            return own.detach()
    return x.detach().expand(shape)
