"""The activation's shape if x is smaller, for example if an operand is added to a mean of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fusegen.runtime.operand_shapes import Operand


def broadcast(
    x: Tensor, broadcasters: Sequence[Any], operands: Sequence[Operand], columns: tuple[int, int]
) -> Tensor:
    """Return a tensor with the activation's shape. Only its shape and strides are read.

    That is a broadcaster if one has this shape, so that results get its strides; else a view of x.

    Args:
        x: the chain's input, with size 1 along the columns' dims.
        broadcasters: the operands that determine the activation's size along these dims. One with a wrong
            shape is left to the check of the call.
        operands: their declarations.
        columns: the first and the last of these dims, counted from the end.
    """
    shape, rank = list(x.shape), x.dim()
    for own, operand in zip(broadcasters, operands, strict=True):
        if not isinstance(own, Tensor) or own.dim() > rank:
            continue
        sizes = [1] * (rank - own.dim()) + list(own.shape)
        if operand.kind == "channel" and own.dim() == 1:  # as torch's own modules hold it
            sizes = [own.shape[0] if dim == 1 else 1 for dim in range(rank)]
        if own.dim() == len(operand.dims) and any(
            n != 1 and dim - rank not in operand.dims for dim, n in enumerate(sizes)
        ):
            along = dict(zip(operand.dims, own.shape, strict=True))
            sizes = [along.get(dim - rank, 1) for dim in range(rank)]
        for dim in range(rank + columns[0], rank + columns[1] + 1):
            shape[dim] = shape[dim] if sizes[dim] == 1 else sizes[dim]
    for own in broadcasters:
        if not isinstance(own, Tensor) or (own.dtype, own.device) != (x.dtype, x.device):
            continue
        if tuple(own.shape) == tuple(shape):
            return own.detach()
    return x.detach().expand(shape)
