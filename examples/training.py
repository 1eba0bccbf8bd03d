"""Trains models twice from the same weights: by torch alone, and fused. Prints both losses and the report."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fusegen


@dataclass(frozen=True)
class Example:
    """A model and what trains it.

    Args:
        make: makes the model, with small sizes.
        inputs: the shapes of its inputs.
        loss: the loss, of the model and its inputs.
        order: how many derivatives of the model a training step needs.
    """

    make: Callable[[], nn.Module]
    inputs: Sequence[tuple[int, ...]]
    loss: Callable[..., Tensor]
    order: int = 1

    def start(self, device: str = "cpu") -> tuple[nn.Module, list[Tensor]]:
        """Return the model and its inputs, the same each time."""
        torch.manual_seed(0)
        model = self.make().to(device)
        return model, [torch.randn(shape, device=device) for shape in self.inputs]

    def fuse(self, model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
        """Return the model fused, also what does not pay in sizes as small as these."""
        return fusegen.fuse(model, inputs, order=self.order, everything=True)


def from_sines(model: nn.Module, *inputs: Tensor) -> Tensor:
    """Return a loss that needs no data: how far what the model gives is from sin(0), sin(1), sin(2), …"""
    out = model(*inputs)
    target = torch.arange(out.numel(), device=out.device).sin().view_as(out)
    return (out - target).square().mean()


def train(example: Example, model: nn.Module, inputs: Sequence[Tensor], steps: int) -> list[float]:
    """Take steps of AdamW, and return the loss of each."""
    torch.manual_seed(0)  # for models that draw random numbers
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = example.loss(model, *inputs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(examples: Mapping[str, Example]) -> None:
    """Train the examples that the command line names, or all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(examples)}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    for name in given.names or examples:
        example = examples[name]
        model, inputs = example.start(given.device)
        # A copy, since a fused model shares its parameters with the model that it is made of.
        fused = example.fuse(copy.deepcopy(model), inputs)
        losses = train(example, model, inputs, given.steps)
        others = train(example, fused, inputs, given.steps)
        print(f"{name}: the loss after {given.steps} steps, from {losses[0]:.6f}")
        print(f"  by torch {losses[-1]:.6f}, fused {others[-1]:.6f}")
        print(fusegen.report(fused), end="\n\n")
