"""The value of a column and the result that it fills have names of their own."""

from __future__ import annotations

from fusegen.lower import lower
from fusegen.lower.part import Part
from fusegen.lower.passes.name_columns import name_columns
from fusegen.program import Kind, Output, Program
from fusegen.program.builder import Builder


def filled(*, taken: str = "other") -> Program:
    """y, as large as x, is a value of the column; another value is called `taken`."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    y = b.map("y", w.symbol**2)
    other = b.map(taken, x.symbol + y.symbol)
    outputs = {"y": Output(y, x), "z": Output(other, x)}
    return Program("f", tuple(b.inputs), outputs)


def test_a_column_that_fills_a_result_gets_a_name() -> None:
    (part,) = name_columns(Part(filled()))
    assert [v.name for v in part.program.nodes()] == ["w", "y_column", "x", "other"]
    assert part.program.outputs["y"].value.name == "y_column"


def test_the_name_is_none_that_is_taken() -> None:
    (part,) = name_columns(Part(filled(taken="y_column")))
    assert part.program.outputs["y"].value.name == "y_column2"


def test_a_kernel_has_two_arrays_for_them() -> None:
    """The columns' array has a number for each column, the result's one for each element."""
    kernel = lower(filled())
    assert {r.name: r.kind for r in kernel.results} == {"y": Kind.FULL, "z": Kind.FULL}
    assert "y" not in kernel.fields.col and "y_column" in kernel.fields.col


def test_a_result_with_one_number_a_column_keeps_its_name() -> None:
    b = Builder()
    b.input("x", Kind.FULL)
    w = b.input("w", Kind.COL)
    program = Program("f", tuple(b.inputs), {"y": Output(b.map("y", w.symbol**2), w)})
    assert name_columns(Part(program))[0].program is program
