"""What stands for cotangents that are absent: a tensor that the kernel reads anyway, or zeros."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fusegen.runtime.operators import BoundOperator

__all__ = ["instead", "read_beside", "zeros"]


def instead(
    operator: BoundOperator,
    place: int,
    cotangents: Sequence[Tensor | None],
    saved: Sequence[Tensor],
) -> Tensor:
    """Return what an operator's derivative is given for an absent cotangent: zeros, unless it is told.

    Args:
        operator: the operator.
        place: which of its outputs has no cotangent.
        cotangents: the cotangents of all of them.
        saved: what was saved of the call, its tensors first.
    """
    following, found = operator.following, None
    if following.told and not operator.order:
        lies = [*zip(operator.output_kinds, operator.float32, strict=True)]
        found = read_beside(following.stands, lies, place, cotangents, saved)
    return zeros(operator, place, saved) if found is None else found


def read_beside(
    stands: Sequence[int],
    lies: Sequence[Hashable],
    place: int,
    cotangents: Sequence[Tensor | None],
    saved: Sequence[Tensor],
) -> Tensor | None:
    """Return a tensor that a backward reads anyway, to stand for an absent cotangent, or None.

    The backward is told that it is absent, so it uses nothing of it. But its kernel reads it.

    Args:
        stands: see `Operator.stands`.
        lies: for each cotangent, its shape and its dtype, or what they follow from.
        place: which cotangent is absent.
        cotangents: all of them.
        saved: the tensors that the backward takes.
    """
    if stands and stands[place] >= 0:
        return saved[stands[place]].detach()
    alike = (c for own, c in zip(lies, cotangents, strict=False) if own == lies[place])
    found = next((c for c in alike if c is not None), None)
    return None if found is None else found.detach()


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
