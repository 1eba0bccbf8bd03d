"""Derivatives that read a returned value: right in every mode and order, and what came in is not kept."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import built_texts
from torch import Tensor
from torch.nn import functional as F

from fusegen.chain import Chain, derive
from fusegen.spec import parse

#: A norm of a sum that is returned too: its backward needs only the sum.
RESIDUAL = """
order: 3
operands: {residual: full, weight: {kind: col}}
outputs: [norm, total]
chain:
  - add: {name: total, other: residual}
  - rms_norm: {name: norm, weight: weight, eps: 1e-6}
"""
SOFTMAX = """
order: 3
operands: {bias: {kind: col}}
chain: [{mul: 0.7}, {add: bias}, softmax]
"""
SOFTMIN = """
order: 3
dims: 3
chain: [{softmin: {dim: 1}}]
"""
#: The value is positive where the sum is.
RELU = """
order: 3
operands: {residual: full}
chain: [{add: residual}, relu]
"""
#: The same of a sum of which one tensor is needed besides.
LEAKY = """
order: 3
operands: {weight: {kind: col}, residual: full}
chain: [{mul: weight}, {add: residual}, {leaky_relu: {negative_slope: 0.2}}]
"""
TEXTS = {
    "kept_residual": RESIDUAL,
    "kept_softmax": SOFTMAX,
    "kept_softmin": SOFTMIN,
    "kept_relu": RELU,
    "kept_leaky": LEAKY,
}
#: What each backward takes an output in the place of, as the places of both.
KEPT = {
    "kept_residual": ((0, 1), (1, 1)),
    "kept_softmax": ((0, 0),),
    "kept_softmin": ((0, 0),),
    "kept_relu": ((0, 0), (1, 0)),
    "kept_leaky": ((2, 0),),
}


def residual(x: Tensor, r: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return F.rms_norm(x + r, x.shape[-1:], weight, eps=1e-6), x + r


BY_TORCH: dict[str, Callable[..., Any]] = {
    "kept_residual": residual,
    "kept_softmax": lambda x, b: (x * 0.7 + b).softmax(-1),
    "kept_softmin": lambda x: F.softmin(x, 1),
    "kept_relu": lambda x, r: F.relu(x + r),
    "kept_leaky": lambda x, w, r: F.leaky_relu(x * w + r, 0.2),
}
SHAPES = {
    "kept_residual": [(3, 5), (3, 5), (5,)],
    "kept_softmax": [(3, 5), (5,)],
    "kept_softmin": [(2, 3, 2)],
    "kept_relu": [(3, 5), (3, 5)],
    "kept_leaky": [(3, 5), (5,), (3, 5)],
}
Packages = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    dtypes = dict.fromkeys(TEXTS, ("float64", "bfloat16", "float32"))
    return built_texts(tmp_path_factory, "kept_values", TEXTS, dtypes)


def drawn(name: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES[name]]


def loss(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return a number that depends on every element of every output in another way."""

    def of(*tensors: Tensor) -> Tensor:
        out = function(*tensors)
        values = out if isinstance(out, tuple) else (out,)
        terms = [(v * (1.3 + torch.arange(v.numel()).reshape(v.shape))).sin() for v in values]
        return torch.stack([t.sum() for t in terms]).sum()

    return of


@pytest.mark.parametrize("name", TEXTS)
def test_every_mode_of_differentiation_agrees_with_torch(packages: Packages, name: str) -> None:
    """The reverse goes by way of the returned value, forward mode by that of x."""
    ours, theirs = loss(packages[name][1].apply), loss(BY_TORCH[name])
    given, places = drawn(name), tuple(range(len(SHAPES[name])))
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            found = outer(inner(ours, places), places)(*given)
            wanted = torch.func.jacrev(torch.func.jacrev(theirs, places), places)(*given)
            torch.testing.assert_close(found, wanted, msg=f"{outer} of {inner}")


