"""A mean of rows that operands make larger again, of which the first may be of size 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor

SPECS = {
    "larger_twice": """
dims: 3
operands: {a: full, b: full}
chain:
  - mean: {dim: 1, keepdim: true}
  - add: a
  - tanh
  - mul: b
""",
    # By a value of another segment, beside one that is returned.
    "larger_by_value": """
dims: 3
operands: {a: full, b: full}
outputs: [m, e]
chain:
  - mean: {dim: 2, keepdim: true, name: m}
  - expr: "x * tanh(a)"
  - expr: "x + b"
  - expr: {name: e, formula: "x * sigmoid(input)"}
""",
    # What would be another value if it were larger.
    "larger_too_late": """
dims: 3
operands: {a: full, b: full}
chain:
  - mean: {dim: 1, keepdim: true}
  - add: a
  - softmax: {dim: 1}
  - mul: b
""",
    "larger_than_product": """
order: 1
operands: {w: full}
outputs: [gelu, softmax]
chain:
  - conv2d: {name: conv, in_channels: 3, out_channels: 2, kernel_size: 3}
  - gelu
  - mul: w
  - softmax: {dim: 1}
""",
    "larger_than_x": "order: 1\noperands: {w: full}\nchain: [tanh, mul: w]\n",
    "larger_after_softmax": "operands: {w: full}\nchain: [softmax, mul: w]\n",
    "larger_and_returned": """
dims: 3
operands: {a: full, b: full}
outputs: [sum, product]
chain:
  - mean: {dim: 1, keepdim: true}
  - add: {name: sum, other: a}
  - mul: {name: product, other: b}
""",
}


def later(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (x.mean(1, keepdim=True) + a).tanh() * b


def by_value(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    m = x.mean(2, keepdim=True)
    return m, (m * a.tanh() + b) * x.sigmoid()


def too_late(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (x.mean(1, keepdim=True) + a).softmax(1) * b


def returned(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    total = x.mean(1, keepdim=True) + a
    return total, total * b


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "larger_later", SPECS)


@pytest.mark.parametrize("called", ["Module", "apply"])
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("larger_twice", later),
        ("larger_by_value", by_value),
        ("larger_too_late", too_late),
        ("larger_and_returned", returned),
    ],
)
def test_operands_of_any_sizes_give_what_torch_gives_or_a_message(
    packages: dict[str, ModuleType], name: str, same: Callable[..., Any], called: str
) -> None:
    torch.manual_seed(1)
    package, refused = packages[name], 0
    model = package.Module().double() if called == "Module" else package.apply
    for a, b in itertools.product(itertools.product((1, 3), (1, 5), (1, 7)), repeat=2):
        inputs = [
            torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 5, 7), a, b)
        ]

        def derivatives(found: Any, inputs: list[Tensor] = inputs) -> list[Tensor]:
            torch.manual_seed(2)
            values = found if isinstance(found, tuple) else (found,)
            loss = sum((torch.randn(v.shape, dtype=v.dtype) * v.sin()).sum() for v in values)
            first = torch.autograd.grad(loss, inputs, create_graph=True)
            again = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in first)
            return [*values, *first, *torch.autograd.grad(again, inputs)]

        if a[1] == 1 and b[1] == 5 and same in (too_late, returned):
            refused += 1
            with pytest.raises(ValueError, match="put them into a spec of their own"):
                model(*inputs)
            continue
        for value, expected in zip(
            derivatives(model(*inputs)), derivatives(same(*inputs)), strict=True
        ):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    assert refused in (0, 16)


@pytest.mark.parametrize("shape", [(5, 2, 4, 4), (2, 4, 4), (4, 1), (3, 1, 1, 4)])
def test_an_operand_may_be_larger_than_a_product(
    packages: dict[str, ModuleType], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(3)
    model = packages["larger_than_product"].Module().double()
    x, w = (torch.randn(s).double().requires_grad_() for s in ((1, 3, 6, 6), shape))
    first = torch.nn.functional.gelu(torch.nn.functional.conv2d(x, *model.conv.parameters()))
    leaves = [x, w, *model.parameters()]
    results = []
    for values in (model(x, w), (first, (first * w).softmax(1))):
        given = [torch.ones_like(values[0]), torch.linspace(0, 1, values[1].numel()).double()]
        slopes = torch.autograd.grad(values, leaves, [given[0], given[1].view_as(values[1])])
        results.append([*values, *slopes])
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 2, 4, 4), (2, 4, 4), (3, 1, 1, 4)])
def test_apply_broadcasts_as_a_module_does(
    packages: dict[str, ModuleType], shape: tuple[int, ...]
) -> None:
    """Both what it starts from, and a value that it returns and computes before: that has its own size."""
    torch.manual_seed(4)
    product, bias, w = (
        torch.randn(s).double().requires_grad_() for s in ((1, 2, 4, 4), (2,), shape)
    )
    first = torch.nn.functional.gelu(product + bias.view(-1, 1, 1))
    results = []
    for values in (
        packages["larger_than_product"].apply(product, w, bias),
        (first, (first * w).softmax(1)),
    ):
        loss = sum((v * torch.linspace(0, 1, v.numel()).double().view_as(v)).sum() for v in values)
        assert isinstance(loss, Tensor)
        results.append([*values, *torch.autograd.grad(loss, [product, bias, w])])
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 3), (2, 1, 3)])
def test_a_later_operand_that_is_larger_is_refused_with_a_remedy(
    packages: dict[str, ModuleType], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"w: expected shape .*put them into a spec of their own"):
        packages["larger_after_softmax"].apply(
            torch.randn(1, 3).double(), torch.randn(shape).double()
        )


def test_an_operand_may_be_larger_than_x(packages: dict[str, ModuleType]) -> None:
    """Where a spec says the number of dims, none is added."""
    x, w = torch.randn(1, 3).double(), torch.randn(5, 2, 3).double()
    for called in (packages["larger_than_x"].Module(), packages["larger_than_x"].apply):
        torch.testing.assert_close(called(x, w), x.tanh() * w)
    with pytest.raises(ValueError, match=r"w: expected shape \(1, 2, 4, 4\).*a chain adds none"):
        packages["larger_than_product"].Module()(
            torch.randn(1, 3, 6, 6), torch.randn(5, 1, 2, 4, 4)
        )
