"""A linear layer of an x with a number of dims, whose bias is of the last one, and formulas that go on from
the input."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor

SPECS = {
    # Rows of the last dim.
    "linear_rows": "dims: 3\nchain:\n  - linear: {in_features: 5, out_features: 7}\n  - softmax: {dim: 2}\n",
    # Rows of another dim, and of dims apart, so that the bias is a number of some rows.
    "linear_across": """
dims: 4
chain:
  - linear: {name: up, in_features: 5, out_features: 7}
  - softmax: {dim: 1}
  - logsumexp: {dim: [0, 2], keepdim: true}
  - expr: "tanh(up) + x"
""",
    # Parts along the last dim, where rows are of another.
    "linear_parts": """
dims: 3
chain:
  - linear: {in_features: 5, out_features: 6}
  - expr: {formula: "gate * tanh(up)", parts: [gate, up], dim: 2}
  - softmax: {dim: 1}
""",
    # What the chain starts from, after parts of it that are narrower.
    "linear_again": """
dims: 3
outputs: [most, y, b]
chain:
  - expr: {formula: "tanh(a)", parts: {a: 2, b: 3}}
  - amax: {name: most, dim: 2}
  - expr: "sigmoid(input)"
  - mul: {name: y, other: input}
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(
        tmp_path_factory, "linear_of_dims", {n: f"order: 1\n{text}" for n, text in SPECS.items()}
    )


def rows(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    return (model.linear(x).softmax(2),)


def across(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    up = model.up(x)
    return (up.tanh() + up.softmax(1).logsumexp((0, 2), keepdim=True),)


def parts(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    gate, up = model.linear(x).chunk(2, 2)
    return ((gate * up.tanh()).softmax(1),)


def again(_: Any, x: Tensor) -> tuple[Tensor, ...]:
    a, b = x.split((2, 3), 2)
    return a.tanh().amax(2), x.sigmoid() * x, b


CASES: dict[str, tuple[Callable[..., tuple[Tensor, ...]], tuple[int, ...]]] = {
    "linear_rows": (rows, (2, 3, 5)),
    "linear_across": (across, (2, 3, 4, 5)),
    "linear_parts": (parts, (2, 3, 5)),
    "linear_again": (again, (2, 3, 5)),
}


@pytest.mark.parametrize("name", SPECS)
def test_values_and_gradients_are_those_of_torch(
    packages: dict[str, ModuleType], name: str
) -> None:
    torch.manual_seed(1)
    same, shape = CASES[name]
    model = packages[name].Module().double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wanted = [x, *model.parameters()]

    def derivatives(found: Any) -> list[Tensor]:
        torch.manual_seed(2)
        values = found if isinstance(found, tuple) else (found,)
        loss = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in values)
        return [*values, *torch.autograd.grad(loss, wanted)]

    own, other = derivatives(model(x)), derivatives(same(model, x))
    for value, expected in zip(own, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
