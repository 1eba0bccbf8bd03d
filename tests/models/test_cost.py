"""What fusing is worth: ops by themselves where torch's kernel is slower than memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shared.captured import captured
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional

from fusegen.models.cost import cost_of
from fusegen.models.effects import effects_of
from fusegen.models.regions import find_regions


def saved_alone(model: Callable[[Tensor], Tensor], rows: int, device: str) -> float:
    """Return the seconds that a package of a single op saves on a device, as estimated."""
    module = captured(model, torch.randn(rows, 64, requires_grad=torch.is_grad_enabled()))
    with FakeTensorMode(allow_non_fake_inputs=True):
        for node in module.graph.nodes:
            value = node.meta.get("example_value")
            if isinstance(value, Tensor):
                node.meta["example_value"] = torch.empty(
                    value.shape, dtype=value.dtype, device=device, requires_grad=value.requires_grad
                )
    (region,), _ = find_regions(module.graph, effects_of(module.graph))
    assert len(region.calls) == 1
    return cost_of(region).seconds_saved


@pytest.mark.parametrize(
    "model", [nn.LayerNorm(64), nn.GELU(), lambda x: functional.log_softmax(x, -1)]
)
def test_an_op_by_itself_that_torch_computes_slowly(model: Callable[[Tensor], Tensor]) -> None:
    assert saved_alone(model, 1 << 18, "cuda") > 0
    assert saved_alone(model, 1 << 10, "cuda") < 0  # a call costs more
    assert saved_alone(model, 1 << 18, "cpu") < 0


def test_an_op_by_itself_that_torch_computes_well() -> None:
    assert saved_alone(torch.tanh, 1 << 18, "cuda") < 0


class Scaled(nn.Module):
    """A product with a number for each column, or with their sum."""

    def __init__(self, trained: bool = True, add: bool = False) -> None:
        super().__init__()
        self.scale, self.add = nn.Parameter(torch.ones(64), requires_grad=trained), add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale if self.add else x * self.scale


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_product_whose_gradients_are_summed(device: str) -> None:
    """torch writes a product as large as x, and sums it: a kernel of a package sums while it computes."""
    assert saved_alone(Scaled(), 1 << 18, device) > 0
    assert saved_alone(Scaled(), 1 << 11, device) < 0  # a call costs more
    assert saved_alone(Scaled(trained=False), 1 << 18, device) < 0
    assert saved_alone(Scaled(add=True), 1 << 18, device) < 0  # it sums what is there
    with torch.no_grad():
        assert saved_alone(Scaled(), 1 << 18, device) < 0
