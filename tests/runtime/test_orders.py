"""Derivatives of higher order: exact to the generated order, refused beyond it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, NAMES, derive
from random_programs.build import build_specs
from shared.vocabulary import names_of
from torch import Tensor

from fusegen import load
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Package = Callable[[str], ModuleType]
Derived = Callable[[str], Chain]


def derivatives(function: Callable[..., Tensor], given: list[Tensor], order: int) -> list[Tensor]:
    """Return the derivatives of sum(function^3) of one order: of the squared norm of those before.

    Cubes, because the squares of a normalised row add up to a constant.
    """
    leaves = [t.detach().clone().requires_grad_() for t in given]
    value = function(*leaves).pow(3).sum()
    found: list[Tensor] = []
    for _ in range(order):
        found = list(torch.autograd.grad(value, leaves, create_graph=True))
        value = torch.stack([f.square().sum() for f in found]).sum()
    return [f.detach() for f in found]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_order_is_eagers(name: str, device: str, package: Package, derived: Derived) -> None:
    """In float64, of x and of every parameter together, to the order of the spec."""
    chain = derived(name)
    for training in (False, True) if len(chain.modes) == 2 else (False,):
        case = verify.make_case(chain, (4, 33), training=training, device=device)
        moving = ["x", *(o.name for o in chain.operands if o.differentiable)]
        tensors = {"x": case.x, **case.operands}
        numbers = {k: v for k, v in case.options.items() if k in chain.attributes}

        def bound(leaves: tuple[Tensor, ...], tensors=tensors, moving=moving) -> dict[str, Tensor]:
            given = {n: t.clone() for n, t in tensors.items()}
            return given | dict(zip(moving, leaves, strict=True))

        def ours(*leaves: Tensor, case=case, bound=bound) -> Tensor:
            given = bound(leaves)
            return package(name).apply(given.pop("x"), *given.values(), **case.options)

        def eager(*leaves: Tensor, case=case, bound=bound, n=numbers, t=training) -> Tensor:
            given = bound(leaves)
            return run_chain(chain.spec, given.pop("x"), given, n, training=t, seed=case.seed)

        for order in range(1, chain.spec.order + 1):
            wanted = derivatives(eager, [tensors[n] for n in moving], order)
            got = derivatives(ours, [tensors[n] for n in moving], order)
            for which, a, b in zip(moving, got, wanted, strict=True):
                torch.testing.assert_close(
                    a, b, rtol=1e-8, atol=1e-10, msg=lambda m, w=which, o=order: f"{w}, {o}: {m}"
                )


@pytest.mark.parametrize("name", ["matmul_gelu_softmax", "swish_tanh_mish"])
def test_beyond_the_generated_order_is_refused(
    name: str, package: Package, derived: Derived
) -> None:
    order = derived(name).spec.order
    x = torch.randn(2, 5, requires_grad=True)
    operands = [torch.randn(5) for _ in derived(name).operands]
    value = package(name).apply(x, *operands)
    for _ in range(order):
        (value,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    remedy = "set `order: 3` in the spec" if order < 3 else "3 is the most there is"
    with pytest.raises(RuntimeError, match=f"{name}: .* to order {order}.*{remedy}"):
        torch.autograd.grad(value.sum(), x)


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_the_spec_sets_the_order(tmp_path: Path) -> None:
    specs = {order: tmp_path / f"order_{order}.yaml" for order in (1, 2, 3)}
    for order, spec in specs.items():
        spec.write_text(f"order: {order}\nchain: [tanh, softmax]\n")
    build_specs(list(specs.values()), tmp_path / "out", dtypes=["float64"])
    for order, spec in specs.items():
        built, chain = load(spec.stem, tmp_path / "out"), pipeline.derive(spec)
        assert len(chain.modes[0].kernels) == 1 + order
        verify.gradcheck(built, chain, training=False)
        with pytest.raises(RuntimeError, match=f"to order {order}"):
            derivatives(built.apply, [torch.randn(2, 3, dtype=torch.float64)], order + 1)


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "layer_norm", "rms_norm"])
def test_double_backward_in_float32_is_exact(op: str, vocabulary: Path) -> None:
    """Row programs against float64 truth: what the forward saved is differentiated through."""
    for name in names_of(op):
        chain = derive(vocabulary / "specs" / f"{name}.yaml")
        apply = load(name, vocabulary / "generated").apply
        case = verify.make_case(chain, (9, 257), training=False)
        given = [case.x, *case.operands.values()]
        truth = derivatives(apply, given, 2)
        for got, wanted in zip(
            derivatives(apply, [t.float() for t in given], 2), truth, strict=True
        ):
            error = (got.double() - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-5, f"{name}: {error}"


def test_a_gradient_penalty_trains_as_in_eager(package: Package) -> None:
    """The loss holds the gradient of the output by the input, so the step needs the double backward."""
    built = package("matmul_gelu_softmax")

    def losses(model: torch.nn.Module) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(16, 12, generator=generator, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        history = []
        for _ in range(5):
            leaf = x.clone().requires_grad_()
            out = model(leaf)
            (slope,) = torch.autograd.grad(out[:, 0].sum(), leaf, create_graph=True)
            loss = (out[:, 1] - 0.5).square().mean() + slope.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    torch.manual_seed(0)
    fused = built.Module(12, 20).double()
    torch.manual_seed(0)
    eager = torch.nn.Sequential(
        torch.nn.Linear(12, 20), torch.nn.GELU(), torch.nn.Softmax(dim=1)
    ).double()
    got, wanted = losses(fused), losses(eager)
    assert wanted[-1] < wanted[0]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), rtol=1e-6, atol=0)
