"""Collects the results of a part's kernel: what it stores, and what it sums over the grid.

A value is stored where it is known: by an element, a row or a column. It is summed instead if its tensor has
fewer axes than the value, which is the gradient of something broadcast. Sums over rows are added up by what
they sum. Other values of columns, or of the whole call, depend on such sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fusegen.lower.kernel.code import Variable
from fusegen.lower.kernel.operand import statistic
from fusegen.lower.kernel.results import Result, Results
from fusegen.lower.schedule import LoweringError, Schedule
from fusegen.program import Access, Input, Kind, Map, Program, Reduce, Value, describe

__all__ = ["results_of"]


def results_of(
    program: Program,
    plan: Schedule,
    variable: Callable[[Value, int], Variable],
    *,
    reordered: bool,
) -> Results:
    """Return what a kernel writes: outputs, saved values, and totals that final scalars need.

    Args:
        program: the part's program.
        plan: its schedule.
        variable: returns the variable from which a stage reads a value.
        reordered: whether rows are counted in another order than they have in memory.

    Raises:
        LoweringError: an output is no sum that a kernel can add up.
    """
    writer = _Writer(program, plan, variable)
    results = []
    for name, output in program.outputs.items():
        access, like = output.access(name), output.like.name
        result = writer.result(name, output.value, output.kind, access, like)
        results.append(replace(result, outline=output.outline, reordered=reordered))
    hidden = [v for v in plan.totals if v not in program.saved]
    for value in (*program.saved, *hidden):
        access = statistic(value.name, value.kind).access
        result = writer.result(value.name, value, value.kind, access)
        results.append(replace(result, hidden=value in hidden))
    return _sharing_sums(results)


@dataclass(frozen=True)
class _Writer:
    """Decides how a kernel writes its values; see `results_of`."""

    program: Program
    plan: Schedule
    variable: Callable[[Value, int], Variable]

    def result(
        self, name: str, value: Value, kind: Kind, access: Access, like: str | None = None
    ) -> Result:
        """Return how the kernel writes a value, broadcast to a kind."""

        def written(
            how: Literal["store", "sum", "final"], of: Value, stage: int, *, row: bool = False
        ) -> Result:
            return Result(name, access, like, how, self.variable(of, stage), stage, row)

        last = self.plan.stages
        how: Literal["store", "sum"] = "store" if access.kind == kind else "sum"
        if kind == Kind.FULL:
            return written(how, value, self.plan.depth[value])
        if kind == Kind.ROW and not value.kind & ~kind:
            return written(how, value, last, row=True)
        if isinstance(value, Reduce) and value.op == "sum" and value.kind == kind:
            of_rows = Kind.COL not in value.arg.kind
            if Kind.ROW in value.axes:
                stage = last if of_rows else self.plan.depth[value.arg]
                return written("sum", value.arg, stage, row=of_rows)
        if kind == Kind.SCALAR and isinstance(value, Map | Input):
            return written("final", value, last)
        if kind == Kind.COL and isinstance(value, Map) and not value.kind & ~kind:
            return written("store", value, last)
        raise LoweringError(
            f"{self.program.name}: {name} ({access.kind.label}) is not a sum over the activation: "
            f"{describe(value)}"
        )


def _sharing_sums(results: Iterable[Result]) -> Results:
    """Let results that sum the same value share one sum. Two biases, for example, have the same gradient."""
    first: dict[tuple[Kind, Variable, int, bool], str] = {}
    shared = []
    for result in results:
        key = (result.kind, result.value, result.stage, result.per_row)
        shared.append(
            replace(result, summed_as=first.setdefault(key, result.name))
            if result.how == "sum"
            else result
        )
    return Results(shared)
