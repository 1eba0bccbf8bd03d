"""A result of a model that no loss is computed of: gradients are eager's, also at infinite derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusegen


class Shown(nn.Module):
    """A loss is computed of one result; the others are there to be shown, or are the loss another time."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8, bias=False)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.up(x)
        return torch.tanh(h) * self.scale + h, h.norm(dim=-1), torch.sqrt(h * h)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_one_result(compiled: bool, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    torch.manual_seed(3)
    model, x = Shown(), torch.randn(5, 6)
    x[2] = 0.0
    options = {"everything": True}
    fused = (
        torch.compile(model, backend="fusegen", options=options)
        if compiled
        else fusegen.fuse(model, x, everything=True)
    )

    def gradients(run: nn.Module) -> list[Tensor | None]:
        model.zero_grad()
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = run(given)[0].float().square().sum()
        loss.backward()
        return [given.grad, model.up.weight.grad, model.scale.grad]

    close = 1e-5 if dtype is torch.float32 else 0.05
    for found, expected in zip(gradients(fused), gradients(model), strict=True):
        assert found is not None and expected is not None and expected.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_a_parameter_of_an_ignored_result_has_no_gradient() -> None:
    torch.manual_seed(4)
    model, x = Shown(), torch.randn(5, 6)
    fused = fusegen.fuse(model, x, everything=True)
    fused(x)[1].sum().backward()
    assert model.up.weight.grad is not None
    assert model.scale.grad is None


class Chained(nn.Module):
    """The gradient of a region's only result is absent: a Function passes none to what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8, bias=False)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        length = (h * self.scale).square().sum(-1, keepdim=True).sqrt().expand_as(h)
        kept: Tensor = First.apply(torch.tanh(h) + h, length)
        return kept.square() + kept


class First(torch.autograd.Function):
    """The sum of two tensors, as a function of the first."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        del ctx
        return first + second

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        del ctx
        return cotangent, None


@pytest.mark.parametrize("compiled", [False, True])
def test_a_function_that_passes_no_gradient_on(compiled: bool) -> None:
    torch.compiler.reset()
    torch.manual_seed(5)
    model, x = Chained(), torch.randn(5, 6)
    x[2] = 0.0
    fused = (
        torch.compile(model, backend="fusegen", options={"everything": True})
        if compiled
        else fusegen.fuse(model, x, everything=True)
    )
    found = []
    for run in (model, fused):
        model.zero_grad()
        run(x).square().sum().backward()
        found.append(model.up.weight.grad)
        assert model.scale.grad is None
    assert found[0] is not None and found[0].isfinite().all()
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
