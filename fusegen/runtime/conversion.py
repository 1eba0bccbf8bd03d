"""Converts images and volumes on a GPU to channels-last, by a kernel that all packages have.

torch's own copy takes an element of each sector of memory at a time, and so several times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fusegen.runtime.memory_format import converters, is_transformed
from fusegen.runtime.operators import unseen

__all__ = ["is_plain_on_gpu", "offer_converter"]


class _Converted(torch.autograd.Function):
    """The conversion in plain eager; its gradient may have any strides, as that of torch's."""

    @staticmethod
    def forward(ctx: Any, overload: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return the tensor in channels-last."""
        del ctx
        return overload(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Return the gradient as it is."""
        del ctx
        return None, cotangent


def is_plain_on_gpu(x: Tensor) -> bool:
    """Return whether a tensor is on a GPU, and nothing but plain eager sees what is done with it."""
    if not x.is_cuda or type(x) is not Tensor or x.is_neg():
        return False
    return unseen() and not is_transformed() and forward_ad._current_level < 0


def offer_converter(namespace: Any) -> None:
    """Let Modules convert the inputs of their convolutions by a package's operator, if they have no other.

    Args:
        namespace: the operators of a package that was built for CUDA.
    """
    if converters:
        return
    overload: Callable[[Tensor], Tensor] = namespace.channels_last.default

    def convert(x: Tensor, memory_format: torch.memory_format) -> Tensor:
        if not is_plain_on_gpu(x) or not x.is_contiguous():
            return x.contiguous(memory_format=memory_format)
        if torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = _Converted.apply(overload, x)
            return found
        return overload(x)

    converters.append(convert)
