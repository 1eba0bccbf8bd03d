"""Tracers, batched gradients, modes and tensors without memory see the operators and get what torch gives."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES, NAMES
from shared.originals import ORIGINALS
from test_transforms import Derived, Function, both, close
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd import functional as AF
from torch.func import functionalize, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Package = Callable[[str], ModuleType]


def modules(
    name: str, package: Package, *, training: bool = False, **to: Any
) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module with the same parameters."""
    cls, arguments = ORIGINALS[name]
    made = []
    for kind in (cls, package(name).Module):
        torch.manual_seed(0)
        made.append(kind(*arguments).train(training).to(**to))
    return made[0], made[1]


def whole(name: str, package: Package, derived: Derived) -> tuple[Function, Function, list[Tensor]]:
    """Return the fused and the eager chain as functions of x and of all operands, and those."""
    chain = derived(name)
    case = verify.make_case(chain, (3, 5), training=False)
    numbers = {k: v for k, v in case.options.items() if k in chain.attributes}

    def fused(x: Tensor, *operands: Tensor) -> Tensor:
        result: Tensor = package(name).apply(x, *operands, **case.options)
        return result

    def eager(x: Tensor, *operands: Tensor) -> Tensor:
        given = dict(zip(case.operands, operands, strict=True))
        return run_chain(chain.spec, x, given, numbers, training=False, seed=case.seed)

    return fused, eager, [case.x, *case.operands.values()]


# Tracers


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


# Batched gradients


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


# Modes


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_dispatch_mode_sees_both_directions(
    name: str, package: Package, derived: Derived
) -> None:
    fused, eager, given = both(name, package, derived)
    leaves = [t.clone().requires_grad_() for t in given]
    with Calls() as calls:
        out = fused(*leaves)
        gradients = torch.autograd.grad(out.square().sum(), leaves)
    operators = [call for call in calls.seen if call.startswith(package(name)._chain.namespace)]
    assert [o.split(".")[1][:4] for o in operators] == ["forw", "back"]
    same = [t.clone().requires_grad_() for t in given]
    close(gradients, torch.autograd.grad(eager(*same).square().sum(), same))


class Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_function_mode_sees_the_operator(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    with Functions() as functions:
        out = fused(*given)
    operator = f"{package('matmul_gelu_softmax')._chain.namespace}.forward"
    assert any(operator in call for call in functions.seen)
    close(out, eager(*given))


def test_the_default_device_is_no_detour(package: Package, derived: Derived) -> None:
    """`torch.set_default_device` is a mode too, which has nothing to say of an operator."""
    from fusegen.runtime.operators import _unseen

    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    with torch.device("cpu"):
        assert _unseen()
        close(fused(*given), eager(*given))
        with Functions():
            assert not _unseen()
    assert _unseen()


@pytest.mark.parametrize("name", ORIGINALS)
def test_flop_counter(name: str, package: Package) -> None:
    """The product counts, also under the name of the layer that it is of."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for model in modules(name, package):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(5, 24)).sum().backward()
        by_module = counter.get_flop_counts()
        layers = {k.split(".", 1)[1]: v for k, v in by_module.items() if "." in k}
        counts.append((counter.get_total_flops(), {k: v for k, v in layers.items() if v}))
    assert counts[0] == counts[1] and counts[0][0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_fake_tensors(name: str, package: Package, derived: Derived) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    fused, eager, given = whole(name, package, derived)
    moving = [True, *(o.differentiable for o in derived(name).operands)]
    with FakeTensorMode() as mode:
        leaves = [mode.from_tensor(t).requires_grad_(m) for t, m in zip(given, moving, strict=True)]
        out = fused(*leaves)
        wanted = [t for t in leaves if t.requires_grad]
        gradients = torch.autograd.grad(out.sum(), wanted)
    assert out.shape == eager(*given).shape and out.dtype == torch.float64
    assert [g.shape for g in gradients] == [t.shape for t in wanted]
    assert fused(*leaves).shape == out.shape  # outside the mode


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_meta(name: str, training: bool, package: Package) -> None:
    """A model made on the meta device: shapes, gradients, materialised afterwards."""
    arguments = ORIGINALS[name][1]
    with torch.device("meta"):
        fused = package(name).Module(*arguments).train(training)
        x = torch.randn(5, 24, requires_grad=True)
    assert {p.device.type for p in fused.parameters()} == {"meta"}
    out = fused(x)
    out.sum().backward()
    assert out.is_meta and out.shape == (5, 37) and x.grad is not None and x.grad.is_meta
    assert all(p.grad.shape == p.shape for p in fused.parameters())
    original, _ = modules(name, package)
    made = fused.eval().to_empty(device="cpu")
    made.load_state_dict(original.state_dict())
    x = torch.randn(5, 24)
    torch.testing.assert_close(made(x), original(x))


@pytest.mark.parametrize("name", ORIGINALS)
def test_device_and_dtype_of_the_constructor(name: str, package: Package) -> None:
    cls, arguments = ORIGINALS[name]
    torch.manual_seed(0)
    wanted = cls(*arguments).double()
    torch.manual_seed(0)
    model = package(name).Module(*arguments, device="cpu", dtype=torch.float64)
    for (key, a), b in zip(model.state_dict().items(), wanted.state_dict().values(), strict=True):
        assert a.dtype == b.dtype, key
    model.load_state_dict(wanted.state_dict())
    x = torch.randn(5, 24, dtype=torch.float64)
    close(model.eval()(x), wanted.eval()(x))
    empty = package(name).Module(*arguments, device="meta")
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}


# Tensors


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


# Seeds


@pytest.mark.parametrize("device", DEVICES)
def test_a_number_as_seed_is_the_tensor_of_it(device: str, package: Package) -> None:
    apply = package("matmul_dropout_softmax").apply
    x, bias = torch.randn(6, 40, device=device), torch.randn(40, device=device)
    for seed in (5, 0, -1, 2**63, 2**64 - 1, -(2**63)):
        wrapped = (seed + 2**63) % 2**64 - 2**63
        tensor = torch.tensor([wrapped], device=device)
        got = apply(x, bias, training=True, seed=seed)
        assert torch.equal(got, apply(x, bias, training=True, seed=tensor))
    assert not torch.equal(got, apply(x, bias, training=True, seed=5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_number_as_seed_waits_for_nothing(package: Package) -> None:
    """No copy from the host, so that the CPU runs ahead, and a graph can be captured."""
    apply = package("matmul_dropout_softmax").apply
    x, bias = torch.randn(64, 128, device="cuda"), torch.randn(128, device="cuda")
    wanted = apply(x, bias, training=True, seed=5)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert apply(x, bias, training=True, seed=5).shape == x.shape
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply(x, bias, training=True, seed=5)
    graph.replay()
    assert torch.equal(out, wanted)
