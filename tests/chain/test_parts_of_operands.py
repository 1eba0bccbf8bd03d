"""Parts of an operand: the shift, the scale and the gate of a modulation, as in diffusion transformers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.spec import parse

SPECS = {
    # One kernel each way; a part has no use.
    "modulated_once": """
dims: 3
operands: {modulation: {dims: [0, 2]}}
outputs: [y, gated]
chain:
  - layer_norm: {eps: 1e-6}
  - expr: {name: y, formula: "x * (1 + scale) + shift", parts: [shift, scale, _, gate], of: modulation}
  - expr: {name: gated, formula: "input + gate * tanh(y)"}
""",
    # With the product that computes it, and a table of parameters along another dim.
    "modulated_by_linear": """
arguments: {width: int}
dims: 3
operands: {c: {dims: [0, 2]}, table: {dims: [0, 1, 2], init: randn, shape: [1, 2, width]}}
outputs: [y, gated]
chain:
  - layer_norm: {name: normed, eps: 1e-6}
  - linear: {name: ada, of: c, in_features: width, out_features: 3 * width}
  - expr: {name: y, formula: "normed * (1 + scale) + shift", parts: [shift, scale, gate], of: ada}
  - expr: {name: gated, formula: "input + gate * tanh(y) * a + b", parts: {a: 1, b: 1}, of: table, dim: 1}
""",
    # Of different widths, and of x at the same time.
    "modulated_parts": """
arguments: {width: int}
operands: {both: {kind: col, init: randn, shape: [width]}, rest: full}
chain:
  - linear: {name: up, in_features: width, out_features: 6}
  - expr: {formula: "x * scale + more", parts: {scale: width - 2, _1: 1, more: 1}, of: both}
  - softmax
  - expr: {formula: "x * first * last", parts: [first, last], of: rest, dim: -1}
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "parts_of_operands", SPECS)


def modulated(_: Any, x: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
    shift, scale, _1, gate = modulation.chunk(4, -1)
    y = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return y, x + gate * y.tanh()


def by_linear(model: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    shift, scale, gate = model.ada(c).chunk(3, -1)
    a, b = model.table.chunk(2, 1)
    y = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return y, x + gate * y.tanh() * a + b


def with_parts(model: Any, x: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
    scale, _, more = model.both.split((6, 1, 1), -1)
    first, last = rest.chunk(2, -1)
    return ((model.up(x) * scale + more).softmax(-1) * first * last,)


#: The constructor's arguments, what computes the same in torch, and the shapes of a call's inputs.
CASES: dict[
    str, tuple[tuple[int, ...], Callable[..., tuple[Tensor, ...]], list[tuple[int, ...]]]
] = {
    "modulated_once": ((), modulated, [(3, 5, 7), (3, 1, 28)]),
    "modulated_by_linear": ((7,), by_linear, [(3, 5, 7), (3, 1, 7)]),
    "modulated_parts": ((8,), with_parts, [(5, 8), (5, 12)]),
}


@pytest.mark.parametrize("name", SPECS)
def test_values_and_two_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType], name: str
) -> None:
    torch.manual_seed(1)
    sizes, same, shapes = CASES[name]
    model = packages[name].Module(*sizes).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    wanted = [*inputs, *model.parameters()]

    def derivatives(found: Any) -> list[Tensor]:
        torch.manual_seed(2)
        values = found if isinstance(found, tuple) else (found,)
        loss = sum((torch.randn(v.shape, dtype=v.dtype) * v.sin()).sum() for v in values)
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        again = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in first)
        return [*values, *first, *torch.autograd.grad(again, wanted)]

    own, other = derivatives(model(*inputs)), derivatives(same(model, *inputs))
    for value, expected in zip(own, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


def test_an_operand_that_has_not_so_many_parts_is_refused_by_a_call(
    packages: dict[str, ModuleType],
) -> None:
    with pytest.raises(RuntimeError, match="multiply up to the size"):
        packages["modulated_once"].Module()(torch.randn(3, 5, 7), torch.randn(3, 1, 27))


HEAD = "dims: 3\noperands: {m: {dims: [0, 2]}, one: scalar}\nchain:\n  - add: one\n  "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- expr: {formula: x * a, of: m}", "name them, as in parts"),
        ("- expr: {formula: x * a, parts: [a, b], of: m}", "no step uses b, a part of m"),
        (
            "- expr: {formula: x * a * b, parts: [a, b], of: n}",
            "an operand or an earlier step, not n",
        ),
        ("- expr: {formula: x * a * b, parts: [a, b], of: one}", "'one' has no parts beside x"),
        ("- expr: {formula: x * a * b, parts: [a, b], of: m, alternating: true}", "leave it out"),
    ],
)
def test_what_a_spec_cannot_say_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(f"{HEAD}{text}\n", "modulated")
