"""jit.trace, fx and make_fx see the operators."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from conftest import NAMES
from shared.originals import ORIGINALS
from shared.torch_calls import Package, modules, whole
from test_transforms import Derived, Function, both, close
from torch import Tensor, nn
from torch.func import functionalize, grad
from torch.fx.experimental.proxy_tensor import make_fx


@pytest.mark.parametrize("name", ORIGINALS)
def test_jit_trace(name: str, package: Package) -> None:
    """A trace holds the operators, not the result of the first call; it saves, and has gradients."""
    original, fused = modules(name, package, dtype=torch.float64)
    x, other = torch.randn(2, 5, 24, dtype=torch.float64).unbind()
    traced = torch.jit.trace(fused, (x,))
    assert f"{package(name)._chain.namespace}::forward" in str(traced.inlined_graph)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    for model in (traced, torch.jit.load(buffer)):
        given = [other.clone().requires_grad_() for _ in range(2)]
        wanted, got = original(given[0]), model(given[1])
        close(got, wanted)
        for t in (wanted, got):
            t.square().sum().backward()
        close(given[1].grad, given[0].grad)


def test_jit_trace_of_the_function(package: Package, derived: Derived) -> None:
    apply = package("matmul_gelu_softmax").apply
    _, eager, given = both("matmul_gelu_softmax", package, derived)
    moved = [t + 1 for t in given]
    close(torch.jit.trace(apply, tuple(given))(*moved), eager(*moved))
    with torch.no_grad():
        traced = torch.jit.trace(apply, tuple(given))
    close(traced(*moved), eager(*moved))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2.0


def test_jit_script_is_refused(package: Package) -> None:
    """With what serves in its place, also where the Module is inside another."""
    _, fused = modules("gemm_batchnorm_scale_softmax", package)
    for model in (fused, Outer(fused)):
        with pytest.raises(TypeError, match=r"gemm_batchnorm_scale_softmax.*torch\.jit\.trace"):
            torch.jit.script(model)


@pytest.mark.parametrize("name", ORIGINALS)
def test_fx_symbolic_trace(name: str, package: Package) -> None:
    """`apply` is one node of the graph, which has the parameters of the model."""
    original, fused = modules(name, package, dtype=torch.float64)
    x = torch.randn(5, 24, dtype=torch.float64)
    for wanted, model in ((original(x), fused), (2 * original(x), Outer(fused))):
        graph = torch.fx.symbolic_trace(model)
        assert [n.target.__name__ for n in graph.graph.nodes if callable(n.target)].count(
            "apply"
        ) == 1
        close(graph(x), wanted)
        graph(x).square().sum().backward()
        assert all(p.grad is not None for p in graph.parameters())


@pytest.mark.parametrize("name", ["gemm_batchnorm_scale_softmax", "matmul_dropout_softmax"])
def test_fx_in_training_is_refused(name: str, package: Package) -> None:
    """The graph would drop and count for good; as a leaf, the Module keeps its mode."""
    _, fused = modules(name, package, training=True)
    with pytest.raises(TypeError, match=rf"{name}: .* eval\(\)"):
        torch.fx.symbolic_trace(fused)
    assert all(not t.numel() or t.sum() == 0 for k, t in fused.named_buffers() if "num" in k)

    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return m is fused or super().is_leaf_module(m, module_qualified_name)

    outer = Outer(fused)
    graph = torch.fx.GraphModule(outer, Leaves().trace(outer))
    x = torch.randn(5, 24)
    assert graph(x).shape == (5, 37)
    close(graph.eval()(x), 2 * fused.eval()(x))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", NAMES)
def test_make_fx(name: str, mode: str, package: Package, derived: Derived) -> None:
    fused, eager, given = whole(name, package, derived)
    graph = make_fx(fused, tracing_mode=mode)(*given)
    assert any(package(name)._chain.namespace in str(n.target) for n in graph.graph.nodes)
    moved = [t + 0.5 for t in given]
    close(graph(*moved), eager(*moved))


@pytest.mark.parametrize("name", NAMES)
def test_make_fx_of_a_gradient(name: str, package: Package, derived: Derived) -> None:
    fused, eager, given = both(name, package, derived)
    every = tuple(range(len(given)))

    def gradients(function: Function) -> Any:
        return grad(lambda *t: function(*t).square().sum(), every)

    graph = make_fx(gradients(fused))(*given)
    moved = [t + 0.5 for t in given]
    close(graph(*moved), gradients(eager)(*moved))


def test_functionalize(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    close(functionalize(fused)(*given), eager(*given))
