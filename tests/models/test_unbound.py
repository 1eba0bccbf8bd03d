"""Tensors whose parts a model takes one by one are taken apart at once: same values, same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.captured import captured, outcome, tidied
from torch import Tensor

from fusegen.models.unbound import take_apart

X = torch.randn(3, 2, 5, 4)


def unpacked(x: Tensor) -> Tensor:
    q, k, v = x.permute(0, 1, 3, 2)
    return (q @ k.mT) @ v


def selected(x: Tensor) -> Tensor:
    return x.select(1, 1) * torch.select(x, -3, 0)


def twice(x: Tensor) -> Tensor:
    return x[0] * x[1] * x[2] * x[0]


def backwards(x: Tensor) -> Tensor:
    return x[-1] * x[-2] * x[-3]


def in_part(x: Tensor) -> Tensor:
    return x[0] * x[2]


def changed(x: Tensor) -> Tensor:
    y = x * 2
    a, b, c = y[0], y[1], y[2]
    a += 1
    return y.sum() * a * b * c


@pytest.mark.parametrize(
    ("form", "count"),
    [(unpacked, 1), (selected, 1), (twice, 1), (backwards, 1), (in_part, 0), (changed, 0)],
)
def test_forms(form: Callable[..., Any], count: int) -> None:
    module = captured(form, X)
    effects = tidied(module)
    assert take_apart(module.graph, effects, ()) == count
    assert sum(node.target == "unbind" for node in module.graph.nodes) == count
    module.graph.lint()
    module.recompile()
    found = outcome(lambda *given: module(*given)[0], (X,))
    for value, wanted in zip(found, outcome(form, (X,)), strict=True):
        torch.testing.assert_close(value, wanted)


def test_what_packages_compute_stays() -> None:
    module = captured(unpacked, X)
    effects = tidied(module)
    assert take_apart(module.graph, effects, [*module.graph.nodes]) == 0


def test_the_gradient_is_written_once() -> None:
    """That of a selection is a tensor of zeros as large as x; three of them were added up."""
    module = captured(unpacked, X)
    take_apart(module.graph, tidied(module), ())
    module.recompile()
    x = X.clone().requires_grad_()
    with torch.profiler.profile() as profile:
        module(x)[0].sum().backward()
    names = {event.name for event in profile.events()}
    assert "aten::stack" in names and "aten::select_backward" not in names
