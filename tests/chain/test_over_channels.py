"""Reductions over all dims but the channels: x is read where it lies, in either memory format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import built_texts
from shared.layouts import channels_last, copied
from torch import Tensor
from torch.nn import functional as F

from fusegen.chain import Chain
from fusegen.tools.check import verify


@dataclass(frozen=True)
class Case:
    """A spec, what computes the same in torch, and what it is called with.

    Args:
        text: the spec.
        function: the same in torch.
        rank: the number of dims of x.
        operands: the dims that each operand has beside x's channels, or of those that are as large as x.
        by_channel: whether kernels have the channels as columns; a copy is made otherwise.
    """

    text: str
    function: Callable[..., Any]
    rank: int
    operands: Mapping[str, str]
    by_channel: bool = True


def normalised(x: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


def scaled(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    found = normalised(x + residual, (0, 2, 3)) * weight.view(-1, 1, 1) + bias
    return F.gelu(found), x + residual


def statistics(x: Tensor, one: Tensor) -> tuple[Tensor, ...]:
    mean = x.mean((0, 2))
    return mean, mean * one


def listed(x: Tensor, of_channels: Tensor, of_rest: Tensor, mask: Tensor) -> Tensor:
    x = x.masked_fill(mask, 0.5) * of_channels.view(-1, 1, 1, 1)
    x = x - x.sum((0, 2, 3, 4), keepdim=True) * of_rest
    return torch.linalg.vector_norm(x, 2, (0, 2, 3, 4)).tanh()


CASES = {
    # A batch norm spelled out, after a residual sum that is returned too.
    "over_norm": Case(
        """
dims: 4
operands: {weight: channel, bias: channel, residual: full}
outputs: [y, total]
chain:
  - add: {name: total, other: residual}
  - expr: {formula: "x - mean(x)", dim: [0, 2, 3]}
  - expr: {formula: "x * rsqrt(mean(x**2) + 1e-5)", dim: [0, 2, 3]}
  - expr: "x * weight + bias"
  - gelu: {name: y}
""",
        scaled,
        4,
        {"weight": "C", "bias": "C11", "residual": "x"},
    ),
    # Statistics alone, without dims, of which one has a gradient that is a sum over the channels.
    "over_mean": Case(
        """
dims: 3
operands: {one: scalar}
outputs: [mean, more]
chain:
  - mean: {name: mean, dim: [0, 2]}
  - mul: {name: more, other: one}
""",
        statistics,
        3,
        {"one": ""},
        by_channel=False,
    ),
    "over_var": Case(
        """
dims: 3
chain:
  - var: {dim: [0, 2], keepdim: true}
  - expr: "log(1 + x)"
""",
        lambda x: x.var((0, 2), keepdim=True).log1p(),
        3,
        {},
    ),
    "over_listed": Case(
        """
dims: 5
operands: {of_channels: {dims: [1]}, of_rest: col, mask: {kind: full, dtype: bool}}
chain:
  - masked_fill: {mask: mask, value: 0.5}
  - expr: {formula: "x * of_channels - sum(x * of_channels) * of_rest", dim: [0, 2, 3, 4]}
  - norm: {dim: [0, 2, 3, 4]}
  - tanh
""",
        listed,
        5,
        {"of_channels": "C", "of_rest": "rest", "mask": "mask"},
    ),
    # No kernel finds a maximum over rows: x is copied.
    "over_softmax": Case(
        """
dims: 4
chain:
  - softmax: {dim: [0, 2, 3]}
  - expr: "x * x"
""",
        lambda x: (
            x.movedim(1, -1)
            .flatten(0, 2)
            .softmax(0)
            .square()
            .unflatten(0, x[:, 0].shape)
            .movedim(-1, 1)
        ),
        4,
        {},
        by_channel=False,
    ),
}
DROPOUT = """
dims: 4
order: 1
outputs: [kept, y]
chain:
  - dropout: {name: kept, p: 0.5}
  - expr: {name: y, formula: "x - mean(x)", dim: [0, 2, 3]}
