"""Chains that start from an operand with its own dims alone, where x has other sizes than it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor
from torch.nn import functional

HEAD = "dims: 3\noperands: {c: {dims: [0, 2]}}\noutputs: [y, w]\nchain:\n"
OF_OPERAND = """
  - expr: {name: w, formula: "swish(c)"}
  - expr: {name: y, formula: "a * w"}
"""
SPECS = {
    "after_parts": '  - expr: {name: a, formula: "p * tanh(q)", parts: [p, q]}' + OF_OPERAND,
    "after_cut": '  - expr: {name: a, formula: "p * tanh(p)", parts: {p: 4, _q: -1}}' + OF_OPERAND,
    "after_product": "  - tanh\n  - linear: {name: a, in_features: 10, out_features: 4}"
    + OF_OPERAND,
    "of_product": """
  - tanh: {name: a}
  - linear: {name: w, of: c, in_features: 5, out_features: 10}
  - expr: {name: y, formula: "a * tanh(w)"}
""",
}


def after_parts(_: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    p, q = x.chunk(2, -1)
    w = functional.silu(c)[:, None]
    return p * q.tanh() * w, w


def after_cut(_: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    p, w = x[..., :4], functional.silu(c)[:, None]
    return p * p.tanh() * w, w


def after_product(model: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    w = functional.silu(c)[:, None]
    return model.a(x.tanh()) * w, w


def of_product(model: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    w = model.w(c[:, None])
    return x.tanh() * w.tanh(), w


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    texts = {name: HEAD + chain for name, chain in SPECS.items()}
    found: dict[str, ModuleType] = packages_of_texts(tmp_path_factory, "dims_of_starts", texts)
    return found


@pytest.mark.parametrize("positions", [3, 2, 1])
@pytest.mark.parametrize("same", [after_parts, after_cut, after_product, of_product])
def test_the_operand_keeps_the_dims_that_it_lists(
    packages: dict[str, ModuleType], same: Callable[..., tuple[Tensor, ...]], positions: int
) -> None:
    """As many positions as samples hid it: c was taken for one row of each position."""
    torch.manual_seed(1)
    model: Any = packages[same.__name__].Module().double()
    width = 5 if same in (after_parts, of_product) else 4
    shapes = ((3, positions, 10), (3, width))
    x, c = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    found, wanted = model(x, c), same(model, x, c)
    torch.testing.assert_close(found, wanted)
    along = [torch.randn_like(value) for value in wanted]
    torch.testing.assert_close(
        torch.autograd.grad(found, [x, c], along), torch.autograd.grad(wanted, [x, c], along)
    )
