"""A gated unit whose gate is the first half of its input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import built_alone
from torch import Tensor, nn

from fusegen.chain import derive
from fusegen.render.module import lines_in_torch
from fusegen.spec import parse

TEXT = """
order: 1
arguments: {in_features: int, hidden: int}
chain:
  - linear: {out_features: 2 * hidden}
  - swiglu: {gate_first: true}
"""


def by_torch(x: Tensor, linear: nn.Linear) -> Tensor:
    gate, value = linear(x).chunk(2, -1)
    return nn.functional.silu(gate) * value


@pytest.mark.slow
def test_the_first_half_is_the_gate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fused = built_alone(tmp_path, "gate_first", TEXT, [torch.float32]).Module(33, 37)
    x = torch.randn(9, 33, requires_grad=True)
    leaves = [x, *fused.parameters()]
    wanted, own = by_torch(x, fused.linear), fused(x)
    torch.testing.assert_close(own, wanted)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (own, wanted)]
    torch.testing.assert_close(*gradients)


def test_step_by_step_takes_the_same_halves() -> None:
    torch.manual_seed(0)
    lines = lines_in_torch(derive(parse(TEXT, "gate_first")))
    x, linear = torch.randn(9, 33), nn.Linear(33, 74)
    names = {"torch": torch, "self": nn.ModuleDict({"linear": linear}), "x": x}
    exec("\n".join(lines), names)  # noqa: S102
    torch.testing.assert_close(names["x"], by_torch(x, linear))
    text = TEXT.replace("gate_first: true", "gate_first: false")
    plain = lines_in_torch(derive(parse(text, "plain")))
    assert plain == lines_in_torch(derive(parse(text.replace("gate_first: false", ""), "plain")))
    assert plain != lines
