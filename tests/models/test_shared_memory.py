"""Inputs that share memory with one that a graph changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fusegen.models import FusegenBackend
from fusegen.models.shared_memory import places_to_compare

pytestmark = [pytest.mark.usefixtures("specs_by_torch"), pytest.mark.slow]


def form(x: Tensor, y: Tensor) -> Tensor:
    """Read y before and after a change of x."""
    before = torch.tanh(y) * 2
    x.add_(1)
    return before + (y * 3).sigmoid()


def test_a_call_whose_inputs_share_memory() -> None:
    used = FusegenBackend(everything=True)
    run = torch.compile(form, backend=used)
    for shares in (False, True, False, True):
        found, wanted = torch.arange(12.0).view(3, 4), torch.arange(12.0).view(3, 4)
        others = [t.view(3, 4) if shares else t.clone() for t in (found, wanted)]
        torch.testing.assert_close(run(found, others[0]), form(wanted, others[1]))
        torch.testing.assert_close(found, wanted)
    assert used.report.graphs == 1
    assert used.report.fused_ops == 5


def test_a_call_whose_inputs_shared_memory_when_it_was_captured() -> None:
    run = torch.compile(form, backend=FusegenBackend(everything=True))
    for shares in (True, False):
        found, wanted = torch.arange(12.0).view(3, 4), torch.arange(12.0).view(3, 4)
        others = [t.view(3, 4) if shares else t.clone() for t in (found, wanted)]
        torch.testing.assert_close(run(found, others[0]), form(wanted, others[1]))


def test_tensors_of_a_module_are_not_compared() -> None:
    """Nothing is looked at in a call of a model with running averages."""
    found: list[list[int]] = []

    def read(module: fx.GraphModule, inputs: list[Any]) -> Any:
        found.append(places_to_compare(module.graph, inputs))
        return module.forward

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
    torch.compile(model, backend=read)(torch.randn(5, 4))
    torch.compile(form, backend=read)(torch.randn(5, 4), torch.randn(5, 4))
    assert found == [[], [0, 1]]


def test_nested_tensors_stay_eager() -> None:
    parts = [torch.randn(2, 4), torch.randn(3, 4)]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)
    used = FusegenBackend(everything=True)
    found = torch.compile(lambda x: torch.tanh(x * 2) + x, backend=used)(nested)
    torch.testing.assert_close(found.values(), torch.tanh(nested.values() * 2) + nested.values())
    assert "a nested tensor" in str(used.report)
