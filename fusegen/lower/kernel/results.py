"""What a kernel writes: values of elements and rows, and sums over the grid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from fusegen.lower.kernel.code import Variable
from fusegen.program import Half, Kind, Outline


@dataclass(frozen=True)
class Result:
    """A tensor that the kernel writes.

    Args:
        name: the operator's name for it.
        kind: its kind.
        like: the tensor input whose shape it has; None for saved statistics, which are in the
            type that the kernel computes in.
        how: "store" for one value an element (or a row), "sum" for one added up over the grid: in all
            (scalar), by columns (col) or by channels (channel, of elements or of rows); "final" for what
            follows from such sums.
        value: what an element (or a row) stores or adds.
        stage: the stage that knows the value.
        per_row: the value is a row's, not an element's.
        summed_as: the result whose sum this one is too; itself, where no earlier one adds up the same.
        outline: the shape it has where that is not `like`'s.
        hidden: whether it is only what final results follow from.
        half: which half of a tensor it is, where it is one.
    """

    name: str
    kind: Kind
    like: str | None
    how: Literal["store", "sum", "final"]
    value: Variable
    stage: int
    per_row: bool = False
    summed_as: str = ""
    outline: Outline = "like"
    hidden: bool = False
    half: Half | None = None

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.half.tensor if self.half else self.name

    @property
    def strided(self) -> bool:
        """Whether there may be gaps between its rows: another half."""
        return self.half is not None and self.kind == Kind.FULL

    @property
    def adds(self) -> bool:
        """Whether the kernel adds it up, and does not take over the sum of another result."""
        return self.how == "sum" and self.summed_as == self.name

    @property
    def of_element(self) -> bool:
        """Whether elements, not rows, columns or the sums over the grid, have its value."""
        of_column = self.how == "store" and self.kind == Kind.COL
        return not (self.per_row or self.how == "final" or of_column)

    @property
    def row_sum(self) -> str:
        """The name of a row's part of the sum."""
        return f"{self.name}_row"

    @property
    def block(self) -> str:
        """The name of the sums of a row's blocks."""
        return f"{self.name}_blocks"


class Results(tuple[Result, ...]):
    """The results of a kernel or of one of its stages, by what is stored and what is added up."""

    @property
    def of_elements(self) -> tuple[Result, ...]:
        """The results to which each element gives a value of its own, in the order of their stages."""
        return tuple(sorted((r for r in self if r.of_element), key=lambda r: r.stage))

    @property
    def stores(self) -> tuple[Result, ...]:
        """The results with one value an element."""
        return tuple(r for r in self.of_elements if r.how == "store")

    @property
    def col_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the rows."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.COL)

    @property
    def run_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the elements of each channel."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.CHANNEL)

    @property
    def column_sums(self) -> tuple[Result, ...]:
        """The results for which sums of columns can be kept."""
        return (*self.col_sums, *self.run_sums)

    @property
    def element_totals(self) -> tuple[Result, ...]:
        """The results that are added up over all elements."""
        return tuple(r for r in self.of_elements if r.adds and r.kind == Kind.SCALAR)

    @property
    def totals(self) -> tuple[Result, ...]:
        """The results that are added up over all elements, or over a value of each row."""
        return (*self.element_totals, *self.row_totals)

    @property
    def known_totals(self) -> tuple[Result, ...]:
        """The sums over the grid from which final results may follow."""
        return tuple(r for r in self.grid_sums if r.like is None)

    @property
    def finals(self) -> tuple[Result, ...]:
        """The results that follow from sums over the grid."""
        return tuple(r for r in self if r.how == "final")

    @property
    def row_stores(self) -> tuple[Result, ...]:
        """The results with one value a row."""
        return tuple(r for r in self if r.how == "store" and r.per_row)

    @property
    def row_totals(self) -> tuple[Result, ...]:
        """The results to which each row adds one value."""
        return tuple(r for r in self if r.adds and r.per_row and r.kind == Kind.SCALAR)

    @property
    def row_sums(self) -> tuple[Result, ...]:
        """The results to which each row adds one value for its channel."""
        return tuple(r for r in self if r.adds and r.per_row and r.kind == Kind.CHANNEL)

    @property
    def grid_sums(self) -> tuple[Result, ...]:
        """Every result that is added up over the grid, also those that share a sum."""
        return tuple(r for r in self if r.how == "sum")

    @property
    def additions(self) -> tuple[tuple[Result | None, Result | None], ...]:
        """The results of each sum over the grid, in pairs: one in the tensor's dtype, one as computed."""
        found: list[tuple[Result | None, Result | None]] = []
        for sum_ in dict.fromkeys(r.summed_as for r in self.grid_sums):
            same = [r for r in self.grid_sums if r.summed_as == sum_]
            stored = [r for r in same if r.like]
            found += zip_longest(stored, [r for r in same if not r.like])
        return tuple(found)