"""
TEXTS = {name: case.text for name, case in CASES.items()} | {"over_dropout": DROPOUT}
BY_CHANNEL = [name for name, case in CASES.items() if case.by_channel]
#: How x lies: what makes a tensor of a shape.
LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "last": channels_last,
    "sliced": lambda x: torch.cat([x, x, x], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "columns": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "reversed": lambda x: (
        x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    ),
}
Packages = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    dtypes = dict.fromkeys(TEXTS, ("float64", "float32", "bfloat16"))
    return built_texts(tmp_path_factory, "over_channels", TEXTS, dtypes)


def given(name: str, seed: int, lies: str) -> dict[str, Tensor]:
    """Return random inputs of a random shape."""
    generator = torch.Generator().manual_seed(seed)
    case = CASES[name]
    sizes = torch.randint(1, 9, (case.rank,), generator=generator).tolist()
    shape = (sizes[0] + 1, *sizes[1:])

    def made(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=torch.float64, generator=generator)

    channels, ones = shape[1], (1,) * (case.rank - 2)
    found = {"x": LIES[lies](made(*shape))}
    for operand, dims in case.operands.items():
        found[operand] = {
            "C": lambda: made(channels),
            "C11": lambda: made(channels, *ones),
            "x": lambda: made(*shape),
            "rest": lambda: made(shape[0], 1, *shape[2:]),
            "mask": lambda: made(*shape) < -0.5,
            "": lambda: made(),
        }[dims]()
    return {n: t if t.dtype is torch.bool else t.requires_grad_() for n, t in found.items()}


def derivatives(found: Any, wanted: list[Tensor], seed: int) -> list[Tensor]:
    """Return values, their gradients and those of these, along random directions."""
    generator = torch.Generator().manual_seed(seed)
    values = found if isinstance(found, tuple) else (found,)

    def summed(tensors: Any) -> Tensor:
        drawn = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in tensors)
        return torch.stack([(d * t).sum() for d, t in zip(drawn, tensors, strict=True)]).sum()

    first = torch.autograd.grad(summed([v.sin() for v in values]), wanted, create_graph=True)
    return [*values, *first, *torch.autograd.grad(summed(first), wanted)]


@pytest.mark.parametrize("lies", LIES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_torch(
    packages: Packages, name: str, lies: str
) -> None:
    for seed in range(950100, 950106):
        tensors = given(name, seed, lies)
        wanted = [t for t in tensors.values() if t.requires_grad]
        own = derivatives(packages[name][1].apply(**tensors), wanted, seed)
        other = derivatives(CASES[name].function(**tensors), wanted, seed)
        for value, expected in zip(own, other, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_channels_are_columns_where_all_is_summed(packages: Packages, name: str) -> None:
    (segment,) = packages[name][0].segments
    assert (segment.layout.columns == (1 - CASES[name].rank,)) == CASES[name].by_channel


@pytest.mark.parametrize("lies", ["contiguous", "last"])
@pytest.mark.parametrize("name", BY_CHANNEL)
def test_nothing_is_copied(packages: Packages, name: str, lies: str) -> None:
    tensors = given(name, 950107, lies)
    for operand, dims in CASES[name].operands.items():
        if dims == "x":
            tensors[operand] = LIES[lies](tensors[operand].detach()).requires_grad_()
        if dims == "mask":
            del tensors[operand]
    if "mask" in CASES[name].operands:
        tensors["mask"] = LIES[lies](torch.zeros(tensors["x"].shape).double()).bool()
    found = packages[name][1].apply(**tensors)  # the first call loads more
    with torch.profiler.profile() as forward:
        found = packages[name][1].apply(**tensors)
    values = found if isinstance(found, tuple) else (found,)
    cotangents = [
        LIES[lies](torch.ones(v.shape, dtype=v.dtype)) if v.dim() > 1 else torch.ones_like(v)
        for v in values
    ]
    with torch.profiler.profile() as backward:
        (grad,) = torch.autograd.grad(values, tensors["x"], cotangents)
    assert not copied(backward)
    assert not copied(forward) - ({"aten::copy_"} if "mask" in tensors else set())  # it is cast
    assert grad.stride() == tensors["x"].stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_every_dtype_is_as_exact_as_the_reference_allows(
    packages: Packages, name: str, dtype: torch.dtype
) -> None:
    chain, package = packages[name]
    for seed in (950108, 950109):
        shape = tuple(given(name, seed, "contiguous")["x"].shape)
        case = verify.make_case(chain, shape, training=False, device="cpu")
        for error in verify.compare(package, chain, case, dtype):
            assert error.within, f"{name} {shape}: {error}"


def test_an_empty_batch_is_one_of_torch(packages: Packages) -> None:
    for shape in ((0, 3, 2), (2, 0, 3), (2, 3, 0)):
        x = torch.randn(shape, dtype=torch.float64)
        mean, _ = packages["over_mean"][1].apply(x, torch.tensor(2.0, dtype=torch.float64))
        torch.testing.assert_close(mean, x.mean((0, 2)), equal_nan=True)


def test_transforms_and_compilers(packages: Packages) -> None:
    tensors = {n: t.detach() for n, t in given("over_norm", 950110, "contiguous").items()}
    apply, torchs = packages["over_norm"][1].apply, CASES["over_norm"].function

    def loss(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda x, **others: function(x, **others)[0].sin().sum()

    x, others = tensors["x"], {n: t for n, t in tensors.items() if n != "x"}
    batch = torch.stack([x, x.flip(0), 2 * x])
    for transform in (
        lambda f: torch.func.vmap(torch.func.grad(lambda x: loss(f)(x, **others)))(batch),
        lambda f: torch.func.jvp(lambda x: loss(f)(x, **others), (x,), (x.cos(),))[1],
        lambda f: torch.func.grad(loss(f))(x, **others),
    ):
        torch.testing.assert_close(transform(apply), transform(torchs), rtol=1e-8, atol=1e-8)
    torch.compiler.reset()
    compiled = torch.compile(apply, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x, **others), torchs(x, **others))


@pytest.mark.parametrize("lies", ["contiguous", "last"])
def test_dropout_draws_the_same_bits_in_both_passes(packages: Packages, lies: str) -> None:
    x = LIES[lies](torch.randn(4, 3, 5, 6, dtype=torch.float64)).requires_grad_()
    kept, y = packages["over_dropout"][1].apply(x, training=True, seed=5)
    again = x * (kept != 0) * 2
    expected = again - again.mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    found, wanted = (torch.autograd.grad((weight * v).sum(), x) for v in (y, expected))
    torch.testing.assert_close(found, wanted)
