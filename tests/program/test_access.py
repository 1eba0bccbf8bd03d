"""How values lie in tensors, and that a gradient lies as what it is the gradient of."""

from __future__ import annotations

import pytest
import sympy as sp

from fusegen.atoms import Partition
from fusegen.program import WHOLE, Access, Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.calculus import jvp, vjp

ALTERNATING = Partition(4, alternating=True)


def test_a_tensor_in_one_part_is_called_as_its_value() -> None:
    access = Access("w", Kind.COL)
    assert (access.name, access.count, access.step) == ("w", 1, 1)
    assert access.parts("v") == (Access("v", Kind.COL),)


def test_only_the_first_two_of_several_parts_alternate() -> None:
    parts = Access("x", Kind.FULL, ALTERNATING).parts("x")
    assert [part.name for part in parts] == ["x", "x_half", "x_part2", "x_part3"]
    assert [part.step for part in parts] == [2, 2, 1, 1]


#: Accesses of an operand of kind full, by what is special about them.
HELD = {
    "whole": Access("w", Kind.FULL),
    "channels": Access("w", Kind.CHANNEL),
    "alternating": Access("w", Kind.FULL, ALTERNATING),
    "float32": Access("w", Kind.FULL, stored="computed"),
    "channels of float32": Access("w", Kind.CHANNEL, stored="computed"),
}


def product(held: Access) -> Program:
    """y = x w, part by part."""
    builder = Builder()
    xs = builder.parts("x", Kind.FULL, held.partition)
    ws = builder.read("w", Kind.FULL, held)
    pairs = zip(xs, ws, strict=True)
    made = [builder.map("y", x.symbol * w.symbol) for x, w in pairs]
    names = [a.name for a in held.parts("y")]
    outputs = {n: Output(y, x) for n, y, x in zip(names, made, xs, strict=True)}
    return Program("forward", tuple(builder.inputs), outputs)


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_a_gradient_lies_as_its_operand_and_a_cotangent_as_its_output(held: Access) -> None:
    backward = vjp(product(held), "backward")
    assert backward.tensors == ("x", "w", "grad_y")
    assert [*backward.returned] == ["grad_x", "grad_w"]
    for name, output in backward.outputs.items():
        own, gradient = output.like.access, output.access(name)
        assert gradient == own.parts(f"grad_{own.tensor}")[own.place]
    again = vjp(backward, "double_backward")
    arrived = [i.access for i in again.inputs if i.tensor == "grad_grad_w"]
    assert arrived == [*held.parts("grad_grad_w")]


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_a_tangent_lies_as_what_it_is_the_tangent_of(held: Access) -> None:
    tangents = jvp(product(held), "forward_mode")
    arrived = [i.access for i in tangents.inputs if i.tensor == "tangent_w"]
    assert arrived == [*held.parts("tangent_w")]
    assert [*tangents.returned] == ["tangent_y"]
    first = tangents.outputs["tangent_y"].value
    x, w = (sp.Symbol(name, real=True) for name in ("x", "w"))
    dx, dw = (sp.Symbol(f"tangent_{name}", real=True) for name in ("x", "w"))
    assert getattr(first, "expr", None) == x * dw + w * dx


def test_a_gradient_of_int64_numbers_is_not_asked_for() -> None:
    builder = Builder()
    (index,) = builder.read("t", Kind.ROW, Access("t", Kind.ROW, stored="int64"))
    assert index.integer and not index.differentiable


def test_an_output_that_is_reduced_lies_in_a_tensor_of_its_own() -> None:
    builder = Builder()
    x, _ = builder.parts("x", Kind.FULL, Partition(2))
    row = builder.reduce("s", "sum", x, Kind.ROW)
    assert Output(row, x, "row", float32=True).access("y") == Access(
        "y", Kind.ROW, WHOLE, stored="computed"
    )
    assert Output(row, x, "row").access("y").stored == "x"
