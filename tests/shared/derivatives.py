"""Holds the derivatives of a function against those of the same in torch, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["drawn", "hold_third_derivative", "hold_values_and_second_derivative"]


def drawn(*shape: int, device: str = "cpu", seed: int = 0) -> Tensor:
    """Return random numbers that are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


def hold_third_derivative(
    ours: Callable[..., Tensor],
    torchs: Callable[..., Tensor],
    given: Sequence[Tensor],
    atol: float = 1e-12,
) -> None:
    """Compare the values of two functions and their first three derivatives by all that is given."""

    def found(function: Callable[..., Tensor]) -> list[Tensor]:
        leaves = _leaves(given)
        values = [function(*leaves)]
        for order in range(3):
            last = values[-1]
            weight = torch.linspace(-1, 1, last.numel(), dtype=last.dtype, device=last.device)
            total = (last.reshape(-1) * weight.add(order)).square().sum()
            values += torch.autograd.grad(total, leaves, create_graph=True)
        return values

    _hold(found(ours), found(torchs), atol)


def hold_values_and_second_derivative(
    ours: Callable[..., tuple[Tensor, ...]],
    torchs: Callable[..., tuple[Tensor, ...]],
    given: Sequence[Tensor],
    atol: float = 1e-11,
) -> None:
    """Compare the values of two functions of several results, and their first two derivatives."""

    def found(function: Callable[..., Any]) -> list[Tensor]:
        leaves = _leaves(given)
        values = function(*leaves)
        first = torch.autograd.grad([v.square().sum() for v in values], leaves, create_graph=True)
        second = torch.autograd.grad([g.square().sum() for g in first], leaves)
        return [*values, *first, *second]

    _hold(found(ours), found(torchs), atol)


def _leaves(given: Sequence[Tensor]) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in given]


def _hold(ours: Sequence[Tensor], torchs: Sequence[Tensor], atol: float) -> None:
    for got, wanted in zip(ours, torchs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=atol)
