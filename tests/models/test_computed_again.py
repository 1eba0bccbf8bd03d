"""Activations that a region computes again from what is kept anyway, so that they are not kept too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, packages, seen
from torch import Tensor, nn
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
def test_gradients_are_those_of_eager(function: Callable[..., Any]) -> None:
    run = FusegenBackend(everything=True)
    fused = torch.compile(function, backend=run)
    hold_seen(seen(None, (X,), fused), seen(None, (X,), function))
    assert run.report.changed[AGAIN] == 1


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


def kept_by(run: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the value of a call, and what autograd keeps for its backward pass."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = run(u)
    return out, kept


class Excited(nn.Module):
    """A batch norm, an activation, and a gate of channels of its mean; a product keeps the two apart."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        torch.manual_seed(960_402)
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, momentum=0.3), act
        self.gate = nn.Linear(4, 4)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.uniform_(self.norm.bias, -0.5, 0.5)

    def forward(self, u: Tensor) -> Tensor:
        h = self.act(self.norm(self.conv(u)))
        gate = self.gate(F.adaptive_avg_pool2d(h, 1).flatten(1))[..., None, None]
        return h * torch.sigmoid(gate)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("act", "order"), [(F.silu, 2), (F.hardswish, 1)])
def test_a_batch_norm_is_computed_again(
    tmp_path: Path, act: Callable[[Tensor], Tensor], order: int
) -> None:
    """In training by the batch's statistics, which move the averages once; in evaluation as before.

    For second derivatives all is kept as it is.
    """
    model, found = Excited(act).double(), []
    for run in (FusegenBackend(tmp_path, order, everything=True), None):
        own = copy.deepcopy(model)
        called = torch.compile(own, backend=run) if run else own
        x = X.clone().requires_grad_()
        leaves = [x, *own.parameters()]
        value = called(x)
        first = torch.autograd.grad(value.sin().sum(), leaves, create_graph=order == 2)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), x) if order == 2 else ()
        found.append([value, *first, *second, *(b.double() for b in own.buffers())])
        if run:
            assert run.report.changed[AGAIN] == (order == 1)
            torch.testing.assert_close(called.eval()(X), own.eval()(X))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("_by_torch")
def test_a_batch_norm_whose_package_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics are then computed by torch."""

    def without_norm(specs: Any, folder: Any, *, build: bool) -> Any:
        found, _ = packages(specs, folder, build=build)
        norms = [s.name for s in specs if "features" in s.text]
        return {n: p for n, p in found.items() if n not in norms}, dict.fromkeys(norms, "why")

    monkeypatch.setattr(backend, "packages_of", without_norm)
    model, run = Excited().double(), FusegenBackend(everything=True)
    found = seen(model, (X,), torch.compile(model, backend=run))
    hold_seen(found[:4], seen(model, (X,), Excited().double())[:4])
    assert run.report.changed[AGAIN] == 1


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_a_gate_of_channels_keeps(tmp_path: Path, dtype: torch.dtype) -> None:
    """With kernels, in both memory formats: the images before the convolution and before the norm alone."""
    x = X.transpose(1, 2)[:, :4]
    for layout in (torch.contiguous_format, torch.channels_last):
        torch._dynamo.reset()
        model = Excited().double()
        run = FusegenBackend(tmp_path, everything=True)
        fused = torch.compile(copy.deepcopy(model).to(dtype), backend=run)
        u = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        out, kept = kept_by(fused, u)
        assert len({t.data_ptr() for t in kept if t.shape == u.shape}) == 2
        out.sin().sum().backward()
        found = []
        for wide in (dtype, torch.float64):
            v = u.detach().to(wide).requires_grad_()
            value = copy.deepcopy(model).to(wide)(v)
            found.append((value, *torch.autograd.grad(value.sin().sum(), v)))
        for got, eager, truth in zip((out, u.grad), *found, strict=True):
            error, usual = ((t.double() - truth).abs().max() for t in (got, eager))
            assert error <= 4 * usual + 1e-9 * truth.abs().max()
        assert run.report.changed[AGAIN] == 1


@pytest.mark.usefixtures("native")
def test_one_of_the_two_is_kept(tmp_path: Path) -> None:
    """With kernels: the activation is not among what autograd keeps, and in 16 bits errors are as eager's."""
    run = FusegenBackend(tmp_path, everything=True)
    fused = torch.compile(normed, backend=run)
    u = X.clone().requires_grad_()
    out, kept = kept_by(fused, u.mul(1))
    large = [t for t in kept if t.shape == X.shape]
    assert len({t.data_ptr() for t in large}) == 1
    out.sin().sum().backward()
    wanted = torch.autograd.grad(normed(u).sin().sum(), u)[0]
    torch.testing.assert_close(u.grad, wanted)
    assert run.report.changed[AGAIN] == 1
