"""Reductions over dims that are no neighbours, such as all but the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

import pytest
import torch
from conftest import shared
from shared.chains_of_texts import packages_of_texts
from shared.layouts import channels_last, copied
from torch import Tensor

from fusegen.base.errors import SpecError
from fusegen.spec import parse
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify

SPECS = {
    # What a batch norm in training computes, spelled out, with a number for each channel.
    "apart_channels": """
dims: 4
operands: {weight: channel, bias: channel, residual: full}
outputs: [mean, y]
chain:
  - add: residual
  - expr: {name: sum, formula: "x"}
  - mean: {name: mean, dim: [0, 2, 3], keepdim: true}
  - expr: "(sum - x) * weight + bias"
  - gelu: {name: y}
""",
    # Operands of rows, of columns and along some dims, and a mask; the rows are those of two dims apart.
    "apart_operands": """
dims: 4
operands: {rows: row, some: {dims: [1, 2]}, one: scalar, mask: {kind: full, dtype: bool}}
chain:
  - masked_fill: {mask: mask, value: 0}
  - expr: {formula: "x * some - mean(x) * rows + one", dim: [0, 2]}
  - norm: {dim: [0, 2]}
  - tanh
""",
    # Other rows after them. Putting these dims last twice does not put them back.
    "apart_again": """
dims: 5
order: 1
chain:
  - amax: {name: most, dim: [0, 3], keepdim: true}
  - expr: "input - x"
  - logsumexp: {dim: [2, 4], keepdim: true}
  - var: {dim: [1, 3]}
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "dims_apart", SPECS)


def channels(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
    both = x + residual
    mean = both.mean((0, 2, 3), keepdim=True)
    scaled = (both - mean) * weight.reshape(-1, 1, 1) + bias
    return mean, torch.nn.functional.gelu(scaled)


def operands(
    x: Tensor, rows: Tensor, some: Tensor, one: Tensor, mask: Tensor
) -> tuple[Tensor, ...]:
    x = x.masked_fill(mask, 0)
    x = x * some - x.mean((0, 2), keepdim=True) * rows + one
    return (torch.linalg.vector_norm(x, 2, (0, 2)).tanh(),)


def again(x: Tensor) -> tuple[Tensor, ...]:
    x = x - x.amax((0, 3), keepdim=True)
    return (x.logsumexp((2, 4), keepdim=True).var((1, 3)),)


#: What computes the same in torch, the shape of x, and those of operands; a mask has none.
Case = tuple[Callable[..., tuple[Tensor, ...]], tuple[int, ...], Mapping[str, tuple[int, ...]]]
CASES: dict[str, Case] = {
    "apart_channels": (
        channels,
        (3, 5, 2, 7),
        {"weight": (5,), "bias": (5, 1, 1), "residual": (5, 1, 7)},
    ),
    "apart_operands": (
        operands,
        (3, 5, 2, 7),
        {"rows": (1, 5, 1, 7), "some": (1, 5, 2, 1), "one": (1,), "mask": ()},
    ),
    "apart_again": (again, (2, 3, 2, 4, 3), {}),
}


def tensors(name: str, *, last: bool) -> dict[str, Tensor]:
    """Return the inputs of a package, with channels last in memory or not."""
    torch.manual_seed(3)
    _, shape, shapes = CASES[name]
    x = torch.randn((shape[0], *shape[2:], shape[1]), dtype=torch.float64).movedim(-1, 1)
    found = {"x": x if last else x.contiguous()}
    for operand, own in shapes.items():
        if own:
            found[operand] = torch.randn(own, dtype=torch.float64)
        else:
            found[operand] = torch.rand(shape) < 0.3
    return {n: t if t.dtype is torch.bool else t.requires_grad_() for n, t in found.items()}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_values_and_derivatives_are_those_of_torch(
    packages: dict[str, ModuleType], name: str, last: bool
) -> None:
    given = tensors(name, last=last)
    wanted = [tensor for tensor in given.values() if tensor.requires_grad]

    def derivatives(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        torch.manual_seed(4)
        values = found if isinstance(found, tuple) else (found,)
        loss = sum((torch.randn(v.shape, dtype=v.dtype) * v.sin()).sum() for v in values)
        twice = name != "apart_again"
        first = torch.autograd.grad(loss, wanted, create_graph=twice)
        if not twice:
            return [*values, *first]
        again = sum((torch.randn(v.shape, dtype=v.dtype) * v).sum() for v in first)
        return [*values, *first, *torch.autograd.grad(again, wanted)]

    own, other = derivatives(packages[name].apply(**given)), derivatives(CASES[name][0](**given))
    for value, expected in zip(own, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def test_a_row_operand_may_lack_the_dims_of_a_row(packages: dict[str, ModuleType]) -> None:
    given = tensors("apart_operands", last=False)
    expected = packages["apart_operands"].apply(**given)
    given["rows"] = given["rows"].detach().reshape(5, 7)
    torch.testing.assert_close(packages["apart_operands"].apply(**given), expected)


def test_channels_last_is_read_where_it_lies(packages: dict[str, ModuleType]) -> None:
    given = tensors("apart_channels", last=True)
    full = given["residual"].detach().expand(given["x"].shape)
    given["residual"] = channels_last(full).requires_grad_()
    packages["apart_channels"].apply(**given)  # the first call loads more
    with torch.profiler.profile() as forward:
        _, y = packages["apart_channels"].apply(**given)
    cotangent = channels_last(torch.randn(y.shape, dtype=torch.float64))
    with torch.profiler.profile() as backward:
        grads = torch.autograd.grad(y, [given["x"], given["residual"]], cotangent)
    assert not copied(forward) and not copied(backward)
    for found in (y, *grads):
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_results_lie_as_torchs(packages: dict[str, ModuleType]) -> None:
    found = packages["apart_channels"].apply(**tensors("apart_channels", last=False))
    assert all(value.is_contiguous() for value in found)


def test_the_reference_reduces_the_same_dims(
    packages: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in SPECS:
        chain = pipeline.derive(shared(tmp_path_factory) / "dims_apart" / f"{name}.yaml")
        case = verify.make_case(chain, CASES[name][1], training=False, device="cpu")
        for error in verify.compare(packages[name], chain, case, torch.float64):
            assert error.within, f"{name}: {error}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dims: 4\nchain:\n  - mean: {dim: [0, 2, -2]}\n", r"\[0, 2, -2\] have one twice"),
        (
            "dims: 4\nchain:\n  - layer_norm: {elementwise_affine: true, dim: [1, 3], features: [2, 3]}\n",
            "has parameters for the last dim",
        ),
        ("chain:\n  - mean: {dim: [0, 2]}\n", "needs an activation of several dims"),
    ],
)
def test_dims_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(text, "apart")
