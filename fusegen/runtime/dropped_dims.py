"""Operands beside a value that has lost the dims of a row: torch aligns them with the dims that are left.

An operand that does not broadcast to these is aligned with all dims of the activation, like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from fusegen.runtime.along_dims import along_dims

__all__ = ["beside_what_is_left", "with_dropped"]


def beside_what_is_left(
    tensor: Tensor, sizes: Sequence[int], dims: tuple[int, ...] = ()
) -> Tensor | None:
    """Return an operand as it broadcasts to a value that has lost dims, or None if it does not.

    Args:
        tensor: the operand.
        sizes: the value's shape.
        dims: the dims of the value, counted from the end, that the operand may have alone.
    """
    if tensor.dim() > len(sizes):
        return None
    placed: Tensor = along_dims(tensor, dims, sizes) if dims else tensor
    pairs = zip(reversed(placed.shape), reversed(sizes), strict=False)
    return placed if all(own in (1, to) for own, to in pairs) else None


def with_dropped(
    tensor: Tensor, x: Sequence[int], columns: Collection[int], dims: tuple[int, ...] = ()
) -> Tensor:
    """Return an operand that torch aligns with a value without the dims of a row, with size 1 in these; as it
    is if it does not broadcast to that value.

    Args:
        tensor: the operand.
        x: the activation's shape.
        columns: the dims of a row, counted from the end.
        dims: the dims of the activation, counted from the end, that the operand may have alone.
    """
    sizes = dict(enumerate(x, -len(x)))
    left = [dim for dim in sizes if dim not in columns]
    places = tuple([left.index(dim) - len(left) for dim in dims if dim in left])
    found = beside_what_is_left(tensor, [sizes[dim] for dim in left], places)
    if found is None:
        return tensor
    own = dict(zip(left, (1,) * (len(left) - found.dim()) + tuple(found.shape), strict=True))
    return found.reshape([own.get(dim, 1) for dim in sizes])
