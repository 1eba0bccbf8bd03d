"""A tensor in the dtype of several products that read it under autocast: they share one copy.

autocast makes a copy for each product, and keeps each for the backward pass. The gradients are added in the
tensor's own dtype, as autograd adds those of the copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.observers import in_plain_eager

__all__ = ["shared_cast"]


def shared_cast(x: Tensor, dtype: torch.dtype, count: int) -> tuple[Tensor, ...]:
    """Return a tensor in another dtype for each of so many readers.

    Args:
        x: the tensor.
        dtype: the dtype, of fewer bits than its own.
        count: how many readers there are.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return (x.to(dtype),) * count
    if type(x) is Tensor and in_plain_eager():
        found: tuple[Tensor, ...] = _Cast.apply(x, dtype, count)
        return found
    return tuple(x.to(dtype) for _ in range(count))


class _Cast(torch.autograd.Function):
    """The copy, once for each reader."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, count: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype, copy = x.dtype, x.to(dtype)
        return tuple(copy.detach() for _ in range(count))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        present = [c for c in cotangents if c is not None]
        if not present:
            return None, None, None
        total = present[0].to(ctx.dtype)
        for cotangent in present[1:]:
            total = total + cotangent if torch.is_grad_enabled() else total.add_(cotangent)
        return total, None, None
