"""Every declared op: against torch in float64, at extremes and kinks, and what its declaration may hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import sympy as sp
import torch
import yaml
from shared.vocabulary import NUMBERS, VARIANTS, lone_ops, where_defined
from torch import Tensor
from torch.nn import functional as F

from fusegen import chain, spec
from fusegen.atoms import row_mean
from fusegen.ops import Op, aliases, call, declare, op, registry
from fusegen.program import Kind, Map, Outline, Output, Program
from fusegen.program.access import Access
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.from_formula import formula_value
from fusegen.spec.formula import parse
from fusegen.tools.check.reference_program import run_program
from fusegen.tools.check.torch_call import torch_call, untaken

FORBIDDEN = (sp.Min, sp.Max, sp.Abs, sp.Heaviside, sp.DiracDelta, sp.Derivative, sp.sign)
EXTREMES = [
    *(0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 88.0, -88.0, 745.0, -745.0),
    *(5e-324, -5e-324, 1e-310, math.inf, -math.inf, math.nan),
]
#: Where ops have their kinks, among other plain numbers.
KINKS = [-6.0, -3.0, -1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 3.0, 6.0]
#: The ops that torch has no function for, or has by another order of its arguments.
OWN: dict[str, Callable[..., Tensor]] = {
    "causal_mask": lambda x, position: x.masked_fill(
        torch.arange(x.shape[-1]) > position[..., None], -math.inf
    ),
    "geglu": lambda x, gate, approximate: x * F.gelu(gate, approximate=approximate),
    "glu": lambda x, gate: F.glu(torch.cat(torch.broadcast_tensors(x, gate), -1), -1),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "reglu": lambda x, gate: x * F.relu(gate),
    "swiglu": lambda x, gate, beta: (
        x * F.silu(gate) if beta == 1 else x * gate * (beta * gate).sigmoid()
    ),
    "swish": lambda x, beta: x * torch.sigmoid(beta * x),
    "where": lambda x, condition, other: torch.where(condition != 0, x, other),
}
#: What the functions of a row are in formulas.
ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x.amax(-1, keepdim=True),
    "amin": lambda x: x.amin(-1, keepdim=True),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True),
    "max": lambda x: x.amax(-1, keepdim=True),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "min": lambda x: x.amin(-1, keepdim=True),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
    "std": lambda x: x.std(-1, keepdim=True),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "var": lambda x: x.var(-1, keepdim=True),
}
#: Where torch is not the truth: hardswish(-inf) is -inf * 0 in torch, and 0 in the limit; the constants
#: of two backward functions are float32 numbers.
LIMITS = {"hardswish": [-math.inf]}
#: Kinks where an op has no value, and torch's derivative is infinite.
OUTSIDE = {"acosh": [-1.0]}
COARSE = {"celu": 1e-6, "hardsigmoid": 1e-6}


def given_of(name: str) -> list[dict[str, Any]]:
    """Return the attributes, and operands that are numbers, of each variant of an op."""
    texts = [*VARIANTS.get(name, [""]), *NUMBERS.get(name, [])]
    return [yaml.safe_load(f"{{{text}}}") for text in texts]


#: The kind of an operand whose kind the op leaves open, and of one with a number for each channel.
KINDS = {None: Kind.FULL, Kind.CHANNEL: Kind.COL}

CASES = [
    pytest.param(name, given, id=f"{name} {given}" if given else name)
    for name in lone_ops()
    if registry()[name].eval_mode == "same" and not registry()[name].indexes
    for given in given_of(name)
]
UNARY = [case for case in CASES if set(registry()[case.values[0]].operands) <= set(case.values[1])]


def bound(op: Op, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what is given as attributes, defaults included, and as operands."""
    attributes = {n: given.get(n, default) for n, default in op.attributes.items()}
    parameters = inspect.signature(op.formula).parameters
    for name, value in attributes.items():
        if value is not None and str(parameters[name].annotation).startswith("float"):
            attributes[name] = float(value)
    return attributes, {n: float(v) for n, v in given.items() if n in op.operands}


def program_of(op: Op, given: dict[str, Any]) -> Program:
    attributes, numbers = bound(op, given)
    b = Builder()
    x = b.input("x", Kind.FULL)
    operands: dict[str, Any] = {
        n: sp.Float(v, 17) if v % 1 else sp.Integer(int(v)) for n, v in numbers.items()
    }
    for name, kind in op.operands.items():
        if name not in numbers:
            given_kind = {None: Kind.FULL, Kind.CHANNEL: Kind.COL}.get(kind, kind)
            along = Kind.ROW if name == op.classes else given_kind
            access = Access(name, along, stored="int64" if name == op.classes else "x")
            constant = name in op.constant
            operands[name] = b.read(name, along, access, differentiable=not constant)[0].symbol
    value = formula_value(b, op.name, call(op, x.symbol, operands, attributes))
    outline: Outline = {Kind.FULL: "like", Kind.ROW: "row", Kind.SCALAR: "scalar"}[value.kind]
    return Program("forward", tuple(b.inputs), {"y": Output(value, x, outline)})


