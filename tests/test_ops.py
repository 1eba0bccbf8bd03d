"""Every declared op: against torch in float64, at extremes, and what its declaration may hold."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor
from vocabulary import tested_ops

from fusegen.calculus import vjp
from fusegen.eager import run_program
from fusegen.formula_nodes import formula_value
from fusegen.ops import Op, aliases, call, registry
from fusegen.program import Builder, Kind, Map, Output, Program

POINTWISE = [name for name in tested_ops() if name != "dropout"]
FORBIDDEN = (sp.Min, sp.Max, sp.Abs, sp.Heaviside, sp.DiracDelta, sp.Derivative, sp.sign)
EXTREMES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e4,
    -1e4,
    88.0,
    -88.0,
    745.0,
    -745.0,
    5e-324,
    1e-310,
    float("nan"),
]


def program_of(op: Op) -> Program:
    b = Builder()
    x = b.input("x", Kind.FULL)
    operands = {n: b.input(n, k or Kind.FULL).symbol for n, k in op.operands.items()}
    value = formula_value(b, op.name, call(op, x.symbol, operands, {}))
    return Program("forward", tuple(b.inputs), {"y": Output(value, x)})


def reference(op: Op, x: Tensor, operands: list[Tensor]) -> Tensor:
    function = functools.reduce(getattr, op.torch.split("."), torch)
    given: dict[str, Any] = dict(op.attributes)
    if op.name.endswith("_norm"):
        given |= dict(zip(op.operands, operands, strict=True))
        return function(x, normalized_shape=x.shape[-1:], **given)
    return function(x, *operands, **given)


def inputs_of(op: Op, x: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = {None: x.shape, Kind.COL: x.shape[-1:], Kind.FULL: x.shape}
    return [
        torch.rand(shapes[k], generator=generator, dtype=torch.float64).add(0.5)
        for k in op.operands.values()
    ]


@pytest.mark.parametrize("name", POINTWISE)
def test_value_and_gradients_are_torchs(name: str) -> None:
    op = registry()[name]
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(9, 33, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    operands = [t.requires_grad_() for t in inputs_of(op, x)]
    wanted = reference(op, x, operands)
    cotangent = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(wanted, [x, *operands], cotangent)
    values = {
        "x": x.detach(),
        **{n: t.detach() for n, t in zip(op.operands, operands, strict=True)},
    }
    program = program_of(op)
    torch.testing.assert_close(run_program(program, values)["y"], wanted, rtol=1e-10, atol=1e-14)
    found = run_program(vjp(program, "backward"), {**values, "grad_y": cotangent})
    for key, gradient in zip(["x", *op.operands], gradients, strict=True):
        torch.testing.assert_close(found[f"grad_{key}"], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in POINTWISE if not registry()[n].operands])
def test_extremes_are_torchs(name: str) -> None:
    """At extremes the value is torch's, NaN where torch has NaN and nowhere else."""
    op = registry()[name]
    x = torch.tensor([EXTREMES], dtype=torch.float64).T.contiguous()  # a row each
    got, wanted = run_program(program_of(op), {"x": x})["y"], reference(op, x, [])
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardtanh", "elu", "softsign"])
def test_the_subgradient_at_a_kink_is_torchs(name: str) -> None:
    op = registry()[name]
    x = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(reference(op, x, []).sum(), x)
    cotangent = torch.ones_like(wanted)
    found = run_program(vjp(program_of(op), "g"), {"x": x.detach(), "grad_y": cotangent})["grad_x"]
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", [n for n in registry() if not registry()[n].source])
def test_derivatives_hold_nothing_that_has_no_value(name: str) -> None:
    program = program_of(registry()[name])
    for order in ("first", "second"):
        program = vjp(program, order)
        for node in program.nodes():
            if isinstance(node, Map):
                assert not node.expr.atoms(*FORBIDDEN), f"{order}: {node.name} = {node.expr}"


@pytest.mark.parametrize("name", registry())
def test_a_declaration_is_short_and_says_where_it_comes_from(name: str) -> None:
    formula = registry()[name].formula
    lines = inspect.getsource(formula).split('"""')[-1].strip().splitlines()
    assert len(lines) <= 8
    assert registry()[name].statement
    assert "torch." in (doc := inspect.getdoc(formula) or "") or "arXiv" in doc or " 20" in doc


def test_no_alias_hides_an_op() -> None:
    assert not set(aliases()) & set(registry())
