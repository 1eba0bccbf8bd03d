"""The models that the reference specs replace, as their users have them today."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MatmulAddSwishTanhGeluHardtanh(nn.Module):
    def __init__(
        self, in_features: int, out_features: int, add_value_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.matmul = nn.Linear(in_features, out_features)
        self.add_value = nn.Parameter(torch.randn(add_value_shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.matmul(x)
        x = x + self.add_value
        x = torch.sigmoid(x) * x
        x = torch.tanh(x)
        x = F.gelu(x)
        return F.hardtanh(x, min_val=-1, max_val=1)


class MatmulSwishScale(nn.Module):
    def __init__(self, in_features: int, out_features: int, scaling_factor: float = 2.0) -> None:
        super().__init__()
        self.matmul = nn.Linear(in_features, out_features)
        self.scaling_factor = scaling_factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.matmul(x)
        x = x * torch.sigmoid(x)
        return x * self.scaling_factor


class MatmulGeluSoftmax(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(F.gelu(self.linear(x)), dim=1)


class MatmulDropoutSoftmax(nn.Module):
    def __init__(self, in_features: int, out_features: int, dropout_p: float = 0.2) -> None:
        super().__init__()
        self.matmul = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.dropout(self.matmul(x)), dim=1)


class GemmBatchnormScaleSoftmax(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        scale_shape: tuple[int, ...] = (1,),
    ) -> None:
        super().__init__()
        self.gemm = nn.Linear(in_features, out_features)
        self.bn = nn.BatchNorm1d(out_features, eps=bn_eps, momentum=bn_momentum)
        self.scale = nn.Parameter(torch.ones(scale_shape))
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.scale * self.bn(self.gemm(x)))


#: Original by spec name, with the constructor arguments of a small model.
ORIGINALS: dict[str, tuple[type[nn.Module], tuple[object, ...]]] = {
    "matmul_add_swish_tanh_gelu_hardtanh": (MatmulAddSwishTanhGeluHardtanh, (24, 37, (37,))),
    "matmul_swish_scale": (MatmulSwishScale, (24, 37, 1.5)),
    "matmul_gelu_softmax": (MatmulGeluSoftmax, (24, 37)),
    "matmul_dropout_softmax": (MatmulDropoutSoftmax, (24, 37, 0.3)),
    "gemm_batchnorm_scale_softmax": (GemmBatchnormScaleSoftmax, (24, 37)),
}
