"""Factors that are known early are multiplied early, so that an element keeps less."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp
from shared.small_programs import X, program_of

from fusegen.atoms import where
from fusegen.lower.part import Part
from fusegen.lower.passes.regroup_products import regroup_products
from fusegen.lower.schedule import schedule
from fusegen.program import Kind, Map, Output, Program
from fusegen.program.builder import Builder


def late_product(*, masked: bool = False) -> Program:
    """y = sin(x) cos(x) Σ sin(x) cos(x)^2, whose factors would be kept one by one; 0 at x < 0 if masked."""
    b = Builder()
    x = b.input("x", Kind.FULL)
    sine, cosine = b.map("sine", sp.sin(x.symbol)), b.map("cosine", sp.cos(x.symbol))
    total = b.reduce("total", "sum", b.map("term", sine.symbol * cosine.symbol**2), Kind.ROW)
    product = sine.symbol * cosine.symbol * total.symbol
    y = b.map("y", where(x.symbol < 0, 0, product) if masked else product)
    return Program("f", tuple(b.inputs), {"y": Output(y, x)})


def kept(program: Program) -> list[str]:
    plan = schedule(program)
    return [v.name for stage in range(plan.stages) for v in plan.live(stage)]


def test_an_element_keeps_the_product_of_early_factors() -> None:
    program = late_product()
    (part,) = regroup_products(Part(program))
    assert kept(program) == ["cosine", "sine"] and kept(part.program) == ["cosine_sine"]


def test_a_mask_is_chosen_early_with_the_factors() -> None:
    (part,) = regroup_products(Part(late_product(masked=True)))
    (name,) = kept(part.program)
    early = next(v for v in part.program.nodes() if v.name == name)
    assert isinstance(early, Map) and early.expr.has(sp.Piecewise)


def test_a_value_that_must_have_the_same_bits_stays_as_it_is() -> None:
    part = replace(Part(late_product()), fixed=frozenset(["y"]))
    assert regroup_products(part)[0].program is part.program


def test_a_program_of_one_stage_stays_as_it_is() -> None:
    program = program_of(sp.sin(X) * sp.cos(X))
    assert regroup_products(Part(program))[0].program is program
