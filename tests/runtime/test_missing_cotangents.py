"""An output from which nothing is computed: its cotangent is neither filled nor read, and costs no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import built_texts
from torch import Tensor
from torch.nn import functional as F

from fusegen.chain import Chain
from fusegen.runtime import derivative

NORM = """
operands: {residual: full}
outputs: [norm, total]
chain:
  - add: {name: total, other: residual}
  - rms_norm: {name: norm, eps: 1e-6}
"""
#: Without statistics, and with rows of any contiguous run.
POINTWISE = """
operands: {residual: full}
outputs: [act, total]
chain:
  - add: {name: total, other: residual}
  - gelu: {name: act}
"""
#: Columns with dims after them, in any memory format.
CHANNELS = """
dims: 4
operands: {residual: full}
outputs: [soft, total]
chain:
  - add: {name: total, other: residual}
  - softmax: {name: soft, dim: 1}
"""
GROUPS = """
dims: 3
operands: {residual: full}
outputs: [norm, total]
chain:
  - add: {name: total, other: residual}
  - group_norm: {name: norm, num_groups: 2, features: 6, affine: false}
"""
FIRST = """
dims: 2
operands: {residual: full}
outputs: [soft, total]
chain:
  - add: {name: total, other: residual}
  - softmax: {name: soft, dim: 0}
"""
SUMMED = {
    "missing_norm": NORM,
    "missing_pointwise": POINTWISE,
    "missing_channels": CHANNELS,
    "missing_groups": GROUPS,
    "missing_first": FIRST,
}
#: What models return and do not always use: the state of a cell, and what says how large logits are.
CELL = """
operands: {cell: full}
outputs: [next_hidden, next_cell]
chain:
  - expr: {name: next_cell, formula: "sigmoid(f) * cell + sigmoid(i) * tanh(g)", parts: [i, f, g, o]}
  - expr: {name: next_hidden, formula: "sigmoid(o) * tanh(next_cell)"}
"""
LOSS = """
operands: {target: {kind: row, dtype: int64}}
outputs: [loss, z]
chain:
  - cross_entropy: {name: loss, target: target, reduction: none}
  - expr: "input"
  - logsumexp: {name: z, dim: 1}
"""
TEXTS = {**SUMMED, "missing_cell": CELL, "missing_loss": LOSS}
AFTER: dict[str, Callable[[Tensor], Tensor]] = {
    "missing_norm": lambda t: F.rms_norm(t, t.shape[-1:], eps=1e-6),
    "missing_pointwise": F.gelu,
    "missing_channels": lambda t: t.softmax(1),
    "missing_groups": lambda t: F.group_norm(t, 2),
    "missing_first": lambda t: t.softmax(0),
}
SHAPES = {
    **dict.fromkeys(SUMMED, ((1, 1), (9, 33), (2, 3, 1023), (64,))),
    "missing_channels": ((1, 1, 1, 1), (3, 5, 7, 33), (2, 31, 4, 4)),
    "missing_groups": ((1, 6, 2), (5, 6, 33)),
    "missing_first": ((1, 1), (33, 9)),
}


@pytest.fixture(scope="module")
def without_cotangents(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Chain, ModuleType]]:
    """Gives the chain and the built package of each spec."""
    dtypes = dict.fromkeys(TEXTS, ("float64", "bfloat16"))
    return built_texts(tmp_path_factory, "missing_cotangents", TEXTS, dtypes)


Packages = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Gives the addresses of the tensors that derivatives are called with, call by call."""
    found: list[list[int]] = []
    kept = derivative.call

    def noting(operator: Any, args: Sequence[Any], **options: Any) -> Any:
        found.append([a.data_ptr() for a in args if isinstance(a, Tensor)])
        return kept(operator, tuple(args), **options)

    monkeypatch.setattr(derivative, "call", noting)
    return found


def orders(
    function: Callable[..., Any], x: Tensor, residual: Tensor, place: int
) -> tuple[Tensor, Tensor]:
    """Return the first derivative of one output by x, and the second."""
    value = function(x, residual)[place]
    weight = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    (first,) = torch.autograd.grad((value * weight).sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return first, second


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", SUMMED)
def test_derivatives_of_one_output_are_torchs(
    name: str, place: int, without_cotangents: Packages
) -> None:
    def by_torch(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return AFTER[name](x + residual), x + residual

    for shape in SHAPES[name]:
        x, residual = (
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)
        )
        formats = [x]
        if len(shape) == 4:
            formats.append(x.detach().to(memory_format=torch.channels_last).requires_grad_())
        for given in formats:
            found = orders(without_cotangents[name][1].apply, given, residual, place)
            wanted = orders(by_torch, given, residual, place)
            for got, expected in zip(found, wanted, strict=True):
                torch.testing.assert_close(got, expected)


#: Of each spec a shape, those of which an expanded row of zeros was copied or filled as a whole too.
LIES = [
    ("missing_norm", (64, 33), torch.contiguous_format),
    ("missing_pointwise", (64, 33), torch.contiguous_format),
    ("missing_pointwise", (64, 7), torch.contiguous_format),
    ("missing_channels", (1, 6, 4, 33), torch.contiguous_format),
    ("missing_channels", (8, 6, 4, 5), torch.channels_last),
    ("missing_groups", (64, 6, 33), torch.contiguous_format),
    ("missing_first", (33, 64), torch.contiguous_format),
    ("missing_cell", (64, 28), torch.contiguous_format),
    ("missing_loss", (64, 33), torch.contiguous_format),
]


def inputs(name: str, shape: tuple[int, ...], lies: torch.memory_format) -> list[Tensor]:
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=lies).requires_grad_()
    if name == "missing_loss":
        return [x, torch.randint(0, shape[1], shape[:1])]
    if name == "missing_cell":
        return [x, torch.randn(shape[0], shape[1] // 4, dtype=torch.float64)]
    return [x, torch.randn_like(x).requires_grad_()]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("name", "shape", "lies"), LIES)
def test_the_missing_one_takes_no_memory(
    name: str,
    shape: tuple[int, ...],
    lies: torch.memory_format,
    place: int,
    without_cotangents: Packages,
    taken: list[list[int]],
) -> None:
    """Its place has a tensor that the kernel reads anyway, as it is; nothing is filled."""
    given = inputs(name, shape, lies)
    outputs = without_cotangents[name][1].apply(*given)
    cotangent = torch.randn_like(outputs[place])
    known = {t.data_ptr() for t in (*given, *outputs, cotangent)}
    taken.clear()
    with torch.profiler.profile() as profile:
        torch.autograd.grad(outputs[place], given[0], cotangent)
    names = {event.key for event in profile.key_averages() if event.key.startswith("aten::")}
    assert names <= {"aten::detach"}
    (backward,) = taken
    tensors = len(given) + len(outputs)
    assert set(backward[:tensors]) <= known and len(set(backward[:tensors])) < tensors


def test_in_16_bits_and_in_channels_last(without_cotangents: Packages) -> None:
    x = torch.randn(3, 8, 5, 5).to(torch.bfloat16, memory_format=torch.channels_last)
    x.requires_grad_()
    residual = torch.randn_like(x)
    soft, _ = without_cotangents["missing_channels"][1].apply(x, residual)
    (got,) = torch.autograd.grad(soft.square().sum(), x)
    assert got.is_contiguous(memory_format=torch.channels_last)
    wide = x.detach().double().requires_grad_()
    wanted = (wide + residual.double()).softmax(1).square().sum()
    torch.testing.assert_close(
        got.double(), torch.autograd.grad(wanted, wide)[0], atol=4e-3, rtol=2e-2
    )
