"""The intermediate representation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy as sp

from fusegen.atoms import exp, let, row_max, row_mean, row_shift, row_sum, sigmoid
from fusegen.program import Access, Kind, Map, Output, Program, Reduce, Take, describe
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value

X = sp.Symbol("x", real=True)


def builder() -> Builder:
    made = Builder()
    made.input("x", Kind.FULL)
    made.input("bias", Kind.COL)
    made.input("scale", Kind.SCALAR)
    return made


def test_a_smaller_kind_broadcasts_in_a_larger_expression() -> None:
    b = builder()
    x, bias, scale = (i.symbol for i in b.inputs)
    assert b.map("a", x + bias).kind == Kind.FULL
    assert b.map("b", bias * scale).kind == Kind.COL
    assert b.map("c", scale**2).kind == Kind.SCALAR


def test_the_same_expression_is_the_same_node() -> None:
    b = builder()
    x = b.inputs[0].symbol
    first = b.map("a", sigmoid(x))
    assert b.map("other", sigmoid(x)) is first
    assert b.reduce("s", "sum", first, Kind.ROW) is b.reduce("t", "sum", first, Kind.ROW)
    assert b.reduce("s", "sum", first, Kind.COL) is not b.reduce("t", "sum", first, Kind.ROW)


def test_names_are_unique() -> None:
    b = builder()
    x = b.inputs[0].symbol
    names = [b.map("gelu", x + n).name for n in (1, 2, 3)]
    assert names == ["gelu", "gelu_2", "gelu_3"]


def test_a_sum_over_an_axis_that_a_value_does_not_vary_along_multiplies_by_its_extent() -> None:
    b = builder()
    bias = b.inputs[1]
    summed = b.sum_to("s", bias, Kind.COL, over=Kind.FULL)
    assert isinstance(summed, Map)
    assert summed.kind == Kind.COL
    assert {a.name for a in summed.args} == {"bias", "rows"}


@pytest.mark.parametrize("reduced", [row_max, row_shift, row_sum])
def test_what_is_taken_off_a_reduction_is_what_was_reduced(reduced: Callable[..., sp.Expr]) -> None:
    """x + 4 - max(x + 4) is 0 at the largest, also where 4 is below the rounding of x."""
    b = builder()
    value = formula_value(b, "op", X + 4 - reduced(X + 4))
    assert isinstance(value, Map)
    (term,) = (a for a in value.args if a.kind == Kind.FULL)
    assert isinstance(term, Map) and term.expr == X + 4
    assert any(isinstance(a, Reduce) and a.arg is term for a in value.args)


def test_row_functions_become_reductions_innermost_first() -> None:
    b = builder()
    value = formula_value(b, "op", row_sum(exp(X - row_shift(X))))
    assert isinstance(value, Reduce)
    assert value.op == "sum"
    program = Program("f", tuple(b.inputs), {"y": Output(value, b.inputs[0])})
    kinds = [(type(v).__name__, v.kind.label) for v in program.nodes()]
    assert kinds == [("Input", "full"), ("Reduce", "row"), ("Map", "full"), ("Reduce", "row")]


def test_a_named_part_is_shared_by_all_that_use_it() -> None:
    b = builder()
    centred = let("centred", X - row_mean(X))
    value = formula_value(b, "norm", centred * row_mean(centred**2))
    assert isinstance(value, Map)
    assert "norm_centred" in {a.name for a in value.args}


def test_taking_an_element_distributes_down_to_what_is_loaded() -> None:
    b = builder()
    (index,) = b.read("index", Kind.ROW, Access("index", Kind.ROW, stored="int64"))
    x, bias, scale = (i.symbol for i in b.inputs[:3])
    total = b.reduce("total", "sum", b.inputs[0], Kind.COL)
    row = b.reduce("row", "sum", b.inputs[0], Kind.ROW)
    inner = b.map("inner", sigmoid(x + bias) * scale)
    taken = b.take(b.map("outer", inner.symbol**2 + total.symbol - row.symbol), index)
    program = Program("f", tuple(b.inputs), {"y": Output(taken, b.inputs[0])})
    assert [describe(v) for v in program.nodes() if isinstance(v, (Map, Take))] == [
        "bias_at_index: row = take(bias, index)",
        "x_at_index: row = take(x, index)",
        "inner_at_index: row = scale*sigmoid(bias_at_index + x_at_index)",
        "total_at_index: row = take(total, index)",
        "outer_at_index: row = inner_at_index**2 - row + total_at_index",
    ]
    assert b.take(row, index) is row
    assert b.take(inner, index) is b.take(inner, index)
    assert b.take(b.index(), index) is index


def test_a_shift_is_told_apart_from_a_maximum() -> None:
    b = builder()
    shift = formula_value(b, "a", row_shift(X))
    largest = formula_value(b, "b", row_max(X))
    assert isinstance(shift, Reduce)
    assert isinstance(largest, Reduce)
    assert (shift.shift_invariant, largest.shift_invariant) == (True, False)
