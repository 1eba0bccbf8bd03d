"""Where values of different cotangents meet, each is selected; where they do not, nothing is."""

from __future__ import annotations

import sympy as sp

from fusegen.program import Input, Kind, Output, Program, presence
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.ir import arguments

X, W = sp.Symbol("x", real=True), sp.Symbol("w", real=True)


def program_of(**outputs: sp.Expr) -> Program:
    builder = Builder()
    x = builder.input("x", Kind.FULL)
    builder.input("w", Kind.COL)
    made = {name: Output(builder.map(name, expr), x) for name, expr in outputs.items()}
    return Program("forward", tuple(builder.inputs), made)


def flags(program: Program) -> list[Input]:
    return [i for i in program.inputs if presence.is_presence(i)]


def test_one_output_asks_for_nothing() -> None:
    program = program_of(y=sp.sqrt(X) * W)
    for order in ("backward", "double_backward"):
        program = vjp(program, order)
        assert not flags(program) and not program.presence


def test_each_part_of_a_sum_is_selected() -> None:
    """A cotangent itself too: what stands for an absent one is no zero."""
    backward = vjp(program_of(y=sp.sqrt(X), z=X), "backward")
    assert {flag.tensor for flag in flags(backward)} == {"grad_y", "grad_z"}
    total = backward.outputs["grad_x"].value
    choices = [v for v in backward.nodes() if presence.needed_by(v) != presence.ALWAYS]
    assert {presence.needed_by(c) for c in choices} == {
        presence.of([name]) for name in ("grad_y", "grad_z")
    }
    assert set(choices) == set(arguments(total)) and not backward.presence


def test_a_gradient_of_one_output_is_absent_with_it() -> None:
    backward = vjp(program_of(y=sp.sqrt(X) * W, z=X**2), "backward")
    assert backward.presence == {"grad_w": presence.of(["grad_y"])}
    again = vjp(backward, "double_backward")
    assert again.optional == ("grad_y", "grad_z")
    assert again.presence["grad_w"] == presence.of(["grad_y"])
    assert "grad_x" not in again.presence


def test_alternatives_that_need_more_are_left_out() -> None:
    a, b = presence.of("a"), presence.of("b")
    assert presence.both(presence.either([a, b]), a) == a
    assert presence.both(a, b) == frozenset({frozenset("ab")})
    assert presence.either([presence.both(a, b), b]) == b
    assert presence.both(a, presence.ALWAYS) == a
