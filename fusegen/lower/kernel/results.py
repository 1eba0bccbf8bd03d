"""What a kernel writes: values of elements and rows, and sums over the grid."""

from __future__ import annotations

from itertools import zip_longest

from fusegen.lower.kernel.inputs import KernelInputs
from fusegen.lower.kernel.stage import Result
from fusegen.program import Kind


class KernelResults(KernelInputs):
    """A kernel's results, by what is stored and what is added up."""

    @property
    def total_fields(self) -> tuple[str, ...]:
        """Every field of `Total`, the sums over the grid first."""
        lines = (line.name.removeprefix("total.") for line in self.final_lines)
        return (*(r.name for r in self.known_totals), *lines)

    @property
    def known_totals(self) -> tuple[Result, ...]:
        """The sums over the grid from which final results may follow."""
        return tuple(r for r in self.grid_sums if r.like is None)

    @property
    def finals(self) -> tuple[Result, ...]:
        """The results that follow from sums over the grid."""
        return tuple(r for r in self.results if r.how == "final")

    @property
    def out_fields(self) -> tuple[str, ...]:
        """Every field of `Out`."""
        return tuple(name for stage in self.stages for name, _ in stage.outs)

    @property
    def stores(self) -> tuple[Result, ...]:
        """The results with one value an element."""
        return tuple(r for s in self.stages for r in s.stores)

    @property
    def row_stores(self) -> tuple[Result, ...]:
        """The results with one value a row."""
        return tuple(r for r in self.results if r.how == "store" and r.per_row)

    @property
    def block_reductions(self) -> tuple[str, ...]:
        """The names of what each block of a row is reduced to, over all stages."""
        found: list[str] = []
        for stage in self.stages:
            found += [r.block for r in stage.reductions]
            found += [r.block for r in stage.totals]
        return tuple(found)

    @property
    def row_totals(self) -> tuple[Result, ...]:
        """The results to which each row adds one value."""
        return tuple(r for r in self.results if r.adds and r.per_row and r.kind == Kind.SCALAR)

    @property
    def row_sums(self) -> tuple[Result, ...]:
        """The results to which each row adds one value for its channel."""
        return tuple(r for r in self.results if r.adds and r.per_row and r.kind == Kind.CHANNEL)

    @property
    def grid_sums(self) -> tuple[Result, ...]:
        """Every result that is added up over the grid, also those that share a sum."""
        return tuple(r for r in self.results if r.how == "sum")

    @property
    def additions(self) -> tuple[tuple[Result | None, Result | None], ...]:
        """The results of each sum over the grid, in pairs: one in the tensor's dtype, one as computed."""
        found: list[tuple[Result | None, Result | None]] = []
        for sum_ in dict.fromkeys(r.summed_as for r in self.grid_sums):
            same = [r for r in self.grid_sums if r.summed_as == sum_]
            stored = [r for r in same if r.like]
            found += zip_longest(stored, [r for r in same if not r.like])
        return tuple(found)

    @property
    def col_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the rows."""
        return tuple(r for s in self.stages for r in s.col_sums)

    @property
    def run_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the elements of each channel."""
        return tuple(r for s in self.stages for r in s.run_sums)

    @property
    def column_sums(self) -> tuple[Result, ...]:
        """The results for which sums of columns can be kept."""
        return (*self.col_sums, *self.run_sums)

    @property
    def totals(self) -> tuple[Result, ...]:
        """The results that are added up over all elements, or over a value of each row."""
        return (*(r for s in self.stages for r in s.totals), *self.row_totals)
