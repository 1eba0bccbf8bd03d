"""A kernel: its loops, inputs, computations and results. No code from here on uses sympy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusegen.lower.kernel.code import Line
from fusegen.lower.kernel.fitted_function import FittedFunction
from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.live_values import LiveValues
from fusegen.lower.kernel.operand import KernelOperand
from fusegen.lower.kernel.results import Result, Results
from fusegen.lower.kernel.stage import Stage
from fusegen.lower.kernel.struct_fields import StructFields

#: The memory formats that a kernel accepts; each but "grouped" includes the ones before. "contiguous": dims
#: in their own order. "grouped": that, or with the channels last, groups of which are rows. "packed": columns
#: adjacent and innermost, and rows and columns each in their own order. "strided": the same, but rows may
#: come after the columns too. "any": dims in any order without gaps.
MemoryFormat = Literal["contiguous", "grouped", "packed", "strided", "any"]


@dataclass(frozen=True)
class Kernel:
    """One kernel: its inputs, what it computes per call, column and row, its stages and its results.

    Args:
        name: "forward", "backward", …
        inputs: what it is given.
        col_lines, scalar_lines: fields of `Col` and `Scalar` that are computed from loaded ones.
        stages: at least one, except for a kernel over columns alone.
        total_lines: fields of `Total` that depend on the sums over the grid.
        results: what is written, in the order of the operator's outputs, saved statistics last.
        fitted: functions that the stages call.
        comment: the program, one line per node.
        signature, returns: its inputs and outputs in words.
        apart: whether the columns of a row may be non-adjacent in memory.
        grouped: whether a row is a group of channels; if they lie apart, it is some of the channels of each
            place.
        sampled: whether it runs only over the rows of a sample.
        before: earlier kernels of the call, in order; they leave columns and sums over rows that this one
            reads.
    """

    name: str
    inputs: Inputs
    results: Results
    signature: str
    returns: str
    col_lines: tuple[Line, ...] = ()
    scalar_lines: tuple[Line, ...] = ()
    stages: tuple[Stage, ...] = ()
    total_lines: tuple[Line, ...] = ()
    fitted: tuple[FittedFunction, ...] = ()
    comment: tuple[str, ...] = ()
    apart: bool = False
    grouped: bool = False
    sampled: bool = False
    before: tuple[Kernel, ...] = ()

    @property
    def fields(self) -> StructFields:
        """The fields of its element functions' structs."""
        return StructFields(
            self.inputs,
            self.col_lines,
            self.scalar_lines,
            self.total_lines,
            self.stages,
            self.results,
        )

    @property
    def live(self) -> LiveValues:
        """What an element keeps from stage to stage."""
        return LiveValues(self.inputs, self.stages)

    @property
    def struct(self) -> str:
        """The name of its struct of element functions: `BackwardTrain` for `backward_train`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def parts(self) -> tuple[Kernel, ...]:
        """The kernels that run in one call, in order."""
        return (*self.before, self)

    @property
    def form(self) -> Literal["flat", "pointwise", "along", "rows", "columns"]:
        """The kernel's loops.

        "flat": over all elements as one long row. "pointwise": down the columns. "along": along each row, for
        its statistics. "rows": over each row as a whole. "columns": over the columns alone, without the
        activation.
        """
        if not self.stages:
            return "columns"
        if self.reduces_rows or self.inputs.spread or self.results.run_sums:
            return "rows"
        statistics = any(f.saved for f in self.inputs.row)
        if statistics and not (self.inputs.col or self.results.col_sums):
            return "along"
        return "flat" if self.flat and not self.halved else "pointwise"

    @property
    def outer(self) -> bool:
        """Whether it needs loops for outer reductions, beside those over a row as a whole."""
        return self.apart and not self.flat and (not self.grouped or self._knows_no_columns)

    @property
    def interleaved(self) -> bool:
        """Whether these loops are for groups of channels that lie between one another."""
        return self.outer and self.grouped

    @property
    def _knows_no_columns(self) -> bool:
        """Whether nothing belongs to single columns, or to parts of a tensor."""
        inputs = self.inputs
        of_columns = inputs.col or inputs.indices or inputs.taken
        return not (of_columns or self.results.col_sums or self.sampled or self.halved)

    @property
    def memory_format(self) -> MemoryFormat:
        """Which memory formats the kernel accepts.

        Channels spread along rows and columns are computed from an element's index in a contiguous tensor. A
        random number is computed from the element's index in memory.
        """
        parts = [k for k in self.parts if k.form != "columns"]
        if self.grouped:
            return "grouped" if all(k.flat or k.outer for k in self.parts) else "contiguous"
        if any(k.inputs.spread or k.results.run_sums for k in parts):
            return "contiguous"
        if all(k.flat for k in parts):
            return "any"
        if any(k.sampled for k in parts):  # whole matrices of a contiguous tensor
            return "packed"
        return "strided" if all(k.flat or k.outer for k in parts) else "packed"

    def extent(self, name: str) -> str:
        """Return the argument that holds an extent: a sample's kernel has fewer rows than the activation."""
        return "all_rows" if self.sampled and name == "rows" else name

    @property
    def reduces_rows(self) -> bool:
        """Whether a row must be processed as a whole."""
        return any(s.reductions for s in self.stages) or any(r.per_row for r in self.results)

    @property
    def reads_elements(self) -> bool:
        """Whether anything is computed per element, not only per row."""
        return any(s.lines or s.outs for s in self.stages)

    @property
    def reduces(self) -> bool:
        """Whether the threads of a row combine anything: for the row, or for a sum over all elements."""
        return any(s.reductions or s.results.totals for s in self.stages)

    @property
    def droppable(self) -> tuple[Result, ...]:
        """The statistics of rows that a call without derivatives leaves out: their pointers are then null."""
        statistics = [r for r in self.results if r.like is None]
        apart = any(k.form != "columns" for k in self.before)
        apart = apart or any(r not in self.results.row_stores for r in statistics)
        return () if apart else tuple(statistics)

    @property
    def shared_rng(self) -> tuple[KernelOperand, ...]:
        """The random numbers that several stages over a row read: generated once for the whole row."""
        if self.outer and not self.grouped:  # generated again for each element
            return ()
        return tuple(
            f for f in self.inputs.rng if sum(f.name in s.full_reads for s in self.stages) > 1
        )

    @property
    def flat(self) -> bool:
        """Whether no value depends on where a row ends, so that contiguous elements form one long row."""
        by_row = self.inputs.row or self.reduces_rows or self.inputs.spread or self.results.run_sums
        by_col = self.inputs.col or self.inputs.indices or self.results.col_sums
        return not (by_row or by_col or self.inputs.extents or self.sampled)

    @property
    def halved(self) -> bool:
        """Whether it reads or writes parts of a tensor, so that there mostly are gaps."""
        return any(item.access.count > 1 for item in self.strided)

    @property
    def strided(self) -> tuple[KernelOperand | Result, ...]:
        """The inputs and results that may have gaps between rows.

        Parts of a tensor that have the same step count once: their gaps are equal.
        """
        items: tuple[KernelOperand | Result, ...] = (
            *self.inputs.full,
            *self.inputs.aside,
            *self.results.stores,
        )
        return tuple({item.gap: item for item in items if item.strided}.values())
