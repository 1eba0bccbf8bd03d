"""Operands that have only the dims along which they vary, such as a modulation of [batch, 3 features]."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor
from torch.nn import functional as F

from fusegen.runtime.along_dims import along_dims

SPECS = {
    # An operand and its parts, with a step that torch may have to call.
    "few_parts": """
dims: 3
operands: {row: {dims: [0, 1]}, col: {dims: [0, 2]}, m: {dims: [0, 2]}}
outputs: [y, gated, end]
chain:
  - layer_norm: {eps: 1e-6}
  - expr: {name: y, formula: "x * (1 + scale) + shift", parts: [shift, scale, _, gate], of: m}
  - expr: {name: gated, formula: "input + gate * tanh(y) + row * col"}
  - dropout: 0.2
  - add: {name: end, other: gated}
""",
    # What a product starts from, whose parts and whose value the steps use.
    "few_products": """
arguments: {width: int}
dims: 3
operands: {c: {dims: [0, 2]}, row: {dims: [0, 1]}}
outputs: [y, end]
chain:
  - layer_norm: {name: normed, eps: 1e-6}
  - linear: {name: ada, of: c, in_features: width, out_features: 2 * width}
  - linear: {name: more, of: c, in_features: width, out_features: width}
  - expr: {name: y, formula: "normed * (1 + scale) + shift * more + row", parts: [shift, scale], of: ada}
  - dropout: 0.2
  - expr: {name: end, formula: "x * normed"}
""",
    # One axis of its own, which kernels sum over.
    "few_axis": """
dims: 4
operands: {scale: {dims: [0, 3]}, bias: {dims: [0, 1]}}
chain:
  - rms_norm: {eps: 1e-6}
  - expr: "x * scale + bias"
""",
    # Rows of dims that are no neighbours.
    "few_apart": """
dims: 4
operands: {scale: {dims: [0, 2]}, bias: {dims: [1, 3]}}
chain:
  - layer_norm: {dim: [1, 3], eps: 1e-6}
  - expr: "x * scale + bias"
""",
    # Larger than the mean that reaches it, and parts of x.
    "few_larger": """
dims: 3
operands: {scale: {dims: [0, 2]}, bias: {dims: [0, 2]}}
chain:
  - expr: {formula: "tanh(a) * b * scale", parts: [a, b], dim: 1}
  - mean: {dim: 2, keepdim: true}
  - add: bias
""",
    # What a formula starts from: only the sizes of x say that torch does not align it.
    "few_started": """
dims: 4
operands: {c: {dims: [0, 1, 3]}}
chain:
  - rms_norm: {name: normed, eps: 1e-6}
  - expr: {name: w, formula: "swish(c)"}
  - expr: "normed * tanh(w)"
