"""A fused model in a CUDA graph, as docs/models.md shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fusegen
from fusegen.models import FusegenBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


class Block(nn.Module):
    """A norm, a product and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.product = nn.LayerNorm(512), nn.Linear(512, 512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus what it adds."""
        return x + nn.functional.gelu(self.product(self.norm(x) * 2))


@pytest.mark.parametrize("way", ["compile", "fuse"])
def test_replays_give_the_same(way: str, tmp_path: Path) -> None:
    model = Block().cuda()
    x = torch.randn(1024, 512, device="cuda")
    fused: Any
    if way == "fuse":
        fused = fusegen.fuse(model, x, folder=tmp_path)
    else:
        backend = FusegenBackend(tmp_path)
        fused = torch.compile(model, backend=backend)
    other = torch.randn_like(x)
    fused(other).square().sum().backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    graphed = torch.cuda.make_graphed_callables(fused, (x.clone(),))
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        graphed(other).square().sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert len(found) == len(wanted) == 4
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
