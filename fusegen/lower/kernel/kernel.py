"""A kernel: the loops it needs, what it is given, computes and writes. No sympy from here on."""

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

#: How the elements may lie for a kernel, each a case of the next: one dim after the other; columns together
#: with nothing after them, rows and columns each in their own order; the same, but with rows after the
#: columns too; in any order without gaps.
MemoryFormat = Literal["contiguous", "packed", "strided", "any"]


@dataclass(frozen=True)
class Kernel:
    """One kernel: its inputs, what is computed once a call, a column and a row, its stages and results.

    Args:
        name: "forward", "backward", …
        inputs: what it is given.
        col_lines, scalar_lines: fields of `Col` and `Scalar` that are computed from the loaded ones.
        stages: at least one, but for a kernel over columns alone.
        total_lines: fields of `Total` that follow from the sums over the grid.
        results: what is written, in the order of the operator's outputs, saved statistics last.
        fitted: functions that the stages call.
        comment: the program, a line a node.
        signature, returns: its inputs and outputs in words.
        apart: whether the columns of a row may lie apart in memory.
        sampled: whether it runs over the rows of a sample alone.
        before: the kernels that leave what this one reads of columns and sums over rows, in order.
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
        """What an element holds from stage to stage."""
        return LiveValues(self.inputs, self.stages)

    @property
    def struct(self) -> str:
        """The name of its struct of element functions: `backward_train` is `BackwardTrain`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def parts(self) -> tuple[Kernel, ...]:
        """The kernels that run in one call, in order."""
        return (*self.before, self)

    @property
    def form(self) -> Literal["flat", "pointwise", "along", "rows", "columns"]:
        """Which loops it needs: over one long row, down the columns, along each row for its statistics, over
        each row as a whole, or over the columns alone, without the activation."""
        if not self.stages:
            return "columns"
        if self.reduces_rows or self.inputs.spread or self.results.run_sums:
            return "rows"
        if self.inputs.saved_rows and not (
            self.inputs.col or self.inputs.saved_cols or self.results.col_sums
        ):
            return "along"
        return "flat" if self.flat and not self.halved else "pointwise"

    @property
    def outer(self) -> bool:
        """Whether it needs loops for rows whose columns lie apart, beside those over a row as a whole."""
        return self.apart and not self.flat

    @property
    def memory_format(self) -> MemoryFormat:
        """How elements may lie in memory.

        Channels spread along rows and columns are known by an element's place where the tensor is contiguous,
        a draw by the place where the element lies.
        """
        parts = [k for k in self.parts if k.form != "columns"]
        if any(k.inputs.spread or k.results.run_sums for k in parts):
            return "contiguous"
        if all(k.flat for k in parts):
            return "any"
        if any(k.sampled for k in parts):  # whole matrices of a contiguous tensor
            return "packed"
        return "strided" if all(k.flat or k.outer for k in parts) else "packed"

    def extent(self, name: str) -> str:
        """Return the argument that holds an extent: a sample's kernel has other rows than the activation."""
        return "all_rows" if self.sampled and name == "rows" else name

    @property
    def reduces_rows(self) -> bool:
        """Whether a row must be seen as a whole."""
        return any(s.reductions for s in self.stages) or any(r.per_row for r in self.results)

    @property
    def reads_elements(self) -> bool:
        """Whether anything is computed for each element, not for each row alone."""
        return any(s.lines or s.outs for s in self.stages)

    @property
    def block_reductions(self) -> tuple[str, ...]:
        """The names of what each block of a row is reduced to, over all stages."""
        found: list[str] = []
        for stage in self.stages:
            found += [r.block for r in stage.reductions]
            found += [r.block for r in stage.results.totals]
        return tuple(found)

    @property
    def droppable(self) -> tuple[Result, ...]:
        """The statistics of rows: their pointers are null in a call that no derivative will follow."""
        statistics = [r for r in self.results if r.like is None]
        apart = any(k.form != "columns" for k in self.before)
        apart = apart or any(r not in self.results.row_stores for r in statistics)
        return () if apart else tuple(statistics)

    @property
    def shared_rng(self) -> tuple[KernelOperand, ...]:
        """The draws that several stages over a row read: made once, for the whole row."""
        if self.outer:  # drawn anew for each element
            return ()
        return tuple(
            f for f in self.inputs.rng if sum(f.name in s.full_reads for s in self.stages) > 1
        )

    @property
    def flat(self) -> bool:
        """Whether no value depends on where a row ends, so that what lies together is one long row."""
        by_row = (
            self.inputs.row
            or self.inputs.saved_rows
            or self.reduces_rows
            or self.inputs.spread
            or self.results.run_sums
        )
        by_col = (
            self.inputs.col
            or self.inputs.saved_cols
            or self.inputs.indices
            or self.results.col_sums
        )
        return not (by_row or by_col or self.inputs.extents or self.sampled)

    @property
    def halved(self) -> bool:
        """Whether it reads or writes halves of a tensor, so that there always are gaps."""
        return any(item.half for item in self.strided)

    @property
    def strided(self) -> tuple[KernelOperand | Result, ...]:
        """The inputs and results between whose rows there may be gaps: of two halves one, which lie alike."""
        items: tuple[KernelOperand | Result, ...] = (
            *self.inputs.full,
            *self.inputs.aside,
            *self.results.stores,
        )
        return tuple({item.tensor: item for item in items if item.strided}.values())
