"""Decoders after Llama and Gemma 2: RMS norms, rotary attention with a causal mask, gated units.

    python examples/llama.py [NAME …]

On a GPU: `--device cuda`, and sizes worth it, such as a width of 4096, 2048 tokens and bfloat16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, in float32. What Gemma multiplies by is 1 + its weight."""

    def __init__(self, width: int, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """Return x normed over its last dim."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        if self.offset:
            return (wide * (self.offset + self.weight.float())).to(x.dtype)
        return self.weight * wide.to(x.dtype)


class Rotary(nn.Module):
    """Rotates pairs of numbers of a query or a key by an angle that grows with the position."""

    def __init__(self, width: int, length: int = 2048) -> None:
        super().__init__()
        rate = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angle = torch.outer(torch.arange(length), torch.cat((rate, rate)))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x of [batch, heads, length, width] rotated."""
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin


def heads_of(x: Tensor, count: int) -> Tensor:
    """Return [batch, length, heads * width] as [batch, heads, length, width]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


class LlamaBlock(nn.Module):
    """Attention with fewer heads for keys than for queries, and a unit gated by silu."""

    def __init__(self, width: int = 128, heads: int = 4, key_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.key_heads, size = heads, key_heads, width // heads
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.rotary = Rotary(size)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, key_heads * size, bias=False)
        self.v = nn.Linear(width, key_heads * size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 3 * width, bias=False)
        self.up = nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def attend(self, x: Tensor) -> Tensor:
        """Return causal attention."""
        q = self.rotary(heads_of(self.q(x), self.heads))
        k = self.rotary(heads_of(self.k(x), self.key_heads))
        v = heads_of(self.v(x), self.key_heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        x = x + self.attend(self.attention_norm(x))
        h = self.mlp_norm(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class GemmaBlock(nn.Module):
    """A norm before and after each part, and attention whose scores are capped softly."""

    def __init__(self, width: int = 128, heads: int = 4, cap: float = 50.0) -> None:
        super().__init__()
        self.heads, self.cap = heads, cap
        self.norms = nn.ModuleList(RMSNorm(width, offset=1.0) for _ in range(4))
        self.rotary = Rotary(width // heads)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def attend(self, x: Tensor) -> Tensor:
        """Return causal attention, spelled out, since torch's own knows no cap."""
        q, k, v = (heads_of(part(x), self.heads) for part in (self.q, self.k, self.v))
        scores = self.rotary(q) @ self.rotary(k).transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = torch.tanh(scores / self.cap) * self.cap
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        before, after, before_mlp, after_mlp = self.norms
        x = x + after(self.attend(before(x)))
        h = before_mlp(x)
        h = self.down(functional.gelu(self.gate(h), approximate="tanh") * self.up(h))
        return x + after_mlp(h)


def llama() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(LlamaBlock(), LlamaBlock(), RMSNorm(128))


def gemma() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(GemmaBlock(), GemmaBlock(), RMSNorm(128, offset=1.0))


EXAMPLES = {
    "Llama": Example(llama, [(4, 32, 128)], from_sines),
    "Gemma": Example(gemma, [(4, 32, 128)], from_sines),
}

if __name__ == "__main__":
    main(EXAMPLES)
