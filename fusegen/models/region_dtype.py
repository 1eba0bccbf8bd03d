"""The dtype of a region's package, and which of its tensors keep another one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call
from fusegen.models.operands import has_channels, is_small
from fusegen.models.regions import Region
from fusegen.models.small_tensors import leaves

__all__ = ["dtype_of", "is_wide"]


def dtype_of(
    region: Region, small: Mapping[fx.Node, Call], *, is_image: bool
) -> torch.dtype | None:
    """Return the dtype that all tensors are read and written in; None if it would round some.

    Small tensors of float32 beside others of 16 bits stay as they are. So do losses, one for each row or one
    number, and sums and means of all elements.

    Args:
        region: the region.
        small: the small tensors that the package computes.
        is_image: whether the spec says how many dims the activation has.
    """
    read = leaves(region, small)
    outputs = [node for node in region.outputs if not is_wide(node, region)]
    tensors = map(tensor_of, (*read, *outputs))
    dtypes = {t.dtype for t in tensors if t is not None and t.is_floating_point()}
    exact = {node for node, call in small.items() if call.is_mask}
    computed = map(tensor_of, {*region.calls, *small} - exact)
    inside = {t.dtype for t in computed if t is not None and t.is_floating_point()}
    if torch.float64 in dtypes | inside and len(dtypes | inside) > 1:
        return None
    channels = _read_by_channel(region)
    large = [n for n in read if n not in channels and not is_small(n, region, is_image)]
    tensors = map(tensor_of, (*large, *outputs))
    rest = {t.dtype for t in tensors if t is not None and t.is_floating_point()}
    if len(rest) == 1 and dtypes <= {*rest, torch.float32}:
        return rest.pop()
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def is_wide(node: fx.Node, region: Region) -> bool:
    """Return whether a result is a loss or the like that the model has in float32."""
    tensor = tensor_of(node)
    return region.calls[node].ends and tensor is not None and tensor.dtype is torch.float32


def _read_by_channel(region: Region) -> set[fx.Node]:
    """Return the tensors that a region reads only as one number for each channel of a norm or the like."""
    channels: set[fx.Node] = set()
    others: set[fx.Node] = set()
    for call in region.calls.values():
        own: set[fx.Node] = set()
        if call.name in patterns.KEPT or has_channels(call):
            own = {value for value in call.operands.values() if isinstance(value, fx.Node)}
        channels |= own
        others |= set(call.inputs) - own
    return channels - others
