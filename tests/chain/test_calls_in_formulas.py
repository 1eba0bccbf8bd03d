"""Chains whose formulas call ops and go on from earlier steps: numbers and derivatives against torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import once, shared
from random_programs.build import build_together
from torch import Tensor
from torch.nn import functional

from fusegen import load

pytestmark = pytest.mark.slow  # builds packages of its own

CHAINS = {
    "calls_of_ops": """
arguments: {low: float}
operands: {gate: full, weight: col}
chain:
  - expr: "gelu(x, approximate='tanh') * gate + clamp(x * weight, min=low, max=1)"
  - expr: "layer_norm(x, weight, eps=0.01) + norm(x, p=3) * softmin(lerp(x, gate, 0.3))"
""",
    "formulas_without_x": """
arguments: {in_features: int, out_features: int}
outputs: [pooled, joined]
chain:
  - linear: {name: gemm}
  - prelu: {name: bent}
  - mean: {dim: 1, keepdim: true, name: pooled}
  - expr: {formula: "softmax(gemm) * bent + mean(bent) * var(bent, correction=0)", name: joined}
""",
    "segments_without_x": """
dims: 3
outputs: [small, again]
chain:
  - gelu: {name: bent}
  - mean: {dim: 1, keepdim: true}
  - softmax: {dim: 2, name: small}
  - expr: bent
  - softmax: {dim: 2, name: again}
""",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "calls_in_formulas"
    once(
        tmp_path_factory,
        "calls_in_formulas",
        lambda: build_together(folder, CHAINS, dtypes=["float64"]),
    )
    return folder


def derivatives(values: tuple[Tensor, ...], tensors: list[Tensor]) -> list[Tensor]:
    """Return values, gradients and second derivatives for fixed cotangents."""
    torch.manual_seed(3)
    loss = sum((value * torch.randn_like(value)).sum() for value in values)
    first = torch.autograd.grad(loss, tensors, create_graph=True)  # type: ignore[arg-type]
    again = sum((grad * torch.randn_like(grad)).sum() for grad in first)
    second = torch.autograd.grad(again, tensors)  # type: ignore[arg-type]
    return [*values, *first, *second]


def test_calls_of_ops_are_torchs(out: Path) -> None:
    package = load("calls_of_ops", out / "generated")
    torch.manual_seed(0)
    x, gate = (torch.randn(5, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(11, dtype=torch.float64, requires_grad=True)
    h = functional.gelu(x, approximate="tanh") * gate + (x * weight).clamp(-0.4, 1)
    normed = functional.layer_norm(h, (11,), weight, eps=0.01)
    wanted = normed + h.norm(3, -1, keepdim=True) * functional.softmin(h.lerp(gate, 0.3), -1)
    tensors = [x, gate, weight]
    found = derivatives((package.apply(x, gate, weight, low=-0.4),), tensors)
    torch.testing.assert_close(found, derivatives((wanted,), tensors), rtol=1e-9, atol=1e-10)


def test_a_segment_that_does_not_read_the_value_before_it(out: Path) -> None:
    package = load("segments_without_x", out / "generated")
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    bent = functional.gelu(x)
    wanted = (bent.mean(1, keepdim=True).softmax(2), bent.softmax(2))
    found = derivatives(package.apply(x), [x])
    torch.testing.assert_close(found, derivatives(wanted, [x]), rtol=1e-9, atol=1e-10)


def test_a_formula_without_x_is_torchs_fused_and_step_by_step(out: Path) -> None:
    package = load("formulas_without_x", out / "generated")
    torch.manual_seed(0)
    module = package.Module(7, 9).double()
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    gemm = functional.linear(x, module.gemm.weight, module.gemm.bias)
    bent = functional.prelu(gemm, module.bent.weight)
    pooled = bent.mean(1, keepdim=True)
    joined = gemm.softmax(1) * bent + pooled * bent.var(1, correction=0, keepdim=True)
    tensors = [x, *module.parameters()]
    wanted = derivatives((pooled, joined), tensors)
    torch.testing.assert_close(derivatives(module(x), tensors), wanted, rtol=1e-9, atol=1e-10)
    module.bent.register_forward_hook(lambda *_: None)  # now each step is torch's own
    torch.testing.assert_close(derivatives(module(x), tensors), wanted, rtol=1e-9, atol=1e-10)
