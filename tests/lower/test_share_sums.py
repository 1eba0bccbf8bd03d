"""Sums over the rows that differ by a factor of the column: they are taken once."""

from __future__ import annotations

import sympy as sp

from fusegen.lower import lower
from fusegen.lower.part import Part
from fusegen.lower.passes.share_sums import share_sums
from fusegen.program import Kind, Map, Output, Program, Reduce
from fusegen.program.builder import Builder


def weighted(*, along_rows: bool) -> Program:
    """y = x - Σ(w g x), and the gradient Σ(g x) of w beside it, where g x is a node of its own."""
    b = Builder()
    x, g = b.input("x", Kind.FULL), b.input("g", Kind.FULL)
    w = b.input("w", Kind.FULL if along_rows else Kind.COL)
    v = b.input("v", Kind.COL)
    product = b.map("product", g.symbol * x.symbol)
    gradient = b.reduce("gradient", "sum", product, Kind.COL)
    term = b.map("term", -(w.symbol**2) * product.symbol)
    late = b.reduce("late", "sum", term, Kind.COL)
    y = b.map("y", x.symbol - late.symbol)
    return Program("f", tuple(b.inputs), {"y": Output(y, x), "gradient": Output(gradient, v)})


def test_the_factor_of_a_column_leaves_the_sum() -> None:
    (part,) = share_sums(Part(weighted(along_rows=False)))
    program = part.program
    (total,) = (v for v in program.nodes() if isinstance(v, Reduce))
    (late,) = (v for v in program.nodes() if v.name == "late")
    assert isinstance(late, Map) and total.name == "gradient_sum"  # a result has the other name
    w = sp.Symbol("w", real=True)
    assert sp.expand(late.expr + w**2 * total.symbol) == 0
    first, second = lower(program).parts
    assert [r.name for r in first.results.col_sums] == ["gradient"]
    assert [f.name for f in second.inputs.saved] == ["gradient_sum"]


def test_a_factor_that_varies_along_the_rows_stays() -> None:
    program = weighted(along_rows=True)
    assert share_sums(Part(program))[0].program is program


def test_a_factor_whose_exponent_varies_along_the_rows_stays() -> None:
    """exp(x) is a power of a number: Σ exp(x / 10) g is no multiple of Σg."""
    for factor in (
        sp.exp(sp.Symbol("x", real=True) / 10),
        sp.Integer(2) ** sp.Symbol("x", real=True),
    ):
        b = Builder()
        x, g = b.input("x", Kind.FULL), b.input("g", Kind.FULL)
        total = b.reduce("total", "sum", g, Kind.COL)
        term = b.map("term", factor * g.symbol)
        other = b.reduce("other", "sum", term, Kind.COL)
        y = b.map("y", x.symbol - total.symbol + other.symbol * x.symbol)
        program = Program("f", tuple(b.inputs), {"y": Output(y, x)})
        assert share_sums(Part(program))[0].program is program
