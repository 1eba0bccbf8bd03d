"""Functions of what is cut into parts afterwards: each part is computed in the region that reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, packages, seen
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models import FusegenBackend


class SpatialGate(nn.Module):
    """The gMLP's: half of the channels passes a norm and a product over the positions, and gates the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 8)
        self.norm, self.over = nn.LayerNorm(8), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        passed, gate = functional.gelu(self.up(x)).chunk(2, -1)
        gate = self.over(self.norm(gate).transpose(1, 2)).transpose(1, 2)
        return x + self.down(passed * gate)


@pytest.fixture(autouse=True)
def by_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusegen.models.backend.packages_of", packages)


def fused(model: nn.Module, x: Tensor) -> list[tuple[str, ...]]:
    """Return the ops of each region of a model, which gives what it gives as it is."""
    torch._dynamo.reset()
    used = FusegenBackend(everything=True)
    wanted = seen(model, (x,), model)
    model.zero_grad()
    found = seen(model, (x,), torch.compile(model, backend=used))
    hold_seen(found, wanted)
    return [region.ops for region in used.report.regions if not region.reason]


def test_a_spatial_gate() -> None:
    torch.manual_seed(0)
    regions = fused(SpatialGate().double(), torch.randn(2, 6, 8, dtype=torch.float64))
    assert sorted(regions) == [("gelu", "layer_norm"), ("gelu", "mul")]


class Cut(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x * 1.0 if x.dim() > 3 else x)


def sliced(x: Tensor, *parts: slice) -> list[Tensor]:
    whole = x.tanh()
    return [whole[..., part].cos() for part in parts]


def read_whole(x: Tensor) -> list[Tensor]:
    whole = x.tanh()
    return [*(t.cos() for t in whole.chunk(2, -1)), whole]


@pytest.mark.parametrize(
    ("function", "regions"),
    [
        (lambda x: [t.exp() * 2 for t in x.tanh().sigmoid().split([2, 6], -1)], 2),
        (lambda x: [t.cos() for t in (x.tanh()[..., 2:], x.exp()[:, :3])], 1),  # tanh and exp
        (lambda x: sliced(x, slice(None, 3), slice(3, None)), 2),
        (lambda x: sliced(x, slice(None, 4), slice(3, None)), 0),  # some elements twice
        (lambda x: [t.cos() for t in x.reshape(2, 3, 2, 8).tanh().unbind(1)], 3),
        (lambda x: [t.cos() for t in torch.chunk(functional.leaky_relu(x, 0.2), 3, 1)], 3),
        (lambda x: [t.cos() for t in x.softmax(-1).chunk(2, -1)], 0),  # of a row
        (read_whole, 0),
        (lambda x: [*x.tanh().chunk(2, -1)], 0),  # read by nobody
    ],
)
def test_parts(function: Callable[[Tensor], Any], regions: int) -> None:
    x = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert len(fused(Cut(function), x)) == regions
