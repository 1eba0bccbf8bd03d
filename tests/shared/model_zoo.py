"""Small models as people write them, each with inputs: what fusegen reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ZOO", "Cell", "Decoder", "Diffusion", "Gpt", "Mobile", "Residual", "Unet"]


class RmsNorm(nn.Module):
    """As in Llama: in float32, whatever the dtype of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + torch.randn(width) / 10)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32) if x.dtype is not torch.float64 else x
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Decoder(nn.Module):
    """A block of a Llama: RMS norms, rotary positions, a gated unit, residual sums."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.before, self.after = RmsNorm(width), RmsNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down, self.heads = nn.Linear(2 * width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.before(x)).chunk(3, -1)
        )
        half = width // self.heads // 2
        place, turn = torch.arange(length, device=x.device), torch.arange(half, device=x.device)
        angle = torch.outer(place, 100.0 ** (-turn / half)).to(x.dtype)
        cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
        q, k = q * cos + rotated(q) * sin, k * cos + rotated(k) * sin
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        h = self.after(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class Gpt(nn.Module):
    """A block with dropout, attention spelled out, and GELU by its tanh formula."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop, self.heads = nn.Dropout(0.1), heads

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.before(x)).split(width, 2)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))
        weights = self.drop(functional.softmax(scores, dim=-1))
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.drop(self.out(mixed))
        h = self.up(self.after(x))
        h = (
            0.5
            * h
            * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))))
        )
        return x + self.drop(self.down(h))


class Residual(nn.Module):
    """A block of a ResNet: batch norms, ReLU in place, a sum in place."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        x = self.last(self.second(self.relu(self.norm(self.first(x)))))
        x += kept
        return self.relu(x)


class Mobile(nn.Module):
    """A block of a MobileNetV3: hardswish in place, and a gate of each channel of each sample."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm, self.act = nn.BatchNorm2d(channels), nn.Hardswish(inplace=True)
        self.squeeze, self.excite = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.depth(x)))
        gate = self.excite(functional.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        return x + y * torch.sigmoid(gate)


class Unet(nn.Module):
    """A block of a U-Net: group norms, a scale and a shift of each channel of each sample."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(2, channels), nn.GroupNorm(2, channels)
        self.time = nn.Linear(16, 2 * channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(functional.silu(self.norm(x)))
        scale, shift = self.time(functional.silu(time))[:, :, None, None].chunk(2, 1)
        h = self.last(h) * (1 + scale) + shift
        return (x + self.second(functional.silu(h))) / math.sqrt(2)


class Diffusion(nn.Module):
    """A block of a DiT: norms without parameters, modulated by sample."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 3 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(functional.silu(condition)).chunk(3, -1)
        h = self.norm(x) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
        h = self.down(functional.gelu(self.up(h), approximate="tanh"))
        return x + gate.unsqueeze(1) * h


class Cell(nn.Module):
    """An LSTM's cell: four gates of one product, two results."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.of_x, self.of_h = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.of_x(x) + self.of_h(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


#: Each model with the shapes of its inputs.
ZOO: dict[str, tuple[Any, tuple[tuple[int, ...], ...]]] = {
    "decoder": (Decoder, ((2, 8, 32),)),
    "gpt": (Gpt, ((2, 8, 32),)),
    "residual": (Residual, ((2, 8, 9, 9),)),
    "mobile": (Mobile, ((2, 8, 9, 9),)),
    "unet": (Unet, ((2, 8, 9, 9), (2, 16))),
    "diffusion": (Diffusion, ((2, 5, 32), (2, 32))),
    "cell": (Cell, ((3, 16), (3, 16), (3, 16))),
}
