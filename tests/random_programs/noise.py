"""How exact a result can be: torch's own functions, each of whose results is moved by about a rounding.

An error is held against the spread of several such runs (Monte Carlo arithmetic: Parker 1997), which has
what any order of the same operations would have: where a sum cancels it is large, elsewhere some ulp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: Results of these are exact, or are elements of what they are given.
_EXACT = frozenset(
    [
        "abs",
        "alias",
        "amax",
        "amin",
        "argmax",
        "argmin",
        "arange",
        "cat",
        "chunk",
        "clamp",
        "clamp_min",
        "clamp_max",
        "clone",
        "constant_pad_nd",
        "copy",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "eq",
        "expand",
        "fill",
        "full",
        "full_like",
        "gather",
        "ge",
        "gt",
        "index",
        "index_put",
        "index_select",
        "le",
        "lt",
        "masked_fill",
        "max",
        "max_pool",
        "min",
        "maximum",
        "minimum",
        "ne",
        "neg",
        "new_empty",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "permute",
        "relu",
        "repeat",
        "reshape",
        "resize",
        "scalar_tensor",
        "scatter",
        "scatter_add",
        "select",
        "select_backward",
        "round",
        "floor",
        "ceil",
        "trunc",
        "frac",
        "sgn",
        "sign",
        "slice",
        "slice_backward",
        "split",
        "squeeze",
        "stack",
        "t",
        "threshold",
        "threshold_backward",
        "transpose",
        "unbind",
        "unsqueeze",
        "value_selecting_reduction_backward",
        "view",
        "where",
        "zeros",
        "zeros_like",
        "zero",
        "_to_copy",
        "_unsafe_view",
        "hardtanh",
        "hardtanh_backward",
        "unsqueeze_",
        "empty_permuted",
        "lift_fresh",
        "logical_and",
        "logical_or",
        "logical_not",
        "bitwise_not",
        "bitwise_and",
        "isnan",
        "isinf",
        "ne_",
        "where_",
    ]
)
#: Results of these have a rounding of the type that is computed in; those of all others also have the
#: error of a function.
_ARITHMETIC = frozenset(
    ["add", "sub", "mul", "div", "sum", "mean", "rsub", "reciprocal", "square", "addcmul"]
)
#: Results of these are 0 only for want of smaller numbers: what they may be then, of the smallest normal one,
#: and at least its last digit. A sigmoid is 1 / (1 + exp(-x)) in torch, whose exponential overflows first.
_POSITIVE = {"exp": 0.0, "_softmax": 0.0, "sigmoid": 0.25}
#: Results of these are rounded though they have few digits: a mean may be a product with 1 / count.
_ROUNDED = frozenset(["div", "mean", "reciprocal"])


class Noise(TorchDispatchMode):
    """Moves the result of each of torch's operations.

    Args:
        rounding: how far at most, relative to it.
        function: how far where the operation is a function, not arithmetic.
        generator: where the random numbers come from.
        exact: whether sums and products that have few digits stay as they are: of few digits they are exact.
    """

    def __init__(
        self, rounding: float, function: float, generator: torch.Generator, *, exact: bool
    ) -> None:
        super().__init__()
        self.rounding, self.function = rounding, function
        self.generator, self.exact = generator, exact

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if name == "_efficientzerotensor":  # nothing that is moved can be multiplied with one
            return torch.zeros(args[0], dtype=kwargs["dtype"])
        if func.is_view or name.endswith("_") or name in _EXACT:
            return func(*args, **(kwargs or {}))
        size = self.rounding
        if name == "_log_softmax_backward_data":
            return self._log_softmax_backward(*args[:3])
        if name not in _ARITHMETIC:
            size = self.function
        if (name not in _ARITHMETIC or name in ("sum", "mean")) and not self.exact:
            # Within a function there may be what cancels, and so may the terms of a sum.
            args = tree_map(lambda t: self.moved(t, self.rounding), args)
        found = func(*args, **(kwargs or {}))
        if name in ("mul", "div"):
            found = self._underflow(args[0], args[1], found)
        if name in _POSITIVE:
            found = self._above_zero(args[0], found, _POSITIVE[name])
        if name == "log_sigmoid_forward" and torch.rand((), generator=self.generator) < 0.5:
            lost = (found[0] == 0) & torch.isfinite(args[0])  # for want of smaller numbers below 0
            least = -torch.finfo(found[0].dtype).smallest_normal
            found = (found[0].masked_fill(lost, least), *found[1:])
        if name == "_log_softmax":
            found = self._log_of_sum(found)
        exact = self.exact and name in _ARITHMETIC - _ROUNDED
        return tree_map(lambda t: self.moved(t, size, exact=exact), found)

    def _underflow(self, a: Any, b: Any, found: Tensor) -> Tensor:
        """Return a product or quotient, in which what is too small for its type is not always 0."""
        if not isinstance(a, Tensor) or not found.is_floating_point() or not found.numel():
            return found
        lost = (found == 0) & (a != 0) & (b != 0) & torch.isfinite(torch.as_tensor(b))
        drawn = torch.rand(found.shape, generator=self.generator, dtype=torch.float64) * 4 - 2
        least = torch.finfo(found.dtype).smallest_normal * torch.finfo(found.dtype).eps
        return torch.where(lost, (drawn.round() * least).to(found.dtype), found)

    def _above_zero(self, argument: Tensor, found: Tensor, most: float) -> Tensor:
        """Return what is positive, where it is too small for its type not always 0."""
        lost, info = (found == 0) & torch.isfinite(argument), torch.finfo(found.dtype)
        drawn = torch.rand(found.shape, generator=self.generator, dtype=torch.float64)
        small = drawn * max(most, info.eps) * info.smallest_normal
        return torch.where(lost, small.to(found.dtype), found)

    def _log_of_sum(self, found: Tensor) -> Tensor:
        """Return a log softmax, its log(1 + s) moved: where one element leads, 1 + s has few digits of s."""
        drawn = torch.rand(found.shape, generator=self.generator, dtype=torch.float64) * 2 - 1
        return torch.where(found == 0, found, found + (drawn * self.rounding).to(found.dtype))

    def _log_softmax_backward(self, cotangent: Tensor, value: Tensor, dim: int) -> Tensor:
        """Return the gradient, the probabilities moved: one near 1 cancels with the cotangent."""
        likely = self.moved(torch.exp(value), self.function)
        total = self.moved(cotangent.sum(dim, keepdim=True), self.rounding)
        found: Tensor = self.moved(cotangent - likely * total, self.rounding, exact=self.exact)
        return found

    def moved(self, tensor: Any, size: float, *, exact: bool = False) -> Any:
        """Return a tensor, its elements moved by so much of themselves at most; all else as it is."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
            return tensor
        drawn = torch.rand(tensor.shape, generator=self.generator, dtype=torch.float64)
        moved = tensor * (1 + (drawn * 2 - 1) * size).to(tensor.dtype)
        if exact:
            few = tensor.to(torch.bfloat16).to(tensor.dtype) == tensor
            moved = torch.where(few, tensor, moved)
        info = torch.finfo(tensor.dtype)
        small = (tensor != 0) & (tensor.abs() < info.tiny)  # its last digit is worth more
        moved = torch.where(
            small,
            moved + ((drawn * 2 - 1) * 2).round().to(tensor.dtype) * (info.tiny * info.eps),
            moved,
        )
        if tensor.dtype == torch.float32:  # below the smallest normal number a result may be 0
            lost = (tensor.abs() < info.tiny) & (drawn < 0.5)
            moved = torch.where(lost, 0.0, moved)
        return torch.where(torch.isfinite(tensor), moved, tensor)


