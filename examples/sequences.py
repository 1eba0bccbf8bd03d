"""Sequences without attention: a block after Mamba-2 with its gated norm, and an LSTM.

    python examples/sequences.py [NAME …]

On a GPU: `--device cuda`, and sizes worth it, such as a width of 2048 and bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from training import Example, from_sines, main


class GatedNorm(nn.Module):
    """An RMS norm of what the gate lets through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Return x normed over its last dim."""
        wide = x.float() * functional.silu(gate.float())
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
        return (wide * self.weight).to(x.dtype)


class MambaBlock(nn.Module):
    """A state that decays at a rate that depends on the input, as one product of two matrices.

    This is the form that Mamba-2 uses within a chunk: position t sees position s <= t through C_t . B_s and
    the decay in between.
    """

    def __init__(self, width: int = 64, heads: int = 4, state: int = 16) -> None:
        super().__init__()
        inner, self.heads = 2 * width, heads
        self.sizes = [inner, inner + 2 * state, heads]
        self.parts = [inner, state, state]
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.enter = nn.Linear(width, sum(self.sizes), bias=False)
        self.conv = nn.Conv1d(self.sizes[1], self.sizes[1], 4, padding=3, groups=self.sizes[1])
        self.rate = nn.Parameter(torch.log(torch.arange(1.0, heads + 1)))
        self.step = nn.Parameter(torch.zeros(heads))
        self.skip = nn.Parameter(torch.ones(heads))
        self.gated = GatedNorm(inner)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x [batch, length, width]."""
        length = x.shape[1]
        gate, mixed, step = self.enter(self.norm(x)).split(self.sizes, dim=-1)
        mixed = functional.silu(self.conv(mixed.transpose(1, 2))[..., :length].transpose(1, 2))
        h, b, c = mixed.split(self.parts, dim=-1)
        h = h.unflatten(-1, (self.heads, -1)).transpose(
            1, 2
        )  # [batch, heads, length, inner / heads]
        step = functional.softplus(step + self.step).transpose(1, 2)  # [batch, heads, length]
        decay = (-torch.exp(self.rate)[:, None] * step).cumsum(-1)
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        between = (decay[..., :, None] - decay[..., None, :]).masked_fill(future, float("-inf"))
        seen = torch.exp(between) * (c @ b.transpose(1, 2))[:, None] * step[..., None, :]
        y = seen @ h + h * self.skip[:, None, None]
        return x + self.leave(self.gated(y.transpose(1, 2).flatten(2), gate))


class LSTM(nn.Module):
    """A cell that is called for each position."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.of_x, self.of_h = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width, bias=False)

    def cell(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the state after a position."""
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for x [batch, length, width]."""
        h = c = torch.zeros_like(x[:, 0])
        outputs = []
        for given in self.of_x(x).unbind(1):
            h, c = self.cell(given + self.of_h(h), c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


def mamba() -> nn.Module:
    """Return two blocks and the last norm."""
    return nn.Sequential(MambaBlock(), MambaBlock(), nn.RMSNorm(64, eps=1e-5))


EXAMPLES = {
    "Mamba": Example(mamba, [(4, 32, 64)], from_sines),
    "LSTM": Example(LSTM, [(16, 4, 64)], from_sines),
}

if __name__ == "__main__":
    main(EXAMPLES)
