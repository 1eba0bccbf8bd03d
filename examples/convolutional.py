"""Blocks after ResNet, MobileNetV3, EfficientNet and ConvNeXt: convolutions, norms, gates of channels.

    python examples/convolutional.py [NAME …]

On a GPU: `--device cuda`, and sizes worth it, such as 64 images of 224 x 224.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


def conv(channels: int, out: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size of an image; a batch norm after it has the bias."""
    return nn.Conv2d(channels, out, size, padding=size // 2, groups=groups, bias=False)


class ResNetBlock(nn.Module):
    """Three convolutions; where the number of channels changes, the shortcut has a fourth."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        inner = out // 4
        self.conv1, self.norm1 = conv(channels, inner), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = conv(inner, inner, 3), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = conv(inner, out), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if channels != out:
            self.shortcut = nn.Sequential(conv(channels, out), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of an image."""
        h = self.relu(self.norm1(self.conv1(x)))
        h = self.relu(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(h))
        h += self.shortcut(x)
        return self.relu(h)


class Excite(nn.Module):
    """Squeeze and excite: the mean of each channel decides how much of the channel is let through."""

    def __init__(self, channels: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.reduce, self.act = nn.Conv2d(channels, channels // 4, 1), act()
        self.expand, self.gate = nn.Conv2d(channels // 4, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated image."""
        mean = functional.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.act(self.reduce(mean))))


class MobileBlock(nn.Module):
    """Widens, convolves each channel by itself, gates and narrows: the block of MobileNetV3 and EfficientNet.

    Args:
        channels: the channels that come and go.
        act: the activation: hardswish in MobileNetV3, silu in EfficientNet.
        excite: gates the channels.
        drop: how often the block is left out for a sample in training (stochastic depth).
    """

    def __init__(
        self, channels: int, act: type[nn.Module], excite: nn.Module, drop: float = 0.0
    ) -> None:
        super().__init__()
        inner = 4 * channels
        self.widen, self.norm1 = conv(channels, inner), nn.BatchNorm2d(inner)
        self.depthwise, self.norm2 = conv(inner, inner, 5, groups=inner), nn.BatchNorm2d(inner)
        self.narrow, self.norm3 = conv(inner, channels), nn.BatchNorm2d(channels)
        self.act, self.excite, self.drop = act(inplace=True), excite, drop

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of an image."""
        h = self.act(self.norm1(self.widen(x)))
        h = self.excite(self.act(self.norm2(self.depthwise(h))))
        h = self.norm3(self.narrow(h))
        if self.training and self.drop:
            kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - self.drop)
            h = h * (kept / (1 - self.drop))
        return x + h


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and two layers, with the norm of responses of V2 and the layer scale of V1."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.weight = nn.Parameter(torch.zeros(4 * channels))
        self.bias = nn.Parameter(torch.zeros(4 * channels))
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def response_norm(self, x: Tensor) -> Tensor:
        """Return x [batch, height, width, channels] with each channel scaled by its share of the response."""
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        share = size / (size.mean(dim=-1, keepdim=True) + 1e-6)
        return self.weight * (x * share) + self.bias + x

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of an image."""
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.down(self.response_norm(functional.gelu(self.up(h))))
        return x + (self.scale * h).permute(0, 3, 1, 2)


def stem(channels: int, act: type[nn.Module]) -> nn.Module:
    """Return what comes before the blocks: of an image of three colours."""
    return nn.Sequential(conv(3, channels, 3), nn.BatchNorm2d(channels), act(inplace=True))


def resnet() -> nn.Module:
    """Return a block that changes the number of channels, and one that does not."""
    return nn.Sequential(stem(16, nn.ReLU), ResNetBlock(16, 64), ResNetBlock(64, 64))


def mobilenet() -> nn.Module:
    """Return two blocks, the second with a gate."""
    act, gate = nn.Hardswish, Excite(64, nn.ReLU, nn.Hardsigmoid)
    blocks = [MobileBlock(16, act, nn.Identity()), MobileBlock(16, act, gate)]
    return nn.Sequential(stem(16, act), *blocks)


def efficientnet() -> nn.Module:
    """Return two blocks with gates, which are left out now and then."""
    blocks = (MobileBlock(16, nn.SiLU, Excite(64, nn.SiLU, nn.Sigmoid), 0.2) for _ in range(2))
    return nn.Sequential(stem(16, nn.SiLU), *blocks)


def convnext() -> nn.Module:
    """Return two blocks."""
    return nn.Sequential(ConvNeXtBlock(), ConvNeXtBlock())


EXAMPLES = {
    "ResNet": Example(resnet, [(8, 3, 14, 14)], from_sines),
    "MobileNetV3": Example(mobilenet, [(8, 3, 14, 14)], from_sines),
    "EfficientNet": Example(efficientnet, [(8, 3, 14, 14)], from_sines),
    "ConvNeXt": Example(convnext, [(4, 32, 14, 14)], from_sines),
}

if __name__ == "__main__":
    main(EXAMPLES)