class Range(TorchDispatchMode):
    """Sees whether an operation of torch makes an infinity of finite numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if _is_floating(t)]
        if all(bool(torch.isfinite(t).all()) for t in tensors):
            self.left |= any(bool(t.isinf().any()) for t in tree_leaves(found) if _is_floating(t))
        return found


def leaves_range(function: Callable[[], Any]) -> bool:
    """Whether a value between is infinite where what it is computed from is not."""
    with Range() as seen, torch.no_grad():
        function()
    return seen.left


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@dataclass(frozen=True)
class Precision:
    """What a dtype is computed in.

    Args:
        compute: the dtype of the runs with noise.
        rounding: how far arithmetic is moved.
        function: how far functions are.
        handed: how far a tensor is moved that is written and read again.
        result: the unit of a result's last rounding.
    """

    compute: torch.dtype
    rounding: float
    function: float
    handed: float
    result: float


PRECISIONS = {
    torch.float64: Precision(torch.float64, 2.0**-51, 2.0**-50, 0.0, 2.0**-52),
    torch.float32: Precision(torch.float32, 2.0**-23, 2.0**-21, 0.0, 2.0**-23),
    torch.bfloat16: Precision(torch.float32, 2.0**-22, 2.0**-12, 2.0**-8, 2.0**-8),
    torch.float16: Precision(torch.float32, 2.0**-22, 2.0**-13, 2.0**-11, 2.0**-11),
}


class _Moved(torch.autograd.Function):
    """A tensor and its cotangent, both moved by at most so much of themselves."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, size: float, generator: torch.Generator) -> Tensor:
        ctx.size, ctx.generator = size, generator
        return _stored(tensor, size, generator)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return _Moved.apply(cotangent, ctx.size, ctx.generator), None, None


def _stored(tensor: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Return a tensor moved, and rounded as it is in memory: of nearly equal numbers some are equal then."""
    drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    moved = tensor * (1 + (drawn * 2 - 1) * size).to(tensor.dtype)
    stored = next(dtype for dtype, p in PRECISIONS.items() if p.handed == size)
    return moved.to(stored).to(tensor.dtype)


def handed(tensor: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Return a tensor as one kernel hands it to the next, and its cotangent back: rounded twice."""
    if not size or not tensor.is_floating_point():
        return tensor
    found: Tensor = _Moved.apply(tensor, size, generator)
    return found
