"""Tensors that a graph fills with one number: a region has the number where nothing else depends on them.

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
X[1, 2] = X[3, 4] = 0.0  # where two are equal, a maximum shares the gradient


def held(function: Callable[..., Any], x: Tensor = X) -> Report:
    """Hold a function against eager, and return what was fused."""
    used = FusegenBackend(everything=True)
    wanted = seen(function, (x,), function)
    hold_seen(seen(function, (x,), torch.compile(function, backend=used)), wanted)
    return used.report


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum(x, other=0)": lambda x: torch.maximum(torch.zeros_like(x), x).exp(),
    "minimum(x, other=0.5)": lambda x: torch.min(x, torch.tensor(0.5, device=x.device)) * 2,
    "0.10000000149011612": lambda x: x.exp() + torch.tensor(0.1),  # as float32 has it
    "2 - ": lambda x: (torch.tensor([2.0], dtype=torch.float64) - x).exp(),
    "**": lambda x: x.exp() ** torch.tensor(2) / x.new_full((6, 1), 3),
    "where": lambda x: torch.where(x > 0.2, x, torch.zeros_like(x)).exp(),
    "where(": lambda x: x.where(x > 0.2, x.new_tensor(-1.0)).exp(),
}


@pytest.mark.parametrize("word", NUMBERS)
def test_a_region_has_the_number(word: str) -> None:
    (region,) = held(NUMBERS[word]).regions
    assert not region.reason
    assert word in region.spec
    assert "operands" not in region.spec


@pytest.mark.parametrize("first", [True, False])
def test_an_infinite_number_is_that_of_a_mask(first: bool) -> None:
    def masked(x: Tensor) -> Tensor:
        hidden, infinite = x > 0.5, torch.full((), -torch.inf, dtype=x.dtype)
        chosen = torch.where(hidden, infinite, x) if first else x.masked_fill(hidden, infinite)
        return chosen.softmax(-1)

    (region,) = held(masked).regions
    assert "value: '-inf'" in region.spec
    assert region.spec.count("dtype: bool") == 1


def test_a_tensor_that_is_changed_stays_one() -> None:
    def changed(x: Tensor) -> Tensor:
        offset = torch.zeros_like(x)
        before = x.tanh() + offset
        offset += 1
        return before * offset.exp()

    held(changed)


def test_a_tensor_that_others_depend_on_stays_one() -> None:
    """It decides the result's shape or dtype, or makes the result no function of the rest."""

    def wider(x: Tensor) -> Tensor:
        return (x[:, :1].tanh() + torch.zeros(8)).exp()

    def of_higher_dtype(x: Tensor) -> Tensor:
        return (x.float().tanh() * torch.ones(8, dtype=torch.float64)).exp()

    def nothing(x: Tensor) -> Tensor:
        return x.tanh() * torch.zeros_like(x) + x.exp()

    for function in (wider, of_higher_dtype, nothing):
        held(function)
    assert held(nothing).regions[0].ops == ("tanh", "mul", "exp", "add")


def test_a_number_stays_exact_where_nothing_is_fused() -> None:
    """A choice alone is torch's own, and takes the number as well."""
    report = held(lambda x: torch.minimum(x, torch.tensor(0.3)))
    assert not report.regions