def reference(op: Op, given: dict[str, Any], x: Tensor, operands: dict[str, Tensor]) -> Tensor:
    attributes, numbers = bound(op, given)
    taken = [numbers[n] if n in numbers else operands.get(n) for n in op.operands]
    for name in op.of_parts:
        del attributes[name]
    if op.name in OWN:
        return OWN[op.name](x, *taken, **attributes)
    called = torch_call(op, attributes, training=False)
    if called is None:  # torch has no such function: the formula, differentiated by autograd
        return run_program(program_of(op, given), {"x": x, **operands})["y"]
    return called(x, taken)


def inputs_of(program: Program, x: Tensor) -> dict[str, Tensor]:
    """Return random tensors for all of a program's operands; 0 and 1 for a condition."""
    generator = torch.Generator().manual_seed(7)
    shapes = {Kind.COL: x.shape[-1:], Kind.FULL: x.shape, Kind.SCALAR: (1,)}
    found = {}
    for i in program.inputs[1:]:
        if i.integer:
            found[i.name] = torch.randint(x.shape[-1], x.shape[:-1], generator=generator)
        elif i.source == "tensor":
            drawn = torch.rand(shapes[i.kind], generator=generator, dtype=torch.float64).add(0.5)
            found[i.name] = (drawn > 1).double() if i.name in ("condition", "mask") else drawn
    return found


def random_x(op: Op) -> Tensor:
    x = torch.randn(9, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    return where_defined(op.name, x)


def assert_gradients_are_torchs(
    op: Op, given: dict[str, Any], x: Tensor, operands: dict[str, Tensor], *, orders: int
) -> None:
    """Compare an op's value and derivatives with those of its torch function."""

    def run(x: Tensor, taken: dict[str, Tensor]) -> Tensor:
        return reference(op, given, x, taken)

    tolerance = {"rtol": COARSE.get(op.name, 1e-9), "atol": COARSE.get(op.name, 1e-12)}
    assert_same(program_of(op, given), run, x, operands, tolerance, orders=orders)


def assert_same(
    program: Program,
    run: Callable[[Tensor, dict[str, Tensor]], Tensor],
    x: Tensor,
    operands: dict[str, Tensor],
    tolerance: dict[str, float],
    *,
    orders: int,
) -> None:
    """Compare a program's value and its derivatives with autograd's, for random cotangents."""
    generator = torch.Generator().manual_seed(1)
    values = {"x": x, **operands}
    leaves = {
        i.name: values[i.name].clone().requires_grad_() for i in program.inputs if i.differentiable
    }
    wanted = {"y": run(leaves["x"], {**operands, **leaves})}
    for order in range(orders + 1):
        columns = {n: t[:, None] for n, t in values.items() if t.shape == x.shape[:1]}
        found = run_program(program, values | columns)
        for name, want in wanted.items():
            got = found.get(name, torch.zeros_like(want)).reshape(want.shape)
            message = f"order {order}, {name}: ".__add__
            torch.testing.assert_close(got, want.detach(), equal_nan=True, msg=message, **tolerance)
        used = {n: wanted[n] for n in program.outputs if wanted[n].requires_grad}
        if order == orders or not used:
            return
        cotangents = {}
        for name in program.outputs:
            drawn = torch.randn(wanted[name].shape, generator=generator, dtype=torch.float64)
            values[f"grad_{name}"] = drawn
            cotangents[name] = drawn.clone().requires_grad_()
        gradients = torch.autograd.grad(
            list(used.values()),
            list(leaves.values()),
            [cotangents[n] for n in used],
            create_graph=True,
            allow_unused=True,
        )
        wanted = {
            f"grad_{n}": torch.zeros_like(leaf) if g is None else g
            for (n, leaf), g in zip(leaves.items(), gradients, strict=True)
        }
        leaves |= {f"grad_{n}": c for n, c in cotangents.items()}
        program = vjp(program, f"order_{order}")


@pytest.mark.parametrize(("name", "given"), CASES)
def test_value_and_derivatives_of_two_orders_are_torchs(name: str, given: dict[str, Any]) -> None:
    op = registry()[name]
    x = random_x(op)
    orders = 1 if name == "hardsigmoid" else 2  # torch has no second derivative of that
    assert_gradients_are_torchs(op, given, x, inputs_of(program_of(op, given), x), orders=orders)


@pytest.mark.parametrize(("name", "given"), UNARY)
def test_extremes_are_torchs(name: str, given: dict[str, Any]) -> None:
    """At extremes the value is torch's, NaN where torch has NaN and nowhere else."""
    op = registry()[name]
    points = [v for v in EXTREMES if v not in LIMITS.get(name, [])]
    x = torch.tensor([points], dtype=torch.float64).T.contiguous()  # a row each
    wanted = reference(op, given, x, {})
    got = run_program(program_of(op, given), {"x": x})["y"].reshape(wanted.shape)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize(("name", "given"), UNARY)
def test_the_subgradient_at_a_kink_is_torchs(name: str, given: dict[str, Any]) -> None:
    points = [v for v in KINKS if v not in OUTSIDE.get(name, [])]
    x = torch.tensor([points], dtype=torch.float64).T.contiguous()
    assert_gradients_are_torchs(registry()[name], given, x, {}, orders=1)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_function_of_formulas_is_torchs(name: str) -> None:
    """Value and two derivatives, also where the function is a denominator or an argument."""
    x = random_x(registry()["exp"])
    symbol = sp.Symbol("x", real=True)
    b = Builder()
    leaf = b.input("x", Kind.FULL)
    formula = parse(f"x / (3 + {name}(x)) + tanh({name}(x * sigmoid(x)))", {"x": symbol})
    value = formula_value(b, "formula", formula)
    program = Program("forward", tuple(b.inputs), {"y": Output(value, leaf)})

    def run(x: Tensor, _: dict[str, Tensor]) -> Tensor:
        return x / (3 + ROWS[name](x)) + ROWS[name](x * x.sigmoid()).tanh()

    assert_same(program, run, x, {}, {"rtol": 1e-9, "atol": 1e-11}, orders=2)


@pytest.mark.parametrize("name", ["norm", "std"])
def test_one_over_a_row_that_is_zero_is_torchs(name: str) -> None:
    """1 / norm(x) is a quotient with a node below it, not a choice between 1 / 0 and another."""
    b = Builder()
    x = b.input("x", Kind.FULL)
    value = formula_value(b, "formula", parse(f"1 / {name}(x) + x", {"x": x.symbol}))
    program = Program("forward", tuple(b.inputs), {"y": Output(value, x)})
    rows = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], dtype=torch.float64)
    got = run_program(program, {"x": rows})["y"]
    torch.testing.assert_close(got, 1 / ROWS[name](rows) + rows)