""",
}
#: Sizes of x: some are equal, and some are 1.
SHAPES: dict[int, list[tuple[int, ...]]] = {
    3: [(3, 4, 7), (4, 4, 7), (6, 6, 6), (1, 4, 3), (4, 2, 1)],
    4: [(3, 5, 2, 7), (2, 2, 3, 2), (3, 3, 3, 3), (1, 3, 1, 3), (2, 1, 2, 1)],
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "few_dims", SPECS)


def parts(_: Any, x: Tensor, row: Tensor, col: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    shift, scale, _1, gate = m[:, None].chunk(4, -1)
    y = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    gated = x + gate * y.tanh() + row[..., None] * col[:, None]
    return y, gated, 2 * gated


def products(model: Any, x: Tensor, c: Tensor, row: Tensor) -> tuple[Tensor, ...]:
    shift, scale = model.ada(c)[:, None].chunk(2, -1)
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    y = normed * (1 + scale) + shift * model.more(c)[:, None] + row[..., None]
    return y, y * normed


def axis(_: Any, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    found = F.rms_norm(x, x.shape[-1:], eps=1e-6)
    return (found * scale[:, None, None] + bias[..., None, None],)


def apart(_: Any, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    centred = x - x.mean((1, 3), keepdim=True)
    found = centred * (centred.square().mean((1, 3), keepdim=True) + 1e-6).rsqrt()
    return (found * scale[:, None, :, None] + bias[:, None],)


def larger(_: Any, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    a, b = x.chunk(2, 1)
    return ((a.tanh() * b * scale[:, None]).mean(2, keepdim=True) + bias[:, None],)


def started(_: Any, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return (F.rms_norm(x, x.shape[-1:], eps=1e-6) * F.silu(c).tanh()[:, :, None],)


#: How many dims x has, what computes the same in torch, and the dims of each operand, with the times that the
#: last of them is as large as x's.
CASES: dict[str, tuple[int, Callable[..., tuple[Tensor, ...]], list[tuple[tuple[int, ...], int]]]]
CASES = {
    "few_parts": (3, parts, [((0, 1), 1), ((0, 2), 1), ((0, 2), 4)]),
    "few_products": (3, products, [((0, 2), 1), ((0, 1), 1)]),
    "few_axis": (4, axis, [((0, 3), 1), ((0, 1), 1)]),
    "few_apart": (4, apart, [((0, 2), 1), ((1, 3), 1)]),
    "few_larger": (3, larger, [((0, 2), 1), ((0, 2), 1)]),
    "few_started": (4, started, [((0, 1, 3), 1)]),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "step by step"])
def test_values_and_two_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType], name: str, hooked: bool
) -> None:
    torch.manual_seed(1)
    rank, same, operands = CASES[name]
    for shape in SHAPES[rank]:
        if name == "few_larger" and shape[1] % 2:
            continue
        model = packages[name].Module(*([shape[-1]] if "products" in name else [])).double().eval()
        if hooked and hasattr(model, "dropout"):
            model.dropout.register_forward_hook(lambda *_: None)
        sizes = [[*(shape[d] for d in dims)] for dims, _ in operands]
        sizes = [[*s[:-1], s[-1] * n] for s, (_, n) in zip(sizes, operands, strict=True)]
        inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [shape, *sizes]]
        wanted = [*inputs, *model.parameters()]

        def derivatives(found: Any, wanted: list[Tensor] = wanted) -> list[Tensor]:
            torch.manual_seed(2)
            values = found if isinstance(found, tuple) else (found,)
            loss = sum((torch.randn(v.shape, dtype=v.dtype) * v.sin()).sum() for v in values)
            first = torch.autograd.grad(loss, wanted, create_graph=True)
            again = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in first)
            return [*values, *first, *torch.autograd.grad(again, wanted)]

        own, other = derivatives(model(*inputs)), derivatives(same(model, *inputs))
        for value, expected in zip(own, other, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["few_parts", "few_products", "few_axis"])
def test_a_compiler_sees_the_same_with_sizes_that_change(
    packages: dict[str, ModuleType], name: str
) -> None:
    rank, same, operands = CASES[name]
    for shape in SHAPES[rank][:3]:
        model = packages[name].Module(*([shape[-1]] if "products" in name else [])).double().eval()
        sizes = [[*(shape[d] for d in dims[:-1]), shape[dims[-1]] * n] for dims, n in operands]
        inputs = [torch.randn(s, dtype=torch.float64) for s in [shape, *sizes]]
        compiled = torch.compile(model, backend="aot_eager", dynamic=True)
        found, wanted = compiled(*inputs), same(model, *inputs)
        for value, expected in zip(
            found if isinstance(found, tuple) else (found,), wanted, strict=True
        ):
            torch.testing.assert_close(value, expected)


def test_a_message_says_the_shape_that_was_given(packages: dict[str, ModuleType]) -> None:
    x, row = torch.randn(3, 5, 2, 7), torch.randn(3, 5)
    with pytest.raises(ValueError, match=r"scale: expected .* got \(2, 7\)"):
        packages["few_axis"].Module()(x.double(), torch.randn(2, 7).double(), row.double())


def test_what_torch_aligns_is_never_taken_for_something_else() -> None:
    """Where both fit, they are the same."""
    rng = random.Random(24)
    for _ in range(3000):
        rank = rng.randrange(2, 6)
        x = [rng.choice((1, 1, 2, 3)) for _ in range(rank)]
        dims = tuple(sorted(rng.sample(range(-rank, 0), rng.randrange(1, rank))))
        exact = [x[d] for d in dims]
        aligned = [n if d in dims and rng.random() < 0.7 else 1 for d, n in enumerate(x, -rank)]
        aligned = aligned[-len(dims) :]
        own = along_dims(torch.zeros(exact), dims, x)
        assert list(own.shape) == [n if d in dims else 1 for d, n in enumerate(x, -rank)]
        other = along_dims(torch.zeros(aligned), dims, x)
        assert list(other.shape) == [1] * (rank - len(dims)) + aligned
