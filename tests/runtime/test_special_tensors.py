"""Zero tensors, views, duals and subclasses give what torch gives; others are refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from conftest import NAMES
from shared.torch_calls import Package
from test_transforms import Derived, Function, both, close
from torch import Tensor
from torch.autograd import forward_ad


def test_zero_tensors(package: Package, derived: Derived) -> None:
    """As x, as an operand and as a cotangent; autograd makes them where a gradient is known to be zero."""
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    zeros = [torch._efficientzerotensor(t.shape, dtype=t.dtype) for t in given]
    close(fused(zeros[0], given[1]), eager(torch.zeros_like(given[0]), given[1]))
    close(fused(given[0], zeros[1]), eager(given[0], torch.zeros_like(given[1])))
    found = []
    for function in (fused, eager):
        leaves = [t.clone().requires_grad_() for t in given]
        out = function(*leaves)
        nothing = torch._efficientzerotensor(out.shape, dtype=out.dtype)
        found.append(torch.autograd.grad(out, leaves, nothing))
    close(*found)


def test_views_of_conjugates(package: Package, derived: Derived) -> None:
    """The imaginary part of a conjugate holds its numbers with the other sign."""
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    turned = [torch.complex(t, -t).conj().imag for t in given]
    assert all(t.is_neg() for t in turned)
    leaves = [[t.detach().requires_grad_() for t in turned] for _ in range(2)]
    found = []
    for function, own in zip((fused, eager), leaves, strict=True):
        out = function(*own)
        cotangent = torch.complex(out, -out).conj().imag.detach()
        found.append([out, *torch.autograd.grad(out, own, cotangent)])
    close(*found)
    with torch.no_grad():
        close(fused(*turned), eager(*turned))


@pytest.mark.parametrize("name", NAMES)
def test_duals(name: str, package: Package, derived: Derived) -> None:
    """Of inputs that need gradients too, and inside no_grad."""
    fused, eager, given = both(name, package, derived)
    tangents = [torch.randn_like(t) for t in given]

    def run(function: Function) -> Any:
        with forward_ad.dual_level(), torch.no_grad():
            out = function(*map(forward_ad.make_dual, given, tangents))
            value, tangent = forward_ad.unpack_dual(out)
        leaves = [t.clone().requires_grad_() for t in given]
        with forward_ad.dual_level():
            mixed = function(forward_ad.make_dual(leaves[0], tangents[0]), *leaves[1:])
            gradients = torch.autograd.grad(mixed.square().sum(), leaves)
        return value, tangent, gradients

    *got, gradients = run(fused)
    with forward_ad.dual_level(), torch.no_grad():
        close(
            tuple(got),
            tuple(forward_ad.unpack_dual(eager(*map(forward_ad.make_dual, given, tangents)))),
        )
    same = [t.clone().requires_grad_() for t in given]  # torch has no tangent of a gradient of mish
    close(gradients, torch.autograd.grad(eager(*same).square().sum(), same))


class Tagged(Tensor):
    """A subclass that has nothing of its own: results keep the class."""


class Logged(Tensor):
    """A subclass that sees every operator."""

    seen: list[str] = []  # noqa: RUF012

    @staticmethod
    def __new__(cls, inner: Tensor) -> Logged:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils._pytree import tree_map_only

        cls.seen.append(str(func))
        given = tree_map_only(Logged, lambda t: t.inner, (args, kwargs or {}))
        return tree_map_only(Tensor, Logged, func(*given[0], **given[1]))


def test_subclasses(package: Package, derived: Derived) -> None:
    _, eager, given = both("matmul_gelu_softmax", package, derived)
    apply = package("matmul_gelu_softmax").apply
    tagged = apply(given[0].as_subclass(Tagged), given[1])
    assert type(tagged) is Tagged is type(torch.softmax(given[0].as_subclass(Tagged), -1))
    close(tagged.as_subclass(Tensor), eager(*given))
    logged = apply(Logged(given[0]), Logged(given[1]))
    assert type(logged) is Logged
    close(logged.inner, eager(*given))
    operator = f"{package('matmul_gelu_softmax')._chain.namespace}.forward"
    assert any(operator in call for call in Logged.seen)
    leaf = Logged(given[0]).requires_grad_()
    out = apply(leaf, Logged(given[1]))
    (got,) = torch.autograd.grad(out.sum(), leaf, torch.ones_like(out.sum()))
    same = given[0].clone().requires_grad_()
    close(got.inner, torch.autograd.grad(eager(same, given[1]).sum(), same)[0])


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_tensors_are_refused(layout: Any, package: Package) -> None:
    apply = package("matmul_gelu_softmax").apply
    x, bias = torch.randn(3, 5), torch.randn(5)
    sparse = x.to_sparse(layout=layout)
    for given in (sparse, sparse.detach().requires_grad_()):
        with pytest.raises(TypeError, match=r"matmul_gelu_softmax: x: .* dense .* to_dense"):
            apply(given, bias)
    with pytest.raises(TypeError, match=r"matmul_gelu_softmax: .* dense .* to_dense"):
        apply(x, bias.to_sparse())


def test_nested_tensors_are_refused(package: Package) -> None:
    apply = package("matmul_gelu_softmax").apply
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([torch.randn(2, 5), torch.randn(3, 5)], layout=layout)
        with pytest.raises(TypeError, match=r"matmul_gelu_softmax: x: .* dense"):
            apply(nested, torch.randn(5))


def test_saved_tensor_hooks_see_what_is_saved(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    packed = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t.shape)
        return t.clone()

    found = []
    for function in (fused, eager):
        leaves = [t.clone().requires_grad_() for t in given]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = function(*leaves)
        found.append(torch.autograd.grad(out.square().sum(), leaves))
    assert packed
    close(*found)


def test_anomaly_mode_and_logging(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    logging.getLogger("torch").setLevel(logging.WARNING)
    found = []
    for function in (fused, eager):
        leaves = [t.clone().requires_grad_() for t in given]
        with torch.autograd.detect_anomaly(check_nan=True):
            found.append(torch.autograd.grad(function(*leaves).square().sum(), leaves))
    close(*found)
