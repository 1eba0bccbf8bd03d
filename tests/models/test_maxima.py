"""Maxima and minima of which a model reads the values alone, in the region of what they are computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.captured import captured, ops_of
from torch import Tensor

import fusegen
from fusegen.models import FusegenBackend

X = torch.randn(3, 5, 4, dtype=torch.float64)
X[0, 1, 2] = X[0, 3, 2] = X[0, 0, 2] = 9.0  # the first of equal ones gets the gradient


def indexed(x: Tensor) -> Tensor:
    return torch.tanh(torch.max(x * 2, dim=1, keepdim=True)[0]) + x


def named(x: Tensor) -> Tensor:
    return (x * 2).max(-1, True).values * 3


def dropped(x: Tensor) -> Tensor:
    return torch.min(-x + 1, 1).values


def unpacked(x: Tensor) -> Tensor:
    values, _ = torch.min(x * 2, dim=2, keepdim=True)
    return values * x


def twice(x: Tensor) -> Tensor:
    found = torch.max(x * 2, dim=1, keepdim=True)
    return found[0] * x + found.values


def with_places(x: Tensor) -> Any:
    values, places = torch.max(x * 2, dim=1)
    return values * 3, places


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    ("form", "ops"),
    [
        (indexed, ["mul", "max", "tanh", "add"]),
        (named, ["mul", "max", "mul"]),
        (dropped, ["neg", "add", "min"]),
        (unpacked, ["mul", "min", "mul"]),
        (twice, ["mul", "max", "mul", "add"]),
    ],
)
def test_the_values_alone_are_in_a_region(form: Callable[[Tensor], Tensor], ops: list[str]) -> None:
    assert ops_of(captured(form, X)) == [ops]
    used = FusegenBackend(everything=True)
    hold_seen(seen(form, (X,), torch.compile(form, backend=used)), seen(form, (X,), form))
    assert [list(region.ops) for region in used.report.fused] == [ops]


@pytest.mark.usefixtures("specs_by_torch")
def test_with_their_places_they_stay_torchs() -> None:
    assert not ops_of(captured(with_places, X))
    fused = torch.compile(with_places, backend=FusegenBackend(everything=True))
    hold_seen(seen(with_places, (X,), fused), seen(with_places, (X,), with_places))


@pytest.mark.usefixtures("specs_by_torch")
def test_the_report_calls_them_as_the_model_does() -> None:
    used = FusegenBackend(everything=True)
    torch.compile(lambda x: x.max(1)[0], backend=used)(X)
    assert [name for name, _ in used.report.left] == ["max"]


@pytest.mark.usefixtures("specs_by_torch")
def test_a_function_that_was_fused_has_a_report() -> None:
    fused = fusegen.fuse(indexed, X, everything=True)
    assert "mul max tanh add" in str(fusegen.report(fused))
