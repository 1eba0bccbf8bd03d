"""What a region's spec declares: its dims, the kinds and dtypes of its operands, and its outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from fusegen.models.arguments import tensor_of
from fusegen.models.operands import Held, has_channels, how_held
from fusegen.models.region_dtype import is_wide
from fusegen.models.regions import Region

__all__ = ["dims_text", "kind_text", "needs_dims", "outputs_text", "stays_float32"]


def kind_text(held: Held, region: Region, *, detached: bool) -> str:
    """Return how an operand is declared.

    The tables of a rotation, and targets of a loss, get no gradient if they need none: a kernel would write
    as much for each as for x. Other operands get one, or training and evaluation would have two packages.

    Args:
        held: the operand.
        region: the region that reads it.
        detached: whether the region reads it detached alone: then torch knows of no gradient.
    """
    parts = [f"kind: {held.kind}"]
    if held.dims:
        parts = [f"dims: [{', '.join(map(str, held.dims))}]"]
    elif held.float32:
        parts.append("dtype: float32")
    calls = region.calls.values()
    constant = any(c.name in ("rotate_half", "rope") or (c.ends and c.operands) for c in calls)
    tensor = tensor_of(held.node)
    if tensor is not None and tensor.is_floating_point():
        whole = held.kind == "full" and len(parts) == 1 and not held.dims
        if detached or (constant and whole and not tensor.requires_grad):
            parts.append("gradient: false")
    return f"{{{', '.join(parts)}}}" if len(parts) > 1 or held.dims else held.kind


def outputs_text(
    words: Mapping[fx.Node, str], region: Region, dtype: torch.dtype
) -> dict[fx.Node, str]:
    """Return how each output is listed; nothing if it is the last step's value, in the activation's dtype.

    A loss keeps its float32 beside logits of 16 bits.
    """
    wide = [node for node in words if dtype.itemsize < 4 and is_wide(node, region)]
    if len(words) == 1 and not wide:
        return {}
    return {n: f"{{name: {w}, dtype: float32}}" if n in wide else w for n, w in words.items()}


def stays_float32(node: fx.Node, dtype: torch.dtype) -> bool:
    """Return whether a tensor is of float32 beside others of 16 bits."""
    tensor = tensor_of(node)
    return tensor is not None and tensor.dtype is torch.float32 and dtype.itemsize < 4


def needs_dims(region: Region) -> bool:
    """Return whether the chain's rows or operands need to know the dims of the activation."""
    rows, calls = region.rows, region.calls.values()
    if any(has_channels(c) or (c.halves and c.attributes.get("dim", -1) != -1) for c in calls):
        return True
    if any(c.op is not None and c.op.over == "inner" for c in calls):
        return True
    if isinstance(rows, str) or (rows is not None and rows != (-1,)):
        return True
    if rows == (-1,):
        return False
    held = [how_held(n, region, is_image=True) for n in region.inputs]
    kinds = {h.kind for h in held}
    # Rows of one dim serve everything that is neither of channels nor of [batch, channel].
    own = len(region.shape) > 3 and not any(h.dims or h.adapted == "expanded" for h in held)
    return "channel" in kinds or ("row" in kinds and own)


def dims_text(region: Region) -> str:
    """Return the dims of a region's rows as YAML."""
    dims = region.rows
    assert isinstance(dims, tuple)
    return str(dims[0]) if len(dims) == 1 else f"[{', '.join(map(str, dims))}]"
