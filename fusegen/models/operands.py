"""How a package holds each tensor that a region reads: its kind, and what the graph does to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import fx

from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call
from fusegen.models.regions import Region
from fusegen.models.shapes import Shape, equal, is_reduced, same

__all__ = ["Held", "has_channels", "how_held", "is_small", "of_channels"]

#: What the graph does to a tensor before the call: nothing, a view with one dim, a view without dims, a view
#: [C, 1, …], or a broadcast to the activation's shape.
Adapted = Literal["as it is", "flat", "single", "channel", "expanded"]


@dataclass(frozen=True)
class Held:
    """A tensor as an operand.

    Args:
        node: the tensor's node.
        kind: its kind in the spec.
        adapted: what the graph does to it.
        of_step: whether a step keeps it, so that the spec does not declare it.
        inner: of a view [C, 1, …], how many dims of size 1 it has.
        float32: whether it is of float32 in a package of 16 bits.
        dims: the dims along which it varies, if the spec lists them: then a kernel sums its gradient.
    """

    node: fx.Node
    kind: str
    adapted: Adapted
    of_step: bool = False
    inner: int = 0
    float32: bool = False
    dims: tuple[int, ...] = ()


def how_held(node: fx.Node, region: Region, *, is_image: bool) -> Held:
    """Return how a package holds a tensor that a region reads.

    Args:
        node: the tensor's node.
        region: the region.
        is_image: whether the spec says how many dims the activation has. The channel then is dim 1.
    """
    tensor = tensor_of(node)
    assert tensor is not None
    held = _as_number(node, tuple(tensor.shape), region, is_image)
    if tensor.dtype is not torch.bool:
        return held
    adapted: Adapted = "as it is" if held.adapted == "expanded" else held.adapted
    return replace(held, kind=f"{{kind: {held.kind}, dtype: bool}}", adapted=adapted)


def _as_number(node: fx.Node, shape: Shape, region: Region, is_image: bool) -> Held:
    """Return how a tensor of this shape is held."""
    whole, rows = region.shape, region.rows
    if same(shape, whole):
        return Held(node, "full", "as it is")
    if all(equal(size, 1) for size in shape):
        return Held(node, "scalar", "single")
    if is_image:
        if _is_channel(shape, whole):
            return of_channels(node, region)
        if isinstance(rows, tuple) and rows[-1] == -1 and same(shape, whole[rows[0] :]):
            return Held(node, "col", "as it is")
        if isinstance(rows, tuple) and is_reduced(shape, whole, rows):
            return Held(node, "row", "as it is")
        # Without a reduction a row is all dims after the channel.
        if rows is None and all(equal(size, 1) for size in shape[2 - len(whole) :]):
            return Held(node, "row", "as it is")
    else:
        if equal(shape[-1], whole[-1]) and all(equal(size, 1) for size in shape[:-1]):
            return Held(node, "col", "flat")
        # It is broadcast along the row, whatever it does along the other dims.
        if equal(shape[-1], 1):
            return Held(node, "row", "as it is")
    tensor = tensor_of(node)
    moves = tensor is not None and tensor.requires_grad and len(whole) > 2
    missing = len(whole) - len(shape)
    dims = tuple(missing + d for d, size in enumerate(shape) if not equal(size, 1))
    # Beside groups of channels, what varies by sample and channel would be written out.
    listed = moves or (isinstance(rows, str) and dims == (0, 1))
    return Held(node, "full", "as it is", dims=dims) if listed else Held(node, "full", "expanded")


def of_channels(node: fx.Node, region: Region) -> Held:
    """Return a tensor with one number for each channel as an operand."""
    return Held(node, "channel", "channel", inner=max(len(region.shape) - 2, 0))


def has_channels(call: Call) -> bool:
    """Return whether a call that a formula writes has tensors with one number for each channel."""
    if call.name == "batch_norm":
        return not call.training
    if call.name != "prelu":
        return False
    weight = tensor_of(call.operands["weight"])
    return weight is not None and not all(size == 1 for size in weight.shape)


def is_small(node: fx.Node, region: Region, is_image: bool) -> bool:
    """Return whether a tensor varies along less than a row or a column, so that it costs a kernel little."""
    tensor = tensor_of(node)
    if tensor is None or not tensor.is_floating_point():
        return False
    return how_held(node, region, is_image=is_image).kind in ("scalar", "col", "channel")


def _is_channel(shape: Shape, whole: Shape) -> bool:
    """Return whether a tensor has one number for each channel, dim 1 of the activation."""
    if len(whole) < 2:
        return False
    inner = (1,) * (len(whole) - 2)
    return same(shape, (whole[1], *inner)) or same(shape, (1, whole[1], *inner))
