"""Sums that wait for another sum over their row: which are split, and that nothing is lost by it."""

from __future__ import annotations

import sympy as sp

from fusegen.lower import lower
from fusegen.lower.part import Part
from fusegen.lower.passes.split_sums import split_sums
from fusegen.program import Access, Kind, Map, Output, Program, Reduce
from fusegen.program.builder import Builder


def waiting(*, spans_channels: bool, bare: bool = False) -> Program:
    """y = g + Σ(w g + 2 x² r), where r = Σ(g (x - Σx/n)); with `bare`, Σ(w g + r)."""
    b = Builder()
    x, g = b.input("x", Kind.FULL), b.input("g", Kind.FULL)
    kind, held = (Kind.FULL, Kind.CHANNEL) if spans_channels else (Kind.COL, Kind.COL)
    (w,) = b.read("w", kind, Access("w", held))
    cols = b.extent("cols")
    total = b.reduce("total", "sum", x, Kind.ROW)
    centred = b.map("centred", x.symbol - total.symbol / cols.symbol)
    product = b.map("product", g.symbol * centred.symbol)
    late = b.reduce("late", "sum", product, Kind.ROW)
    square = b.map("square", x.symbol**2)
    doubled = b.map("doubled", 2 * square.symbol)
    term = late.symbol if bare else doubled.symbol * late.symbol
    both = b.map("both", w.symbol * g.symbol + term)
    last = b.reduce("last", "sum", both, Kind.ROW)
    y = b.map("y", g.symbol + last.symbol)
    return Program("f", tuple(b.inputs), {"y": Output(y, x)})


def test_a_sum_over_channels_does_not_wait_for_its_late_factor() -> None:
    program = waiting(spans_channels=True)
    (part,) = split_sums(Part(program))
    split = part.program
    sums = {v.name: v for v in split.nodes() if isinstance(v, Reduce)}
    assert set(sums) == {"total", "late", "last_1", "last_2"}
    (last,) = (v for v in split.nodes() if isinstance(v, Map) and v.name == "last")
    parts = {sums[n].arg.name: sums[n].symbol for n in ("last_1", "last_2")}
    (known,) = (s for arg, s in parts.items() if arg != "square")
    late = sp.Symbol("late", real=True)
    assert sp.expand(last.expr - known - 2 * late * parts["square"]) == 0
    assert [len(s.reductions) for s in lower(program).stages] == [3, 1, 0]


def test_a_row_of_one_block_keeps_its_sums() -> None:
    program = waiting(spans_channels=False)
    assert split_sums(Part(program))[0].program is program


def test_a_late_value_by_itself_is_not_taken_out() -> None:
    """Each x - r may be exact where Σx - n r has no digit right."""
    program = waiting(spans_channels=True, bare=True)
    assert split_sums(Part(program))[0].program is program
