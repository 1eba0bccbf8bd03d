"""Products, which torch computes. A chain starts from one; the kernel of the steps after it adds the bias."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from fusegen.ops.declare import op
from fusegen.ops.model import Op, Submodule
from fusegen.program import Kind


@op(
    "nn.functional.linear",
    source=True,
    kinds={"bias": Kind.CHANNEL},
    submodule=Submodule(
        "nn.Linear", sized_by=("in_features", "out_features"), operands=("bias",), flag="bias"
    ),
)
def linear(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x W^T + bias. torch computes x W^T, the kernel adds the bias. torch.nn.Linear."""
    return x + bias


@op("bmm", source=True, rank=3, inputs=("mat2",))
def bmm(x: sp.Expr) -> sp.Expr:
    """x mat2, a product for each matrix of the batch. torch.bmm."""
    return x


@op("matmul", source=True, inputs=("other",))
def matmul(x: sp.Expr) -> sp.Expr:
    """x other, a product of matrices. torch.matmul."""
    return x


_GEOMETRY = {
    "padding_mode": "it is zeros; pad x before the Module",
    "output_size": "give output_padding",
}


def _convolution(n: int, transposed: bool = False) -> Callable[[Callable[..., sp.Expr]], Op]:
    """Declare a convolution over n dims after the channel."""
    geometry = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return op(
        f"nn.functional.conv_transpose{n}d" if transposed else f"nn.functional.conv{n}d",
        source=True,
        rank=n + 2,
        kinds={"bias": Kind.CHANNEL},
        submodule=Submodule(
            f"nn.ConvTranspose{n}d" if transposed else f"nn.Conv{n}d",
            sized_by=("in_channels", "out_channels", "kernel_size"),
            geometry={**geometry, "output_padding": 0} if transposed else geometry,
            operands=("bias",),
            flag="bias",
            fixed={"padding_mode": "zeros"},
        ),
        refused=_GEOMETRY,
    )


@_convolution(1)
def conv1d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x * W + bias over the last dim; torch computes x * W. torch.nn.Conv1d."""
    return x + bias


@_convolution(2)
def conv2d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x * W + bias over the last two dims; torch computes x * W. torch.nn.Conv2d."""
    return x + bias


@_convolution(3)
def conv3d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x * W + bias over the last three dims; torch computes x * W. torch.nn.Conv3d."""
    return x + bias


@_convolution(1, transposed=True)
def conv_transpose1d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x *^T W + bias over the last dim; torch computes x *^T W. torch.nn.ConvTranspose1d."""
    return x + bias


@_convolution(2, transposed=True)
def conv_transpose2d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x *^T W + bias over the last two dims; torch computes x *^T W. torch.nn.ConvTranspose2d."""
    return x + bias


@_convolution(3, transposed=True)
def conv_transpose3d(x: sp.Expr, bias: sp.Expr = 0) -> sp.Expr:
    """x *^T W + bias over the last three dims; torch computes x *^T W. torch.nn.ConvTranspose3d."""
    return x + bias
