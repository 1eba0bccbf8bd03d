"""Parts of different widths: torch cuts a tensor into views, and each view that steps go on from has kernels
of its own."""

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
    # Grouped-query attention: the heads of keys and values are fewer.
    "sized_heads": """
arguments: {heads: int, groups: int, head: int}
operands: {of_query: {kind: col, init: ones, shape: [head]}, of_key: {kind: col, init: ones, shape: [head]}}
dims: 4
outputs: [query, key, v]
chain:
  - expr: {formula: "q", parts: {q: heads, k: groups, v: -1}, dim: 2}
  - rms_norm: {name: query, weight: of_query, eps: 1e-6}
  - expr: "k"
  - rms_norm: {name: key, weight: of_key, eps: 1e-6}
""",
    # Mamba's projection: what is gated is as wide as its gate, the rest is not; one part has no use.
    "sized_state": """
arguments: {width: int, inner: int, state: int}
operands: {bias: {kind: col, init: zeros, shape: [3]}}
outputs: [kept, weighed, step]
chain:
  - linear: {name: proj, in_features: width, out_features: 2 * inner + 3 * state + 3}
  - tanh
  - expr: {formula: "swish(z) * h", parts: {z: inner, h: inner, B: state, C: state, _1: -1, dt: 3}}
  - softmax
  - mul: {name: kept, other: z}
  - expr: {name: weighed, formula: "B * C + mean(B)"}
  - expr: "dt"
  - add: bias
  - softplus: {name: step}
""",
    # The parts of an earlier value, in the middle of a program, and a product of one.
    "sized_later": """
arguments: {width: int, low: int, rope: int}
chain:
  - linear: {name: down, in_features: width, out_features: low + rope}
  - layer_norm: {eps: 1e-6}
  - expr: {formula: "2 * turned", name: key, parts: {latent: low, turned: rope}, dim: -1}
  - linear: {name: up, of: latent, in_features: low, out_features: rope}
  - gelu
  - add: key
  - rms_norm: {eps: 1e-6}
""",
    # The input itself.
    "sized_input": """
operands: {target: {kind: row, dtype: int64}}
outputs: [loss, rest]
chain:
  - expr: {formula: "logits", parts: {box: 4, logits: -1}}
  - cross_entropy: {name: loss, target: target, reduction: none}
  - expr: {name: rest, formula: "tanh(box)"}
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "parts_of_sizes", SPECS)


def heads(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    q, k, v = x.split((5, 2, x.shape[2] - 7), 2)
    query = F.rms_norm(q, q.shape[-1:], model.of_query, 1e-6)
    return query, F.rms_norm(k, k.shape[-1:], model.of_key, 1e-6), v


def state(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    z, h, b, c, _, dt = model.proj(x).tanh().split((7, 7, 4, 4, 4, 3), -1)
    gated = F.silu(z) * h
    return gated.softmax(-1) * z, b * c + b.mean(-1, keepdim=True), F.softplus(dt + model.bias)


def later(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    down = model.down(x)
    latent, turned = F.layer_norm(down, down.shape[-1:], eps=1e-6).split((6, 3), -1)
    mixed = F.gelu(model.up(latent)) + 2 * turned
    return (F.rms_norm(mixed, mixed.shape[-1:], eps=1e-6),)


def of_input(_: Any, x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    box, logits = x.split((4, x.shape[-1] - 4), -1)
    return F.cross_entropy(logits, target, reduction="none"), box.tanh()


#: Of each package: the constructor's arguments, what computes the same in torch, and a call's inputs.
CASES: dict[str, tuple[tuple[int, ...], Callable[..., tuple[Tensor, ...]], tuple[int, ...]]] = {
    "sized_heads": ((5, 2, 9), heads, (2, 3, 8, 9)),
    "sized_state": ((6, 7, 4), state, (2, 5, 6)),
    "sized_later": ((5, 6, 3), later, (7, 5)),
    "sized_input": ((), of_input, (6, 15)),
}


def made(
    packages: dict[str, ModuleType], name: str
) -> tuple[Any, Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """Return a Module with random parameters, the same in torch, and inputs."""
    torch.manual_seed(1)
    sizes, same, shape = CASES[name]
    model = packages[name].Module(*sizes).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    given = [torch.randint(11, (6,))] if name == "sized_input" else []
    return model, same, [torch.randn(shape, dtype=torch.float64, requires_grad=True), *given]


def outputs(model: Any, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    found = model(*inputs)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", SPECS)
def test_values_and_two_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType], name: str
) -> None:
    model, same, inputs = made(packages, name)
    wanted = [inputs[0], *model.parameters()]

    def derivatives(found: tuple[Tensor, ...]) -> list[Tensor]:
        torch.manual_seed(2)
        loss = sum((torch.randn_like(value) * value**2).sum() for value in found)
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        again = sum((torch.randn_like(value) * value).sum() for value in first)
        return [*found, *first, *torch.autograd.grad(again, wanted, allow_unused=True)]

    own, other = derivatives(outputs(model, inputs)), derivatives(same(model, *inputs))
    for value, expected in zip(own, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_a_part_that_no_loss_takes_has_a_gradient_of_zeros(packages: dict[str, ModuleType]) -> None:
    model, _, (x,) = made(packages, "sized_heads")
    outputs(model, [x])[1].sum().backward()
    assert x.grad is not None
    rest = torch.cat([x.grad[:, :, :5], x.grad[:, :, 7:]], 2)
    assert not rest.any()
    assert x.grad[:, :, 5:7].any()


@pytest.mark.parametrize("name", ["sized_state", "sized_input"])
def test_tangents_batches_and_graphs_are_those_of_torch(
    packages: dict[str, ModuleType], name: str
) -> None:
    model, same, (x, *rest) = made(packages, name)
    x = x.detach()
    tangent = torch.randn_like(x)

    def moved(call: Callable[..., tuple[Tensor, ...]]) -> Any:
        return torch.func.jvp(lambda value: call(value, *rest), (x,), (tangent,))

    torch.testing.assert_close(moved(model), moved(lambda *given: same(model, *given)))
    many = torch.stack([x, 2 * x])
    batched = torch.func.vmap(lambda value: model(value, *rest))(many)
    torch.testing.assert_close(batched[0][1], same(model, 2 * x, *rest)[0])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, *rest), same(model, x, *rest))


def test_sizes_that_do_not_fit_are_refused_by_a_call(packages: dict[str, ModuleType]) -> None:
    model, _, _ = made(packages, "sized_heads")
    with pytest.raises(RuntimeError, match="non-negative"):
        model(torch.randn(2, 3, 6, 9, dtype=torch.float64))


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            "- expr: {formula: a, parts: {a: 2, b: c}}",
            "the size of b must be a size, an int argument",
            2,
        ),
        ("- expr: {formula: a, parts: {a: -1, b: -1}}", "two parts of expr are of size -1", 2),
        ("- expr: {formula: a, parts: {a: 2, b: 3}}", "no step uses b", 2),
        ("- expr: {formula: a * b, parts: {a: 2}}", "must be two to 16 names", 2),
        ("- expr: {formula: a * x, parts: {a: 2, b: 3}}", "the parts of x are called a and b", 2),
        ("- expr: {formula: a - mean(b), parts: {a: 2, b: 3}}", "takes a row as a whole", 2),
        ("- relu\n  - expr: {formula: a * c, parts: {a: 2, b: 3}}", "unknown name 'c'", 3),
    ],
)
def test_what_a_spec_cannot_say_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        parse(f"chain:\n  {text}\n", "sized")
    assert refused.value.line == line
