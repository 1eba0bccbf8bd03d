"""Batched gradients, vectorised Jacobians and Hessians, and transforms beside no_grad."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import DEVICES, NAMES
from shared.torch_calls import Package
from test_transforms import Derived, Function, both, close
from torch import Tensor
from torch.autograd import functional as AF
from torch.func import grad, vmap


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_batched_gradients(name: str, device: str, package: Package, derived: Derived) -> None:
    """`is_grads_batched`, once and for the gradient of a gradient."""
    fused, eager, given = both(name, package, derived, shape=(2, 3), device=device)
    found = []
    for function in (fused, eager):
        leaves = [t.clone().requires_grad_() for t in given]
        out = function(*leaves)
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(4, *out.shape, generator=generator, dtype=out.dtype).to(device)
        once = torch.autograd.grad(
            out, leaves, vectors, is_grads_batched=True, create_graph=True, retain_graph=True
        )
        (first,) = torch.autograd.grad(out, leaves[:1], vectors[0], create_graph=True)
        twice = torch.autograd.grad(first, leaves[:1], vectors, is_grads_batched=True)
        found.append([*once, *twice])
    close(*found)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
@pytest.mark.parametrize("name", NAMES)
def test_autograd_functional(
    name: str, vectorize: bool, strategy: str, package: Package, derived: Derived
) -> None:
    if strategy == "forward-mode" and not vectorize:
        strategy = "reverse-mode"  # torch has forward mode for the vectorized one alone
    fused, eager, given = both(name, package, derived, shape=(2, 3))
    inputs = tuple(given)
    along = tuple(torch.randn_like(t) for t in given)

    def every(function: Function) -> Any:
        def scalar(*t: Tensor) -> Tensor:
            return function(*t).square().sum()

        outer = {"outer_jacobian_strategy": strategy} if vectorize else {}
        return (
            AF.jacobian(function, inputs, vectorize=vectorize, strategy=strategy),
            AF.hessian(scalar, inputs, vectorize=vectorize, **outer),
            AF.vjp(function, inputs, torch.ones_like(given[0])),
            AF.vhp(scalar, inputs, along),
        )

    close(every(fused), every(eager))


def test_hvp_by_two_backwards_takes_a_third_derivative(package: Package, derived: Derived) -> None:
    fused, _, given = both("matmul_gelu_softmax", package, derived)
    with pytest.raises(RuntimeError, match=r"set `order: 3` in the spec"):
        AF.hvp(lambda x: fused(x, given[1]).square().sum(), given[0], given[0])


def test_autograd_functional_jvp_by_two_backwards(package: Package, derived: Derived) -> None:
    """Its double-backward trick: the cotangent is a leaf of its own."""
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    along = tuple(torch.randn_like(t) for t in given)
    close(AF.jvp(fused, tuple(given), along), AF.jvp(eager, tuple(given), along))


def test_vmap_over_autograd_grad(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    found = []
    for function in (fused, eager):
        leaves = [t.clone().requires_grad_() for t in given]
        out = function(*leaves)
        basis = torch.eye(out.numel(), dtype=out.dtype).view(-1, *out.shape)

        def pulled(
            v: Tensor, out: Tensor = out, leaves: list[Tensor] = leaves
        ) -> tuple[Tensor, ...]:
            return torch.autograd.grad(out, leaves, v, retain_graph=True)

        found.append(vmap(pulled)(basis))
    close(*found)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_transforms_inside_no_grad(guard: Any, package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)

    def run(function: Function) -> Any:
        loss = grad(lambda *t: function(*t).square().sum(), (0, 1))
        with guard():
            return loss(*given), vmap(function, (0, None))(torch.stack([given[0]] * 2), given[1])

    if guard is torch.no_grad:
        close(run(fused), run(eager))
        return
    with torch.inference_mode():
        close(vmap(fused, (0, None))(given[0][None], given[1]), eager(*given)[None])


def test_no_grad_inside_a_transform(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)

    def loss(function: Function) -> Any:
        def of(x: Tensor, bias: Tensor) -> Tensor:
            with torch.no_grad():
                scale = function(x, bias)
            return (function(x, bias) * scale).sum()

        return grad(of, (0, 1))(*given)

    close(loss(fused), loss(eager))
