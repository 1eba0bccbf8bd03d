"""Parts of a sum: of a recurrent cell, whose gates are one region then, and of what must stay as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.model_zoo import Cell
from torch import Tensor, fx, nn

from fusegen.models import FusegenBackend
from fusegen.models.effects import effects_of
from fusegen.models.sum_by_parts import sum_by_parts


def captured(function: Callable[..., Any], *inputs: Tensor) -> tuple[fx.GraphModule, int]:
    """Return a function's graph after its sums were cut, and how many were."""
    found: list[Any] = []

    def backend(module: fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        found[:] = [module, sum_by_parts(module.graph, effects_of(module.graph, given))]
        module.recompile()
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        value = torch.compile(function, backend=backend)(*inputs)
        torch.testing.assert_close(value, function(*inputs), rtol=0, atol=0)
    return found[0], found[1]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(
    "cut",
    [
        lambda x, y: (x + y).chunk(4, -1),
        lambda x, y: torch.add(x, y).split(2, dim=1),
        lambda x, y: torch.chunk(x.add(y), 3, 0)[1:],
        lambda x, y: torch.split(x + y, [1, 7], -1),
    ],
)
def test_parts_are_added(cut: Callable[..., Any]) -> None:
    graph, count = captured(
        lambda x, y: [torch.tanh(t) for t in cut(x, y)], drawn(3, 8), drawn(3, 8)
    )
    assert count == 1
    assert all(
        n.meta["example_value"].shape != (3, 8) for n in graph.graph.nodes if "add" in n.name
    )


def sum_and_parts(x: Tensor, y: Tensor) -> list[Tensor]:
    both = x + y
    return [*(t.tanh() for t in both.chunk(2, -1)), both]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: [t.tanh() for t in torch.add(x, y, alpha=2).chunk(2, -1)],
        lambda x, y: [t.tanh() for t in (x + y[:1]).chunk(2, -1)],
        sum_and_parts,
        lambda x, y: [t.tanh() for t in (x + y.double()).chunk(2, -1)],
        lambda x, y: [*(t.tanh() for t in (x + 1).chunk(2, -1)), y],
        lambda x, y: [t @ t.T for t in (x + y).chunk(2, -1)],
    ],
)
def test_what_is_more_than_a_sum_of_two_alike_stays(function: Callable[..., Any]) -> None:
    assert captured(function, drawn(3, 8), drawn(3, 8))[1] == 0


def test_with_gradients_the_sum_stays() -> None:
    counts: list[int] = []

    def backend(module: fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        counts.append(sum_by_parts(module.graph, effects_of(module.graph, given)))
        return module.forward

    torch._dynamo.reset()
    torch.compile(lambda x, y: (x + y).chunk(2, -1), backend=backend)(drawn(3, 8), drawn(3, 8))
    assert counts == [0]


def test_the_gates_of_a_cell_are_one_region(tmp_path: Path) -> None:
    """No op of it is left beside, and its values are those of eager."""
    torch._dynamo.reset()
    model = Cell(64).double()
    backend = FusegenBackend(tmp_path, 1)
    fused = torch.compile(model, backend=backend)
    inputs = [drawn(512, 64).double() for _ in range(3)]
    with torch.no_grad():
        for wanted, got in zip(model(*inputs), fused(*inputs), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    (region,) = backend.report.regions
    assert region.package
    assert not [name for name, _ in backend.report.left if name == "add"]
    assert isinstance(model, nn.Module)
