"""Blocks after BERT, GPT-2 and T5: dropout, layer norms, masks and biases of attention.

    python examples/language.py [NAME …]

On a GPU: `--device cuda`, and sizes worth it, such as a width of 1024, 512 tokens and bfloat16. A fused model
draws other random numbers in dropout than torch does, so the losses of BERT and GPT-2 differ a little.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


def heads_of(x: Tensor, count: int) -> Tensor:
    """Return [batch, length, heads * width] as [batch, heads, length, width]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


class BertBlock(nn.Module):
    """Norms after the residual sums, dropout before them."""

    def __init__(self, width: int = 128, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor) -> Tensor:
        """Return attention in both directions, with dropout of its weights."""
        q, k, v = (heads_of(part(x), self.heads) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = self.dropout(functional.softmax(scores, dim=-1))
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        x = self.norm1(self.dropout(self.attend(x)) + x)
        return self.norm2(self.dropout(self.down(functional.gelu(self.up(x)))) + x)


class GPT2Block(nn.Module):
    """Norms before the parts, a causal mask, and the tanh form of GELU, spelled out."""

    def __init__(self, width: int = 128, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor) -> Tensor:
        """Return causal attention, with dropout of its weights."""
        q, k, v = (heads_of(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        scores = torch.where(past, scores, torch.finfo(scores.dtype).min)
        weights = self.dropout(functional.softmax(scores, dim=-1))
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        x = x + self.dropout(self.attend(self.norm1(x)))
        h = self.up(self.norm2(x))
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h.pow(3))))
        return x + self.dropout(self.down(h))


class T5Norm(nn.Module):
    """Divides by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x normed over its last dim."""
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6)).to(x.dtype)


class T5Block(nn.Module):
    """Attention without a scale but with a bias of each distance, and a unit gated by GELU."""

    def __init__(self, width: int = 128, heads: int = 4, distance: int = 16) -> None:
        super().__init__()
        self.heads, self.distance = heads, distance
        self.norm1, self.norm2 = T5Norm(width), T5Norm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        self.bias = nn.Embedding(2 * distance + 1, heads)

    def attend(self, x: Tensor) -> Tensor:
        """Return attention in both directions."""
        q, k, v = (heads_of(part(x), self.heads) for part in (self.q, self.k, self.v))
        place = torch.arange(x.shape[1], device=x.device)
        away = (place[None, :] - place[:, None]).clamp(-self.distance, self.distance)
        bias = self.bias(away + self.distance).permute(2, 0, 1)
        weights = functional.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        x = x + self.attend(self.norm1(x))
        h = self.norm2(x)
        return x + self.down(functional.gelu(self.gate(h), approximate="tanh") * self.up(h))


def bert() -> nn.Module:
    """Return two blocks."""
    return nn.Sequential(BertBlock(), BertBlock())


def gpt2() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(GPT2Block(), GPT2Block(), nn.LayerNorm(128))


def t5() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(T5Block(), T5Block(), T5Norm(128))


EXAMPLES = {
    "BERT": Example(bert, [(4, 32, 128)], from_sines),
    "GPT-2": Example(gpt2, [(4, 32, 128)], from_sines),
    "T5": Example(t5, [(4, 32, 128)], from_sines),
}

if __name__ == "__main__":
    main(EXAMPLES)