@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck_and_its_gradient_in_both_modes(packages: Packages, name: str) -> None:
    function = packages[name][1].apply
    given = tuple(t.requires_grad_() for t in drawn(name))
    torch.autograd.gradcheck(function, given, check_forward_ad=True)
    torch.autograd.gradgradcheck(function, given, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", ["kept_residual", "kept_softmax"])
def test_third_derivative(packages: Packages, name: str) -> None:
    found = []
    for function in (packages[name][1].apply, BY_TORCH[name]):
        x, *rest = [t.requires_grad_() for t in drawn(name)]
        value = loss(function)(x, *rest)
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = gradient.square().sum()
        found.append(gradient)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_saved_is_what_was_returned(packages: Packages, name: str) -> None:
    package = packages[name][1]
    given = [t.requires_grad_() for t in drawn(name)]
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = package.apply(*given)
    values = out if isinstance(out, tuple) else (out,)
    operator = package._chain.operators("same")[0]
    assert operator.kept == KEPT[name]
    for place, output in KEPT[name]:
        assert saved[place] == values[output].data_ptr()
        assert given[place].data_ptr() not in saved


@pytest.mark.parametrize("name", TEXTS)
def test_compiled_graphs_and_checkpoints(packages: Packages, name: str) -> None:
    function = packages[name][1].apply
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")

    def checkpointed(*tensors: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(function, *tensors, use_reentrant=False)

    gradients = []
    for way in (BY_TORCH[name], function, compiled, checkpointed):
        given = [t.requires_grad_() for t in drawn(name)]
        loss(way)(*given).backward()
        gradients.append([t.grad for t in given])
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0])


@pytest.mark.parametrize("name", ["kept_softmax", "kept_residual", "kept_relu", "kept_leaky"])
def test_16_bits_are_as_exact_as_torch(packages: Packages, name: str) -> None:
    """torch reads the same rounded value."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(257, 65) if len(s) > 1 else (65,) for s in SHAPES[name]]
    given = [torch.randn(s, generator=generator).bfloat16() for s in shapes]

    def gradient(function: Callable[..., Any], dtype: torch.dtype) -> Tensor:
        x, *rest = (t.to(dtype).requires_grad_() for t in given)
        out = function(x, *rest)
        value = out[0] if isinstance(out, tuple) else out
        along = torch.randn(value.shape, generator=torch.Generator().manual_seed(7)).bfloat16()
        return torch.autograd.grad(value, x, along.to(dtype))[0].double()

    truth = gradient(BY_TORCH[name], torch.float64)
    ours = (gradient(packages[name][1].apply, torch.bfloat16) - truth).norm()
    theirs = (gradient(BY_TORCH[name], torch.bfloat16) - truth).norm()
    assert ours <= 1.1 * theirs


def test_rows_without_a_softmax_are_nan_as_in_torch(packages: Packages) -> None:
    """A row that is hidden as a whole, and one with an infinity."""
    rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    rows[1], rows[2, 3], rows[3, 0] = -torch.inf, torch.inf, -torch.inf
    found = []
    for function in (packages["kept_softmax"][1].apply, BY_TORCH["kept_softmax"]):
        x = rows.clone().requires_grad_()
        function(x, torch.zeros(5)).backward(torch.ones(4, 5).cumsum(1))
        found.append(x.grad)
    torch.testing.assert_close(*found, equal_nan=True)
    assert found[0][1].isnan().all()
    assert found[0][3].isfinite().all()


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("gelu's derivative needs x", "chain: [gelu, softmax]"),
        ("exp has more digits where it is computed again", "chain: [exp]"),
        ("a probability that was dropped is 0", "chain: [softmax, {dropout: {p: 0.1}}]"),
        (
            "its maximum was found of numbers that were not rounded",
            "operands: {r: full}\noutputs: [top, total]\n"
            "chain: [{add: {name: total, other: r}}, {amax: {name: top, dim: -1}}]",
        ),
        (
            "a rounded number may lie beyond the threshold",
            "operands: {r: full}\noutputs: [cut, total]\n"
            "chain: [{add: {name: total, other: r}}, {hardtanh: {name: cut}}]",
        ),
        (
            "the slope's own sign is not known",
            "operands: {w: col, r: full}\n"
            "chain: [{add: r}, {expr: {formula: 'where(x > 0, x, x * w)'}}]",
        ),
        (
            "more of the sum is read than its sign",
            "operands: {r: full}\noutputs: [cut, smooth]\nchain: [{add: {name: total, other: r}}, "
            "{relu: {name: cut}}, {expr: {name: smooth, formula: 'gelu(total)'}}]",
        ),
        (
            "the weight's gradient needs x",
            "operands: {w: {kind: col}}\nchain: [{mul: w}, softmax]",
        ),
    ],
)
def test_what_is_not_read_from_a_returned_value(why: str, text: str) -> None:
    training = derive(parse(f"{text}\n", "some")).segments[0].modes[0]
    assert not training.programs[1].kept, why
