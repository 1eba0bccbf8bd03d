"""Models whose steps reduce over different dims, as their users have them today."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvTranspose2dMinSumGeluAdd(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size)
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.min(self.conv(x), dim=1, keepdim=True)[0]
        x = torch.sum(x, dim=2, keepdim=True)
        return F.gelu(x) + self.bias


class Conv3dMinSoftmax(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(torch.min(self.conv(x), dim=2)[0], dim=1)


class Conv3dHardswishGroupNormMean(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, num_groups: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size)
        self.group_norm = nn.GroupNorm(num_groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.group_norm(F.hardswish(self.conv(x))), dim=[2, 3, 4])


class ConvTranspose2dMeanBiasLogsumexpSumMul(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv_transpose = nn.ConvTranspose2d(in_channels, out_channels, kernel_size)
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.mean(self.conv_transpose(x), dim=(2, 3), keepdim=True) + self.bias
        x = torch.logsumexp(x, dim=1, keepdim=True)
        return torch.sum(x, dim=(2, 3)) * 10.0


class LinearGroupNormMinAdd(nn.Module):
    def __init__(
        self, in_features: int, out_features: int, num_groups: int, bias_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.gemm = nn.Linear(in_features, out_features)
        self.group_norm = nn.GroupNorm(num_groups, out_features)
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.min(self.group_norm(self.gemm(x)), dim=1, keepdim=True)[0] + self.bias


class ConvTranspose3dScaleBatchNormSubtract(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, scale_factor: float
    ) -> None:
        super().__init__()
        self.conv_transpose3d = nn.ConvTranspose3d(in_channels, out_channels, kernel_size)
        self.scale_factor = scale_factor
        self.batch_norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.batch_norm(self.conv_transpose3d(x) * self.scale_factor)
        return x - torch.mean(x, dim=(2, 3, 4), keepdim=True)


class Conv2dAmaxBatchNormDropout(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gate_shape: tuple[int, ...],
        dropout_p: float = 0.25,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.gate = nn.Parameter(torch.randn(gate_shape))
        self.early = nn.Dropout(dropout_p)
        self.bn = nn.BatchNorm2d(out_channels)
        self.late = nn.Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(self.conv(x) * self.gate)
        x = torch.amax(early, dim=3, keepdim=True)
        bn = self.bn(x * torch.sigmoid(x))
        return self.late(bn * self.gate) * early - bn


class Conv2dGegluBatchNormMeanPrelu(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * channels, kernel_size)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.conv(x).chunk(2, dim=1)
        result: Tensor = self.act(torch.mean(self.norm(x * F.gelu(gate)), dim=(2, 3)))
        return result


class Conv2dGluChannelSoftmaxAmax(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(F.glu(self.conv(x), dim=3))
        return torch.amax(torch.softmax(x, dim=1), dim=(2, 3))


class Conv2dGroupNormTanhHardswishResidualLogsumexp(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.group_norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv(x)
        x = conv + F.hardswish(torch.tanh(self.group_norm(conv)))
        return torch.logsumexp(x, dim=1, keepdim=True)


class LinearSubtractMeanLogsumexpGeluResidual(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.gemm = nn.Linear(in_features, out_features)
        self.subtract = nn.Parameter(torch.randn(out_features))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.mean(self.gemm(x) - self.subtract, dim=1, keepdim=True)
        return F.gelu(torch.logsumexp(y, dim=1, keepdim=True)) + x


class Conv2dMeanSoftmaxGate(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv(x)
        pooled = torch.mean(conv, dim=(2, 3), keepdim=True)
        return torch.softmax(torch.tanh(pooled), dim=1) * conv + pooled


#: Original by spec name, with the constructor's arguments, the shape of a small call's input, and those of
#: activations after the product.
SEGMENTS: dict[
    str,
    tuple[type[nn.Module], tuple[object, ...], tuple[int, ...], tuple[tuple[int, ...], ...]],
] = {
    "conv_transpose2d_min_sum_gelu_add": (
        ConvTranspose2dMinSumGeluAdd,
        (3, 8, 3, (1, 1, 1)),
        (4, 3, 5, 6),
        ((1, 1, 1, 1), (3, 33, 5, 7), (2, 5, 65, 8)),
    ),
    "conv3d_min_softmax": (
        Conv3dMinSoftmax,
        (2, 5, 3),
        (2, 2, 5, 4, 6),
        ((1, 1, 1, 1, 1), (2, 17, 5, 3, 7), (3, 65, 4, 2, 8)),
    ),
    "conv3d_hardswish_group_norm_mean": (
        Conv3dHardswishGroupNormMean,
        (2, 12, 3, 4),
        (2, 2, 4, 5, 6),
        ((2, 4, 1, 1, 1), (2, 9, 3, 5, 7), (3, 32, 2, 4, 8)),
    ),
    "conv_transpose2d_mean_bias_logsumexp_sum_mul": (
        ConvTranspose2dMeanBiasLogsumexpSumMul,
        (3, 9, 3, (9, 1, 1)),
        (4, 3, 5, 6),
        ((1, 1, 1, 1), (3, 33, 5, 7), (2, 8, 33, 33)),
    ),
    "linear_group_norm_min_add": (
        LinearGroupNormMinAdd,
        (5, 12, 3, (12,)),
        (7, 5),
        ((2, 4), (5, 33), (3, 1024)),
    ),
    "conv_transpose3d_scale_batch_norm_subtract": (
        ConvTranspose3dScaleBatchNormSubtract,
        (2, 5, 3, 1.5),
        (3, 2, 3, 4, 2),
        ((2, 1, 1, 1, 1), (3, 5, 2, 3, 7), (2, 33, 4, 4, 8)),
    ),
    "conv2d_amax_batch_norm_dropout": (
        Conv2dAmaxBatchNormDropout,
        (3, 6, 3, (6, 1, 1)),
        (4, 3, 6, 7),
        ((2, 1, 1, 1), (3, 5, 7, 9), (2, 33, 8, 64)),
    ),
    "conv2d_geglu_batch_norm_mean_prelu": (
        Conv2dGegluBatchNormMeanPrelu,
        (3, 5, 3),
        (4, 3, 5, 6),
        ((2, 2, 1, 1), (3, 10, 5, 7), (2, 66, 8, 16)),
    ),
    "conv2d_glu_channel_softmax_amax": (
        Conv2dGluChannelSoftmaxAmax,
        (3, 6, 3),
        (4, 3, 5, 8),
        ((1, 1, 1, 2), (3, 5, 7, 6), (2, 33, 8, 64)),
    ),
    "conv2d_group_norm_tanh_hardswish_residual_logsumexp": (
        Conv2dGroupNormTanhHardswishResidualLogsumexp,
        (3, 12, 3, 4),
        (4, 3, 5, 6),
        ((2, 4, 1, 1), (3, 9, 5, 7), (2, 32, 8, 16)),
    ),
    "linear_subtract_mean_logsumexp_gelu_residual": (
        LinearSubtractMeanLogsumexpGeluResidual,
        (5, 12),
        (7, 5),
        ((1, 1), (5, 33), (3, 1023)),
    ),
    "conv_transpose2d_min_sum_gelu_bias": (
        ConvTranspose2dMinSumGeluAdd,
        (3, 8, 3, (8, 1, 1)),
        (4, 3, 5, 6),
        ((1, 1, 1, 1), (3, 33, 5, 7), (2, 5, 65, 8)),
    ),
    "conv2d_mean_softmax_gate": (
        Conv2dMeanSoftmaxGate,
        (3, 6, 3),
        (4, 3, 6, 7),
        ((1, 1, 1, 1), (3, 5, 7, 9), (2, 33, 8, 16)),
    ),
}
