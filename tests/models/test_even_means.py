"""Means of what is read besides: their gradient is a small tensor, expanded, and nobody writes it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor
from torch.nn import functional as F

from fusegen.models import FusegenBackend, even_means
from fusegen.models.fusion_report import MEANS
from fusegen.runtime.even_mean import EvenMean

pytestmark = pytest.mark.usefixtures("specs_by_torch")

SHAPE = (2, 4, 3, 5)
X = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(960_300))
WEIGHT = torch.eye(4, dtype=torch.float64) + 0.1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(even_means, "_LEAST_BYTES", 0)


def gated(mean: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a gate of channels; the product keeps the mean out of the region of the image."""

    def function(x: Tensor) -> Tensor:
        return x * torch.sigmoid(mean(x).reshape(len(x), -1) @ WEIGHT)[..., None, None]

    return function


MEANS_OF_IMAGES = [
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: x.mean((2, 3)),
    lambda x: torch.mean(x, dim=[-2, -1], keepdim=True),
    lambda x: x.mean(dim=-1).mean(dim=-1, keepdim=True),
]


@pytest.mark.parametrize("mean", MEANS_OF_IMAGES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_eager(
    mean: Callable[[Tensor], Tensor], layout: torch.memory_format
) -> None:
    x = X.contiguous(memory_format=layout)
    backend = FusegenBackend()
    fused = torch.compile(gated(mean), backend=backend)
    hold_seen(seen(None, (x,), fused), seen(None, (x,), gated(mean)))
    assert backend.report.changed[MEANS] == 1


def test_second_derivatives_and_calls_without_gradients() -> None:
    function = gated(MEANS_OF_IMAGES[0])
    fused = torch.compile(function, backend=FusegenBackend(order=2))
    torch.autograd.gradcheck(fused, X.clone().requires_grad_())
    torch.autograd.gradgradcheck(fused, X.clone().requires_grad_())
    with torch.no_grad():
        torch.testing.assert_close(fused(X), function(X))


def test_nothing_as_large_as_the_image_is_written() -> None:
    mean = EvenMean(torch.mean, (-2, -1))
    x = X.clone().requires_grad_()
    given: list[Tensor] = []
    x.register_hook(lambda g: given.append(g))
    mean(x.mul(1), [2, 3]).sum().backward()
    even = torch.autograd.grad(mean(x, (2, 3)).sum(), x)[0]
    assert even.stride() == (4, 1, 0, 0)
    torch.testing.assert_close(given[0], torch.full_like(X, 1 / 15))


@pytest.mark.parametrize("transform", ["jvp", "vmap", "jacrev"])
def test_transforms_take_torchs_own(transform: str) -> None:
    mean = EvenMean(torch.mean, (-1,))

    def run(function: Callable[..., Tensor]) -> Any:
        def of(x: Tensor) -> Tensor:
            return function(x, -1).sin()

        if transform == "jvp":
            return torch.func.jvp(of, (X,), (X.cos(),))
        return torch.func.vmap(of)(X) if transform == "vmap" else torch.func.jacrev(of)(X)

    torch.testing.assert_close(run(mean), run(torch.mean))


@pytest.mark.parametrize(
    ("why", "function"),
    [
        ("nobody else reads it", lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1) @ WEIGHT),
        ("a region computes it", lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
        ("it is no mean", lambda x: x * (x.sum((2, 3)) @ WEIGHT)[..., None, None]),
        ("it is of several values", lambda x: F.adaptive_avg_pool2d(x, (3, 1)) + x),
    ],
)
def test_what_stays(why: str, function: Callable[[Tensor], Tensor]) -> None:
    backend = FusegenBackend(everything=True)
    fused = torch.compile(function, backend=backend)
    hold_seen(seen(None, (X,), fused), seen(None, (X,), function))
    assert backend.report.changed[MEANS] == 0, why


def test_small_tensors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(even_means, "_LEAST_BYTES", 8 * X.numel() + 1)
    backend = FusegenBackend()
    torch.compile(gated(MEANS_OF_IMAGES[0]), backend=backend)(X.clone().requires_grad_())
    assert backend.report.changed[MEANS] == 0
