"""A tensor whose gradient is 0 everywhere gets zeros, as in torch; one that autograd does not reach, none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import once, shared
from shared.vocabulary import build_for_devices
from torch import Tensor

from fusegen import load

SPEC = """
order: 1
dtypes: [float64]
operands: {flat: col, held: col, bound: col, late: {kind: col, gradient: false}}
chain:
  - expr: {name: one, formula: "sign(x * flat) + x + detach(held) + late"}
  - expr: "x + where(bound < one, 1, 0)"
"""


@pytest.fixture(scope="module")
def apply(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = shared(tmp_path_factory) / "zero_gradients"
    texts = {"signs": SPEC}
    once(tmp_path_factory, "zero_gradients", lambda: build_for_devices(folder, texts, ["float64"]))
    return load("signs", folder / "generated").apply


def eager(x: Tensor, flat: Tensor, held: Tensor, bound: Tensor, late: Tensor) -> Tensor:
    one = torch.sign(x * flat) + x + held.detach() + late
    return one + torch.where(bound < one, 1.0, 0.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_as_in_torch(apply: Any, compiled: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 4, dtype=torch.float64)
    others = [torch.randn(4, dtype=torch.float64) for _ in range(4)]
    call = torch.compile(apply, backend="aot_eager") if compiled else apply
    found = []
    for function in (call, eager):
        leaves = [t.clone().requires_grad_(t is not others[3]) for t in (x, *others)]
        y = function(*leaves)
        gradients = torch.autograd.grad(y.square().sum(), leaves[:4], allow_unused=True)
        found.append((y.detach(), *gradients))
    (y, grad_x, *rest), (wanted, wanted_x, *wanted_rest) = found
    torch.testing.assert_close((y, grad_x), (wanted, wanted_x))
    assert not wanted_rest[0].any() and not rest[0].any()
    if not compiled:  # AOTAutograd fills zeros for all
        assert wanted_rest[1:] == rest[1:] == [None, None]
