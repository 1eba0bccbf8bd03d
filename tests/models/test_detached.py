"""Detached tensors and copies between ops: of one region where nobody else can tell.

No package is compiled: torch computes each spec, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor

from fusegen.models import FusegenBackend, Report

pytestmark = pytest.mark.usefixtures("specs_by_torch")

X = torch.linspace(-3, 3, 48, dtype=torch.float64).mul(5).sin().reshape(6, 8)
W = torch.linspace(-1, 1, 64, dtype=torch.float64).mul(3).cos().reshape(8, 8)


def held(function: Callable[..., Any], *inputs: Tensor) -> Report:
    """Hold a function against eager, and return what was fused."""
    used = FusegenBackend(everything=True)
    wanted = seen(function, inputs, function)
    hold_seen(seen(function, inputs, torch.compile(function, backend=used)), wanted)
    return used.report


def scaled(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    return h * 0.5 + h.clone().detach()


def multiplied(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    first = torch.detach(torch.clone(h))
    return ((h + 1) + first) * first + first


def rounded(x: Tensor, w: Tensor) -> Tensor:
    """A straight-through estimator."""
    h = x @ w
    return (h + (torch.tanh(3 * h) - h).detach()).exp()


def shifted(x: Tensor, w: Tensor) -> Tensor:
    h = (x @ w) * 2
    return (h - h.amax(-1, keepdim=True).detach()).exp()


def shifted_by_detached(x: Tensor, w: Tensor) -> Tensor:
    h = (x @ w) * 2
    return (h - h.detach().amax(-1, keepdim=True)).exp()


def shifted_in_a_view(x: Tensor, w: Tensor) -> Tensor:
    h = (x @ w) * 2
    return (h - h.amax(-1).detach().unsqueeze(1)).exp()


def detached_twice(x: Tensor, w: Tensor) -> Tensor:
    h = (x @ w) * 2
    row = h.amax(-1).detach().unsqueeze(1)
    return (h - row.detach() * 0.5 + row).exp()


def cast(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    return (h * h.detach().to(torch.float64)).exp()


@pytest.mark.parametrize(
    "function",
    [
        scaled,
        multiplied,
        rounded,
        shifted,
        shifted_by_detached,
        shifted_in_a_view,
        detached_twice,
        cast,
    ],
)
def test_one_region_computes_what_is_detached(function: Callable[..., Any]) -> None:
    report = held(function, X, W)
    (region,) = report.regions
    assert not region.reason
    assert "detach(" in region.spec
    assert "operands" not in region.spec
    assert {name for name, _ in report.left} == {"matmul"}


def test_what_is_read_detached_alone_gets_no_gradient() -> None:
    """None, as in eager, not zeros: an optimizer that decays weights tells them apart."""

    def gated(x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x * 3) * torch.exp(y).detach()

    def taken(x: Tensor, y: Tensor) -> Tensor:
        return (x + (torch.round(y) - x).detach()).tanh()

    for function in (gated, taken):
        (region,) = held(function, X, X.roll(1, 0)).regions
        assert "{kind: full, gradient: false}" in region.spec


def test_nothing_is_fused_of_which_no_gradient_goes_back() -> None:
    def constant(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x.exp().detach() * 2).tanh(), x * 2

    held(constant, X)


def test_a_kernel_computes_what_is_small_and_detached() -> None:
    def small(x: Tensor, w: Tensor) -> Tensor:
        return x * (w[:1].detach() + 1) * 2

    (region,) = held(small, X, W).regions
    assert "detach(t1) + 1" in region.spec
    assert "{kind: col, gradient: false}" in region.spec


def test_what_no_spec_says_stays_outside() -> None:
    """A mean of each row, which is broadcast to an input that is copied and detached before."""

    def added(x: Tensor, w: Tensor) -> Tensor:
        first = x.clone().detach()
        row = ((x @ w) - 1).mean(1, keepdim=True)
        return torch.nn.functional.gelu(torch.logsumexp(row, 1, keepdim=True)) + first

    assert held(added, X, W).fused


def test_a_detached_result_is_a_view() -> None:
    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        h = x * 2
        detached = h.detach()
        return h, (h.tanh() + detached) * 2 + detached, detached

    report = held(both, X)
    assert [reason for name, reason in report.left if name == "detach"] == [
        "a view or a selection, which computes nothing"
    ]
    assert not any(region.reason for region in report.regions)
    h, _, detached = torch.compile(both, backend=FusegenBackend(everything=True))(X)
    assert h.data_ptr() == detached.data_ptr()


def test_a_copy_of_what_is_changed_is_one() -> None:
    def before(x: Tensor, w: Tensor) -> Tensor:
        h = x @ w
        kept, view = h.clone(), h[:2]
        view.zero_()
        return kept.tanh() * h.exp() + 1

    def after(x: Tensor, w: Tensor) -> Tensor:
        h = x @ w
        kept = h.clone().detach()
        kept[:2] = 1
        return kept * h.exp() + 1

    for function in (before, after):
        assert any(name == "clone" for name, _ in held(function, X, W).left)


@pytest.mark.parametrize(
    "function", [lambda x: x.clone().tanh() * 2, lambda x: (x * 2, (x * 2).clone())]
)
def test_a_copy_of_what_others_may_change_is_one(function: Callable[..., Any]) -> None:
    held(function, X)


def test_an_input_may_change_before_the_backward_pass() -> None:
    def of_a_copy(x: Tensor) -> Tensor:
        return torch.sin(x.clone()) * 2 + 1

    leaf = X.clone().requires_grad_()
    given = leaf * 1
    y = torch.compile(of_a_copy, backend=FusegenBackend(everything=True))(given)
    with torch.no_grad():
        given.zero_()
    y.sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * torch.cos(X))


def test_a_copy_in_other_strides_is_one() -> None:
    def expanded(x: Tensor, w: Tensor) -> Tensor:
        rows = (x @ w)[:1].expand(6, 8)
        return (rows.clone() * 2).tanh()

    assert any(name == "clone" for name, _ in held(expanded, X, W).left)
