"""A small U-Net as diffusion models have it: group norms, swish, and the time in each block.

    python examples/unet.py

On a GPU: `--device cuda`, and sizes worth it, such as 128 channels and 16 images of 64 x 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


def swish(x: Tensor) -> Tensor:
    """Return x times its sigmoid."""
    return x * torch.sigmoid(x)


class Block(nn.Module):
    """Two convolutions, each after a norm and swish; the time scales and shifts each channel."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.time = nn.Linear(time, 2 * out)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the block of an image, given the time [batch, channels]."""
        h = self.conv1(swish(self.norm1(x)))
        scale, shift = self.time(swish(time))[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(swish(h))


class UNet(nn.Module):
    """One level down, one up, and what the first saw beside what came back."""

    def __init__(self, channels: int = 16, time: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, channels, 3, padding=1)
        self.first, self.last = Block(channels, channels, time), Block(2 * channels, channels, time)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.middle = Block(channels, channels, time)
        self.norm, self.leave = nn.GroupNorm(4, channels), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the noise in an image x [batch, 3, height, width]."""
        above = self.first(self.enter(x), time)
        below = self.middle(self.down(above), time)
        x = torch.cat((above, functional.interpolate(below, scale_factor=2.0)), dim=1)
        return self.leave(swish(self.norm(self.last(x, time))))


EXAMPLES = {"U-Net": Example(UNet, [(2, 3, 16, 16), (2, 32)], from_sines)}

if __name__ == "__main__":
    main(EXAMPLES)
