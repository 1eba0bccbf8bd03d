"""Dims of a row that are no neighbours: kernels take a view whose last dims they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusegen.runtime.along_dims import along_dims
from fusegen.runtime.dropped_dims import with_dropped

__all__ = ["along_dims", "restored", "rows_alone", "rows_first"]


def rows_first(
    tensor: Tensor,
    order: Sequence[int],
    *,
    per_channel: bool = False,
    alone: tuple[int, ...] = (),
    beside: Tensor | None = None,
) -> Tensor:
    """Return a view of a tensor in another order of dims, of which the last ones are a row.

    Args:
        tensor: the activation, or an operand that broadcasts with it.
        order: the dims of the activation in the order of the view.
        per_channel: whether a tensor of one dim has a number for each channel.
        alone: the dims of the activation that an operand may have alone.
        beside: the view of the activation, beside which it has them.
    """
    if beside is not None:
        sizes = dict(zip(order, beside.shape, strict=True))
        tensor = along_dims(tensor, alone, [sizes[dim] for dim in sorted(sizes)])
    rank, dims = len(order), tensor.dim()
    if not dims or dims > rank:
        return tensor
    if per_channel and dims == 1:
        return tensor.reshape(-1, *[1] * (rank - 2))[None].permute(*order)
    return tensor[(None,) * (rank - dims)].permute(*order)


def rows_alone(
    tensor: Tensor, order: Sequence[int], columns: int, beside: Tensor, *, dropped: bool = False
) -> Tensor:
    """Return a tensor with a number for each row as `rows_first` does; it may lack the dims of a row.

    Args:
        tensor: the tensor.
        order: the dims of the activation in the order of the view.
        columns: how many dims a row has.
        beside: the view of the activation.
        dropped: whether torch aligns it with a value that lacks these dims.
    """
    if dropped or tensor.dim() == len(order) - columns:
        sizes = dict(zip(order, beside.shape, strict=True))
        tensor = with_dropped(tensor, [sizes[dim] for dim in sorted(sizes)], order[-columns:])
    return rows_first(tensor, order)


def restored(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Return a result of kernels in the order of the activation's dims, in a memory format of torch."""
    found = tensor.permute(*sorted(range(len(order)), key=order.__getitem__))
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(found.dim())
    if last is not None and found.is_contiguous(memory_format=last):
        return found
    return found.contiguous()
