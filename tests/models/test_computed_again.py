"""Activations that a region computes again from what is kept anyway, so that they are not kept too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, packages, seen
from torch import Tensor
from torch.nn import functional as F

from fusegen.models import FusegenBackend, backend, computed_again
from fusegen.models.fusion_report import AGAIN

X = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(960_400))
WEIGHT = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(960_401))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computed_again, "_LEAST_BYTES", 0)
    torch._dynamo.reset()


@pytest.fixture
def _by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "packages_of", packages)


def response(h: Tensor) -> Tensor:
    """Return the share of each feature: its norm over an image, beside the mean of these."""
    size = torch.norm(h, p=2, dim=(1, 2), keepdim=True)
    return size / (size.mean(-1, keepdim=True) + 1e-6)


def normed(u: Tensor) -> Tensor:
    h = F.gelu(u)
    return 1.5 * (h * response(h)) + h


def squared(u: Tensor) -> Tensor:
    h = torch.tanh(u)
    return torch.sigmoid(response(h) * h) * h


def beside(u: Tensor) -> Tensor:
    h = F.silu(u)
    return response(h) * u * h


@pytest.mark.usefixtures("_by_torch")
@pytest.mark.parametrize("function", [normed, squared, beside])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_of_eager(function: Callable[..., Any], order: int) -> None:
    run = FusegenBackend(order=order, everything=True)
    fused = torch.compile(function, backend=run)
    hold_seen(seen(None, (X,), fused), seen(None, (X,), function))
    assert run.report.changed[AGAIN] == 1
    if order == 2:
        torch.autograd.gradgradcheck(fused, X[:1, :2, :2, :3].clone().requires_grad_())


@pytest.mark.usefixtures("_by_torch")
@pytest.mark.parametrize(
    ("why", "function"),
    [
        ("the product keeps it", lambda u: (h := F.gelu(u)) * response(h) + h @ WEIGHT),
        ("the model gives it", lambda u: ((h := F.gelu(u)) * response(h), h)),
        ("its backward reads the value", lambda u: (h := F.relu(u)) * response(h)),
        ("nothing reads its numbers", lambda u: (h := F.gelu(u)) + response(h)),
        ("it is of two tensors", lambda u: (h := u * u.roll(1)) * response(h)),
    ],
)
def test_what_is_kept(why: str, function: Callable[..., Any]) -> None:
    run = FusegenBackend(everything=True)
    hold_seen(seen(None, (X,), torch.compile(function, backend=run)), seen(None, (X,), function))
    assert run.report.changed[AGAIN] == 0, why


@pytest.mark.usefixtures("_by_torch")
def test_calls_without_gradients_compute_nothing_again() -> None:
    run = FusegenBackend(everything=True)
    with torch.no_grad():
        found = torch.compile(normed, backend=run)(X)
    torch.testing.assert_close(found, normed(X))
    assert run.report.changed[AGAIN] == 0


@pytest.mark.usefixtures("native")
def test_one_of_the_two_is_kept(tmp_path: Path) -> None:
    """With kernels: the activation is not among what autograd keeps, and in 16 bits errors are as eager's."""
    run = FusegenBackend(tmp_path, everything=True)
    fused = torch.compile(normed, backend=run)
    u = X.clone().requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = fused(u.mul(1))
    large = [t for t in kept if t.shape == X.shape]
    assert len({t.data_ptr() for t in large}) == 1
    out.sin().sum().backward()
    wanted = torch.autograd.grad(normed(u).sin().sum(), u)[0]
    torch.testing.assert_close(u.grad, wanted)
    assert run.report.changed[AGAIN] == 1
