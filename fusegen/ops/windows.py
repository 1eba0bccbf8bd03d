"""Functions of windows of elements, and of whole channels. torch computes them, and the steps after them are
fused, as after a product.

Each is a submodule of `Module`.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from fusegen.ops.declare import op
from fusegen.ops.model import Op, Range, Submodule

_INDICES = {"return_indices": "a chain goes on with the values"}
_DIVISOR = {"divisor_override": "write it as a factor: - mul"}

#: What declares a function as an op.
_Declare = Callable[[Callable[..., sp.Expr]], Op]


def _pool(kind: str, n: int, keywords: tuple[str, ...], *, dilated: bool) -> _Declare:
    """Declare a pooling over windows of n dims after the channel."""
    geometry = {"stride": 1, "padding": 0, **({"dilation": 1} if dilated else {})}
    return op(
        f"nn.functional.{kind.lower()}_pool{n}d",
        source=True,
        rank=n + 2,
        matrix=n == 1,
        keeps_channels=True,
        pools=True,
        submodule=Submodule(
            f"nn.{kind}Pool{n}d", sized_by=("kernel_size",), geometry=geometry, keywords=keywords
        ),
        refused=_INDICES if dilated else _DIVISOR,
    )


def _max_pool(n: int) -> _Declare:
    return _pool("Max", n, ("ceil_mode",), dilated=True)


def _avg_pool(n: int) -> _Declare:
    return _pool("Avg", n, ("ceil_mode", "count_include_pad"), dilated=False)


def _adaptive(kind: str, n: int) -> _Declare:
    """Declare a pooling to a given size of the n dims after the channel."""
    return op(
        f"nn.functional.adaptive_{kind.lower()}_pool{n}d",
        source=True,
        rank=n + 2,
        matrix=n == 1,
        keeps_channels=True,
        submodule=Submodule(f"nn.Adaptive{kind}Pool{n}d", sized_by=("output_size",)),
        refused=_INDICES if kind == "Max" else {},
    )


def _of_channels(n: int) -> _Declare:
    """Declare dropout of whole channels with n dims after them."""
    return op(
        f"nn.functional.dropout{n}d",
        source=True,
        rank=n + 2,
        keeps_channels=True,
        submodule=Submodule(f"nn.Dropout{n}d", keywords=("p",)),
        ranges={"p": Range(0.0, 1.0)},
    )


@_max_pool(1)
def max_pool1d(x: sp.Expr, *, ceil_mode: bool = False) -> sp.Expr:
    """The largest element of each window of the last dim. torch.nn.MaxPool1d."""
    return x


@_max_pool(2)
def max_pool2d(x: sp.Expr, *, ceil_mode: bool = False) -> sp.Expr:
    """The largest element of each window of the last two dims. torch.nn.MaxPool2d."""
    return x


@_max_pool(3)
def max_pool3d(x: sp.Expr, *, ceil_mode: bool = False) -> sp.Expr:
    """The largest element of each window of the last three dims. torch.nn.MaxPool3d."""
    return x


@_avg_pool(1)
def avg_pool1d(x: sp.Expr, *, ceil_mode: bool = False, count_include_pad: bool = True) -> sp.Expr:
    """The mean of each window of the last dim. torch.nn.AvgPool1d."""
    return x


@_avg_pool(2)
def avg_pool2d(x: sp.Expr, *, ceil_mode: bool = False, count_include_pad: bool = True) -> sp.Expr:
    """The mean of each window of the last two dims. torch.nn.AvgPool2d."""
    return x


@_avg_pool(3)
def avg_pool3d(x: sp.Expr, *, ceil_mode: bool = False, count_include_pad: bool = True) -> sp.Expr:
    """The mean of each window of the last three dims. torch.nn.AvgPool3d."""
    return x


@_adaptive("Avg", 1)
def adaptive_avg_pool1d(x: sp.Expr) -> sp.Expr:
    """The mean of each of `output_size` windows. torch.nn.AdaptiveAvgPool1d."""
    return x


@_adaptive("Avg", 2)
def adaptive_avg_pool2d(x: sp.Expr) -> sp.Expr:
    """The mean of each of `output_size` windows. torch.nn.AdaptiveAvgPool2d."""
    return x


@_adaptive("Avg", 3)
def adaptive_avg_pool3d(x: sp.Expr) -> sp.Expr:
    """The mean of each of `output_size` windows. torch.nn.AdaptiveAvgPool3d."""
    return x


@_adaptive("Max", 1)
def adaptive_max_pool1d(x: sp.Expr) -> sp.Expr:
    """The largest element of each of `output_size` windows. torch.nn.AdaptiveMaxPool1d."""
    return x


@_adaptive("Max", 2)
def adaptive_max_pool2d(x: sp.Expr) -> sp.Expr:
    """The largest element of each of `output_size` windows. torch.nn.AdaptiveMaxPool2d."""
    return x


@_adaptive("Max", 3)
def adaptive_max_pool3d(x: sp.Expr) -> sp.Expr:
    """The largest element of each of `output_size` windows. torch.nn.AdaptiveMaxPool3d."""
    return x


@_of_channels(1)
def dropout1d(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """x / (1 - p), or 0 for whole channels, each with probability p. torch.nn.Dropout1d."""
    return x


@_of_channels(2)
def dropout2d(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """x / (1 - p), or 0 for whole channels, each with probability p. torch.nn.Dropout2d."""
    return x


@_of_channels(3)
def dropout3d(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """x / (1 - p), or 0 for whole channels, each with probability p. torch.nn.Dropout3d."""
    return x


@op(
    "flatten",
    source=True,
    own=("start_dim",),
    submodule=Submodule("nn.Flatten", keywords=("start_dim", "end_dim")),
)
def flatten(x: sp.Expr, *, start_dim: int = 1, end_dim: int = -1) -> sp.Expr:
    """x with the dims from `start_dim` to `end_dim` as one. torch.nn.Flatten."""
    return x


@op(
    "nn.functional.pixel_shuffle",
    source=True,
    rank=4,
    submodule=Submodule("nn.PixelShuffle", sized_by=("upscale_factor",)),
)
def pixel_shuffle(x: sp.Expr) -> sp.Expr:
    """x of [N, C r^2, H, W] as [N, C, H r, W r], where r is `upscale_factor`. torch.nn.PixelShuffle."""
    return x
