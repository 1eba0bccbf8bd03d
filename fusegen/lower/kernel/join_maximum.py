"""Finds maxima that can be reduced together with the sums that follow.

softmax sums exp(x - m), where m is the row's maximum. If m' is the maximum of only some elements, the terms
differ by a mere factor, exp(m' - m). So one exchange can reduce both the maximum and the sum. This works for
every sum whose terms t satisfy dt/dm = -t. (Milakov & Gimelshein 2018, arXiv:1805.02867.)
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import sympy as sp

from fusegen.lower.kernel.stage import Stage
from fusegen.lower.schedule import Schedule
from fusegen.program import Kind, Map, Reduce, Value


def join_shifts(stages: tuple[Stage, ...], plan: Schedule) -> tuple[Stage, ...]:
    """Return the stages, with marks on a maximum and sums that are reduced together.

    At most one pair is marked, because the templates keep only one factor.
    """
    for first, second in pairwise(stages):
        maximum = _sole_maximum(plan, first)
        if maximum is None or second.results or not second.reductions:
            continue
        if second.reads_of("row") & {line.target.name for line in second.row_lines}:
            continue
        if any(r.op != "sum" for r in second.reductions):
            continue
        terms = [r.arg for r in plan.row_reductions(second.index)]
        relative = {
            v for v in plan.at(second.index, Kind.FULL) if _relative(v, maximum, plan, second)
        }
        live = plan.live(second.index)
        free = [v for v in live if not _depends(v, maximum)]
        if not all(t in relative for t in terms) or not all(
            v in relative or v in free for v in live
        ):
            continue
        marked = list(stages)
        marked[first.index] = replace(first, provisional=True)
        marked[second.index] = replace(second, shifted_by=maximum.name, row_lines=())
        waiting = [v.name for v in live if v in relative]
        for stage in stages[second.index + 1 :]:
            now = tuple(n for n in waiting if n in stage.reads)
            waiting = [n for n in waiting if n not in now]
            marked[stage.index] = replace(stage, rescaled=now)
        # Row values that depend on the maximum wait until it is final.
        third = marked[second.index + 1]
        waited = (*second.row_lines, *third.row_lines)
        marked[third.index] = replace(third, row_lines=waited)
        return tuple(marked)
    return stages


def _sole_maximum(plan: Schedule, stage: Stage) -> Reduce | None:
    """Return the maximum that is all that a stage computes for the row, or None."""
    found = plan.row_reductions(stage.index)
    if len(found) != 1 or found[0].op != "max" or stage.results:
        return None
    return found[0]


def _depends(value: Value, on: Value) -> bool:
    """Whether a value is computed from another, through maps."""
    return value is on or (isinstance(value, Map) and any(_depends(a, on) for a in value.args))


def _relative(value: Map, maximum: Reduce, plan: Schedule, stage: Stage) -> bool:
    """Whether d value / d maximum = -value, looking through the nodes of its own stage."""
    expr = plan.written_out(value.expr, stage.index)
    slope = sp.diff(expr, maximum.symbol)
    return bool(slope != 0 and sp.expand(slope + expr) == 0)
