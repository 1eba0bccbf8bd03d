"""`detach` in formulas: torch's values and gradients of two orders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import built_alone
from torch import Tensor

from fusegen.chain import derive
from fusegen.spec import parse
from fusegen.tools.check import verify

TEXT = """
order: 2
operands: {w: col}
chain:
  - expr: "x * w - detach(x + w) * tanh(x) + softmax(x) - detach(softmax(x * w))"
"""


def by_torch(x: Tensor, w: Tensor) -> Tensor:
    held = (x + w).detach() * torch.tanh(x)
    return x * w - held + x.softmax(-1) - (x * w).softmax(-1).detach()


def results(function: Callable[..., Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    """Return the value, its gradients, and those of the gradients."""
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    y = function(*leaves)
    first = torch.autograd.grad((y * y.detach().cos()).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g * g.detach().sin()).sum() for g in first), leaves)
    return [t.detach() for t in (y, *first, *second)]


@pytest.mark.slow
def test_values_and_gradients_are_torchs(tmp_path: Path) -> None:
    package = built_alone(tmp_path, "detached", TEXT, [torch.float32])
    assert verify._detaches(derive(parse(TEXT, "detached")))
    assert not verify._detaches(derive(parse(TEXT.replace("detach", ""), "attached")))
    torch.manual_seed(0)
    x, w = torch.randn(9, 37), torch.randn(37)
    truth = results(by_torch, x.double(), w.double())
    own, eager = results(package.apply, x, w), results(by_torch, x, w)
    for value, other, exact in zip(own, eager, truth, strict=True):
        error, usual = (float((t - exact).norm()) for t in (value, other))
        assert error <= 4 * usual + 2e-7 * float(exact.norm())
