"""What a kernel is made of: lines of code, fields, results, and stages between its reductions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fusegen.program import Half, Kind, Outline


@dataclass(frozen=True)
class Line:
    """`const T name = code;`, or an assignment where the name is a field.

    Args:
        name: what is set.
        code: its value.
        note: a comment.
        calls: how many mathematical functions it calls.
    """

    name: str
    code: str
    note: str = ""
    calls: int = 0


@dataclass(frozen=True)
class Field:
    """An input of the kernel.

    Args:
        name: its name in the structs and among the kernel's arguments.
        kind: the axes it varies along.
        stream: for random inputs, which of the chain's draws it is.
        integer: whether it is stored as int64.
        per_channel: whether the tensor holds one number a channel, spread along `kind`.
        handed: whether a kernel that runs before leaves it.
        half: which half of a tensor it is, where it is one.
    """

    name: str
    kind: Kind
    stream: int = 0
    integer: bool = False
    per_channel: bool = False
    handed: bool = False
    half: Half | None = None

    @property
    def declared(self) -> Kind:
        """The kind of the tensor itself."""
        return Kind.CHANNEL if self.per_channel else self.kind

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.half.tensor if self.half else self.name

    @property
    def gapped(self) -> bool:
        """Whether there may be gaps between its rows."""
        return self.kind == Kind.FULL and not self.per_channel


@dataclass(frozen=True)
class Element:
    """A field of `Row` that is one element of an operand: that of the column which an index names.

    Args:
        name: its name in `Row`.
        operand: what it is an element of: a tensor, a draw, or sums that a kernel before has left.
        index: the row operand that holds the column's number.
    """

    name: str
    operand: Field
    index: str


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
        code: what an element (or a row) stores or adds.
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
    code: str
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
    def gapped(self) -> bool:
        """Whether there may be gaps between its rows: another half."""
        return self.half is not None and self.kind == Kind.FULL

    @property
    def adds(self) -> bool:
        """Whether the kernel adds it up, and does not take over the sum of another result."""
        return self.how == "sum" and self.summed_as == self.name

    @property
    def row_sum(self) -> str:
        """The name of a row's part of the sum."""
        return f"{self.name}_row"

    @property
    def block(self) -> str:
        """The name of the sums of a row's blocks."""
        return f"{self.name}_blocks"


@dataclass(frozen=True)
class RowReduction:
    """A sum or maximum over the row that a stage computes and later stages read as `row.name`."""

    name: str
    op: Literal["sum", "max"]
    code: str

    @property
    def local(self) -> str:
        """The name of what a thread has reduced so far."""
        return f"reduced_{self.name}"

    @property
    def block(self) -> str:
        """The name of what the blocks of a row are reduced to."""
        return f"{self.name}_blocks"


@dataclass(frozen=True)
class Stage:
    """One pass over a row.

    Args:
        index: its place, from 0.
        row_lines: what is computed once a row before the pass.
        lines: what is computed for each element.
        kept: values that later stages read again.
        reads: values of earlier stages that this one reads.
        reductions: what the pass reduces over the row.
        results: what each element stores or adds to a sum over the grid.
        provisional: its only reduction is a maximum for which that of some of the row's elements does.
        shifted_by: the maximum of the stage before, where this one's sums are relative to it.
        rescaled: values kept relative to that maximum, which this stage is the first to read again.
    """

    index: int
    row_lines: tuple[Line, ...]
    lines: tuple[Line, ...]
    kept: tuple[str, ...]
    reads: tuple[str, ...]
    reductions: tuple[RowReduction, ...]
    results: tuple[Result, ...]
    provisional: bool = False
    shifted_by: str = ""
    rescaled: tuple[str, ...] = ()

    @property
    def outs(self) -> tuple[tuple[str, str], ...]:
        """The fields of `Out` that the stage sets, each with its code."""
        kept = (r for r in self.results if r.how == "store" or r.adds)
        leaving: tuple[RowReduction | Result, ...] = (*self.reductions, *kept)
        return tuple((item.name, item.code) for item in leaving)

    @property
    def stores(self) -> tuple[Result, ...]:
        """The results with one value an element."""
        return tuple(r for r in self.results if r.how == "store")

    @property
    def col_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the rows."""
        return tuple(r for r in self.results if r.adds and r.kind == Kind.COL)

    @property
    def run_sums(self) -> tuple[Result, ...]:
        """The results that are added up over the elements of each channel."""
        return tuple(r for r in self.results if r.adds and r.kind == Kind.CHANNEL)

    @property
    def column_sums(self) -> tuple[Result, ...]:
        """The results for which sums of columns can be kept."""
        return (*self.col_sums, *self.run_sums)

    @property
    def totals(self) -> tuple[Result, ...]:
        """The results that are added up over all elements."""
        return tuple(r for r in self.results if r.adds and r.kind == Kind.SCALAR)

    @property
    def element_code(self) -> tuple[str, ...]:
        """What is computed for each element."""
        return (*(line.code for line in self.lines), *(code for _, code in self.outs))

    @property
    def full_reads(self) -> frozenset[str]:
        """The full inputs that the stage's code reads."""
        return frozenset(re.findall(r"\bfull\.(\w+)", " ".join(self.element_code)))

    @property
    def reads_columns(self) -> bool:
        """Whether the stage's code reads anything of an element's column."""
        return any(re.search(r"\bcol\.", code) for code in self.element_code)

    @property
    def row_reads(self) -> frozenset[str]:
        """What the elements' code reads of the row, as `row.name`."""
        return frozenset(re.findall(r"\brow\.\w+", " ".join(self.element_code)))

    @property
    def purpose(self) -> str:
        """What the stage is for, in words."""
        found = [f"the {'largest' if r.op == 'max' else 'sum'} {r.name}" for r in self.reductions]
        return ", ".join([*found, *(r.name for r in self.results)])


@dataclass(frozen=True)
class FittedBranch:
    """What a fitted function computes in one precision, and how exactly, in words."""

    precision: str
    accuracy: str
    code: str


@dataclass(frozen=True)
class FittedFunction:
    """A function of one variable `x` that a polynomial stands for on an interval.

    Args:
        name: its name.
        formula: the formula and the interval, for the comment.
        squared: whether the polynomials are in square = x^2.
        branches: one for each precision that has a polynomial.
        exact: the formula itself, for every other.
    """

    name: str
    formula: str
    squared: bool
    branches: tuple[FittedBranch, ...]
    exact: str
