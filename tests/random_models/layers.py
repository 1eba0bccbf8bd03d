"""What random models are made of: layers that keep their input's shape, each with something to fuse."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Function = Callable[[Tensor], Tensor]
ACTIVATIONS: list[Function] = [
    *(functional.gelu, functional.silu, functional.relu, functional.mish, functional.softplus),
    *(torch.tanh, torch.sigmoid, functional.hardswish, functional.elu, functional.leaky_relu),
    *(functional.softsign, functional.selu, functional.relu6, functional.logsigmoid),
    *(lambda t: functional.gelu(t, approximate="tanh"), lambda t: t * torch.sigmoid(1.702 * t)),
    *(lambda t: t.relu().square(), lambda t: t * torch.tanh(functional.softplus(t))),
    *(lambda t: torch.where(t > 0, t, 0.1 * t), lambda t: (t * t + 1).sqrt() - 1, torch.erf),
    *(lambda t: t.clamp(-1, 2), lambda t: torch.exp(-t.abs()), lambda t: t / (1 + t.abs())),
]


class Activation(nn.Module):
    """A function of each element."""

    def __init__(self, draw: random.Random, _: int) -> None:
        super().__init__()
        self.function = draw.choice(ACTIVATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Product(nn.Module):
    """A linear layer or a convolution, and what follows it."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size, bias=draw.random() < 0.7)
        self.function = draw.choice(ACTIVATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


class Gated(nn.Module):
    """A gate of one projection's halves, or of two projections."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.halves, self.first = draw.random() < 0.5, draw.random() < 0.5
        self.up = nn.Linear(size, 2 * size if self.halves else size)
        self.gate = nn.Linear(size, size)
        self.function = draw.choice(ACTIVATIONS[:8])

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.up(x).chunk(2, -1) if self.halves else (self.up(x), self.gate(x))
        return self.function(one) * other if self.first else one * self.function(other)


class Scaled(nn.Module):
    """A scale and a shift for each feature, and a number."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(size))
        self.shift = nn.Parameter(torch.randn(size))
        self.number = draw.choice([0.5, 2.0, -1.0, 0.1])
        self.plus_one = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        scale = 1 + self.scale if self.plus_one else self.scale
        return (x * scale + self.shift) * self.number


class WrittenNorm(nn.Module):
    """A norm as models spell it out."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)
        self.centred, self.eps = draw.random() < 0.4, draw.choice([1e-6, 1e-5])

    def forward(self, x: Tensor) -> Tensor:
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class RowGate(nn.Module):
    """What a row is worth, times the row."""

    def __init__(self, draw: random.Random, _: int) -> None:
        super().__init__()
        self.kind = draw.randrange(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == 0:
            return x * torch.sigmoid(x.mean(-1, keepdim=True))
        if self.kind == 1:
            return x * x.softmax(-1)
        if self.kind == 2:
            return x - torch.logsumexp(x, -1, keepdim=True)
        return x / (x.abs().amax(-1, keepdim=True) + 1)


class Heads(nn.Module):
    """A norm of each head, through a view."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.heads = draw.choice([n for n in (1, 2, 3, 4) if size % n == 0])
        self.norm = draw.choice([nn.LayerNorm, nn.RMSNorm])(size // self.heads)
        self.function = draw.choice(ACTIVATIONS)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(-1, (self.heads, -1))
        return self.function(self.norm(parts)).flatten(-2)


class Modulated(nn.Module):
    """A scale and a shift of each sample, computed from its mean."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 2 * size)
        self.norm = nn.LayerNorm(size, elementwise_affine=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.linear(functional.silu(x.mean(-2, keepdim=True))).chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class Convolution(nn.Module):
    """A convolution, and what follows it."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        width = draw.choice([1, 3])
        groups = draw.choice([1, 1, size])
        self.conv = nn.Conv2d(size, size, width, padding=width // 2, groups=groups)
        self.function = draw.choice(ACTIVATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


class ChannelNorm(nn.Module):
    """One of the norms of images."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        groups = draw.choice([n for n in (1, 2, 4) if size % n == 0])
        self.norm = draw.choice(
            [
                lambda: nn.BatchNorm2d(size),
                lambda: nn.GroupNorm(groups, size),
                lambda: nn.InstanceNorm2d(size, affine=True),
            ]
        )()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ChannelGate(nn.Module):
    """Squeeze and excitation, a softmax over channels, or a gated half of them."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.kind = draw.randrange(3)
        self.conv = nn.Conv2d(size, 2 * size if self.kind == 2 else size, 1)
        self.function = draw.choice(ACTIVATIONS[:8])

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == 0:
            return x * torch.sigmoid(self.conv(self.function(x.mean((-2, -1), keepdim=True))))
        if self.kind == 1:
            return self.conv(x).softmax(1) * x
        return functional.glu(self.conv(x), 1)


class ChannelScaled(nn.Module):
    """A scale and a shift for each channel, and of all."""

    def __init__(self, draw: random.Random, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(size, 1, 1))
        self.shift = nn.Parameter(torch.randn(1, size, 1, 1))
        self.last = draw.random() < 0.3
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else x


#: The layers of rows of features, and those of images.
ROWS = [Activation, Product, Product, Gated, Scaled, WrittenNorm, RowGate, Heads, Modulated]
IMAGES = [
    Activation,
    Convolution,
    Convolution,
    ChannelNorm,
    ChannelNorm,
    ChannelGate,
    ChannelScaled,
]
