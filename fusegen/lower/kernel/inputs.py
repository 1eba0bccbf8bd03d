"""A kernel's inputs and stages, and the fields that its element functions are given."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.stage import Element, Field, FittedFunction, Line, Result, Stage
from fusegen.program import Kind


@dataclass(frozen=True)
class KernelInputs:
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
    def full_reads(self) -> frozenset[str]:
        """The full inputs that any stage's code reads."""
        return frozenset().union(*(stage.full_reads for stage in self.stages))

    def reads_to(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads where what earlier ones kept is computed again."""
        return frozenset().union(*(s.full_reads for s in self.stages[: stage.index + 1]))