@pytest.mark.parametrize("name", ["maximum", "minimum", "prelu", "where", "reglu"])
def test_ties_with_an_operand_are_torchs(name: str) -> None:
    op = registry()[name]
    x = torch.tensor([[-1.0, -0.0, 0.0, 2.0, 1e308]], dtype=torch.float64)
    operands = {
        n: x.clone() if k is None else torch.ones(1).double() for n, k in op.operands.items()
    }
    assert_gradients_are_torchs(op, {}, x, operands, orders=1)


@pytest.mark.parametrize(
    "name", [n for n, op in registry().items() if not (op.source or op.paired)]
)
def test_derivatives_hold_nothing_that_has_no_value(name: str) -> None:
    for given in given_of(name):
        program = program_of(registry()[name], given)
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


@pytest.mark.parametrize("name", registry())
def test_each_parameter_of_torch_is_taken_or_refused_with_a_reason(name: str) -> None:
    op = registry()[name]
    assert [n for n in untaken(op) if not op.refusal(n)] == []
    assert not set(op.refused) & {*op.operands, *op.attributes}


def test_no_alias_hides_an_op() -> None:
    assert not set(aliases()) & set(registry())


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_what_is_dropped_and_what_is_kept_have_torchs_values(name: str) -> None:
    x = torch.ones(64, 64, dtype=torch.float64)
    dropped = torch_call(registry()[name], {"p": 0.3}, training=True)
    assert dropped is not None
    got = run_program(program_of(registry()[name], {"p": 0.3}), {"x": x})["y"]
    torch.testing.assert_close(got.unique(), dropped(x, []).unique())
    assert 0.25 < (got == got.min()).double().mean() < 0.35


def test_an_op_over_the_last_dim_reduces_it_in_an_image_too() -> None:
    @op(over="last")
    def less_its_mean(x: sp.Expr) -> sp.Expr:
        """x - mean(x)."""
        return x - row_mean(x)

    try:
        for dims in (2, 3, 4, 5):
            derived = chain.derive(spec.parse(f"dims: {dims}\nchain: [less_its_mean]\n", "own"))
            assert derived.layout.columns == (-1,), dims
    finally:
        del declare._REGISTRY["less_its_mean"]


def test_what_an_op_reduces_is_one_of_three_words() -> None:
    with pytest.raises(ValueError, match="over is one of last, inner, channel, not 'rows'"):
        op(over="rows")  # type: ignore[arg-type]  # a word that it cannot be
