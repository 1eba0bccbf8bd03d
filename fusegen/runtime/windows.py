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

from fusegen.runtime.conversion import is_plain_on_gpu
from fusegen.runtime.memory_format import FORMATS, MemoryFormat, in_memory_format
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


#: The reading that computes the gradient of each reading.
_ADJOINT = {
    _Reading.LARGEST: _Reading.PUT,
    _Reading.MEAN: _Reading.SPREAD,
    _Reading.TAKEN: _Reading.PUT,
    _Reading.PUT: _Reading.TAKEN,
    _Reading.SPREAD: _Reading.MEAN,
}


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
        self,
        reading: _Reading,
        x: Tensor,
        bias: Tensor | None = None,
        found: Tensor | None = None,
        *,
        finds: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run a kernel; return its result, and which elements are the largest if `finds`."""
        none = x.new_empty(0)
        memory_format = FORMATS[x.dim()] if self.channels_last else torch.contiguous_format
        return self.operator(
            x.detach().contiguous(memory_format=memory_format),
            none if bias is None else bias.detach(),
            none if found is None else found,
            reading,
            self.channels_last,
            finds,
            self.counts_padding,
            *self.sizes,
        )


class _Read(torch.autograd.Function):
    """A reading of windows, plus a bias for each channel. Its gradient is another reading."""

    @staticmethod
    def forward(
        ctx: Any,
        reading: _Reading,
        windows: _Windows,
        x: Tensor,
        bias: Tensor | None,
        found: Tensor | None,
    ) -> Tensor:
        """Return its result."""
        ctx.set_materialize_grads(False)
        largest = reading is _Reading.LARGEST
        value, which = windows.run(reading, x, bias, found, finds=largest)
        ctx.reading, ctx.windows = reading, windows
        ctx.save_for_backward(which if largest else found)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        """Return the gradients of x and of the bias."""
        x = bias = None
        if cotangent is None:
            return None, None, None, None, None
        if ctx.needs_input_grad[2]:
            x = _Read.apply(_ADJOINT[ctx.reading], ctx.windows, cotangent, None, *ctx.saved_tensors)
        if ctx.needs_input_grad[3]:
            bias = cotangent.sum([0, *range(2, cotangent.dim())])
        return None, None, x, bias, None


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
    if windows is not None:
        return _run(windows, x, None)
    if x.dim() == 2 and not x.shape[0]:  # torch's functions take no matrix without rows
        empty: Tensor = pooling(x.unsqueeze(1))
        return empty.squeeze(1)
    value: Tensor = pooling(x)
    return value


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
    own: Any = convolution
    if torch.compiler.is_compiling() or not _may_split(own, x):
        return pool_windows(pooling, own(x))
    moved = type(own.bias) is nn.Parameter and own.bias.dtype is x.dtype
    bias = own.bias if moved and not _counts_padding(pooling) else None
    x = in_memory_format(x, own.weight, own.groups, memory_format, "as it is")
    geometry = {n: getattr(own, n) for n in ("stride", "padding", "dilation", "groups")}
    if own.transposed:
        geometry["output_padding"] = own.output_padding
    x = _CONVOLUTIONS[type(own)](x, own.weight, own.bias if bias is None else None, **geometry)
    windows = _windows_of(pooling, x)
    if windows is not None:
        return _run(windows, x, bias)
    pools: Callable[[Tensor], Tensor] = pooling
    return pools(x if bias is None else x + bias.view(-1, *[1] * (x.dim() - 2)))


def _may_split(convolution: Any, x: Tensor) -> bool:
    """Whether a convolution may run by itself, without its bias."""
    kind = type(convolution)
    if kind not in _CONVOLUTIONS or not _operators or not is_plain_on_gpu(x):
        return False
    if not plain(convolution, kind) or convolution.padding_mode != "zeros":
        return False
    return x.dim() == convolution.weight.dim() and not torch.is_autocast_enabled("cuda")


def _counts_padding(pooling: nn.Module) -> bool:
    """Whether a mean may be of padding too."""
    return bool(getattr(pooling, "count_include_pad", False) and pooling.padding)


def _run(windows: _Windows, x: Tensor, bias: Tensor | None) -> Tensor:
    reading = _Reading.LARGEST if windows.largest else _Reading.MEAN
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        value: Tensor = _Read.apply(reading, windows, x, bias, None)
        return value
    return windows.run(reading, x, bias)[0]


def _windows_of(pooling: Any, x: Tensor) -> _Windows | None:
    """Return the windows of a call, or None where torch must compute it."""
    kind, places = type(pooling), x.shape[2:]
    if kind not in _MAX + _MEAN or not is_plain_on_gpu(x) or not plain(pooling, kind):
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
