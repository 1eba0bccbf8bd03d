"""Values that are computed before their chain becomes larger keep their own size in the steps after it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor

from fusegen.base.errors import SpecError
from fusegen.chain.chains import derive_all, larger_operands
from fusegen.spec import parse
from fusegen.spec.chains import chains_of

SPECS = {
    # A gate, named again after what it multiplies is reduced.
    "gate_again": """
dims: 4
outputs: [gate, m, y]
chain:
  - tanh: {name: t}
  - adaptive_avg_pool2d: {name: pooled, output_size: 1}
  - sigmoid: {name: gate}
  - mul: {name: big, other: t}
  - mean: {name: m, dim: [2, 3], keepdim: true}
  - add: {name: y, other: gate}
""",
    # An operand in some of x's dims, in a formula without x, and then by an op.
    "operand_again": """
dims: 4
operands: {c: {dims: [0, 2]}}
chain:
  - tanh: {name: t}
  - expr: {name: w, formula: "swish(c)"}
  - expr: {name: big, formula: "w * t"}
  - logsumexp: {name: v, dim: -1, keepdim: true}
  - expr: {formula: "w * tanh(v)"}
  - add: w
  - sum: {dim: [1, 3], keepdim: true}
""",
    # Reduced by itself: copies do not count.
    "reduced_again": """
dims: 4
operands: {c: {dims: [0, 2]}}
chain:
  - tanh: {name: t}
  - expr: {name: w, formula: "swish(c)"}
  - expr: {name: big, formula: "w + t"}
  - expr: {name: s, formula: "sum(w)", dim: -1}
  - expr: "big * t + s"
""",
    # The input is larger than what the first step gives.
    "gate_of_input": """
dims: 4
outputs: [gate, m, y]
chain:
  - adaptive_avg_pool2d: {name: pooled, output_size: 1}
  - sigmoid: {name: gate}
  - mul: {name: big, other: input}
  - mean: {name: m, dim: [2, 3], keepdim: true}
  - add: {name: y, other: gate}
""",
    "gate_of_input_later": """
dims: 4
chain:
  - tanh
  - adaptive_avg_pool2d: {output_size: 1}
  - sigmoid
  - mul: input
""",
    # A part of the input, which is smaller.
    "parts_of_input": """
dims: 4
outputs: [w, y]
chain:
  - expr: {name: w, formula: "swish(b) * a", parts: {a: 1, b: 1}, dim: 1}
  - expr: "x * sigmoid(input)"
  - softmax: {name: y, dim: 1}
""",
    # An operand is larger than what the first step gives, and is not the largest.
    "operand_before": """
dims: 4
operands: {c: {dims: [0, 2]}}
outputs: [a, y]
chain:
  - adaptive_avg_pool2d: {output_size: 1}
  - mul: {name: a, other: c}
  - mul: {name: y, other: input}
""",
    # Named again by a step that computes each element by itself.
    "by_element_again": """
dims: 4
outputs: [y, z]
chain:
  - tanh: {name: t}
  - adaptive_avg_pool2d: {name: pooled, output_size: 1}
  - sigmoid: {name: gate}
  - mul: {name: y, other: t}
  - expr: {name: z, formula: "tanh(gate)"}
""",
    # The same beside an operand that a call may pass as large as x, or smaller.
    "beside_full": """
dims: 4
operands: {w: full}
outputs: [y, z, u]
chain:
  - adaptive_avg_pool2d: {name: pooled, output_size: 1}
  - sigmoid: {name: gate}
  - mul: {name: y, other: input}
  - expr: {name: z, formula: "tanh(gate) * w"}
  - expr: {name: u, formula: "gate * gate"}
""",
    # Twice in one chain.
    "larger_twice": """
dims: 4
chain:
  - tanh: {name: t}
  - expr: {name: row, formula: "mean(t)", dim: 3}
  - adaptive_avg_pool2d: {name: pooled, output_size: 1, of: t}
  - sigmoid
  - mul: row
  - gelu
  - mul: t
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "small_values", SPECS)


def _swish(c: Tensor) -> Tensor:
    return (c * c.sigmoid())[:, None, :, None]


def gate_again(x: Tensor) -> tuple[Tensor, ...]:
    gate = x.tanh().mean((2, 3), keepdim=True).sigmoid()
    m = (gate * x.tanh()).mean((2, 3), keepdim=True)
    return gate, m, m + gate


