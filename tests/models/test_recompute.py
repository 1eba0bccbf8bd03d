"""Activations that several regions read: each region computes its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor

from fusegen.models import FusegenBackend, Report
from fusegen.models.fusion_report import RECOMPUTED

pytestmark = pytest.mark.usefixtures("specs_by_torch")

X, U, V = (torch.linspace(-2, 2, 32, dtype=torch.float64).roll(n).reshape(4, 8) for n in (0, 5, 11))
W = torch.linspace(-1, 1, 64, dtype=torch.float64).sin().reshape(8, 8)


def report_of(function: Callable[..., Any], *, everything: bool = True) -> Report:
    """Compare a function of X, U, V and W with itself fused."""
    used = FusegenBackend(everything=everything)
    fused = torch.compile(function, backend=used)
    hold_seen(seen(None, (X, U, V, W), fused), seen(None, (X, U, V, W), function))
    return used.report


def mixed(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Two layers that mix in the same two activations."""
    a, b = torch.tanh(u), torch.sigmoid(v)
    h = torch.sin(x) * a + b
    return torch.sin(h @ w) * a + b


def test_both_regions_compute_one_of_them() -> None:
    report = report_of(mixed)
    assert report.changed[RECOMPUTED] == 1  # the other one is a result of the first region
    assert [region.ops for region in report.fused] == [
        ("tanh", "sigmoid", "sin", "mul", "add"),
        ("sigmoid", "sin", "mul", "add"),
    ]
    assert (report.fused_ops, report.fusible_ops) == (9, 9)


def test_regions_that_stay_eager_share_one() -> None:
    """Tensors as small as these are not worth a package, nor two kernels in place of one."""
    report = report_of(mixed, everything=False)
    assert not report.changed[RECOMPUTED]
    assert not report.fused


def with_a_product(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    a, b = torch.tanh(u), torch.sigmoid(v)
    h = torch.sin(x) * a + b
    return torch.sin(h @ w) * a + b + a @ w + b @ w


def with_results(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Any:
    a, b = torch.tanh(u), torch.sigmoid(v)
    h = torch.sin(x) * a + b
    return torch.sin(h @ w) * a + b, a, b


def of_values_of_a_region(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Here tanh reads what its region computes."""
    a, b = torch.tanh(u * x), torch.sigmoid(v * 2)
    h = torch.sin(x) * a + b
    return torch.sin(h @ w) * a + b


def of_rows(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """A softmax is not cheap."""
    a, b = torch.softmax(u, -1), torch.softmax(v, -1)
    h = torch.sin(x) * a + b
    return torch.sin(h @ w) * a + b


def of_one_activation(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """A spec has both results, since both depend on u."""
    a = torch.tanh(u)
    h = torch.sin(x) * a + v
    return torch.sin(h @ w) * a + v


@pytest.mark.parametrize(
    "function", [with_a_product, with_results, of_values_of_a_region, of_rows, of_one_activation]
)
def test_otherwise_it_is_computed_once(function: Callable[..., Any]) -> None:
    report = report_of(function)
    assert not report.changed[RECOMPUTED]
    assert report.fused
