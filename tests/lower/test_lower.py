"""Lowering: the printer's exact text, the schedule, hoisting and sharing."""

from __future__ import annotations

import pytest
import sympy as sp
from shared.small_programs import W, program_of

from fusegen.atoms import normcdf, row_mean, row_take, rsqrt, sigmoid, tanh, where
from fusegen.lower import Code, Kernel, Variable, lower
from fusegen.lower.print_cpp import Printer
from fusegen.ops import call, find
from fusegen.program import Kind, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.from_formula import formula_value

X, Y = sp.Symbol("x", real=True), sp.Symbol("y", real=True)
PRINTED = [
    (X + Y, "x + row.y"),
    (X - Y, "x - row.y"),
    (1 - X**2, "Math::fma(-x, x, T(1))"),
    (X * Y + 2, "Math::fma(x, row.y, T(2))"),
    (X - X * Y, "Math::fma(-x, row.y, x)"),
    (X**2 + Y**2, "Math::fma(row.y, row.y, x * x)"),
    (2 * X * Y - 3, "Math::fma(T(2) * x, row.y, -T(3))"),
    (1 - 2 * X * Y, "Math::fma(-T(2) * x, row.y, T(1))"),
    (X + X / Y, "x + x / row.y"),
    (X * (1 - Y), "x * (T(1) - row.y)"),
    (X / Y, "x / row.y"),
    (X / Y**2, "times_power<2>(x, Math::inverse(row.y))"),
    (-X * Y, "-x * row.y"),
    (X**3, "power<3>(x)"),
    (sp.sqrt(X), "Math::sqrt(x)"),
    (rsqrt(X), "Math::rsqrt(x)"),
    (X ** sp.Rational(-3, 2), "power<3>(Math::rsqrt(x))"),
    (X ** sp.Rational(7, 3), "Math::pow(x, T(2.3333333333333335))"),
    (sp.sqrt(2) * X, "x * T(1.4142135623730951)"),
    (sp.Float("0.2", 17) * X, "x * T(0.2)"),
    (sp.Integer(10) ** 20 * X, "T(1e+20) * x"),
    (where(X <= 0, 0, X), "(x <= T(0) ? T(0) : x)"),
    (where(sp.Eq(X, Y), 1, 0), "(x == row.y ? T(1) : T(0))"),
    (X * normcdf(X) * sigmoid(Y), "x * Math::normcdf(x) * Math::sigmoid(row.y)"),
    (sp.exp(-X), "Math::exp(-x)"),
]


def print_cpp(expr: sp.Expr) -> Code:
    return Printer({X: Variable("x"), Y: Variable("y", "row")}, lambda _: 1)(expr)


@pytest.mark.parametrize(("expr", "code"), PRINTED, ids=[code for _, code in PRINTED])
def test_the_printer_writes(expr: sp.Expr, code: str) -> None:
    assert print_cpp(expr).text == code


def test_the_printer_says_what_code_reads_and_calls() -> None:
    code = print_cpp(X * normcdf(X) + Y * sigmoid(X))
    assert code.reads == {Variable("x"), Variable("y", "row")}
    assert code.calls == 2  # the fused product and sum is one instruction


def test_of_a_row_among_several_only_its_own_variables_are_renamed() -> None:
    assert str(Variable("m", "row").among("row", "row[v]")) == "row[v].m"
    assert str(Variable("row").among("row", "row[v]")) == "row"
    assert str(Variable("m", "col").among("row", "row[v]")) == "col.m"


def test_the_printer_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="gamma"):
        print_cpp(sp.gamma(X))


def lines(kernel: Kernel) -> list[str]:
    return [f"{line.name} = {line.code}" for stage in kernel.stages for line in stage.lines]


def test_softmax_takes_three_passes_and_its_backward_two() -> None:
    program = program_of(call(find("softmax"), X, {}, {}))
    assert len(lower(program).stages) == 3
    backward = vjp(program, "backward")
    assert len(lower(backward).stages) == 3  # the sums of e and of g e need no pass of their own
    saved = [v for v in program.nodes() if isinstance(v, Reduce)]
    assert len(lower(backward, given=saved).stages) == 2


def class_program(formula: sp.Expr) -> Program:
    """Return y = formula(x, w, t), where t is a column's number for each row."""
    b = Builder()
    x, _ = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    b.input("t", Kind.ROW, integer=True)
    return Program("f", tuple(b.inputs), {"y": Output(formula_value(b, "op", formula), x, "row")})


def test_an_element_is_loaded_and_nothing_else_of_what_it_is_taken_from() -> None:
    kernel = lower(class_program(row_take(sp.exp(X) * W, sp.Symbol("t", real=True))))
    assert [(e.name, e.operand.name, e.index) for e in kernel.inputs.taken] == [
        ("w_at_t", "w", "t"),
        ("x_at_t", "x", "t"),
    ]
    assert (kernel.inputs.full, kernel.inputs.col) == ((), ())
    assert [f.name for f in kernel.inputs.aside] == ["x", "w"]
    assert not kernel.reads_elements
    assert [f"{line.name} = {line.code}" for line in kernel.stages[0].row_lines] == [
        "row.op_term_at_t = row.w_at_t * Math::exp(row.x_at_t)"
    ]


