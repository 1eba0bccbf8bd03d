"""Shapes and strides of fake tensors, whose sizes may be symbols: comparing them must not fix a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["Shape", "broadcast", "equal", "is_dense", "is_reduced", "numel", "same"]

#: The sizes of a tensor: integers, and symbols for what changes from call to call.
Shape = tuple[Any, ...]

#: What stands for a size of which not even an example is known.
_UNKNOWN = 1024


def equal(a: Any, b: Any) -> bool:
    """Return whether two sizes are equal at every call."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(statically_known_true(a == b))


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Return whether two shapes are equal at every call."""
    return len(a) == len(b) and all(map(equal, a, b))


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """Return the shape that tensors of these shapes are broadcast to; None if that is not known."""
    result: list[Any] = []
    for place in range(1, max(map(len, shapes), default=0) + 1):
        sizes = [s[-place] for s in shapes if len(s) >= place and not equal(s[-place], 1)]
        if any(not equal(sizes[0], s) for s in sizes[1:]):
            return None
        result.append(sizes[0] if sizes else 1)
    return tuple(reversed(result))


def is_reduced(shape: Shape, whole: Shape, dims: Sequence[int]) -> bool:
    """Return whether a shape is another one with size 1 in some dims, which are counted from the end."""
    reduced = [1 if place - len(whole) in dims else size for place, size in enumerate(whole)]
    return same(shape, reduced)


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor's elements are in memory in the order of its dims, at every call."""
    after: Any = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if not equal(size, 1) and not equal(stride, after):
            return False
        after = after * size
    return True


def numel(shape: Sequence[Any]) -> int:
    """Return how many elements a tensor has, in the example that its shape was captured with."""
    return math.prod(_example(size) for size in shape)


def _example(size: Any) -> int:
    if isinstance(size, torch.SymInt):
        hint = None if size.node.is_nested_int() else size.node.hint
        return int(hint) if hint is not None else _UNKNOWN
    return int(size)
