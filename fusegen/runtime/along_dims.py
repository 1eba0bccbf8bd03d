"""Operands that have only the dims along which they vary: torch would align these with the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["along_dims"]


def along_dims(tensor: Any, dims: tuple[int, ...], x: Sequence[int], of_parts: int = 0) -> Any:
    """Return an operand that has only the dims along which it varies as it broadcasts with an activation:
    with size 1 in the others. [batch, feature] becomes [batch, 1, feature].

    What torch aligns with the activation keeps its dims as the last ones. The two never differ: sizes must
    be the activation's.

    Args:
        tensor: the operand.
        dims: these dims, in order and counted from the end.
        x: the activation's shape; -1 is a size that is not known, and 1 one that may become larger.
        of_parts: the one of these dims along which the operand holds several parts, counted from the end; 0
            if there is none.
    """
    if not isinstance(tensor, Tensor) or tensor.dim() >= len(x):
        return tensor
    own, last = tuple(tensor.shape), tuple(range(-tensor.dim(), 0))
    larger = [-1 if n == 1 else n for n in x]
    if (
        len(own) != len(dims)
        or _are_along(own, last, dims, x, of_parts)
        or not _are_along(own, dims, dims, larger, of_parts, exact=True)
    ):
        return tensor[(None,) * (len(x) - len(own))]
    sizes = dict(zip(dims, own, strict=True))
    return tensor.reshape([sizes.get(d, 1) for d in range(-len(x), 0)])


def _are_along(
    sizes: Sequence[int],
    places: Sequence[int],
    dims: Sequence[int],
    x: Sequence[int],
    of_parts: int,
    *,
    exact: bool = False,
) -> bool:
    """Return whether sizes at some places of an activation's shape are of what varies along some dims.

    Args:
        sizes: the sizes.
        places: the places, counted from the end.
        dims: the dims.
        x: the activation's shape, of which -1 is not known.
        of_parts: the dim along which any size will do.
        exact: whether a size of 1 is one only where the activation's is.
    """
    for size, place in zip(
        sizes, places, strict=True
    ):  # plain comparisons, which a compiler guards
        if size == 1 and not exact:
            continue
        if place not in dims or (place != of_parts and x[place] != -1 and x[place] != size):
            return False
    return True
