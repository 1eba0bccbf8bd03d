"""Models on activations of three dims and more, as their users have them today."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv3dLeakyReluSumGelu(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        sum_tensor_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size)
        self.sum_tensor = nn.Parameter(torch.randn(sum_tensor_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv(x), negative_slope=0.2)
        x = x + self.sum_tensor
        return F.gelu(torch.clamp(x, min=-1.0, max=1.0))


class ConvTranspose2dBatchNormTanh(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=(1, 0),
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.bn(self.conv(x))) * 2


class BmmBiasSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, mat2: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
        return torch.softmax((torch.bmm(x, mat2) + bias) * gate, dim=-1)


class Conv1dMishSoftmax(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        scale_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, dilation=2, groups=2)
        self.scale = nn.Parameter(torch.randn(scale_shape or (out_channels, 1)))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return torch.softmax(F.mish(self.conv(x)) * self.scale + residual, dim=2)


#: Original by spec name, with the constructor's arguments and the shapes of a small call's inputs.
SHAPED: dict[str, tuple[type[nn.Module], tuple[object, ...], tuple[tuple[int, ...], ...]]] = {
    "conv3d_leaky_relu_sum_gelu": (
        Conv3dLeakyReluSumGelu,
        (2, 6, 3, (6, 1, 1, 1)),
        ((2, 2, 5, 6, 7),),
    ),
    "conv_transpose2d_batch_norm_tanh": (
        ConvTranspose2dBatchNormTanh,
        (3, 5, 3, 2, 1),
        ((4, 3, 5, 4),),
    ),
    "bmm_bias_softmax": (BmmBiasSoftmax, (), ((3, 5, 4), (3, 4, 7), (7,), (3, 5, 1))),
    "conv1d_mish_softmax": (Conv1dMishSoftmax, (4, 6, 3), ((3, 4, 15), (3, 6, 11))),
}
