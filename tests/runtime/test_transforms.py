"""torch.func and forward mode on generated packages, against the same chain by torch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES, NAMES, ROOT, derive
from shared.originals import ORIGINALS
from shared.shaped_originals import SHAPED, doubled
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from fusegen import load
from fusegen.chain import Chain
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Package = Callable[[str], ModuleType]
Derived = Callable[[str], Chain]
Function = Callable[..., Tensor]


def both(
    name: str,
    package: Package,
    derived: Derived,
    *,
    training: bool = False,
    shape: tuple[int, ...] = (3, 5),
    device: str = "cpu",
) -> tuple[Function, Function, list[Tensor]]:
    """Return the fused and the eager chain as functions of x and of the operands that move, and those."""
    chain = derived(name)
    case = verify.make_case(chain, shape, training=training, device=device)
    moving = [o.name for o in chain.operands if o.differentiable]
    numbers = {k: v for k, v in case.options.items() if k in chain.attributes}

    def bound(leaves: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {n: t.clone() for n, t in case.operands.items()} | dict(
            zip(moving, leaves, strict=True)
        )

    def fused(x: Tensor, *leaves: Tensor) -> Tensor:
        result: Tensor = package(name).apply(x, *bound(leaves).values(), **case.options)
        return result

    def eager(x: Tensor, *leaves: Tensor) -> Tensor:
        given = bound(leaves)
        return run_chain(chain.spec, x, given, numbers, training=training, seed=case.seed)

    return fused, eager, [case.x, *(case.operands[n] for n in moving)]


def close(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_jvp_and_forward_mode(name: str, device: str, package: Package, derived: Derived) -> None:
    fused, eager, given = both(name, package, derived, device=device)
    tangents = [torch.randn_like(t) for t in given]
    wanted = jvp(eager, tuple(given), tuple(tangents))
    close(jvp(fused, tuple(given), tuple(tangents)), wanted)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(given, tangents, strict=True)]
        close(tuple(forward_ad.unpack_dual(fused(*duals))), wanted)
    with forward_ad.dual_level():  # one tangent alone: the others are zero
        duals[0] = forward_ad.make_dual(given[0], tangents[0])
        first = forward_ad.unpack_dual(fused(duals[0], *given[1:])).tangent
    zeros = [torch.zeros_like(t) for t in tangents[1:]]
    close(first, jvp(eager, tuple(given), (tangents[0], *zeros))[1])


@pytest.mark.parametrize("name", NAMES)
def test_hessian_vector_products_forward_over_reverse(
    name: str, package: Package, derived: Derived
) -> None:
    """The tangent of a gradient, which costs one double backward and needs no third derivative."""
    fused, eager, given = both(name, package, derived)
    every = tuple(range(len(given)))
    tangents = tuple(torch.randn_like(t) for t in given)

    def product(function: Function) -> Any:
        return jvp(grad(lambda *t: function(*t).square().sum(), every), tuple(given), tangents)

    close(product(fused), product(eager))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_jacobians_and_the_hessian(
    name: str, device: str, package: Package, derived: Derived
) -> None:
    fused, eager, given = both(name, package, derived, shape=(2, 3), device=device)
    every = tuple(range(len(given)))
    for jacobian in (jacrev, jacfwd):
        close(jacobian(fused, every)(*given), jacobian(eager, every)(*given))

    def scalar(function: Function) -> Function:
        return lambda *t: function(*t).square().sum()

    close(hessian(scalar(fused), every)(*given), hessian(scalar(eager), every)(*given))
    _, pulled = vjp(fused, *given)
    _, expected = vjp(eager, *given)
    cotangent = torch.randn_like(given[0])
    close(pulled(cotangent), expected(cotangent))


def test_reverse_over_forward_takes_a_third_derivative(package: Package, derived: Derived) -> None:
    fused, eager, (x,) = both("swish_tanh_mish", package, derived)
    direction = torch.randn_like(x)

    def slope(function: Function) -> Function:
        return lambda t: jvp(function, (t,), (direction,))[1].square().sum()

    close(grad(slope(fused))(x), grad(slope(eager))(x))
    close(jacrev(jacfwd(fused))(x), jacrev(jacfwd(eager))(x))
    fused, _, given = both("matmul_gelu_softmax", package, derived)
    with pytest.raises(RuntimeError, match=r"matmul_gelu_softmax: .*set `order: 3` in the spec"):
        grad(lambda t: jvp(lambda u: fused(u, given[1]), (t,), (t,))[1].sum())(given[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_vmap(name: str, device: str, package: Package, derived: Derived) -> None:
    """Over x alone, over x and the operands, and over a dim that is not the first."""
    fused, _, given = both(name, package, derived, device=device)
    stack = [torch.stack([t, 2 * t, t - 1]) for t in given]
    looped = torch.stack([fused(*(t[n] for t in stack)) for n in range(3)])
    close(vmap(fused)(*stack), looped)
    shared = torch.stack([fused(t, *given[1:]) for t in stack[0]])
    axes = (0, *(None for _ in given[1:]))
    close(vmap(fused, in_dims=axes)(stack[0], *given[1:]), shared)
    last = stack[0].movedim(0, -1)
    close(vmap(fused, in_dims=(-1, *axes[1:]))(last, *given[1:]), shared)


@pytest.mark.parametrize("name", NAMES)
def test_per_sample_gradients(name: str, package: Package, derived: Derived) -> None:
    """vmap of grad, and vmap of vmap: by x and by every parameter, a gradient for each sample."""
    fused, eager, given = both(name, package, derived, shape=(2, 4))
    stack = torch.stack([given[0], given[0] + 0.5, -given[0]])
    every = tuple(range(len(given)))
    axes = (0, *(None for _ in given[1:]))

    def each(function: Function) -> Any:
        loss = grad(lambda *t: function(*t).square().sum(), every)
        return [
            [g.unbind()[n] for g in vmap(loss, in_dims=axes)(stack, *given[1:])] for n in range(3)
        ]

    def one(function: Function, x: Tensor) -> Any:
        return list(grad(lambda *t: function(*t).square().sum(), every)(x, *given[1:]))

    close(each(fused), [one(eager, x) for x in stack])
    nested = torch.stack([stack, stack * 2])
    twice = vmap(vmap(fused, in_dims=axes), in_dims=axes)(nested, *given[1:])
    close(twice, torch.stack([torch.stack([fused(x, *given[1:]) for x in n]) for n in nested]))


def test_a_batch_becomes_rows_of_one_call(package: Package, derived: Derived) -> None:
    """Sixteen members, one kernel each for the forward pass and for the gradient of x."""
    fused, _, given = both("temperature_softmax", package, derived)
    stack = torch.randn(16, *given[0].shape, dtype=torch.float64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        vmap(grad(lambda x: fused(x).square().sum()))(stack)
    calls = {e.key: e.count for e in profile.key_averages() if "fusegen" in e.key}
    space = package("temperature_softmax")._chain.namespace
    assert calls == {f"{space}::forward": 1, f"{space}::backward": 1}


def test_draws_under_vmap(package: Package) -> None:
    """As torch's own dropout: the same bits, different bits, or an error, as vmap is told."""
    apply = package("matmul_dropout_softmax").apply
    x, bias = torch.zeros(4, 2, 50), torch.zeros(50)
    x[:] = 40.0
    same = vmap(lambda t: apply(t, bias, dropout_p=0.5), randomness="same")(x)
    assert torch.equal(same[0], same[3])
    different = vmap(lambda t: apply(t, bias, dropout_p=0.5), randomness="different")(x)
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda t: apply(t, bias, dropout_p=0.5))(x)


