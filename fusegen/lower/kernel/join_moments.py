"""Finds sums of squares about a mean that can be found in the sweep that finds the mean.

A norm sums v over the row, and then (v - m)^2, where m is the mean of v. If a thread sums the squares about
any other number k, those about m follow from its sum and its count. So a form that streams a row need not
read it twice. (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".)
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import sympy as sp

from fusegen.lower.kernel.stage import Stage
from fusegen.lower.schedule import Schedule
from fusegen.program import Kind, Reduce


def join_moments(stages: tuple[Stage, ...], plan: Schedule) -> tuple[Stage, ...]:
    """Return the stages, with marks on each sum and the sum of squares about its mean."""
    marked = list(stages)
    for first, second in pairwise(stages):
        stored = all(result.how == "store" for result in first.results)
        total, squares = _sole_sum(plan, first), _sole_sum(plan, second)
        if second.results or not stored:
            continue
        if total and squares and _about_the_mean(plan, total, squares, second.index):
            marked[first.index] = replace(marked[first.index], joined=True)
            marked[second.index] = replace(marked[second.index], centred=True)
    return tuple(marked)


def _sole_sum(plan: Schedule, stage: Stage) -> Reduce | None:
    """Return the sum of elements that is all that a stage reduces over the row, or None."""
    found = plan.row_reductions(stage.index)
    if len(found) != 1 or found[0].op != "sum" or stage.shifted_by:
        return None
    return found[0] if found[0].arg.kind == Kind.FULL else None


def _about_the_mean(plan: Schedule, total: Reduce, squares: Reduce, stage: int) -> bool:
    """Whether `squares` sums (v - m)^2, where m is the mean of the values v that `total` sums."""
    expr = plan.written_out(squares.arg.symbol, stage, total.arg)
    value = total.arg.symbol
    counts = expr.free_symbols - {value, total.symbol}
    if len(counts) != 1 or (count := counts.pop()).name != "cols":
        return False
    return bool(sp.expand(expr - (value - total.symbol / count) ** 2) == 0)
