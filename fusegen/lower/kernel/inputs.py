"""A kernel's inputs, by the axes they vary along and by their source."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.operand import Element, KernelOperand
from fusegen.program import Kind


@dataclass(frozen=True)
class Inputs:
    """What a kernel is given.

    Args:
        full, col, row, scalar: the tensor inputs of each kind that the mathematics reads.
        spread: inputs with one number per channel that vary along rows and columns.
        taken: single elements of inputs, one per row.
        aside: the tensor inputs of which only single elements are read.
        saved: statistics that the forward pass saved or an earlier kernel left, in the compute type.
        attributes: numbers that the call passes.
        rng: random numbers; they are generated, not loaded.
        extents: the activation's extents that the mathematics uses ("rows", "cols", "sample").
        indices: "column" if the mathematics uses the number of the column.
    """

    full: tuple[KernelOperand, ...] = ()
    spread: tuple[KernelOperand, ...] = ()
    col: tuple[KernelOperand, ...] = ()
    row: tuple[KernelOperand, ...] = ()
    scalar: tuple[KernelOperand, ...] = ()
    taken: tuple[Element, ...] = ()
    aside: tuple[KernelOperand, ...] = ()
    saved: tuple[KernelOperand, ...] = ()
    attributes: tuple[KernelOperand, ...] = ()
    rng: tuple[KernelOperand, ...] = ()
    extents: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[KernelOperand, ...]:
        """Every tensor input except saved statistics."""
        return (*self.arrays, *self.scalar)

    @property
    def addressed(self) -> tuple[KernelOperand, ...]:
        """A tensor input for each argument with an address."""
        return tuple({f.argument: f for f in reversed(self.tensors)}.values())[::-1]

    @property
    def arrays(self) -> tuple[KernelOperand, ...]:
        """The tensor inputs with more than one number."""
        return (*self.full, *self.spread, *self.col, *self.row, *self.aside)

    @property
    def saved_rows(self) -> tuple[KernelOperand, ...]:
        """The saved statistics with one value per row."""
        return tuple(f for f in self.saved if f.kind == Kind.ROW)

    @property
    def saved_cols(self) -> tuple[KernelOperand, ...]:
        """The saved statistics with one value per column."""
        return tuple(f for f in self.saved if f.kind == Kind.COL)

    @property
    def saved_totals(self) -> tuple[KernelOperand, ...]:
        """The saved statistics that are a single number."""
        return tuple(f for f in self.saved if f.kind == Kind.SCALAR)