@pytest.mark.parametrize("name", [n for n in ORIGINALS if n != "matmul_dropout_softmax"])
def test_functional_call_on_the_module(name: str, package: Package) -> None:
    """Gradients, Jacobians and per-sample gradients by the parameters of a Module, as the original's."""
    cls, arguments = ORIGINALS[name]
    torch.manual_seed(0)
    original = cls(*arguments).double().eval()
    fused: nn.Module = package(name).Module(*arguments).double().eval()
    fused.load_state_dict(original.state_dict())
    x = torch.randn(3, 24, dtype=torch.float64)
    parameters = {k: v.detach() for k, v in original.named_parameters()}
    buffers = dict(original.named_buffers())

    def loss(model: nn.Module, given: dict[str, Tensor], t: Tensor) -> Tensor:
        out: Tensor = functional_call(model, (given, buffers), (t,))
        return out.square().sum()

    def run(model: nn.Module) -> Any:
        per_sample = vmap(grad(lambda p, t: loss(model, p, t[None])), in_dims=(None, 0))
        directions = {k: torch.ones_like(v) for k, v in parameters.items()}
        return (
            grad(lambda p: loss(model, p, x))(parameters),
            per_sample(parameters, x),
            jacrev(lambda p: functional_call(model, (p, buffers), (x,)))(parameters),
            jvp(grad(lambda p: loss(model, p, x)), (parameters,), (directions,)),
        )

    close(run(fused), run(original))


@pytest.mark.parametrize("name", SHAPED)
def test_activations_of_three_dims_and_more(name: str, shaped_packages: Path) -> None:
    """Rows along any dims, operands by channel: batches join the first dim, tangents are eager's."""
    chain = derive(ROOT / "tests" / "chains" / f"{name}.yaml")
    built = load(name, shaped_packages)
    shape = doubled(chain, (2, 3, 2, 3, 2)[: chain.layout.rank or 2])
    case = verify.make_case(chain, shape, training=False)
    known = (*chain.attributes, chain.layout.groups)
    numbers = {k: v for k, v in case.options.items() if k in known}

    def fused(x: Tensor) -> Tensor:
        result: Tensor = built.apply(x, *case.operands.values(), **case.options)
        return result

    def eager(x: Tensor) -> Tensor:
        return run_chain(chain.spec, x, case.operands, numbers, training=False, seed=case.seed)

    tangent = torch.randn_like(case.x)
    close(jvp(fused, (case.x,), (tangent,)), jvp(eager, (case.x,), (tangent,)))
    stack = torch.stack([case.x, case.x - 0.5, 2 * case.x])
    loss = grad(lambda x: fused(x).square().sum())
    wanted = grad(lambda x: eager(x).square().sum())
    close(vmap(fused)(stack), torch.stack([eager(x) for x in stack]))
    close(vmap(loss)(stack), torch.stack([wanted(x) for x in stack]))
    product = jvp(loss, (case.x,), (tangent,))
    close(product, jvp(wanted, (case.x,), (tangent,)))
    leaf = case.x.clone().requires_grad_()
    mode = "same" if len(chain.modes) == 1 else "eval"
    forward = built._chain.operators(mode)[0]
    taken = [operand.name for operand in built._chain._modes[mode].operands]
    operands = [case.operands[name].clone().requires_grad_() for name in taken]
    groups = [case.options[chain.layout.groups]] if chain.layout.groups is not None else []
    if len(operands) == forward.count - 1 and not chain.attributes:
        torch.library.opcheck(forward.overload, (leaf, *operands, *groups))
