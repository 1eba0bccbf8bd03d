"""A model and its generated Module with the same parameters, and whether they agree."""

from __future__ import annotations

from typing import Any

import torch
from shared.torch_calls import Package, modules
from torch import Tensor, nn


def pair(name: str, package: Package, *, training: bool = False) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module with the same parameters, in float64."""
    return modules(name, package, training=training, dtype=torch.float64)


def agree(original: nn.Module, fused: nn.Module, x: Tensor) -> None:
    """Compare two models: value, every gradient, buffers, twice."""
    for _ in range(2):
        found = []
        for model in (original, fused):
            torch.manual_seed(4)  # of dropout, and of the vectors of spectral_norm
            given = x.clone().requires_grad_()
            out = model(given)
            weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
            leaves = [given, *(p for p in model.parameters() if p.requires_grad)]
            gradients = torch.autograd.grad(out, leaves, weights, allow_unused=True)
            found.append([out, *gradients, *model.buffers()])
        assert len(found[0]) == len(found[1])
        for wanted, got in zip(*found, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def pulling(_: nn.Module, inputs: Any, __: Any) -> Any:
    """Triple gradients, as a backward hook."""
    return tuple(g if g is None else 3 * g for g in inputs)


def half(_: nn.Module, __: Any, out: Tensor) -> Tensor:
    """Halve an output, as a forward hook."""
    return out / 2
