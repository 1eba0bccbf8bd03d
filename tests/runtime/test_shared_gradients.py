"""Gradients that equal a cotangent or another gradient: no kernel writes them, and they are torch's."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import built_texts
from torch import Tensor
from torch.nn import functional as F

from fusegen.chain import Chain
from fusegen.spec import parse

#: A residual after a norm: its gradient is the cotangent.
AFTER = """
order: 2
operands: {residual: full}
chain: [relu, {rms_norm: {eps: 1e-6}}, {add: residual}]
"""
#: A residual before it: it has x's gradient.
BEFORE = """
order: 2
operands: {residual: full}
outputs: [total, norm]
chain:
  - add: {name: total, other: residual}
  - rms_norm: {name: norm, eps: 1e-6}
"""
#: All gradients are the cotangent: a kernel still copies one.
ALONE = """
order: 2
operands: {residual: full}
chain: [{add: residual}]
"""
TEXTS = {"shared_after": AFTER, "shared_before": BEFORE, "shared_alone": ALONE}


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


BY_TORCH: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "shared_after": lambda x, r: norm(x.relu()) + r,
    "shared_before": lambda x, r: (x + r, norm(x + r)),
    "shared_alone": lambda x, r: x + r,
}
Packages = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return built_texts(
        tmp_path_factory, "shared_gradients", TEXTS, dict.fromkeys(TEXTS, ("float64",))
    )


def shared_in(text: str) -> list[dict[str, str]]:
    """Return by derivative which gradient is which tensor."""
    from fusegen.chain import derive

    programs = derive(parse(text, "some")).segments[0].modes[0].programs
    return [{name: s.source for name, s in p.shared.items()} for p in programs[1:]]


def test_which_gradients_are_shared() -> None:
    assert shared_in(AFTER) == [{"grad_residual": "grad_y"}, {}]
    first, second = shared_in(BEFORE)
    assert first == {"grad_residual": "grad_x"}
    assert second == {"grad_grad_user_total": "grad_grad_x"}  # it reads the sum, not the residual
    assert shared_in(ALONE)[0] == {"grad_residual": "grad_y"}


def test_gradients_of_other_shapes_are_written() -> None:
    """That of a bias is a sum; halves of a row are columns of one tensor."""
    for kind in ("col", "row", "scalar"):
        text = f"order: 1\noperands: {{b: {kind}}}\nchain: [gelu, {{add: b}}]"
        assert shared_in(text) == [{}]
    assert shared_in("order: 1\nchain: [glu]") == [{}]


def test_no_memory_is_taken_for_them(packages: Packages) -> None:
    x, residual = (torch.randn(5, 33, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = packages["shared_after"][1].apply(x, residual=residual)
    cotangent = torch.randn_like(value)
    _, found = torch.autograd.grad(value, (x, residual), cotangent)
    assert found.data_ptr() == cotangent.data_ptr()
    values = packages["shared_before"][1].apply(x, residual=residual)
    one, other = torch.autograd.grad(values, (x, residual), [cotangent, cotangent])
    assert one.data_ptr() == other.data_ptr()


def test_leaves_do_not_share_memory(packages: Packages) -> None:
    """As with torch's addition: what a gradient becomes is nobody else's."""
    x, residual = (torch.randn(5, 33, dtype=torch.float64, requires_grad=True) for _ in range(2))
    packages["shared_alone"][1].apply(x, residual=residual).sum().backward()
    assert x.grad is not None and residual.grad is not None
    x.grad.zero_()
    assert bool((residual.grad == 1).all())


@pytest.mark.parametrize("name", TEXTS)
def test_derivatives_are_torchs(name: str, packages: Packages) -> None:
    def apply(x: Tensor, residual: Tensor) -> Any:
        return packages[name][1].apply(x, residual=residual)

    def loss(function: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        def of_sum(x: Tensor, residual: Tensor) -> Tensor:
            value = function(x, residual)
            whole: Tensor = value if isinstance(value, Tensor) else value[0] * value[1].sin()
            return whole.pow(3).sum()

        return of_sum

    for shape in ((1, 1), (1, 31), (3, 31)):
        x, r, v, w = (torch.randn(shape, dtype=torch.float64) for _ in range(4))
        found, wanted = (
            (
                torch.func.grad(loss(f), argnums=(0, 1))(x, r),
                torch.func.jvp(f, (x, r), (v, w)),
                torch.func.hessian(loss(f), argnums=(0, 1))(x, r),
                torch.func.jvp(torch.func.grad(loss(f), argnums=1), (x, r), (v, w)),
            )
            for f in (apply, BY_TORCH[name])
        )
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", TEXTS)
def test_in_a_graph_of_torch_compile(name: str, packages: Packages) -> None:
    def apply(x: Tensor, residual: Tensor) -> Any:
        return packages[name][1].apply(x, residual=residual)

    x, r = (torch.randn(3, 31, dtype=torch.float64) for _ in range(2))
    found = []
    for function in (torch.compile(apply, backend="aot_eager", fullgraph=True), BY_TORCH[name]):
        leaves = [t.clone().requires_grad_() for t in (x, r)]
        value = function(*leaves)
        values = (value,) if isinstance(value, Tensor) else value
        sum(v.sin().sum() for v in values).backward()
        found.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*found)


def test_a_missing_cotangent_stays_missing(packages: Packages) -> None:
    """Of two outputs, one of which is not used: `residual` reaches only that one."""
    x, r = (torch.randn(3, 31, dtype=torch.float64, requires_grad=True) for _ in range(2))
    total, _ = packages["shared_before"][1].apply(x, residual=r)
    found = torch.autograd.grad(total.sum(), (x, r))
    torch.testing.assert_close(found, (torch.ones_like(x), torch.ones_like(r)))
