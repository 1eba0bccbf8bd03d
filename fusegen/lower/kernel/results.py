"""What a kernel writes: values of elements and rows, and sums over the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusegen.lower.kernel.code import Variable
from fusegen.lower.kernel.operand import Accessed
from fusegen.program import Access, Kind, Outline


@dataclass(frozen=True)
class Result(Accessed):
    """A tensor that the kernel writes.

    Args:
        name: the operator's name for it.
        access: how it lies in its tensor.
        like: the tensor input whose shape it has. None for saved statistics.
        how: "store" for one value per element (or row). "sum" for a sum over the grid: over everything
            (scalar), per column (col), or per channel (channel, over elements or rows). "final" for a value
            that depends on such sums.
        value: what an element (or a row) stores or adds.
        stage: the stage that knows the value.
        per_row: whether the value belongs to a row, not to an element.
        summed_as: the result whose sum is this one's too; this result itself if no earlier one has the same
            sum.
        outline: its shape, if that differs from the shape of `like`.
        hidden: whether it exists only because final results depend on it.
        reordered: whether the kernel counts rows in another order than they have in memory.
    """

    name: str
    access: Access
    like: str | None
    how: Literal["store", "sum", "final"]
    value: Variable
    stage: int
    per_row: bool = False
    summed_as: str = ""
    outline: Outline = "like"
    hidden: bool = False
    reordered: bool = False

    @property
    def kind(self) -> Kind:
        """The axes that it varies along."""
        return self.access.kind

    @property
    def computed(self) -> bool:
        """Whether it is stored in the type that it is computed in."""
        return self.access.stored == "computed"

    @property
    def strided(self) -> bool:
        """Whether there may be gaps between its rows: other parts of the tensor, or rows that come later."""
        return (self.access.count > 1 or self.reordered) and self.kind == Kind.FULL

    @property
    def adds(self) -> bool:
        """Whether the kernel sums it, rather than reusing the sum of another result."""
        return self.how == "sum" and self.summed_as == self.name

    @property
    def of_element(self) -> bool:
        """Whether its value belongs to an element, not to a row, a column or a sum over the grid."""
        of_column = self.how == "store" and self.kind == Kind.COL
        return not (self.per_row or self.how == "final" or of_column)


class Results(tuple[Result, ...]):
    """The results of a kernel or of one of its stages, by how they are stored or summed."""

    @property
    def addressed(self) -> tuple[Result, ...]:
        """A result for each argument with an address."""
        return tuple({r.argument: r for r in reversed(self)}.values())[::-1]

    @property
    def of_elements(self) -> tuple[Result, ...]:
        """The results to which each element contributes a value, in the order of their stages."""
        return tuple(sorted((r for r in self if r.of_element), key=lambda r: r.stage))

    @property
    def stores(self) -> tuple[Result, ...]:
        """The results with one value per element."""
        return tuple(r for r in self.of_elements if r.how == "store")

    @property
    def col_sums(self) -> tuple[Result, ...]:
        """The results with a sum over rows for each column."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.COL)

    @property
    def run_sums(self) -> tuple[Result, ...]:
        """The results with a sum over the elements of each channel."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.CHANNEL)

    @property
    def column_sums(self) -> tuple[Result, ...]:
        """The results for which a thread can keep sums of its columns."""
        return (*self.col_sums, *self.run_sums)

    @property
    def element_totals(self) -> tuple[Result, ...]:
        """The results that are sums over all elements."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.SCALAR)

    @property
    def totals(self) -> tuple[Result, ...]:
        """The results that are sums over all elements, or over one value of each row."""
        return (*self.element_totals, *self.row_totals)

    @property
    def known_totals(self) -> tuple[Result, ...]:
        """The sums over the grid that final results may depend on."""
        return tuple(r for r in self.grid_sums if r.like is None)

    @property
    def finals(self) -> tuple[Result, ...]:
        """The results that depend on sums over the grid."""
        return tuple(r for r in self if r.how == "final")

    @property
    def row_stores(self) -> tuple[Result, ...]:
        """The results with one value per row."""
        return tuple(r for r in self if r.how == "store" and r.per_row)

    @property
    def row_totals(self) -> tuple[Result, ...]:
        """The single sums to which each row adds one value."""
        return tuple(r for r in self if r.adds and r.per_row and r.kind == Kind.SCALAR)

    @property
    def row_sums(self) -> tuple[Result, ...]:
        """The results to which each row adds one value, for its channel."""
        return tuple(r for r in self if r.adds and r.per_row and r.kind == Kind.CHANNEL)

    @property
    def grid_sums(self) -> tuple[Result, ...]:
        """Every result that is a sum over the grid, including those that share a sum."""
        return tuple(r for r in self if r.how == "sum")
