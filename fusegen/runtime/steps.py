"""Helpers for a chain that runs step by step in torch: they broadcast operands to values that lost the
columns, and widen tensors of 16 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusegen.runtime.along_dims import along_dims
from fusegen.runtime.dropped_dims import beside_what_is_left
from fusegen.runtime.operators import computed_in

__all__ = [
    "along_dims",
    "as_large_as",
    "as_small_as",
    "beside",
    "beside_dropped",
    "column_numbers",
    "in_rows",
    "one_a_row",
    "operand_beside",
    "widened",
]


def as_large_as(x: Tensor, other: Tensor, rank: int = 0) -> Tensor:
    """Return `x`, expanded where `other` is larger; as it is if torch does not broadcast the two, or refuses
    them.

    Args:
        x: the value.
        other: what is combined with it.
        rank: how many dims it may have; 0 for any.
    """
    both = isinstance(x, Tensor) and isinstance(other, Tensor)
    if not both or x.is_nested or other.is_nested:
        return x
    # The lengths first: a compiler would guard that dims of other places differ.
    if x.dim() == other.dim() and x.shape == other.shape:
        return x
    if rank and other.dim() > rank:
        return x
    sizes = [*zip(reversed(x.shape), reversed(other.shape), strict=False)]
    if other.dim() <= x.dim() and all(to in (1, own) for own, to in sizes):
        return x
    if any(own != to and 1 not in (own, to) for own, to in sizes):
        return x
    return x.expand(torch.broadcast_shapes(x.shape, other.shape))


def as_small_as(value: Tensor, shape: torch.Size, *beside: Tensor) -> Tensor:
    """Return a value without the dims along which it was only repeated, because x was.

    Args:
        value: the value.
        shape: the shape of x.
        beside: the operands from which it was computed.
    """
    shapes = [tuple(shape), *[tuple(tensor.shape) for tensor in beside]]
    for dim in range(-value.dim(), 0):
        sizes = [own[dim] for own in shapes if len(own) >= -dim]
        if value.shape[dim] != 1 and all(size == 1 for size in sizes):
            value = value.narrow(dim, 0, 1)
    return value


def beside(x: Tensor, tensor: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return a tensor with one number per row in a shape that broadcasts with `x`, which may have lost the
    columns.

    Args:
        x: the value.
        tensor: the operand; if it has more dims than `x`, it has size 1 along the columns, or makes x larger.
        columns: the dims that make up a row, counted from the end.
    """
    if tensor.dim() <= x.dim():
        return tensor
    if x.dim():
        return tensor.squeeze(columns)
    return tensor.reshape(()) if tensor.numel() == 1 else tensor


def beside_dropped(
    x: Tensor, tensor: Tensor, columns: tuple[int, ...], dims: tuple[int, ...] = ()
) -> Tensor:
    """Return an operand that torch broadcasts with `x`, which has lost the columns, or else with the value
    before, in a shape that broadcasts with `x`.

    Args:
        x: the value.
        tensor: the operand.
        columns: the dims that make up a row, counted from the end.
        dims: the dims of `x`, counted from the end, that the operand may have alone.
    """
    found = beside_what_is_left(tensor, x.shape, dims)
    return operand_beside(x, tensor, columns, -1) if found is None else found


def operand_beside(x: Tensor, tensor: Tensor, columns: tuple[int, ...], rank: int) -> Tensor:
    """Return an operand in a shape that broadcasts with `x`, which may have lost the columns.

    Args:
        x: the value.
        tensor: the operand, which broadcasts with the value before that lost the columns.
        columns: the dims that make up a row, counted from the end.
        rank: the number of dims of that value.
    """
    if x.dim() == rank:
        return tensor
    if not x.dim():
        return tensor.reshape(())
    sizes = enumerate(tensor.shape, -tensor.dim())
    return tensor.reshape([size for dim, size in sizes if dim not in columns])


def in_rows(x: Tensor, tensor: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return an operand of rows as it is, or, if it lacks the columns as a loss of each row does, with size 1
    in them.

    Args:
        x: the activation.
        tensor: the operand.
        columns: the dims that make up a row, counted from the end.
    """
    sizes = dict(enumerate(x.shape, -x.dim()))
    rows = [1 if dim in columns else size for dim, size in sizes.items()]
    lacks = list(tensor.shape) == [size for dim, size in sizes.items() if dim not in columns]
    pairs = zip(reversed(tensor.shape), reversed(rows), strict=False)
    return (
        tensor.reshape(rows) if lacks and any(own not in (1, to) for own, to in pairs) else tensor
    )


def one_a_row(held: Tensor, x: Tensor, columns: tuple[int, ...], rank: int | None = None) -> Tensor:
    """Return a tensor with one number per row, in x's shape without its columns, in a shape that broadcasts
    with `x`.

    Args:
        held: the tensor.
        x: the value.
        columns: the dims that make up a row, counted from the end.
        rank: how many dims the value had before a step that may have dropped the columns.
    """
    if rank is not None and x.dim() < rank:
        return held
    sizes = dict(enumerate(x.shape, -x.dim()))
    return held.reshape([1 if dim in columns else size for dim, size in sizes.items()])


def column_numbers(x: Tensor, columns: tuple[int, ...], rank: int | None = None) -> Tensor:
    """Return the numbers of the columns, in a shape that broadcasts with `x`; 0 where they were dropped."""
    sizes = [x.shape[dim] for dim in columns] if rank is None or x.dim() == rank else []
    numbers = torch.arange(math.prod(sizes), device=x.device)
    return numbers.reshape([*sizes, *[1] * (-1 - columns[-1] if sizes else 0)])


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor of numbers in the dtype in which kernels compute: at least float32."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(computed_in(tensor.dtype))
