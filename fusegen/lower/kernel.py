"""What the templates get: a kernel as lines of code, fields and stages. No sympy from here on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from fusegen.lower.stage import Element, Field, FittedFunction, Line, Result, Stage
from fusegen.program import Kind

#: How the elements may lie for a kernel, each a case of the next: one dim behind the other; columns together
#: with nothing behind them, rows and columns each in their own order; the same, but with rows behind the
#: columns too; in any order without gaps.
Order = Literal["contiguous", "packed", "strided", "any"]


@dataclass(frozen=True)
class Kernel:
    """One kernel: its inputs by kind, what is computed once a column and once a call, its stages.

    Args:
        name: "forward", "backward", …
        full, col, row, scalar: the tensor inputs of each kind that the mathematics reads.
        taken: single elements of inputs, one a row.
        aside: the tensor inputs that are read so alone.
        spread: those with one number a channel that vary along rows and columns.
        saved: statistics that the forward pass saved or a kernel before left, in the type computed in.
        attributes: numbers that the call passes.
        random: inputs that are drawn, not loaded.
        extents: the activation's extents that the mathematics uses ("rows", "cols", "sample").
        indices: "column", where the mathematics uses the number of the column.
        col_lines, scalar_lines: fields of `Col` and `Scalar` that are computed from the loaded ones.
        stages: at least one, but for a kernel over columns alone.
        final_lines: fields of `Total` that follow from the sums over the grid.
        results: what is written, in the order of the operator's outputs, saved statistics last.
        fitted: functions that the stages call.
        comment: the program, a line a node.
        strided: whether the columns of a row may lie apart in memory.
        signature, returns: its inputs and outputs in words.
        sampled: whether it runs over the rows of a sample alone.
        before: the kernels that leave what this one reads of columns and sums over rows, in order.
    """

    name: str
    full: tuple[Field, ...]
    spread: tuple[Field, ...]
    col: tuple[Field, ...]
    row: tuple[Field, ...]
    scalar: tuple[Field, ...]
    taken: tuple[Element, ...]
    aside: tuple[Field, ...]
    saved: tuple[Field, ...]
    attributes: tuple[Field, ...]
    random: tuple[Field, ...]
    extents: tuple[str, ...]
    indices: tuple[str, ...]
    col_lines: tuple[Line, ...]
    scalar_lines: tuple[Line, ...]
    stages: tuple[Stage, ...]
    final_lines: tuple[Line, ...]
    results: tuple[Result, ...]
    fitted: tuple[FittedFunction, ...]
    comment: tuple[str, ...]
    signature: str
    returns: str
    strided: bool = False
    sampled: bool = False
    before: tuple[Kernel, ...] = ()

    @property
    def order(self) -> Order:
        """How elements may lie in memory.

        Channels spread along rows and columns are known by an element's place where the tensor is contiguous,
        a draw by the place where the element lies.
        """
        parts = [k for k in self.parts if k.form != "columns"]
        if any(k.spread or k.run_sums for k in parts):
            return "contiguous"
        if all(k.flat for k in parts):
            return "any"
        if any(k.sampled for k in parts):  # whole matrices of a contiguous tensor
            return "packed"
        return "strided" if all(k.flat or k.across for k in parts) else "packed"

    def extent(self, name: str) -> str:
        """Return the argument that holds an extent: a sample's kernel has other rows than the activation."""
        return "all_rows" if self.sampled and name == "rows" else name

    @property
    def parts(self) -> tuple[Kernel, ...]:
        """The kernels that run in one call, in order."""
        return (*self.before, self)

    @property
    def struct(self) -> str:
        """The name of its struct of element functions: `backward_train` is `BackwardTrain`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def form(self) -> Literal["flat", "pointwise", "along", "rows", "columns"]:
        """Which loops it needs: over one long row, down the columns, along each row for what is known of it,
        over each row as a whole, or over the columns alone, without the activation."""
        if not self.stages:
            return "columns"
        if self.reduces_rows or self.spread or self.run_sums:
            return "rows"
        if self.row_loads and not (self.col or self.saved_cols or self.col_sums):
            return "along"
        return "flat" if self.flat and not self.halved else "pointwise"

    @property
    def across(self) -> bool:
        """Whether it needs loops for rows whose columns lie apart, beside those over a row as a whole."""
        return self.strided and not self.flat

    @property
    def tensors(self) -> tuple[Field, ...]:
        """Every tensor input but the saved statistics; all are stored in the tensor's dtype."""
        return (*self.arrays, *self.scalar)

    @property
    def arrays(self) -> tuple[Field, ...]:
        """Those with more than one number."""
        return (*self.full, *self.spread, *self.col, *self.row, *self.aside)

    @property
    def kept(self) -> tuple[str, ...]:
        """Every value that is kept from one stage to another."""
        return tuple(name for stage in self.stages for name in stage.kept)

    @property
    def derived_cols(self) -> tuple[str, ...]:
        """The fields of `Col` that are computed."""
        return tuple(line.name.removeprefix("col.") for line in self.col_lines)

    @property
    def col_fields(self) -> tuple[str, ...]:
        """Every field of `Col`, the loaded ones first."""
        loaded = (*self.col, *self.saved_cols)
        return (*(f.name for f in loaded), *self.indices, *self.derived_cols)

    @property
    def holds_columns(self) -> bool:
        """Whether a GPU's thread keeps the operands of its columns from row to row: what several of them take
        of the first-level cache is more than a row's own elements. More than 24 bytes a column of a 16-bit
        type would not fit in its registers, nor do these where an element holds much."""
        light = max(sum(held) for held in self.held) <= 4
        return light and 12 <= 2 * len(self.col) + 4 * len(self.saved_cols) <= 24

    @property
    def row_fields(self) -> tuple[str, ...]:
        """Every field of `Row`, the loaded ones first."""
        return self.row_known(len(self.stages))

    @property
    def indices_ahead(self) -> tuple[Field, ...]:
        """The row operands by which elements are taken."""
        by = {e.index for e in self.taken}
        return tuple(f for f in self.row if f.name in by)

    @property
    def row_loads(self) -> tuple[str, ...]:
        """The fields of `Row` that are loaded."""
        loaded = (f.name for f in (*self.row, *self.saved_rows))
        return (*loaded, *(e.name for e in self.taken))

    def row_known(self, stage: int) -> tuple[str, ...]:
        """Return the fields of `Row` that are known before a stage's own lines."""
        before = self.stages[:stage]
        reduced = (r.name for s in before for r in s.reductions)
        lines = (line.name.removeprefix("row.") for s in before for line in s.row_lines)
        return (*self.row_loads, *reduced, *lines)

    @property
    def scalar_fields(self) -> tuple[str, ...]:
        """Every field of `Scalar`, the loaded ones first."""
        lines = (line.name.removeprefix("scalar.") for line in self.scalar_lines)
        loaded = (*self.scalar, *self.attributes, *self.saved_totals)
        return (*(f.name for f in loaded), *self.extents, *lines)

    @property
    def rows_alone(self) -> tuple[Field, ...]:
        """The row operands that hold a number of the tensor's dtype for each row."""
        return tuple(f for f in self.row if not (f.per_channel or f.integer))

    @property
    def saved_rows(self) -> tuple[Field, ...]:
        """The saved statistics with one value a row."""
        return tuple(f for f in self.saved if f.kind == Kind.ROW)

    @property
    def saved_cols(self) -> tuple[Field, ...]:
        """The saved statistics with one value a column."""
        return tuple(f for f in self.saved if f.kind == Kind.COL)

    @property
    def saved_totals(self) -> tuple[Field, ...]:
        """The saved statistics that are one number."""
        return tuple(f for f in self.saved if f.kind == Kind.SCALAR)

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
    def reduces_rows(self) -> bool:
        """Whether a row must be seen as a whole."""
        return any(s.reductions for s in self.stages) or any(r.per_row for r in self.results)

    @property
    def reads_elements(self) -> bool:
        """Whether anything is computed for each element, not for each row alone."""
        return any(s.lines or s.outs for s in self.stages)

    @property
    def reads_once(self) -> bool:
        """Whether one pass over a row is all, and its columns are not summed: it need not be held."""
        return len(self.passes) == 1 and not self.column_sums

    @property
    def staged(self) -> bool:
        """Whether a row that is too long for registers is best kept in shared memory: what its stages hand on
        is soon computed again."""
        light = not any("Math::" in line.code for s in self.stages[:-1] for line in s.lines)
        return len(self.passes) > 1 and light and not (self.random or self.halved)

    def reads_to(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads where what earlier ones kept is computed again."""
        return frozenset().union(*(s.full_reads for s in self.stages[: stage.index + 1]))

    @property
    def passes(self) -> tuple[Stage, ...]:
        """The stages for which a streamed row is read: a provisional maximum is found in the next pass."""
        return tuple(s for s in self.stages if (s.lines or s.outs) and not s.provisional)

    @property
    def stores(self) -> tuple[Result, ...]:
        """The results with one value an element."""
        return tuple(r for s in self.stages for r in s.stores)

    @property
    def row_stores(self) -> tuple[Result, ...]:
        """The results with one value a row."""
        return tuple(r for r in self.results if r.how == "store" and r.per_row)

    @property
    def droppable(self) -> tuple[Result, ...]:
        """The statistics of rows: their pointers are null in a call that no derivative will follow."""
        statistics = [r for r in self.results if r.like is None]
        apart = any(k.form != "columns" for k in self.before)
        apart = apart or any(r not in self.row_stores for r in statistics)
        return () if apart else tuple(statistics)

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
    def joint_values(self) -> int:
        """How many values one exchange among a row's threads carries at most."""
        joint = (len(s.reductions) + 1 for s in self.stages if s.shifted_by)
        return max([1, *joint, *(min(len(s.reductions), self.jointly) for s in self.stages)])

    @property
    def jointly(self) -> int:
        """How many sums or maxima one exchange takes; more of them would cost registers."""
        return 4

    @property
    def full_reads(self) -> frozenset[str]:
        """The full inputs that any stage's code reads."""
        return frozenset().union(*(stage.full_reads for stage in self.stages))

    @property
    def kept_draws(self) -> tuple[Field, ...]:
        """The draws that several stages over a row read: made once, for the whole row."""
        if self.across:  # drawn anew for each element
            return ()
        return tuple(f for f in self.random if sum(f.name in s.full_reads for s in self.stages) > 1)

    @property
    def held(self) -> tuple[tuple[int, int], ...]:
        """What an element holds before the first stage and behind each but the last.

        As pairs: how many inputs, as they are stored, and how many values, as they are computed.
        """
        stored = [f.name for f in self.full]
        found = [(len(stored), 0)]
        for stage in self.stages[:-1]:
            later = self.stages[stage.index + 1 :]
            inputs = sum(1 for name in stored if any(name in s.full_reads for s in later))
            values = {
                name
                for s in self.stages[: stage.index + 1]
                for name in s.kept
                if any(name in t.reads for t in later)
            }
            found.append((inputs, len(values)))
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

    @property
    def flat(self) -> bool:
        """Whether no value depends on where a row ends, so that what lies together is one long row."""
        by_row = self.row or self.saved_rows or self.reduces_rows or self.spread or self.run_sums
        by_col = self.col or self.saved_cols or self.indices or self.col_sums
        return not (by_row or by_col or self.extents or self.sampled)

    @property
    def halved(self) -> bool:
        """Whether it reads or writes halves of a tensor, so that there always are gaps."""
        return any(item.half for item in self.gapped)

    @property
    def gapped(self) -> tuple[Field | Result, ...]:
        """The inputs and results between whose rows there may be gaps: of two halves one, which lie alike."""
        items: tuple[Field | Result, ...] = (*self.full, *self.aside, *self.stores)
        return tuple({item.tensor: item for item in items if item.gapped}.values())
