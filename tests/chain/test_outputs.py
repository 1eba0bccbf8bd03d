"""Chains that return the values of several steps: numbers, gradients, transforms, compilers, modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import derive, once, shared
from random_programs.build import build_together
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from fusegen import load
from fusegen.chain import Chain
from fusegen.tools.check import verify

pytestmark = pytest.mark.slow  # builds packages of its own

#: A sum and its norm; values of two segments, one of them reduced; what an affine norm and a product return;
#: a value that dropout leaves, and a loss; halves; names that C++ and the templates have too.
CHAINS = {
    "outputs_residual": """
operands: {residual: full}
outputs: [norm, total]
chain:
  - add: {other: residual, name: total}
  - rms_norm: {name: norm, eps: 1.0e-6}
""",
    "outputs_of_segments": """
dims: 4
operands: {bias: channel}
outputs: [h, pooled, act, last]
chain:
  - expr: {formula: "x + bias", name: h}
  - gelu: {name: act}
  - mean: {dim: 1, keepdim: true, name: pooled}
  - expr: {formula: "x * exp(-x) + act", name: last}
""",
    "outputs_of_a_batch_norm": """
arguments: {in_features: int, out_features: int}
outputs: [gemm, softmax, bn]
chain:
  - linear: {name: gemm, bias: false}
  - batch_norm: {name: bn}
  - softmax: {dim: 1}
""",
    "outputs_of_a_loss": """
operands: {target: {kind: row, dtype: int64}}
outputs: [dropped, cross_entropy]
chain:
  - gelu
  - dropout: {p: 0.5, name: dropped}
  - cross_entropy: {target: target, reduction: none}
""",
    "outputs_of_a_gate": """
outputs: [y, register]
chain:
  - geglu: {name: register}
  - expr: {formula: "x * x", name: y}
""",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "outputs"
    once(
        tmp_path_factory,
        "outputs",
        lambda: build_together(folder, CHAINS, dtypes=["float64", "float32"]),
    )
    return folder


def chain_of(name: str, out: Path) -> Chain:
    return derive(out / "specs" / f"{name}.yaml")


@pytest.mark.parametrize("name", CHAINS)
def test_every_output_and_gradient_against_truth(name: str, out: Path) -> None:
    chain, package = chain_of(name, out), load(name, out / "generated")
    for training in (False, True) if chain.moded else (False,):
        verify.gradcheck(package, chain, training=training)
        for dtype in (torch.float64, torch.float32):
            for size in (1, 31, 1022):
                shape = chain.example_shape(6, size)
                case = verify.make_case(chain, shape, training=training)
                for error in verify.compare(package, chain, case, dtype):
                    assert error.within, f"{size}, {dtype}: {error}"


@pytest.mark.parametrize("name", CHAINS)
def test_outputs_come_in_the_specs_order_and_have_the_shapes_that_it_says(
    name: str, out: Path
) -> None:
    chain, package = chain_of(name, out), load(name, out / "generated")
    case = verify.make_case(chain, chain.example_shape(4, 6), training=False)
    values = package.apply(case.x, **case.operands, **case.options)
    assert isinstance(values, tuple)
    shapes = chain.output_shapes(case.x.shape)
    assert tuple(shapes) == chain.spec.outputs
    assert [tuple(value.shape) for value in values] == list(shapes.values())


def test_the_gradient_of_one_output_alone(out: Path) -> None:
    package = load("outputs_residual", out / "generated")
    x, residual = (torch.randn(3, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for place in (0, 1):
        value = package.apply(x, residual)[place]
        by_hand = (nn.functional.rms_norm(x + residual, (7,), eps=1e-6), x + residual)[place]
        cotangent = torch.randn_like(value)
        found = torch.autograd.grad(value, (x, residual), cotangent)
        torch.testing.assert_close(found, torch.autograd.grad(by_hand, (x, residual), cotangent))


@pytest.mark.parametrize("name", ["outputs_residual", "outputs_of_segments"])
def test_outputs_under_transforms_and_compilers(name: str, out: Path) -> None:
    chain, package = chain_of(name, out), load(name, out / "generated")
    case = verify.make_case(chain, chain.example_shape(4, 6), training=False)
    (operand,) = case.operands.values()

    def run(x: Tensor) -> tuple[Tensor, ...]:
        values: tuple[Tensor, ...] = package.apply(x, operand)
        return values

    def loss(x: Tensor) -> Tensor:
        return torch.stack([value.square().sum() for value in run(x)]).sum()

    stack = torch.randn(3, *case.x.shape, dtype=torch.float64)
    for function in (run, grad(loss), lambda x: jvp(run, (x,), (x,))[1]):
        one_by_one = [function(x) for x in stack]
        if isinstance(one_by_one[0], tuple):
            expected = tuple(map(torch.stack, zip(*one_by_one, strict=True)))
        else:
            expected = torch.stack(one_by_one)
        torch.testing.assert_close(vmap(function)(stack), expected)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(case.x), run(case.x))
    x = case.x.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(x), x),
        torch.autograd.grad(loss(x), x),
    )


def test_a_module_with_outputs_runs_fused_and_step_by_step_and_exports(out: Path) -> None:
    package = load("outputs_of_a_batch_norm", out / "generated")
    torch.manual_seed(0)
    module = package.Module(5, 6).double()
    original = nn.ModuleDict(
        {"gemm": nn.Linear(5, 6, bias=False), "bn": nn.BatchNorm1d(6)}
    ).double()
    original.load_state_dict(module.state_dict())
    x = torch.randn(4, 5, dtype=torch.float64)
    for training in (True, False):
        module.train(training)
        original.train(training)
        gemm = original["gemm"](x)
        bn = original["bn"](gemm)
        torch.testing.assert_close(module(x), (gemm, bn.softmax(1), bn))
        torch.testing.assert_close(dict(module.state_dict()), dict(original.state_dict()))
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
    fused = module(x)
    module.bn.register_forward_hook(lambda *_: None)  # now each submodule is called
    torch.testing.assert_close(module(x), fused)
    state = dict(module.state_dict())
    torch.testing.assert_close(functional_call(module, state, (x,)), fused)
