"""Tensors of which a backward reads no number are not kept for it, and what stands for them is right."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import built_texts
from torch import Tensor

from fusegen.chain import Chain, derive
from fusegen.render.declared_modes import declared_mode
from fusegen.spec import parse

#: Linear in x; its table gets no gradient.
TURNED = """
order: 2
operands: {cos: {kind: full, gradient: false}, sin: {kind: full, gradient: false}}
chain:
  - expr: {name: turned, formula: "rotate_half(x)"}
  - expr: {formula: "input * cos + x * sin"}
"""
#: Nothing is read of what is added.
ADDED = """
order: 2
operands: {residual: full}
chain: [{expr: {formula: "0.5 * x + residual"}}]
"""
#: x is read, the residual is not.
GATED = """
order: 2
operands: {residual: full}
chain: [{gelu: {}}, {add: residual}]
"""
#: A reduced result: its cotangent does not lie as x does.
REDUCED = """
order: 2
operands: {residual: full}
outputs: [total, mean]
chain: [{expr: {name: total, formula: "2 * x + residual"}}, {mean: {name: mean, dim: -1}}]
"""
#: The same of a residual beside an x that is read.
BESIDE = """
order: 2
operands: {residual: full}
outputs: [total, mean]
chain:
  - gelu
  - add: {name: total, other: residual}
  - mean: {name: mean, dim: -1}
"""
#: x is not read, and has a second derivative.
SHOWN = """
order: 2
operands: {u: {kind: full, gradient: false}, weight: col}
chain: [{expr: {formula: "weight * straight_through(tanh(u), x) ** 2"}}]
"""
TEXTS = {
    "unread_turned": TURNED,
    "unread_added": ADDED,
    "unread_gated": GATED,
    "unread_reduced": REDUCED,
    "unread_beside": BESIDE,
}
#: The places of what is not kept, each with what stands for it.
UNREAD = {
    "unread_turned": ((0, -1),),
    "unread_added": ((0, -1), (1, -1)),
    "unread_gated": ((1, -1),),
    "unread_reduced": (),
    "unread_beside": ((1, 0),),
}


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat((-other, one), -1) * sin


def reduced(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    total = 2 * x + r
    return total, total.mean(-1)


def beside(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.nn.functional.gelu(x) + r
    return total, total.mean(-1)


def shown(x: Tensor, u: Tensor, weight: Tensor) -> Tensor:
    return weight * (u.tanh() + (x - x.detach())) ** 2


BY_TORCH: dict[str, Callable[..., Any]] = {
    "unread_turned": turned,
    "unread_added": lambda x, r: 0.5 * x + r,
    "unread_gated": lambda x, r: torch.nn.functional.gelu(x) + r,
    "unread_reduced": reduced,
    "unread_beside": beside,
}
Packages = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return built_texts(
        tmp_path_factory, "unread", TEXTS, dict.fromkeys(TEXTS, ("float64", "bfloat16", "float32"))
    )


def drawn(name: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(960_200)
    count = 3 if name == "unread_turned" else 2
    found = [torch.randn(3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [t.to(dtype).requires_grad_(n == 0 or count == 2) for n, t in enumerate(found)]


def values(out: Any) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_not_kept(packages: Packages, name: str) -> None:
    given, saved = drawn(name), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.data_ptr()) or t, lambda t: t
    ):
        packages[name][1].apply(*given)
    operator = packages[name][1]._chain.operators("same")[0]
    assert operator.spared == UNREAD[name]
    for place, _ in UNREAD[name]:
        assert given[place].data_ptr() not in saved


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_are_those_of_torch(packages: Packages, name: str, dtype: torch.dtype) -> None:
    """Of a cotangent that lies as x does, of one in another memory format, and of an expanded one."""
    ways: list[Callable[[Tensor], Tensor]] = [
        torch.cos,
        lambda out: out.transpose(0, -1).contiguous().transpose(0, -1).sin(),
        lambda out: out.new_ones(()).expand(out.shape),
    ]
    for way in ways:
        found = []
        for function in (packages[name][1].apply, BY_TORCH[name]):
            given = drawn(name, dtype)
            outs = values(function(*given))
            torch.autograd.backward(outs, [way(out.detach()) for out in outs])
            found.append([t.grad for t in given])
        torch.testing.assert_close(
            *found, rtol=2e-2 if dtype is torch.bfloat16 else 1e-9, atol=1e-2
        )


@pytest.mark.parametrize("name", TEXTS)
def test_every_derivative(packages: Packages, name: str) -> None:
    function, given = packages[name][1].apply, tuple(drawn(name))
    torch.autograd.gradcheck(function, given, check_forward_ad=True)
    torch.autograd.gradgradcheck(function, given)
    ours, theirs = (
        torch.func.jacrev(lambda *t, of=of: sum(v.sin().sum() for v in values(of(*t))), 0)(*given)
        for of in (function, BY_TORCH[name])
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["unread_turned", "unread_added"])
def test_what_is_not_kept_may_be_changed_before_the_backward_pass(
    packages: Packages, name: str
) -> None:
    leaf, *rest = drawn(name)
    x = leaf.clone()
    out = packages[name][1].apply(x, *rest)
    x.mul_(0)
    wanted = BY_TORCH[name](leaf, *rest)
    found = [torch.autograd.grad(o.square().sum(), leaf)[0] for o in (out, wanted)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["unread_reduced", "unread_beside"])
def test_results_of_which_some_have_no_gradient(packages: Packages, name: str) -> None:
    for place in range(2):
        found = []
        for function in (packages[name][1].apply, BY_TORCH[name]):
            given = drawn(name)
            function(*given)[place].sin().sum().backward()
            found.append([t.grad for t in given])
        torch.testing.assert_close(*found)


def test_what_is_not_read_may_have_a_second_derivative(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    texts = {"unread_shown": SHOWN}
    package = built_texts(tmp_path_factory, "shown", texts, {"unread_shown": ("float64",)})
    x, u, weight = (torch.randn(n, dtype=torch.float64) for n in ((3, 6), (3, 6), (6,)))
    found = []
    for function in (package["unread_shown"][1].apply, shown):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        value = function(leaves[0], u, leaves[1])
        first = torch.autograd.grad(value.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([value, *first, *second])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("an element's random number goes by its place in x", "chain: [{dropout: {p: 0.5}}]"),
        ("the weight's gradient needs x", "operands: {w: col}\nchain: [{mul: w}]"),
        ("the shape of x is that of no cotangent", "chain: [{sum: {dim: -1}}]"),
    ],
)
def test_what_is_kept(why: str, text: str) -> None:
    chain = derive(parse(f"{text}\n", "some"))
    segment = chain.segments[0]
    declared = declared_mode(chain.spec, segment, segment.modes[0])
    assert "unread" not in str(declared["operators"]), why
