"""Recurrent cells and an attention of one projection, each one `Module`: parts of products, and products of
other inputs than x."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor, nn

from fusegen.base.errors import SpecError
from fusegen.spec import parse

HEAD = "arguments: {size: int, hidden: int}\norder: 1\n"
SPECS = {
    "cell_lstm": """
operands: {h: full, c: full}
outputs: [next_h, next_c]
chain:
  - linear: {name: ih, in_features: size, out_features: 4 * hidden}
  - linear: {name: hh, of: h, in_features: hidden, out_features: 4 * hidden}
  - add: ih
  - expr: {name: next_c, formula: "sigmoid(f) * c + sigmoid(i) * tanh(g)", parts: [i, f, g, o]}
  - expr: {name: next_h, formula: "sigmoid(o) * tanh(next_c)"}
""",
    "cell_gru": """
operands: {h: full}
chain:
  - linear: {name: ih, in_features: size, out_features: 3 * hidden}
  - expr: {name: reset, formula: xr, parts: [xr, xz, xn]}
  - linear: {name: hh, of: h, in_features: hidden, out_features: 3 * hidden}
  - expr: {name: new, formula: "tanh(xn + sigmoid(reset + hr) * hn)", parts: [hr, hz, hn]}
  - expr: "new + sigmoid(xz + hz) * (h - new)"
""",
    "cell_attention": """
operands: {start: {kind: factor, init: randn, shape: [1, hidden]}}
chain:
  - linear: {name: qkv, in_features: size, out_features: 3 * hidden}
  - expr: {name: query, formula: "q * 0.25", parts: [q, k, v]}
  - matmul: {of: query, other: k.T}
  - softmax
  - matmul: {name: mixed, other: v}
  - linear: {name: first, of: start, in_features: hidden, out_features: hidden}
  - sigmoid
  - mul: mixed
""",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    texts = {name: HEAD + text for name, text in SPECS.items()}
    return packages_of_texts(tmp_path_factory, "cells", texts)


def weights(model: Any) -> tuple[Tensor, ...]:
    return model.ih.weight, model.hh.weight, model.ih.bias, model.hh.bias


def attention(model: Any) -> Callable[[Tensor], Tensor]:
    def of(x: Tensor) -> Tensor:
        q, k, v = model.qkv(x).chunk(3, -1)
        mixed = ((q * 0.25) @ k.mT).softmax(-1) @ v
        result: Tensor = model.first(model.start).sigmoid() * mixed
        return result

    return of


#: Torch's own cell for a model, and the widths of what both take.
TORCH: dict[str, tuple[Callable[[Any], Callable[..., Any]], tuple[int, ...]]] = {
    "cell_lstm": (
        lambda model: lambda x, h, c: torch.lstm_cell(x, (h, c), *weights(model)),
        (3, 5, 5),
    ),
    "cell_gru": (lambda model: lambda x, h: torch.gru_cell(x, h, *weights(model)), (3, 5)),
    "cell_attention": (attention, (3,)),
}


@pytest.mark.parametrize("name", SPECS)
def test_it_is_torchs(name: str, cells: dict[str, ModuleType]) -> None:
    """By kernels, and step by step where a product has a hook."""
    torch.manual_seed(0)
    model = cells[name].Module(3, 5, dtype=torch.float64)
    cell, widths = TORCH[name]
    given = [torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in widths]
    leaves = [*given, *model.parameters()]
    for hooked in (False, True):
        if hooked:
            for held in (m for m in model.children() if isinstance(m, nn.Linear)):
                held.register_forward_hook(lambda *_: None)
        found = []
        for function in (model, cell(model)):
            values = function(*given)
            values = values if isinstance(values, tuple) else (values,)
            total = sum(value.sin().sum() for value in values)
            found.append([*values, *torch.autograd.grad(total, leaves)])
        for got, wanted in zip(*found, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_parts_are_no_inputs_of_forward(cells: dict[str, ModuleType]) -> None:
    taken = {n: [*inspect.signature(p.Module.forward).parameters] for n, p in cells.items()}
    assert taken == {
        "cell_lstm": ["self", "x", "h", "c"],
        "cell_gru": ["self", "x", "h"],
        "cell_attention": ["self", "x"],
    }


STARTS = "arguments: {size: int}\noperands: {h: %s}\nchain:\n  - linear: {name: a%s}\n"
NEXT = "  - linear: {name: b, of: h, in_features: size, out_features: size}\n  - add: a\n"
SIZES = ", in_features: size, out_features: size"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (STARTS % ("full", f"{SIZES}, of: h") + "  - gelu\n", "the first product starts from x", 4),
        (STARTS % ("row", SIZES) + NEXT, "linear starts from 'h': declare it of kind factor or", 5),
        ("dims: 3\n" + STARTS % ("{dims: [0]}", SIZES) + NEXT, "of kind factor or full", 6),
        (STARTS % ("{kind: full, dtype: bool}", SIZES) + NEXT, "does not hold floating-point", 5),
    ],
)
def test_a_product_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "example")
    assert caught.value.line == line
