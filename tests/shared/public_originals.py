"""Models such as public benchmarks of kernels have: a product, and a chain after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2dMinTanhTanh(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.min(self.conv(x), dim=1, keepdim=True)[0]
        return torch.tanh(torch.tanh(x))


class ConvTranspose3dLogsumexpHardswishClamp(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        bias_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv_transpose3d = nn.ConvTranspose3d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding
        )
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.logsumexp(self.conv_transpose3d(x), dim=1, keepdim=True)
        x = x * torch.sigmoid(x + 3) / 6
        x = torch.clamp(x - self.bias, min=-1, max=1)
        return torch.max(x, dim=1, keepdim=True)[0]


class LinearScaleClampLogsumexpMish(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        scale_factor: float,
        clamp_min: float,
        clamp_max: float,
    ) -> None:
        super().__init__()
        self.matmul = nn.Linear(in_features, out_features)
        self.scale_factor, self.clamp_min, self.clamp_max = scale_factor, clamp_min, clamp_max

    def forward(self, x: Tensor) -> Tensor:
        x = self.matmul(x) * self.scale_factor
        x = torch.clamp(x + x, self.clamp_min, self.clamp_max)
        x = torch.logsumexp(x, dim=1, keepdim=True)
        return x * F.mish(x)


class LinearSumMaxMeanLogsumexp(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sum(self.linear(x), dim=1, keepdim=True)
        x = torch.max(x, dim=1, keepdim=True)[0]
        x = torch.mean(x, dim=1, keepdim=True)
        x = torch.logsumexp(x, dim=1, keepdim=True)
        return torch.logsumexp(x, dim=1, keepdim=True)


class ConvTranspose2dMishAddHardtanhScale(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        output_padding: int,
        add_value: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.conv_transpose2d = nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size, stride, padding, output_padding
        )
        self.add_value, self.scale = add_value, scale

    def forward(self, x: Tensor) -> Tensor:
        x = F.mish(self.conv_transpose2d(x)) + self.add_value
        return F.hardtanh(x, min_val=-1, max_val=1) * self.scale


class Conv2dReluBias(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) + self.bias


class LinearInstanceNormResidualMultiply(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bmm = nn.Linear(in_features, out_features)
        self.instance_norm = nn.InstanceNorm2d(out_features)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        x = self.instance_norm(self.bmm(x)[:, None, None])[:, 0, 0]
        return (x + residual) * residual


class LinearSigmoidScaleResidual(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, scaling_factor: float) -> None:
        super().__init__()
        self.gemm = nn.Linear(input_size, hidden_size)
        self.scaling_factor = scaling_factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.gemm(x)
        return torch.sigmoid(x) * self.scaling_factor + x


class ConvTranspose3dBiasResidualMultiply(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        output_padding: int,
        bias_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv_transpose3d = nn.ConvTranspose3d(
            in_channels, out_channels, kernel_size, stride, padding, output_padding
        )
        self.bias = nn.Parameter(torch.randn(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_transpose3d(x)
        return (x + self.bias + x) * x + x


class LinearMeanGateInput(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        fc = self.fc(x)
        pooled = torch.mean(fc, dim=1, keepdim=True)
        y = F.layer_norm(torch.sigmoid(pooled) * fc, fc.shape[-1:])
        gated = y * torch.tanh(pooled) + x
        return F.silu(gated) + 0.5 * gated * fc


#: Original by spec name, with the constructor's arguments, the shapes of a call's inputs, and the shape of
#: an activation after the product.
PUBLIC: dict[
    str,
    tuple[type[nn.Module], tuple[object, ...], tuple[tuple[int, ...], ...], tuple[int, ...]],
] = {
    "conv2d_min_tanh_tanh": (Conv2dMinTanhTanh, (3, 16, 3), ((4, 3, 9, 8),), (3, 33, 5, 7)),
    "conv_transpose3d_logsumexp_hardswish_clamp": (
        ConvTranspose3dLogsumexpHardswishClamp,
        (3, 16, 3, 2, 1, (1, 1, 1, 1)),
        ((2, 3, 4, 3, 5),),
        (2, 17, 3, 5, 7),
    ),
    "linear_scale_clamp_logsumexp_mish": (
        LinearScaleClampLogsumexpMish,
        (10, 33, 2.0, -1.5, 1.0),
        ((7, 10),),
        (5, 1023),
    ),
    "linear_sum_max_mean_logsumexp": (
        LinearSumMaxMeanLogsumexp,
        (10, 33),
        ((7, 10),),
        (5, 1023),
    ),
    "conv_transpose2d_mish_add_hardtanh_scale": (
        ConvTranspose2dMishAddHardtanhScale,
        (3, 8, 4, 2, 1, 1, 0.5, 2.0),
        ((2, 3, 5, 6),),
        (3, 5, 7, 9),
    ),
    "conv2d_relu_bias": (Conv2dReluBias, (3, 8, 3, (8, 1, 1)), ((2, 3, 6, 7),), (3, 5, 7, 9)),
    "linear_instance_norm_residual_multiply": (
        LinearInstanceNormResidualMultiply,
        (10, 33),
        ((7, 10), (7, 33)),
        (5, 1023),
    ),
    "linear_sigmoid_scale_residual": (
        LinearSigmoidScaleResidual,
        (10, 33, 2.0),
        ((7, 10),),
        (5, 1023),
    ),
    "conv_transpose3d_bias_residual_multiply": (
        ConvTranspose3dBiasResidualMultiply,
        (3, 8, 3, 2, 1, 1, (8, 1, 1, 1)),
        ((2, 3, 4, 3, 5),),
        (2, 17, 3, 5, 7),
    ),
    "linear_mean_gate_input": (LinearMeanGateInput, (33,), ((7, 33),), (5, 1023)),
}
