"""What autocast converts for products: inside of the region that gives it, and once for several products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.models import FusegenBackend
from fusegen.models.fusion_report import CASTS
from fusegen.runtime.shared_cast import shared_cast

pytestmark = pytest.mark.usefixtures("specs_by_torch")

GENERATOR = torch.Generator().manual_seed(960_500)
X = torch.randn(3, 5, 8, generator=GENERATOR)


class Projected(nn.Module):
    """Three projections of what is normalised in float32, and a gate of them."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        torch.manual_seed(960_501)
        self.weight = nn.Parameter(torch.rand(8) + 0.5)
        self.of = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        h = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight
        return torch.stack([linear(h) for linear in self.of]).float().sin().sum(0)


class Between(nn.Module):
    """A scale of float32 between two products of 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(960_502)
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down((F.silu(self.up(x)) * self.scale).flatten(0, 1)).float()


def trained(run: Callable[[Tensor], Tensor], model: nn.Module) -> list[Tensor]:
    """Return the value and all gradients of a call under autocast."""
    x = X.clone().requires_grad_()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = run(x * 1.0)
    out.sin().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize(("model", "shared"), [(Projected(), 1), (Projected(1), 0), (Between(), 0)])
@pytest.mark.parametrize("rest", ["eager", "inductor"])
def test_training_is_that_of_eager(model: nn.Module, shared: int, rest: str) -> None:
    torch._dynamo.reset()
    backend = FusegenBackend(everything=True, rest=rest)
    found = trained(torch.compile(model, backend=backend), model)
    wanted = trained(model, model)
    for got, eager in zip(found, wanted, strict=True):
        assert got.dtype is eager.dtype
        torch.testing.assert_close(got, eager, rtol=0.02, atol=0.02 * float(eager.abs().max()))
    assert backend.report.changed[CASTS] == shared


def test_a_region_between_products_is_of_16_bits() -> None:
    backend = FusegenBackend(everything=True)
    trained(torch.compile(Between(), backend=backend), Between())
    (region,) = backend.report.regions
    assert "dtypes: [bfloat16]" in region.spec
    assert region.ops[-1] == "cast"


def copies_kept(run: Callable[[Tensor], Tensor]) -> int:
    """Return how many tensors of 16 bits, as large as x, a call keeps for the backward pass."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        run(X.clone().requires_grad_() * 1.0)
    rows = [t for t in kept if t.dtype is torch.bfloat16 and t.numel() == X.numel()]
    return len({t.data_ptr() for t in rows})


def test_products_keep_one_copy() -> None:
    model = Projected()
    fused = torch.compile(model, backend=FusegenBackend(everything=True))
    assert (copies_kept(fused), copies_kept(model)) == (1, 3)


def test_gradients_are_added_in_float32() -> None:
    def loss(copies: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([c.float() * (n + 0.3) for n, c in enumerate(copies)]).sin().sum()

    found = []
    for cast in (shared_cast, lambda x, dtype, count: tuple(x.to(dtype) for _ in range(count))):
        x = X.clone().requires_grad_()
        copies = cast(x, torch.bfloat16, 2)
        first = torch.autograd.grad(loss(copies), x, create_graph=True)[0]
        found.append((first, torch.autograd.grad(first.square().sum(), x)[0]))
    for got, wanted in zip(*found, strict=True):
        assert torch.equal(got, wanted)


def test_one_of_the_copies_alone_has_a_gradient() -> None:
    x = X.clone().requires_grad_()
    one, other = shared_cast(x, torch.bfloat16, 2)
    assert one.data_ptr() == other.data_ptr()
    other.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("transform", ["jvp", "vmap", "no_grad"])
def test_elsewhere_each_has_a_copy(transform: str) -> None:
    def of(x: Tensor) -> Any:
        return sum(c.float() for c in shared_cast(x, torch.bfloat16, 2))

    wanted = 2 * X.bfloat16().float()
    if transform == "jvp":
        value, tangent = torch.func.jvp(of, (X,), (torch.ones_like(X),))
        assert torch.equal(tangent, torch.full_like(X, 2.0))
    elif transform == "vmap":
        value = torch.func.vmap(of)(X.clone().requires_grad_())
    else:
        with torch.no_grad():
            value = of(X.clone().requires_grad_())
    assert torch.equal(value, wanted)
