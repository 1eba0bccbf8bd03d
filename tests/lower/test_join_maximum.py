"""A maximum and the sums relative to it are reduced together."""

from __future__ import annotations

import sympy as sp
from shared.small_programs import X, program_of

from fusegen.atoms import row_max, row_shift, row_sum
from fusegen.lower import lower
from fusegen.ops import call, find
from fusegen.program import Access, Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value


def test_softmax_reduces_its_maximum_and_its_sum_together() -> None:
    first, second, last = lower(program_of(call(find("softmax"), X, {}, {}))).stages
    assert first.provisional
    assert second.shifted_by == "op_max"
    assert last.rescaled == ("op_exp",)


def test_a_maximum_that_its_sum_does_not_follow_stays_alone() -> None:
    """sum(x - max) does not scale by exp(m' - m), and neither does sum(exp(x - 2 max))."""
    for formula in (
        X / row_sum(X - row_max(X)),
        X / row_sum(sp.exp(X - 2 * row_shift(X))),
    ):
        stages = lower(program_of(formula)).stages
        assert not any(s.provisional or s.shifted_by for s in stages)


def test_a_row_that_waits_for_its_maximum_does_not_keep_it_from_being_joined() -> None:
    """Cross entropy takes the class's logit from the maximum, and adds the logarithm of the sum to that."""
    b = Builder()
    x = b.input("x", Kind.FULL)
    (target,) = b.read("target", Kind.ROW, Access("target", Kind.ROW, stored="int64"))
    loss = call(find("cross_entropy"), X, {"target": target.symbol}, {"reduction": "none"})
    program = Program("f", tuple(b.inputs), {"y": Output(formula_value(b, "op", loss), x, "row")})
    first, second, last = lower(program).stages
    assert first.provisional
    assert second.shifted_by == "op_max"
    assert [line.name for line in last.row_lines][:2] == ["row.op_margin", "row.op_log_sum"]
    assert not (second.row_lines or last.lines or last.outs)
