"""Biases of convolutions that the region after them adds: which ones, with the same values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.captured import outcome, tidied
from torch import Tensor, fx
from torch.nn import functional

import fusegen
from fusegen.models import conv_biases
from fusegen.models.conv_biases import take_biases
from fusegen.models.effects import effects_of
from fusegen.models.fusion_report import BIASES
from fusegen.models.regions import find_regions

pytestmark = pytest.mark.slow  # each case is captured by torch: 8 seconds

IMAGE, KERNEL, BIAS = torch.randn(2, 4, 6, 5), torch.randn(4, 4, 3, 3) / 6, torch.randn(4)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution adds its bias in a pass of its own."""
    monkeypatch.setattr(conv_biases, "_is_apart", lambda node: node is not None)


def normalised(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    h = functional.silu(functional.group_norm(functional.conv2d(x, w, b, padding=1), 2))
    return functional.conv_transpose2d(h, w, bias=b, padding=1).relu() + x


def of_rows(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.conv1d(x.flatten(2), w.flatten(2), b, padding=4).tanh() * 2


def read_by_others(x: Tensor, w: Tensor, b: Tensor) -> Any:
    h = functional.conv2d(x, w, b, padding=1)
    return torch.cat((h, h.relu()), 1)


def returned(x: Tensor, w: Tensor, b: Tensor) -> Any:
    h = functional.conv2d(x, w, b, padding=1)
    return h, h.relu()


def changed(x: Tensor, w: Tensor, b: Tensor) -> Any:
    h = functional.conv2d(x, w, b, padding=1)
    return h.relu_() * 3


def pooled(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.max_pool2d(functional.conv2d(x, w, b, padding=1), 2).relu()


def without(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.conv2d(x, w, padding=1).relu() * b[:, None, None]


@pytest.mark.parametrize(
    ("form", "taken"),
    [
        (normalised, 2),
        (of_rows, 1),
        (read_by_others, 0),
        (returned, 0),
        (changed, 1),
        (pooled, 0),
        (without, 0),
    ],
)
def test_forms(form: Callable[..., Any], taken: int) -> None:
    def backend(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        assert take_biases(module.graph, tidied(module)) == taken
        regions, _ = find_regions(module.graph, effects_of(module.graph))
        begun = [
            region for region in regions if any(c.name == "add" for c in region.calls.values())
        ]
        assert len(begun) == (taken or sum(r.target == "add" for r in module.graph.nodes))
        module.graph.lint()
        module.recompile()
        return module.forward

    torch._dynamo.reset()
    wide = [t.double() for t in (IMAGE, KERNEL, BIAS)]
    found, wanted = outcome(torch.compile(form, backend=backend), wide), outcome(form, wide)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other)


def test_a_model_fused_so_has_the_same_values_and_gradients() -> None:
    """The region that adds the bias sums its gradient."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return functional.silu(self.conv(x)) * 1.5

    torch.manual_seed(3)
    block, x = Block().double(), IMAGE.double()
    fused = fusegen.fuse(block, (x,), everything=True)
    report = fusegen.report(fused)
    assert report.changed[BIASES] == 1
    assert [region.ops for region in report.regions] == [("add", "swish", "mul")]
    results = []
    for model in (block, fused):
        own = x.clone().requires_grad_()
        value = model(own)
        leaves = [own, *model.parameters()]
        results.append([value, *torch.autograd.grad(value.sin().sum(), leaves)])
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
