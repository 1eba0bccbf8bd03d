"""Norms over the channels of images, written as norms of what is permuted: in the region of the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.captured import captured, ops_of, outcome
from torch import Tensor, nn
from torch.nn import functional

from fusegen import chain, spec
from fusegen.models import FusegenBackend, channels_last

pytestmark = pytest.mark.slow

IMAGE = torch.randn(2, 6, 3, 4, dtype=torch.float64)
OTHER = torch.randn(2, 6, 3, 4, dtype=torch.float64)
SOUND = torch.randn(2, 6, 5, dtype=torch.float64)
LAST = IMAGE.contiguous(memory_format=torch.channels_last)


def back_and_forth(x: Tensor, y: Tensor) -> Any:
    """As LayerNorm2d, of a residual sum."""
    total = x + y
    return total, functional.layer_norm(total.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)


def to_rows(x: Tensor, y: Tensor) -> Tensor:
    weight, bias = y[0, :, 0, 0], y[1, :, 0, 0]
    rows = functional.layer_norm((x * y).permute(0, 2, 3, 1), (6,), weight, bias, 1e-6)
    return rows.view(2, 12, 6)


def of_sound(x: Tensor) -> Tensor:
    weight = x[0, :, 0]
    return functional.rms_norm((x * 2).transpose(1, 2), (6,), weight, eps=1e-6).transpose(1, 2) + x


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    ("form", "inputs", "ops"),
    [
        (back_and_forth, (IMAGE, OTHER), {"add", "layer_norm"}),
        (to_rows, (IMAGE, OTHER), {"mul", "layer_norm"}),
        (of_sound, (SOUND,), {"mul", "rms_norm"}),
    ],
)
def test_it_is_in_the_region_of_the_image(
    form: Callable[..., Any], inputs: tuple[Tensor, ...], ops: set[str]
) -> None:
    wanted = seen(form, inputs, form)
    used = FusegenBackend(everything=True)
    found = seen(form, inputs, torch.compile(form, backend=used))
    hold_seen(found, wanted, alike=Tensor.stride)
    assert ops <= set(used.report.fused[0].ops)
    for region in used.report.fused:
        chain.derive(spec.parse(region.spec, "region"))


@pytest.mark.parametrize(
    ("form", "inputs", "regions"),
    [
        # Rows of what is channels-last are in memory as they are: the views are moved instead.
        (back_and_forth, (LAST, LAST * 2), [["add", "layer_norm"]]),
        # Nothing beside it could be in its region.
        (lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (6,)), (IMAGE,), []),
        (lambda x: functional.layer_norm((x * 2).transpose(1, 3), (6,)), (IMAGE,), []),
    ],
)
def test_what_is_better_as_it_is(
    form: Callable[..., Any], inputs: tuple[Tensor, ...], regions: list[list[str]]
) -> None:
    module = captured(form, *inputs)
    assert ops_of(module) == regions
    names = [getattr(node.target, "__name__", "") for node in module.graph.nodes]
    assert not any(name.endswith("of_channels") for name in names)


@pytest.mark.usefixtures("specs_by_torch")
def test_an_image_that_changes_stays() -> None:
    def changed(x: Tensor, y: Tensor) -> Any:
        total = x * y
        rows = functional.layer_norm(total.permute(0, 2, 3, 1), (6,)) * 2
        total.mul_(2)
        return rows, total

    found = torch.compile(changed, backend=FusegenBackend(everything=True))(IMAGE, OTHER)
    for got, truth in zip(found, changed(IMAGE, OTHER), strict=True):
        torch.testing.assert_close(got, truth)


@pytest.mark.usefixtures("specs_by_torch")
def test_in_channels_last_nothing_is_copied_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution gives channels-last, and so does the norm: to see it permuted takes no copy."""
    monkeypatch.setattr(channels_last, "_is_faster", lambda node: node is not None)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.Conv2d(6, 6, 3, padding=1).double() for _ in range(2))
            self.norm, self.linear = nn.LayerNorm(6).double(), nn.Linear(6, 6).double()

        def forward(self, x: Tensor) -> Tensor:
            h = self.other(self.one(x).relu()).relu() * 2
            return self.linear(self.norm(h.permute(0, 2, 3, 1)))

    model, used = Block(), FusegenBackend(everything=True)
    graphs = []

    def look(module: Any, inputs: Any) -> Any:
        forward = used(module, inputs)
        graphs.append(module.graph)
        return forward

    found = torch.compile(model, backend=look)(IMAGE)
    torch.testing.assert_close(found, model(IMAGE))
    formats = [
        n for n in graphs[0].nodes if n.target == "contiguous" and "memory_format" in n.kwargs
    ]
    assert len(formats) == 1  # of the input


def test_a_package_computes_it_without_a_copy(tmp_path: Path) -> None:
    """Built for float32."""
    weight, bias = torch.rand(6) + 0.5, torch.randn(6)

    def norm(x: Tensor, y: Tensor) -> Any:
        total = x + y
        rows = functional.layer_norm(total.permute(0, 2, 3, 1), (6,), weight, bias)
        return total, rows.view(-1, 6)

    inputs = [IMAGE.float(), OTHER.float()]
    used = FusegenBackend(tmp_path, everything=True)
    torch._dynamo.reset()
    found = outcome(torch.compile(norm, backend=used), inputs)
    assert [region.ops for region in used.report.fused] == [("add", "layer_norm")]
    for value, eager in zip(found, outcome(norm, inputs), strict=True):
        torch.testing.assert_close(value, eager, rtol=1e-5, atol=1e-5)
        assert value.stride() == eager.stride()
