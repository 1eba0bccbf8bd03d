"""A kernel's inputs, by the axes they vary along and by their source."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.operand import Element, KernelOperand
from fusegen.program import Kind


@dataclass(frozen=True)
class Inputs:
    """What a kernel is given.

    Args:
        operands: the tensors and statistics that the mathematics reads, in the program's order, statistics
            last.
        taken: single elements of inputs, one per row.
        aside: the tensors of which only single elements are read.
        attributes: numbers that the call passes, and whether cotangents are present.
        rng: random numbers; they are generated, not loaded.
        extents: the activation's extents that the mathematics uses ("rows", "cols", "sample").
        indices: "column" if the mathematics uses the number of the column.
    """

    operands: tuple[KernelOperand, ...] = ()
    taken: tuple[Element, ...] = ()
    aside: tuple[KernelOperand, ...] = ()
    attributes: tuple[KernelOperand, ...] = ()
    rng: tuple[KernelOperand, ...] = ()
    extents: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()

    def of(self, kind: Kind) -> tuple[KernelOperand, ...]:
        """Return the operands of a kind."""
        return tuple(f for f in self.operands if f.kind == kind)

    @property
    def full(self) -> tuple[KernelOperand, ...]:
        """The tensors with a number for each element."""
        return tuple(f for f in self.of(Kind.FULL) if not f.spread)

    @property
    def spread(self) -> tuple[KernelOperand, ...]:
        """The tensors with a number per channel that vary along rows and columns."""
        return tuple(f for f in self.of(Kind.FULL) if f.spread)

    @property
    def col(self) -> tuple[KernelOperand, ...]:
        """What is loaded for each column."""
        return self.of(Kind.COL)

    @property
    def row(self) -> tuple[KernelOperand, ...]:
        """What is loaded for each row."""
        return self.of(Kind.ROW)

    @property
    def scalar(self) -> tuple[KernelOperand, ...]:
        """What is loaded once."""
        return self.of(Kind.SCALAR)

    @property
    def saved(self) -> tuple[KernelOperand, ...]:
        """The statistics that the forward pass saved or an earlier kernel left."""
        return tuple(f for f in self.operands if f.saved)

    @property
    def tensors(self) -> tuple[KernelOperand, ...]:
        """Every tensor, those with a number for each element first."""
        found = (*self.full, *self.spread, *self.col, *self.row, *self.aside, *self.scalar)
        return tuple(f for f in found if not f.saved)

    @property
    def addressed(self) -> tuple[KernelOperand, ...]:
        """A tensor for each argument with an address."""
        return tuple({f.argument: f for f in reversed(self.tensors)}.values())[::-1]
