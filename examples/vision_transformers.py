"""Blocks after ViT, DiT and Swin: norms and residual sums, modulation by sample, attention in windows.

    python examples/vision_transformers.py [NAME …]

On a GPU: `--device cuda`, and sizes worth it, such as a width of 1024, 256 patches and bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


class Attention(nn.Module):
    """Attention of all patches to all, by torch's own function."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return attention of x [batch, patches, width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class ViTBlock(nn.Module):
    """Norms before attention and the two layers; each result is scaled by channel, as in DeiT III."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attend = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale1 = nn.Parameter(torch.full((width,), 0.1))
        self.scale2 = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, patches, width]."""
        x = x + self.scale1 * self.attend(self.norm1(x))
        return x + self.scale2 * self.down(functional.gelu(self.up(self.norm2(x))))


class DiTBlock(nn.Module):
    """Norms without weights of their own: a condition shifts, scales and gates each sample."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attend = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the block of x [batch, patches, width], given the condition [batch, width]."""
        given = self.modulation(functional.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = given.chunk(6, dim=-1)
        x = x + gate1 * self.attend(self.norm(x) * (1 + scale1) + shift1)
        h = self.up(self.norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.down(functional.gelu(h, approximate="tanh"))


class DiT(nn.Module):
    """Two blocks, and a last norm that is modulated too."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([DiTBlock(width), DiTBlock(width)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the noise that is seen in x [batch, patches, width]."""
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(functional.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        return self.out(self.norm(x) * (1 + scale) + shift)


class SwinBlock(nn.Module):
    """Attention within windows, with a bias of each distance; every second block shifts the windows."""

    def __init__(self, size: int = 8, width: int = 64, shift: int = 0, window: int = 4) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, shift, 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, self.heads) / 50)
        axis = torch.arange(window)
        place = torch.cartesian_prod(axis, axis)
        away = place[:, None] - place[None, :] + window - 1
        self.register_buffer("index", away[..., 0] * (2 * window - 1) + away[..., 1])
        # Patches that the shift has brought into one window from two sides do not attend to each other.
        side = (torch.arange(size) >= size - window).long() + (torch.arange(size) >= size - shift)
        part = self.windows((3 * side[:, None] + side)[None, ..., None])[..., 0]
        apart = (part[:, :, None] != part[:, None, :]).float() * -100.0
        self.register_buffer("mask", apart if shift else None)

    def windows(self, x: Tensor) -> Tensor:
        """Return an image [batch, height, width, channels] as [windows, patches, channels]."""
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
        return x.transpose(2, 3).reshape(-1, self.window**2, x.shape[-1])

    def image(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Return windows as an image again."""
        rows, columns = shape[1] // self.window, shape[2] // self.window
        x = x.reshape(-1, rows, columns, self.window, self.window, shape[-1])
        return x.transpose(2, 3).reshape(shape)

    def attend(self, x: Tensor) -> Tensor:
        """Return attention within windows, of x [windows, patches, channels]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].permute(2, 0, 1)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        if self.mask is not None:
            count = self.mask.shape[0]
            scores = scores.unflatten(0, (-1, count)) + self.mask[:, None]
            scores = scores.flatten(0, 1)
        mixed = functional.softmax(scores, dim=-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, height, width, channels]."""
        h = self.norm1(x)
        if self.shift:
            h = h.roll((-self.shift, -self.shift), dims=(1, 2))
        h = self.image(self.attend(self.windows(h)), x.shape)
        if self.shift:
            h = h.roll((self.shift, self.shift), dims=(1, 2))
        x = x + h
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


def vit() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(ViTBlock(), ViTBlock(), nn.LayerNorm(128, eps=1e-6))


def swin() -> nn.Module:
    """Return two blocks, one of them shifted, and the last norm."""
    return nn.Sequential(SwinBlock(), SwinBlock(shift=2), nn.LayerNorm(64))


EXAMPLES = {
    "ViT": Example(vit, [(4, 16, 128)], from_sines),
    "DiT": Example(DiT, [(4, 16, 128), (4, 128)], from_sines),
    "Swin": Example(swin, [(2, 8, 8, 64)], from_sines),
}

if __name__ == "__main__":
    main(EXAMPLES)
