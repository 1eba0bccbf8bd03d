"""Outputs and gradients of zeros, for what has no cotangent or no tangent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fusegen.runtime.operators import BoundOperator

__all__ = ["zeros"]


def zeros(operator: BoundOperator, place: int, tensors: Sequence[Tensor]) -> Tensor:
    """Return an output of zeros.

    One of the activation's size is a row of zeros, or a matrix where dims come after the columns, expanded to
    all rows. So next to nothing is filled, and kernels read it from a cache.
    """
    x = tensors[0]
    shape, dtype = operator.shape(place, tensors), operator.dtype(place, x.dtype)
    across = len(shape) + operator.columns[0]
    if operator.output_kinds[place] not in ("full", "half") or across < 1 or _has_rules(x):
        return x.new_zeros(shape, dtype=dtype)
    like = tensors[operator.like[place]]
    if like.shape == shape and not like.is_contiguous():  # in its memory format
        first = torch.zeros_like(like[(slice(1),) * across], dtype=dtype)
    else:
        first = x.new_zeros((*[1] * across, *shape[across:]), dtype=dtype)
    return first.expand(shape)


def _has_rules(x: Tensor) -> bool:
    """Return whether a tensor is a subclass around others, such as a DTensor, with rules of its own."""
    return type(x) is not Tensor and is_traceable_wrapper_subclass(x)
