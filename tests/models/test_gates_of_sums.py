"""Gates of the halves, or of more parts, of a sum: one region with the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor
from torch.nn import functional as F

from fusegen.models import FusegenBackend
from fusegen.models.fusion_report import PARTS

X, Y = (
    torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(960_100 + n)).double()
    for n in (1, 2)
)
ROW = torch.linspace(-1, 1, 8, dtype=torch.float64)
IMAGE, OTHER = X.reshape(2, 6, 2, 4), Y.reshape(2, 6, 2, 4)

pytestmark = pytest.mark.usefixtures("specs_by_torch")


def swiglu(x: Tensor, y: Tensor) -> Tensor:
    gate, up = (x + y).chunk(2, -1)
    return F.silu(gate) * up


def geglu(x: Tensor, y: Tensor) -> Tensor:
    up, gate = (x + y + ROW).chunk(2, -1)
    return up * F.gelu(gate, approximate="tanh")


def reglu(x: Tensor, y: Tensor) -> Tensor:
    up, gate = (x + y).split(4, -1)
    return up * gate.relu() + up.new_ones(4)


def clamped(x: Tensor, y: Tensor) -> Tensor:
    gate, up = (x + y).chunk(2, -1)
    return (up.clamp(-1, 1) + 1) * gate * torch.sigmoid(1.7 * gate)


def of_four(x: Tensor, y: Tensor) -> Tensor:
    a, b, c, d = (x + y).chunk(4, -1)
    return torch.sigmoid(a) * torch.tanh(b) + c * d


def normed(x: Tensor, y: Tensor) -> Tensor:
    return F.layer_norm(F.glu(x + y), (4,))


@pytest.mark.parametrize("function", [swiglu, geglu, reglu, clamped, of_four, normed])
def test_a_gate_adds_what_it_is_of(function: Callable[..., Any]) -> None:
    held(function, X, Y, count=1)


def test_a_gate_of_channels_adds_what_it_is_of() -> None:
    held(lambda x, y: F.glu(x + y, 1), IMAGE, OTHER, count=1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (F.glu(both := x + y), both),  # the sum is read besides
        lambda x, y: F.glu(x * y),  # it is no sum
        lambda x, y: (both := x + y)[..., ::2] * F.silu(both[..., 1::2]),  # its halves alternate
    ],
)
def test_what_is_no_gate_of_a_sum_alone_stays(function: Callable[..., Any]) -> None:
    held(function, X, Y, count=0)


def test_a_gate_that_would_not_get_faster_stays() -> None:
    """Written out, it would be two ops of torch's where it was one."""
    backend = FusegenBackend()
    found = torch.compile(lambda x, y: F.glu(x + y), backend=backend)(X[:1], Y[:1])
    torch.testing.assert_close(found, F.glu(X[:1] + Y[:1]))
    assert backend.report.changed[PARTS] == 0
    assert not [name for name, _ in backend.report.left if name in ("mul", "sigmoid")]


def held(function: Callable[..., Any], *inputs: Tensor, count: int) -> None:
    """Hold a function against eager; so many gates are written out, and no add is left beside."""
    backend = FusegenBackend(everything=True)
    found = seen(function, inputs, torch.compile(function, backend=backend))
    hold_seen(found, seen(function, inputs, function))
    assert backend.report.changed[PARTS] == count
    assert not count or not [name for name, _ in backend.report.left if name == "add"]
    assert not count or len(backend.report.regions) == 1
