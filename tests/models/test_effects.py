"""What may be moved in a graph that changes tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared.by_torch import seen
from shared.captured import captured
from torch import Tensor

from fusegen.models import FusegenBackend
from fusegen.models.effects import effects_of

pytestmark = pytest.mark.slow

X, Y = torch.randn(2, 4, 6, dtype=torch.float64).unbind()


def movable(model: Any, *inputs: Tensor) -> dict[str, bool]:
    """Return which nodes of a graph may be moved, by their names in the model."""
    module = captured(model, *inputs)
    effects = effects_of(module.graph)
    called = (n for n in module.graph.nodes if n.op in ("call_function", "call_method"))
    return {node.name: effects.may_move(node) for node in called}


def test_what_the_graph_makes_may_be_read_anywhere_after_its_last_change() -> None:
    def form(x: Tensor) -> Any:
        made = torch.zeros_like(x)
        early = made * 2
        made.add_(x)
        late = made * 3
        view = made.view(-1)
        later = view * 4
        return early, late, later

    found = movable(form, X)
    assert found["late"] and found["view"] and found["later"]
    assert not found["early"] and not found["add_"]


def test_what_comes_from_outside_is_read_where_it_was() -> None:
    """It may be changed again before the backward pass, which may need the value that a package has kept."""

    def form(x: Tensor, count: Tensor) -> Any:
        count.add_(1)
        late = x * count
        return late, x * 2

    found = movable(form, X, Y.clone())
    assert not found["late"]
    assert found["mul_1"]


@pytest.mark.usefixtures("specs_by_torch")
def test_who_reads_a_changed_tensor_waits_for_the_change() -> None:
    """The change waits for a region whose last op comes after the reader."""

    def form(x: Tensor, y: Tensor) -> Any:
        z = x.exp()
        made = torch.zeros_like(x)
        made.add_(z)
        read = (made * y + 1).tanh()
        return read, z * 3

    used = FusegenBackend(everything=True)
    compiled = torch.compile(form, backend=used)
    for got, truth in zip(seen(form, (X, Y), compiled), seen(form, (X, Y), form), strict=True):
        got, truth = (t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(got, truth)
    assert {region.ops for region in used.report.fused} == {("exp", "mul"), ("mul", "add", "tanh")}
