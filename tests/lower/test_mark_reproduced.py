"""What a saved value is computed from has the same bits in the forward pass and in its derivatives."""

from __future__ import annotations

from fusegen.lower.part import Part
from fusegen.lower.passes.mark_reproduced import mark_reproduced
from fusegen.program import Kind, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp


def scaled_by_its_maximum() -> Program:
    """y = 2 x w / max(x w), and the maximum is saved."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    product = b.map("product", x.symbol * w.symbol)
    largest = b.reduce("largest", "max", product, Kind.ROW)
    double = b.map("double", 2 * product.symbol)
    y = b.map("y", double.symbol / largest.symbol)
    return Program("forward", tuple(b.inputs), {"y": Output(y, x)}, (largest,))


def test_what_the_saved_maximum_is_taken_of_is_marked_and_nothing_else() -> None:
    assert mark_reproduced(Part(scaled_by_its_maximum()))[0].fixed == {"product"}


def test_a_derivative_that_is_given_the_maximum_marks_the_same() -> None:
    program = scaled_by_its_maximum()
    (saved,) = program.saved
    assert isinstance(saved, Reduce)
    backward = vjp(program, "backward")
    assert mark_reproduced(Part(backward, (saved,)))[0].fixed == {"product"}


def test_nothing_is_marked_where_nothing_is_saved() -> None:
    b = Builder()
    x = b.input("x", Kind.FULL)
    program = Program("f", tuple(b.inputs), {"y": Output(b.map("y", x.symbol**2), x)})
    assert not mark_reproduced(Part(program))[0].fixed
