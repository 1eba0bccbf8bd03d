"""The stages of a kernel: what it computes between two reductions over a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fusegen.lower.kernel.code import Line, Variable
from fusegen.lower.kernel.results import Result, Results


@dataclass(frozen=True)
class RowReduction:
    """A sum or maximum over the row. A stage computes it, and later stages read it as `row.name`."""

    name: str
    op: Literal["sum", "max"]
    value: Variable


@dataclass(frozen=True)
class Stage:
    """One sweep over a row.

    Args:
        index: its number, from 0.
        row_lines: computed once per row, before the sweep.
        lines: computed for each element.
        live: values that later stages read again.
        reads: values of earlier stages that this stage reads.
        reductions: what the stage reduces over the row.
        results: what each element stores, or adds to a sum over the grid.
        provisional: whether its only reduction is a maximum, and the maximum of some of the row's elements
            suffices.
        shifted_by: the maximum of the stage before, if this stage's sums are relative to it.
        rescaled: kept values relative to that maximum, which this stage is the first to read again.
        joined: whether it reduces a sum alone whose mean the next stage subtracts, so that one sweep can find
            both sums (`join_moments.py`), and does nothing else but store what is computed for each element.
        centred: whether it is that next stage.
    """

    index: int
    row_lines: tuple[Line, ...]
    lines: tuple[Line, ...]
    live: tuple[str, ...]
    reads: tuple[str, ...]
    reductions: tuple[RowReduction, ...]
    results: Results
    provisional: bool = False
    shifted_by: str = ""
    rescaled: tuple[str, ...] = ()
    joined: bool = False
    centred: bool = False

    @property
    def outs(self) -> tuple[tuple[str, Variable], ...]:
        """The fields of `Out` that the stage sets, each with its value."""
        given = (r for r in self.results if r.how == "store" or r.adds)
        leaving: tuple[RowReduction | Result, ...] = (*self.reductions, *given)
        return tuple((item.name, item.value) for item in leaving)

    def _element_reads(self) -> Iterator[Variable]:
        """Yield every variable that the elements' code reads."""
        for line in self.lines:
            yield from line.code.reads
        yield from (value for _, value in self.outs)

    def reads_of(self, *structs: str) -> frozenset[str]:
        """Return the members of some structs, such as "full" or "col", that the elements' code reads."""
        return frozenset(v.name for v in self._element_reads() if v.struct in structs)

    @property
    def full_reads(self) -> frozenset[str]:
        """The full inputs that the stage's code reads."""
        return self.reads_of("full")

    @property
    def purpose(self) -> str:
        """What the stage is for, in words."""
        found = [f"the {'largest' if r.op == 'max' else 'sum'} {r.name}" for r in self.reductions]
        return ", ".join([*found, *(r.name for r in self.results)])
