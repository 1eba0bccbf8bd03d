"""Models on activations of three dims and more, as their users have them today."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.chain import Chain


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


class Conv2dChannelSoftmaxSigmoid(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias_shape: tuple[int, ...],
        scaling_factor: float,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=1)
        self.bias = nn.Parameter(torch.randn(bias_shape))
        self.scale = nn.Parameter(torch.ones(1))
        self.scaling_factor = scaling_factor

    def forward(self, x: Tensor) -> Tensor:
        x = torch.softmax(self.conv(x), dim=1)
        x = (x + self.bias) * self.scaling_factor
        return torch.sigmoid(x * self.scale)


class Conv2dLayerNormHardswish(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        norm_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=1)
        self.weight = nn.Parameter(torch.ones(norm_shape))
        self.bias = nn.Parameter(torch.zeros(norm_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1)
        x = F.layer_norm(x, x.shape[-1:], self.weight.flatten(), self.bias.flatten(), 1e-6)
        return F.hardswish(x.permute(0, 3, 1, 2))


class ConvTranspose2dRmsNormResidual(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        norm_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size)
        self.weight = nn.Parameter(torch.ones(norm_shape))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        x = self.conv(x)
        return F.rms_norm(x, x.shape[1:], self.weight, 1e-6) + residual


class ConvTranspose3dLogSoftmaxDropout(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dropout_p: float = 0.25
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(in_channels, out_channels, kernel_size)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x = torch.log_softmax(self.conv(x), dim=-4) * gate
        return self.dropout(x - x.amax(1, keepdim=True))


class ConvTranspose1dInstanceNormResidual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size)
        self.norm = nn.InstanceNorm1d(out_channels, affine=True)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return (self.norm(self.conv(x)) + residual) * residual


class Conv2dGroupNormLeakyReluDouble(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, num_groups: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.norm = nn.GroupNorm(num_groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm(self.conv(x)), negative_slope=0.1)
        return x + x


class LinearGroupNormSwishMul(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_groups: int,
        multiply_weight_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.gemm = nn.Linear(in_features, out_features)
        self.group_norm = nn.GroupNorm(num_groups, out_features, eps=1e-3)
        self.multiply_weight = nn.Parameter(torch.randn(multiply_weight_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.group_norm(self.gemm(x)))
        return F.silu(x * self.multiply_weight)


class Conv2dScaleNormalize(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        scale_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.scale = nn.Parameter(torch.randn(scale_shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.conv(x) * self.scale, dim=(1, 2))


class LinearSwigluScale(nn.Module):
    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, 2 * hidden_features)
        self.scale = nn.Parameter(torch.ones(hidden_features))

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.fc(x).chunk(2, dim=-1)
        return x * F.silu(gate) * self.scale


class Conv2dGluChannelSoftmax(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(F.glu(self.conv(x), dim=1), dim=1)


class Conv2dRegluScale(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        scale_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.scale = nn.Parameter(torch.randn(scale_shape))

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.conv(x).chunk(2, dim=1)
        return x * F.relu(gate) * self.scale


class Conv1dGegluBatchNorm(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, 2 * channels, kernel_size)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.conv(x).chunk(2, dim=1)
        result: Tensor = self.norm(x * F.gelu(gate, approximate="tanh"))
        return result


class Conv2dGluGroupNorm(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel_size: int, num_groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * channels, kernel_size)
        self.norm = nn.GroupNorm(num_groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(F.glu(self.conv(x), dim=1))
        return result


class Conv2dPreluTanh(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.act = nn.PReLU(out_channels)
        self.act2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act2(torch.tanh(self.act(self.conv(x))))
        return result


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
    "conv2d_channel_softmax_sigmoid": (
        Conv2dChannelSoftmaxSigmoid,
        (3, 6, 3, (6, 1, 1), 1.5),
        ((2, 3, 5, 7),),
    ),
    "conv2d_layer_norm_hardswish": (
        Conv2dLayerNormHardswish,
        (3, 6, 3, (6, 1, 1)),
        ((2, 3, 5, 7),),
    ),
    "conv_transpose2d_rms_norm_residual": (
        ConvTranspose2dRmsNormResidual,
        (3, 4, 2, (4, 6, 8)),
        ((2, 3, 5, 7), (2, 4, 6, 8)),
    ),
    "conv_transpose3d_log_softmax_dropout": (
        ConvTranspose3dLogSoftmaxDropout,
        (3, 6, 2),
        ((2, 3, 3, 2, 4), (2, 1, 4, 3, 5)),
    ),
    "conv_transpose1d_instance_norm_residual": (
        ConvTranspose1dInstanceNormResidual,
        (4, 6, 3),
        ((3, 4, 9), (3, 6, 11)),
    ),
    "conv2d_group_norm_leaky_relu_double": (
        Conv2dGroupNormLeakyReluDouble,
        (3, 12, 3, 4),
        ((2, 3, 6, 7),),
    ),
    "conv2d_scale_normalize": (Conv2dScaleNormalize, (3, 6, 3, (6, 1, 1)), ((2, 3, 6, 7),)),
    "linear_group_norm_swish_mul": (LinearGroupNormSwishMul, (5, 12, 3, (12,)), ((7, 5),)),
    "linear_swiglu_scale": (LinearSwigluScale, (5, 7), ((3, 4, 5),)),
    "conv2d_glu_channel_softmax": (Conv2dGluChannelSoftmax, (3, 5, 3), ((2, 3, 6, 7),)),
    "conv2d_reglu_scale": (Conv2dRegluScale, (3, 10, 3, (5, 1, 1)), ((2, 3, 6, 7),)),
    "conv1d_geglu_batch_norm": (Conv1dGegluBatchNorm, (3, 5, 3), ((4, 3, 9),)),
    "conv2d_glu_group_norm": (Conv2dGluGroupNorm, (3, 6, 3, 2), ((2, 3, 6, 7),)),
    "conv2d_prelu_tanh": (Conv2dPreluTanh, (3, 5, 3), ((2, 3, 6, 7),)),
    "bmm_bias_softmax": (BmmBiasSoftmax, (), ((3, 5, 4), (3, 4, 7), (7,), (3, 5, 1))),
    "conv1d_mish_softmax": (Conv1dMishSoftmax, (4, 6, 3), ((3, 4, 15), (3, 6, 11))),
}


def doubled(chain: Chain, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with room for two halves, where a chain takes those."""
    place = len(shape) + chain.layout.halved
    return tuple(2 * n if d == place else n for d, n in enumerate(shape))