def test_an_element_passes_its_gradient_to_its_column_alone() -> None:
    program = class_program(row_take(X * W, sp.Symbol("t", real=True)))
    kernel = lower(vjp(program, "backward"))
    assert not kernel.reduces_rows
    assert "grad_x = (col.column == row.t ? row.grad_x_at_t : T(0))" in lines(kernel)


def test_values_are_kept_from_pass_to_pass() -> None:
    kernel = lower(program_of(call(find("softmax"), sp.sin(X), {}, {})))
    assert [stage.kept for stage in kernel.stages] == [("op_max_term",), ("op_exp",), ()]
    assert kernel.stages[1].reads == ("op_max_term",)


def test_what_varies_along_columns_alone_is_computed_once_a_column() -> None:
    kernel = lower(program_of(X * (rsqrt(W + 1) * W)))
    assert [f"{line.name} = {line.code}" for line in kernel.col_lines] == [
        "col.op_factor = col.w * Math::rsqrt(col.w + T(1))"
    ]
    assert lines(kernel) == ["op = full.x * col.op_factor"]


def test_a_reciprocal_of_a_row_is_computed_once_a_row() -> None:
    kernel = lower(program_of(X / sp.sqrt(row_mean(X**2))))
    assert lines(kernel)[-1] == "op = full.x * row.op_factor"


def test_common_parts_are_shared_and_named() -> None:
    kernel = lower(vjp(program_of(X * tanh(X) ** 2), "backward"))
    assert "\n".join(lines(kernel)).count("Math::tanh") == 1
    assert lines(kernel)[0] == "op_tanh = Math::tanh(full.x)"


def test_a_bias_gets_its_gradient_as_a_sum_over_rows() -> None:
    kernel = lower(vjp(program_of(sigmoid(X + W)), "backward"))
    results = {r.name: (r.how, r.kind) for r in kernel.results}
    assert results["grad_w"] == ("sum", Kind.COL)
    kernel = lower(vjp(program_of(sigmoid(X + W), weight=Kind.SCALAR), "backward"))
    assert {r.name: (r.how, r.kind) for r in kernel.results}["grad_w"] == ("sum", Kind.SCALAR)


def test_a_program_is_cut_at_sums_over_rows_in_its_middle() -> None:
    """Each sum is finished by a kernel before the one that reads it; what leaves early leaves early."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    total = b.reduce("total", "sum", x, Kind.COL)
    centred = b.map("centred", w.symbol * (x.symbol - total.symbol / b.extent("rows").symbol))
    squares = b.reduce("squares", "sum", b.map("square", centred.symbol**2), Kind.COL)
    y = b.map("y", centred.symbol / squares.symbol)
    outputs = {"y": Output(y, x), "t": Output(total, w), "s": Output(squares, w)}
    kernel = lower(Program("f", tuple(b.inputs), outputs))
    assert [k.name for k in kernel.parts] == ["f_sums", "f_sums2", "f"]
    found = [[(r.name, r.how) for r in k.results] for k in kernel.parts]
    assert found == [
        [("t", "sum"), ("total", "sum")],
        [("s", "sum"), ("squares", "sum")],
        [("y", "store")],
    ]
    assert [[f.name for f in k.inputs.saved if f.handed] for k in kernel.parts] == [
        [],
        ["total"],
        ["total", "squares"],
    ]


def test_a_sample_has_a_kernel_of_its_own() -> None:
    b = Builder()
    x = b.input("x", Kind.FULL)
    near = b.reduce("near", "sum", x, Kind.COL, shift_invariant=True, sample=True)
    far = b.reduce("far", "sum", x, Kind.COL)
    y = b.map("y", x.symbol - near.symbol / b.extent("sample").symbol + far.symbol)
    kernel = lower(Program("f", tuple(b.inputs), {"y": Output(y, x)}))
    assert [(k.name, k.sampled) for k in kernel.parts] == [
        ("f_sample", True),
        ("f_sums", False),
        ("f", False),
    ]


@pytest.mark.parametrize(("operand", "form"), [(Kind.ROW, "along"), (Kind.COL, "pointwise")])
def test_what_is_saved_of_a_row_is_read_once_along_it(operand: Kind, form: str) -> None:
    """But where something varies along columns, a thread keeps its columns and walks down the rows."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", operand)
    total = b.reduce("total", "sum", x, Kind.ROW)
    y = b.map("y", w.symbol * x.symbol / total.symbol)
    program = Program("f", tuple(b.inputs), {"y": Output(y, x)})
    assert lower(program, given=[total]).form == form
    assert lower(program).form == "rows"
