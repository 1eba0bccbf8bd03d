"""A formula of operands alone starts a chain: the activation before a product that modulates, as in DiT."""

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
    "operand_alone": """
arguments: {width: int}
dims: 3
operands: {c: {dims: [0, 2]}}
outputs: [y, gated]
chain:
  - layer_norm: {name: normed, eps: 1e-6}
  - expr: {name: act, formula: "swish(c)"}
  - linear: {name: ada, of: act, in_features: width, out_features: 3 * width}
  - expr: {name: y, formula: "normed * (1 + scale) + shift", parts: [shift, scale, gate], of: ada}
  - expr: {name: gated, formula: "input + gate * tanh(y)"}
""",
    # Of kind factor, with another operand, and of a parameter.
    "operand_of_any_shape": """
arguments: {width: int}
operands: {c: factor, w: {kind: scalar, init: ones}, k: {kind: factor, init: randn, shape: [width, width]}}
outputs: [act, end]
chain:
  - linear: {name: up, in_features: width, out_features: width}
  - expr: {name: act, formula: "softmax(c) * w"}
  - linear: {name: more, of: act, in_features: width, out_features: width}
  - expr: {name: turned, formula: "tanh(k)"}
  - matmul: {name: product, of: more, other: turned}
  - gelu: {name: last}
  - expr: {name: end, formula: "exp(up) + sum(last)"}
""",
    # Smaller than what it is then combined with, and returned as it is, also after a step of rows.
    "operand_smaller": """
arguments: {width: int}
dims: 3
operands: {c: {dims: [0, 2]}, d: {dims: [2]}}
outputs: [ada, soft, y]
chain:
  - layer_norm: {name: normed, eps: 1e-6}
  - linear: {name: ada, of: c, in_features: width, out_features: width, bias: false}
  - expr: {name: larger, formula: "normed * tanh(ada)"}
  - expr: {name: soft, formula: "softmax(d) * d"}
  - expr: {name: y, formula: "larger + exp(soft)"}
""",
    # Without a product, beside x, with steps of its own rows.
    "operand_beside_x": """
dims: 4
operands: {c: full, d: {dims: [0, 1]}}
outputs: [m, y]
chain:
  - tanh: {name: t}
  - expr: {formula: "c * sigmoid(c) + d"}
  - mean: {name: m, dim: [0, 2], keepdim: true}
  - expr: {name: y, formula: "t * m"}
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "formula_of_operand", SPECS)


def modulated(model: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    shift, scale, gate = model.ada(F.silu(c)).reshape(len(c), 1, -1).chunk(3, -1)
    y = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return y, x + gate * y.tanh()


def of_any_shape(model: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    act = c.softmax(-1) * model.w
    last = F.gelu(model.more(act) @ model.k.tanh())
    return act, model.up(x).exp() + last.sum(-1, keepdim=True)


def smaller(model: Any, x: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    ada = model.ada(c)[:, None]
    soft = d.softmax(-1) * d
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return ada, soft[None, None], normed * ada.tanh() + soft.exp()


def beside_x(_: Any, x: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    m = (c * c.sigmoid() + d[..., None, None]).mean((0, 2), keepdim=True)
    return m, x.tanh() * m


CASES: list[tuple[str, Callable[..., tuple[Tensor, ...]], tuple[tuple[int, ...], ...]]] = [
    ("operand_alone", modulated, ((3, 5, 7), (3, 7))),
    ("operand_alone", modulated, ((3, 5, 7), (3, 1, 7))),
    ("operand_alone", modulated, ((5, 5, 5), (5, 5))),
    ("operand_alone", modulated, ((1, 4, 3), (1, 3))),
    ("operand_of_any_shape", of_any_shape, ((6, 5), (6, 5))),
    ("operand_smaller", smaller, ((3, 5, 7), (3, 7), (7,))),
    ("operand_smaller", smaller, ((4, 4, 4), (4, 4), (4,))),
    ("operand_beside_x", beside_x, ((2, 3, 5, 7), (2, 3, 5, 7), (2, 3))),
]


@pytest.mark.parametrize(("name", "same", "shapes"), CASES)
def test_values_and_two_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType],
    name: str,
    same: Callable[..., tuple[Tensor, ...]],
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    torch.manual_seed(1)
    width = [] if name == "operand_beside_x" else [shapes[0][-1]]
    model = packages[name].Module(*width).double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    wanted = [*inputs, *model.parameters()]

    def derivatives(values: tuple[Tensor, ...]) -> list[Tensor]:
        torch.manual_seed(2)
        loss = sum((torch.randn(v.shape, dtype=v.dtype) * v.sin()).sum() for v in values)
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        again = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in first)
        return [*values, *first, *torch.autograd.grad(again, wanted)]

    own, other = derivatives(model(*inputs)), derivatives(same(model, *inputs))
    for value, expected in zip(own, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


@pytest.mark.parametrize(
    ("operands", "chain", "message"),
    [
        ("{c: full}", '[{expr: "swish(c)"}, {linear: {}}]', "put a step of x before it"),
        ("{c: col}", '[{tanh: {name: t}}, {expr: "c * c"}]', "declare it with `dims`, or of kind"),
        (
            "{c: factor, d: factor}",
            '[{tanh: {name: t}}, {expr: "c * d"}]',
            "declare it of another kind",
        ),
        ("{c: {kind: full, dtype: bool}}", '[tanh, {expr: "where(c, 1, 2)"}]', "does not depend"),
    ],
)
def test_what_starts_no_chain_is_refused_with_a_remedy(
    operands: str, chain: str, message: str
) -> None:
    text = f"arguments: {{in_features: int, out_features: int}}\noperands: {operands}\nchain: {chain}\n"
    with pytest.raises(SpecError, match=message):
        parse(text, "refused")
