"""Pooling on a GPU: the largest element or the mean of each window, in kernels that a package has.

torch's own kernels take three to five times as long as memory does, and more if a tensor is channels-last.

Two walks are each other's gradients (windows.cuh): over the elements of each window, and over the windows
that each element is in. Of the largest elements it is remembered which they are, so a second derivative is
exact too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fusegen.runtime.memory_format import MemoryFormat, in_memory_format, is_transformed
from fusegen.runtime.operators import unseen
from fusegen.runtime.submodules import plain

__all__ = ["convolve_and_pool", "offer_windows", "pool_windows"]

#: The operator for each dtype, of a package that has it.
_operators: dict[torch.dtype, Callable[..., tuple[Tensor, Tensor]]] = {}
#: Fewer elements than this are in a cache, and torch's own kernels are as fast.
_FEW = 1 << 18
#: A number below this says which element of a window it is.
_MOST = 256
_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEAN = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: torch.nn.functional.conv1d,
    nn.Conv2d: torch.nn.functional.conv2d,
    nn.Conv3d: torch.nn.functional.conv3d,
    nn.ConvTranspose1d: torch.nn.functional.conv_transpose1d,
    nn.ConvTranspose2d: torch.nn.functional.conv_transpose2d,
    nn.ConvTranspose3d: torch.nn.functional.conv_transpose3d,
}


class _Reading(IntEnum):
    """What is done with windows, as windows.h counts them."""

    LARGEST = 0
    MEAN = 1
    TAKEN = 2
    PUT = 3
    SPREAD = 4


@dataclass(frozen=True)
class _Windows:
    """The windows of a call.

    Args:
        operator: runs the kernels.
        largest: whether the largest elements are wanted, not means.
        channels_last: whether the tensors are channels-last.
        counts_padding: whether a mean is also one of the padding.
        sizes: of the elements' places, the windows' places, a window, its stride, padding and dilation; three
            numbers each, the first ones 1 where there are fewer dims.
    """

    operator: Callable[..., tuple[Tensor, Tensor]]
    largest: bool
    channels_last: bool
    counts_padding: bool
    sizes: tuple[int, ...]

    def run(
        self, x: Tensor, reading: _Reading, bias: Tensor, found: Tensor, finds: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run a kernel; return its result, and which elements it found if `finds`."""
        if self.channels_last:
            memory_format = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
            x = x.contiguous(memory_format=memory_format)
        else:
            x = x.contiguous()
        return self.operator(
            x, bias, found, reading, self.channels_last, finds, self.counts_padding, *self.sizes
        )


class _Largest(torch.autograd.Function):
    """The largest element of each window, plus a bias for each channel if that has elements."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, x: Tensor, bias: Tensor) -> Tensor:
        """Return them."""
        value, found = windows.run(
            x.detach(), _Reading.LARGEST, bias.detach(), bias.new_empty(0), finds=True
        )
        ctx.windows, ctx.biased = windows, bias.numel() > 0
        ctx.save_for_backward(found)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Put the gradients where the elements were."""
        (found,) = ctx.saved_tensors
        grad = _Put.apply(ctx.windows, cotangent, found) if ctx.needs_input_grad[1] else None
        return None, grad, _of_bias(cotangent) if ctx.biased and ctx.needs_input_grad[2] else None


class _Put(torch.autograd.Function):
    """To each element the windows of which it was the largest."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, x: Tensor, found: Tensor) -> Tensor:
        """Return their sums."""
        ctx.windows = windows
        ctx.save_for_backward(found)
        return windows.run(x.detach(), _Reading.PUT, x.new_empty(0), found)[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Take the gradients from there."""
        return None, _Taken.apply(ctx.windows, cotangent, ctx.saved_tensors[0]), None


class _Taken(torch.autograd.Function):
    """Of each window the element that was its largest."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, x: Tensor, found: Tensor) -> Tensor:
        """Return it."""
        ctx.windows = windows
        ctx.save_for_backward(found)
        return windows.run(x.detach(), _Reading.TAKEN, x.new_empty(0), found)[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Put the gradients there."""
        return None, _Put.apply(ctx.windows, cotangent, ctx.saved_tensors[0]), None


class _Mean(torch.autograd.Function):
    """The mean of each window, plus a bias for each channel if that has elements."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, x: Tensor, bias: Tensor) -> Tensor:
        """Return it."""
        ctx.windows, ctx.biased = windows, bias.numel() > 0
        return windows.run(x.detach(), _Reading.MEAN, bias.detach(), bias.new_empty(0))[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Spread the gradients over the elements."""
        grad = _Spread.apply(ctx.windows, cotangent) if ctx.needs_input_grad[1] else None
        return None, grad, _of_bias(cotangent) if ctx.biased and ctx.needs_input_grad[2] else None


class _Spread(torch.autograd.Function):
    """To each element its share of the windows that it is in."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, x: Tensor) -> Tensor:
        """Return their sums."""
        ctx.windows = windows
        return windows.run(x.detach(), _Reading.SPREAD, x.new_empty(0), x.new_empty(0))[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Return the means of the gradients."""
        return None, _Mean.apply(ctx.windows, cotangent, cotangent.new_empty(0))


def offer_windows(namespace: Any, dtypes: Iterable[torch.dtype]) -> None:
    """Let Modules pool by a package's operator, for dtypes that no other package has.

    Args:
        namespace: the operators of a package that was built for CUDA, with kernels of windows.
        dtypes: those that it was built for.
    """
    for dtype in dtypes:
        _operators.setdefault(dtype, namespace.windows.default)


