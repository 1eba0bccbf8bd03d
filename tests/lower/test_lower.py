"""A program becomes a kernel: its stages, what they keep, and what is loaded, stored and added up."""

from __future__ import annotations

import pytest
import sympy as sp
from shared.small_programs import W, X, element_lines, program_of

from fusegen.atoms import row_take, sigmoid
from fusegen.lower import lower
from fusegen.ops import call, find
from fusegen.program import Access, Kind, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.from_formula import formula_value


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
    b.read("t", Kind.ROW, Access("t", Kind.ROW, stored="int64"))
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
    assert "grad_x = Math::where(col.column == row.t, row.grad_x_at_t, T(0))" in element_lines(
        kernel
    )


def test_values_are_kept_from_pass_to_pass() -> None:
    kernel = lower(program_of(call(find("softmax"), sp.sin(X), {}, {})))
    assert [stage.live for stage in kernel.stages] == [("op_max_term",), ("op_exp",), ()]
    assert kernel.stages[1].reads == ("op_max_term",)


def test_a_bias_gets_its_gradient_as_a_sum_over_rows() -> None:
    kernel = lower(vjp(program_of(sigmoid(X + W)), "backward"))
    results = {r.name: (r.how, r.kind) for r in kernel.results}
    assert results["grad_w"] == ("sum", Kind.COL)
    kernel = lower(vjp(program_of(sigmoid(X + W), weight=Kind.SCALAR), "backward"))
    assert {r.name: (r.how, r.kind) for r in kernel.results}["grad_w"] == ("sum", Kind.SCALAR)


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
