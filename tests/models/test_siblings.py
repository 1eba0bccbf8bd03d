"""Regions that read one activation: which are one region, with eager's values and gradients.

No package is compiled: torch computes each spec, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

X, Y = (
    torch.linspace(-3, 3, 144, dtype=torch.float64).mul(n).sin().reshape(3, 6, 8) for n in (5, 7)
)
ROW = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
SQUARE = torch.linspace(-1, 1, 64, dtype=torch.float64).mul(4).cos().reshape(8, 8)


def regions(form: Callable[..., Any], *inputs: Tensor) -> list[tuple[str, ...]]:
    """Hold a function against eager; return the ops of its regions."""
    used = FusegenBackend(everything=True)
    found = seen(form, inputs, torch.compile(form, backend=used))
    hold_seen(found, seen(form, inputs, form))
    return [region.ops for region in used.report.fused]


def mixes_of_two_tokens(x: Tensor, row: Tensor) -> Any:
    before = functional.pad(x, (0, 0, 1, -1))
    keys = x * row + before * (1 - row)
    return keys, torch.lerp(before, x, row), x * row.exp() + before * row


def two_norms(x: Tensor, row: Tensor) -> Any:
    return functional.layer_norm(x, (8,), row) * 2, functional.rms_norm(x, (8,), row).tanh()


def sums_of_rows(x: Tensor, row: Tensor) -> Any:
    return (x * row).sum(-1), x.square().mean(-1).sqrt(), x.amax(-1)


@pytest.mark.parametrize("form", [mixes_of_two_tokens, two_norms, sums_of_rows])
def test_they_are_one_region(form: Callable[..., Any]) -> None:
    assert len(regions(form, X, ROW)) == 1


def without_gradients(x: Tensor, y: Tensor) -> Any:
    with torch.no_grad():
        weight = (x * y).sigmoid() + 1
    return (x - y).tanh() * 2, weight @ SQUARE


def far_apart(x: Tensor, y: Tensor) -> Any:
    first, z = (x * y).tanh() + 1, y
    for _ in range(5):
        z = z @ SQUARE
    return first, (x - z).exp() * 2


def one_after_the_other(x: Tensor, y: Tensor) -> Any:
    product = ((x * y).tanh() + 1) @ SQUARE
    return (product + x).exp() * 2


def other_rows(x: Tensor, y: Tensor) -> Any:
    return (x * y).softmax(-1) * 2, (x - y).softmax(1) * 3


@pytest.mark.parametrize("form", [without_gradients, far_apart, one_after_the_other, other_rows])
def test_they_stay_two(form: Callable[..., Any]) -> None:
    assert len(regions(form, X, Y)) == 2


def test_small_tensors_stay_in_the_region_that_reads_them() -> None:
    """As the deviations of a policy: joined with its entropy they would be a region of their own."""

    def policy(x: Tensor, row: Tensor) -> Any:
        return (x / row.clamp(0.2, 1).exp() - row.log()).sum(-1), (0.5 + row).sum(-1)

    (ops,) = regions(policy, X, ROW)
    assert {"clamp", "exp", "log"} <= set(ops)
