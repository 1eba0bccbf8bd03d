"""Derivatives of programs against torch's autograd, which runs the same programs eagerly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy as sp
import torch
from conftest import NAMES
from torch import Tensor

from fusegen import atoms
from fusegen.chain import Chain
from fusegen.ops import call, find
from fusegen.program import Access, Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.calculus import jvp, vjp
from fusegen.program.from_formula import formula_value
from fusegen.spec.formula import parse
from fusegen.tools.check.reference_program import run_program

X, W = sp.Symbol("x", real=True), sp.Symbol("w", real=True)
S, R = sp.Symbol("s", real=True), sp.Symbol("r", real=True)
NAMED = {"x": X, "w": W, "s": S, "r": R}
#: A column's number for each row; -1 in the first.
T = sp.Symbol("t", real=True)
FORMULAS = {
    "softmax": call(find("softmax"), X * W, {}, {}),
    "log_softmax": call(find("log_softmax"), X * S + R, {}, {}),
    "layer_norm": call(find("layer_norm"), X + R, {"weight": W, "bias": S}, {}),
    "rms_norm": X * atoms.rsqrt(atoms.row_mean(X**2) + S**2) * sp.exp(W),
    "largest": X * atoms.row_max(X * W) + R,
    "softmax of a product": call(find("softmax"), X**2 * S * R, {}, {}) * W,
    "row sum alone": atoms.row_sum(W * R) + X,
    "row functions": parse(
        "x / norm(x) + std(x) * softmax(x) + min(x) * log_softmax(w * x)", NAMED
    ),
    "more row functions": parse("x * logsumexp(x) + var(s * x) - amax(x) + amin(r * x)", NAMED),
    "element of a row": X * atoms.where(T < 0, S, atoms.row_take(sp.exp(X * W) * S + R, T)),
    "element of a column": atoms.row_take(W**2 * X, T)
    * atoms.row_sum(X**2)
    * atoms.where(T < 0, 0, 1),
    "cross entropy": call(
        find("cross_entropy"),
        sp.sin(X * W) * S + R,
        {"target": T, "weight": W},
        {"reduction": "none", "ignore_index": -1},
    )
    + X,
    "kink": atoms.where(X <= S, W * X, X**3),
}


def program_of(formula: sp.Expr) -> Program:
    b = Builder()
    x = b.input("x", Kind.FULL)
    for name, kind in (("w", Kind.COL), ("r", Kind.ROW), ("s", Kind.SCALAR)):
        b.input(name, kind)
    b.read("t", Kind.ROW, Access("t", Kind.ROW, stored="int64"))
    return Program("f", tuple(b.inputs), {"y": Output(formula_value(b, "op", formula), x)})


def random_inputs(
    program: Program, rows: int = 4, cols: int = 6, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {Kind.FULL: (rows, cols), Kind.COL: (cols,), Kind.ROW: (rows, 1), Kind.SCALAR: (1,)}
    found = {
        i.name: torch.rand(shapes[i.kind], generator=generator, dtype=torch.float64).add(0.3)
        for i in program.inputs
        if i.source in ("tensor", "attribute") and not i.integer
    }
    for i in program.inputs:
        if i.integer:
            drawn = torch.randint(cols, (rows, 1), generator=generator)
            found[i.name] = torch.where(torch.arange(rows)[:, None] == 0, -1, drawn).double()
    return found


def assert_vjp_is_torchs(program: Program, derived: Program) -> None:
    """Compare every gradient that the derived program gives with autograd's."""
    inputs = random_inputs(derived)
    leaves = {i.name: inputs[i.name].requires_grad_() for i in program.inputs if i.differentiable}
    outputs = run_program(program, inputs, seed=3)
    cotangents = [inputs[i.name] for i in derived.inputs[len(program.inputs) :]]
    wanted = torch.autograd.grad(
        list(outputs.values()), list(leaves.values()), cotangents, allow_unused=True
    )
    with torch.no_grad():
        got = run_program(derived, inputs, seed=3)
    for name, gradient in zip(leaves, wanted, strict=True):
        found = got.get(f"grad_{name}", torch.zeros_like(inputs[name]))
        expected = torch.zeros_like(inputs[name]) if gradient is None else gradient
        torch.testing.assert_close(
            found, expected, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", FORMULAS)
def test_vjp_of_vjp_of_a_formula(name: str) -> None:
    program = program_of(FORMULAS[name])
    for order in ("first", "second", "third"):
        derived = vjp(program, order)
        assert_vjp_is_torchs(program, derived)
        program = derived


@pytest.mark.parametrize("name", NAMES)
def test_vjp_of_vjp_of_a_spec(name: str, derived: Callable[[str], Chain]) -> None:
    for mode in derived(name).modes:
        program = mode.programs[0]
        for order in ("first", "second"):
            gradient = vjp(program, order)
            assert_vjp_is_torchs(program, gradient)
            program = gradient


@pytest.mark.parametrize("name", FORMULAS)
def test_jvp_is_torchs(name: str) -> None:
    program = program_of(FORMULAS[name])
    derived = jvp(program, "tangent")
    inputs = random_inputs(derived)
    primal = {i.name: inputs[i.name] for i in program.inputs if i.differentiable}
    fixed = {i.name: inputs[i.name] for i in program.inputs if not i.differentiable}
    tangents = tuple(inputs[f"tangent_{name}"] for name in primal)

    def run(*values: Tensor) -> Tensor:
        return run_program(program, {**dict(zip(primal, values, strict=True)), **fixed})["y"]

    _, wanted = torch.func.jvp(run, tuple(primal.values()), tangents)
    got = run_program(derived, inputs)["tangent_y"]
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def test_ties_share_the_gradient_of_a_maximum() -> None:
    program = program_of(atoms.row_max(X) + 0 * X + X)
    inputs = {**random_inputs(vjp(program, "g")), "grad_y": torch.ones(1, 4, dtype=torch.float64)}
    inputs["x"] = torch.tensor([[1.0, 3.0, 3.0, 2.0]], dtype=torch.float64)
    got = run_program(vjp(program, "g"), inputs)["grad_x"]
    assert got.tolist() == [[1.0, 3.0, 3.0, 1.0]]  # 1 from x, and 4 / 2 for each of two maxima


def test_no_gradient_runs_through_a_shift() -> None:
    program = program_of(call(find("softmax"), X, {}, {}))
    names = [v.name for v in vjp(program, "g").nodes()]
    assert not [n for n in names if n.startswith(("is_", "grad_op_max"))]


def test_what_no_output_depends_on_gets_no_gradient() -> None:
    assert set(vjp(program_of(X * S), "g").outputs) == {"grad_x", "grad_s"}