def operand_again(x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    w = _swish(c)
    v = (w * x.tanh()).logsumexp(-1, keepdim=True)
    return ((w * v.tanh() + w).sum((1, 3), keepdim=True),)


def reduced_again(x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    w = _swish(c)
    return ((w + x.tanh()) * x.tanh() + w.sum(-1, keepdim=True),)


def gate_of_input(x: Tensor) -> tuple[Tensor, ...]:
    gate = x.mean((2, 3), keepdim=True).sigmoid()
    m = (gate * x).mean((2, 3), keepdim=True)
    return gate, m, m + gate


def gate_of_input_later(x: Tensor) -> tuple[Tensor, ...]:
    return (x.tanh().mean((2, 3), keepdim=True).sigmoid() * x,)


def parts_of_input(x: Tensor) -> tuple[Tensor, ...]:
    a, b = x.split(1, 1)
    w = b * b.sigmoid() * a
    return w, (w * x.sigmoid()).softmax(1)


def larger_twice(x: Tensor) -> tuple[Tensor, ...]:
    t = x.tanh()
    gate = t.mean((2, 3), keepdim=True).sigmoid()
    return (torch.nn.functional.gelu(gate * t.mean(3, keepdim=True)) * t,)


def operand_before(x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    a = x.mean((2, 3), keepdim=True) * c[:, None, :, None]
    return a, a * x


def by_element_again(x: Tensor) -> tuple[Tensor, ...]:
    gate = x.tanh().mean((2, 3), keepdim=True).sigmoid()
    return gate * x.tanh(), gate.tanh()


def beside_full(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    gate = x.mean((2, 3), keepdim=True).sigmoid()
    return gate * x, gate.tanh() * w, gate * gate


OF_OPERANDS = (operand_again, reduced_again, operand_before)


@pytest.mark.parametrize(
    "same",
    [
        *(gate_again, *OF_OPERANDS),
        *(gate_of_input, gate_of_input_later, parts_of_input, larger_twice, by_element_again),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 4, 4), (2, 1, 3, 1)])
def test_values_and_two_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType],
    same: Callable[..., tuple[Tensor, ...]],
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(1)
    model: Any = packages[same.__name__].Module().double()
    shape = (shape[0], 2, *shape[2:]) if same is parts_of_input else shape
    shapes = [shape, (shape[0], shape[2])] if same in OF_OPERANDS else [shape]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    _compare(model, same, inputs)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (3, 1, 1), (4, 5), (1,)])
def test_a_full_operand_may_be_larger_than_a_small_value(
    packages: dict[str, ModuleType], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    model: Any = packages["beside_full"].Module().double()
    shapes = ((2, 3, 4, 5), shape)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    _compare(model, beside_full, inputs)


def _compare(
    model: Callable[..., Any], same: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor]
) -> None:
    """Compare values, gradients and second derivatives."""

    def derivatives(values: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        values = values if isinstance(values, tuple) else (values,)
        torch.manual_seed(2)
        loss = torch.stack([(torch.randn_like(v) * v.sin()).sum() for v in values]).sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        again = torch.stack([(torch.randn_like(v) * v).sum() for v in first]).sum()
        return [*values, *first, *torch.autograd.grad(again, inputs)]

    for value, wanted in zip(derivatives(model(*inputs)), derivatives(same(*inputs)), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-9)


def test_what_is_as_large_as_its_chain_starts_none() -> None:
    """A norm of a sum keeps its size: what is named after it is in the same kernel."""
    chain = (
        "[{tanh: {name: t}}, {linear: {name: a}}, {add: t}, {layer_norm: {eps: 1e-6}}, {add: a}]"
    )
    spec = parse(f"arguments: {{in_features: int, out_features: int}}\nchain: {chain}\n", "norm")
    assert len(chains_of(spec)) == 2


@pytest.mark.parametrize("formula", ["x * t + sum(w)", "mean(x) + w"])
def test_a_step_that_reduces_beside_a_small_value_is_refused(formula: str) -> None:
    steps = '{tanh: {name: t}}, {expr: {name: w, formula: "swish(c)"}}, {expr: "w * t"}'
    text = f'dims: 3\noperands: {{c: {{dims: [0]}}}}\nchain: [{steps}, {{expr: "{formula}"}}]\n'
    with pytest.raises(SpecError, match="takes w, which may be smaller than what reaches it"):
        parse(text, "refused")


def test_what_is_reduced_is_not_made_larger() -> None:
    """A step that sums a small value beside a larger one would sum copies: its sizes must fit."""
    chain = '[{tanh: {name: t}}, {expr: {name: w, formula: "swish(c)"}}, {expr: "sum(w) * t"}]'
    spec = parse(f"dims: 3\noperands: {{c: {{dims: [0]}}}}\nchain: {chain}\n", "sum")
    assert larger_operands(derive_all(spec).fused[1], {"t"}) == []
