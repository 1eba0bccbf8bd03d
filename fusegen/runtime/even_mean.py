"""A mean whose gradient, one number for all elements, is not written out: it is a small tensor, expanded.

torch's own divides the expanded tensor, and so writes one as large as x, whose elements lie in the order of
the dims. Where x is read besides, autograd then adds two large tensors, which in channels-last lie in two
ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fusegen.runtime.observers import in_plain_eager

__all__ = ["EvenMean"]


class EvenMean:
    """A mean over some dims by a function of torch's.

    Args:
        function: the function.
        dims: the dims, counted from the end.
    """

    def __init__(self, function: Callable[..., Tensor], dims: Sequence[int]) -> None:
        self.function, self.dims = function, tuple(dims)
        self.__name__ = function.__name__  # as the code of a graph calls it

    def __call__(self, x: Tensor, *args: Any, **keywords: Any) -> Tensor:
        """Return the mean; the arguments are those of torch's function."""
        plain = type(x) in (Tensor, Parameter) and in_plain_eager()
        if plain and torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = _Mean.apply(self, x, args, keywords)
            return found
        return self.function(x, *args, **keywords)


class _Mean(torch.autograd.Function):
    """The mean. Its gradient is the cotangent divided by the number of elements, for each of them."""

    @staticmethod
    def forward(ctx: Any, of: EvenMean, x: Tensor, args: Any, keywords: Any) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.dims = x.shape, of.dims
        return of.function(x, *args, **keywords)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        if cotangent is None:
            return None, None, None, None
        sizes = [*ctx.shape]
        for dim in ctx.dims:
            sizes[dim] = 1
        even = (cotangent / math.prod(ctx.shape[dim] for dim in ctx.dims)).reshape(sizes)
        return None, even.expand(ctx.shape), None, None
