"""Attention that is spelled out: which forms become torch's own, with the same values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.captured import outcome, tidied
from torch import Tensor, fx
from torch.nn import functional

from fusegen.models.attention import use_attention
from fusegen.models.effects import effects_of
from fusegen.models.regions import find_regions

pytestmark = pytest.mark.slow  # each case is captured by torch: 12 seconds

Q, K, V = (torch.randn(2, 3, *shape) for shape in ((5, 4), (7, 4), (7, 6)))
BIAS = torch.randn(2, 1, 5, 7)
SEEN = (torch.rand(5, 7) > 0.5).index_fill(1, torch.tensor(0), True)


def scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return (functional.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(2, 5, 18)


def wide(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(2, 3)) * 0.3 + bias
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(functional.dropout(weights, 0.5, training=False), v)


def viewed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (torch.softmax(q @ k.mT, -1) @ v).view(6, 5, 6)


def masked(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    return scores.masked_fill(seen == 0, float("-inf")).softmax(-1) @ v


def masked_by_a_number(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).masked_fill(~seen, -1e9).softmax(-1) @ v


def with_weights(q: Tensor, k: Tensor, v: Tensor) -> Any:
    weights = functional.softmax(q @ k.transpose(-2, -1), -1)
    return weights @ v, weights


def biased_before_the_scale(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return functional.softmax((q @ k.transpose(-2, -1) + bias) * 2, -1) @ v


def two_biases(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return functional.softmax(q @ k.transpose(-2, -1) + bias + 1, -1) @ v


def negative(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.softmax((q @ k.transpose(-2, -1)) * -1.0, -1) @ v


def over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.softmax(q @ k.transpose(-2, -1), dim=-2) @ v


def weights_second(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.mT @ functional.softmax(k @ q.mT, -1)


def replacing(form: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """Return a function with its attention replaced, and a list that will say how often."""
    counts: list[int] = []

    def backend(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        counts.append(use_attention(module.graph, tidied(module)))
        find_regions(module.graph, effects_of(module.graph))
        module.graph.lint()
        module.recompile()
        return module.forward

    torch._dynamo.reset()
    return torch.compile(form, backend=backend), counts


@pytest.mark.parametrize(
    ("form", "extra", "replaced"),
    [
        (scaled, (), 1),
        (wide, (BIAS,), 0),  # on a CPU, where there may be gradients
        (viewed, (), 1),
        (masked, (SEEN.float(),), 1),
        (masked_by_a_number, (SEEN,), 1),
        (masked_by_a_number, (SEEN.index_fill(0, torch.tensor(2), False),), 1),
        (masked_by_a_number, (SEEN[0],), 0),  # torch takes no mask of keys alone
        (with_weights, (), 0),
        (biased_before_the_scale, (BIAS,), 0),
        (two_biases, (BIAS,), 0),
        (negative, (), 0),
        (over_queries, (), 0),
        (weights_second, (), 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forms(
    form: Callable[..., Any], extra: tuple[Tensor, ...], replaced: int, dtype: torch.dtype
) -> None:
    inputs = [t.to(dtype) if t.is_floating_point() else t for t in (Q, K, V, *extra)]
    run, counts = replacing(form)
    found = outcome(run, tuple(inputs))
    assert counts == [replaced]
    exact = outcome(form, tuple(t.double() if t.is_floating_point() else t for t in inputs))
    eager = outcome(form, tuple(inputs))
    for value, other, true in zip(found, eager, exact, strict=True):
        scale = torch.finfo(dtype).eps * (1 + true.abs().max())
        assert (value - true).abs().max() <= (other - true).abs().max() * 2 + 4 * scale
        assert value.dtype is dtype and value.stride() == other.stride()


def test_a_bias_without_gradients() -> None:
    """Of a row that a bias hides torch's attention on a CPU computes wrong gradients, but right values."""
    bias = BIAS.index_fill(2, torch.tensor(2), torch.finfo(torch.float32).min)
    run, counts = replacing(wide)
    with torch.no_grad():
        torch.testing.assert_close(run(Q, K, V, bias), wide(Q, K, V, bias))
    assert counts == [1]


@pytest.mark.parametrize("form", [wide, masked_by_a_number])
def test_a_mask_is_as_kernels_for_a_gpu_take_it(form: Callable[..., Any]) -> None:
    """Of three dims or with columns apart, as of a table of distances: torch would write the weights."""
    given = torch.randn(5, 7, 3).permute(2, 0, 1)
    mask = given if form is wide else given > 0
    taken: list[Tensor] = []
    attend = functional.scaled_dot_product_attention

    def noting(*args: Any, **kwargs: Any) -> Tensor:
        taken.append(kwargs["attn_mask"])
        return attend(*args, **kwargs)

    run, counts = replacing(form)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        exact = form(Q, K, V, mask)
        patch.setattr("fusegen.models.attention.functional.scaled_dot_product_attention", noting)
        torch.testing.assert_close(run(Q, K, V, mask), exact)
    assert counts == [1]
    assert [(mask.dim(), mask.stride(-1)) for mask in taken] == [(4, 1)]
