"""A physics-informed network: its loss contains second derivatives, so a training step needs the third.

    python examples/physics.py

Solves the heat equation u_t = u_xx from u(x, 0) = sin(pi x). `examples/pinn.py` times such a network, with a
package of a spec in place of a fused model.

On a GPU: `--device cuda`, and sizes worth it, such as a width of 512 and 65,536 points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from training import Example, main


class Network(nn.Module):
    """Layers that mix two embeddings of the point (Wang et al. 2021, doi:10.1137/20M1318043)."""

    def __init__(self, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.one, self.other, self.first = (nn.Linear(2, width) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Return u at points [n, 2] of (x, t)."""
        one, other = torch.tanh(self.one(points)), torch.tanh(self.other(points))
        h = torch.tanh(self.first(points))
        for layer in self.layers:
            z = torch.tanh(layer(h))
            h = (1 - z) * one + z * other
        return self.last(h)


def residual(model: nn.Module, points: Tensor) -> Tensor:
    """Return how far the network is from the equation, and from u at t = 0."""
    points = points.sigmoid().requires_grad_()  # within the unit square
    (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
    (bend,) = torch.autograd.grad(slope[:, 0].sum(), points, create_graph=True)
    start = points.detach() * points.new_tensor([1.0, 0.0])
    known = torch.sin(math.pi * start[:, :1])
    equation = (slope[:, 1] - bend[:, 0]).square().mean()
    return equation + (model(start) - known).square().mean()


EXAMPLES = {"physics-informed": Example(Network, [(256, 2)], residual, order=3)}

if __name__ == "__main__":
    main(EXAMPLES)
