"""Converts images and volumes on a GPU to channels-last and back, by a kernel that all packages have.

torch's own copy takes an element of each sector of memory at a time, and so several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.memory_format import FORMATS, converted, converters
from fusegen.runtime.observers import in_plain_eager

__all__ = ["is_plain_on_gpu", "offer_converter"]


class _Converted(torch.autograd.Function):
    """The conversion in plain eager.

    The gradient is converted back. That of torch's keeps its format, and whatever reads it beside tensors in
    the other format, such as a sum of two gradients, then reads single elements.
    """

    @staticmethod
    def forward(
        ctx: Any, overload: Callable[[Tensor], Tensor], x: Tensor, given: torch.memory_format
    ) -> Tensor:
        """Return the tensor in the other format."""
        ctx.set_materialize_grads(False)
        ctx.given = given
        return overload(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        """Return the gradient in the format of what was converted."""
        return None, None if cotangent is None else converted(cotangent, ctx.given), None


def is_plain_on_gpu(x: Tensor) -> bool:
    """Return whether a tensor is on a GPU and only plain eager, or a profiler, sees what becomes of it."""
    if not x.is_cuda or type(x) is not Tensor or x.is_neg():
        return False
    return in_plain_eager()


def offer_converter(namespace: Any, dtypes: Iterable[torch.dtype]) -> None:
    """Let Modules and models convert images by a package's operators, of sizes that no other package has.

    Args:
        namespace: the operators of a package that was built for CUDA.
        dtypes: those that it was built for.
    """
    to_last: Callable[[Tensor], Tensor] = namespace.channels_last.default
    to_first: Callable[[Tensor], Tensor] = namespace.channels_first.default

    def convert(x: Tensor, memory_format: torch.memory_format) -> Tensor:
        back = memory_format is torch.contiguous_format
        given = FORMATS[x.dim()] if back else torch.contiguous_format
        if not is_plain_on_gpu(x) or not x.is_contiguous(memory_format=given):
            return x.contiguous(memory_format=memory_format)
        overload = to_first if back else to_last
        if torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = _Converted.apply(overload, x, given)
            return found
        return overload(x)

    for dtype in dtypes:
        converters.setdefault(dtype.itemsize, convert)