def pool_windows(pooling: nn.Module, x: Tensor) -> Tensor:
    """Return what a submodule that pools returns for `x`, computed by a package's kernels on a GPU.

    Whatever they do not serve, the submodule computes.
    """
    windows = None if torch.compiler.is_compiling() else _windows_of(pooling, x)
    return pooling(x) if windows is None else _run(windows, x, x.new_empty(0))


def convolve_and_pool(
    convolution: nn.Module, pooling: nn.Module, x: Tensor, memory_format: MemoryFormat
) -> Tensor:
    """Return `pooling(convolution(x))`.

    On a GPU the convolution may run in channels-last, and its bias is added to what is pooled. To the largest
    elements this makes no difference, since rounding keeps their order; a mean must not count the padding.

    Args:
        convolution: a submodule.
        pooling: a submodule that pools.
        x: its input.
        memory_format: see `in_memory_format`.
    """
    if torch.compiler.is_compiling():
        return pool_windows(pooling, convolution(x))
    kind = type(convolution)
    function = _CONVOLUTIONS.get(kind)
    if function is None or not _operators or not _is_plain(x) or not plain(convolution, kind):
        return pool_windows(pooling, convolution(x))
    weight: Any = convolution.weight
    bias: Any = convolution.bias
    if convolution.padding_mode != "zeros" or x.dim() != weight.dim():
        return pool_windows(pooling, convolution(x))
    if torch.is_autocast_enabled("cuda"):
        return pool_windows(pooling, convolution(x))
    moved = type(bias) is nn.Parameter and bias.dtype is x.dtype and not _counts_padding(pooling)
    x = in_memory_format(x, weight, convolution.groups, memory_format, "as it is")  # type: ignore[arg-type]
    geometry = {n: getattr(convolution, n) for n in ("stride", "padding", "dilation", "groups")}
    if "Transpose" in kind.__name__:
        geometry["output_padding"] = convolution.output_padding
    x = function(x, weight, None if moved else bias, **geometry)
    windows = _windows_of(pooling, x)
    if windows is not None:
        return _run(windows, x, bias if moved else x.new_empty(0))
    pools: Callable[[Tensor], Tensor] = pooling
    return pools(x + bias.view(-1, *[1] * (x.dim() - 2)) if moved else x)


def _counts_padding(pooling: nn.Module) -> bool:
    """Whether a mean may be of padding too."""
    return bool(getattr(pooling, "count_include_pad", False) and pooling.padding)


def _run(windows: _Windows, x: Tensor, bias: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (x.requires_grad or bias.requires_grad):
        value: Tensor = (_Largest if windows.largest else _Mean).apply(windows, x, bias)
        return value
    reading = _Reading.LARGEST if windows.largest else _Reading.MEAN
    return windows.run(x.detach(), reading, bias.detach(), bias.new_empty(0))[0]


def _is_plain(x: Tensor) -> bool:
    """Whether nothing but plain eager sees the calls."""
    if not x.is_cuda or type(x) is not Tensor or x.is_neg():
        return False
    return unseen() and not is_transformed() and forward_ad._current_level < 0


def _windows_of(pooling: Any, x: Tensor) -> _Windows | None:
    """Return the windows of a call, or None where torch must compute it."""
    kind, places = type(pooling), x.shape[2:]
    if kind not in _MAX + _MEAN or not _is_plain(x) or not plain(pooling, kind):
        return None
    operator = _operators.get(x.dtype)
    n = 1 + (_MAX if kind in _MAX else _MEAN).index(kind)
    if operator is None or len(places) != n or x.numel() < _FEW:
        return None
    largest = kind in _MAX
    if largest and pooling.return_indices:
        return None
    if getattr(pooling, "divisor_override", None) is not None:
        return None
    size, stride, padding = (
        _each(value, n) for value in (pooling.kernel_size, pooling.stride, pooling.padding)
    )
    dilation = _each(pooling.dilation if largest else 1, n)
    out = tuple(
        _out(*sizes, pooling.ceil_mode)
        for sizes in zip(places, size, stride, padding, dilation, strict=True)
    )
    taps = 1
    for k in size:
        taps *= k
    if min(out) < 1 or taps > _MOST or any(2 * p > k for p, k in zip(padding, size, strict=True)):
        return None  # torch says what is wrong
    first = (1,) * (3 - n)
    sizes = first + tuple(places) + first + out + first + size + first + stride
    sizes += (0,) * (3 - n) + padding + first + dilation
    channels_last = n > 1 and not x.is_contiguous() and x.stride(1) == 1
    counts = bool(getattr(pooling, "count_include_pad", False))
    return _Windows(operator, largest, channels_last, counts, sizes)


def _each(value: Any, n: int) -> tuple[int, ...]:
    """Return a number for each of n dims."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * n


def _out(places: int, size: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """Return how many windows there are. (torch's `pooling_output_shape`, aten/src/ATen/native/Pool.h)"""
    span = places + 2 * padding - dilation * (size - 1) - 1
    count = (span + (stride - 1 if ceil else 0)) // stride + 1
    return count - (ceil and (count - 1) * stride >= places + padding)


def _of_bias(cotangent: Tensor) -> Tensor:
    """Return the gradient of a bias for each channel."""
    return cotangent.sum([0, *range(2, cotangent.dim())])
